"""A whole Footplate: real supervisord, real daemon, real engines."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from footplate_daemon import lifecycle
from footplate_daemon.client import FootplateClient
from footplate_daemon.paths import Paths
from footplate_daemon.supervisord import EngineRecord, read_record
from footplate_daemon.wire import Engine, EngineState, Status

PATIENCE_SECONDS = 60.0
"""How long anything may take that a test waits for; only a failing test waits so long."""
LOAD_SECONDS = 300.0
"""The same where vLLM or torch are loaded: 40 s on two cores with nothing else to do."""


@dataclass
class Whole:
    """A running Footplate with a client each way in."""

    paths: Paths
    client: FootplateClient
    http: httpx.AsyncClient
    patience: float = PATIENCE_SECONDS

    async def until(self, holds: Callable[[Status], bool]) -> Status:
        """Follow the status until this holds, over restarts of the daemon too."""
        async with asyncio.timeout(self.patience):
            return await follow_until(self.client, holds)

    async def until_ready(self, variant: str = "llamacpp/guide") -> Engine:
        """Wait until the variant is active; give its engine."""
        status = await self.until(lambda status: status.active == variant)
        return next(engine for engine in status.engines if engine.variant == variant)

    def record(self, engine: str = "llamacpp-guide") -> EngineRecord:
        """Give what supervisord's keeper recorded of a running engine."""
        record = read_record(self.paths, engine)
        assert record is not None
        return record

    async def chat(self, question: str, **more: Any) -> httpx.Response:
        """Ask without streaming."""
        body = {"model": "guide", "messages": [{"role": "user", "content": question}], **more}
        return await self.http.post("/v1/chat/completions", json=body)

    async def answer(self, question: str, **more: Any) -> str:
        """Ask and give the text of the answer."""
        response = await self.chat(question, **more)
        assert response.status_code == 200, response.text
        content: str = response.json()["choices"][0]["message"]["content"]
        return content


async def follow_until(client: FootplateClient, holds: Callable[[Status], bool]) -> Status:
    from footplate_daemon.errors import DaemonUnreachable  # noqa: PLC0415

    while True:
        try:
            async for status in client.follow_status():
                if holds(status):
                    return status
        except DaemonUnreachable:
            await asyncio.sleep(0.02)


def is_ready(status: Status, variant: str) -> bool:
    return any(e.variant == variant and e.state is EngineState.READY for e in status.engines)


def error_of(response: httpx.Response) -> dict[str, Any]:
    """Give the error of an answer after checking that it has the one shape."""
    error: dict[str, Any] = json.loads(response.content)["error"]
    assert {"message", "type", "code", "param", "hint"} <= error.keys()
    assert error["message"]
    assert error["hint"]
    return error


@contextmanager
def held(pid: int) -> Iterator[Callable[[], None]]:
    """Stop a process in its tracks; it goes on when what is given is called, and at the end."""
    os.kill(pid, signal.SIGSTOP)

    def go_on() -> None:
        os.kill(pid, signal.SIGCONT)

    try:
        yield go_on
    finally:
        go_on()


Wholes = Callable[[], Awaitable[Whole]]


@pytest.fixture
async def footplate(home: Paths) -> AsyncIterator[Whole]:
    """A Footplate that is up, with the guide loading or loaded."""
    await asyncio.to_thread(lifecycle.up, home)
    transport = httpx.AsyncHTTPTransport(uds=str(home.socket))
    async with (
        FootplateClient(home.socket) as client,
        httpx.AsyncClient(transport=transport, base_url="http://footplate", timeout=PATIENCE_SECONDS) as http,
    ):
        yield Whole(home, client, http)
