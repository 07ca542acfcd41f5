"""Ollama: how it is started, what its log says, and how models come and go in one that runs."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.runtimes.ollama_talk import REFERENCE, plan

from footplate_daemon import processes
from footplate_daemon.errors import EngineFailed, TimedOut, Unavailable
from footplate_daemon.processes import ProcessId
from footplate_daemon.runtimes.base import Host, Progress, Runtime
from footplate_daemon.runtimes.ollama import Ollama, runners, same_model
from footplate_daemon.switching.probe import Address, Answer, ask


def test_it_is_a_runtime_and_a_host() -> None:
    runtime: Runtime = REFERENCE
    host: Host = REFERENCE

    assert runtime.name == "ollama"
    assert host.is_up({"version": "0.33.0"})


def test_everything_is_told_by_the_environment_and_its_store_is_left_alone() -> None:
    launch = REFERENCE.launch(plan(context=2048, api_key="secret"))

    assert launch.command == ("ollama", "serve")
    assert launch.env == {
        "OLLAMA_HOST": "127.0.0.1:4711",
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_NO_CLOUD": "1",
    }


def test_launch_parameters_become_variables_but_those_of_a_load_become_options() -> None:
    parameters = {"slots": 2, "flash_attention": True, "kv_cache_type": "q8_0", "gpu_layers": 20}

    launch = REFERENCE.launch(plan(parameters=parameters, env={"OLLAMA_MODELS": "/srv/models"}))
    call = REFERENCE.call(
        "/v1/chat/completions", {"messages": [], "temperature": 0.3}, "gemma3:4b", 2048, parameters
    )

    assert {name: launch.env[name] for name in launch.env if name not in REFERENCE.launch(plan()).env} == {
        "OLLAMA_NUM_PARALLEL": "2",
        "OLLAMA_FLASH_ATTENTION": "1",
        "OLLAMA_KV_CACHE_TYPE": "q8_0",
        "OLLAMA_MODELS": "/srv/models",
    }
    assert call.body["options"] == {"temperature": 0.3, "num_predict": 2048, "num_gpu": 20, "num_ctx": 2048}


def test_a_program_that_is_not_there_is_unavailable_with_a_way_to_get_it(tmp_path: Path) -> None:
    nowhere = Ollama(str(tmp_path / "ollama"), environment={}, ask=ask)

    assert nowhere.find() is None
    with pytest.raises(Unavailable, match="There is no Ollama at"):
        nowhere.launch(plan(command=None))


def test_it_is_found_on_path_first(tmp_path: Path) -> None:
    program = tmp_path / "ollama"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)

    found = Ollama(environment={"PATH": str(tmp_path), "HOME": "/nowhere"}, ask=ask)

    assert found.find() == str(program)
    assert found.launch(plan(command=None)).command == (str(program), "serve")


@pytest.mark.parametrize(
    ("listing", "serves"),
    [
        ({"data": [{"id": "gemma3:4b", "owned_by": "library"}]}, True),
        ({"data": [{"id": "gemma3:12b", "owned_by": "library"}]}, False),
        ({"data": [{"id": "gemma3:4b", "owned_by": "vllm"}]}, False),
        ({"data": None}, False),
        ([], False),
    ],
)
def test_a_server_serves_what_it_has_whether_or_not_it_is_loaded(listing: Any, serves: bool) -> None:
    assert REFERENCE.serves(listing, "gemma3:4b") is serves


@pytest.mark.parametrize(
    ("name", "other", "same"),
    [
        ("guide", "guide:latest", True),
        ("library/Guide", "guide", True),
        ("registry.ollama.ai/library/guide:v1", "guide:v1", True),
        ("hf.co/org/model-GGUF:Q4_K_M", "hf.co/org/model-gguf:q4_k_m", True),
        ("guide:v1", "guide", False),
    ],
)
def test_names_of_one_model_are_the_same(name: str, other: str, same: bool) -> None:
    assert same_model(name, other) is same


@pytest.mark.parametrize(
    ("line", "progress"),
    [
        ('time=… level=INFO source=routes.go:1 msg="server config" env="map[…]"', Progress("starting", 0.02)),
        (
            'msg="starting llama-server" cmd="/usr/lib/ollama/llama-server --model /x"',
            Progress("starting the model's process", 0.15),
        ),
        ('msg="llama-server started in 1.20 seconds"', Progress("model loaded", 0.98)),
        ('msg="loaded runners" count=1', Progress("ready", 1.0)),
        ('[GIN] 2026/11/20 - 17:09:56 | 200 | 0.1ms | 127.0.0.1 | GET "/api/ps"', None),
    ],
)
def test_its_log_tells_how_far_a_load_has_come(line: str, progress: Progress | None) -> None:
    assert REFERENCE.progress(line) == progress


STARTING = 'time=… level=INFO msg="starting llama-server" cmd="…"'


@pytest.mark.parametrize(
    ("log", "code", "words"),
    [
        (
            ["Error: listen tcp 127.0.0.1:4711: bind: address already in use"],
            "port_taken",
            "on port 4711",
        ),
        (["model 'gemma3:5b' not found"], "model_missing", "does not have"),
        (
            [
                STARTING,
                "llama-server process has terminated: exit status 1: unknown model architecture: 'no'",
            ],
            "unknown_architecture",
            "`no`",
        ),
        (
            [STARTING, "ggml_aligned_malloc: insufficient memory (attempted to allocate  8192.00 MB)"],
            "out_of_memory",
            "8192.00 MB",
        ),
        (
            [STARTING, "allocating 5120.00 MiB on device 0: cudaMalloc failed: out of memory"],
            "out_of_gpu_memory",
            "5120.00 MiB",
        ),
        (
            [
                STARTING,
                "llama-server process has terminated: exit status 1: failed to allocate buffer for kv cache",
            ],
            "out_of_memory",
            "for the context",
        ),
        (["timed out waiting for llama-server to start - "], "start_timeout", "standstill"),
        (["llama-server process has terminated: signal: killed"], "killed", "killed"),
        (["llama-server process has terminated: exit status 1"], "child_died", "without a word"),
        (
            ["server busy, please try again.  maximum pending requests exceeded"],
            "busy",
            "Too many",
        ),
        (
            [STARTING, "tensor 'x' data exceeds file size", STARTING, "cudaMalloc failed: out of memory"],
            "out_of_gpu_memory",
            "too small",
        ),
    ],
)
def test_a_failed_load_is_told_by_its_cause(log: Sequence[str], code: str, words: str) -> None:
    cause = REFERENCE.recognise(log, None)

    assert cause is not None
    assert cause.code == code
    assert words in cause.cause


def test_a_model_that_is_missing_comes_with_the_command_that_fetches_it() -> None:
    cause = REFERENCE.recognise(["model 'gemma3:5b' not found"], None)

    assert cause is not None
    assert [remedy.command for remedy in cause.remedies] == ["ollama pull gemma3:5b"]


@dataclass
class Canned:
    """Answers `/api/ps` with one listing after another, the last one for ever, and all else with {}."""

    listings: list[list[Mapping[str, Any]]]

    async def __call__(self, *asked: Any, **_: Any) -> Answer:
        path = asked[2]
        if path != "/api/ps":
            return Answer(200, b"{}")
        listing = self.listings.pop(0) if len(self.listings) > 1 else self.listings[0]
        return Answer(200, json.dumps({"models": listing}).encode())


def listed(context: int, name: str = "guide:latest") -> Mapping[str, Any]:
    return {"name": name, "size": 1, "context_length": context}


async def test_a_load_is_done_when_the_context_asked_for_is_listed() -> None:
    ollama = Ollama(environment={}, ask=Canned([[], [listed(4096)], [listed(512)]]))

    assert await ollama.load_model(Address(1), "guide", 512) == 512


async def test_a_model_that_was_made_for_less_is_loaded_with_less() -> None:
    ollama = Ollama(environment={}, ask=Canned([[listed(2048)]]))

    assert await ollama.load_model(Address(1), "guide", 8192) == 2048


async def test_what_is_loaded_is_found_under_any_of_its_names() -> None:
    rows = [listed(512), listed(2048, "gemma3:4b")]

    loaded = await Ollama(environment={}, ask=Canned([rows])).loaded_names(Address(1))

    assert dict(loaded) == {"guide:latest": 512, "gemma3:4b": 2048}
    assert (loaded["guide"], loaded.get("library/Gemma3:4b"), loaded.get("gemma3")) == (512, 2048, None)


async def test_nothing_is_loaded_where_the_list_is_null() -> None:
    async def none_listed(*_: Any, **__: Any) -> Answer:
        return Answer(200, b'{"models": null}')

    assert await Ollama(environment={}, ask=none_listed).loaded_names(Address(1)) == {}


@pytest.mark.parametrize(
    ("answer", "is_up"),
    [
        ({"version": "0.33.0-rc2"}, True),
        ({"version": None}, False),
        ({"error": "not found"}, False),
        ([], False),
        (None, False),
    ],
)
def test_a_server_is_up_when_it_says_its_version(answer: Any, is_up: bool) -> None:
    assert REFERENCE.is_up(answer) is is_up


@pytest.mark.parametrize(
    ("context", "options"), [(2048, {"num_predict": 1, "num_ctx": 2048}), (None, {"num_predict": 1})]
)
def test_a_probe_generates_one_token_with_the_context_of_the_load(
    context: int | None, options: Mapping[str, int]
) -> None:
    path, body = REFERENCE.probe("guide", context)

    assert path == "/api/chat"
    assert body == {
        "model": "guide",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": False,
        "keep_alive": -1,
        "options": options,
    }


@pytest.fixture
def lingering() -> Iterator[ProcessId]:
    """The leader of a group in which a process with a model stays."""
    child = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)", "--model", "x"]
    script = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    with subprocess.Popen(
        [sys.executable, "-c", script, *child], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        leader = processes.identify(process.pid)
        assert leader is not None
        assert process.stdout is not None
        process.stdout.readline()
        yield leader
        processes.kill_group(leader)


async def test_a_model_whose_process_lingers_is_not_unloaded_yet(lingering: ProcessId) -> None:
    ollama = Ollama(environment={}, ask=Canned([[]]))
    (child,) = runners(lingering)

    with pytest.raises(TimedOut):
        await ollama.unload_model(Address(1), "guide", leader=lingering, timeout_seconds=0.2)
    processes.send(child, signal.SIGKILL)
    await ollama.unload_model(Address(1), "guide", leader=lingering)

    assert not processes.is_alive(child)


async def test_a_server_that_is_gone_is_a_failed_engine() -> None:
    async def nobody(*_: Any, **__: Any) -> None:
        return None

    with pytest.raises(EngineFailed, match="asked to load guide and did not answer"):
        await Ollama(environment={}, ask=nobody).load_model(Address(1), "guide", 512)
