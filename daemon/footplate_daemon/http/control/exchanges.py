"""The ledger: exchanges that passed and those under way; cancel one, ask one again."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Request, Response

from footplate_daemon import wire
from footplate_daemon.errors import Unavailable
from footplate_daemon.gateway import reading
from footplate_daemon.gateway.ledger import Ledger
from footplate_daemon.http.control.parts import ControlParts, Number
from footplate_daemon.http.control.streams import event, event_stream

T = TypeVar("T")

Filter = Annotated[wire.ExchangeFilter, Query()]


def exchange_routes(app: FastAPI, parts: ControlParts) -> None:
    """Add the routes about exchanges."""
    ledger = parts.ledger

    @app.get("/api/v1/exchanges")
    async def exchanges(wanted: Filter) -> dict[str, list[wire.Exchange]]:
        return {"exchanges": [reading.row(exchange) for exchange in await ledger.find(wanted)]}

    @app.get("/api/v1/exchanges/follow")
    async def follow(wanted: Filter) -> Response:
        return event_stream(_events(ledger, wanted), parts.closing)

    @app.get("/api/v1/exchanges/{exchange_id}")
    async def exchange(exchange_id: Number) -> wire.ExchangeWhole:
        return await asyncio.to_thread(reading.whole, await ledger.get(exchange_id))

    @app.post("/api/v1/exchanges/{exchange_id}/cancel")
    async def cancel(exchange_id: Number) -> wire.Exchange:
        return reading.row(await ledger.cancel(exchange_id))

    @app.post("/api/v1/exchanges/{exchange_id}/replay")
    async def replay(
        request: Request, exchange_id: Number, runtime: str | None = None, variant: str | None = None
    ) -> wire.Replay:
        return await _unless_left(request, parts.replay(exchange_id, runtime, variant))


async def _events(ledger: Ledger, wanted: wire.ExchangeFilter) -> AsyncIterator[bytes]:
    async for exchange in ledger.follow(wanted):
        yield event("exchange", str(exchange.id), reading.row(exchange))


async def _unless_left(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do what a client waits for; cancel it when the client leaves."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Unavailable("The client has left.")
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.wait({working, leaving})


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
