"""What `footplate doctor` makes of what it finds: findings, entries, and their way into config.toml."""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from footplate_daemon import settings
from footplate_daemon.errors import Conflict, Invalid
from footplate_daemon.mistakes import ConfigErrors
from footplate_daemon.surroundings import entries, findings
from footplate_daemon.surroundings.entries import Entry
from footplate_daemon.surroundings.facts import (
    Cache,
    CachedModel,
    Configuration,
    Daemon,
    Disk,
    Facts,
    Gpu,
    Gpus,
    Limits,
    LocalModel,
    Machine,
    Ollama,
    OllamaModel,
    Program,
    Session,
    Terminal,
)
from footplate_daemon.surroundings.findings import Finding, Severity
from footplate_daemon.surroundings.looking import kind_of

GIB = 1024**3
FILE = Path("/home/ada/.config/footplate/config.toml")
BARE = Facts(
    version="1.0",
    machine=Machine("3.11.7", 2, 24 * GIB, 20 * GIB, 0, GIB, Limits(65536, None, None)),
    embedded="2026.10",
    cache=Cache(Path("/home/ada/.cache/huggingface/hub")),
    configuration=Configuration(FILE),
)
"""A machine on which nothing but Footplate is installed, and nothing is wrong."""
ONE_GPU = Gpus((Gpu("NVIDIA L4", 24 * GIB, GIB),), "570.1", "12.8", nvidia_smi=True)
VLLM = Program("/envs/vllm/bin/vllm", "0.33.0", "CUDA")
VLLM_CPU = replace(VLLM, version="0.32.0+cpu", build="CPU")
TORCH = {"torch": "2.13.0", "transformers": "5.1", "accelerate": "1.0", "bitsandbytes": "0.50"}
TRANSFORMERS = Program("/envs/t/bin/python", "5.1", "CUDA", TORCH)


def bad(facts: Facts) -> list[Finding]:
    """Give what is worth a look."""
    found = findings.findings(facts)
    return [each for each in found if each.severity in {Severity.WARNING, Severity.PROBLEM}]


def test_a_bare_machine_is_well_and_every_runtime_has_its_command() -> None:
    found = findings.findings(BARE)

    assert bad(BARE) == []
    assert findings.is_well(found)
    commands = {finding.command for finding in found}
    assert {
        "footplate up",
        "footplate env create vllm --cpu",
        "footplate env create transformers --cpu",
        "curl -fsSL https://ollama.com/install.sh | sh",
    } <= commands


