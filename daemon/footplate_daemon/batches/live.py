"""A batch under way: its row as it is, its files, and what is seen of it while it runs."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from footplate_daemon.batches.output import Fault, OutputFile, no_fault
from footplate_daemon.batches.validation import Validation
from footplate_daemon.store.batches import LineState, StoredBatch

PACE_SECONDS = 30.0
"""The pace of a batch is that of this last while."""


class Pace:
    """How many lines and tokens a batch has had each second, of late."""

    def __init__(self, seconds: float = PACE_SECONDS) -> None:
        self._seconds = seconds
        self._began_at: float | None = None
        self._seen: deque[tuple[float, int, int]] = deque()
        """When, lines, tokens: one entry for each second at most."""

    def begin(self, now: float) -> None:
        """Hear that lines are asked from now on."""
        if self._began_at is None:
            self._began_at = now
            self._seen.clear()

    def end(self) -> None:
        """Hear that none are being asked any more."""
        self._began_at = None

    def add(self, now: float, lines: int, tokens: int) -> None:
        """Hear that lines are done."""
        if self._seen and now - self._seen[-1][0] < 1.0:
            at, lines_before, tokens_before = self._seen.pop()
            self._seen.append((at, lines_before + lines, tokens_before + tokens))
        else:
            self._seen.append((now, lines, tokens))

    def each_second(self, now: float) -> tuple[float, float] | None:
        """Give lines and tokens each second; None while there is nothing to tell."""
        if self._began_at is None:
            return None
        while self._seen and self._seen[0][0] < now - self._seconds:
            self._seen.popleft()
        seconds = min(self._seconds, now - self._began_at)
        if not self._seen or seconds <= 0:
            return None
        lines = sum(entry[1] for entry in self._seen)
        tokens = sum(entry[2] for entry in self._seen)
        return lines / seconds, tokens / seconds


@dataclass(eq=False)
class LiveBatch:
    """One batch that has not ended."""

    row: StoredBatch
    folder: Path
    fault: Fault = no_fault
    pace: Pace = field(default_factory=Pace)
    validation: Validation | None = None
    """While it is being looked through."""
    in_flight: int = 0
    concurrency: int = 0
    is_leaving: bool = False
    """No line of it is to be asked any more."""
    trouble: str | None = None
    """Why it cannot go on just now."""
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while its status changes."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when lines are done, or it is to end: whoever follows its life looks again."""
    models_left: frozenset[int] = frozenset()
    """Those of its models of which lines are left, as far as is known."""
    _seconds: float = 0.0
    _joules: float | None = None
    _outputs: dict[LineState, OutputFile] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.row.id

    @property
    def key(self) -> int:
        return self.row.key

    @property
    def input_path(self) -> Path:
        return self.folder / self.row.input_file_id

    @property
    def is_done(self) -> bool:
        """Whether every line has its answer or its error."""
        return self.row.completed + self.row.failed >= self.row.total

    def output(self, state: LineState) -> OutputFile:
        """Give the file for lines of this state, opened when it is first needed."""
        if state not in self._outputs:
            is_output = state is LineState.COMPLETED
            name = self.row.output_file_id if is_output else self.row.error_file_id
            length = self.row.output_bytes if is_output else self.row.error_bytes
            self._outputs[state] = OutputFile(self.folder / name, length, self.fault)
        return self._outputs[state]

    def lengths(self) -> tuple[int, int]:
        """Give how long the output and the error file are."""
        output, error = self._outputs.get(LineState.COMPLETED), self._outputs.get(LineState.FAILED)
        return (
            output.length if output is not None else self.row.output_bytes,
            error.length if error is not None else self.row.error_bytes,
        )

    def take_row(self, row: StoredBatch) -> None:
        """Take the row as it is now."""
        if row.completed + row.failed > self.row.completed + self.row.failed:
            done = row.completed + row.failed - self.row.completed - self.row.failed
            self.pace.add(time.monotonic(), done, row.output_tokens - self.row.output_tokens)
        self.row = row
        self.changed.set()

    def meter(self, seconds: float, joules: float | None) -> None:
        """Count time in which lines were under way, and what the GPUs used for them."""
        self._seconds += seconds
        if joules is not None:
            self._joules = (self._joules or 0.0) + joules

    def take_meter(self) -> tuple[float, float | None]:
        """Give what was counted since the last time."""
        counted = (self._seconds, self._joules)
        self._seconds, self._joules = 0.0, None
        return counted

    @property
    def metered(self) -> tuple[float, float | None]:
        """Seconds and joules in all."""
        joules = [each for each in (self.row.joules, self._joules) if each is not None]
        return self.row.running_seconds + self._seconds, sum(joules) if joules else None

    def close(self) -> None:
        """Close its files."""
        outputs, self._outputs = self._outputs, {}
        for output in outputs.values():
            output.close()
