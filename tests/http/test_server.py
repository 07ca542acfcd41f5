"""Our HTTP/1.1 server, by real sockets and raw bytes."""

import asyncio
import json
import ssl
import subprocess
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from os import getuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.http.clients import GET, Answer, Served, serving, until

from footplate_daemon.errors import TooLarge
from footplate_daemon.gateway.upstream import Upstream
from footplate_daemon.http.answers import error_answer
from footplate_daemon.http.server import HIGH_WATER, Handler, Request

MIB = 1024 * 1024
BODY_LIMIT = 4 * MIB
MANY = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
BOTH = pytest.mark.parametrize("kind", ["unix", "tcp"])


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a client does is no news for the log."""
    yield
    assert [record.getMessage() for record in caplog.records if record.levelname != "DEBUG"] == []


async def echo(request: Request) -> None:
    """Tell what was asked; a path that begins with /stream gets it in pieces."""
    try:
        body = await request.body(BODY_LIMIT)
    except TooLarge as error:
        request.answer(413, *error_answer(error))
        return
    names = sorted(name.decode() for name, _ in request.headers)
    told = json.dumps([request.method, request.path, request.query.decode(), names]).encode() + body
    if not request.path.startswith("/stream"):
        request.answer(200, [(b"content-type", b"text/plain")], told)
        return
    request.begin(200, [(b"content-type", b"text/plain")])
    for start in range(0, len(told), 1000):
        request.write(told[start : start + 1000])
        await request.drain()
    request.end()


# Any requests, however they come


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One valid request after which another one may come."""
    method = draw(st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS"]))
    version, keep = draw(st.sampled_from([("1.1", ""), ("1.0", "Connection: keep-alive\r\n")]))
    path = draw(st.sampled_from(["/", "/a%20b?c=d", "http://host:80/", "/stream", "http://host:80/stream?x"]))
    if version == "1.0":
        path = path.replace("stream", "whole")  # the end of a stream is the end of the connection
    names = draw(st.lists(st.from_regex(r"X-[A-Za-z0-9]{1,20}", fullmatch=True), max_size=5))
    head = f"{method} {path} HTTP/{version}\r\nHost: x\r\n{keep}" + "".join(
        f"{name}: {'v' * len(name)}\r\n" for name in names
    )
    body = draw(st.binary(max_size=3000))
    match draw(st.sampled_from(["none", "length", "chunked"])) if version == "1.1" else "length":
        case "none":
            return head.encode() + b"\r\n"
        case "length":
            return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
        case _:
            size = draw(st.integers(1, 1000))
            pieces = [body[start : start + size] for start in range(0, len(body), size)]
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
            return f"{head}transfer-encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"


LAST = st.sampled_from([b"", b"GET / HTTP/1.0\r\n\r\n", b"GET /stream HTTP/1.1\r\nconnection: close\r\n\r\n"])


def told(answers: list[Answer]) -> list[tuple[int, bytes]]:
    return [(answer.status, answer.body) for answer in answers]


async def one_by_one(served: Served, sent: list[bytes]) -> list[tuple[int, bytes]]:
    """Ask each on a connection of its own, in one piece."""
    found = []
    for each in sent:
        client = await served.client()
        found.append(await client.ask(each))
        client.close()
    return told(found)


@MANY
@given(st.lists(requests(), min_size=1, max_size=5), LAST, st.data())
async def test_requests_are_answered_in_order_wherever_they_are_split(
    sent: list[bytes], last: bytes, data: st.DataObject
) -> None:
    everything = [*sent, last] if last else sent
    raw = b"".join(everything)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(raw) - 1), max_size=12)))
    pieces = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    async with serving(echo) as served:
        expected = await one_by_one(served, everything)
        client = await served.client()

        sending = asyncio.ensure_future(client.send_in_pieces(pieces))
        answers = [await client.answer() for _ in everything]

        await sending
        assert told(answers) == expected


