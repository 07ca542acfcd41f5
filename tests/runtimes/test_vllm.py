from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from footplate_daemon.errors import Unavailable
from footplate_daemon.runtimes.base import LaunchPlan, Progress
from footplate_daemon.runtimes.vllm import Vllm

API = "(APIServer pid=7995) INFO 11-20 16:21:59 "
CORE = "(EngineCore pid=8211) INFO 11-20 16:22:06 "


def plan(**changes: Any) -> LaunchPlan:
    return LaunchPlan(
        **{"variant": "vllm/guide", "model": "org/guide", "served_name": "guide", "port": 4711, **changes}
    )


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def vllm(tmp_path: Path) -> Vllm:
    """A vLLM in an environment of its own, with a space in its path."""
    program(tmp_path / "its own" / "bin" / "vllm")
    return Vllm(str(tmp_path / "its own"), environment={"PATH": "/usr/bin"})


def arguments(vllm: Vllm, **changes: Any) -> tuple[str, ...]:
    """Give the arguments after those that every launch has."""
    command = vllm.launch(plan(**changes)).command
    return command[command.index("--shutdown-timeout") + 2 :]


def test_it_serves_on_loopback_under_the_name_asked_for(vllm: Vllm, tmp_path: Path) -> None:
    launch = vllm.launch(plan())

    assert launch.command == (
        *(str(tmp_path / "its own" / "bin" / "vllm"), "serve", "org/guide"),
        *("--host", "127.0.0.1", "--port", "4711", "--served-model-name", "guide", "--shutdown-timeout", "1"),
    )


def test_its_environment_holds_the_key_its_own_programs_and_no_reporting(vllm: Vllm, tmp_path: Path) -> None:
    launch = vllm.launch(plan(api_key="secret", env={"HF_HUB_OFFLINE": "0"}))

    assert launch.env == {
        "VLLM_API_KEY": "secret",
        "PATH": f"{tmp_path / 'its own' / 'bin'}:/usr/bin",
        "HF_HUB_OFFLINE": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    assert "secret" not in launch.command


def test_a_load_is_ended_by_kill_since_it_heeds_nothing_else(vllm: Vllm) -> None:
    launch = vllm.launch(plan())

    assert (launch.stop_signal, launch.cancel_signal) == ("TERM", "KILL")


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (
            {"max_model_len": 1024, "max_num_batched_tokens": 64, "gpu_memory_utilization": 0.9},
            ["--max-model-len", "1024", "--max-num-batched-tokens", "64", "--gpu-memory-utilization", "0.9"],
        ),
        (
            {"enforce_eager": True, "enable_prefix_caching": False},
            ["--enforce-eager", "--no-enable-prefix-caching"],
        ),
        ({"limit_mm_per_prompt": {"image": 2}}, ["--limit-mm-per-prompt", '{"image":2}']),
        ({"cudagraph_capture_sizes": [1, 2], "quantization": None}, ["--cudagraph-capture-sizes", "1", "2"]),
    ],
)
def test_parameters_are_its_flags(vllm: Vllm, parameters: Mapping[str, Any], expected: list[str]) -> None:
    assert list(arguments(vllm, parameters=parameters)) == expected


def test_a_context_asked_for_goes_over_the_presets(vllm: Vllm) -> None:
    assert arguments(vllm, context=896, parameters={"max_model_len": 2048}) == ("--max-model-len", "896")


def test_arguments_follow_as_they_are(vllm: Vllm) -> None:
    assert arguments(vllm, args=("--kv-cache-dtype", "fp8")) == ("--kv-cache-dtype", "fp8")


def test_sleep_mode_comes_only_when_asked_for_with_the_route_to_use_it(vllm: Vllm) -> None:
    asleep = vllm.launch(plan(parameters={"enable_sleep_mode": True}))

    assert "--enable-sleep-mode" in asleep.command
    assert asleep.env["VLLM_SERVER_DEV_MODE"] == "1"
    assert "VLLM_SERVER_DEV_MODE" not in vllm.launch(plan()).env


def test_an_embedding_model_is_run_as_one(vllm: Vllm) -> None:
    assert arguments(vllm, capabilities=("embedding",)) == ("--runner", "pooling")


def test_a_batch_that_is_too_small_for_a_text_is_left_to_vllm(vllm: Vllm) -> None:
    small = arguments(
        vllm, capabilities=("embedding",), context=512, parameters={"max_num_batched_tokens": 64}
    )
    large = arguments(
        vllm, capabilities=("embedding",), context=512, parameters={"max_num_batched_tokens": 4096}
    )

    assert "--max-num-batched-tokens" not in small
    assert "--max-num-batched-tokens" in large


