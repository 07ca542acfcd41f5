import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from footplate_daemon.errors import EngineFailed
from footplate_daemon.gateway.spreading import LONGEST_PAUSE_SECONDS, Spread
from footplate_daemon.gateway.upstream import Response, Upstream

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
FULL = b"HTTP/1.1 503 Full\r\ncontent-length: 4\r\n\r\nfull"


class Server:
    """Answers each request with the same bytes, while it is open for that."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self.asked = 0
        self.answer = OK
        """Nothing at all: it closes the connection instead."""
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await _head(reader):
                await reader.readexactly(int(re.findall(rb"content-length: (\d+)", head)[0]))
                self.asked += 1
                await self.may_answer.wait()
                writer.write(self.answer)
                await writer.drain()
                if self.answer not in {OK, FULL}:
                    break
        finally:
            writer.close()


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def servers() -> AsyncIterator[tuple[Server, Server]]:
    first, second = Server("first"), Server("second")
    async with AsyncExitStack() as stack:
        for server in (first, second):
            listening = await stack.enter_async_context(await asyncio.start_server(server.serve, "127.0.0.1"))
            server.port = listening.sockets[0].getsockname()[1]
        yield first, second


@asynccontextmanager
async def spread_over(*servers: Server, clock: Clock | None = None) -> AsyncIterator[Spread]:
    upstreams = [Upstream("127.0.0.1", server.port, name=server.name) for server in servers]
    spread = Spread(upstreams, clock or Clock())
    try:
        yield spread
    finally:
        for server in servers:
            server.may_answer.set()
        await spread.close()


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - lets the loop run: what is awaited has no event
            await asyncio.sleep(0)


async def ask(spread: Spread) -> tuple[int, bytes]:
    async with await spread.post("/v1/chat/completions", b"{}", "req_1") as response:
        return response.status, await response.read(100)


async def ask_many(spread: Spread, count: int) -> None:
    for _ in range(count):
        await ask(spread)


async def test_requests_at_a_time_are_shared_out_evenly(servers: tuple[Server, Server]) -> None:
    first, second = servers
    first.may_answer.clear()
    second.may_answer.clear()

    async with spread_over(first, second) as spread, asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(ask(spread)) for _ in range(10)]
        await until(lambda: first.asked + second.asked == 10)
        counts = (first.asked, second.asked)
        first.may_answer.set()
        second.may_answer.set()

    assert counts == (5, 5)
    assert [task.result() for task in asked] == [(200, b"ok")] * 10


async def test_a_server_that_is_slow_gets_fewer(servers: tuple[Server, Server]) -> None:
    slow, quick = servers
    slow.may_answer.clear()

    async with spread_over(slow, quick) as spread, asyncio.TaskGroup() as tasks:
        tasks.create_task(ask_many(spread, 10))
        tasks.create_task(ask_many(spread, 10))
        await until(lambda: quick.asked >= 10)
        assert slow.asked == 1
        slow.may_answer.set()


async def test_requests_one_after_another_go_round(servers: tuple[Server, Server]) -> None:
    clock = Clock()

    async with spread_over(*servers, clock=clock) as spread:
        for _ in range(6):
            clock.now += 1
            await ask(spread)

    assert [server.asked for server in servers] == [3, 3]


async def test_a_server_that_breaks_off_before_a_byte_costs_the_client_nothing(
    servers: tuple[Server, Server],
) -> None:
    broken, well = servers
    broken.answer = b""

    async with spread_over(broken, well) as spread:
        answers = [await ask(spread) for _ in range(5)]

    assert answers == [(200, b"ok")] * 5
    assert (broken.asked, well.asked) == (1, 5)


async def test_what_has_begun_is_not_asked_again_elsewhere(servers: tuple[Server, Server]) -> None:
    broken, well = servers
    broken.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nhalf"

    async with spread_over(broken, well) as spread:
        with pytest.raises(EngineFailed, match="first closed the connection after 4 bytes"):
            await ask(spread)

    assert (broken.asked, well.asked) == (1, 0)


async def test_a_server_that_nobody_listens_on_is_left_out_and_tried_again_later(
    servers: tuple[Server, Server],
) -> None:
    back, well = servers
    clock = Clock()
    port, back.port = back.port, 1
    async with spread_over(back, well, clock=clock) as spread:
        await ask_many(spread, 3)
        spread._places[0].upstream._port = port  # it is started again

        clock.now += 0.9
        await ask_many(spread, 3)
        early = back.asked
        clock.now += 0.2
        await ask_many(spread, 3)

    assert (early, back.asked) == (0, 2)
    assert well.asked == 7


async def test_each_further_failure_is_given_more_time_up_to_a_minute(
    servers: tuple[Server, Server],
) -> None:
    broken, well = servers
    broken.answer = b""
    clock, pauses = Clock(), []

    async with spread_over(broken, well, clock=clock) as spread:
        (place, _) = spread._places
        for _ in range(9):
            await ask_many(spread, 2)
            pauses.append(place.left_out_until - clock.now)
            clock.now = place.left_out_until

    assert pauses == [1, 2, 4, 8, 16, 32, LONGEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS]


async def test_after_its_pause_one_request_alone_tries_a_server(servers: tuple[Server, Server]) -> None:
    broken, well = servers
    clock = Clock()
    broken.answer = b""
    async with spread_over(broken, well, clock=clock) as spread:
        await ask(spread)
        broken.may_answer.clear()
        clock.now += 2

        async with asyncio.TaskGroup() as tasks:
            trying = tasks.create_task(ask(spread))
            await until(lambda: broken.asked == 2)
            await ask_many(spread, 5)
            meanwhile = broken.asked
            broken.may_answer.set()

    assert meanwhile == 2
    assert trying.result() == (200, b"ok")


async def test_a_server_without_room_sends_a_request_on(servers: tuple[Server, Server]) -> None:
    full, well = servers
    full.answer = FULL

    async with spread_over(full, well) as spread:
        answers = [await ask(spread) for _ in range(4)]

    assert answers == [(200, b"ok")] * 4
    assert full.asked == 1


async def test_where_all_are_full_the_client_gets_their_word(servers: tuple[Server, Server]) -> None:
    for server in servers:
        server.answer = FULL

    async with spread_over(*servers) as spread:
        answer = await ask(spread)

    assert answer == (503, b"full")
    assert [server.asked for server in servers] == [1, 1]


async def test_where_all_are_gone_the_last_one_s_failure_is_told(servers: tuple[Server, Server]) -> None:
    for server in servers:
        server.answer = b""

    async with spread_over(*servers) as spread:
        for _ in range(2):
            with pytest.raises(EngineFailed, match="closed the connection before it answered"):
                await ask(spread)

    assert [server.asked for server in servers] == [2, 2]


async def test_a_server_says_itself_how_long_it_wants_to_be_left_alone(
    servers: tuple[Server, Server],
) -> None:
    full, well = servers
    full.answer = FULL.replace(b"\r\n\r\n", b"\r\nretry-after: 20\r\n\r\n")
    clock = Clock()
    async with spread_over(full, well, clock=clock) as spread:
        await ask(spread)
        full.answer = OK
        clock.now += 19
        await ask_many(spread, 3)
        early = full.asked
        clock.now += 2
        await ask_many(spread, 3)

    assert (early, full.asked) == (1, 3)


@pytest.mark.parametrize("status", [400, 404, 500])
async def test_an_error_about_the_request_is_the_answer(servers: tuple[Server, Server], status: int) -> None:
    for server in servers:
        server.answer = b"HTTP/1.1 %d No\r\ncontent-length: 2\r\n\r\nno" % status

    async with spread_over(*servers) as spread:
        answer = await ask(spread)

    assert answer == (status, b"no")
    assert sum(server.asked for server in servers) == 1


async def test_a_stream_counts_until_it_has_ended(servers: tuple[Server, Server]) -> None:
    first, second = servers
    first.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nha"
    clock = Clock()

    async with spread_over(first, second, clock=clock) as spread:
        response: Response = await spread.post("/v1/chat/completions", b"{}", "req_1")
        busy = [place.in_flight for place in spread._places]
        await response.close()

    assert busy == [1, 0]
