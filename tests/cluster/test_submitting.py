"""A batch on its way to a cluster, up to the worker's door: the worker is played by a script."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import paths_in

from footplate_daemon import processes
from footplate_daemon.catalog import Catalog
from footplate_daemon.cluster import submitting
from footplate_daemon.cluster.submitting import Wish, model
from footplate_daemon.errors import EngineFailed, Invalid, NotFound, Unavailable
from footplate_daemon.paths import Paths
from footplate_daemon.wire_batches import BatchProgress, BatchStatus

CONFIG = """
[profiles.default]
temperature = 0.25
system = "Be brief."
[models.small.vllm]
weights = "org/small"
context = 4096
parameters = { kv_cache_memory_bytes = "64M", chat_template = "TEMPLATE", max_num_seqs = 8 }
env = { OMP_NUM_THREADS = 1 }
[models.other.llamacpp]
"""
WORKER = """
import json, os, sys
order = json.load(sys.stdin)
open(order["output"] + ".order", "w").write(json.dumps({"order": order, "env": dict(os.environ)}))
"""


@dataclass
class Bench:
    """Everything that a submission needs, and what was told of it."""

    folder: Path
    paths: Paths
    environment: dict[str, str]
    told: list[BatchProgress] = field(default_factory=list)

    @property
    def output(self) -> Path:
        return self.folder / "answers.jsonl"

    def worker(self, says: str) -> None:
        """Play the worker: what it does after it has its order."""
        script, program = self.folder / "worker.py", self.folder / "python"
        script.write_text(WORKER + says)
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}"\n')
        program.chmod(0o755)
        self.environment["FOOTPLATE_RAY_PYTHON"] = str(program)

    def wish(self, *lines: Mapping[str, Any] | str, **more: Any) -> Wish:
        file = self.folder / "in.jsonl"
        file.write_text("".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in lines))
        wanted = {
            "address": "local",
            "input": file,
            "endpoint": "/v1/chat/completions",
            "output": self.output,
            "errors": self.folder / "errors.jsonl",
        }
        return Wish(**{**wanted, **more})

    def submit(self, wish: Wish) -> BatchProgress:
        return submitting.submit(wish, self.catalog, self.paths, self.environment, self.told.append)

    @property
    def catalog(self) -> Catalog:
        return submitting.read_catalog(self.paths)

    @property
    def order(self) -> dict[str, Any]:
        order: dict[str, Any] = json.loads(Path(f"{self.output}.order").read_text())
        return order


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    home = paths_in(tmp_path)
    template = tmp_path / "t.jinja"
    template.write_text("{{ messages }}")
    home.config_file.parent.mkdir(parents=True, exist_ok=True)
    home.config_file.write_text(CONFIG.replace("TEMPLATE", str(template)))
    return Bench(
        tmp_path, home, {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": "/nowhere"}
    )


def request(custom_id: str = "a", name: str = "small", **body: Any) -> dict[str, Any]:
    asked = {"model": name, "messages": [{"role": "user", "content": "Hi"}], **body}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": asked}


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("ray://head.example:10001", "ray://head.example:10001"),
        ("ray://[::1]:10001", "ray://[::1]:10001"),
        ("ray://auto", "auto"),
        ("ray://local", "local"),
    ],
)
def test_an_address_is_ray_s_or_stands_for_this_machine(text: str, read: str) -> None:
    assert submitting.address(text) == read


@pytest.mark.parametrize(
    "text", ["", "local", "ray://", "ray://head", "http://head:1", "ray://a:1/b", "ray://a b:1"]
)
def test_another_address_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(Invalid, match="is no Ray cluster") as caught:
        submitting.address(text)

    assert "ray://HOST:10001" in (caught.value.hint or "")


def test_without_an_environment_the_way_to_one_is_told(bench: Bench) -> None:
    with pytest.raises(Unavailable) as caught:
        bench.submit(bench.wish(request()))

    assert "footplate env create ray" in (caught.value.hint or "")


def test_every_bad_line_is_named_before_the_cluster_is_asked(bench: Bench) -> None:
    bench.worker("")

    ended = bench.submit(
        bench.wish(request(), "{nonsense", request(), request("b", name="nope"), request("c", stream=True))
    )

    errors = ended.batch.errors
    assert ended.batch.status is BatchStatus.FAILED
    assert errors is not None
    assert [(error.line, error.code) for error in errors.data] == [
        (2, "invalid_json_line"),
        (3, "duplicate_custom_id"),
        (4, "model_not_found"),
        (5, "invalid_request"),
    ]
    assert not bench.output.exists()
    assert not Path(f"{bench.output}.order").exists()


def test_a_model_is_loaded_as_the_catalog_says(bench: Bench) -> None:
    made = model("small", bench.wish(request()), bench.catalog)

    assert made.weights == "org/small"
    assert made.engine == {"max_model_len": 4096, "kv_cache_memory_bytes": 64 * 2**20, "max_num_seqs": 8}
    assert (made.defaults, made.system, made.template) == (
        {"temperature": 0.25},
        "Be brief.",
        "{{ messages }}",
    )
    assert made.environment == {"OMP_NUM_THREADS": "1"}


def test_what_is_said_with_the_batch_goes_over_the_catalog(bench: Bench) -> None:
    wish = bench.wish(request(), weights="/shared/small", engine={"max_num_seqs": 2}, environment={"A": "b"})

    made = model("small", wish, bench.catalog)

    assert (made.weights, made.engine["max_num_seqs"]) == ("/shared/small", 2)
    assert made.environment == {"OMP_NUM_THREADS": "1", "A": "b"}


def test_a_model_that_nobody_knows_needs_a_repository(bench: Bench) -> None:
    wish = bench.wish(request())

    assert model("org/unlisted", wish, bench.catalog).weights == "org/unlisted"
    with pytest.raises(NotFound, match='what to load for "other"') as caught:
        model("other", wish, bench.catalog)
    assert "--weights" in (caught.value.hint or "")


def test_on_the_cpu_the_cache_does_not_take_the_whole_memory(bench: Bench) -> None:
    wish = bench.wish(request(), gpus=0)

    assert model("org/unlisted", wish, bench.catalog).engine == {"kv_cache_memory_bytes": 2**30}
    assert model("small", wish, bench.catalog).engine["kv_cache_memory_bytes"] == 64 * 2**20


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"endpoint": "/v1/rerank"}, "endpoint"),
        ({"replicas": 0}, "replicas"),
        ({"gpus": -1}, "gpus"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_what_cannot_be_is_said_at_once(bench: Bench, more: dict[str, Any], param: str) -> None:
    bench.worker("")

    with pytest.raises(Invalid) as caught:
        bench.submit(bench.wish(request(), **more))

    assert caught.value.param == param


def test_the_answers_are_never_written_over_the_questions(bench: Bench) -> None:
    bench.worker("")
    wish = bench.wish(request())

    with pytest.raises(Invalid, match="a file each"):
        bench.submit(bench.wish(request(), output=wish.input))


def test_the_worker_gets_its_order_and_no_python_path(bench: Bench) -> None:
    bench.worker("")

    bench.submit(bench.wish(request(), replicas=3, gpus=0.5))

    order, environment = bench.order["order"], bench.order["env"]
    assert (order["address"], order["replicas"], order["gpus"]) == ("local", 3, 0.5)
    assert order["models"].keys() == {"small"}
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
    assert "PYTHONPATH" not in environment
    assert "RAY_AUTH_MODE" not in environment


def test_a_client_far_away_shows_its_token_where_there_is_one(bench: Bench) -> None:
    bench.worker("")
    (bench.folder / ".ray").mkdir()
    (bench.folder / ".ray" / "auth_token").write_text("sesame")

    bench.submit(bench.wish(request(), address="ray://head:10001"))

    assert bench.order["env"]["RAY_AUTH_MODE"] == "token"


def test_it_is_told_in_the_shapes_of_every_batch(bench: Bench) -> None:
    bench.worker(
        """
