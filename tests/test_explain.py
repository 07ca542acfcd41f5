"""What would be started, and what becomes of each parameter."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from footplate_daemon import guide, settings
from footplate_daemon.catalog import Catalog, Variant
from footplate_daemon.errors import NotFound
from footplate_daemon.explain import explain
from footplate_daemon.runtimes.llamacpp import LlamaCpp
from footplate_daemon.runtimes.vllm import Vllm
from footplate_daemon.wire import Explanation, ParameterExplained
from footplate_tui.cli.explain import lines

TEXT = """
[catalog]
include = ["gemma-3-4b-it"]
[models.gemma-3-4b-it.vllm]
profile = { max_tokens = 2000, reasoning = "low", system = "Be brief." }
env = { HF_TOKEN = "hf_secret" }
args = ["--hf-token", "hf_secret"]
"""


@pytest.fixture
def vllm(tmp_path: Path) -> Vllm:
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return Vllm(str(program), environment={})


def variant(name: str) -> Variant:
    loaded = settings.parse(TEXT.encode(), Path("config.toml"))
    listed = Catalog.build(loaded, models_dir=Path("/models"), guide=Path("/guide.gguf"))
    return listed.variants[name]


def parameters(explanation: Explanation) -> Mapping[str, ParameterExplained]:
    return {parameter.name: parameter for parameter in explanation.parameters}


def test_the_command_line_is_the_one_that_would_be_run_but_for_port_and_secrets(vllm: Vllm) -> None:
    found = explain(variant("vllm/gemma-3-4b-it"), None, vllm)
    command = " ".join(found.command)

    assert "serve google/gemma-3-4b-it --host 127.0.0.1 --port PORT" in command
    assert command.endswith("--max-model-len 1024 --hf-token ********")
    assert "hf_secret" not in found.model_dump_json()


def test_every_parameter_is_told_even_where_the_profile_is_silent(vllm: Vllm) -> None:
    told = parameters(explain(variant("vllm/gemma-3-4b-it"), None, vllm))

    assert list(told) == [
        "temperature",
        "top_p",
        "max_tokens",
        "seed",
        "stop",
        "reasoning",
        "context",
        "system",
    ]
    assert (told["temperature"].value, told["temperature"].outcome) == (0.3, "same")
    assert (told["max_tokens"].outcome, told["max_tokens"].note) == ("clamped", "2000 → 1024, the context")
    assert (told["reasoning"].outcome, told["reasoning"].becomes) == ("renamed", "reasoning_effort")
    assert (told["seed"].value, told["seed"].outcome) == (None, "same")
    assert told["context"].becomes == "--max-model-len 1024"
    assert told["system"].value == "Be brief."


def test_the_context_of_llamacpp_is_that_of_one_slot() -> None:
    found = explain(variant("llamacpp/guide"), None, LlamaCpp(environment={}))

    assert found.context == 4096
    assert parameters(found)["context"].becomes == "--ctx 4096"


def test_a_risky_preset_is_named_so(vllm: Vllm) -> None:
    found = explain(variant("vllm/gemma-3-4b-it"), "max-context", vllm)

    assert (found.preset, found.context) == ("max-context", 4096)
    assert found.notes[-1] == "The preset max-context is risky: it may not start."


def test_what_the_runtime_needs_for_a_case_is_noted_unless_it_has_it(vllm: Vllm) -> None:
    plain = variant("vllm/gemma-3-4b-it")
    parsing = replace(plain, args=("--reasoning-parser", "qwen3"))

    def noted(found: Explanation) -> list[str]:
        return [note.partition(":")[0] for note in found.notes]

    assert noted(explain(plain, None, vllm)) == ["Reasoning", "Tools"]
    assert noted(explain(parsing, None, vllm)) == ["Tools"]


def test_reasoning_that_cannot_be_switched_off_is_noted() -> None:
    silent = replace(variant("llamacpp/guide"), profile=settings.Profile(reasoning="off"))

    found = explain(silent, None, LlamaCpp(environment={}), weights_at=guide.path())

    told = parameters(found)["reasoning"]
    assert (told.value, told.becomes) == ("none", "chat_template_kwargs.enable_thinking")
    assert "cannot be switched off" in found.notes[-1]


def test_without_the_runtime_the_rest_is_told_all_the_same() -> None:
    found = explain(variant("vllm/gemma-3-4b-it"), None, Vllm(environment={}))

    assert found.command == ()
    assert found.notes[0].startswith("vLLM is not installed")
    assert parameters(found)["temperature"].value == 0.3


def test_a_parameter_that_the_engine_does_not_take_is_told() -> None:
    odd = replace(variant("llamacpp/guide"), parameters={"nonsense": 1})

    found = explain(odd, None, LlamaCpp(environment={}))

    assert found.command == ()
    assert "nonsense" in found.notes[0]


def test_an_unknown_preset_is_refused(vllm: Vllm) -> None:
    with pytest.raises(NotFound):
        explain(variant("vllm/gemma-3-4b-it"), "nonsense", vllm)


def test_a_person_reads_a_command_that_a_shell_would_take(vllm: Vllm) -> None:
    text = "\n".join(lines(explain(variant("vllm/gemma-3-4b-it"), None, vllm)))

    assert text.startswith("vllm/gemma-3-4b-it · preset low-vram · context 1024\n")
    assert "HF_TOKEN='********' \\\n" in text
    assert "  --max-num-seqs 1 \\\n" in text
    assert "max_tokens   clamped: 2000 → 1024, the context" in text
    assert "seed         left to the runtime" in text
