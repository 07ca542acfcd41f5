"""A page with a table: a line above, the rows, what the highlighted one says, the keys.

What is listed, and what it says, is for the screens made of it. Draws at most four times a second, and
nothing while nothing changes.
"""

from __future__ import annotations

from textual.app import ComposeResult
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from footplate_tui.screens.questions import Questions, say
from footplate_tui.widgets.rows import Rows

DRAW_SECONDS = 0.25


class Listing(Questions):
    """Rows with a highlight; a question at the bottom where something is to be typed or confirmed."""

    def __init__(self, *keys: str) -> None:
        super().__init__(*keys)
        self._will_draw = False
        self.now = Static(markup=False, classes="now")
        self.head = Static(markup=False, classes="head")
        self.rows = Rows(self.draw_row)
        self.empty = Static(markup=False, classes="empty")

    def compose_body(self) -> ComposeResult:
        yield self.now
        yield from self.compose_above()
        yield self.head
        yield self.rows
        yield self.empty
        yield self.input
        yield self.about
        yield self.keys

    def compose_above(self) -> ComposeResult:
        """Give what stands above the table."""
        yield from ()

    @property
    def body(self) -> Widget:
        return self.rows

    def on_mount(self) -> None:
        self.rows.focus()
        self.draw()

    # What a screen says of itself.

    def row_count(self) -> int:
        """Say how many rows there are."""
        raise NotImplementedError

    def draw_row(self, place: int, width: int) -> list[Content]:
        """Draw the row at a place."""
        raise NotImplementedError

    def head_words(self, width: int) -> Content:
        """Give the line over the rows."""
        raise NotImplementedError

    def now_words(self, width: int) -> Content:
        """Give the line at the top."""
        raise NotImplementedError

    def why_empty(self) -> str:
        """Say why there are no rows; empty where there are some."""
        raise NotImplementedError

    # Drawing.

    def draw_soon(self) -> None:
        """Draw anew in a moment; what changes meanwhile comes with it."""
        if not self._will_draw:
            self._will_draw = True
            self.set_timer(DRAW_SECONDS, self._draw_now)

    def _draw_now(self) -> None:
        self._will_draw = False
        self.draw()

    def draw(self) -> None:
        """Draw everything anew; painted is what differs."""
        if not self.is_mounted:
            return
        words = self.why_empty()
        self.empty.display = bool(words)
        self.rows.display = self.head.display = not words
        say(self.empty, Content(words))
        say(self.head, self.head_words(self.width))
        say(self.now, self.now_words(max(self.size.width - 2, 1)))
        self.draw_about()

    def list_again(self, highlighted: int | None = None) -> None:
        """Show the rows as they are now, with the highlight where it is wanted, at its line of the screen."""
        rows = self.rows
        if rows.row_count == self.row_count() and highlighted in {None, rows.highlighted}:
            rows.redraw()
            return
        line, top = rows.line_of(rows.highlighted or 0), rows.scroll_offset.y
        rows.show(self.row_count(), highlighted=highlighted)
        if top and highlighted is not None:
            rows.scroll_to(y=max(highlighted - line, 0), animate=False)

    @property
    def width(self) -> int:
        """The cells of a row."""
        return self.rows.scrollable_content_region.width or max(self.size.width - 3, 1)

    @property
    def place(self) -> int | None:
        """The place of the highlighted row, where there is one."""
        place = self.rows.highlighted
        return place if place is not None and place < self.row_count() else None

    def on_resize(self) -> None:
        self.call_after_refresh(self.draw)

    def watch_status(self) -> None:
        self.draw_soon()

    def watch_is_connected(self) -> None:
        self.draw_soon()

    def on_rows_highlighted(self) -> None:
        self.forget_question()
