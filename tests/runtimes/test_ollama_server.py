"""Ollama: one contract for a server, the stand-in or a real one, and what only the stand-in does on cue."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import tomllib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests import engines
from tests.runtimes.ollama_talk import LONG, PIXEL, REFERENCE, deltas, events, plan, translation

from footplate_daemon import processes
from footplate_daemon.errors import EngineFailed, NotFound, TimedOut, Unavailable
from footplate_daemon.gateway.engine_errors import reshape
from footplate_daemon.gateway.upstream import Upstream
from footplate_daemon.processes import ProcessId
from footplate_daemon.runtimes.base import Call
from footplate_daemon.runtimes.ollama import Ollama, runners
from footplate_daemon.runtimes.ollama_models import OllamaModels
from footplate_daemon.switching.engine import free_port
from footplate_daemon.switching.probe import Address, ask

STAND_IN = Path(__file__).resolve().parents[1] / "fakes" / "ollama" / "ollama"
FLOOR = (0, 30)
"""The oldest Ollama that keeps to the contract."""
CUES = "slow-load broken-load dies endless plain vision embed"
CONTEXT = 1024

PLAIN = ("How do I install Footplate?", "Run pip install footplate, then start it with footplate.")


@dataclass
class Server:
    """An `ollama serve` that runs."""

    ollama: Ollama
    address: Address
    leader: ProcessId
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address.port}"


@contextmanager
def serving(program: str, home: Path, **environment: str) -> Iterator[Server]:
    """Start a server as the daemon would, in a group of which nothing is left afterwards."""
    ollama = Ollama(program, environment=os.environ, ask=ask)
    port = free_port()
    launch = ollama.launch(plan(port=port, command=None, env={"HOME": str(home), **environment}))
    log = home / "ollama.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            launch.command,
            env={**os.environ, **launch.env},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    leader = processes.identify(process.pid)
    assert leader is not None
    try:
        asyncio.run(until_up(Address(port), process))
        yield Server(ollama, Address(port), leader, log)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        processes.kill_group(leader)


async def until_up(address: Address, process: "subprocess.Popen[bytes]") -> None:
    async with asyncio.timeout(60):
        while True:
            answer = await ask(address, "GET", REFERENCE.health_path(), timeout_seconds=2)
            if answer is not None and answer.status == 200:
                assert REFERENCE.is_up(answer.json())
                version = str(answer.json()["version"])
                assert tuple(map(int, version.partition("-")[0].split(".")[:2])) >= FLOOR, version
                return
            assert process.poll() is None
            await asyncio.sleep(0.02)


@pytest.fixture(scope="module", params=["stand-in", "real"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the guide in it, made of its GGUF file."""
    home = tmp_path_factory.mktemp("ollama")
    program = str(STAND_IN) if request.param == "stand-in" else real_ollama()
    with serving(program, home, OLLAMA_MODELS=str(home / "models"), STAND_IN_MODELS=CUES) as server:
        asyncio.run(create_guide(server))
        yield server


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[Server]:
    """A stand-in of the test's own, with the models that do what a real one does not do on cue."""
    with serving(
        str(STAND_IN), tmp_path, STAND_IN_MODELS=f"guide {CUES}", STAND_IN_LOAD_SECONDS="6"
    ) as server:
        yield server


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Server]:
    """A stand-in in which one request only may wait for a load."""
    with serving(
        str(STAND_IN),
        tmp_path,
        STAND_IN_MODELS="guide slow-load",
        STAND_IN_LOAD_SECONDS="60",
        OLLAMA_MAX_QUEUE="1",
    ) as server:
        yield server


def real_ollama() -> str:
    """Give a real Ollama; skip without one: no package that can be installed here has it."""
    program = os.environ.get("FOOTPLATE_TEST_OLLAMA") or shutil.which("ollama")
    if program is None:
        pytest.skip(
            "there is no real ollama on PATH or in FOOTPLATE_TEST_OLLAMA: only the stand-in was tested"
        )
    return program


async def create_guide(server: Server) -> None:
    async with OllamaModels(server.url) as models:
        steps = [step.status async for step in models.create("guide", files=[engines.GUIDE_GGUF])]
    assert steps[-1] == "success"


@pytest.fixture
async def upstream(server: Server) -> AsyncIterator[Upstream]:
    upstream = Upstream("127.0.0.1", server.address.port, name="ollama/guide")
    yield upstream
    await upstream.close()


