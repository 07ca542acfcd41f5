"""Two benchmarks beside each other: what became better, what worse, and what else is different. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.content import Content

from footplate_tui import tables
from footplate_tui.benchmark_lines import (
    Square,
    memory,
    milliseconds,
    plain,
    speed,
    squares,
    tpot,
    ttft,
    ttft_p95,
)
from footplate_tui.cli.output import size
from footplate_tui.format import count
from footplate_tui.harmless import one_line
from footplate_tui.history import when
from footplate_tui.tables import Column
from footplate_tui.theme import runtime_colour

if TYPE_CHECKING:
    from footplate_daemon.wire_benchmarks import BenchmarkRow, BenchmarkRun, Cell, Entrant

ALIKE = 0.05
"""Figures that differ by less say nothing."""


@dataclass(frozen=True)
class Figure:
    """What is compared."""

    name: str
    value: Callable[[Cell], float | None]
    words: Callable[[float], str]
    more_is_better: bool
    from_width: int = 0


FIGURES = (
    Figure("TTFT", ttft, milliseconds, more_is_better=False),
    Figure("TTFT P95", ttft_p95, milliseconds, more_is_better=False, from_width=150),
    Figure("TPOT", tpot, milliseconds, more_is_better=False, from_width=104),
    Figure("TOK/S", speed, plain, more_is_better=True, from_width=60),
    Figure("MEMORY", memory, lambda value: size(round(value)), more_is_better=False, from_width=128),
)
COLUMNS = (
    Column("ENTRANT", 0, is_words=True),
    Column("WORKLOAD", 14, 60, is_words=True),
    Column("AT", 4),
    *(
        column
        for figure in FIGURES
        for column in (
            Column(figure.name, 10, figure.from_width),
            Column(f"{figure.name} CHANGE", 9, figure.from_width),
        )
    ),
)


@dataclass(frozen=True)
class Pair:
    """The same work of the same entrant in both runs; None where a run has it not."""

    first: Square | None
    second: Square | None

    @property
    def either(self) -> Square:
        """One of them, for what both share."""
        square = self.second or self.first
        if square is None:
            raise ValueError("a pair of nothing")
        return square

    def change(self, figure: Figure) -> float | None:
        """Give by which part a figure changed."""
        before = self.first.figure(figure.value) if self.first else None
        after = self.second.figure(figure.value) if self.second else None
        return (after - before) / before if before and after is not None else None

    @property
    def differs(self) -> bool:
        """Whether anything says that they are not alike."""
        if self.first is None or self.second is None:
            return True
        changes = [self.change(figure) for figure in FIGURES]
        return any(change is not None and abs(change) > ALIKE for change in changes)


def comparable(chosen: BenchmarkRow, runs: Iterable[BenchmarkRow]) -> BenchmarkRow | None:
    """Give the newest run before one that measured the same variants, else one that shares some."""
    earlier = [row for row in runs if row.id < chosen.id and row.cells_done]
    same = [row for row in earlier if set(row.variants) == set(chosen.variants)]
    shared = [row for row in earlier if set(row.variants) & set(chosen.variants)]
    return next(iter([*same, *shared]), None)


def pairs(first: BenchmarkRun, second: BenchmarkRun) -> list[Pair]:
    """Give what both measured, then what only one did."""
    one, other = {_key(each): each for each in squares(first)}, {_key(each): each for each in squares(second)}
    both = [Pair(one[key], other[key]) for key in one if key in other]
    only_first = [Pair(square, None) for key, square in one.items() if key not in other]
    only_second = [Pair(None, square) for key, square in other.items() if key not in one]
    return [*both, *only_first, *only_second]


def _key(square: Square) -> tuple[str, str | None, str, int]:
    entrant, cell = square.entrant, square.first
    return entrant.variant, entrant.preset, cell.workload, cell.concurrency


def compare_head(width: int) -> Content:
    """Give the line over the table."""
    return tables.head(COLUMNS, width, names={f"{figure.name} CHANGE": "" for figure in FIGURES})


def pair_line(pair: Pair, width: int) -> Content:
    """Lay a pair out: the newer figure, and by how much it changed."""
    square = pair.either
    runtime, slash, model = one_line(square.entrant.variant).partition("/")
    preset = f" {one_line(square.entrant.preset)}" if square.entrant.preset else ""
    texts: dict[str, str | Content] = {
        "ENTRANT": Content.assemble(
            (runtime + slash, runtime_colour(square.entrant.runtime)), model, (preset, "$muted")
        ),
        "WORKLOAD": one_line(square.first.workload),
        "AT": str(square.first.concurrency),
    }
    for figure in FIGURES:
        value = square.figure(figure.value)
        texts[figure.name] = "-" if value is None else figure.words(value)
        texts[f"{figure.name} CHANGE"] = _change(pair, figure)
    styles = {figure.name: "$foreground" for figure in FIGURES}
    return tables.line(COLUMNS, width, _mark(pair), texts, styles)


def _mark(pair: Pair) -> tuple[str, str]:
    if pair.second is None:
        return "- ", "$muted"
    return ("+ ", "$muted") if pair.first is None else ("  ", "")


def _change(pair: Pair, figure: Figure) -> Content:
    if pair.first is None:
        return Content.styled("new" if figure is FIGURES[0] else "", "$muted")
    if pair.second is None:
        return Content.styled("gone" if figure is FIGURES[0] else "", "$muted")
    change = pair.change(figure)
    if change is None:
        return Content("")
    if abs(change) <= ALIKE:
        return Content.styled("≈", "$muted")
    is_better = (change > 0) == figure.more_is_better
    return Content.styled(
        f"{'▲' if is_better else '▼'} {change:+.0%}", "$success" if is_better else "bold $error"
    )


def compared_words(first: BenchmarkRow, second: BenchmarkRow, now: float) -> Content:
    """Say which two runs are compared."""

    def name(row: BenchmarkRow) -> str:
        title = f" “{one_line(row.title)}”" if row.title else ""
        return f"{row.id}{title} ({when(row.started_at or row.created_at, now)})"

    return Content.assemble(
        ("Run ", "$muted"),
        (name(first), "bold"),
        (" before, ", "$muted"),
        (name(second), "bold"),
        (" after", "$muted"),
    )


def about_pair(pair: Pair, width: int) -> Content:
    """Say about the highlighted pair its figures before and after, and what else is different."""
    parts = []
    for figure in FIGURES:
        values = [square.figure(figure.value) if square else None for square in (pair.first, pair.second)]
        told = ["-" if value is None else figure.words(value) for value in values]
        parts.append(f"{figure.name} {' → '.join(told)}")
    first = Content(" · ".join(parts)).truncate(width, ellipsis=True)
    if pair.first is None or pair.second is None:
        only = "the second" if pair.first is None else "the first"
        return Content("\n").join([first, Content.styled(f"Only {only} run measured it.", "$muted")])
    different = "; ".join(engine_differences(pair.first.entrant, pair.second.entrant))
    second = (
        Content.assemble(("≠ ", "$warning"), different)
        if different
        else Content.styled("The engine was started alike.", "$muted")
    )
    return Content("\n").join([first, second.truncate(width, ellipsis=True)])


def engine_differences(first: Entrant, second: Entrant) -> Iterator[str]:
    """Name what is different about how an entrant was started."""
    named = (
        ("version", first.runtime_version, second.runtime_version),
        ("context", first.context, second.context),
        ("profile", first.profile, second.profile),
        ("weights", first.weights_hash, second.weights_hash),
    )
    for name, before, after in named:
        if before != after:
            yield f"{name} {one_line(str(before or '-'))} → {one_line(str(after or '-'))}"
    if first.command != second.command:
        gone = [word for word in first.command if word not in second.command]
        new = [word for word in second.command if word not in first.command]
        yield one_line(f"started with {' '.join(new) or 'less'} instead of {' '.join(gone) or 'nothing'}")


def machine_differences(first: BenchmarkRun, second: BenchmarkRun) -> str:
    """Say in a line how the machine is different."""
    one, other = first.environment, second.environment
    if one is None or other is None:
        return ""
    named = (
        ("host", one.host, other.host),
        ("CPU", one.cpu, other.cpu),
        ("GPUs", ", ".join(gpu.name for gpu in one.gpus), ", ".join(gpu.name for gpu in other.gpus)),
        ("driver", one.driver_version, other.driver_version),
        ("Footplate", one.footplate_version, other.footplate_version),
    )
    told = [
        f"{name} {before or 'none'} → {after or 'none'}" for name, before, after in named if before != after
    ]
    return one_line("; ".join(told)) or "the same machine and driver"


def verdict(compared: list[Pair]) -> Content:
    """Count what became better and what worse."""
    better = worse = 0
    for pair in compared:
        for figure in FIGURES:
            change = pair.change(figure)
            if change is not None and abs(change) > ALIKE:
                if (change > 0) == figure.more_is_better:
                    better += 1
                else:
                    worse += 1
    if not better and not worse:
        return Content.styled("≈ alike, within 5 %", "$muted")
    parts = [
        Content.styled(f"▲ {count(better, 'figure')} better", "$success") if better else Content(""),
        Content.styled(f"▼ {count(worse, 'figure')} worse", "bold $error") if worse else Content(""),
    ]
    return Content("   ").join(part for part in parts if part.plain)