@MANY
@given(st.lists(requests(), min_size=1, max_size=4), st.data())
async def test_what_is_cut_off_gets_no_answer_and_what_came_before_does(
    sent: list[bytes], data: st.DataObject
) -> None:
    raw = b"".join(sent)
    end = data.draw(st.integers(0, len(raw) - 1))
    ends = [len(b"".join(sent[: count + 1])) for count in range(len(sent))]
    whole = [each for each, its_end in zip(sent, ends, strict=True) if its_end <= end]
    async with serving(echo) as served:
        expected = await one_by_one(served, whole)
        client = await served.client()

        await client.send(raw[:end])
        client.half_close()

        assert told(await client.answers()) == expected
        await served.all_left()


# Hostile bytes


@MANY
@given(
    st.binary(min_size=1, max_size=4000)
    | st.builds(
        lambda raw, at, junk: raw[:at] + junk + raw[at:], requests(), st.integers(0, 200), st.binary()
    )
)
async def test_whatever_is_sent_the_server_neither_hangs_nor_falls(junk: bytes) -> None:
    async with serving(echo) as served:
        client = await served.client()

        await client.send(junk)
        client.half_close()
        answers = await client.answers()

        assert all(answer.error["code"] for answer in answers if answer.status >= 400)
        await served.has_room()


POST = b"POST / HTTP/1.1\r\nhost: x\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x00\x01\x02\r\n\r\n", 400),
        (b"GET /\x00 HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\x00c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nhost: x\n\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n: b\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"get / HTTP/1.1\r\n\r\n", 400),
        (b"GET nowhere HTTP/1.1\r\n\r\n", 400),
        (b"GET http:// HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT host:443 HTTP/1.1\r\nhost: host:443\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (POST + b"content-length: -1\r\n\r\n", 400),
        (POST + b"content-length: +1\r\n\r\nx", 400),
        (POST + b"content-length: 1x\r\n\r\nx", 400),
        (POST + b"content-length: 1, 1\r\n\r\nx", 400),
        (POST + b"content-length: 1\r\ncontent-length: 1\r\n\r\nx", 400),
        (POST + b"content-length: " + b"9" * 30 + b"\r\n\r\nx", 400),
        (POST + b"content-length: 99999999999999\r\n\r\nx", 413),
        (CHUNKED + b"content-length: 3\r\n\r\n0\r\n\r\n", 400),
        (CHUNKED + b"transfer-encoding: gzip\r\n\r\n0\r\n\r\n", 400),
        (CHUNKED + b"\r\nzz\r\n", 400),
        (CHUNKED + b"\r\n-1\r\n", 400),
        (CHUNKED + b"\r\n" + b"f" * 20 + b"\r\n", 400),
        (CHUNKED + b"\r\n3\r\nabcd\r\n0\r\n\r\n", 400),
        (CHUNKED + b"\r\n3;" + b"x" * 1_000_000, 431),
        (CHUNKED + b"\r\n0\r\nx-trailer: " + b"x" * 1_000_000, 431),
        (b"GET /" + b"x" * 100_000, 431),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 100_000, 431),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 66_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 50_000, 431),
        (POST + b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 27\r\n\r\n" + GET, 400),
    ],
)
async def test_what_is_not_http_is_refused_in_our_one_shape(sent: bytes, status: int) -> None:
    async with serving(echo) as served:
        client = await served.client()

        await client.send(sent)
        (answer,) = await client.answers()

        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert answer.error["hint"]
        await served.has_room()


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
async def test_a_wish_for_another_protocol_is_ignored(protocol: bytes) -> None:
    async with serving(echo) as served:
        client = await served.client()
        wish = b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: %b\r\n\r\n" % protocol

        await client.send(wish + GET)

        assert [(await client.answer()).status for _ in range(2)] == [200, 200]


