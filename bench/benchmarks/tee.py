"""A server between two clients and one engine: both ask the same, it answers once, both hear it at once.

    python -m bench.benchmarks.tee PORT [KEY]

Listens on a port of the loopback that the system chooses, and writes it to stdout. A chat waits until the
same question came a second time; then it is asked of the engine on PORT, and every piece of the answer goes
to both as it comes. So two clients can be compared whatever else the machine does. All other calls pass
through.
"""

import asyncio
import json
import sys
from typing import Any

import uvloop

from footplate_daemon.gateway.upstream import Upstream

_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
LIMIT = 1024 * 1024


class Tee:
    """Answers pairs."""

    def __init__(self, engine: Upstream) -> None:
        self._engine = engine
        self._first: dict[str, tuple[asyncio.StreamWriter, asyncio.Event]] = {}
        """Who waits for the second to ask a question."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                method, path, _ = head.split(" ", 2)
                body = await reader.readexactly(_length(head))
                if path.endswith("/chat/completions"):
                    await self._chat(path, body, writer)
                else:
                    await self._pass(method, path, body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _chat(self, path: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        question = json.loads(body)["messages"][-1]["content"]
        there = self._first.pop(question, None)
        if there is None:
            answered = asyncio.Event()
            self._first[question] = (writer, answered)
            await answered.wait()
            return
        other, answered = there
        both = (writer, other)

        def send(piece: bytes) -> None:
            for each in both:
                each.write(b"%x\r\n%b\r\n" % (len(piece), piece))

        async with await self._engine.post(path, body, "tee") as response:
            for each in both:
                each.write(_HEAD)
            await response.relay(send)
        for each in both:
            each.write(b"0\r\n\r\n")
        answered.set()

    async def _pass(self, method: str, path: str, asked: bytes, writer: asyncio.StreamWriter) -> None:
        headers = [(b"content-type", b"application/json")]
        async with await self._engine.request(method, path, headers, asked) as response:
            body = await response.read(LIMIT)
        head = f"HTTP/1.1 {response.status} Said\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)


def _length(head: str) -> int:
    lines = (line.partition(":") for line in head.splitlines())
    return next((int(value) for name, _, value in lines if name.lower() == "content-length"), 0)


async def _main(arguments: list[str]) -> None:
    key: Any = arguments[1] if len(arguments) > 1 else None
    tee = Tee(Upstream("127.0.0.1", int(arguments[0]), api_key=key))
    async with await asyncio.start_server(tee.serve, "127.0.0.1", 0) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1:]))
