"""What a model thought before it answered: a line that opens into the text.

Open while the model only thinks, closed when it begins to answer.
"""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.events import Click
from textual.reactive import reactive
from textual.widgets import Static

from footplate_tui.format import count, duration
from footplate_tui.harmless import harmless

STREAMED_CHARACTERS = 1200
"""While it streams only the end is drawn: drawing all of it again and again grows without bound."""


class ReasoningTitle(Static, can_focus=True):
    """The line that is always there."""

    BINDINGS: ClassVar[list[BindingType]] = [("enter,space", "open_or_close", "Show or hide")]

    def action_open_or_close(self) -> None:
        self.query_ancestor(Reasoning).toggle()

    def on_click(self, event: Click) -> None:
        event.stop()
        self.action_open_or_close()


class Reasoning(Vertical):
    """The reasoning of one answer."""

    is_open: reactive[bool] = reactive(False, init=False)

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self._text = text
        self._seconds: float | None = None
        self._is_thinking = False
        self._has_parts = False

    def compose(self) -> ComposeResult:
        yield ReasoningTitle(self._title(), markup=False)
        yield Static(markup=False, classes="body")

    def grow(self, text: str) -> None:
        """Show more of it, open."""
        self._is_thinking = True
        self._text += text
        self.is_open = True
        self._draw()

    def close(self, seconds: float | None) -> None:
        """The thinking is over; say how long it took, where that is known."""
        self._is_thinking = False
        self._seconds = seconds
        self.is_open = False
        self._draw()

    def toggle(self) -> None:
        """Open it or close it."""
        self.is_open = not self.is_open

    def watch_is_open(self) -> None:
        self._draw()

    def on_mount(self) -> None:
        self._has_parts = True
        self._draw()

    def _draw(self) -> None:
        if not self._has_parts:
            return
        self.set_class(self.is_open, "-open")
        self.query_one(ReasoningTitle).update(self._title())
        if self.is_open:
            text = harmless(self._text).strip()
            if self._is_thinking and len(text) > STREAMED_CHARACTERS:
                text = "…" + text[-STREAMED_CHARACTERS:]
            self.query_one(".body", Static).update(Content(text))

    def _title(self) -> Content:
        if self._is_thinking:
            return Content("▾ thinking")
        mark = "▾" if self.is_open else "▸"
        length = count(len(self._text.split()), "word")
        if self._seconds is None:
            return Content(f"{mark} thought · {length}")
        return Content(f"{mark} thought for {duration(self._seconds)} · {length}")
