"""`footplate bench` with a real daemon and real engines."""

import csv
import io
import json
import signal
from pathlib import Path

import pytest

from footplate_daemon.wire_benchmarks import BenchmarkRun
from footplate_tui.benchmarks.exports import CSV_COLUMNS
from tests.cli.conftest import SECONDS, Shell

QUICK = ("--workload", "short", "--requests", "6", "--rounds", "2", "--warm-ups", "1", "--no-cold")
ENDLESS = ("--workload", "short", "--requests", "10000", "--no-cold", "--no-answers")


@pytest.fixture(scope="module")
def measured(started: Shell) -> BenchmarkRun:
    """A run of the guide and a second model of the same weights."""
    assert started("switch", "guide").returncode == 0
    ran = started("bench", "run", "guide", "second", *QUICK, "--parameter", "temperature=0", "--json")
    assert ran.returncode == 0, ran.stderr
    return BenchmarkRun.model_validate_json(ran.stdout)


def test_a_run_is_told_as_it_goes_and_ends_in_a_table(footplate: Shell) -> None:
    ran = footplate("bench", "run", *QUICK[:-1])

    lines = ran.stdout.splitlines()
    assert ran.returncode == 0, ran.stderr
    assert lines[0].endswith(": llamacpp/guide; short; 1 at a time; 6 requests; 2 rounds")
    assert any(line.startswith("llamacpp/guide: cold start ") for line in lines)
    cells = [line for line in lines if line.startswith("  llamacpp/guide  short, round ")]
    assert len(cells) == 2
    assert all("first token " in line for line in cells)
    assert any(line.startswith("WORKLOAD  VARIANT ") for line in lines)
    assert lines[-1].endswith(f"See: footplate bench report {lines[0].split()[1].rstrip(':')}")
    assert "\x1b" not in ran.stdout


def test_what_was_asked_is_what_was_measured(measured: BenchmarkRun) -> None:
    wish = measured.wish
    assert measured.variants == ("llamacpp/guide", "llamacpp/second")
    assert (wish.requests, wish.repeats, wish.warm_ups, wish.cold) == (6, 2, 1, False)
    assert wish.parameters == {"temperature": 0}
    assert [cell.state for cell in measured.cells] == ["done"] * 4
    assert all(len(cell.records or ()) == 6 for cell in measured.cells)


def test_runs_are_listed_newest_first(footplate: Shell, measured: BenchmarkRun) -> None:
    listed = footplate("bench")
    rows = json.loads(footplate("bench", "list", "--json").stdout)

    assert listed.stdout.startswith("ID ")
    ids = [row["id"] for row in rows]
    assert measured.id in ids
    assert ids == sorted(ids, reverse=True)


def test_results_are_shown(footplate: Shell, measured: BenchmarkRun) -> None:
    shown = footplate("bench", "show", str(measured.id))
    again = footplate("bench", "show", str(measured.id), "--json")

    assert "llamacpp/second" in shown.stdout
    assert "COLD START" in shown.stdout
    assert BenchmarkRun.model_validate_json(again.stdout) == measured


def test_a_run_is_compared_with_another(footplate: Shell, measured: BenchmarkRun) -> None:
    other = footplate("bench", "run", "guide", *QUICK, "--parameter", "temperature=0", "--json")
    other_id = BenchmarkRun.model_validate_json(other.stdout).id

    compared = footplate("bench", "compare", str(measured.id), str(other_id))
    told = json.loads(footplate("bench", "compare", str(measured.id), str(other_id), "--json").stdout)

    assert f"{other_id}: llamacpp/guide" in compared.stdout
    (square,) = told["squares"]
    assert [entrant["run"] for entrant in square["entrants"]] == [measured.id, measured.id, other_id]
    change = square["entrants"][2]["times_the_base"]["first token"]
    assert change["low"] <= change["value"] <= change["high"]


def test_the_same_again_is_guarded(footplate: Shell, measured: BenchmarkRun) -> None:
    ran = footplate("bench", "run", "--again", str(measured.id), "--guard", "--json")
    again = BenchmarkRun.model_validate_json(ran.stdout)

    # How fast this machine is just now is nothing that a test may rely on: only that the two say the same.
    guarded = footplate("bench", "guard", str(again.id), "--json")
    told = json.loads(guarded.stdout)
    assert again.wish == measured.wish
    assert (told["run"], told["quiet"]) == (again.id, guarded.returncode == 0)
    assert ran.returncode == guarded.returncode
    assert {each["variant"] for each in told["findings"]} == {"llamacpp/guide", "llamacpp/second"}


def test_without_an_earlier_run_there_is_nothing_to_guard_against(footplate: Shell) -> None:
    ran = footplate("bench", "run", "guide", "-w", "repeat", "--requests", "2", "--rounds", "1", "--no-cold")
    guarded = footplate("bench", "guard")

    assert ran.returncode == guarded.returncode == 0
    assert "nothing to guard against" in guarded.stdout


