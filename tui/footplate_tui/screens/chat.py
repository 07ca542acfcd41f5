"""The chat: one session, asked turn by turn.

The screen owns what is asked and what came; widgets are given it. Answers belong to the daemon: when the
line is cut the screen says so, attaches again and shows what it missed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from textual import work
from textual.app import ComposeResult
from textual.containers import Container
from textual.reactive import var
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import TextArea

from footplate_daemon import errors
from footplate_tui.commands import (
    BY_ID,
    CopyWanted,
    FollowWanted,
    PageDownWanted,
    PageUpWanted,
    Place,
    ReasoningWanted,
    SwitcherWanted,
    bindings,
)
from footplate_tui.format import duration, speaker
from footplate_tui.harmless import one_line
from footplate_tui.switching import Endings, compact
from footplate_tui.widgets.answer import Answer, Spoken
from footplate_tui.widgets.header import Header, answering
from footplate_tui.widgets.notice import Notice
from footplate_tui.widgets.prompt import Prompt
from footplate_tui.widgets.prose import Prose
from footplate_tui.widgets.question import Question
from footplate_tui.widgets.status_line import StatusLine
from footplate_tui.widgets.transcript import Pill, Transcript
from footplate_tui.widgets.welcome import Welcome

if TYPE_CHECKING:
    from footplate_daemon.wire import Session, SessionWithTurns, Status, Switch, Turn
    from footplate_tui.conversation import Daemon
    from footplate_tui.footplate_app import FootplateApp

ROWS_AT_FIRST = 200
"""About so many rows of the newest turns are mounted; older ones when the user scrolls up to them."""
ROWS_AT_A_TIME = 80
"""So many are mounted then: two screens take no longer than a blink."""
COLUMNS_GUESSED = 80
DRAFT_SECONDS = 0.3
"""A crash costs at most what was typed in this time."""
NEWS_SECONDS = 4.0

UNSAID = frozenset({"rollback", "adopted"})
"""What the daemon does by itself to keep or bring back what was active: no news when it is done."""

WAITS_FOR_ANSWER = "waits for the answer above"
WAITS_FOR_DAEMON = "waits for the daemon"


class ChatScreen(Screen[None]):
    """One session and the self._prompt."""

    BINDINGS = bindings(Place.CHAT)
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide")]  # noqa: RUF012 -- the base class's type

    # `var`: a reactive of a screen would repaint all of it.
    session_title: var[str] = var("")
    status: var[Status | None] = var(None)
    is_connected: var[bool] = var(True)
    notice: var[str] = var("")
    standing: var[str] = var("")
    is_busy: var[bool] = var(False)
    demonstrations: var[frozenset[str]] = var(frozenset())

    def __init__(self) -> None:
        super().__init__()
        self._transcript = Transcript()
        self._pill = Pill(markup=False)
        self._prompt = Prompt()
        self._session: Session | None = None
        self._is_resumed = False
        self._turns: list[Turn] = []
        self._first_mounted = 0
        """Place in `_turns` of the first turn that is mounted."""
        self._end_mounted = 0
        """Place in `_turns` behind the last turn that is mounted."""
        self._waiting: list[Question] = []
        """Questions that are not with the daemon yet, oldest first."""
        self._in_flight: Question | None = None
        self._answer: Answer | None = None
        """The newest answer on screen."""
        self._streaming: Turn | None = None
        self._prompts: list[str] = []
        self._draft = ""
        """What is on disk."""
        self._endings = Endings()
        self._failed: Switch | None = None
        """The failed switch that is pointed to in the status line."""

    @property
    def footplate(self) -> FootplateApp:
        """The app, by its own type."""
        return cast("FootplateApp", self.app)

    # What it shows.

    def compose(self) -> ComposeResult:
        yield Header(self.footplate.place).data_bind(
            ChatScreen.session_title, ChatScreen.status, ChatScreen.is_connected
        )
        with Container(id="stage"):
            yield self._transcript
            yield self._pill
        yield self._prompt
        yield StatusLine().data_bind(ChatScreen.notice, ChatScreen.standing, ChatScreen.is_busy)

    def on_mount(self) -> None:
        self._draft = self.footplate.remembered.draft
        self._prompt.replace_text(self._draft)
        self._prompt.focus()
        self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        """Open the line to the daemon, once the first picture stands."""
        self.follow_status()
        self.resume()

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

    # The line to the daemon.

    @work(group="status")
    async def follow_status(self) -> None:
        daemon = await self.footplate.daemon()
        from footplate_tui import conversation  # noqa: PLC0415 -- pydantic: not before the first picture

        async for news in conversation.follow_status(daemon):
            if isinstance(news, conversation.Cut):
                self._lost(news.error)
                continue
            self._found()
            self.status = news
            self._note_switch(news)
            engine = answering(news)
            if engine and not self.demonstrations:
                self.look_for_demonstrations()

    @work(group="models", exclusive=True)
    async def look_for_demonstrations(self) -> None:
        daemon = await self.footplate.daemon()
        from footplate_tui import conversation  # noqa: PLC0415 -- pydantic: not before the first picture

        try:
            self.demonstrations = await conversation.demonstrations(daemon)
        except errors.FootplateError:
            # Only a label hangs on it; the next status asks again.
            return

    def _lost(self, error: errors.FootplateError) -> None:
        self.is_connected = False
        self.notice = f"{one_line(error.message)} Reconnecting…"

    def _found(self) -> None:
        if self.is_connected:
            return
        self.is_connected = True
        self._say("Connected to the daemon again.")

    def _say(self, news: str) -> None:
        """Show news for a while."""
        self.notice = news

        def take_away() -> None:
            if self.notice == news:
                self.notice = ""

        self.set_timer(NEWS_SECONDS, take_away)

    # Switching.

    def on_switcher_wanted(self, message: SwitcherWanted) -> None:
        message.stop()
        self._open_switcher()
        if self._failed:
            self._explain(self._failed)

    def _open_switcher(self) -> None:
        from footplate_tui.screens.switcher import SwitcherScreen  # noqa: PLC0415 -- not before the first picture

        screen = SwitcherScreen(self._endings).data_bind(ChatScreen.status, ChatScreen.is_connected)
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
        self.call_later(lambda: self.app.push_screen(screen.data_bind(ChatScreen.status)))

    # Sessions.

    @work(group="conversation")
    async def resume(self) -> None:
        """Open the session used last, and follow its answer if it is still coming."""
        daemon = await self.footplate.daemon()
        from footplate_tui import conversation  # noqa: PLC0415 -- pydantic: not before the first picture

        attempt = 0
        while not self._is_resumed:
            try:
                session = await conversation.last_session(daemon)
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
        if self._turns and self._turns[-1].state not in conversation.FINISHED and self._answer:
            await self._follow(daemon, self._turns[-1], self._answer)
        self.converse()

    async def _open(self, session: SessionWithTurns | None) -> None:
        self._session = session
        self._turns = list(session.turns) if session else []
        self._prompts = [turn.prompt for turn in self._turns] + [question.text for question in self._waiting]
        self._prompt.remember(self._prompts)
        self.session_title = session.title if session else ""
        await self._transcript.remove_children(
            [child for child in self._transcript.children if child not in self._waiting]
        )
        self._answer = None
        if self._turns:
            await self._mount_end()
            return
        self._first_mounted = self._end_mounted = 0
        if not self._waiting:
            await self._transcript.mount(Welcome())
            self._show_speaker()

    async def _mount_end(self) -> None:
        """Mount the newest turns and follow the end; nothing but waiting questions is mounted yet."""
        self._first_mounted = self._end_mounted = len(self._turns)
        widgets = self._earlier_widgets(ROWS_AT_FIRST)
        await self._transcript.mount_all(widgets, before=0 if self._transcript.children else None)
        self._answer = next((widget for widget in reversed(widgets) if isinstance(widget, Answer)), None)
        self._transcript.end_below(is_mounted=True)
        self._transcript.follow()

    def _earlier_widgets(self, rows_wanted: int = ROWS_AT_A_TIME) -> list[Widget]:
        """Make the widgets of the next older turns, about so many rows of them."""
        rows, first = 0, self._first_mounted
        while first > 0 and rows < rows_wanted:
            first -= 1
            rows += _rows_guessed(self._turns[first])
        turns = self._turns[first : self._first_mounted]
        self._first_mounted = first
        return _widgets(turns)

    def _later_widgets(self) -> list[Widget]:
        """Make the widgets of the next newer turns that had been taken down."""
        rows, end = 0, self._end_mounted
        while end < len(self._turns) and rows < ROWS_AT_A_TIME:
            rows += _rows_guessed(self._turns[end])
            end += 1
        turns = self._turns[self._end_mounted : end]
        self._end_mounted = end
        return _widgets(turns)

    async def on_transcript_top_near(self) -> None:
        """Mount older turns; newer ones far below the screen are taken down."""
        if self._first_mounted == 0:
            self._transcript.nothing_more()
            return
        await self._transcript.prepend(self._earlier_widgets())
        below = self._transcript.rows_below()
        whole = below[1:] if below and isinstance(below[0], Answer) else below
        if whole and not (self.is_busy or self._waiting):
            self._end_mounted -= sum(isinstance(widget, Answer) for widget in whole)
            self._transcript.end_below(is_mounted=False)
            await self._transcript.drop(whole)

    async def on_transcript_end_near(self) -> None:
        """Mount newer turns that had been taken down; older ones far above the screen are taken down."""
        if self._end_mounted == len(self._turns):
            self._transcript.nothing_more()
            return
        await self._transcript.append(self._later_widgets())
        self._transcript.end_below(is_mounted=self._end_mounted == len(self._turns))
        await self._prune()

    async def _go_to_end(self) -> None:
        """Follow the end, which may have been taken down."""
        if self._end_mounted < len(self._turns):
            await self._transcript.remove_children(
                [child for child in self._transcript.children if child not in self._waiting]
            )
            await self._mount_end()
        self._transcript.follow()

    async def on_new_session_wanted(self) -> None:
        if self.is_busy or self._waiting:
            self._say("Stop the answer first (Esc), then begin anew.")
            return
        await self._open(None)
        self._prompt.focus()

    # Asking.

    async def on_prompt_sent(self, message: Prompt.Sent) -> None:
        await self._take(message.text)

    async def on_welcome_chosen(self, message: Welcome.Chosen) -> None:
        self._prompt.focus()
        await self._take(message.question)

    def on_welcome_typed(self, message: Welcome.Typed) -> None:
        self._prompt.focus()
        self._prompt.insert(message.character)

    def on_prompt_up_from_empty(self) -> None:
        for welcome in self.query(Welcome):
            welcome.focus_examples()

    async def _take(self, text: str) -> None:
        """Take a question; it is asked when all before it are answered and the daemon can be reached."""
        await self.query("Welcome, Notice").remove()
        waits_for = WAITS_FOR_ANSWER if self.is_busy or self._waiting else ""
        question = Question(text, waits_for if self._is_resumed else WAITS_FOR_DAEMON)
        self._waiting.append(question)
        self._prompts.append(text)
        self._prompt.remember(self._prompts)
        self._keep_draft()
        await self._go_to_end()
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
        while self._waiting and not self.is_busy:
            self.is_busy = True
            try:
                turn = await self._ask(daemon, self._waiting[0])
                if turn:
                    await self._follow(daemon, turn, await self._mount_answer(turn))
            finally:
                self.is_busy = False

    async def _ask(self, daemon: Daemon, question: Question) -> Turn | None:
        """Ask until the daemon took the question; None when it refused, or the user took it back."""
        from footplate_tui import conversation  # noqa: PLC0415 -- pydantic: not before the first picture

        attempt = 0
        while question in self._waiting:
            self._in_flight = question
            try:
                session = self._session or await daemon.create_session()
                self._session = session
                turn = await conversation.ask(
                    daemon, session.id, question.text, turns_known=len(self._turns), was_tried=attempt > 0
                )
            except errors.DaemonUnreachable as error:
                question.show_waiting(WAITS_FOR_DAEMON)
                self._lost(error)
            except errors.FootplateError as error:
                await self._give_back(question)
                await self._show_notice(error)
                return None
            else:
                self._waiting.remove(question)
                question.show_waiting("")
                self._keep_draft()
                return turn
            finally:
                self._in_flight = None
            await asyncio.sleep(conversation.pause_before(attempt))
            attempt += 1
        return None

    async def _give_back(self, question: Question) -> None:
        """Put a question that is not with the daemon back into the self._prompt."""
        self._waiting.remove(question)
        self._prompts.remove(question.text)
        self._prompt.remember(self._prompts)
        self._prompt.give_back(question.text)
        self._prompt.focus()
        await question.remove()
        self._keep_draft()

    async def _show_notice(self, error: errors.FootplateError) -> None:
        await self._transcript.mount(Notice(error))
        self._transcript.follow()

    # Answers.

    async def _mount_answer(self, turn: Turn) -> Answer:
        engine = answering(self.status)
        answer = Answer(
            Spoken(
                turn.model or (engine.model if engine else None),
                turn.runtime or (engine.runtime if engine else None),
            )
        )
        self._turns.append(turn)
        self._end_mounted = len(self._turns)
        self._answer = answer
        after = next(
            (
                child
                for child in self._transcript.children
                if isinstance(child, Question) and child in self._waiting
            ),
            None,
        )
        await self._transcript.mount(answer, before=after)
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
                    case conversation.Grew(content, reasoning):
                        answer.grow(content, reasoning)
                    case conversation.Changed(changed):
                        self._replace(changed)
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
        ended = self._turns[-1]
        if ended.error and ended.error.code == errors.EngineFailed.code:
            self.explain_turn(ended)
        await self._prune()

    def _replace(self, turn: Turn) -> None:
        for place in range(len(self._turns) - 1, -1, -1):
            if self._turns[place].number == turn.number:
                self._turns[place] = turn
                return

    async def _prune(self) -> None:
        """Take down what scrolled far out above; it is mounted again when the user scrolls up to it."""
        above = self._transcript.rows_above()
        whole = above[: len(above) - len(above) % 2]
        if whole:
            self._first_mounted += len(whole) // 2
            await self._transcript.drop(whole)

    async def on_stop_wanted(self) -> None:
        """Esc: the last waiting question comes back first; then the answer is stopped."""
        can_come_back = [question for question in self._waiting if question is not self._in_flight]
        if can_come_back:
            await self._give_back(can_come_back[-1])
        elif self._streaming:
            self.stop(self._streaming)
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

    # Smaller wishes.

    def action_command(self, identity: str) -> None:
        self.post_message(BY_ID[identity].message())

    def on_copy_wanted(self, message: CopyWanted) -> None:
        message.stop()
        answered = [turn.answer for turn in self._turns if turn.answer]
        text = self._answer.text if self._answer and self._answer.text else (answered[-1] if answered else "")
        if text:
            self.footplate.copy(text)
        else:
            self._say("There is no answer to copy yet.")

    def on_reasoning_wanted(self, message: ReasoningWanted) -> None:
        message.stop()
        if self._answer:
            self._answer.toggle_reasoning()

    def on_page_up_wanted(self, message: PageUpWanted) -> None:
        message.stop()
        self._transcript.page(-1)

    def on_page_down_wanted(self, message: PageDownWanted) -> None:
        message.stop()
        self._transcript.page(1)

    async def on_follow_wanted(self, message: FollowWanted) -> None:
        message.stop()
        await self._go_to_end()

    def on_transcript_moved(self) -> None:
        self._pill.show(is_following=self._transcript.is_following, lines_below=self._transcript.lines_below)

    def on_prose_link_chosen(self, message: Prose.LinkChosen) -> None:
        """A link of a model is copied, never opened: it was not the user who wrote it."""
        message.stop()
        self.footplate.copy(message.href)

    # The draft.

    def on_text_area_changed(self, message: TextArea.Changed) -> None:
        message.stop()
        self._draft_soon()

    @work(group="draft", exclusive=True)
    async def _draft_soon(self) -> None:
        await asyncio.sleep(DRAFT_SECONDS)
        self._keep_draft()

    def on_unmount(self) -> None:
        self._keep_draft()

    def _keep_draft(self) -> None:
        """Keep on disk whatever the daemon does not have yet."""
        kept = [*(question.text for question in self._waiting), self._prompt.text]
        draft = "\n".join(text for text in kept if text)
        if draft != self._draft:
            self._draft = draft
            if not self.footplate.remembered.keep_draft(draft):
                self._say("The draft cannot be kept: the state folder cannot be written.")


def _widgets(turns: list[Turn]) -> list[Widget]:
    return [widget for turn in turns for widget in (Question(turn.prompt), Answer.of_turn(turn))]


def _rows_guessed(turn: Turn) -> int:
    text = turn.answer
    return 6 + text.count("\n") + len(text) // COLUMNS_GUESSED + min(turn.prompt.count("\n"), 40)