@pytest.mark.parametrize(
    ("target", "path"), [(b"*", "*"), (b"http://a:1/b?c", "/b"), (b"/%2e%ff", "/.\ufffd")]
)
async def test_unusual_targets_have_a_path(target: bytes, path: str) -> None:
    async with serving(echo) as served:
        client = await served.client()

        answer = await client.ask(b"OPTIONS %b HTTP/1.1\r\n\r\n" % target)

        assert json.loads(answer.body)[1] == path


# One after the other


async def test_a_good_request_is_answered_before_the_bad_one_after_it() -> None:
    async with serving(echo) as served:
        client = await served.client()

        await client.send(GET + GET + b"nonsense\r\n\r\n" + GET)

        assert [answer.status for answer in await client.answers()] == [200, 200, 400]


class Gate:
    """A handler that answers when it is told to."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.open = asyncio.Event()
        self.came = asyncio.Event()

    async def __call__(self, request: Request) -> None:
        self.requests.append(request)
        self.came.set()
        await request.body(BODY_LIMIT)
        await self.open.wait()
        request.answer(200, [], request.path.encode())


async def test_what_is_sent_ahead_is_held_within_bounds_and_answered_in_order() -> None:
    gate, count = Gate(), 40_000
    async with serving(gate) as served:
        client = await served.client()
        ahead = b"".join(b"GET /%d HTTP/1.1\r\n\r\n" % number for number in range(count))
        sending = asyncio.ensure_future(client.send(ahead))
        await gate.came.wait()
        (connection,) = served.server.connections
        await until(lambda: not connection._is_reading)

        assert not sending.done()
        assert connection._held_bytes + 20 * len(connection._requests) < MIB
        gate.open.set()
        bodies = [int((await client.answer()).body.strip(b"/")) for _ in range(count)]

        await sending
        assert bodies == list(range(count))


async def test_a_body_whose_turn_has_not_come_is_not_late() -> None:
    gate = Gate()
    async with serving(gate, request_seconds=1) as served:
        client = await served.client()
        await client.send(GET + POST + b"content-length: 5\r\n\r\nab")
        await gate.came.wait()
        await asyncio.sleep(2.5)  # more than twice what a body may take

        gate.open.set()
        await client.answer()
        await client.send(b"cde")

        assert (await client.answer()).status == 200


async def test_the_end_of_a_refused_connection_waits_for_the_answer_before() -> None:
    gate = Gate()
    async with serving(gate, request_seconds=0.1, linger_seconds=0.1) as served:
        client = await served.client()
        await client.send(GET + b"nonsense\r\n\r\n")
        await gate.came.wait()
        await asyncio.sleep(0.3)  # a refused client may send for 0.1 s

        gate.open.set()

        assert [answer.status for answer in await client.answers()] == [200, 400]


async def test_head_gets_the_head_of_get() -> None:
    async with serving(echo) as served:
        client = await served.client()

        for path in (b"/", b"/stream"):
            full = await client.ask(b"GET %b HTTP/1.1\r\n\r\n" % path)
            head = await client.ask(b"HEAD %b HTTP/1.1\r\n\r\n" % path, head_only=True)

            assert head.status == full.status
            assert head.headers.keys() == full.headers.keys()
            assert head.headers.get("content-length") == full.headers.get("content-length")


async def test_an_answer_without_a_body_has_no_length_and_keeps_the_connection() -> None:
    async def handler(request: Request) -> None:
        if request.path == "/whole":
            request.answer(204, [], b"")
        else:
            request.begin(204, [])
            request.write(b"nothing of this may be sent")
            request.end()

    async with serving(handler) as served:
        client = await served.client()

        answers = [
            await client.ask(b"GET %b HTTP/1.1\r\n\r\n" % path) for path in (b"/whole", b"/", b"/whole")
        ]

        assert [answer.headers.keys() for answer in answers] == [{"date"}] * 3


@pytest.mark.parametrize("path", [b"/", b"/stream"])
async def test_http_1_0_gets_the_end_of_the_connection_as_the_end_of_the_answer(path: bytes) -> None:
    async with serving(echo) as served:
        client = await served.client()

        answer = await client.ask(b"GET %b HTTP/1.0\r\n\r\n" % path)
        rest = await client.rest()

        assert answer.headers["connection"] == "close"
        assert "transfer-encoding" not in answer.headers
        assert (answer.body.startswith(b'["GET"'), rest) == (True, b"")


# Bodies


async def test_a_client_that_waits_for_the_go_ahead_gets_it_when_its_body_is_read() -> None:
    async with serving(echo) as served:
        client = await served.client()
        await client.send(POST + b"expect: 100-continue\r\ncontent-length: 3\r\n\r\n")

        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert (await client.ask(b"abc")).body.endswith(b"abc")


async def test_a_body_that_is_refused_is_not_asked_for() -> None:
    async with serving(echo) as served:
        client = await served.client()

        await client.send(POST + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % (BODY_LIMIT + 1))

        assert (await client.until(b"\r\n")).startswith(b"HTTP/1.1 413 ")


@BOTH
@pytest.mark.parametrize(
    "framing", [b"content-length: %d\r\n\r\n" % (64 * MIB), b"transfer-encoding: chunked\r\n\r\n"]
)
async def test_a_body_over_the_limit_is_answered_though_the_client_goes_on(kind: str, framing: bytes) -> None:
    async with serving(echo) as served:
        client = await served.client(kind)
        await client.send(POST + framing)
        for _ in range(32):
            await client.send((b"%x\r\n" % MIB if b"chunked" in framing else b"") + b"x" * MIB + b"\r\n")

        answer = await client.answer()

        assert (answer.status, answer.error["code"]) == (413, "too_large")
        assert answer.headers["connection"] == "close"


async def test_a_body_that_nobody_takes_is_not_read() -> None:
    gate = asyncio.Event()

    async def handler(request: Request) -> None:
        await gate.wait()
        request.answer(200, [], b"%d" % len(await request.body(64 * MIB)))

    async with serving(handler) as served:
        client = await served.client()
        sending = asyncio.ensure_future(
            client.send(POST + b"content-length: %d\r\n\r\n" % (32 * MIB) + bytes(32 * MIB))
        )
        await until(lambda: any(not each._is_reading for each in served.server.connections))
        (connection,) = served.server.connections

        assert connection._requests[0]._buffered_bytes < 3 * HIGH_WATER
        assert not sending.done()
        gate.set()
        assert (await client.answer()).body == b"%d" % (32 * MIB)
        await sending


async def test_100_mb_cost_about_their_size() -> None:
    size = 100 * MIB

    async def handler(request: Request) -> None:
        tracemalloc.start()
        body = await request.body(size)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        request.answer(200, [], b"%d %d" % (len(body), peak))

    async with serving(handler) as served:
        client = await served.client()
        piece = bytes(MIB)
        await client.send(POST + b"content-length: %d\r\n\r\n" % size)
        for _ in range(100):
            await client.send(piece)

        length, peak = map(int, (await client.answer()).body.split())

        assert length == size
        assert peak < 2.2 * size  # the pieces, and the whole that is made of them


# Clients that take their time


@pytest.mark.parametrize(
    ("sent", "status"), [(b"GET / HTTP/1.1\r\nA: b", 408), (POST + b"content-length: 9\r\n\r\nabc", 408)]
)
async def test_a_request_that_does_not_come_is_answered_408(sent: bytes, status: int) -> None:
    async with serving(echo, request_seconds=0.2) as served:
        client = await served.client()

        answer = await client.ask(sent)

        assert (answer.status, answer.error["code"]) == (status, "timed_out")
        assert await client.rest() == b""
        await served.all_left()


async def test_a_head_that_drips_does_not_gain_time() -> None:
    async with serving(echo, request_seconds=0.2) as served:
        client = await served.client()
        await client.send(b"GET / HTTP/1.1\r\n")
        answering = asyncio.ensure_future(client.answer())

        while not answering.done():
            await client.send_in_pieces([b"a: b\r\n"])
            await asyncio.wait([answering], timeout=0.02)

        assert (await answering).status == 408


async def test_a_body_that_drips_does() -> None:
    async with serving(echo, request_seconds=3) as served:
        client = await served.client()
        await client.send(POST + b"content-length: 10\r\n\r\n")
        for _ in range(10):  # longer in all than a body may be silent
            await asyncio.sleep(0.4)
            await client.send(b"x")

        assert (await client.answer()).body.endswith(b"x" * 10)


async def test_who_says_nothing_is_closed() -> None:
    async with serving(echo, idle_seconds=2) as served:
        fresh, used = await served.client(), await served.client()

        await used.ask(GET)

        assert [await fresh.rest(), await used.rest()] == [b"", b""]


async def test_an_answer_may_take_longer_than_any_silence() -> None:
    gate = Gate()
    async with serving(gate, request_seconds=1, idle_seconds=1) as served:
        client = await served.client()
        await client.send(GET)
        await gate.came.wait()
        await asyncio.sleep(2.5)  # more than twice what a client may be silent

        gate.open.set()

        assert (await client.answer()).status == 200


# Clients that read slowly


async def test_a_stream_goes_no_faster_than_its_client_reads() -> None:
    paused, piece, count = asyncio.Event(), bytes(64 * 1024), 3200
    asked: list[Request] = []

    async def handler(request: Request) -> None:
        asked.append(request)
        request.on_paused = paused.set
        request.begin(200, [])
        for _ in range(count):
            request.write(piece)
            await request.drain()
        request.end()

    async with serving(handler) as served:
        client = await served.client()
        await client.send(GET)
        await paused.wait()

        assert asked[0].sent_bytes < 4 * MIB
        await client.until(b"\r\n\r\n")
        total = 0
        async for chunk in client.chunks():
            total += len(chunk)
        assert total == 200 * MIB


async def test_a_stream_that_begins_while_the_client_reads_slowly_is_paused_too() -> None:
    paused = asyncio.Event()

    async def handler(request: Request) -> None:
        if request.path == "/":
            request.answer(200, [], bytes(4 * MIB))
            return
        request.begin(200, [])
        request.on_paused = paused.set
        request.write(b"x")
        await paused.wait()
        request.end()

    async with serving(handler) as served:
        client = await served.client()

        await client.send(GET + b"GET /next HTTP/1.1\r\n\r\n")
        await paused.wait()

        assert [len((await client.answer()).body) for _ in range(2)] == [4 * MIB, 1]


async def test_slow_readers_cost_little_and_hold_nobody_up() -> None:
    length, slow_count, fast_count = 4 * MIB, 40, 160

    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = length if b"/slow" in head else 64 * 1024
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(size // 4096):
            writer.write(bytes(4096))
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(engine, "127.0.0.1", 0) as raw:
        upstream = Upstream("127.0.0.1", raw.sockets[0].getsockname()[1])
        try:
            async with serving(relaying(upstream)) as served:
                slow = [await served.client() for _ in range(slow_count)]
                for client in slow:
                    await client.send(b"GET /slow HTTP/1.1\r\n\r\n")
                await asyncio.gather(*(fast(served, 64 * 1024) for _ in range(fast_count)))
                await until(lambda: sum(each.is_paused for each in served.server.connections) == slow_count)

                held = [each._transport.get_write_buffer_size() for each in served.server.connections]
                assert max(held) < MIB
                bodies = await asyncio.gather(*(client.answer() for client in slow))
                assert {len(answer.body) for answer in bodies} == {length}
        finally:
            await upstream.close()


def relaying(upstream: Upstream) -> Handler:
    async def handler(request: Request) -> None:
        async with await upstream.request("GET", request.path) as response:
            request.begin(200, [])
            request.on_paused, request.on_resumed = response.pause, response.resume
            await response.relay(request.write)
            request.end()

    return handler


async def fast(served: Served, length: int) -> None:
    client = await served.client()
    assert len((await client.ask(b"GET /fast HTTP/1.1\r\n\r\n")).body) == length
    client.close()


# Clients that leave


class Talk:
    """A handler that goes on until its client leaves, as the gateway's do."""

    def __init__(self, *, begins: bool, says: bytes = b"data: x\n\n") -> None:
        self.begins = begins
        self.says = says
        self.came = asyncio.Event()
        self.ended = asyncio.Event()
        self.left_count = 0

    async def __call__(self, request: Request) -> None:
        await request.body(BODY_LIMIT)
        request.on_left = lambda: self._leave(request)
        if self.begins:
            request.probe = b":\n\n"
            request.begin(200, [(b"content-type", b"text/event-stream")])
            request.write(self.says)
        self.came.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()

    def _leave(self, request: Request) -> None:
        self.left_count += 1
        assert request.task is not None
        request.task.cancel()


