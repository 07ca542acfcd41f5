"""Batches and their lines: one small row for each line, so that what is done is never done again.

A line is pending until its answer is in an output file that is on the disk; the row says where. Between
the file and the row lies a moment: after a crash the end of the file is compared with the rows.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum

from footplate_daemon.errors import NotFound
from footplate_daemon.store.database import Database
from footplate_daemon.store.files import SEEN, UNFINISHED, Owner, StoredFile, insert_file, seen_by


class LineState(IntEnum):
    """What became of a line, and so in which file its answer is."""

    PENDING = 0
    COMPLETED = 1
    """Its answer is in the output file."""
    FAILED = 2
    """Its error is in the error file."""


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A batch's row."""

    id: str
    owner: Owner
    endpoint: str
    input_file_id: str
    created_at: int
    expires_at: int
    output_file_id: str
    error_file_id: str
    key: int = 0
    """Its number, by which lines know it; given when it is stored."""
    completion_window: str = "24h"
    status: str = "validating"
    allowed_models: tuple[str, ...] = ()
    """Those that the owner's key is for; empty: every one."""
    input_filename: str | None = None
    input_bytes: int | None = None
    metadata: dict[str, str] | None = None
    output_expires_seconds: int | None = None
    models: tuple[str, ...] = ()
    """Those that its lines name, in the order of their first lines."""
    errors: tuple[dict[str, object], ...] | None = None
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    output_bytes: int = 0
    """So much of the output file is told of in the rows of lines."""
    error_bytes: int = 0
    total: int = 0
    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    retries: int = 0
    running_seconds: float = 0.0
    joules: float | None = None


@dataclass(frozen=True, slots=True)
class NewLine:
    """A line that was found good."""

    number: int
    """Counted from 1, as an editor does."""
    offset: int
    length: int
    custom_id: str
    model: int
    """Which of the batch's models."""
    prefix: int
    """Equal for lines that begin alike: an engine keeps what it computed for one."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line with all that its row tells."""

    number: int
    offset: int
    length: int
    custom_id: str
    model: int
    prefix: int
    state: int = LineState.PENDING
    attempts: int = 0
    """How often an engine had an error of its own for it."""
    deaths: int = 0
    """How often an engine died while it had it."""
    seconds: float | None = None
    answer_offset: int | None = None
    answer_length: int | None = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """What an answer cost."""

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0


NO_TOKENS = Tokens()


@dataclass(frozen=True, slots=True)
class Failure:
    """How a line failed."""

    code: str
    status_code: int
    """0 where there was no answer at all."""
    message: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """A line that is done: its answer lies in an output file."""

    number: int
    state: LineState
    offset: int
    length: int
    seconds: float | None = None
    tokens: Tokens = NO_TOKENS
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Trouble:
    """A line that is still pending, but had trouble."""

    number: int
    attempts: int = 0
    deaths: int = 0


