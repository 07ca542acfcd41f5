"""Benchmarks in the terminal's words: a run in the list, results as a table, what a row leaves out. Pure."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.content import Content

from footplate_tui import tables
from footplate_tui.benchmark_charts import MARKS as ENTRANT_MARKS
from footplate_tui.cli.output import size
from footplate_tui.format import count, duration, truncate
from footplate_tui.harmless import one_line
from footplate_tui.history import when
from footplate_tui.switching import bar
from footplate_tui.tables import Column
from footplate_tui.theme import runtime_colour

if TYPE_CHECKING:
    from footplate_daemon.wire_benchmarks import BenchmarkRow, BenchmarkRun, Cell, Distribution, Entrant
    from footplate_tui.benchmarks.recommendation import Recommendation

UNDER_WAY = ("queued", "running")
MARKS = {
    "queued": ("◐", "$warning"),
    "running": ("●", "$success"),
    "done": ("✓", "$muted"),
    "failed": ("✗", "$error"),
    "cut": ("✗", "$error"),
    "cancelled": ("○", "$muted"),
}
CELL_MARKS = {**ENTRANT_MARKS, "warming up": ("●", "$warning")}
BAR_CELLS = 12

RUN_COLUMNS = (
    Column("ID", 5, is_words=True),
    Column("BEGAN", 11, 70, is_words=True),
    Column("STATE", 11, is_words=True),
    Column("WHAT", 0, is_words=True),
    Column("WORKLOADS", 26, 120, is_words=True),
    Column("PROGRESS", 14, 60, is_words=True),
    Column("CELLS", 8),
    Column("LEFT", 13, 84),
)
RESULT_COLUMNS = (
    Column("ENTRANT", 0, is_words=True),
    Column("WORKLOAD", 14, 60, is_words=True),
    Column("AT", 4),
    Column("TTFT", 9),
    Column("P95", 9, 104),
    Column("TPOT", 9, 66),
    Column("ITL P99", 10, 114),
    Column("E2E", 9, 150),
    Column("TOK/S", 9),
    Column("REQ/S", 8, 132),
    Column("ERR", 6),
    Column("MEMORY", 10, 90),
    Column("LOAD", 12, 142),
    Column("J/TOK", 8, 160),
    Column("≠", 3),
)


# The list.


def run_head(width: int) -> Content:
    """Give the line over the list of runs."""
    return tables.head(RUN_COLUMNS, width)


def run_line(row: BenchmarkRow, now: float, width: int, *, is_marked: bool = False) -> Content:
    """Lay a run out in a width."""
    mark, colour = ("◆", "$primary") if is_marked else MARKS[row.state]
    is_under_way = row.state in UNDER_WAY
    progress: str | Content = ""
    if row.state == "running":
        progress = bar(row.fraction, BAR_CELLS)
    texts: dict[str, str | Content] = {
        "ID": str(row.id),
        "BEGAN": when(row.started_at or row.created_at, now),
        "STATE": row.state,
        "WHAT": what(row),
        "WORKLOADS": one_line(", ".join(row.workloads)),
        "CELLS": f"{row.cells_done}/{row.cells_total}",
        "PROGRESS": progress,
        "LEFT": left(row) if is_under_way else took(row),
    }
    styles = {
        "STATE": MARKS[row.state][1],
        "WHAT": "$foreground",
        "LEFT": "bold" if row.state == "running" else "$muted",
    }
    return tables.line(RUN_COLUMNS, width, (f"{mark} ", colour), texts, styles)


def what(row: BenchmarkRow) -> str:
    """Say in a line what a run is about: its title, else its entrants."""
    if row.title:
        return one_line(row.title)
    models = {variant.partition("/")[2] for variant in row.variants}
    if len(models) == 1 and len(row.variants) > 1:
        return one_line(f"{', '.join(v.partition('/')[0] for v in row.variants)}: {models.pop()}")
    return one_line(", ".join(row.variants)) or "-"


def left(row: BenchmarkRow) -> str:
    """Say how long a run will go on."""
    return "" if row.eta_seconds is None else f"~{duration(row.eta_seconds)}"


def took(row: BenchmarkRow) -> str:
    """Say how long a run took."""
    if row.started_at is None or row.ended_at is None:
        return ""
    return duration(row.ended_at - row.started_at)


def about_run(row: BenchmarkRow, width: int) -> Content:
    """Say about the highlighted run what its row has no room for, in two lines."""
    if row.state == "running":
        first = Content.assemble(("● ", "$success"), one_line(row.step) or "it begins")
    elif row.state == "queued":
        first = Content.assemble(("◐ ", "$warning"), "waits for the run before it")
    elif row.error:
        first = Content.assemble(("✗ ", "$error"), one_line(row.error))
    else:
        first = Content(f"{count(row.cells_done, 'result')}  {took(row)}")
    second = " · ".join([", ".join(map(one_line, row.variants)), ", ".join(map(one_line, row.workloads))])
    return Content("\n").join(
        [first.truncate(width, ellipsis=True), Content.styled(truncate(second, width), "$muted")]
    )


def now_line(runs: Sequence[BenchmarkRow]) -> Content:
    """Say how many runs there are, and what goes on."""
    running = [row for row in runs if row.state == "running"]
    queued = sum(row.state == "queued" for row in runs)
    parts = [
        Content.styled(f"● {len(running)} running", "$success" if running else "$muted"),
        Content.styled(f"◐ {queued} waiting", "$warning" if queued else "$muted"),
    ]
    if running:
        parts.append(Content.styled(one_line(running[0].step), "$muted"))
    return Content("   ").join(parts)


# One run.


def head_line(run: BenchmarkRun, width: int) -> Content:
    """Say how far a run is, in a line."""
    mark, colour = MARKS[run.state]
    first = Content.assemble((f"{mark} {run.state}", f"bold {colour}"), "  ", (what(run), "$foreground"))
    if run.state == "running":
        told = Content.styled(one_line(run.step), "$muted")
    elif run.state == "queued":
        told = Content.styled("waits for the run before it", "$muted")
    elif run.error:
        told = Content.styled(one_line(run.error), "$error")
    else:
        told = Content.styled(f"{count(run.cells_done, 'result')} in {took(run)}", "$muted")
    return Content.assemble(first, "   ", told).truncate(width, ellipsis=True)


def progress_line(run: BenchmarkRun, width: int) -> Content:
    """Draw how far a run is: a bar over the width, with what it says at its end."""
    told = f"{run.cells_done} of {run.cells_total}"
    if run.fraction is not None:
        told += f" · {run.fraction:.0%}"
    if run.eta_seconds is not None:
        told += f" · about {duration(run.eta_seconds)} left"
    return Content.assemble(bar(run.fraction, max(width - len(told) - 2, 4)), "  ", (told, "$muted"))


def verdict_lines(verdict: Recommendation, width: int) -> list[Content]:
    """Say what to keep and why; what is not certain is not said in the colour of what is."""
    words = textwrap.wrap(one_line(verdict.sentence), max(width - 2, 10))
    style = "bold" if verdict.is_certain else ""
    marks = [("→ ", "$success" if verdict.is_certain else "$warning"), *[("  ", "")] * len(words)]
    return [Content.assemble(mark, (line, style)) for mark, line in zip(marks, words, strict=False)]


@dataclass(frozen=True)
class Square:
    """The results of one entrant in one kind of work: its cells are the repeats of the same."""

    entrant: Entrant
    cells: tuple[Cell, ...]

    @property
    def first(self) -> Cell:
        """One of its cells: all are of the same work."""
        return self.cells[0]

    @property
    def state(self) -> str:
        """What has become of it; while one of its cells is measured it is being measured."""
        states = [cell.state for cell in self.cells]
        order = ("measuring", "warming up", "failed", "cut", "cancelled", "waiting", "done")
        return next(state for state in order if state in states)

    def figure(self, value: Callable[[Cell], float | None]) -> float | None:
        """Give a figure: the mean over its repeats."""
        found = [each for cell in self.cells if (each := value(cell)) is not None]
        return statistics.fmean(found) if found else None

    def spread(self, value: Callable[[Cell], float | None]) -> float | None:
        """Give how far its repeats lie apart, as a part of their mean; None for fewer than two."""
        found = [each for cell in self.cells if (each := value(cell)) is not None]
        mean = statistics.fmean(found) if found else 0.0
        return (max(found) - min(found)) / mean if len(found) > 1 and mean else None


def squares(run: BenchmarkRun) -> list[Square]:
    """Give the results so that what competes stands together: by work, then by entrant."""
    grouped: dict[tuple[str, int, int], list[Cell]] = {}
    for cell in run.cells:
        grouped.setdefault((cell.workload, cell.concurrency, cell.entrant), []).append(cell)
    works = list(dict.fromkeys((cell.workload, cell.concurrency) for cell in run.cells))
    order = sorted(grouped, key=lambda key: (works.index(key[:2]), key[2]))
    return [Square(run.entrants[key[2]], tuple(grouped[key])) for key in order]


def speed(cell: Cell) -> float | None:
    """Tokens per second as they can be compared: by the run's one tokenizer where there is one."""
    summary = cell.summary
    if summary is None or not summary.completed:
        return None
    counted = summary.counted_tokens_per_second
    return counted if counted is not None else summary.output_tokens_per_second


