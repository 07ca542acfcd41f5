"""Sparklines of dots: two values and four steps of height in each cell. Pure."""

from __future__ import annotations

from collections.abc import Sequence

DOTS_ACROSS = 2
DOTS_DOWN = 4
EMPTY = 0x2800
_LEFT = (0x40, 0x04, 0x02, 0x01)
_RIGHT = (0x80, 0x20, 0x10, 0x08)
"""The dots of a braille cell, from the bottom up."""


def sparkline(fractions: Sequence[float | None], width: int, rows: int) -> list[str]:
    """Draw the newest values, 0 to 1, as filled columns; the top row first.

    The scale is fixed. A value that is there has a dot at least; where there is none the column is empty.
    """
    newest = list(fractions[-width * DOTS_ACROSS :]) if width > 0 else []
    columns = [None] * (width * DOTS_ACROSS - len(newest)) + newest
    heights = [_height(fraction, rows * DOTS_DOWN) for fraction in columns]
    pairs = list(zip(heights[::DOTS_ACROSS], heights[1::DOTS_ACROSS], strict=True))
    return ["".join(_cell(left, right, row) for left, right in pairs) for row in reversed(range(rows))]


def _height(fraction: float | None, dots: int) -> int:
    if fraction is None:
        return 0
    return max(1, round(min(max(fraction, 0.0), 1.0) * dots))


def _cell(left: int, right: int, row: int) -> str:
    """Give the cell of a row, counted from the bottom, of two columns of dots."""
    code = EMPTY
    for height, dots in ((left, _LEFT), (right, _RIGHT)):
        code |= sum(dots[: min(max(height - row * DOTS_DOWN, 0), DOTS_DOWN)])
    return chr(code) if code != EMPTY else " "
