"""The files of a batch, fetched: straight to where they are wanted, or in the order of the input's lines.

What was answered is never held in memory: it may be much larger.
"""

import os
import sys
import tempfile
from codecs import getincrementaldecoder
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol, TextIO

import click
import orjson

from footplate_daemon.errors import Conflict, NotFound
from footplate_daemon.wire_batches import Batch
from footplate_tui.harmless import harmless


class Target(Protocol):
    """Where lines are written."""

    def write(self, data: bytes, /) -> object:
        """Write some more."""


class Files(Protocol):
    """Where the files are."""

    def file_content(self, file_id: str) -> AsyncIterator[bytes]:
        """Yield a file by pieces."""


class Screen:
    """A terminal, which what a model said must not command."""

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal
        self._decoder = getincrementaldecoder("utf-8")("replace")

    def write(self, data: bytes, /) -> None:
        """Write it without harm."""
        self._terminal.write(harmless(self._decoder.decode(data)))


@contextmanager
def sink(path: Path | None) -> Iterator[Target]:
    """Give where to write: stdout, or a file that is there only once it is whole."""
    if path is None or str(path) == "-":
        yield Screen(sys.stdout) if sys.stdout.isatty() else sys.stdout.buffer
        sys.stdout.flush()
        return
    try:
        with _beside(path) as unfinished:
            yield unfinished
    except OSError as error:
        raise click.FileError(str(path), error.strerror) from error


def wanted_files(batch: Batch, *, errors: bool, everything: bool) -> list[str]:
    """Give the ids of the files that are wanted; raise when there is none, with a way out."""
    chosen = [batch.output_file_id] if not errors or everything else []
    chosen += [batch.error_file_id] if errors or everything else []
    found = [file_id for file_id in chosen if file_id]
    if found:
        return found
    if not batch.status.is_final:
        hint = f"Wait for its end: footplate batch show {batch.id} --follow"
        raise Conflict(f"{batch.id} has not ended.", hint=hint)
    if errors:
        raise NotFound(f"No line of {batch.id} has failed.", hint="Its answers: leave out --errors.")
    way_out = "--errors" if batch.error_file_id else f"footplate batch show {batch.id}"
    raise NotFound(f"No line of {batch.id} was answered.", hint=f"Why: {way_out}")


async def copy(files: Files, file_ids: Sequence[str], target: Target) -> None:
    """Write the files one after the other, as they come."""
    for file_id in file_ids:
        async for piece in files.file_content(file_id):
            target.write(piece)


async def copy_ordered(
    files: Files, file_ids: Sequence[str], input_id: str, target: Target, *, folder: Path | None = None
) -> None:
    """Write the lines of the files in the order in which the input asks for them.

    Meanwhile they lie in a folder where there is room for them: the one of the target.
    """
    with tempfile.TemporaryFile(dir=folder) as kept:
        places = await _keep(files, file_ids, kept)
        async for line in lines_of(files.file_content(input_id)):
            place = places.pop(_custom_id(line), None)
            if place is not None:
                offset, length = place
                kept.seek(offset)
                target.write(kept.read(length))


async def lines_of(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the lines of what comes in pieces, without their ends; empty ones are left out."""
    begun: list[bytes] = []
    async for piece in pieces:
        first, *more = piece.split(b"\n")
        begun.append(first)
        for following in more:
            if line := b"".join(begun):
                yield line
            begun = [following]
    if line := b"".join(begun):
        yield line


async def _keep(files: Files, file_ids: Sequence[str], kept: IO[bytes]) -> dict[str | None, tuple[int, int]]:
    """Put the lines of the files on the disk; give where each is, by its `custom_id`."""
    places: dict[str | None, tuple[int, int]] = {}
    offset = 0
    for file_id in file_ids:
        async for line in lines_of(files.file_content(file_id)):
            length = kept.write(line + b"\n")
            places[_custom_id(line)] = (offset, length)
            offset += length
    return places


def _custom_id(line: bytes) -> str | None:
    try:
        parsed: Any = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    found = parsed.get("custom_id") if isinstance(parsed, dict) else None
    return found if isinstance(found, str) else None


@contextmanager
def _beside(path: Path) -> Iterator[IO[bytes]]:
    """Give a file in the same folder, which takes the name at the end, and else is gone."""
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False
    ) as unfinished:
        try:
            yield unfinished
        except BaseException:
            Path(unfinished.name).unlink()
            raise
    umask = os.umask(0)
    os.umask(umask)
    Path(unfinished.name).chmod(0o666 & ~umask)
    Path(unfinished.name).replace(path)
