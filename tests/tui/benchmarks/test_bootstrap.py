"""How sure a figure is."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from footplate_tui.benchmarks import bootstrap
from footplate_tui.benchmarks.bootstrap import Sample

times = st.floats(0.01, 1e6)


@settings(deadline=None)
@given(st.lists(times, min_size=1, max_size=200), st.floats(0, 1))
def test_quantiles_are_numpys(values: list[float], share: float) -> None:
    ours = bootstrap.quantile(sorted(values), share)

    assert ours == pytest.approx(float(np.quantile(values, share)), rel=1e-9)


@settings(deadline=None)
@given(st.lists(times, min_size=1, max_size=200))
def test_the_median_is_numpys(values: list[float]) -> None:
    assert bootstrap.median(values) == pytest.approx(float(np.median(values)), rel=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(times, min_size=1, max_size=30), min_size=1, max_size=4))
def test_what_is_drawn_lies_between_the_least_and_the_most(rounds: list[list[float]]) -> None:
    sample = Sample(tuple(map(tuple, rounds)))

    drawn = bootstrap.draws(sample, bootstrap.median, count=200)

    assert all(min(sample.values) <= each <= max(sample.values) for each in drawn)
    assert bool(drawn) is (len(sample) >= bootstrap.FEWEST_VALUES)


def test_the_same_values_are_drawn_the_same_way() -> None:
    sample = Sample((noise(1, 20),))

    assert bootstrap.draws(sample, bootstrap.median) == bootstrap.draws(sample, bootstrap.median)


def test_an_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    held = sum(not interval(Sample((noise(seed, 60),))).excludes(10.0 * 0.693147) for seed in range(100))

    assert 0.88 <= held / 100 <= 0.99


def test_more_requests_make_it_narrower() -> None:
    few, many = (interval(Sample((noise(1, count),))) for count in (20, 500))

    assert width(many) < width(few) / 2


def test_spells_of_noise_make_it_wider_than_the_same_values_mixed() -> None:
    spells = tuple(value for level in (10, 10, 30, 10, 30, 30) for value in [level] * 20)
    mixed = list(spells)
    random.Random(1).shuffle(mixed)

    assert width(interval(Sample((spells,)))) >= width(interval(Sample((tuple(mixed),))))
    assert width(mean_interval(spells)) > 1.3 * width(mean_interval(tuple(mixed)))


def test_rounds_that_differ_make_it_wider_than_one_round_of_the_same() -> None:
    first, second = tuple(10 + each / 100 for each in noise(1, 30)), tuple(15 + e / 100 for e in noise(2, 30))
    alternating = tuple(value for pair in zip(first, second, strict=True) for value in pair)

    assert width(interval(Sample((first, second)))) > 2 * width(interval(Sample((alternating,))))


def test_nothing_is_said_of_too_few_values() -> None:
    estimate = interval(Sample(((1.0, 2.0, 3.0),)))

    assert (estimate.value, estimate.low) == (2.0, None)
    assert not estimate.excludes(100.0)


def noise(seed: int, count: int) -> tuple[float, ...]:
    chance = random.Random(seed)
    return tuple(chance.expovariate(0.1) for _ in range(count))


def interval(sample: Sample[float]) -> bootstrap.Estimate:
    value = bootstrap.median(sample.values)
    return bootstrap.estimate(value, bootstrap.draws(sample, bootstrap.median))


def mean_interval(values: tuple[float, ...]) -> bootstrap.Estimate:
    def mean(drawn: list[float]) -> float:
        return sum(drawn) / len(drawn)

    return bootstrap.estimate(mean(list(values)), bootstrap.draws(Sample((values,)), mean))


def width(estimate: bootstrap.Estimate) -> float:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.high - estimate.low
