import tomllib
from pathlib import Path

import pytest

from footplate_daemon.catalog import Preset, Variant
from footplate_daemon.errors import EngineFailed, Unavailable
from footplate_daemon.runtimes.base import Runtime
from footplate_daemon.runtimes.llamacpp import LlamaCpp
from footplate_daemon.runtimes.vllm import Vllm
from footplate_daemon.switching.diagnosis import GIB, GpuHolder, diagnose, mask
from footplate_daemon.weights import Weights
from footplate_daemon.wire import Diagnosis, Remedy

RUNTIMES: dict[str, Runtime] = {"vllm": Vllm(environment={}), "llamacpp": LlamaCpp(environment={})}

PRESETS = {
    "low-vram": Preset("low-vram", {"max_num_seqs": 1}, context=1024),
    "balanced": Preset("balanced", {"max_num_seqs": 1}, context=2048),
    "max-context": Preset("max-context", {"max_num_seqs": 1}, context=4096),
}

TABLE = Path(__file__).with_name("failures.toml")
FAILURES: list[dict[str, str]] = tomllib.loads(TABLE.read_text())["failure"]

# What surrounds the telling line in a real log, and tells nothing.
BEFORE = {
    "vllm": (
        "W1120 16:21:52.627000 7995 torch/_library/triton.py:53] Triton not available",
        "WARNING 11-20 16:21:52 This can cause fd limit errors like `OSError: [Errno 24] Too many files`",
    ),
    "llamacpp": (
        "0.00.000.884 I srv  llama_server: initializing ...",
        "0.00.019.145 W srv  llama_server: security: no API key is set and CORS allows all origins",
    ),
}
AFTER = {
    "vllm": (
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
    ),
    "llamacpp": (
        "0.00.021.655 E srv    load_model: failed to load model, '/models/guide.gguf'",
        "0.00.022.016 E srv  llama_server: exiting due to model loading error",
    ),
}

KV_CACHE = next(failure["line"] for failure in FAILURES if "length is 896" in failure["line"])
CUDA_OUT_OF_MEMORY = next(failure["line"] for failure in FAILURES if "Process 4711" in failure["line"])


def variant(runtime: str = "vllm", weights: Weights | None = None) -> Variant:
    return Variant(
        name=f"{runtime}/guide",
        runtime=runtime,
        model="guide",
        weights=weights or Weights("repo", "org/guide"),
        served_name="guide",
        presets=PRESETS if runtime == "vllm" else {},
        default_preset="low-vram" if runtime == "vllm" else None,
    )


def of_vllm(*lines: str, preset: str | None = None, exit_code: int | None = 1) -> Diagnosis:
    log = (*BEFORE["vllm"], *lines, *AFTER["vllm"])
    return diagnose(RUNTIMES["vllm"], log, exit_code=exit_code, variant=variant(), preset=preset)


def titles(diagnosis: Diagnosis) -> list[str]:
    return [remedy.title for remedy in diagnosis.remedies]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: f"{failure['runtime']}-{failure['code']}")
def test_what_an_engine_says_has_a_cause_in_one_sentence(failure: dict[str, str]) -> None:
    runtime = failure["runtime"]

    diagnosis = diagnose(
        RUNTIMES[runtime],
        [*BEFORE[runtime], failure["line"], *AFTER[runtime]],
        exit_code=1,
        variant=variant(runtime),
    )

    assert (diagnosis.code, diagnosis.cause) == (failure["code"], failure["cause"])
    assert len(diagnosis.evidence) == 1
    assert diagnosis.evidence[0].removesuffix("…") in failure["line"]


def test_a_context_that_does_not_fit_can_be_replaced_by_the_largest_that_does() -> None:
    diagnosis = of_vllm(KV_CACHE, preset="balanced")

    assert diagnosis.remedies[0] == Remedy(
        id=1, title="Use a context of 896 tokens", variant="vllm/guide", preset="balanced", context=896
    )
    assert "Use the preset low-vram" not in titles(diagnosis)


