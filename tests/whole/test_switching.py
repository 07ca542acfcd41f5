"""Switching, whole: embedded llama.cpp, the real llama-server and the real vLLM, one after the other."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx
import psutil
import pytest

from footplate_daemon import lifecycle, processes
from footplate_daemon.client import FootplateClient
from footplate_daemon.errors import FootplateError
from footplate_daemon.paths import Paths
from footplate_daemon.supervisord import call
from footplate_daemon.wire import EngineState, StepName, Switch
from tests import engines
from tests.whole.conftest import LOAD_SECONDS, Whole, error_of

QUESTIONS = ("How do I switch runtime?", "What is a preset?", "What is TTFT?", "Which key quits?")
GUIDE = "llamacpp/guide"
KEEP_TALKING: dict[str, Any] = {"ignore_eos": True, "max_tokens": 3500}


@pytest.fixture
async def footplate(home: Paths) -> AsyncIterator[Whole]:
    """A Footplate whose catalog has the guide on three engines."""
    home.make()
    home.config_file.write_text(config())
    await asyncio.to_thread(lifecycle.up, home)
    transport = httpx.AsyncHTTPTransport(uds=str(home.socket))
    async with (
        FootplateClient(home.socket) as client,
        httpx.AsyncClient(transport=transport, base_url="http://footplate", timeout=LOAD_SECONDS) as http,
    ):
        whole = Whole(home, client, http, LOAD_SECONDS)
        await whole.until_ready()
        yield whole


def config(*, hang_seconds: int = 120) -> str:
    server = engines.llama_server()
    vllm = engines.vllm()
    return f"""
