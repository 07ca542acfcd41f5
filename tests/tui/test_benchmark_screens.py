"""Benchmarks against a fake daemon: choosing, watching, reading, comparing, cancelling, deleting."""

from pathlib import Path
from typing import Any

import pytest
from tests.fakes.daemon import GUIDE, FakeDaemon, engine, model
from tests.fakes.work import benchmark, cell, entrant, measured, record, summary, wish
from tests.tui.conftest import Open, Terminal, rows_of, seen
from textual.widgets import Input

from footplate_daemon import errors
from footplate_daemon.wire_benchmarks import BenchmarkRun, Environment, LivePoint, Translation
from footplate_tui.browser import opener
from footplate_tui.screens.answers import AnswersScreen
from footplate_tui.screens.attach import AttachScreen
from footplate_tui.screens.benchmark import BenchmarkScreen
from footplate_tui.screens.benchmarks import PAGE, BenchmarksScreen
from footplate_tui.screens.matrix import MatrixScreen
from footplate_tui.screens.runs import RunsScreen
from footplate_tui.widgets.gauge_lines import GaugeLines
from footplate_tui.widgets.rows import Rows

VLLM, OLLAMA = "vllm/qwen3-8b", "ollama/qwen3-8b"
SIZES = [(80, 24), (200, 60), (50, 12)]


@pytest.fixture
def daemon() -> FakeDaemon:
    daemon = FakeDaemon()
    facts: dict[str, Any] = {"on_disk": True, "last_load_seconds": 10.0, "last_tokens_per_second": 64.0}
    daemon.catalog = [
        model("guide", "vllm", presets=("default", "low-vram"), **facts),
        model("qwen3-8b", "vllm", "ollama", **facts),
    ]
    return daemon


def two_entrants(run_id: int, *, slower: float = 1.0, **facts: Any) -> BenchmarkRun:
    """A run of two entrants: vLLM is faster, Ollama ignores a parameter and failed once."""
    ignores = Translation(asked={"top_k": 40, "seed": 1}, ignored=("top_k",))
    cells = (
        cell(
            0, 0, VLLM, **measured(summary=summary(30.0 * slower, 9.0 * slower, 96.2 / slower)),
            records=(record(0, "A lease ends."), record(1, "Yes.")),
        ),
        cell(
            1, 1, OLLAMA, translation=ignores,
            **measured(summary=summary(45.0, 12.0, 77.3, failed=1, completed=15, errors={"timeout": 1})),
            records=(record(0, "A lease expires."), record(1, "Yes.")),
        ),
    )  # fmt: skip
    made = benchmark(run_id, wish=wish(VLLM, OLLAMA), cells=cells)
    return made.model_copy(update=facts)


def under_way(run_id: int, **facts: Any) -> BenchmarkRun:
    """A run whose first cell is being measured."""
    cells = (cell(0, 0, VLLM, state="measuring"), cell(1, 1, OLLAMA))
    entrants = (entrant(VLLM, state="measuring", starts=()), entrant(OLLAMA, state="waiting", starts=()))
    made = benchmark(run_id, wish=wish(VLLM, OLLAMA), cells=cells, entrants=entrants)
    going_on = {
        "state": "running",
        "ended_at": None,
        "fraction": 0.25,
        "eta_seconds": 90.0,
        "step": f"{VLLM}: short, 1 at a time",
    }
    return made.model_copy(update={**going_on, **facts})


def point(second: int, rate: float = 80.0, cell_number: int = 0) -> LivePoint:
    return LivePoint(
        cell=cell_number, at_seconds=float(second), tokens_per_second=rate, running=1, completed=second,
        ttft_ms=35.0, vram_bytes=2_000_000_000, cpu_percent=100.0,
    )  # fmt: skip


async def open_benchmarks(terminal: Terminal) -> BenchmarksScreen:
    await terminal.until_shown("guide")
    await terminal.pilot.press("f3")
    screen = await terminal.until_on(BenchmarksScreen)
    await terminal.until(lambda: "Asking" not in seen(terminal))
    return screen