@pytest.fixture
async def stand_in_upstream(stand_in: Server) -> AsyncIterator[Upstream]:
    upstream = Upstream("127.0.0.1", stand_in.address.port, name="ollama/cue")
    yield upstream
    await upstream.close()


def call_for(
    body: Mapping[str, Any],
    *,
    model: str = "guide",
    path: str = "/v1/chat/completions",
    context: int = CONTEXT,
) -> Call:
    return REFERENCE.call(path, {"temperature": 0, "seed": 1, **body}, model, context)


async def answer_of(upstream: Upstream, call: Call) -> tuple[int, bytes]:
    """Ask as the gateway does: give the status, and what the client would get."""
    headers = ((b"content-type", b"application/json"),)
    async with (
        asyncio.timeout(60),
        await upstream.request("POST", call.path, headers, json.dumps(call.body).encode()) as response,
    ):
        if response.status >= 400:
            status, shaped = reshape(response.status, await response.read(10**6), upstream.name)
            return status, json.dumps(shaped).encode()
        turning = translation(call)
        out = b"".join([turning.feed(chunk) async for chunk in response])
        return response.status, out + turning.end()


async def whole(upstream: Upstream, call: Call) -> Any:
    status, body = await answer_of(upstream, call)
    assert status == 200, body
    return json.loads(body)


def user(text: str, **body: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **body}


STATUS_TOOL = {
    "type": "function",
    "function": {
        "name": "get_status",
        "description": "Status of a runtime",
        "parameters": {
            "type": "object",
            "properties": {"runtime": {"type": "string"}},
            "required": ["runtime"],
        },
    },
}


def known(key: str) -> Any:
    questions = tomllib.loads((engines.REPOSITORY / "guide" / "questions.toml").read_text("utf-8"))
    return questions[key] if key in questions else next(entry for entry in questions["known"] if key in entry)


async def test_the_guide_answers_with_its_usage(upstream: Upstream) -> None:
    question, answer = PLAIN

    body = await whole(upstream, call_for(user(question)))

    assert body["choices"][0]["message"] == {"role": "assistant", "content": answer}
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["prompt_tokens"] > 3
    assert body["usage"]["completion_tokens"] > 5
    assert "x_footplate_warning" not in body


async def test_the_guide_answers_the_same_as_a_stream(upstream: Upstream) -> None:
    question, answer = PLAIN

    _, out = await answer_of(
        upstream, call_for(user(question, stream=True, stream_options={"include_usage": True}))
    )

    *_, usage, end = events(out)
    assert "".join(delta.get("content", "") for delta in deltas(out)) == answer
    assert deltas(out)[0]["role"] == "assistant"
    assert usage["usage"]["completion_tokens"] > 5
    assert end == b"[DONE]"


async def test_reasoning_comes_apart_from_the_answer_and_can_be_switched_off(upstream: Upstream) -> None:
    entry = known("think")

    thinking = await whole(upstream, call_for(user(entry["ask"][0])))
    _, streamed = await answer_of(upstream, call_for(user(entry["ask"][0], stream=True)))
    silent = await whole(upstream, call_for(user(entry["ask"][0], reasoning_effort="none")))

    message = thinking["choices"][0]["message"]
    assert message["reasoning_content"].strip() == message["reasoning"].strip() == entry["think"]
    assert message["content"].strip() == entry["answer"]
    assert "".join(delta.get("reasoning", "") for delta in deltas(streamed)).strip() == entry["think"]
    assert "reasoning" not in silent["choices"][0]["message"]


async def test_a_tool_is_called_and_its_answer_is_heard(upstream: Upstream) -> None:
    entry = known("tool")

    first = await whole(upstream, call_for(user(entry["ask"][0], tools=[STATUS_TOOL])))
    message = first["choices"][0]["message"]
    (called,) = message["tool_calls"]
    result = {"role": "tool", "tool_call_id": called["id"], "content": "ready"}
    asked = user(entry["ask"][0], tools=[STATUS_TOOL])
    asked["messages"] += [message, result]
    second = await whole(upstream, call_for(asked))

    assert first["choices"][0]["finish_reason"] == "tool_calls"
    assert called["function"]["name"] == "get_status"
    assert json.loads(called["function"]["arguments"]) == {"runtime": entry["tool"]}
    assert second["choices"][0]["message"]["content"] == known("after_tool")


