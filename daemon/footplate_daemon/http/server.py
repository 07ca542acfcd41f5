"""Our HTTP/1.1 server: connections, their requests one after the other, and what may go wrong with them.

Made for the hot path: an answer's bytes go from one socket's callback to the other's `write`, without a task
in between. It knows HTTP, and nothing of models, JSON or ASGI. httptools parses.

    Server            the connections, and the clock that ends those that say nothing
    └─ _Connection    one client: limits, pipelining, back-pressure, keep-alive, and when it leaves
       └─ Request     one request as its handler sees it: the body comes, the answer goes
"""

import asyncio
import logging
import select
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from socket import AF_UNIX, SO_PEERCRED, SOL_SOCKET, socket
from struct import Struct
from typing import TypeAlias, cast
from urllib.parse import unquote

import httptools

from footplate_daemon.errors import Busy, FootplateError, Invalid, TimedOut, TooLarge
from footplate_daemon.http.answers import error_answer

logger = logging.getLogger(__name__)

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
BACKLOG = 1024
HIGH_WATER = 256 * 1024
"""Bytes of a body that nobody has taken yet, above which we stop reading."""
HELD_LIMIT = 64 * 1024
"""Bytes that a client may send ahead while its last request is being answered."""
HANDSHAKE_SECONDS = 5.0
"""Until then a TLS connection is nobody's, and counts nowhere."""
PROBE_SECONDS = (0.002, 0.02, 0.1)
"""How long after a probe we look whether somebody was there; after that with every sweep."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True)
class Limits:
    """What a client may do."""

    header_bytes: int = 64 * 1024
    request_seconds: float = 30.0
    """To send a head; and to send the next piece of a body."""
    idle_seconds: float = 75.0
    """Between two requests."""
    stalled_seconds: float = 600.0
    """To read on, where there is more to read than the buffers hold: an engine waits for it."""
    connections: int = 4096
    """Over TCP; the Unix socket is the owner's own."""
    linger_seconds: float = 2.0
    """How long we wait for more of what a client sends that was refused: else it might not see the answer."""
    linger_total_seconds: float = 30.0
    """How long we read of that at most."""
    goodbye_seconds: float = 2.0
    """How long requests may go on once the server is asked to stop, and again to say why they end."""
    sweep_seconds: float = 1.0
    """How often we look who keeps us waiting."""


class ClientLeft(Exception):
    """Whoever asked is gone; nobody reads an answer."""


Handler: TypeAlias = Callable[["Request"], Coroutine[object, object, None]]
"""Answers one request; raises nothing but `ClientLeft`."""