@BOTH
@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize("how", ["close", "reset", "half"])
async def test_a_client_that_leaves_ends_what_it_asked_for(kind: str, how: str, *, begins: bool) -> None:
    talk = Talk(begins=begins)
    async with serving(talk) as served:
        client = await served.client(kind)
        await client.send(GET)
        await talk.came.wait()

        if how == "half":
            client.half_close()
            await until(lambda: any(each._is_half_closed for each in served.server.connections))
        (client.reset if how == "reset" else client.close)()

        await talk.ended.wait()
        await served.all_left()
        assert talk.left_count == 1


@BOTH
async def test_a_client_that_leaves_at_once_is_answered_by_nobody(kind: str) -> None:
    talk = Talk(begins=True)
    async with serving(talk) as served:
        client = await served.client(kind)
        await client.send(GET)
        client.reset()

        await served.all_left()
        await until(lambda: talk.ended.is_set() or not talk.came.is_set())


@BOTH
@pytest.mark.parametrize("path", [b"/", b"/stream"])
async def test_a_client_that_only_sends_no_more_gets_its_whole_answer(kind: str, path: bytes) -> None:
    gate = asyncio.Event()
    body = b"x" * (8 * MIB)

    async def handler(request: Request) -> None:
        request.probe = b":\n\n"
        if request.path == "/stream":
            request.begin(200, [])
            request.write(b"a\n\n")
        await gate.wait()
        if request.path == "/stream":
            request.write(body)
            request.end()
        else:
            request.answer(200, [], body)

    async with serving(handler) as served:
        client = await served.client(kind)
        await client.send(b"GET %b HTTP/1.1\r\n\r\n" % path)
        client.half_close()
        await until(lambda: any(each._is_half_closed for each in served.server.connections))
        gate.set()

        (answer,) = await client.answers()

        assert answer.body.removeprefix(b"a\n\n").removeprefix(b":\n\n") == body


