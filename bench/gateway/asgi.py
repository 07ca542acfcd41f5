"""The least that a gateway written in Python with ASGI can be: bytes from one connection to the other.

    BENCH_UPSTREAM_PORT=8100 python -m uvicorn bench.gateway.asgi:app

No ledger, no queue, no limits; it does not notice that a client has left. A reference, not a gateway.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from bench.gateway import chunked

PORT = int(os.environ["BENCH_UPSTREAM_PORT"])

Message = MutableMapping[str, Any]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_idle: list[Streams] = []


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    if scope["type"] != "http":
        return
    body = await _whole_body(receive)
    reader, writer = _idle.pop() if _idle else await asyncio.open_connection("127.0.0.1", PORT)
    head = b"%s %s HTTP/1.1\r\nHost: upstream\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    writer.write(head % (scope["method"].encode(), scope["raw_path"], len(body)) + body)
    lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
    headers = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines[1:-2])]
    kept = [(name, value) for name, value in headers if name != b"transfer-encoding"]
    await send({"type": "http.response.start", "status": int(lines[0][9:12]), "headers": kept})
    length = dict(headers).get(b"content-length")
    if length is None:
        async for piece in _pieces(reader):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})
    else:
        await send({"type": "http.response.body", "body": await reader.readexactly(int(length))})
    _idle.append((reader, writer))


async def _whole_body(receive: Callable[[], Awaitable[Message]]) -> bytes:
    pieces, has_more = [], True
    while has_more:
        message = await receive()
        pieces.append(message.get("body", b""))
        has_more = message.get("more_body", False)
    return b"".join(pieces)


async def _pieces(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Give a chunked body, as many of its pieces at a time as have come."""
    received = b""
    is_over = False
    while not is_over:
        chunks, received = chunked.take(received + await reader.read(65536))
        is_over = b"" in chunks
        if whole := b"".join(chunks):
            yield whole
