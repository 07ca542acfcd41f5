"""The ledger: exchanges are entered on the hot path, and stored in groups off it.

At most `FLUSH_SECONDS` of ended exchanges are lost to `kill -9`. One that lasts longer is stored while it
waits or runs, with the body of its request, so that the next daemon can mark it as cut.
"""

import asyncio
import logging
import time
from array import array
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from operator import attrgetter

from footplate_daemon import settings
from footplate_daemon.errors import Busy, Conflict, FootplateError, Unavailable
from footplate_daemon.store.exchanges import Body, Exchange, ExchangeStore, Outcome, admits, storable
from footplate_daemon.store.packing import Packing
from footplate_daemon.wire import ExchangeFilter

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 0.25
"""A busy machine may need as long again, and no more than a second is lost to `kill -9`."""
FLUSH_COUNT = 500
"""So many that have ended are stored at once: they take memory."""
FOLLOW_SECONDS = 0.25
"""Followers hear of what has begun and what has ended at most so often."""
PRUNE_SECONDS = 3600.0
GROUP = 1000
"""Exchanges that one transaction stores."""
KEPT_WHILE_FAILING = 10_000
"""Exchanges that wait while the disk is full; older ones are dropped first."""
KEPT_BODY_BYTES = 64 * 1024 * 1024
"""Bodies that wait while the disk is full; older ones are dropped first."""
SLICE = 20
"""Exchanges that are prepared for the store before the event loop may do something else."""
COMPRESSED_HERE = 64 * 1024
"""Bytes of a body that are compressed on the event loop: handing them to a thread would take longer."""
LONGEST_TEXT = 2000
"""Characters of a path, a model's name or an error that are kept."""
CHAT_PATHS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"})


@dataclass(slots=True)
class Entry:
    """An exchange under way, with what is no column of its row."""

    exchange: Exchange
    cancel: Callable[[], None]
    """Ends the exchange, as if its client had left."""
    request: bytes = b""
    """The body of the request, as it was sent."""
    answer: Packing = field(default_factory=Packing)
    """The body of the answer, as far as it was sent."""
    gaps: "array[float] | None" = None
    """Seconds between the chunks of a stream that held something."""
    has_told: bool = False
    """Whether anything of the answer was passed on."""


@dataclass(frozen=True)
class Record:
    """All that the ledger has of one exchange."""

    exchange: Exchange
    body: Body | None = None
    """None where none is kept; of an exchange under way, what there is so far."""