@BOTH
async def test_a_client_that_sends_no_more_once_it_is_answered_still_reads_all_of_it(kind: str) -> None:
    async def handler(request: Request) -> None:
        request.answer(200, [], bytes(16 * MIB))

    async with serving(handler) as served:
        client = await served.client(kind)
        await client.send(GET)
        await client.until(b"\r\n\r\n")

        client.half_close()

        assert len(await client.rest()) == 16 * MIB


async def test_http_1_0_is_not_told_to_go_on() -> None:
    gate = Gate()
    async with serving(gate) as served:
        client = await served.client()
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        client.half_close()
        await until(lambda: any(each._is_half_closed for each in served.server.connections))
        gate.open.set()

        assert (await client.rest()).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_body_that_breaks_off_ends_its_handler() -> None:
    ended = asyncio.Event()

    async def handler(request: Request) -> None:
        try:
            await request.body(BODY_LIMIT)
        finally:
            ended.set()

    async with serving(handler) as served:
        client = await served.client("tcp")
        await client.send(POST + b"content-length: 9\r\n\r\nabc")
        client.close()

        await ended.wait()
        await served.all_left()


# The end


async def stop_and_wait(served: Served) -> None:
    served.server.stop()
    await served.running


async def test_idle_connections_close_at_once_when_the_server_stops() -> None:
    async with serving(echo, goodbye_seconds=60) as served:
        fresh, used = await served.client(), await served.client()
        await used.ask(GET)
        await fresh.send(b"GET / HT")

        await asyncio.wait_for(stop_and_wait(served), 25)

        assert [await fresh.rest(), await used.rest()] == [b"", b""]