class BatchStore:
    """Reads and writes batches and lines."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # Batches

    async def create(self, batch: StoredBatch) -> StoredBatch:
        """Store a new batch; give it with its key."""

        def insert(connection: sqlite3.Connection) -> StoredBatch:
            columns = ", ".join(_INSERTED)
            marks = ", ".join("?" * len(_INSERTED))
            row = [_to_column(batch, name) for name in _INSERTED]
            connection.execute(f"INSERT INTO batches ({columns}) VALUES ({marks})", row)  # noqa: S608 - our names
            return _one(connection, "id = ?", batch.id)

        return await self._database.write(insert)

    async def get(self, batch_id: str, owner: Owner) -> StoredBatch:
        """Give one batch; raise `NotFound` also when it is somebody else's."""
        return await self._database.read(
            lambda connection: _one(connection, f"id = ? AND {SEEN}", batch_id, *seen_by(owner))
        )

    async def page(self, owner: Owner, limit: int, after: str | None = None) -> list[StoredBatch]:
        """Give batches, the newest first; raise `NotFound` for an `after` that is none."""

        def select(connection: sqlite3.Connection) -> list[StoredBatch]:
            where, values = SEEN, [*seen_by(owner)]
            if after is not None:
                where, values = f"{where} AND key < ?", [*values, _one(connection, "id = ?", after).key]
            return _select(connection, f"{where} ORDER BY key DESC LIMIT {int(limit)}", *values)

        return await self._database.read(select)

    async def unfinished(self) -> list[StoredBatch]:
        """Give the batches that are under way, the oldest first."""
        return await self._database.read(
            lambda connection: _select(connection, f"status IN {UNFINISHED} ORDER BY key")
        )

    async def change(self, key: int, **columns: object) -> StoredBatch:
        """Set columns of a batch; give it as it is now."""

        def update(connection: sqlite3.Connection) -> StoredBatch:
            _update(connection, key, columns)
            return _one(connection, "key = ?", key)

        return await self._database.write(update)

    async def add_time(self, key: int, seconds: float, joules: float | None) -> None:
        """Add to the time in which lines were under way, and to what the GPUs used meanwhile."""

        def update(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE batches SET running_seconds = running_seconds + ?,"
                " joules = CASE WHEN ? IS NULL THEN joules ELSE COALESCE(joules, 0) + ? END WHERE key = ?",
                (seconds, joules, joules, key),
            )

        await self._database.write(update)

    async def finish(self, key: int, files: Iterable[StoredFile], **columns: object) -> StoredBatch:
        """Make a batch's files known and set its last columns, all at once."""

        def update(connection: sqlite3.Connection) -> StoredBatch:
            for file in files:
                insert_file(connection, file)
            _update(connection, key, columns)
            return _one(connection, "key = ?", key)

        return await self._database.write(update)

    async def forget_lines(self, before: float) -> bool:
        """Delete some lines of batches that ended before then; say whether there may be more."""
        ended = f"created_at < ? AND status NOT IN {UNFINISHED}"
        some = f"SELECT number FROM lines WHERE batch = ? LIMIT {FORGOTTEN_AT_A_TIME}"  # noqa: S608 - our words

        def delete(connection: sqlite3.Connection) -> bool:
            has_lines = "EXISTS (SELECT 1 FROM lines WHERE batch = key)"
            rows = _select(connection, f"{ended} AND {has_lines} LIMIT 1", before)
            for row in rows:
                connection.execute(
                    f"DELETE FROM lines WHERE batch = ? AND number IN ({some})",  # noqa: S608 - our words
                    (row.key, row.key),
                )
            return bool(rows)

        return await self._database.write(delete)

    # Lines

    async def clear_lines(self, key: int) -> None:
        """Forget the lines of a batch whose validation begins anew."""
        await self._database.write(
            lambda connection: connection.execute("DELETE FROM lines WHERE batch = ?", (key,))
        )

    async def add_lines(self, key: int, lines: Sequence[NewLine]) -> None:
        """Store lines that were found good."""
        rows = [
            (key, line.number, line.offset, line.length, line.custom_id, line.model, line.prefix)
            for line in lines
        ]

        def insert(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT INTO lines (batch, number, offset, length, custom_id, model, prefix)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )

        await self._database.write(insert)

    async def pending(
        self, key: int, *, model: int | None, after: tuple[int, int] | None, limit: int
    ) -> list[Line]:
        """Give lines that are not done, those that begin alike together; after a `(prefix, number)`."""

        def select(connection: sqlite3.Connection) -> list[Line]:
            where, values = "batch = ? AND state = 0", [key]
            if model is not None:
                where, values = f"{where} AND model = ?", [*values, model]
            if after is not None:
                where, values = f"{where} AND (prefix, number) > (?, ?)", [*values, *after]
            return _lines(connection, f"{where} ORDER BY prefix, number LIMIT {int(limit)}", *values)

        return await self._database.read(select)

    async def pending_models(self, key: int) -> frozenset[int]:
        """Give the models of which a batch has lines that are not done."""

        def select(connection: sqlite3.Connection) -> frozenset[int]:
            rows = connection.execute(
                "SELECT DISTINCT model FROM lines WHERE batch = ? AND state = 0", (key,)
            )
            return frozenset(row[0] for row in rows)

        return await self._database.read(select)

    async def lines(self, key: int, *, first: int, limit: int) -> list[Line]:
        """Give lines in the order of the file, from a number on."""
        return await self._database.read(
            lambda connection: _lines(
                connection, f"batch = ? AND number >= ? ORDER BY number LIMIT {int(limit)}", key, first
            )
        )

    async def failed_lines(self, key: int, *, after: int, limit: int) -> list[Line]:
        """Give lines that failed, in the order of the file, after a number."""
        return await self._database.read(
            lambda connection: _lines(
                connection,
                f"batch = ? AND state = {int(LineState.FAILED)} AND number > ?"
                f" ORDER BY number LIMIT {int(limit)}",
                key,
                after,
            )
        )

    async def lines_named(self, key: int, custom_ids: Sequence[str]) -> dict[str, Line]:
        """Give the lines with these ids, as far as there are such."""

        def select(connection: sqlite3.Connection) -> dict[str, Line]:
            found: dict[str, Line] = {}
            for start in range(0, len(custom_ids), IDS_AT_A_TIME):
                some = custom_ids[start : start + IDS_AT_A_TIME]
                marks = ", ".join("?" * len(some))
                for line in _lines(connection, f"batch = ? AND custom_id IN ({marks})", key, *some):
                    found[line.custom_id] = line
            return found

        return await self._database.read(select)

    async def counts(self, key: int) -> list[tuple[int, int, int]]:
        """Count a batch's lines: `(model, state, count)`."""

        def select(connection: sqlite3.Connection) -> list[tuple[int, int, int]]:
            rows = connection.execute(
                "SELECT model, state, COUNT(*) FROM lines WHERE batch = ? GROUP BY model, state", (key,)
            )
            return [(row[0], row[1], row[2]) for row in rows]

        return await self._database.read(select)

    async def errors(self, key: int) -> list[tuple[Failure, int]]:
        """Give the most frequent kinds of errors, each with its first message."""

        def select(connection: sqlite3.Connection) -> list[tuple[Failure, int]]:
            rows = connection.execute(
                "SELECT code, status_code, example, count FROM line_errors WHERE batch = ?"
                " ORDER BY count DESC, code, status_code LIMIT ?",
                (key, KINDS_SHOWN),
            )
            return [(Failure(row[0], row[1], row[2]), row[3]) for row in rows]

        return await self._database.read(select)

    async def record(
        self, key: int, done: Sequence[Recorded], *, output_bytes: int, error_bytes: int
    ) -> StoredBatch:
        """Enter lines whose answers are on the disk, and how long the files are with them."""

        def update(connection: sqlite3.Connection) -> StoredBatch:
            _record(connection, key, done)
            _update(connection, key, {"output_bytes": output_bytes, "error_bytes": error_bytes})
            return _one(connection, "key = ?", key)

        return await self._database.write(update)

    async def note_troubles(self, key: int, troubles: Sequence[Trouble]) -> None:
        """Count what happened to lines that are asked again."""
        rows = [(each.attempts, each.deaths, key, each.number) for each in troubles]

        def update(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "UPDATE lines SET attempts = attempts + ?, deaths = deaths + ?"
                " WHERE batch = ? AND number = ?",
                rows,
            )
            connection.execute("UPDATE batches SET retries = retries + ? WHERE key = ?", (len(rows), key))

        await self._database.write(update)

    async def forget_answers(self, key: int, state: LineState) -> StoredBatch:
        """Make lines pending again whose answers were lost with the file that had them."""

        def update(connection: sqlite3.Connection) -> StoredBatch:
            connection.execute(
                "UPDATE lines SET state = 0, answer_offset = NULL, answer_length = NULL"
                " WHERE batch = ? AND state = ?",
                (key, int(state)),
            )
            if state is LineState.COMPLETED:
                none = {"input_tokens": 0, "cached_tokens": 0, "output_tokens": 0, "reasoning_tokens": 0}
                _update(connection, key, {"completed": 0, "output_bytes": 0, **none})
            else:
                connection.execute("DELETE FROM line_errors WHERE batch = ?", (key,))
                _update(connection, key, {"failed": 0, "error_bytes": 0})
            return _one(connection, "key = ?", key)

        return await self._database.write(update)


