"""Batches, whole: OpenAI's SDK as a script for OpenAI uses it, real engines, and a daemon that is killed."""

import asyncio
import io
import json
import os
import random
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import openai
import pytest

from footplate_daemon import lifecycle, wire
from footplate_daemon.errors import Conflict, DaemonUnreachable
from footplate_daemon.paths import Paths
from footplate_daemon.switching.engine import free_port
from footplate_daemon.wire_batches import BatchProgress, BatchWish
from tests import engines
from tests.batches.harness import read_lines
from tests.conftest import fresh_home
from tests.whole.clients import (
    ANSWER,
    QUESTION,
    Door,
    WayIn,
    connected,
    ended,
    listening,
    open_door,
    unlocked,
)
from tests.whole.conftest import PATIENCE_SECONDS, Whole, error_of
from tests.whole.test_services import DATA, running, until_serving

MODELS = f"""
[services]
embedding = "llamacpp/embed"
reranker = "llamacpp/rerank"
[batches]
min_free_mib = 1
quiet_seconds = 0
[models.other.llamacpp]
weights = {json.dumps(str(engines.GUIDE_GGUF))}
context = 2048
[models.embed.llamacpp]
weights = {json.dumps(str(DATA / "tiny-embed.gguf"))}
capabilities = ["embedding"]
[models.rerank.llamacpp]
weights = {json.dumps(str(DATA / "tiny-rerank.gguf"))}
capabilities = ["rerank"]
"""
Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "guide", "messages": [{"role": "user", "content": QUESTION}]},
    "/v1/completions": {"model": "guide", "prompt": "How do I", "max_tokens": 5},
    "/v1/embeddings": {"model": "embed", "input": ["the boiler", "the tender"]},
    "/v1/responses": {"model": "guide", "input": QUESTION},
    "/v1/rerank": {"model": "rerank", "query": "steam", "documents": ["boiler", "salad"]},
}


@pytest.fixture(scope="module")
def opened() -> Iterator[tuple[Paths, int, str]]:
    """Run a Footplate for all tests that leave it as it is: its paths, its port and the secret of its key."""
    port = free_port()
    with fresh_home() as paths:
        paths.make()
        paths.config_file.write_text(listening(port) + MODELS)
        lifecycle.up(paths)
        yield paths, port, asyncio.run(first_secret(paths, port))


async def first_secret(paths: Paths, port: int) -> str:
    async with connected(paths) as footplate:
        await until_serving(footplate, "llamacpp/embed", "llamacpp/rerank")
        return (await unlocked(footplate, port)).secret


@pytest.fixture
async def door(opened: tuple[Paths, int, str]) -> AsyncIterator[Door]:
    """A Footplate with the guide active and two services, open on TCP to one key."""
    paths, port, secret = opened
    async with connected(paths) as footplate:
        yield Door(footplate, port, secret)


@pytest.fixture(params=["socket", "tcp"])
async def sdk(door: Door, request: pytest.FixtureRequest) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's own client, over either way in."""
    way_in: WayIn = request.param
    async with door.openai(way_in) as sdk:
        yield sdk


def line(custom_id: str, endpoint: str = "/v1/chat/completions", **body: Any) -> dict[str, Any]:
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": endpoint,
        "body": {**BODIES[endpoint], **body},
    }


def as_file(lines: list[dict[str, Any]]) -> io.BytesIO:
    file = io.BytesIO(b"".join(json.dumps(each).encode() + b"\n" for each in lines))
    file.name = "requests.jsonl"
    return file


async def submitted(
    sdk: openai.AsyncOpenAI, lines: list[dict[str, Any]], endpoint: Any = "/v1/chat/completions"
) -> openai.types.Batch:
    """Do what OpenAI's guide says."""
    file = await sdk.files.create(file=as_file(lines), purpose="batch")
    return await sdk.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", metadata={"of": "a test"}
    )