async def test_requests_under_way_get_time_to_end() -> None:
    gate = Gate()
    async with serving(gate, goodbye_seconds=60) as served:
        client = await served.client()
        await client.send(GET)
        await gate.came.wait()
        served.server.stop()
        gate.open.set()

        answer = await client.answer()

        assert (answer.status, answer.headers["connection"]) == (200, "close")
        await asyncio.wait_for(served.running, 25)


async def test_an_answer_that_is_still_being_read_is_not_cut() -> None:
    async def handler(request: Request) -> None:
        request.answer(200, [], bytes(16 * MIB))

    async with serving(handler, goodbye_seconds=60) as served:
        client = await served.client()
        await client.send(GET)
        await client.until(b"\r\n\r\n")
        served.server.stop()

        assert len(await client.exactly(16 * MIB)) == 16 * MIB
        await asyncio.wait_for(served.running, 25)


async def test_streams_that_go_on_are_told() -> None:
    came = asyncio.Event()

    async def handler(request: Request) -> None:
        assert request.task is not None
        request.on_left = request.task.cancel
        request.begin(200, [])
        came.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            assert request.is_stopping
            request.write(b"bye")
            request.end()

    async with serving(handler) as served:
        client = await served.client()
        await client.send(GET)
        await came.wait()

        await stop_and_wait(served)

        assert (await client.answer()).body == b"bye"