class Ledger:
    """Enters exchanges; `run` stores them, and deletes what is too old or too much."""

    def __init__(self, store: ExchangeStore, rules: settings.Ledger | None = None) -> None:
        self.listeners: list[Callable[[Sequence[Entry]], None]] = []
        """Each is told once about every group of ended exchanges, off the hot path."""
        self.rules = rules or settings.Ledger()
        """Replaced when the configuration changes."""
        self._store = store
        self._under_way: dict[int, Entry] = {}
        self._ended: deque[Entry] = deque(maxlen=KEPT_WHILE_FAILING)
        self._told: deque[Entry] = deque()
        """Those of which the listeners know, and which are not stored yet."""
        self._stored: dict[int, Outcome] = {}
        """Those under way that have a row, and what it says."""
        self._next_id = 1
        self._next_id_at_flush = 1
        self._flushing = asyncio.Lock()
        self._many_ended = asyncio.Event()

    @property
    def under_way(self) -> int:
        """How many exchanges wait or run now."""
        return len(self._under_way)

    async def open(self) -> None:
        """Take up the numbering where the database left it."""
        self._next_id = self._next_id_at_flush = await self._store.newest_id() + 1

    def next_id(self) -> int:
        """Give the number of a new exchange."""
        self._next_id += 1
        return self._next_id - 1

    def keeps(self, path: str) -> bool:
        """Say whether the bodies of requests to this path are kept."""
        kept = self.rules.keep_bodies
        return (kept == "chat" and path in CHAT_PATHS) or kept == "all"

    def begin(self, entry: Entry) -> None:
        """Enter an exchange that waits or runs from now on."""
        self._under_way[entry.exchange.id] = entry

    def end(self, entry: Entry) -> None:
        """Have an exchange that has ended stored soon."""
        del self._under_way[entry.exchange.id]
        _shorten(entry.exchange)
        self._ended.append(entry)
        if len(self._ended) == FLUSH_COUNT:
            self._many_ended.set()

    async def run(self) -> None:
        """Store what is entered, and prune, until cancelled; then store the rest."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_flushing(), name="flush")
                tasks.create_task(self._keep_pruning(), name="prune")
        finally:
            await self.flush()

    async def flush(self) -> None:
        """Store what has ended so far, and what is under way since before the last flush.

        What cannot be stored now is tried again at the next one. A group whose storing is cancelled is stored
        once more, over itself.
        """
        async with self._flushing:
            self._tell()
            await self._store_under_way()
            while self._told:
                group = list(islice(self._told, GROUP))
                if not await self._stores(group):
                    self._trim()
                    return
                for entry in group:
                    self._told.popleft()
                    self._stored.pop(entry.exchange.id, None)

    async def prune(self) -> None:
        """Delete what is too old or too much, a little at a time."""
        days = self.rules.keep_days
        before = None if days is None else time.time() - days * 86_400
        while await self._store.prune_some(before=before, max_bytes=self.rules.max_mib * 1024 * 1024):
            pass

    async def find(self, wanted: ExchangeFilter) -> list[Exchange]:
        """Give the exchanges that are wanted, newest first; those under way with their times so far."""
        here = {entry.exchange.id: entry.exchange for entry in self._in_memory()}
        live = [_as_of(exchange, time.time()) for exchange in here.values() if admits(wanted, exchange)]
        more = wanted.model_copy(update={"limit": wanted.limit + len(here)})
        stored = [exchange for exchange in await self._store.list(more) if exchange.id not in here]
        return sorted([*live, *stored], key=attrgetter("id"), reverse=True)[: wanted.limit]

    async def get(self, exchange_id: int) -> Record:
        """Give one exchange with its bodies; raise `NotFound`."""
        for entry in self._in_memory():
            if entry.exchange.id == exchange_id:
                exchange = _as_of(entry.exchange, time.time())
                return Record(exchange, await _body(entry) if self._has_body(entry) else None)
        exchange = await self._store.get(exchange_id)
        return Record(exchange, await self._store.body(exchange_id))

    async def cancel(self, exchange_id: int) -> Exchange:
        """End an exchange that is under way, as if its client had left.

        Raise `NotFound`, or `Conflict` when it has ended.
        """
        entry = self._under_way.get(exchange_id)
        if entry is not None:
            entry.cancel()
            return _as_of(entry.exchange, time.time())
        record = await self.get(exchange_id)
        raise Conflict(
            f"Exchange {exchange_id} has ended: {record.exchange.outcome}.",
            hint="footplate exchanges --outcome running lists those that can be cancelled.",
        )

    async def follow(self, wanted: ExchangeFilter) -> AsyncIterator[Exchange]:
        """Yield the exchanges that are wanted, oldest first, then what begins, runs and ends, without end.

        Each comes once for each outcome. A slow follower misses the oldest of those that have ended.
        """
        ended: deque[Entry] = deque(maxlen=KEPT_WHILE_FAILING)
        self.listeners.append(ended.extend)
        try:
            shown: dict[int, Outcome] = {}
            for exchange in reversed(await self.find(wanted)):
                shown[exchange.id] = exchange.outcome
                yield exchange
            while True:
                await asyncio.sleep(FOLLOW_SECONDS)
                news = [*ended, *self._under_way.values()]
                ended.clear()
                for exchange in [entry.exchange for entry in news]:
                    if admits(wanted, exchange) and shown.get(exchange.id) != exchange.outcome:
                        shown[exchange.id] = exchange.outcome
                        yield _as_of(exchange, time.time())
                here = {entry.exchange.id for entry in chain(self._in_memory(), ended)}
                shown = {number: outcome for number, outcome in shown.items() if number in here}
        finally:
            self.listeners.remove(ended.extend)

    async def _keep_flushing(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_SECONDS):
                    await self._many_ended.wait()
            self._many_ended.clear()
            await self.flush()

    async def _keep_pruning(self) -> None:
        while True:
            try:
                await self.prune()
            except FootplateError as error:
                logger.warning("the ledger is not pruned", extra={"cause": error.message})
            await asyncio.sleep(PRUNE_SECONDS)

    def _tell(self) -> None:
        """Take over what has ended since the last flush, and tell the listeners."""
        group = list(self._ended)
        self._ended.clear()
        if len(group) == KEPT_WHILE_FAILING:
            logger.error("exchanges may be lost: more have ended than are kept until they are stored")
        self._told.extend(group)
        if group:
            for listener in self.listeners:
                listener(group)

    async def _store_under_way(self) -> None:
        """Store what was under way at the last flush too, unless its row says so already."""
        lasting = [
            entry
            for number, entry in self._under_way.items()
            if number < self._next_id_at_flush and self._stored.get(number) != entry.exchange.outcome
        ]
        self._next_id_at_flush = self._next_id
        outcomes = {entry.exchange.id: entry.exchange.outcome for entry in lasting}
        if await self._stores(lasting):
            self._stored |= outcomes

    async def _stores(self, group: Sequence[Entry]) -> bool:
        """Store a group; say whether that could be done."""
        exchanges, bodies = await self._prepared(group)
        try:
            await self._store.add_many(exchanges, bodies)
        except (Busy, Unavailable) as error:
            logger.warning(
                "exchanges are not stored yet", extra={"count": len(group), "cause": error.message}
            )
            return False
        except FootplateError:
            return await self._stores_singly(exchanges, bodies)
        return True

    async def _stores_singly(self, exchanges: Sequence[Exchange], bodies: Sequence[Body]) -> bool:
        """Store a group in which something cannot be stored as it is: that must not hold up the others."""
        body_of = {body.exchange_id: body for body in bodies}
        for exchange in exchanges:
            body = body_of.get(exchange.id)
            try:
                await self._store.add_many([storable(exchange)], [body] if body else [])
            except (Busy, Unavailable):
                return False
            except FootplateError as error:
                logger.error(  # noqa: TRY400 - its row says more than a trace
                    "an exchange cannot be stored",
                    extra={"exchange": repr(exchange), "cause": error.message},
                )
        return True

    async def _prepared(self, group: Sequence[Entry]) -> tuple[list[Exchange], list[Body]]:
        """Give rows and bodies of a group, letting others run in between."""
        exchanges, bodies = [], []
        for place, entry in enumerate(group, 1):
            _measure(entry)
            # A row must not change under the store; those under way do.
            is_under_way = entry.exchange.id in self._under_way
            exchanges.append(replace(entry.exchange) if is_under_way else entry.exchange)
            if self._has_body(entry):
                bodies.append(await _body(entry, answer=not is_under_way))
            if place % SLICE == 0:
                await asyncio.sleep(0)
        return exchanges, bodies

    def _has_body(self, entry: Entry) -> bool:
        return bool(entry.request) and self.keeps(entry.exchange.path)

    def _in_memory(self) -> Iterator[Entry]:
        return chain(self._told, self._ended, self._under_way.values())

    def _trim(self) -> None:
        """Drop the oldest of what waits to be stored, where it is too much."""
        lost = max(0, len(self._told) - KEPT_WHILE_FAILING)
        for _ in range(lost):
            self._told.popleft()
        size = bodies_lost = 0
        for entry in reversed(self._told):
            size += len(entry.request) + entry.answer.memory_bytes
            if entry.request and size > KEPT_BODY_BYTES:
                entry.request, entry.answer = b"", Packing()
                bodies_lost += 1
        if lost or bodies_lost:
            logger.error("exchanges are lost", extra={"count": lost, "bodies": bodies_lost})


def _shorten(exchange: Exchange) -> None:
    """Keep of what others made up no more than a row should hold."""
    if len(exchange.path) > LONGEST_TEXT:
        exchange.path = exchange.path[:LONGEST_TEXT]
    if exchange.model_asked is not None and len(exchange.model_asked) > LONGEST_TEXT:
        exchange.model_asked = exchange.model_asked[:LONGEST_TEXT]
    if exchange.error is not None and len(exchange.error) > LONGEST_TEXT:
        exchange.error = exchange.error[:LONGEST_TEXT]


async def _body(entry: Entry, *, answer: bool = True) -> Body:
    """Pack what was sent, with or without the answer: a large request in a thread."""
    answered = entry.answer if answer else Packing()
    if len(entry.request) <= COMPRESSED_HERE:
        return Body.of(entry.exchange.id, entry.request, answered)
    return await asyncio.to_thread(Body.of, entry.exchange.id, entry.request, answered)


def _measure(entry: Entry) -> None:
    """Enter the percentiles of the gaps, by nearest rank: each is a gap that there was."""
    if not entry.gaps:
        return
    gaps = sorted(entry.gaps)
    entry.exchange.itl_p50_ms = _percentile(gaps, 50) * 1000
    entry.exchange.itl_p99_ms = _percentile(gaps, 99) * 1000


def _percentile(ordered: Sequence[float], percent: int) -> float:
    return ordered[-(-len(ordered) * percent // 100) - 1]


def _as_of(exchange: Exchange, now: float) -> Exchange:
    """Give an exchange with its times so far, if it is under way."""
    if exchange.outcome not in {"waiting", "running"}:
        return exchange
    so_far = max(0.0, now - exchange.started_at) * 1000
    queued = so_far if exchange.outcome == "waiting" else exchange.queue_ms
    return replace(exchange, total_ms=so_far, queue_ms=queued)
