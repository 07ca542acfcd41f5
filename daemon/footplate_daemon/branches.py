"""Which turns of a session lead up to one: retries, edits and continuations make a tree of it.

Pure. Turns are numbered as they were asked; a turn that is missing ends the path there, so that the newest
turns of a long session are enough. Imports nothing: the terminal needs it before its first picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from footplate_daemon.wire import Turn


def path_to(turns: Sequence[Turn], number: int) -> list[Turn]:
    """Give the turns from the first to this one as it goes on from them, oldest first.

    A turn goes on from the one before it; one that stands in another's place, from what that one went on
    from; and `after` and `continue_of` say it themselves.
    """
    by_number = {turn.number: turn for turn in turns}
    path = []
    turn = by_number.get(number)
    while turn:
        path.append(turn)
        former = former_of(turn, by_number)
        turn = by_number.get(former) if former else None
    return path[::-1]


def former_of(turn: Turn, turns: Mapping[int, Turn]) -> int | None:
    """Give the number of the turn that this one goes on from; None for one that begins."""
    replaced: Turn | None = turn
    while replaced is not None and replaced.instead_of is not None:
        turn, replaced = replaced, turns.get(replaced.instead_of)
    if replaced is None:
        return (turn.instead_of or 1) - 1 or None  # what it stands in place of is not at hand
    return replaced.continue_of or replaced.after or replaced.number - 1 or None


def newest_through(turns: Iterable[Turn], number: int) -> int:
    """Give the newest turn whose path leads through this one: itself, if none goes on from it."""
    by_number = {turn.number: turn for turn in turns}
    leading = {number}
    for later in sorted(by_number):
        if later > number and former_of(by_number[later], by_number) in leading:
            leading.add(later)
    return max(leading)


def alone(path: Sequence[Turn]) -> Sequence[Turn]:
    """Give the end of a path that is one question: its turn, and those that go on with its answer."""
    first = len(path) - 1
    while first > 0 and path[first].continue_of is not None:
        first -= 1
    return path[first:]


def merged(path: Iterable[Turn]) -> list[Turn]:
    """Put each continuation's text behind the answer that it goes on with: one turn for each question."""
    questions: list[Turn] = []
    for turn in path:
        if turn.continue_of is not None and questions:
            whole = questions[-1].answer + turn.answer
            questions[-1] = questions[-1].model_copy(update={"answer": whole})
        else:
            questions.append(turn)
    return questions
