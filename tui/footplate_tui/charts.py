"""Small charts of dots beside each other on one scale: who is better is seen without reading. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from footplate_tui.sparkline import DOTS_ACROSS

STEPS = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)

Moment = tuple[float, float | None]
"""Seconds, and what was measured then."""


@dataclass(frozen=True)
class Series:
    """One line of a chart: what was measured when, in order."""

    moments: Sequence[Moment] = ()

    @property
    def last_second(self) -> float:
        """When the last thing was measured."""
        return self.moments[-1][0] if self.moments else 0.0

    @property
    def highest(self) -> float | None:
        """The highest value."""
        return max((value for _, value in self.moments if value is not None), default=None)

    @property
    def newest(self) -> float | None:
        """The newest value that there is."""
        return next((value for _, value in reversed(self.moments) if value is not None), None)


def columns_of(series: Series, seconds: float, scale: float, width: int) -> list[float | None]:
    """Give what fills a chart of so many cells for so many seconds: fractions, by column of dots.

    More moments than columns are averaged; fewer are held until the next one. Nothing is after the last.
    """
    count = width * DOTS_ACROSS
    if count <= 0 or seconds <= 0 or scale <= 0:
        return [None] * max(count, 0)
    sums, counts = [0.0] * count, [0] * count
    for at, value in series.moments:
        if value is not None:
            place = min(max(math.ceil(at / seconds * count) - 1, 0), count - 1)
            sums[place] += value
            counts[place] += 1
    return _held(sums, counts, math.ceil(count / seconds) + 1, scale)


def _held(sums: Sequence[float], counts: Sequence[int], longest: int, scale: float) -> list[float | None]:
    """Fill the columns between moments with the next one, which tells of the time before it.

    A gap of `longest` columns is more than a second: then nothing was measured.
    """
    filled: list[float | None] = []
    after, gap = 0.0, longest
    for total, number in zip(reversed(sums), reversed(counts), strict=True):
        if number:
            after, gap = total / number, 0
        else:
            gap += 1
        filled.append(None if gap >= longest else after / scale)
    return filled[::-1]


def nice_ceiling(value: float | None) -> float:
    """Give a round number that is not less: 1, 2, 2.5, 5 and their tens."""
    if not value or value <= 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in STEPS if value <= step * power * 1.0001)