def test_answers_are_shown_side_by_side(footplate: Shell, measured: BenchmarkRun) -> None:
    alone = json.loads(footplate("bench", "answers", str(measured.id), "--json").stdout)
    shown = footplate("bench", "answers", str(measured.id))

    assert len(alone) == 6
    assert {answer["name"] for answer in alone[0]["answers"]} == {"llamacpp/guide", "llamacpp/second"}
    assert all(each["equal"] for each in alone)
    assert shown.stdout.endswith("6 of 6 prompts answered alike.\n")


def test_a_run_is_exported(footplate: Shell, measured: BenchmarkRun, tmp_path: Path) -> None:
    number = str(measured.id)
    rows = list(csv.reader(io.StringIO(footplate("bench", "export", number, "--format", "csv").stdout)))
    markdown = footplate("bench", "export", number, "--format", "md")
    whole = footplate("bench", "export", number, "-o", str(tmp_path / "run.json"))
    page = footplate("bench", "report", number, "-o", str(tmp_path / "page.html"))

    assert tuple(rows[0]) == CSV_COLUMNS
    assert len(rows) == 5
    assert markdown.stdout.startswith(f"# Benchmark {number}\n")
    assert whole.returncode == 0
    assert BenchmarkRun.model_validate_json((tmp_path / "run.json").read_text()) == measured
    assert page.stdout == f"{tmp_path}/page.html\n"
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_an_export_says_which_formats_there_are(footplate: Shell, measured: BenchmarkRun) -> None:
    refused = footplate("bench", "export", str(measured.id))
    unwritable = footplate("bench", "report", str(measured.id), "-o", "/nowhere/page.html")

    assert refused.returncode == 2
    assert "json, csv, md, html" in refused.stderr
    assert unwritable.returncode == 1
    assert "/nowhere/page.html cannot be written: No such file or directory." in unwritable.stderr


def test_ctrl_c_leaves_the_run_going_on(footplate: Shell) -> None:
    running = footplate.start("bench", "run", "guide", *ENDLESS)
    assert running.stdout
    number = running.stdout.readline().split()[1].rstrip(":")
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=SECONDS)

    state = json.loads(footplate("bench", "show", number, "--json").stdout)["state"]
    cancelled = footplate("bench", "cancel", number)
    followed = footplate("bench", "follow", number)
    again = footplate("bench", "cancel", number)

    assert running.returncode == 130
    assert f"Run {number} goes on. Follow it: footplate bench follow {number}." in told
    assert state in {"queued", "running"}
    assert cancelled.stdout == f"Run {number} is cancelled.\n"
    assert followed.returncode == 1
    assert f"Run {number} is cancelled" in followed.stdout
    assert again.returncode == 1


def test_a_detached_run_can_be_followed_and_deleted(footplate: Shell) -> None:
    begun = footplate("bench", "run", "guide", *QUICK, "--detach")
    number = begun.stdout.split()[1]

    followed = footplate("bench", "follow", number)
    deleted = footplate("bench", "delete", number)
    absent = footplate("bench", "show", number)

    assert followed.returncode == 0, followed.stderr
    assert deleted.stdout == f"Run {number} is deleted.\n"
    assert absent.returncode == 1


def test_an_engine_that_does_not_start_is_told_and_the_rest_measured(footplate: Shell) -> None:
    ran = footplate("bench", "run", "broken", "guide", *QUICK)

    assert ran.returncode == 1
    assert "llamacpp/broken: " in ran.stdout
    assert "note: llamacpp/broken: nothing was measured" in ran.stdout
    assert "short     llamacpp/guide" in ran.stdout


def test_prompts_of_ones_own_are_asked(footplate: Shell, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"prompt": "What is a preset?"}\n{"prompt": "What is a profile?"}\n')

    ran = footplate("bench", "run", "guide", "--file", str(file), "--rounds", "1", "--no-cold", "--json")

    run = BenchmarkRun.model_validate_json(ran.stdout)
    assert run.workloads == ("mine.jsonl",)
    prompts = [record.prompt or "" for cell in run.cells for record in cell.records or ()]
    assert any("What is a preset?" in prompt for prompt in prompts)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("run", "gide"), 1, 'Did you mean "guide"?'),
        (("run", "guide", "--concurrency", "two"), 2, "1,4,8"),
        (("run", "guide", "--concurrency", "0"), 1, "0 requests at a time"),
        (("run", "guide", "--parameter", "temperature"), 2, "temperature=0"),
        (("run", "guide", "--levels", "1,2"), 2, "--workload concurrency"),
        (("run", "guide", "--runtime", "vllm"), 1, "None of these can be asked on vllm"),
        (("run", "guide", "--again", "1"), 2, "--again does not go with names"),
        (("run", "--again", "9999"), 1, "9999"),
        (("guard", "--threshold", "much"), 2, "5%"),
        (("show", "9999"), 1, "9999"),
        (("compare",), 2, "ID"),
    ],
)
def test_mistakes_are_explained(footplate: Shell, words: tuple[str, ...], code: int, told: str) -> None:
    refused = footplate("bench", *words)

    assert refused.returncode == code
    assert told in refused.stderr
