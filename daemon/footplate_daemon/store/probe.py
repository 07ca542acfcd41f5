"""Whether the database can be written and read now, without leaving anything in it."""

import sqlite3

from footplate_daemon.errors import Unavailable
from footplate_daemon.store.database import Database


async def write_and_read(database: Database) -> None:
    """Return when a transaction is stored and read again; raise what the database raises."""
    version = await database.read(_version)

    def write(connection: sqlite3.Connection) -> None:
        # The same value as before, but stored anew: it costs one page of the write-ahead log.
        connection.execute(f"PRAGMA user_version = {version}")

    await database.write(write)
    if await database.read(_version) != version:
        raise Unavailable(
            f"{database.path} does not hold what was just written.", hint="Check the disk that it is on."
        )


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version
