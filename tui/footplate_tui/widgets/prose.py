"""The text of an answer: one widget, however many blocks it has.

What is finished is laid out once and painted from then on out of strips; only the last block, still open,
is laid out again while the text grows, and of it only the rows that differ are painted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from textual.app import RenderResult
from textual.geometry import Region, Size
from textual.message import Message
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style as VisualStyle
from textual.widget import Widget

from footplate_tui.highlighting import Colouring, Line
from footplate_tui.markdown_blocks import Block, Mark, parse
from footplate_tui.markdown_rows import Look, Row, Sheet, lay_out
from footplate_tui.markdown_segments import Segment as MarkdownSegment
from footplate_tui.markdown_segments import Segmenter

if TYPE_CHECKING:
    from rich.style import Style

BAR = "▌"

_UNDECIDED = re.compile(r"[-=+*_#>`~|:.\d)\s]*\Z")
"""A line that has begun so may yet become anything: a heading's underline, an item, a fence."""


@dataclass(frozen=True)
class _Finished:
    blocks: tuple[Block, ...]
    is_continued: bool


class Prose(Widget):
    """Markdown that grows."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *(f"prose--{mark}" for mark in Mark),
        "prose--heading",
        "prose--bullet",
        "prose--code",
        "prose--quote",
        "prose--quote-bar",
        "prose--table-head",
        "prose--table-line",
        "prose--rule",
    }

    @dataclass
    class LinkChosen(Message):
        """The user chose a link; nothing was opened."""

        href: str

    def __init__(self, text: str = "", *, is_whole: bool = False) -> None:
        super().__init__()
        self._segmenter = Segmenter()
        self._finished: list[_Finished] = []
        self._sheet = Sheet()
        """What is laid out, with the open block at its end."""
        self._laid_out = 0
        """How many of the finished pieces are laid out."""
        self._settled_rows = 0
        self._settled_lines = 0
        self._width: int | None = None
        """For which width it is laid out."""
        self._look: Look | None = None
        self._is_look_stale = False
        self._laid_out_with: Look | None = None
        self._colouring: Colouring | None = None
        self._strips: dict[int, Strip] = {}
        """The painted rows, by their number."""
        self._take(self._segmenter.feed(text))
        if is_whole:
            self._take(self._segmenter.finish())

    @property
    def plain(self) -> str:
        """The text as it is shown, without marks."""
        return "\n".join(self._sheet.lines)

    def grow(self, text: str) -> None:
        """Take more of the text and show it."""
        self._take(self._segmenter.feed(text))
        self._show()

    def finish(self) -> None:
        """No more text will come."""
        self._take(self._segmenter.finish())
        self._show()

    def clear(self) -> None:
        """Begin anew, without text."""
        self._segmenter = Segmenter()
        self._finished.clear()
        self._forget_rows()
        self.refresh(layout=True)

    # Laying out.

    def _take(self, segments: list[MarkdownSegment]) -> None:
        for segment in segments:
            blocks = parse(segment.text, first_number=segment.first_number)
            self._finished.append(_Finished(blocks, segment.is_continued))

    def _show(self) -> None:
        """Lay out what is new and have what differs painted."""
        if self._width is None:
            self.refresh(layout=True)
            return
        height = len(self._sheet.rows)
        changed = self._lay_out_rest(self._width)
        for place in changed:
            self._strips.pop(place, None)
        if changed:
            top = changed.start + self.gutter.top
            self.refresh(
                Region(0, top, self.outer_size.width, len(changed)), layout=len(self._sheet.rows) != height
            )

    def _lay_out_rest(self, width: int) -> range:
        """Lay out the new pieces and the open block; give the rows from the first to the last that differ."""
        before = self._sheet.rows[self._settled_rows :]
        settled = self._settled_rows
        del self._sheet.rows[settled:]
        del self._sheet.lines[self._settled_lines :]
        for piece in self._finished[self._laid_out :]:
            self._put(width, piece.blocks, closes=not piece.is_continued, is_open=False)
        self._laid_out = len(self._finished)
        self._settled_rows, self._settled_lines = len(self._sheet.rows), len(self._sheet.lines)
        if tail := self._tail():
            blocks = parse(tail, first_number=self._segmenter.first_number)
            self._put(width, blocks, closes=True, is_open=True)
        after = self._sheet.rows[settled:]
        first, end = settled + _same(before, after), settled + max(len(before), len(after))
        if len(before) == len(after):
            end -= _same(before[::-1], after[::-1])
        return range(first, end)

    def _tail(self) -> str:
        """Give the open block, without a last line of which nobody knows yet what it means."""
        tail = self._segmenter.tail
        if self._segmenter.tail_is_code:
            return tail
        begun, line_end, last = tail.rpartition("\n")
        return begun + line_end if _UNDECIDED.match(last) else tail

    def _put(self, width: int, blocks: tuple[Block, ...], *, closes: bool, is_open: bool) -> None:
        sheet = lay_out(
            blocks,
            width,
            self._looks(),
            self._colour_open if is_open else self._colour,
            first_line=len(self._sheet.lines),
            closes=closes,
        )
        self._sheet.rows += sheet.rows
        self._sheet.lines += sheet.lines

    def _colour(self, code: str, language: str) -> list[Line]:
        return self._colours().whole(code, language)

    def _colour_open(self, code: str, language: str) -> list[Line]:
        return self._colours().growing(code, language)

    def _forget_rows(self) -> None:
        self._sheet = Sheet()
        self._laid_out = self._settled_rows = self._settled_lines = 0
        self._strips.clear()

    def get_content_width(self, container: Size, viewport: Size) -> int:  # noqa: ARG002 -- the base's
        """As wide as there is room."""
        return container.width

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:  # noqa: ARG002 -- the base's
        """Lay it out for the width; give the rows it takes."""
        self._fit(width)
        return len(self._sheet.rows)

    def _fit(self, width: int) -> None:
        look = self._looks()
        if width == self._width and look is self._laid_out_with:
            return
        self._width, self._laid_out_with = width, look
        self._forget_rows()
        self._lay_out_rest(width)

    # Styles.

    def notify_style_update(self) -> None:
        """Textual says that styles may have changed; not all of ours are there yet."""
        super().notify_style_update()
        self._is_look_stale = True

    def _looks(self) -> Look:
        if self._look is None or self._is_look_stale:
            self._is_look_stale = False
            look = self._new_look()
            if look != self._look:
                self._look, self._colouring = look, None
            self._strips.clear()
            return self._look or look
        return self._look

    def _new_look(self) -> Look:
        def adds(name: str) -> Style:
            return self.get_component_rich_style(f"prose--{name}", partial=True)

        text = self.rich_style
        return Look(
            text=text,
            heading=adds("heading"),
            bullet=adds("bullet"),
            code=text + adds("code"),
            quote=text + adds("quote"),
            quote_bar=text + adds("quote") + adds("quote-bar"),
            table_head=adds("table-head"),
            table_line=adds("table-line"),
            rule=adds("rule"),
            marks=tuple((mark, adds(mark)) for mark in Mark),
        )

    def _colours(self) -> Colouring:
        if self._colouring is None:
            # Pygments: not before the first code is shown.
            from textual.highlight import (  # noqa: PLC0415
                ANSIDarkHighlightTheme,
                ANSILightHighlightTheme,
                HighlightTheme,
            )

            theme: type[HighlightTheme] = HighlightTheme
            if self.app.native_ansi_color:
                theme = ANSIDarkHighlightTheme if self.app.current_theme.dark else ANSILightHighlightTheme
            code = self._looks().code
            ground = VisualStyle.from_rich_style(code)
            variables = self.app.theme_variables
            text = VisualStyle.parse("$text", variables)
            styles = {
                str(kind): (ground + text + VisualStyle.parse(style, variables)).rich_style
                for kind, style in theme.STYLES.items()
                if style
            }
            self._colouring = Colouring((ground + text).rich_style, styles)
        return self._colouring

    # Painting.

    def render(self) -> RenderResult:
        """Nothing: it is painted row by row."""
        return ""

    def render_lines(self, crop: Region) -> list[Strip]:
        """Give rows of the widget with its bar, for the screen."""
        self._fit(self.size.width)
        _, background = self.background_colors
        filters = self.get_line_filters()
        top = self.gutter.top
        strips: list[Strip] = []
        for y in crop.line_range:
            strip = self._strip(y - top)
            for line_filter in filters:
                strip = strip.apply_filter(line_filter, background)
            strips.append(strip.crop(*crop.column_span))
        return strips

    def render_line(self, y: int) -> Strip:
        """Give a row of the text with its places in the lines; Textual asks for it when the mouse selects."""
        rows = self._sheet.rows
        if not 0 <= y < len(rows):
            return Strip.blank(self.size.width, self._looks().text)
        row = rows[y]
        segments: list[Segment] = []
        for segment in row.prefix:
            for character in segment.text:
                segments += _placed(Segment(character, segment.style), row.start, row.line)
        at = row.start
        for segment in row.body:
            segments += _placed(segment, at, row.line)
            at += len(segment.text)
        if not row.body:
            segments += _placed(Segment(" ", row.fill), row.start, row.line)
        return Strip(segments).adjust_cell_length(self.size.width, row.fill)

    def _strip(self, place: int) -> Strip:
        strip = self._strips.get(place)
        if strip is None:
            strip = self._strips[place] = self._paint(place)
        return strip

    def _paint(self, place: int) -> Strip:
        text = self._looks().text
        left = self.gutter.left
        _, bar = self.styles.border_left
        edge = Segment(BAR, text + VisualStyle(foreground=bar).rich_style)
        air = Segment(" " * (left - 1), text)
        if not 0 <= place < len(self._sheet.rows):
            return Strip([edge, air]).adjust_cell_length(self.outer_size.width, text)
        row = self._sheet.rows[place]
        inner = Strip([*row.prefix, *self._selected(row)])
        inner = inner.adjust_cell_length(self.size.width, row.fill)
        return Strip([edge, air, *inner]).adjust_cell_length(self.outer_size.width, text)

    # Selecting and links.

    def _selected(self, row: Row) -> tuple[Segment, ...]:
        """Give the body of a row with what the user has selected of it marked."""
        selection = self.text_selection
        span = selection.get_span(row.line) if selection else None
        if span is None:
            return row.body
        mark = self.screen.get_component_rich_style("screen--selection")
        begin, end = span
        segments: list[Segment] = []
        at = row.start
        for text, style, _ in row.body:
            first = min(max(begin - at, 0), len(text))
            last = len(text) if end == -1 else min(max(end - at, first), len(text))
            at += len(text)
            parts = ((text[:first], style), (text[first:last], (style or mark) + mark), (text[last:], style))
            segments += [Segment(part, part_style) for part, part_style in parts if part]
        return tuple(segments)

    def selection_updated(self, selection: Selection | None) -> None:
        """Textual says that the user selects."""
        self._strips.clear()
        super().selection_updated(selection)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """Give what the user has selected: whole lines, however they are wrapped."""
        return selection.extract(self.plain), "\n"

    def action_link(self, href: str) -> None:
        """A link of a model is told, never opened: it was not the user who wrote it."""
        self.post_message(self.LinkChosen(href))


def _same(some: list[Row], others: list[Row]) -> int:
    """Give how many rows at the beginning are the same."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(some, others, strict=False)))


def _placed(segment: Segment, x: int, y: int) -> list[Segment]:
    return list(Strip([segment]).apply_offsets(x, y))
