import random

import numpy as np
import pytest

from footplate_daemon.benchmarks.statistics import distribution, percentile, summarise, tpot_ms
from footplate_daemon.wire_benchmarks import RequestRecord

SAMPLES = [
    [7.0],
    [1.0, 2.0],
    [3.0, 1.0, 2.0],
    [0.0] * 5,
    [random.Random(1).expovariate(0.1) for _ in range(1000)],
    [random.Random(2).gauss(50, 10) for _ in range(97)],
    [1e-9, 1e9, 5.0, 5.0],
]


@pytest.mark.parametrize("values", SAMPLES)
def test_a_distribution_is_what_numpy_says(values: list[float]) -> None:
    found = distribution(values)

    assert found is not None
    assert found.count == len(values)
    assert found.mean == pytest.approx(np.mean(values), rel=1e-12)
    assert found.std == pytest.approx(np.std(values), rel=1e-9, abs=1e-12)
    assert (found.minimum, found.maximum) == (min(values), max(values))
    for percent, value in ((50, found.median), (90, found.p90), (95, found.p95), (99, found.p99)):
        assert value == np.percentile(values, percent)


@pytest.mark.parametrize("percent", [0, 1, 12.5, 25, 50, 75, 99, 99.9, 100])
@pytest.mark.parametrize("values", SAMPLES)
def test_percentiles_are_numpys_to_the_last_bit(values: list[float], percent: float) -> None:
    assert percentile(sorted(values), percent) == np.percentile(values, percent)


def test_nothing_has_no_distribution() -> None:
    assert distribution([]) is None


def test_the_time_per_output_token_leaves_the_first_one_out() -> None:
    assert tpot_ms(record(ttft_ms=100, e2el_ms=500, output_tokens=5)) == 100


@pytest.mark.parametrize("tokens", [0, 1])
def test_an_answer_of_one_token_has_no_time_per_token(tokens: int) -> None:
    assert tpot_ms(record(output_tokens=tokens)) is None


def test_tokens_are_those_of_usage_else_counted_else_events() -> None:
    told = record(ttft_ms=0, e2el_ms=60, output_tokens=4, counted_tokens=7, itl_ms=(1.0,))
    counted = told.model_copy(update={"output_tokens": None})
    neither = counted.model_copy(update={"counted_tokens": None})

    assert [tpot_ms(each) for each in (told, counted, neither)] == [20, 10, 60]


def test_throughputs_are_totals_over_the_wall_time() -> None:
    records = [record(number=n, prompt_tokens=10, output_tokens=20, counted_tokens=30) for n in range(4)]

    summary = summarise(records, 2.0)

    assert summary.requests_per_second == 2
    assert summary.output_tokens_per_second == 40
    assert summary.total_tokens_per_second == 60
    assert summary.counted_tokens_per_second == 60
    assert (summary.prompt_tokens, summary.output_tokens, summary.counted_tokens) == (40, 80, 120)


def test_requests_that_failed_are_counted_and_are_in_no_latency() -> None:
    records = [
        record(number=0, ttft_ms=100),
        record(number=1, ttft_ms=9000, error_kind="timeout", error="It took too long."),
        record(number=2, ttft_ms=None, e2el_ms=None, error_kind="refused"),
        record(number=3, ttft_ms=None, e2el_ms=None, error_kind="refused"),
    ]

    summary = summarise(records, 1.0)

    assert (summary.requests, summary.completed, summary.failed) == (4, 1, 3)
    assert summary.errors == {"timeout": 1, "refused": 2}
    assert summary.ttft is not None
    assert summary.ttft.maximum == 100
    assert summary.requests_per_second == 1


def test_gaps_are_pooled_over_all_requests() -> None:
    summary = summarise([record(itl_ms=(1.0, 2.0, 3.0)), record(itl_ms=(10.0,))], 1.0)

    assert summary.itl is not None
    assert summary.itl.count == 4
    assert summary.itl.mean == 4.0


def test_a_cell_without_a_single_answer_has_no_latencies() -> None:
    summary = summarise([record(ttft_ms=None, e2el_ms=None, error_kind="connection")], 0.0)

    assert (summary.ttft, summary.tpot, summary.itl, summary.e2el) == (None, None, None, None)
    assert summary.output_tokens_per_second == 0


def test_validity_is_counted_where_it_was_looked_at() -> None:
    summary = summarise([record(is_valid=True), record(is_valid=False), record(is_valid=None)], 1.0)

    assert (summary.valid, summary.checked) == (1, 2)
    assert summarise([record()], 1.0).checked is None


def record(**fields: object) -> RequestRecord:
    usual: dict[str, object] = {"number": 0, "started_ms": 0.0, "ttft_ms": 10.0, "e2el_ms": 50.0}
    return RequestRecord.model_validate(usual | fields)
