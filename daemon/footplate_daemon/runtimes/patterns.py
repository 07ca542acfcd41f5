"""Tables of what log lines mean: which cause, which progress. Knows no runtime; each brings its own table."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from footplate_daemon.runtimes.base import Cause, Progress

LONG_LINE = 400
"""Characters beyond which a line is shown only from what it proves on."""


@dataclass(frozen=True)
class Symptom:
    """A log line that proves a cause."""

    code: str
    expression: re.Pattern[str]
    cause: str
    """A sentence; `{name}` is the group of that name."""


@dataclass(frozen=True)
class Milestone:
    """A log line that tells how far a start has come."""

    expression: re.Pattern[str]
    """A group `percent` moves the fraction on towards `until`."""
    step: str
    fraction: float
    until: float | None = None


def symptom(code: str, expression: str, cause: str) -> Symptom:
    """Write one row of a table of causes."""
    return Symptom(code, re.compile(expression, re.IGNORECASE), cause)


def milestone(expression: str, step: str, fraction: float, until: float | None = None) -> Milestone:
    """Write one row of a table of progress."""
    return Milestone(re.compile(expression), step, fraction, until)


def find_cause(table: Iterable[Symptom], log: Sequence[str]) -> Cause | None:
    """Give the first row of the table that any line proves: put the telling rows before the vague ones."""
    for row in table:
        for line in log:
            found = row.expression.search(line)
            if found:
                facts = {name: _number(text) for name, text in found.groupdict().items() if text is not None}
                evidence = line if len(line) <= LONG_LINE else line[found.start() :]
                return Cause(row.code, row.cause.format(**facts), evidence=(evidence,), facts=facts)
    return None


def find_progress(table: Iterable[Milestone], line: str) -> Progress | None:
    """Give the first row of the table that the line shows."""
    for row in table:
        found = row.expression.search(line)
        if found:
            percent = found.groupdict().get("percent")
            ahead = ((row.until or row.fraction) - row.fraction) * float(percent or 0) / 100
            return Progress(row.step, round(row.fraction + ahead, 3))
    return None


def read_gauge(metrics: str, name: str) -> float | None:
    """Give the value of a gauge in Prometheus text, summed over its labels; None if it is not there."""
    found = re.findall(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? ([0-9.eE+-]+)$", metrics, re.MULTILINE)
    return sum(map(float, found)) if found else None


def read_count(metrics: str, name: str) -> int | None:
    """Give the value of a gauge that counts."""
    value = read_gauge(metrics, name)
    return None if value is None else round(value)


def _number(text: str) -> int | str:
    return int(text) if text.isdecimal() else text
