"""A model server that costs next to nothing, so that what is measured is what stands before it.

    python -m bench.gateway.upstream

Listens on a port of the loopback that the system chooses, and writes it to stdout. Speaks as much of OpenAI's
API as a chat needs: `max_tokens` is the number of chunks; `seed` is the number of milliseconds before each of
them, before the first too, or before an answer that is no stream (0: everything at once). A question that
begins with `mark ` is noted: `GET /marks/<mark>` tells when it came, and when its connection ended before its
answer. (It is in the question because not every gateway passes every other field on.)
Times are of the machine's monotonic clock, which every process shares.
"""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, cast

import uvloop

MODEL = "fake"
TOKEN = b'" token"'
"""What every piece of text looks like, quotes and all."""
MARKED = "mark "
_HEAD = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_USAGE = {"prompt_tokens": 8, "completion_tokens": 16, "total_tokens": 24}

Marks = dict[str, dict[str, float | None]]


def main() -> None:
    uvloop.run(serve())


async def serve() -> None:
    marks: Marks = {}
    server = await asyncio.get_running_loop().create_server(
        lambda: Upstream(marks), "127.0.0.1", 0, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Upstream(asyncio.Protocol):
    """One connection: requests with a Content-Length, one after the other."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._mark = ""
        """Of the request that is being answered."""
        self._received = b""
        self._chunks_left = 0
        self._gap_seconds = 0.0
        self._ending = b""
        self._may_write = True
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's class.
        self._transport = cast("asyncio.Transport", transport)
        self._loop = asyncio.get_running_loop()

    def connection_lost(self, _error: Exception | None) -> None:
        self._chunks_left = 0
        if self._timer is not None:
            self._timer.cancel()
        if self._mark:
            self._marks[self._mark]["left_at"] = time.monotonic()

    def pause_writing(self) -> None:
        self._may_write = False

    def resume_writing(self) -> None:
        self._may_write = True
        if self._chunks_left and not self._gap_seconds:
            self._pour()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, rest = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = _content_length(head)
        if len(rest) >= length:
            self._received = rest[length:]
            method, path, _ = head.split(b" ", 2)
            self._answer(method, path, rest[:length])

    def _answer(self, method: bytes, path: bytes, body: bytes) -> None:
        if method == b"POST" and path.endswith(b"/chat/completions"):
            self._chat(json.loads(body))
        elif path.endswith(b"/models"):
            model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "bench"}
            self._write(_whole({"object": "list", "data": [model]}))
        elif path.startswith(b"/marks/"):
            self._write(_whole(self._marks.get(path.removeprefix(b"/marks/").decode(), {})))
        else:
            self._write(_whole({"error": {"message": "not found"}}, b"404 Not Found"))

    def _chat(self, asked: dict[str, Any]) -> None:
        self._gap_seconds = (asked.get("seed") or 0) / 1000
        self._next_at = self._loop.time()
        question = asked["messages"][-1]["content"]
        self._mark = question.removeprefix(MARKED) if question.startswith(MARKED) else ""
        if self._mark:
            self._marks[self._mark] = {"arrived_at": time.monotonic(), "left_at": None}
        if asked.get("stream"):
            self._chunks_left = asked.get("max_tokens") or 16
            options = asked.get("stream_options") or {}
            self._ending = _ENDING_WITH_USAGE if options.get("include_usage") else _ENDING
            self._begin()
        else:
            self._ending = _COMPLETION
            self._after_gap(self._end)

    def _begin(self) -> None:
        if self._gap_seconds:
            self._after_gap(self._begin_paced)
        else:
            self._write(_STREAM_HEAD + _ROLE)
            self._pour()

    def _begin_paced(self) -> None:
        self._write(_STREAM_HEAD + _ROLE)
        self._tick()

    def _tick(self) -> None:
        self._write(_CHUNK)
        self._chunks_left -= 1
        if self._chunks_left:
            self._after_gap(self._tick)
        else:
            self._end()

    def _after_gap(self, then: Callable[[], None]) -> None:
        """Go on a gap after the last time, not after now: what is late catches up."""
        if not self._gap_seconds:
            then()
            return
        self._next_at += self._gap_seconds
        self._timer = self._loop.call_at(self._next_at, then)

    def _pour(self) -> None:
        """Write chunks, each on its own, for as long as they are taken."""
        while self._chunks_left and self._may_write:
            self._write(_CHUNK)
            self._chunks_left -= 1
        if not self._chunks_left:
            self._end()

    def _end(self) -> None:
        self._mark = ""
        self._write(self._ending)

    def _write(self, data: bytes) -> None:
        self._transport.write(data)


def _content_length(head: bytes) -> int:
    lines = head.lower().split(b"\r\n")
    return next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")), 0)


def _whole(body: Any, status: bytes = b"200 OK") -> bytes:
    payload = json.dumps(body, separators=(",", ":")).encode()
    return _HEAD % (status, len(payload)) + payload


def _event(choices: list[dict[str, Any]], **more: Any) -> bytes:
    """Give one event of a stream, as a piece of a chunked body."""
    named = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": MODEL}
    return _piece(json.dumps({**named, "choices": choices, **more}, separators=(",", ":")).encode())


def _piece(data: bytes) -> bytes:
    line = b"data: %s\n\n" % data
    return b"%x\r\n%s\r\n" % (len(line), line)


def _choice(delta: dict[str, str], finish_reason: str | None = None) -> list[dict[str, Any]]:
    return [{"index": 0, "delta": delta, "finish_reason": finish_reason}]


_ROLE = _event(_choice({"role": "assistant", "content": ""}))
_CHUNK = _event(_choice({"content": " token"}))
_LAST = _event(_choice({}, "stop"))
_DONE = _piece(b"[DONE]") + b"0\r\n\r\n"
_ENDING = _LAST + _DONE
_ENDING_WITH_USAGE = _LAST + _event([], usage=_USAGE) + _DONE
_COMPLETION = _whole(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": " token"},
                "finish_reason": "stop",
            }
        ],
        "usage": _USAGE,
    }
)


if __name__ == "__main__":
    main()