class Request:
    """One request. Its handler takes the body, and answers: whole, or piece by piece."""

    __slots__ = (
        "_buffered_bytes",
        "_connection",
        "_expects_continue",
        "_has_begun",
        "_is_answered",
        "_is_chunked",
        "_is_complete",
        "_last_piece",
        "_pieces",
        "_waiter",
        "_writable",
        "head_only",
        "headers",
        "is_gone",
        "is_stopping",
        "keeps_alive",
        "method",
        "on_left",
        "on_paused",
        "on_resumed",
        "path",
        "probe",
        "query",
        "sent_bytes",
        "speaks_chunked",
        "status",
        "target",
        "task",
    )

    def __init__(self, connection: "_Connection") -> None:
        self._connection = connection
        self.method = ""
        """`GET` for HEAD too: only the server has to know."""
        self.head_only = False
        self.target = b""
        self.path = ""
        """Decoded, without the query."""
        self.query = b""
        self.headers: list[tuple[bytes, bytes]] = []
        """Names in lower case."""
        self.speaks_chunked = True
        """Whether its client speaks HTTP/1.1."""
        self.task: asyncio.Task[None] | None = None
        """What answers it."""
        self.is_gone = False
        """Whether the client has left."""
        self.is_stopping = False
        """Whether it is to end because the server does."""
        self.on_left: Callable[[], object] | None = None
        """Called once when the client leaves, or the server wants it to end."""
        self.on_paused: Callable[[], None] | None = None
        """Called when the client reads more slowly than it is written to, and again with what is written
        all the same: write no more."""
        self.on_resumed: Callable[[], None] | None = None
        self.keeps_alive = True
        """Whether another request may come on this connection."""
        self.probe = b""
        """What may be sent between two events of the answer without a change to it."""
        self.status = 0
        """Of the answer, once it has begun."""
        self.sent_bytes = 0
        """Of the answer's body."""
        self._pieces: list[bytes] = []
        self._buffered_bytes = 0
        self._is_complete = False
        self._expects_continue = False
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._has_begun = False
        self._is_chunked = False
        self._is_answered = False
        self._last_piece = b""

    # The question

    def header(self, name: bytes) -> bytes | None:
        """Give the first header of this name, in lower case; None if there is none."""
        for known, value in self.headers:
            if known == name:
                return value
        return None

    @property
    def has_begun(self) -> bool:
        """Whether the head of the answer is sent."""
        return self._has_begun

    @property
    def peer(self) -> "Peer":
        """Who is at the other end."""
        return self._connection.peer

    async def body(self, limit: int) -> bytes:
        """Give the whole body; raise `TooLarge` as soon as it is, and `ClientLeft` as `pieces` does."""
        if self._is_complete and self._buffered_bytes <= limit:
            if self.is_gone:
                raise ClientLeft
            return self._take()
        announced = self.header(b"content-length")
        if announced is not None and int(announced) > limit:
            raise _too_large(limit)
        pieces, size = [], 0
        async for piece in self.pieces():
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise _too_large(limit)
        return b"".join(pieces)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Give the body as it comes; raise `ClientLeft` if it breaks off, or nobody waits for an answer."""
        while True:
            if self.is_gone:
                raise ClientLeft
            if self._buffered_bytes:
                yield self._take()
            elif self._is_complete:
                return
            else:
                await self._more()

    async def _more(self) -> None:
        if self._expects_continue:
            self._expects_continue = False
            self._connection.write(CONTINUE)
        self._connection.expect_body()
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _take(self) -> bytes:
        pieces, self._pieces, self._buffered_bytes = self._pieces, [], 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def feed(self, piece: bytes) -> bool:
        """Take in a piece of the body; say whether that is enough for now."""
        if self._is_answered:
            return False  # what a refused client still sends is read and dropped
        self._pieces.append(piece)
        self._buffered_bytes += len(piece)
        self._wake()
        return self._buffered_bytes > HIGH_WATER

    def complete(self) -> None:
        """Hear that the body is all there."""
        self._is_complete = True
        self._wake()

    def leave(self) -> None:
        """Hear that the client has left."""
        if not self.is_gone and not self._is_answered:
            self.is_gone = True
            self._wake()
            self.resume()
            self._call_off()

    def ask_client(self) -> None:
        """Send what changes nothing: if nobody is there any more, the connection breaks."""
        if not self._has_begun:
            if self.speaks_chunked:  # HTTP/1.0 has no 100
                self._connection.write(CONTINUE)
        elif not self._last_piece or self._last_piece.endswith(b"\n\n"):
            self.write(self.probe)

    def stop(self) -> None:
        """Hear that the server does not go on."""
        if not self._is_answered and self.on_left is not None:
            self.is_stopping = True
            self._call_off()

    def _call_off(self) -> None:
        on_left, self.on_left = self.on_left, None
        if on_left is not None:
            on_left()

    def pause(self) -> None:
        """Hear that the client does not read as fast."""
        if self.on_paused is not None:
            self.on_paused()

    def resume(self) -> None:
        """Hear that the client reads again."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        if self.on_resumed is not None:
            self.on_resumed()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # The answer

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer with a body that is there as a whole."""
        length = b"" if status in BODILESS else b"content-length: %d\r\n" % len(body)
        head = self._head(status, headers, length)
        if self.head_only or not length:
            body = b""
        self._has_begun = True
        self.status = status
        self.sent_bytes = len(body)
        self._connection.write(head + body)
        self._finish()

    def begin(self, status: int, headers: Headers) -> None:
        """Send the head of an answer whose pieces follow; it needs no Content-Length."""
        ends_by_itself = status in BODILESS or any(name == b"content-length" for name, _ in headers)
        is_chunked = not ends_by_itself and self.speaks_chunked
        if not is_chunked and not ends_by_itself:
            self.keeps_alive = False
        head = self._head(status, headers, b"transfer-encoding: chunked\r\n" if is_chunked else b"")
        self._has_begun = True
        self._is_chunked = is_chunked
        self.status = status
        self._connection.write(head)

    def write(self, piece: bytes) -> None:
        """Send a piece; do so only while not paused, or `drain` now and then."""
        if not piece or self.head_only or self.status in BODILESS:
            return
        self.sent_bytes += len(piece)
        self._last_piece = piece
        connection = self._connection
        connection.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._is_chunked else piece)
        if connection.is_paused and self.on_paused is not None:
            self.on_paused()  # again: what is left of an earlier answer may be what is in the way

    def end(self) -> None:
        """Say that the answer is all sent."""
        if self._is_chunked and not self.head_only:
            self._connection.write(b"0\r\n\r\n")
        self._finish()

    def abandon(self) -> None:
        """End without a whole answer, so that the client notices."""
        self._connection.abandoned(self)

    async def drain(self) -> None:
        """Wait until the client has read most of what was sent."""
        while self._connection.is_paused and not self.is_gone:
            self._writable = asyncio.get_running_loop().create_future()
            await self._writable

    def _head(self, status: int, headers: Headers, framing: bytes) -> bytes:
        if not self._is_complete or self._connection.is_ending:
            self.keeps_alive = False
        own = b""
        if not self.keeps_alive:
            own = b"connection: close\r\n"
        elif not self.speaks_chunked:
            own = b"connection: keep-alive\r\n"
        parts = [_STATUS_LINES[status], b"date: ", _date(), b"\r\n", framing, own]
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
        parts.append(b"\r\n")
        head = b"".join(parts)
        breaks = 3 + len(headers) + (framing != b"") + (own != b"")
        if head.count(b"\n") != breaks or head.count(b"\r") != breaks:
            raise ValueError("A header holds a line break.")
        return head

    def _finish(self) -> None:
        self._is_answered = True
        self.on_left = self.on_paused = self.on_resumed = None
        self._connection.answered(self)

    @property
    def is_answered(self) -> bool:
        """Whether all of the answer is sent."""
        return self._is_answered

    @property
    def is_complete(self) -> bool:
        """Whether all of the request has come."""
        return self._is_complete

    def take_head(self, parser: httptools.HttpRequestParser) -> None:
        """Read what the parser knows; raise `Invalid` for what is not HTTP/1.1, or a target that is none."""
        method, version = parser.get_method(), parser.get_http_version()
        self.speaks_chunked = version == "1.1"
        if not (self.speaks_chunked or version == "1.0") or (parser.should_upgrade() and self._has_body()):
            raise _only_http_1_1()
        self.head_only = method == b"HEAD"
        self.method = "GET" if self.head_only else method.decode()
        self.keeps_alive = parser.should_keep_alive()
        target, _, self.query = self.target.partition(b"?")
        if not target.startswith(b"/"):
            target = _path_of(self.target)
        self.path = target.decode("latin-1")
        if "%" in self.path:
            self.path = unquote(self.path)
        expected = self.header(b"expect")
        self._expects_continue = (
            expected is not None and self.speaks_chunked and expected.lower() == b"100-continue"
        )

    def _has_body(self) -> bool:
        """Say whether a body is announced: the parser would take it for another protocol's bytes."""
        return any(name in {b"content-length", b"transfer-encoding"} for name, _ in self.headers)


