"""A Footplate with more models than the guide: a second one, a damaged one, and some that behave badly."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from footplate_daemon import guide, lifecycle
from footplate_daemon.paths import Paths
from tests.conftest import fresh_home, ready_engine

SECONDS = 180
CONFIG = f"""
[models.endless.llamacpp]
weights = "{guide.path()}"
command = ["sh", "-c", "echo reading the weights; exec sleep 600"]

[models.greedy.llamacpp]
weights = "{guide.path()}"
context = 4096
command = ["sh", "-c", '''
  case "$*" in *"ctx-size 4096"*) echo "std::bad_alloc"; exit 1;; esac
  exec "{sys.executable}" -m footplate_daemon.runtimes.embedded \
    --model "$0" --port "$1" --alias greedy''', "{{model}}", "{{port}}", "{{args}}"]
"""


@dataclass(frozen=True)
class Shell:
    """Runs `footplate …` as a shell does, in a pipe."""

    paths: Paths

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "footplate_tui", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-u", "-m", "footplate_tui", *words],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "FOOTPLATE_HOME": str(self.paths.run_dir.parent)}


@pytest.fixture(scope="module")
def started() -> Iterator[Shell]:
    with fresh_home() as paths:
        paths.make()
        whole = guide.path().read_bytes()
        (paths.models_dir / "second.gguf").write_bytes(whole)
        (paths.models_dir / "broken.gguf").write_bytes(whole[:300_000])
        paths.config_file.write_text(CONFIG)
        lifecycle.up(paths)
        asyncio.run(ready_engine(paths))
        yield Shell(paths)


@pytest.fixture
def footplate(started: Shell) -> Shell:
    """The command, with the guide active."""
    assert started("switch", "guide").returncode == 0
    return started