async def test_a_schema_binds_the_answer(upstream: Upstream) -> None:
    schema = {
        "type": "object",
        "properties": {"runtime": {"enum": ["vllm", "ollama"]}},
        "required": ["runtime"],
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "choice", "schema": schema}}

    body = await whole(
        upstream, call_for(user(PLAIN[0], response_format=wanted, reasoning_effort="none", max_tokens=200))
    )

    assert json.loads(body["choices"][0]["message"]["content"])["runtime"] in {"vllm", "ollama"}


async def test_an_answer_ends_at_a_stop_word_or_at_its_length(upstream: Upstream) -> None:
    question, answer = PLAIN

    stopped = await whole(upstream, call_for(user(question, stop=",")))
    cut = await whole(upstream, call_for(user(question, max_tokens=3)))

    assert stopped["choices"][0]["message"]["content"] == answer.partition(",")[0]
    assert stopped["choices"][0]["finish_reason"] == "stop"
    assert cut["choices"][0]["finish_reason"] == "length"
    assert answer.startswith(cut["choices"][0]["message"]["content"])


async def test_a_text_is_completed_both_ways(upstream: Upstream) -> None:
    body = {"prompt": "Run footplate", "max_tokens": 8}

    answered = await whole(upstream, call_for(body, path="/v1/completions"))
    _, out = await answer_of(upstream, call_for({**body, "stream": True}, path="/v1/completions"))

    text = answered["choices"][0]["text"]
    assert text
    assert "".join(e["choices"][0]["text"] for e in events(out)[:-1]) == text


async def test_a_prompt_that_is_too_long_is_refused_with_a_way_out(upstream: Upstream) -> None:
    status, body = await answer_of(upstream, call_for(user(LONG, stream=True), context=256))

    error = json.loads(body)["error"]
    assert status == 400
    assert "exceeds the available context size" in error["message"]
    assert error["n_ctx"] == 256
    assert "--context N" in error["hint"]


async def test_a_history_that_it_cuts_because_it_was_told_to_is_flagged(upstream: Upstream) -> None:
    history = [{"role": ("user", "assistant")[n % 2], "content": LONG[:280]} for n in range(40)]
    history += [{"role": "user", "content": PLAIN[0]}]

    body = await whole(upstream, call_for({"messages": history, "truncate": True}, context=256))

    assert "left out what did not fit" in body["x_footplate_warning"]


async def test_a_model_that_it_does_not_have_is_named(upstream: Upstream, server: Server) -> None:
    status, body = await answer_of(upstream, call_for(user("Hi"), model="nobody"))
    with pytest.raises(EngineFailed, match="model 'nobody' not found") as failure:
        await server.ollama.load_model(server.address, "nobody", CONTEXT)

    cause = server.ollama.recognise([failure.value.message], None)
    assert (status, "nobody" in json.loads(body)["error"]["message"]) == (404, True)
    assert cause is not None
    assert cause.remedies[0].command == "ollama pull nobody"


async def test_a_loaded_model_is_listed_with_its_context_and_asked_without_a_reload(
    server: Server, upstream: Upstream
) -> None:
    loaded = await server.ollama.load_model(server.address, "guide", 512)
    before = runners(server.leader)

    await whole(upstream, call_for(user(PLAIN[0]), context=512))
    same = runners(server.leader)
    await whole(upstream, call_for(user(PLAIN[0]), context=640))
    other = runners(server.leader)

    assert loaded == 512
    assert (await server.ollama.loaded_names(server.address))["guide"] == 640
    assert same == before
    assert other != before


async def test_a_probe_is_answered_by_the_model_as_it_is_loaded(server: Server) -> None:
    await server.ollama.load_model(server.address, "guide", 512)
    before = runners(server.leader)
    path, body = server.ollama.probe("guide", 512)

    answer = await ask(server.address, "POST", path, body=body, timeout_seconds=60)

    assert answer is not None
    assert (answer.status, answer.json()["done_reason"]) == (200, "length")
    assert runners(server.leader) == before


async def test_a_model_is_unloaded_when_its_process_is_gone(server: Server) -> None:
    await server.ollama.load_model(server.address, "guide", CONTEXT)
    held = runners(server.leader)

    await server.ollama.unload_model(server.address, "guide", leader=server.leader)
    await server.ollama.unload_model(server.address, "guide", leader=server.leader)

    assert len(held) == 1
    assert not processes.is_alive(held[0])
    assert await server.ollama.loaded_names(server.address) == {}


