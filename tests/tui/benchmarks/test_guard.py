"""The regression guard speaks of what is surely slower, and is quiet of noise."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tui.benchmarks.runs import ENVIRONMENT, Engine, Matrix, run

from footplate_daemon.wire_benchmarks import BenchmarkRun, WorkloadKind
from footplate_tui.benchmarks import likeness
from footplate_tui.benchmarks.guard import guard

ROUNDS = Matrix(workloads=(WorkloadKind.SHORT, WorkloadKind.CHAT), requests=16, repeats=3)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 0.25))
def test_it_is_quiet_of_the_same_run_again(seed: int, noise: float) -> None:
    engine = Engine(noise=noise)
    first, second = (again(engine, run_id, seed + run_id * 99_991) for run_id in (1, 2))

    assert guard(second, first).is_quiet


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10_000), st.floats(1.25, 4.0))
def test_it_speaks_of_a_stream_that_is_surely_slower(seed: int, times: float) -> None:
    first = again(Engine(noise=0.1), 1, seed)
    second = again(Engine(noise=0.1, itl_ms=2.0 * times), 2, seed + 1)

    guarded = guard(second, first)

    assert {each.measure for each in guarded.slower} >= {"stream", "latency"}
    assert "first token" not in {each.measure for each in guarded.slower}


def test_less_than_the_threshold_is_no_matter() -> None:
    first, second = again(Engine(noise=0.01), 1, 1), again(Engine(noise=0.01, itl_ms=2.08), 2, 2)

    assert guard(second, first).is_quiet
    assert not guard(second, first, threshold=0.01).is_quiet


def test_what_got_faster_is_told_and_no_regression() -> None:
    guarded = guard(again(Engine(itl_ms=1.0), 2, 2), again(Engine(), 1, 1))

    assert guarded.is_quiet
    assert {each.verdict for each in guarded.findings if each.measure == "stream"} == {"faster"}


def test_the_noise_of_earlier_runs_is_forgiven() -> None:
    before, earlier = again(Engine(itl_ms=2.0), 2, 1), again(Engine(itl_ms=2.6), 1, 2)
    slower = again(Engine(itl_ms=2.5), 3, 3)

    assert not guard(slower, before).is_quiet
    assert guard(slower, before, [earlier]).is_quiet


def test_earlier_runs_of_something_else_are_no_noise() -> None:
    before, earlier = again(Engine(), 2, 1), again(Engine(itl_ms=2.6, preset="slow"), 1, 2)

    assert not guard(again(Engine(itl_ms=2.5), 3, 3), before, [earlier]).is_quiet


def test_more_errors_more_memory_and_no_start_are_regressions_too() -> None:
    before = run(Engine(vram_bytes=4_000_000_000), Engine("vllm"), Engine("ollama"), run_id=1)
    now = run(
        Engine(vram_bytes=4_400_000_000), Engine("vllm", fails=2), Engine("ollama", error="no"), run_id=2
    )

    assert list(guard(now, before).more) == [
        "llamacpp/guide, short: 4.40 GB of GPU memory, 4.00 GB before",
        "vllm/guide, short: 2 of 24 requests failed, 0 of 24 before",
        "ollama/guide did not start; in run 1 it did",
    ]


def test_the_suspects_are_named() -> None:
    before = again(Engine(), 1, 1)
    now = run(
        Engine(preset="slow", version="2", flags=("--threads", "1")),
        matrix=ROUNDS,
        run_id=2,
        environment=ENVIRONMENT.model_copy(update={"driver_version": "570"}),
    )

    assert guard(now, before).differences == (
        "llamacpp/guide: preset slow, was balanced",
        "llamacpp/guide: version 2, was 1",
        "llamacpp/guide: flags +--threads 1",
        "driver 570, was none",
    )


@pytest.mark.parametrize(
    ("earlier", "is_comparable"),
    [
        (run(Engine(), run_id=1), True),
        (run(Engine(preset="slow", version="2"), run_id=1), True),
        (run(Engine("vllm"), run_id=1), False),
        (run(Engine(model="other"), run_id=1), False),
        (run(Engine(), run_id=9), False),
        (run(Engine(), run_id=1, environment=None), False),
        (run(Engine(), run_id=1, environment=ENVIRONMENT.model_copy(update={"host": "other"})), False),
        (run(Engine(), run_id=1, environment=ENVIRONMENT.model_copy(update={"system": "Linux 7"})), True),
        (run(Engine(), run_id=1, matrix=Matrix(workloads=(WorkloadKind.CHAT,))), False),
        (run(Engine(), run_id=1, matrix=Matrix(parameters={"temperature": 1})), False),
        (run(Engine(), run_id=1, matrix=Matrix(purpose="check")), False),
        (run(Engine(error="no"), run_id=1), False),
        (run(Engine(), run_id=1, matrix=Matrix(concurrency=(8,))), False),
        (run(Engine(), run_id=1, matrix=Matrix(concurrency=(1, 8), requests=99)), True),
    ],
)
def test_runs_are_comparable_that_did_the_same_work_on_the_same_machine(
    earlier: BenchmarkRun, is_comparable: bool
) -> None:
    found = likeness.last_comparable(run(Engine(), run_id=5), [earlier])

    assert (found is earlier) is is_comparable


def test_the_newest_of_the_earlier_runs_is_taken() -> None:
    runs = [run(Engine(), run_id=number) for number in (3, 1, 2)]

    assert likeness.last_comparable(run(Engine(), run_id=4), runs) is runs[0]


def test_a_run_that_measured_all_of_it_goes_before_a_newer_one_of_a_part() -> None:
    both, one = run(Engine(), Engine("vllm"), run_id=1), run(Engine(), run_id=2)

    assert likeness.last_comparable(run(Engine(), Engine("vllm"), run_id=3), [both, one]) is both
    assert likeness.last_comparable(run(Engine(), Engine("vllm"), run_id=3), [one]) is one


def test_a_run_under_the_same_preset_goes_before_a_newer_one_under_another() -> None:
    usual, slow = run(Engine(), run_id=1), run(Engine(preset="slow"), run_id=2)

    assert likeness.last_comparable(run(Engine(), run_id=3), [usual, slow]) is usual
    assert likeness.last_comparable(run(Engine(preset="slow"), run_id=3), [usual, slow]) is slow
    assert likeness.last_comparable(run(Engine(preset="other"), run_id=3), [usual, slow]) is slow


def again(engine: Engine, run_id: int, seed: int) -> BenchmarkRun:
    return run(engine, matrix=ROUNDS, run_id=run_id, seed=seed)
