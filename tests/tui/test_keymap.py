"""The keys a person chose: what is taken, what is refused and in which words, and where they are shown."""

from pathlib import Path

import pytest
from tests.fakes.daemon import FakeDaemon
from tests.tui.conftest import Open, text_of

from footplate_tui.commands import COMMANDS, Place
from footplate_tui.keymap import BORN_WITH, check, read, shown
from footplate_tui.screens.help import HelpScreen
from footplate_tui.screens.switcher import SwitcherScreen
from footplate_tui.widgets.status_line import StatusLine


def test_without_a_file_commands_have_the_keys_they_are_born_with(tmp_path: Path) -> None:
    assert read(tmp_path / "keys.toml") is BORN_WITH
    assert all(BORN_WITH.command(command.id) is command for command in COMMANDS)


def test_dotted_names_and_tables_are_the_same() -> None:
    assert check({"chat": {"stop": "ctrl+x"}}) == check({"chat.stop": " ctrl+x "})
    assert check({"chat": {"stop": "ctrl+x, alt+x"}}).chosen == {"chat.stop": "ctrl+x,alt+x"}


@pytest.mark.parametrize(
    ("identity", "value", "mistake"),
    [
        ("chat.stpo", "ctrl+x", "chat.stpo is no command. Did you mean chat.stop?"),
        ("chat.stop", "crtl+x", "chat.stop: crtl+x is no key. Did you mean ctrl+x?"),
        ("chat.stop", 5, 'chat.stop needs a key in quotes, like "ctrl+x".'),
        ("chat.stop", "ctrl+m", "chat.stop: terminals send ctrl+m as Enter; choose another key."),
        ("chat.stop", "x", "chat.stop: x could not be typed any more; choose a key with ctrl, or an F-key."),
        ("chat.stop", "ctrl+r", "chat.stop: ctrl+r is the key of model.switch (Models)."),
        ("chat.stop", "ctrl+q", "chat.stop: ctrl+q is the key of program.quit (Quit)."),
        ("switcher.plan", "w", "switcher.plan: w is the key of switcher.why (Why)."),
    ],
)
def test_what_cannot_be_is_told_and_left_out(identity: str, value: object, mistake: str) -> None:
    keymap = check({identity: value, "chat.copy": "ctrl+x"})

    assert keymap.mistakes == (f"keys.toml: {mistake}",)
    assert keymap.chosen == {"chat.copy": "ctrl+x"}


def test_two_commands_can_exchange_their_keys() -> None:
    keymap = check({"switcher.plan": "w", "switcher.why": "p"})

    assert not keymap.mistakes
    assert keymap.keys(Place.SWITCHER) == BORN_WITH.keys(Place.SWITCHER)


def test_of_two_that_want_one_key_both_are_told() -> None:
    keymap = check({"chat.copy": "ctrl+x", "chat.stop": "ctrl+x"})

    assert len(keymap.mistakes) == 2


def test_a_file_that_is_no_toml_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text("chat.stop = ctrl+x\n")

    assert "line 1" in read(tmp_path / "keys.toml").mistakes[0]


@pytest.mark.parametrize(
    ("keys", "reads"), [("ctrl+x,f2", "^x"), ("f10", "F10"), ("escape", "esc"), ("slash", "/"), ("p", "p")]
)
def test_how_a_key_reads(keys: str, reads: str) -> None:
    assert shown(keys) == reads


async def test_chosen_keys_work_and_are_shown_wherever_the_old_ones_were(
    tmp_path: Path, daemon: FakeDaemon, open_terminal: Open
) -> None:
    (tmp_path / "keys.toml").write_text('model.switch = "ctrl+s"\n')

    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        assert "^s models" in str(terminal.screen.query_one(StatusLine).render())
        await terminal.pilot.press("f1")
        await terminal.until(lambda: isinstance(terminal.app.screen, HelpScreen))
        listing = text_of(terminal.app.screen.query_one("Static"))
        assert "^s      Choose what answers" in listing
        assert "Models (^s)" in listing
        await terminal.pilot.press("escape")
        await terminal.pilot.press("ctrl+r")
        assert terminal.screen.is_active

        await terminal.pilot.press("ctrl+s")

        await terminal.until(lambda: isinstance(terminal.app.screen, SwitcherScreen))


async def test_what_is_wrong_with_the_keys_is_said_at_the_start(
    tmp_path: Path, daemon: FakeDaemon, open_terminal: Open
) -> None:
    (tmp_path / "keys.toml").write_text('chat.stpo = "ctrl+x"\n')

    async with open_terminal(daemon) as terminal:
        await terminal.until(
            lambda: any("Did you mean chat.stop?" in toast.message for toast in terminal.app._notifications)
        )


async def test_the_mouse_is_given_away_and_that_is_remembered(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        assert terminal.app.remembered.mouse
        await terminal.pilot.press("f12")
        await terminal.until(lambda: not terminal.app.remembered.mouse)

        await terminal.pilot.press("f12")

        await terminal.until(lambda: terminal.app.remembered.mouse)