def test_a_container_gets_the_arguments_without_the_program() -> None:
    launch = Vllm(environment={}).launch(plan(command=("docker", "run", "vllm/vllm-openai", "{args}")))

    assert launch.command[:5] == ("docker", "run", "vllm/vllm-openai", "org/guide", "--host")
    assert "PATH" not in launch.env


@pytest.mark.parametrize("place", ["bin/vllm", ".venvs/vllm/bin/vllm", "miniconda3/envs/vllm/bin/vllm"])
def test_it_is_found_on_path_and_in_environments_that_people_make(tmp_path: Path, place: str) -> None:
    there = program(tmp_path / place)

    found = Vllm(environment={"PATH": f"/nowhere:{tmp_path}/bin", "HOME": str(tmp_path)}).find()

    assert found == str(there)


def test_a_configured_place_without_vllm_is_unavailable_and_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=f"There is no vLLM at {tmp_path}"):
        Vllm(str(tmp_path), environment={}).launch(plan())


@pytest.mark.parametrize(
    ("line", "progress"),
    [
        (
            f"{API}[api_utils.py:347]  ▄▄ ▄█ █     █     █ ▀▄▀ █  version 0.32.0",
            Progress("starting", 0.1),
        ),
        (
            f"{API}[model.py:733] Resolved architecture: Qwen3ForCausalLM",
            Progress("reading the model's configuration", 0.3),
        ),
        (
            f"{CORE}[core.py:133] Initializing a V1 LLM engine (v0.32.0) with config:",
            Progress("starting the engine core", 0.5),
        ),
        (
            f"{CORE}[cpu_model_runner.py:68] Starting to load model guide...",
            Progress("loading weights", 0.55),
        ),
        (
            "Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:01<00:01,  1.20s/it]",
            Progress("loading weights", 0.675),
        ),
        (
            f"{CORE}[default_loader.py:501] Loading weights took 0.00 seconds",
            Progress("weights loaded", 0.8),
        ),
        (
            f"{CORE}[kv_cache_utils.py:2327] CPU KV cache size: 131,072 tokens",
            Progress("reserving the KV cache", 0.88),
        ),
        (
            "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  50%|█████     | 1/2 [00:00<00:00]",
            Progress("capturing CUDA graphs", 0.935),
        ),
        (
            f"{CORE}[core.py:402] init engine (profile, create kv cache, warmup model) took 0.21 s",
            Progress("warming up", 0.97),
        ),
        ("INFO:     Application startup complete.", Progress("ready", 1.0)),
        (
            "WARNING 11-20 16:21:59 [vllm.py:1703] Enforce eager set, disabling torch.compile, CUDAGraphs",
            None,
        ),
    ],
)
def test_its_log_tells_how_far_a_start_has_come(line: str, progress: Progress | None) -> None:
    assert Vllm(environment={}).progress(line) == progress


@pytest.mark.parametrize(
    ("listing", "serves"),
    [
        ({"data": [{"id": "guide", "owned_by": "vllm"}]}, True),
        ({"data": [{"id": "guide", "owned_by": "llamacpp"}]}, False),
        ({"data": [{"id": "another", "owned_by": "vllm"}]}, False),
        ({"detail": "Not Found"}, False),
        (None, False),
    ],
)
def test_only_a_vllm_that_lists_the_name_serves_it(listing: Any, serves: bool) -> None:
    assert Vllm(environment={}).serves(listing, "guide") is serves


def test_words_of_llamacpp_are_renamed_and_what_it_drops_is_named() -> None:
    translated = Vllm(environment={}).translate(
        {"top_k": 20, "repeat_penalty": 1.1, "guided_choice": ["a", "b"]}
    )

    assert translated.body == {"top_k": 20, "repetition_penalty": 1.1, "guided_choice": ["a", "b"]}
    assert translated.renamed == {"repeat_penalty": "repetition_penalty"}
    assert translated.ignored == ("guided_choice",)


def test_max_tokens_beyond_the_context_are_clamped_since_it_would_refuse_them() -> None:
    translated = Vllm(environment={}).translate({"max_tokens": 5000}, context=2048)

    assert translated.body == {"max_tokens": 2048}
    assert translated.clamped == {"max_tokens": "5000 → 2048, the context"}
