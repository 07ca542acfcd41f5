"""The text of an answer on the screen: growing, wrapped, selected, in any theme."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual.app import App, ComposeResult
from textual.containers import VerticalScroll
from textual.geometry import Offset, Region
from textual.pilot import Pilot
from textual.selection import Selection

from footplate_tui.footplate_app import FootplateApp
from footplate_tui.theme import DARK, LIGHT
from footplate_tui.widgets.prose import Prose

TEXT = """# Title

Some **bold** text with a [link](https://example.org/) and 日本語のテキスト that is long enough to wrap.

- one
- two `code`
  1. deep

| a | b |
|---|--:|
| 1 | 2 |

```python
def f():
    return "x"

print(f())
```

> quoted

The end.
"""


class Stage(App[None]):
    """Nothing but a prose, in our themes."""

    CSS_PATH = [  # noqa: RUF012 -- the base class's type
        f"{__import__('footplate_tui').__path__[0]}/widgets/answer.tcss"
    ]

    CSS = "Prose { padding: 0 1; border-left: outer $border-blurred; }"

    def __init__(self, prose: Prose) -> None:
        super().__init__()
        self.prose = prose
        self.links: list[str] = []
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        self.theme = DARK.name

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return {"muted": "grey", "faint": "grey", "heading": "grey", "code-background": "grey"}

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield self.prose

    def on_prose_link_chosen(self, message: Prose.LinkChosen) -> None:
        self.links.append(message.href)


@asynccontextmanager
async def shown(prose: Prose, width: int = 60, height: int = 50) -> AsyncIterator[tuple[Stage, Pilot[None]]]:
    stage = Stage(prose)
    async with stage.run_test(size=(width, height)) as pilot:
        await pilot.pause()
        yield stage, pilot


def picture(prose: Prose) -> list[str]:
    size = prose.outer_size
    return [strip.text.rstrip() for strip in prose.render_lines(Region(0, 0, size.width, size.height))]


def pieces(text: str, sizes: list[int]) -> Iterator[str]:
    at = 0
    for size in sizes:
        yield text[at : at + size]
        at += size
    yield text[at:]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 40), max_size=30))
async def test_however_it_grew_it_looks_as_if_it_had_come_whole(sizes: list[int]) -> None:
    async with shown(Prose(TEXT, is_whole=True)) as (_, _):
        pass
    grown = Prose()
    async with shown(grown) as (_, pilot):
        for piece in pieces(TEXT, sizes):
            grown.grow(piece)
            await pilot.pause()
            assert grown.outer_size.height == len(picture(grown))
        grown.finish()
        await pilot.pause()
        looks = picture(grown)
    whole = Prose(TEXT, is_whole=True)
    async with shown(whole) as (_, _):
        assert looks == picture(whole)


async def test_only_rows_that_differ_are_painted_anew() -> None:
    prose = Prose()
    async with shown(prose) as (_, pilot):
        prose.grow("A paragraph.\n\nAnother one")
        await pilot.pause()
        picture(prose)
        before = dict(prose._strips)
        prose.grow(" goes on")
        await pilot.pause()
        picture(prose)

        assert [place for place in before if prose._strips.get(place) is not before[place]] == [2]


@pytest.mark.parametrize("undecided", ["-", "==", "**", "1.", "```", "#"])
async def test_a_line_that_may_become_anything_waits_for_its_meaning(undecided: str) -> None:
    prose = Prose()
    async with shown(prose) as (_, pilot):
        prose.grow(f"Words\n{undecided}")
        await pilot.pause()

        assert prose.plain.strip() == "Words"


async def test_it_is_wrapped_anew_when_the_width_changes() -> None:
    prose = Prose("one two three four five", is_whole=True)
    async with shown(prose, width=40) as (_, pilot):
        assert picture(prose) == ["▌ one two three four five", "▌"]

        await pilot.resize_terminal(16, 20)
        await pilot.pause()

        assert picture(prose) == ["▌ one two three", "▌ four five", "▌"]


async def test_wide_and_combining_characters_keep_their_columns() -> None:
    prose = Prose("| a | b |\n|---|---|\n| 日本 | x |\n| e\u0301 | y |", is_whole=True)
    async with shown(prose) as (_, _):
        rows = prose.render_lines(Region(0, 0, *prose.outer_size))

        assert {strip.cell_length for strip in rows} == {prose.outer_size.width}
        assert [row for row in picture(prose) if "x" in row or "y" in row] == [
            "▌ │ 日本 │ x │",
            "▌ │ e\u0301    │ y │",
        ]


async def test_another_theme_paints_everything_anew() -> None:
    prose = Prose("# Title\n\n```py\nx = 1\n```", is_whole=True)
    async with shown(prose) as (stage, pilot):
        colours = []
        for theme in (DARK.name, LIGHT.name):
            stage.theme = theme
            await pilot.pause()
            strips = prose.render_lines(Region(0, 0, *prose.outer_size))
            colours.append(
                {str(segment.style.bgcolor) for strip in strips for segment in strip if segment.style}
            )

        assert not colours[0] & colours[1]


async def test_selected_code_is_copied_as_it_was_written() -> None:
    code = "def f():\n    return 'a line that is much longer than the screen is wide, so it is folded'\n\nf()"
    prose = Prose(f"Before.\n\n```python\n{code}\n```\n\nAfter.", is_whole=True)
    async with shown(prose, width=40) as (_, _):
        lines = prose.plain.split("\n")
        first = lines.index("def f():")
        selection = Selection(Offset(0, first), Offset(3, first + 3))

        assert prose.get_selection(selection) == (code, "\n")


async def test_the_mouse_selects_text_not_what_stands_before_it() -> None:
    prose = Prose("```\nhello world\n```", is_whole=True)
    async with shown(prose) as (stage, pilot):
        await pilot.mouse_down(prose, offset=(1, 0))
        await pilot.hover(prose, offset=(8, 0))
        await pilot.mouse_up(prose, offset=(8, 0))
        await pilot.pause()

        assert stage.screen.get_selected_text() == "hello"


async def test_a_link_that_is_clicked_is_told_and_nothing_is_opened() -> None:
    prose = Prose("[link](javascript:alert('1')) [two](https://example.org/?a='b')", is_whole=True)
    async with shown(prose) as (stage, pilot):
        column = picture(prose)[0].index("two")
        await pilot.click(prose, offset=(column, 0))
        await pilot.pause()

        assert stage.links == ["https://example.org/?a='b'"]
        assert "\x1b]8" not in "".join(
            strip.render(stage.console) for strip in prose.render_lines(Region(0, 0, *prose.outer_size))
        )


def test_the_stylesheet_is_the_programs_own() -> None:
    assert "widgets/answer.tcss" in FootplateApp.CSS_PATH
