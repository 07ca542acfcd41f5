"""Embedding and reranking beside the chat engine, whole: real models on llama.cpp and on vLLM."""

import asyncio
import base64
import json
import math
import os
import re
import shutil
import signal
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx2
import openai
import pytest

from footplate_daemon import lifecycle, settings
from footplate_daemon.client import FootplateClient
from footplate_daemon.errors import Conflict
from footplate_daemon.paths import Paths
from footplate_daemon.supervisord import call
from footplate_daemon.switching.engine import free_port
from footplate_daemon.wire import Engine, EngineState, Status, SwitchWish
from tests import engines
from tests.conftest import leftovers
from tests.whole.conftest import LOAD_SECONDS, PATIENCE_SECONDS, Whole, error_of, follow_until
from tests.whole.test_ground import MANY_TOKENS
from tests.whole.test_switching import GUIDE, QUESTIONS, members, switch

DATA = engines.REPOSITORY / "tests" / "data"
EMBED, RERANK = "llamacpp/embed", "llamacpp/rerank"
TEXTS = (
    "How do I switch runtime?",
    "Run footplate switch with the name of a runtime.",
    "Which key quits?",
    "What is a preset?",
)
SERVICES = f'[services]\nembedding = "{EMBED}"\nreranker = "{RERANK}"\n'
MODELS = f"""
[models.other.llamacpp]
weights = {json.dumps(str(engines.GUIDE_GGUF))}
context = 2048
[models.embed.llamacpp]
weights = {json.dumps(str(DATA / "tiny-embed.gguf"))}
capabilities = ["embedding"]
[models.rerank.llamacpp]
weights = {json.dumps(str(DATA / "tiny-rerank.gguf"))}
capabilities = ["rerank"]
[models.missing.llamacpp]
weights = "/nowhere/missing.gguf"
capabilities = ["embedding"]
[models.nobody.remote]
url = "http://127.0.0.1:9"
capabilities = ["embedding"]
[models.shared.ollama]
capabilities = ["embedding"]
"""


@pytest.fixture
async def footplate(home: Paths) -> AsyncIterator[Whole]:
    """A Footplate with the guide active and two services that are ready."""
    async with running(home, SERVICES + MODELS) as whole:
        await whole.until_ready()
        await until_serving(whole, EMBED, RERANK)
        yield whole


@asynccontextmanager
async def running(home: Paths, config: str) -> AsyncIterator[Whole]:
    home.make()
    home.config_file.write_text(config)
    await asyncio.to_thread(lifecycle.up, home)
    transport = httpx.AsyncHTTPTransport(uds=str(home.socket))
    async with (
        FootplateClient(home.socket) as client,
        httpx.AsyncClient(transport=transport, base_url="http://footplate", timeout=PATIENCE_SECONDS) as http,
    ):
        yield Whole(home, client, http)


def services(status: Status) -> dict[str, Engine]:
    return {service.variant: service for service in status.services}


async def until_serving(footplate: Whole, *variants: str) -> dict[str, Engine]:
    """Wait until these services, and no others, are ready."""

    def are_ready(status: Status) -> bool:
        found = services(status)
        return found.keys() == set(variants) and all(
            service.state is EngineState.READY for service in found.values()
        )

    return services(await footplate.until(are_ready))


async def reconfigure(footplate: Whole, config: str) -> None:
    footplate.paths.config_file.write_text(config)
    await footplate.client.reload()


async def embed(footplate: Whole, texts: Any, **more: Any) -> list[Any]:
    """Ask for embeddings and give them in the order of the texts."""
    response = await footplate.http.post("/v1/embeddings", json={"input": texts, **more})
    assert response.status_code == 200, response.text
    data = sorted(response.json()["data"], key=lambda each: each["index"])
    return [each["embedding"] for each in data]


async def scores(footplate: Whole, path: str, query: str, documents: tuple[str, ...]) -> list[float]:
    """Rerank, and give the scores in the order of the documents."""
    response = await footplate.http.post(path, json={"query": query, "documents": list(documents)})
    assert response.status_code == 200, response.text
    results = sorted(response.json()["results"], key=lambda each: each["index"])
    return [each["relevance_score"] for each in results]


