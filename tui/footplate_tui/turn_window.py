"""The window on a session: which of its turns are known, which are shown, and which of those are mounted.

It mounts what is near to what the user reads. It knows the transcript and no daemon: turns are given to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from footplate_daemon.branches import newest_through
from footplate_tui.places import Place, Version, places
from footplate_tui.widgets.answer import Answer, Spoken
from footplate_tui.widgets.question import Question
from footplate_tui.widgets.versions import Versions, answer_of, chosen_answer

if TYPE_CHECKING:
    from textual.widget import Widget

    from footplate_daemon.wire import Turn
    from footplate_tui.widgets.transcript import Transcript

ROWS_AT_FIRST = 200
"""About so many rows of the newest turns are mounted; older ones when the user scrolls up to them."""
ROWS_AT_A_TIME = 80
"""So many are mounted then: two screens take no longer than a blink."""
COLUMNS_GUESSED = 80


class TurnWindow:
    """The turns of the open session, mounted as far as the user is near to them."""

    def __init__(self, transcript: Transcript, speaking: Callable[[], Spoken]) -> None:
        self._transcript = transcript
        self._speaking = speaking
        self.turns: list[Turn] = []
        """Those that were read: the newest, and before them as many as the user has scrolled up to."""
        self.spots: list[Place] = []
        """What of the turns is shown: the path to the newest, or to what was chosen to go on from."""
        self.waiting: list[Question] = []
        """Questions that are not with the daemon yet, oldest first; they stand below all turns and stay."""
        self.answer: Answer | None = None
        """The newest answer on screen."""
        self._first_mounted = 0
        """Index in `spots` of the first that is mounted."""
        self._end_mounted = 0
        """Index in `spots` behind the last that is mounted."""

    @property
    def newest(self) -> int:
        """The number of the newest turn; 0 when there is none."""
        return self.turns[-1].number if self.turns else 0

    @property
    def tip(self) -> int | None:
        """The turn that the next question goes on from."""
        return self.spots[-1].version.last.number if self.spots else None

    @property
    def after(self) -> int | None:
        """What the daemon must be told to go on from; None: it is the newest anyway."""
        return self.tip if self.turns and self.tip != self.newest else None

    @property
    def has_earlier(self) -> bool:
        """Whether turns are known before the first one that is mounted."""
        return self._first_mounted > 0

    @property
    def has_later(self) -> bool:
        """Whether turns behind the last one that is mounted have been taken down."""
        return self._end_mounted < len(self.spots)

    # Another session.

    def take(self, turns: Sequence[Turn], number: int | None = None) -> None:
        """Hold these turns instead, shown so that the one of this number is among them; `mount` is next."""
        self.turns = list(turns)
        self.spots = places(self.turns, self._tip_for(number)) if self.turns else []

    def _tip_for(self, number: int | None) -> int:
        """Give the turn to go on from so that this one is shown: the newest, if it leads there."""
        is_shown = number is None or any(_holds(spot, number) for spot in places(self.turns, self.newest))
        return self.newest if number is None or is_shown else newest_through(self.turns, number)

    async def mount(self, number: int | None = None) -> None:
        """Mount the turns around the one of this number, or the newest, instead of what is mounted."""
        await self._take_down()
        self.answer = None
        if not self.turns:
            self._first_mounted = self._end_mounted = 0
        # An answer that is still coming is followed, and only the end can be.
        elif number is None or self.turns[-1].ended_at is None:
            await self._mount_end()
        else:
            await self._mount_at(number)

    async def _take_down(self) -> None:
        await self._transcript.remove_children(self._but_waiting(self._transcript.children))

    async def _mount_end(self) -> None:
        """Mount the newest turns and follow the end; nothing but waiting questions is mounted yet."""
        self._first_mounted = self._end_mounted = len(self.spots)
        widgets = self._earlier_widgets(ROWS_AT_FIRST)
        await self._transcript.mount_all(widgets, before=0 if self._transcript.children else None)
        self.answer = _newest_answer(widgets)
        self._transcript.end_below(is_mounted=True)
        self._transcript.follow()

    async def _mount_at(self, number: int) -> None:
        """Mount the turns around the one of this number, with its question at the top."""
        found = (index for index, spot in enumerate(self.spots) if _holds(spot, number))
        self._first_mounted = self._end_mounted = next(found, len(self.spots) - 1)
        later = self._later_widgets()
        earlier = self._earlier_widgets()
        await self._transcript.mount_all([*earlier, *later], before=0 if self._transcript.children else None)
        self.answer = None if self.has_later else _newest_answer(later)
        self._transcript.end_below(is_mounted=not self.has_later)
        self._transcript.show_from(later[0])

    # Earlier and later pages.

    def know_earlier(self, turns: Sequence[Turn]) -> None:
        """Hold turns from before the first one that was known, too."""
        self.turns[:0] = turns
        known = len(self.spots)
        self.spots = places(self.turns, self.tip or 0)
        self._first_mounted += len(self.spots) - known
        self._end_mounted += len(self.spots) - known

    async def mount_earlier(self) -> None:
        """Mount the next older turns."""
        await self._transcript.prepend(self._earlier_widgets())

    async def mount_later(self) -> None:
        """Mount the next newer turns that had been taken down."""
        await self._transcript.append(self._later_widgets())
        self._transcript.end_below(is_mounted=not self.has_later)

    async def drop_earlier(self) -> None:
        """Take down what scrolled far out above; it is mounted again when the user scrolls up to it."""
        above = self._transcript.rows_above()
        whole = above[: len(above) - len(above) % 2]
        if whole:
            self._first_mounted += len(whole) // 2
            await self._transcript.drop(whole)

    async def drop_later(self) -> None:
        """Take down what is far below the screen, unless a question waits there."""
        below = self._transcript.rows_below()
        whole = below[1:] if below and isinstance(below[0], Answer | Versions) else below
        if whole and not self.waiting:
            self._end_mounted -= sum(isinstance(widget, Answer | Versions) for widget in whole)
            self._transcript.end_below(is_mounted=False)
            await self._transcript.drop(whole)

    async def go_to_end(self) -> None:
        """Follow the end, which may have been taken down."""
        if self.has_later:
            await self._take_down()
            await self._mount_end()
        self._transcript.follow()

    def _earlier_widgets(self, rows_wanted: int = ROWS_AT_A_TIME) -> list[Widget]:
        """Make the widgets of the next older turns, about so many rows of them."""
        rows, first = 0, self._first_mounted
        while first > 0 and rows < rows_wanted:
            first -= 1
            rows += _rows_guessed(self.spots[first])
        spots = self.spots[first : self._first_mounted]
        self._first_mounted = first
        return self._widgets(spots)

    def _later_widgets(self) -> list[Widget]:
        """Make the widgets of the next newer turns that had been taken down."""
        rows, end = 0, self._end_mounted
        while end < len(self.spots) and rows < ROWS_AT_A_TIME:
            rows += _rows_guessed(self.spots[end])
            end += 1
        spots = self.spots[self._end_mounted : end]
        self._end_mounted = end
        return self._widgets(spots)

    def _widgets(self, spots: Sequence[Place]) -> list[Widget]:
        spoken = self._speaking()
        return [
            widget
            for spot in spots
            for widget in (Question.of_version(spot.version), answer_of(spot, spoken))
        ]

    # Turns that come and change.

    async def mount_answer(self, turn: Turn) -> Answer:
        """Mount the answer of a new turn, whose question is there already."""
        version = Version((turn,))
        answer = Answer.of_version(version, self._speaking())
        self.turns.append(turn)
        self.spots.append(Place((version,), 0))
        self._end_mounted = len(self.spots)
        self.answer = answer
        await self._transcript.mount(answer, before=self._first_waiting())
        return answer

    def replace(self, turn: Turn) -> None:
        """Hold a turn as it is now."""
        for index in range(len(self.turns) - 1, -1, -1):
            if self.turns[index].number == turn.number:
                self.turns[index] = turn
                break
        for index in range(len(self.spots) - 1, -1, -1):
            if _holds(self.spots[index], turn.number):
                self.spots[index] = self.spots[index].with_turn(turn)
                return

    async def show_path(self, tip: int) -> None:
        """Show the path to a turn; what is there already stays as it is."""
        before, self.spots = self.spots, places(self.turns, tip)
        pairs = zip(before, self.spots, strict=False)
        same = next(
            (index for index, (old, new) in enumerate(pairs) if old.key != new.key),
            min(len(before), len(self.spots)),
        )
        added = self.spots[same:]
        fits = self._first_mounted <= same <= self._end_mounted == len(before)
        if not fits or sum(map(_rows_guessed, added)) > ROWS_AT_FIRST:
            await self._take_down()
            await self._mount_end()
            return
        await self._mount_instead(self._questions()[same - self._first_mounted :], added)

    async def _mount_instead(self, questions: Sequence[Question], added: Sequence[Place]) -> None:
        """Mount places at the end, instead of what stands from the first of these questions on."""
        gone = list(self._transcript.children)
        gone = gone[gone.index(questions[0]) :] if questions else []
        widgets = self._widgets(added)
        with self._transcript.app.batch_update():
            await self._transcript.remove_children(self._but_waiting(gone))
            await self._transcript.mount_all(widgets, before=self._first_waiting())
        self._end_mounted = len(self.spots)
        self.answer = _newest_answer(list(self._transcript.children))
        self._transcript.follow()

    # What is where.

    def question_at(self, index: int) -> Question | None:
        """Give the question of a place, if it is mounted."""
        if not self._first_mounted <= index < self._end_mounted:
            return None
        return self._questions()[index - self._first_mounted]

    def answers_at(self, index: int) -> list[Answer]:
        """Give the answers of a place, if it is mounted: one, or those that are compared."""
        question = self.question_at(index)
        if question is None:
            return []
        children = self._transcript.children
        shown = children[children.index(question) + 1]
        beside = shown.query(Answer) if isinstance(shown, Versions) else [shown]
        return [each for each in beside if isinstance(each, Answer)]

    def _questions(self) -> list[Question]:
        shown = self._but_waiting(self._transcript.children)
        return [each for each in shown if isinstance(each, Question)]

    def _but_waiting(self, widgets: Sequence[Widget]) -> list[Widget]:
        return [each for each in widgets if each not in self.waiting]

    def _first_waiting(self) -> Widget | None:
        return next((each for each in self._transcript.children if each in self.waiting), None)


def _newest_answer(widgets: Sequence[Widget]) -> Answer | None:
    newest = next((each for each in reversed(widgets) if isinstance(each, Answer | Versions)), None)
    return chosen_answer(newest) if newest else None


def _holds(spot: Place, number: int) -> bool:
    return any(turn.number == number for version in spot.versions for turn in version.turns)


def _rows_guessed(spot: Place) -> int:
    text, prompt = spot.version.answer, spot.version.prompt
    return 6 + text.count("\n") + len(text) // COLUMNS_GUESSED + min(prompt.count("\n"), 40)
