"""What was wanted last, so that a daemon that starts again knows what to bring back."""

import json
import sqlite3
from dataclasses import asdict, dataclass
from typing import Any

from footplate_daemon.store.database import Database


@dataclass(frozen=True)
class Wanted:
    """What should be active."""

    variant: str | None
    """None wants nothing to be active."""
    preset: str | None = None
    context: int | None = None


class WantedStore:
    """Remembers the wanted variant, and the last model of each runtime."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def wanted(self) -> Wanted | None:
        """Give what was wanted last; None if nobody ever wanted anything here."""
        fields = await self._fact("wanted")
        return None if fields is None else Wanted(**fields)

    async def set_wanted(self, wanted: Wanted) -> None:
        """Remember what is wanted from now on."""
        await self._remember("wanted", asdict(wanted))

    async def last_model(self, runtime: str) -> str | None:
        """Give the model that was last used on a runtime."""
        model: str | None = await self._fact(f"last_model/{runtime}")
        return model

    async def set_last_model(self, runtime: str, model: str) -> None:
        """Remember the model that a runtime serves now."""
        await self._remember(f"last_model/{runtime}", model)

    async def _fact(self, key: str) -> Any:
        def select(connection: sqlite3.Connection) -> Any:
            row = connection.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
            return None if row is None else json.loads(row["value"])

        return await self._database.read(select)

    async def _remember(self, key: str, value: Any) -> None:
        def replace(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO facts (key, value) VALUES (?, ?)", (key, json.dumps(value))
            )

        await self._database.write(replace)
