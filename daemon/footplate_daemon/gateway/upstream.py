"""The gateway's own HTTP/1.1 client: one engine's address, and pooled connections to it.

Made for the hot path: a body's bytes pass through as they arrive, freed of their framing and
otherwise unread. It knows TCP and HTTP, and nothing of models, JSON or switching.

    Upstream          the pool: who may be asked, over which connection, and whether a second try is safe
    └─ _Connection    one TCP connection: back-pressure both ways, and when it ends
       └─ _Answer     one response as it is parsed: bytes in, head and body pieces out; knows no socket
    Response          what the caller holds
"""

import asyncio
import errno
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Self, cast

import httptools

from footplate_daemon.errors import EngineFailed, FootplateError, Invalid, TimedOut, Unavailable

HIGH_WATER = 256 * 1024
"""Body bytes nobody has taken yet above which we stop reading."""

OVERHEAD_LIMIT = 64 * 1024
"""Bytes of headers, trailers or chunk extensions that an engine may send in a row."""

SLICE = 256 * 1024
"""Bytes of a request's body that are written at once."""

MAX_IDLE = 256
CONNECT_SECONDS = 5.0

Headers = Sequence[tuple[bytes, bytes]]


class Broken(EngineFailed):
    """The connection to an engine broke, or never was: whoever watches the engine knows why."""


class Upstream:
    """One engine's address. Connections are kept and used again, out of the caller's sight."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        api_key: str | None = None,
        name: str | None = None,
        tls: bool = False,
        base_path: str = "",
        max_idle: int = MAX_IDLE,
        connect_seconds: float = CONNECT_SECONDS,
    ) -> None:
        self.name = name or f"The engine on {_authority(host, port)}"
        """How errors call it, e.g. the variant."""
        self._host = host
        self._port = port
        self._own_headers = f"host: {_authority(host, port)}\r\n".encode()
        if api_key is not None:
            self._own_headers += b"authorization: Bearer %b\r\n" % api_key.encode()
        self._heads: dict[str, bytes] = {}
        """For each path that was asked: what all its requests begin with."""
        self._tls = tls
        self._base_path = base_path
        self._max_idle = max_idle
        self._connect_seconds = connect_seconds
        self._idle: list[_Connection] = []
        self._connections: set[_Connection] = set()
        self._connecting = 0
        self._is_closed = False

    async def request(
        self,
        method: str,
        path: str,
        headers: Headers = (),
        body: bytes | AsyncIterator[bytes] = b"",
    ) -> "Response":
        """Send a request and return once the head of its response is there.

        Headers that belong to one connection only, and the client's own keys, are not sent. A body given as
        an iterator is sent as it comes, with the Content-Length among the headers or else chunked.
        A kept connection that the engine closed meanwhile costs nothing: `bytes` are sent once more.

        Raise `Broken` if nobody answers there or the answer breaks off, `TimedOut`, `Invalid`, and
        `EngineFailed` for every answer that is none.
        """
        return await self._send(_request(method, self._base_path + path, headers, body, self._own_headers))

    async def post(self, path: str, body: bytes, request_id: str) -> "Response":
        """Send JSON, as `request` does, with less ado: this is the hot path."""
        head = self._heads.get(path)
        if head is None:
            headers = [(b"content-type", b"application/json")]
            sample = _request("POST", self._base_path + path, headers, b"", self._own_headers)
            head = self._heads[path] = sample.head.removesuffix(b"content-length: 0\r\n\r\n")
        own = b"%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n" % (head, request_id.encode(), len(body))
        return await self._send(_Request(own, body, len(body), is_head=False))

    async def _send(self, request: "_Request") -> "Response":
        connection = self._take_idle() if request.is_replayable else None
        if connection is not None:
            response = await _ask(connection, request, self.name)
            if not response.was_never_begun:
                return response.checked()
        return (await _ask(await self._connect(), request, self.name)).checked()

    async def close(self) -> None:
        """Cut every connection, also those in use; later requests raise `Unavailable`."""
        self._is_closed = True
        ends = [connection.lost for connection in self._connections]
        for connection in list(self._connections):
            connection.abort("was stopped")
        if ends:
            await asyncio.wait(ends)

    @property
    def idle_count(self) -> int:
        """How many connections wait to be used again."""
        return len(self._idle)

    @property
    def busy_count(self) -> int:
        """How many requests are under way, those included for which a connection is being made."""
        return len(self._connections) - len(self._idle) + self._connecting

    def remember(self, connection: "_Connection") -> None:
        """Count a connection that was made."""
        self._connections.add(connection)

    def keep(self, connection: "_Connection") -> None:
        """Take back a connection that is ready for another request."""
        if len(self._idle) < self._max_idle and not self._is_closed:
            self._idle.append(connection)
        else:
            connection.abort()

    def forget(self, connection: "_Connection") -> None:
        """Drop a connection that has ended."""
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def _take_idle(self) -> "_Connection | None":
        """Give the connection that was used last: the least likely to have been closed."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        return None

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        self._connecting += 1
        try:
            async with asyncio.timeout(self._connect_seconds):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self, loop), self._host, self._port, ssl=self._tls or None
                )
        except TimeoutError as error:
            raise TimedOut(
                f"{self.name} did not accept a connection within {self._connect_seconds:g} s."
            ) from error
        except OSError as error:
            if error.errno in {errno.EMFILE, errno.ENFILE}:
                raise Unavailable(
                    "The daemon has too many connections open.",
                    hint="Ask again in a moment, or raise the limit of open files: ulimit -n",
                    retry_after=1,
                ) from error
            raise Broken(
                f"{self.name} cannot be reached on port {self._port}: {_cause(error)}.", retry_after=1
            ) from error
        finally:
            self._connecting -= 1
        if self._is_closed:
            connection.abort()
            raise Unavailable(f"{self.name} is being stopped.", retry_after=1)
        return connection


