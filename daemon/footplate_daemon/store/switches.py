"""What estimates are made of: every switch with its steps, and the memory that each variant needed."""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable
from statistics import median

from footplate_daemon.errors import NotFound
from footplate_daemon.store.database import Database
from footplate_daemon.wire import Diagnosis, StepName, Switch

RECENT = 10
"""Successful switches that a median is taken of."""

CUT_OFF = Diagnosis(code="daemon_stopped", cause="The daemon was stopped during this switch.")


class SwitchStore:
    """Reads and writes switches and memory peaks."""

    def __init__(self, database: Database) -> None:
        self.listeners: list[Callable[[Switch], None]] = []
        """Each is told about every switch that is to be stored, whether or not that succeeds."""
        self._database = database

    async def newest_id(self) -> int:
        """Give the highest id in use, 0 if there is none: the next switch takes the one after."""

        def select(connection: sqlite3.Connection) -> int:
            newest: int = connection.execute("SELECT coalesce(max(id), 0) FROM switches").fetchone()[0]
            return newest

        return await self._database.read(select)

    async def save(self, switch: Switch) -> None:
        """Store a switch as it is now, in place of what was stored under its id."""
        for listener in self.listeners:
            listener(switch)
        steps = json.dumps({step.name: step.seconds for step in switch.steps if step.seconds is not None})

        def replace(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO switches"
                " (id, variant, preset, outcome, started_at, ended_at, steps, record)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    switch.id,
                    switch.variant,
                    switch.preset,
                    switch.outcome,
                    switch.started_at,
                    switch.ended_at,
                    steps,
                    switch.model_dump_json(),
                ),
            )

        await self._database.write(replace)

    async def get(self, switch_id: int) -> Switch:
        """Give one switch; raise `NotFound`."""

        def select(connection: sqlite3.Connection) -> Switch:
            row = connection.execute("SELECT record FROM switches WHERE id = ?", (switch_id,)).fetchone()
            if row is None:
                raise NotFound(f"There is no switch {switch_id}.", hint="The status names the last one.")
            return Switch.model_validate_json(row["record"])

        return await self._database.read(select)

    async def list(self, limit: int = 100) -> list[Switch]:
        """Give the last switches, newest first."""

        def select(connection: sqlite3.Connection) -> list[Switch]:
            rows = connection.execute("SELECT record FROM switches ORDER BY id DESC LIMIT ?", (limit,))
            return [Switch.model_validate_json(row["record"]) for row in rows]

        return await self._database.read(select)

    async def cut_unfinished(self, now: float) -> int:
        """Fail every switch that a former daemon left running; say how many."""

        def update(connection: sqlite3.Connection) -> int:
            rows = connection.execute("SELECT record FROM switches WHERE outcome = 'running'").fetchall()
            for row in rows:
                switch = Switch.model_validate_json(row["record"]).model_copy(
                    update={"outcome": "failed", "ended_at": now, "diagnosis": CUT_OFF}
                )
                connection.execute(
                    "UPDATE switches SET outcome = 'failed', ended_at = ?, record = ? WHERE id = ?",
                    (now, switch.model_dump_json(), switch.id),
                )
            return len(rows)

        return await self._database.write(update)

    async def median_steps(self, variant: str, preset: str | None) -> dict[StepName, float]:
        """Give the median seconds of each step over the last successful switches; empty if there was none."""

        def select(connection: sqlite3.Connection) -> dict[StepName, float]:
            seconds: defaultdict[StepName, list[float]] = defaultdict(list)
            for row in connection.execute(
                "SELECT steps FROM switches WHERE variant = ? AND preset IS ? AND outcome = 'done'"
                # A switch to what was active already loaded nothing: it has no times to learn from.
                """ AND steps LIKE '%"load"%' ORDER BY id DESC LIMIT ?""",
                (variant, preset, RECENT),
            ):
                for name, value in json.loads(row["steps"]).items():
                    seconds[StepName(name)].append(value)
            return {name: median(seconds[name]) for name in StepName if name in seconds}

        return await self._database.read(select)

    async def last_load_seconds(self) -> dict[str, float]:
        """Give for each variant how long it last took from start to ready."""

        def select(connection: sqlite3.Connection) -> dict[str, float]:
            rows = connection.execute(
                "SELECT variant, steps FROM switches WHERE id IN"
                " (SELECT max(id) FROM switches WHERE outcome = 'done'"
                """ AND steps LIKE '%"load"%' GROUP BY variant)"""
            )
            return {row["variant"]: _load_seconds(json.loads(row["steps"])) for row in rows}

        return await self._database.read(select)

    async def record_memory(self, variant: str, preset: str | None, peak_bytes: int, now: float) -> None:
        """Keep the highest peak that was measured of a variant under a preset."""

        def raise_peak(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO memory_peaks (variant, preset, bytes, measured_at) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (variant, preset) DO UPDATE"
                " SET bytes = excluded.bytes, measured_at = excluded.measured_at"
                " WHERE excluded.bytes > bytes",
                (variant, preset or "", peak_bytes, now),
            )

        await self._database.write(raise_peak)

    async def memory_peaks(self) -> dict[tuple[str, str | None], int]:
        """Give the recorded peak in bytes for each variant and preset."""

        def select(connection: sqlite3.Connection) -> dict[tuple[str, str | None], int]:
            rows = connection.execute("SELECT variant, preset, bytes FROM memory_peaks")
            return {(row["variant"], row["preset"] or None): row["bytes"] for row in rows}

        return await self._database.read(select)

    async def memory_peak(self, variant: str, preset: str | None) -> int | None:
        """Give the recorded peak in bytes; None if it was never measured here."""
        return (await self.memory_peaks()).get((variant, preset))


def _load_seconds(steps: dict[str, float]) -> float:
    return sum(steps.get(name, 0.0) for name in (StepName.START, StepName.LOAD, StepName.WARM_UP))
