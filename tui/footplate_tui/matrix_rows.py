"""The choices of a new benchmark as rows, and what they come to, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from textual.content import Content

from footplate_tui.benchmark_matrix import (
    LEVELS,
    NUMBERS,
    STARTS_COLD,
    WORDS,
    Estimate,
    Matrix,
    can_take_part,
    estimate,
    stopped_meanwhile,
)
from footplate_tui.cli.output import size
from footplate_tui.format import count, duration, truncate
from footplate_tui.harmless import one_line
from footplate_tui.theme import runtime_colour

if TYPE_CHECKING:
    from footplate_daemon.wire import ModelInfo, Status, VariantInfo

SECTION_CELLS, NAME_CELLS = 13, 31
OWN_PRESETS = ""
"""The choice of no preset: each variant has its own."""

Kind = Literal["variants", "presets", "workloads", "levels", "number", "flag", "title"]


@dataclass(frozen=True)
class Item:
    """One thing to choose."""

    kind: Kind
    value: str
    section: str = ""
    """What stands at the left, on the first row of a section."""
    about: str = ""


def items(models: Sequence[ModelInfo], matrix: Matrix) -> list[Item]:
    """Give everything there is to choose, in order; what was chosen earlier and is gone stands there, too."""
    listed = [variant.name for variant in variants_of(models).values()]
    gone = [name for name in matrix.variants if name not in listed]
    presets = list(
        dict.fromkeys(
            preset
            for variant in variants_of(models).values()
            if variant.name in matrix.variants or not matrix.variants
            for preset in variant.presets
            if preset != "default"
        )
    )
    presets += [name for name in matrix.presets if name not in presets]
    sections: list[tuple[Kind, str, Iterable[str]]] = [
        ("variants", "Variants", [*listed, *gone]),
        ("presets", "Presets", [OWN_PRESETS, *presets]),
        ("workloads", "Workloads", WORDS),
        ("levels", "At a time", map(str, LEVELS)),
        ("number", "Sizes", NUMBERS),
        ("flag", "Ways", ("is_cold", "measures_cache")),
        ("title", "Title", ("title",)),
    ]
    return [
        Item(kind, value, section if place == 0 else "")
        for kind, section, values in sections
        for place, value in enumerate(values)
    ]


def variants_of(models: Iterable[ModelInfo]) -> dict[str, VariantInfo]:
    """Give the variants that can take part, by name."""
    return {variant.name: variant for model in models for variant in model.variants if can_take_part(variant)}


def is_chosen(item: Item, matrix: Matrix) -> bool | None:
    """Say whether an item is chosen; None where there is nothing to choose but to say."""
    match item.kind:
        case "variants":
            return item.value in matrix.variants
        case "presets":
            return not matrix.presets if item.value == OWN_PRESETS else item.value in matrix.presets
        case "workloads":
            return item.value in matrix.workloads
        case "levels":
            return int(item.value) in matrix.levels
        case "flag":
            return bool(getattr(matrix, item.value))
        case _:
            return None


def item_line(
    item: Item, matrix: Matrix, variants: Mapping[str, VariantInfo], width: int, typed: str | None = None
) -> Content:
    """Lay a choice out in a width; `typed` is a number as it is being typed."""
    chosen = is_chosen(item, matrix)
    section = Content.styled(f"{item.section:<{SECTION_CELLS}}", "bold $heading")
    mark = {True: ("✓ ", "bold $success"), False: ("· ", "$muted"), None: ("  ", "")}[chosen]
    name, about = _words(item, matrix, variants, typed)
    name_cells = min(NAME_CELLS, max(width - SECTION_CELLS - 2, 8))
    shown = truncate(name.plain, name_cells - 1)
    name = name if shown == name.plain else Content(shown)
    gap = " " * max(name_cells - name.cell_length, 1)
    line = Content.assemble(section, mark, name, gap, (about, "$muted"))
    return line.truncate(width, ellipsis=True)


def _words(
    item: Item, matrix: Matrix, variants: Mapping[str, VariantInfo], typed: str | None
) -> tuple[Content, str]:
    match item.kind:
        case "variants":
            return _variant(item.value), _variant_figures(variants.get(item.value))
        case "presets":
            return Content(one_line(item.value) or "as each variant has it"), ""
        case "workloads":
            about = WORDS[item.value]
            return Content(item.value), one_line(
                matrix.file
            ) if item.value == "file" and matrix.file else about
        case "levels":
            return Content(item.value), ""
        case "number":
            value = str(getattr(matrix, item.value)) if typed is None else f"{typed}▏"
            words = NUMBERS[item.value][0]
            return Content.assemble(f"{words}  ", (value, "bold")), ""
        case "flag":
            return _flag(item.value)
        case "title":
            shown = one_line(matrix.title)
            return (Content(shown) if shown else Content.styled("none: t names the run", "$muted")), ""


def _flag(name: str) -> tuple[Content, str]:
    if name == "is_cold":
        return Content("Start each engine cold"), "and once more warm"
    return Content("Measure the prefix cache"), "else every prompt is unique"


def _variant(name: str) -> Content:
    runtime, slash, model = one_line(name).partition("/")
    return Content.assemble((runtime + slash, runtime_colour(runtime)), model)


def _variant_figures(info: VariantInfo | None) -> str:
    if info is None:
        return "not in the configuration any more"
    loads, rate = info.last_load_seconds, info.last_tokens_per_second
    parts = (
        "active" if info.active else "",
        "not on disk" if info.on_disk is False else "",
        "does not fit" if info.fits is False else "",
        size(info.size_bytes) if info.size_bytes else "",
        f"loads in {duration(loads)}" if loads is not None else "",
        f"{rate:,.0f} tok/s" if rate is not None else "",
    )
    return " · ".join(filter(None, parts))


# What it comes to.


def summary(matrix: Matrix, variants: Mapping[str, VariantInfo], width: int) -> Content:
    """Say in a line how many cells there are and about how long it takes, or what is missing."""
    if lack := matrix.lack():
        return Content.styled(lack, "$warning")
    guess = estimate(matrix, variants)
    return Content.assemble(
        (count(matrix.cells, "cell"), "bold"),
        f" of {count(matrix.requests, 'request')}   about ",
        (duration(guess.seconds), "bold"),
        (" (guessed: not all was measured here before)" if guess.is_guessed else "", "$muted"),
    ).truncate(width, ellipsis=True)


def stops(matrix: Matrix, status: Status | None, width: int) -> Content:
    """Say in a line what stops meanwhile."""
    stopped = stopped_meanwhile(matrix, status)
    if not stopped:
        return Content.styled("No engine that runs is stopped for it.", "$muted")
    names = ", ".join(map(one_line, stopped))
    verb = "stops" if len(stopped) == 1 else "stop"
    active = one_line(status.active) if status and status.active else ""
    if stopped == [status.active if status else None]:
        back = " and is back at the end"
    else:
        back = f"; {active} is back at the end" if active else ""
    return Content.assemble(("! ", "$warning"), f"{names} {verb} meanwhile{back}").truncate(
        width, ellipsis=True
    )


def plan(matrix: Matrix, variants: Mapping[str, VariantInfo], status: Status | None, width: int) -> Content:
    """Say at length what will be done, for where there is room."""
    lines = [Content.styled("What will be done", "bold $heading"), Content("")]
    if lack := matrix.lack():
        return Content("\n").join([*lines, Content.styled(lack, "$warning")])
    guess = estimate(matrix, variants)
    for name in matrix.variants:
        for preset in matrix.presets or ("",):
            lines += _entrant(name, preset, matrix, guess, width)
    work = [(name, level) for name in matrix.workloads for level in matrix.levels_of(name)]
    lines += [Content(""), Content.styled("In each of them", "$muted")]
    for name in matrix.workloads:
        levels = ", ".join(map(str, matrix.levels_of(name)))
        lines.append(Content.assemble(f"  {name}", (f"  {levels} at a time", "$muted")))
    lines += [
        Content(""),
        Content.assemble(
            (f"{matrix.entrants} by {len(work)}{_times(matrix)} = ", "$muted"),
            (count(matrix.cells, "cell"), "bold"),
            f", {count(matrix.cells * matrix.requests, 'request')}",
        ),
        Content.assemble(("about ", "$muted"), (duration(guess.seconds), "bold")),
    ]
    if guess.is_guessed:
        lines.append(Content.styled("guessed: not all was measured here before", "$muted"))
    return Content("\n").join([*lines, Content(""), stops(matrix, status, 10_000)])


def _times(matrix: Matrix) -> str:
    return f" by {matrix.repeats}" if matrix.repeats > 1 else ""


def _entrant(name: str, preset: str, matrix: Matrix, guess: Estimate, width: int) -> list[Content]:
    load = guess.loads.get(name, 0.0) / (STARTS_COLD if matrix.is_cold else 1)
    starts = "cold, then warm" if matrix.is_cold else "as it comes"
    first = Content.assemble("  ", _variant(name), (f" {one_line(preset)}" if preset else "", "$muted"))
    second = Content.styled(f"    started {starts}, about {duration(load)} each", "$muted")
    return [first.truncate(width, ellipsis=True), second.truncate(width, ellipsis=True)]
