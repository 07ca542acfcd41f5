"""`footplate doctor` as a user runs it, on a machine that is made of prepared folders."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from footplate_daemon import guide, lifecycle, settings
from footplate_daemon.paths import Paths
from tests.conftest import fresh_home

SECONDS = 180
PATIENT = ("--within", "120")
"""For the looks of a machine that does much else."""
SECRET = "hf_doNotShowMe"


@dataclass(frozen=True)
class Box:
    """A machine: a home folder, a PATH, and a Footplate that is not started."""

    paths: Paths
    home: Path
    environment: dict[str, str]

    def doctor(
        self, *words: str, within: tuple[str, ...] = PATIENT, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "footplate_tui", "doctor", *within, *words],
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def told(self, within: tuple[str, ...] = PATIENT, **environment: str) -> dict[str, Any]:
        ended = self.doctor("--json", within=within, **environment)
        assert ended.stderr == ""
        told: dict[str, Any] = json.loads(ended.stdout)
        return told

    def program(self, place: str, script: str) -> Path:
        file = self.home / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        return file

    def file(self, place: str, content: bytes | str = b"") -> Path:
        file = self.home / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with fresh_home() as paths:
        home = tmp_path / "home"
        (home / "bin").mkdir(parents=True)
        yield Box(
            paths,
            home,
            {
                "HOME": str(home),
                "PATH": f"{home}/bin:/usr/bin:/bin",
                "FOOTPLATE_HOME": str(paths.run_dir.parent),
                "OLLAMA_HOST": "127.0.0.1:9",  # nobody listens there
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
        )


def put_gguf(box: Box) -> Path:
    return box.file("models/some/Tiny Chat.gguf", guide.path().read_bytes())


def put_cached(box: Box, repo: str, architecture: str) -> None:
    place = f".cache/huggingface/hub/models--{repo.replace('/', '--')}"
    box.file(f"{place}/refs/main", "abc")
    box.file(f"{place}/snapshots/abc/config.json", json.dumps({"architectures": [architecture]}))
    box.file(f"{place}/snapshots/abc/model.safetensors", b"weights")


def put_vllm(box: Box, version: str) -> None:
    box.program("venvs/vllm/bin/vllm", "exit 1")
    for name in (f"vllm-{version}", "torch-2.13.0+cpu"):
        box.file(f"venvs/vllm/lib/python3.12/site-packages/{name}.dist-info/METADATA")


def test_a_bare_machine_is_well(box: Box) -> None:
    ended = box.doctor()

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.endswith("Nothing keeps Footplate from working.\n")
    assert "  ok llama.cpp: comes along" in ended.stdout
    assert "footplate env create vllm" in ended.stdout
    assert ended.stdout.isascii()
    assert not box.paths.config_file.exists()


def test_what_is_installed_is_found_with_its_version_and_build(box: Box) -> None:
    put_vllm(box, "0.32.0+cpu")
    box.program("bin/ollama", "echo 'Warning: could not connect'; echo 'Warning: client version is 0.33.1'")
    box.program("bin/llama-server", "echo 'version: 11669 (abc)' >&2")

    facts = box.told()["facts"]

    assert (facts["vllm"]["version"], facts["vllm"]["build"]) == ("0.32.0+cpu", "CPU")
    assert facts["vllm"]["packages"] == {"torch": "2.13.0+cpu"}
    assert facts["ollama"]["program"]["version"] == "0.33.1"
    assert facts["llama_server"]["version"] == "11669"


def test_a_running_ollama_is_asked_for_its_models(box: Box) -> None:
    models = [{"name": "gemma3:4b", "size": 5, "capabilities": ["completion", "vision"]}]

    with server({"/api/version": {"version": "0.33.0"}, "/api/tags": {"models": models}}) as address:
        told = box.told(OLLAMA_HOST=address)

    assert told["facts"]["ollama"]["server"] == address
    (entry,) = told["entries"]
    assert entry["toml"].startswith('[models."gemma3:4b".ollama]\nweights = "gemma3:4b"')


def test_the_store_of_an_ollama_that_is_down_is_read(box: Box) -> None:
    box.program("bin/ollama", "echo 'ollama version is 0.33.0'")
    manifest = json.dumps({"layers": [{"size": 3}, {"size": 4}]})
    box.file(".ollama/models/manifests/registry.ollama.ai/library/qwen3/8b", manifest)
    box.file(".ollama/models/manifests/registry.ollama.ai/ada/own/latest", "damaged")

    told = box.told()

    assert told["facts"]["ollama"]["models"] == [{"name": "qwen3:8b", "size_bytes": 7, "capabilities": []}]
    assert [entry["model"] for entry in told["entries"]] == ["qwen3:8b"]


def test_write_adds_what_was_found_once_and_says_how_to_take_it_up(box: Box) -> None:
    gguf = put_gguf(box)
    put_cached(box, "org/talker", "Qwen3ForCausalLM")
    put_cached(box, "org/ears", "WhisperForConditionalGeneration")
    box.paths.make()
    box.paths.config_file.write_text('[switching]\npolicy = "fit"\n')

    first, second = box.doctor("--write"), box.doctor("--write")

    assert (first.returncode, second.returncode) == (0, 0)
    assert "llamacpp/Tiny-Chat, vllm/talker" in first.stdout
    assert "footplate reload" in first.stdout
    assert "There is nothing to add" in second.stdout
    models = settings.load(box.paths.config_file).models
    assert models["Tiny-Chat"].llamacpp is not None
    assert models["Tiny-Chat"].llamacpp.weights == str(gguf)
    assert len(list(box.paths.config_dir.glob("config.toml.before-*"))) == 1


def test_mistakes_in_the_configuration_are_listed_and_nothing_is_written(box: Box) -> None:
    put_gguf(box)
    box.paths.make()
    box.paths.config_file.write_text("[gateway]\nqueue_limt = 20\n")

    ended, told = box.doctor("--write"), box.told()

    assert ended.returncode == 1
    assert 'Did you mean "queue_limit"?' in ended.stdout
    assert "has 1 mistake" in ended.stderr
    assert told["ok"] is False
    assert box.paths.config_file.read_text() == "[gateway]\nqueue_limt = 20\n"
    assert list(box.paths.config_dir.iterdir()) == [box.paths.config_file]


def test_no_secret_is_shown(box: Box) -> None:
    box.file(".cache/huggingface/token", SECRET)
    box.paths.make()
    box.paths.config_file.write_text(f'[runtimes.vllm]\nargs = ["--api-key", "{SECRET}"]\n')

    ended = box.doctor("--json", HF_TOKEN=SECRET)

    assert SECRET not in ended.stdout + ended.stderr
    assert json.loads(ended.stdout)["facts"]["cache"]["signed_in"] is True


def test_a_program_that_hangs_does_not_hold_the_report_up(box: Box) -> None:
    box.program("bin/llama-server", f"exec sleep {2 * SECONDS}")
    box.program("bin/ollama", f"exec sleep {2 * SECONDS}")

    told = box.told(within=())

    found = told["facts"]["llama_server"]
    assert found is None or found["version"] is None  # None: its look was left behind, with all it had found
    assert told["ok"] is True


def test_a_program_that_config_names_and_that_is_not_there_is_a_problem(box: Box) -> None:
    box.paths.make()
    box.paths.config_file.write_text('[runtimes.vllm]\nprogram = "/nowhere/vllm"\n')

    ended = box.doctor()

    assert ended.returncode == 1
    assert "config.toml names /nowhere/vllm for vllm, and there is none." in ended.stdout


def test_a_daemon_whose_configuration_has_changed_meanwhile_is_told_of(box: Box) -> None:
    lifecycle.up(box.paths)
    same = box.told()
    box.paths.config_file.write_text('[switching]\npolicy = "fit"\n')
    changed = box.doctor()

    assert same["facts"]["daemon"]["answers"] is True
    assert same["facts"]["daemon"]["agrees"] is True
    assert changed.returncode == 0
    assert "another configuration than config.toml has now" in changed.stdout


@contextmanager
def server(answers: dict[str, Any]) -> Iterator[str]:
    """Answer GETs with JSON; give `host:port`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(answers[self.path]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.server_port}"
        finally:
            listening.shutdown()
            thread.join()
