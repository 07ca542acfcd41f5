"""The number of lines at a time finds what keeps an engine busy, and goes no further."""

import random

import pytest

from footplate_daemon.batches.throttle import Throttle, Window


class Engine:
    """Answers so many at a time; beyond that they wait within it."""

    def __init__(self, slots: int, *, tells: bool, noise: float = 0.0) -> None:
        self.slots = slots
        self._tells = tells
        self._noise = noise
        self._dice = random.Random(slots)

    def window(self, in_flight: int) -> Window:
        running = min(in_flight, self.slots)
        pace = running * 10 * (1 + self._dice.uniform(-self._noise, self._noise))
        if not self._tells:
            return Window(pace, in_flight)
        return Window(pace, in_flight, in_flight - running, running)


def settled(engine: Engine, most: int = 256, windows: int = 120) -> list[int]:
    """Give the limits of the second half of so many windows."""
    throttle, limits = Throttle(most), []
    for _ in range(windows):
        throttle.observe(engine.window(throttle.limit))
        limits.append(throttle.limit)
    return limits[windows // 2 :]


def test_an_engine_in_which_nobody_waits_is_filled_in_a_few_windows() -> None:
    throttle, engine = Throttle(256), Engine(64, tells=True)
    for _ in range(4):
        throttle.observe(engine.window(throttle.limit))

    assert throttle.limit == 64


@pytest.mark.parametrize("slots", [1, 4, 16, 64, 200])
def test_an_engine_that_tells_its_queue_is_kept_full_with_a_short_one(slots: int) -> None:
    limits = settled(Engine(slots, tells=True))

    assert min(limits) >= min(slots, 256)
    assert max(limits) <= slots * 1.7 + 6


@pytest.mark.parametrize("slots", [1, 4, 16, 64])
def test_an_engine_that_tells_nothing_is_known_by_its_pace(slots: int) -> None:
    limits = settled(Engine(slots, tells=False, noise=0.02), windows=400)

    assert sum(min(limit, slots) for limit in limits) / len(limits) >= 0.8 * slots
    assert max(limits) <= slots * 4 + 8


def test_it_never_goes_beyond_the_most() -> None:
    assert max(settled(Engine(10_000, tells=True), most=50)) == 50


def test_being_refused_halves_it_and_it_comes_back() -> None:
    throttle = Throttle(256)
    engine = Engine(64, tells=True)
    for _ in range(20):
        throttle.observe(engine.window(throttle.limit))
    before = throttle.limit
    throttle.overloaded()
    halved = throttle.limit
    for _ in range(60):
        throttle.observe(engine.window(throttle.limit))

    assert halved == before // 2
    assert throttle.limit >= 60


def test_nothing_is_learnt_while_there_are_too_few_lines() -> None:
    throttle = Throttle(256)
    for _ in range(50):
        throttle.observe(Window(5.0, 1, 0, 1))

    assert throttle.limit == 4


def test_chats_leave_a_batch_a_quarter_and_in_a_full_engine_what_they_do_not_need() -> None:
    throttle = Throttle(256)
    for _ in range(30):
        throttle.observe(Engine(40, tells=True).window(throttle.limit))

    assert throttle.allowed(0) == throttle.limit
    assert throttle.allowed(1) == throttle.limit // 4
    assert throttle.allowed(38) == 2
    assert throttle.allowed(50) == 0


@pytest.mark.parametrize("slots", [4, 16, 64])
def test_a_busy_machine_whose_pace_jumps_does_not_keep_it_small(slots: int) -> None:
    for tells in (True, False):
        limits = settled(Engine(slots, tells=tells, noise=0.2), windows=400)

        assert sum(min(limit, slots) for limit in limits) / len(limits) >= 0.6 * slots
