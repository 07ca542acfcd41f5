"""The gateway's ledger: one row for each request that passed, whatever became of it, and its bodies."""

import math
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

from footplate_daemon.errors import NotFound
from footplate_daemon.store.database import Database
from footplate_daemon.store.packing import Packing, packed, unpacked
from footplate_daemon.wire import ExchangeFilter, ExchangeOutcome

Outcome = ExchangeOutcome

ROW_BYTES = 350
"""What a row takes in the file with its indexes, about."""
PRUNED_ROWS = 500
PRUNED_BYTES = 8 * 1024 * 1024
"""What one transaction deletes at most, so that nobody waits long for it."""
CUT = "The daemon ended before the answer did."
CUT_HINT = "Ask again; footplate logs has what the daemon said last."


@dataclass(slots=True)
class Exchange:
    """One request with what is known of its answer so far."""

    id: int
    """Given out by the ledger, counting on from `newest_id`; request ids may come from clients and repeat."""
    request_id: str
    started_at: float
    """Seconds since the epoch."""
    outcome: Outcome
    path: str
    """What was asked: `/v1/chat/completions`."""
    streamed: bool = False
    session_id: str | None = None
    """The `x-session-id` that the client sent, or the session of a turn."""
    client: str | None = None
    """The name of its key, the user at the other end of the socket, or `terminal`."""
    model_asked: str | None = None
    variant: str | None = None
    """The variant that answered, or would have."""
    runtime: str | None = None
    preset: str | None = None
    profile: str | None = None
    """The names of the profiles that made up the variant's, joined by `+`."""
    queue_ms: float | None = None
    switch_ms: float | None = None
    ttft_ms: float | None = None
    total_ms: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    tokens_per_second: float | None = None
    itl_p50_ms: float | None = None
    """Inter-token latency: the time between two chunks of a stream that held something."""
    itl_p99_ms: float | None = None
    finish_reason: str | None = None
    http_status: int | None = None
    error: str | None = None
    hint: str | None = None
    """What to do about it; also where nothing failed, but the answer is empty."""


class Body(NamedTuple):
    """What was asked and what was answered in one exchange, compressed."""

    exchange_id: int
    request: bytes | None
    """None where it is longer than `packing.LIMIT`."""
    answer: bytes | None
    request_bytes: int
    """As it was sent."""
    answer_bytes: int

    @classmethod
    def of(cls, exchange_id: int, request: bytes, answer: Packing) -> "Body":
        """Pack what was sent."""
        return cls(exchange_id, packed(request), answer.packed(), len(request), answer.byte_count)

    def read(self) -> tuple[bytes | None, bytes | None]:
        """Give request and answer as they were sent; None for what was too long."""
        return unpacked(self.request), unpacked(self.answer)


