"""Which turns lead up to one, where questions were asked again, edited or gone on from."""

import random

import pytest

from footplate_daemon.branches import merged, newest_through, path_to
from footplate_daemon.wire import Turn, TurnState


def turn(number: int, **where: int) -> Turn:
    return Turn(
        session_id="s1",
        number=number,
        state=TurnState.DONE,
        prompt=f"Question {number}",
        answer=f"Answer {number}. ",
        asked_at=float(number),
        **where,
    )


def numbers(path: list[Turn]) -> list[int]:
    return [each.number for each in path]


@pytest.mark.parametrize(
    ("turns", "path"),
    [
        ([turn(1), turn(2), turn(3)], [1, 2, 3]),
        ([turn(1), turn(2, instead_of=1)], [2]),
        ([turn(1), turn(2), turn(3, instead_of=2)], [1, 3]),
        ([turn(1), turn(2), turn(3), turn(4, instead_of=2)], [1, 4]),
        ([turn(1), turn(2), turn(3, instead_of=2), turn(4)], [1, 3, 4]),
        ([turn(1), turn(2, instead_of=1), turn(3, instead_of=2), turn(4)], [3, 4]),
        # What was asked after turn 1, edited after turn 1 was asked again: turn 1 still leads up to it.
        ([turn(1), turn(2), turn(3, instead_of=1), turn(4, instead_of=2)], [1, 4]),
        ([turn(1), turn(2, instead_of=1), turn(3, after=1)], [1, 3]),
        ([turn(1), turn(2, instead_of=1), turn(3, after=1), turn(4, instead_of=3)], [1, 4]),
        ([turn(1), turn(2), turn(3, continue_of=2)], [1, 2, 3]),
        ([turn(1), turn(2, instead_of=1), turn(3, continue_of=1), turn(4)], [1, 3, 4]),
    ],
)
def test_a_turn_goes_on_from_those_whose_place_was_not_taken(turns: list[Turn], path: list[int]) -> None:
    assert numbers(path_to(turns, turns[-1].number)) == path


def test_of_a_long_session_the_newest_turns_are_enough() -> None:
    newest = [turn(500), turn(501, instead_of=500), turn(502), turn(503, instead_of=20)]

    assert numbers(path_to(newest, 502)) == [501, 502]
    assert numbers(path_to(newest, 503)) == [503]
    assert numbers(path_to(newest[1:], 502)) == [501, 502]


def test_a_continuation_is_put_behind_the_answer_it_goes_on_with() -> None:
    path = path_to([turn(1), turn(2, continue_of=1), turn(3, continue_of=2), turn(4)], 4)

    assert [(each.number, each.answer) for each in merged(path)] == [
        (1, "Answer 1. Answer 2. Answer 3. "),
        (4, "Answer 4. "),
    ]


def test_the_newest_turn_through_another_is_where_that_one_goes_on() -> None:
    turns = [turn(1), turn(2), turn(3, instead_of=1), turn(4)]

    assert newest_through(turns, 1) == 2
    assert newest_through(turns, 3) == 4
    assert newest_through(turns, 4) == 4


@pytest.mark.parametrize("seed", range(200))
def test_every_path_begins_at_the_start_goes_up_and_holds_nothing_that_was_replaced(seed: int) -> None:
    chance = random.Random(seed)
    turns: list[Turn] = []
    for number in range(1, 30):
        where = chance.choice(["", "", "instead_of", "after", "continue_of"]) if turns else ""
        turns.append(turn(number, **({where: chance.randint(1, number - 1)} if where else {})))
    for each in turns:
        path = path_to(turns, each.number)
        on_path = {step.number for step in path}
        assert path[-1] is each
        assert numbers(path) == sorted(on_path)
        assert not any(step.instead_of in on_path for step in path)
        assert newest_through(turns, each.number) >= each.number