async def test_models_are_listed_shown_made_and_deleted(server: Server) -> None:
    async with OllamaModels(server.url) as models:
        steps = [
            step.status
            async for step in models.create("small", from_model="guide", parameters={"num_ctx": 512})
        ]
        await server.ollama.load_model(server.address, "small", 512)
        listed = {model.name: model for model in await models.list()}
        running = {model.name: model.context for model in await models.ps()}
        shown = await models.show("small")
        await models.delete("small")
        left = {model.name for model in await models.list()}
        with pytest.raises(NotFound, match="small"):
            await models.show("small")
        with pytest.raises(NotFound):
            await models.delete("small")

    assert steps[-1] == "success"
    assert listed["small:latest"].size_bytes > 0
    assert running["small:latest"] == 512
    assert shown.parameters["num_ctx"] == "512"
    assert "completion" in shown.capabilities
    assert shown.context
    assert {"guide:latest"} <= left
    assert "small:latest" not in left


async def test_nobody_there_is_unavailable() -> None:
    async with OllamaModels(f"http://127.0.0.1:{free_port()}") as models:
        with pytest.raises(Unavailable, match="No Ollama answers"):
            await models.list()


def test_a_child_outlives_its_killed_leader_and_goes_with_its_group(server: Server, tmp_path: Path) -> None:
    program = server.ollama.find()
    assert program is not None
    with serving(program, tmp_path, OLLAMA_MODELS=str(server.log.parent / "models")) as own:
        asyncio.run(own.ollama.load_model(own.address, "guide", CONTEXT))
        (child,) = runners(own.leader)

        processes.send(own.leader, signal.SIGKILL)
        os.waitpid(own.leader.pid, 0)
        outlives = processes.is_alive(child)
        processes.kill_group(own.leader)

    assert outlives
    assert not processes.is_alive(child)


