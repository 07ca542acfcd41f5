"""The logs against a fake daemon: following, going back, filtering, searching, and the cause of a failure."""

import json

import pytest
from tests.fakes.daemon import FakeDaemon
from tests.tui.conftest import Open, Terminal, text_of

from footplate_daemon import wire
from footplate_tui.log_lines import Level, level_of, proofs, proves, read, readable
from footplate_tui.screens.logs import LogsScreen
from footplate_tui.widgets.lines import Line, Lines

QWEN_LOG = "vllm-qwen3-8b"
PROOF = "ValueError: No available memory for the cache blocks."


def rows(terminal: Terminal) -> list[str]:
    """The rows of the log as they are on the screen; an empty one while there are none."""
    lines = terminal.app.screen.query_one(Lines)
    height = lines.size.height if lines.display else 0
    return [lines.render_line(y).text.rstrip() for y in range(height)] or [""]


def shown(terminal: Terminal) -> str:
    """All that the screen shows."""
    other = (text_of(widget) for widget in terminal.app.screen.query("*") if widget.display)
    return "\n".join([*rows(terminal), *other])


async def open_logs(terminal: Terminal, log: str = "daemon") -> LogsScreen:
    await terminal.until_shown("built-in guide")
    await terminal.pilot.press("f5")
    await terminal.until(lambda: isinstance(terminal.app.screen, LogsScreen))
    screen = terminal.app.screen
    assert isinstance(screen, LogsScreen)
    await terminal.until(lambda: bool(screen.chosen))
    while screen.chosen != log:
        await terminal.pilot.press("tab")
    return screen


def own(message: str, level: str = "INFO", **facts: object) -> str:
    return json.dumps({"time": 1.7e9, "level": level, "logger": "x", "message": message, **facts})


@pytest.mark.parametrize("size", [(80, 24), (160, 48), (50, 12)])
async def test_the_log_is_shown_readable_and_followed(
    size: tuple[int, int], daemon: FakeDaemon, open_terminal: Open
) -> None:
    await daemon.write("daemon", *(own(f"line {number}") for number in range(3_000)))

    async with open_terminal(daemon, size=size) as terminal:
        await open_logs(terminal)
        await terminal.until(lambda: "INFO    line 2999" in rows(terminal)[-1])
        await daemon.write("daemon", own("it broke", "ERROR", engine="llamacpp-guide"))

        await terminal.until(lambda: "ERROR   it broke" in rows(terminal)[-1])
        assert "1 error" in shown(terminal)
        assert daemon.pages_asked == []


