"""One model on several servers elsewhere: a daemon that shares its requests out among them."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from footplate_daemon.paths import Paths
from tests.fakes.upstream import FakeUpstream, open_upstream
from tests.whole.test_services import running


@pytest.fixture
async def far() -> AsyncIterator[tuple[FakeUpstream, FakeUpstream]]:
    """Two servers with the same model."""
    async with open_upstream("far") as first, open_upstream("far") as second:
        yield first, second


def config(*ports: int) -> str:
    urls = ", ".join(f'"http://127.0.0.1:{port}/v1"' for port in ports)
    return f"""
[switching]
default = "remote/far"
[models.far.remote]
urls = [{urls}]
"""


async def test_requests_are_shared_out(home: Paths, far: tuple[FakeUpstream, FakeUpstream]) -> None:
    first, second = far
    async with running(home, config(first.port, second.port)) as footplate:
        await footplate.until_ready("remote/far")

        for _ in range(8):
            await footplate.answer("Hi", model="far")

    assert [len(server.asked) for server in far] == [4, 4]


async def test_one_of_them_is_enough(home: Paths, far: tuple[FakeUpstream, FakeUpstream]) -> None:
    there, _ = far
    async with AsyncExitStack() as stack:
        leaving = await stack.enter_async_context(open_upstream("far"))
        async with running(home, config(leaving.port, there.port)) as footplate:
            await footplate.until_ready("remote/far")
            await footplate.answer("Hi", model="far")
            await stack.aclose()

            answers = await asyncio.gather(*(footplate.answer("Hi", model="far") for _ in range(6)))
            health = await footplate.http.get("/health/deep")

    assert answers == ["Dobrze."] * 6
    assert health.status_code == 200, health.text


async def test_where_none_of_them_answers_the_start_says_why(home: Paths) -> None:
    with socket.socket() as first, socket.socket() as second:  # bound, so that nobody else is; nobody listens
        for each in (first, second):
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in (first, second)]
        async with running(home, config(*ports)) as footplate:
            response = await footplate.chat("Hi", model="far")

    assert response.status_code == 502
    assert f"Nobody answers on 127.0.0.1:{ports[0]}" in response.text
