"""Which session is open: the one used last, another one of the history, a fork, or a new one."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from textual import work
from textual.reactive import var
from textual.worker import WorkerCancelled, WorkerFailed

from footplate_daemon import errors
from footplate_tui.format import speaker
from footplate_tui.harmless import one_line
from footplate_tui.screens.chat_parts import ChatParts
from footplate_tui.screens.chat_talk import ChatTalk
from footplate_tui.widgets.header import answering
from footplate_tui.widgets.welcome import Welcome

if TYPE_CHECKING:
    from footplate_daemon.wire import SessionWithTurns, Turn
    from footplate_tui.commands import HistoryWanted
    from footplate_tui.history import Deletions, Opening


class ChatSessions(ChatTalk):
    """Opens sessions and lets go of them; what they are answering goes on in the daemon."""

    demonstrations: var[frozenset[str]] = var(frozenset())

    def __init__(self) -> None:
        super().__init__()
        self._deletions: Deletions | None = None
        """What was deleted in the history and can be brought back."""

    @work(group="conversation")
    async def resume(self) -> None:
        """Open the session asked for, else the one used last; follow its answer if it is still coming."""
        daemon = await self.footplate.daemon()
        from footplate_tui import conversation  # noqa: PLC0415 -- pydantic: not before the first picture

        attempt = 0
        while not self._is_resumed:
            try:
                wanted = self.footplate.session_id
                session = await (
                    conversation.open_session(daemon, wanted) if wanted else conversation.last_session(daemon)
                )
            except errors.DaemonUnreachable as error:
                self._lost(error)
                await asyncio.sleep(conversation.pause_before(attempt))
                attempt += 1
            except errors.FootplateError as error:
                self._is_resumed = True
                await self._show_notice(error)
            else:
                self._is_resumed = True
                await self._open(session)
        await self._follow_rest(daemon)
        self.converse()

    @work(group="open", exclusive=True)
    async def open_session(self, session_id: str, turn: int | None = None, news: str = "") -> None:
        """Open a session at a turn, or at its end; what the one before is answering goes on in the daemon."""
        if self._window.waiting:
            self._say("A question waits here: Esc takes it back. Then open another session.")
            return
        daemon = await self.footplate.daemon()
        from footplate_tui import conversation  # noqa: PLC0415 -- pydantic: not before the first picture

        try:
            session = await conversation.open_session(daemon, session_id, turn)
        except errors.FootplateError as error:
            self._say(one_line(error.message))
            return
        await self._let_go()
        await self._open(session, turn)
        self._prompt.focus()
        if news:
            self._say(news)
        self.go_on()

    async def _let_go(self) -> None:
        """Follow nothing any more; the daemon goes on."""
        going = [worker for worker in self.workers if worker.group == "conversation"]
        for worker in going:
            worker.cancel()
        for worker in going:
            with suppress(WorkerCancelled, WorkerFailed):
                await worker.wait()
        self._is_resumed = True

    def on_history_wanted(self, message: HistoryWanted) -> None:
        message.stop()
        from footplate_tui.history import Deletions  # noqa: PLC0415 -- not before the first picture
        from footplate_tui.screens.history import HistoryScreen  # noqa: PLC0415 -- the same

        self._deletions = self._deletions or Deletions()
        screen = HistoryScreen(self._deletions, self._session.id if self._session else None)
        self.app.push_screen(screen.data_bind(ChatParts.status, ChatParts.is_connected), self._leave_history)

    def _leave_history(self, opening: Opening | None) -> None:
        if opening:
            self.open_session(opening.session_id, opening.turn, opening.news)
        else:
            self.look_after_session()

    @work(group="open", exclusive=True)
    async def look_after_session(self) -> None:
        """Take up what was done to the open session in the history: another title, or it is gone."""
        if self._session is None:
            return
        daemon = await self.footplate.daemon()
        try:
            found = await daemon.session(self._session.id, last=1)
        except errors.NotFound:
            await self._let_go()
            await self._open(None)
        except errors.FootplateError:
            # Only a title hangs on it, and that the line is cut is said elsewhere.
            return
        else:
            self.session_title = found.title or self.session_title

    async def on_new_session_wanted(self) -> None:
        if self.is_busy or self._window.waiting:
            self._say("Stop the answer first (Esc), then begin anew.")
            return
        await self._open(None)
        self._prompt.focus()

    @work(group="open", exclusive=True)
    async def fork_from(self, turn: Turn) -> None:
        """Make a session of the turns up to this one, and open it."""
        daemon = await self.footplate.daemon()
        from footplate_daemon import wire  # noqa: PLC0415 -- pydantic: not before the first picture

        try:
            forked = await daemon.fork_session(turn.session_id, wire.ForkWish(turn=turn.number))
        except errors.FootplateError as error:
            self._say(one_line(error.message))
            return
        self.open_session(forked.id, news="This is the fork; the old session is in the history.")

    async def _open(self, session: SessionWithTurns | None, turn: int | None = None) -> None:
        files = list(self._enclosed) if self._session is None else []
        self._session = session
        self._window.take(session.turns if session else (), turn)
        self._settings = None
        self._stop_editing()
        if session is not None and files:  # attached while the session was on its way here
            self._enclosed = files
            self._show_chips()
        self._remember_prompts()
        self.session_title = session.title if session else ""
        self._aside.show_turns(self._window.turns)
        await self._window.mount(turn)
        if not (self._window.turns or self._window.waiting):
            await self._transcript.mount(Welcome())
            self._prompt.asks_first = True
            self._show_speaker()

    # Who will answer.

    def watch_status(self) -> None:
        self._show_speaker()

    def watch_demonstrations(self) -> None:
        self._show_speaker()

    def _show_speaker(self) -> None:
        engine = answering(self.status)
        name = speaker(one_line(engine.model), one_line(engine.runtime)) if engine else ""
        self._prompt.speaker = name
        for welcome in self.query(Welcome):
            welcome.show(name, is_demonstration=bool(engine and engine.variant in self.demonstrations))
