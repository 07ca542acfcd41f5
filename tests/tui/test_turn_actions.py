"""Taking something out of an answer: copies, code, the editor, a fork, details, and what went wrong."""

import stat
from pathlib import Path

from tests.fakes.daemon import FakeDaemon, answered, session
from tests.tui.conftest import Open
from tests.tui.test_retry import choose
from textual.widgets import Static

from footplate_daemon import wire
from footplate_tui.code_blocks import code_blocks
from footplate_tui.screens.session_settings import SessionScreen
from footplate_tui.widgets.chips import Chips

CODE = "Do this:\n\n```python\nprint('one')\n```\n\n1. and\n\n   ```sh\n   ls -l\n   ```\n\nDone."


def one_turn(daemon: FakeDaemon, answer: str = "To be copied", **facts: object) -> None:
    daemon.store(session("s1", turns=(answered("s1", 1, "Q?", answer, **facts),)))


def test_code_is_found_wherever_it_stands() -> None:
    assert [(block.language, block.text.strip()) for block in code_blocks(CODE)] == [
        ("python", "print('one')"),
        ("sh", "ls -l"),
    ]


async def test_a_block_of_code_is_copied_by_its_number(daemon: FakeDaemon, open_terminal: Open) -> None:
    one_turn(daemon, CODE)

    async with open_terminal(daemon, environment={}) as terminal:
        await terminal.until_shown("Done.")
        await choose(terminal, "2")
        await terminal.until(lambda: terminal.app.clipboard.strip() == "ls -l")
        await choose(terminal, "1")
        await terminal.until(lambda: terminal.app.clipboard.strip() == "print('one')")


async def test_the_answer_is_copied(daemon: FakeDaemon, open_terminal: Open) -> None:
    one_turn(daemon)

    async with open_terminal(daemon, environment={}) as terminal:
        await terminal.until_shown("To be copied")
        await choose(terminal, "y")

        await terminal.until(lambda: terminal.app.clipboard == "To be copied")


def make_editor(folder: Path, line: str) -> dict[str, str]:
    """Give the environment of somebody whose editor does one thing with the file."""
    script = folder / "editor"
    script.write_text(f"#!/bin/sh\n{line}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return {"EDITOR": str(script)}


async def test_the_prompt_is_written_in_the_editor(
    daemon: FakeDaemon, open_terminal: Open, tmp_path: Path
) -> None:
    environment = make_editor(tmp_path, 'echo "and more" >> "$1"')

    async with open_terminal(daemon, environment=environment) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.pilot.press(*"begun ")
        await terminal.pilot.press("ctrl+g")

        await terminal.until(lambda: terminal.prompt.text == "begun and more")


async def test_the_answer_is_opened_in_the_editor(
    daemon: FakeDaemon, open_terminal: Open, tmp_path: Path
) -> None:
    one_turn(daemon)
    environment = make_editor(tmp_path, f'cp "$1" {tmp_path}/seen')

    async with open_terminal(daemon, environment=environment) as terminal:
        await terminal.until_shown("To be copied")
        await choose(terminal, "v")

        await terminal.until((tmp_path / "seen").exists)
        assert (tmp_path / "seen").read_text() == "To be copied"


async def test_an_editor_that_is_not_there_is_said(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon, environment={"EDITOR": "/nowhere/editor"}) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.pilot.press("ctrl+g")

        await terminal.until(lambda: "/nowhere/editor could not be used" in terminal.screen.notice)


async def test_a_fork_is_opened(daemon: FakeDaemon, open_terminal: Open) -> None:
    turns = (answered("s1", 1, "First?", "One."), answered("s1", 2, "Second?", "Two."))
    daemon.store(session("s1", turns=turns))

    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("Two.")
        await choose(terminal, "left", "f")
        await terminal.until(lambda: "Two." not in terminal.text)

        assert daemon.stored["s2"].forked_turn == 1
        await terminal.until_shown("One.")


async def test_details_come_and_go(daemon: FakeDaemon, open_terminal: Open) -> None:
    one_turn(daemon, request_id="req-42", preset="balanced", prompt_tokens=1234)

    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("To be copied")
        assert "req-42" not in terminal.text
        await choose(terminal, "i")
        await terminal.until_shown("request req-42 · variant llamacpp/guide · preset balanced")
        assert "prompt 1,234 tok" in terminal.text
        await choose(terminal, "i")

        await terminal.until(lambda: "req-42" not in terminal.text)


async def test_a_warning_stands_under_the_answer(daemon: FakeDaemon, open_terminal: Open) -> None:
    one_turn(daemon, warning="All tokens went into reasoning: raise max_tokens.")

    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("⚠ All tokens went into reasoning: raise max_tokens.")


async def test_the_diagnosis_of_an_answer_that_failed_is_shown(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    diagnosis = wire.Diagnosis(
        code="out_of_memory",
        cause="The model needs 9 GB and 4 GB are free.",
        evidence=("torch.OutOfMemoryError: \x1b[2J",),
        remedies=(wire.Remedy(id=1, title="Start it with less context", command="footplate switch x"),),
    )
    error = wire.TurnError(message="vllm/big did not start.", code="engine_failed", diagnosis=diagnosis)
    one_turn(daemon, "", state="failed", error=error, finish_reason=None)

    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("The model needs 9 GB and 4 GB are free.")

        assert "→ Start it with less context  $ footplate switch x" in terminal.text
        assert "\x1b" not in terminal.text


async def test_instructions_hold_for_the_session_that_begins_with_them(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.send("/system Answer in Polish.")
        await terminal.until(lambda: "holds for what is asked next" in terminal.screen.notice)
        assert daemon.asked == []
        await terminal.send("Hello?")
        await terminal.until(lambda: daemon.asked == ["Hello?"])

        assert daemon.stored["s1"].system == "Answer in Polish."


async def test_parameters_are_changed_for_the_open_session(daemon: FakeDaemon, open_terminal: Open) -> None:
    one_turn(daemon)

    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("To be copied")
        await terminal.pilot.press("f8")
        await terminal.until_on(SessionScreen)
        await terminal.pilot.press(*"Be brief.", "tab", *"0.5", "tab", "tab", *"12", "f8")
        await terminal.until(lambda: daemon.stored["s1"].system == "Be brief.")

        assert daemon.stored["s1"].parameters == {"temperature": 0.5, "max_tokens": 12}


async def test_a_field_that_is_no_number_is_said(daemon: FakeDaemon, open_terminal: Open) -> None:
    one_turn(daemon)

    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("To be copied")
        await terminal.pilot.press("f8")
        await terminal.until_on(SessionScreen)
        await terminal.pilot.press("tab", *"warm", "enter")
        news = terminal.app.screen.query_one(".news", Static)
        await terminal.until(lambda: "temperature: this is no number" in str(news.visual))
        await terminal.pilot.press("escape")

        await terminal.until(lambda: len(terminal.app.screen_stack) == 2)
        assert daemon.stored["s1"].parameters == {}


async def test_without_anything_to_show_there_are_no_chips(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")

        assert not terminal.screen.query_one(Chips).display
