"""Lays blocks of Markdown out in rows of a given width.

A row is what stands in one row of the screen; a line is what is copied: a line that is too wide is several
rows. Pure: the styles come in a `Look`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

from rich.cells import cell_len, chop_cells
from rich.segment import Segment
from rich.style import Style

from footplate_tui.markdown_blocks import (
    Block,
    Code,
    Heading,
    Inline,
    Item,
    Items,
    Mark,
    Paragraph,
    Piece,
    Quote,
    Rule,
    Side,
    Table,
)

CODE_MARGIN = 2
QUOTE_BAR = "▌ "
NARROWEST = 4
"""Text gets at least so many columns, however deep it is nested."""

_AIRY = (Code, Quote, Table)
"""What has air below it in an item of a list, too."""

_WORD = re.compile(r"\s*\S+\s*|\s+")


@dataclass(frozen=True)
class Look:
    """The styles of everything, ready to be written."""

    text: Style
    heading: Style
    bullet: Style
    code: Style
    quote: Style
    quote_bar: Style
    table_head: Style
    table_line: Style
    rule: Style
    marks: tuple[tuple[Mark, Style], ...]
    """What each mark adds to the style of the text."""


class Highlighter(Protocol):
    """Gives each line of a code its pieces with their styles."""

    def __call__(self, code: str, language: str) -> list[list[tuple[str, Style]]]: ...


@dataclass
class Row:
    """One row: what stands before the text, a part of a line, and the style of the rest of the row."""

    prefix: tuple[Segment, ...]
    body: tuple[Segment, ...]
    line: int
    """To which line the body belongs."""
    start: int
    """Where in that line the body begins."""
    fill: Style


@dataclass
class Sheet:
    """Rows, and the lines they show."""

    first_line: int = 0
    rows: list[Row] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


def lay_out(
    blocks: Sequence[Block],
    width: int,
    look: Look,
    highlight: Highlighter,
    *,
    first_line: int = 0,
    closes: bool = True,
) -> Sheet:
    """Give the rows of blocks, one row of air after each; `closes` puts one after the last, too."""
    setter = _Setter(width, look, highlight, Sheet(first_line))
    margin = _Margin((), ())
    for place, block in enumerate(blocks):
        setter.put(block, margin, look.text)
        if closes or place + 1 < len(blocks):
            setter.put_gap(margin, look.text)
    return setter.sheet


def breaks(text: str, width: int) -> list[int]:
    """Give the places at which a text is cut to fit; words are cut only where one is wider than a row."""
    if text.isascii() and len(text) <= width:
        return []
    places: list[int] = []
    used = 0
    for match in _WORD.finditer(text):
        word = match.group()
        bare = cell_len(word.rstrip())
        if used + bare <= width:
            used += cell_len(word)
        elif bare <= width:
            places.append(match.start())
            used = cell_len(word)
        else:
            if used:
                places.append(match.start())
            at = match.start()
            *full, last = chop_cells(word, width)
            for part in full:
                at += len(part)
                places.append(at)
            used = cell_len(last)
    return [place for place in places if 0 < place < len(text)]


class _Margin:
    """What stands before the rows of a block: something once, and from then on something else."""

    def __init__(self, first: tuple[Segment, ...], rest: tuple[Segment, ...], label: str = "") -> None:
        self._first: tuple[Segment, ...] | None = first
        self._label = label
        self.rest = rest
        self.width = sum(segment.cell_length for segment in rest)

    @property
    def is_fresh(self) -> bool:
        return self._first is not None

    def take(self) -> tuple[tuple[Segment, ...], str]:
        """Give what stands before the next row, and what of it belongs to the line."""
        if self._first is None:
            return self.rest, ""
        first, self._first = self._first, None
        return first, self._label


class _Setter:
    """Sets blocks into a sheet, one under the other."""

    def __init__(self, width: int, look: Look, highlight: Highlighter, sheet: Sheet) -> None:
        self.sheet = sheet
        self._width = width
        self._look = look
        self._highlight = highlight
        self._marks = dict(look.marks)
        self._styles: dict[tuple[Style, frozenset[Mark], str], Style] = {}

    def put(self, block: Block, margin: _Margin, base: Style) -> None:
        match block:
            case Paragraph(inline):
                self._put_inline(inline, margin, base)
            case Heading(inline):
                self._put_inline(inline, margin, base + self._look.heading)
            case Code(text, language):
                self._put_code(text, language, margin)
            case Quote(blocks):
                self._put_quote(blocks, margin)
            case Items(items):
                self._put_items(items, margin, base)
            case Table():
                self._put_table(block, margin, base)
            case Rule():
                rule = Segment("─" * self._room(margin), base + self._look.rule)
                self._put_line(margin, [(rule,)], "───", base)

    def put_gap(self, margin: _Margin, fill: Style) -> None:
        self._put_line(_Margin(margin.rest, margin.rest), [()], "", fill)

    def _room(self, margin: _Margin) -> int:
        return max(self._width - margin.width, NARROWEST)

    def _put_line(
        self, margin: _Margin, bodies: Iterable[tuple[Segment, ...]], text: str, fill: Style
    ) -> None:
        """Put one line, which may be several rows: their bodies joined are its text, label aside."""
        start = 0
        for body in bodies:
            prefix, label = margin.take()
            if not start and label:
                text, start = label + text, len(label)
            self.sheet.rows.append(Row(prefix, body, self._number(), start, fill))
            start += sum(len(segment.text) for segment in body)
        self.sheet.lines.append(text)

    def _number(self) -> int:
        return self.sheet.first_line + len(self.sheet.lines)

    def _put_inline(self, inline: Inline, margin: _Margin, base: Style) -> None:
        for pieces in _split_lines(inline):
            text = "".join(piece.text for piece in pieces)
            cuts = [0, *breaks(text, self._room(margin)), len(text)]
            styled = [(piece.text, self._style(piece, base)) for piece in pieces]
            self._put_line(margin, list(_cut(styled, cuts)), text, base)

    def _style(self, piece: Piece, base: Style) -> Style:
        key = (base, piece.marks, piece.href)
        style = self._styles.get(key)
        if style is None:
            style = base
            for mark in sorted(piece.marks):
                style += self._marks[mark]
            if piece.href:
                style += Style.from_meta({"@click": f"link({piece.href!r})"})
            self._styles[key] = style
        return style

    def _put_code(self, text: str, language: str, margin: _Margin) -> None:
        look = self._look
        air = Segment(" " * CODE_MARGIN, look.code)
        first, label = margin.take()
        inner = _Margin((*first, air), (*margin.rest, air), label)
        width = max(self._room(margin) - 2 * CODE_MARGIN, NARROWEST)
        for styled in self._highlight(text.expandtabs(4), language):
            line = "".join(part for part, _ in styled)
            cuts = [0, *_folds(line, width), len(line)]
            self._put_line(inner, list(_cut(styled, cuts)), line, look.code)

    def _put_quote(self, blocks: Sequence[Block], margin: _Margin) -> None:
        bar = Segment(QUOTE_BAR, self._look.quote_bar)
        first, label = margin.take()
        inner = _Margin((*first, bar), (*margin.rest, bar), label)
        for place, block in enumerate(blocks):
            if place:
                self.put_gap(inner, self._look.quote)
            self.put(block, inner, self._look.quote)

    def _put_items(self, items: Sequence[Item], margin: _Margin, base: Style) -> None:
        width = max((cell_len(item.marker) for item in items), default=0)
        if items and items[0].marker[0].isdigit():
            width += 1
        for place, item in enumerate(items, 1):
            self._put_item(item, f"{item.marker:>{width}} ", margin, base)
            if place < len(items) and item.blocks and isinstance(item.blocks[-1], _AIRY):
                self.put_gap(margin, base)

    def _put_item(self, item: Item, marker: str, margin: _Margin, base: Style) -> None:
        indent = " " * cell_len(marker)
        first, label = margin.take()
        inner = _Margin(
            (*first, Segment(marker, base + self._look.bullet)),
            (*margin.rest, Segment(indent, base)),
            (label or " " * margin.width) + marker,
        )
        previous: Block | None = None
        for block in item.blocks:
            if isinstance(previous, _AIRY) or (
                isinstance(previous, Paragraph) and isinstance(block, Paragraph)
            ):
                self.put_gap(inner, base)
            self.put(block, inner, base)
            previous = block
        if inner.is_fresh:
            self._put_line(inner, [()], "", base)

    def _put_table(self, table: Table, margin: _Margin, base: Style) -> None:
        look = self._look
        count = len(table.head)
        cells = [table.head, *table.rows]
        widths = _column_widths(cells, self._room(margin) - 3 * count - 1)
        line = base + look.table_line
        set_rows = [
            list(self._table_row(row, widths, table.sides, base + look.table_head if place == 0 else base))
            for place, row in enumerate(cells)
        ]
        wraps = any(len(rows) > 1 for rows in set_rows[1:])
        self._put_border(margin, "┌┬┐", widths, line, base)
        for place, rows in enumerate(set_rows):
            if place == 1 or (wraps and place):
                self._put_border(margin, "├┼┤", widths, line, base)
            for body in rows:
                self._put_line(margin, [body], "".join(segment.text for segment in body), base)
        self._put_border(margin, "└┴┘", widths, line, base)

    def _put_border(
        self, margin: _Margin, corners: str, widths: Sequence[int], style: Style, fill: Style
    ) -> None:
        left, middle, right = corners[0], corners[1], corners[2]
        text = left + middle.join("─" * (width + 2) for width in widths) + right
        self._put_line(margin, [(Segment(text, style),)], text, fill)

    def _table_row(
        self, row: Sequence[Inline], widths: Sequence[int], sides: Sequence[Side], base: Style
    ) -> Iterator[tuple[Segment, ...]]:
        """Give the rows of one row of a table, as high as the highest cell of it."""
        columns = [list(self._cell(cell, width, base)) for cell, width in zip(row, widths, strict=True)]
        line = base + self._look.table_line
        for place in range(max(len(column) for column in columns)):
            body = [Segment("│ ", line)]
            for number, (column, width) in enumerate(zip(columns, widths, strict=True)):
                cell = column[place] if place < len(column) else ()
                air = width - sum(segment.cell_length for segment in cell)
                before = {Side.LEFT: 0, Side.CENTRE: air // 2, Side.RIGHT: air}[sides[number]]
                body += [Segment(" " * before, base)] if before else []
                body += cell
                body += [Segment(" " * (air - before), base)] if air > before else []
                body.append(Segment(" │ " if number + 1 < len(widths) else " │", line))
            yield tuple(body)

    def _cell(self, inline: Inline, width: int, base: Style) -> Iterator[tuple[Segment, ...]]:
        text = "".join(piece.text for piece in inline)
        styled = [(piece.text, self._style(piece, base)) for piece in inline]
        yield from _cut(styled, [0, *breaks(text, width), len(text)], strips=True)


def _split_lines(inline: Inline) -> Iterator[list[Piece]]:
    line: list[Piece] = []
    for piece in inline:
        first, *others = piece.text.split("\n")
        line.append(Piece(first, piece.marks, piece.href))
        for other in others:
            yield line
            line = [Piece(other, piece.marks, piece.href)]
    yield line


def _cut(
    styled: Sequence[tuple[str, Style]], cuts: Sequence[int], *, strips: bool = False
) -> Iterator[tuple[Segment, ...]]:
    """Give the segments between the cuts; `strips` takes away the space at the end of each part."""
    for start, end in pairwise(cuts):
        segments: list[Segment] = []
        at = 0
        for text, style in styled:
            part = text[max(start - at, 0) : max(end - at, 0)]
            at += len(text)
            if part:
                segments.append(Segment(part, style))
        if strips and segments:
            segments[-1] = Segment(segments[-1].text.rstrip(), segments[-1].style)
        yield tuple(segments)


def _folds(line: str, width: int) -> list[int]:
    if len(line) <= width and line.isascii():
        return []
    places: list[int] = []
    at = 0
    for part in chop_cells(line, width)[:-1]:
        at += len(part)
        places.append(at)
    return places


def _column_widths(rows: Sequence[Sequence[Inline]], room: int) -> list[int]:
    """Share the room: narrow columns get what they need, the wide ones the same each of what is left."""
    count = len(rows[0])
    wanted = [
        max(cell_len("".join(piece.text for piece in row[column])) for row in rows) for column in range(count)
    ]
    widths = [1] * count
    left = max(room, count)
    for place, column in enumerate(sorted(range(count), key=lambda column: wanted[column])):
        widths[column] = max(1, min(wanted[column], left // (count - place)))
        left -= widths[column]
    return widths
