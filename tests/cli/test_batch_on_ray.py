"""`footplate batch submit --on`: what is refused before anything is looked at, and what is told."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from footplate_daemon.errors import Invalid
from footplate_tui.cli import batch_on_ray
from footplate_tui.cli.batch import batch

LINE = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "org/name", "messages": [{"role": "user", "content": "Hi"}]},
}
WORKER = """
import json, sys
order = json.load(sys.stdin)
print(json.dumps({"event": "begun", "total": 2, "completed": 0, "failed": 0}))
print(json.dumps({"event": "progress", "completed": 1, "failed": 1}))
open(order["output"], "w").write(json.dumps(order["models"]["org/name"]["engine"]))
"""


@pytest.mark.parametrize(
    ("on", "cluster", "metadata", "param"),
    [
        (None, {"gpus": 0.0}, {}, "gpus"),
        (None, {"replicas": None, "weights": None, "engine": {"a": 1}}, {}, "engine"),
        ("ray://local", {}, {"name": "night"}, "metadata"),
    ],
)
def test_what_would_be_ignored_is_refused(
    on: str | None, cluster: Mapping[str, Any], metadata: Mapping[str, str], param: str
) -> None:
    with pytest.raises(Invalid) as caught:
        batch_on_ray.check(on, cluster, metadata)

    assert caught.value.param == param


def test_a_batch_for_the_daemon_says_nothing_of_a_cluster() -> None:
    batch_on_ray.check(None, {"replicas": None, "gpus": None, "weights": None, "engine": {}}, {"a": "b"})


@pytest.mark.parametrize(
    ("output", "errors"), [("a.jsonl", "a.errors.jsonl"), ("x/answers", "x/answers.errors.jsonl")]
)
def test_errors_lie_beside_the_answers(output: str, errors: str) -> None:
    assert batch_on_ray.errors_beside(Path(output)) == Path(errors)


def test_it_is_handed_over_and_told_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker, program = tmp_path / "worker.py", tmp_path / "python"
    worker.write_text(WORKER)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{worker}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("FOOTPLATE_RAY_PYTHON", str(program))
    monkeypatch.setenv("FOOTPLATE_HOME", str(tmp_path / "home"))
    file, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    file.write_text(json.dumps(LINE))
    words = ["submit", str(file), "--on", "ray://local", "-o", str(output), "--gpus", "0"]
    engine = ["--engine", "max-model-len=512", "--engine", "dtype=half", "--engine", "enforce_eager=true"]

    done = CliRunner().invoke(batch, [*words, *engine], standalone_mode=False)

    assert done.return_value == 1
    assert f"1 line answered on local: {output}" in done.output
    assert f"1 line failed: {tmp_path / 'out.errors.jsonl'}" in done.output
    assert json.loads(output.read_text()) == {
        "max_model_len": 512,
        "dtype": "half",
        "enforce_eager": True,
        "kv_cache_memory_bytes": 2**30,
    }
