"""The answers of entrants to the same prompts: whether they are equal, and where they first differ. Pure."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from footplate_daemon.wire_benchmarks import BenchmarkRun, RequestRecord
from footplate_tui.benchmarks import measures
from footplate_tui.benchmarks.measures import Showing, Square

BEFORE = 24
"""Characters shown before the place where two answers part."""
AFTER = 36


@dataclass(frozen=True)
class Difference:
    """Where an answer first differs from the first one."""

    at: int
    """Characters before it, which are equal."""
    line: int
    """From 1."""
    expected: str
    """What stands there in the first answer, with a little before; empty where that has ended."""
    found: str


@dataclass(frozen=True)
class Answer:
    """What one entrant said."""

    name: str
    text: str | None
    """None where the request failed or its answer was not kept."""
    error: str | None = None
    difference: Difference | None = None
    """From the first answer that there is; None where they are equal, or there is none."""


@dataclass(frozen=True)
class Asked:
    """One prompt, with every entrant's answer."""

    square: Square
    number: int
    prompt: str
    answers: tuple[Answer, ...]

    @property
    def is_comparable(self) -> bool:
        """Whether there are at least two answers."""
        return sum(each.text is not None for each in self.answers) > 1

    @property
    def is_equal(self) -> bool:
        """Whether all answers that there are, at least two, are the same."""
        return self.is_comparable and not any(each.difference for each in self.answers)


def side_by_side(run: BenchmarkRun, model: str | None = None) -> Iterator[Asked]:
    """Give each prompt with its answers, the first round of each square."""
    for square, shown in measures.showings(run).items():
        those = [each for each in shown if model in {None, each.entrant.model}]
        names = measures.names([each.entrant for each in those])
        by_number: dict[int, dict[str, RequestRecord]] = defaultdict(dict)
        for name, showing in zip(names, those, strict=True):
            for record in _first_round(showing):
                by_number[record.number][name] = record
        for number, records in sorted(by_number.items()):
            prompt = next((each.prompt for each in records.values() if each.prompt is not None), "")
            yield Asked(square, number, prompt, tuple(_answers(names, records)))


def first_difference(one: str, other: str) -> Difference | None:
    """Give where two texts part; None where they are equal."""
    if one == other:
        return None
    pairs = zip(one, other, strict=False)
    at = next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
    begin = max(0, at - BEFORE)
    return Difference(
        at=at,
        line=one.count("\n", 0, at) + 1,
        expected=_around(one, begin, at + AFTER),
        found=_around(other, begin, at + AFTER),
    )


def _answers(names: Sequence[str], records: dict[str, RequestRecord]) -> Iterator[Answer]:
    first: str | None = None
    for name in names:
        record = records.get(name)
        if record is None or record.error_kind is not None:
            yield Answer(name, None, record.error or record.error_kind if record else "not asked")
            continue
        text = record.answer
        difference = None if first is None or text is None else first_difference(first, text)
        first = text if first is None else first
        yield Answer(name, text, difference=difference)


def _first_round(showing: Showing) -> tuple[RequestRecord, ...]:
    rounds = [cell for cell in showing.cells if cell.records]
    return min(rounds, key=lambda cell: cell.repeat).records or () if rounds else ()


def _around(text: str, begin: int, end: int) -> str:
    return ("…" if begin else "") + text[begin:end] + ("…" if end < len(text) else "")
