"""Every runtime, whole: switched to in turn, asked, killed under a stream, and back again."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from footplate_daemon import lifecycle, processes
from footplate_daemon.client import FootplateClient
from footplate_daemon.paths import Paths
from footplate_daemon.switching.engine import free_port
from tests import engines
from tests.whole.conftest import LOAD_SECONDS, PATIENCE_SECONDS, Whole
from tests.whole.test_benchmarks import measured
from tests.whole.test_switching import GUIDE, QUESTIONS, agree, members, switch

OLLAMA = engines.REPOSITORY / "tests" / "fakes" / "ollama" / "ollama"
KEEP_TALKING: dict[str, Any] = {"ignore_eos": True, "max_tokens": 1500}


@pytest.fixture
async def footplate(home: Paths) -> AsyncIterator[Whole]:
    """A Footplate whose catalog has the guide on every runtime."""
    home.make()
    home.config_file.write_text(config(home.data_dir / "ollama"))
    await asyncio.to_thread(lifecycle.up, home)
    transport = httpx.AsyncHTTPTransport(uds=str(home.socket))
    async with (
        FootplateClient(home.socket) as client,
        httpx.AsyncClient(transport=transport, base_url="http://footplate", timeout=LOAD_SECONDS) as http,
    ):
        whole = Whole(home, client, http, LOAD_SECONDS)
        await whole.until_ready()
        yield whole


def config(ollama_models: Path) -> str:
    vllm = engines.vllm()
    environment = json.dumps(str(vllm.parent.parent) if vllm else "none")
    light = ", ".join(f"{name} = {json.dumps(value)}" for name, value in engines.VLLM_LIGHT_ENV.items())
    return f"""
[switching]
default = "{GUIDE}"
[runtimes.vllm]
program = {environment}
args = {json.dumps(list(engines.VLLM_LIGHT_ARGS))}
env = {{ {light} }}
[runtimes.transformers]
program = {environment}
env = {{ OMP_NUM_THREADS = "1" }}
[runtimes.ollama]
program = {json.dumps(str(OLLAMA))}
env = {{ STAND_IN_MODELS = "guide endless", OLLAMA_MODELS = {json.dumps(str(ollama_models))} }}
[models.guide.vllm]
weights = {json.dumps(str(engines.GUIDE_HF))}
context = 2048
[models.guide.transformers]
weights = {json.dumps(str(engines.GUIDE_HF))}
context = 2048
[models.guide.ollama]
context = 2048
[models.endless.ollama]
context = 2048
"""


async def test_ollama_switches_models_inside_one_process(footplate: Whole) -> None:
    expected = await footplate.answer(QUESTIONS[0], model=GUIDE)

    assert (await switch(footplate, "ollama/guide")).outcome == "done"
    first = await footplate.until_ready("ollama/guide")
    answer = await footplate.answer(QUESTIONS[0], model="ollama/guide")
    await agree(footplate)
    assert (await switch(footplate, "endless")).outcome == "done"
    second = await footplate.until_ready("ollama/endless")
    await agree(footplate)
    assert (await switch(footplate, GUIDE)).outcome == "done"

    assert answer == expected
    assert first.pid == second.pid
    assert not members(first.pid)
    await agree(footplate)


async def test_a_model_that_ollama_lacks_is_told_and_the_previous_one_comes_back(footplate: Whole) -> None:
    footplate.paths.config_file.write_text(
        config(footplate.paths.data_dir / "ollama") + '[models.absent.ollama]\nweights = "absent:1b"\n'
    )
    await footplate.client.reload()

    failed = await switch(footplate, "absent")

    assert failed.outcome == "failed"
    assert failed.diagnosis is not None
    assert "absent" in failed.diagnosis.cause + " ".join(failed.diagnosis.evidence)
    assert await footplate.answer(QUESTIONS[0], model=GUIDE)
    await agree(footplate)


async def test_a_loaded_ollama_model_is_adopted_by_the_next_daemon(footplate: Whole) -> None:
    await switch(footplate, "ollama/guide")
    engine = await footplate.until_ready("ollama/guide")
    before = (await footplate.client.health()).pid
    os.kill(before, signal.SIGKILL)

    await footplate.until(lambda status: status.daemon.pid != before and status.active == "ollama/guide")

    assert (await footplate.until_ready("ollama/guide")).pid == engine.pid
    assert await footplate.answer(QUESTIONS[0], model="ollama/guide")


@pytest.mark.vllm
@pytest.mark.timeout(900)
async def test_every_runtime_gives_the_same_answers(footplate: Whole) -> None:
    engines.require(engines.vllm(), "vllm")
    expected = [await footplate.answer(question, model=GUIDE) for question in QUESTIONS]

    for name in ("transformers/guide", "vllm/guide", "ollama/guide", GUIDE):
        assert (await switch(footplate, name)).outcome == "done"
        answers = [await footplate.answer(question, model=name, temperature=0) for question in QUESTIONS]
        assert answers == expected, name
        await agree(footplate)


@pytest.mark.vllm
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["transformers/guide", "ollama/endless"])
async def test_a_killed_leader_is_told_leaves_no_orphan_and_comes_back(footplate: Whole, name: str) -> None:
    if name.startswith("transformers"):
        engines.require(engines.vllm(), "vllm")
    assert (await switch(footplate, name)).outcome == "done"
    engine = await footplate.until_ready(name)
    group = members(engine.pid)
    body = {
        "model": name,
        "stream": True,
        "messages": [{"role": "user", "content": QUESTIONS[0]}],
        **KEEP_TALKING,
    }

    async with footplate.http.stream("POST", "/v1/chat/completions", json=body) as response:
        chunks = response.aiter_text()
        await anext(chunks)
        os.kill(engine.pid or 0, signal.SIGKILL)
        rest = "".join([chunk async for chunk in chunks])

    again = await footplate.until(
        lambda status: status.active == name and all(each.pid != engine.pid for each in status.engines)
    )
    assert "engine_failed" in rest
    assert not [each for each in group if processes.is_alive(each)]
    assert again.active == name


async def test_an_ollama_that_runs_already_is_used_and_left_running(footplate: Whole) -> None:
    models = footplate.paths.data_dir / "ollama"
    async with foreign_ollama(models) as (server, url):
        text = config(models).replace("[runtimes.ollama]", f'[runtimes.ollama]\nurl = "{url}"')
        footplate.paths.config_file.write_text(text)
        await footplate.client.reload()

        assert (await switch(footplate, "ollama/guide")).outcome == "done"
        answer = await footplate.answer(QUESTIONS[0], model="ollama/guide")
        assert (await switch(footplate, "endless")).outcome == "done"
        assert (await switch(footplate, GUIDE)).outcome == "done"
        async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as http:
            loaded = (await http.get(f"{url}/api/ps")).json()["models"]
        assert answer == await footplate.answer(QUESTIONS[0], model=GUIDE)
        assert loaded == []
        assert server.returncode is None
        await agree(footplate)


async def until_it_listens(port: int) -> None:
    while True:
        try:
            _, line = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.02)
        else:
            line.close()
            return


@contextlib.asynccontextmanager
async def foreign_ollama(models: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """An Ollama that Footplate did not start."""
    port = free_port()
    environment = {
        **os.environ,
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_MODELS": str(models),
        "STAND_IN_MODELS": "guide endless",
    }
    server = await asyncio.create_subprocess_exec(
        str(OLLAMA),
        "serve",
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await until_it_listens(port)
        yield server, f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        await server.wait()


async def test_a_remote_is_switched_to_and_its_death_is_told(footplate: Whole) -> None:
    far = await footplate.until_ready()
    record = footplate.record()
    key_file = footplate.paths.config_dir / "key"
    key_file.write_text(record.api_key or "")
    remote = f"""
