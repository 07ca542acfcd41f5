"""The ledger, whole: what waits, runs, is left, is cancelled or is cut is entered as what it was."""

import asyncio
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from footplate_daemon import wire
from footplate_daemon.errors import Conflict
from footplate_daemon.gateway.sse import EventSplitter
from footplate_daemon.paths import Paths
from tests import engines
from tests.whole.clients import ANSWER, QUESTION, answered_by, chat, ended, footplate_command
from tests.whole.conftest import PATIENCE_SECONDS, Whole, error_of
from tests.whole.test_services import DATA, reconfigure, running, until_serving

STREAMS = 50
KEPT_SECONDS = 1.0
"""What ended longer ago than this is in the ledger after `kill -9`."""
OTHER = "llamacpp/other"
EMBED = "llamacpp/embed"
TALKS: dict[str, Any] = {"ignore_eos": True, "max_tokens": 3500, "logprobs": True, "top_logprobs": 10}
"""Keeps the guide talking: more than all buffers on the way to a client that does not read."""
BEGINS, CANCELS = "processing task", "cancel task"
"""What llama.cpp's log says of each request that it begins, and that it gives up."""
CONFIG = f"""
[services]
embedding = "{EMBED}"
[models.other.llamacpp]
weights = {json.dumps(str(engines.GUIDE_GGUF))}
slots = 1
[models.embed.llamacpp]
weights = {json.dumps(str(DATA / "tiny-embed.gguf"))}
capabilities = ["embedding"]
"""


@pytest.fixture
async def footplate(home: Paths) -> AsyncIterator[Whole]:
    """A Footplate with the guide twice, and a service."""
    async with running(home, CONFIG) as whole:
        await whole.until_ready()
        await until_serving(whole, EMBED)
        yield whole


async def post(
    footplate: Whole, body: dict[str, Any], request_id: str, path: str = "/v1/chat/completions"
) -> httpx.Response:
    return await footplate.http.post(path, json=body, headers={"x-request-id": request_id})


@asynccontextmanager
async def asked(
    footplate: Whole, body: dict[str, Any], request_id: str
) -> AsyncIterator[asyncio.StreamReader]:
    """Ask on a connection of its own and read nothing; leave at the end of the block."""
    reader, writer = await asyncio.open_unix_connection(str(footplate.paths.socket))
    content = json.dumps(body).encode()
    writer.write(
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-request-id: {request_id}\r\n"
        f"content-length: {len(content)}\r\n\r\n".encode()
        + content
    )
    try:
        await writer.drain()
        yield reader
    finally:
        writer.transport.abort()


async def until_logged(footplate: Whole, words: str, count: int = 1, engine: str = "llamacpp-other") -> None:
    """Wait until an engine's log has these words so many times."""
    path = f"/api/v1/system/llm-servers/{engine}/logs?follow=1&lines=100000"
    async with asyncio.timeout(PATIENCE_SECONDS), footplate.http.stream("GET", path) as response:
        async for line in response.aiter_lines():
            count -= words in line
            if count == 0:
                return


async def until_quiet(footplate: Whole, variant: str) -> None:
    """Wait until the engine has nothing to do, as it says itself."""

    def is_quiet(status: wire.Status) -> bool:
        return any(
            engine.variant == variant and engine.leases == 0 and engine.requests_running == 0
            for engine in status.engines
        )

    await footplate.until(is_quiet)


# --- A request that waits for a switch -------------------------------------------------------------------


async def test_a_stream_for_another_model_gets_comments_first_and_its_wait_is_entered(
    footplate: Whole,
) -> None:
    gate = footplate.paths.data_dir / "gate"
    os.mkfifo(gate)
    await reconfigure(footplate, CONFIG + gated(gate))
    async with asked(footplate, chat(model="gated", stream=True), "waited") as reader:
        head = await reader.readuntil(b"\r\n\r\n")
        first = await reader.readuntil(b"\n\n")
        await asyncio.to_thread(gate.write_text, "open\n")
        rest = await reader.readuntil(b"[DONE]")
        await ended(footplate, "waited")
    listed = await footplate_command(footplate.paths, "exchanges", "--json", "--limit", "1")

    (exchange,) = json.loads(listed.stdout)
    assert head.startswith(b"HTTP/1.1 200")
    assert b": " in first
    assert b"data: " not in first
    assert b"footplate" in rest
    assert (exchange["request_id"], exchange["variant"]) == ("waited", "llamacpp/gated")
    assert exchange["queue_ms"] >= exchange["switch_ms"] > 0
    assert exchange["total_ms"] >= exchange["queue_ms"]


