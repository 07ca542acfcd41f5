"""What is done with a turn: asked again, gone on with, edited, preferred, forked, copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import work

from footplate_daemon import errors
from footplate_tui.asking import GO_ON, Asking
from footplate_tui.code_blocks import code_blocks
from footplate_tui.format import speaker
from footplate_tui.harmless import one_line
from footplate_tui.places import Version, tip_through
from footplate_tui.screens.chat_sessions import ChatSessions
from footplate_tui.widgets.notice import Notice

if TYPE_CHECKING:
    from footplate_tui.commands import TurnWanted
    from footplate_tui.screens.turn import Chosen


class ChatTurns(ChatSessions):
    """Opens the menu of a turn and does what was chosen there."""

    def __init__(self) -> None:
        super().__init__()
        self._follows_after_menu = True
        """Whether the end was followed when the menu of a turn was opened."""

    def on_turn_wanted(self, message: TurnWanted) -> None:
        message.stop()
        if not self._window.spots:
            self._say("There is no turn yet.")
            return
        from footplate_tui.screens.turn import TurnScreen  # noqa: PLC0415 -- not before the first picture

        self._follows_after_menu = self._transcript.is_following
        self.app.push_screen(TurnScreen(self._window.spots, self._mark), self._do)

    def _mark(self, index: int | None) -> None:
        """Show which turn is meant, if it is mounted; with None, go back to where the user was."""
        for question in self.query("Question.-marked"):
            question.remove_class("-marked")
        widget = self._window.question_at(index) if index is not None else None
        if widget:
            widget.add_class("-marked")
            if index != len(self._window.spots) - 1 or not self._transcript.is_following:
                self._transcript.scroll_to_widget(widget, animate=False, top=True)
        elif index is None and self._follows_after_menu:
            self._transcript.follow()

    async def _do(self, chosen: Chosen | None) -> None:
        """Do what was chosen for a turn."""
        self._mark(None)
        if chosen is None:
            return
        version = chosen.version
        match chosen.command:
            case "turn.retry" | "turn.elsewhere" if self._can_ask_again():
                self.ask_again(Asking(version.prompt, chosen.model, instead_of=version.number))
            case "turn.continue" if self._can_ask_again():
                asked = version.last.variant
                self.ask_again(Asking(GO_ON, asked, continue_of=version.last.number))
            case "turn.edit":
                self._edit(version)
            case "turn.prefer":
                await self._prefer(version)
            case "turn.copy":
                self.footplate.copy(version.answer)
            case "turn.code":
                self.footplate.copy(code_blocks(version.answer)[chosen.number].text)
            case "turn.editor":
                self._edited(version.answer)
            case "turn.fork":
                self.fork_from(version.last)
            case "turn.details":
                self._show_details(chosen.index)

    def _can_ask_again(self) -> bool:
        if self.is_busy or self._window.waiting:
            self._say("Wait for the answer, or stop it (Esc), first.")
            return False
        return True

    @work(group="conversation")
    async def ask_again(self, asking: Asking) -> None:
        """Ask in the place of another turn, or go on with its answer; follow what comes."""
        if self._session is None or self.is_busy:
            return
        daemon = await self.footplate.daemon()
        from footplate_tui import conversation  # noqa: PLC0415 -- pydantic: not before the first picture

        self.is_busy = True
        try:
            await self.query(Notice).remove()
            turn = await conversation.ask(
                daemon, self._session.id, asking, turns_known=self._window.newest, was_tried=False
            )
            self._window.turns.append(turn)
            await self._window.show_path(turn.number)
            if self._window.answer:
                await self._follow(daemon, turn, self._window.answer)
        except errors.FootplateError as error:
            if asking.instead_of is not None and not self._is_known(asking):
                self._editing = asking.instead_of
                self._bring_back(asking)
            await self._show_notice(error)
            return
        finally:
            self.is_busy = False
        self.converse()

    def _is_known(self, asking: Asking) -> bool:
        """Whether the words are kept anyway: those of a retry are the turn's own."""
        return any(
            turn.number == asking.instead_of and turn.prompt == asking.text for turn in self._window.turns
        )

    async def _prefer(self, version: Version) -> None:
        """Go on from another answer: what followed it comes back."""
        if not self._can_ask_again():
            return
        await self._window.show_path(tip_through(self._window.turns, version))
        label = speaker(one_line(version.last.model or ""), one_line(version.last.runtime or ""))
        self._say(f"The session goes on from the answer of {label}.")

    def _show_details(self, index: int) -> None:
        for answer in self._window.answers_at(index):
            answer.toggle_details()
