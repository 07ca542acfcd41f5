"""What the chat tells of switches: the one that goes on, how each ended, and why one failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import work

from footplate_daemon import errors
from footplate_tui.format import duration
from footplate_tui.harmless import one_line
from footplate_tui.screens.chat_parts import ChatParts
from footplate_tui.switching import Endings, compact

if TYPE_CHECKING:
    from footplate_daemon.wire import Status, Switch, Turn
    from footplate_tui.commands import SwitcherWanted

UNSAID = frozenset({"rollback", "adopted"})
"""What the daemon does by itself to keep or bring back what was active: no news when it is done."""


class ChatSwitches(ChatParts):
    """Tells of switches in the status line, and opens the switcher and the diagnosis of a failure."""

    def __init__(self) -> None:
        super().__init__()
        self._endings = Endings()
        self._failed: Switch | None = None
        """The failed switch that is pointed to in the status line."""

    def on_switcher_wanted(self, message: SwitcherWanted) -> None:
        message.stop()
        self._open_switcher()
        if self._failed:
            self._explain(self._failed)

    def _open_switcher(self) -> None:
        from footplate_tui.screens.switcher import SwitcherScreen  # noqa: PLC0415 -- not before the first picture

        screen = SwitcherScreen(self._endings).data_bind(ChatParts.status, ChatParts.is_connected)
        self.app.push_screen(screen, self._explain)

    def _note_switch(self, status: Status) -> None:
        """Show the switch that goes on, and tell once how each has ended."""
        missed, ended = self._endings.take(status)
        if missed:
            self.look_up_ending(missed)
        if ended:
            self._tell_ending(ended)
        self._show_standing()

    def _show_standing(self) -> None:
        switch = self.status.switch if self.status else None
        if switch and switch.outcome == "running":
            self.standing = compact(switch)
        elif self._failed:
            self.standing = f"✗ {one_line(self._failed.variant)} did not start: ^r says why"
        else:
            self.standing = ""

    @work(group="endings")
    async def look_up_ending(self, switch_id: int) -> None:
        """Tell how a switch ended that another one followed at once."""
        daemon = await self.footplate.daemon()
        try:
            self._tell_ending(await daemon.switch(switch_id))
        except errors.FootplateError:
            # It is told in the switcher's table, too.
            return

    def _tell_ending(self, switch: Switch) -> None:
        is_ours = self._endings.was_wished_here(switch)
        name = one_line(switch.variant)
        match switch.outcome:
            case "done" if switch.reason in UNSAID:
                pass
            case "done" if not switch.steps:
                self._say(f"{name} was active already.")
            case "done":
                self._failed = None
                self._say(f"{name} is active ({duration((switch.ended_at or 0.0) - switch.started_at)}).")
            case "cancelled":
                self._say(f"The switch to {name} was cancelled.")
            case "failed":
                self._failed = switch
                if is_ours and not (self.is_active and self._prompt.text):
                    self._explain(switch)
        self._show_standing()

    @work(group="endings")
    async def explain_turn(self, turn: Turn) -> None:
        """Show why the engine that should have answered did not start, if that is why."""
        daemon = await self.footplate.daemon()
        from footplate_tui import conversation  # noqa: PLC0415 -- pydantic: not before the first picture

        try:
            failed = await conversation.last_failure(daemon, turn.variant or "")
        except errors.FootplateError:
            return
        if failed and self.is_active and not self._prompt.text:
            self._explain(failed)

    def _explain(self, failed: Switch | None) -> None:
        """Show the diagnosis of a failed switch with its ways out."""
        from footplate_tui.screens.failure import FailureScreen  # noqa: PLC0415 -- seldom wanted

        if failed is None or failed.diagnosis is None or isinstance(self.app.screen, FailureScreen):
            return
        self._failed = None
        self._show_standing()
        screen = FailureScreen(failed, failed.diagnosis, self._endings)
        # Data is bound to whoever runs now: this screen, not the worker that found the failure.
        self.call_later(lambda: self.app.push_screen(screen.data_bind(ChatParts.status)))
