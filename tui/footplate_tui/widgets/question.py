"""One question as it was asked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from textual.content import Content
from textual.widgets import Static

from footplate_tui.asking import Asking
from footplate_tui.format import count, size
from footplate_tui.harmless import harmless, one_line

if TYPE_CHECKING:
    from footplate_tui.places import Version

LINES_SHOWN = 40
"""Of a pasted file only so much is repeated in the transcript."""


class Question(Static):
    """A question in the transcript; says so while it waits to be sent."""

    def __init__(self, asking: Asking, waits_for: str = "", files: Iterable[tuple[str, int]] = ()) -> None:
        self.asking = asking
        self._files = [*files, *((each.name, each.byte_count) for each in asking.enclosed)]
        super().__init__(self._content(waits_for), markup=False, classes="-waiting" if waits_for else None)

    @classmethod
    def of_version(cls, version: Version) -> Question:
        """Make the question of a turn."""
        files = [(each.name, each.byte_count) for each in version.turns[0].attachments]
        return cls(Asking(version.prompt), files=files)

    @property
    def text(self) -> str:
        """What is asked."""
        return self.asking.text

    def show_waiting(self, waits_for: str) -> None:
        """Say what it waits for; an empty text says that it waits no more."""
        self.set_class(bool(waits_for), "-waiting")
        self.update(self._content(waits_for))

    def _content(self, waits_for: str) -> Content:
        lines = harmless(self.text).split("\n")
        shown = Content("\n".join(lines[:LINES_SHOWN]))
        if len(lines) > LINES_SHOWN:
            shown = shown.append(
                Content.styled(f"\n… {count(len(lines) - LINES_SHOWN, 'more line')}", "$muted")
            )
        for name, byte_count in self._files:
            shown = shown.append(Content.styled(f"\n+ {one_line(name)} · {size(byte_count)}", "$secondary"))
        if waits_for:
            shown = shown.append(Content.styled(f"\n{waits_for} · Esc takes it back", "$warning"))
        return shown
