"""Batches, for control: how they go, the failed lines once more, two of them side by side."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import FastAPI, Query, Response

from footplate_daemon import wire_batches
from footplate_daemon.batches.comparing import compare
from footplate_daemon.batches.keeper import Batches
from footplate_daemon.batches.retrying import retry_failed
from footplate_daemon.batches.shapes import Shower, batch_shape
from footplate_daemon.http.control.parts import ControlParts
from footplate_daemon.http.control.streams import event, event_stream
from footplate_daemon.store.files import Owner

SHOWN_EVERY_SECONDS = 0.5
OWNER = Owner("", by_key=False)
"""Who may open the socket sees the batches of everybody."""

Limit = Annotated[int, Query(ge=1, le=500)]
FromLine = Annotated[int, Query(ge=1, le=2**31)]


def batch_routes(app: FastAPI, parts: ControlParts) -> None:
    """Add the routes about batches."""
    batches = parts.batches
    shower = Shower(batches)

    @app.get("/api/v1/batches")
    async def list_batches(limit: Limit = 50) -> wire_batches.BatchProgressList:
        return await _all(batches, shower, limit)

    @app.get("/api/v1/batches/events")
    async def follow_all(limit: Limit = 50) -> Response:
        return event_stream(_events_of_all(batches, shower, limit), parts.closing)

    @app.get("/api/v1/batches/compare")
    async def compare_two(
        first: str, second: str, from_line: FromLine = 1, limit: Limit = 50
    ) -> wire_batches.BatchComparison:
        one, other = await batches.get(first, OWNER), await batches.get(second, OWNER)
        return await compare(batches, one, other, from_line=from_line, limit=limit)

    @app.get("/api/v1/batches/{batch_id}")
    async def progress(batch_id: str) -> wire_batches.BatchProgress:
        return await shower.progress(await batches.get(batch_id, OWNER))

    @app.get("/api/v1/batches/{batch_id}/events")
    async def follow(batch_id: str) -> Response:
        await batches.get(batch_id, OWNER)
        return event_stream(_events_of_one(batches, shower, batch_id), parts.closing)

    @app.post("/api/v1/batches/{batch_id}/retry-failed", status_code=201)
    async def retry(batch_id: str, wish: wire_batches.RetryWish) -> wire_batches.Batch:
        return batch_shape(await retry_failed(batches, batch_id, OWNER, wish))


async def _all(batches: Batches, shower: Shower, limit: int) -> wire_batches.BatchProgressList:
    rows = await batches.store.page(OWNER, limit)
    return wire_batches.BatchProgressList(batches=tuple([await shower.progress(row) for row in rows]))


async def _events_of_all(batches: Batches, shower: Shower, limit: int) -> AsyncIterator[bytes]:
    number = 0
    async for _ in batches.topic.follow(SHOWN_EVERY_SECONDS):
        number += 1
        yield event("batches", str(number), await _all(batches, shower, limit))


async def _events_of_one(batches: Batches, shower: Shower, batch_id: str) -> AsyncIterator[bytes]:
    number = 0
    before: wire_batches.BatchProgress | None = None
    async for _ in batches.topic.follow(SHOWN_EVERY_SECONDS):
        shown = await shower.progress(await batches.get(batch_id, OWNER))
        if shown != before:
            number += 1
            yield event("batch", str(number), shown)
        if shown.batch.status.is_final and batches.live(batch_id) is None:
            return
        before = shown
