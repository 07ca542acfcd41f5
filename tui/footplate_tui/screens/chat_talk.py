"""Questions and their answers: asked one after the other, followed as they come, stopped when unwanted."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from textual import work

from footplate_daemon import errors
from footplate_tui.asking import Asking
from footplate_tui.harmless import one_line
from footplate_tui.screens.chat_draft import ChatDraft
from footplate_tui.screens.chat_settings import ChatSettings
from footplate_tui.screens.chat_switches import ChatSwitches
from footplate_tui.widgets.question import Question

if TYPE_CHECKING:
    from footplate_daemon.wire import Turn
    from footplate_tui.conversation import Daemon
    from footplate_tui.widgets.answer import Answer

WAITS_FOR_ANSWER = "waits for the answer above"
WAITS_FOR_DAEMON = "waits for the daemon"


class ChatTalk(ChatDraft, ChatSettings, ChatSwitches):
    """Asks what waits, and shows what comes."""

    def __init__(self) -> None:
        super().__init__()
        self._is_resumed = False
        self._in_flight: Question | None = None
        self._streaming: Turn | None = None

    # Asking.

    async def _take(self, text: str) -> None:
        """Take a question; it is asked when all before it are answered and the daemon can be reached."""
        await self.query("Welcome, Notice").remove()
        self._prompt.asks_first = False
        waits_for = WAITS_FOR_ANSWER if self.is_busy or self._window.waiting else ""
        asking = Asking(text, enclosed=tuple(self._enclosed))
        question = Question(asking, waits_for if self._is_resumed else WAITS_FOR_DAEMON)
        self._window.waiting.append(question)
        self._enclosed.clear()
        self._show_chips()
        self._remember_prompts(text)
        self._keep_draft()
        await self._window.go_to_end()
        await self._transcript.mount(question)
        self._transcript.follow()
        if self._is_resumed and not self.is_busy:
            self.converse()

    @work(group="conversation")
    async def converse(self) -> None:
        """Ask what waits, one after the other, and follow each answer."""
        if self.is_busy:
            return
        daemon = await self.footplate.daemon()
        while self._window.waiting and not self.is_busy:
            self.is_busy = True
            try:
                turn = await self._ask(daemon, self._window.waiting[0])
                if turn:
                    await self._follow(daemon, turn, await self._mount_answer(turn))
            finally:
                self.is_busy = False

    async def _ask(self, daemon: Daemon, question: Question) -> Turn | None:
        """Ask until the daemon took the question; None when it refused, or the user took it back."""
        from footplate_tui import conversation  # noqa: PLC0415 -- pydantic: not before the first picture

        attempt = 0
        while question in self._window.waiting:
            self._in_flight = question
            try:
                session = self._session or await self._begin_session(daemon)
                turn = await conversation.ask(
                    daemon,
                    session.id,
                    replace(question.asking, after=self._window.after),
                    turns_known=self._window.newest,
                    was_tried=attempt > 0,
                )
            except errors.DaemonUnreachable as error:
                question.show_waiting(WAITS_FOR_DAEMON)
                self._lost(error)
            except errors.FootplateError as error:
                await self._give_back(question)
                await self._show_notice(error)
                return None
            else:
                self._window.waiting.remove(question)
                question.show_waiting("")
                self._keep_draft()
                return turn
            finally:
                self._in_flight = None
            await asyncio.sleep(conversation.pause_before(attempt))
            attempt += 1
        return None

    async def _give_back(self, question: Question) -> None:
        """Put a question that is not with the daemon back into the prompt."""
        self._window.waiting.remove(question)
        self._bring_back(question.asking)
        self._prompt.focus()
        await question.remove()
        self._keep_draft()

    # Answers.

    async def _mount_answer(self, turn: Turn) -> Answer:
        answer = await self._window.mount_answer(turn)
        if not self.session_title:
            self.session_title = one_line(turn.prompt)
        return answer

    async def _follow(self, daemon: Daemon, turn: Turn, answer: Answer) -> None:
        """Show an answer as it comes, to its end."""
        from footplate_tui import conversation  # noqa: PLC0415 -- pydantic: not before the first picture

        self.is_busy = True
        self._streaming = turn
        try:
            async for news in conversation.follow_answer(daemon, turn.session_id, turn.number):
                match news:
                    case conversation.Grew(content, reasoning, pieces):
                        answer.grow(content, reasoning, pieces)
                    case conversation.Changed(changed):
                        self._window.replace(changed)
                        await answer.show(changed)
                    case conversation.Cut(error):
                        self._lost(error)
                    case conversation.Mended():
                        self._found()
        except errors.FootplateError as error:
            await answer.fail(error)
        finally:
            self._streaming = None
            self.is_busy = False
        self._aside.show_turns(self._window.turns)
        ended = self._window.turns[-1]
        if ended.error and ended.error.code == errors.EngineFailed.code:
            self.explain_turn(ended)
        await self._window.drop_earlier()

    @work(group="conversation")
    async def go_on(self) -> None:
        """Follow the last answer if it is still coming, then ask what waits."""
        await self._follow_rest(await self.footplate.daemon())
        self.converse()

    async def _follow_rest(self, daemon: Daemon) -> None:
        """Follow the last answer if it is still coming."""
        from footplate_tui import conversation  # noqa: PLC0415 -- pydantic: not before the first picture

        turns, answer = self._window.turns, self._window.answer
        if turns and turns[-1].state not in conversation.FINISHED and answer:
            await self._follow(daemon, turns[-1], answer)

    async def on_stop_wanted(self) -> None:
        """Esc: the last waiting question comes back first; then the answer is stopped."""
        can_come_back = [question for question in self._window.waiting if question is not self._in_flight]
        if can_come_back:
            await self._give_back(can_come_back[-1])
        elif self._streaming:
            self.stop(self._streaming)
        elif self._editing is not None:
            self._stop_editing()
            self._prompt.replace_text("")
        else:
            self._prompt.focus()

    @work(group="stop", exclusive=True)
    async def stop(self, turn: Turn) -> None:
        """Tell the daemon to end an answer; what came is kept."""
        daemon = await self.footplate.daemon()
        from footplate_tui import conversation  # noqa: PLC0415 -- pydantic: not before the first picture

        attempt = 0
        while self._streaming and self._streaming.number == turn.number:
            try:
                await daemon.stop_turn(turn.session_id, turn.number)
            except errors.DaemonUnreachable as error:
                self._lost(error)
            except errors.Conflict:
                return  # It ended by itself meanwhile.
            except errors.FootplateError as error:
                self._say(one_line(error.message))
                return
            else:
                return
            await asyncio.sleep(conversation.pause_before(attempt))
            attempt += 1