def _of(name: str, part: str) -> Callable[[Cell], float | None]:
    def value(cell: Cell) -> float | None:
        distribution: Distribution | None = getattr(cell.summary, name, None)
        return None if distribution is None else float(getattr(distribution, part))

    return value


ttft, ttft_p95 = _of("ttft", "median"), _of("ttft", "p95")
tpot, itl_p99, e2el = _of("tpot", "median"), _of("itl", "p99"), _of("e2el", "median")


def requests_per_second(cell: Cell) -> float | None:
    """Requests per second."""
    return cell.summary.requests_per_second if cell.summary and cell.summary.completed else None


def memory(cell: Cell) -> float | None:
    """The peak of its memory: the GPU's, where it is on one."""
    resources = cell.resources
    if resources is None:
        return None
    return resources.vram_peak_bytes if resources.vram_peak_bytes is not None else resources.ram_peak_bytes


def joules(cell: Cell) -> float | None:
    """Energy for each token."""
    return cell.resources.joules_per_token if cell.resources else None


def failed(cell: Cell) -> int:
    """How many of its requests failed."""
    return cell.summary.failed if cell.summary else 0


BETTER: tuple[tuple[str, Callable[[Cell], float | None], bool], ...] = (
    ("TTFT", ttft, False),
    ("P95", ttft_p95, False),
    ("TPOT", tpot, False),
    ("ITL P99", itl_p99, False),
    ("E2E", e2el, False),
    ("TOK/S", speed, True),
    ("REQ/S", requests_per_second, True),
    ("MEMORY", memory, False),
    ("J/TOK", joules, False),
)
"""Each figure by its column, and whether more of it is better."""


