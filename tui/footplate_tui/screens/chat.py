"""The chat: one session, asked turn by turn.

The screen owns what is asked and what came; widgets are given it. Answers belong to the daemon: when the
line is cut the screen says so, attaches again and shows what it missed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import work
from textual.containers import Container

from footplate_daemon import errors
from footplate_tui.asking import Asking
from footplate_tui.commands import BY_ID, Place, bindings
from footplate_tui.enclosing import typed_path
from footplate_tui.harmless import one_line
from footplate_tui.screens.chat_parts import ChatParts
from footplate_tui.screens.chat_scrolling import ChatScrolling
from footplate_tui.screens.chat_turns import ChatTurns
from footplate_tui.widgets.header import Header, answering
from footplate_tui.widgets.status_line import StatusLine
from footplate_tui.widgets.welcome import Welcome

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from footplate_tui.commands import AsideWanted, CopyWanted, GaugesWanted, ReasoningWanted
    from footplate_tui.widgets.prompt import Prompt
    from footplate_tui.widgets.prose import Prose


class ChatScreen(ChatTurns, ChatScrolling):
    """One session and the prompt: the parts of the chat on one screen, and its line to the daemon."""

    BINDINGS = bindings(Place.CHAT)
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide"), (150, "-widest")]  # noqa: RUF012 -- the base class's type

    # What it shows.

    def compose(self) -> ComposeResult:
        yield Header(self.footplate.place).data_bind(
            ChatParts.session_title, ChatParts.status, ChatParts.is_connected
        )
        with Container(id="stage"):
            yield self._aside.data_bind(ChatParts.status)
            yield self._transcript
            yield self._pill
        yield self._chips
        yield self._prompt
        yield StatusLine().data_bind(ChatParts.notice, ChatParts.standing, ChatParts.is_busy)

    def on_mount(self) -> None:
        self._aside.set_class(self.footplate.remembered.aside, "-wanted")
        self._bring_draft()
        self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        """Open the line to the daemon, once the first picture stands."""
        self.follow_status()
        self.footplate.follow_gauges()
        self.resume()

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

    def tell_of_line(self, error: errors.FootplateError, *, is_passing: bool) -> None:
        """Say why the line to another machine is cut, and whether the user must do something about it."""
        self._needs_user = "" if is_passing else f"{one_line(error.message)} Leave (^q) and start again."
        self._lost(error)

    # What was typed.

    async def on_prompt_sent(self, message: Prompt.Sent) -> None:
        if self._carry_out(message.text):
            return
        text = message.text.removeprefix("/") if message.text.startswith("//") else message.text
        if self._editing is None:
            await self._take(text)
        elif self._can_ask_again():
            asking = Asking(text, instead_of=self._editing, enclosed=tuple(self._enclosed))
            self._stop_editing()
            self._remember_prompts(text)
            self.ask_again(asking)
        else:
            self._prompt.give_back(text)

    def _carry_out(self, text: str) -> bool:
        """Do what a line that begins with a slash says; False when it is a question."""
        word, _, rest = text.partition(" ")
        match word:
            case "/attach":
                self.attach([typed_path(rest)])
            case "/system":
                self.change_settings(system=rest.strip() or None)
            case _:
                return False
        return True

    async def on_welcome_chosen(self, message: Welcome.Chosen) -> None:
        self._prompt.focus()
        await self._take(message.question)

    def on_welcome_typed(self, message: Welcome.Typed) -> None:
        self._prompt.focus()
        self._prompt.insert(message.character)

    def on_prompt_up_from_empty(self) -> None:
        if not any(welcome.focus_examples() for welcome in self.query(Welcome)):
            self._prompt.recall_last()

    # Smaller wishes.

    def action_command(self, identity: str) -> None:
        self.post_message(BY_ID[identity].message())

    def on_gauges_wanted(self, message: GaugesWanted) -> None:
        message.stop()
        from footplate_tui.screens.gauges import GaugesScreen  # noqa: PLC0415 -- not before the first picture

        self.app.push_screen(GaugesScreen().data_bind(ChatParts.status, ChatParts.is_connected))

    def on_aside_wanted(self, message: AsideWanted) -> None:
        message.stop()
        is_wanted = not self._aside.has_class("-wanted")
        self._aside.set_class(is_wanted, "-wanted")
        self.footplate.remembered.keep_aside(on=is_wanted)
        if is_wanted and not self.has_class("-widest"):
            self._say("The panel is shown where the terminal is 150 columns wide.")

    def on_copy_wanted(self, message: CopyWanted) -> None:
        message.stop()
        shown = self._window.answer
        answers = (spot.version.answer for spot in reversed(self._window.spots) if spot.version.answer)
        text = shown.text if shown and shown.text else next(answers, "")
        if text:
            self.footplate.copy(text)
        else:
            self._say("There is no answer to copy yet.")

    def on_reasoning_wanted(self, message: ReasoningWanted) -> None:
        message.stop()
        if self._window.answer:
            self._window.answer.toggle_reasoning()

    def on_prose_link_chosen(self, message: Prose.LinkChosen) -> None:
        """A link of a model is copied, never opened: it was not the user who wrote it."""
        message.stop()
        self.footplate.copy(message.href)