def likeness(one: list[float], other: list[float]) -> float:
    """Give the cosine of two vectors."""
    return sum(a * b for a, b in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))


async def test_embeddings_come_by_name_and_without_one_in_every_form(footplate: Whole) -> None:
    vectors = await embed(footplate, list(TEXTS))
    [by_name] = await embed(footplate, TEXTS[0], model="embed")
    [packed] = await embed(footplate, TEXTS[0], encoding_format="base64")

    assert [len(vector) for vector in vectors] == [64] * len(TEXTS)
    assert likeness(vectors[0], vectors[1]) > likeness(vectors[0], vectors[2])
    assert by_name == pytest.approx(vectors[0], abs=1e-5)
    assert struct.unpack("<64f", base64.b64decode(packed)) == pytest.approx(tuple(by_name), abs=1e-5)
    assert (await footplate.client.status()).active == GUIDE


async def test_the_official_client_embeds_over_the_socket(footplate: Whole) -> None:
    transport = httpx2.AsyncHTTPTransport(uds=str(footplate.paths.socket))
    async with (
        httpx2.AsyncClient(transport=transport) as http,
        openai.AsyncOpenAI(base_url="http://footplate/v1", api_key="none", http_client=http) as client,
    ):
        answer = await client.embeddings.create(model="embed", input=list(TEXTS))

    vectors = await embed(footplate, list(TEXTS))
    assert [each.embedding for each in answer.data] == [pytest.approx(vector, abs=1e-5) for vector in vectors]
    assert answer.usage.prompt_tokens > len(TEXTS)


async def test_a_text_longer_than_llama_cpps_batch_is_embedded_and_ranked(footplate: Whole) -> None:
    [vector] = await embed(footplate, "word " * 1000)
    [score] = await scores(footplate, "/v1/rerank", TEXTS[0], ("word " * 1000,))

    assert math.isfinite(math.hypot(*vector))
    assert 0 < score < 1


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank"])
async def test_documents_are_ranked(footplate: Whole, path: str) -> None:
    found = await scores(footplate, path, TEXTS[0], TEXTS)

    assert all(0 < score < 1 for score in found)
    assert len(set(found)) == len(TEXTS)


async def test_no_client_hears_that_input_would_be_ignored(footplate: Whole) -> None:
    response = await footplate.http.post("/v1/embeddings", json={"input": "a"})

    assert "x-footplate-ignored" not in response.headers
    assert response.headers["x-footplate-model"] == "embed"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"model": "rerank", "input": "a"}),
        ("/v1/rerank", {"model": "guide", "query": "a", "documents": ["b"]}),
        ("/v1/chat/completions", {"model": "embed", "messages": [{"role": "user", "content": "a"}]}),
    ],
)
async def test_a_model_that_is_for_something_else_says_so(
    footplate: Whole, path: str, body: dict[str, Any]
) -> None:
    response = await footplate.http.post(path, json=body)

    assert response.status_code in {400, 501}
    assert error_of(response)["hint"]


async def test_ten_switches_of_the_chat_engine_cost_no_embedding_and_no_ranking(footplate: Whole) -> None:
    before = await until_serving(footplate, EMBED, RERANK)
    answered = [0, 0]
    done = asyncio.Event()

    async def embed_on() -> None:
        while not done.is_set():
            assert len(await embed(footplate, list(TEXTS))) == len(TEXTS)
            answered[0] += 1

    async def rank_on() -> None:
        while not done.is_set():
            assert len(await scores(footplate, "/v1/rerank", TEXTS[0], TEXTS)) == len(TEXTS)
            answered[1] += 1

    async with asyncio.TaskGroup() as tasks:
        for work in (embed_on, embed_on, rank_on, rank_on):
            tasks.create_task(work())
        for number in range(10):
            assert (await switch(footplate, ("other", GUIDE)[number % 2])).outcome == "done"
            assert await footplate.answer(QUESTIONS[0], model=("other", GUIDE)[number % 2])
        done.set()

    assert min(answered) >= 10
    after = await until_serving(footplate, EMBED, RERANK)
    assert {name: each.pid for name, each in after.items()} == {
        name: each.pid for name, each in before.items()
    }


