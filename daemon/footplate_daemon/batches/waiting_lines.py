"""The lines that are to be asked next, of one or several batches: a few in memory, the rest in rows."""

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from footplate_daemon.batches.live import LiveBatch
from footplate_daemon.store.batches import BatchStore, Line

FETCHED = 256
"""Rows that are read from the database at a time, for each batch."""


@dataclass(frozen=True, slots=True)
class Item:
    """A line, with the batch that it is of."""

    live: LiveBatch
    line: Line


@dataclass
class _Source:
    live: LiveBatch
    models: deque[int]
    """Places of models among the batch's; the first is being fetched."""
    fetched: deque[Line] = field(default_factory=deque)
    last: tuple[int, int] | None = None
    """Prefix and number of the line that was fetched last."""


class WaitingLines:
    """Gives each line once; the batches take turns."""

    def __init__(self, store: BatchStore) -> None:
        self._store = store
        self._sources: deque[_Source] = deque()
        self._known: set[LiveBatch] = set()
        self._first: deque[Item] = deque()
        self._later: list[tuple[float, int, Item]] = []
        """A heap: when, a number that breaks ties, what."""
        self._order = 0

    def take_up(self, live: LiveBatch, models: Sequence[int]) -> None:
        """Give the lines of one more batch, as far as they ask these of its models; once for each batch."""
        if live not in self._known:
            self._known.add(live)
            self._sources.append(_Source(live, deque(models)))

    def put_back(self, item: Item) -> None:
        """Have a line come next."""
        if item.live in self._known:
            self._first.append(item)

    def put_off(self, item: Item, until: float) -> None:
        """Have a line come again, but not before a time."""
        if item.live in self._known:
            self._order += 1
            heapq.heappush(self._later, (until, self._order, item))

    def drop(self, live: LiveBatch) -> None:
        """Give nothing more of a batch."""
        self._known.discard(live)
        self._sources = deque(source for source in self._sources if source.live is not live)
        self._first = deque(item for item in self._first if item.live is not live)
        self._later = [entry for entry in self._later if entry[2].live is not live]
        heapq.heapify(self._later)

    @property
    def next_at(self) -> float | None:
        """When the first of those comes that were put off; None if there are none."""
        return self._later[0][0] if self._later else None

    async def next(self, now: float) -> Item | None:
        """Give a line; None while there is none but those that were put off."""
        if self._first:
            return self._first.popleft()
        if self._later and self._later[0][0] <= now:
            return heapq.heappop(self._later)[2]
        while self._sources:
            source = self._sources[0]
            if source.fetched:
                self._sources.rotate(-1)
                return Item(source.live, source.fetched.popleft())
            if source.models:
                await self._fetch(source)  # meanwhile the batch may be dropped, and others come
            else:
                self._sources.remove(source)
        return self._first.popleft() if self._first else None

    async def _fetch(self, source: _Source) -> None:
        model = source.models[0]
        rows = await self._store.pending(source.live.key, model=model, after=source.last, limit=FETCHED)
        source.fetched.extend(rows)
        if len(rows) < FETCHED:
            source.models.popleft()
            source.last = None
        else:
            source.last = (rows[-1].prefix, rows[-1].number)