@dataclass(frozen=True)
class Peer:
    """Who is at the other end of a connection."""

    user_id: int | None = None
    """Of the process, on a Unix socket."""
    address: str | None = None
    """Of the machine, on TCP."""


class Server:
    """Accepts connections and keeps them honest; `serve` until `stop`."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        """Replaced as a whole when the configuration changes."""
        self.connections: set[_Connection] = set()
        self._tcp_count = 0
        self.is_stopping = False
        self._stopping = asyncio.Event()
        self._tasks: asyncio.TaskGroup
        self._listening: list[asyncio.Server] = []
        self._all_left = asyncio.Event()

    async def serve(self, listener: socket, handler: Handler) -> None:
        """Serve on a bound Unix socket, and whatever `listen` adds, until `stop`; then let requests end."""
        async with asyncio.TaskGroup() as self._tasks:
            sweeping = self._tasks.create_task(self._sweep(), name="sweep connections")
            try:
                await self.listen(listener, handler)
                await self._stopping.wait()
                self._accept_no_more()
                await self._wind_up()
            finally:
                self._accept_no_more()
                self._end_all()
                sweeping.cancel()

    async def listen(
        self, listener: socket, handler: Handler, tls: ssl.SSLContext | None = None
    ) -> asyncio.Server:
        """Accept connections on one more bound socket; close what is given to accept no more."""
        loop = asyncio.get_running_loop()
        is_tcp = listener.family.name != "AF_UNIX"

        def connected() -> _Connection:
            return _Connection(self, handler, loop, is_tcp=is_tcp)

        if not is_tcp:
            listening = await loop.create_unix_server(connected, sock=listener, backlog=BACKLOG)
        else:
            seconds = None if tls is None else min(HANDSHAKE_SECONDS, self.limits.request_seconds)
            listening = await loop.create_server(
                connected, sock=listener, ssl=tls, ssl_handshake_timeout=seconds, backlog=BACKLOG
            )
        self._listening = [each for each in self._listening if each.is_serving()] + [listening]
        return listening

    def stop(self) -> None:
        """Accept no more; requests under way get `goodbye_seconds`."""
        self.is_stopping = True
        self._stopping.set()

    def end_tcp(self) -> None:
        """Let nobody who came over TCP ask again: what is being answered still is."""
        for connection in list(self.connections):
            if connection.is_tcp:
                connection.end_soon()

    def start(self, request: Request, handler: Handler) -> None:
        """Have a request answered."""
        request.task = self._tasks.create_task(_answer(request, handler))

    def remember(self, connection: "_Connection") -> bool:
        """Count a connection; say whether that is one too many."""
        self.connections.add(connection)
        self._tcp_count += connection.is_tcp
        return connection.is_tcp and self._tcp_count > self.limits.connections

    def forget(self, connection: "_Connection") -> None:
        """Drop a connection that has ended."""
        self.connections.discard(connection)
        self._tcp_count -= connection.is_tcp
        if not self.connections:
            self._all_left.set()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.limits.sweep_seconds)
            now = asyncio.get_running_loop().time()
            for connection in list(self.connections):
                connection.look_at_clock(now)

    def _accept_no_more(self) -> None:
        for listening in self._listening:
            listening.close()

    async def _wind_up(self) -> None:
        """Let requests end and clients read their answers; then ask the rest to end."""
        for end in (_Connection.close_if_idle, _Connection.stop):
            for connection in list(self.connections):
                end(connection)
            self._all_left.clear()
            if self.connections:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.limits.goodbye_seconds):
                        await self._all_left.wait()

    def _end_all(self) -> None:
        tasks = [task for connection in self.connections for task in connection.tasks()]
        for connection in list(self.connections):
            connection.abort()
        for task in tasks:
            task.cancel()


async def _answer(request: Request, handler: Handler) -> None:
    """Let the handler answer; what it leaves unanswered ends the connection."""
    try:
        await handler(request)
    except ClientLeft:
        pass
    except asyncio.CancelledError:
        if not (request.is_gone or request.is_stopping):
            raise
    except Exception:
        logger.exception("a request failed", extra={"path": request.path})
    finally:
        if not request.is_answered:
            request.abandon()


class _Connection(asyncio.Protocol):
    """One client. Requests are parsed as they come and answered in their order.

    It ends in one of three ways: `_close` when all is said, `_linger` when the client still talks and should
    hear why nobody listens, `abort` at once.
    """

    def __init__(
        self, server: Server, handler: Handler, loop: asyncio.AbstractEventLoop, *, is_tcp: bool
    ) -> None:
        self.is_tcp = is_tcp
        self._server = server
        self._handler = handler
        self._loop = loop
        self._transport: asyncio.Transport
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._requests: deque[Request] = deque()
        """Taken in and not answered yet; the first is being answered."""
        self._coming: Request | None = None
        """What is being received: its head, then its body."""
        self._has_head = False
        """Whether the head of what is being received is complete."""
        self._head_bytes = 0
        self._held: list[bytes] = []
        """What came after the request that is being answered."""
        self._held_bytes = 0
        self._last_words: tuple[int, FootplateError] | None = None
        """What is left to say, once all requests are answered."""
        self._is_deaf = False
        """What still comes is read and dropped."""
        self._is_reading = True
        self._is_half_closed = False
        self._is_last = False
        self._is_closed = False
        self._reads_until = 0.0
        """When it is enough of what is read and dropped."""
        self._deadline: float | None = loop.time() + server.limits.idle_seconds
        self._peer: Peer | None = None
        self._stalled_at = 0.0
        self.is_paused = False
        """Whether the client reads more slowly than it is written to."""

    @property
    def peer(self) -> Peer:
        if self._peer is None:
            self._peer = _peer_of(self._transport)
        return self._peer

    @property
    def is_ending(self) -> bool:
        """Whether no request is answered after the one that is being answered."""
        return self._server.is_stopping or self._is_last or self._sends_no_more_requests()

    def _sends_no_more_requests(self) -> bool:
        return (
            self._is_half_closed and len(self._requests) == 1 and not self._held and self._last_words is None
        )

    def tasks(self) -> list["asyncio.Task[None]"]:
        """Give what answers its requests."""
        return [request.task for request in self._requests if request.task is not None]

    # What the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        is_one_too_many = self._server.remember(self)
        if self._server.is_stopping:
            self.abort()
        elif is_one_too_many:
            self._refuse(503, Busy("Too many connections.", hint="Close some.", retry_after=1))

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            self._linger_on()
        elif self._requests and self._requests[0] is not self._coming:
            self._hold(data)
        else:
            self._feed(data)

    def eof_received(self) -> bool:
        """A client that sends no more may be waiting for its answer, or be gone: to write will tell."""
        self._is_half_closed = True
        if not self._held:
            self._break_off()
        if not self._requests:
            self._close()
            return False
        if not self._requests[0].is_gone:
            self._requests[0].ask_client()
            for seconds in PROBE_SECONDS:
                self._loop.call_later(seconds, self._look_for_client)
        return self._transport.get_extra_info("sslcontext") is None

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._is_closed = True
        self._parser = None  # it holds us, and we hold it
        self._held.clear()
        self._server.forget(self)
        for request in list(self._requests):
            request.leave()

    def pause_writing(self) -> None:
        self.is_paused = True
        self._stalled_at = self._loop.time() + self._server.limits.stalled_seconds
        if self._requests:
            self._requests[0].pause()

    def resume_writing(self) -> None:
        self.is_paused = False
        if self._requests:
            self._requests[0].resume()

    # What the parser says

    def on_message_begin(self) -> None:
        if self._is_deaf:
            return
        self._coming = Request(self)
        self._has_head = False
        self._deadline = self._loop.time() + self._server.limits.request_seconds

    def on_url(self, url: bytes) -> None:
        if self._coming is not None:
            self._coming.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._coming is not None and not self._has_head:
            self._coming.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        request, parser = self._coming, self._parser
        if request is None or parser is None or self._is_deaf:
            return
        self._has_head = True
        self._head_bytes = 0
        limit = self._server.limits.header_bytes
        if sum(len(name) + len(value) for name, value in request.headers) + len(request.target) > limit:
            self._refuse(431, _head_too_large(limit))
            return
        try:
            request.take_head(parser)
        except Invalid as error:
            self._refuse(400, error)
            return
        self._requests.append(request)
        if len(self._requests) == 1:
            self._server.start(request, self._handler)

    def on_body(self, piece: bytes) -> None:
        self._head_bytes = 0
        if self._coming is not None and self._coming.feed(piece):
            self._stop_reading()

    def on_message_complete(self) -> None:
        request, self._coming = self._coming, None
        if request is not None and not self._is_deaf:
            self._deadline = None
            request.complete()

    # Reading

    def _feed(self, data: bytes) -> None:
        self._head_bytes += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            self._refuse(400, Invalid(f"This is not HTTP: {error}.", hint="Speak HTTP/1.1."))
        if self._coming is None or self._is_deaf:
            return
        limits = self._server.limits
        if self._head_bytes > limits.header_bytes:
            self._refuse(431, _head_too_large(limits.header_bytes))
        elif self._requests and self._requests[0] is not self._coming:
            self._deadline = None  # what is missing of it is not read before its turn
        elif self._has_head:
            self._deadline = self._loop.time() + limits.request_seconds if self._is_reading else None

    def _parse(self, data: bytes) -> None:
        """Have the parser read everything; that a request would like another protocol is ignored."""
        rest: bytes | memoryview = data
        while rest and self._parser is not None:
            try:
                self._parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                rest = memoryview(rest)[upgrade.args[0] :]
            else:
                return

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > HELD_LIMIT:
            self._stop_reading()

    def _stop_reading(self) -> None:
        if self._is_reading and not self._is_closed:
            self._is_reading = False
            self._transport.pause_reading()

    def _read_on(self) -> None:
        if not self._is_reading and not self._is_closed:
            self._is_reading = True
            self._transport.resume_reading()

    def expect_body(self) -> None:
        """Read more of a body: somebody waits for it."""
        self._read_on()
        self._deadline = self._loop.time() + self._server.limits.request_seconds

    def look_at_clock(self, now: float) -> None:
        """End the connection if its client keeps us waiting, or is gone."""
        if self._is_half_closed or not self._is_reading:
            self._look_for_client()
        if self.is_paused and now >= self._stalled_at:
            self.abort()
        if self._deadline is None or now < self._deadline:
            return
        if self._is_deaf:
            self.abort()
        elif self._coming is None:
            self._close()
        else:
            seconds = self._server.limits.request_seconds
            late = TimedOut(f"The request did not come within {seconds:g} s.", hint="Send it faster.")
            self._refuse(408, late)

    def _look_for_client(self) -> None:
        """End the connection if a client that sends no more turned out to be gone."""
        if not self._requests or self._transport.is_closing():
            return
        if _has_hung_up(self._transport):
            self.abort()
        elif not self._is_reading and not self._is_half_closed and _sends_no_more(self._transport):
            self._requests[0].ask_client()

    # Writing

    def write(self, data: bytes) -> None:
        """Send bytes; after the client has left they are dropped."""
        if not self._is_closed:
            self._transport.write(data)

    def answered(self, request: Request) -> None:
        """Hear that all of an answer is sent; go on with what is next."""
        self._requests.popleft()
        if request.keeps_alive:
            self._go_on()
        elif self._coming is not None:
            self._linger()
        else:
            self._close()

    def abandoned(self, request: Request) -> None:
        """Hear that a request gets no (whole) answer."""
        if request.has_begun:
            self.abort()
        elif request.is_gone and self._last_words is not None:
            self._requests.remove(request)
            self._go_on()
        else:
            self._close()

    def _go_on(self) -> None:
        """Turn to what is next: a request, our last words, or whatever comes."""
        if self._transport.is_closing():
            return
        if self._requests and self._requests[0].task is None:
            self._server.start(self._requests[0], self._handler)
        if self._requests and self._requests[0] is not self._coming:
            return
        if self._last_words is not None:
            self._say_last_words(*self._last_words)
        elif self._server.is_stopping and not self._requests:
            self._close()
        else:
            self._listen_on()

    def _listen_on(self) -> None:
        limits = self._server.limits
        seconds = limits.idle_seconds if self._coming is None else limits.request_seconds
        self._deadline = self._loop.time() + seconds
        self._read_on()
        if self._held:
            held, self._held, self._held_bytes = b"".join(self._held), [], 0
            self._feed(held)
        if self._is_half_closed and not self._is_deaf:
            self._break_off()
            if not self._requests:
                self._close()

    def _refuse(self, status: int, error: FootplateError) -> None:
        """Listen no more, and say why when what came before is answered."""
        if self._is_deaf:
            return
        self._is_deaf = True
        self._deadline = None
        self._last_words = (status, error)
        self._break_off()
        if not self._requests:
            self._go_on()

    def _break_off(self) -> None:
        """Give up what is being received; if it is being answered, `abandoned` follows."""
        coming, self._coming = self._coming, None
        if coming is None or not self._requests or self._requests[-1] is not coming:
            return
        if coming.task is None:
            self._requests.pop()
        else:
            coming.leave()

    def _say_last_words(self, status: int, error: FootplateError) -> None:
        self._last_words = None
        headers, body = error_answer(error)
        fields = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.write(
            b"%bcontent-length: %d\r\nconnection: close\r\n%b\r\n%b"
            % (_STATUS_LINES[status], len(body), fields, body)
        )
        self._linger()

    # Ending

    def _linger(self) -> None:
        """Send no more, but read on a little: to close now could take the answer away from the client."""
        self._is_deaf = True
        self._reads_until = self._loop.time() + self._server.limits.linger_total_seconds
        self._linger_on()
        self._read_on()
        if self._is_half_closed:
            self._close()
        elif self._transport.can_write_eof() and not self._is_closed:
            self._transport.write_eof()

    def _linger_on(self) -> None:
        if self._reads_until:
            until = self._loop.time() + self._server.limits.linger_seconds
            self._deadline = min(until, self._reads_until)

    def _close(self) -> None:
        self._transport.close()

    def end_soon(self) -> None:
        """Close as soon as what is being answered is."""
        self._is_last = True
        self.close_if_idle()

    def close_if_idle(self) -> None:
        """Close unless a request is being answered."""
        if not self._requests:
            self._close()

    def stop(self) -> None:
        """Ask what is being answered to end."""
        for request in list(self._requests):
            request.stop()

    def abort(self) -> None:
        """End at once, whatever was still to be sent."""
        self._transport.abort()


BODILESS = frozenset({204, 304})
"""The statuses of answers that have no body, whatever their headers say."""

_STATUS_LINES = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, phrase.encode())
    for status in range(200, 600)
    for phrase in [HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""]
}

_last_date = (0, b"")


def _date() -> bytes:
    """Write the time for a Date header, once a second."""
    global _last_date  # noqa: PLW0603 - a cache of the clock
    now = int(time.time())
    if _last_date[0] != now:
        _last_date = (now, formatdate(now, usegmt=True).encode())
    return _last_date[1]


def _path_of(target: bytes) -> bytes:
    """Give the path of an absolute target; `*` stays as it is."""
    if target == b"*":
        return target
    try:
        return httptools.parse_url(target).path or b"/"
    except httptools.HttpParserInvalidURLError as error:
        raise Invalid("The target of the request is no path.", hint="Ask for a path: /v1/models") from error


def _peer_of(transport: asyncio.BaseTransport) -> Peer:
    name, end = transport.get_extra_info("peername"), transport.get_extra_info("socket")
    if isinstance(name, tuple):
        return Peer(address=str(name[0]))
    try:
        if end.family != AF_UNIX:
            return Peer()
        credentials = end.getsockopt(SOL_SOCKET, SO_PEERCRED, _UCRED.size)
    except OSError:  # it has left already
        return Peer()
    return Peer(user_id=_UCRED.unpack(credentials)[1])


def _has_hung_up(transport: asyncio.BaseTransport) -> bool:
    """Say whether nobody can read any more what is sent here, as far as the system knows."""
    return _happened(transport, 0)


def _sends_no_more(transport: asyncio.BaseTransport) -> bool:
    """Say whether the client has closed its side, although not all that it sent was read."""
    return _happened(transport, select.POLLRDHUP)


def _happened(transport: asyncio.BaseTransport, events: int) -> bool:
    poller = select.poll()
    poller.register(transport.get_extra_info("socket").fileno(), events)
    return bool(poller.poll(0))


_UCRED = Struct("3i")
"""pid, uid, gid: unix(7)."""


def _only_http_1_1() -> Invalid:
    return Invalid("Only HTTP/1.1 is spoken here.", hint="Do not ask for an upgrade.")


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"The body is larger than {limit // (1024 * 1024)} MiB.",
        hint="Send less; requests to the gateway may be as large as max_body_mib in [gateway] says.",
    )


def _head_too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"The headers are larger than {limit // 1024} KiB.",
        hint="Send fewer or shorter headers, or raise max_header_kib in [gateway] of config.toml.",
    )
