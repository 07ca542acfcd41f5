"""Starts of real engines that fail for real, each told by its cause; and what a start that succeeds says."""

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import httpx
import pytest
from tests import engines

from footplate_daemon.catalog import Variant
from footplate_daemon.runtimes.base import Launch, LaunchPlan, Runtime
from footplate_daemon.runtimes.llamacpp import LlamaCpp
from footplate_daemon.runtimes.vllm import Vllm
from footplate_daemon.switching.diagnosis import diagnose
from footplate_daemon.switching.engine import free_port
from footplate_daemon.weights import Weights
from footplate_daemon.wire import Diagnosis

START_SECONDS = 120
"""A start of vLLM takes 20 s of a quiet machine."""


@pytest.fixture(params=["embedded", "llama-server"])
def llamacpp(request: pytest.FixtureRequest) -> LlamaCpp:
    """Each of the two ways to run llama.cpp."""
    if request.param == "embedded":
        return LlamaCpp(environment=os.environ)
    return llama_server()


def llama_server() -> LlamaCpp:
    return LlamaCpp(str(engines.require(engines.llama_server(), "llama-server")), environment=os.environ)


@pytest.fixture
def vllm() -> Vllm:
    return Vllm(str(engines.require(engines.vllm(), "vllm")), environment=os.environ)


@pytest.fixture
def port() -> int:
    return free_port()


Fails = Callable[..., Diagnosis]


@pytest.fixture
def fails(tmp_path: Path, port: int) -> Fails:
    """Start an engine that must end by itself, and give the diagnosis."""

    def fails(runtime: Runtime, model: Path, **changes: Any) -> Diagnosis:
        plan = LaunchPlan(
            **{
                "variant": f"{runtime.name}/guide",
                "model": str(model),
                "served_name": "guide",
                "port": port,
                **changes,
            }
        )
        log = tmp_path / "engine.log"
        with log.open("wb") as output, running(runtime.launch(plan), output) as process:
            exit_code = process.wait(START_SECONDS)
        return diagnose(
            runtime,
            log.read_text(errors="replace").splitlines(),
            exit_code=exit_code,
            variant=Variant(plan.variant, runtime.name, "guide", Weights("path", str(model)), "guide"),
        )

    return fails


@contextmanager
def running(launch: Launch, output: IO[bytes] | int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a launch in a process group of its own, of which nothing is left afterwards."""
    process = subprocess.Popen(
        launch.command,
        env={**os.environ, **launch.env},
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.stdout is not None:
            process.stdout.close()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_start_that_succeeds_is_followed_to_its_end_and_serves_the_name(
    llamacpp: LlamaCpp, port: int
) -> None:
    plan = LaunchPlan(
        "llamacpp/guide", str(engines.GUIDE_GGUF), "guide", port, api_key="secret", context=1024
    )
    steps = []

    with running(llamacpp.launch(plan), subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            progress = llamacpp.progress(line.decode())
            if progress is not None:
                steps.append(progress.step)
            if steps[-1:] == ["ready"]:
                break
        listing = httpx.get(
            f"http://127.0.0.1:{port}/v1/models", headers={"Authorization": "Bearer secret"}, timeout=60
        ).json()
        refused = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60)

    assert steps[0] == "starting"
    assert "loading weights" in steps
    assert llamacpp.serves(listing, "guide")
    assert not llamacpp.serves(listing, "another")
    assert refused.status_code == 401


def test_a_missing_file_is_named(llamacpp: LlamaCpp, fails: Fails) -> None:
    diagnosis = fails(llamacpp, Path("/nope/guide.gguf"))

    assert (diagnosis.code, diagnosis.cause) == ("model_missing", "There is no file /nope/guide.gguf.")


def test_a_file_that_is_not_gguf_is_called_that(llamacpp: LlamaCpp, fails: Fails, tmp_path: Path) -> None:
    other = tmp_path / "guide.gguf"
    other.write_bytes(b"PK\3\4 and so on" * 100)

    assert fails(llamacpp, other).code == "not_gguf"


def test_a_file_that_was_cut_off_is_called_damaged(llamacpp: LlamaCpp, fails: Fails, tmp_path: Path) -> None:
    whole = engines.GUIDE_GGUF.read_bytes()
    damaged = tmp_path / "guide.gguf"
    damaged.write_bytes(whole[: len(whole) // 2])

    assert fails(llamacpp, damaged).code == "corrupt_weights"


def test_a_file_that_ends_in_its_header_is_called_damaged(
    llamacpp: LlamaCpp, fails: Fails, tmp_path: Path
) -> None:
    damaged = tmp_path / "guide.gguf"
    damaged.write_bytes(engines.GUIDE_GGUF.read_bytes()[:200])

    assert fails(llamacpp, damaged).code == "corrupt_weights"


def test_a_port_that_another_program_has_is_named(llamacpp: LlamaCpp, fails: Fails) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]

        diagnosis = fails(llamacpp, engines.GUIDE_GGUF, port=taken)

    assert (diagnosis.code, diagnosis.cause) == ("port_taken", f"Another program listens on port {taken}.")
    assert diagnosis.remedies[0].title == "Try again, on another port"


def test_an_argument_that_it_does_not_know_is_named(llamacpp: LlamaCpp, fails: Fails) -> None:
    diagnosis = fails(llamacpp, engines.GUIDE_GGUF, args=("--nonsense",))

    assert diagnosis.code == "bad_argument"
    assert "--nonsense" in diagnosis.cause


def test_a_value_that_it_does_not_take_is_named(fails: Fails) -> None:
    diagnosis = fails(llama_server(), engines.GUIDE_GGUF, parameters={"cache_type_k": "nope"})

    assert diagnosis.code == "bad_argument"
    assert "--cache-type-k" in diagnosis.cause


@pytest.mark.vllm
def test_a_context_too_large_for_vllms_kv_cache_is_answered_with_the_largest_that_fits(
    vllm: Vllm, fails: Fails
) -> None:
    diagnosis = fails(
        vllm,
        engines.GUIDE_HF,
        context=2048,
        env=engines.VLLM_LIGHT_ENV,
        args=(*engines.VLLM_LIGHT_ARGS, "--kv-cache-memory-bytes", "2M"),
    )

    largest = diagnosis.remedies[0].context
    assert diagnosis.code == "kv_cache_too_small"
    assert largest is not None
    assert 0 < largest < 2048
    assert f"holds a context of {largest} tokens, not the 2048" in diagnosis.cause


@pytest.mark.vllm
def test_an_architecture_that_vllm_does_not_know_is_named(vllm: Vllm, fails: Fails, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(engines.GUIDE_HF, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(
        json.dumps({**config, "model_type": "nosuch", "architectures": ["No"]})
    )

    diagnosis = fails(vllm, model, env=engines.VLLM_LIGHT_ENV, args=engines.VLLM_LIGHT_ARGS)

    assert diagnosis.code == "unknown_architecture"
    assert "`nosuch`" in diagnosis.cause


@pytest.mark.vllm
def test_a_folder_that_vllm_does_not_find_is_named(vllm: Vllm, fails: Fails) -> None:
    diagnosis = fails(vllm, Path("/nope/guide"), env=engines.VLLM_LIGHT_ENV, args=engines.VLLM_LIGHT_ARGS)

    assert (diagnosis.code, diagnosis.cause) == ("model_missing", "There is no model at /nope/guide.")