async def _ask(connection: "_Connection", request: "_Request", name: str) -> "Response":
    """Send a request; return when the head of the answer is there, or never will be."""
    answer = connection.begin(_Answer(has_no_body=request.is_head))
    try:
        if request.is_small:
            connection.write(request, answer)
        else:
            await connection.send(request, answer)
        while not answer.has_head and answer.failure is None:
            await answer.changed()
    except BaseException:
        connection.abort()
        raise
    return Response(name, connection, answer)


class Response:
    """The answer of an engine: its head is here, its body comes by `chunk`, by iteration or by `read`.

    Whoever gets one takes its body to the end or closes it; `async with` does.
    """

    def __init__(self, name: str, connection: "_Connection", answer: "_Answer") -> None:
        self.status = answer.status
        self.headers = answer.headers
        """As the engine sent them, names in lower case."""
        self._name = name
        self._connection = connection
        self._answer = answer

    @property
    def buffered_bytes(self) -> int:
        """Bytes of the body that came and were not taken yet."""
        return self._answer.buffered_bytes

    async def relay(self, sink: Callable[[bytes], None]) -> None:
        """Hand the body on, piece by piece as it comes; return at its end.

        `sink` is called from the connection's own callback: no task has to wake up for a piece. What it
        raises is raised here. Raise `EngineFailed` if the body breaks off. To be cancelled closes the
        connection.
        """
        answer = self._answer
        if answer.buffered_bytes:
            first = answer.take()
            self._connection.read_on(answer)
            sink(first)  # which may pause
        answer.sink = sink
        try:
            while not answer.has_ended:
                await answer.changed()
        except asyncio.CancelledError:
            self._connection.leave(answer)
            raise
        finally:
            answer.sink = None  # it holds us, and we hold the answer
        if answer.sink_error is not None:
            raise answer.sink_error
        if answer.failure is not None:
            raise self._error()

    def pause(self) -> None:
        """Read no more for now."""
        self._connection.pause(self._answer)

    def resume(self) -> None:
        """Read again after `pause`."""
        self._connection.read_on(self._answer)

    @property
    def was_never_begun(self) -> bool:
        """Whether the connection ended before a single byte came."""
        return self._answer.was_never_begun

    def checked(self) -> "Response":
        """Raise `EngineFailed` if there is no head; else give itself."""
        if not self._answer.has_head:
            raise self._error()
        return self

    async def chunk(self) -> bytes:
        """Give what has come since the last call, waiting for something; b"" at the end of the body.

        Raise `EngineFailed` if the body breaks off. To be cancelled here closes the connection.
        """
        answer = self._answer
        while not answer.buffered_bytes:
            if answer.failure is not None:
                raise self._error()
            if answer.is_complete:
                return b""
            try:
                await answer.changed()
            except asyncio.CancelledError:
                self._connection.leave(answer)
                raise
        body = answer.take()
        self._connection.read_on(answer)
        return body

    async def read(self, limit: int) -> bytes:
        """Give the whole body; raise `EngineFailed` if it is longer than `limit` bytes."""
        pieces: list[bytes] = []
        left = limit
        while piece := await self.chunk():
            left -= len(piece)
            if left < 0:
                await self.close()
                raise EngineFailed(f"{self._name} answered with more than {limit} bytes.")
            pieces.append(piece)
        return b"".join(pieces)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        piece = await self.chunk()
        if not piece:
            raise StopAsyncIteration
        return piece

    async def close(self) -> None:
        """Leave. If the response has not ended, its connection does, so that the engine notices at once."""
        self._connection.leave(self._answer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _error(self) -> FootplateError:
        return Broken(f"{self._name} {self._answer.failure}.", hint="The log of the engine may say why.")


_HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)

