"""The line on top: which session this is, who answers and how he does, whose box it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from footplate_tui.format import speaker, truncate
from footplate_tui.harmless import one_line

if TYPE_CHECKING:
    from footplate_daemon.wire import Engine, Status

NAME = "footplate"
NARROW = 60
"""Below this width the box's name is left out."""


@dataclass(frozen=True)
class Reading:
    """A status in a dot and a few words."""

    dot: str
    colour: str
    words: str


def read(status: Status | None, *, is_connected: bool, host: str = "") -> Reading:
    """Say in a few words who answers and how he does."""
    if not is_connected:
        words = f"reconnecting to {one_line(host)}…" if host else "daemon unreachable"
        return Reading("○", "$error", words)
    if status is None:
        return Reading("○", "$muted", "connecting")
    switch = status.switch
    if switch and switch.outcome == "running":
        step = switch.steps[-1].name.value if switch.steps else "start"
        fraction = f" {switch.fraction:.0%}" if switch.fraction is not None else ""
        return Reading("◐", "$warning", f"{one_line(switch.variant)}: {step}{fraction}")
    engine = answering(status)
    if engine is None:
        if status.wanted:
            return Reading("○", "$warning", f"{one_line(status.wanted)} is not running")
        return Reading("○", "$muted", "no model is active")
    words = speaker(one_line(engine.model), one_line(engine.runtime))
    match engine.state.value:
        case "ready":
            return Reading("●", "$success", words)
        case "failed":
            return Reading("✗", "$error", f"{words} failed")
        case "stopped":
            return Reading("○", "$muted", f"{words} is stopped")
        case state:
            return Reading("◐", "$warning", f"{words} {state}")


def answering(status: Status | None) -> Engine | None:
    """Give the engine that would answer a question now."""
    if status is None:
        return None
    variant = status.active or status.wanted
    return next((engine for engine in status.engines if engine.variant == variant), None)


def compose_line(width: int, title: str, reading: Reading, place: str) -> Content:
    """Lay the parts out in a width: the title gives way first, then the box's name."""
    if width < NARROW:
        place = ""
    right = Content.assemble(
        (f"{reading.dot} ", reading.colour), reading.words, (f"   {place}" if place else "", "$muted")
    )
    room = width - cell_len(NAME) - 2 - right.cell_length - 2
    shown_title = truncate(title, max(room, 0))
    gap = width - cell_len(NAME) - 2 - cell_len(shown_title) - right.cell_length
    return Content.assemble(
        (NAME, "bold $primary"), "  ", (shown_title, "bold"), " " * max(gap, 1), right
    ).truncate(width, ellipsis=True)


class Header(Widget):
    """Shows what its reactives say; one row, drawn anew only when one of them changes."""

    session_title: reactive[str] = reactive("")
    status: reactive[Status | None] = reactive(None)
    is_connected: reactive[bool] = reactive(True)

    def __init__(self, place: str) -> None:
        super().__init__()
        self._place = place

    def render(self) -> Content:
        host: str = getattr(self.app, "host", "")
        reading = read(self.status, is_connected=self.is_connected, host=host)
        return compose_line(self.content_size.width, one_line(self.session_title), reading, self._place)
