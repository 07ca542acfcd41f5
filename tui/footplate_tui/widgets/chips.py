"""The line over the prompt: what goes with the next question beside its text; gone when nothing does."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.widgets import Static

from footplate_tui.enclosing import Enclosed
from footplate_tui.format import size
from footplate_tui.harmless import one_line


class Chips(Static):
    """Shows the attached files, and in whose place the question will stand."""

    def __init__(self) -> None:
        super().__init__(markup=False)

    def show(self, editing: int | None, files: Sequence[Enclosed]) -> None:
        """Show what goes with the question."""
        parts = []
        if editing is not None:
            parts.append(Content.assemble(("instead of turn ", "$warning"), (str(editing), "$warning")))
        parts += [
            Content.assemble(
                ("+ ", "$secondary"), one_line(file.name), (f" {size(file.byte_count)}", "$muted")
            )
            for file in files
        ]
        if editing is not None:
            parts.append(Content.styled("esc leaves it", "$muted"))
        if files:
            parts.append(Content.styled("⌫ in an empty prompt takes the last file away", "$muted"))
        self.display = bool(parts)
        self.update(Content("   ").join(parts))
