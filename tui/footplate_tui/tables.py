"""Tables of figures for lists: columns that come with the width, one that takes what is left. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from textual.content import Content

from footplate_tui.format import truncate

LEAST_REST = 8


@dataclass(frozen=True)
class Column:
    """One column: what stands over it, its cells (0: what is left), from which width on it is shown."""

    name: str
    cells: int
    from_width: int = 0
    is_words: bool = False
    """Words stand at the left, figures at the right."""


def head(columns: Sequence[Column], width: int, *, names: Mapping[str, str] | None = None) -> Content:
    """Give the line over a table; `names` has other names for some columns."""
    texts = {column.name: (names or {}).get(column.name, column.name) for column in columns}
    return line(columns, width, ("  ", ""), texts, {}, style="$muted")


def line(
    columns: Sequence[Column],
    width: int,
    mark: tuple[str, str],
    texts: Mapping[str, str | Content],
    styles: Mapping[str, str],
    *,
    style: str = "$muted",
) -> Content:
    """Lay a row out: its mark with a colour, then the texts by column."""
    cells = [
        _cell(column, texts.get(column.name, ""), room, styles.get(column.name, style))
        for column, room in _shown(columns, width)
    ]
    return Content.assemble(mark, *cells)


def _shown(columns: Sequence[Column], width: int) -> list[tuple[Column, int]]:
    shown = [column for column in columns if width >= column.from_width]
    rest = max(width - 2 - sum(column.cells for column in shown), LEAST_REST)
    return [(column, column.cells or rest) for column in shown]


def _cell(column: Column, text: str | Content, room: int, style: str) -> Content:
    content = text if isinstance(text, Content) else Content.styled(text, style)
    room_for_text = room - 1 if column.is_words else room
    if content.cell_length > room_for_text:
        content = (
            content.truncate(max(room_for_text, 1), ellipsis=True)
            if isinstance(text, Content)
            else Content.styled(truncate(text, room_for_text), style)
        )
    gap = " " * (room - cell_len(content.plain))
    return Content.assemble(content, gap) if column.is_words else Content.assemble(gap, content)
