"""One question as it was asked."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from footplate_tui.format import count
from footplate_tui.harmless import harmless

LINES_SHOWN = 40
"""Of a pasted file only so much is repeated in the transcript."""


class Question(Static):
    """A question in the transcript; says so while it waits to be sent."""

    def __init__(self, text: str, waits_for: str = "") -> None:
        self.text = text
        super().__init__(_content(text, waits_for), markup=False, classes="-waiting" if waits_for else None)

    def show_waiting(self, waits_for: str) -> None:
        """Say what it waits for; an empty text says that it waits no more."""
        self.set_class(bool(waits_for), "-waiting")
        self.update(_content(self.text, waits_for))


def _content(text: str, waits_for: str) -> Content:
    lines = harmless(text).split("\n")
    shown = Content("\n".join(lines[:LINES_SHOWN]))
    if len(lines) > LINES_SHOWN:
        shown = shown.append(Content.styled(f"\n… {count(len(lines) - LINES_SHOWN, 'more line')}", "$muted"))
    if waits_for:
        shown = shown.append(Content.styled(f"\n{waits_for} · Esc takes it back", "$warning"))
    return shown
