"""What the parts of the chat share: its widgets, the session that is open, and news for the user."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from textual.reactive import var
from textual.screen import Screen

from footplate_tui.harmless import one_line
from footplate_tui.turn_window import TurnWindow
from footplate_tui.widgets.answer import Spoken
from footplate_tui.widgets.aside import Aside
from footplate_tui.widgets.chips import Chips
from footplate_tui.widgets.header import answering
from footplate_tui.widgets.notice import Notice
from footplate_tui.widgets.prompt import Prompt
from footplate_tui.widgets.transcript import Transcript

if TYPE_CHECKING:
    from footplate_daemon import errors
    from footplate_daemon.wire import Session, Status
    from footplate_tui.footplate_app import FootplateApp

NEWS_SECONDS = 4.0


class ChatParts(Screen[None]):
    """The ground that each part of the chat stands on; `ChatScreen` is all parts together."""

    # `var`: a reactive of a screen would repaint all of it.
    session_title: var[str] = var("")
    status: var[Status | None] = var(None)
    is_connected: var[bool] = var(True)
    notice: var[str] = var("")
    standing: var[str] = var("")
    is_busy: var[bool] = var(False)

    def __init__(self) -> None:
        super().__init__()
        self._transcript = Transcript()
        self._prompt = Prompt()
        self._chips = Chips()
        self._aside = Aside()
        self._window = TurnWindow(self._transcript, self._speaking)
        self._session: Session | None = None
        self._needs_user = ""
        """What only the user can do about the line that is cut."""

    @property
    def footplate(self) -> FootplateApp:
        """The app, by its own type."""
        return cast("FootplateApp", self.app)

    def _speaking(self) -> Spoken:
        """Say who will answer, as far as it is known before the turn says so."""
        engine = answering(self.status)
        return Spoken(engine.model, engine.runtime) if engine else Spoken()

    # News.

    def _say(self, news: str) -> None:
        """Show news for a while."""
        self.notice = news

        def take_away() -> None:
            if self.notice == news:
                self.notice = ""

        self.set_timer(NEWS_SECONDS, take_away)

    def _lost(self, error: errors.FootplateError) -> None:
        self.is_connected = False
        self.notice = self._needs_user or f"{one_line(error.message)} Reconnecting…"

    def _found(self) -> None:
        if self.is_connected:
            return
        self.is_connected = True
        self._needs_user = ""
        self._say("Connected to the daemon again.")

    async def _show_notice(self, error: errors.FootplateError) -> None:
        await self._transcript.mount(Notice(error))
        self._transcript.follow()
