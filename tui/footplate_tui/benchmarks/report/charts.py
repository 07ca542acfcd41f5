"""Charts as inline SVG: strips with boxes, bars, lines, a timeline. Pure.

Colours are the page's variables `--c0`, `--c1`, … by entrant, so that light, dark and paper have their own.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from footplate_tui.benchmarks import bootstrap
from footplate_tui.benchmarks.report.markup import Markup, element, joined
from footplate_tui.benchmarks.report.scale import Scale, scale
from footplate_tui.format import truncate

WIDTH = 380
WIDE = 800
ROW = 38
LEFT, RIGHT = 12, 22
LABEL_GAP = 34
"""Between the places of two labels of an axis; those that come too near to the one before are left out."""
FAR_BELOW = 4
MOST_DOTS = 300
"""Of a strip; more would hide each other."""
COLOURS = 8

Shown = Callable[[float], str]


@dataclass(frozen=True)
class Series:
    """The values of one entrant; its place gives its colour."""

    name: str
    place: int
    values: Sequence[float]


@dataclass(frozen=True)
class Path:
    """A line of one entrant, broken where a part ends."""

    name: str
    place: int
    parts: Sequence[Sequence[tuple[float, float]]]


def strips(series: Sequence[Series], title: str, shown: Shown, on_axis: Shown) -> Markup:
    """Give a dot for each request, a box for the middle half of them, and the median with its value."""
    every = sorted(value for each in series for value in each.values)
    # One value next to nothing would stretch a logarithmic axis until the rest is a dot.
    least = bootstrap.quantile(every, 0.1) / FAR_BELOW if every else 0.0
    across = scale([max(value, least) for value in every], LEFT, WIDTH - RIGHT)
    height = ROW * len(series) + 30
    rows = [joined(*_strip(each, place, across, shown)) for place, each in enumerate(series)]
    return _svg(title, WIDTH, height, _grid(across, 8, ROW * len(series) + 6, on_axis), *rows)


def bars(groups: Sequence[tuple[str, int, Sequence[tuple[str, float]]]], title: str, shown: Shown) -> Markup:
    """Give a group of bars for each entrant: (name, place, [(label, value)])."""
    every = [value for _, _, each in groups for _, value in each]
    across = scale(every, LEFT, WIDTH - 78, from_zero=True)
    parts: list[Markup] = []
    y = 6.0
    for name, place, each in groups:
        parts.append(_text(name, LEFT, y + 11, "name"))
        y += 17
        for number, (label, value) in enumerate(each):
            parts.append(_bar(across, y, place, number, value))
            words = f"{shown(value)} {label}".strip()
            parts.append(_text(words, across(value) + 6, y + 10.5, "value"))
            y += 17
        y += 7
    return _svg(title, WIDTH, y, *parts)


@dataclass(frozen=True)
class Axes:
    """How values read below and beside a chart of lines."""

    below: Shown
    beside: Shown
    exact: Shown
    """What a point says of itself."""
    levels: Sequence[float] = ()
    """Of requests at a time: the marks below; without them, it is time."""


def lines(paths: Sequence[Path], title: str, axes: Axes, *, width: int = WIDTH) -> Markup:
    """Give a line for each entrant, with a dot at each level, or where a point is alone."""
    height, top, left = 210, 12, 48
    points = [point for path in paths for part in path.parts for point in part]
    up = scale([y for _, y in points], height - 30, top, from_zero=True)
    across = _across(axes.levels, [x for x, _ in points], left, width - RIGHT)
    below = (
        _text(axes.below(x), across(x), height - 12, "axis", anchor="middle")
        for x in (axes.levels or across.ticks)
    )
    beside = (
        joined(
            element("line", x1=left, x2=width - RIGHT, y1=up(y), y2=up(y), class_="grid"),
            _text(axes.beside(y), left - 7, up(y) + 3.5, "axis", anchor="end"),
        )
        for y in up.ticks
    )
    drawn = [joined(*_path(path, across, up, axes)) for path in paths]
    return _svg(title, width, height, *beside, *below, *drawn)


def legend(names: Sequence[tuple[str, int]]) -> Markup:
    """Give the names with their colours."""
    return element(
        "p",
        *(
            element("span", element("i", style=f"background:{colour(place)}"), name, class_="key")
            for name, place in names
        ),
        class_="legend",
    )


def colour(place: int) -> str:
    """Give the colour of the entrant at this place."""
    return f"var(--c{place % COLOURS})"


def _across(levels: Sequence[float], values: Sequence[float], begin: float, end: float) -> Scale:
    """Give the axis below: by doublings where there are levels, else by seconds."""
    if len(levels) > 1:
        return Scale(min(levels), max(levels), begin + 14, end - 8, is_log=True)
    return Scale(0.0, max(values, default=1.0) or 1.0, begin, end, is_time=True)


def _strip(series: Series, row: int, across: Scale, shown: Shown) -> Iterator[Markup]:
    middle = ROW * row + 24.0
    ordered = sorted(series.values)
    yield _text(truncate(series.name, 40), LEFT, middle - 11, "name")
    if not ordered:
        yield _text("nothing", WIDTH - RIGHT, middle - 11, "value", anchor="end")
        return
    quarters = [bootstrap.quantile(ordered, share) for share in (0.05, 0.25, 0.5, 0.75, 0.95)]
    low, first, median, third, high = map(across, quarters)
    p95 = f"median {shown(quarters[2])} · p95 {shown(quarters[4])}"
    yield _text(p95, WIDTH - RIGHT, middle - 11, "value", anchor="end")
    ink = colour(series.place)
    chance = random.Random(series.place)  # noqa: S311 - it keeps dots apart
    every = max(1, len(ordered) // MOST_DOTS)
    for value in ordered[::every]:
        y = middle + chance.uniform(-4.5, 4.5)
        yield element("circle", cx=across(value), cy=y, r=1.8, fill=ink, class_="dot")
    yield element("line", x1=low, x2=high, y1=middle, y2=middle, stroke=ink, stroke_width=1.5)
    box = max(1.5, third - first)
    yield element(
        "rect", x=first, y=middle - 5.5, width=box, height=11, rx=2, fill=ink, stroke=ink, class_="box"
    )
    yield element("line", x1=median, x2=median, y1=middle - 8, y2=middle + 8, stroke=ink, stroke_width=3)


def _bar(across: Scale, y: float, place: int, number: int, value: float) -> Markup:
    return element(
        "rect",
        x=across.begin,
        y=y,
        width=max(1.0, across(value) - across.begin),
        height=13,
        rx=2,
        fill=colour(place),
        opacity=(1.0, 0.6, 0.35)[min(number, 2)],
    )


def _path(path: Path, across: Scale, up: Scale, axes: Axes) -> Iterator[Markup]:
    ink = colour(path.place)
    for part in path.parts:
        places = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in part)
        yield element("polyline", points=places, fill="none", stroke=ink, stroke_width=2, class_="path")
        if axes.levels or len(part) == 1:
            for x, y in part:
                told = element("title", f"{path.name}, {axes.below(x)}: {axes.exact(y)}")
                yield element("circle", told, cx=across(x), cy=up(y), r=3.2, fill=ink)


def _grid(across: Scale, top: float, bottom: float, shown: Shown) -> Markup:
    parts: list[Markup] = []
    labelled = -math.inf
    for tick in across.ticks:
        x = across(tick)
        parts.append(element("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid"))
        if x - labelled >= LABEL_GAP:
            # At the left edge there is no room for half of it.
            is_at_edge = x < LEFT + LABEL_GAP / 2
            labelled = x + LABEL_GAP / 2 if is_at_edge else x
            parts.append(
                _text(shown(tick), x, bottom + 14, "axis", anchor="start" if is_at_edge else "middle")
            )
    return joined(*parts)


def _text(words: str, x: float, y: float, kind: str, *, anchor: str | None = None) -> Markup:
    return element("text", words, x=x, y=y, class_=kind, text_anchor=anchor)


def _svg(title: str, width: int, height: float, *parts: Markup) -> Markup:
    kind = "wide" if width > WIDTH else None
    return element(
        "svg",
        element("title", title),
        *parts,
        viewBox=f"0 0 {width} {height:.0f}",
        role="img",
        class_=kind,
    )
