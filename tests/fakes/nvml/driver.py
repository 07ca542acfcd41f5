"""The hands on the fake driver: build its library, say what it answers, run a test's body under it.

The library is found as a real one is, by the dynamic linker, which reads LD_LIBRARY_PATH only when a
program starts. So a body runs in a process of its own.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("nvml.c")
REPOSITORY = Path(__file__).parents[3]
LIBRARY = "libnvidia-ml.so.1"
GIB = 1024**3

Body = Callable[["FakeDriver"], Awaitable[None]]
BODIES: dict[tuple[str, str], Body] = {}
"""Every test's body by its name; a process of its own finds it here after importing the test's module."""


class FakeDriver:
    """What the driver answers; two GPUs to begin with, nothing on them."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.values: dict[str, object] = {"count": 2, "driver": "570.86.15", **gpu(0), **gpu(1)}
        self.change({})

    def change(self, values: Mapping[str, object]) -> None:
        """Set some values, all at once; None makes one unsupported."""
        self.values.update(values)
        lines = [f"{key}={value}\n" for key, value in self.values.items() if value is not None]
        draft = self.file.with_suffix(".draft")
        draft.write_text("".join(lines))
        draft.replace(self.file)


def gpu(index: int) -> dict[str, object]:
    """Give a GPU of 24 GiB that supports everything."""
    values = {
        "name": f"Fake GPU {index}",
        "uuid": f"GPU-{index}",
        "memory.total": 24 * GIB,
        "memory.reserved": GIB,
        "memory.free": 23 * GIB,
        "utilisation": 37,
        "temperature": 61,
        "temperature.limit": 90,
        "power": 215_500,
        "power.limit": 350_000,
        "energy": 3_600_000_000,
        "clock.sm": 1905,
        "clock.sm.limit": 2520,
        "clock.memory": 9751,
        "pcie.generation": 4,
        "pcie.lanes": 16,
        "pcie.rx": 1200,
        "pcie.tx": 300,
        "throttle": 0x4 | 0x20,
        "fan": 45,
        "compute": "",
        "graphics": "",
    }
    return {f"{index}.{key}": value for key, value in values.items()}


def build(folder: Path) -> Path:
    """Compile the library into this folder; skip the test where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("the fake driver is written in C, and there is no C compiler (cc) here")
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{LIBRARY}"]
    subprocess.run([*command, "-o", str(folder / LIBRARY), str(SOURCE)], check=True)
    return folder


def with_driver(body: Body) -> Callable[[Path, Path], None]:
    """Make a test of a body that runs where the fake driver is installed."""

    def test(nvml_folder: Path, tmp_path: Path) -> None:
        _run(body, nvml_folder, tmp_path)

    return _named(test, body)


def without_driver(body: Body) -> Callable[[Path], None]:
    """Make a test of a body that runs where no driver can be loaded, whatever this machine has."""

    def test(tmp_path: Path) -> None:
        (tmp_path / LIBRARY).touch()
        _run(body, tmp_path, tmp_path)

    return _named(test, body)


def _named(test: Callable[..., None], body: Body) -> Callable[..., None]:
    BODIES[body.__module__, body.__name__] = body
    test.__name__, test.__module__ = body.__name__, body.__module__
    return test


def _run(body: Body, library_folder: Path, tmp_path: Path) -> None:
    state = tmp_path / "driver"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.fakes.nvml.child", body.__module__, body.__name__],
        cwd=REPOSITORY,
        env={**os.environ, "LD_LIBRARY_PATH": str(library_folder), "FOOTPLATE_FAKE_NVML": str(state)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        start_new_session=True,
    )
    assert done.returncode == 0, done.stderr
