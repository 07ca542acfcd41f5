import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from footplate_daemon.errors import Busy, Conflict, FootplateError, Unavailable
from footplate_daemon.store.database import Database
from footplate_daemon.store.migrations import MIGRATIONS
from footplate_daemon.store.wanted import Wanted, WantedStore

GARBAGE = b"this is no database at all" * 100


def _content(path: Path) -> bytes:
    return path.read_bytes()


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _insert_fact(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO facts VALUES ('key', '1')")


def _count_facts(connection: sqlite3.Connection) -> int:
    count: int = connection.execute("SELECT count(*) FROM facts").fetchone()[0]
    return count


async def test_an_empty_file_is_brought_up_to_date_from_version_0(path: Path) -> None:
    sqlite3.connect(path).close()

    async with Database.open(path) as database:
        version = await database.read(_version)

    assert version == len(MIGRATIONS)


async def test_what_was_written_is_there_at_the_next_start(path: Path) -> None:
    async with Database.open(path) as database:
        await WantedStore(database).set_wanted(Wanted("llamacpp/guide", "balanced"))

    async with Database.open(path) as database:
        wanted = await WantedStore(database).wanted()

    assert wanted == Wanted("llamacpp/guide", "balanced")


async def test_the_file_is_private_from_its_first_moment(path: Path) -> None:
    async with Database.open(path) as database:
        await database.write(_insert_fact)
        modes = {file.stat().st_mode & 0o777 for file in path.parent.iterdir()}

    assert modes == {0o600}


async def test_the_last_one_out_leaves_one_file(path: Path) -> None:
    async with Database.open(path) as database:
        await database.write(_insert_fact)

    assert [file.name for file in path.parent.iterdir()] == [path.name]


async def test_it_runs_in_wal_mode_with_foreign_keys(database: Database) -> None:
    def pragmas(connection: sqlite3.Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert await database.read(pragmas) == ["wal", 1, 1, 5000]


async def test_a_write_that_raises_leaves_nothing(database: Database) -> None:
    def insert_then_fail(connection: sqlite3.Connection) -> None:
        _insert_fact(connection)
        raise Conflict("no")

    with pytest.raises(Conflict):
        await database.write(insert_then_fail)

    assert await database.read(_count_facts) == 0


async def test_writes_run_in_the_order_of_the_calls(database: Database) -> None:
    order: list[int] = []

    await asyncio.gather(*(database.write(lambda _, n=n: order.append(n)) for n in range(100)))  # type: ignore[misc]

    assert order == list(range(100))


async def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")

    with pytest.raises(Conflict, match="newer Footplate") as caught:
        async with Database.open(path):
            pass

    assert "Update Footplate" in str(caught.value.hint)
    with closing(sqlite3.connect(path)) as connection:
        assert _version(connection) == len(MIGRATIONS) + 1


async def test_a_full_disk_says_so_and_the_next_write_works(database: Database) -> None:
    def fill(connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")
        connection.execute("INSERT INTO facts VALUES ('big', ?)", ("x" * 100_000,))

    with pytest.raises(Unavailable, match="disk is full") as caught:
        await database.write(fill)
    await database.read(lambda connection: connection.execute("PRAGMA max_page_count = 1000000").close())
    await database.write(_insert_fact)

    assert "Free disk space" in str(caught.value.hint)
    assert await database.read(_count_facts) == 1


async def test_a_database_that_turns_read_only_says_so(database: Database) -> None:
    await database.read(lambda connection: connection.execute("PRAGMA query_only = ON").close())

    with pytest.raises(Unavailable, match="read-only"):
        await database.write(_insert_fact)


@pytest.fixture
def read_only(path: Path) -> Path:
    sqlite3.connect(path).close()
    path.chmod(0o400)
    return path


@pytest.fixture
def garbage(path: Path) -> Path:
    path.write_bytes(GARBAGE)
    return path


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_read_only_file_is_refused_at_once(read_only: Path) -> None:

    with pytest.raises(Unavailable, match="read-only") as caught:
        async with Database.open(read_only):
            pass

    assert "write access" in str(caught.value.hint)


async def test_garbage_instead_of_a_database_is_named_and_left_alone(garbage: Path) -> None:
    with pytest.raises(Unavailable, match="damaged") as caught:
        async with Database.open(garbage):
            pass

    assert str(garbage) in str(caught.value.hint)
    assert _content(garbage) == GARBAGE


async def test_a_missing_folder_is_named(path: Path) -> None:
    with pytest.raises(Unavailable, match="No such file or directory"):
        async with Database.open(path / "nowhere"):
            pass


async def test_a_file_that_somebody_else_holds_is_busy(database: Database, path: Path) -> None:
    await database.read(lambda connection: connection.execute("PRAGMA busy_timeout = 1").close())

    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Busy) as caught:
            await database.write(_insert_fact)

    assert caught.value.retry_after == 1


async def test_a_bad_statement_is_no_sqlite_error_outside(database: Database) -> None:
    with pytest.raises(FootplateError, match="no such table"):
        await database.read(lambda connection: connection.execute("SELECT * FROM nowhere"))