[switching]
default = "llamacpp/guide"
drain_timeout_seconds = 5
hang_timeout_seconds = {hang_seconds}
[runtimes.vllm]
program = {json.dumps(str(vllm.parent.parent) if vllm else "none")}
args = {json.dumps(list(engines.VLLM_LIGHT_ARGS))}
env = {{ {", ".join(f"{name} = {json.dumps(value)}" for name, value in engines.VLLM_LIGHT_ENV.items())} }}
[models.guide.vllm]
weights = {json.dumps(str(engines.GUIDE_HF))}
context = 2048
[models.server.llamacpp]
weights = {json.dumps(str(engines.GUIDE_GGUF))}
command = [{json.dumps(str(server))}]
context = 2048
[models.other.llamacpp]
weights = {json.dumps(str(engines.GUIDE_GGUF))}
context = 2048
[models.missing.llamacpp]
weights = "/nowhere/missing.gguf"
[models.slow.llamacpp]
weights = {json.dumps(str(engines.GUIDE_GGUF))}
command = ["sh", "-c", "echo loading slowly; exec sleep 600", "{{args}}"]
"""


async def switch(footplate: Whole, name: str, **more: Any) -> Switch:
    """Ask for a switch and wait until it has ended."""
    response = await footplate.http.post("/api/v1/models/activate?wait=1", json={"name": name, **more})
    assert response.status_code == 202, response.text
    return Switch.model_validate(response.json())


async def agree(footplate: Whole) -> None:
    """supervisord, the process table and the status tell the same."""
    status = await footplate.client.status()
    listed = await asyncio.to_thread(call, footplate.paths.supervisor_socket, "getAllProcessInfo")
    by_supervisord = {info["name"]: info["pid"] for info in listed if info["name"] != "footplated"}
    by_status = {
        engine.name: engine.pid for engine in status.engines if engine.state is not EngineState.FAILED
    }
    assert by_supervisord == by_status
    assert all(psutil.pid_exists(pid) for pid in by_status.values() if pid)


def members(pid: int | None) -> list[processes.ProcessId]:
    """List what lives of the process group of this leader."""
    assert pid is not None
    return [
        found
        for each in psutil.pids()
        if (found := processes.identify(each)) and processes.is_alive(found) and _group(each) == pid
    ]


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


async def test_between_the_embedded_engine_and_llama_server(footplate: Whole) -> None:
    engines.require(engines.llama_server(), "llama-server")
    expected = [await footplate.answer(question, model=GUIDE) for question in QUESTIONS]

    there = await switch(footplate, "server")
    answers = [await footplate.answer(question, model="server") for question in QUESTIONS]
    await agree(footplate)
    back = await switch(footplate, GUIDE)

    assert (there.outcome, there.previous) == ("done", GUIDE)
    assert {StepName.START, StepName.LOAD, StepName.WARM_UP} <= {step.name for step in there.steps}
    assert answers == expected
    assert back.outcome == "done"
    await agree(footplate)


@pytest.mark.vllm
@pytest.mark.timeout(900)
async def test_vllm_serves_the_same_answers_and_is_restarted_without_orphans(footplate: Whole) -> None:
    engines.require(engines.vllm(), "vllm")
    expected = [await footplate.answer(question, model=GUIDE) for question in QUESTIONS]

    assert (await switch(footplate, "vllm/guide")).outcome == "done"
    answers = [await footplate.answer(question, model="vllm/guide", temperature=0) for question in QUESTIONS]
    engine = await footplate.until_ready("vllm/guide")
    group = members(engine.pid)
    os.kill(engine.pid or 0, signal.SIGKILL)
    await footplate.until(lambda status: all(each.pid != engine.pid for each in status.engines))

    assert answers == expected
    assert len(group) > 1
    assert not [each for each in group if processes.is_alive(each)]
    again = await footplate.until_ready("vllm/guide")
    assert again.pid != engine.pid
    await agree(footplate)


@pytest.mark.vllm
@pytest.mark.timeout(900)
async def test_a_context_that_does_not_fit_is_diagnosed_rolled_back_and_remedied(footplate: Whole) -> None:
    engines.require(engines.vllm(), "vllm")
    small = config().replace('"64M"', '"2M"')
    footplate.paths.config_file.write_text(small)
    await footplate.client.reload()

    failed = await switch(footplate, "vllm/guide", context=2048)
    back = await footplate.until_ready(GUIDE)
    assert failed.outcome == "failed"
    assert failed.diagnosis is not None
    remedy = next(r for r in failed.diagnosis.remedies if r.context is not None)
    response = await footplate.http.post(f"/api/v1/switches/{failed.id}/remedies/{remedy.id}?wait=1")
    applied = Switch.model_validate(response.json())

    assert failed.diagnosis.code == "kv_cache_too_small"
    assert remedy.context is not None
    assert str(remedy.context) in failed.diagnosis.cause + remedy.title
    assert back.state is EngineState.READY
    assert applied.outcome == "done"
    assert await footplate.answer(QUESTIONS[0], model="vllm/guide", temperature=0)


async def test_a_failed_start_says_why_and_the_previous_engine_answers_again(footplate: Whole) -> None:
    failed = await switch(footplate, "missing")

    assert failed.outcome == "failed"
    assert failed.diagnosis is not None
    assert failed.diagnosis.code == "model_missing"
    assert failed.diagnosis.evidence
    assert await footplate.answer(QUESTIONS[0], model=GUIDE)
    refused = await footplate.chat("Hello", model="missing")
    assert refused.status_code == 502
    assert "missing" in error_of(refused)["message"]


async def test_twenty_switches_under_streaming_clients_lose_no_request(footplate: Whole) -> None:
    ended: list[str] = []
    done = asyncio.Event()

    async def client(model: str) -> None:
        while not done.is_set():
            ended.append(await _stream(footplate, model))

    async with asyncio.TaskGroup() as tasks:
        for model in (GUIDE, "other"):
            tasks.create_task(client(model))
        for number in range(20):
            assert (await switch(footplate, ("other", GUIDE)[number % 2])).outcome in {"done", "superseded"}
        done.set()

    assert len(ended) > 20
    assert {outcome for outcome in ended if outcome != "answered"} <= {"engine_failed"}
    assert ended.count("answered") > len(ended) // 2


async def _stream(footplate: Whole, model: str) -> str:
    """Stream an answer to its end: `answered`, or the code of the error that the client was told."""
    body = {
        "model": model,
        "stream": True,
        "max_tokens": 64,
        "messages": [{"role": "user", "content": QUESTIONS[0]}],
    }
    async with footplate.http.stream("POST", "/v1/chat/completions", json=body) as response:
        text = (await response.aread()).decode()
    if response.status_code != 200:
        return str(json.loads(text)["error"]["code"])
    errors = [line for line in text.splitlines() if line.startswith('data: {"error"')]
    if errors:
        return str(json.loads(errors[0].removeprefix("data: "))["error"]["code"])
    assert "data: [DONE]" in text
    return "answered"


async def test_a_request_for_another_model_waits_with_comments_and_answers(footplate: Whole) -> None:
    text = ""
    body = {"model": "other", "stream": True, "messages": [{"role": "user", "content": QUESTIONS[0]}]}
    async with footplate.http.stream("POST", "/v1/chat/completions", json=body) as response:
        text = (await response.aread()).decode()

    assert "Run" in text
    assert (await footplate.client.status()).active == "llamacpp/other"


async def test_a_slow_load_tells_waiting_streams_and_can_be_cancelled(footplate: Whole) -> None:
    body = {"model": "slow", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    async with footplate.http.stream("POST", "/v1/chat/completions", json=body) as response:
        chunks = response.aiter_text()  # held: dropped, it would close the connection
        first = await anext(chunks)
        while ": load llamacpp/slow" not in first:
            first += await anext(chunks)
        status = await footplate.client.status()
        assert status.switch is not None
        await footplate.http.delete(f"/api/v1/switches/{status.switch.id}")
    back = await footplate.until_ready(GUIDE)

    assert status.queue.by_variant == {"llamacpp/slow": 1}
    assert back.state is EngineState.READY


async def test_a_load_nobody_waits_for_is_cancelled(footplate: Whole) -> None:
    asking = asyncio.ensure_future(footplate.chat("Hi", model="slow"))
    await footplate.until(
        lambda status: status.switch is not None and status.switch.variant == "llamacpp/slow"
    )
    asking.cancel()

    await footplate.until_ready(GUIDE)

    await agree(footplate)


async def test_two_models_asked_at_once_are_both_served(footplate: Whole) -> None:
    answers = await asyncio.gather(
        *(footplate.answer(QUESTIONS[0], model=model) for model in ("other", GUIDE, "other", GUIDE))
    )

    assert len(set(answers)) == 1
    await agree(footplate)


async def test_an_engine_killed_while_it_drains_does_not_hold_the_switch(footplate: Whole) -> None:
    engine = await footplate.until_ready()
    body = {"stream": True, "messages": [{"role": "user", "content": QUESTIONS[0]}], **KEEP_TALKING}
    async with footplate.http.stream("POST", "/v1/chat/completions", json=body) as response:
        chunks = response.aiter_text()
        await anext(chunks)
        switching = asyncio.ensure_future(switch(footplate, "other"))
        os.kill(engine.pid or 0, signal.SIGKILL)
        rest = "".join([chunk async for chunk in chunks])
        switched = await switching

    assert switched.outcome == "done"
    assert "engine_failed" in rest or "[DONE]" in rest
    await agree(footplate)


async def test_the_wish_changed_while_the_old_engine_stops(footplate: Whole) -> None:
    first = await footplate.http.post("/api/v1/models/activate", json={"name": "slow"})
    second = await switch(footplate, GUIDE)

    superseded = await footplate.http.get(f"/api/v1/switches/{first.json()['id']}")
    assert superseded.json()["outcome"] == "superseded"
    assert second.outcome == "done"
    assert (await footplate.client.status()).active == "llamacpp/guide"
    await agree(footplate)


async def test_a_daemon_killed_in_the_middle_of_a_switch_carries_it_on(footplate: Whole) -> None:
    before = (await footplate.client.health()).pid
    await footplate.http.post("/api/v1/models/activate", json={"name": "other"})
    os.kill(before, signal.SIGKILL)

    await footplate.until(lambda status: status.daemon.pid != before)
    status = await footplate.until(lambda status: status.active is not None)

    assert status.active in {"llamacpp/other", "llamacpp/guide"}
    await agree(footplate)


async def test_a_reload_leaves_unchanged_engines_alone(footplate: Whole) -> None:
    engine = await footplate.until_ready()
    text = footplate.paths.config_file.read_text()

    footplate.paths.config_file.write_text(
        text.replace("drain_timeout_seconds = 5", "drain_timeout_seconds = 7")
    )
    await footplate.client.reload()

    assert (await footplate.until_ready()).pid == engine.pid


async def test_three_mistakes_are_told_at_once_and_the_old_configuration_stays(footplate: Whole) -> None:
    engine = await footplate.until_ready()
    footplate.paths.config_file.write_text(
        '[switching]\npolicy = "two"\nidle_unlod = "5m"\n[models.x.vllm]\ncontext = "many"\n'
    )

    with pytest.raises(FootplateError) as refused:
        await footplate.client.reload()

    mistakes = refused.value.details["mistakes"]
    assert [mistake["line"] for mistake in mistakes] == [2, 3, 5]
    assert all(mistake["remedy"] for mistake in mistakes)
    assert len((await footplate.client.status()).config_errors) == 3
    assert (await footplate.until_ready()).pid == engine.pid


async def test_an_engine_that_hangs_is_found_and_replaced(footplate: Whole) -> None:
    footplate.paths.config_file.write_text(config(hang_seconds=1))
    await footplate.client.reload()
    engine = await footplate.until_ready()
    body = {"stream": True, "messages": [{"role": "user", "content": QUESTIONS[0]}], **KEEP_TALKING}

    async with footplate.http.stream("POST", "/v1/chat/completions", json=body) as response:
        chunks = response.aiter_text()
        await anext(chunks)
        os.kill(engine.pid or 0, signal.SIGSTOP)
        rest = "".join([chunk async for chunk in chunks])
    again = await footplate.until(
        lambda status: status.active == GUIDE and status.engines[0].pid not in {None, engine.pid}
    )

    assert "was silent for 1 s" in rest
    assert again.engines[0].state is EngineState.READY
    assert await footplate.answer(QUESTIONS[0], model=GUIDE)


async def test_engines_that_fit_stay_loaded_beside_each_other(footplate: Whole) -> None:
    footplate.paths.config_file.write_text(config().replace("[switching]", '[switching]\npolicy = "fit"'))
    await footplate.client.reload()
    first = await footplate.until_ready()

    assert (await switch(footplate, "other")).outcome == "done"
    await footplate.answer(QUESTIONS[0], model=GUIDE)

    status = await footplate.client.status()
    assert status.active == "llamacpp/other"
    assert {engine.variant for engine in status.engines} == {GUIDE, "llamacpp/other"}
    assert first.pid in {engine.pid for engine in status.engines}
    await agree(footplate)


@pytest.mark.vllm
@pytest.mark.timeout(900)
async def test_vllm_sleeps_when_another_takes_over_and_wakes_up_as_it_was(footplate: Whole) -> None:
    engines.require(engines.vllm(), "vllm")
    sleepy = config().replace("OMP_NUM_THREADS", 'VLLM_SERVER_DEV_MODE = "1", OMP_NUM_THREADS')
    footplate.paths.config_file.write_text(sleepy)
    await footplate.client.reload()

    assert (await switch(footplate, "vllm/guide")).outcome == "done"
    engine = await footplate.until_ready("vllm/guide")
    assert (await switch(footplate, GUIDE)).outcome == "done"
    asleep = {each.variant: each for each in (await footplate.client.status()).engines}
    await agree(footplate)
    woken = await switch(footplate, "vllm/guide")

    assert asleep["vllm/guide"].state is EngineState.SLEEPING
    assert asleep["vllm/guide"].pid == engine.pid
    assert woken.outcome == "done"
    assert (await footplate.until_ready("vllm/guide")).pid == engine.pid
    assert await footplate.answer(QUESTIONS[0], model="vllm/guide", temperature=0)
    await footplate.client.stop_engine("vllm/guide")
    await footplate.until(lambda status: all(each.pid != engine.pid for each in status.engines))
