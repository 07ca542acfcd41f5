"""Lines by the ten thousand: what is in sight, where it stays, and how it is cut."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from rich.cells import cell_len
from tests.tui.conftest import DEADLINE_SECONDS
from textual.app import App, ComposeResult
from textual.pilot import Pilot

from footplate_tui.widgets.lines import Line, Lines, chop

WIDE = "漢字 e\u0301 عربى 👩‍👩‍👧 全角カナ " * 9


class OneList(App[None]):
    """Nothing but lines."""

    CSS_PATH = "../../tui/footplate_tui/widgets/lines.tcss"

    def __init__(self, *, is_text: bool = False) -> None:
        super().__init__()
        self.list = Lines(is_text=is_text)
        self.top_near = 0

    def compose(self) -> ComposeResult:
        yield self.list

    def on_mount(self) -> None:
        self.list.focus()

    def on_lines_top_near(self) -> None:
        self.top_near += 1


@asynccontextmanager
async def opened(*, is_text: bool = False) -> AsyncIterator[tuple[Lines, Pilot[None]]]:
    app = OneList(is_text=is_text)
    async with app.run_test(size=(40, 10)) as pilot:
        yield app.list, pilot


async def until(pilot: Pilot[None], is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not is_so():
            await pilot.pause()


def shown(lines: Lines) -> list[str]:
    return [lines.render_line(y).text.rstrip() for y in range(lines.size.height)]


def numbered(count: int, start: int = 0) -> list[Line]:
    return [Line(f"line {number}") for number in range(start, start + count)]


async def test_it_follows_its_end_until_the_user_goes_up() -> None:
    async with opened() as (lines, pilot):
        lines.show(numbered(50), follows=True)
        lines.append(numbered(5, 50))
        assert shown(lines)[-1] == "line 54"

        await pilot.press("up")
        await until(pilot, lambda: not lines.is_following)
        lines.append(numbered(5, 55))
        assert shown(lines)[-1] == "line 54"

        await pilot.press("end")
        await until(pilot, lambda: lines.is_following)
        lines.append(numbered(1, 60))
        assert shown(lines)[-1] == "line 60"


async def test_nothing_moves_when_lines_come_before_the_first() -> None:
    async with opened() as (lines, pilot):
        lines.show(numbered(50, 100), follows=True)
        await pilot.press("home", "down", "down")
        await until(pilot, lambda: lines.cursor == 2)
        before = shown(lines)

        lines.prepend(numbered(100))

        assert shown(lines) == before
        assert lines.lines[lines.cursor].text == "line 102"


async def test_a_line_that_stays_keeps_its_place_when_others_are_filtered_out() -> None:
    async with opened() as (lines, _):
        every = numbered(100)
        lines.show(every)
        lines.go_to(50)
        row = shown(lines).index("line 50")

        lines.show(every[::2])

        assert shown(lines).index("line 50") == row
        assert lines.lines[lines.cursor] is every[50]


async def test_earlier_lines_are_asked_for_once_when_the_first_come_into_sight() -> None:
    async with opened() as (lines, pilot):
        app = pilot.app
        assert isinstance(app, OneList)
        lines.show(numbered(100), follows=True)
        await pilot.pause()
        before = app.top_near

        await pilot.press("home", "down", "up")
        await until(pilot, lambda: app.top_near == before + 1)

        lines.prepend(numbered(1))
        await until(pilot, lambda: app.top_near == before + 2)


@pytest.mark.parametrize("text", [WIDE, "x" * 1_000, "", "words " * 30, "\u0301" * 50])
@pytest.mark.parametrize("is_text", [False, True])
async def test_wrapped_rows_hold_the_whole_text_and_none_is_too_wide(text: str, is_text: bool) -> None:
    async with opened(is_text=is_text) as (lines, _):
        lines.wraps = True
        lines.show([Line(text)])
        height = lines.virtual_size.height
        pieces = [lines.lines[0].piece(*lines._span(lines.lines[0], row)).plain for row in range(height)]

        assert "".join(pieces) == text
        assert all(cell_len(piece) <= lines.scrollable_content_region.width for piece in pieces)


async def test_a_line_longer_than_the_screen_is_read_row_by_row() -> None:
    async with opened() as (lines, pilot):
        lines.wraps = True
        lines.show([Line("before"), Line("".join(f"{number:039d}" for number in range(50))), Line("after")])
        await pilot.press("home", "down")
        await until(pilot, lambda: shown(lines)[1].endswith("0"))

        await pilot.press("down")

        await until(pilot, lambda: shown(lines)[0].endswith("0"))
        assert shown(lines)[-1].endswith("9")
        await pilot.press(*["down"] * 50)
        await until(pilot, lambda: shown(lines)[-1] == "after")


async def test_beyond_the_edge_is_a_key_away() -> None:
    async with opened() as (lines, pilot):
        lines.show([Line("a" * 39 + "b" * 39)])
        await pilot.press("right", "right")
        await until(pilot, lambda: shown(lines)[0].endswith("bbb"))

        await pilot.press("left", "left")
        await until(pilot, lambda: set(shown(lines)[0]) == {"a"})


async def test_from_the_mark_to_the_cursor_lines_are_selected() -> None:
    async with opened() as (lines, pilot):
        lines.show(numbered(20))
        lines.go_to(5)
        lines.set_mark()
        await pilot.press("down", "down")

        await until(pilot, lambda: [line.text for line in lines.selected] == ["line 5", "line 6", "line 7"])


async def test_a_hundred_thousand_lines_and_a_huge_one_are_shown() -> None:
    async with opened() as (lines, pilot):
        lines.wraps = True
        lines.show([*numbered(100_000), Line("漢" * 100_000), Line("x" * 200_000)], follows=True)
        await pilot.press("pageup", "pageup", "home", "end")

        await until(pilot, lambda: shown(lines)[-1].startswith("xxx"))


def test_text_is_cut_between_words_where_there_are_any() -> None:
    assert chop("three words here", 8) == [0, 8]
    assert chop("three words here", 8, between_words=True) == [0, 6, 12]
    assert chop("unbreakable", 4, between_words=True) == [0, 4, 8]
