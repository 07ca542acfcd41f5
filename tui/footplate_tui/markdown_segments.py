"""Cuts Markdown that is still growing into finished segments and an open tail.

A finished segment never changes again, so it is rendered once; only the tail is drawn anew. Pure:
nothing here knows what draws it. Segments and tail joined are the text, character for character.

A cut is made only at the start of a line, outside every fence, and where both sides mean the same
apart as together:

1. before a line that follows a blank one, unless it is indented (it may belong to a list item or to
   indented code);
2. before and after a fence that does not belong to a list;
3. before an item of a list, every `ITEMS_PER_SEGMENT` items.
"""

import re
from dataclasses import dataclass

ITEMS_PER_SEGMENT = 8

_ITEM = re.compile(r"(?P<indent> {0,3})(?P<marker>[-*+]|\d{1,9}[.)])(?:[ \t]|$)")
_FENCE = re.compile(r"(?P<indent>[ \t]*)(?P<marks>`{3,}(?=[^`]*$)|~{3,})")


@dataclass(frozen=True)
class Segment:
    """A piece of Markdown that is whole in itself."""

    text: str
    is_continued: bool = False
    """The next segment goes on with the same list: no gap between them."""
    first_number: int | None = None
    """It goes on with a numbered list: the number of its first item, whatever the text says."""


class Segmenter:
    """Feed it text as it comes; it gives back each segment as soon as it is finished."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._part = ""
        self._fence = ""
        self._fence_in_list = False
        self._after_blank = False
        self._in_list = False
        self._item_indent = 0
        self._items = 0
        self._number: int | None = None
        """Of the first item of the list in the tail, if it is a numbered one."""
        self._first_number: int | None = None

    @property
    def first_number(self) -> int | None:
        """The number of the tail's first item, where the tail goes on with a numbered list."""
        return self._first_number

    @property
    def tail(self) -> str:
        """What is not finished yet."""
        return "".join(self._lines) + self._part

    @property
    def tail_is_code(self) -> bool:
        """Whether the tail is the inside of a fence that does not belong to a list."""
        return bool(self._fence) and not self._fence_in_list

    def feed(self, text: str) -> list[Segment]:
        """Take more text and give the segments that it finished."""
        self._part += text
        if "\n" not in text:
            return []
        *lines, self._part = self._part.split("\n")
        return [segment for line in lines for segment in self._take_line(line + "\n")]

    def finish(self) -> list[Segment]:
        """Give what is left: no more text will come."""
        finished = self._take_line(self._part) if self._part else []
        self._part = ""
        return finished + self._cut()

    def _take_line(self, line: str) -> list[Segment]:
        if self._fence:
            return self._take_line_of_fence(line)
        if not line.strip():
            self._after_blank = True
            self._lines.append(line)
            return []
        finished = self._cut_before(line)
        self._after_blank = False
        self._lines.append(line)
        return finished

    def _take_line_of_fence(self, line: str) -> list[Segment]:
        self._lines.append(line)
        closing = line.strip()
        if not closing.startswith(self._fence) or closing.strip(self._fence[0]):
            return []
        if not self._fence_in_list and line.expandtabs(4).startswith("    "):
            return []
        self._fence = ""
        self._after_blank = False
        return [] if self._fence_in_list else self._cut()

    def _cut_before(self, line: str) -> list[Segment]:
        indented = line[0] == "\t" or line.startswith("  ")
        fence = _FENCE.match(line.rstrip("\n"))
        item = _ITEM.match(line)
        if fence:
            return self._cut_before_fence(fence, indented=indented)
        if item and self._in_list and len(item["indent"]) <= self._item_indent + 1:
            finished = self._cut_before_item()
        else:
            finished = self._cut() if self._after_blank and not indented else []
        if item and not self._in_list:
            self._in_list, self._items, self._item_indent = True, 1, len(item["indent"])
            digits = item["marker"][:-1]
            self._number = int(digits) if digits else None
        if self._in_list:
            self._open_fence_of_item(line)
        return finished

    def _cut_before_fence(self, fence: re.Match[str], *, indented: bool) -> list[Segment]:
        belongs_to_list = self._in_list and indented
        if indented and not belongs_to_list and len(fence["indent"].expandtabs(4)) >= 4:
            return []
        finished = [] if belongs_to_list else self._cut()
        self._fence = fence["marks"]
        self._fence_in_list = belongs_to_list
        return finished

    def _cut_before_item(self) -> list[Segment]:
        self._items += 1
        if self._items <= ITEMS_PER_SEGMENT:
            return []
        # A list counts on from its first number, whatever stands before the others.
        goes_on_at = None if self._number is None else self._number + ITEMS_PER_SEGMENT
        finished = self._cut(is_continued=True)
        self._in_list, self._items = True, 1
        self._number = self._first_number = goes_on_at
        return finished

    def _open_fence_of_item(self, line: str) -> None:
        """A fence may begin right behind an item's marker: `- ```python`."""
        rest = line.lstrip()
        while marker := _ITEM.match(rest):
            rest = rest[marker.end() :].lstrip()
        fence = _FENCE.match(rest.rstrip("\n"))
        if fence and rest != line.lstrip():
            self._fence = fence["marks"]
            self._fence_in_list = True

    def _cut(self, *, is_continued: bool = False) -> list[Segment]:
        text = "".join(self._lines)
        first_number = self._first_number
        self._in_list, self._items = False, 0
        self._number = self._first_number = None
        self._after_blank = False
        if not text.strip():
            # Blank lines alone draw nothing; they wait for the segment they open.
            return []
        self._lines = []
        return [Segment(text, is_continued, first_number)]
