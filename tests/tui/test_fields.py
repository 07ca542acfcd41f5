"""Where something is typed: keys count in the order they were pressed, however busy the screen is."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from textual import events
from textual.app import App, ComposeResult
from textual.keys import key_to_character
from textual.widget import Widget

from footplate_tui.widgets.fields import LineField, TextField

PATIENCE_SECONDS = 60


class Letters(Widget, can_focus=True):
    """Keeps the letters that reach it."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def on_key(self, event: events.Key) -> None:
        self.text += event.character or ""


class Typing(App[None]):
    """A line with letters beside it, and a field, on a screen that can be made busy."""

    def compose(self) -> ComposeResult:
        letters = Letters()
        yield LineField(beside=letters)
        yield letters
        yield TextField()

    @asynccontextmanager
    async def busy_screen(self) -> AsyncIterator[None]:
        """Hold up whatever the screen is given to do."""
        is_free = asyncio.Event()
        self.screen.call_next(is_free.wait)
        try:
            yield
        finally:
            is_free.set()

    async def type_into(self, field: LineField | TextField, *keys: str) -> None:
        """Press keys all at once; return when the field has seen them."""
        for key in keys:
            self.post_message(events.Key(key, key_to_character(key)))
        has_seen = asyncio.Event()
        self.call_later(field.call_later, has_seen.set)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await has_seen.wait()


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (("a", "b", "ctrl+u", "c"), "c"),
        (("a", "b", "backspace", "c"), "ac"),
        (("a", "left", "b"), "ba"),
        (("a", "b", "home", "c", "end", "d"), "cabd"),
    ],
)
@pytest.mark.parametrize("kind", [LineField, TextField])
async def test_keys_count_in_their_order(
    kind: type[LineField | TextField], keys: tuple[str, ...], text: str
) -> None:
    app = Typing()
    async with app.run_test() as pilot:
        field = app.query_one(kind)
        field.focus()
        await pilot.pause()
        async with app.busy_screen():
            await app.type_into(field, *keys)
            assert (field.value if isinstance(field, LineField) else field.text) == text


async def test_an_arrow_leads_out_of_a_line_and_what_follows_it_goes_along() -> None:
    app = Typing()
    async with app.run_test() as pilot:
        line, letters = app.query_one(LineField), app.query_one(Letters)
        line.focus()
        await pilot.pause()
        async with app.busy_screen():
            await app.type_into(line, "a", "down", "f")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while letters.text != "f":
                await pilot.pause()

        assert app.focused is letters
        assert line.value == "a"


async def test_a_key_of_the_screen_still_reaches_it() -> None:
    app = Typing()
    async with app.run_test() as pilot:
        app.query_one(LineField).focus()
        await pilot.press("tab")

        async with asyncio.timeout(PATIENCE_SECONDS):
            while app.focused is not app.query_one(Letters):
                await pilot.pause()
