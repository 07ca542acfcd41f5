"""Exchanges and queue against a fake daemon: what runs, what waits and why, and the ledger."""

from collections.abc import Sequence
from typing import Any

import pytest
from tests.fakes.daemon import FakeDaemon, engine, exchange, model, status
from tests.tui.conftest import Open, Terminal, rows_of, text_of
from textual.widgets import OptionList

from footplate_daemon import errors, wire
from footplate_tui.exchange_lines import (
    Seen,
    Wanted,
    in_order,
    stretches,
    table_head,
    table_line,
    time_bar,
    whole_lines,
    why_waiting,
)
from footplate_tui.screens.exchange import ReplayScreen, VariantScreen
from footplate_tui.screens.exchanges import AT_FIRST, ExchangesScreen
from footplate_tui.widgets.lines import Lines
from footplate_tui.widgets.rows import Rows

QWEN = "vllm/qwen3-8b"
WAITING: dict[str, Any] = {
    "outcome": "waiting",
    "variant": QWEN,
    "runtime": "vllm",
    "ttft_ms": None,
    "finish_reason": None,
    "tokens_per_second": None,
}


def texts(terminal: Terminal) -> list[str]:
    """What the texts of the screen on top say, each from its beginning to its end."""
    return ["\n".join(line.text for line in each.lines) for each in terminal.app.screen.query(Lines)]


def shown(terminal: Terminal) -> str:
    """All that the screen on top shows."""
    other = (text_of(widget) for widget in terminal.app.screen.query("*") if widget.display)
    return "\n".join([*rows_of(terminal), *texts(terminal), *other])


async def open_exchanges(terminal: Terminal) -> ExchangesScreen:
    await terminal.until_shown("built-in guide")
    await terminal.pilot.press("f6")
    screen = await terminal.until_on(ExchangesScreen)
    await terminal.until(lambda: "Asking" not in shown(terminal))
    return screen


@pytest.mark.parametrize("size", [(80, 24), (160, 48), (50, 12)])
async def test_what_runs_and_waits_is_on_top_and_why(
    size: tuple[int, int], daemon: FakeDaemon, open_terminal: Open
) -> None:
    await daemon.note_exchange()
    await daemon.note_exchange(**WAITING)
    await daemon.note_exchange(outcome="running")
    await daemon.show(
        daemon.now_status.model_copy(update={"queue": wire.Queue(waiting=1, by_variant={QWEN: 1})})
    )

    async with open_terminal(daemon, size=size) as terminal:
        await open_exchanges(terminal)
        await terminal.until(lambda: len([row for row in rows_of(terminal) if row]) == 3)

        for row, said in zip(rows_of(terminal), ("● 3 running", "◐ 2 waiting", "✓ 1 done"), strict=False):
            assert set(said.split()) <= set(row.split())
        assert "● 1 running   ◐ 1 waiting" in shown(terminal)
        await terminal.pilot.press("down")
        await terminal.until(lambda: "waits: llamacpp/guide answers what" in shown(terminal))