class ExchangeStore:
    """Reads and writes the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def last_speeds(self) -> dict[str, float]:
        """Give each variant's tokens/s of its newest answer that has any, among the newest thousands."""

        def select(connection: sqlite3.Connection) -> dict[str, float]:
            rows = connection.execute(
                "SELECT variant, tokens_per_second, max(id) FROM "
                "(SELECT id, variant, tokens_per_second FROM exchanges ORDER BY id DESC LIMIT 5000) "
                "WHERE tokens_per_second IS NOT NULL GROUP BY variant"
            )
            return {variant: speed for variant, speed, _ in rows}

        return await self._database.read(select)

    async def newest_id(self) -> int:
        """Give the highest id that was ever stored, 0 if there was none."""

        def select(connection: sqlite3.Connection) -> int:
            newest: int = connection.execute(
                "SELECT max(newest_id, (SELECT coalesce(max(id), 0) FROM exchanges)) FROM ledger"
            ).fetchone()[0]
            return newest

        return await self._database.read(select)

    async def add_many(self, exchanges: Sequence[Exchange], bodies: Sequence[Body] = ()) -> None:
        """Store all of them or none; one that was stored while it ran is replaced."""
        if not exchanges:
            return

        def upsert(connection: sqlite3.Connection) -> None:
            _upsert(connection, "exchanges", _NAMES, [_row(exchange) for exchange in exchanges])
            _upsert(connection, "bodies", Body._fields, bodies)

        await self._database.write(upsert)

    async def list(self, wanted: ExchangeFilter | None = None) -> list[Exchange]:
        """Give the last exchanges for which all that is wanted holds, newest first."""
        wanted = wanted or ExchangeFilter()
        where, values = _conditions(wanted)

        def select(connection: sqlite3.Connection) -> list[Exchange]:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM exchanges {where} ORDER BY id DESC LIMIT ?",  # noqa: S608 - our names
                (*values, wanted.limit),
            )
            return [_exchange(row) for row in rows]

        return await self._database.read(select)

    async def get(self, exchange_id: int) -> Exchange:
        """Give one exchange; raise `NotFound`."""

        def select(connection: sqlite3.Connection) -> Exchange:
            row = connection.execute(
                f"SELECT {_COLUMNS} FROM exchanges WHERE id = ?",  # noqa: S608 - our names
                (exchange_id,),
            ).fetchone()
            if row is None:
                raise NotFound(
                    f"There is no exchange {exchange_id}.", hint="footplate exchanges lists those there are."
                )
            return _exchange(row)

        return await self._database.read(select)

    async def body(self, exchange_id: int) -> Body | None:
        """Give what was asked and answered; None where it was not kept, or is no longer."""

        def select(connection: sqlite3.Connection) -> Body | None:
            row = connection.execute(
                f"SELECT {', '.join(Body._fields)} FROM bodies WHERE exchange_id = ?",  # noqa: S608 - our names
                (exchange_id,),
            ).fetchone()
            return Body(*row) if row is not None else None

        return await self._database.read(select)

    async def cut_unfinished(self) -> int:
        """Mark as cut every exchange that a former daemon left under way; say how many."""

        def update(connection: sqlite3.Connection) -> int:
            return connection.execute(
                "UPDATE exchanges SET outcome = 'cut', error = ?, hint = ?, total_ms = NULL"
                " WHERE outcome IN ('waiting', 'running')",
                (CUT, CUT_HINT),
            ).rowcount

        return await self._database.write(update)

    async def prune_some(self, *, before: float | None, max_bytes: int) -> bool:
        """Delete a little of what is too old, or else of what is too much; say whether there may be more.

        What is too old is what began before `before`. Of what is too much the oldest bodies go first, and
        when there are none left, the oldest rows.
        """

        def delete(connection: sqlite3.Connection) -> bool:
            if before is not None and _delete_rows(connection, PRUNED_ROWS, before):
                return True
            excess = _bytes(connection) - max_bytes
            if excess <= 0:
                return False
            rows = math.ceil(excess / ROW_BYTES)
            return _delete_bodies(connection, excess) or _delete_rows(connection, min(rows, PRUNED_ROWS))

        return await self._database.write(delete)

    async def size(self) -> int:
        """Give how many bytes rows and bodies take, about."""
        return await self._database.read(_bytes)


_NAMES = tuple(field.name for field in fields(Exchange))
_COLUMNS = ", ".join(_NAMES)
_row = attrgetter(*_NAMES)
_STREAMED = _NAMES.index("streamed")

ROWS_AT_ONCE = 128
"""A power of two."""


def _upsert(
    connection: sqlite3.Connection,
    table: str,
    columns: tuple[str, ...],
    rows: Sequence[tuple[Any, ...]],
) -> None:
    """Insert rows or replace them, many with each statement.

    Each statement lets go of Python's lock and must wait for it again, beside a busy event loop for
    milliseconds: with one for each row a group would take seconds.
    """
    values = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
    most = min(ROWS_AT_ONCE, values // len(columns))
    done = 0
    while done < len(rows):
        # Powers of two: few different statements, each of which SQLite prepares once.
        count = 1 << (min(most, len(rows) - done).bit_length() - 1)
        statement = _upsert_statement(table, columns, count)
        connection.execute(statement, list(chain.from_iterable(rows[done : done + count])))
        done += count


@cache
def _upsert_statement(table: str, columns: tuple[str, ...], row_count: int) -> str:
    values = ", ".join([f"({', '.join('?' for _ in columns)})"] * row_count)
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns[1:])
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES {values}"  # noqa: S608 - our names
        f" ON CONFLICT ({columns[0]}) DO UPDATE SET {changes}"
    )


def _exchange(row: Sequence[Any]) -> Exchange:
    values = list(row)
    values[_STREAMED] = bool(values[_STREAMED])
    return Exchange(*values)