@pytest.mark.parametrize(
    ("changes", "severity", "words", "command"),
    [
        (
            {"configuration": Configuration(FILE, True, ("line 2: gateway.x: There is no key x.",))},
            Severity.PROBLEM,
            "line 2",
            "footplate config check",
        ),
        (
            {"configuration": Configuration(FILE, missing_programs={"vllm": "/opt/my vllm"})},
            Severity.PROBLEM,
            "names /opt/my vllm for vllm",
            "ls -l '/opt/my vllm'",
        ),
        (
            {"configuration": Configuration(FILE, problem="The socket's path is too long.")},
            Severity.PROBLEM,
            "too long",
            None,
        ),
        ({"daemon": Daemon(True, "FATAL")}, Severity.PROBLEM, "FATAL", "footplate logs -n 50"),
        (
            {"daemon": Daemon(True, "RUNNING", True, "0.9", 7)},
            Severity.WARNING,
            "version 0.9, this command 1.0",
            "footplate restart",
        ),
        (
            {"daemon": Daemon(True, "RUNNING", True, "1.0", 7, agrees=False)},
            Severity.WARNING,
            "another configuration",
            "footplate reload",
        ),
        (
            {"daemon": Daemon(True, "RUNNING", True, "1.0", 7, failed=("vllm/big",))},
            Severity.WARNING,
            "vllm/big has failed",
            "footplate switch vllm/big",
        ),
        ({"vllm": VLLM}, Severity.WARNING, "for CUDA", "footplate env create vllm --cpu"),
        (
            {"vllm": VLLM_CPU, "gpus": ONE_GPU},
            Severity.WARNING,
            "leaves the GPU idle",
            "footplate env create vllm --cuda",
        ),
        (
            {"transformers": replace(TRANSFORMERS, build="CPU"), "gpus": ONE_GPU},
            Severity.WARNING,
            "torch for the CPU",
            "footplate env create transformers --cuda",
        ),
        ({"embedded": None, "vllm": VLLM_CPU}, Severity.WARNING, "comes along", "pip install xllamacpp"),
        (
            {"gpus": Gpus(problem="The driver was updated.", problem_hint="nvidia-smi", nvidia_smi=True)},
            Severity.PROBLEM,
            "was updated",
            "nvidia-smi",
        ),
        (
            {"cache": Cache(FILE, (CachedModel("org/half", 5, whole=False, kind="chat"),))},
            Severity.WARNING,
            "org/half was not fetched whole",
            "hf download org/half",
        ),
        (
            {"disks": (Disk("models", Path("/data"), 10**9),)},
            Severity.WARNING,
            "1.0 GB left",
            "df -h /data",
        ),
        ({"disks": (Disk("models", Path("/data"), 10**8),)}, Severity.PROBLEM, "0.1 GB left", "df -h /data"),
        (
            {"disks": (Disk("history", Path("/state"), 10**12, writable=False),)},
            Severity.PROBLEM,
            "cannot be written in",
            'sudo chown -R "$USER" /state',
        ),
        (
            {"machine": replace(BARE.machine, limits=Limits(open_files=256))},
            Severity.WARNING,
            "may open 256 files",
            "ulimit -n 65536 && footplate restart --all",
        ),
        (
            {"machine": replace(BARE.machine, limits=Limits(processes=100))},
            Severity.WARNING,
            "100 processes",
            "ulimit -u 16384 && footplate restart --all",
        ),
        (
            {"machine": replace(BARE.machine, memory_bytes=2 * GIB)},
            Severity.WARNING,
            "memory is small",
            None,
        ),
        (
            {
                "machine": replace(BARE.machine, shm_bytes=64 * 1024**2),
                "gpus": replace(ONE_GPU, found=ONE_GPU.found * 2),
            },
            Severity.WARNING,
            "/dev/shm has 64 MiB",
            "sudo mount -o remount,size=8G /dev/shm",
        ),
        (
            {"session": Session("ada", "/run/user/1000", True, systemd=True)},
            Severity.WARNING,
            "removed when you log out",
            "loginctl enable-linger ada",
        ),
        (
            {"terminal": Terminal(True, "dumb")},
            Severity.WARNING,
            "cannot draw",
            "export TERM=xterm-256color",
        ),
        (
            {"terminal": Terminal(True, "screen-256color", "", "3.1c")},
            Severity.WARNING,
            "tmux 3.1c",
            "sudo apt install tmux",
        ),
        ({"terminal": Terminal(utf8=False)}, Severity.WARNING, "not UTF-8", "export LANG=C.UTF-8"),
        ({"unanswered": ("the GPUs",)}, Severity.WARNING, "about the GPUs", "footplate doctor --within 60"),
    ],
)
def test_what_is_wrong_has_a_sentence_and_a_command(
    changes: dict[str, Any], severity: Severity, words: str, command: str | None
) -> None:
    (found,) = bad(replace(BARE, **changes))

    assert words in found.sentence
    assert (found.severity, found.command) == (severity, command)


def test_no_runtime_at_all_keeps_footplate_from_working() -> None:
    found = bad(replace(BARE, embedded=None))

    assert "There is no runtime at all." in [each.sentence for each in found]
    assert not findings.is_well(found)


def test_a_machine_with_everything_has_nothing_to_mend() -> None:
    everything = replace(
        BARE,
        gpus=ONE_GPU,
        vllm=VLLM,
        transformers=TRANSFORMERS,
        ollama=Ollama(Program("/usr/bin/ollama", "0.33.0"), "127.0.0.1:11434", "0.33.0"),
        daemon=Daemon(True, "RUNNING", True, "1.0", 7, agrees=True, active="vllm/big"),
        session=Session("ada", "/run/user/1000", True, systemd=True, lingers=True),
        terminal=Terminal(True, "xterm-kitty", "truecolor", "3.5a"),
        disks=(Disk("models", Path("/data"), 10**12),),
    )

    assert bad(everything) == []
    told = " ".join(finding.sentence for finding in findings.findings(everything))
    assert "NVIDIA L4, 24 GiB, 1.0 GiB of it used" in told
    assert "CUDA up to 12.8" in told
    assert "vllm/big is active" in told


