"""A SQLite file: opened, migrated, and used from one thread of its own.

Stores hand in functions that speak SQL; every error that leaves here is one of ours.
What was written survives the end of the process, however it ends; a power cut may take
the last moments (WAL with synchronous=NORMAL), never the file.
"""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

from footplate_daemon.errors import Busy, Conflict, FootplateError, Invalid, Unavailable
from footplate_daemon.store.migrations import MIGRATIONS

BUSY_TIMEOUT_SECONDS = 5.0
WAL_PAGES = 4000
"""Pages of 4 KiB that gather in the log before they are copied into the file: those written often, once."""

T = TypeVar("T")


class Database:
    """A connection and its thread; make one with `async with Database.open(path)`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self.path = path
        self._connection = connection
        self._thread = thread

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, migrations: Sequence[str] = MIGRATIONS) -> AsyncIterator["Database"]:
        """Open the file, bring it up to date, and close it at the end of the block.

        Raise `Unavailable` if it cannot be used, `Conflict` if a newer Footplate wrote it.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="database") as thread:
            connection = await asyncio.get_running_loop().run_in_executor(thread, _open, path, migrations)
            try:
                yield cls(path, connection, thread)
            finally:
                await asyncio.wrap_future(thread.submit(connection.close))

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in one transaction: what it changes is stored whole, or not at all if it raises.

        Writes are carried out in the order of the calls. A caller that is cancelled does not undo its write.
        """
        return await self._run(lambda: _in_transaction(self._connection, work))

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work`, which only looks."""
        return await self._run(lambda: work(self._connection))

    async def _run(self, work: Callable[[], T]) -> T:
        def translated() -> T:
            with _translated_errors(self.path):
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._thread, translated)


def _open(path: Path, migrations: Sequence[str]) -> sqlite3.Connection:
    with _translated_errors(path):
        _make_private(path)
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
        try:
            _prepare(connection, path, migrations)
        except BaseException:
            connection.close()
            raise
        return connection


def _make_private(path: Path) -> None:
    """Create the file 0600: it holds what people wrote. SQLite gives its companions the same mode."""
    os.close(os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o600))


def _prepare(connection: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
    _in_transaction(connection, lambda _: _migrate(connection, path, migrations))


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    """Run what is missing; inside a write transaction, so that two daemons cannot both do it."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(migrations):
        raise Conflict(
            f"{path} was written by a newer Footplate (schema {version}; this one knows {len(migrations)}).",
            hint="Update Footplate, or move the file aside to start with an empty one.",
        )
    for script in migrations[version:]:
        for statement in _statements(script):
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(migrations)}")


def _statements(script: str) -> Iterator[str]:
    """Take a script apart; `executescript` would commit first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _in_transaction(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result


@contextmanager
def _translated_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _translated(error, path) from error
    except (UnicodeEncodeError, OverflowError) as error:
        raise Invalid(
            f"This cannot be stored: {error}.", hint="Send whole characters and smaller numbers."
        ) from error
    except OSError as error:
        raise Unavailable(
            f"The database {path} cannot be opened: {error.strerror}.",
            hint="Mend the folder's permissions, or set FOOTPLATE_HOME to another folder.",
        ) from error


def _translated(error: sqlite3.Error, path: Path) -> FootplateError:
    extended: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    match extended & 0xFF:
        case sqlite3.SQLITE_FULL:
            return Unavailable(
                f"The disk is full: {path} cannot grow.", hint="Free disk space and try again."
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return Unavailable(
                f"The database {path} is read-only.",
                hint="Give the user of the daemon write access to the file and its folder.",
            )
        case sqlite3.SQLITE_CANTOPEN:
            return Unavailable(
                f"The database {path} cannot be opened.",
                hint="Check that its folder exists and that the user of the daemon may write there.",
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return Unavailable(
                f"The database {path} is damaged: {error}.",
                hint=f"Move it aside and start again, or save what can be saved: sqlite3 {path} .recover",
            )
        case sqlite3.SQLITE_IOERR:
            return Unavailable(
                f"The disk failed under {path}: {error}.", hint="Look at the disk: dmesg, free space, mounts."
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Busy(
                f"Another process holds the database {path}.",
                hint="Close what else has it open; only one daemon may use it.",
                retry_after=1,
            )
        case _ if "no such module: fts5" in str(error):
            return Unavailable(
                "Python's SQLite has no full-text search (FTS5).",
                hint="Use a Python whose sqlite3 has it: those of Debian, conda and uv have.",
            )
        case _:
            return FootplateError(f"The database {path} refused a statement: {error}.")
