"""Puts finished lines on the disk, many at a time: first into the batch's files, then into its rows.

A line is in the file before its row says so, never after. What a crash leaves between the two is mended when
the next daemon takes the batch up. When the disk is full it waits, and tries again; nothing is dropped.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from footplate_daemon.batches.asking import Done
from footplate_daemon.batches.live import LiveBatch
from footplate_daemon.batches.output import DiskFull, Fault, Place, free_bytes, no_fault
from footplate_daemon.errors import Busy, Unavailable
from footplate_daemon.store.batches import BatchStore, LineState, Recorded, Trouble

logger = logging.getLogger(__name__)

T = TypeVar("T")

GROUP = 1000
"""Lines that are put on the disk at a time at most, and as many may wait for it."""
GATHER_SECONDS = 0.02
"""So long others may join a group: a sync costs the same for one line and for hundreds."""
RETRY_SECONDS = 3.0
"""After so long the disk is tried again."""


@dataclass(frozen=True, slots=True)
class _Entry:
    live: LiveBatch
    number: int
    done: Done


class Recorder:
    """Takes finished lines from all batches; `run` must be running."""

    def __init__(
        self,
        store: BatchStore,
        folder: Path,
        min_free_bytes: Callable[[], int],
        *,
        fault: Fault = no_fault,
        retry_seconds: float = RETRY_SECONDS,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.problem: str | None = None
        """Why nothing can be written just now; nothing should be asked either."""
        self.recovered = asyncio.Event()
        """Set while there is no problem."""
        self.recovered.set()
        self._store = store
        self._folder = folder
        self._min_free_bytes = min_free_bytes
        self._fault = fault
        self._retry_seconds = retry_seconds
        self._changed = changed
        self._entries: deque[_Entry] = deque()
        self._troubles: dict[LiveBatch, list[Trouble]] = {}
        self._came = asyncio.Event()
        self._ending = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._room = asyncio.Event()
        self._room.set()

    async def put(self, live: LiveBatch, number: int, done: Done) -> None:
        """Have a line recorded; wait while too many others are."""
        while len(self._entries) >= GROUP:
            self._room.clear()
            await self._room.wait()
        self._entries.append(_Entry(live, number, done))
        self._idle.clear()
        self._came.set()

    def note(self, live: LiveBatch, trouble: Trouble) -> None:
        """Have it counted that a line had trouble and is asked again."""
        self._troubles.setdefault(live, []).append(trouble)
        self._idle.clear()
        self._came.set()

    async def flush(self) -> None:
        """Return when all that was put so far is recorded."""
        await self._idle.wait()

    async def run(self) -> None:
        """Record until cancelled; what is there then is still recorded, unless the disk is full."""
        # A group that is half recorded must not be cancelled: it would be written once more.
        work = asyncio.ensure_future(self._work())
        try:
            await asyncio.shield(work)
        finally:
            self._ending.set()
            self._came.set()
            await work

    async def _work(self) -> None:
        try:
            while not self._ending.is_set():
                await self._came.wait()
                if len(self._entries) < GROUP and not self._ending.is_set():
                    await asyncio.sleep(GATHER_SECONDS)
                self._came.clear()
                await self._record_all()
        except _GivenUp:
            logger.warning("answers are not recorded and will be asked again", extra={"why": self.problem})

    async def _record_all(self) -> None:
        while self._entries or self._troubles:
            troubles, self._troubles = self._troubles, {}
            group = [self._entries[place] for place in range(min(GROUP, len(self._entries)))]
            by_batch: dict[LiveBatch, list[_Entry]] = {}
            for entry in group:
                by_batch.setdefault(entry.live, []).append(entry)
            for live, entries in by_batch.items():
                await self._record(live, entries)
            for live, some in troubles.items():
                await self._insist(partial(self._store.note_troubles, live.key, some))
            for _ in group:
                self._entries.popleft()
            self._room.set()
        self._idle.set()

    async def _record(self, live: LiveBatch, entries: Sequence[_Entry]) -> None:
        done: list[Recorded] = []
        for state in (LineState.COMPLETED, LineState.FAILED):
            some = [entry for entry in entries if entry.done.state is state]
            if not some:
                continue
            texts = [entry.done.text for entry in some]
            places = await self._insist(partial(self._append, live, state, texts))
            done += [
                Recorded(
                    entry.number,
                    state,
                    place.offset,
                    place.length,
                    entry.done.seconds,
                    entry.done.tokens,
                    entry.done.failure,
                )
                for entry, place in zip(some, places, strict=True)
            ]
        output, error = live.lengths()
        self._fault("before rows")
        row = await self._insist(
            partial(self._store.record, live.key, done, output_bytes=output, error_bytes=error)
        )
        self._fault("after rows")
        live.take_row(row)
        self._changed()

    async def _append(self, live: LiveBatch, state: LineState, texts: Sequence[bytes]) -> list[Place]:
        if free_bytes(self._folder) < self._min_free_bytes() + sum(map(len, texts)):
            raise DiskFull(
                f"There is hardly any room left in {self._folder}.",
                hint="Free disk space, or lower min_free_mib in [batches]: the batch goes on by itself.",
            )
        return await asyncio.to_thread(lambda: live.output(state).append(texts))

    async def _insist(self, step: Callable[[], Coroutine[None, None, T]]) -> T:
        """Do what writes; while the disk has no room for it, wait and try again."""
        while True:
            try:
                result = await step()
            except (Busy, Unavailable) as error:
                if self.problem is None:
                    logger.warning("batches pause", extra={"cause": error.message})
                self.problem = f"{error.message} {error.hint or ''}".strip()
                self.recovered.clear()
                self._changed()
                await self._pause()
            else:
                if self.problem is not None:
                    logger.info("batches go on")
                    self.problem = None
                    self.recovered.set()
                    self._changed()
                return result

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._retry_seconds):
                await self._ending.wait()
        if self._ending.is_set():
            raise _GivenUp


class _GivenUp(Exception):
    """The daemon ends, and there is still no room on the disk."""
