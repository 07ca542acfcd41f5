"""The daemon's command line: environment → settings → `app.run`; nothing else."""

import argparse
import ctypes
import gc
import logging
import os
import resource
import sys

import uvloop

from footplate_daemon import __version__, logs
from footplate_daemon.app import run
from footplate_daemon.errors import FootplateError
from footplate_daemon.paths import Paths
from footplate_daemon.settings import load

logger = logging.getLogger("footplate_daemon")

DESCRIPTORS = 65_536
M_ARENA_MAX = -8
"""glibc's number for it: mallopt(3)."""
CANNOT_START = 2
"""Exit code for what a restart does not mend."""


def main() -> int:
    """Run the daemon in the foreground, as supervisord does."""
    parser = argparse.ArgumentParser(
        prog="footplated", description="Footplate's daemon. Usually started by `footplate up`, not by hand."
    )
    parser.add_argument("--version", action="version", version=f"footplated {__version__}")
    parser.parse_args()
    logs.configure()
    _spare_the_collector()
    _share_one_heap()
    _take_every_descriptor()
    try:
        paths = Paths.from_environment(os.environ)
        paths.make()
        configuration = load(paths.config_file)
        logging.getLogger().setLevel(configuration.daemon.log_level.upper())
        uvloop.run(run(paths, configuration, dict(os.environ)))
    except FootplateError as error:
        logger.error(error.message, extra={"hint": error.hint})  # noqa: TRY400 - a sentence, no trace
        return CANNOT_START
    return 0


def _take_every_descriptor() -> None:
    """Each request holds two connections; the usual soft limit of 1,024 is for programs that use select."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if most == resource.RLIM_INFINITY else min(DESCRIPTORS, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _spare_the_collector() -> None:
    """Leave what was imported out of garbage collection, and collect less often.

    Requests make objects by the dozen and drop them at once, without cycles: with Python's thresholds a fifth
    of the gateway's CPU went into looking through what is always there.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _share_one_heap() -> None:
    """Let all threads allocate from one heap: those that glibc gives each thread grow and shrink with every
    group of rows that is written, which was 5 % of a request's CPU time (`bench/README.md`).

    Other C libraries have no such thing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)


if __name__ == "__main__":
    sys.exit(main())
