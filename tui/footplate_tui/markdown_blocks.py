"""What a piece of Markdown consists of: blocks, and in them text with marks.

Pure: nothing here knows widths or colours. HTML is text like any other. What entities (`&#8238;`) put into
the text is made harmless here; the text itself is when it comes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

from footplate_tui.harmless import harmless

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token


class Mark(StrEnum):
    """What is said of a stretch of text; the values are names of styles."""

    STRONG = "strong"
    EMPHASIS = "em"
    STRIKE = "strike"
    CODE = "inline-code"
    LINK = "link"


@dataclass(frozen=True)
class Piece:
    """Some text with the same marks."""

    text: str
    marks: frozenset[Mark] = frozenset()
    href: str = ""
    """Where a link leads."""


Inline = tuple[Piece, ...]
"""Text as it runs; a line end in it is wanted."""


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    inline: Inline


@dataclass(frozen=True)
class Heading:
    """A heading of any level."""

    inline: Inline


@dataclass(frozen=True)
class Code:
    """A fence or indented code."""

    text: str
    language: str = ""


@dataclass(frozen=True)
class Quote:
    """What somebody else said."""

    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Item:
    """One item of a list."""

    marker: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Items:
    """A list; its markers are as wide as the widest of them."""

    items: tuple[Item, ...]


class Side(StrEnum):
    """To which side of its column a cell is set."""

    LEFT = "left"
    CENTRE = "center"
    RIGHT = "right"


@dataclass(frozen=True)
class Table:
    """Cells in columns; each row has as many cells as the head."""

    head: tuple[Inline, ...]
    sides: tuple[Side, ...]
    rows: tuple[tuple[Inline, ...], ...]


@dataclass(frozen=True)
class Rule:
    """A line across."""


Block = Paragraph | Heading | Code | Quote | Items | Table | Rule

BULLETS = ("•", "▪", "‣", "◦")
"""By how deep the list is nested."""

_MARK_OF = {
    "strong_open": Mark.STRONG,
    "em_open": Mark.EMPHASIS,
    "s_open": Mark.STRIKE,
    "link_open": Mark.LINK,
}
_SPACES = re.compile(r"\s+")


def parse(text: str, *, first_number: int | None = None) -> tuple[Block, ...]:
    """Give the blocks of a text; one that goes on with a numbered list begins at `first_number`."""
    return _Reader(_parser().parse(text), first_number).blocks("")


@lru_cache(1)
def _parser() -> MarkdownIt:
    # It costs 40 ms to import: not before the first answer is shown.
    from markdown_it import MarkdownIt  # noqa: PLC0415

    return MarkdownIt("gfm-like", {"html": False})


class _Reader:
    """Goes once through the parser's tokens."""

    def __init__(self, tokens: Sequence[Token], first_number: int | None) -> None:
        self._tokens: Iterator[Token] = iter(tokens)
        self._first_number = first_number
        self._depth = 0

    def blocks(self, closing: str) -> tuple[Block, ...]:
        """Read blocks up to the token that closes them."""
        read: list[Block] = []
        for token in self._tokens:
            if token.type == closing:
                break
            if block := self._block(token):
                read.append(block)
        return tuple(read)

    def _block(self, token: Token) -> Block | None:
        match token.type:
            case "paragraph_open":
                return Paragraph(self._inline("paragraph_close"))
            case "heading_open":
                return Heading(self._inline("heading_close"))
            case "fence" | "code_block":
                return Code(harmless(token.content.rstrip("\n")), token.info.split(" ")[0].strip())
            case "blockquote_open":
                return Quote(self.blocks("blockquote_close"))
            case "bullet_list_open":
                return self._items("bullet_list_close", None)
            case "ordered_list_open":
                return self._items("ordered_list_close", self._number(token))
            case "table_open":
                return self._table()
            case "hr":
                return Rule()
        return None

    def _number(self, token: Token) -> int:
        first, self._first_number = self._first_number, None
        return int(token.attrs.get("start", 1)) if first is None else first

    def _items(self, closing: str, first: int | None) -> Items:
        bullet = BULLETS[self._depth % len(BULLETS)]
        self._depth += 1
        read: list[Item] = []
        for token in self._tokens:
            if token.type == closing:
                break
            marker = bullet if first is None else f"{first + len(read)}."
            read.append(Item(marker, self.blocks("list_item_close")))
        self._depth -= 1
        return Items(tuple(read))

    def _table(self) -> Table:
        rows: list[list[Inline]] = []
        sides: list[Side] = []
        for token in self._tokens:
            match token.type:
                case "table_close":
                    break
                case "tr_open":
                    rows.append([])
                case "th_open":
                    sides.append(_side(token))
                    rows[-1].append(self._inline("th_close"))
                case "td_open":
                    rows[-1].append(self._inline("td_close"))
        head, *others = (tuple(row) for row in rows)
        return Table(head, tuple(sides), tuple(others))

    def _inline(self, closing: str) -> Inline:
        pieces: list[Piece] = []
        for token in self._tokens:
            if token.type == closing:
                break
            pieces += _pieces(token.children or ())
        return tuple(pieces)


def _side(token: Token) -> Side:
    return Side(str(token.attrs.get("style", "")).removeprefix("text-align:") or Side.LEFT)


def _pieces(tokens: Sequence[Token]) -> Iterator[Piece]:
    marks: list[Mark] = []
    href = ""
    for token in tokens:
        match token.type:
            case "text" | "html_inline":
                yield Piece(_SPACES.sub(" ", harmless(token.content)), frozenset(marks), href)
            case "code_inline":
                yield Piece(harmless(token.content), frozenset((*marks, Mark.CODE)), href)
            case "softbreak":
                yield Piece(" ", frozenset(marks), href)
            case "hardbreak":
                yield Piece("\n", frozenset(marks), href)
            case "image":
                shown = harmless(token.content) or "image"
                where = str(token.attrs.get("src", ""))
                yield Piece(f"🖼 {shown}", frozenset((*marks, Mark.LINK)), where)
            case opening if opening in _MARK_OF:
                marks.append(_MARK_OF[opening])
                href = str(token.attrs.get("href", href))
            case closing if closing.endswith("_close"):
                if marks.pop() is Mark.LINK:
                    href = ""