# --- Entries ------------------------------------------------------------------------------------------

FOUND = replace(
    BARE,
    local_models=(
        LocalModel("listed", "llamacpp", Path("/data/models/listed.gguf"), 1, listed=True),
        LocalModel("My model (1)", "llamacpp", Path('/home/ada/models/My "model".gguf'), 1),
        LocalModel("eyes", "llamacpp", Path("/m/eyes.gguf"), 1, Path("/m/mmproj.gguf")),
    ),
    cache=Cache(
        FILE,
        (
            CachedModel("Qwen/Qwen3-8B-AWQ", 1, whole=True, kind="chat"),
            CachedModel("google/gemma-3-4b-it", 1, whole=True, kind="vision"),
            CachedModel("BAAI/bge-m3", 1, whole=True, kind="embedding"),
            CachedModel("BAAI/bge-reranker-v2-m3", 1, whole=True, kind="rerank"),
            CachedModel("openai/whisper-large", 1, whole=True, kind="other"),
            CachedModel("org/half", 1, whole=False, kind="chat"),
            CachedModel("org/one-GGUF", 1, True, "gguf", ("",)),
            CachedModel("org/two-GGUF", 1, True, "gguf", (":Q4_K_M", ":Q8_0")),
        ),
    ),
    ollama=Ollama(
        server="127.0.0.1:11434",
        models=(
            OllamaModel("gemma3:4b", 1, ("completion", "vision")),
            OllamaModel("nomic-embed-text:latest", 1, ("embedding",)),
        ),
    ),
)


def test_each_model_that_is_found_gets_an_entry_under_a_name_that_is_allowed() -> None:
    offered = {f"{entry.runtime}/{entry.model}": entry for entry in entries.entries(FOUND)}

    assert sorted(offered) == [
        "llamacpp/My-model-1",
        "llamacpp/eyes",
        "llamacpp/one",
        "llamacpp/two-Q4_K_M",
        "llamacpp/two-Q8_0",
        "ollama/gemma3:4b",
        "ollama/nomic-embed-text",
        "vllm/Qwen3-8B-AWQ",
        "vllm/bge-m3",
        "vllm/bge-reranker-v2-m3",
        "vllm/gemma-3-4b-it",
    ]
    assert offered["llamacpp/eyes"].mmproj == "/m/mmproj.gguf"
    assert offered["llamacpp/two-Q8_0"].weights == "org/two-GGUF:Q8_0"
    assert offered["ollama/gemma3:4b"].capabilities == ("chat", "vision")
    assert offered["vllm/bge-m3"].capabilities == ("embedding",)


