"""TCP opens when it may, moves when it is told to, and says why it is shut."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.http.clients import GET, Client, serving, until

from footplate_daemon.gateway.keys import KeyRing
from footplate_daemon.http.listeners import TcpDoors
from footplate_daemon.http.server import Request
from footplate_daemon.settings import Gateway
from footplate_daemon.store.database import Database
from footplate_daemon.store.keys import KeyStore
from footplate_daemon.switching.engine import free_port


async def answer(request: Request) -> None:
    request.answer(200, [], b"")


@dataclass
class House:
    """A server with doors, and the keys to them."""

    doors: TcpDoors
    keys: KeyRing

    async def key(self) -> None:
        """Make the first key, and wait until that has been heard."""
        await self.keys.create("first", 0.0)
        await until(lambda: self.doors._open or "no API key" not in (self.doors.problem or "no API key"))

    async def is_open(self, port: int) -> bool:
        try:
            client = await Client.connect(("127.0.0.1", port))
        except ConnectionRefusedError:
            return False
        status = (await client.ask(GET)).status
        client.close()
        return status == 200


@asynccontextmanager
async def house(tmp_path: Path, *ports: int) -> AsyncIterator[House]:
    async with Database.open(tmp_path / "footplate.db") as database, serving(answer) as served:
        keys = KeyRing(KeyStore(database))
        await keys.open()
        doors = TcpDoors(served.server, answer, keys, at(*ports))
        running = asyncio.ensure_future(doors.run())
        await asyncio.sleep(0)
        try:
            yield House(doors, keys)
        finally:
            running.cancel()
            await asyncio.wait([running])


def at(*ports: int) -> Gateway:
    return Gateway(listen=tuple(f"127.0.0.1:{port}" for port in ports))


async def test_tcp_opens_with_the_first_key_and_says_why_not_before(tmp_path: Path) -> None:
    port = free_port()
    async with house(tmp_path, port) as home:
        await until(lambda: home.doors.problem)
        before = home.doors.problem

        assert not await home.is_open(port)
        await home.key()

        assert before == (
            f"TCP is not opened on 127.0.0.1:{port}: there is no API key yet. "
            "Make one: footplate keys create NAME"
        )
        assert (await home.is_open(port), home.doors.problem) == (True, None)
    assert not await home.is_open(port)


async def test_without_an_address_nothing_is_open_and_nothing_is_wrong(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.keys.create("first", 0.0)
        await asyncio.sleep(0)

        assert (home.doors._open, home.doors.problem) == ([], None)


async def test_a_changed_configuration_moves_it_adds_to_it_and_shuts_it(tmp_path: Path) -> None:
    first, second = free_port(), free_port()
    async with house(tmp_path, first) as home:
        await home.key()

        await home.doors.take_up(at(second))
        moved = [await home.is_open(first), await home.is_open(second)]
        await home.doors.take_up(at(second, first))
        both = [await home.is_open(first), await home.is_open(second)]
        await home.doors.take_up(at())
        shut = [await home.is_open(first), await home.is_open(second)]

        assert (moved, both, shut) == ([False, True], [True, True], [False, False])


async def test_who_is_inside_has_to_come_in_again_when_the_door_moves(tmp_path: Path) -> None:
    first, second = free_port(), free_port()
    async with house(tmp_path, first) as home:
        await home.key()
        client = await Client.connect(("127.0.0.1", first))
        await client.ask(GET)

        await home.doors.take_up(at(second))

        assert await client.rest() == b""
        client.close()


async def test_limits_are_taken_up_without_a_move(tmp_path: Path) -> None:
    port = free_port()
    async with house(tmp_path, port) as home:
        await home.key()
        opened = list(home.doors._open)

        await home.doors.take_up(at(port).model_copy(update={"max_header_kib": 7}))

        assert home.doors._open == opened
        assert home.doors._server.limits.header_bytes == 7 * 1024


async def test_a_port_that_is_taken_is_told_and_opens_once_it_is_free(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        async with house(tmp_path, port) as home:
            await home.key()
            problem = home.doors.problem
            holder.close()

            await home.doors.take_up(at(port))

            assert (problem or "").startswith(f"127.0.0.1:{port} is taken")
            assert "write another port in listen" in (problem or "")
            assert "TCP is not as the configuration says" in caplog.text
            assert (await home.is_open(port), home.doors.problem) == (True, None)
