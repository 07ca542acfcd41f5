"""A list of any length: only the rows in sight are made and painted.

It knows rows by their place and height; what one says is asked of whoever owns the list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import var
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.visual import Visual

Draw = Callable[[int, int], Sequence[Content]]
"""Gives the lines of the row at a place, for a width."""

CLOSE_TO_END = 20
"""So many rows before the last one it says that the end is near."""


class Rows(ScrollView, can_focus=True):
    """Rows of one height, one of them highlighted."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"rows--highlighted"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", "Up", show=False),
        Binding("down", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "edge(-1)", "First", show=False),
        Binding("end", "edge(1)", "Last", show=False),
    ]

    highlighted: var[int | None] = var(None)

    @dataclass
    class Highlighted(Message):
        """The highlight is on another row."""

        place: int

    @dataclass
    class Chosen(Message):
        """The user clicked the row that was highlighted."""

        place: int

    class EndNear(Message):
        """The highlight or the view comes to the last rows: more of them may be wanted."""

    def __init__(self, draw: Draw) -> None:
        super().__init__()
        self._draw = draw
        self._count = 0
        self._row_height = 1
        self._strips: dict[int, list[Strip]] = {}
        """The rows that are painted, but for the highlight."""

    @property
    def row_count(self) -> int:
        """How many rows there are."""
        return self._count

    def show(self, count: int, *, height: int = 1, highlighted: int | None = None) -> None:
        """Show so many rows of a height; they are drawn anew, with the highlight where it is wanted."""
        self._count, self._row_height = count, height
        self._forget()
        self._resize_virtually()
        place = self.highlighted if highlighted is None else highlighted
        self.set_reactive(Rows.highlighted, None if not count else min(max(place or 0, 0), count - 1))
        self._bring_into_sight()
        self.refresh()

    def redraw(self) -> None:
        """Draw the rows anew; they say something else."""
        self._forget()
        self.refresh()

    def line_of(self, place: int) -> int:
        """Give the line of this widget on which a row begins."""
        return place * self._row_height - self.scroll_offset.y

    # Moving.

    def action_move(self, rows: int) -> None:
        """Highlight another row."""
        if self._count:
            self.highlighted = min(max((self.highlighted or 0) + rows, 0), self._count - 1)

    def action_page(self, direction: int) -> None:
        """Highlight a row a page away."""
        self.action_move(direction * max(self.size.height // self._row_height - 1, 1))

    def action_edge(self, direction: int) -> None:
        """Highlight the first or the last row."""
        self.action_move(direction * self._count)

    def watch_highlighted(self, before: int | None, now: int | None) -> None:
        if before == now:
            return
        for place in (before, now):
            if place is not None:
                self.refresh_lines(place * self._row_height, self._row_height)
        self._bring_into_sight()
        if now is not None:
            self.post_message(self.Highlighted(now))
            self._look_for_end(now)

    def _bring_into_sight(self) -> None:
        if self.highlighted is not None and self.size.height:
            row = Region(0, self.highlighted * self._row_height, 1, self._row_height)
            self.scroll_to_region(row, animate=False, force=True)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if new_value > old_value:
            self._look_for_end((int(new_value) + self.size.height) // self._row_height)

    def _look_for_end(self, place: int) -> None:
        if place >= self._count - CLOSE_TO_END:
            self.post_message(self.EndNear())

    def on_click(self, event: events.Click) -> None:
        """Highlight a row; the one that is highlighted is chosen."""
        event.stop()
        place = (event.y + self.scroll_offset.y) // self._row_height
        if not 0 <= place < self._count:
            return
        if place == self.highlighted:
            self.post_message(self.Chosen(place))
        else:
            self.highlighted = place

    # Painting.

    def on_resize(self) -> None:
        self._forget()
        self._resize_virtually()
        self._bring_into_sight()

    def notify_style_update(self) -> None:
        """Textual says that styles may have changed."""
        super().notify_style_update()
        self._forget()

    def _forget(self) -> None:
        self._strips.clear()

    def _resize_virtually(self) -> None:
        self.virtual_size = Size(self.scrollable_content_region.width, self._count * self._row_height)

    def render_line(self, y: int) -> Strip:
        """Give a line of the list as it is seen."""
        width = self.scrollable_content_region.width
        place, line = divmod(y + self.scroll_offset.y, self._row_height)
        if place >= self._count:
            return Strip.blank(width, self.rich_style)
        strips = self._strips.get(place)
        if strips is None:
            strips = self._strips[place] = self._paint(place, width)
        if place != self.highlighted:
            return strips[line]
        # Under the text's own style it would not be seen.
        ground = Style(bgcolor=self.get_component_rich_style("rows--highlighted").bgcolor)
        return Strip(Segment.apply_style(strips[line], post_style=ground), strips[line].cell_length)

    def _paint(self, place: int, width: int) -> list[Strip]:
        if len(self._strips) > 4 * max(self.size.height, 1):
            self._strips.clear()
        lines = [*self._draw(place, width)][: self._row_height]
        lines += [Content()] * (self._row_height - len(lines))
        return [self._strip(line, width) for line in lines]

    def _strip(self, line: Content, width: int) -> Strip:
        strips = Visual.to_strips(self, line.truncate(width, ellipsis=True), width, 1, self.visual_style)
        return strips[0].adjust_cell_length(width, self.rich_style)
