"""A run as it goes on, and its results, in lines."""

import pytest
from rich.console import Console
from tests.tui.benchmarks.runs import Engine, Matrix, run

from footplate_daemon.wire_benchmarks import BenchmarkRun, LivePoint, WorkloadKind
from footplate_tui.benchmarks.guard import guard
from footplate_tui.cli import bench_text, benching

ROUNDS = Matrix(repeats=2)


def going_on(whole: BenchmarkRun, done: int) -> BenchmarkRun:
    """Give the run when so many of its cells were done."""
    cells = tuple(
        cell if cell.number < done else cell.model_copy(update={"state": "waiting", "summary": None})
        for cell in whole.cells
    )
    idle = {"starts": (), "error": None}
    entrants = whole.entrants if done else tuple(e.model_copy(update=idle) for e in whole.entrants)
    return whole.model_copy(
        update={"cells": cells, "entrants": entrants, "state": "running", "cells_done": done, "fraction": 0.5}
    )


def test_each_start_and_each_cell_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    whole = run(Engine(), Engine("vllm", error="It is not installed."), matrix=ROUNDS)
    lines = benching.Lines()

    for done in (0, 1, 1, 2, 4):
        lines.show(going_on(whole, done))
    lines.show(whole)

    told = capsys.readouterr().out.splitlines()
    assert told[0] == "Run 1: llamacpp/guide, vllm/guide; short; 1 at a time; 24 requests; 2 rounds"
    assert told[1:4] == [
        "llamacpp/guide: cold start 2.0 s",
        "llamacpp/guide: warm start 1.0 s",
        "vllm/guide: It is not installed.",
    ]
    assert [line.split("  ")[2] for line in told[4:]] == ["short, round 1", "short, round 2"]


def test_a_run_that_waits_says_so_once(capsys: pytest.CaptureFixture[str]) -> None:
    queued = going_on(run(Engine()), 0).model_copy(update={"state": "queued"})
    lines = benching.Lines()

    lines.show(queued)
    lines.show(queued)

    assert capsys.readouterr().out.splitlines()[1:] == ["It waits for the run before it."]


def test_the_bar_has_the_step_the_speed_and_the_time_left() -> None:
    running = going_on(run(Engine(), matrix=ROUNDS), 1).model_copy(
        update={"step": "llamacpp/guide: short\x1b[31m", "eta_seconds": 12.0}
    )
    point = LivePoint(cell=1, at_seconds=3.0, tokens_per_second=412.0, running=1, completed=7, failed=1)
    console = Console(width=160, force_terminal=False)

    with console.capture() as captured:
        console.print(benching.drawing(running, point))

    speed = "412 tok/s, 7 done · 1 failed · about 12.0 s left"
    assert f"1 of 2 cells · llamacpp/guide: short␛[31m · {speed}" in captured.get()


def test_results_leave_out_what_nobody_has() -> None:
    on_gpu = "\n".join(bench_text.result_lines(run(Engine(vram_bytes=4_000_000_000, fails=1))))
    without = "\n".join(bench_text.result_lines(run(Engine())))

    assert "VRAM" in on_gpu
    assert "FAILED" in on_gpu
    assert "note: llamacpp/guide: 1 of 24 requests failed" in on_gpu
    assert "VRAM" not in without
    assert "FAILED" not in without


def test_results_of_several_end_in_a_recommendation_and_checks_do_not() -> None:
    engines = (Engine(), Engine("vllm", itl_ms=9))

    assert list(bench_text.result_lines(run(*engines)))[-1].startswith("Keep llamacpp/guide.")
    checked = run(*engines, matrix=Matrix(workloads=(WorkloadKind.REPEAT,), purpose="check"))
    assert not any(line.startswith("Keep ") for line in bench_text.result_lines(checked))


def test_the_guard_tells_figures_and_suspects() -> None:
    before, now = run(Engine(noise=0.01), run_id=1), run(Engine(itl_ms=4, preset="slow"), run_id=2, seed=2)

    quiet = list(bench_text.guard_lines(guard(run(Engine(), run_id=2, seed=2), before)))
    told = list(bench_text.guard_lines(guard(now, before)))

    assert quiet == ["Run 2 is no slower than run 1 (by 5 % or more, surely)."]
    assert told[0] == "Run 2 is worse than run 1:"
    assert any("stream" in line and "2.0 times worse (" in line and "slower" in line for line in told)
    assert told[-1] == "What is different: llamacpp/guide: preset slow, was balanced."


@pytest.mark.parametrize("kind", ["cold", "warm", "unknown", "running"])
def test_every_kind_of_start_has_its_line(kind: str) -> None:
    entrant = run(Engine()).entrants[0]
    start = entrant.starts[0].model_copy(update={"kind": kind})

    line = bench_text.start_line(entrant.model_copy(update={"starts": (start,)}), "x/y", 0)

    expected = {"running": "x/y: runs already", "unknown": "x/y: start 2.0 s"}
    assert line == expected.get(kind, f"x/y: {kind} start 2.0 s")
