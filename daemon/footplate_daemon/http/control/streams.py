"""Server-sent events of the control face."""

import asyncio
from collections.abc import AsyncIterator

from fastapi.responses import StreamingResponse
from pydantic import BaseModel

HEARTBEAT_SECONDS = 15.0
"""A comment is sent on a stream that is silent for so long, so that a dead connection is noticed."""


async def numbered(name: str, snapshots: AsyncIterator[BaseModel]) -> AsyncIterator[bytes]:
    """Make events of snapshots, numbered from 1."""
    number = 0
    async for snapshot in snapshots:
        number += 1
        yield event(name, str(number), snapshot)


def event(name: str, event_id: str, shape: BaseModel) -> bytes:
    """Write one event."""
    return f"id: {event_id}\nevent: {name}\ndata: {shape.model_dump_json()}\n\n".encode()


def event_stream(events: AsyncIterator[bytes], closing: asyncio.Event) -> StreamingResponse:
    """Answer with events until they end or `closing` is set; a comment now and then shows it is alive."""
    return StreamingResponse(
        _with_heartbeat(events, closing),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache"},
    )


async def _with_heartbeat(events: AsyncIterator[bytes], closing: asyncio.Event) -> AsyncIterator[bytes]:
    yield b": following\n\n"  # the head of the answer goes with the first words
    coming = asyncio.ensure_future(_next(events))
    ending = asyncio.ensure_future(closing.wait())
    try:
        while not ending.done():
            done, _ = await asyncio.wait(
                {coming, ending}, timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                yield b": still here\n\n"
                continue
            event = coming.result() if coming in done else None
            if event is None:
                return
            yield event
            coming = asyncio.ensure_future(_next(events))
    finally:
        for task in (coming, ending):
            task.cancel()
        await asyncio.wait({coming, ending})


async def _next(events: AsyncIterator[bytes]) -> bytes | None:
    return await anext(events, None)
