"""A real server in the test's loop, and clients that speak to it in raw bytes."""

import asyncio
import json
import shutil
import socket
import ssl
import struct
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from footplate_daemon.http.server import Handler, Limits, Server

QUICK = Limits(goodbye_seconds=0.2, linger_seconds=0.5, sweep_seconds=0.05)
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    """What a client makes of the bytes it got."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> Any:
        """The error in our one shape."""
        error = json.loads(self.body)["error"]
        assert {"message", "type", "code", "param", "hint"} <= error.keys()
        return error


class Client:
    """One connection, on a socket of its own."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._loop = asyncio.get_running_loop()
        self._unread = b""

    @classmethod
    async def connect(cls, address: Path | tuple[str, int]) -> "Client":
        family = socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET
        connected = socket.socket(family, socket.SOCK_STREAM)
        connected.setblocking(False)
        client = cls(connected)
        place = str(address) if isinstance(address, Path) else address
        try:
            await client._loop.sock_connect(connected, place)
        except OSError:
            connected.close()
            raise
        return client

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.socket, data)

    async def send_in_pieces(self, pieces: list[bytes]) -> None:
        """Send each for itself, with time for the server to read it."""
        for piece in pieces:
            await self.send(piece)
            for _ in range(3):
                await asyncio.sleep(0)

    async def ask(self, data: bytes, *, head_only: bool = False) -> Answer:
        await self.send(data)
        return await self.answer(head_only=head_only)

    async def answer(self, *, head_only: bool = False) -> Answer:
        """Read one answer; those that only say "go on" are passed over."""
        head = await self.until(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        status = int(first.split(" ")[1])
        if status == 100:
            return await self.answer(head_only=head_only)
        headers = dict(line.split(": ", 1) for line in lines)
        if head_only or status in {204, 304}:
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            return Answer(status, headers, b"".join([piece async for piece in self.chunks()]))
        if "content-length" in headers:
            return Answer(status, headers, await self.exactly(int(headers["content-length"])))
        return Answer(status, headers, await self.rest())

    async def answers(self) -> list[Answer]:
        """Read every answer until the server closes."""
        found = []
        while not await self.is_over():
            found.append(await self.answer())
        return found

    async def chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self.until(b"\r\n"), 16):
            yield (await self.exactly(size + 2))[:-2]
        await self.exactly(2)

    async def until(self, mark: bytes) -> bytes:
        while mark not in self._unread:
            await self._read_more()
        found, _, self._unread = self._unread.partition(mark)
        return found + mark

    async def exactly(self, size: int) -> bytes:
        pieces, missing = [self._unread], size - len(self._unread)
        while missing > 0:
            pieces.append(await self._read())
            if not pieces[-1]:
                raise EOFError
            missing -= len(pieces[-1])
        whole = b"".join(pieces)
        self._unread = whole[size:]
        return whole[:size]

    async def is_over(self) -> bool:
        """Whether the server has closed; until then wait for what it sends, a "go on" passed over."""
        while True:
            self._unread = self._unread.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
            if self._unread and not b"HTTP/1.1 100 Continue\r\n\r\n".startswith(self._unread):
                return False
            try:
                await self._read_more()
            except EOFError:
                return True

    async def rest(self) -> bytes:
        """Read until the server closes."""
        pieces = [self._unread]
        self._unread = b""
        while pieces[-1] or len(pieces) == 1:
            pieces.append(await self._read())
        return b"".join(pieces)

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Leave without a word; on a Unix socket that is to close."""
        if self.socket.family == socket.AF_INET:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    async def _read_more(self) -> None:
        data = await self._read()
        if not data:
            raise EOFError
        self._unread += data

    async def _read(self) -> bytes:
        try:
            return await self._loop.sock_recv(self.socket, 1 << 20)
        except ConnectionError:
            return b""


@dataclass
class Served:
    """A server that is up."""

    server: Server
    unix: Path
    tcp: tuple[str, int]
    running: "asyncio.Task[None]"
    _clients: list[Client] = field(default_factory=list)

    async def client(self, kind: str = "unix") -> Client:
        """Connect to it by `unix` or `tcp`."""
        client = await Client.connect(self.unix if kind == "unix" else self.tcp)
        self._clients.append(client)
        return client

    async def all_left(self) -> None:
        """Return when the server has no connection any more."""
        await until(lambda: not self.server.connections)

    async def has_room(self) -> None:
        """Check that it still answers: whatever was sent to it before."""
        client = await self.client()
        assert (await client.ask(GET)).status == 200
        client.close()

    def close_clients(self) -> None:
        for client in self._clients:
            client.close()


async def until(condition: Callable[[], object]) -> None:
    """Wait for what nobody announces; the test's own time limit ends it."""
    while not condition():  # noqa: ASYNC110 - nobody sets an event
        await asyncio.sleep(0.002)


@asynccontextmanager
async def serving(
    handler: Handler, limits: Limits = QUICK, tls: ssl.SSLContext | None = None, **changed: Any
) -> AsyncIterator[Served]:
    """Serve by a Unix socket and TCP; at the end, no connection and no task may be left."""
    before = asyncio.all_tasks()
    folder = Path(tempfile.mkdtemp(prefix="fp", dir="/tmp"))
    server = Server(replace(limits, **changed))
    local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    local.bind(str(folder / "s"))
    local.listen()
    running = asyncio.get_running_loop().create_task(server.serve(local, handler))
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    await server.listen(listener, handler, tls)
    served = Served(server, folder / "s", address, running)
    try:
        async with asyncio.timeout(30):
            yield served
            served.close_clients()
            server.stop()
            await served.running
    finally:
        served.close_clients()
        running.cancel()
        await asyncio.wait([running])
        shutil.rmtree(folder)
    await until(lambda: not server.connections)
    assert asyncio.all_tasks() - before == set()