def test_a_preset_that_is_known_to_fit_is_offered_too() -> None:
    diagnosis = of_vllm(KV_CACHE.replace("896", "1536"), preset="balanced")

    assert titles(diagnosis)[:2] == ["Use a context of 1536 tokens", "Use the preset low-vram"]


def test_a_full_gpu_is_answered_with_less_and_with_who_holds_it() -> None:
    holders = [
        GpuHolder(1, "VLLM::EngineCore", "me", 2 * GIB, is_ours=True),
        GpuHolder(99, "python train.py", "anna", 3 * GIB),
        GpuHolder(4711, "blender", "ben", 6 * GIB),
    ]

    diagnosis = diagnose(
        RUNTIMES["vllm"],
        [CUDA_OUT_OF_MEMORY],
        exit_code=1,
        variant=variant(),
        preset="balanced",
        other_variants=["ollama/guide"],
        gpu_holders=holders,
    )

    assert titles(diagnosis) == [
        "Use the preset low-vram",
        "Use a context of 1024 tokens",
        "End process 4711 (blender of ben), which holds 6.0 GiB of the GPU's memory",
        "End process 99 (python train.py of anna), which holds 3.0 GiB of the GPU's memory",
        "Use ollama/guide instead",
        "Read its log",
    ]
    assert [remedy.id for remedy in diagnosis.remedies] == [1, 2, 3, 4, 5, 6]
    assert diagnosis.remedies[2].command == "kill 4711"
    assert not diagnosis.remedies[2].applies


def test_a_holder_that_only_the_log_names_is_named() -> None:
    diagnosis = of_vllm(CUDA_OUT_OF_MEMORY)

    assert "End process 4711, which holds 8.50 GiB of the GPU's memory" in titles(diagnosis)


@pytest.mark.parametrize(
    ("weights", "command"),
    [
        (Weights("repo", "org/guide"), "hf download org/guide"),
        (Weights("repo", "org/guide-GGUF:Q4_K_M"), "hf download org/guide-GGUF --include '*Q4_K_M*'"),
        (Weights("path", "/nope.gguf"), "footplate explain llamacpp/guide"),
    ],
)
def test_missing_weights_come_with_the_command_that_fetches_or_shows_them(
    weights: Weights, command: str
) -> None:
    log = ["E gguf_init_from_file: failed to open GGUF file '/nope.gguf' (No such file or directory)"]

    diagnosis = diagnose(RUNTIMES["llamacpp"], log, exit_code=1, variant=variant("llamacpp", weights))

    assert diagnosis.remedies[0].command == command


def test_a_gated_repository_is_named_where_access_is_asked_for() -> None:
    diagnosis = of_vllm(
        "Cannot access gated repo for url https://huggingface.co/meta-llama/Llama-3.1-8B/resolve/main/config.json."
    )

    assert diagnosis.remedies[0].title.startswith(
        "Ask for access on https://huggingface.co/meta-llama/Llama-3.1-8B,"
    )
    assert diagnosis.remedies[0].command == "hf auth login"


def test_a_dead_child_is_told_with_the_first_error_and_not_the_last() -> None:
    diagnosis = of_vllm(
        "(EngineCore pid=9) ERROR 11-20 [core.py:1] KeyError: 'model.layers.0.weight'",
        "(EngineCore pid=9) RuntimeError: shutting down",
    )

    assert (diagnosis.code, diagnosis.cause) == ("child_died", "A process that the engine had started died.")
    assert diagnosis.evidence == (
        "(EngineCore pid=9) ERROR 11-20 [core.py:1] KeyError: 'model.layers.0.weight'",
    )


def test_an_exit_with_code_0_is_judged_by_the_log() -> None:
    diagnosis = diagnose(
        RUNTIMES["vllm"],
        ["vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue."],
        exit_code=0,
        variant=variant(),
    )

    assert diagnosis.code == "child_died"