def test_a_port_that_another_program_has_is_named(server: Server, tmp_path: Path) -> None:
    launch = server.ollama.launch(plan(port=server.address.port, command=None, env={"HOME": str(tmp_path)}))

    ended = subprocess.run(
        launch.command,
        env={**os.environ, **launch.env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    cause = server.ollama.recognise(ended.stderr.splitlines(), ended.returncode)
    assert ended.returncode == 1
    assert cause is not None
    assert cause.cause == f"Another program listens on port {server.address.port}."


async def test_a_slow_load_tells_how_far_it_is_and_is_listed_only_at_its_end(stand_in: Server) -> None:
    loading = asyncio.ensure_future(stand_in.ollama.load_model(stand_in.address, "slow-load", CONTEXT))
    seen: list[float] = []
    while not loading.done():
        progress = await asyncio.to_thread(stand_in.ollama.measure, stand_in.leader)
        if progress is not None and progress.fraction is not None:
            seen.append(progress.fraction)
        listed = await stand_in.ollama.loaded_names(stand_in.address)
        assert not listed or "llama-server started" in stand_in.log.read_text()
        await asyncio.wait([loading], timeout=0.1)

    assert await loading == CONTEXT
    assert seen == sorted(seen)
    assert seen[0] < seen[-1]
    assert seen[-1] > 0.5
    steps = [stand_in.ollama.progress(line) for line in stand_in.log.read_text().splitlines()]
    assert [step.step for step in steps if step][-1] == "ready"


async def test_a_load_that_is_given_up_leaves_no_process(stand_in: Server) -> None:
    loading = asyncio.ensure_future(stand_in.ollama.load_model(stand_in.address, "slow-load", CONTEXT))
    await until(lambda: runners(stand_in.leader) != [])

    loading.cancel()

    await until(lambda: runners(stand_in.leader) == [])
    assert "aborting load" in stand_in.log.read_text()


async def test_a_load_that_fails_is_told_in_the_servers_words(stand_in: Server) -> None:
    with pytest.raises(EngineFailed, match="insufficient memory") as failure:
        await stand_in.ollama.load_model(stand_in.address, "broken-load", CONTEXT)

    cause = stand_in.ollama.recognise([*stand_in.log.read_text().splitlines(), failure.value.message], None)
    assert cause is not None
    assert cause.code == "out_of_memory"
    assert failure.value.details["status"] == 500
    assert runners(stand_in.leader) == []


async def test_a_server_that_is_busy_loading_says_so(busy: Server) -> None:
    loading = asyncio.ensure_future(busy.ollama.load_model(busy.address, "slow-load", CONTEXT))
    await until(lambda: runners(busy.leader) != [])

    with pytest.raises(EngineFailed, match="maximum pending requests exceeded") as failure:
        await busy.ollama.load_model(busy.address, "guide", CONTEXT)

    loading.cancel()
    cause = busy.ollama.recognise([failure.value.message], None)
    assert cause is not None
    assert cause.code == "busy"


async def test_a_process_that_dies_in_mid_stream_ends_the_answer_in_an_error(
    stand_in: Server, stand_in_upstream: Upstream
) -> None:
    call = call_for(user("one two three four five six seven", stream=True), model="dies")

    _, first = await answer_of(stand_in_upstream, call)
    stale = await stand_in.ollama.loaded_names(stand_in.address)
    again = await stand_in.ollama.load_model(stand_in.address, "dies", CONTEXT)

    *said, error = events(first)
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in said) == "one two three four five"
    assert "unexpected EOF" in error["error"]["message"]
    assert list(stale) == ["dies:latest"]
    assert again == CONTEXT


async def test_a_client_that_leaves_ends_the_generation(
    stand_in: Server, stand_in_upstream: Upstream
) -> None:
    call = call_for(user("Go on", stream=True), model="endless")
    headers = ((b"content-type", b"application/json"),)

    async with asyncio.timeout(30):
        response = await stand_in_upstream.request("POST", call.path, headers, json.dumps(call.body).encode())
        await response.chunk()
        with pytest.raises(TimedOut):  # while it runs it stays
            await stand_in.ollama.unload_model(
                stand_in.address, "endless", leader=stand_in.leader, timeout_seconds=0.2
            )
        await response.close()
        await stand_in.ollama.unload_model(stand_in.address, "endless", leader=stand_in.leader)

    assert runners(stand_in.leader) == []


async def test_a_picture_is_seen_by_a_model_with_vision_alone(stand_in_upstream: Upstream) -> None:
    asked = user("What is this?")
    asked["messages"][0]["images"] = [PIXEL]

    seen = await whole(stand_in_upstream, call_for(asked, model="vision"))
    status, refused = await answer_of(stand_in_upstream, call_for(asked, model="plain"))

    assert "reads text only" in json.loads(refused)["error"]["hint"]
    assert seen["choices"][0]["message"]["content"] == "I see 1 picture(s) of 20 bytes."
    assert status == 400


@pytest.mark.parametrize(
    ("body", "words", "hint"),
    [
        ({"tools": [STATUS_TOOL]}, "does not support tools", "without tools"),
        ({"think": True}, "does not support thinking", 'reasoning = "none"'),
    ],
)
async def test_what_a_model_cannot_do_is_refused_with_a_way_out(
    stand_in_upstream: Upstream, body: dict[str, Any], words: str, hint: str
) -> None:
    status, answered = await answer_of(stand_in_upstream, call_for(user("Hi", **body), model="plain"))

    error = json.loads(answered)["error"]
    assert (status, words in error["message"], hint in error["hint"]) == (400, True, True)


async def test_embeddings_are_made_by_a_model_for_them(stand_in: Server, stand_in_upstream: Upstream) -> None:
    await stand_in.ollama.load_model(stand_in.address, "embed", 512, capabilities=("embedding",))

    body = await whole(
        stand_in_upstream, call_for({"input": ["a", "b"]}, model="embed", path="/v1/embeddings", context=512)
    )
    status, _ = await answer_of(
        stand_in_upstream, call_for({"input": "a"}, model="guide", path="/v1/embeddings")
    )

    assert [entry["index"] for entry in body["data"]] == [0, 1]
    assert body["usage"]["prompt_tokens"] == 2
    assert status == 501


async def test_a_model_is_fetched_with_its_progress_or_called_missing(stand_in: Server) -> None:
    async with OllamaModels(stand_in.url) as models:
        steps = [step async for step in models.pull("gemma3:4b")]
        with pytest.raises(NotFound, match="file does not exist"):
            _ = [step async for step in models.pull("missing")]

    assert [step.fraction for step in steps if step.total] == [0, 0.5, 1]
    assert steps[-1].status == "success"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - processes have no event
            await asyncio.sleep(0.02)
