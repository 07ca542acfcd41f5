"""Every command once, where each is found, and Footplate's own colours."""

from typing import Any

import pytest
from tests.fakes.daemon import FakeDaemon
from tests.tui.conftest import Open, Terminal, text_of
from textual.color import Color
from textual.command import Command as PaletteLine
from textual.command import CommandList
from textual.screen import Screen

from footplate_tui.commands import COMMANDS, Place
from footplate_tui.palette import CUBE_AND_GREYS, FIRST, nearest, nearest_16
from footplate_tui.screens.chat import ChatScreen
from footplate_tui.screens.exchanges import ExchangesScreen
from footplate_tui.screens.gauges import GaugesScreen
from footplate_tui.screens.history import HistoryScreen
from footplate_tui.screens.logs import LogsScreen
from footplate_tui.screens.switcher import SwitcherScreen
from footplate_tui.theme import DARK, LIGHT, THEMES
from footplate_tui.widgets.status_line import BUSY_KEYS, IDLE_KEYS, compose_keys


def test_ids_and_keys_are_used_once() -> None:
    ids = [command.id for command in COMMANDS]
    keys = [(command.place, key) for command in COMMANDS for key in command.keys.split(",")]

    assert len(set(ids)) == len(ids)
    assert len(set(keys)) == len(keys)


def test_the_status_line_names_commands_that_exist() -> None:
    assert {*IDLE_KEYS, *BUSY_KEYS} <= {command.id for command in COMMANDS}


def test_the_status_line_never_cuts_a_word() -> None:
    words = {f"{command.shown} {command.word}" for command in COMMANDS}
    for width in range(120):
        line = str(compose_keys(COMMANDS, width))
        assert len(line) <= width
        assert all(part in words for part in line.split("   ") if part)


def test_our_themes_are_made_of_colours_of_the_palette() -> None:
    for theme in THEMES:
        named = [theme.primary, theme.secondary, theme.accent, theme.background, theme.surface, theme.panel]
        for value in [*named, *theme.variables.values()]:
            assert value
            assert Color.parse(value).rgb in CUBE_AND_GREYS


def test_a_colour_of_the_palette_is_its_own_nearest() -> None:
    assert nearest((95, 175, 255)) == 75
    assert nearest((28, 28, 28)) == 234
    assert all(nearest(rgb) >= FIRST for rgb in [(0, 0, 0), (1, 2, 3), (255, 255, 255)])


def test_in_sixteen_colours_states_keep_their_hue_and_words_their_contrast() -> None:
    for theme, hues in ((DARK, (10, 11, 9, 12)), (LIGHT, (2, 3, 1, 4))):
        named = [theme.success, theme.warning, theme.error, theme.primary]
        assert tuple(nearest_16(Color.parse(value or "").rgb) for value in named) == hues
        grounds = {nearest_16(Color.parse(value or "").rgb) for value in (theme.background, theme.panel)}
        words = (theme.foreground, theme.variables["muted"])
        assert not grounds & {nearest_16(Color.parse(value or "").rgb) for value in words}


async def test_the_palette_lists_every_command_of_the_screen_harmless_ones_first(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon, size=(120, 60)) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.pilot.press("ctrl+p")
        await terminal.until(lambda: bool(found(terminal)))
        in_chat = found(terminal)
        await terminal.pilot.press("escape", "f5")
        await terminal.until(lambda: isinstance(terminal.app.screen, LogsScreen))
        await terminal.pilot.press("ctrl+p")
        await terminal.until(lambda: bool(found(terminal)))
        in_logs = found(terminal)

    elsewhere = [command.title for command in COMMANDS if command.leads_elsewhere]
    assert in_chat[: len(elsewhere)] == elsewhere == in_logs[: len(elsewhere)]
    assert {command.title for command in COMMANDS if command.place is Place.CHAT} <= set(in_chat)
    assert {command.title for command in COMMANDS if command.place is Place.LOGS} <= set(in_logs)
    assert "Send" not in in_logs


async def test_a_command_of_the_palette_is_carried_out_where_it_belongs(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.pilot.press("f5")
        await terminal.until(lambda: isinstance(terminal.app.screen, LogsScreen))
        await terminal.pilot.press("ctrl+p", *"errors and w")
        await terminal.until(lambda: found(terminal)[:1] == ["Errors and warnings"])
        await terminal.pilot.press("enter")
        await terminal.until(lambda: isinstance(terminal.app.screen, LogsScreen))
        await terminal.until(lambda: "is an error or a warning" in empty(terminal))


@pytest.mark.parametrize("key", ["f5", "f6", "f4", "ctrl+o"])
async def test_from_every_page_one_goes_to_every_other(
    daemon: FakeDaemon, open_terminal: Open, key: str
) -> None:
    pages: dict[str, type[Screen[Any]]] = {
        "f5": LogsScreen,
        "f6": ExchangesScreen,
        "f4": GaugesScreen,
        "ctrl+o": HistoryScreen,
    }
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        for other, page in pages.items():
            await terminal.pilot.press(key)
            await terminal.until(lambda: isinstance(terminal.app.screen, pages[key]))

            await terminal.pilot.press(other)

            await terminal.until_on(ChatScreen if other == key else page)
            assert len(terminal.app.screen_stack) <= 3
            if other != key:
                await terminal.pilot.press(other)
                await terminal.until_on(ChatScreen)
        await terminal.pilot.press(key, "ctrl+r")
        await terminal.until(lambda: isinstance(terminal.app.screen, SwitcherScreen))


def found(terminal: Terminal) -> list[str]:
    """The titles that the palette lists."""
    lines = [option for listing in terminal.app.screen.query(CommandList) for option in listing.options]
    return [line.hit.text or "" for line in lines if isinstance(line, PaletteLine)]


def empty(terminal: Terminal) -> str:
    return "\n".join(text_of(each) for each in terminal.app.screen.query("Static.empty"))