def test_every_entry_loads_and_says_what_was_found(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    offered = entries.entries(FOUND)

    added = entries.add(file, offered, stamp="now")

    models = settings.load(file).models
    assert added.added == offered
    assert added.backup is None
    tables = {entry.model: models[entry.model].variants() for entry in offered}
    assert {name: next(iter(table)) for name, table in tables.items()} == {
        entry.model: entry.runtime for entry in offered
    }
    assert tomllib.loads(file.read_text())["models"]["My-model-1"]["llamacpp"]["weights"] == (
        '/home/ada/models/My "model".gguf'
    )


@pytest.mark.parametrize(
    ("names", "weights", "gone"),
    [
        (frozenset({"qwen3-8b-awq"}), frozenset(), "Qwen3-8B-AWQ"),
        (frozenset(), frozenset({("ollama", "gemma3:4b")}), "gemma3:4b"),
    ],
)
def test_what_is_listed_already_is_not_offered(
    names: frozenset[str], weights: frozenset[tuple[str, str]], gone: str
) -> None:
    facts = replace(FOUND, configuration=Configuration(FILE, names=names, weights=weights))

    offered = {entry.model for entry in entries.entries(facts)}

    assert gone not in offered
    assert len(offered) == len(entries.entries(FOUND)) - 1


def test_with_transformers_alone_the_cached_models_are_offered_there() -> None:
    offered = {e.model: e.runtime for e in entries.entries(replace(FOUND, transformers=TRANSFORMERS))}

    assert offered["Qwen3-8B-AWQ"] == "transformers"
    assert offered["bge-m3"] == "transformers"
    assert offered["bge-reranker-v2-m3"] == "transformers"


def test_ollamas_models_are_not_offered_without_an_ollama() -> None:
    facts = replace(FOUND, ollama=replace(FOUND.ollama, server=None))

    assert "ollama" not in {entry.runtime for entry in entries.entries(facts)}


WRITTEN = b'# mine\n[switching]\npolicy = "fit"  # stays\n\n[models.eyes.vllm]\nweights = "org/eyes"'


def test_entries_are_appended_and_the_former_file_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(WRITTEN)
    file.chmod(0o600)
    wanted = (Entry("eyes", "llamacpp", "/m/eyes.gguf", ""), Entry("new", "ollama", "new:1b", ""))

    added = entries.add(file, wanted, stamp="20260101-120000")

    assert file.read_bytes().startswith(WRITTEN)
    assert b"\n\n# Found by `footplate doctor` (20260101-120000).\n[models.new.ollama]\n" in file.read_bytes()
    assert added.backup == tmp_path / "config.toml.before-20260101-120000"
    assert added.backup.read_bytes() == WRITTEN
    assert [path.stat().st_mode & 0o777 for path in (file, added.backup)] == [0o600, 0o600]
    assert [entry.model for entry in added.skipped] == ["eyes"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name, added.backup.name]


def test_nothing_is_written_where_all_is_there(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(WRITTEN)

    added = entries.add(file, [Entry("eyes", "llamacpp", "/m/eyes.gguf", "")], stamp="now")

    assert (added.added, added.backup, file.read_bytes()) == ((), None, WRITTEN)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[gateway]\nqueue_limt = 20\n", ConfigErrors),
        ('models = { mine = { vllm = { weights = "org/mine" } } }\n', Invalid),
    ],
    ids=["a file with mistakes", "tables that cannot be added to"],
)
def test_a_file_that_would_not_load_is_left_as_it_is(tmp_path: Path, text: str, error: type[Invalid]) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)

    with pytest.raises(error):
        entries.add(file, [Entry("new", "ollama", "new:1b", "")], stamp="now")

    assert file.read_text() == text
    assert list(tmp_path.iterdir()) == [file]


def test_a_backup_is_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(WRITTEN)
    backup = tmp_path / "config.toml.before-now"
    backup.write_text("precious")

    with pytest.raises(Conflict):
        entries.add(file, [Entry("new", "ollama", "new:1b", "")], stamp="now")

    assert (backup.read_text(), file.read_bytes()) == ("precious", WRITTEN)


def test_a_link_to_the_file_stays_a_link(tmp_path: Path) -> None:
    kept = tmp_path / "dotfiles.toml"
    kept.write_bytes(WRITTEN)
    link = tmp_path / "config.toml"
    link.symlink_to(kept)

    entries.add(link, [Entry("new", "ollama", "new:1b", "")], stamp="now")

    assert link.is_symlink()
    assert b"[models.new.ollama]" in kept.read_bytes()


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"architectures": ["Qwen3ForCausalLM"]}, "chat"),
        ({"architectures": ["Gemma3ForConditionalGeneration"], "vision_config": {}}, "vision"),
        ({"architectures": ["XLMRobertaModel"]}, "embedding"),
        ({"architectures": ["XLMRobertaForSequenceClassification"]}, "rerank"),
        ({"architectures": ["WhisperForConditionalGeneration"]}, "other"),
        ({}, "other"),
    ],
)
def test_what_a_model_is_for_is_read_from_its_architecture(config: dict[str, Any], kind: str) -> None:
    assert kind_of(config) == kind
