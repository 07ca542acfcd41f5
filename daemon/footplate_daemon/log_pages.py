"""Pages of a log: its last lines, those before them, and what is written from now on.

A place is a file and an offset in it. It holds when the file is put aside: `x.log.1` is the file that was
`x.log`. However long the log is, no more than a page of it is read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from footplate_daemon.errors import Invalid

BLOCK_BYTES = 65_536
LONGEST_BYTES = 1_048_576
"""No page is longer; a line that is comes in pieces."""
LONGEST_PLACE = 40
OLDEST = 9
"""So many files that were put aside are looked for."""


@dataclass(frozen=True)
class Place:
    """Where in a log a line begins."""

    file: int
    """The file's inode; 0 where there is none yet."""
    offset: int

    def __str__(self) -> str:
        return f"{self.file}-{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read what `str` wrote."""
        file, _, offset = text.partition("-")
        if not (file.isdecimal() and offset.isdecimal() and len(text) <= LONGEST_PLACE):
            raise Invalid(
                f"{text!r} is no place in a log.", hint="Send back what a page gave as begin or end."
            )
        return cls(int(file), int(offset))


@dataclass(frozen=True)
class Page:
    """Lines of a log that follow one another."""

    lines: tuple[str, ...]
    begin: Place
    end: Place
    is_first: bool = False
    """Whether nothing is kept from before."""


def page(log: Path, line_count: int, before: Place | None = None) -> Page:
    """Give the last whole lines, or those before a place; never lines of two files at once."""
    files = _files(log)
    number = 0 if before is None else _number_of(before, files)
    if number is None or not files:
        nowhere = before or Place(0, 0)
        return Page((), nowhere, nowhere, is_first=True)
    with files[number].path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        end = size if before is None or before.file != files[number].inode else min(before.offset, size)
        begin, text = _read_back(stream, end, line_count)
    if before is None:
        whole = text.rfind(b"\n") + 1
        text, end = text[:whole], begin + whole
    return Page(
        _lines(text),
        Place(files[number].inode, begin),
        Place(files[number].inode, end),
        is_first=begin == 0 and number == len(files) - 1,
    )


def page_after(log: Path, place: Place, *, takes_unfinished: bool = False) -> Page:
    """Give the whole lines that were written since; `takes_unfinished`: also one that has no end yet."""
    files = _files(log)
    if not files:
        return Page((), place, place)
    number = next((number for number, file in enumerate(files) if file.inode == place.file), None)
    if number is None or place.offset > files[number].size:
        number, place = 0, Place(files[0].inode, 0)
    elif place.offset == files[number].size and number > 0:
        number, place = number - 1, Place(files[number - 1].inode, 0)
    with files[number].path.open("rb") as stream:
        stream.seek(place.offset)
        text = stream.read(LONGEST_BYTES)
    if not (takes_unfinished or number > 0 or (len(text) == LONGEST_BYTES and b"\n" not in text)):
        text = text[: text.rfind(b"\n") + 1]
    return Page(_lines(text), place, Place(files[number].inode, place.offset + len(text)))


def has_more(log: Path, place: Place) -> bool:
    """Say whether anything was written after a place; costs one look at the file's size."""
    try:
        found = log.stat()
    except FileNotFoundError:
        return False
    return found.st_ino != place.file or found.st_size != place.offset


@dataclass(frozen=True)
class _File:
    path: Path
    inode: int
    size: int


def _files(log: Path) -> list[_File]:
    """Give the files of a log, the newest first."""
    found = []
    for path in (log, *(log.with_name(f"{log.name}.{number}") for number in range(1, OLDEST + 1))):
        try:
            is_there = path.stat()
        except FileNotFoundError:
            continue
        found.append(_File(path, is_there.st_ino, is_there.st_size))
    return found


def _number_of(before: Place, files: list[_File]) -> int | None:
    """Give which file has the lines before a place; None when they are not kept any more."""
    for number, file in enumerate(files):
        if file.inode == before.file:
            if before.offset > 0:
                return number
            return number + 1 if number + 1 < len(files) else None
    return None


def _read_back(stream: BinaryIO, end: int, line_count: int) -> tuple[int, bytes]:
    """Give the last lines before `end`, and where they begin."""
    begin, text = end, b""
    while begin > 0 and text.count(b"\n") <= line_count + 1 and len(text) < LONGEST_BYTES:
        step = min(BLOCK_BYTES, begin)
        begin -= step
        stream.seek(begin)
        text = stream.read(step) + text
    if begin > 0:
        cut = text.find(b"\n", 0, len(text) - 1) + 1
        begin, text = begin + cut, text[cut:]
    lines = _split(text)
    last = b"".join(lines[-line_count:]) if line_count else b""
    return end - len(last), last


def _split(text: bytes) -> list[bytes]:
    """Cut after each newline, and nowhere else."""
    lines = [line + b"\n" for line in text.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def _lines(text: bytes) -> tuple[str, ...]:
    lines = text.decode(errors="replace").split("\n")
    return tuple(lines if lines[-1] else lines[:-1])
