"""What was measured, held against targets."""

from pathlib import Path

import pytest
from tests.tui.benchmarks.runs import Engine, Matrix, run

from footplate_daemon.errors import Invalid
from footplate_daemon.wire_benchmarks import BenchmarkRun, VariantChoice, WorkloadKind
from footplate_tui.benchmarks import checks, targets

MATRIX = Matrix(
    workloads=(
        WorkloadKind.REPEAT,
        WorkloadKind.SHORT,
        WorkloadKind.JSON_ROUTER,
        WorkloadKind.LONG_PROMPT,
    ),
    requests=10,
    purpose="check",
)
GPU = 4_000_000_000


def verdicts(
    measured: BenchmarkRun, text: str | None = None, variant: str = "llamacpp/guide"
) -> dict[str, str]:
    demanded = targets.parse(text, "t.toml") if text else targets.load(None)
    report = checks.evaluate(measured, demanded)
    return {each.name: each.verdict for each in report.checked if each.variant == variant}


def test_a_good_engine_passes_every_shipped_target() -> None:
    found = verdicts(
        run(Engine(vram_bytes=GPU), Engine("vllm", vram_bytes=GPU), matrix=MATRIX), variant="vllm/guide"
    )

    assert found == dict.fromkeys(
        (
            "JSON",
            "determinism",
            "first token",
            "stream",
            "latency",
            "VRAM",
            "VRAM stable",
            "long prompt",
            "agreement",
        ),
        "PASS",
    )


def test_what_cannot_be_measured_is_no_pass() -> None:
    report = checks.evaluate(run(Engine(), matrix=MATRIX), targets.load(None))

    unmeasured = {each.name: each.reason for each in report.checked if each.verdict == "not measured"}
    assert unmeasured == {
        "VRAM": "no GPU memory of the engine can be read here",
        "VRAM stable": "no GPU memory of the engine can be read here",
        "agreement": "guide was asked on one runtime only: give several",
    }
    assert (report.failed, report.unmeasured) == (0, 3)


@pytest.mark.parametrize(
    ("engine", "failed"),
    [
        (Engine(ttft_ms=600), {"first token"}),
        (Engine(ttft_ms=1200), {"first token", "latency"}),
        (Engine(itl_ms=25), {"stream"}),
        (Engine(itl_ms=60), {"stream", "latency"}),
        (Engine(vram_bytes=6_000_000_000), {"VRAM"}),
        (Engine(answers=["one", "two"]), {"determinism"}),
        (Engine(fails=1), {"JSON", "determinism", "first token", "stream", "latency", "long prompt"}),
        (Engine(error="no"), {"JSON", "determinism", "first token", "stream", "latency", "long prompt"}),
    ],
)
def test_what_misses_its_target_fails(engine: Engine, failed: set[str]) -> None:
    found = verdicts(run(engine, matrix=MATRIX))

    assert {name for name, verdict in found.items() if verdict == "FAIL"} == failed


def test_the_reason_says_where_answers_part() -> None:
    measured = run(
        Engine(answers=["Press F2 to switch"]), Engine("vllm", answers=["Press F3 to switch"]), matrix=MATRIX
    )

    report = checks.evaluate(measured, targets.parse("[agreement]\n[determinism]\n", "t"))

    reasons = {(each.variant, each.name): each.reason for each in report.checked}
    assert reasons["vllm/guide", "agreement"].startswith(
        "repeat, request 0: from llamacpp/guide after 7 characters: 'Press F3"
    )
    assert reasons["llamacpp/guide", "determinism"].startswith("one answer differs after 0 characters")
    assert ("llamacpp/guide", "agreement") not in reasons


def test_json_that_is_invalid_is_quoted() -> None:
    whole = run(Engine(), matrix=Matrix(workloads=(WorkloadKind.JSON_ROUTER,), requests=4))
    (cell,) = whole.cells
    assert cell.records
    assert cell.summary
    wrong = cell.records[2].model_copy(
        update={"is_valid": False, "validity": "It is no JSON.", "answer": "I think\x1b[31m"}
    )
    records = (*cell.records[:2], wrong, cell.records[3])
    summary = cell.summary.model_copy(update={"valid": 3})
    measured = whole.model_copy(
        update={"cells": (cell.model_copy(update={"records": records, "summary": summary}),)}
    )

    (checked,) = checks.evaluate(measured, targets.parse("[json]\n", "t")).checked

    assert (checked.verdict, checked.measured) == ("FAIL", "3 of 4 valid")
    assert checked.reason == "request 2: It is no JSON. (I think␛[31m)"
    assert verdicts(measured, "[json]\nmin_valid_percent = 75\n") == {"JSON": "PASS"}


def test_memory_that_grows_is_not_stable() -> None:
    whole = run(Engine(vram_bytes=GPU), matrix=MATRIX)
    last = whole.cells[-1]
    assert last.resources
    grown = last.model_copy(
        update={"resources": last.resources.model_copy(update={"vram_end_bytes": int(GPU * 1.2)})}
    )
    measured = whole.model_copy(update={"cells": (*whole.cells[:-1], grown)})

    assert verdicts(measured)["VRAM stable"] == "FAIL"
    assert verdicts(measured, "[memory]\nmax_vram_growth_percent = 25\n")["VRAM stable"] == "PASS"


def test_a_run_that_was_ended_before_is_not_measured() -> None:
    whole = run(Engine(), matrix=MATRIX)
    waiting = tuple(
        cell.model_copy(update={"state": "cancelled", "summary": None, "records": ()}) for cell in whole.cells
    )

    found = verdicts(whole.model_copy(update={"cells": waiting, "state": "cancelled"}))

    assert set(found.values()) == {"not measured"}


def test_only_what_is_demanded_is_asked() -> None:
    variants = [VariantChoice(name="llamacpp/guide")]

    all_of_it = checks.wish(variants, targets.load(None))
    one = checks.wish(variants, targets.parse("seed = 7\nrequests = 3\n[first_token]\n", "t"))

    assert [each.kind for each in all_of_it.workloads] == list(MATRIX.workloads)
    assert [(each.kind, each.requests) for each in one.workloads] == [(WorkloadKind.SHORT, 3)]
    assert (one.purpose, one.seed, one.parameters) == ("check", 7, {"temperature": 0, "seed": 7})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[first_token]\nmax_sm = 3\n",
            "line 2: first_token.max_sm: There is no key max_sm in",
        ),
        ("[first_token]\nmax_sm = 3\n", 'Did you mean "max_ms"?'),
        ("[latenzy]\n", "line 1: latenzy: There is no key latenzy in the top of the file."),
        ("\n[stream]\nmin_tokens_per_second = -1\n", "line 3: stream.min_tokens_per_second: Must be more"),
        ('[latency]\nstatistic = "avg"\n', 'line 2: latency.statistic: Must be "median", "mean"'),
        ("[latency\n", "line 1: This is not TOML"),
        ("seed = 1\n", "line 1: Nothing is demanded."),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_line(text: str, message: str) -> None:
    with pytest.raises(Invalid) as refused:
        targets.parse(text, "mine.toml")

    assert "mine.toml has 1 mistake:" in refused.value.message
    assert message in refused.value.message
    assert refused.value.hint


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"There is no file .*absent\.toml"):
        targets.load(tmp_path / "absent.toml")


def test_the_shipped_file_says_what_the_defaults_are() -> None:
    tables = {"json", "determinism", "first_token", "stream", "latency", "memory", "long_prompt", "agreement"}
    bare = targets.parse("".join(f"[{name}]\n" for name in sorted(tables)), "t")

    assert targets.load(None) == bare
