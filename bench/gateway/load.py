"""The client: keep-alive connections that ask as fast as they are answered, and readers that hardly read.

A protocol of its own on uvloop, because any client library would cost more than what is measured.
"""

import asyncio
import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count, repeat
from typing import cast

from bench.box import PATIENCE_SECONDS
from bench.gateway import chunked
from bench.gateway.upstream import MARKED, MODEL, TOKEN

_TAIL_BYTES = len(TOKEN) - 1
"""What is looked at again with the next bytes: a token may begin in one piece and end in the next."""
RETRY_SECONDS = 0.05
SLOW_READ_BYTES = 4096
SLOW_READ_SECONDS = 0.25


@dataclass
class Target:
    """What is asked, and whose CPU time and memory that costs."""

    name: str
    address: tuple[str, int] | str
    """A port of the loopback, or a Unix socket's path."""
    key: str | None = None
    pid: int | None = None
    """None for the upstream itself."""
    asked: int = 0
    """How many requests were sent to it."""


@dataclass(frozen=True)
class Question:
    """One chat request, told in the upstream's terms."""

    chunks: int = 1
    streamed: bool = True
    gap_ms: int = 0
    mark: str = ""

    def request(self, target: Target) -> bytes:
        """Give it as bytes for a connection that stays open."""
        text = MARKED + self.mark if self.mark else "x" * 200
        asked: dict[str, object] = {
            "model": MODEL,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": self.chunks,
            "stream": self.streamed,
        }
        if self.gap_ms:
            asked["seed"] = self.gap_ms
        body = json.dumps(asked).encode()
        authorization = f"Authorization: Bearer {target.key}\r\n" if target.key else ""
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n"
            f"{authorization}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


@dataclass(slots=True)
class Answer:
    """What came back."""

    status: int
    chunks: int
    first_text_seconds: float
    gaps: list[float]
    """Seconds between two chunks of text; 0 for those that came together."""


@dataclass
class Work:
    """What many requests came to."""

    answered: int = 0
    failed: int = 0
    chunks: int = 0
    seconds: float = 0.0
    first_text: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)


GoesOn = Callable[[], bool]
"""Asked before each request whether to send it."""


def for_seconds(seconds: float) -> GoesOn:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() < end


def times(requests: int) -> GoesOn:
    numbers = count()
    return lambda: next(numbers) < requests


async def drive(
    target: Target, question: Question, connections: int, goes_on: GoesOn, *, apart_seconds: float = 0.0
) -> Work:
    """Ask over so many connections, which begin so far apart, until `goes_on` says no."""
    work = Work()
    began = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
            for number in range(connections):
                tasks.create_task(_keep_asking(target, question, goes_on, work, number * apart_seconds))
    except TimeoutError:
        raise SystemExit(f"{target.name} does not come to an end.") from None
    work.seconds = time.monotonic() - began
    return work


async def _keep_asking(
    target: Target, question: Question, goes_on: GoesOn, work: Work, delay_seconds: float
) -> None:
    await asyncio.sleep(delay_seconds)
    request = question.request(target)
    connection: Connection | None = None
    while goes_on():
        try:
            if connection is None or connection.is_closed:
                connection = await connect(target)
            target.asked += 1
            answer = await connection.ask(request)
        except OSError:
            work.failed += 1
            connection = None
            await asyncio.sleep(RETRY_SECONDS)
        else:
            _count(work, answer, question)
    if connection is not None:
        connection.close()


def _count(work: Work, answer: Answer, question: Question) -> None:
    if answer.status != 200 or answer.chunks != (question.chunks if question.streamed else 1):
        work.failed += 1
        return
    work.answered += 1
    work.chunks += answer.chunks
    work.first_text.append(answer.first_text_seconds)
    work.gaps += answer.gaps


async def connect(target: Target) -> "Connection":
    loop = asyncio.get_running_loop()
    if isinstance(target.address, str):
        return (await loop.create_unix_connection(Connection, target.address))[1]
    return (await loop.create_connection(Connection, *target.address))[1]