IDS_AT_A_TIME = 500
"""SQLite took 999 values in a statement at most, once."""
FORGOTTEN_AT_A_TIME = 5000
KINDS_SHOWN = 100
"""Kinds of errors; an engine may make up a code for each line."""
_LINE_COLUMNS = ", ".join(column.name for column in fields(Line))
_JSON = frozenset({"allowed_models", "metadata", "models", "errors"})
_COLUMNS = [column.name for column in fields(StoredBatch) if column.name != "owner"]
_INSERTED = [*(name for name in _COLUMNS if name != "key"), "owner", "by_key"]


def _record(connection: sqlite3.Connection, key: int, done: Sequence[Recorded]) -> None:
    connection.executemany(
        "UPDATE lines SET state = ?, seconds = ?, answer_offset = ?, answer_length = ?"
        " WHERE batch = ? AND number = ?",
        [(int(line.state), line.seconds, line.offset, line.length, key, line.number) for line in done],
    )
    completed = sum(line.state is LineState.COMPLETED for line in done)
    connection.execute(
        "UPDATE batches SET completed = completed + ?, failed = failed + ?, input_tokens = input_tokens + ?,"
        " cached_tokens = cached_tokens + ?, output_tokens = output_tokens + ?,"
        " reasoning_tokens = reasoning_tokens + ? WHERE key = ?",
        (
            completed,
            len(done) - completed,
            sum(line.tokens.input for line in done),
            sum(line.tokens.cached for line in done),
            sum(line.tokens.output for line in done),
            sum(line.tokens.reasoning for line in done),
            key,
        ),
    )
    for failure in (line.failure for line in done if line.failure is not None):
        counted = connection.execute(
            "UPDATE line_errors SET count = count + 1 WHERE batch = ? AND code = ? AND status_code = ?",
            (key, failure.code, failure.status_code),
        )
        if not counted.rowcount:
            connection.execute(
                "INSERT INTO line_errors (batch, code, status_code, count, example) VALUES (?, ?, ?, 1, ?)",
                (key, failure.code, failure.status_code, failure.message),
            )


