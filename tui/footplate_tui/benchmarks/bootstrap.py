"""How sure a figure is: intervals by drawing again, with a fixed seed, from what was measured. Pure.

Noise comes in spells: for a second another process has the core, and neighbouring requests suffer together;
or a whole round is slow. So what is drawn is not single requests but blocks of neighbours in time, and where
a cell was measured in several rounds, rounds. Requests drawn singly would make every interval too narrow.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Generic, TypeVar

T = TypeVar("T")

DRAWS = 1000
FEWEST_DRAWS = 200
MOST_VALUES = 300_000
"""Values drawn in all; of very many requests fewer draws are made, for their figures are sure anyway."""
FEWEST_VALUES = 5
"""Of fewer nothing can be said about how sure they are."""
SEED = 42
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Sample(Generic[T]):
    """What was measured: values in the order of time, round by round."""

    rounds: tuple[tuple[T, ...], ...]

    @property
    def values(self) -> list[T]:
        """All of them."""
        return [value for each in self.rounds for value in each]

    def __len__(self) -> int:
        return sum(map(len, self.rounds))


@dataclass(frozen=True)
class Estimate:
    """A figure and the interval that it lies in with `CONFIDENCE`."""

    value: float
    low: float | None = None
    """None, as the other end, where too few values were measured to say."""
    high: float | None = None

    def excludes(self, value: float) -> bool:
        """Whether the figure is surely not this; False where nothing is known of how sure it is."""
        return self.low is not None and self.high is not None and not self.low <= value <= self.high


def median(values: Sequence[float]) -> float:
    """Give the middle; the mean of the two middle ones of an even number."""
    return quantile(sorted(values), 0.5)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Give a quantile of ordered values, linear between neighbours as numpy's."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def draws(
    sample: Sample[T], statistic: Callable[[list[T]], float], *, seed: int = SEED, count: int = DRAWS
) -> list[float]:
    """Give the statistic of the sample drawn again, many times; nothing where it has too few values."""
    rounds = [each for each in sample.rounds if each]
    size = sum(map(len, rounds))
    if size < FEWEST_VALUES or not count:
        return []
    # One stream of chance for each sample: two of them are never drawn alike, nor does their order matter.
    chance = random.Random(f"{seed} {size} {len(rounds)} {rounds[0][0]!r}")  # noqa: S311 - no secret
    count = max(FEWEST_DRAWS, min(count, MOST_VALUES // size))
    blocks = [_blocks(each) for each in rounds]
    return [statistic(_drawn(blocks, chance)) for _ in range(count)]


def estimate(value: float, drawn: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """Give the figure with the middle part of what was drawn for it."""
    if not drawn:
        return Estimate(value)
    ordered, tail = sorted(drawn), (1 - confidence) / 2
    return Estimate(value, quantile(ordered, tail), quantile(ordered, 1 - tail))


def ratio(
    value: float,
    base: float,
    drawn: Sequence[float],
    drawn_base: Sequence[float],
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Give value / base with its interval; both were drawn independently of each other."""
    pairs = zip(drawn, drawn_base, strict=False)
    return estimate(value / base, [one / other for one, other in pairs if other], confidence)


def _blocks(values: tuple[T, ...]) -> list[tuple[T, ...]]:
    """Give the block that begins at each value, as long as the cube root of their number, round the end."""
    length = max(1, round(len(values) ** (1 / 3)))
    circle = values + values[: length - 1]
    return [circle[start : start + length] for start in range(len(values))]


def _drawn(rounds: Sequence[list[tuple[T, ...]]], chance: random.Random) -> list[T]:
    """Draw as many rounds as there are, and of each, blocks until there are as many values as it has."""
    chosen = chance.choices(rounds, k=len(rounds)) if len(rounds) > 1 else rounds
    values: list[T] = []
    for blocks in chosen:
        size, length = len(blocks), len(blocks[0])
        drawn = list(chain.from_iterable(chance.choices(blocks, k=-(-size // length))))
        values += drawn[:size]
    return values