_OURS = frozenset(
    (
        b"host",
        b"content-length",
        b"expect",
        b"accept-encoding",  # a packed answer could not be watched
        b"authorization",  # keys and cookies are between the client and us
        b"x-api-key",
        b"api-key",
        b"cookie",
    )
)


def end_to_end(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Leave out the headers that are about one connection (RFC 9110, 7.6.1); names in lower case."""
    lowered = [(name.lower(), value) for name, value in headers]
    dropped = _HOP_BY_HOP
    for name, value in lowered:
        if name == b"connection":
            dropped |= {option.strip().lower() for option in value.split(b",")}
    return [pair for pair in lowered if pair[0] not in dropped]


_PATH = re.compile(r"[!-~]+")
_METHOD = re.compile(r"[A-Z]+")


class _Request:
    """A request, ready to be written."""

    __slots__ = ("body", "head", "is_head", "length")

    def __init__(
        self, head: bytes, body: bytes | AsyncIterator[bytes], length: int | None, *, is_head: bool
    ) -> None:
        self.head = head
        self.body = body
        self.length = length
        """None: chunked."""
        self.is_head = is_head

    @property
    def is_small(self) -> bool:
        """Whether it is written at once."""
        return isinstance(self.body, bytes) and len(self.body) <= SLICE

    @property
    def is_replayable(self) -> bool:
        return isinstance(self.body, bytes)

    async def pieces(self) -> AsyncGenerator[bytes | memoryview]:
        """Give the body as it has to be written; raise `Invalid` if it is not as long as announced."""
        if isinstance(self.body, bytes):
            view = memoryview(self.body)
            for start in range(0, len(view), SLICE):
                yield view[start : start + SLICE]
            return
        sent = 0
        async for piece in self.body:
            sent += len(piece)
            if self.length is None and piece:
                yield b"%x\r\n%b\r\n" % (len(piece), piece)
            elif self.length is not None and sent <= self.length:
                yield piece
        if self.length is None:
            yield b"0\r\n\r\n"
        elif sent != self.length:
            raise Invalid(f"The body is {sent} bytes long, its Content-Length says {self.length}.")


def _request(
    method: str, path: str, headers: Headers, body: bytes | AsyncIterator[bytes], own_headers: bytes
) -> _Request:
    """Write the head; raise `Invalid` for what would end up as another request."""
    if not _METHOD.fullmatch(method) or not _PATH.fullmatch(path):
        raise Invalid(f"This cannot be asked of an engine: {method[:20]!r} {path[:200]!r}.")
    length = len(body) if isinstance(body, bytes) else _content_length(headers)
    lines = [b"%b %b HTTP/1.1\r\n" % (method.encode(), path.encode())]
    lines += [b"%b: %b\r\n" % pair for pair in end_to_end(headers) if pair[0] not in _OURS]
    written = b"".join(lines)
    if written.count(b"\n") != len(lines) or written.count(b"\r") != len(lines):
        raise Invalid("A header holds a line break.")
    lines.append(own_headers)
    if length is None:
        lines.append(b"transfer-encoding: chunked\r\n")
    elif length or method in {"POST", "PUT", "PATCH"}:
        lines.append(b"content-length: %d\r\n" % length)
    return _Request(b"".join(lines) + b"\r\n", body, length, is_head=method == "HEAD")


def _content_length(headers: Headers) -> int | None:
    for name, value in headers:
        if name.lower() == b"content-length":
            if not value.isdigit():
                raise Invalid(f"This is no Content-Length: {value[:20]!r}.")
            return int(value)
    return None


_TOO_MUCH = f"sent more than {OVERHEAD_LIMIT // 1024} KiB of headers"


class _Answer:
    """One response as it is parsed. httptools calls the `on_…`; the connection feeds; the caller takes."""

    def __init__(self, *, has_no_body: bool = False) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.has_head = False
        self.is_complete = False
        self.failure: str | None = None
        """What the engine did instead of answering: the rest of a sentence that begins with its name."""
        self.was_never_begun = False
        self.buffered_bytes = 0
        self._has_no_body = has_no_body
        self._pieces: list[bytes] = []
        self._body_bytes = 0
        self._received_bytes = 0
        self._overhead_bytes = 0
        self._header_bytes = 0
        self._keeps_alive = False
        self._ends_with_connection = False
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self.sink: Callable[[bytes], None] | None = None
        """Takes the body's pieces as they come; without one they are buffered."""
        self.sink_error: Exception | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come, for better or worse."""
        return self.is_complete or self.failure is not None

    @property
    def leaves_connection_usable(self) -> bool:
        return self.is_complete and self._keeps_alive

    async def changed(self) -> None:
        """Wait until something was fed, or the connection ended."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def take(self) -> bytes:
        """Give all of the body that came since the last call."""
        pieces, self._pieces, self.buffered_bytes = self._pieces, [], 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def feed(self, data: bytes) -> None:
        """Parse what the connection received."""
        parser = self._parser
        if parser is None:
            return
        self._received_bytes += len(data)
        body_bytes = self._body_bytes
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._keeps_alive = False
            self._fail(f"sent something that is not an HTTP response: {_reason(error)}")
        self._overhead_bytes = self._overhead_bytes + len(data) if self._body_bytes == body_bytes else 0
        if self._overhead_bytes > OVERHEAD_LIMIT:
            self._fail(_TOO_MUCH)
        if self.sink is None:
            self._settle()
            return
        if self.buffered_bytes:
            self._hand_on(self.sink)
        if self.is_complete or self.failure is not None:
            self._settle()

    def _hand_on(self, sink: Callable[[bytes], None]) -> None:
        try:
            sink(self.take())
        except Exception as error:  # noqa: BLE001 - `relay` raises it
            self.sink_error = error
            self._keeps_alive = False
            self._fail("was not understood")

    def end(self, error: Exception | None) -> None:
        """Hear that the connection has ended: the regular end of a body without a length, else a failure."""
        self.was_never_begun = not self._received_bytes
        if self.has_head and self._ends_with_connection and error is None:
            self.is_complete = True
        elif self.has_head:
            self._fail(f"closed the connection after {self._body_bytes} bytes of its answer")
        else:
            self._fail("closed the connection before it answered")
        self._settle()

    def give_up(self, why: str) -> None:
        """Hear that nobody wants the rest."""
        self._fail(why)
        self._settle()

    def on_message_begin(self) -> None:
        if self.is_complete:
            self._keeps_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value) + 4
        if not self.has_head:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        if parser is None or self.has_head:
            return
        status = parser.get_status_code()
        if 100 <= status < 200:
            self.headers.clear()
            return
        if self._header_bytes > OVERHEAD_LIMIT:
            self._fail(_TOO_MUCH)
            return
        self.status = status
        self.has_head = True
        self._keeps_alive = parser.should_keep_alive()
        self._ends_with_connection = not _is_framed(self.headers)
        self.is_complete = self._has_no_body

    def on_body(self, body: bytes) -> None:
        if self.is_complete:
            self._keeps_alive = False
            return
        self._pieces.append(body)
        self.buffered_bytes += len(body)
        self._body_bytes += len(body)

    def on_message_complete(self) -> None:
        self.is_complete = self.has_head

    def _fail(self, what: str) -> None:
        if not self.has_ended:
            self.failure = what

    def _settle(self) -> None:
        if self.has_ended:
            self._parser = None  # it holds us, and we hold it
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _is_framed(headers: Headers) -> bool:
    """Whether the headers say where the body ends."""
    for name, value in headers:
        if name == b"content-length" or (name == b"transfer-encoding" and value.lower().endswith(b"chunked")):
            return True
    return False


