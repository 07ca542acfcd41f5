"""The charts of a benchmark: for each entrant its speed, first tokens and memory over time. Pure.

All entrants share the scale and the time of a chart, each has a row of its own: they are compared at a
glance, without colours too. What is drawn once the run has ended is what was drawn while it went on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.content import Content

from footplate_tui.charts import Series, columns_of, nice_ceiling
from footplate_tui.cli.output import size
from footplate_tui.format import duration, truncate
from footplate_tui.harmless import one_line
from footplate_tui.sparkline import sparkline
from footplate_tui.theme import runtime_colour

if TYPE_CHECKING:
    from footplate_daemon.wire_benchmarks import BenchmarkRun, Entrant, LivePoint

MARKS = {
    "waiting": ("◐", "$muted"),
    "starting": ("◐", "$warning"),
    "measuring": ("●", "$success"),
    "done": ("✓", "$muted"),
    "failed": ("✗", "$error"),
    "cut": ("✗", "$error"),
    "cancelled": ("○", "$muted"),
}
WIDE_BLOCK = 26
VALUE_CELLS, WIDE_VALUE_CELLS = 9, 13
"""In a block that is wide, the highest value is said to be that."""
LEAST_CHART = 6
MOST_ROWS = 10
ROWS_WITH_GAP = 4
"""From so many rows on the last one is left free: charts on top of each other do not touch."""
NAME_CELLS = 30
GAP = 2
LEAST_SECONDS = 10.0
"""A second alone would fill the chart."""


def _memory(point: LivePoint) -> float | None:
    return point.vram_bytes if point.vram_bytes is not None else point.ram_bytes


def _work(point: LivePoint) -> float | None:
    return point.gpu_utilisation_percent if point.gpu_utilisation_percent is not None else point.cpu_percent


@dataclass(frozen=True)
class Metric:
    """One chart."""

    name: str
    value: Callable[[LivePoint], float | None]
    words: Callable[[float], str]
    from_width: int = 0
    is_held: bool = False
    """Whether what was measured last holds until something is measured again."""


METRICS = (
    Metric("TOKENS/S", lambda point: point.tokens_per_second, lambda value: f"{value:,.0f}"),
    Metric(
        "FIRST TOKEN", lambda point: point.ttft_ms, lambda value: duration(value / 1000), 64, is_held=True
    ),
    Metric("MEMORY", _memory, lambda value: size(round(value)), 76),
    Metric("GPU OR CPU", _work, lambda value: f"{value:,.0f}%", 150),
)


class Points:
    """Every point of a run, from what it had and from what came since."""

    def __init__(self) -> None:
        self._cells: dict[int, dict[float, LivePoint]] = {}

    def take(self, points: Iterable[LivePoint]) -> None:
        """Keep points; one that is known is not kept twice."""
        for point in points:
            self._cells.setdefault(point.cell, {})[point.at_seconds] = point

    def of_cell(self, cell: int) -> list[LivePoint]:
        """Give the points of a cell in order."""
        return [point for _, point in sorted(self._cells.get(cell, {}).items())]


def series_of(run: BenchmarkRun, points: Points, entrant: int, metric: Metric) -> Series:
    """Give what was measured of an entrant, cell after cell."""
    moments: list[tuple[float, float | None]] = []
    offset, held = 0.0, None
    for cell in run.cells:
        if cell.entrant != entrant:
            continue
        of_cell = points.of_cell(cell.number)
        for point in of_cell:
            value = metric.value(point)
            held = value if value is not None else held
            moments.append((offset + point.at_seconds, held if metric.is_held else value))
        offset = moments[-1][0] if moments else 0.0
    return Series(moments)


def rows_for(entrants: int, lines: int) -> int:
    """Say how many rows each entrant's charts get of so many lines."""
    return min(max((lines - 1) // max(entrants, 1), 1), MOST_ROWS)


def charts(run: BenchmarkRun, points: Points, width: int, rows: int) -> list[Content]:
    """Draw all charts: a line of heads, then so many rows for each entrant."""
    metrics = [metric for metric in METRICS if width >= metric.from_width]
    name_cells = min(max((len(_name(each)) for each in run.entrants), default=0) + 4, width // 3, NAME_CELLS)
    block = max((width - name_cells) // len(metrics), LEAST_CHART + VALUE_CELLS)
    drawn = {
        metric.name: [series_of(run, points, entrant, metric) for entrant in range(len(run.entrants))]
        for metric in metrics
    }
    longest = max((each.last_second for lines in drawn.values() for each in lines), default=0.0)
    seconds = max(longest, LEAST_SECONDS) if longest else 0.0
    scales = {name: nice_ceiling(max((each.highest or 0 for each in lines), default=0))
              for name, lines in drawn.items()}  # fmt: skip
    lines = [_heads(metrics, scales, name_cells, block, seconds)]
    for place, entrant in enumerate(run.entrants):
        of_entrant = {name: series[place] for name, series in drawn.items()}
        lines += _entrant(entrant, metrics, of_entrant, scales, (name_cells, block, rows), seconds)
    return lines


def _heads(
    metrics: Sequence[Metric], scales: Mapping[str, float], name_cells: int, block: int, seconds: float
) -> Content:
    parts = [Content(" " * name_cells)]
    for metric in metrics:
        scale = f" 0 to {metric.words(scales[metric.name])}" if seconds else ""
        told = metric.name + scale if len(metric.name + scale) <= block - GAP else metric.name
        parts.append(Content.styled(f"{truncate(told, block - GAP):<{block}}", "$muted"))
    return Content.assemble(*parts)


def _entrant(
    entrant: Entrant,
    metrics: Sequence[Metric],
    series: Mapping[str, Series],
    scales: Mapping[str, float],
    layout: tuple[int, int, int],
    seconds: float,
) -> list[Content]:
    name_cells, block, rows = layout
    mark, mark_colour = MARKS[entrant.state]
    colour = runtime_colour(entrant.runtime)
    value_cells = WIDE_VALUE_CELLS if block >= WIDE_BLOCK else VALUE_CELLS
    chart_cells = block - value_cells
    drawn_rows = rows - 1 if rows >= ROWS_WITH_GAP else rows
    bottom = drawn_rows - 1
    drawn = {
        metric.name: sparkline(
            columns_of(series[metric.name], seconds, scales[metric.name], chart_cells),
            chart_cells,
            drawn_rows,
        )
        for metric in metrics
    }
    has_any = any(each.moments for each in series.values())
    lines = []
    for row in range(rows):
        parts = [_name_line(entrant, row, name_cells, (mark, mark_colour))]
        if not has_any:
            if row == 0:
                words = one_line(entrant.error or "") or entrant.state
                parts.append(Content.styled(words, mark_colour if entrant.error else "$muted"))
            lines.append(Content.assemble(*parts))
            continue
        for metric in metrics:
            value = (
                _value(metric, series[metric.name], entrant, is_wide=block >= WIDE_BLOCK)
                if row == bottom
                else ""
            )
            chart = drawn[metric.name][row] if row < len(drawn[metric.name]) else " " * chart_cells
            parts.append(Content.styled(chart, colour))
            parts.append(Content(f" {value:<{value_cells - 1}}"))
        lines.append(Content.assemble(*parts))
    return lines


def _value(metric: Metric, series: Series, entrant: Entrant, *, is_wide: bool) -> str:
    """Give what is measured now; once all is measured, the highest."""
    if entrant.state in {"starting", "measuring"}:
        return "" if series.newest is None else metric.words(series.newest)
    if series.highest is None:
        return ""
    return f"max {metric.words(series.highest)}" if is_wide else metric.words(series.highest)


def _name_line(entrant: Entrant, row: int, cells: int, mark: tuple[str, str]) -> Content:
    if row == 0:
        name = truncate(_name(entrant), cells - 3)
        runtime, slash, model = name.partition("/")
        words = Content.assemble((runtime + slash, runtime_colour(entrant.runtime)), model)
        return Content.assemble((f"{mark[0]} ", mark[1]), words, " " * (cells - 2 - words.cell_length))
    if row == 1:
        told = truncate(entrant.state, cells - 3)
        return Content.styled(f"  {told:<{cells - 2}}", "$muted")
    return Content(" " * cells)


def _name(entrant: Entrant) -> str:
    preset = f" {one_line(entrant.preset)}" if entrant.preset else ""
    return f"{one_line(entrant.variant)}{preset}"
