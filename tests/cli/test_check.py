"""`footplate check` with a real daemon and real engines."""

import json
from pathlib import Path

from click.testing import CliRunner

from footplate_tui.benchmarks import targets
from footplate_tui.cli.check import check
from tests.cli.conftest import Shell

EASY = "requests = 3\n[first_token]\nmax_ms = 60000\n[determinism]\nrequests = 3\n"


def written(folder: Path, text: str) -> str:
    file = folder / "targets.toml"
    file.write_text(text)
    return str(file)


def test_targets_that_are_met_end_with_0(footplate: Shell, tmp_path: Path) -> None:
    checked = footplate("check", "--targets", written(tmp_path, EASY))

    lines = checked.stdout.splitlines()
    assert checked.returncode == 0, checked.stderr
    assert "llamacpp/guide:" in lines
    assert any(line.startswith("determinism ") and line.endswith("3 of 3 identical  PASS") for line in lines)
    assert lines[-1].startswith("2 passed, 0 failed. See the figures: footplate bench show ")
    assert "\x1b" not in checked.stdout


def test_a_target_that_is_missed_ends_with_1_and_says_by_how_much(footplate: Shell, tmp_path: Path) -> None:
    checked = footplate(
        "check", "--targets", written(tmp_path, "requests = 3\n[first_token]\nmax_ms = 0.001\n")
    )

    assert checked.returncode == 1
    line = next(line for line in checked.stdout.splitlines() if line.startswith("first token "))
    assert "FAIL: " in line
    assert line.endswith(" times over")


def test_what_cannot_be_measured_fails_only_when_strict(footplate: Shell, tmp_path: Path) -> None:
    file = written(tmp_path, f"{EASY}[agreement]\n")

    checked = json.loads(footplate("check", "--targets", file, "--json").stdout)
    strict = footplate("check", "--of", str(checked["run"]), "--targets", file, "--strict")

    verdicts = {each["name"]: each["verdict"] for each in checked["targets"]}
    assert verdicts == {"first token": "PASS", "determinism": "PASS", "agreement": "not measured"}
    assert (checked["ok"], checked["not_measured"]) == (True, 1)
    assert strict.returncode == 1


def test_a_run_is_judged_anew_by_other_targets(footplate: Shell, tmp_path: Path) -> None:
    first = json.loads(footplate("check", "--targets", written(tmp_path, EASY), "--json").stdout)
    harder = written(tmp_path, "[first_token]\nmax_ms = 0.001\n")

    again = footplate("check", "--of", str(first["run"]), "--targets", harder, "--json")

    assert again.returncode == 1
    assert json.loads(again.stdout)["run"] == first["run"]


def test_several_variants_are_checked_and_their_answers_compared(footplate: Shell, tmp_path: Path) -> None:
    file = written(tmp_path, EASY)

    checked = json.loads(footplate("check", "guide", "second", "--targets", file, "--json").stdout)

    assert {each["variant"] for each in checked["targets"]} == {"llamacpp/guide", "llamacpp/second"}
    assert checked["ok"]


def test_an_engine_that_does_not_start_fails(footplate: Shell, tmp_path: Path) -> None:
    checked = footplate("check", "broken", "--targets", written(tmp_path, EASY))

    assert checked.returncode == 1
    assert "FAIL: the engine failed: " in checked.stdout


def test_a_mistake_in_the_targets_is_wrong_usage(tmp_path: Path) -> None:
    refused = CliRunner().invoke(check, ["--targets", written(tmp_path, "[latency]\nmax_sm = 1\n")])

    assert refused.exit_code == 2
    assert "line 2: latency.max_sm: There is no key max_sm in [latency]." in refused.output


def test_names_do_not_go_with_a_run() -> None:
    assert CliRunner().invoke(check, ["guide", "--of", "1"]).exit_code == 2


def test_the_shipped_targets_are_printed() -> None:
    printed = CliRunner().invoke(check, ["--print-targets"], standalone_mode=False)

    assert targets.parse(printed.output, "t") == targets.load(None)
