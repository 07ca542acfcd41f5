"""The terminal program: one chat screen, themes, the clipboard, and the line to the daemon.

The daemon's client is opened after the first picture: its imports take longer than Textual's start.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from textual import work
from textual.app import App
from textual.binding import BindingType
from textual.filter import LineFilter
from textual.message import Message
from textual.reactive import var
from textual.screen import Screen
from textual.widgets import Input

from footplate_tui import commands, keymap, theme
from footplate_tui.remembered import Remembered
from footplate_tui.screens.chat import ChatScreen
from footplate_tui.terminal import (
    ClipboardRoute,
    Colours,
    clipboard_route,
    end_with_terminal,
    give_mouse,
    load_tmux_buffer,
)

if TYPE_CHECKING:
    from textual.command import Provider

    from footplate_daemon.errors import FootplateError
    from footplate_daemon.wire import GpuSnapshot
    from footplate_tui.conversation import Daemon

TOAST_SECONDS = 3.0
MISTAKE_SECONDS = 20.0
"""What is wrong with the keys must be read, and be written down."""


def _command_search() -> type[Provider]:
    from footplate_tui.command_search import CommandSearch  # noqa: PLC0415 -- not before the first picture

    return CommandSearch


@dataclass
class LineCut(Message):
    """The line to another machine is cut, or could not be mended."""

    error: FootplateError
    is_passing: bool
    """Another try may mend it, and will be made."""


class FootplateApp(App[None]):
    """Give it a way to open a daemon and a folder to remember things in."""

    TITLE = "footplate"
    CSS_PATH: ClassVar[list[str]] = [  # type: ignore[assignment]  # the base allows None
        "footplate_app.tcss",
        "widgets/header.tcss",
        "widgets/status_line.tcss",
        "widgets/aside.tcss",
        "widgets/prompt.tcss",
        "widgets/transcript.tcss",
        "widgets/question.tcss",
        "widgets/answer.tcss",
        "widgets/versions.tcss",
        "widgets/chips.tcss",
        "widgets/reasoning.tcss",
        "widgets/welcome.tcss",
        "widgets/switch_progress.tcss",
        "widgets/rows.tcss",
        "screens/help.tcss",
        "screens/switcher.tcss",
        "screens/failure.tcss",
        "screens/turn.tcss",
        "screens/session_settings.tcss",
        "screens/attach.tcss",
        "widgets/lines.tcss",
        "screens/page.tcss",
        "screens/logs.tcss",
        "screens/exchanges.tcss",
        "screens/listing.tcss",
        "screens/benchmark.tcss",
        "screens/batches.tcss",
        "screens/history.tcss",
        "screens/gauges.tcss",
    ]
    BINDINGS: ClassVar[list[BindingType]] = commands.bindings(commands.Place.PROGRAM)
    ENABLE_COMMAND_PALETTE = True
    COMMAND_PALETTE_BINDING = "ctrl+backslash"
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {_command_search}
    PAUSE_GC_ON_SCROLL = True

    gauges: var[GpuSnapshot | None] = var(None)
    """What was read last; None as long as no daemon answers."""

    def __init__(
        self,
        connect: Callable[[], Daemon],
        remembered: Remembered,
        *,
        place: str = "",
        host: str = "",
        session_id: str | None = None,
        environment: Mapping[str, str] | None = None,
        colours: Colours = Colours.TRUECOLOR,
    ) -> None:
        """`connect` opens the daemon's client (in a thread); `place` is `user@host`.

        `host` is where the daemon is, if it is reached over SSH.

        `session_id` is opened first; None: the session used last.
        """
        super().__init__()
        self.keymap = keymap.read(remembered.keys_file)
        self.set_keymap(self.keymap.chosen)
        for own in theme.THEMES:
            self.register_theme(own)
        self.theme = remembered.theme if remembered.theme in self.available_themes else theme.DARK_NAME
        self.place = place
        self.host = host
        self.session_id = session_id
        self.remembered = remembered
        self._connect = connect
        self.environment = environment or {}
        self._daemon: asyncio.Task[Daemon] | None = None
        self._colours = colours
        self._palette_filter: list[LineFilter] = []

    def on_mount(self) -> None:
        if not self.is_headless:
            end_with_terminal(asyncio.get_running_loop())
        self.theme_changed_signal.subscribe(self, lambda chosen: self.remembered.keep_theme(chosen.name))
        self.push_screen(ChatScreen())
        for mistake in self.keymap.mistakes:
            self.notify(mistake, severity="warning", timeout=MISTAKE_SECONDS, markup=False)
        # What is there now stays for good: the collector need not look at it again.
        gc.freeze()

    @work(group="gauges", exclusive=True)
    async def follow_gauges(self) -> None:
        """Keep the gauges as the daemon reads them."""
        daemon = await self.daemon()
        from footplate_tui import conversation  # noqa: PLC0415 -- pydantic: not before the first picture

        async for snapshot in conversation.follow_gauges(daemon):
            self.gauges = snapshot

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """What our styles use and other themes do not have."""
        return {name: value for name, value in theme.DARK.variables.items() if name in theme.OWN_VARIABLES}

    def tell_of_line(self, error: FootplateError, *, is_passing: bool) -> None:
        """Say that the line to another machine is cut; may be called from any thread."""
        self.post_message(LineCut(error, is_passing))

    def on_line_cut(self, message: LineCut) -> None:
        for screen in self.screen_stack:
            if isinstance(screen, ChatScreen):
                screen.tell_of_line(message.error, is_passing=message.is_passing)

    @property
    def _background_screens(self) -> list[Screen[Any]]:
        """Textual paints the screen on top again whenever the one under it changes, though nobody sees it."""
        return super()._background_screens if self.screen.is_modal else []

    async def daemon(self) -> Daemon:
        """Give the client; it is opened once, whoever asks first."""
        if self._daemon is None:
            self._daemon = asyncio.create_task(asyncio.to_thread(self._connect), name="open the client")
        # Several workers wait for it: one that is cancelled must not take the client from the others.
        return await asyncio.shield(self._daemon)

    async def on_unmount(self) -> None:
        self.remembered.close()
        if self._daemon:
            await (await self._daemon).aclose()

    def get_line_filters(self) -> list[LineFilter]:
        """Textual's, and ours for terminals that have 256 colours, or sixteen."""
        if self._colours is not Colours.TRUECOLOR and not self._palette_filter:
            from footplate_tui.palette import Nearest16, Nearest256  # noqa: PLC0415 -- only where they are needed

            self._palette_filter = [Nearest16() if self._colours is Colours.SIXTEEN else Nearest256()]
        return [*super().get_line_filters(), *self._palette_filter]

    def action_command(self, identity: str) -> None:
        self.post_message(commands.BY_ID[identity].message())

    def on_light_or_dark_wanted(self) -> None:
        self.theme = theme.other(self.theme)

    def on_mouse_wanted(self) -> None:
        driver = self._driver
        if driver is None:
            return
        is_ours = not driver._mouse  # noqa: SLF001 -- Textual itself gives the mouse away only for a whole run
        give_mouse(driver, is_ours=is_ours)
        self.remembered.keep_mouse(on=is_ours)
        who = "Footplate's again" if is_ours else "the terminal's: select and copy as everywhere"
        self.notify(f"The mouse is {who}.", timeout=TOAST_SECONDS)

    def on_palette_wanted(self) -> None:
        self.action_command_palette()
        self.call_after_refresh(self._still_cursor)

    def _still_cursor(self) -> None:
        """A cursor that blinks writes all the time; that of the palette is not made by us."""
        for line in self.screen.query(Input):
            line.cursor_blink = False

    def on_help_wanted(self) -> None:
        from footplate_tui.screens.help import HelpScreen  # noqa: PLC0415 -- seldom wanted

        self.push_screen(HelpScreen())

    async def on_logs_wanted(self) -> None:
        from footplate_tui.screens.logs import LogsScreen  # noqa: PLC0415 -- not before the first picture

        await self._turn_to(LogsScreen)

    async def on_exchanges_wanted(self) -> None:
        from footplate_tui.screens.exchanges import ExchangesScreen  # noqa: PLC0415 -- the same

        await self._turn_to(ExchangesScreen)

    async def on_benchmarks_wanted(self) -> None:
        from footplate_tui.screens.benchmarks import BenchmarksScreen  # noqa: PLC0415 -- the same

        await self._turn_to(BenchmarksScreen)

    async def on_batches_wanted(self) -> None:
        from footplate_tui.screens.batches import BatchesScreen  # noqa: PLC0415 -- the same

        await self._turn_to(BatchesScreen)

    async def on_switcher_wanted(self) -> None:
        await self._ask_chat(commands.SwitcherWanted())

    async def on_history_wanted(self) -> None:
        await self._ask_chat(commands.HistoryWanted())

    async def on_gauges_wanted(self) -> None:
        await self._ask_chat(commands.GaugesWanted())

    async def _turn_to(self, kind: type[Screen[None]]) -> None:
        """Show a page in place of the one that is shown; one that is shown already is closed."""
        is_shown = any(isinstance(screen, kind) for screen in self.screen_stack)
        await self._leave_pages()
        if not is_shown:
            self.push_screen(kind())

    async def _ask_chat(self, wish: Message) -> None:
        """Go back to the chat for what it shows: its session and its status belong to that."""
        await self._leave_pages()
        if isinstance(self.screen, ChatScreen):
            self.screen.post_message(wish)

    async def _leave_pages(self) -> None:
        while not (self.screen.is_modal or isinstance(self.screen, ChatScreen)):
            await self.screen.dismiss(None)

    def on_quit_wanted(self) -> None:
        self.exit()

    def copy_to_clipboard(self, text: str) -> None:
        """Also what Textual itself copies goes the way that works."""
        self.copy(text)

    @work(group="copy")
    async def copy(self, text: str) -> None:
        """Copy a text to the clipboard of whoever sits before the terminal, and say which way it went."""
        route = clipboard_route(self.environment)
        if route is ClipboardRoute.TMUX and not await asyncio.to_thread(load_tmux_buffer, text):
            route = ClipboardRoute.TERMINAL
        if route is ClipboardRoute.TERMINAL:
            super().copy_to_clipboard(text)
        self.notify(
            f"Copied {len(text):,} characters through {route.value}.", timeout=TOAST_SECONDS, markup=False
        )