async def test_a_killed_service_says_so_and_comes_back(home: Paths) -> None:
    home.make()
    weights = home.data_dir / "embed.gguf"
    shutil.copy(DATA / "tiny-embed.gguf", weights)
    models = MODELS.replace(json.dumps(str(DATA / "tiny-embed.gguf")), json.dumps(str(weights)))
    async with running(home, SERVICES + models) as footplate:
        await footplate.until_ready()
        killed = (await until_serving(footplate, EMBED, RERANK))[EMBED]
        away = weights.rename(home.data_dir / "away.gguf")  # so that it is not back before it is asked
        os.kill(killed.pid or 0, signal.SIGKILL)
        down = await footplate.until(lambda status: services(status)[EMBED].state is EngineState.FAILED)

        refused = await footplate.http.post("/v1/embeddings", json={"input": "a"})
        chatted = await footplate.answer(QUESTIONS[0], model=GUIDE)
        ranked = await scores(footplate, "/v1/rerank", TEXTS[0], TEXTS)
        away.rename(weights)
        again = (await until_serving(footplate, EMBED, RERANK))[EMBED]
        vectors = await embed(footplate, list(TEXTS))

    assert services(down)[EMBED].diagnosis
    assert refused.status_code == 503
    assert error_of(refused)["code"] == "unavailable"
    assert "footplate logs llamacpp-embed" in error_of(refused)["hint"]
    assert int(refused.headers["retry-after"]) >= 1
    assert chatted
    assert ranked
    assert again.restarts >= 1
    assert again.diagnosis is None
    assert again.pid != killed.pid
    assert len(vectors) == len(TEXTS)
    assert not members(killed.pid)


async def test_a_service_killed_again_and_again_is_reached_each_time(footplate: Whole) -> None:
    for restarts in (1, 2):
        killed = (await until_serving(footplate, EMBED, RERANK))[EMBED]
        os.kill(killed.pid or 0, signal.SIGKILL)
        await footplate.until(lambda status: services(status)[EMBED].pid != killed.pid)  # noqa: B023 - now
        again = (await until_serving(footplate, EMBED, RERANK))[EMBED]

        assert again.restarts == restarts
        assert await embed(footplate, "a")


async def test_services_outlive_the_daemon_and_answer_the_next_one(footplate: Whole) -> None:
    before = await until_serving(footplate, EMBED, RERANK)
    [expected] = await embed(footplate, TEXTS[0])
    daemon = (await footplate.client.health()).pid
    os.kill(daemon, signal.SIGKILL)

    [answer] = await first_embedding(footplate, daemon)

    after = await until_serving(footplate, EMBED, RERANK)
    assert answer == expected
    assert {name: each.pid for name, each in after.items()} == {
        name: each.pid for name, each in before.items()
    }
    assert all(each.restarts == 0 for each in after.values())


