"""A batch's output and error file: append-only, on the disk before anybody is told, mended after a crash.

Everything here blocks: call it from a thread.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from footplate_daemon.batches.lines import Result, read_result
from footplate_daemon.errors import Unavailable

Fault = Callable[[str], None]
"""Called at every step that must not be the last one; a test's may end everything there."""


def no_fault(_step: str) -> None:
    """Go on."""


class DiskFull(Unavailable):
    """There is no room for what a batch has to write."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a line lies in a file."""

    offset: int
    length: int


class OutputFile:
    """One file that grows by whole lines."""

    def __init__(self, path: Path, length: int, fault: Fault = no_fault) -> None:
        """`length` is how much of it is known to be good; the file is made if it is not there."""
        self.path = path
        self.length = length
        self._fault = fault
        self._descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)

    def append(self, lines: Sequence[bytes]) -> list[Place]:
        """Write lines, and return once they are on the disk; raise `DiskFull` and write none."""
        places, offset = [], self.length
        for line in lines:
            places.append(Place(offset, len(line)))
            offset += len(line)
        try:
            self._fault("before append")
            self._write(b"".join(lines))
            self._fault("between append and sync")
            os.fdatasync(self._descriptor)
        except OSError as error:
            self._cut(self.length)
            raise _not_written(self.path, error) from error
        self._fault("after sync")
        self.length = offset
        return places

    def _write(self, data: bytes) -> None:
        rest, offset = memoryview(data), self.length
        if len(rest) > 1:
            # Two writes, as the system may make of one: what a crash leaves may end within a line.
            half = len(rest) // 2
            offset += os.pwrite(self._descriptor, rest[:half], offset)
            self._fault("within append")
            rest = rest[offset - self.length :]
        while rest:
            written = os.pwrite(self._descriptor, rest, offset)
            rest, offset = rest[written:], offset + written

    def _cut(self, length: int) -> None:
        os.ftruncate(self._descriptor, length)

    def tail(self, most: int) -> list[tuple[Result, Place]]:
        """Give whole lines beyond what is known: at most so many, none after one that is torn."""
        found, offset = [], self.length
        with os.fdopen(os.dup(self._descriptor), "rb") as source:
            source.seek(offset)
            for raw in islice(source, most):
                result = read_result(raw) if raw.endswith(b"\n") else None
                if result is None:
                    break
                found.append((result, Place(offset, len(raw))))
                offset += len(raw)
        return found

    def know(self, places: Sequence[Place]) -> None:
        """Take lines of the tail as good."""
        if places:
            self.length = places[-1].offset + places[-1].length

    def cut_tail(self) -> None:
        """Cut off all beyond what is known: it was told to nobody, and is asked again."""
        self._cut(self.length)
        os.fdatasync(self._descriptor)

    @property
    def is_shorter_than_known(self) -> bool:
        """Whether something is lost that was on the disk once."""
        return os.fstat(self._descriptor).st_size < self.length

    def forget(self) -> None:
        """Begin anew, from the first line: `tail` finds what is still good."""
        self.length = 0

    def close(self) -> None:
        """Close the file; it stays."""
        os.close(self._descriptor)


def read_at(path: Path, offset: int, length: int) -> bytes:
    """Read a piece of a file; raise `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Have the names of new files survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(folder: Path) -> int:
    """Give how much more may be written there."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _not_written(path: Path, error: OSError) -> DiskFull:
    return DiskFull(
        f"{path.parent} cannot be written to: {error.strerror or error}.",
        hint="Free disk space: the batch goes on by itself.",
    )
