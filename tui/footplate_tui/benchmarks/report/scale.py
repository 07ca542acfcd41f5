"""From values to places on a chart, and the round numbers beside the axis. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

LOG_FROM = 20.0
"""Values that differ by this factor or more are shown on a logarithmic axis."""


@dataclass(frozen=True)
class Scale:
    """An axis: from values to pixels."""

    low: float
    high: float
    begin: float
    end: float
    is_log: bool = False
    is_time: bool = False
    """Seconds: its round numbers are those of a clock."""

    def __call__(self, value: float) -> float:
        """Give the place of a value; what is beyond an end is put on it."""
        if self.is_log:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.begin + min(1.0, max(0.0, share)) * (self.end - self.begin)

    @property
    def ticks(self) -> list[float]:
        """Give the values worth a line."""
        if self.is_log:
            return _log_ticks(self.low, self.high)
        step = _clock_step(self.high) if self.is_time else _step(self.high)
        return [self.low + step * place for place in range(int((self.high - self.low) / step * 1.0001) + 1)]


def scale(values: Sequence[float], begin: float, end: float, *, from_zero: bool = False) -> Scale:
    """Give an axis that holds these values and ends on round ones."""
    known = [value for value in values if value >= 0]
    low, high = min(known, default=0.0), max(known, default=1.0)
    if not from_zero and low > 0 and high / low >= LOG_FROM:
        return Scale(_floor_log(low), _ceil_log(high), begin, end, is_log=True)
    high = high or 1.0
    step = _step(high)
    return Scale(0.0, math.ceil(high / step - 1e-9) * step, begin, end)


def _step(high: float) -> float:
    """Give the distance of about four lines, one of 1, 2, 5 times a power of ten."""
    rough = high / 4
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * each for each in (1, 2, 5, 10) if power * each >= rough * 0.999)


def _clock_step(high: float) -> float:
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200)
    return next((step for step in steps if high / step <= 8), 86_400)


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    decades = math.log10(high / low)
    marks = (1, 2, 5) if decades < 2.5 else (1,)
    found = [mark * 10.0**power for power in powers for mark in marks]
    return [each for each in found if low * 0.999 <= each <= high * 1.001]


def _floor_log(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * each for each in (5, 2, 1) if power * each <= value)


def _ceil_log(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * each for each in (1, 2, 5, 10) if power * each >= value)