def tell(event, **more): print(json.dumps({"event": event, **more}), flush=True)
print("a library says hello")
tell("begun", total=4, completed=1, failed=0)
tell("loading", model="small", lines=3)
tell("waiting", message="No node has 1 GPU.")
tell("progress", completed=2, failed=0)
tell("progress", completed=3, failed=1)
tell("done", completed=3, failed=1)
"""
    )

    ended = bench.submit(bench.wish(request()))

    statuses = [told.batch.status for told in bench.told]
    waiting = [told.waiting.message for told in bench.told if told.waiting]
    assert statuses[0] is BatchStatus.VALIDATING
    assert statuses[1] is BatchStatus.IN_PROGRESS
    assert statuses[-1] is BatchStatus.COMPLETED
    assert waiting == ["small is being loaded on local.", "No node has 1 GPU."]
    assert ended.batch.request_counts.model_dump() == {"total": 4, "completed": 3, "failed": 1}
    assert ended.eta_seconds is None


def test_what_the_cluster_cannot_do_is_told_with_the_way_on(bench: Bench) -> None:
    bench.worker('print(json.dumps({"event": "failed", "message": "No GPU anywhere."})); sys.exit(2)')

    with pytest.raises(EngineFailed, match="No GPU anywhere") as caught:
        bench.submit(bench.wish(request()))

    assert "goes on from here" in (caught.value.hint or "")


def test_a_worker_that_dies_leaves_its_last_words(bench: Bench) -> None:
    log = bench.paths.logs_dir / submitting.LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("of an earlier batch\n")
    bench.worker('sys.exit("the dog ate it")')

    with pytest.raises(EngineFailed, match="the dog ate it") as caught:
        bench.submit(bench.wish(request()))

    assert "earlier" not in caught.value.message
    assert str(log) in (caught.value.hint or "")


def is_alive(pid: int) -> bool:
    found = processes.identify(pid)
    return found is not None and processes.is_alive(found)


def test_who_stops_it_ends_the_worker_and_all_that_it_started(bench: Bench) -> None:
    bench.worker(
        """
import subprocess
child = subprocess.Popen(["sleep", "600"])
print(json.dumps({"event": "begun", "total": child.pid, "completed": os.getpid(), "failed": 0}), flush=True)
child.wait()
"""
    )

    def tell(progress: BatchProgress) -> None:
        bench.told.append(progress)
        if progress.batch.status is BatchStatus.IN_PROGRESS:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        submitting.submit(bench.wish(request()), bench.catalog, bench.paths, bench.environment, tell)

    counts = bench.told[-1].batch.request_counts
    assert not any(is_alive(pid) for pid in (counts.completed, counts.total))


def test_an_environment_in_a_path_with_a_space_is_reached_without_it(tmp_path: Path) -> None:
    program = tmp_path / "my models" / "ray" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_text("")

    reached = submitting.without_space(program, tmp_path)

    assert " " not in str(reached)
    assert reached.samefile(program)
    assert submitting.without_space(reached, tmp_path) == reached
