"""The last minutes of each gauge, as a sparkline wants them: in equal steps. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from footplate_daemon.wire import GpuHistory, GpuSnapshot

SECONDS = 600.0
SPAN_SECONDS = 300.0
"""A sparkline goes back at least so far, however narrow it is."""
HOLD_SECONDS = 12.0
"""While nobody looks it is read seldom: for so long the last value stands for those that were not read."""

PERCENT = 100.0
HEAT_WITHOUT_LIMIT = 100.0
"""Degrees Celsius that fill a bar when the GPU does not tell where it slows itself down."""

Key = tuple[str, str]
"""The GPU's uuid (the machine's is empty), and which of its figures."""
Point = tuple[float, float]
"""When it was read, and what."""

CPU: Key = ("", "cpu")
RAM: Key = ("", "ram")
USE, MEMORY, HEAT, POWER = "use", "memory", "heat", "power"


class Past:
    """What was read, by whose figure it is."""

    def __init__(self) -> None:
        self._series: dict[Key, deque[Point]] = {}
        self._wholes: dict[Key, float] = {}
        self._began = math.inf
        self._newest = -math.inf

    def add(self, snapshot: GpuSnapshot) -> None:
        """Take in what was just read."""
        if snapshot.at < self._newest:
            self._series.clear()
        self._newest = snapshot.at
        self._began = min(self._began, snapshot.at)
        for key, value in _figures(snapshot):
            if value is not None:
                series = self._series.setdefault(key, deque())
                series.append((snapshot.at, value))
                while series[0][0] < snapshot.at - SECONDS:
                    series.popleft()
        self._wholes.update({key: whole for key, whole in _wholes(snapshot) if whole})

    def fill(self, history: GpuHistory) -> None:
        """Put what the daemon remembers before what was seen here."""
        for key, values in _traces(history):
            known = self._series.get(key, ())
            earlier = [
                (at, value)
                for at, value in zip(history.at, values, strict=True)
                if value is not None and at < self._began
            ]
            self._series[key] = deque([*earlier, *known])
        self._newest = max([self._newest, *history.at[-1:]])
        self._began = min([self._began, *history.at[:1]])

    def fractions(self, key: Key, count: int, seconds: float) -> list[float | None]:
        """Give the steps as parts of the whole, as it was told last; a GPU that is lost tells none."""
        whole = self._wholes.get(key)
        steps = self.steps(key, count, seconds)
        return [None if value is None or not whole else value / whole for value in steps]

    def steps(self, key: Key, count: int, seconds: float) -> list[float | None]:
        """Give the means of so many steps of time, the last one with the newest reading in it.

        A step begins at a multiple of its length, so that what is past does not change any more.
        """
        if not math.isfinite(self._newest):
            return [None] * count
        first = math.floor(self._newest / seconds) - count + 1
        sums: list[float] = [0.0] * count
        counts = [0] * count
        for at, value in self._series.get(key, ()):
            place = math.floor(at / seconds) - first
            if 0 <= place < count:
                sums[place] += value
                counts[place] += 1
        means = [total / number if number else None for total, number in zip(sums, counts, strict=True)]
        return _held(means, math.ceil(HOLD_SECONDS / seconds))


def step_seconds(dots: int) -> float:
    """Say how long a step is when so many stand side by side: whole seconds."""
    return max(1.0, math.ceil(SPAN_SECONDS / max(dots, 1)))


def _held(values: list[float | None], longest: int) -> list[float | None]:
    """Let each value stand for the gaps after it, if they are no longer than that; the end is no gap."""
    held, gap = list(values), 0
    for place in range(1, len(values)):
        if values[place] is not None:
            if 0 < gap <= longest and values[place - gap - 1] is not None:
                held[place - gap : place] = [values[place - gap - 1]] * gap
            gap = 0
        else:
            gap += 1
    return held


def _figures(snapshot: GpuSnapshot) -> Iterable[tuple[Key, float | None]]:
    yield CPU, snapshot.cpu_percent
    yield RAM, snapshot.ram_used_bytes
    for gpu in snapshot.gpus:
        yield (gpu.uuid, USE), gpu.utilisation_percent
        yield (gpu.uuid, MEMORY), gpu.memory_used_bytes
        yield (gpu.uuid, HEAT), gpu.temperature_celsius
        yield (gpu.uuid, POWER), gpu.power_watts


def _wholes(snapshot: GpuSnapshot) -> Iterable[tuple[Key, float | None]]:
    yield CPU, PERCENT
    yield RAM, snapshot.ram_total_bytes
    for gpu in snapshot.gpus:
        yield (gpu.uuid, USE), PERCENT
        yield (gpu.uuid, MEMORY), gpu.memory_total_bytes
        if gpu.temperature_celsius is not None:
            yield (gpu.uuid, HEAT), gpu.temperature_limit_celsius or HEAT_WITHOUT_LIMIT
        yield (gpu.uuid, POWER), gpu.power_limit_watts


def _traces(history: GpuHistory) -> Iterable[tuple[Key, tuple[float | None, ...]]]:
    yield CPU, history.cpu_percent
    yield RAM, history.ram_used_bytes
    for gpu in history.gpus:
        yield (gpu.uuid, USE), gpu.utilisation_percent
        yield (gpu.uuid, MEMORY), gpu.memory_used_bytes
        yield (gpu.uuid, HEAT), gpu.temperature_celsius
        yield (gpu.uuid, POWER), gpu.power_watts
