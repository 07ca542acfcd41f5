"""A session as it is shown: which versions stand beside each other, and what goes on from them."""

from tests.fakes.daemon import answered

from footplate_daemon.wire import Turn
from footplate_tui.places import Place, places, tip_through


def turn(number: int, prompt: str = "Why?", **where: int) -> Turn:
    return answered("s1", number, prompt, f"A{number}.", **where)


def shown(row: list[Place]) -> list[tuple[list[list[int]], int]]:
    return [
        ([[each.number for each in version.turns] for version in place.versions], place.chosen)
        for place in row
    ]


def test_without_retries_each_turn_has_its_place() -> None:
    assert shown(places([turn(1), turn(2)], 2)) == [([[1]], 0), ([[2]], 0)]


def test_a_retry_stands_beside_what_it_answers_anew_and_is_gone_on_from() -> None:
    turns = [turn(1), turn(2), turn(3, instead_of=2), turn(4)]

    assert shown(places(turns, 4)) == [([[1]], 0), ([[2], [3]], 1), ([[4]], 0)]


def test_choosing_another_version_brings_back_what_followed_it() -> None:
    turns = [turn(1), turn(2), turn(3, instead_of=1), turn(4)]
    (first, _) = places(turns, 4)

    tip = tip_through(turns, first.versions[0])

    assert tip == 2
    assert shown(places(turns, tip)) == [([[1], [3]], 0), ([[2]], 0)]


def test_a_continuation_belongs_to_the_answer_it_goes_on_with() -> None:
    turns = [turn(1), turn(2, continue_of=1), turn(3), turn(4, instead_of=1)]
    before, after = places(turns, 3), places(turns, 4)

    assert shown(before) == [([[1, 2], [4]], 0), ([[3]], 0)]
    assert before[0].version.answer == "A1.A2."
    assert shown(after) == [([[1, 2], [4]], 1)]


def test_of_a_long_session_the_newest_turns_have_their_places() -> None:
    turns = [turn(500), turn(501, instead_of=500), turn(502, instead_of=20)]

    assert shown(places(turns, 501)) == [([[500], [501]], 1)]
    assert shown(places(turns, 502)) == [([[502]], 0)]
