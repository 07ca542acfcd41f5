"""A batch on a real Ray with vLLM's CPU build: one of its own, and one that is reached as a client does."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from footplate_daemon.cluster.submitting import without_space
from footplate_daemon.switching.engine import free_port
from tests import engines
from tests.conftest import paths_in

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

SECONDS = 800
"""Ray and vLLM take half a minute to start on a quiet machine, and many on a busy one."""
EXAMPLE = engines.REPOSITORY / "docs" / "examples" / "ray-cluster.yaml"
CHECK_CLUSTER = """
import sys, yaml
from ray.autoscaler._private.util import prepare_config, validate_config
validate_config(prepare_config(yaml.safe_load(open(sys.argv[1]))))
"""
QUESTIONS = ("How do I open the help?", "What is the footplate?")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    python = engines.require(engines.ray(), "ray")
    told = {"FOOTPLATE_HOME": str(paths_in(tmp_path).run_dir.parent), "FOOTPLATE_RAY_PYTHON": str(python)}
    return {**os.environ, **engines.VLLM_LIGHT_ENV, "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path), **told}


def request(number: int, **body: Any) -> dict[str, Any]:
    asked = {
        "model": "guide",
        "messages": [{"role": "user", "content": QUESTIONS[number % 2]}],
        "temperature": 0,
        **body,
    }
    return {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": asked}


def submit(
    folder: Path, on: str, environment: Mapping[str, str], *more: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "footplate_tui", "batch", "submit", str(folder / "in.jsonl")),
            *("--on", on, "-o", str(folder / "out.jsonl"), "--weights", str(engines.GUIDE_HF)),
            *("--gpus", "0", "--engine", "enforce_eager=true", "--engine", "max_model_len=1024"),
            *("--engine", "kv_cache_memory_bytes=64M", *more),
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def write(folder: Path, *lines: Mapping[str, Any]) -> None:
    (folder / "in.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def read(file: Path) -> dict[str, dict[str, Any]]:
    """Give the answers in a file by their custom_id, each of which must be there once."""
    rows = [json.loads(row) for row in file.read_text().splitlines()]
    answers = {row["custom_id"]: row["response"] for row in rows}
    assert len(answers) == len(rows)
    return answers


def test_a_batch_is_answered_to_the_letter_and_what_is_answered_is_not_asked_again(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    good = [request(number) for number in range(40)]
    odd = [
        request(40, max_tokens=3),
        request(41, n=2),
        request(42, temperature=-3),
        request(43, tools=[{"type": "function", "function": {"name": "f"}}]),
        request(44, messages=[{"role": "user", "content": "x " * 3000}]),
        request(45, seed=7, temperature=1, max_tokens=5),
    ]
    write(tmp_path, *good, *odd)
    kept = {"id": "", "custom_id": "torn"}
    (tmp_path / "out.jsonl").write_text(json.dumps(kept)[:-9])

    done = submit(tmp_path, "ray://local", environment)
    again = submit(tmp_path, "ray://nobody.invalid:1", environment)

    assert (done.returncode, again.returncode) == (1, 1), done.stderr + again.stderr
    answers, errors = read(tmp_path / "out.jsonl"), read(tmp_path / "out.errors.jsonl")
    assert sorted(errors) == ["r42", "r43", "r44"]
    assert len(answers) == 43
    assert all(response["status_code"] == 200 for response in answers.values())
    assert {response["status_code"] for response in errors.values()} == {400}
    texts = {name: response["body"]["choices"][0]["message"]["content"] for name, response in answers.items()}
    assert texts["r0"] == "Press F1 for help."
    assert len({texts[f"r{number}"] for number in range(1, 40, 2)}) == 1
    assert answers["r0"]["body"]["choices"][0]["finish_reason"] == "stop"
    assert answers["r0"]["body"]["usage"] == {"prompt_tokens": 18, "completion_tokens": 7, "total_tokens": 25}
    assert answers["r40"]["body"]["choices"][0]["finish_reason"] == "length"
    assert len(answers["r41"]["body"]["choices"]) == 2
    assert "maximum context length" in errors["r44"]["body"]["error"]["message"]


def test_a_cluster_is_reached_as_a_client_reaches_it(
    tmp_path: Path, cluster: str, environment: dict[str, str]
) -> None:
    write(tmp_path, *(request(number) for number in range(20)))

    done = submit(tmp_path, cluster, environment)

    assert done.returncode == 0, done.stderr
    assert len(read(tmp_path / "out.jsonl")) == 20


@pytest.fixture
def cluster(environment: dict[str, str]) -> Iterator[str]:
    """A head node, as `ray start --head` makes it, with the port for clients."""
    port = free_port()
    folder = tempfile.mkdtemp(prefix="fp-ray-", dir="/tmp")  # the paths of its sockets are long
    python = without_space(Path(environment["FOOTPLATE_RAY_PYTHON"]), Path(folder))
    head = subprocess.Popen(
        [
            *(
                python,
                "-m",
                "ray.scripts.scripts",
                "start",
                "--head",
                "--block",
                "--port=0",
                "--num-cpus=2",
                "--include-dashboard=false",
            ),
            *(f"--ray-client-server-port={port}", "--object-store-memory=200000000"),
            f"--temp-dir={folder}",
        ],
        env={**environment, "RAY_USAGE_STATS_ENABLED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert any(re.search("Ray runtime started", line) for line in head.stdout or ())
        yield f"ray://127.0.0.1:{port}"
    finally:
        below = psutil.Process(head.pid).children(recursive=True)
        head.send_signal(signal.SIGTERM)
        head.communicate(timeout=60)
        _, alive = psutil.wait_procs(below, 30)
        for process in alive:
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def test_on_this_machine_alone_nobody_waits_for_a_gpu(tmp_path: Path, environment: dict[str, str]) -> None:
    write(tmp_path, request(0))

    refused = submit(tmp_path, "ray://local", environment, "--gpus", "64")

    assert refused.returncode == 1
    assert "No node of the cluster has 1 CPU and 64 GPU for one replica." in refused.stderr


def test_the_cluster_in_the_documents_is_one_that_ray_understands(environment: dict[str, str]) -> None:
    checked = subprocess.run(
        [environment["FOOTPLATE_RAY_PYTHON"], "-c", CHECK_CLUSTER, EXAMPLE],
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert checked.returncode == 0, checked.stderr
