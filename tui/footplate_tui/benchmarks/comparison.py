"""Entrants side by side: those of one run, or of several runs, square by square, against a base. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from footplate_daemon.wire_benchmarks import BenchmarkRun
from footplate_tui.benchmarks import likeness, measures
from footplate_tui.benchmarks.bootstrap import DRAWS, Estimate
from footplate_tui.benchmarks.marks import Mark, marks
from footplate_tui.benchmarks.measures import Counting, Figure, Measure, Showing, Square


@dataclass(frozen=True)
class Line:
    """One entrant on one square."""

    name: str
    showing: Showing
    figures: dict[Measure, Figure]
    marks: tuple[Mark, ...]
    is_base: bool = False
    """Whether others are compared with it."""
    changes: dict[Measure, Estimate] = field(default_factory=dict)
    """How many times the base's figure its own is; empty for a base."""


@dataclass(frozen=True)
class Table:
    """Everyone who was measured on one square."""

    square: Square
    counting: Counting
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Comparison:
    """Runs side by side."""

    runs: tuple[BenchmarkRun, ...]
    tables: tuple[Table, ...]
    notes: tuple[str, ...] = ()
    """What is not alike between the runs."""


def compare(runs: Sequence[BenchmarkRun], draws: int = DRAWS) -> Comparison:
    """Compare with the first run: the same variant where it has it, else its first entrant."""
    shown: dict[Square, list[Showing]] = {}
    for run in runs:
        for square, those in measures.showings(run).items():
            shown.setdefault(square, []).extend(those)
    tables = tuple(_table(square, those, len(runs) > 1, draws) for square, those in shown.items())
    return Comparison(tuple(runs), tables, tuple(_notes(runs)))


def certain_change(change: Estimate | None) -> bool:
    """Whether something surely changed."""
    return change is not None and change.excludes(1.0)


def improvement(change: Estimate, measure: Measure) -> float:
    """Give by how many times it got better, whichever way better is: 2.0 is twice as good."""
    return 1 / change.value if measure.is_better_lower else change.value


def _table(square: Square, shown: Sequence[Showing], names_runs: bool, draws: int) -> Table:
    counting = measures.counting_for(shown)
    lines = [
        Line(name, showing, _figures(showing, counting, draws), marks(showing))
        for name, showing in zip(_names(shown, names_runs=names_runs), shown, strict=True)
    ]
    first_run = shown[0].run
    return Table(square, counting, tuple(_against_base(line, lines, first_run) for line in lines))


def _figures(showing: Showing, counting: Counting, draws: int) -> dict[Measure, Figure]:
    found = {measure: measures.figure(showing, measure, counting, draws) for measure in Measure}
    return {measure: figure for measure, figure in found.items() if figure is not None}


def _against_base(line: Line, lines: Sequence[Line], first_run: BenchmarkRun) -> Line:
    candidates = [each for each in lines if each.showing.run is first_run and each.figures]
    alike = likeness.counterpart(line.showing.entrant, [each.showing.entrant for each in candidates])
    base = next((each for each in candidates if each.showing.entrant is alike), None)
    if base is None or line.showing.run is first_run:
        base = candidates[0] if candidates else None
    if base is None or base is line:
        return Line(line.name, line.showing, line.figures, line.marks, is_base=base is line)
    changes = {
        measure: figure.ratio(base.figures[measure])
        for measure, figure in line.figures.items()
        if measure in base.figures
    }
    return Line(line.name, line.showing, line.figures, line.marks, changes=changes)


def _names(shown: Sequence[Showing], *, names_runs: bool) -> list[str]:
    plain = measures.names([each.entrant for each in shown])
    if not names_runs:
        return plain
    return [f"{each.run.id}: {name}" for each, name in zip(shown, plain, strict=True)]


def _notes(runs: Sequence[BenchmarkRun]) -> list[str]:
    first, notes = runs[0], []
    for run in runs[1:]:
        if not likeness.is_same_machine(run.environment, first.environment):
            notes.append(f"Run {run.id} is from another machine than run {first.id}.")
        if not likeness.is_same_work(run, first):
            notes.append(f"Run {run.id} was given other work than run {first.id}: the prompts differ.")
        notes += [f"Run {run.id}, {each}." for each in _unlike(run, first)]
    return notes


def _unlike(run: BenchmarkRun, first: BenchmarkRun) -> list[str]:
    found = []
    for entrant in run.entrants:
        before = likeness.counterpart(entrant, first.entrants)
        if before is not None:
            found += [f"{entrant.variant}: {each}" for each in likeness.entrant_differences(entrant, before)]
    return found + list(likeness.environment_differences(run.environment, first.environment))