async def test_who_does_not_listen_is_cancelled_at_the_end() -> None:
    came, heard = asyncio.Event(), asyncio.Event()

    async def handler(request: Request) -> None:
        request.on_left = heard.set
        came.set()
        await asyncio.Event().wait()

    async with serving(handler) as served:
        client = await served.client()
        await client.send(GET)
        await came.wait()

        await asyncio.wait_for(stop_and_wait(served), 25)

        assert heard.is_set()
        assert await client.rest() == b""


async def test_a_client_that_reads_nothing_does_not_hold_up_the_end() -> None:
    async def handler(request: Request) -> None:
        request.answer(200, [], bytes(16 * MIB))

    async with serving(handler) as served:
        client = await served.client()
        await client.send(GET)
        await client.until(b"\r\n\r\n")

        await asyncio.wait_for(stop_and_wait(served), 25)


async def test_to_cancel_the_server_ends_everything() -> None:
    talk = Talk(begins=True)
    async with serving(talk) as served:
        client = await served.client()
        await client.send(GET)
        await talk.came.wait()

        served.running.cancel()

        with pytest.raises(asyncio.CancelledError):
            await served.running
        assert talk.ended.is_set()
        assert await client.rest() != b""
        served.running = asyncio.ensure_future(asyncio.sleep(0))


# Handlers, doors and peers


