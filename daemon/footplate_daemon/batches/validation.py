"""Looks through the input file of a batch, line by line, without ever having all of it in memory.

Blocks: call it from a thread. What is good is handed on in groups; what is wrong is named, all of it.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from footplate_daemon.batches import lines
from footplate_daemon.store.batches import NewLine
from footplate_daemon.wire_batches import MOST_EMBEDDING_INPUTS, MOST_ERRORS, MOST_REQUESTS, BatchError

GROUP = 2000
"""Lines that are handed on at a time."""
BREATH = 20
"""After so many lines others may have the interpreter: they may be streaming to somebody."""
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Limits:
    """What a line and a file may be."""

    line_bytes: int
    requests: int = MOST_REQUESTS
    embedding_inputs: int = MOST_EMBEDDING_INPUTS
    errors: int = MOST_ERRORS


@dataclass
class Findings:
    """What came of it."""

    total: int = 0
    models: list[str] = field(default_factory=list)
    """In the order of their first lines: a line knows its model by the place here."""
    errors: list[BatchError] = field(default_factory=list)
    unnamed_errors: int = 0
    """How many there are beyond those."""

    @property
    def is_good(self) -> bool:
        """Whether everything is right."""
        return not self.errors

    def all_errors(self) -> tuple[BatchError, ...]:
        """Give the errors, and at their end how many are not among them."""
        if not self.unnamed_errors:
            return tuple(self.errors)
        message = f"There are {self.unnamed_errors} more errors, which are not listed."
        return (*self.errors, BatchError(code="too_many_errors", message=message))


class Stopped(Exception):
    """Whoever wanted the file looked through wants it no more."""


class Validation:
    """One way through one file."""

    def __init__(
        self,
        endpoint: str,
        limits: Limits,
        judge: Callable[[str], BatchError | None],
        hand_on: Callable[[Sequence[NewLine]], None],
    ) -> None:
        """`judge` says what is wrong with a model; `hand_on` stores good lines, and may raise `Stopped`."""
        self.read_bytes = 0
        """How far it has come; to be read from other threads."""
        self._endpoint = endpoint
        self._limits = limits
        self._judge = judge
        self._hand_on = hand_on
        self._found = Findings()
        self._first_with: dict[int, int] = {}
        """Digest of a custom_id → the line that had it first."""
        self._judged: dict[str, BatchError | None] = {}
        self._places: dict[str, int] = {}
        self._group: list[NewLine] = []
        self._inputs = 0

    def run(self, path: Path) -> Findings:
        """Look through a file; raise `OSError` if it cannot be read."""
        found, limit = self._found, self._limits.line_bytes
        number, offset = 0, 0
        with path.open("rb", buffering=1024 * 1024) as source:
            while raw := source.readline(limit + 1):
                number += 1
                length = len(raw)
                if length > limit and not raw.endswith(b"\n"):
                    length += _skip_line(source, limit)
                    message = f"This line is longer than {limit // (1024 * 1024)} MiB."
                    self._refuse([BatchError(code="invalid_request", message=message, line=number)])
                else:
                    self._look_at(raw, number, offset)
                offset += length
                self.read_bytes = offset
                if number % BREATH == 0:
                    time.sleep(0)
                if found.total > self._limits.requests:
                    self._refuse([self._too_many()])
                    return found
        if not found.total:
            self._refuse([BatchError(code="empty_file", message="The file holds no requests.")])
        if self._inputs > self._limits.embedding_inputs:
            message = f"The batch holds more than {self._limits.embedding_inputs} inputs to embed."
            self._refuse([BatchError(code="too_many_tasks", message=message)])
        self._flush()
        return found

    def _look_at(self, raw: bytes, number: int, offset: int) -> None:
        text = raw.removeprefix(BOM) if number == 1 else raw
        offset += len(raw) - len(text)
        if not text.strip():
            return
        self._found.total += 1
        request = lines.read(text, self._endpoint, number)
        if isinstance(request, list):
            self._refuse(request)
            return
        wrong = [*self._repeated(request.custom_id, number), *self._bad_model(request.model, number)]
        self._inputs += request.inputs
        if wrong:
            self._refuse(wrong)
        elif self._found.is_good:  # else nothing will be asked, and needs no row
            place = self._places.setdefault(request.model, len(self._places))
            if place == len(self._found.models):
                self._found.models.append(request.model)
            self._group.append(NewLine(number, offset, len(text), request.custom_id, place, request.prefix))
            if len(self._group) >= GROUP:
                self._flush()

    def _repeated(self, custom_id: str, number: int) -> list[BatchError]:
        digest = int.from_bytes(hashlib.blake2b(custom_id.encode(), digest_size=12).digest())
        first = self._first_with.setdefault(digest, number)
        if first == number:
            return []
        message = f"The custom_id '{custom_id[:100]}' is that of line {first}: it must be unique in the file."
        return [BatchError(code="duplicate_custom_id", message=message, param="custom_id", line=number)]

    def _bad_model(self, model: str, number: int) -> list[BatchError]:
        if model not in self._judged:
            self._judged[model] = self._judge(model)
        error = self._judged[model]
        return [] if error is None else [error.model_copy(update={"line": number})]

    def _refuse(self, wrong: Sequence[BatchError]) -> None:
        room = self._limits.errors - len(self._found.errors)
        self._found.errors += wrong[:room]
        self._found.unnamed_errors += max(0, len(wrong) - room)

    def _too_many(self) -> BatchError:
        message = f"The file holds more than {self._limits.requests} requests."
        return BatchError(code="too_many_tasks", message=message)

    def _flush(self) -> None:
        group, self._group = self._group, []
        self._hand_on(group)


def _skip_line(source: BinaryIO, piece: int) -> int:
    """Read to the end of the line; say how much that was."""
    skipped = 0
    while raw := source.readline(piece):
        skipped += len(raw)
        if raw.endswith(b"\n"):
            break
    return skipped