def _reason(error: Exception) -> str:
    return "it wants another protocol" if isinstance(error, httptools.HttpParserUpgrade) else str(error)


class _Connection(asyncio.Protocol):
    """One TCP connection, for one request at a time. Both loops we run on set TCP_NODELAY themselves."""

    def __init__(self, upstream: Upstream, loop: asyncio.AbstractEventLoop) -> None:
        self.lost: asyncio.Future[None] = loop.create_future()
        self._upstream = upstream
        self._transport: asyncio.Transport
        self._answer: _Answer | None = None
        self._is_sending = False
        self._is_reading = True
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._interrupt: asyncio.Timeout | None = None

    @property
    def is_open(self) -> bool:
        return not self._transport.is_closing()

    def begin(self, answer: _Answer) -> _Answer:
        """Expect an answer from now on."""
        self._answer = answer
        if self.lost.done():
            answer.end(None)
        return answer

    def write(self, request: _Request, answer: _Answer) -> None:
        """Write a small request at once."""
        if not answer.has_ended:
            self._transport.write(request.head + cast("bytes", request.body))

    async def send(self, request: _Request, answer: _Answer) -> None:
        """Write a request as fast as the engine takes it; return early if the answer begins or never will."""
        if answer.has_ended:
            return
        self._is_sending = True
        self._transport.write(request.head)
        try:
            async with asyncio.timeout(None) as interrupt:
                self._interrupt = interrupt
                await self._send_pieces(request)
                self._is_sending = False
        except TimeoutError:
            if not (interrupt.expired() and (answer.has_head or answer.has_ended)):
                raise
        finally:
            self._interrupt = None

    def read_on(self, answer: _Answer) -> None:
        """Read again, if it was this answer that was too much at once."""
        if not self._is_reading and self._answer is answer:
            self._is_reading = True
            self._transport.resume_reading()

    def pause(self, answer: _Answer) -> None:
        """Read no more, if it is this answer that comes."""
        if self._is_reading and self._answer is answer:
            self._is_reading = False
            self._transport.pause_reading()

    def leave(self, answer: _Answer) -> None:
        """End the connection if it still carries this answer."""
        if self._answer is answer:
            self.abort()

    def abort(self, why: str = "was not listened to any longer") -> None:
        """End the connection at once, whatever was still to be sent."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.give_up(why)
            self._interrupt_sending(answer)
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._upstream.remember(self)

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            self.abort()  # it speaks without being asked: whose answer would that be?
            return
        answer.feed(data)
        if answer.has_ended:
            self._finish(answer)
        elif answer.buffered_bytes > HIGH_WATER and self._is_reading:
            self._is_reading = False
            self._transport.pause_reading()
        self._interrupt_sending(answer)

    def connection_lost(self, error: Exception | None) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.end(error)
            self._interrupt_sending(answer)
        self._upstream.forget(self)
        if not self.lost.done():
            self.lost.set_result(None)

    def eof_received(self) -> None:
        # To close, as asyncio would, waits until the engine has read what it does not want any more.
        self._transport.abort()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    async def _send_pieces(self, request: _Request) -> None:
        async with aclosing(request.pieces()) as pieces:
            async for piece in pieces:
                self._transport.write(piece)
                await self._may_write.wait()

    def _finish(self, answer: _Answer) -> None:
        self._answer = None
        if answer.leaves_connection_usable and not self._is_sending and self.is_open:
            if not self._is_reading:
                self._is_reading = True
                self._transport.resume_reading()
            self._upstream.keep(self)
        else:
            self._transport.abort()

    def _interrupt_sending(self, answer: _Answer) -> None:
        """Wake `send`: an engine that answers early does not want the rest of the request."""
        if self._interrupt is not None and (answer.has_head or answer.has_ended):
            self._interrupt.reschedule(asyncio.get_running_loop().time())
            self._interrupt = None


def _cause(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there"
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
