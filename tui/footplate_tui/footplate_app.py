"""The terminal program: one chat screen, themes, the clipboard, and the line to the daemon.

The daemon's client is opened after the first picture: its imports take longer than Textual's start.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.app import App, SystemCommand
from textual.binding import BindingType
from textual.filter import LineFilter
from textual.screen import Screen

from footplate_tui import commands, theme
from footplate_tui.remembered import Remembered
from footplate_tui.screens.chat import ChatScreen
from footplate_tui.terminal import ClipboardRoute, Colours, clipboard_route, load_tmux_buffer

if TYPE_CHECKING:
    from footplate_tui.conversation import Daemon

TOAST_SECONDS = 3.0


class FootplateApp(App[None]):
    """Give it a way to open a daemon and a folder to remember things in."""

    TITLE = "footplate"
    CSS_PATH: ClassVar[list[str]] = [  # type: ignore[assignment]  # the base allows None
        "footplate_app.tcss",
        "widgets/header.tcss",
        "widgets/status_line.tcss",
        "widgets/prompt.tcss",
        "widgets/transcript.tcss",
        "widgets/question.tcss",
        "widgets/answer.tcss",
        "widgets/reasoning.tcss",
        "widgets/welcome.tcss",
        "widgets/switch_progress.tcss",
        "screens/help.tcss",
        "screens/switcher.tcss",
        "screens/failure.tcss",
    ]
    BINDINGS: ClassVar[list[BindingType]] = commands.bindings(commands.Place.PROGRAM)
    ENABLE_COMMAND_PALETTE = True
    COMMAND_PALETTE_BINDING = "ctrl+backslash"
    PAUSE_GC_ON_SCROLL = True

    def __init__(
        self,
        connect: Callable[[], Daemon],
        remembered: Remembered,
        *,
        place: str = "",
        environment: Mapping[str, str] | None = None,
        colours: Colours = Colours.TRUECOLOR,
    ) -> None:
        """`connect` opens the daemon's client (in a thread); `place` is `user@host`."""
        super().__init__()
        for own in theme.THEMES:
            self.register_theme(own)
        self.theme = remembered.theme if remembered.theme in self.available_themes else theme.DARK_NAME
        self.place = place
        self.remembered = remembered
        self._connect = connect
        self._environment = environment or {}
        self._daemon: asyncio.Task[Daemon] | None = None
        self._reduce_colours = colours is Colours.PALETTE
        self._palette_filter: list[LineFilter] = []

    def on_mount(self) -> None:
        self.theme_changed_signal.subscribe(self, lambda chosen: self.remembered.keep_theme(chosen.name))
        self.push_screen(ChatScreen())
        # What is there now stays for good: the collector need not look at it again.
        gc.freeze()

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """What our styles use and other themes do not have."""
        return {name: value for name, value in theme.DARK.variables.items() if name in theme.OWN_VARIABLES}

    async def daemon(self) -> Daemon:
        """Give the client; it is opened once, whoever asks first."""
        if self._daemon is None:
            self._daemon = asyncio.create_task(asyncio.to_thread(self._connect), name="open the client")
        # Several workers wait for it: one that is cancelled must not take the client from the others.
        return await asyncio.shield(self._daemon)

    async def on_unmount(self) -> None:
        if self._daemon:
            await (await self._daemon).aclose()

    def get_line_filters(self) -> list[LineFilter]:
        """Textual's, and ours for terminals that have 256 colours."""
        if self._reduce_colours and not self._palette_filter:
            from footplate_tui.palette import Nearest256  # noqa: PLC0415 -- only where it is needed

            self._palette_filter = [Nearest256()]
        return [*super().get_line_filters(), *self._palette_filter]

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The palette lists our commands, each with its key, and Textual's choice of themes."""
        for command in commands.in_palette():
            yield SystemCommand(
                f"{command.title}  ({command.shown})",
                command.explanation,
                partial(self._carry_out, screen, command),
            )
        yield SystemCommand("Theme…", "Choose among all themes.", self.action_change_theme)

    def _carry_out(self, screen: Screen[object], command: commands.Command) -> None:
        target = screen if command.place is commands.Place.CHAT else self
        target.post_message(command.message())

    def action_command(self, identity: str) -> None:
        self.post_message(commands.BY_ID[identity].message())

    def on_light_or_dark_wanted(self) -> None:
        self.theme = theme.other(self.theme)

    def on_palette_wanted(self) -> None:
        self.action_command_palette()

    def on_help_wanted(self) -> None:
        from footplate_tui.screens.help import HelpScreen  # noqa: PLC0415 -- seldom wanted

        self.push_screen(HelpScreen())

    def on_quit_wanted(self) -> None:
        self.exit()

    def copy_to_clipboard(self, text: str) -> None:
        """Also what Textual itself copies goes the way that works."""
        self.copy(text)

    @work(group="copy")
    async def copy(self, text: str) -> None:
        """Copy a text to the clipboard of whoever sits before the terminal, and say which way it went."""
        route = clipboard_route(self._environment)
        if route is ClipboardRoute.TMUX and not await asyncio.to_thread(load_tmux_buffer, text):
            route = ClipboardRoute.TERMINAL
        if route is ClipboardRoute.TERMINAL:
            super().copy_to_clipboard(text)
        self.notify(
            f"Copied {len(text):,} characters through {route.value}.", timeout=TOAST_SECONDS, markup=False
        )
