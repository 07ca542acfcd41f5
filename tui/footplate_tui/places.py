"""A session as it is shown: a row of places, each with a question and one answer, or several to compare.

Retries and edits put another version in the same place; what is asked next goes on from the chosen one.
Pure: turns in, places out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from footplate_daemon.branches import newest_through, path_to

if TYPE_CHECKING:
    from footplate_daemon.wire import Turn


@dataclass(frozen=True)
class Version:
    """A question with its answer: a turn, and those that go on with its answer."""

    turns: tuple[Turn, ...]

    @property
    def number(self) -> int:
        """The number of the turn that asked."""
        return self.turns[0].number

    @property
    def prompt(self) -> str:
        """What was asked."""
        return self.turns[0].prompt

    @property
    def last(self) -> Turn:
        """The turn that says how the answer ended."""
        return self.turns[-1]

    @property
    def answer(self) -> str:
        """The answer, whole."""
        return "".join(turn.answer for turn in self.turns)

    @property
    def reasoning(self) -> str:
        """What was thought before it."""
        return "".join(turn.reasoning for turn in self.turns)


@dataclass(frozen=True)
class Place:
    """Versions of one question, oldest first, of which one is gone on from."""

    versions: tuple[Version, ...]
    chosen: int

    @property
    def version(self) -> Version:
        """The one that is gone on from."""
        return self.versions[self.chosen]

    @property
    def key(self) -> tuple[object, ...]:
        """What differs when the place must be drawn anew."""
        shown = tuple(tuple(turn.number for turn in version.turns) for version in self.versions)
        return (self.chosen, shown)

    def with_turn(self, turn: Turn) -> Place:
        """Give the place with a turn as it is now."""
        versions = tuple(
            Version(tuple(turn if each.number == turn.number else each for each in version.turns))
            for version in self.versions
        )
        return Place(versions, self.chosen)


def places(turns: Sequence[Turn], tip: int) -> list[Place]:
    """Give the places from the first turn that is known to the one with this number."""
    path = path_to(turns, tip)
    on_path = {turn.number for turn in path}
    by_number = {turn.number: turn for turn in turns}
    roots = {turn.number: _root(turn, by_number) for turn in turns}
    beside: dict[int, list[Turn]] = {}
    for turn in turns:
        if turn.continue_of is None:
            beside.setdefault(roots[turn.number], []).append(turn)
    continuing: dict[int, list[Turn]] = {}
    for turn in turns:
        if turn.continue_of is not None:
            continuing.setdefault(turn.continue_of, []).append(turn)
    shown = []
    for step, turn in enumerate(path):
        if turn.continue_of is not None and step:
            continue
        heads = beside.get(roots[turn.number], [turn])
        if turn not in heads:  # what it stands beside is not all here
            heads = [turn]
        versions = tuple(_version(head, continuing, on_path, tip) for head in heads)
        shown.append(Place(versions, heads.index(turn)))
    return shown


def tip_through(turns: Sequence[Turn], version: Version) -> int:
    """Give the turn to go on from when this version is chosen: the newest that it led to."""
    return newest_through(turns, version.number)


def _root(turn: Turn, by_number: dict[int, Turn]) -> int:
    """Give the number of the turn whose place this one took, however often it was taken since."""
    number = turn.number
    while turn.instead_of is not None:
        number = turn.instead_of
        if number not in by_number:
            break
        turn = by_number[number]
    return number


def _version(head: Turn, continuing: dict[int, list[Turn]], on_path: set[int], tip: int) -> Version:
    """Follow an answer through what goes on with it: on the path, else the newest."""
    turns = [head]
    while following := continuing.get(turns[-1].number):
        chosen = next((turn for turn in following if turn.number in on_path), None)
        if chosen is None and (turns[-1].number in on_path and turns[-1].number != tip):
            break
        turns.append(chosen or following[-1])
    return Version(tuple(turns))