async def test_earlier_lines_come_when_the_user_goes_up_to_them(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    await daemon.write("daemon", *(own(f"line {number};") for number in range(2_500)))

    async with open_terminal(daemon) as terminal:
        screen = await open_logs(terminal)
        await terminal.until(lambda: "line 2499;" in shown(terminal))
        for held in (2_000, 2_500):
            await terminal.pilot.press("home")
            await terminal.until(lambda held=held: len(screen.query_one(Lines).lines) == held)  # type: ignore[misc]
        await terminal.pilot.press("home")

        await terminal.until(lambda: "line 0;" in rows(terminal)[0])
        assert [before for _, before in daemon.pages_asked] == ["1500", "500"]


async def test_the_log_of_the_active_engine_comes_first_and_others_are_a_key_away(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    await daemon.write("daemon", own("the daemon's"))
    await daemon.write("llamacpp-guide", "the engine's")
    daemon.now_status = daemon.now_status.model_copy(
        update={
            "engines": tuple(
                e.model_copy(update={"name": "llamacpp-guide"}) for e in daemon.now_status.engines
            )
        }
    )

    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.pilot.press("f6", "f5")
        await terminal.until(lambda: "the engine's" in shown(terminal))
        await terminal.pilot.press("1")
        await terminal.until(lambda: "the daemon's" in shown(terminal))
        await terminal.pilot.press("shift+tab")
        await terminal.until(lambda: "the engine's" in shown(terminal))
        await terminal.pilot.press("2")

        await terminal.until(lambda: "No request was made yet" in shown(terminal))


async def test_a_filter_shows_only_lines_with_its_words_also_of_those_that_come(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    await daemon.write(QWEN_LOG, *(f"shard {number} loaded" for number in range(1_500)), "odd one")

    async with open_terminal(daemon) as terminal:
        await open_logs(terminal, QWEN_LOG)
        await terminal.until(lambda: "odd one" in rows(terminal))
        await terminal.pilot.press("slash", *"loaded 77")
        await terminal.until(lambda: "odd one" not in rows(terminal))
        await terminal.pilot.press("enter")
        await daemon.write(QWEN_LOG, "shard 77000 loaded", "another")
        await terminal.until(lambda: "shard 77000 loaded" in rows(terminal))
        assert "another" not in rows(terminal)

        await terminal.pilot.press("escape")
        await terminal.until(lambda: "another" in rows(terminal))
        await terminal.pilot.press("escape")
        await terminal.until(lambda: terminal.screen.is_active)


async def test_nothing_found_says_so_and_how_to_see_all(daemon: FakeDaemon, open_terminal: Open) -> None:
    await daemon.write("daemon", own("fine"))

    async with open_terminal(daemon) as terminal:
        await open_logs(terminal)
        await terminal.pilot.press("e")
        await terminal.until(lambda: "No line is an error or a warning" in shown(terminal))
        await terminal.pilot.press("e", "slash", *"zz")

        await terminal.until(lambda: "No line contains “zz”" in shown(terminal))


async def test_a_search_finds_lines_far_back_and_goes_on_below_and_above(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    lines = [f"line {number}" for number in range(3_500)]
    lines[10] = lines[2_000] = "here is the Needle"
    await daemon.write(QWEN_LOG, *lines)

    async with open_terminal(daemon) as terminal:
        screen = await open_logs(terminal, QWEN_LOG)
        view = screen.query_one(Lines)
        await terminal.until(lambda: "line 3499" in rows(terminal))
        await terminal.pilot.press("s", *"needle", "enter")
        await terminal.until(lambda: "here is the Needle" in rows(terminal))
        assert view.lines[view.cursor + 1].text == "line 2001"

        await terminal.pilot.press("N")
        await terminal.until(lambda: view.lines[view.cursor + 1].text == "line 11")
        await terminal.pilot.press("n")
        await terminal.until(lambda: view.lines[view.cursor + 1].text == "line 2001")
        await terminal.pilot.press("n")

        await terminal.until(lambda: "“needle” is not below." in shown(terminal))


async def test_the_cause_of_the_last_failure_is_a_key_away(daemon: FakeDaemon, open_terminal: Open) -> None:
    await daemon.write(
        QWEN_LOG,
        "starting",
        f"(EngineCore pid=7) ERROR \x1b[31m{PROOF}\x1b[0m",
        *(f"later {number}" for number in range(1_500)),
    )
    await daemon.begin_switch("vllm/qwen3-8b")
    await daemon.fail_switch(wire.Diagnosis(code="x", cause="Too little memory.", evidence=(PROOF,)))

    async with open_terminal(daemon) as terminal:
        screen = await open_logs(terminal, "daemon")
        await terminal.pilot.press("c")

        await terminal.until(lambda: f"(EngineCore pid=7) ERROR {PROOF}"[:77] in rows(terminal))
        assert screen.chosen == QWEN_LOG
        assert "vllm/qwen3-8b: Too little memory." in shown(terminal)


async def test_without_a_failure_it_says_so(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon) as terminal:
        await open_logs(terminal)
        await terminal.pilot.press("c")

        await terminal.until(lambda: "No switch has failed of late." in shown(terminal))


async def test_selected_lines_are_copied(daemon: FakeDaemon, open_terminal: Open) -> None:
    await daemon.write(QWEN_LOG, "one", "two", "three")

    async with open_terminal(daemon) as terminal:
        await open_logs(terminal, QWEN_LOG)
        await terminal.until(lambda: "three" in rows(terminal))
        await terminal.pilot.press("space", "up", "y")

        await terminal.until(lambda: terminal.app.clipboard == "two\nthree")


async def test_what_came_while_the_line_was_cut_is_there_once(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    await daemon.write(QWEN_LOG, "one")

    async with open_terminal(daemon) as terminal:
        screen = await open_logs(terminal, QWEN_LOG)
        await terminal.until(lambda: "one" in rows(terminal))
        await daemon.go_down()
        await terminal.until(lambda: "footplate up" in shown(terminal))
        await daemon.write(QWEN_LOG, "two")
        await daemon.come_back()
        await terminal.until(lambda: "two" in rows(terminal))

        assert [line.text for line in screen.query_one(Lines).lines] == ["one", "two"]


async def test_hostile_and_huge_lines_are_only_text(daemon: FakeDaemon, open_terminal: Open) -> None:
    await daemon.write(QWEN_LOG, "漢" * 100_000, "x" * 200_000, "\x1b]52;c;aGk=\x07\x1b[2J\x9b2J \u202eevil")

    async with open_terminal(daemon) as terminal:
        await open_logs(terminal, QWEN_LOG)
        await terminal.until(lambda: "␛]52;c;aGk=␇␛[2J<U+009B>2J <U+202E>evil" in rows(terminal))
        await terminal.pilot.press("w", "pageup", "pageup", "home")

        await terminal.until(lambda: rows(terminal)[0].startswith("漢漢"))


async def test_the_same_key_goes_back(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon) as terminal:
        await open_logs(terminal)
        await terminal.pilot.press("f5")

        await terminal.until(lambda: terminal.screen.is_active)


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("(EngineCore pid=1) ERROR 11-20 12:00:00 [core.py:1] no", Level.ERROR),
        ("torch.OutOfMemoryError: CUDA out of memory.", Level.ERROR),
        ("0.00.038.636 W srv          init: chat template", Level.WARNING),
        ("0.00.038.636 E srv          load: no", Level.ERROR),
        ("time=2026-01-01 level=WARN source=x.go:1", Level.WARNING),
        ("llama_model_load: error: no such file", Level.ERROR),
        ("/x.py:3: UserWarning: odd", Level.WARNING),
        ("0.00.069.001 I slot print_timing: no errors", Level.PLAIN),
        ("INFO: 200 OK", Level.PLAIN),
    ],
)
def test_errors_and_warnings_of_every_runtime_are_known(text: str, level: Level) -> None:
    assert level_of(text) is level


def test_our_own_lines_are_written_for_people_with_their_traces_below() -> None:
    first, *trace = read("daemon", [own("failed", "ERROR", exc_info="Traceback:\n  File x\nBad: no")])

    assert first.text.endswith("ERROR   failed")
    assert first.level is Level.ERROR
    assert [line.text for line in trace] == ["Traceback:", "  File x", "Bad: no"]
    assert read("daemon", ["no JSON"])[0].text == "no JSON"
    assert [line.level for line in read("access", ['{"status": 500}', '{"status": 404}', "no"])] == [2, 1, 0]


def test_of_a_bar_that_was_written_over_itself_the_last_is_shown() -> None:
    assert readable("10%\r50%\r\x1b[32m100%\x1b[0m\r") == "100%"


def test_a_shortened_proof_is_found() -> None:
    (proof,) = proofs(["a long line that was cut…", "short"])

    assert proves(proof, Line("before a long line that was cut here"))
