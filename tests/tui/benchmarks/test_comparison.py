"""Entrants and runs side by side, and the answers they gave."""

import pytest
from tests.tui.benchmarks.runs import ENVIRONMENT, Engine, Matrix, run

from footplate_daemon.wire_benchmarks import WorkloadKind
from footplate_tui.benchmarks import agreement, figures, measures, results
from footplate_tui.benchmarks.bootstrap import Estimate
from footplate_tui.benchmarks.comparison import compare
from footplate_tui.benchmarks.measures import Measure, Square


def test_the_entrants_of_a_run_are_compared_with_the_first() -> None:
    (table,) = compare([run(Engine(), Engine("vllm", ttft_ms=30, itl_ms=0.5))]).tables

    base, other = table.lines
    assert (base.is_base, base.changes) == (True, {})
    assert other.changes[Measure.TTFT].value == pytest.approx(3.0, rel=0.1)
    assert other.changes[Measure.STREAM].excludes(1.0)
    assert figures.change(Measure.TTFT, other.changes[Measure.TTFT]).endswith("times worse")
    assert figures.change(Measure.STREAM, other.changes[Measure.STREAM]).endswith("times better")


def test_runs_are_compared_variant_by_variant() -> None:
    first = run(Engine(), Engine("vllm", itl_ms=8), run_id=1)
    second = run(Engine("vllm", itl_ms=4), Engine("ollama", itl_ms=2), run_id=2, seed=2)

    (table,) = compare([first, second]).tables

    names = [line.name for line in table.lines]
    assert names == ["1: llamacpp/guide", "1: vllm/guide", "2: vllm/guide", "2: ollama/guide"]
    streams = {line.name: line.changes[Measure.STREAM].value for line in table.lines if line.changes}
    assert streams["2: vllm/guide"] == pytest.approx(2.0, rel=0.1)
    assert streams["2: ollama/guide"] == pytest.approx(1.0, rel=0.1)


def test_runs_that_are_not_alike_are_told() -> None:
    other = ENVIRONMENT.model_copy(update={"host": "elsewhere"})

    notes = compare([run(Engine()), run(Engine(preset="slow"), run_id=2, environment=other)]).notes

    assert notes[0] == "Run 2 is from another machine than run 1."
    assert "Run 2, llamacpp/guide: preset slow, was balanced." in notes


def test_what_speaks_against_figures_is_told_once_with_where() -> None:
    matrix = Matrix(workloads=(WorkloadKind.SHORT, WorkloadKind.CHAT))

    found = results.rows(run(Engine(fails=1), Engine("vllm", error="no"), matrix=matrix))

    assert results.remarks(found) == [
        "llamacpp/guide: 1 of 24 requests failed",
        "vllm/guide: nothing was measured: no",
    ]
    assert {row.name for row in results.measured(found)} == {"llamacpp/guide"}


def test_rounds_are_taken_together() -> None:
    rounds = run(Engine(), matrix=Matrix(requests=10, repeats=3))

    (row,) = results.rows(rounds)

    times = sorted(r.ttft_ms or 0 for cell in rounds.cells for r in cell.records or ())
    assert row.completed == 30
    assert row.ttft_ms is not None
    assert row.ttft_ms.median == pytest.approx((times[14] + times[15]) / 2)


def test_without_requests_the_summaries_are_shown() -> None:
    whole = run(Engine(itl_ms=2.0))
    bare = whole.model_copy(
        update={"cells": tuple(cell.model_copy(update={"records": None}) for cell in whole.cells)}
    )

    (row,) = results.rows(bare)

    assert row.stream == pytest.approx(500, rel=0.05)
    assert row.ttft_ms == results.rows(whole)[0].ttft_ms
    (table,) = compare([bare]).tables
    assert table.lines[0].figures[Measure.TTFT].estimate().low is None


def test_one_tokenizer_counts_where_it_is_the_models_own() -> None:
    shown = measures.showings(run(Engine()))[Square("short", 1)]
    foreign = run(Engine())
    words = foreign.model_copy(
        update={
            "tokenizers": {"guide": foreign.tokenizers["guide"].model_copy(update={"is_models_own": False})}
        }
    )

    assert measures.counting_for(shown) == "counted"
    assert measures.counting_for(measures.showings(words)[Square("short", 1)]) == "usage"


@pytest.mark.parametrize(
    ("one", "other", "at", "expected", "found"),
    [
        ("yes", "yes", None, "", ""),
        ("yes", "yesterday", 3, "yes", "yesterday"),
        ("a\nb", "a\nc", 2, "a\nb", "a\nc"),
        ("", "x", 0, "", "x"),
        ("x" * 100 + "y", "x" * 100 + "z", 100, "…" + "x" * 24 + "y", "…" + "x" * 24 + "z"),
    ],
)
def test_the_first_difference(one: str, other: str, at: int | None, expected: str, found: str) -> None:
    difference = agreement.first_difference(one, other)

    if at is None:
        assert difference is None
    else:
        assert difference is not None
        assert (difference.at, difference.expected, difference.found) == (at, expected, found)


def test_answers_are_put_side_by_side() -> None:
    asked = list(
        agreement.side_by_side(
            run(
                Engine(answers=["same", "left"]),
                Engine("vllm", answers=["same", "right"]),
                Engine("ollama", fails=2),
            )
        )
    )

    first, second, *_ = asked
    assert first.is_equal
    assert first.prompt == "question 0"
    assert [answer.text for answer in second.answers] == ["left", "right", None]
    assert (second.is_comparable, second.is_equal) == (True, False)
    assert second.answers[2].error == "500: out of order"


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(None, "-"), (6.128, "6.13 ms"), (61.28, "61.3 ms"), (612.8, "613 ms"), (1234.0, "1.23 s")],
)
def test_times_have_three_figures(milliseconds: float | None, text: str) -> None:
    assert figures.milliseconds(milliseconds) == text


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (Estimate(0.5, 0.4, 0.6), "2.0 times better"),
        (Estimate(1.2, 1.1, 1.3), "20 % worse"),
        (Estimate(1.2, 0.9, 1.5), "perhaps 20 % worse"),
        (Estimate(1.2), "perhaps 20 % worse"),
        (Estimate(1.0, 0.9, 1.1), "equal"),
    ],
)
def test_changes_are_told_with_how_sure_they_are(ratio: Estimate, words: str) -> None:
    assert figures.change(Measure.TTFT, ratio) == words
