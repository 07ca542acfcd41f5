"""Runs of benchmarks with their cells and every request of them: kept until somebody deletes them."""

import asyncio
import json
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter

from footplate_daemon.errors import NotFound
from footplate_daemon.store.database import Database
from footplate_daemon.store.wanted import Wanted
from footplate_daemon.wire_benchmarks import BenchmarkRow, BenchmarkRun, Cell, Entrant, Purpose, RequestRecord

CUT_OFF = "The daemon was stopped during this run."
_RECORDS = TypeAdapter(tuple[RequestRecord, ...])


class BenchmarkStore:
    """Reads and writes runs; cells are stored as they end."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, run: BenchmarkRun) -> BenchmarkRun:
        """Store a new run with its cells, and give it with the id that it got."""

        def insert(connection: sqlite3.Connection) -> BenchmarkRun:
            added = connection.execute(
                "INSERT INTO benchmark_runs (purpose, state, record) VALUES (?, ?, '')",
                (run.purpose, run.state),
            )
            numbered = run.model_copy(update={"id": added.lastrowid})
            _save(connection, numbered)
            connection.executemany(
                "INSERT INTO benchmark_cells (run, number, record) VALUES (?, ?, ?)",
                [(numbered.id, cell.number, cell.model_dump_json()) for cell in run.cells],
            )
            return numbered

        return await self._database.write(insert)

    async def save(self, run: BenchmarkRun) -> None:
        """Store how a run stands, without its cells."""
        await self._database.write(lambda connection: _save(connection, run))

    async def save_cell(
        self, run_id: int, cell: Cell, records: Sequence[RequestRecord] | None = None
    ) -> None:
        """Store a cell as it is now; with its requests, if they are given."""
        record = cell.model_copy(update={"records": None}).model_dump_json()
        packed = None
        if records is not None:
            packed = await asyncio.to_thread(lambda: zlib.compress(_RECORDS.dump_json(tuple(records))))

        def update(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE benchmark_cells SET record = ?, requests = coalesce(?, requests)"
                " WHERE run = ? AND number = ?",
                (record, packed, run_id, cell.number),
            )

        await self._database.write(update)

    async def get(self, run_id: int) -> BenchmarkRun:
        """Give a run with its cells, without their requests; raise `NotFound`."""

        def select(connection: sqlite3.Connection) -> BenchmarkRun:
            run = _run(connection, run_id)
            rows = connection.execute(
                "SELECT record FROM benchmark_cells WHERE run = ? ORDER BY number", (run_id,)
            )
            cells = tuple(Cell.model_validate_json(row["record"]) for row in rows)
            return run.model_copy(update={"cells": cells})

        return await self._database.read(select)

    async def records(self, run_id: int, cell: int | None = None) -> dict[int, tuple[RequestRecord, ...]]:
        """Give the requests of each cell of a run, or of one, as far as they are stored."""

        def select(connection: sqlite3.Connection) -> Mapping[int, bytes]:
            rows = connection.execute(
                "SELECT number, requests FROM benchmark_cells"
                " WHERE run = ? AND number = coalesce(?, number) AND requests IS NOT NULL",
                (run_id, cell),
            )
            return {row["number"]: row["requests"] for row in rows}

        packed = await self._database.read(select)
        return await asyncio.to_thread(_unpacked, packed)

    async def list(
        self, limit: int, before: int | None = None, purpose: Purpose | None = None
    ) -> list[BenchmarkRow]:
        """Give the newest runs, those below the id `before` if it is given."""

        def select(connection: sqlite3.Connection) -> list[BenchmarkRow]:
            rows = connection.execute(
                "SELECT record FROM benchmark_runs"
                " WHERE id < coalesce(?, id + 1) AND purpose = coalesce(?, purpose) ORDER BY id DESC LIMIT ?",
                (before, purpose, limit),
            )
            return [BenchmarkRow.model_validate_json(row["record"]) for row in rows]

        return await self._database.read(select)

    async def delete(self, run_id: int) -> None:
        """Delete a run with all that was measured; raise `NotFound`."""

        def delete(connection: sqlite3.Connection) -> None:
            if connection.execute("DELETE FROM benchmark_runs WHERE id = ?", (run_id,)).rowcount == 0:
                raise _no_such(run_id)

        await self._database.write(delete)

    async def remember_before(self, run_id: int, before: Wanted) -> None:
        """Keep what was active before a run, in case the daemon ends within it."""

        def update(connection: sqlite3.Connection) -> None:
            text = json.dumps([before.variant, before.preset, before.context])
            connection.execute("UPDATE benchmark_runs SET before = ? WHERE id = ?", (text, run_id))

        await self._database.write(update)

    async def cut_unfinished(self, now: float) -> Wanted | None:
        """Cut every run that a former daemon left; give what was active before it, if one had begun."""

        def update(connection: sqlite3.Connection) -> Wanted | None:
            before = None
            for row in connection.execute(
                "SELECT id, before FROM benchmark_runs WHERE state IN ('queued', 'running') ORDER BY id"
            ).fetchall():
                _cut(connection, row["id"], now)
                if before is None and row["before"] is not None:
                    before = Wanted(*json.loads(row["before"]))
            return before

        return await self._database.write(update)

    async def known_hash(self, file: Path, size: int, changed_ns: int) -> str | None:
        """Give the hash of a file that is as it was when it was hashed."""

        def select(connection: sqlite3.Connection) -> str | None:
            row = connection.execute(
                "SELECT sha256 FROM weight_hashes WHERE path = ? AND size = ? AND changed_ns = ?",
                (str(file), size, changed_ns),
            ).fetchone()
            return None if row is None else str(row["sha256"])

        return await self._database.read(select)

    async def remember_hash(self, file: Path, size: int, changed_ns: int, sha256: str) -> None:
        """Keep the hash of a file, for as long as it stays as it is."""

        def replace(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO weight_hashes (path, size, changed_ns, sha256) VALUES (?, ?, ?, ?)",
                (str(file), size, changed_ns, sha256),
            )

        await self._database.write(replace)


def _unpacked(packed: Mapping[int, bytes]) -> dict[int, tuple[RequestRecord, ...]]:
    return {number: _RECORDS.validate_json(zlib.decompress(each)) for number, each in packed.items()}


def _run(connection: sqlite3.Connection, run_id: int) -> BenchmarkRun:
    row = connection.execute("SELECT record FROM benchmark_runs WHERE id = ?", (run_id,)).fetchone()
    if row is None:
        raise _no_such(run_id)
    return BenchmarkRun.model_validate_json(row["record"])


def _save(connection: sqlite3.Connection, run: BenchmarkRun) -> None:
    record = run.model_copy(update={"cells": ()}).model_dump_json()
    connection.execute(
        "UPDATE benchmark_runs SET state = ?, record = ? WHERE id = ?", (run.state, record, run.id)
    )


def _cut(connection: sqlite3.Connection, run_id: int, now: float) -> None:
    run = _run(connection, run_id)
    entrants = tuple(_cut_entrant(entrant) for entrant in run.entrants)
    told = {"state": "cut", "ended_at": now, "error": CUT_OFF, "step": "", "eta_seconds": None}
    _save(connection, run.model_copy(update={**told, "entrants": entrants}))
    rows = connection.execute(
        "SELECT number, record FROM benchmark_cells WHERE run = ?", (run_id,)
    ).fetchall()
    for row in rows:
        cell = Cell.model_validate_json(row["record"])
        if cell.state in {"waiting", "warming up", "measuring"}:
            connection.execute(
                "UPDATE benchmark_cells SET record = ? WHERE run = ? AND number = ?",
                (cell.model_copy(update={"state": "cut"}).model_dump_json(), run_id, row["number"]),
            )


def _cut_entrant(entrant: Entrant) -> Entrant:
    has_ended = entrant.state in {"done", "failed", "cancelled"}
    return entrant if has_ended else entrant.model_copy(update={"state": "cut"})


def _no_such(run_id: int) -> NotFound:
    return NotFound(f"There is no benchmark {run_id}.", hint="GET /api/v1/benchmark lists them.")
