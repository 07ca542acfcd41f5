"""Lines that are drawn anew all the time and painted only where they differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.content import Content
from textual.geometry import Region
from textual.strip import Strip
from textual.visual import Visual
from textual.widget import Widget


class GaugeLines(Widget):
    """Shows one line in each row, as it is given them."""

    fits_lines: ClassVar[bool] = True
    """Whether it is as high as there are lines; otherwise its height is its style's."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: Sequence[Content] = ()
        """What it shows."""

    @property
    def plain(self) -> str:
        """The text as it is shown."""
        return "\n".join(line.plain for line in self.lines)

    def show(self, lines: Sequence[Content]) -> None:
        """Show these from now on."""
        before, self.lines = self.lines, lines
        if len(before) != len(lines):
            if self.fits_lines:
                self.styles.height = len(lines)
            self.refresh(layout=self.fits_lines)
            return
        changed = [
            Region(0, row, self.size.width, 1)
            for row, (old, new) in enumerate(zip(before, lines, strict=True))
            if (old.plain, old.spans) != (new.plain, new.spans)
        ]
        if changed:
            self.refresh(*changed)

    def render_line(self, y: int) -> Strip:
        width, style = self.size.width, self.visual_style
        if y >= len(self.lines) or not width:
            return Strip.blank(width, style.rich_style)
        strips = Visual.to_strips(self, self.lines[y], width, 1, style)
        return strips[0].adjust_cell_length(width, style.rich_style)