class Connection(asyncio.Protocol):
    """One connection that stays open; one request at a time."""

    def __init__(self) -> None:
        self.is_closed = False
        self._waiter: asyncio.Future[Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's class.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_closed = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectionResetError(str(error or "closed before the end")))

    def close(self) -> None:
        self._transport.close()

    def ask(self, request: bytes) -> "asyncio.Future[Answer]":
        """Send a request; its answer is there when it has come to its end. Fails with `OSError`."""
        self._waiter = asyncio.get_running_loop().create_future()
        self._answer = Answer(0, 0, 0.0, [])
        self._head = b""
        self._rest = b""
        """Of a chunk that is not whole yet."""
        self._tail = b""
        self._bytes_left: int | None = None
        self._last_text_at = 0.0
        self._asked_at = time.monotonic()
        self._transport.write(request)
        return self._waiter

    def data_received(self, data: bytes) -> None:
        if self._waiter is None or self._waiter.done():
            return
        if not self._answer.status:
            self._head += data
            head, separator, data = self._head.partition(b"\r\n\r\n")
            if not separator:
                return
            self._answer.status = int(head[9:12])
            self._bytes_left = _content_length(head)
        self._take(data)

    def _take(self, data: bytes) -> None:
        """Count the tokens in a part of the body, and see whether it was the last one."""
        if self._bytes_left is None:
            chunks, self._rest = chunked.take(self._rest + data)
            data = b"".join(chunks)
            is_over = b"" in chunks
        else:
            self._bytes_left -= len(data)
            is_over = self._bytes_left <= 0
        seen = self._tail + data
        if tokens := seen.count(TOKEN):
            self._note_text(tokens)
        self._tail = seen[-_TAIL_BYTES:]
        if is_over:
            assert self._waiter is not None
            self._waiter.set_result(self._answer)

    def _note_text(self, chunks: int) -> None:
        at = time.monotonic()
        answer = self._answer
        if answer.chunks:
            answer.gaps.append(at - self._last_text_at)
        else:
            answer.first_text_seconds = at - self._asked_at
        answer.gaps.extend(repeat(0.0, chunks - 1))
        answer.chunks += chunks
        self._last_text_at = at


def _content_length(head: bytes) -> int | None:
    """Give the length of a body; None if it is chunked."""
    lines = head.lower().split(b"\r\n")
    return next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")), None)


@dataclass
class SlowReaders:
    """Streams that are read at some kilobytes a second, however much there is to read."""

    target: Target
    question: Question
    amount: int
    streaming: int = 0
    """How many of them are being served."""
    answered: int = 0
    all_answered: asyncio.Event = field(default_factory=asyncio.Event)
    """Whether each has got something, or nothing more to hope for."""

    async def read(self) -> None:
        """Read one of them, until cancelled."""
        loop = asyncio.get_running_loop()
        is_served = False
        with _small_socket(self.target) as connection:
            self.target.asked += 1
            try:
                await loop.sock_sendall(connection, self.question.request(self.target))
                is_served = (await loop.sock_recv(connection, SLOW_READ_BYTES)).startswith(b"HTTP/1.1 200 ")
                self._note_answered(is_served)
                is_open = is_served
                while is_open:
                    await asyncio.sleep(SLOW_READ_SECONDS)
                    is_open = bool(await loop.sock_recv(connection, SLOW_READ_BYTES))
            except OSError:
                if not is_served:
                    self._note_answered(is_served=False)
            self.streaming -= is_served

    def _note_answered(self, is_served: bool) -> None:
        self.streaming += is_served
        self.answered += 1
        if self.answered == self.amount:
            self.all_answered.set()


def _small_socket(target: Target) -> socket.socket:
    """Connect with a small receive buffer: the kernel is not to read in the reader's place."""
    family = socket.AF_UNIX if isinstance(target.address, str) else socket.AF_INET
    connection = socket.socket(family)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * SLOW_READ_BYTES)
    connection.connect(target.address)
    connection.setblocking(False)
    return connection