async def test_what_begins_and_ends_is_shown_while_the_highlight_stays(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    for _ in range(5):
        await daemon.note_exchange()

    async with open_terminal(daemon) as terminal:
        await open_exchanges(terminal)
        await terminal.until(lambda: rows_of(terminal)[0].startswith("✓ 5"))
        await terminal.pilot.press("down", "down")
        noted = await daemon.note_exchange(outcome="running")
        await terminal.until(lambda: rows_of(terminal)[0].startswith("● 6"))
        await daemon.change_exchange(noted.id, outcome="failed", error="It died.", hint="See: footplate logs")

        await terminal.until(lambda: rows_of(terminal)[0].startswith("✗ 6"))
        view = terminal.app.screen.query_one(Rows)
        assert rows_of(terminal)[view.highlighted or 0].startswith("✓ 3")


async def test_one_that_runs_is_cancelled_by_a_key_pressed_twice(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    await daemon.note_exchange(outcome="running")

    async with open_terminal(daemon) as terminal:
        await open_exchanges(terminal)
        await terminal.until(lambda: "running" in rows_of(terminal)[0])
        await terminal.pilot.press("c")
        await terminal.until(lambda: "Cancel exchange 1?" in shown(terminal))
        await terminal.pilot.press("escape")
        await terminal.until(lambda: "Cancel exchange 1?" not in shown(terminal))
        assert daemon.ledger[1].outcome == "running"
        await terminal.pilot.press("c", "c")

        await terminal.until(lambda: rows_of(terminal)[0].startswith("○ 1"))
        await terminal.pilot.press("c")
        await terminal.until(lambda: "Exchange 1 has ended." in shown(terminal))


async def test_the_list_is_narrowed_down_and_the_ledger_asked_for_more(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    await daemon.note_exchange(outcome="failed", error="out of memory", variant=QWEN, runtime="vllm")
    for _ in range(AT_FIRST + 10):
        await daemon.note_exchange()

    async with open_terminal(daemon) as terminal:
        await open_exchanges(terminal)
        await terminal.until(lambda: f"✓ {AT_FIRST + 11}" in rows_of(terminal)[0])
        await terminal.pilot.press("o", "o", "o")
        await terminal.until(lambda: rows_of(terminal)[0].startswith("✗ 1 "))
        assert daemon.exchanges_asked[-1].outcome == "failed"

        await terminal.pilot.press("escape", "u")
        await terminal.until(lambda: "only llamacpp" in shown(terminal))
        await terminal.pilot.press("u")
        await terminal.until(lambda: rows_of(terminal)[0].startswith("✗ 1 "))
        await terminal.pilot.press("escape", "slash", *"memory", "enter")
        await terminal.until(lambda: rows_of(terminal)[0].startswith("✗ 1 "))
        await terminal.pilot.press("escape", "slash", *"nowhere")
        await terminal.until(lambda: "No exchange is “nowhere”" in shown(terminal))


async def test_the_end_of_the_list_brings_older_ones(daemon: FakeDaemon, open_terminal: Open) -> None:
    for _ in range(AT_FIRST + 30):
        await daemon.note_exchange()

    async with open_terminal(daemon) as terminal:
        await open_exchanges(terminal)
        await terminal.until(lambda: rows_of(terminal)[0] != "")
        await terminal.pilot.press("end")
        await terminal.until(lambda: terminal.app.screen.query_one(Rows).row_count == AT_FIRST + 30)
        await terminal.pilot.press("end")

        await terminal.until(lambda: rows_of(terminal)[-1].startswith("✓ 1 "))


async def test_one_is_shown_whole_and_its_answer_copied(daemon: FakeDaemon, open_terminal: Open) -> None:
    await daemon.note_exchange(
        outcome="failed",
        error="The engine died \x1b[2J.",
        hint="See: footplate logs",
        request=wire.ExchangeBody(
            byte_count=9, kept=True, value={"messages": [{"role": "user", "content": "Why?\x1b]52;c;x\x07"}]}
        ),
        text="Because\x1b[2J.",
        reasoning="Hm.",
    )

    async with open_terminal(daemon) as terminal:
        await open_exchanges(terminal)
        await terminal.pilot.press("enter")
        await terminal.until(lambda: "Because␛[2J." in shown(terminal))
        text = shown(terminal)

        assert all(
            part in text for part in ("Why?␛]52;c;x␇", "Hm.", "The engine died ␛[2J.", "→ See: footplate")
        )
        assert "━ queue 0.10 s  ━ first token 0.30 s  ━ generation 1.0 s" in text
        await terminal.pilot.press("y")
        await terminal.until(lambda: terminal.app.clipboard == "Because␛[2J.")
        await terminal.pilot.press("escape")
        await terminal.until(lambda: isinstance(terminal.app.screen, ExchangesScreen))


@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
async def test_it_is_asked_again_elsewhere_and_both_answers_are_shown(
    size: tuple[int, int], daemon: FakeDaemon, open_terminal: Open
) -> None:
    daemon.catalog = [model("qwen3-8b", "vllm", "ollama")]
    await daemon.note_exchange(variant=QWEN, runtime="vllm", text="The first answer.")

    async with open_terminal(daemon, size=size) as terminal:
        await open_exchanges(terminal)
        await terminal.until(lambda: rows_of(terminal)[0] != "")
        await terminal.pilot.press("enter")
        await terminal.until(lambda: "The first answer." in shown(terminal))
        await terminal.pilot.press("r")
        choices = (await terminal.until_on(VariantScreen)).query_one(OptionList)
        await terminal.until(lambda: choices.option_count == 3)
        assert [option.id for option in choices.options] == ["ollama/qwen3-8b", QWEN, "llamacpp/guide"]
        await terminal.pilot.press("enter")
        await terminal.until(lambda: "The first answer." in shown(terminal))
        assert daemon.replayed == [(1, "ollama/qwen3-8b")]
        daemon.replay_allowed.set()

        await terminal.until(lambda: "Another answer." in shown(terminal))
        left, right = terminal.app.screen.query(Lines)
        assert (left.region.y == right.region.y) == (size[0] >= 120)


async def test_a_replay_that_is_refused_says_why_and_one_that_is_left_is_cancelled(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    await daemon.note_exchange(text="The first answer.")
    daemon.refuse_next(errors.Conflict("The request was not kept.", hint="Set keep_bodies."))

    async with open_terminal(daemon) as terminal:
        await open_exchanges(terminal)
        await terminal.until(lambda: rows_of(terminal)[0] != "")
        await terminal.pilot.press("r")
        choices = (await terminal.until_on(VariantScreen)).query_one(OptionList)
        await terminal.until(lambda: choices.option_count == 1)
        await terminal.pilot.press("enter")
        await terminal.until(lambda: isinstance(terminal.app.screen, ReplayScreen))
        daemon.replay_allowed.set()

        await terminal.until(lambda: "The request was not kept. Set keep_bodies." in shown(terminal))
        await terminal.pilot.press("escape")
        await terminal.until(lambda: isinstance(terminal.app.screen, ExchangesScreen))


async def test_an_empty_ledger_teaches_and_a_missing_daemon_is_told(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await open_exchanges(terminal)
        await terminal.until(lambda: "Nothing has passed the gateway yet." in shown(terminal))
        await daemon.go_down()
        await terminal.until(lambda: "footplate up" in shown(terminal))
        await daemon.note_exchange()
        await daemon.come_back()

        await terminal.until(lambda: rows_of(terminal)[0].startswith("✓ 1"))


async def test_the_list_is_not_drawn_anew_while_nothing_changes(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    await daemon.note_exchange()

    async with open_terminal(daemon) as terminal:
        screen = await open_exchanges(terminal)
        await terminal.until(lambda: rows_of(terminal)[0] != "")
        before = screen.query_one(Rows)._repaint_regions.copy()
        screen._go_on()

        assert screen.query_one(Rows)._repaint_regions == before


@pytest.mark.parametrize("width", [50, 77, 92, 110, 157, 200])
def test_rows_are_as_wide_as_the_list_whatever_is_in_them(width: int) -> None:
    seen = Seen(exchange(1, variant="vllm/漢字-" + "x" * 80, client="\x1b[2J" * 9, total_ms=4e6), 0.0)

    assert table_line(seen, 0.0, width).cell_length == table_head(width).cell_length == max(width, 0)


def test_times_of_what_is_under_way_go_on() -> None:
    waiting = Seen(exchange(1, outcome="waiting", queue_ms=1_000.0, total_ms=1_000.0), at=10.0)
    done = Seen(exchange(1), at=10.0)

    assert waiting.total_seconds(now=12.5) == 3.5
    assert waiting.queue_seconds(now=12.5) == 3.5
    assert done.total_seconds(now=99.0) == 1.4


def test_those_that_run_come_before_those_that_wait_and_then_the_newest() -> None:
    outcomes = ("done", "waiting", "running", "failed", "waiting")
    seen = [Seen(exchange(number, outcome=outcome), 0.0) for number, outcome in enumerate(outcomes, 1)]

    assert [each.exchange.id for each in in_order(seen)] == [3, 2, 5, 4, 1]


def switching_to(variant: str) -> wire.Status:
    step = wire.Step(name=wire.StepName.LOAD, started_at=1.0)
    switch = wire.Switch(id=1, variant=variant, started_at=1.0, steps=(step,), fraction=0.62, eta_seconds=9.0)
    return status().model_copy(update={"switch": switch})


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (switching_to(QWEN), "it is being loaded (load · 62% · about 9 s left)"),
        (switching_to("ollama/x"), "ollama/x is being loaded first (load · 62% · about 9 s left)"),
        (status(), "llamacpp/guide answers what it has first; then comes the switch"),
        (status(model="qwen3-8b", runtime="vllm"), "its engine is answering others"),
        (status().model_copy(update={"engines": (engine(QWEN, state="loading"),)}), "its engine is loading"),
        (None, "for its engine"),
    ],
)
def test_it_is_said_what_a_request_waits_for(now: wire.Status | None, why: str) -> None:
    assert why_waiting(QWEN, now) == why


@pytest.mark.parametrize(
    ("facts", "names"),
    [
        ({}, ["queue", "first token", "generation"]),
        (
            {"queue_ms": 9e3, "switch_ms": 8e3, "total_ms": 2e4},
            ["queue", "switch", "first token", "generation"],
        ),
        ({"ttft_ms": None, "queue_ms": 0.0}, ["answer"]),
        ({"ttft_ms": None, "queue_ms": None, "total_ms": None}, []),
    ],
)
def test_the_time_of_an_exchange_is_drawn_in_its_stretches(
    facts: dict[str, Any], names: Sequence[str]
) -> None:
    parts = stretches(exchange(1, **facts))

    assert [part.name for part in parts] == names
    assert len(time_bar(parts, 60).plain) == (60 if parts else 0)


def test_filters_hold_together() -> None:
    failed = exchange(1, outcome="failed", error="Out of memory", client="ci")

    assert Wanted("failed", "llamacpp", "MEMORY ci").holds(failed)
    assert not Wanted("failed", "vllm").holds(failed)
    assert not Wanted("under way").holds(failed)
    assert not Wanted(words="nowhere").holds(failed)


def test_a_body_that_was_not_kept_is_said_and_a_huge_one_is_cut() -> None:
    not_kept = "\n".join(line.text for line in whole_lines(exchange(1), 80))
    huge = whole_lines(exchange(1, text="x" * 300_000), 80)

    assert "not kept" in not_kept
    assert huge[-1].text.startswith("… 100,000 characters more")
