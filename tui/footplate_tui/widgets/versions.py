"""Answers to one question: side by side where there is room, else one below the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Container

from footplate_tui.widgets.answer import Answer, Spoken
from footplate_tui.widgets.ground import empty_rows

if TYPE_CHECKING:
    from textual.geometry import Region
    from textual.strip import Strip

    from footplate_tui.places import Place

MOST = 3
"""So many stand side by side; of more, the newest and the chosen one."""
CHOSEN, OTHER = " · goes on", ""


class Versions(Container):
    """The answers of one place; the chosen one is gone on from."""

    def __init__(self, place: Place, spoken: Spoken | None = None) -> None:
        super().__init__()
        shown = [
            version
            for version in place.versions
            if version is place.version or version in place.versions[-MOST + 1 :]
        ]
        self._answers = [
            Answer.of_version(
                version,
                spoken,
                asked=version.prompt if version.prompt != place.version.prompt else "",
                stands=CHOSEN if version is place.version else OTHER,
            )
            for version in shown
        ]
        self.chosen = self._answers[shown.index(place.version)]

    def compose(self) -> ComposeResult:
        yield from self._answers

    def render_lines(self, crop: Region) -> list[Strip]:
        """Give nothing but ground: the answers paint themselves."""
        return empty_rows(self, crop)


def answer_of(place: Place, spoken: Spoken | None = None) -> Answer | Versions:
    """Make what stands under the question of a place."""
    if len(place.versions) == 1:
        return Answer.of_version(place.version, spoken)
    return Versions(place, spoken)


def chosen_answer(shown: Answer | Versions) -> Answer:
    """Give the answer that is gone on from."""
    return shown.chosen if isinstance(shown, Versions) else shown
