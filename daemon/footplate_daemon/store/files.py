"""Files that were uploaded or that a batch has written: their rows. The bytes lie beside the database."""

import sqlite3
from dataclasses import dataclass

from footplate_daemon.errors import NotFound
from footplate_daemon.store.database import Database


@dataclass(frozen=True, slots=True)
class Owner:
    """Who made a file or a batch."""

    name: str
    by_key: bool
    """Whether the name is an API key's: it sees what was made with a key of this name, and nothing else."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file; its bytes are on the disk under its id."""

    id: str
    owner: Owner
    purpose: str
    filename: str
    bytes: int
    created_at: int
    expires_at: int | None = None


class FileStore:
    """Reads and writes the rows of files."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, file: StoredFile) -> None:
        """Store a new file."""
        await self._database.write(lambda connection: insert_file(connection, file))

    async def get(self, file_id: str, owner: Owner, now: float) -> StoredFile:
        """Give one file; raise `NotFound` also when it has expired, or is somebody else's."""

        def select(connection: sqlite3.Connection) -> StoredFile:
            rows = _select(connection, f"id = ? AND {LIVE} AND {SEEN}", file_id, now, *seen_by(owner))
            if not rows:
                raise no_such_file(file_id)
            return rows[0]

        return await self._database.read(select)

    async def page(
        self,
        owner: Owner,
        now: float,
        *,
        purpose: str | None = None,
        limit: int = 10_000,
        after: str | None = None,
        oldest_first: bool = False,
    ) -> list[StoredFile]:
        """Give files in the order in which they were made; raise `NotFound` for an `after` that is none."""

        def select(connection: sqlite3.Connection) -> list[StoredFile]:
            where, values = f"{LIVE} AND {SEEN}", [now, *seen_by(owner)]
            if purpose is not None:
                where, values = f"{where} AND purpose = ?", [*values, purpose]
            if after is not None:
                key = connection.execute("SELECT key FROM files WHERE id = ?", (after,)).fetchone()
                if key is None:
                    raise no_such_file(after, param="after")
                where, values = f"{where} AND key {'>' if oldest_first else '<'} ?", [*values, key[0]]
            order = "ASC" if oldest_first else "DESC"
            return _select(connection, f"{where} ORDER BY key {order} LIMIT {int(limit)}", *values)

        return await self._database.read(select)

    async def delete(self, file_id: str, owner: Owner, now: float) -> bool:
        """Delete a file's row; say whether its bytes may go too: no batch under way reads them.

        Raise `NotFound`.
        """

        def delete(connection: sqlite3.Connection) -> bool:
            where = f"id = ? AND {LIVE} AND {SEEN}"
            done = connection.execute(
                f"DELETE FROM files WHERE {where}",  # noqa: S608 - our words
                (file_id, now, *seen_by(owner)),
            )
            if not done.rowcount:
                raise no_such_file(file_id)
            return not _is_in_use(connection, file_id)

        return await self._database.write(delete)

    async def expire(self, now: float) -> list[str]:
        """Delete the rows of files whose time is over; give those whose bytes may go too."""

        def delete(connection: sqlite3.Connection) -> list[str]:
            ids = [row[0] for row in connection.execute("SELECT id FROM files WHERE expires_at <= ?", (now,))]
            connection.executemany("DELETE FROM files WHERE id = ?", [(each,) for each in ids])
            return [each for each in ids if not _is_in_use(connection, each)]

        return await self._database.write(delete)

    async def needed(self) -> frozenset[str]:
        """Give the ids of all files whose bytes somebody may still want."""

        def select(connection: sqlite3.Connection) -> frozenset[str]:
            kept = {row[0] for row in connection.execute("SELECT id FROM files")}
            columns = "input_file_id, output_file_id, error_file_id"
            used = f"SELECT {columns} FROM batches WHERE status IN {UNFINISHED}"  # noqa: S608 - our words
            for row in connection.execute(used):
                kept.update(row)
            return frozenset(kept)

        return await self._database.read(select)


UNFINISHED = "('validating', 'in_progress', 'finalizing', 'cancelling')"
LIVE = "(expires_at IS NULL OR expires_at > ?)"
SEEN = "(? = 0 OR (by_key = 1 AND owner = ?))"
"""Who comes with a key sees what was made with a key of that name; the machine's own users see everything."""


def seen_by(owner: Owner) -> tuple[int, str]:
    """Give the values for `SEEN`."""
    return int(owner.by_key), owner.name


def insert_file(connection: sqlite3.Connection, file: StoredFile) -> None:
    """Store a file's row within a transaction."""
    connection.execute(
        "INSERT INTO files (id, owner, by_key, purpose, filename, bytes, created_at, expires_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            file.id,
            file.owner.name,
            file.owner.by_key,
            file.purpose,
            file.filename,
            file.bytes,
            file.created_at,
            file.expires_at,
        ),
    )


def no_such_file(file_id: str, param: str = "id") -> NotFound:
    """Give the error for a file that is not there, or not the asker's."""
    return NotFound(
        f"No such File object: {file_id[:100]}", param=param, hint="GET /v1/files lists those there are."
    )


def _is_in_use(connection: sqlite3.Connection, file_id: str) -> bool:
    where = f"input_file_id = ? AND status IN {UNFINISHED}"
    found = connection.execute(f"SELECT 1 FROM batches WHERE {where}", (file_id,))  # noqa: S608 - our words
    return found.fetchone() is not None


def _select(connection: sqlite3.Connection, where: str, *values: object) -> list[StoredFile]:
    columns = "id, owner, by_key, purpose, filename, bytes, created_at, expires_at"
    rows = connection.execute(f"SELECT {columns} FROM files WHERE {where}", values)  # noqa: S608 - our words
    return [
        StoredFile(id_, Owner(owner, bool(by_key)), purpose, filename, size, created_at, expires_at)
        for id_, owner, by_key, purpose, filename, size, created_at, expires_at in rows
    ]
