"""Benchmarks: runs that are asked for, wait their turn, are carried out one at a time, and can be followed.

While one is carried out nobody else switches or stops an engine (`Conflict`), and requests that need another
variant than the active one are refused (`Busy`). Requests for the active one are answered, and counted in the
result as what they are: a disturbance. Batches wait. Afterwards what was active before is active again.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator
from itertools import chain

from footplate_daemon.benchmarks.live import Live
from footplate_daemon.benchmarks.planning import Find, plan
from footplate_daemon.benchmarks.running import Parts, Runner
from footplate_daemon.errors import Busy, Conflict, FootplateError, NotFound
from footplate_daemon.store.wanted import Wanted
from footplate_daemon.switching.leases import Reservation
from footplate_daemon.switching.machine import Reason
from footplate_daemon.wire_benchmarks import (
    BenchmarkPage,
    BenchmarkRow,
    BenchmarkRun,
    BenchmarkWish,
    LivePoint,
    Purpose,
    RunState,
)

logger = logging.getLogger(__name__)

MOST_QUEUED = 50
_ROW = set(BenchmarkRow.model_fields)


class Benchmarks:
    """Keeps runs; `run` must be running."""

    def __init__(self, parts: Parts, find: Find) -> None:
        self._parts = parts
        self._find = find
        self._queue: deque[Live] = deque()
        self._running: Live | None = None
        self._has_work = asyncio.Event()

    async def run(self) -> None:
        """Carry out what is asked for, one after the other, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._has_work.wait()
                while self._queue:
                    self._running = self._queue.popleft()
                    await self._carry_out(self._running, tasks)
                    self._running = None
                self._has_work.clear()

    async def start(self, wish: BenchmarkWish) -> BenchmarkRun:
        """Lay out a run and put it in line; raise `Invalid`, `NotFound`, or `Busy` when the line is full."""
        if len(self._queue) >= MOST_QUEUED:
            raise Busy(
                "Too many benchmarks wait.", hint="Cancel some of them, or ask again later.", retry_after=60
            )
        matrix = await plan(wish, self._find)
        lineless = tuple(workload.model_copy(update={"lines": None}) for workload in wish.workloads)
        run = BenchmarkRun(
            id=0,
            title=wish.title,
            purpose=wish.purpose,
            state="queued",
            created_at=time.time(),
            variants=tuple(dict.fromkeys(seat.variant.name for seat in matrix.seats)),
            workloads=tuple(work.name for work in matrix.works),
            cells_total=len(matrix.cells),
            fraction=0.0,
            wish=wish.model_copy(update={"workloads": lineless}),
            entrants=tuple(seat.entrant for seat in matrix.seats),
            cells=matrix.cells,
            warnings=matrix.warnings,
        )
        live = Live(await self._parts.store.add(run), matrix)
        self._queue.append(live)
        self._has_work.set()
        return live.run

    async def get(self, run_id: int, *, records: bool = False, cell: int | None = None) -> BenchmarkRun:
        """Give a run, with the requests of its cells (or of one) if asked for; raise `NotFound`."""
        live = self._live(run_id)
        run = live.run if live is not None else await self._parts.store.get(run_id)
        if cell is not None and cell >= len(run.cells):
            raise NotFound(
                f"Benchmark {run_id} has no cell {cell}.",
                hint=f"It has {len(run.cells)}, from 0.",
                param="cell",
            )
        if not records:
            return run
        stored = await self._parts.store.records(run_id, cell)
        cells = (
            each.model_copy(update={"records": stored.get(each.number, ())})
            if cell in {None, each.number}
            else each
            for each in run.cells
        )
        return run.model_copy(update={"cells": tuple(cells)})

    async def list(
        self, limit: int, before: int | None = None, purpose: Purpose | None = None
    ) -> BenchmarkPage:
        """List runs, the newest first; those under way as they stand now."""
        rows = await self._parts.store.list(limit, before, purpose)
        shown = [live.run if (live := self._live(row.id)) is not None else row for row in rows]
        return BenchmarkPage(
            runs=tuple(BenchmarkRow.model_validate(row.model_dump(include=_ROW)) for row in shown),
            before=rows[-1].id if len(rows) == limit else None,
        )

    async def follow(self, run_id: int) -> AsyncIterator[BenchmarkRun | LivePoint]:
        """Yield a run now and after changes, and its points; the last is the run that ended. See `get`."""
        live = self._live(run_id)
        if live is None:
            yield await self._parts.store.get(run_id)
            return
        async for change in live.follow():
            yield change

    async def cancel(self, run_id: int) -> BenchmarkRun:
        """End a run, keeping what was measured; raise `NotFound`, or `Conflict` when it has ended."""
        live = self._live(run_id)
        if live is None or live.is_over:
            ended = await self._parts.store.get(run_id)
            raise Conflict(f"Benchmark {run_id} has ended: {ended.state}.", hint="Its results are kept.")
        live.is_cancelled = True
        if live in self._queue:
            self._queue.remove(live)
            await Runner(live, self._parts).settle("cancelled")
            await self._end(live, "cancelled")
        elif live.task is not None:
            live.task.cancel()
        return live.run

    async def delete(self, run_id: int) -> None:
        """Delete a run with its results; raise `NotFound`, or `Conflict` while it waits or runs."""
        if self._live(run_id) is not None:
            raise Conflict(f"Benchmark {run_id} has not ended.", hint="Cancel it first.")
        await self._parts.store.delete(run_id)

    def _live(self, run_id: int) -> Live | None:
        there = chain(self._queue, () if self._running is None else (self._running,))
        return next((live for live in there if live.run.id == run_id), None)

    async def _carry_out(self, live: Live, tasks: asyncio.TaskGroup) -> None:
        run_id = live.run.id
        logger.info("benchmark began", extra={"benchmark": run_id, "cells": live.run.cells_total})
        live.update(state="running", started_at=time.time(), step="waiting for others")
        holder, remedy = f"Benchmark {run_id}", f"End it: footplate bench cancel {run_id}"
        try:
            with self._parts.switcher.reserve(Reservation(holder, remedy, live.eta_seconds)):
                failure = await self._measure(live, Runner(live, self._parts), tasks)
                await self._restore(live)
            await self._end(live, _outcome(live) if failure is None else "failed", failure)
        except FootplateError as error:  # the disk is full: what was stored before is kept
            logger.error("benchmark failed", extra={"benchmark": run_id, "cause": error.message})  # noqa: TRY400
            live.update(state="failed", error=error.message, ended_at=time.time(), step="", eta_seconds=None)

    async def _measure(self, live: Live, runner: Runner, tasks: asyncio.TaskGroup) -> str | None:
        """Measure until the end, or until a person cancels it; give why it could not go on, if so."""
        failure: str | None = None

        async def measure() -> None:
            nonlocal failure
            try:
                await self._measure_when_calm(live, runner)
            except FootplateError as error:
                failure = error.message

        live.task = tasks.create_task(measure())
        await asyncio.wait({live.task})
        if live.is_cancelled:
            await runner.settle("cancelled")
        return failure

    async def _measure_when_calm(self, live: Live, runner: Runner) -> None:
        await self._parts.store.save(live.run)
        await self._parts.switcher.until_calm()
        before = live.before = self._parts.switcher.wanted_target
        live.has_begun = True
        wanted = Wanted(before.variant, before.preset, before.context) if before else Wanted(None)
        await self._parts.store.remember_before(live.run.id, wanted)
        await runner.measure()

    async def _restore(self, live: Live) -> None:
        """Make active again what was, or nothing."""
        if not live.has_begun:
            return
        before, switcher = live.before, self._parts.switcher
        if before is None or before.variant not in self._parts.catalog().variants:
            await self._parts.starter.stop_all()
            return
        live.update(step=f"{before.variant}: start")
        try:
            switch = await switcher.ended(switcher.wish(before, Reason.BENCHMARK).id)
        except FootplateError as error:
            why = error.message
        else:
            if switch.outcome == "done":
                live.update(restored=before.variant)
                return
            why = switch.diagnosis.cause if switch.diagnosis else f"its switch was {switch.outcome}."
        live.warn(f"{before.variant} was active before and did not come back: {why}")

    async def _end(self, live: Live, state: RunState, error: str | None = None) -> None:
        if state == "failed" and error is None:
            error = next((entrant.error for entrant in live.run.entrants if entrant.error), None)
        live.update(state=state, error=error, ended_at=time.time(), step="", eta_seconds=None)
        await self._parts.store.save(live.run)
        logger.info("benchmark ended", extra={"benchmark": live.run.id, "outcome": state})


def _outcome(live: Live) -> RunState:
    states = {cell.state for cell in live.run.cells}
    if "cancelled" in states:
        return "cancelled"
    return "failed" if states == {"failed"} else "done"
