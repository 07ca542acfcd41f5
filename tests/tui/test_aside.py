"""The panel beside a wide chat: what runs, how the GPUs do, how fast the answers were."""

from typing import Any

from tests.fakes.daemon import FakeDaemon, answered, session
from tests.tui.conftest import Open, Terminal
from tests.tui.test_gauges import gpu, snapshot

from footplate_tui import aside
from footplate_tui.gauge_line import Steady
from footplate_tui.widgets.aside import Aside

WIDE = (160, 48)
WIDTH = 38


def panel(terminal: Terminal) -> Aside:
    return terminal.screen.query_one(Aside)


async def test_a_wide_chat_shows_what_runs_and_how_it_does(daemon: FakeDaemon, open_terminal: Open) -> None:
    daemon.gauges = snapshot(gpu())
    daemon.store(session("s1", turns=(answered("s1", 1, "First?", "1", tokens_per_second=80.0),)))

    async with open_terminal(daemon, size=WIDE) as terminal:
        await terminal.until(lambda: "SPEED OF THE ANSWERS" in panel(terminal).plain)
        await terminal.until(lambda: "GPU 0" in panel(terminal).plain)

        assert "● llamacpp/guide" in panel(terminal).plain
        assert "80.0 tok/s" in panel(terminal).plain


async def test_a_narrow_chat_has_no_panel_and_a_key_takes_it_away(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon, size=(120, 36)) as terminal:
        await terminal.until_shown("built-in guide")
        assert not panel(terminal).display

        await terminal.pilot.resize_terminal(*WIDE)
        await terminal.until(lambda: panel(terminal).display)
        await terminal.pilot.press("ctrl+l")
        await terminal.until(lambda: not panel(terminal).display)
    async with open_terminal(daemon, size=WIDE) as terminal:
        await terminal.until_shown("built-in guide")
        assert not panel(terminal).display


def test_figures_that_jitter_do_not_move_the_panel() -> None:
    steady = Steady()
    before = lines(steady, utilisation_percent=90, temperature_celsius=70, power_watts=200)

    calm = lines(steady, utilisation_percent=92, temperature_celsius=71, power_watts=206)
    moved = lines(steady, utilisation_percent=40, temperature_celsius=71, power_watts=206)

    assert calm == before
    assert moved != before


def test_answers_are_compared_by_who_gave_them() -> None:
    turns = [
        answered("s1", 1, "a", "b", model="big", runtime="vllm", tokens_per_second=50.0, ttft_seconds=0.1),
        answered("s1", 2, "a", "b", model="big", runtime="vllm", tokens_per_second=70.0, ttft_seconds=0.3),
        answered("s1", 3, "a", "b", model="big", runtime="ollama", tokens_per_second=20.0, ttft_seconds=None),
        answered("s1", 4, "a", "b", model="big", runtime="ollama", tokens_per_second=None),
    ]

    told = [line.plain for line in aside.answers_part(turns, WIDTH)]

    assert told == [
        "SPEED OF THE ANSWERS",
        "big @ ollama",
        "  20.0 tok/s · 1 answer",
        "big @ vllm",
        "  60.0 tok/s · first 0.20 s · 2 answers",
    ]


def test_a_low_panel_leaves_out_whole_parts() -> None:
    parts = [[aside.EMPTY] * 3, [aside.EMPTY] * 5, [aside.EMPTY] * 2]

    assert len(aside.joined(parts, 12)) == 12
    assert len(aside.joined(parts, 6)) == 6
    assert aside.joined(parts, 2) == [aside.EMPTY] * 2


def lines(steady: Steady, **figures: Any) -> list[str]:
    told = aside.gauges_part(snapshot(gpu(**figures)), None, WIDTH, steady)
    return [line.plain for line in told]
