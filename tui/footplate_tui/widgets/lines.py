"""Lines of text by the ten thousand: only those in sight are laid out and painted.

A line may be wrapped or go on beyond the edge. The list keeps its place when lines come before or after,
and follows its end where the user stands at it. What the lines mean is for whoever owns the list.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

from rich.cells import cell_len, get_character_cell_size
from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.reactive import var
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.style import Style

_NARROW = re.compile("[\x20-\x7e\u00a0-\u00ac\u00ae-\u02ff\u0370-\u0482\u2190-\u21ff\u2400-\u25ff]*")
"""Text of which each character takes one cell: it is laid out without looking at each."""
CHOPPED_KEPT = 64


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One line: harmless, without tabs and newlines."""

    text: str
    style: str = ""
    content: Content | None = None
    """The text with styles of its own, for short lines."""

    def piece(self, begin: int, end: int) -> Content:
        """Give a piece of it."""
        if self.content is not None:
            return self.content[begin:end]
        return (
            Content.styled(self.text[begin:end], self.style) if self.style else Content(self.text[begin:end])
        )


class Lines(ScrollView, can_focus=True):
    """Lines with a cursor; from a mark to the cursor they are selected."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"lines--cursor", "lines--selected", "lines--found"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home,g", "edge(-1)", "First", show=False),
        Binding("end,G", "edge(1)", "Last", show=False),
        Binding("left", "sideways(-1)", "Left", show=False),
        Binding("right", "sideways(1)", "Right", show=False),
    ]

    wraps: var[bool] = var(False)
    found: var[str] = var("")
    """Where this occurs, in small letters, it is marked."""

    class Moved(Message):
        """Cursor, selection or view are elsewhere."""

    class TopNear(Message):
        """The first lines come into sight: earlier ones may be wanted."""

    def __init__(self, *, is_text: bool = False) -> None:
        """`is_text`: to read, without a cursor, and wrapped between words."""
        super().__init__()
        self._has_cursor = not is_text
        self._lines: list[Line] = []
        self._heights: list[int] = []
        self._ends: list[int] = []
        """Under which row of all each line ends."""
        self._width = 0
        self._cursor = 0
        self._mark: int | None = None
        self._is_following = False
        self._moves_itself = False
        self._has_asked = False
        self._sideways = 0
        self._chopped: dict[tuple[int, int], list[int]] = {}
        self._parsed: dict[str, Style] = {}

    # What it has.

    @property
    def lines(self) -> Sequence[Line]:
        """All lines, the first on top."""
        return self._lines

    @property
    def cursor(self) -> int:
        """The place of the line that the cursor is on."""
        return self._cursor

    @property
    def is_following(self) -> bool:
        """Whether it stands at the end and stays there."""
        return self._is_following

    @property
    def has_selection(self) -> bool:
        """Whether a mark is set."""
        return self._mark is not None

    @property
    def selected(self) -> Sequence[Line]:
        """The lines from the mark to the cursor; without a mark that of the cursor."""
        mark = self._cursor if self._mark is None else self._mark
        return self._lines[min(mark, self._cursor) : max(mark, self._cursor) + 1]

    def show(self, lines: Iterable[Line], *, follows: bool = False) -> None:
        """Show other lines; a line that is in both keeps its place on the screen."""
        before = self._line_at(self._cursor)
        row = self._top_of(self._cursor) - self.scroll_offset.y
        self._lines = list(lines)
        self._mark = None
        self._has_asked = False
        self._measure()
        place = self._place_of(before)
        if place is None:
            self._cursor = max(len(self._lines) - 1, 0) if self._has_cursor else 0
        else:
            self._cursor = place
        if follows or self._is_following:
            self.follow()
        elif place is None:
            self._bring_into_sight()
        else:
            self._scroll(self._top_of(place) - row)
        self.refresh()
        self._look_around()

    def append(self, lines: Sequence[Line]) -> None:
        """Add lines at the end; who stands there goes with them."""
        if not lines:
            return
        self._has_asked = False
        self._heights += [self._height(line) for line in lines]
        total = self._ends[-1] if self._ends else 0
        self._lines += lines
        self._ends += [total + each for each in accumulate(self._heights[-len(lines) :])]
        self._resize_virtually()
        if self._is_following:
            self.follow()
        elif total < self.scroll_offset.y + self.size.height:
            self.refresh()
        self._look_around()

    def prepend(self, lines: Sequence[Line]) -> None:
        """Add lines before the first; nothing moves on the screen."""
        self._has_asked = False
        if lines:
            self._lines = [*lines, *self._lines]
            self._heights = [*(self._height(line) for line in lines), *self._heights]
            self._ends = list(accumulate(self._heights))
            self._cursor += len(lines)
            if self._mark is not None:
                self._mark += len(lines)
            self._resize_virtually()
            self._scroll(self.scroll_offset.y + self._ends[len(lines) - 1])
            if self._is_following:
                self.follow()
        self._look_around()

    def nothing_earlier(self) -> None:
        """Ask no more for earlier lines until the lines change."""
        self._has_asked = True

    def go_to(self, place: int) -> None:
        """Put the cursor on a line, and the line in sight, with some before it."""
        if not self._lines:
            return
        self._cursor = min(max(place, 0), len(self._lines) - 1)
        self._is_following = False
        top = self._top_of(self._cursor)
        if not self.scroll_offset.y <= top < self.scroll_offset.y + self.size.height - 1:
            self._scroll(top - self.size.height // 3)
        self._has_moved()

    def follow(self) -> None:
        """Go to the end and stay there."""
        self._is_following = True
        self._cursor = max(len(self._lines) - 1, 0)
        self._scroll(self.max_scroll_y)
        self._has_moved()

    def set_mark(self) -> None:
        """Begin a selection at the cursor; take a mark that is there away."""
        self._mark = self._cursor if self._mark is None and self._lines else None
        self._has_moved()

    def drop_mark(self) -> None:
        """Select nothing."""
        self._mark = None
        self._has_moved()

    # Moving.

    def action_move(self, lines: int) -> None:
        """Put the cursor on another line; without a cursor, or while its line goes on there, scroll."""
        if self._has_cursor and not self._goes_on(lines):
            self._put(self._cursor + lines)
        else:
            self._scroll_by(lines)

    def _goes_on(self, direction: int) -> bool:
        """Whether the cursor's line is longer than the screen, and not yet seen to its end."""
        if not self._lines or self._heights[self._cursor] <= self.size.height:
            return False
        if direction < 0:
            return self._top_of(self._cursor) < self.scroll_offset.y
        return self._ends[self._cursor] > self.scroll_offset.y + self.size.height

    def action_page(self, direction: int) -> None:
        """Go a page up or down."""
        before = self.scroll_offset.y
        self._scroll_by(direction * max(self.size.height - 1, 1))
        if self.scroll_offset.y == before:
            self._put(self._cursor + direction * len(self._lines))
        elif self._has_cursor:
            first = bisect_right(self._ends, self.scroll_offset.y)
            last = bisect_right(self._ends, self.scroll_offset.y + self.size.height - 1)
            self._cursor = min(max(self._cursor, first), last, len(self._lines) - 1)
            self._has_moved()

    def action_edge(self, direction: int) -> None:
        """Go to the first line; to the last one, and follow."""
        if direction > 0:
            self.follow()
            return
        self._put(0)
        self._scroll(0)

    def action_sideways(self, direction: int) -> None:
        """Show what is beyond the edge."""
        if self.wraps:
            return
        self._sideways = max(self._sideways + direction * max(self._width // 2, 1), 0)
        self.refresh()

    def _put(self, place: int) -> None:
        last = len(self._lines) - 1
        self._cursor = min(max(place, 0), max(last, 0))
        self._is_following = place >= last and not self.has_selection
        self._bring_into_sight()
        self._has_moved()

    def _scroll_by(self, rows: int) -> None:
        self._scroll(self.scroll_offset.y + rows)
        self._is_following = self.is_vertical_scroll_end and not self.has_selection
        if self._is_following:
            self._cursor = max(len(self._lines) - 1, 0)
        self.post_message(self.Moved())

    def _scroll(self, row: float) -> None:
        self._moves_itself = True
        self.scroll_to(y=row, animate=False, force=True)
        self._moves_itself = False

    def _bring_into_sight(self) -> None:
        if not self._lines or not self.size.height:
            return
        top, bottom = self._top_of(self._cursor), self._ends[self._cursor]
        seen, height = self.scroll_offset.y, self.size.height
        if self._is_following:
            self._scroll(self.max_scroll_y)
        elif bottom - top > height:
            if bottom <= seen:
                self._scroll(bottom - height)
            elif top >= seen + height:
                self._scroll(top)
        elif top < seen:
            self._scroll(top)
        elif bottom > seen + height:
            self._scroll(bottom - height)

    def _has_moved(self) -> None:
        self.refresh()
        self.post_message(self.Moved())

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if not self._moves_itself:
            self._is_following = self.is_vertical_scroll_end
            self.post_message(self.Moved())
        self._look_around()

    def _look_around(self) -> None:
        if self._lines and not self._has_asked and self.scroll_offset.y < self.size.height:
            self._has_asked = True
            self.post_message(self.TopNear())

    def on_click(self, event: events.Click) -> None:
        """Put the cursor on a line."""
        event.stop()
        place = bisect_right(self._ends, event.y + self.scroll_offset.y)
        if self._has_cursor and place < len(self._lines):
            self._put(place)

    # Laying out.

    def watch_wraps(self) -> None:
        self._sideways = 0
        self._lay_out_anew()

    def watch_found(self) -> None:
        self.refresh()

    def on_resize(self) -> None:
        if self._width != self.scrollable_content_region.width:
            self._lay_out_anew()
        elif self._is_following:
            self.follow()
        else:
            self._bring_into_sight()
        self._look_around()

    def _lay_out_anew(self) -> None:
        """Measure all lines; the cursor's stays where it is on the screen."""
        if not self.is_attached:
            return
        row = self._top_of(self._cursor) - self.scroll_offset.y
        self._measure()
        if self._is_following:
            self.follow()
        else:
            self._scroll(self._top_of(self._cursor) - row)
            self._bring_into_sight()
        self.refresh()

    def _measure(self) -> None:
        self._width = self.scrollable_content_region.width
        self._chopped.clear()
        self._heights = [self._height(line) for line in self._lines]
        self._ends = list(accumulate(self._heights))
        self._resize_virtually()

    def _resize_virtually(self) -> None:
        self.virtual_size = Size(self._width, self._ends[-1] if self._ends else 0)

    def _height(self, line: Line) -> int:
        length, width = len(line.text), self._width
        if not self.wraps or width < 1 or length * 2 <= width:
            return 1
        if _NARROW.fullmatch(line.text) and (self._has_cursor or length <= width):
            return max(-(-length // width), 1)
        return 1 if cell_len(line.text) <= width else len(self._chops(line))

    def _chops(self, line: Line) -> list[int]:
        """Give where the rows of a line with characters of other widths begin."""
        key = (id(line), self._width)
        chops = self._chopped.get(key)
        if chops is None:
            if len(self._chopped) >= CHOPPED_KEPT:
                self._chopped.clear()
            chops = self._chopped[key] = chop(line.text, self._width, between_words=not self._has_cursor)
        return chops

    def _top_of(self, place: int) -> int:
        return self._ends[place - 1] if 0 < place <= len(self._ends) else 0

    def _line_at(self, place: int) -> Line | None:
        return self._lines[place] if place < len(self._lines) else None

    def _place_of(self, line: Line | None) -> int | None:
        return next((place for place, each in enumerate(self._lines) if each is line), None)

    def _span(self, line: Line, row: int) -> tuple[int, int]:
        """Give from where to where a row of a line shows its text."""
        width = max(self._width, 1)
        if not self.wraps:
            return self._sideways, self._sideways + width
        if len(line.text) * 2 <= width or (self._has_cursor and _NARROW.fullmatch(line.text)):
            return row * width, (row + 1) * width
        chops = self._chops(line)
        begin = chops[row] if row < len(chops) else len(line.text)
        return begin, chops[row + 1] if row + 1 < len(chops) else len(line.text)

    # Painting.

    def notify_style_update(self) -> None:
        """Textual says that styles may have changed."""
        super().notify_style_update()
        self._parsed.clear()

    def render_line(self, y: int) -> Strip:
        """Give a row as it is seen."""
        row = y + self.scroll_offset.y
        place = bisect_right(self._ends, row)
        if place >= len(self._lines):
            return Strip.blank(self._width, self.rich_style)
        line = self._lines[place]
        begin, end = self._span(line, row - self._top_of(place))
        content = self._mark_found(line.piece(begin, end))
        base = self._base_style(place)
        segments = [
            Segment(text, style.rich_style)
            for text, style in content.render(base, end="", parse_style=self._parse)
            if text
        ]
        return Strip(segments).adjust_cell_length(self._width, base.rich_style)

    def _mark_found(self, piece: Content) -> Content:
        if not self.found:
            return piece
        text = piece.plain.lower()
        at = text.find(self.found)
        while at >= 0:
            piece = piece.stylize(".found", at, at + len(self.found))
            at = text.find(self.found, at + len(self.found))
        return piece

    def _base_style(self, place: int) -> Style:
        style = self.visual_style
        mark = self._cursor if self._mark is None else self._mark
        if not self._has_cursor:
            return style
        if place == self._cursor:
            return style + self.get_visual_style("lines--cursor", partial=True)
        if min(mark, self._cursor) <= place <= max(mark, self._cursor):
            return style + self.get_visual_style("lines--selected", partial=True)
        return style

    def _parse(self, style: str | Style) -> Style:
        if isinstance(style, Style):
            return style
        parsed = self._parsed.get(style)
        if parsed is None:
            parsed = (
                self.get_visual_style("lines--found", partial=True)
                if style == ".found"
                else Style.parse(style, self.app.theme_variables)
            )
            self._parsed[style] = parsed
        return parsed


def chop(text: str, width: int, *, between_words: bool = False) -> list[int]:
    """Give where each row begins when a text is cut into rows of so many cells."""
    begins, used, word, used_before = [0], 0, 0, 0
    for place, character in enumerate(text):
        cells = get_character_cell_size(character)
        if used + cells > width:
            whole = between_words and word > begins[-1]
            begins.append(word if whole else place)
            used -= used_before if whole else used
            used_before = 0
        used += cells
        if character == " ":
            word, used_before = place + 1, used
    return begins


def find(lines: Sequence[Line], is_wanted: Callable[[Line], bool], start: int, direction: int) -> int | None:
    """Give the place of the next line that is wanted, from `start` on downwards (1) or upwards (-1)."""
    end = len(lines) if direction > 0 else -1
    return next((place for place in range(start, end, direction) if is_wanted(lines[place])), None)