def _update(connection: sqlite3.Connection, key: int, columns: dict[str, object]) -> None:
    names = ", ".join(f"{name} = ?" for name in columns)
    values = [_encoded(name, value) for name, value in columns.items()]
    connection.execute(f"UPDATE batches SET {names} WHERE key = ?", (*values, key))  # noqa: S608 - our names


def _one(connection: sqlite3.Connection, where: str, *values: object) -> StoredBatch:
    found = _select(connection, where, *values)
    if not found:
        raise NotFound(
            f"No such Batch object: {str(values[0])[:100]}",
            param="id",
            hint="GET /v1/batches lists those there are.",
        )
    return found[0]


def _select(connection: sqlite3.Connection, where: str, *values: object) -> list[StoredBatch]:
    columns = ", ".join([*_COLUMNS, "owner", "by_key"])
    rows = connection.execute(f"SELECT {columns} FROM batches WHERE {where}", values)  # noqa: S608 - our names
    return [_batch(tuple(row)) for row in rows]


def _batch(row: Sequence[object]) -> StoredBatch:
    *columns, owner, by_key = row
    values = {name: _decoded(name, value) for name, value in zip(_COLUMNS, columns, strict=True)}
    return StoredBatch(owner=Owner(str(owner), bool(by_key)), **values)  # type: ignore[arg-type]  # the fields' types


def _to_column(batch: StoredBatch, name: str) -> object:
    match name:
        case "owner":
            return batch.owner.name
        case "by_key":
            return batch.owner.by_key
        case _:
            return _encoded(name, getattr(batch, name))


def _encoded(name: str, value: object) -> object:
    return json.dumps(value) if name in _JSON and value is not None else value


def _decoded(name: str, value: object) -> object:
    if name not in _JSON or value is None:
        return value
    decoded = json.loads(str(value))
    return tuple(decoded) if isinstance(decoded, list) else decoded


def _lines(connection: sqlite3.Connection, where: str, *values: object) -> list[Line]:
    rows = connection.execute(f"SELECT {_LINE_COLUMNS} FROM lines WHERE {where}", values)  # noqa: S608 - our names
    return [Line(*row) for row in rows]
