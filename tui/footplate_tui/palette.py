"""The 256 colours of xterm, the sixteen of every terminal, and the nearest of them to any other.

Rich's own reduction turns dark surfaces navy or black; this one keeps lightness before hue. The sixteen
lowest are left out: every terminal gives them colours of its own.
"""

from __future__ import annotations

import math
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
LEAST_CHROMA = 10.0
"""Less colour than this reads as grey."""
LEAST_BRIGHT = 60.0
_GREYS = ((18.0, 0), (47.0, 8), (91.0, 7), (101.0, 15))
"""Up to which lightness a grey is which of the sixteen."""
_HUES = ((40, 1), (136, 2), (80, 3), (270, 4), (328, 5), (196, 6))
"""Where red, green, yellow, blue, magenta and cyan lie, in degrees."""
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


class Nearest16(LineFilter):
    """Gives each cell one of the terminal's own sixteen colours: greys by lightness, the others by hue.

    Rich's own reduction makes one cyan of most of what is bright.
    """

    def apply(self, segments: list[Segment], background: Background) -> list[Segment]:  # noqa: ARG002 -- the base's
        return [
            segment
            if segment.control or segment.style is None
            else Segment(segment.text, reduce_to_16(segment.style))
            for segment in segments
        ]


@lru_cache(4096)
def nearest_16(rgb: Rgb) -> int:
    """Give the number of the terminal's own colour that says the same."""
    lightness, a, b = _lab(rgb)
    if math.hypot(a, b) < LEAST_CHROMA:
        return next(number for limit, number in _GREYS if lightness <= limit)
    hue = math.degrees(math.atan2(b, a)) % 360
    number = min(_HUES, key=lambda known: abs((known[0] - hue + 180) % 360 - 180))[1]
    return number + 8 if lightness > LEAST_BRIGHT else number


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


@lru_cache(16384)
def reduce_to_16(style: Style) -> Style:
    """Give the style in the terminal's own sixteen colours."""
    return style + Style(color=_own(style.color), bgcolor=_own(style.bgcolor))


def _own(color: Color | None) -> Color | None:
    if color is None or color.type is not ColorType.TRUECOLOR or color.triplet is None:
        return None
    return Color.from_ansi(nearest_16(tuple(color.triplet)))


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
