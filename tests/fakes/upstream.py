"""A server elsewhere, played by the test: it keeps what it is asked, and answers what the test says.

Lists one model. What it does not do: read a request beyond its length, check a key, or stream as it goes.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any


class FakeUpstream:
    """Speaks HTTP/1.1 on loopback, a connection for each request."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.port = 0
        self.asked: list[tuple[str, dict[str, Any]]] = []
        """Path and body of every POST, the oldest first."""
        self.hangs_up = 0
        """So many POSTs from now on get no byte of an answer."""
        self.status = 200
        self.answer: Any = message("Dobrze.")
        """What every POST gets: bytes as a stream, anything else as JSON."""

    @property
    def newest(self) -> dict[str, Any]:
        """The body of the last request."""
        return self.asked[-1][1]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, path, _ = head.split(" ", 2)
            status, said = 200, self._listing()
            if method == "POST":
                self.asked.append((path, json.loads(await reader.readexactly(_length(head)))))
                status, said = self.status, self.answer
                if self.hangs_up:
                    self.hangs_up -= 1
                    return
            kind = "text/event-stream" if isinstance(said, bytes) else "application/json"
            body = said if isinstance(said, bytes) else json.dumps(said).encode()
            writer.write(
                f"HTTP/1.1 {status} Said\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
                f"connection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        finally:
            writer.close()

    def _listing(self) -> dict[str, Any]:
        return {"object": "list", "data": [{"id": self.model, "object": "model"}]}


@asynccontextmanager
async def open_upstream(model: str) -> AsyncIterator[FakeUpstream]:
    """Serve until the end of the block."""
    upstream = FakeUpstream(model)
    async with await asyncio.start_server(upstream.serve, "127.0.0.1", 0) as server:
        upstream.port = server.sockets[0].getsockname()[1]
        yield upstream


def message(content: str, finish_reason: str = "stop", **more: Any) -> dict[str, Any]:
    """Give a chat completion."""
    said = {"role": "assistant", "content": content, **more}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "far",
        "choices": [{"index": 0, "message": said, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 8, "total_tokens": 13},
    }


def _length(head: str) -> int:
    lines = (line.partition(":") for line in head.splitlines())
    return next(int(value) for name, _, value in lines if name.lower() == "content-length")
