"""Fixtures for tests that run real processes."""

import asyncio
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from footplate_daemon import lifecycle, processes, wire
from footplate_daemon.client import FootplateClient
from footplate_daemon.paths import Paths

# How long an example takes, and to think of one, depends on what else the machine does.
settings.register_profile(
    "steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")


def pytest_configure() -> None:
    """Hear Ctrl-C: what a shell runs in the background is born deaf to it, with all that tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def home() -> Iterator[Paths]:
    """A Footplate of its own, not started; nothing of it is left afterwards."""
    with fresh_home() as paths:
        yield paths


@pytest.fixture(scope="module")
def running_home() -> Iterator[Paths]:
    """A Footplate that is up, with the guide loaded, shared by the tests of a module: leave it so."""
    with fresh_home() as paths:
        lifecycle.up(paths)
        asyncio.run(ready_engine(paths))
        yield paths


@contextmanager
def fresh_home() -> Iterator[Paths]:
    """Give a home on a path short enough for a socket; take everything down at the end and check that."""
    root = Path(tempfile.mkdtemp(prefix="fp", dir="/tmp"))
    paths = paths_in(root)
    try:
        yield paths
    finally:
        lifecycle.down(paths)
        left = leftovers(paths)
        shutil.rmtree(root)
    assert left == []


def leftovers(paths: Paths) -> list[object]:
    """List what may not be there when Footplate is down: processes, sockets, pid files, records."""
    marked = processes.with_environment(f"SUPERVISOR_SERVER_URL=unix://{paths.supervisor_socket}")
    files = [
        file for file in paths.run_dir.rglob("*") if file.name not in ("supervisor.conf", "lifecycle.lock")
    ]
    return [*marked, *(file for file in files if file != paths.engines_dir)]


def paths_in(root: Path) -> Paths:
    """Give the paths of a Footplate whose home is this folder."""
    return Paths.from_environment({"FOOTPLATE_HOME": str(root)})


async def ready_engine(paths: Paths) -> wire.Engine:
    """Return the first engine that is ready."""
    async with asyncio.timeout(60), FootplateClient(paths.socket) as client:
        async for status in client.follow_status():
            for engine in status.engines:
                if engine.state is wire.EngineState.READY:
                    return engine
    raise AssertionError("The daemon went away before an engine was ready.")
