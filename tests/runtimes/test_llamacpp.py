import sys
from pathlib import Path
from typing import Any

import pytest

from footplate_daemon.errors import Invalid, Unavailable
from footplate_daemon.runtimes.base import LaunchPlan, Progress
from footplate_daemon.runtimes.llamacpp import LlamaCpp

EMBEDDED = LlamaCpp(environment={})


def plan(**changes: Any) -> LaunchPlan:
    return LaunchPlan(
        **{
            "variant": "llamacpp/guide",
            "model": "/models/guide.gguf",
            "served_name": "guide",
            "port": 4711,
            **changes,
        }
    )


@pytest.fixture
def server(tmp_path: Path) -> LlamaCpp:
    """A llama.cpp whose `llama-server` is on PATH."""
    program(tmp_path / "llama-server")
    return LlamaCpp("llama-server", environment={"PATH": str(tmp_path)})


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_embedded_engine_is_a_module_run_by_our_own_python() -> None:
    launch = EMBEDDED.launch(plan(context=2048, parameters={"parallel": 4}))

    assert launch.command == (
        *(sys.executable, "-m", "footplate_daemon.runtimes.embedded"),
        *("--model", "/models/guide.gguf", "--port", "4711", "--alias", "guide", "--metrics"),
        *("--parallel", "4", "--ctx", "2048"),
    )


def test_the_embedded_engine_gets_its_key_by_the_environment_alone() -> None:
    launch = EMBEDDED.launch(plan(api_key="secret"))

    assert launch.env == {"FOOTPLATE_ENGINE_KEY": "secret"}
    assert "secret" not in launch.command


def test_the_embedded_engine_names_what_it_takes_when_asked_for_more() -> None:
    with pytest.raises(Invalid, match="no launch parameter numa") as refusal:
        EMBEDDED.launch(plan(parameters={"numa": "distribute"}))

    assert "gpu_layers" in str(refusal.value.hint)


def test_an_own_server_is_started_so_that_it_stops_in_time_and_tells_its_metrics(server: LlamaCpp) -> None:
    launch = server.launch(plan(api_key="secret", context=4096))

    assert launch.command[1:] == (
        *("--model", "/models/guide.gguf", "--alias", "guide", "--host", "127.0.0.1", "--port", "4711"),
        *("--sse-ping-interval", "1", "--jinja", "--metrics", "--no-webui"),
        *("--ctx-size", "4096"),
    )
    assert launch.env == {"LLAMA_API_KEY": "secret"}


@pytest.mark.parametrize(
    ("context", "parameters", "expected"),
    [
        (2048, {}, ("--ctx-size", "2048")),
        (2048, {"parallel": 4}, ("--parallel", "4", "--ctx-size", "8192")),
        (None, {"slots": 4}, ("--parallel", "4", "--kv-unified")),
        (None, {"ctx_size": 1024, "np": 2}, ("--parallel", "2", "--ctx-size", "2048")),
        (None, {}, ()),
    ],
)
def test_every_slot_of_an_own_server_has_the_whole_context(
    server: LlamaCpp, context: int | None, parameters: dict[str, Any], expected: tuple[str, ...]
) -> None:
    launch = server.launch(plan(context=context, parameters=parameters))

    assert launch.command[launch.command.index("--no-webui") + 1 :] == expected


def test_a_small_model_is_given_one_thread(server: LlamaCpp, tmp_path: Path) -> None:
    small = tmp_path / "small.gguf"
    small.write_bytes(b"GGUF")

    launch = server.launch(plan(model=str(small)))

    assert launch.command[-2:] == ("--threads", "1")


def test_the_rest_of_the_parameters_and_arguments_reach_an_own_server_as_they_are(server: LlamaCpp) -> None:
    launch = server.launch(
        plan(
            parameters={"n_gpu_layers": 99, "cache_type_k": "q8_0", "mlock": True, "mmap": False},
            mmproj=Path("/models/mmproj.gguf"),
            args=("--numa", "distribute"),
            env={"GGML_CUDA_ENABLE_UNIFIED_MEMORY": "1"},
        )
    )

    assert launch.command[launch.command.index("--no-webui") + 1 :] == (
        *("--mmproj", "/models/mmproj.gguf"),
        *("--gpu-layers", "99", "--cache-type-k", "q8_0", "--mlock", "--no-mmap"),
        *("--numa", "distribute"),
    )
    assert launch.env == {"GGML_CUDA_ENABLE_UNIFIED_MEMORY": "1"}