def gated(gate: Path) -> str:
    """Give the guide once more: it loads when something is written to the gate."""
    serve = f"read go <'{gate}'; exec '{sys.executable}' -m footplate_daemon.runtimes.embedded"
    words = [
        *("sh", "-c", f'{serve} --model "$0" --port "$1" --alias gated'),
        *("{model}", "{port}", "{args}"),
    ]
    weights = json.dumps(str(engines.GUIDE_GGUF))
    return f"[models.gated.llamacpp]\nweights = {weights}\ncommand = {json.dumps(words)}\n"


async def test_one_that_needs_no_switch_has_waited_for_none(footplate: Whole) -> None:
    response = await post(footplate, chat(stream=True), "at-once")

    exchange = await ended(footplate, "at-once")
    assert exchange.switch_ms == 0
    assert exchange.queue_ms is not None
    assert exchange.queue_ms < 1000
    assert '"usage"' not in response.text
    assert (exchange.prompt_tokens, exchange.completion_tokens) == (17, 18)


# --- kill -9 ---------------------------------------------------------------------------------------------


async def test_a_daemon_killed_under_fifty_streams_has_lost_nothing_but_the_last_second(
    footplate: Whole,
) -> None:
    before = (await footplate.client.health()).pid
    async with AsyncExitStack() as streams:
        for number in range(STREAMS):
            await streams.enter_async_context(asked(footplate, chat(stream=True, **TALKS), f"cut-{number}"))
        await until_under_way(footplate, STREAMS)
        ended_at = await embed_for(footplate, 5 * KEPT_SECONDS)
        killed_at = time.monotonic()
        os.kill(before, signal.SIGKILL)
    await footplate.until(lambda status: status.daemon.pid != before and status.active is not None)

    found = await footplate.client.exchanges(wire.ExchangeFilter(limit=10_000))
    outcomes = {exchange.request_id: exchange.outcome for exchange in found}
    kept = {request_id for request_id, at in ended_at.items() if at < killed_at - KEPT_SECONDS}
    assert kept
    assert {outcomes.get(request_id) for request_id in kept} == {"done"}
    assert {outcomes.get(f"cut-{number}") for number in range(STREAMS)} == {"cut"}
    assert len({exchange.id for exchange in found}) == len(found)
    assert all(exchange.total_ms is None for exchange in found if exchange.outcome == "cut")
    assert await asyncio.to_thread(integrity, footplate.paths.database) == "ok"

    await until_quiet(footplate, "llamacpp/guide")
    await post(footplate, chat(), "after")
    assert (await ended(footplate, "after")).id > max(exchange.id for exchange in found)


async def until_under_way(footplate: Whole, count: int) -> None:
    """Wait until so many exchanges are being answered."""
    seen: set[int] = set()
    wanted = wire.ExchangeFilter(outcome="running", limit=1000)
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for exchange in footplate.client.follow_exchanges(wanted):
            seen.add(exchange.id)
            if len(seen) == count:
                return


async def embed_for(footplate: Whole, seconds: float) -> dict[str, float]:
    """Ask the service again and again for a while; give when each request had ended."""
    ended_at: dict[str, float] = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        request_id = f"embedded-{len(ended_at)}"
        response = await post(footplate, {"input": "a"}, request_id, "/v1/embeddings")
        assert response.status_code == 200, response.text
        ended_at[request_id] = time.monotonic()
    return ended_at


def integrity(database: Path) -> str:
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
        return str(verdict)
    finally:
        connection.close()


# --- Who leaves, and who is cancelled --------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_client_that_leaves_frees_the_engine(footplate: Whole, *, stream: bool) -> None:
    await post(footplate, chat(model="other"), "first")
    async with asked(footplate, chat(model="other", stream=stream, **TALKS), "left") as reader:
        await answered_by(footplate, "left", "running")
        if stream:
            await reader.readuntil(b"data: ")
        else:
            await until_logged(footplate, BEGINS, 3)  # the first warms it up

    exchange = await ended(footplate, "left")
    await until_logged(footplate, CANCELS)
    assert (exchange.outcome, exchange.error) == ("cancelled", None)
    assert await footplate.answer(QUESTION, model="other") == ANSWER


async def test_a_client_that_leaves_before_the_first_token_leaves_nothing_in_the_engine(
    footplate: Whole,
) -> None:
    await post(footplate, chat(model="other"), "first")
    async with asked(footplate, chat(model="other", stream=True, **TALKS), "talker") as talker:
        await talker.readuntil(b"data: ")
        async with asked(footplate, chat(model="other", stream=True, **TALKS), "left"):
            await answered_by(footplate, "left", "running")
        left = await ended(footplate, "left")
        talking = await ended_or_not(footplate, "talker")

    await until_logged(footplate, CANCELS, 2)
    assert (left.outcome, left.ttft_ms, left.completion_tokens) == ("cancelled", None, None)
    assert talking == "running"
    assert (await ended(footplate, "talker")).outcome == "cancelled"
    assert await footplate.answer(QUESTION, model="other") == ANSWER