async def first_embedding(footplate: Whole, former_daemon: int) -> list[Any]:
    """Ask the next daemon as soon as it can be asked at all."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        await follow_until(footplate.client, lambda status: status.daemon.pid != former_daemon)
        return await embed(footplate, TEXTS[0])


@pytest.mark.parametrize(
    ("variant", "code"),
    [
        ("llamacpp/missing", "model_missing"),
        ("remote/nobody", "remote_unreachable"),
        ("ollama/shared", "invalid"),
    ],
)
async def test_a_service_that_cannot_run_is_diagnosed_and_hurts_nobody(
    home: Paths, variant: str, code: str
) -> None:
    config = f'[services]\nembedding = "{variant}"\n' + MODELS
    async with running(home, config) as footplate:
        await footplate.until_ready()
        status = await footplate.until(
            lambda status: [each.state for each in status.services] == [EngineState.FAILED]
        )
        response = await footplate.http.post("/v1/embeddings", json={"input": "a"})

        diagnosis = status.services[0].diagnosis
        assert diagnosis is not None
        assert diagnosis.code == code
        assert response.status_code == 503
        assert diagnosis.cause in error_of(response)["message"]
        assert await footplate.answer(QUESTIONS[0], model=GUIDE)

        await reconfigure(footplate, config.replace(f'"{variant}"', f'"{EMBED}"'))
        await until_serving(footplate, EMBED)


async def test_a_remote_can_be_a_service(home: Paths) -> None:
    port = free_port()
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "footplate_daemon.runtimes.embedded", "--embedding", "--alias", "far"),
        *("--model", str(DATA / "tiny-embed.gguf"), "--port", str(port)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    remote = f'[models.far.remote]\nurl = "http://127.0.0.1:{port}"\ncapabilities = ["embedding"]\n'
    try:
        async with running(home, '[services]\nembedding = "remote/far"\n' + remote) as footplate:
            await until_serving(footplate, "remote/far")

            assert await embed(footplate, "a")
    finally:
        server.terminate()
        await server.wait()


def test_the_documented_configuration_is_valid(tmp_path: Path) -> None:
    document = (engines.REPOSITORY / "docs" / "services.md").read_text()
    for number, snippet in enumerate(re.findall(r"```toml\n(.*?)```", document, re.DOTALL)):
        file = tmp_path / f"{number}.toml"
        file.write_text(snippet)

        assert settings.load(file).services.embedding


async def test_without_a_service_the_request_says_what_to_do(home: Paths) -> None:
    async with running(home, MODELS) as footplate:
        response = await footplate.http.post("/v1/embeddings", json={"input": "a"})

        assert response.status_code == 404
        assert "[services]" in error_of(response)["hint"]


async def test_a_service_is_neither_switched_to_nor_stopped(footplate: Whole) -> None:
    with pytest.raises(Conflict) as refused:
        await footplate.client.activate(SwitchWish(name=EMBED))
    with pytest.raises(Conflict):
        await footplate.client.stop_engine("llamacpp-embed")

    assert "is a service" in refused.value.message
    assert (await footplate.client.status()).active == GUIDE


async def test_a_reload_adds_changes_and_removes_services_one_by_one(footplate: Whole) -> None:
    first = await until_serving(footplate, EMBED, RERANK)

    await reconfigure(footplate, SERVICES.replace(f'embedding = "{EMBED}"\n', "") + MODELS)
    second = await until_serving(footplate, RERANK)
    await reconfigure(footplate, SERVICES + MODELS)
    third = await until_serving(footplate, EMBED, RERANK)
    await reconfigure(
        footplate, SERVICES + MODELS.replace('["embedding"]', '["embedding"]\ncontext = 1024', 1)
    )
    fourth = await until_serving(footplate, EMBED, RERANK)
    await reconfigure(footplate, "[profiles.default]\ntemperature = 0.5\n" + SERVICES + MODELS)
    fifth = await until_serving(footplate, EMBED, RERANK)

    assert {each[RERANK].pid for each in (first, second, third, fourth)} == {first[RERANK].pid}
    assert len({each[EMBED].pid for each in (first, third, fourth)}) == 3
    assert not members(first[EMBED].pid)
    assert fifth[RERANK].pid == first[RERANK].pid
    assert await embed(footplate, "a")


async def test_the_active_variant_can_become_a_service(footplate: Whole) -> None:
    assert (await switch(footplate, "other")).outcome == "done"
    embedder = 'context = 1024\ncapabilities = ["embedding"]\nparameters = { pooling = "mean" }'
    config = SERVICES.replace(EMBED, "llamacpp/other") + MODELS.replace("context = 2048", embedder)

    question = {"messages": [{"role": "user", "content": QUESTIONS[0]}], "stream": True, **MANY_TOKENS}
    async with footplate.http.stream("POST", "/v1/chat/completions", json=question) as answering:
        await anext(answering.aiter_bytes())
        await reconfigure(footplate, config)  # while it answers still
    await until_serving(footplate, "llamacpp/other", RERANK)

    assert services(await footplate.client.status())["llamacpp/other"].restarts == 0
    assert (await switch(footplate, GUIDE)).outcome == "done"
    assert await footplate.answer(QUESTIONS[0], model=GUIDE)
    assert await embed(footplate, "a")


async def test_supervisord_lists_them_and_their_memory_is_measured(footplate: Whole) -> None:
    status = await footplate.until(
        lambda status: all(each.memory_bytes for each in services(status).values())
    )

    listed = await asyncio.to_thread(call, footplate.paths.supervisor_socket, "getAllProcessInfo")
    by_name = {info["name"]: info["pid"] for info in listed}
    assert {each.name: each.pid for each in status.services}.items() <= by_name.items()
    assert {each.name for each in status.services} == {"llamacpp-embed", "llamacpp-rerank"}


async def test_down_while_services_start_leaves_nothing(home: Paths) -> None:
    async with running(home, SERVICES + MODELS):
        await asyncio.to_thread(lifecycle.down, home)

    assert leftovers(home) == []
    assert "Traceback" not in home.daemon_log.read_text()


@pytest.mark.vllm
@pytest.mark.timeout(900)
async def test_vllm_embeds_ranks_and_scores_as_llama_cpp_does(home: Paths) -> None:
    vllm = engines.require(engines.vllm(), "vllm")
    environment = ", ".join(f"{name} = {json.dumps(value)}" for name, value in engines.VLLM_LIGHT_ENV.items())
    config = f"""
