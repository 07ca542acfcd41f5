"""The 256 colours of xterm and the nearest of them to any other.

Rich's own reduction turns dark surfaces navy or black; this one keeps lightness before hue. The sixteen
lowest are left out: every terminal gives them colours of its own.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from rich.color import Color, ColorType
from rich.segment import Segment
from rich.style import Style
from textual.filter import LineFilter

if TYPE_CHECKING:
    from textual.color import Color as Background

Rgb = tuple[int, int, int]
Lab = tuple[float, float, float]

_STEPS = (0, 95, 135, 175, 215, 255)
FIRST = 16
CUBE_AND_GREYS: tuple[Rgb, ...] = (
    *((red, green, blue) for red in _STEPS for green in _STEPS for blue in _STEPS),
    *((8 + 10 * step,) * 3 for step in range(24)),
)
"""Colours 16 to 255, in order."""


class Nearest256(LineFilter):
    """Gives each cell the nearest colours of the palette, for terminals that have no more."""

    def apply(self, segments: list[Segment], background: Background) -> list[Segment]:  # noqa: ARG002 -- the base's
        return [
            segment
            if segment.control or segment.style is None
            else Segment(segment.text, reduce(segment.style))
            for segment in segments
        ]


@lru_cache(4096)
def nearest(rgb: Rgb) -> int:
    """Give the number of the palette's colour that looks most like this one."""
    lightness, a, b = _lab(rgb)
    distances = [
        2 * (lab[0] - lightness) ** 2 + (lab[1] - a) ** 2 + (lab[2] - b) ** 2 for lab in _palette_in_lab()
    ]
    return FIRST + distances.index(min(distances))


@lru_cache(16384)
def reduce(style: Style) -> Style:
    """Give the style in colours of the palette."""
    return style + Style(color=_reduced(style.color), bgcolor=_reduced(style.bgcolor))


def _reduced(color: Color | None) -> Color | None:
    if color is None or color.type is not ColorType.TRUECOLOR or color.triplet is None:
        return None
    return Color.from_ansi(nearest(tuple(color.triplet)))


@lru_cache(1)
def _palette_in_lab() -> tuple[Lab, ...]:
    return tuple(_lab(rgb) for rgb in CUBE_AND_GREYS)


def _lab(rgb: Rgb) -> Lab:
    """CIE L*a*b* of an sRGB colour, D65."""
    red, green, blue = (_linear(channel / 255) for channel in rgb)
    x = _root((0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505)
    y = _root(0.2126 * red + 0.7152 * green + 0.0722 * blue)
    z = _root((0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def _linear(channel: float) -> float:
    return ((channel + 0.055) / 1.055) ** 2.4 if channel > 0.04045 else channel / 12.92


def _root(value: float) -> float:
    return value ** (1 / 3) if value > 0.008856 else 7.787 * value + 16 / 116
