"""An error in the place where it happened, with what to do about it."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from footplate_daemon.errors import FootplateError
from footplate_tui.harmless import harmless


class Notice(Static):
    """One error that belongs to no answer; it goes away with the next question."""

    def __init__(self, error: FootplateError) -> None:
        hint = Content.styled(f"\n{harmless(error.hint)}", "$muted") if error.hint else Content("")
        super().__init__(Content.assemble(("✗ ", "$error"), harmless(error.message), hint), markup=False)