[services]
embedding = "vllm/embed"
reranker = "vllm/rerank"
[runtimes.vllm]
program = {json.dumps(str(vllm.parent.parent))}
args = {json.dumps(list(engines.VLLM_LIGHT_ARGS))}
env = {{ {environment} }}
[models.embed.vllm]
weights = {json.dumps(str(DATA / "tiny-embed-hf"))}
capabilities = ["embedding"]
[models.rerank.vllm]
weights = {json.dumps(str(DATA / "tiny-rerank-hf"))}
capabilities = ["rerank"]
"""
    query = TEXTS[0] + "\n"
    pairs = {"text_1": query, "text_2": list(TEXTS)}
    async with running(home, SERVICES + MODELS) as footplate:
        await until_serving(footplate, EMBED, RERANK)
        vectors = await embed(footplate, list(TEXTS))
        expected = await scores(footplate, "/v1/rerank", query, TEXTS)
        unknown = await footplate.http.post("/score", json=pairs)

        await reconfigure(footplate, config)
        async with asyncio.timeout(LOAD_SECONDS):
            await follow_until(
                footplate.client,
                lambda status: [each.state for each in status.services] == [EngineState.READY] * 2,
            )

        assert unknown.status_code == 404
        for ours, theirs in zip(await embed(footplate, list(TEXTS)), vectors, strict=True):
            assert likeness(ours, theirs) > 0.999
        for path in ("/v1/rerank", "/rerank"):
            assert await scores(footplate, path, query, TEXTS) == pytest.approx(expected, abs=0.01)
        for path in ("/v1/score", "/score"):
            response = await footplate.http.post(path, json=pairs)
            scored = [each["score"] for each in response.json()["data"]]
            assert scored == pytest.approx(expected, abs=0.01)
        assert await footplate.answer(QUESTIONS[0], model=GUIDE)


@pytest.mark.torch
@pytest.mark.timeout(900)
async def test_transformers_embeds_and_ranks_as_llama_cpp_does(home: Paths) -> None:
    vllm = engines.require(engines.vllm(), "vllm")
    config = f"""
[services]
embedding = "transformers/embed"
reranker = "transformers/rerank"
[runtimes.transformers]
program = {json.dumps(str(vllm.parent.parent))}
env = {{ OMP_NUM_THREADS = "1" }}
[models.embed.transformers]
weights = {json.dumps(str(DATA / "tiny-embed-hf"))}
[models.rerank.transformers]
weights = {json.dumps(str(DATA / "tiny-rerank-hf"))}
"""
    query = TEXTS[0] + "\n"
    async with running(home, SERVICES + MODELS) as footplate:
        await until_serving(footplate, EMBED, RERANK)
        vectors = await embed(footplate, list(TEXTS))
        expected = await scores(footplate, "/v1/rerank", query, TEXTS)

        await reconfigure(footplate, config)
        async with asyncio.timeout(LOAD_SECONDS):
            await follow_until(
                footplate.client,
                lambda status: [each.state for each in status.services] == [EngineState.READY] * 2,
            )

        for ours, theirs in zip(await embed(footplate, list(TEXTS)), vectors, strict=True):
            assert likeness(ours, theirs) > 0.999
        assert await scores(footplate, "/v1/rerank", query, TEXTS) == pytest.approx(expected, abs=0.01)
        assert await footplate.answer(QUESTIONS[0], model=GUIDE)
