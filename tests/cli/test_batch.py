"""`footplate batch` with a real daemon and real engines."""

import csv
import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from footplate_daemon.wire_batches import (
    Batch,
    BatchComparison,
    BatchProgress,
    BatchProgressList,
    BatchStatus,
    FileList,
)
from footplate_tui.cli import batch_words
from tests.cli.conftest import SECONDS, Shell

CHAT = "/v1/chat/completions"
QUESTIONS = ("What is a preset?", "How do I switch runtime?", "What is a preset?")
TOO_LONG = "word " * 5000


def request(number: int, question: str, model: str = "guide", **changes: Any) -> dict[str, Any]:
    body = {"model": model, "temperature": 0, "messages": [{"role": "user", "content": question}]}
    return {"custom_id": f"q-{number}", "method": "POST", "url": CHAT, "body": body, **changes}


def text_of(requests: Sequence[object]) -> str:
    return "".join(json.dumps(each) + "\n" for each in requests)


def file_of(folder: Path, questions: Sequence[str], model: str = "guide") -> str:
    file = folder / f"{model.replace('/', '-')}.jsonl"
    file.write_text(text_of([request(number, question, model) for number, question in enumerate(questions)]))
    return str(file)


def submit(footplate: Shell, file: str, *words: str) -> Batch:
    submitted = footplate("batch", "submit", file, "--json", *words)
    return Batch.model_validate_json(submitted.stdout)


def ids(text: str) -> list[str]:
    return [json.loads(line)["custom_id"] for line in text.splitlines()]


@contextmanager
def started(footplate: Shell, *words: str) -> Iterator[subprocess.Popen[str]]:
    process = footplate.start(*words)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=SECONDS)


