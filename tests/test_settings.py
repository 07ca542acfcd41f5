"""What the operator may write, and what is said about it when it is wrong."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footplate_daemon import settings
from footplate_daemon.errors import Invalid
from footplate_daemon.mistakes import ConfigErrors, Mistake
from footplate_daemon.settings import Address, Profile, Settings

ROOT = Path(__file__).parents[1]
FILE = Path("config.toml")
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.toml"))
SNIPPETS = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "configuration.md").read_text(), re.DOTALL)


def read(text: str) -> Settings:
    return settings.parse(text.encode(), FILE)


def mistakes_in(text: str | bytes) -> tuple[Mistake, ...]:
    with pytest.raises(ConfigErrors) as caught:
        settings.parse(text if isinstance(text, bytes) else text.encode(), FILE)
    return caught.value.mistakes


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    loaded = settings.load(tmp_path / "none.toml")

    assert loaded == Settings()
    assert list(loaded.models) == ["guide"]
    assert loaded.switching.policy == "one"
    assert loaded.runtimes.vllm.preset == "low-vram"


def test_the_presets_of_vllm_are_those_that_start_on_12_gb() -> None:
    presets = Settings().presets.vllm

    assert {name: tuple(preset.parameters.values()) for name, preset in presets.items()} == {
        "low-vram": (1024, 64, 1, 0.90),
        "balanced": (2048, 32, 1, 0.92),
        "max-context": (4096, 32, 1, 0.92),
    }
    assert [name for name, preset in presets.items() if preset.risky] == ["max-context"]


def test_three_mistakes_are_told_at_once_with_line_key_and_remedy() -> None:
    found = mistakes_in(
        "[gateway]\nqueue_limt = 5\n\n[switching]\nidle_unload = '10 minutes'\n\n"
        "[models.mine.vllm]\npreset = 'lowvram'\n"
    )

    assert found == (
        Mistake(
            2, "gateway.queue_limt", "There is no key queue_limt in [gateway].", 'Did you mean "queue_limit"?'
        ),
        Mistake(
            5,
            "switching.idle_unload",
            "'10 minutes' is no duration.",
            'Write a number of seconds, or "45s", "10m", "1h30m".',
        ),
        Mistake(
            8,
            "models.mine.vllm.preset",
            'There is no preset "lowvram" for vllm.',
            'Did you mean "low-vram"?',
        ),
    )


def test_the_error_travels_with_everything_that_a_client_shows() -> None:
    with pytest.raises(ConfigErrors) as caught:
        read("[gateway]\nauto_switch = 1\n")

    assert caught.value.code == "invalid"
    assert caught.value.message.startswith("config.toml has 1 mistake:\n  line 2: gateway.auto_switch: ")
    assert json.loads(json.dumps(caught.value.details))["mistakes"][0]["line"] == 2


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        ("[gatway]\n", 1, "gatway", 'Did you mean "gateway"?'),
        ("gateway = 3\n", 1, "gateway", "Must be a table, not 3."),
        ("[gateway]\nidle_unload = '5m'\n", 2, "gateway.idle_unload", "It belongs in [switching]."),
        ("[gateway]\ninclude = []\n", 2, "gateway.include", "It belongs in [catalog]."),
        ("[gateway]\nauto_switch = 'yes'\n", 2, "gateway.auto_switch", "without quotes"),
        ("[gateway]\nqueue_limit = '5'\n", 2, "gateway.queue_limit", "Write it without quotes: 5."),
        ("[gateway]\nqueue_limit = -1\n", 2, "gateway.queue_limit", "Must be at least 0, not -1."),
        ("[gateway]\nlisten = ':8000'\n", 2, "gateway.listen", '"127.0.0.1:8000" this machine alone'),
        ("[gateway]\nlisten = '*:8000'\n", 2, "gateway.listen", '"0.0.0.0:8000" everybody'),
        ("[gateway]\nlisten = '8000'\n", 2, "gateway.listen", "does not say on which address"),
        ("[gateway]\nlisten = 8000\n", 2, "gateway.listen", "list in brackets"),
        ("[gateway]\nlisten = '::1:8000'\n", 2, "gateway.listen", '"[::1]:8000"'),
        ("[gateway]\nlisten = '127.0.0.1:65536'\n", 2, "gateway.listen", "no address to listen on"),
        ("[gateway]\nlisten = ['127.0.0.1:1',\n'box:8000']\n", 3, "gateway.listen[1]", "an IP address"),
        ("[gateway]\ntls_cert = 'x'\n", 2, "gateway.tls_cert", "It needs tls_key beside it."),
        ("[gateway]\ntls_key = 'x'\n", 2, "gateway.tls_key", "It needs tls_cert beside it."),
        ("[gateway]\ncors_origins = ['https://a.b/']\n", 2, "gateway.cors_origins[0]", "without a path"),
        ("[gateway]\nrequest_timeout_seconds = 0\n", 2, "gateway.request_timeout_seconds", "more than 0"),
        ("[gateway]\nmax_connections = 0\n", 2, "gateway.max_connections", "at least 1"),
        ("[switching]\npolicy = 'ones'\n", 2, "switching.policy", 'Did you mean "one"?'),
        ("[switching]\nidle_unload = true\n", 2, "switching.idle_unload", "false for never"),
        ("[profiles.p]\nmax_token = 3\n", 2, "profiles.p.max_token", 'Did you mean "max_tokens"?'),
        ("[profiles.p]\nsystem = 3\n", 2, "profiles.p.system", 'Write it in quotes: "3".'),
        ("[presets.vlm.p]\nx = 1\n", 1, "presets.vlm", 'Did you mean "vllm"?'),
        ("[presets.vllm.p]\nrisky = 'yes'\n", 2, "presets.vllm.p.risky", "true or false"),
        ("[runtimes.vllm]\npreset = 'big'\n", 2, "runtimes.vllm.preset", 'There is no preset "big"'),
        ("[runtimes.llamacpp]\npreset = 'big'\n", 2, "runtimes.llamacpp.preset", "[presets.llamacpp.big]"),
        ("[models.m]\ndescription = 'x'\n", 1, "models.m", "[models.m.llamacpp]"),
        ("[models.m.vlm]\nweights = 'x'\n", 1, "models.m.vlm", 'Did you mean "vllm"?'),
        (
            "[models.m.ollama]\ngpu_layers = 3\n",
            2,
            "models.m.ollama.gpu_layers",
            "It belongs in [models.m.llamacpp]",
        ),
        ("[daemon]\nport = 3\n", 2, "daemon.port", "Valid keys: log_level."),
        ("[models.m.vllm]\nargs = '-x'\n", 2, "models.m.vllm.args", 'Write it in brackets: ["-x"].'),
        ("[models.m.vllm]\nargs = [\n'-x',\nfalse]\n", 4, "models.m.vllm.args[1]", "text in quotes"),
        ("[models.m.vllm]\nenv = {A = true}\n", 2, "models.m.vllm.env.A", "text in quotes"),
        ("[models.m.vllm]\nprofile = 'p'\n", 2, "models.m.vllm.profile", "Write [profiles.p]."),
        ("[models.m.vllm]\nprofile = 3\n", 2, "models.m.vllm.profile", "name of a profile, or a table"),
        ("[models.m.vllm.profile]\ntop_p = 2\n", 2, "models.m.vllm.profile.top_p", "at most 1"),
        ("[models.m.vllm]\ncapabilities = ['see']\n", 2, "models.m.vllm.capabilities[0]", "vision"),
        ("[models.m.llamacpp]\ngpu_layers = 'most'\n", 2, "models.m.llamacpp.gpu_layers", '"all" or "auto"'),
        ("[models.m]\naliases = ['guide']\n[models.m.vllm]\n", 2, "models.m.aliases[0]", "stands for guide"),
        ("[models.'a/b'.vllm]\n", 1, 'models."a/b"', "repository in weights"),
        ("[models.qwen2.5-7b.vllm]\n", 1, "models.qwen2.5-7b", 'needs quotes: "qwen2.5-7b"'),
        ("[models.m.remote]\nkey_file = 'k'\n", 1, "models.m.remote", "Add where it answers"),
        ("[models.m.remote]\nurls = []\n", 1, "models.m.remote", "Add where it answers"),
        ("[models.m.remote]\nurl = 'http://a'\nurls = ['http://b']\n", 1, "models.m.remote", "Keep one"),
        ("[models.m.remote]\nurls = ['http://a', 'http://a/v1']\n", 1, "models.m.remote", "a twice"),
        ("[models.m.remote]\nurls = ['http://a',\n'b']\n", 3, "models.m.remote.urls[1]", "server's address"),
        ("[models.m.remote]\nurls = 'http://a'\n", 2, "models.m.remote.urls", 'in brackets: ["http://a"]'),
        ("[catalog]\ninclude = ['gemma']\n", 2, "catalog.include[0]", "gemma-3-4b-it"),
        ("[catalog]\ninclude = ['remote/qwen3-8b']\n", 2, "catalog.include[0]", "vllm"),
    ],
)
def test_a_mistake_says_where_it_is_and_what_to_do(text: str, line: int, key: str, words: str) -> None:
    (mistake,) = mistakes_in(text)

    assert (mistake.line, mistake.key) == (line, key)
    assert words in f"{mistake.sentence} {mistake.remedy}"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a = 1\n[gateway\n", 2, "bracket"),
        ("[gateway]\npolicy = one\n", 2, "quotes"),
        ("a = 1\na = 2\n", 2, "join the two"),
        ('a = "x\n', 1, "not closed"),
        (b"a = 1\n# \xff\n", 2, "UTF-8"),
    ],
)
def test_what_is_not_toml_is_told_with_its_line(text: str | bytes, line: int, words: str) -> None:
    (mistake,) = mistakes_in(text)

    assert mistake.line == line
    assert words in f"{mistake.sentence} {mistake.remedy}"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=re.escape(str(tmp_path))):
        settings.load(tmp_path)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("45s", 45), ("10m", 600), ("1h30m", 5400), ("0.5s", 0.5), ("250ms", 0.25), (90, 90), (1.5, 1.5)],
)
def test_durations_are_written_as_people_write_them(written: str | float, seconds: float) -> None:
    loaded = read(f"[switching]\nidle_unload = {json.dumps(written)}\ndrain_timeout_seconds = '2m'\n")

    assert loaded.switching.idle_unload == seconds
    assert loaded.switching.drain_timeout_seconds == 120


def test_addresses_are_one_or_several_and_none_without_the_key() -> None:
    one = read("[gateway]\nlisten = '127.0.0.1:8000'\n").gateway
    several = read("[gateway]\nlisten = ['[::1]:0', 'localhost:80', '[::1]:0', '0.0.0.0:8000']\n").gateway

    assert Settings().gateway.addresses == ()
    assert one.addresses == (Address("127.0.0.1", 8000),)
    assert several.addresses == (Address("::1", 0), Address("127.0.0.1", 80), Address("0.0.0.0", 8000))
    assert [address.is_loopback for address in several.addresses] == [True, True, False]


def test_a_certificate_is_of_two_files_that_can_be_read(tmp_path: Path) -> None:
    cert, missing = tmp_path / "cert.pem", tmp_path / "missing.pem"
    cert.touch()

    both = read(f"[gateway]\ntls_cert = '{cert}'\ntls_key = '{cert}'\n")
    (mistake,) = mistakes_in(f"[gateway]\ntls_cert = '{cert}'\ntls_key = '{missing}'\n")

    assert both.gateway.tls_cert == str(cert)
    assert (mistake.line, mistake.key) == (3, "gateway.tls_key")
    assert mistake.sentence == f"{missing} cannot be read: No such file or directory."


def test_false_means_never_and_nothing() -> None:
    loaded = read("[switching]\nidle_unload = false\ndefault = false\n[catalog]\nguide = false\n")

    assert loaded.switching.idle_unload is None
    assert loaded.switching.default is None
    assert loaded.models == {}


def test_an_included_model_can_be_changed_in_part() -> None:
    loaded = read(
        "[catalog]\ninclude = ['gemma-3-4b-it']\n[models.gemma-3-4b-it]\nprofile = { temperature = 0.7 }\n"
        "[models.gemma-3-4b-it.vllm]\npreset = 'balanced'\n"
    )
    gemma = loaded.models["gemma-3-4b-it"]

    assert gemma.vllm is not None
    assert (gemma.vllm.weights, gemma.vllm.preset) == ("google/gemma-3-4b-it", "balanced")
    assert gemma.profile == Profile(temperature=0.7, top_p=0.9, max_tokens=800)


def test_one_variant_of_a_ready_made_model_can_be_included_alone() -> None:
    loaded = read("[catalog]\ninclude = ['llamacpp/qwen3-8b']\n")

    assert list(loaded.models["qwen3-8b"].variants()) == ["llamacpp"]


def test_every_ready_made_model_is_on_vllm_and_ollama_at_least_with_the_same_profile() -> None:
    models = {name: model for name, model in settings.ready_made().models.items() if name != "guide"}

    assert len(models) >= 11
    assert all({"vllm", "ollama"} <= model.variants().keys() for model in models.values())
    assert all(
        model.profile == Profile(temperature=0.3, top_p=0.9, max_tokens=800) for model in models.values()
    )
    assert all(
        getattr(variant, "weights", None) and model.description
        for model in models.values()
        for variant in model.variants().values()
    )


def test_settings_read_back_as_they_were_written_out() -> None:
    loaded = settings.load(ROOT / "docs" / "examples" / "24gb.toml")

    assert Settings.model_validate(loaded.model_dump(exclude_unset=True)) == loaded


def test_secrets_are_masked_and_harmless_words_are_not() -> None:
    loaded = read(
        "[runtimes.vllm]\nenv = { HF_TOKEN = 'hf_x', OMP_NUM_THREADS = 1 }\n"
        "args = ['--api-key', 'sesame', '--max-num-batched-tokens', 64, '--hf-token=hf_y']\n"
    )
    shown = json.dumps(settings.masked(loaded))

    assert not re.search("hf_x|sesame|hf_y", shown)
    assert '"--max-num-batched-tokens", "64"' in shown
    assert '"OMP_NUM_THREADS": "1"' in shown


def test_a_profile_goes_over_another_in_what_it_says() -> None:
    under = Profile(temperature=0.3, max_tokens=800, stop=("a",))

    merged = under.under(Profile.model_validate({"max_tokens": 5, "reasoning": "low"}))

    assert merged.body() == {"temperature": 0.3, "max_tokens": 5, "stop": ["a"], "reasoning_effort": "low"}
    assert Profile(reasoning="off").body() == Profile(reasoning="none").body() == {"reasoning_effort": "none"}


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"HF_HUB_CACHE": "/a"}, "/a"),
        ({"HF_HOME": "/b"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
    ],
)
def test_the_folder_of_downloaded_models_is_found_as_their_libraries_do(
    environment: dict[str, str], folder: str
) -> None:
    assert settings.hf_cache_dir(environment) == Path(folder)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_anything_in_the_file_ends_in_settings_or_in_mistakes(raw: bytes) -> None:
    try:
        settings.parse(raw, FILE)
    except ConfigErrors as error:
        assert error.mistakes  # noqa: PT017


VALUES = st.recursive(
    st.booleans()
    | st.integers(-3, 3)
    | st.floats(-1, 2)
    | st.sampled_from(["", "x", "low-vram", "guide", "1m", "vllm/guide"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["a", "vllm", "profile", "preset"]), inner)
    ),
    max_leaves=4,
)
PLACES = [
    "daemon", "gateway", "gateway.listen", "gateway.tls_cert", "gateway.cors_origins",
    "switching.idle_unload", "catalog.include", "catalog.folders", "runtimes.vllm.env",
    "runtimes.vllm.program", "runtimes.ollama.preset", "profiles", "profiles.p", "profiles.p.stop",
    "presets.vllm", "presets.vllm.p.risky",
    "models", "models.guide", "models.m", "models.m.aliases", "models.m.profile", "models.m.vllm",
    "models.m.vllm.profile", "models.m.vllm.parameters", "models.m.llamacpp.gpu_layers", "nothing",
]  # fmt: skip


@given(st.sampled_from(PLACES), VALUES)
def test_any_value_at_any_place_ends_in_settings_or_in_mistakes_on_its_line(
    place: str, value: object
) -> None:
    text = f"# first\n{place} = {toml(value)}\n"
    try:
        read(text)
    except ConfigErrors as error:
        assert {mistake.line for mistake in error.mistakes} == {2}  # noqa: PT017
        assert all(mistake.sentence for mistake in error.mistakes)  # noqa: PT017


def toml(value: object) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {toml(inner)}' for key, inner in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value)


def test_the_schema_for_editors_is_current() -> None:
    stored = ROOT / "daemon" / "footplate_daemon" / "config_schema.json"

    assert json.loads(stored.read_text()) == settings.json_schema(), (
        "run: python -m footplate_daemon.settings > daemon/footplate_daemon/config_schema.json"
    )


def test_the_schema_is_printed_by_the_module() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "footplate_daemon.settings"], capture_output=True, check=True, timeout=60
    )

    assert json.loads(printed.stdout) == settings.json_schema()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_right_and_names_the_schema(example: Path) -> None:
    settings.load(example)

    first = example.read_text().splitlines()[0]
    assert first.startswith("#:schema ")
    assert (example.parent / first.removeprefix("#:schema ")).is_file()


def test_there_is_an_example_for_each_size() -> None:
    assert {path.stem for path in EXAMPLES} == {"8gb", "12gb", "16gb", "24gb", "cpu"}


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_every_snippet_of_the_documentation_is_right(snippet: str) -> None:
    read(snippet)


def test_the_mistakes_in_the_documentation_are_those_that_are_told() -> None:
    document = (ROOT / "docs" / "configuration.md").read_text()
    found = re.search(r"```toml mistakes\n(.*?)```.*?```text\n(.*?)```", document, re.DOTALL)
    assert found is not None

    with pytest.raises(ConfigErrors) as caught:
        read(found[1])

    assert caught.value.message == found[2].strip()
