"""What there is to switch to, and how a switch goes, in the terminal's words. Pure."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual.content import Content

from footplate_tui.cli.output import size
from footplate_tui.format import duration, truncate
from footplate_tui.harmless import one_line
from footplate_tui.theme import runtime_colour

if TYPE_CHECKING:
    from footplate_daemon.wire import Diagnosis, ModelInfo, Plan, Status, Step, Switch, VariantInfo

COLUMNS = (("SIZE", 9), ("CONTEXT", 8), ("LOADS IN", 11), ("MEMORY", 10), ("FITS", 6), ("SPEED", 13))
SPEED_FROM_WIDTH = 100
MEMORY_FROM_WIDTH = 84
LOADS_FROM_WIDTH = 66
"""Below these widths the column is left out; what it says stands under the table, too."""
MILLION = 1_000_000
NOTE_WIDTH = 15
DOTS = {
    "ready": ("●", "$success"),
    "sleeping": ("◌", "$success"),
    "stopped": ("○", "$muted"),
    "failed": ("✗", "$error"),
}
COMING_OR_GOING = ("◐", "$warning")
COMPACT_BAR = 10


@dataclass(frozen=True)
class Row:
    """A variant as the switcher lists it, with what runs of it now."""

    info: VariantInfo
    state: str
    is_active: bool = False
    is_pinned: bool = False
    is_service: bool = False
    is_demonstration: bool = False
    diagnosis: Diagnosis | None = None

    @property
    def name(self) -> str:
        """The variant."""
        return self.info.name


def rows(models: Iterable[ModelInfo], status: Status | None) -> list[Row]:
    """Join what is listed with what runs; the status is newer than the list."""
    services = {engine.variant for engine in status.services} if status else set[str]()
    running = {engine.variant: engine for engine in (*status.engines, *status.services)} if status else {}
    return [
        Row(
            info=variant,
            state=engine.state.value if engine else "stopped",
            is_active=bool(status and status.active == variant.name),
            is_pinned=bool(engine and engine.pinned),
            is_service=variant.name in services,
            is_demonstration=model.demonstration,
            diagnosis=engine.diagnosis if engine else None,
        )
        for model in models
        for variant in model.variants
        for engine in [running.get(variant.name)]
    ]


def matching(rows: Iterable[Row], words: str) -> list[Row]:
    """Give the rows whose name or capabilities contain every word."""
    wanted = words.casefold().split()
    return [
        row
        for row in rows
        if all(word in f"{row.name} {' '.join(row.info.capabilities)}".casefold() for word in wanted)
    ]


def table_head(width: int) -> Content:
    """Give the line over the table."""
    columns = _columns(width)
    figures = "".join(f"{head:>{cells}}" for head, cells in columns)
    return Content.styled(f"  {'VARIANT':<{_name_width(width, columns)}}{figures}", "$muted")


def table_line(row: Row, width: int) -> Content:
    """Lay a row out in a width: its dot, its name, its figures, and what is special about it."""
    columns = _columns(width)
    dot, colour = DOTS.get(row.state, COMING_OR_GOING)
    cells = dict(zip((head for head, _ in COLUMNS), _figures(row.info), strict=True))
    figures = "".join(f"{cells[head]:>{room}}" for head, room in columns)
    return Content.assemble(
        (f"{dot} ", colour),
        _named(row, _name_width(width, columns)),
        (figures, "$muted"),
        _note(row),
    ).truncate(width, ellipsis=True)


def _columns(width: int) -> Sequence[tuple[str, int]]:
    if width >= SPEED_FROM_WIDTH:
        return COLUMNS
    if width >= MEMORY_FROM_WIDTH:
        return COLUMNS[:4]
    return COLUMNS[:3] if width >= LOADS_FROM_WIDTH else COLUMNS[:2]


def _name_width(width: int, columns: Sequence[tuple[str, int]]) -> int:
    return max(width - 2 - sum(cells for _, cells in columns) - NOTE_WIDTH, 12)


def _named(row: Row, width: int) -> Content:
    runtime, _, model = one_line(row.name).partition("/")
    mark = "  demonstration" if row.is_demonstration else ""
    if cell_len(row.name) + len(mark) > width:
        mark = ""  # it is told under the table
    shown = truncate(model, max(width - cell_len(runtime) - 1 - len(mark), 4))
    rest = width - cell_len(runtime) - 1 - cell_len(shown) - len(mark)
    weight = "bold" if row.is_active else ""
    return Content.assemble(
        (f"{runtime}/", runtime_colour(row.info.runtime)), (shown, weight), (mark, "$muted"), " " * rest
    )


def _figures(info: VariantInfo) -> tuple[str, str, str, str, str, str]:
    weighs = size(info.size_bytes) if info.size_bytes is not None else "-"
    return (
        "not here" if info.on_disk is False else weighs,
        tokens(info.context) if info.context else "-",
        duration(info.last_load_seconds) if info.last_load_seconds is not None else "-",
        size(info.memory_bytes) if info.memory_bytes is not None else "-",
        {True: "yes", False: "no", None: "-"}[info.fits],
        f"{info.last_tokens_per_second:,.0f} tok/s" if info.last_tokens_per_second else "-",
    )


def tokens(count: int) -> str:
    """Give a context: `4,096`, `1.0 M`."""
    return f"{count:,}" if count < MILLION else f"{count / MILLION:.1f} M"


def _note(row: Row) -> Content:
    marks: list[tuple[str, str]] = []
    if row.is_active:
        marks.append(("active", "bold $success"))
    elif row.state == "failed":
        marks.append(("failed", "$error"))
    elif row.state == "ready":
        marks.append(("service" if row.is_service else "loaded", "$success"))
    elif row.state != "stopped":
        marks.append((row.state, "$warning"))
    if row.is_pinned:
        marks.append(("pinned", "$muted"))
    return Content.assemble("  ", Content(" ").join(Content.styled(*mark) for mark in marks))


def about(row: Row, width: int) -> Content:
    """Say about a variant what a table of this width has no room for: why it failed, or what it is."""
    if row.diagnosis:
        return Content.assemble(
            ("✗ ", "$error"),
            one_line(row.diagnosis.cause),
            "\n",
            ("w", "bold $footer-key-foreground"),
            (" says what helps", "$muted"),
        )
    info = row.info
    facts = [
        "a demonstration: it knows only Footplate's guide" if row.is_demonstration else "",
        "its weights are not on this machine" if info.on_disk is False else "",
        "" if info.last_load_seconds is not None else "never loaded here",
        f"loads in {_figures(info)[2]}" if info.last_load_seconds and width < LOADS_FROM_WIDTH else "",
        "there is no room for it" if info.fits is False and width < SPEED_FROM_WIDTH else "",
        f"needed {_figures(info)[3]} of memory" if info.memory_bytes and width < MEMORY_FROM_WIDTH else "",
        f"presets {', '.join(info.presets)}" if info.presets else "",
        ", ".join(info.capabilities) if info.capabilities != ("chat",) else "",
    ]
    return Content.assemble((one_line(row.name), "bold"), "\n", (" · ".join(filter(None, facts)), "$muted"))


def plan_text(plan: Plan, width: int) -> Content:
    """Give a plan: what starts and stops, whether there is room, how long it takes, what is run."""
    free = f" of {size(plan.free_bytes)} free" if plan.free_bytes is not None else ""
    needs = f"{size(plan.needs_bytes)}{free}" if plan.needs_bytes is not None else f"not known yet{free}"
    lines = [
        _told("starts", one_line(plan.variant)),
        _told("stops", ", ".join(map(one_line, plan.stops)) or "nothing"),
        Content.assemble(_told("needs", needs), "" if plan.fits else (" · does not fit", "bold $error")),
        _told("takes", f"about {duration(plan.seconds)}" if plan.seconds is not None else "not known yet"),
    ]
    if plan.command:
        first, *more = textwrap.wrap(one_line(shlex.join(plan.command)), max(width - 8, 20))
        lines += [_told("runs", first), *(_told("", line) for line in more)]
    lines += [Content.styled(f"! {one_line(note)}", "$warning") for note in plan.notes]
    return Content("\n").join(lines)


def _told(what: str, value: str) -> Content:
    return Content.assemble((f"{what:<8}", "$muted"), value)


def bar(fraction: float | None, width: int) -> Content:
    """Draw how far it is; an empty line when nobody knows."""
    done = round(min(max(fraction or 0.0, 0.0), 1.0) * width)
    return Content.assemble(("━" * done, "$primary"), ("─" * (width - done), "$faint"))


def how_far(switch: Switch) -> str:
    """Say how far a switch is: `62% · about 3 s left`."""
    parts = [
        f"{switch.fraction:.0%}" if switch.fraction is not None else "",
        f"about {_roughly(switch.eta_seconds)} left" if switch.eta_seconds else "",
    ]
    return " · ".join(filter(None, parts))


def _roughly(seconds: float) -> str:
    return f"{max(round(seconds), 1)} s" if seconds < 59.5 else duration(seconds)


def compact(switch: Switch) -> str:
    """Give a switch that goes on in one line, for where the chat shows it."""
    step = switch.steps[-1].name.value if switch.steps else "start"
    told = bar(switch.fraction, COMPACT_BAR).plain if switch.fraction is not None else ""
    return " ".join(filter(None, (f"{one_line(switch.variant)}: {step}", told, how_far(switch))))


def steps_text(switch: Switch) -> Content:
    """Give the steps so far, one on a line, with their times."""
    return Content("\n").join(map(_step_line, switch.steps))


def _step_line(step: Step) -> Content:
    if step.seconds is None:
        detail = (f"  {one_line(step.detail)}", "$muted")
        return Content.assemble(("◐ ", "$warning"), (step.name.value, "bold"), detail)
    took = (f"{duration(step.seconds):>9}", "$muted")
    return Content.assemble(("✓ ", "$success"), f"{step.name.value:<12}", took)


class Endings:
    """Knows whose end has been told, so that each is told once; and what was wished in this terminal."""

    def __init__(self) -> None:
        self.wished: set[str] = set()
        """Variants that somebody wished for here; of others' failures only a line is said."""
        self._told: int | None = None

    def take(self, status: Status) -> tuple[int | None, Switch | None]:
        """Give what has ended since the last status: the id of a switch to ask for, and the one it shows.

        What ended before the first status is no news. A failed switch is followed at once by the one
        that goes back, so one look behind is enough.
        """
        switch = status.switch
        newest = switch.id if switch else 0
        has_ended = switch is not None and switch.outcome != "running"
        told, self._told = self._told, newest if has_ended else max(newest - 1, 0)
        if told is None or switch is None or newest <= told:
            return None, None
        return (newest - 1 if newest - 1 > told else None), (switch if has_ended else None)

    def was_wished_here(self, switch: Switch) -> bool:
        """Say whether a switch that has ended was wished here; the wish is over then."""
        if switch.variant not in self.wished or switch.reason == "rollback":
            return False
        self.wished.discard(switch.variant)
        return True