@pytest.mark.parametrize(
    ("exit_code", "code", "words"),
    [
        (-9, "killed", "SIGKILL"),
        (137, "killed", "SIGKILL"),
        (-4, "unsupported_cpu", "SIGILL"),
        (134, "crashed", "SIGABRT"),
        (-11, "crashed", "SIGSEGV"),
    ],
)
def test_an_end_by_a_signal_is_told(exit_code: int, code: str, words: str) -> None:
    diagnosis = diagnose(RUNTIMES["llamacpp"], ["loading"], exit_code=exit_code, variant=variant("llamacpp"))

    assert diagnosis.code == code
    assert words in diagnosis.cause
    assert diagnosis.evidence == ("loading",)


def test_a_start_that_takes_too_long_shows_the_last_it_said() -> None:
    diagnosis = diagnose(
        RUNTIMES["vllm"],
        ["one", "two", "three", "four"],
        exit_code=None,
        variant=variant(),
        timed_out_after=120,
    )

    assert (diagnosis.code, diagnosis.cause) == (
        "start_timeout",
        "The engine was not ready within 120 seconds.",
    )
    assert diagnosis.evidence == ("two", "three", "four")


def test_a_runtime_that_is_not_installed_says_how_to_install_it() -> None:
    diagnosis = diagnose(
        RUNTIMES["vllm"], [], exit_code=None, variant=variant(), cause=Unavailable("vLLM is not installed.")
    )

    assert (diagnosis.code, diagnosis.cause) == ("not_installed", "vLLM is not installed.")
    assert "pip install vllm" in str(diagnosis.remedies[0].command)


def test_an_error_of_ours_is_the_cause_where_the_log_tells_none() -> None:
    failed = EngineFailed("vllm/guide says that it is ready, but answered HTTP 500.")

    silent = diagnose(RUNTIMES["vllm"], ["INFO: 500"], exit_code=None, variant=variant(), cause=failed)
    telling = diagnose(
        RUNTIMES["vllm"], [CUDA_OUT_OF_MEMORY], exit_code=None, variant=variant(), cause=failed
    )

    assert (silent.code, silent.cause) == ("engine_failed", failed.message)
    assert telling.code == "out_of_gpu_memory"


def test_what_nobody_recognises_is_called_unknown_with_the_line_that_tells_most() -> None:
    log = [*BEFORE["vllm"], "Traceback (most recent call last):", "FooError: the moon is full", "bye"]

    diagnosis = diagnose(RUNTIMES["vllm"], log, exit_code=3, variant=variant())

    assert diagnosis.code == "unknown"
    assert diagnosis.cause == "The engine exited with code 3; Footplate does not know why."
    assert diagnosis.evidence == ("FooError: the moon is full",)
    assert diagnosis.remedies == (
        Remedy(id=1, title="Read its log", applies=False, command="footplate logs vllm-guide"),
    )


def test_a_log_without_a_word_is_no_trouble() -> None:
    diagnosis = diagnose(RUNTIMES["vllm"], [], exit_code=1, variant=variant())

    assert (diagnosis.code, diagnosis.evidence) == ("unknown", ())


def test_colours_and_progress_bars_are_taken_off() -> None:
    log = ["Loading:  10%\rLoading:  20%\r\x1b[31mFooError:\x1b[0m no"]

    diagnosis = diagnose(RUNTIMES["vllm"], log, exit_code=1, variant=variant())

    assert diagnosis.evidence == ("FooError: no",)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("token hf_abcDEF123456 refused", "token hf_… refused"),
        ("key sk-proj-abc_123456 refused", "key sk-… refused"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer …"),
        ("'api_key': ['0123456789abcdef']", "'api_key': ['…']"),
        ("--api-key=0123456789abcdef", "--api-key=…"),
        ("https://me:secret@proxy:3128/", "https://…@proxy:3128/"),
        ("max_tokens=50000000 n_ctx=4096", "max_tokens=50000000 n_ctx=4096"),
    ],
)
def test_secrets_are_masked_and_nothing_else(text: str, masked: str) -> None:
    assert mask(text) == masked


def test_evidence_and_cause_hold_no_secret() -> None:
    diagnosis = of_vllm("vllm: error: unrecognized arguments: --token hf_abcDEF123456")

    assert "abcDEF" not in diagnosis.model_dump_json()
