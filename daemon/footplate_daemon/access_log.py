"""The access log: one JSON object a line for each request, written in groups off the event loop.

It holds names of keys, never keys. At most `FLUSH_SECONDS` of it are lost to `kill -9`. A disk that is
full costs lines, never a request.
"""

import asyncio
import itertools
import json
import logging
import os
import re
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

import orjson

from footplate_daemon.settings import MASK
from footplate_daemon.wire import KEY_START

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 0.5
LIMIT_BYTES = 10_000_000
"""A file that would grow beyond this is put aside."""
FILES = 5
"""Those that are kept, the newest among them: `access.log`, `access.log.1`…"""
KEPT_WHILE_BUSY = 100_000
"""Records that wait to be written; of more, the oldest are dropped."""
LONGEST_TEXT = 300
"""Characters of what a client made up: a path, the name of a model."""
KEY_NAME = re.compile(r"key|token|secret|passw|credential|auth|signature", re.IGNORECASE)
KEY_VALUE = re.compile(rf"^(sk-|{KEY_START}|bearer\b)|^[A-Za-z0-9_+/=.~-]{{32,}}$", re.IGNORECASE)


class AccessRecord(NamedTuple):
    """One request with what became of it."""

    at: float
    """When it came: seconds since the epoch."""
    method: str
    target: str
    """Path and query as they were sent; what looks like a key in the query is masked when it is written."""
    status: int
    """HTTP's; 0 when the client left before there was one."""
    seconds: float
    bytes_in: int
    bytes_out: int
    client: str | None = None
    """The name of its key, or the local user at the other end of the socket."""
    peer: str | None = None
    """The address it came from, by TCP."""
    request_id: str | None = None
    model: str | None = None
    """As it was asked for."""
    variant: str | None = None
    outcome: str | None = None


class AccessLog:
    """Takes records at any time; `run` writes them."""

    def __init__(
        self, file: Path, *, is_on: bool = True, limit_bytes: int = LIMIT_BYTES, files: int = FILES
    ) -> None:
        self.is_on = is_on
        """May be changed at any time."""
        self._file = file
        self._limit_bytes = limit_bytes
        self._files = files
        self._waiting: deque[AccessRecord] = deque(maxlen=KEPT_WHILE_BUSY)
        self._has_warned = False

    def note(self, record: AccessRecord) -> None:
        """Have a record written soon; costs next to nothing."""
        if self.is_on:
            self._waiting.append(record)

    async def run(self) -> None:
        """Write what was noted, until cancelled; then write the rest."""
        try:
            while True:
                await asyncio.sleep(FLUSH_SECONDS)
                await self.flush()
        finally:
            await self.flush()

    async def flush(self) -> None:
        """Write what was noted so far; drop it where that fails, with one warning until it succeeds again."""
        if not self._waiting:
            return
        group = list(self._waiting)
        self._waiting.clear()
        try:
            await asyncio.to_thread(self._write, group)
        except OSError as error:
            if not self._has_warned:
                logger.warning("the access log is not written", extra={"cause": str(error)})
            self._has_warned = True
        else:
            self._has_warned = False

    def _write(self, group: list[AccessRecord]) -> None:
        text = b"".join(_line(record) for record in group)
        self._make_room(len(text))
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _append(descriptor, text)
        finally:
            os.close(descriptor)

    def _make_room(self, more_bytes: int) -> None:
        size = self._file.stat().st_size if self._file.exists() else 0
        if not size or size + more_bytes <= self._limit_bytes:
            return
        names = [self._file, *(_older(self._file, number) for number in range(1, self._files))]
        for younger, older in reversed(list(itertools.pairwise(names))):
            if younger.exists():
                younger.replace(older)


def render(line: str) -> str:
    """Write one line for a person; one that is not ours stays as it is."""
    try:
        entry = json.loads(line)
        words = list(_words(entry))
    except (ValueError, TypeError, KeyError):
        return _harmless(line.rstrip("\n"))
    return _harmless("  ".join(words))


def _line(record: AccessRecord) -> bytes:
    entry = {
        "time": round(record.at, 3),
        "client": record.client,
        "peer": record.peer,
        "method": record.method[:LONGEST_TEXT],
        "path": (_masked(record.target) if "?" in record.target else record.target)[:LONGEST_TEXT],
        "status": record.status,
        "seconds": round(record.seconds, 6),
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
        "request_id": record.request_id,
        "model": None if record.model is None else record.model[:LONGEST_TEXT],
        "variant": record.variant,
        "outcome": record.outcome,
    }
    said = {name: value for name, value in entry.items() if value is not None}
    try:
        return orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # half a character
        return json.dumps(said).encode() + b"\n"


def _masked(target: str) -> str:
    """Leave out of a query what looks like a key, by its name or by itself."""
    path, mark, query = target.partition("?")
    return path + mark + "&".join(_masked_parameter(parameter) for parameter in query.split("&"))


def _masked_parameter(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    if not equals:
        return MASK if KEY_VALUE.search(unquote_plus(name)) else parameter
    is_key = KEY_NAME.search(unquote_plus(name)) or KEY_VALUE.search(unquote_plus(value))
    return f"{name}={MASK}" if is_key else parameter


def _append(descriptor: int, text: bytes) -> None:
    """Write all of it or nothing: half a line would spoil the next one."""
    before = os.fstat(descriptor).st_size
    left = memoryview(text)
    try:
        while left:
            left = left[os.write(descriptor, left) :]
    except OSError:
        os.ftruncate(descriptor, before)
        raise


def _older(file: Path, number: int) -> Path:
    return file.with_name(f"{file.name}.{number}")


def _words(entry: dict[str, Any]) -> Iterator[str]:
    at = datetime.fromtimestamp(entry["time"]).astimezone()
    yield at.isoformat(" ", "milliseconds")[:23]
    yield "@".join(str(entry[who]) for who in ("client", "peer") if who in entry) or "-"
    yield f"{entry['method']} {entry['path']}"
    yield f"{entry['status']}"
    yield f"{entry['seconds']:.3f} s"
    yield f"{entry['bytes_in']} B in, {entry['bytes_out']} B out"
    for name in ("variant", "outcome", "request_id"):
        if name in entry:
            yield str(entry[name])


def _harmless(text: str) -> str:
    """Write out what would move a terminal's cursor."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
