"""Benchmarks: begun, listed, followed, cancelled and deleted; a run needs nobody who follows it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import FastAPI, Query, Response

from footplate_daemon import wire_benchmarks as wire
from footplate_daemon.benchmarks.keeper import Benchmarks
from footplate_daemon.http.control.parts import ControlParts, Number
from footplate_daemon.http.control.streams import event, event_stream

Limit = Annotated[int, Query(ge=1, le=1000)]
Below = Annotated[int | None, Query(ge=1, le=2**63 - 1)]
CellNumber = Annotated[int | None, Query(ge=0, le=2**31 - 1)]


def benchmark_routes(app: FastAPI, parts: ControlParts) -> None:
    """Add the routes about benchmarks."""
    benchmarks = parts.benchmarks

    @app.post("/api/v1/benchmark", status_code=202)
    async def start(wish: wire.BenchmarkWish) -> wire.BenchmarkRun:
        return await benchmarks.start(wish)

    @app.get("/api/v1/benchmark")
    async def runs(
        limit: Limit = 50, before: Below = None, purpose: wire.Purpose | None = None
    ) -> wire.BenchmarkPage:
        return await benchmarks.list(limit, before, purpose)

    @app.get("/api/v1/benchmark/{run_id}", response_model=wire.BenchmarkRun)
    async def run(run_id: Number, records: bool = False, cell: CellNumber = None) -> Response:
        found = await benchmarks.get(run_id, records=records, cell=cell)
        # In a thread: with its records it may be long, and another run may be measured meanwhile.
        return Response(await asyncio.to_thread(found.model_dump_json), media_type="application/json")

    @app.get("/api/v1/benchmark/{run_id}/events")
    async def events(run_id: Number) -> Response:
        await benchmarks.get(run_id)
        return event_stream(_events(benchmarks, run_id), parts.closing)

    @app.post("/api/v1/benchmark/{run_id}/cancel")
    async def cancel(run_id: Number) -> wire.BenchmarkRun:
        return await benchmarks.cancel(run_id)

    @app.delete("/api/v1/benchmark/{run_id}", status_code=204)
    async def delete(run_id: Number) -> None:
        await benchmarks.delete(run_id)


async def _events(benchmarks: Benchmarks, run_id: int) -> AsyncIterator[bytes]:
    number = 0
    async for change in benchmarks.follow(run_id):
        number += 1
        yield event("point" if isinstance(change, wire.LivePoint) else "run", str(number), change)
