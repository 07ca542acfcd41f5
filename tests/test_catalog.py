"""Which models there are, what a name stands for, and what an engine is started with."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footplate_daemon import catalog, settings
from footplate_daemon.catalog import Catalog, Elsewhere, Variant
from footplate_daemon.errors import NotFound
from footplate_daemon.weights import Found

MODELS = Path("/models")
GUIDE = Path("/guide.gguf")
TEXT = """
[catalog]
include = ["gemma-3-4b-it", "vllm/qwen3-8b"]
[profiles.default]
max_tokens = 500
system = "Be brief."
[profiles.careful]
temperature = 0.1
context = 3000
[runtimes.vllm]
env = { A = "kind", B = "kind" }
args = ["--kind"]
[presets.llamacpp.big]
ctx_size = 8192
cache_type_k = "q8_0"
[models.mine]
aliases = ["Coder"]
profile = "careful"
[models.mine.vllm]
weights = "org/mine"
served_name = "mine-served"
profile = { temperature = 0.2 }
parameters = { max_num_seqs = 8 }
env = { B = "own" }
args = ["--own"]
[models.mine.llamacpp]
weights = "mine.gguf"
gpu_layers = "all"
slots = 2
mmproj = "mmproj-mine.gguf"
preset = "big"
"""


def build(text: str = TEXT, found: Sequence[Found] = ()) -> Catalog:
    loaded = settings.parse(text.encode(), Path("config.toml"))
    return Catalog.build(loaded, models_dir=MODELS, guide=GUIDE, found=found)


def test_a_fresh_catalog_has_the_guide_and_nothing_else() -> None:
    fresh = build("")
    guide = fresh.variants["llamacpp/guide"]

    assert list(fresh.models) == ["guide"]
    assert fresh.models["guide"].demonstration
    assert (guide.weights.location, guide.context, guide.parameters) == (str(GUIDE), 4096, {"parallel": 4})
    assert guide.profile.body() == {"temperature": 0.0, "max_tokens": 400}
    assert fresh.wanted_first() == guide


def test_the_guide_takes_no_default_profile() -> None:
    assert build().variants["llamacpp/guide"].profile.system is None


def test_the_guide_can_be_left_out() -> None:
    without = build("[catalog]\nguide = false\n")

    assert without.models == {}
    assert without.wanted_first() is None
    assert without.problems == ()


def test_a_profile_is_merged_from_the_default_to_the_variant() -> None:
    profile = build().variants["vllm/mine"].profile

    assert profile.body() == {"temperature": 0.2, "max_tokens": 500}
    assert (profile.context, profile.system) == (3000, "Be brief.")


def test_what_is_found_is_listed_beside_what_is_written() -> None:
    found = (
        Found("mine", "llamacpp", MODELS / "mine.gguf"),
        Found("new", "llamacpp", MODELS / "new.gguf", MODELS / "mmproj-new.gguf"),
        Found("folder", "vllm", MODELS / "folder"),
    )

    listed = build(found=found)

    assert listed.variants["llamacpp/new"].capabilities == ("chat", "vision")
    assert listed.variants["llamacpp/new"].profile.max_tokens == 500
    assert listed.variants["vllm/folder"].default_preset == "low-vram"
    assert [name for name in listed.variants if name.startswith("llamacpp/mine")] == ["llamacpp/mine"]


def test_a_table_without_weights_stands_for_the_file_of_its_name() -> None:
    found = (Found("deep", "llamacpp", MODELS / "x" / "deep.gguf"),)

    listed = build(
        "[models.deep.llamacpp]\nslots = 3\n[models.other.llamacpp]\n[models.other.ollama]\n", found
    )

    assert listed.variants["llamacpp/deep"].weights.location == "/models/x/deep.gguf"
    assert listed.variants["llamacpp/other"].weights.location == "/models/other.gguf"
    assert listed.variants["ollama/other"].served_name == "other"


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("guide", "llamacpp/guide"),
        ("GUIDE", "llamacpp/guide"),
        ("vllm/mine", "vllm/mine"),
        ("coder", "vllm/mine"),
        ("llamacpp/coder", "llamacpp/mine"),
        ("mine-served", "vllm/mine"),
        ("org/mine", "vllm/mine"),
        ("gemma3:4b", "ollama/gemma-3-4b-it"),
        ("ollama/gemma3:4b", "ollama/gemma-3-4b-it"),
        ("google/gemma-3-4b-it", "vllm/gemma-3-4b-it"),
        ("ggml-org/gemma-3-4b-it-GGUF", "llamacpp/gemma-3-4b-it"),
        ("qwen3-8b", "vllm/qwen3-8b"),
    ],
)
def test_every_name_that_people_use_is_understood(name: str, variant: str) -> None:
    assert build().resolve(name).name == variant


def test_of_several_runtimes_the_last_used_one_is_meant_then_an_installed_one() -> None:
    listed = build()

    assert listed.resolve("mine", last_used=["llamacpp/guide", "llamacpp/mine"]).runtime == "llamacpp"
    assert replace(listed, installed={"llamacpp"}).resolve("mine").runtime == "llamacpp"
    assert replace(listed, installed=set()).resolve("mine").runtime == "vllm"
    assert listed.resolve("mine", "llamacpp", last_used=["vllm/mine"]).runtime == "llamacpp"


def test_a_runtime_alone_means_what_was_last_used_on_it() -> None:
    listed = build()

    assert listed.on("vllm").name == "vllm/gemma-3-4b-it"
    assert listed.on("vllm", last_used=["llamacpp/guide", "vllm/mine"]).name == "vllm/mine"


@pytest.mark.parametrize(
    ("name", "runtime", "hint"),
    [
        ("gemma-3-4b", None, "There is: gemma-3-4b-it"),
        ("vllm/mien", None, "There is: vllm/mine"),
        ("qwen3-8b", "ollama", "There is: vllm/qwen3-8b."),
        ("gpt-oss-20b", None, 'add "gpt-oss-20b" to include'),
        ("ollama/qwen3-8b", None, 'add "ollama/qwen3-8b" to include'),
        ("mistral:7b", None, 'add "mistral-7b-instruct" to include'),
    ],
)
def test_a_name_that_stands_for_nothing_is_answered_with_the_nearest(
    name: str, runtime: str | None, hint: str
) -> None:
    with pytest.raises(NotFound) as caught:
        build().resolve(name, runtime)

    assert hint in str(caught.value.hint)


def test_a_runtime_without_models_is_answered_with_those_that_have_some() -> None:
    with pytest.raises(NotFound) as caught:
        build().on("transformers")

    assert caught.value.hint == "There are models on: llamacpp, vllm, ollama."


def test_a_preset_that_there_is_not_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(NotFound) as caught:
        build().resolve("vllm/mine").preset("lowvram")

    assert caught.value.hint == 'Did you mean "low-vram"?'


def test_a_default_that_names_nothing_is_a_problem_and_keeps_nothing_from_working() -> None:
    listed = build("[switching]\ndefault = 'gemma'\n")

    assert listed.wanted_first() is None
    assert listed.problems == ('switching.default: There is no model "gemma". There is: guide.',)


def test_a_plan_has_everything_that_the_engine_is_started_with() -> None:
    plan = catalog.plan(build().variants["vllm/mine"], port=7, api_key="k")

    assert (plan.model, plan.served_name, plan.port, plan.api_key) == ("org/mine", "mine-served", 7, "k")
    assert plan.parameters == {
        "max_num_batched_tokens": 64,
        "max_num_seqs": 8,
        "gpu_memory_utilization": 0.90,
    }
    assert (plan.args, plan.env) == (("--kind", "--own"), {"A": "kind", "B": "own"})


def test_a_plan_for_llamacpp_has_its_own_words() -> None:
    plan = catalog.plan(build().variants["llamacpp/mine"], port=7)

    assert plan.parameters == {"cache_type_k": "q8_0", "parallel": 2, "gpu_layers": catalog.ALL_LAYERS}
    assert (plan.mmproj, plan.capabilities) == (MODELS / "mmproj-mine.gguf", ("chat", "vision"))


def test_weights_that_were_found_on_disk_go_before_the_repository() -> None:
    plan = catalog.plan(build().variants["vllm/mine"], port=7, weights_at=Path("/cache/mine"))

    assert plan.model == "/cache/mine"


@pytest.mark.parametrize(
    ("name", "preset", "wish", "context"),
    [
        ("vllm/gemma-3-4b-it", None, None, 1024),
        ("vllm/gemma-3-4b-it", "balanced", None, 2048),
        ("vllm/gemma-3-4b-it", "balanced", 512, 512),
        ("vllm/mine", None, None, 3000),
        ("vllm/mine", "low-vram", None, 3000),
        ("vllm/mine", "max-context", None, 4096),
        ("vllm/mine", None, 100, 100),
        ("llamacpp/mine", None, None, 3000),
        ("llamacpp/gemma-3-4b-it", None, None, None),
        ("llamacpp/gemma-3-4b-it", "big", None, 8192),
    ],
)
def test_what_is_asked_for_now_goes_before_what_is_written(
    name: str, preset: str | None, wish: int | None, context: int | None
) -> None:
    assert build().variants[name].launch_context(preset, wish) == context


def test_the_fingerprint_is_the_same_in_every_process() -> None:
    script = (
        "import sys; sys.path.insert(0, 'tests'); from test_catalog import build;"
        "print([v.fingerprint() for v in build().variants.values()])"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
            timeout=60,
            cwd=Path(__file__).parents[1],
        ).stdout
        for seed in ("1", "2")
    }

    assert runs == {f"{[variant.fingerprint() for variant in build().variants.values()]}\n"}


def test_the_fingerprint_stays_over_versions() -> None:
    assert build("").variants["llamacpp/guide"].fingerprint() == "053e4101c75859d6"


REACHES_THE_ENGINE = [
    ('weights = "org/mine"', 'weights = "org/other"'),
    ('served_name = "mine-served"', 'served_name = "other"'),
    ("max_num_seqs = 8", "max_num_seqs = 9"),
    ('args = ["--own"]', 'args = ["--other"]'),
    ('args = ["--kind"]', 'args = ["--other"]'),
    ('B = "own"', 'B = "other"'),
    ("context = 3000", "context = 2999"),
    ("[runtimes.vllm]", "[runtimes.vllm]\nprogram = '/x'"),
    ("[models.mine.vllm]", "[models.mine.vllm]\ncommand = ['x']"),
    ("[models.mine.vllm]", "[models.mine.vllm]\ncapabilities = ['embedding']"),
    ("[models.mine.vllm]", "[models.mine.vllm]\nchat_template = '/t.jinja'"),
]
DOES_NOT = [
    ("temperature = 0.2", "temperature = 0.3"),
    ('system = "Be brief."', 'system = "Be long."'),
    ("[models.mine.vllm]", "[models.mine.vllm]\npinned = true"),
    ('aliases = ["Coder"]', 'aliases = ["Other"]'),
    ("cache_type_k", "cache_type_v"),
]


@pytest.mark.parametrize(("old", "new"), REACHES_THE_ENGINE)
def test_a_change_that_reaches_the_engine_touches_it_and_no_other(old: str, new: str) -> None:
    changes = catalog.diff(build(), build(TEXT.replace(old, new)))

    assert changes.touch("vllm/mine")
    assert not changes.touch("llamacpp/guide")


@pytest.mark.parametrize(("old", "new"), DOES_NOT)
def test_a_change_that_does_not_reach_the_engine_leaves_it_alone(old: str, new: str) -> None:
    changes = catalog.diff(build(), build(TEXT.replace(old, new)))

    assert not changes.touch("vllm/mine")


def test_a_preset_touches_the_engines_that_were_started_with_it() -> None:
    changes = catalog.diff(build(), build(f"{TEXT}\n[presets.vllm.balanced]\nmax_num_seqs = 2\n"))

    assert changes.touch("vllm/gemma-3-4b-it", "balanced")
    assert not changes.touch("vllm/gemma-3-4b-it", "low-vram")
    assert not changes.touch("vllm/gemma-3-4b-it")


def test_a_remote_on_several_servers_is_one_variant_that_changes_with_each_of_them() -> None:
    text = "[models.far.remote]\nurls = ['https://a.example/v1', 'http://b.example:8000']\nkey_file = '/k'\n"
    far = build(text).variants["remote/far"]
    changes = catalog.diff(build(text), build(text.replace("b.example", "c.example")))

    assert far.elsewhere == Elsewhere("https://a.example", Path("/k"), ("http://b.example:8000",))
    assert changes.touch("remote/far")


def test_what_comes_and_goes_is_named() -> None:
    changes = catalog.diff(build(), build("[models.new.ollama]\n"))

    assert changes.added == ("ollama/new",)
    assert "vllm/mine" in changes.removed
    assert changes.touch("vllm/mine")
    assert not changes.touch("llamacpp/guide")


@given(st.text(max_size=40), st.sampled_from([None, "vllm", "ollama", "nonsense"]))
def test_any_name_is_resolved_or_answered_with_what_there_is(name: str, runtime: str | None) -> None:
    try:
        found = LISTED.resolve(name, runtime)
    except NotFound as error:
        assert error.hint  # noqa: PT017
    else:
        assert isinstance(found, Variant)


LISTED = build()