[models.far.remote]
url = "http://127.0.0.1:{far.port}/v1"
key_file = {json.dumps(str(key_file))}
served_name = "guide"
[models.keyless.remote]
url = "http://127.0.0.1:{far.port}/v1"
served_name = "guide"
[models.nowhere.remote]
url = "http://127.0.0.1:{free_port()}"
"""
    footplate.paths.config_file.write_text(config(footplate.paths.data_dir / "ollama") + remote)
    await footplate.client.reload()

    assert (await switch(footplate, "far")).outcome == "done"
    response = await footplate.chat(QUESTIONS[0], model="far")
    keyless = await switch(footplate, "keyless")
    nowhere = await switch(footplate, "nowhere")

    assert response.headers["x-footplate-runtime"] == "remote"
    assert (await footplate.until_ready("remote/far")).pid is None
    assert keyless.diagnosis is not None
    assert keyless.diagnosis.code == "bad_token"
    assert nowhere.diagnosis is not None
    assert nowhere.diagnosis.code == "remote_unreachable"
    assert (record.api_key or "no key") not in (await footplate.http.get("/config")).text


@pytest.mark.vllm
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["vllm/guide", "transformers/guide", "ollama/guide"])
async def test_every_runtime_is_measured_alike(footplate: Whole, name: str) -> None:
    if not name.startswith("ollama"):
        engines.require(engines.vllm(), "vllm")
    run = await measured(
        footplate,
        variants=[{"name": name}, {"name": GUIDE}],
        workloads=[{"kind": "short"}, {"kind": "long-prompt", "requests": 1, "max_tokens": 8}],
        parameters={"temperature": 0},
        requests=2,
        warm_ups=1,
        cold=False,
    )

    assert run.state == "done"
    assert [cell.state for cell in run.cells] == ["done"] * 4
    summaries = [cell.summary for cell in run.cells if cell.summary is not None]
    assert [summary.failed for summary in summaries] == [0] * 4
    assert all(summary.ttft and summary.output_tokens and summary.counted_tokens for summary in summaries)
    whole = await footplate.client.benchmark_run(run.id, records=True)
    prompts = [[record.prompt for record in cell.records or ()] for cell in whole.cells]
    assert prompts[:2] == prompts[2:]
    assert run.entrants[0].runtime_version
    assert run.restored == GUIDE