async def open_matrix(terminal: Terminal) -> MatrixScreen:
    await open_benchmarks(terminal)
    await terminal.pilot.press("n")
    screen = await terminal.until_on(MatrixScreen)
    await terminal.until(lambda: "cells" in seen(terminal))
    return screen


async def open_run(terminal: Terminal) -> BenchmarkScreen:
    await open_benchmarks(terminal)
    await terminal.until(lambda: rows_of(terminal)[0] != "")
    await terminal.pilot.press("enter")
    screen = await terminal.until_on(BenchmarkScreen)
    await terminal.until(lambda: VLLM in seen(terminal))
    return screen


async def go_to(terminal: Terminal, text: str) -> None:
    """Highlight the choice whose row has a text."""
    rows = terminal.app.screen.query_one(Rows)
    await terminal.pilot.press("home")
    for _ in range(rows.row_count):
        place = rows.line_of(rows.highlighted or 0)
        if text in rows.render_line(place).text:
            return
        await terminal.pilot.press("down")
    raise AssertionError(text)


# The list.


async def test_without_runs_the_list_says_what_a_benchmark_is(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await open_benchmarks(terminal)

        await terminal.until(lambda: "Nothing has been measured yet." in seen(terminal))
        await daemon.go_down()
        await terminal.until(lambda: "footplate up" in seen(terminal))
        await daemon.keep_run(two_entrants(1))
        await daemon.come_back()
        await terminal.until(lambda: "done" in rows_of(terminal)[0])


@pytest.mark.parametrize("size", SIZES)
async def test_the_list_shows_what_goes_on_and_what_was(
    size: tuple[int, int], daemon: FakeDaemon, open_terminal: Open
) -> None:
    await daemon.keep_run(two_entrants(1, title="Before \x1b[2J"))
    await daemon.keep_run(benchmark(2, wish=wish(VLLM), state="failed", error="It did not start."))
    await daemon.keep_run(under_way(3))

    async with open_terminal(daemon, size=size) as terminal:
        await open_benchmarks(terminal)
        await terminal.until(lambda: rows_of(terminal)[0].startswith("● 3"))

        assert [row[0] for row in rows_of(terminal)[:3]] == ["●", "✗", "✓"]
        assert "● 1 running" in seen(terminal)
        assert "\x1b" not in seen(terminal)
        await terminal.pilot.press("down")
        await terminal.until(lambda: "It did not start." in seen(terminal))


async def test_a_run_that_begins_elsewhere_appears_and_its_end_is_seen(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    await daemon.keep_run(two_entrants(1))

    async with open_terminal(daemon) as terminal:
        await open_benchmarks(terminal)
        await daemon.keep_run(under_way(2))
        await terminal.until(lambda: rows_of(terminal)[0].startswith("● 2"))
        await daemon.keep_run(two_entrants(2))

        await terminal.until(lambda: rows_of(terminal)[0].startswith("✓ 2"))


async def test_older_runs_come_as_the_end_comes_near(daemon: FakeDaemon, open_terminal: Open) -> None:
    for number in range(1, PAGE + 30):
        await daemon.keep_run(benchmark(number))

    async with open_terminal(daemon) as terminal:
        await open_benchmarks(terminal)
        await terminal.pilot.press("end")
        await terminal.until(lambda: terminal.app.screen.query_one(Rows).row_count == PAGE + 29)
        await terminal.pilot.press("end")

        await terminal.until(lambda: rows_of(terminal)[-1].startswith("✓ 1 "))


async def test_a_run_is_cancelled_and_another_deleted_by_keys_pressed_twice(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    await daemon.keep_run(two_entrants(1))
    await daemon.keep_run(under_way(2))

    async with open_terminal(daemon) as terminal:
        await open_benchmarks(terminal)
        await terminal.pilot.press("d")
        await terminal.until(lambda: "It goes on. Cancel it first" in seen(terminal))
        await terminal.pilot.press("c")
        await terminal.until(lambda: "Cancel run 2?" in seen(terminal))
        await terminal.pilot.press("escape")
        await terminal.until(lambda: "Cancel run 2?" not in seen(terminal))
        assert daemon.runs[2].state == "running"
        await terminal.pilot.press("c", "c")
        await terminal.until(lambda: rows_of(terminal)[0].startswith("○ 2"))

        await terminal.pilot.press("d")
        await terminal.until(lambda: "Delete run 2" in seen(terminal))
        await terminal.pilot.press("d")
        await terminal.until(lambda: rows_of(terminal)[0].startswith("✓ 1"))
        assert list(daemon.runs) == [1]


# Choosing.


async def test_what_is_active_is_chosen_on_every_runtime_that_has_it(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon, size=(80, 40)) as terminal:
        await open_matrix(terminal)

        chosen = [row for row in rows_of(terminal) if "✓" in row]
        assert [GUIDE in row for row in chosen[:2]] == [True, False]
        assert "vllm/guide" in chosen[1]
        assert "4 cells of 16 requests" in seen(terminal)
        assert "llamacpp/guide stops meanwhile and is back at the end" in seen(terminal)


@pytest.mark.parametrize("size", SIZES)
async def test_the_matrix_is_chosen_by_keys_and_begun(
    size: tuple[int, int], daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon, size=size) as terminal:
        await open_matrix(terminal)
        await go_to(terminal, OLLAMA)
        await terminal.pilot.press("space")
        await go_to(terminal, "low-vram")
        await terminal.pilot.press("space")
        await go_to(terminal, "json-router")
        await terminal.pilot.press("space")
        await go_to(terminal, "Requests in each")
        await terminal.pilot.press("3", "2")
        await go_to(terminal, "Repeats of each")
        await terminal.pilot.press("right")
        await go_to(terminal, "Start each engine")
        await terminal.pilot.press("space")
        await terminal.pilot.press("t", *"night", "enter")
        await terminal.until(lambda: "24 cells of 32 requests" in seen(terminal))
        await terminal.pilot.press("enter")

        await terminal.until(lambda: isinstance(terminal.app.screen, BenchmarkScreen))
        asked = daemon.benchmark_wishes[0]
        assert {choice.name for choice in asked.variants} == {GUIDE, "vllm/guide", OLLAMA}
        assert [workload.kind.value for workload in asked.workloads] == ["short", "json-router"]
        assert (asked.presets, asked.concurrency, asked.requests, asked.repeats) == (
            ("low-vram",),
            (1, 4),
            32,
            2,
        )
        assert (asked.cold, asked.title) == (False, "night")


async def test_what_is_missing_is_said_and_nothing_begins(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon) as terminal:
        await open_matrix(terminal)
        await go_to(terminal, "short")
        await terminal.pilot.press("space", "enter")
        await terminal.until(lambda: "Choose at least one workload." in seen(terminal))
        await terminal.pilot.press("escape")

        await terminal.until(lambda: isinstance(terminal.app.screen, BenchmarksScreen))
        assert daemon.benchmark_wishes == []


async def test_it_asks_twice_while_somebody_is_answered_and_says_what_the_daemon_refuses(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    busy = daemon.now_status.model_copy(update={"engines": (engine(GUIDE, leases=1),)})
    await daemon.show(busy)
    daemon.refuse_next(errors.Invalid("vllm/guide has no preset low-vram.", hint="See: footplate models"))

    async with open_terminal(daemon) as terminal:
        await open_matrix(terminal)
        await terminal.pilot.press("enter")
        await terminal.until(lambda: "Somebody is being answered now" in seen(terminal))
        assert daemon.benchmark_wishes == []
        await terminal.pilot.press("enter")

        await terminal.until(lambda: "no preset low-vram. See: footplate models" in seen(terminal))
        assert isinstance(terminal.app.screen, MatrixScreen)


async def test_the_lines_of_a_file_are_asked(daemon: FakeDaemon, open_terminal: Open, tmp_path: Path) -> None:
    file = tmp_path / "work.jsonl"
    file.write_text('{"prompt": "One?"}\n\n{"prompt": "Two?"}\n')

    async with open_terminal(daemon) as terminal:
        await open_matrix(terminal)
        await go_to(terminal, "JSONL")
        await terminal.pilot.press("space")
        asking = await terminal.until_on(AttachScreen)
        asking.query_one(Input).value = str(file)
        await terminal.pilot.press("enter")
        await terminal.until(lambda: isinstance(terminal.app.screen, MatrixScreen))
        await go_to(terminal, "short")
        await terminal.pilot.press("space", "enter")

        await terminal.until(lambda: isinstance(terminal.app.screen, BenchmarkScreen))
        (workload,) = daemon.benchmark_wishes[0].workloads
        assert workload.lines == ('{"prompt": "One?"}', '{"prompt": "Two?"}')


async def test_a_run_is_measured_again_as_it_was(daemon: FakeDaemon, open_terminal: Open) -> None:
    asked = wish(VLLM, requests=7, concurrency=(2,), parameters={"temperature": 0.5}, timeout_seconds=9.0)
    await daemon.keep_run(benchmark(1, wish=asked))

    async with open_terminal(daemon) as terminal:
        await open_benchmarks(terminal)
        await terminal.pilot.press("r")
        await terminal.until(lambda: "1 cell of 7 requests" in seen(terminal))
        await terminal.pilot.press("enter")

        await terminal.until(lambda: bool(daemon.benchmark_wishes))
        assert daemon.benchmark_wishes[0] == asked


# Watching and reading.


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
async def test_a_run_is_watched_until_it_has_ended(
    size: tuple[int, int], daemon: FakeDaemon, open_terminal: Open
) -> None:
    await daemon.keep_run(under_way(1))

    async with open_terminal(daemon, size=size) as terminal:
        await open_run(terminal)
        await terminal.until(lambda: "25% · about 1 min 30 s left" in seen(terminal))
        await daemon.measure(1, *(point(second) for second in range(1, 9)))
        await terminal.until(lambda: "⣿" in seen(terminal) or "⣶" in seen(terminal))
        charts = terminal.app.screen.query_one(GaugeLines)
        assert "TOKENS/S 0 to 80" in charts.plain
        assert "2.0 GB" in charts.plain
        await daemon.keep_run(two_entrants(1))

        await terminal.until(lambda: "2 results in 1 min 00 s" in seen(terminal))
        assert "96.2" in rows_of(terminal)[0]


async def test_nothing_is_painted_while_nothing_is_measured(daemon: FakeDaemon, open_terminal: Open) -> None:
    await daemon.keep_run(under_way(1))

    async with open_terminal(daemon) as terminal:
        await open_run(terminal)
        await daemon.measure(1, point(1))
        charts = terminal.app.screen.query_one(GaugeLines)
        await terminal.until(lambda: "80" in charts.plain)
        before = charts.lines
        await daemon.measure(1, point(1))
        await daemon.change_run(1, eta_seconds=60.0)
        await terminal.until(lambda: "about 1 min 00 s left" in seen(terminal))

        assert [line.plain for line in charts.lines] == [line.plain for line in before]


@pytest.mark.parametrize("size", SIZES)
async def test_results_say_who_is_best_what_failed_and_what_was_not_followed(
    size: tuple[int, int], daemon: FakeDaemon, open_terminal: Open
) -> None:
    await daemon.keep_run(two_entrants(1))

    async with open_terminal(daemon, size=size) as terminal:
        await open_run(terminal)
        await terminal.pilot.press("down")

        await terminal.until(lambda: "failed: 1 timeout" in seen(terminal))
        first, second = [row for row in rows_of(terminal) if row][:2]
        assert "96.2" in first
        assert second.endswith("≠")
        if size[0] > 60:
            assert "≠ top_k is ignored" in seen(terminal)
            assert "loaded cold 3.8 s, warm 1.2 s" in seen(terminal)


async def test_tab_gives_the_charts_more_room(daemon: FakeDaemon, open_terminal: Open) -> None:
    cells = tuple(cell(number, number % 2, (VLLM, OLLAMA)[number % 2], workload=f"work {number // 2}")
                  for number in range(20))  # fmt: skip
    await daemon.keep_run(under_way(1, cells=cells))

    async with open_terminal(daemon, size=(80, 30)) as terminal:
        await open_run(terminal)
        await daemon.measure(1, point(1))
        charts = terminal.app.screen.query_one(GaugeLines)
        await terminal.until(lambda: "80" in charts.plain)
        before = len(charts.lines)
        await terminal.pilot.press("tab")
        await terminal.until(lambda: len(charts.lines) > before)
        await terminal.pilot.press("tab")

        await terminal.until(lambda: len(charts.lines) == before)


async def test_a_cut_line_is_mended_and_the_run_went_on(daemon: FakeDaemon, open_terminal: Open) -> None:
    await daemon.keep_run(under_way(1))

    async with open_terminal(daemon) as terminal:
        await open_run(terminal)
        await daemon.go_down()
        await daemon.change_run(1, fraction=0.5)
        await daemon.come_back()

        await terminal.until(lambda: "50%" in seen(terminal))


async def test_a_run_is_cancelled_from_its_own_screen(daemon: FakeDaemon, open_terminal: Open) -> None:
    await daemon.keep_run(under_way(1))

    async with open_terminal(daemon) as terminal:
        await open_run(terminal)
        await terminal.pilot.press("c")
        await terminal.until(lambda: "Cancel it?" in seen(terminal))
        await terminal.pilot.press("c")

        await terminal.until(lambda: "○ cancelled" in seen(terminal))


async def test_a_run_that_is_gone_is_told(daemon: FakeDaemon, open_terminal: Open) -> None:
    await daemon.keep_run(two_entrants(1))

    async with open_terminal(daemon) as terminal:
        await open_benchmarks(terminal)
        await terminal.app.push_screen(BenchmarkScreen(99))

        await terminal.until(lambda: "There is no benchmark 99." in seen(terminal))


# Answers.


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
async def test_answers_stand_side_by_side_and_say_where_they_differ(
    size: tuple[int, int], daemon: FakeDaemon, open_terminal: Open
) -> None:
    await daemon.keep_run(two_entrants(1))

    async with open_terminal(daemon, size=size) as terminal:
        await open_run(terminal)
        await terminal.pilot.press("enter")
        await terminal.until(lambda: isinstance(terminal.app.screen, AnswersScreen))
        await terminal.until(lambda: "A lease expires." in seen(terminal))
        assert "1 of 2, 1 differ" in seen(terminal)
        assert "≠ differs from character 10 on" in seen(terminal)
        await terminal.pilot.press("right")
        await terminal.until(lambda: "= the same to the letter" in seen(terminal))
        await terminal.pilot.press("d")
        await terminal.until(lambda: "1 of 1, 1 differ" in seen(terminal))
        await terminal.pilot.press("y")

        await terminal.until(lambda: "A lease expires." in terminal.app.clipboard)
        assert terminal.app.clipboard.startswith("Question 0?")


async def test_answers_that_were_not_kept_are_said_to_be(daemon: FakeDaemon, open_terminal: Open) -> None:
    run = two_entrants(1)
    await daemon.keep_run(
        run.model_copy(update={"wish": run.wish.model_copy(update={"keep_answers": False})})
    )

    async with open_terminal(daemon) as terminal:
        await open_run(terminal)
        await terminal.pilot.press("a")

        await terminal.until(lambda: "Its answers were not kept" in seen(terminal))


# Comparing.


@pytest.mark.parametrize("size", SIZES)
async def test_a_run_is_compared_with_the_one_before(
    size: tuple[int, int], daemon: FakeDaemon, open_terminal: Open
) -> None:
    machine = Environment(
        footplate_version="0",
        host="gpu1",
        system="Linux",
        python="3",
        cpu="x",
        cpu_count=1,
        ram_total_bytes=1,
    )
    await daemon.keep_run(two_entrants(1, environment=machine))
    newer = machine.model_copy(update={"driver_version": "570"})
    await daemon.keep_run(two_entrants(2, slower=2.0, environment=newer))

    async with open_terminal(daemon, size=size) as terminal:
        await open_benchmarks(terminal)
        await terminal.pilot.press("v")
        await terminal.until(lambda: isinstance(terminal.app.screen, RunsScreen))
        await terminal.until(lambda: "▼" in rows_of(terminal)[0])

        assert "+100%" in rows_of(terminal)[0]
        assert "≈" in rows_of(terminal)[1]
        if size[0] > 100:
            assert "driver none → 570" in seen(terminal)
        await terminal.pilot.press("d")
        await terminal.until(lambda: len([row for row in rows_of(terminal) if row]) == 1)


async def test_any_two_runs_are_compared_when_one_is_marked(daemon: FakeDaemon, open_terminal: Open) -> None:
    await daemon.keep_run(benchmark(1, wish=wish(OLLAMA), cells=(cell(0, 0, OLLAMA, **measured()),)))
    await daemon.keep_run(benchmark(2, wish=wish(VLLM), cells=(cell(0, 0, VLLM, **measured()),)))

    async with open_terminal(daemon) as terminal:
        await open_benchmarks(terminal)
        await terminal.pilot.press("v")
        await terminal.until(lambda: "No run before it measured the same" in seen(terminal))
        await terminal.pilot.press("space", "down", "v")
        await terminal.until(lambda: isinstance(terminal.app.screen, RunsScreen))

        await terminal.until(lambda: "gone" in seen(terminal) and "new" in seen(terminal))


async def test_a_distribution_is_not_needed_to_show_a_result(daemon: FakeDaemon, open_terminal: Open) -> None:
    bare = summary(completed=0, failed=16, itl=None, e2el=None, errors={"refused": 16}).model_copy(
        update={"ttft": None, "tpot": None}
    )
    cells = (
        cell(0, 0, VLLM, state="done", summary=bare),
        cell(1, 1, OLLAMA, state="failed", error="It died."),
    )
    await daemon.keep_run(benchmark(1, wish=wish(VLLM, OLLAMA), cells=cells))

    async with open_terminal(daemon) as terminal:
        await open_run(terminal)
        await terminal.until(lambda: "failed: 16 refused" in seen(terminal))
        await terminal.pilot.press("down")

        await terminal.until(lambda: "✗ It died." in seen(terminal))


# What to keep, and the report.


async def test_what_to_keep_is_said_when_the_run_has_ended(daemon: FakeDaemon, open_terminal: Open) -> None:
    await daemon.keep_run(under_way(1))

    async with open_terminal(daemon, size=(160, 48)) as terminal:
        await open_run(terminal)
        assert "→" not in seen(terminal)
        await daemon.keep_run(two_entrants(1))

        await terminal.until(lambda: f"{VLLM} alone was measured" in seen(terminal))


async def test_the_report_is_written_to_where_the_terminal_runs(
    daemon: FakeDaemon, open_terminal: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await daemon.keep_run(two_entrants(1, title="<b>Night</b>"))

    async with open_terminal(daemon, size=(160, 48)) as terminal:
        await open_run(terminal)
        await terminal.pilot.press("o")
        await terminal.until(lambda: "open it in a browser." in seen(terminal))

    page = (tmp_path / "footplate-bench-1.html").read_text()
    assert "&lt;b&gt;Night" in page
    assert "<b>Night" not in page


@pytest.mark.parametrize(
    ("environment", "platform", "opens"),
    [
        ({}, "linux", False),
        ({"DISPLAY": ":0", "SSH_CONNECTION": "x"}, "linux", False),
        ({}, "darwin", True),
        ({"SSH_CONNECTION": "x"}, "darwin", False),
    ],
)
def test_files_are_opened_only_where_there_are_windows(
    environment: dict[str, str], platform: str, opens: bool
) -> None:
    assert (opener(environment, platform) is not None) == opens