def test_a_command_of_the_operators_takes_the_servers_arguments() -> None:
    wrapped = EMBEDDED.launch(plan(command=("nice", "/opt/llama-server")))
    placed = EMBEDDED.launch(
        plan(command=("docker", "run", "-p", "{port}:{port}", "llama", "{args}", "--log-disable"))
    )
    whole = EMBEDDED.launch(plan(command=("serve", "{model}", "{port}")))

    assert wrapped.command[:4] == ("nice", "/opt/llama-server", "--model", "/models/guide.gguf")
    assert placed.command[:7] == (
        "docker",
        "run",
        "-p",
        "4711:4711",
        "llama",
        "--model",
        "/models/guide.gguf",
    )
    assert placed.command[-1] == "--log-disable"
    assert whole.command == ("serve", "/models/guide.gguf", "4711")


def test_a_server_that_is_not_there_is_unavailable_and_named(tmp_path: Path) -> None:
    missing = LlamaCpp(str(tmp_path / "llama-server"), environment={})

    assert missing.find() is None
    with pytest.raises(Unavailable, match="There is no llama-server at"):
        missing.launch(plan())


@pytest.mark.parametrize(
    ("line", "progress"),
    [
        ("0.00.003.128 I srv  llama_server: initializing ...", Progress("starting", 0.05)),
        ("0.00.030.900 I srv    load_model: loading model 'tiny.gguf'", Progress("loading weights", 0.1)),
        (
            "0.00.043.047 I cmn          init: llama threadpool init, n_threads = 1",
            Progress("warming up", 0.9),
        ),
        (
            "0.00.044.341 I srv    load_model: initializing, n_slots = 4, n_ctx_slot = 2048",
            Progress("preparing slots", 0.95),
        ),
        ("0.00.046.138 I srv  llama_server: model loaded", Progress("model loaded", 0.98)),
        ("0.00.046.142 I srv  llama_server: listening on http://127.0.0.1:18403", Progress("ready", 1.0)),
        ("0.00.026.299 I srv  init_listene: The UI is disabled", None),
    ],
)
def test_its_log_tells_how_far_a_start_has_come(line: str, progress: Progress | None) -> None:
    assert EMBEDDED.progress(line) == progress


@pytest.mark.parametrize(
    ("listing", "serves"),
    [
        ({"data": [{"id": "guide", "owned_by": "llamacpp"}]}, True),
        ({"data": [{"id": "another", "owned_by": "llamacpp"}]}, False),
        ({"data": [{"id": "guide", "owned_by": "vllm"}]}, False),
        ({"error": {"message": "Loading model"}}, False),
        ([], False),
    ],
)
def test_only_a_llamacpp_that_lists_the_name_serves_it(listing: Any, serves: bool) -> None:
    assert EMBEDDED.serves(listing, "guide") is serves


def test_words_of_vllm_are_renamed_and_what_it_drops_is_named() -> None:
    translated = EMBEDDED.translate(
        {"temperature": 0.3, "max_tokens": 9000, "repetition_penalty": 1.1, "min_tokens": 5, "temprature": 1},
        2048,
    )

    assert translated.renamed == {"repetition_penalty": "repeat_penalty"}
    assert translated.body["repeat_penalty"] == 1.1
    assert translated.ignored == ("min_tokens", "temprature")
    assert translated.clamped == {}


def test_a_parameter_under_both_names_keeps_the_runtimes_own() -> None:
    translated = EMBEDDED.translate({"repeat_penalty": 1.2, "repetition_penalty": 1.1})

    assert translated.body == {"repeat_penalty": 1.2}
    assert translated.ignored == ("repetition_penalty",)


def test_a_tool_that_is_chosen_by_name_is_the_only_one_and_required() -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("look", "ask")]

    translated = EMBEDDED.translate(
        {"tools": tools, "tool_choice": {"type": "function", "function": {"name": "ask"}}}
    )

    assert translated.body == {"tools": tools[1:], "tool_choice": "required"}
    assert translated.ignored == ()


@pytest.mark.parametrize("choice", [{}, {"function": "ask"}, {"function": {"name": "no"}}])
def test_a_tool_that_is_not_there_cannot_be_chosen(choice: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as caught:
        EMBEDDED.translate({"tools": [{"function": {"name": "ask"}}], "tool_choice": choice})

    assert caught.value.param == "tool_choice"