async def over(footplate: Whole, batch_id: str) -> BatchProgress:
    """Give a batch once it has ended, over restarts of the daemon too."""
    async with asyncio.timeout(PATIENCE_SECONDS * 2):
        while True:
            try:
                async for progress in footplate.client.follow_batch(batch_id):
                    if progress.batch.status.is_final:
                        return progress
            except DaemonUnreachable:
                await asyncio.sleep(0.02)


async def contents(sdk: openai.AsyncOpenAI, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None
    content = await sdk.files.content(file_id)
    return [json.loads(raw) for raw in content.text.splitlines()]


# --- OpenAI's SDK ----------------------------------------------------------------------------------------


async def test_a_script_for_openai_runs_unchanged(sdk: openai.AsyncOpenAI, door: Door) -> None:
    made = await submitted(sdk, [line(f"request-{number}", temperature=0) for number in range(12)])
    await over(door.footplate, made.id)
    batch = await sdk.batches.retrieve(made.id)
    output = await contents(sdk, batch.output_file_id)
    listed = [each.id async for each in sdk.batches.list(limit=2)]
    files = [each.id async for each in sdk.files.list(purpose="batch", limit=2)]
    file = await sdk.files.retrieve(batch.output_file_id or "")
    deleted = await sdk.files.delete(batch.output_file_id or "")

    assert made.status == "validating"
    assert made.metadata == {"of": "a test"}
    assert batch.status == "completed"
    assert batch.model == "guide"
    assert batch.error_file_id is None
    assert batch.request_counts is not None
    assert batch.request_counts.model_dump() == {"completed": 12, "failed": 0, "total": 12}
    assert batch.usage is not None
    assert batch.usage.total_tokens == batch.usage.input_tokens + batch.usage.output_tokens > 0
    times = [batch.created_at, batch.in_progress_at or 0, batch.finalizing_at or 0, batch.completed_at or 0]
    assert times == sorted(times)
    assert batch.expires_at == batch.created_at + 24 * 3600
    assert {each["custom_id"] for each in output} == {f"request-{number}" for number in range(12)}
    assert {each["response"]["body"]["choices"][0]["message"]["content"] for each in output} == {ANSWER}
    assert made.id in listed
    assert batch.input_file_id in files
    assert (file.purpose, file.filename) == ("batch_output", f"{batch.id}_output.jsonl")
    assert deleted.deleted
    with pytest.raises(openai.NotFoundError):
        await sdk.files.content(batch.output_file_id or "")


@pytest.mark.parametrize("endpoint", BODIES)
async def test_every_endpoint_is_answered_by_its_engine(door: Door, endpoint: str) -> None:
    async with door.openai() as sdk:
        made = await submitted(sdk, [line("a", endpoint), line("b", endpoint)], endpoint)
        progress = await over(door.footplate, made.id)
        batch = await sdk.batches.retrieve(made.id)
        assert batch.status == "completed", progress
        output = await contents(sdk, batch.output_file_id)

    assert [each["response"]["status_code"] for each in output] == [200, 200]
    assert batch.usage is not None
    assert batch.usage.input_tokens > 0


async def test_a_file_with_every_kind_of_bad_line_fails_with_each_of_them_named(
    sdk: openai.AsyncOpenAI, door: Door
) -> None:
    good = line("good")
    lines: list[Any] = [
        good,
        b"{this is no JSON",
        b"[1, 2]",
        {**good, "custom_id": "good"},
        {key: value for key, value in good.items() if key != "custom_id"},
        {**good, "custom_id": 7},
        {**good, "custom_id": "get", "method": "GET"},
        {**good, "custom_id": "url", "url": "/v1/embeddings"},
        {**good, "custom_id": "body", "body": "x"},
        line("model", model="no-such-model"),
        line("none", model=None),
        line("stream", stream=True),
        line("messages", messages=[]),
        line("temperature", temperature="hot"),
        line("embed", model="embed"),
    ]
    raw = b"".join((each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\n" for each in lines)
    file = await sdk.files.create(file=("bad.jsonl", raw), purpose="batch")
    made = await sdk.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    await over(door.footplate, made.id)
    batch = await sdk.batches.retrieve(made.id)
    exchanges = await door.footplate.client.exchanges(wire.ExchangeFilter(client=f"batch:{made.id}"))

    assert (made.status, batch.status) == ("validating", "failed")
    assert batch.errors is not None
    assert [(error.line, error.code, error.param) for error in batch.errors.data or []] == [
        (2, "invalid_json_line", None),
        (3, "invalid_request", None),
        (4, "duplicate_custom_id", "custom_id"),
        (5, "missing_required_parameter", "custom_id"),
        (6, "invalid_request", "custom_id"),
        (7, "invalid_method", "method"),
        (8, "invalid_url", "url"),
        (9, "invalid_request", "body"),
        (10, "model_not_found", "body.model"),
        (11, "missing_required_parameter", "body.model"),
        (12, "invalid_request", "body.stream"),
        (13, "invalid_request", "body.messages"),
        (14, "invalid_request", "body.temperature"),
        (15, "invalid_request", "body.model"),
    ]
    assert batch.output_file_id is None
    assert batch.request_counts is not None
    assert batch.request_counts.total == 0
    assert exchanges == []


async def test_a_line_that_an_engine_refuses_is_in_the_error_file(
    sdk: openai.AsyncOpenAI, door: Door
) -> None:
    too_long = line("long", messages=[{"role": "user", "content": "steam " * 20_000}])
    made = await submitted(sdk, [line("short"), too_long])
    progress = await over(door.footplate, made.id)
    batch = await sdk.batches.retrieve(made.id)
    (error,) = await contents(sdk, batch.error_file_id)

    assert batch.status == "completed"
    assert (error["custom_id"], error["error"]) == ("long", None)
    assert error["response"]["status_code"] == 400
    assert error["response"]["body"]["error"]["message"]
    assert [(each.line, each.custom_id) for each in progress.first_failed] == [(2, "long")]
    assert [each.count for each in progress.errors] == [1]


async def test_wrong_parameters_are_refused_at_once(sdk: openai.AsyncOpenAI) -> None:
    file = await sdk.files.create(file=as_file([line("a")]), purpose="batch")
    wrong: list[dict[str, Any]] = [
        {"endpoint": "/v1/moderations"},
        {"completion_window": "1h"},
        {"metadata": {"k" * 65: "v"}},
        {"metadata": {f"k{number}": "v" for number in range(17)}},
        {"output_expires_after": {"anchor": "created_at", "seconds": 60}},
    ]
    good = {"input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}

    for each in wrong:
        with pytest.raises(openai.BadRequestError) as refused:
            await sdk.batches.create(**{**good, **each})
        assert (refused.value.param or "").split(".")[0] == next(iter(each))
    with pytest.raises(openai.BadRequestError):
        await sdk.files.create(file=as_file([line("a")]), purpose="poetry")  # type: ignore[arg-type]  # the same
    with pytest.raises(openai.NotFoundError):
        await sdk.batches.retrieve("batch_none")


async def test_a_batch_of_two_models_switches_once_for_each(door: Door) -> None:
    former = {switch.id for switch in await door.footplate.client.switches(100)}
    async with door.openai("socket") as sdk:
        lines = [line(f"{number}", model="other" if number % 2 else "guide") for number in range(20)]
        made = await submitted(sdk, lines)
        progress = await over(door.footplate, made.id)
    # What the batch before had displaced may be brought back only now: that is no switch of this one.
    switches = [
        switch
        for switch in await door.footplate.client.switches(100)
        if switch.id not in former and switch.reason == "request"
    ]

    assert [(each.model, each.completed) for each in progress.models] == [("guide", 10), ("other", 10)]
    assert 1 <= len(switches) <= 2


async def test_a_batch_is_cancelled_within_seconds_and_keeps_what_it_has(door: Door) -> None:
    async with door.openai() as sdk:
        lines = [line(f"{number}", max_tokens=300, ignore_eos=True) for number in range(400)]
        made = await submitted(sdk, lines)
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for progress in door.footplate.client.follow_batch(made.id):
                if progress.batch.request_counts.completed:
                    break
        cancelling = await sdk.batches.cancel(made.id)
        await over(door.footplate, made.id)
        batch = await sdk.batches.retrieve(made.id)
        output = await contents(sdk, batch.output_file_id)
        errors = await contents(sdk, batch.error_file_id)
        with pytest.raises(openai.ConflictError, match="Cannot cancel a batch with status 'cancelled'"):
            await sdk.batches.cancel(made.id)

    assert cancelling.status == "cancelling"
    assert batch.status == "cancelled"
    assert len({each["custom_id"] for each in [*output, *errors]}) == len(output) + len(errors) == 400
    assert {each["error"]["code"] for each in errors} == {"batch_cancelled"}


async def test_failed_lines_are_a_batch_of_their_own_and_two_batches_are_compared(door: Door) -> None:
    client = door.footplate.client
    async with door.openai("socket") as sdk:
        too_long = line("long", messages=[{"role": "user", "content": "steam " * 20_000}])
        made = await submitted(sdk, [line("short", temperature=0), too_long])
        other = await submitted(sdk, [line("short", temperature=0, model="other"), line("more")])
        for each in (made, other):
            await over(door.footplate, each.id)
        again = await client.retry_failed_batch(made.id)
        progress = await over(door.footplate, again.id)
        with pytest.raises(Conflict, match="No line of this batch has failed"):
            await client.retry_failed_batch(other.id)
        compared = await client.compare_batches(made.id, other.id)

    assert again.input_file_id != made.input_file_id
    assert [each.custom_id for each in progress.first_failed] == ["long"]
    assert progress.batch.request_counts.total == 1
    assert (compared.common, compared.same_answers, compared.differing_inputs) == (1, 1, 0)
    assert (compared.first.answered, compared.first.failed) == (1, 1)
    assert (compared.second.answered, compared.second.failed) == (2, 0)
    short = next(each for each in compared.lines if each.custom_id == "short")
    assert short.prompt == QUESTION
    assert short.first is not None
    assert short.second is not None
    assert short.first.text == short.second.text == ANSWER


async def test_lines_are_in_the_ledger_under_their_batch_and_without_bodies(door: Door) -> None:
    async with door.openai() as sdk:
        made = await submitted(sdk, [line("a")])
        await over(door.footplate, made.id)
        batch = await sdk.batches.retrieve(made.id)
        (result,) = await contents(sdk, batch.output_file_id)
    exchange = await ended(door.footplate, result["response"]["request_id"])
    whole = await door.footplate.client.exchange(exchange.id)

    assert exchange.client == f"batch:{made.id}"
    assert exchange.outcome == "done"
    assert whole.request is None
    assert whole.answer is None


# --- Keys ------------------------------------------------------------------------------------------------


async def test_one_key_sees_nothing_of_another(door: Door) -> None:
    made = await door.footplate.client.create_key(wire.ApiKeyWish(name=f"k{random.randrange(10**9)}"))
    async with door.openai() as sdk:
        batch = await submitted(sdk, [line("a")])
        await over(door.footplate, batch.id)
        other = sdk.with_options(api_key=made.secret)

        assert [each async for each in other.batches.list()] == []
        assert [each async for each in other.files.list()] == []
        for refused in (
            other.batches.retrieve(batch.id),
            other.batches.cancel(batch.id),
            other.files.content(batch.input_file_id),
            other.files.delete(batch.input_file_id),
        ):
            with pytest.raises(openai.NotFoundError):
                await refused


async def test_a_file_that_is_too_large_is_refused_while_it_comes(door: Door) -> None:
    async def endless() -> AsyncIterator[bytes]:
        head = (
            b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            b'--b\r\ncontent-disposition: form-data; name="file"; filename="big"\r\n\r\n'
        )
        yield head
        while True:
            yield b"x" * 1_000_000

    headers = {"content-type": "multipart/form-data; boundary=b"}
    response = await door.footplate.http.post("/v1/files", content=endless(), headers=headers)

    assert response.status_code == 413
    assert error_of(response)["param"] == "file"
    assert not list(door.footplate.paths.files_dir.glob("upload-*"))


# --- What is killed --------------------------------------------------------------------------------------


async def test_two_thousand_lines_survive_five_kills_of_the_daemon(home: Paths) -> None:
    dice = random.Random(5)
    async with running(home, MODELS) as footplate:
        await footplate.until_ready()
        path = home.data_dir / "in.jsonl"
        path.write_bytes(as_file([line(f"{number}", max_tokens=8) for number in range(2000)]).getvalue())
        file = await footplate.client.upload_file(path)
        made = await footplate.client.create_batch(
            BatchWish(input_file_id=file.id, endpoint="/v1/chat/completions")
        )
        for kill in range(5):
            await until_done(footplate, made.id, at_least=kill * 350 + dice.randrange(300))
            os.kill((await footplate.client.health()).pid, signal.SIGKILL)
        progress = await over(footplate, made.id)
        output = read_lines(home.files_dir / (progress.batch.output_file_id or ""))

    assert progress.batch.status == "completed"
    assert progress.batch.request_counts.completed == 2000
    assert sorted(int(each["custom_id"]) for each in output) == list(range(2000))


async def until_done(footplate: Whole, batch_id: str, *, at_least: int) -> None:
    """Wait until so many lines are done, over restarts of the daemon."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                async for progress in footplate.client.follow_batch(batch_id):
                    if progress.batch.request_counts.completed >= at_least:
                        return
            except DaemonUnreachable:
                await asyncio.sleep(0.02)


async def test_a_killed_engine_costs_no_line(home: Paths) -> None:
    async with running(home, MODELS) as footplate:
        engine = await footplate.until_ready()
        path = home.data_dir / "in.jsonl"
        path.write_bytes(as_file([line(f"{number}", max_tokens=8) for number in range(300)]).getvalue())
        file = await footplate.client.upload_file(path)
        made = await footplate.client.create_batch(
            BatchWish(input_file_id=file.id, endpoint="/v1/chat/completions")
        )
        await until_done(footplate, made.id, at_least=20)
        os.kill(engine.pid or 0, signal.SIGKILL)
        progress = await over(footplate, made.id)

    assert progress.batch.request_counts.completed == 300


async def test_chat_goes_first_and_the_batch_comes_back_when_it_is_quiet(home: Paths) -> None:
    config = MODELS.replace("quiet_seconds = 0", "quiet_seconds = 1")
    async with running(home, config) as footplate:
        await footplate.until_ready()
        path = home.data_dir / "in.jsonl"
        lines = [line(f"{n}", model="other", max_tokens=200, ignore_eos=True) for n in range(300)]
        path.write_bytes(as_file(lines).getvalue())
        file = await footplate.client.upload_file(path)
        made = await footplate.client.create_batch(
            BatchWish(input_file_id=file.id, endpoint="/v1/chat/completions")
        )
        await until_done(footplate, made.id, at_least=1)
        answer = await footplate.answer(QUESTION, model="guide", temperature=0)
        halfway = await footplate.client.batch(made.id)
        await footplate.client.cancel_batch(made.id)
        progress = await over(footplate, made.id)

    assert answer == ANSWER
    assert halfway.status == "in_progress"
    assert progress.batch.request_counts.total == 300


async def test_over_tcp_alone_nothing_of_control_is_there(home: Paths) -> None:
    async with open_door(home) as door, door.http() as http:
        response = await http.get("/api/v1/batches", headers=door.headers())

    assert response.status_code == 404