def best_of(squares_: Sequence[Square]) -> dict[tuple[str, int], dict[str, Square]]:
    """Give who is best at what in each kind of work; nobody where there is no competition."""
    best: dict[tuple[str, int], dict[str, Square]] = {}
    works = dict.fromkeys((each.first.workload, each.first.concurrency) for each in squares_)
    for work in works:
        rivals = [each for each in squares_ if (each.first.workload, each.first.concurrency) == work]
        for name, value, more_is_better in BETTER:
            found = [(figure, each) for each in rivals if (figure := each.figure(value)) is not None]
            if len(found) > 1:
                chosen = max(found, key=lambda pair: pair[0] if more_is_better else -pair[0])
                best.setdefault(work, {})[name] = chosen[1]
    return best


def result_head(width: int) -> Content:
    """Give the line over the results."""
    return tables.head(RESULT_COLUMNS, width)


def result_line(
    square: Square, best: Mapping[str, Square], width: int, *, repeats_work: bool = False
) -> Content:
    """Lay a result out; where it is the best of its kind of work it says so.

    `repeats_work`: the row above is of the same work.
    """
    mark, colour = CELL_MARKS[square.state]
    cell, load = square.first, square.entrant.load_seconds
    name = one_line(square.entrant.variant)
    runtime, slash, model = name.partition("/")
    preset = f" {one_line(square.entrant.preset)}" if square.entrant.preset else ""
    errors = sum(map(failed, square.cells))
    texts: dict[str, str | Content] = {
        "ENTRANT": Content.assemble(
            (runtime + slash, runtime_colour(square.entrant.runtime)), model, (preset, "$muted")
        ),
        "WORKLOAD": one_line(cell.workload),
        "AT": str(cell.concurrency),
        "LOAD": duration(seconds) if (seconds := load.get("cold", load.get("warm"))) else "-",
        "ERR": "-" if square.first.summary is None else str(errors),
        "≠": "≠" if has_differences(square) else "",
        **_figures(square),
    }
    styles = {name: "bold $success" for name, each in best.items() if each is square}
    styles |= {"ERR": "bold $error" if errors else "$muted", "≠": "bold $warning"}
    styles |= {"WORKLOAD": "$faint", "AT": "$faint"} if repeats_work else {}
    return tables.line(RESULT_COLUMNS, width, (f"{mark} ", colour), texts, styles, style="$foreground")


