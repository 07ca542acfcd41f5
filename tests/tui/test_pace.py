"""How fast an answer comes, while it does."""

from footplate_tui.widgets.pace import TOLD_SECONDS, Pace


def test_the_speed_is_that_of_the_last_seconds() -> None:
    pace = Pace()

    for tenth in range(101):
        pace.take(tenth * 5, tenth / 10)
    fast = pace.words
    for tenth in range(1, 101):
        pace.take(500 + tenth, 10 + tenth / 10)

    assert fast == "answering · 500 tok · 50.0 tok/s"
    assert pace.words == "answering · 600 tok · 10.0 tok/s"


def test_figures_change_once_a_second() -> None:
    pace = Pace()
    pace.take(1, 0.0)
    pace.take(40, TOLD_SECONDS * 0.9)
    early = pace.words
    pace.take(44, TOLD_SECONDS)
    told = pace.words
    pace.take(60, TOLD_SECONDS * 1.9)

    assert early == "answering"
    assert told == "answering · 44 tok · 43.0 tok/s"
    assert pace.words == told


def test_where_pieces_are_not_counted_nothing_is_made_up() -> None:
    pace = Pace()
    pace.take(None, 0.0)
    pace.take(None, 5.0)

    assert pace.words == "answering"
