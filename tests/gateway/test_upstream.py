import asyncio
import re
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footplate_daemon.errors import EngineFailed, Invalid, TimedOut, Unavailable
from footplate_daemon.gateway.upstream import (
    HIGH_WATER,
    OVERHEAD_LIMIT,
    SLICE,
    Broken,
    Response,
    Upstream,
    _Answer,
    end_to_end,
)

ONE_READ = 256 * 1024
"""What either loop hands over at once, at most."""

Serve = Callable[["Client"], Awaitable[None]]


@dataclass
class Client:
    """One connection as the engine sees it."""

    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> tuple[bytes, bytes]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        return head, await self.reader.readexactly(int(length[1])) if length else b""

    async def answer(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()

    async def has_left(self) -> None:
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass


@asynccontextmanager
async def engine(serve: Serve, **settings: Any) -> AsyncIterator[Upstream]:
    count = 0

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        try:
            await serve(Client(count, reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    upstream = Upstream(
        "127.0.0.1", server.sockets[0].getsockname()[1], api_key="launch-key", name="vllm/qa", **settings
    )
    async with asyncio.timeout(30), server:
        try:
            yield upstream
        finally:
            await upstream.close()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - lets the loop run: what is awaited has no event
        await asyncio.sleep(0)


def always(raw: bytes) -> Serve:
    async def serve(client: Client) -> None:
        while True:
            await client.request()
            await client.answer(raw)

    return serve


def once(raw: bytes) -> Serve:
    async def serve(client: Client) -> None:
        await client.request()
        await client.answer(raw)

    return serve


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


# The parser: what comes is understood the same however it is split.

WHOLE = [
    pytest.param(OK, 200, b"ok", True, id="content-length"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b"", True, id="empty"),
    pytest.param(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n",
        200,
        b"hello world",
        True,
        id="chunked",
    ),
    pytest.param(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-Sum: 1\r\n\r\n",
        200,
        b"ab",
        True,
        id="trailers",
    ),
    pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True, id="204"),
    pytest.param(b"HTTP/1.1 304 Not Modified\r\nX-Empty:\r\nETag: a\r\n\r\n", 304, b"", True, id="304"),
    pytest.param(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + OK,
        200,
        b"ok",
        True,
        id="1xx",
    ),
    pytest.param(
        b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno",
        503,
        b"no",
        False,
        id="close",
    ),
    pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", False, id="http-1.0"),
    pytest.param(OK + b"HTTP/1.1 200 OK\r\n", 200, b"ok", False, id="a second answer nobody asked for"),
    pytest.param(OK + b"garbage", 200, b"ok", False, id="garbage behind the answer"),
]


def _parsed(raw: bytes, cuts: list[int]) -> tuple[_Answer, bytes]:
    answer, body = _Answer(), b""
    bounds = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    for start, end in pairwise(bounds):
        if not answer.has_ended:
            answer.feed(raw[start:end])
            body += answer.take()
    return answer, body


@pytest.mark.parametrize(("raw", "status", "body", "is_usable"), WHOLE)
def test_an_answer_is_the_same_at_whatever_byte_it_is_split(
    raw: bytes, status: int, body: bytes, is_usable: bool
) -> None:
    for cut in range(len(raw) + 1):
        answer, parsed = _parsed(raw, [cut])

        assert (answer.status, parsed, answer.is_complete, answer.failure) == (status, body, True, None)
        assert answer.leaves_connection_usable == is_usable or raw[:cut].endswith(body)


@pytest.mark.parametrize(("raw", "status", "body", "is_usable"), WHOLE)
@given(cuts=st.lists(st.integers(0, 1000), max_size=30))
def test_an_answer_is_the_same_in_whatever_pieces_it_comes(
    raw: bytes, status: int, body: bytes, is_usable: bool, cuts: list[int]
) -> None:
    answer, parsed = _parsed(raw, cuts)

    assert (answer.status, parsed, answer.is_complete, answer.failure) == (status, body, True, None)
    assert answer.headers == _parsed(raw, [])[0].headers
    assert is_usable <= answer.leaves_connection_usable


@pytest.mark.parametrize("raw", [case.values[0] for case in WHOLE[:7]])
def test_an_answer_that_breaks_off_anywhere_is_no_answer(raw: bytes) -> None:
    for length in range(len(raw)):
        answer, _ = _parsed(raw[:length], [])
        answer.end(None)

        assert answer.failure is not None
        assert not answer.is_complete
        assert answer.was_never_begun == (length == 0)


@given(start=st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", OK[:-3]]), rest=st.lists(st.binary(max_size=200)))
def test_nothing_that_an_engine_sends_makes_the_parser_raise(start: bytes, rest: list[bytes]) -> None:
    answer = _Answer()

    for data in (start, *rest):
        answer.feed(data)
    answer.end(None)

    assert answer.has_ended


@pytest.mark.parametrize(
    ("start", "flood"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-Header: value\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"v"),
        (b"HTTP/1.1 200 ", b"O"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Trailer: value\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Long: ", b"v"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;", b"x"),
    ],
)
def test_a_flood_that_is_no_body_is_ended(start: bytes, flood: bytes) -> None:
    answer = _Answer()
    answer.feed(start)

    for _ in range(2 * OVERHEAD_LIMIT // 4096):
        answer.feed(flood * (4096 // len(flood)))

    assert answer.failure == "sent more than 64 KiB of headers"


def test_too_many_headers_at_once_are_no_answer_either() -> None:
    answer = _Answer()

    answer.feed(b"HTTP/1.1 200 OK\r\n" + b"X-Header: value\r\n" * 5000 + b"Content-Length: 2\r\n\r\nok")

    assert answer.failure == "sent more than 64 KiB of headers"
    assert not answer.has_head


# What is sent.


async def test_the_engine_gets_its_own_key_and_nothing_that_was_meant_for_us() -> None:
    heads: list[bytes] = []

    async def serve(client: Client) -> None:
        head, body = await client.request()
        heads.append(head + body)
        await client.answer(OK)

    async with engine(serve) as upstream:
        async with await upstream.request(
            "POST",
            "/v1/chat/completions?x=1",
            [
                (b"Host", b"gateway"),
                (b"Authorization", b"Bearer client-key"),
                (b"X-API-Key", b"client-key"),
                (b"Cookie", b"client-key"),
                (b"Connection", b"keep-alive, X-Hop"),
                (b"X-Hop", b"1"),
                (b"Transfer-Encoding", b"chunked"),
                (b"Content-Length", b"7"),
                (b"Expect", b"100-continue"),
                (b"Accept-Encoding", b"gzip"),
                (b"Content-Type", b"application/json"),
                (b"X-Request-Id", b"r1"),
            ],
            b'{"a":1}',
        ) as response:
            assert (response.status, await response.read(10)) == (200, b"ok")
        port = upstream._port

    lines = heads[0].split(b"\r\n")
    assert lines[0] == b"POST /v1/chat/completions?x=1 HTTP/1.1"
    assert sorted(lines[1:-2]) == [
        b"authorization: Bearer launch-key",
        b"content-length: 7",
        b"content-type: application/json",
        b"host: 127.0.0.1:%d" % port,
        b"x-request-id: r1",
    ]
    assert lines[-2:] == [b"", b'{"a":1}']


def test_headers_of_one_connection_are_left_out() -> None:
    headers = [(b"Connection", b"X-A, close"), (b"x-a", b"1"), (b"Keep-Alive", b"5"), (b"ETag", b"1")]

    assert end_to_end(headers) == [(b"etag", b"1")]


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/ HTTP/1.1\r\nX: ", []),
        ("GET", "/a b", []),
        ("GET", "", []),
        ("GET /", "/", []),
        ("GET", "/", [(b"x", b"1\r\ny: 2")]),
        ("GET", "/", [(b"x\n", b"1")]),
    ],
)
async def test_a_request_that_would_become_another_one_is_refused(
    method: str, path: str, headers: list[tuple[bytes, bytes]]
) -> None:
    with pytest.raises(Invalid):
        await Upstream("127.0.0.1", 1).request(method, path, headers)


async def _pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def test_a_body_that_comes_in_pieces_is_sent_chunked() -> None:
    raw: list[bytes] = []

    async def serve(client: Client) -> None:
        raw.append(await client.reader.readuntil(b"0\r\n\r\n"))
        await client.answer(OK)

    async with (
        engine(serve) as upstream,
        await upstream.request("POST", "/", [], _pieces(b"he", b"", b"llo")) as response,
    ):
        assert response.status == 200

    assert raw[0].partition(b"\r\n\r\n")[2] == b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"


async def test_a_body_in_pieces_of_known_length_is_sent_as_it_is() -> None:
    bodies: list[bytes] = []

    async def serve(client: Client) -> None:
        bodies.append((await client.request())[1])
        await client.answer(OK)

    async with (
        engine(serve) as upstream,
        await upstream.request("POST", "/", [(b"Content-Length", b"5")], _pieces(b"he", b"llo")) as response,
    ):
        assert response.status == 200

    assert bodies == [b"hello"]


@pytest.mark.parametrize("pieces", [(b"he",), (b"hello", b" world")])
async def test_a_body_of_another_length_than_announced_is_refused(pieces: tuple[bytes, ...]) -> None:
    async with engine(lambda client: client.has_left()) as upstream:
        with pytest.raises(Invalid, match="Content-Length"):
            await upstream.request("POST", "/", [(b"content-length", b"5")], _pieces(*pieces))


async def test_a_big_body_is_sent_no_faster_than_the_engine_reads() -> None:
    body = b"x" * (32 * 1024 * 1024)
    waiting_bytes: list[int] = []

    async def serve(client: Client) -> None:
        await client.reader.readuntil(b"\r\n\r\n")
        left = len(body)
        while left:
            left -= len(await client.reader.read(65536))
            waiting_bytes.extend(
                connection._transport.get_write_buffer_size() for connection in upstream._connections
            )
        await client.answer(OK)

    async with (
        engine(serve) as upstream,
        await upstream.request("POST", "/", [], body) as response,
    ):
        assert response.status == 200

    assert max(waiting_bytes) <= 2 * SLICE


async def test_an_answer_before_the_end_of_the_body_is_heard_and_the_rest_not_sent() -> None:
    async def serve(client: Client) -> None:
        await client.reader.readuntil(b"\r\n\r\n")
        await client.answer(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await client.has_left()

    async with engine(serve) as upstream:
        response = await upstream.request("POST", "/", [], b"x" * (64 * 1024 * 1024))

        assert (response.status, await response.read(10)) == (413, b"big")
        assert upstream.idle_count == 0


async def test_an_answer_is_heard_while_the_client_still_thinks_about_its_body() -> None:
    async def hesitant() -> AsyncIterator[bytes]:
        yield b"he"
        await asyncio.Event().wait()

    async with (
        engine(once(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")) as upstream,
        await upstream.request("POST", "/", [], hesitant()) as response,
    ):
        assert (response.status, await response.read(10)) == (413, b"big")


async def test_a_body_that_fails_fails_the_request_and_ends_the_connection() -> None:
    left = asyncio.Event()

    async def serve(client: Client) -> None:
        await client.has_left()
        left.set()

    async def broken() -> AsyncIterator[bytes]:
        yield b"he"
        raise Invalid("The client has left.")

    async with engine(serve) as upstream:
        with pytest.raises(Invalid, match="has left"):
            await upstream.request("POST", "/", [], broken())
        await left.wait()


# What comes back.


async def test_the_body_is_given_as_it_arrives() -> None:
    go_on = asyncio.Event()

    async def serve(client: Client) -> None:
        await client.request()
        await client.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await go_on.wait()
        await client.answer(b"6\r\nsecond\r\n0\r\n\r\n")

    async with engine(serve) as upstream, await upstream.request("GET", "/") as response:
        first = await response.chunk()
        go_on.set()
        rest = [piece async for piece in response]

        assert (first, rest) == (b"first", [b"second"])
        assert await response.chunk() == b""


async def test_a_body_without_a_length_ends_with_the_connection() -> None:
    async with (
        engine(once(b"HTTP/1.1 200 OK\r\n\r\nall there is")) as upstream,
        await upstream.request("GET", "/") as response,
    ):
        assert await response.read(100) == b"all there is"


async def test_the_answer_to_head_has_no_body_and_leaves_the_connection() -> None:
    async with engine(always(OK[:-2])) as upstream:
        for _ in range(3):
            async with await upstream.request("HEAD", "/") as response:
                assert (response.headers, await response.read(0)) == ([(b"content-length", b"2")], b"")

        assert upstream.idle_count == 1


@pytest.mark.parametrize(
    "raw", [b"hello\r\n\r\n", b"HTTP/1.1 200 OK\nA: b\n\n", b"HTTP/1.1 banana\r\n\r\n", b"\0" * 100]
)
async def test_what_is_not_http_is_said_to_be_none(raw: bytes) -> None:
    async with engine(always(raw)) as upstream:
        with pytest.raises(EngineFailed, match="vllm/qa sent something that is not an HTTP response"):
            await upstream.request("GET", "/")


async def test_another_protocol_is_refused() -> None:
    raw = b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"

    async with engine(always(raw)) as upstream:
        with pytest.raises(EngineFailed, match="another protocol"):
            await upstream.request("GET", "/")


async def test_an_engine_that_closes_early_has_failed_after_what_came() -> None:
    async with engine(once(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")) as upstream:
        response = await upstream.request("GET", "/")

        assert await response.chunk() == b"hello"
        with pytest.raises(EngineFailed, match="vllm/qa closed the connection after 5 bytes of its answer"):
            await response.chunk()


async def test_an_engine_that_closes_a_new_connection_without_a_word_has_failed() -> None:
    async with engine(once(b"")) as upstream:
        with pytest.raises(EngineFailed, match="closed the connection before it answered"):
            await upstream.request("GET", "/")


async def test_a_body_longer_than_asked_for_is_refused_and_the_connection_ended() -> None:
    left = asyncio.Event()

    async def serve(client: Client) -> None:
        await client.request()
        await client.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 101)
        await client.has_left()
        left.set()

    async with engine(serve) as upstream:
        response = await upstream.request("GET", "/")
        with pytest.raises(EngineFailed, match="more than 100 bytes"):
            await response.read(100)
        await left.wait()


async def test_a_slow_reader_does_not_grow_memory() -> None:
    size = 32 * 1024 * 1024

    async def serve(client: Client) -> None:
        await client.request()
        await client.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // 65536):
            await client.answer(b"x" * 65536)

    def is_full_or_whole() -> bool:
        return response.buffered_bytes > HIGH_WATER or sum(taken) + response.buffered_bytes == size

    taken: list[int] = []
    async with engine(serve) as upstream, await upstream.request("GET", "/") as response:
        while sum(taken) < size:
            await until(is_full_or_whole)
            taken.append(len(await response.chunk()))

    assert sum(taken) == size
    assert HIGH_WATER < max(taken) <= HIGH_WATER + ONE_READ


# Connections: kept, dropped, tried again.


@pytest.mark.parametrize("raw", [case.values[0] for case in WHOLE[:7]])
async def test_a_connection_is_used_again(raw: bytes) -> None:
    numbers: list[int] = []

    async def serve(client: Client) -> None:
        while True:
            await client.request()
            numbers.append(client.number)
            await client.answer(raw)

    async with engine(serve) as upstream:
        for _ in range(3):
            async with await upstream.request("GET", "/") as response:
                await response.read(100)

    assert numbers == [1, 1, 1]


@pytest.mark.parametrize("raw", [case.values[0] for case in WHOLE[7:]])
async def test_a_connection_that_cannot_be_trusted_is_not_used_again(raw: bytes) -> None:
    async with engine(always(raw)) as upstream:
        async with await upstream.request("GET", "/") as response:
            await response.read(100)

        await until(lambda: not upstream._connections)
        assert upstream.idle_count == 0


async def test_an_engine_that_speaks_without_being_asked_is_cut_off() -> None:
    async def serve(client: Client) -> None:
        await client.request()
        await client.answer(OK)
        await go_on.wait()
        await client.answer(OK)
        await client.has_left()

    go_on = asyncio.Event()
    async with engine(serve) as upstream:
        async with await upstream.request("GET", "/") as response:
            await response.read(100)
        kept = upstream.idle_count
        go_on.set()
        await until(lambda: not upstream._connections)

    assert kept == 1


async def test_no_more_connections_are_kept_than_agreed() -> None:
    async with engine(always(OK), max_idle=2) as upstream:
        responses = await asyncio.gather(*(upstream.request("GET", "/") for _ in range(5)))
        bodies = [await response.read(10) for response in responses]

        assert bodies == [b"ok"] * 5
        assert upstream.idle_count == 2


async def test_a_connection_that_the_engine_closes_is_dropped() -> None:
    async with engine(once(OK)) as upstream:
        async with await upstream.request("GET", "/") as response:
            await response.read(10)

        await until(lambda: upstream.idle_count == 0)


@dataclass
class Forgetful:
    """An engine that closes its first connection at the second request, after saying so much."""

    last_words: bytes
    requests: int = 0

    async def __call__(self, client: Client) -> None:
        await client.request()
        self.requests += 1
        await client.answer(OK)
        await client.request()
        self.requests += 1
        await client.answer(self.last_words)


async def _ask_twice(upstream: Upstream, body: bytes = b"") -> Response:
    async with await upstream.request("POST", "/") as response:
        await response.read(10)
    return await upstream.request("POST", "/", [], body)


@pytest.mark.parametrize("size", [0, 10, 3 * SLICE])
async def test_a_kept_connection_that_was_closed_meanwhile_costs_nothing(size: int) -> None:
    forgetful = Forgetful(b"")

    async with engine(forgetful) as upstream:
        response = await _ask_twice(upstream, b"x" * size)

        assert (response.status, await response.read(10)) == (200, b"ok")
        assert forgetful.requests == 3


async def test_a_request_whose_answer_has_begun_is_never_sent_again() -> None:
    forgetful = Forgetful(b"H")

    async with engine(forgetful) as upstream:
        with pytest.raises(EngineFailed, match="closed the connection before it answered"):
            await _ask_twice(upstream)

    assert forgetful.requests == 2


async def test_a_second_silent_close_is_the_engines_failure() -> None:
    requests = 0

    async def serve(client: Client) -> None:
        nonlocal requests
        await client.request()
        requests += 1
        if client.number == 1:
            await client.answer(OK)
            await client.request()
            requests += 1

    async with engine(serve) as upstream:
        with pytest.raises(EngineFailed, match="before it answered"):
            await _ask_twice(upstream)

    assert requests == 3


async def test_a_body_that_cannot_be_repeated_gets_a_new_connection() -> None:
    numbers: list[int] = []

    async def serve(client: Client) -> None:
        while True:
            await client.request()
            numbers.append(client.number)
            await client.answer(OK)

    async with engine(serve) as upstream:
        async with await upstream.request("GET", "/") as response:
            await response.read(10)
        async with await upstream.request(
            "POST", "/", [(b"content-length", b"1")], _pieces(b"x")
        ) as response:
            await response.read(10)

    assert numbers == [1, 2]


async def test_small_pieces_are_sent_at_once() -> None:
    async with engine(always(OK)) as upstream, await upstream.request("GET", "/") as response:
        nodelay = [
            connection._transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            for connection in upstream._connections
        ]
        await response.read(10)

    assert nodelay == [1]


async def test_nobody_there_is_a_broken_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    with pytest.raises(Broken, match=f"The engine on 127.0.0.1:{port} cannot be reached") as caught:
        await Upstream("127.0.0.1", port).request("GET", "/")

    assert "nobody listens there" in caught.value.message


@contextmanager
def _deaf() -> Iterator[int]:
    """A port whose queue of connections is full: Linux drops what else comes."""
    with socket.socket() as server, socket.socket() as first, socket.socket() as second:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield server.getsockname()[1]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse instead")
async def test_a_connection_that_nobody_accepts_times_out() -> None:
    with _deaf() as port, pytest.raises(TimedOut, match=r"did not accept a connection within 0\.05 s"):
        await Upstream("127.0.0.1", port, connect_seconds=0.05).request("GET", "/")


# Leaving.


@dataclass
class Silent:
    """An engine that says this much and then nothing; it notices when the client leaves."""

    words: bytes
    heard: asyncio.Event
    left: asyncio.Event

    async def __call__(self, client: Client) -> None:
        await client.request()
        await client.answer(self.words)
        self.heard.set()
        await client.has_left()
        self.left.set()


def silent_after(words: bytes) -> Silent:
    return Silent(words, asyncio.Event(), asyncio.Event())


BEGUN = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"


async def test_the_engine_notices_when_a_request_is_cancelled() -> None:
    silent = silent_after(b"")

    async with engine(silent) as upstream:
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(upstream.request("GET", "/"))
            await silent.heard.wait()
            asking.cancel()
        await silent.left.wait()


async def test_the_engine_notices_when_a_reader_is_cancelled() -> None:
    silent = silent_after(BEGUN)

    async with engine(silent) as upstream:
        response = await upstream.request("GET", "/")
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(response.read(100))
            await until(lambda: response.buffered_bytes == 0)
            reading.cancel()
        await silent.left.wait()


async def test_the_engine_notices_when_an_upload_is_cancelled() -> None:
    heard, left = asyncio.Event(), asyncio.Event()

    async def serve(client: Client) -> None:
        await client.reader.readuntil(b"\r\n\r\n")
        heard.set()
        await client.has_left()
        left.set()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    async with engine(serve) as upstream:
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(upstream.request("POST", "/", [], endless()))
            await heard.wait()
            asking.cancel()
        await left.wait()


async def test_the_engine_notices_when_the_response_is_closed() -> None:
    silent = silent_after(BEGUN)

    async with engine(silent) as upstream:
        async with await upstream.request("GET", "/") as response:
            assert await response.chunk() == b"hello"
        await silent.left.wait()


async def test_to_close_a_response_that_has_ended_keeps_the_connection() -> None:
    async with engine(always(OK)) as upstream:
        response = await upstream.request("GET", "/")
        await response.read(10)
        await response.close()

        assert upstream.idle_count == 1


async def test_a_closed_upstream_cuts_what_runs_and_refuses_what_comes() -> None:
    silent = silent_after(BEGUN)

    async with engine(silent) as upstream:
        response = await upstream.request("GET", "/")
        assert await response.chunk() == b"hello"
        await upstream.close()

        with pytest.raises(EngineFailed, match="vllm/qa was stopped"):
            await response.chunk()
        with pytest.raises(Unavailable, match="is being stopped"):
            await upstream.request("GET", "/")
        await silent.left.wait()
