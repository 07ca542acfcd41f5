"""The gateway's ledger: one row for each request that passed, whatever became of it."""

import sqlite3
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Literal

from footplate_daemon.store.database import Database

Outcome = Literal["running", "done", "failed", "cancelled", "cut"]
"""`cancelled`: by the client; `cut`: by the end of the daemon; `running`: not ended yet."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request with what is known of its answer."""

    id: int
    """Given out by the ledger, counting on from `newest_id`; request ids may come from clients and repeat."""
    request_id: str
    started_at: float
    outcome: Outcome
    client: str | None = None
    """The name of its key, or the user at the other end of the socket."""
    model_asked: str | None = None
    variant: str | None = None
    """The variant that answered, or would have."""
    runtime: str | None = None
    queue_ms: float | None = None
    switch_ms: float | None = None
    ttft_ms: float | None = None
    total_ms: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    tokens_per_second: float | None = None
    finish_reason: str | None = None
    http_status: int | None = None
    error: str | None = None


class ExchangeStore:
    """Reads and writes the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest_id(self) -> int:
        """Give the highest id in use, 0 if there is none."""

        def select(connection: sqlite3.Connection) -> int:
            newest: int = connection.execute("SELECT coalesce(max(id), 0) FROM exchanges").fetchone()[0]
            return newest

        return await self._database.read(select)

    async def add_many(self, exchanges: Sequence[Exchange]) -> None:
        """Store all of them or none; one that was stored while it ran is replaced."""
        if not exchanges:
            return
        rows = [astuple(exchange) for exchange in exchanges]

        def replace(connection: sqlite3.Connection) -> None:
            connection.executemany(_REPLACE, rows)

        await self._database.write(replace)

    async def list(self, limit: int = 100) -> list[Exchange]:
        """Give the last exchanges, newest first."""

        def select(connection: sqlite3.Connection) -> list[Exchange]:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM exchanges ORDER BY id DESC LIMIT ?",  # noqa: S608 - our names
                (limit,),
            )
            return [Exchange(*row) for row in rows]

        return await self._database.read(select)

    async def cut_unfinished(self) -> int:
        """Mark as cut every exchange that a former daemon left running; say how many."""

        def update(connection: sqlite3.Connection) -> int:
            return connection.execute(
                "UPDATE exchanges SET outcome = 'cut' WHERE outcome = 'running'"
            ).rowcount

        return await self._database.write(update)


_NAMES = [field.name for field in fields(Exchange)]
_COLUMNS = ", ".join(_NAMES)
_REPLACE = f"INSERT OR REPLACE INTO exchanges ({_COLUMNS}) VALUES ({', '.join('?' for _ in _NAMES)})"  # noqa: S608
