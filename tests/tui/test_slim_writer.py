"""The slim writer leaves the same screen as writing everything, with fewer bytes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footplate_tui.slim_writer import Glass, Row, Run

WIDTH, HEIGHT = 8, 12
ROWS = st.lists(st.sampled_from("abcdefgh"), min_size=HEIGHT, max_size=HEIGHT)


class Tube:
    """A terminal that knows moving the cursor, text, and scrolling up a region; nothing else."""

    def __init__(self) -> None:
        self.rows = [" " * WIDTH for _ in range(HEIGHT)]

    def write(self, sequences: str) -> None:
        x = y = 0
        top, bottom = 0, HEIGHT - 1
        for match in re.finditer(r"\x1b\[([\d;]*)([HSr])|([^\x1b]+)", sequences):
            numbers = [int(number) for number in (match[1] or "").split(";") if number]
            match match[2]:
                case "H":
                    y, x = numbers[0] - 1, numbers[1] - 1
                case "r":
                    top, bottom = (numbers[0] - 1, numbers[1] - 1) if numbers else (0, HEIGHT - 1)
                case "S":
                    region = self.rows[top : bottom + 1]
                    self.rows[top : bottom + 1] = region[numbers[0] :] + [" " * WIDTH] * numbers[0]
                case _:
                    self.rows[y] = self.rows[y][:x] + match[3] + self.rows[y][x + len(match[3]) :]
                    x += len(match[3])


def update(rows: list[str], first: int = 0) -> dict[int, Row]:
    return {
        first + place: {0: Run(2, row * 2), 2: Run(WIDTH - 2, f"{row}{place % 3}".ljust(WIDTH - 2))}
        for place, row in enumerate(rows)
    }


@given(st.lists(st.tuples(ROWS, st.integers(0, 4), st.sampled_from([(0, 2), (0,), (2,)])), max_size=8))
def test_the_screen_is_as_if_everything_had_been_written(
    frames: list[tuple[list[str], int, tuple[int, ...]]],
) -> None:
    glass, slim, whole = Glass(), Tube(), Tube()
    for rows, first, columns in frames:
        frame = {
            y: {x: run for x, run in row.items() if x in columns}
            for y, row in update(rows[first:], first).items()
        }
        slim.write(glass.draw(frame))
        whole.write(Glass().draw(frame))
        assert slim.rows == whole.rows


def test_what_stands_there_already_is_not_written_again() -> None:
    glass = Glass()
    glass.draw(update(list("abcd")))

    assert glass.draw(update(list("abcd"))) == ""


def test_a_pane_that_moved_up_is_moved_by_the_terminal() -> None:
    lines = [{0: Run(WIDTH, f"line {number:>3}")} for number in range(HEIGHT + 1)]
    glass, tube = Glass(), Tube()
    tube.write(glass.draw(dict(enumerate(lines[:HEIGHT]))))

    moved = glass.draw(dict(enumerate(lines[1:])))
    tube.write(moved)

    assert "\x1b[1S" in moved
    assert len(moved) < 50
    assert tube.rows == [f"line {number:>3}" for number in range(1, HEIGHT + 1)]


@pytest.mark.parametrize("forgets", [True, False])
def test_after_forgetting_everything_is_written(forgets: bool) -> None:
    glass = Glass()
    glass.draw(update(list("abcd")))
    if forgets:
        glass.forget()

    assert bool(glass.draw(update(list("abcd")))) is forgets


class Letters:
    """The cells of a text without styles."""

    def __init__(self, text: str) -> None:
        self._text = text

    def each(self) -> str | None:
        return self._text if self._text.isascii() else None

    def write(self, start: int, end: int) -> str:
        return self._text[start:end]


def row(text: str) -> dict[int, Row]:
    return {0: {0: Run(WIDTH, text, Letters(text))}}


TEXTS = st.text("ab é", min_size=WIDTH, max_size=WIDTH)


@given(st.lists(TEXTS, max_size=10))
def test_a_row_written_in_parts_is_as_if_it_had_been_written_whole(texts: list[str]) -> None:
    glass, tube = Glass(), Tube()
    for text in texts:
        tube.write(glass.draw(row(text)))
        assert tube.rows[0] == text


def test_of_a_row_that_changed_only_the_part_that_differs_is_written() -> None:
    glass = Glass()
    glass.draw(row("one two "))

    assert glass.draw(row("one tom ")) == "\x1b[1;6Hom"


def test_where_terminals_differ_in_what_a_cell_is_the_whole_row_is_written() -> None:
    glass = Glass()
    glass.draw(row("日 two  "))

    assert glass.draw(row("日 tom  ")) == "\x1b[1;1H日 tom  "


def test_a_pane_of_rows_that_look_alike_is_moved_too() -> None:
    lines = [{0: Run(WIDTH, f"{number % 3} again".ljust(WIDTH))} for number in range(HEIGHT + 2)]
    glass, tube = Glass(), Tube()
    tube.write(glass.draw(dict(enumerate(lines[:HEIGHT]))))

    moved = glass.draw(dict(enumerate(lines[2:])))
    tube.write(moved)

    assert "S\x1b[r" in moved
    assert tube.rows == [line[0].sequence for line in lines[2:]]