def test_a_file_becomes_answers(footplate: Shell, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    file = file_of(tmp_path, QUESTIONS)

    waited = footplate("batch", "submit", file, "--name", "evals", "-o", str(results))
    listed = footplate("batch", "list", "-n", "1")
    ordered = footplate("batch", "results", "last", "--ordered").stdout

    assert (waited.returncode, waited.stderr) == (0, "")
    first, *_, done, where = waited.stdout.splitlines()
    assert first.endswith(" is submitted.")
    assert "is completed: 3 lines answered in" in done
    assert where == f"The answers are in {results}."
    assert "\x1b" not in waited.stdout
    assert sorted(ids(results.read_text())) == ids(ordered) == ["q-0", "q-1", "q-2"]
    assert "A preset holds" in ordered
    heads, row = listed.stdout.splitlines()[:2]
    assert heads.split() == list(batch_words.HEADS)
    assert "completed  3/3" in row
    assert row.endswith("  evals")


def test_a_pipe_is_a_file_too(footplate: Shell) -> None:
    submitted = subprocess.run(
        [
            sys.executable,
            "-m",
            "footplate_tui",
            "batch",
            "submit",
            "-",
            "--wait",
            "--json",
            "--metadata",
            "a=b=c",
        ],
        env=footplate.environment,
        input=text_of([request(0, QUESTIONS[0])]),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    ended = Batch.model_validate_json(submitted.stdout)
    assert (submitted.returncode, ended.status, ended.metadata) == (0, BatchStatus.COMPLETED, {"a": "b=c"})
    shown = BatchProgress.model_validate_json(footplate("batch", "show", ended.id, "--json").stdout)
    assert shown.input_filename == "stdin.jsonl"


def test_a_bad_file_fails_with_every_line_named_and_nothing_asked(footplate: Shell, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    wrong = [request(number, "Hi", method="GET") for number in range(1, 31)]
    bad.write_text(text_of([request(0, "Hi"), *wrong]) + "no\n")
    before = footplate("exchanges", "--json", "--limit", "1").stdout

    waited = footplate("batch", "submit", str(bad), "--wait")
    shown = footplate("batch", "show", "last").stdout

    assert waited.returncode == 4
    assert "failed before anything ran." in waited.stdout
    assert "  and 11 more" in waited.stdout
    named = [line for line in shown.splitlines() if line.startswith("line ")]
    assert [line.partition(":")[0] for line in named] == [f"line {number}" for number in range(2, 33)]
    assert footplate("exchanges", "--json", "--limit", "1").stdout == before
    refused = footplate("batch", "results", "last")
    assert (refused.returncode, refused.stdout) == (1, "")


def test_lines_that_fail_are_named_and_asked_again(footplate: Shell, tmp_path: Path) -> None:
    waited = footplate("batch", "submit", file_of(tmp_path, [QUESTIONS[0], TOO_LONG, QUESTIONS[1]]), "--wait")
    shown = footplate("batch", "show", "last").stdout
    errors = footplate("batch", "results", "last", "--errors").stdout
    everything = footplate("batch", "results", "last", "--all", "--ordered").stdout
    again = footplate("batch", "retry-failed", "last", "--wait", "--json")

    assert waited.returncode == 1
    assert "1 line failed." in waited.stdout
    assert "line 2 (q-1): 400 " in shown
    assert ids(errors) == ["q-1"]
    assert ids(everything) == ["q-0", "q-1", "q-2"]
    assert again.returncode == 1
    assert Batch.model_validate_json(again.stdout).request_counts.failed == 1


def test_who_leaves_is_told_how_to_come_back(footplate: Shell, tmp_path: Path) -> None:
    with started(footplate, "batch", "submit", file_of(tmp_path, QUESTIONS, "endless"), "--wait") as waiting:
        assert waiting.stdout is not None
        batch_id = waiting.stdout.readline().split()[0]
        waiting.stdout.readline()  # It is followed from here on.
        waiting.send_signal(signal.SIGINT)
        _, said = waiting.communicate(timeout=SECONDS)

    assert waiting.returncode == 130
    assert f"Come back: footplate batch show {batch_id} --follow" in said
    with started(footplate, "batch", "show", batch_id, "--follow") as following:
        assert following.stdout is not None
        assert following.stdout.readline().startswith("in progress · 0 of 3 lines")
        cancelled = footplate("batch", "cancel", "last")
        rest, _ = following.communicate(timeout=SECONDS)
    assert "is being cancelled" in cancelled.stdout
    assert following.returncode == 4
    assert f"{batch_id} is cancelled: 0 of 3 lines answered" in rest
    too_late = footplate("batch", "cancel", batch_id, "--json")
    assert (too_late.returncode, json.loads(too_late.stdout)["error"]["code"]) == (1, "conflict")


def test_who_follows_outlasts_the_daemon(footplate: Shell, tmp_path: Path) -> None:
    made = submit(footplate, file_of(tmp_path, QUESTIONS, "endless"))
    with started(footplate, "batch", "show", made.id, "--follow", "--json") as following:
        assert following.stdout is not None
        seen = BatchProgress.model_validate_json(following.stdout.readline())
        assert footplate("restart").returncode == 0
        assert footplate("batch", "cancel", made.id).returncode == 0
        rest, _ = following.communicate(timeout=SECONDS)

    last = BatchProgress.model_validate_json(rest.splitlines()[-1])
    assert seen.batch.id == last.batch.id == made.id
    assert (following.returncode, last.batch.status) == (4, BatchStatus.CANCELLED)


def test_two_batches_are_compared(footplate: Shell, tmp_path: Path) -> None:
    first = submit(footplate, file_of(tmp_path, QUESTIONS), "--wait").id
    second = submit(footplate, file_of(tmp_path, QUESTIONS, "llamacpp/guide"), "--wait").id

    shown = footplate("batch", "compare", first, second, "-n", "1").stdout
    whole = BatchComparison.model_validate_json(footplate("batch", "compare", first, second, "--json").stdout)
    table = footplate("batch", "compare", first, second, "--csv").stdout

    assert "3 of 3 common lines got the same answer." in shown
    assert "q-0  What is a preset?" in shown
    assert "q-1" not in shown
    assert [line.custom_id for line in whole.lines] == ["q-0", "q-1", "q-2"]
    assert (whole.first.batch.id, whole.second.batch.id, whole.differing_inputs) == (first, second, 0)
    rows = list(csv.DictReader(io.StringIO(table, newline="")))
    assert [row["first_text"] for row in rows] == [line.first.text for line in whole.lines if line.first]


def test_files_are_listed_read_and_deleted(footplate: Shell, tmp_path: Path) -> None:
    file = file_of(tmp_path, QUESTIONS)
    made = submit(footplate, file, "--wait")
    copy = tmp_path / "copy.jsonl"

    listed = FileList.model_validate_json(footplate("batch", "files", "list", "--json").stdout)
    shown = footplate("batch", "files", "show", made.input_file_id).stdout
    fetched = footplate("batch", "files", "get", made.input_file_id, "-o", str(copy))
    deleted = footplate("batch", "files", "delete", made.input_file_id)
    missing = footplate("batch", "files", "get", made.input_file_id, "-o", str(tmp_path / "none"))
    unordered = footplate("batch", "results", made.id)
    ordered = footplate("batch", "results", made.id, "--ordered")

    assert {made.input_file_id, made.output_file_id} <= {each.id for each in listed.data}
    assert shown.splitlines()[1].endswith("  guide.jsonl")
    assert (fetched.returncode, copy.read_bytes()) == (0, Path(file).read_bytes())
    assert deleted.stdout == f"{made.input_file_id} is deleted.\n"
    assert (missing.returncode, (tmp_path / "none").exists()) == (1, False)
    assert sorted(ids(unordered.stdout)) == ["q-0", "q-1", "q-2"]
    assert (ordered.returncode, ordered.stdout) == (1, "")


def test_a_list_for_programs_is_one_object(footplate: Shell, tmp_path: Path) -> None:
    made = submit(footplate, file_of(tmp_path, QUESTIONS[:1]), "--wait")

    listed = BatchProgressList.model_validate_json(footplate("batch", "--json").stdout)

    assert listed.batches[0].batch == made


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("submit", "/nowhere.jsonl"), 1, "/nowhere.jsonl cannot be read"),
        (
            ("submit", "{file}", "-o", "/nowhere/results.jsonl"),
            2,
            "/nowhere is no folder where you may write",
        ),
        (("submit", "{file}", "-o", "-"), 2, "footplate batch results last"),
        (("submit", "{file}", "--metadata", "name"), 2, "'name' is no pair"),
        (("submit", "{file}", "--endpoint", "/v1/nope"), 1, "/v1/chat/completions, "),
        (("submit", "{empty}"), 1, "--endpoint /v1/chat/completions"),
        (("show", "batch_none"), 1, "batch_none"),
        (("compare", "a", "b", "--csv", "--json"), 2, "--csv does not go with --json"),
    ],
)
def test_what_cannot_be_done_is_explained(
    footplate: Shell, tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    files = {"file": file_of(tmp_path, QUESTIONS), "empty": str(tmp_path / "empty.jsonl")}

    refused = footplate("batch", *(word.format(**files) for word in words))

    assert refused.returncode == code
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_file_that_becomes_no_batch_is_not_kept(footplate: Shell, tmp_path: Path) -> None:
    before = footplate("batch", "files", "list", "--json").stdout

    footplate("batch", "submit", file_of(tmp_path, QUESTIONS), "--endpoint", "/v1/nope")

    assert footplate("batch", "files", "list", "--json").stdout == before


def test_a_large_file_is_cut_and_every_part_is_taken(footplate: Shell, tmp_path: Path) -> None:
    file = file_of(tmp_path, QUESTIONS)

    cut = footplate("batch", "split", file, "--lines", "2", "--into", str(tmp_path / "parts"), "--json")
    parts = [part["file"] for part in json.loads(cut.stdout)["parts"]]
    ended = [submit(footplate, part, "--wait") for part in parts]

    assert [Path(part).name for part in parts] == ["guide.part-001.jsonl", "guide.part-002.jsonl"]
    assert [each.request_counts.completed for each in ended] == [2, 1]


def test_bad_lines_are_named_before_anything_is_written(footplate: Shell, tmp_path: Path) -> None:
    file = tmp_path / "big.jsonl"
    file.write_text(text_of([request(0, "Hi"), request(0, "Hi")]))

    refused = footplate("batch", "split", str(file))
    skipped = footplate("batch", "split", str(file), "--skip-bad")
    again = footplate("batch", "split", str(file), "--skip-bad")

    assert (refused.returncode, refused.stdout) == (1, "")
    assert 'line 2: Its "custom_id" is that of line 1.' in refused.stderr
    assert skipped.returncode == 0
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "big.bad.jsonl",
        "big.jsonl",
        "big.part-001.jsonl",
    ]
    assert "is there already" in again.stderr


@pytest.mark.parametrize("size", ["0", "1TB", "-5", "300MiB", "much"])
def test_a_size_that_is_none_is_explained(footplate: Shell, tmp_path: Path, size: str) -> None:
    refused = footplate("batch", "split", file_of(tmp_path, QUESTIONS), "--bytes", size)

    assert refused.returncode == 2
    assert "--bytes" in refused.stderr
