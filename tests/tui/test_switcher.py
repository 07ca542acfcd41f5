"""The switcher against a fake daemon: what there is, how a switch goes, and what helps when it fails."""

import pytest
from tests.fakes.daemon import GUIDE, FakeDaemon, engine, model
from tests.tui.conftest import Open, Terminal, text_of
from textual import events
from textual.widgets import Input, OptionList

from footplate_daemon import errors, wire
from footplate_tui.screens.failure import FailureScreen
from footplate_tui.screens.switcher import SwitcherScreen
from footplate_tui.widgets.header import Header

QWEN = "vllm/qwen3-8b"
TOO_BIG = wire.Diagnosis(
    code="kv_cache_too_small",
    cause="The KV cache does not fit into the GPU's memory.",
    evidence=("ValueError: \x1b[31mNo available memory\x1b[0m for the cache blocks.",),
    remedies=(
        wire.Remedy(id=1, title="Use the preset low-vram", variant=QWEN, preset="low-vram"),
        wire.Remedy(id=2, title="Use ollama/qwen3-8b instead", variant="ollama/qwen3-8b"),
        wire.Remedy(id=3, title="End process 4711", applies=False, command="kill 4711"),
    ),
)


@pytest.fixture
def daemon() -> FakeDaemon:
    daemon = FakeDaemon()
    daemon.catalog = [
        model(
            "qwen3-8b",
            "vllm",
            "ollama",
            on_disk=True,
            size_bytes=4_900_000_000,
            context=4096,
            last_load_seconds=31.2,
            memory_bytes=9_100_000_000,
        ),
        model("gemma-3-4b", "llamacpp", on_disk=False),
    ]
    return daemon


def shown(terminal: Terminal) -> str:
    """All that the screen on top shows."""
    return "\n".join(text_of(widget) for widget in terminal.app.screen.query("*") if widget.display)


async def open_switcher(terminal: Terminal) -> SwitcherScreen:
    await terminal.until_shown("built-in guide")
    await terminal.pilot.press("ctrl+r")
    await terminal.until(lambda: QWEN in shown(terminal))
    screen = terminal.app.screen
    assert isinstance(screen, SwitcherScreen)
    return screen


@pytest.mark.parametrize("size", [(80, 24), (160, 48), (60, 16)])
async def test_every_variant_is_a_row_with_its_figures(
    size: tuple[int, int], daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon, size=size) as terminal:
        screen = await open_switcher(terminal)

        lines = text_of(screen.query_one(OptionList)).splitlines()

        assert "● llamacpp/guide" in lines[0]
        assert "active" in lines[0]
        assert all(part in lines[1] for part in ("○", QWEN, "4.9 GB", "4,096"))
        assert ("demonstration" in lines[0]) == (size[0] >= 80)
        assert ("31.2 s" in lines[1]) == (size[0] >= 80)
        assert ("9.1 GB" in lines[1]) == (size[0] >= 100)
        assert "not here" in lines[3]
        assert all(len(line) <= size[0] for line in lines)
        assert screen.query_one("KeyLine").region.bottom < size[1]


