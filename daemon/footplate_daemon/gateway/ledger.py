"""The ledger's writer: exchanges are noted on the hot path and stored in groups off it.

At most `FLUSH_SECONDS` of ended exchanges are lost to `kill -9`, and those that run then.
"""

import asyncio
import logging
from collections import deque

from footplate_daemon.errors import FootplateError
from footplate_daemon.store.exchanges import Exchange, ExchangeStore

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 0.5
KEPT_WHILE_FAILING = 10_000
"""Exchanges that wait while the disk is full; older ones are dropped first."""


class Ledger:
    """Notes exchanges; `run` stores them."""

    def __init__(self, store: ExchangeStore) -> None:
        self._store = store
        self._noted: deque[Exchange] = deque(maxlen=KEPT_WHILE_FAILING)
        self._next_id = 1

    async def open(self) -> None:
        """Take up the numbering where the database left it."""
        self._next_id = await self._store.newest_id() + 1

    def next_id(self) -> int:
        """Give the number of a new exchange."""
        self._next_id += 1
        return self._next_id - 1

    def note(self, exchange: Exchange) -> None:
        """Have an ended exchange stored soon."""
        self._noted.append(exchange)

    async def run(self) -> None:
        """Store what was noted, until cancelled; then store the rest."""
        try:
            while True:
                await asyncio.sleep(FLUSH_SECONDS)
                await self.flush()
        finally:
            await self.flush()

    async def flush(self) -> None:
        """Store what was noted so far; what cannot be stored now is tried again later."""
        group = list(self._noted)
        if not group:
            return
        self._noted.clear()
        try:
            await self._store.add_many(group)
        except FootplateError as error:
            logger.warning(
                "exchanges are not stored yet", extra={"count": len(group), "cause": error.message}
            )
            self._noted.extendleft(reversed(group))
