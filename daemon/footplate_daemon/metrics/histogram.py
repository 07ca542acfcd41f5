"""A histogram that takes whole arrays, and the buckets of ours. Pure.

The buckets are made for what people feel and operators decide by, about a dozen for each histogram:
every one is a time series for each variant.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client.utils import floatToGoString

REQUEST_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600)
"""From an embedding to a long answer of a model that thinks, its wait for a switch included."""
FIRST_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 2, 5, 10, 20, 40)
"""Dense below a second, where a wait begins to be felt; a long prompt on a small GPU takes a minute."""
INTER_TOKEN_SECONDS = (
    0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 1, 2.5,
)  # fmt: skip
"""From a thousand tokens a second to one; dense around 40 ms, where a stream falls behind a quick reader."""
QUEUE_SECONDS = (0.001, 0.01, 0.05, 0.25, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)
"""The first is not to have waited at all; the last ones are waits for a switch."""
SWITCH_SECONDS = (0.5, 1, 2.5, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 600)
"""From waking a sleeping engine to loading a large model from a slow disk."""


class Histogram:
    """Counts values in buckets; a value on a bound belongs to the bucket below it."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def observe_all(self, values: Iterable[float]) -> None:
        """Count many values: sorted once, they are looked up by bucket instead of one by one."""
        ordered = sorted(values)
        below = 0
        for place, bound in enumerate(self._bounds):
            up_to = bisect_right(ordered, bound, below)
            self._counts[place] += up_to - below
            below = up_to
        self._counts[-1] += len(ordered) - below
        self._sum += sum(ordered)

    @property
    def sum(self) -> float:
        """All values together."""
        return self._sum

    def buckets(self) -> list[tuple[str, float]]:
        """Give each bound with the count of values up to it, as Prometheus writes them."""
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        return list(zip(bounds, accumulate(map(float, self._counts)), strict=True))
