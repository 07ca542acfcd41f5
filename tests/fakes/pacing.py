"""A model server that keeps to a pace: a first token after so long, the others so long apart.

    python -m tests.fakes.pacing --ttft-ms 200 --itl-ms 20

Listens on a port of the loopback that the system chooses, and writes it to stdout. The text of each event is
the time that really passed before it, in ms, since the request or since the event before: what a client
measures can be compared with that. `max_tokens` is the number of tokens. What it does not do: generate, check
a key, or heed any other parameter.
"""

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

MODEL = "pacing"
_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)


@dataclass
class Pace:
    """How fast it answers."""

    ttft_ms: float = 0.0
    itl_ms: float = 0.0
    tokens_per_event: int = 1
    status: int = 200
    """Of answers to chats: anything else than 200 is an error."""
    cut_after: int | None = None
    """Events after which it closes the connection."""
    held_after: int | None = None
    """Chats after which none is answered any more."""


class PacingUpstream:
    """Speaks HTTP/1.1 on loopback; connections are kept."""

    def __init__(self, pace: Pace | None = None) -> None:
        self.pace = pace or Pace()
        self.port = 0
        self.asked: list[dict[str, Any]] = []
        """The body of every chat, the oldest first."""
        self.running = 0
        self.most_running = 0
        """At one time."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                received_at = time.perf_counter()
                body = await reader.readexactly(_length(head))
                if head.startswith("POST"):
                    await self._chat(json.loads(body), writer, received_at)
                else:
                    listing = {"object": "list", "data": [{"id": MODEL, "object": "model"}]}
                    writer.write(_whole(200, listing))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _chat(self, body: dict[str, Any], writer: asyncio.StreamWriter, received_at: float) -> None:
        self.asked.append(body)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if self.pace.held_after is not None and len(self.asked) > self.pace.held_after:
                await asyncio.get_running_loop().create_future()
            elif self.pace.status == 200:
                await self._stream(body, writer, received_at)
            else:
                writer.write(_whole(self.pace.status, {"error": {"message": "It was told to fail."}}))
        finally:
            self.running -= 1

    async def _stream(self, body: dict[str, Any], writer: asyncio.StreamWriter, received_at: float) -> None:
        pace, count = self.pace, int(body.get("max_tokens") or 16)
        before, due = received_at, received_at + pace.ttft_ms / 1000
        writer.write(_HEAD)
        for number in range(count):
            await _until(due)
            if number == pace.cut_after:
                return writer.transport.abort()
            now = time.perf_counter()
            text = f"{(now - before) * 1000:.4f} "
            writer.write(_event([{"index": 0, "delta": {"content": text}, "finish_reason": None}]))
            before, due = now, due + pace.itl_ms / 1000
        writer.write(_event([{"index": 0, "delta": {}, "finish_reason": "length"}]))
        tokens = count * pace.tokens_per_event
        usage = {"prompt_tokens": 8, "completion_tokens": tokens, "total_tokens": 8 + tokens}
        writer.write(_event([], usage) + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        return None


@asynccontextmanager
async def open_pacing(pace: Pace | None = None) -> AsyncIterator[PacingUpstream]:
    """Serve until the end of the block."""
    upstream = PacingUpstream(pace)
    async with await asyncio.start_server(upstream.serve, "127.0.0.1", 0) as server:
        upstream.port = server.sockets[0].getsockname()[1]
        yield upstream


async def _until(due: float) -> None:
    """Sleep until shortly before, then look again and again: a timer alone is late by up to a millisecond."""
    while (left := due - time.perf_counter()) > 0:  # noqa: ASYNC110 - it is time that is waited for
        await asyncio.sleep(left - 0.001 if left > 0.0015 else 0)


def _event(choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
    chunk: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": MODEL,
    }
    chunk |= {"choices": choices, **({"usage": usage} if usage else {})}
    return _chunk(b"data: %b\n\n" % json.dumps(chunk).encode())


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _whole(status: int, value: Any) -> bytes:
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _length(head: str) -> int:
    lines = (line.partition(":") for line in head.splitlines())
    return next((int(value) for name, _, value in lines if name.lower() == "content-length"), 0)


async def _main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ttft-ms", type=float, default=200)
    parser.add_argument("--itl-ms", type=float, default=20)
    options = parser.parse_args()
    async with open_pacing(Pace(options.ttft_ms, options.itl_ms)) as upstream:
        print(upstream.port, flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(_main())