def _figures(square: Square) -> dict[str, str]:
    words: dict[str, Callable[[float], str]] = {
        "TTFT": milliseconds, "P95": milliseconds, "TPOT": milliseconds, "ITL P99": milliseconds,
        "E2E": milliseconds, "TOK/S": plain, "REQ/S": plain, "MEMORY": lambda value: size(round(value)),
        "J/TOK": plain,
    }  # fmt: skip
    return {
        name: "-" if (figure := square.figure(value)) is None else words[name](figure)
        for name, value, _ in BETTER
    }


def milliseconds(value: float) -> str:
    """Give milliseconds as exactly as they can be told apart: `9.1 ms`, `35 ms`, `1.2 s`."""
    return f"{value:.1f} ms" if value < 9.95 else duration(value / 1000)


def plain(value: float) -> str:
    """Give a figure with three digits: `0.41`, `9.87`, `87.4`, `1,240`."""
    if value < 9.995:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"


def has_differences(square: Square) -> bool:
    """Whether its runtime does other than it was asked."""
    return any(cell.translation and not cell.translation.is_followed for cell in square.cells)


def about_result(square: Square, width: int) -> Content:
    """Say about the highlighted result what its row has no room for, in three lines."""
    lines = [_about_work(square), _about_engine(square), _about_differences(square)]
    return Content("\n").join(line.truncate(width, ellipsis=True) for line in lines)


def _about_work(square: Square) -> Content:
    cell = square.first
    if cell.error or square.entrant.error:
        return Content.assemble(("✗ ", "$error"), one_line(cell.error or square.entrant.error or ""))
    summary = cell.summary
    if summary is None:
        return Content.styled(f"{square.state}: {count(cell.requests, 'request')}", "$muted")
    errors = ", ".join(f"{number} {kind}" for kind, number in summary.errors.items())
    valid = f"{summary.valid} of {summary.checked} valid JSON" if summary.checked else ""
    spread = square.spread(speed)
    done = f"{summary.completed} of {count(summary.requests, 'request')}"
    facts = (
        f"failed: {errors}" if errors else "",
        f"{done} in {duration(summary.duration_seconds)}",
        f"{summary.prompt_tokens:,} + {summary.output_tokens:,} tokens",
        valid,
        f"{len(square.cells)} repeats, {spread:.0%} apart" if spread is not None else "",
        f"disturbed by {count(summary.disturbed_by, 'request')} of others" if summary.disturbed_by else "",
    )
    return Content(" · ".join(filter(None, facts)))


def _about_engine(square: Square) -> Content:
    entrant, resources = square.entrant, square.first.resources
    loads = [f"{kind} {duration(seconds)}" for kind, seconds in entrant.load_seconds.items()]
    facts = [
        one_line(" ".join(filter(None, (entrant.runtime, entrant.runtime_version)))),
        f"context {entrant.context:,}" if entrant.context else "",
        f"loaded {', '.join(loads)}" if loads else "",
        f"profile {one_line(entrant.profile)}" if entrant.profile else "",
    ]
    if resources:
        facts += [
            f"CPU {resources.cpu_percent:,.0f}%" if resources.cpu_percent is not None else "",
            f"GPU {resources.gpu_utilisation_percent:.0f}%"
            if resources.gpu_utilisation_percent is not None
            else "",
            f"{resources.joules_per_token:.2f} J/token" if resources.joules_per_token is not None else "",
        ]
    return Content.styled(" · ".join(filter(None, facts)), "$muted")


def _about_differences(square: Square) -> Content:
    translation = square.first.translation
    if translation is None:
        return Content("")
    told = [f"{name} is ignored" for name in translation.ignored]
    told += [f"{name}: {words}" for name, words in translation.clamped.items()]
    if told:
        return Content.assemble(("≠ ", "$warning"), one_line("; ".join(told)))
    renamed = ", ".join(f"{name} as {other}" for name, other in translation.renamed.items())
    said = "does all that was asked" + (f"; sent {renamed}" if renamed else "")
    return Content.styled(one_line(said), "$muted")
