"""Ways into a whole Footplate as its users have them: official SDKs, the command line, TCP with a key."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import anthropic
import httpx
import httpx2
import openai

from footplate_daemon import wire
from footplate_daemon.client import FootplateClient
from footplate_daemon.paths import Paths
from footplate_daemon.switching.engine import free_port
from tests.whole.conftest import PATIENCE_SECONDS, Whole
from tests.whole.test_services import running

WayIn = Literal["socket", "tcp"]
QUESTION = "How do I switch runtime?"
ANSWER = "Run footplate switch with the name of a runtime, for example: footplate switch vllm."


@dataclass(frozen=True)
class Door:
    """The gateway of a running Footplate, over TCP."""

    footplate: Whole
    port: int
    secret: str
    """Of a key for everything."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def headers(self, secret: str | None = None) -> dict[str, str]:
        return {"authorization": f"Bearer {secret or self.secret}"}

    @asynccontextmanager
    async def http(self) -> AsyncIterator[httpx.AsyncClient]:
        """Open a client that sends no key by itself."""
        async with httpx.AsyncClient(base_url=self.url, timeout=PATIENCE_SECONDS) as http:
            yield http

    @asynccontextmanager
    async def openai(self, way_in: WayIn = "tcp") -> AsyncIterator[openai.AsyncOpenAI]:
        """Open OpenAI's SDK over TCP with the key, or over the socket with none that is worth anything."""
        if way_in == "tcp":
            base_url, secret, transport = f"{self.url}/v1", self.secret, httpx2.AsyncHTTPTransport()
        else:
            base_url, secret = "http://footplate/v1", "none"
            transport = httpx2.AsyncHTTPTransport(uds=str(self.footplate.paths.socket))
        async with (
            httpx2.AsyncClient(transport=transport) as http,
            openai.AsyncOpenAI(base_url=base_url, api_key=secret, http_client=http, max_retries=0) as sdk,
        ):
            yield sdk

    @asynccontextmanager
    async def anthropic(self) -> AsyncIterator[anthropic.AsyncAnthropic]:
        """Open Anthropic's SDK, which sends the key its own way."""
        async with anthropic.AsyncAnthropic(base_url=self.url, api_key=self.secret, max_retries=0) as sdk:
            yield sdk


@asynccontextmanager
async def connected(paths: Paths) -> AsyncIterator[Whole]:
    """Open clients to a Footplate that is up."""
    transport = httpx.AsyncHTTPTransport(uds=str(paths.socket))
    async with (
        FootplateClient(paths.socket) as client,
        httpx.AsyncClient(transport=transport, base_url="http://footplate", timeout=PATIENCE_SECONDS) as http,
    ):
        yield Whole(paths, client, http)


@asynccontextmanager
async def open_door(home: Paths, gateway: str = "", config: str = "") -> AsyncIterator[Door]:
    """Run a Footplate that listens on TCP and has a key; `gateway` goes into its table of that name."""
    port = free_port()
    async with running(home, listening(port, gateway) + config) as footplate:
        yield await unlocked(footplate, port)


def listening(port: int, gateway: str = "") -> str:
    """Give the configuration that opens a TCP port."""
    return f'[gateway]\nlisten = "127.0.0.1:{port}"\n{gateway}\n'


async def unlocked(footplate: Whole, port: int) -> Door:
    """Make the first key, with which TCP opens."""
    await footplate.until_ready()
    made = await footplate.client.create_key(wire.ApiKeyWish(name="all"))
    await until_tcp_is_open(footplate)
    return Door(footplate, port, made.secret)


async def until_tcp_is_open(footplate: Whole) -> None:
    """Wait until nothing keeps TCP shut."""
    await footplate.until(lambda status: not status.config_errors)


async def footplate_command(paths: Paths, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `footplate …` as a shell does."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "footplate_tui", *words],
        env={**os.environ, "FOOTPLATE_HOME": str(paths.run_dir.parent)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
        stdin=subprocess.DEVNULL,
    )


async def ended(footplate: Whole, request_id: str) -> wire.Exchange:
    """Give the exchange of a request once it has ended."""
    wanted = wire.ExchangeFilter(request_id=request_id)
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for exchange in footplate.client.follow_exchanges(wanted):
            if exchange.outcome not in {"waiting", "running"}:
                return exchange
    raise AssertionError("The daemon went away.")


async def answered_by(footplate: Whole, request_id: str, outcome: str) -> wire.Exchange:
    """Give the exchange of a request as soon as it is in this state."""
    wanted = wire.ExchangeFilter(request_id=request_id)
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for exchange in footplate.client.follow_exchanges(wanted):
            if exchange.outcome == outcome:
                return exchange
    raise AssertionError("The daemon went away.")


def chat(**more: Any) -> dict[str, Any]:
    """Give the body of a question to the guide."""
    return {"model": "guide", "messages": [{"role": "user", "content": QUESTION}], **more}
