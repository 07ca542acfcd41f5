"""The ground under other widgets, for containers that show nothing of their own.

Textual would paint each row of a container anew whenever it grows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.strip import Strip

if TYPE_CHECKING:
    from textual.geometry import Region
    from textual.widget import Widget


def empty_rows(widget: Widget, crop: Region) -> list[Strip]:
    """Give rows of a widget's background: what its `render_lines` returns."""
    strip = Strip.blank(crop.width, widget.visual_style.rich_style)
    _, background = widget.background_colors
    for line_filter in widget.get_line_filters():
        strip = strip.apply_filter(line_filter, background)
    return [strip] * crop.height