async def test_a_handler_that_fails_ends_the_connection_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(request: Request) -> None:
        if request.path == "/fail":
            raise ZeroDivisionError
        request.answer(200, [], b"")

    async with serving(handler) as served:
        client = await served.client()
        await client.send(b"GET /fail HTTP/1.1\r\n\r\n")

        assert await client.rest() == b""
        assert "ZeroDivisionError" in caplog.text
        caplog.clear()
        await served.has_room()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    "header", [(b"x-a", b"b\r\nset-cookie: c"), (b"x-a", b"b\nc: d"), (b"x\r\na", b"b"), (b"x", b"\r")]
)
async def test_a_header_with_a_line_break_is_refused_and_nothing_of_it_sent(
    header: tuple[bytes, bytes], *, streamed: bool
) -> None:
    async def handler(request: Request) -> None:
        with pytest.raises(ValueError, match="line break"):
            request.begin(200, [header]) if streamed else request.answer(200, [header], b"")
        assert not request.has_begun
        request.answer(500, [], b"refused")

    async with serving(handler) as served:
        client = await served.client()

        answer = await client.ask(GET)

        assert (answer.status, answer.body) == (500, b"refused")


async def test_answers_are_dated() -> None:
    async with serving(echo) as served:
        client = await served.client()

        date = parsedate_to_datetime((await client.ask(GET)).headers["date"])

        assert abs((datetime.now(UTC) - date).total_seconds()) < 60


async def test_one_connection_too_many_is_told_so() -> None:
    async with serving(echo, connections=2) as served:
        first, second, own = [await served.client(kind) for kind in ("tcp", "tcp", "unix")]
        assert [(await each.ask(GET)).status for each in (first, second, own)] == [200, 200, 200]

        third = await served.client("tcp")
        answer = await third.answer()

        assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (503, "busy", "1")
        assert await third.rest() == b""
        third.close()
        first.close()
        await until(lambda: len(served.server.connections) == 2)
        await served.has_room()


async def test_the_server_knows_who_asks() -> None:
    async def handler(request: Request) -> None:
        request.answer(200, [], f"{request.peer.user_id} {request.peer.address}".encode())

    async with serving(handler) as served:
        local, remote = await served.client("unix"), await served.client("tcp")

        assert (await local.ask(GET)).body == f"{getuid()} None".encode()
        assert (await remote.ask(GET)).body == b"None 127.0.0.1"


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    made = ["-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=localhost"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(
        ["openssl", "req", "-x509", *curve, *made, *names], check=True, timeout=60, capture_output=True
    )
    return cert, key


@pytest.fixture
def tls(certificate: tuple[Path, Path]) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's side, and a client's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context, ssl.create_default_context(cafile=str(certificate[0]))


async def test_tls_carries_whole_and_streamed_answers(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with serving(echo, tls=tls[0]) as served:
        reader, writer = await asyncio.open_connection(*served.tcp, ssl=tls[1], server_hostname="localhost")
        body = b"x" * MIB
        head = b"POST %b HTTP/1.1\r\nconnection: %b\r\ncontent-length: %d\r\n\r\n"
        writer.write(head % (b"/", b"keep-alive", len(body)) + body)
        writer.write(head % (b"/stream", b"close", len(body)) + body)

        answered = await reader.read()

        assert answered.count(b"HTTP/1.1 200 OK") == 2
        assert answered.count(b"x" * 100) > 2 * MIB // 200
        writer.close()


async def test_a_tls_client_that_leaves_ends_what_it_asked_for(
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    talk = Talk(begins=True)
    async with serving(talk, tls=tls[0]) as served:
        _, writer = await asyncio.open_connection(*served.tcp, ssl=tls[1], server_hostname="localhost")
        writer.write(GET)
        await talk.came.wait()

        writer.transport.abort()

        await talk.ended.wait()
        await served.all_left()
        assert talk.left_count == 1


async def test_who_does_not_speak_tls_is_shown_out(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with serving(echo, tls=tls[0], request_seconds=0.2) as served:
        plain, silent = await served.client("tcp"), await served.client("tcp")

        await plain.send(GET)

        assert not (await plain.rest()).startswith(b"HTTP/")
        assert await silent.rest() == b""