def _conditions(wanted: ExchangeFilter) -> tuple[str, list[Any]]:
    """Give the WHERE clause for a filter, and its values."""
    conditions: dict[str, tuple[Any, ...]] = {
        "id < ?": (wanted.before,),
        "started_at >= ?": (wanted.since,),
        "outcome = ?": (wanted.outcome,),
        "runtime = ?": (wanted.runtime,),
        "variant = ?": (wanted.variant,),
        "(model_asked = ? OR substr(variant, length(runtime) + 2) = ?)": (wanted.model, wanted.model),
        "client = ?": (wanted.client,),
        "session_id = ?": (wanted.session,),
        "request_id = ?": (wanted.request_id,),
        "path = ?": (wanted.path,),
    }
    given = {condition: values for condition, values in conditions.items() if values[0] is not None}
    where = f"WHERE {' AND '.join(given)}" if given else ""
    return where, list(chain.from_iterable(given.values()))


def storable(exchange: Exchange) -> Exchange:
    """Give an exchange without what SQLite cannot hold: half characters, numbers beyond 64 bits, objects."""
    return replace(exchange, **{name: _storable(getattr(exchange, name)) for name in _NAMES})


def _storable(value: Any) -> Any:
    match value:
        case str():
            return value.encode(errors="replace").decode()
        case int():
            return value if -(2**63) <= value < 2**63 else None
        case float() | None:
            return value
        case _:
            return str(value)


def admits(wanted: ExchangeFilter, exchange: Exchange) -> bool:
    """Say whether an exchange in memory is one that the filter would find in the database."""
    model = exchange.variant.partition("/")[2] if exchange.variant else None
    return (
        (wanted.before is None or exchange.id < wanted.before)
        and (wanted.since is None or exchange.started_at >= wanted.since)
        and wanted.outcome in {None, exchange.outcome}
        and wanted.runtime in {None, exchange.runtime}
        and wanted.variant in {None, exchange.variant}
        and wanted.model in {None, exchange.model_asked, model}
        and wanted.client in {None, exchange.client}
        and wanted.session in {None, exchange.session_id}
        and wanted.request_id in {None, exchange.request_id}
        and wanted.path in {None, exchange.path}
    )


def _bytes(connection: sqlite3.Connection) -> int:
    rows: int
    body_bytes: int
    rows, body_bytes = connection.execute(
        "SELECT (SELECT count(*) FROM exchanges), body_bytes FROM ledger"
    ).fetchone()
    return rows * ROW_BYTES + body_bytes


def _delete_rows(connection: sqlite3.Connection, count: int, before: float = math.inf) -> bool:
    """Delete the oldest rows with their bodies; say whether there were any."""
    oldest = connection.execute(
        f"SELECT id, {_BODY_SIZE} FROM exchanges LEFT JOIN bodies ON exchange_id = id"  # noqa: S608 - our names
        " WHERE started_at < ? ORDER BY started_at LIMIT ?",
        (before, count),
    )
    ids = _first_of(oldest, PRUNED_BYTES)
    if not ids:
        return False
    # The numbering goes on from what was there, even if nothing is left.
    connection.execute("UPDATE ledger SET newest_id = max(newest_id, ?)", (max(ids),))
    connection.executemany("DELETE FROM exchanges WHERE id = ?", [(number,) for number in ids])
    return True


def _delete_bodies(connection: sqlite3.Connection, excess: int) -> bool:
    """Delete the oldest bodies, as many as are too much; say whether there were any."""
    oldest = connection.execute(
        f"SELECT exchange_id, {_BODY_SIZE} FROM bodies ORDER BY exchange_id LIMIT ?",  # noqa: S608 - our names
        (PRUNED_ROWS,),
    )
    ids = _first_of(oldest, min(excess, PRUNED_BYTES))
    connection.executemany("DELETE FROM bodies WHERE exchange_id = ?", [(number,) for number in ids])
    return bool(ids)


_BODY_SIZE = "coalesce(length(request), 0) + coalesce(length(answer), 0)"


def _first_of(found: Iterable[Sequence[int]], enough: int) -> list[int]:
    """Give the first ids whose bodies together are enough."""
    ids: list[int] = []
    size = 0
    for exchange_id, body_size in found:
        ids.append(exchange_id)
        size += body_size
        if size >= enough:
            break
    return ids