async def test_typing_filters_and_escape_takes_the_filter_away(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await open_switcher(terminal)
        await terminal.pilot.press(*"qwe")
        await terminal.until(lambda: GUIDE not in shown(terminal))
        assert "ollama/qwen3-8b" in shown(terminal)
        await terminal.pilot.press(*"nothing")
        await terminal.until(lambda: "Nothing is called “qwenothing”" in shown(terminal))
        await terminal.pilot.press("escape")

        await terminal.until(lambda: GUIDE in shown(terminal))

        await terminal.pilot.press("escape")
        await terminal.until(lambda: terminal.screen.is_active)


async def test_a_name_that_begins_with_a_key_is_filtered_after_a_slash(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    daemon.catalog.append(model("phi-4", "vllm"))

    async with open_terminal(daemon) as terminal:
        await open_switcher(terminal)
        await terminal.pilot.press("slash", *"phi")

        await terminal.until(lambda: QWEN not in shown(terminal) and "vllm/phi-4" in shown(terminal))


async def test_enter_switches_and_the_progress_is_shown_until_it_is_active(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await open_switcher(terminal)
        await terminal.pilot.press("down", "enter")
        await terminal.until(lambda: "switching to vllm/qwen3-8b" in shown(terminal))
        await daemon.go_on(
            steps=(
                wire.Step(name=wire.StepName.STOP, started_at=100.0, seconds=0.61),
                wire.Step(name=wire.StepName.LOAD, started_at=100.6),
            ),
            fraction=0.62,
            eta_seconds=3.1,
            log_tail=("Loading \x1b[2Jsafetensors",),
        )
        await terminal.until(lambda: "62% · about 3 s left" in shown(terminal))
        assert "✓ stop" in shown(terminal)
        assert "0.61 s" in shown(terminal)
        assert "◐ load" in shown(terminal)
        assert "Loading ␛[2Jsafetensors" in shown(terminal)
        await daemon.complete()

        await terminal.until(lambda: terminal.screen.is_active)

        assert terminal.screen.notice == "vllm/qwen3-8b is active (31.2 s)."
        assert "● qwen3-8b @ vllm" in str(terminal.screen.query_one(Header).render())


async def test_a_closed_switcher_leaves_the_progress_in_the_status_line_and_the_prompt_free(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await open_switcher(terminal)
        await terminal.pilot.press("down", "enter")
        await terminal.until(lambda: bool(daemon.switched))
        await terminal.pilot.press("ctrl+r")
        await daemon.go_on(fraction=0.5, eta_seconds=2.0)

        await terminal.until(lambda: "━━━━━─────" in terminal.screen.standing)

        assert "vllm/qwen3-8b: stop" in terminal.screen.standing
        assert "about 2 s left" in terminal.screen.standing
        await terminal.send("Are you there yet?")
        await terminal.until(lambda: daemon.asked == ["Are you there yet?"])
        await daemon.complete()
        await terminal.until(lambda: terminal.screen.standing == "")


@pytest.mark.parametrize("key", ["escape", "c"])
async def test_a_switch_can_be_cancelled_and_what_was_active_comes_back(
    key: str, daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await open_switcher(terminal)
        await terminal.pilot.press("down", "enter")
        await terminal.until(lambda: "switching to" in shown(terminal))
        await terminal.pilot.press(key)

        await terminal.until(lambda: terminal.screen.notice == f"The switch to {QWEN} was cancelled.")

        assert daemon.switched[0].outcome == "cancelled"
        assert daemon.now_status.active == GUIDE


async def test_a_failed_switch_says_why_and_a_key_applies_what_helps(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await open_switcher(terminal)
        await terminal.pilot.press("down", "enter")
        await terminal.until(lambda: bool(daemon.switched))
        await daemon.fail_switch(TOO_BIG)
        await terminal.until(lambda: isinstance(terminal.app.screen, FailureScreen))
        await terminal.until(lambda: "llamacpp/guide is active." in shown(terminal))
        assert "The KV cache does not fit" in shown(terminal)
        assert "ValueError: ␛[31mNo available memory" in shown(terminal)
        assert "$ kill 4711" in shown(terminal)
        await terminal.pilot.press("2")

        await terminal.until(lambda: daemon.applied == [(1, 2)])

        await terminal.until(lambda: "switching to ollama/qwen3-8b" in shown(terminal))


async def test_what_only_the_user_can_do_is_copied(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon, environment={}) as terminal:
        await open_switcher(terminal)
        await terminal.pilot.press("down", "enter")
        await terminal.until(lambda: bool(daemon.switched))
        await daemon.fail_switch(TOO_BIG)
        await terminal.until_on(FailureScreen)
        await terminal.pilot.press("end", "y")

        await terminal.until(lambda: terminal.app.clipboard == "kill 4711")

        assert daemon.applied == []
        await terminal.pilot.press("escape", "escape")
        await terminal.until(lambda: terminal.screen.is_active)


async def test_somebody_elses_failure_is_pointed_to_and_never_takes_the_keys(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        await daemon.begin_switch(QWEN)
        await terminal.until(lambda: QWEN in terminal.screen.standing)
        await daemon.fail_switch(TOO_BIG)
        await terminal.until(lambda: "did not start: ^r says why" in terminal.screen.standing)
        assert terminal.screen.is_active
        await terminal.pilot.press("ctrl+r")

        await terminal.until(lambda: isinstance(terminal.app.screen, FailureScreen))

        assert terminal.screen.standing == ""


async def test_why_a_variant_failed_is_shown_again_from_its_row(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    await daemon.begin_switch(QWEN)
    await daemon.fail_switch(TOO_BIG)

    async with open_terminal(daemon) as terminal:
        await open_switcher(terminal)
        await terminal.pilot.press("down")
        await terminal.until(lambda: "✗ The KV cache does not fit" in shown(terminal))
        await terminal.pilot.press("w")

        await terminal.until(lambda: isinstance(terminal.app.screen, FailureScreen))


async def test_a_question_that_failed_because_its_engine_did_shows_what_helps(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.send("Are you there?")
        await terminal.until(lambda: len(daemon.asked) == 1)
        await daemon.begin_switch(GUIDE, reason="request")
        await daemon.fail_switch(TOO_BIG)
        daemon.switched.pop()
        await daemon.fail("llamacpp/guide does not start.", "Use the preset low-vram")

        await terminal.until(lambda: isinstance(terminal.app.screen, FailureScreen))

        assert "✗ llamacpp/guide does not start." in terminal.text


async def test_a_plan_is_shown_and_nothing_is_done(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon) as terminal:
        await open_switcher(terminal)
        await terminal.pilot.press("down", "p")

        await terminal.until(lambda: "stops   llamacpp/guide" in shown(terminal))

        assert "needs   9.1 GB of 8.0 GB free · does not fit" in shown(terminal)
        assert "takes   about 31.0 s" in shown(terminal)
        assert "runs    vllm serve vllm/qwen3-8b" in shown(terminal)
        assert daemon.switched == []


async def test_an_engine_is_stopped_by_the_second_press(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon) as terminal:
        await open_switcher(terminal)
        await terminal.pilot.press("s")
        await terminal.until(lambda: "Stop llamacpp/guide?" in shown(terminal))
        assert daemon.stopped == []
        await terminal.pilot.press("s")

        await terminal.until(lambda: daemon.stopped == [GUIDE])


async def test_moving_on_takes_the_question_back(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon) as terminal:
        await open_switcher(terminal)
        await terminal.pilot.press("s", "down", "s")

        await terminal.until(lambda: f"{QWEN} does not run." in shown(terminal))

        assert daemon.stopped == []


async def test_a_refusal_is_said_in_its_place(daemon: FakeDaemon, open_terminal: Open) -> None:
    daemon.refuse_next(errors.Unavailable("vLLM is not installed.", hint="Run: footplate env install vllm"))

    async with open_terminal(daemon) as terminal:
        await open_switcher(terminal)
        await terminal.pilot.press("down", "enter")

        await terminal.until(lambda: "✗ vLLM is not installed." in shown(terminal))

        assert "footplate env install vllm" in shown(terminal)


async def test_without_a_daemon_it_says_how_to_start_one_and_fills_when_it_is_there(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    await daemon.go_down()

    async with open_terminal(daemon) as terminal:
        await terminal.until(lambda: not terminal.screen.is_connected)
        await terminal.pilot.press("ctrl+r")
        await terminal.until(lambda: "footplate up" in shown(terminal))
        await terminal.pilot.press("down", "enter", "p", "s", "w", "c")
        await daemon.come_back()

        await terminal.until(lambda: QWEN in shown(terminal))


async def test_with_nothing_but_the_guide_it_says_where_models_go(open_terminal: Open) -> None:
    async with open_terminal(FakeDaemon()) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.pilot.press("ctrl+r")

        await terminal.until(lambda: "Put a GGUF file into the models folder" in shown(terminal))


async def test_keys_typed_ahead_choose_the_row_they_lead_to(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon) as terminal:
        screen = await open_switcher(terminal)
        for key in ("down", "down", "enter"):
            terminal.app.post_message(events.Key(key, None))

        await terminal.until(lambda: bool(daemon.switched))

        assert daemon.switched[0].variant == "ollama/qwen3-8b"
        assert screen.is_active


async def test_the_mouse_switches_too(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon) as terminal:
        await open_switcher(terminal)
        await terminal.pilot.click(OptionList, offset=(10, 2))

        await terminal.until(lambda: [switch.variant for switch in daemon.switched] == ["ollama/qwen3-8b"])


async def test_pinned_and_services_are_marked(daemon: FakeDaemon, open_terminal: Open) -> None:
    daemon.now_status = daemon.now_status.model_copy(
        update={
            "engines": (*daemon.now_status.engines, engine(QWEN, pinned=True)),
            "services": (engine("llamacpp/gemma-3-4b"),),
        }
    )

    async with open_terminal(daemon) as terminal:
        await open_switcher(terminal)

        lines = text_of(terminal.app.screen.query_one(OptionList)).splitlines()

        assert "loaded pinned" in lines[1]
        assert "service" in lines[3]


async def test_the_active_variant_is_highlighted_at_first(daemon: FakeDaemon, open_terminal: Open) -> None:
    daemon.now_status = daemon.now_status.model_copy(
        update={"active": "ollama/qwen3-8b", "engines": (engine("ollama/qwen3-8b"),)}
    )

    async with open_terminal(daemon) as terminal:
        await terminal.until(lambda: terminal.screen.status is not None)
        await terminal.pilot.press("ctrl+r")
        await terminal.until(lambda: isinstance(terminal.app.screen, SwitcherScreen))

        table = terminal.app.screen.query_one(OptionList)
        await terminal.until(lambda: table.highlighted is not None)
        await terminal.until(lambda: table.options[table.highlighted or 0].id == "ollama/qwen3-8b")


@pytest.mark.parametrize("typed", ["/sps", "llamacpp/spc"])
async def test_a_word_that_comes_in_one_piece_is_typed_not_obeyed(
    daemon: FakeDaemon, open_terminal: Open, typed: str
) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.pilot.press("ctrl+r")
        await terminal.until(lambda: isinstance(terminal.app.screen, SwitcherScreen))
        await terminal.until(lambda: bool(terminal.app.screen.query_one(OptionList).option_count))

        for letter in typed:
            key = "slash" if letter == "/" else letter
            terminal.app.post_message(events.Key(key, letter))

        wanted = typed.removeprefix("/")
        await terminal.until(lambda: terminal.app.screen.query_one(Input).value == wanted)
        assert isinstance(terminal.app.screen, SwitcherScreen)