async def ended_or_not(footplate: Whole, request_id: str) -> str:
    """Give what has become of a request so far."""
    (exchange,) = await footplate.client.exchanges(wire.ExchangeFilter(request_id=request_id))
    return exchange.outcome


async def test_a_client_that_leaves_while_it_waits_for_a_switch_is_entered(footplate: Whole) -> None:
    slow = (
        '[models.slow.llamacpp]\nweights = "{}"\ncommand = ["sh", "-c", "exec sleep 600", "{{{{args}}}}"]\n'
    )
    await reconfigure(footplate, CONFIG + slow.format(engines.GUIDE_GGUF))
    async with asked(footplate, chat(model="slow", stream=True), "impatient") as reader:
        await reader.readuntil(b"\r\n: ")
        waiting = await answered_by(footplate, "impatient", "waiting")

    exchange = await ended(footplate, "impatient")
    assert (waiting.id, exchange.outcome, exchange.variant) == (waiting.id, "cancelled", "llamacpp/slow")
    assert await footplate.answer(QUESTION, model="guide") == ANSWER


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_one_that_is_cancelled_by_hand_tells_its_client_and_stops_the_engine(
    footplate: Whole, *, stream: bool
) -> None:
    await post(footplate, chat(model="other"), "first")
    asking = asyncio.create_task(post(footplate, chat(model="other", stream=stream, **TALKS), "unwanted"))
    exchange = await answered_by(footplate, "unwanted", "running")

    cancelled = await footplate.client.cancel_exchange(exchange.id)
    response = await asking

    last = response.content if not stream else EventSplitter().feed(response.content)[-1]
    error = error_of(httpx.Response(503, content=last))
    entered = await ended(footplate, "unwanted")
    await until_logged(footplate, CANCELS)
    assert cancelled.id == exchange.id
    assert response.status_code == (200 if stream else 503)
    assert error["code"] == "unavailable"
    assert "cancelled" in error["message"]
    assert (entered.outcome, entered.error) == ("cancelled", error["message"])
    with pytest.raises(Conflict, match="has ended"):
        await footplate.client.cancel_exchange(exchange.id)


# --- Bodies, and replays ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("chat", {"chat", "stream"}), ("all", {"chat", "stream", "embedding"}), ("none", set[str]())],
)
async def test_bodies_are_kept_of_what_the_operator_says(
    footplate: Whole, policy: str, kept: set[str]
) -> None:
    await reconfigure(footplate, f'[ledger]\nkeep_bodies = "{policy}"\n{CONFIG}')
    embedding = {"input": "a secret garden"}
    await post(footplate, chat(user="a secret garden"), "chat")
    await post(footplate, chat(stream=True, user="a secret garden"), "stream")
    await post(footplate, embedding, "embedding", "/v1/embeddings")

    wholes = {
        request_id: await footplate.client.exchange((await ended(footplate, request_id)).id)
        for request_id in ("chat", "stream", "embedding")
    }

    assert {name for name, whole in wholes.items() if whole.request is not None} == kept
    assert {name for name, whole in wholes.items() if whole.answer is not None} == kept
    for name in kept - {"embedding"}:
        request = wholes[name].request
        assert request is not None
        assert request.value == chat(user="a secret garden", **({"stream": True} if name == "stream" else {}))
        assert wholes[name].text == ANSWER
    await footplate.http.post("/api/v1/reload")
    assert all(whole.outcome == "done" for whole in wholes.values())


async def test_without_bodies_no_text_of_a_question_reaches_the_disk(home: Paths) -> None:
    async with running(home, f'[ledger]\nkeep_bodies = "none"\n{CONFIG}') as footplate:
        await footplate.until_ready()
        await footplate.chat("The walrus and the carpenter", stream=True)
        await post(footplate, chat(), "last")
        await ended(footplate, "last")

        written = b"".join(file.read_bytes() for file in home.state_dir.rglob("*") if file.is_file())

        assert b"walrus" not in written
        with pytest.raises(Conflict, match="was not kept"):
            await footplate.client.replay_exchange((await ended(footplate, "last")).id)


async def test_the_same_is_asked_again_of_another_variant(footplate: Whole) -> None:
    await post(footplate, chat(temperature=0), "original")
    original = await ended(footplate, "original")

    replayed = await footplate_command(
        footplate.paths, "exchanges", "replay", str(original.id), "--variant", OTHER, "--json"
    )

    both = wire.Replay.model_validate_json(replayed.stdout)
    assert (both.original.id, both.original.variant) == (original.id, "llamacpp/guide")
    assert both.replay.id > original.id
    assert (both.replay.variant, both.replay.outcome, both.replay.client) == (OTHER, "done", "replay")
    assert both.original.text == both.replay.text == ANSWER
    assert both.replay.ttft_ms is not None
    assert (await footplate.client.status()).active == OTHER
