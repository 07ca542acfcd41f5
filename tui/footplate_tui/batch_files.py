"""The files of batches on this machine: what is in one before it is sent, and what results are called."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from footplate_daemon import errors
from footplate_daemon.wire_batches import BATCH_FILE_BYTES

LOOKED_AT = 1_000_000
"""Bytes of the beginning: the first line says which endpoint is asked."""


@dataclass(frozen=True)
class Submission:
    """A file that is about to be sent."""

    path: Path
    byte_count: int
    endpoint: str


def look_at(path: Path) -> Submission:
    """Find out what a file asks for (blocks); raise `Invalid` or `NotFound` where it is no batch."""
    try:
        byte_count = path.stat().st_size
        with path.open("rb") as file:
            beginning = file.read(LOOKED_AT)
    except OSError as error:
        raise errors.NotFound(
            f"{path}: {error.strerror}.", hint="Choose a file that you may read."
        ) from error
    if byte_count > BATCH_FILE_BYTES:
        raise errors.TooLarge(
            f"{path.name} is larger than 200 MB.", hint=f"Cut it: footplate batch split {path}"
        )
    return Submission(path, byte_count, _endpoint(path, beginning))


def _endpoint(path: Path, beginning: bytes) -> str:
    hint = 'A line is {"custom_id": …, "method": "POST", "url": "/v1/chat/completions", "body": {…}}.'
    first = next((line for line in beginning.splitlines() if line.strip()), b"")
    if not first:
        raise errors.Invalid(f"{path.name} is empty.", hint=hint)
    try:
        line = json.loads(first)
    except ValueError as error:
        raise errors.Invalid(f"The first line of {path.name} is no JSON.", hint=hint) from error
    url = line.get("url") if isinstance(line, dict) else None
    if not isinstance(url, str):
        raise errors.Invalid(f"The first line of {path.name} names no url.", hint=hint)
    return url


def results_name(input_name: str, taken: Callable[[str], bool]) -> str:
    """Propose a name for results, one that is not taken."""
    stem = Path(input_name).name.removesuffix(".jsonl") or "batch"
    names = (f"{stem}-results{'' if number == 1 else f'-{number}'}.jsonl" for number in count(1))
    return next(name for name in names if not taken(name))


def beside(path: Path) -> Path:
    """Give the file for errors beside the one for answers."""
    return path.with_name(f"{path.stem}-errors{path.suffix}")
