"""Where the user types: Enter sends, Ctrl+J begins a line, ↑ in an empty prompt brings back the last one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.message import Message
from textual.reactive import reactive
from textual.widgets import TextArea

from footplate_tui.commands import (
    BY_ID,
    EarlierPromptWanted,
    FollowWanted,
    LaterPromptWanted,
    NewlineWanted,
    Place,
    SendWanted,
    bindings,
)


class Prompt(TextArea):
    """A text area that posts `Sent` and keeps nothing: who hears it owns the text from then on."""

    BINDINGS = bindings(Place.PROMPT)

    speaker: reactive[str] = reactive("")
    """Who will answer next."""

    @dataclass
    class Sent(Message):
        """The user wants this to be asked."""

        text: str

    class UpFromEmpty(Message):
        """The user went up out of an empty prompt, and there is no earlier prompt to bring back."""

    def __init__(self) -> None:
        super().__init__(
            soft_wrap=True, show_line_numbers=False, highlight_cursor_line=False, placeholder="Ask anything"
        )
        # A blinking cursor alone writes 520 bytes a second for ever.
        self.cursor_blink = False
        self._earlier: Sequence[str] = ()
        self._recalled: int | None = None

    def watch_speaker(self) -> None:
        self.border_title = self.speaker

    def remember(self, prompts: Sequence[str]) -> None:
        """Take the prompts that ↑ brings back, oldest first."""
        self._earlier = prompts
        self._recalled = None

    def replace_text(self, text: str) -> None:
        """Put a text in place of what stands there, the cursor behind it."""
        self.text = text
        self.move_cursor(self.document.end)

    def give_back(self, text: str) -> None:
        """Put a text that could not be sent before what was typed since."""
        self.replace_text(f"{text}\n{self.text}" if self.text else text)

    def action_command(self, identity: str) -> None:
        self.post_message(BY_ID[identity].message())

    def on_send_wanted(self, message: SendWanted) -> None:
        message.stop()
        text = self.text.strip()
        if text:
            self._recalled = None
            self.clear()
            self.post_message(self.Sent(text))

    def on_newline_wanted(self, message: NewlineWanted) -> None:
        message.stop()
        self.insert("\n")

    def on_earlier_prompt_wanted(self, message: EarlierPromptWanted) -> None:
        message.stop()
        if not self._shows_recalled():
            self.action_cursor_up()
            return
        place = len(self._earlier) if self._recalled is None else self._recalled
        if place > 0:
            self._recall(place - 1)
        elif not self._earlier:
            self.post_message(self.UpFromEmpty())

    def on_later_prompt_wanted(self, message: LaterPromptWanted) -> None:
        message.stop()
        if self._recalled is None or not self._shows_recalled():
            self.action_cursor_down()
        elif self._recalled + 1 < len(self._earlier):
            self._recall(self._recalled + 1)
        else:
            self._recalled = None
            self.clear()

    def action_cursor_line_end(self, select: bool = False) -> None:
        """Go to the end of the line; from there, End follows the answer again."""
        if not select and self.cursor_at_end_of_line:
            self.post_message(FollowWanted())
        super().action_cursor_line_end(select)

    def _shows_recalled(self) -> bool:
        """Whether the prompt holds nothing of its own: it is empty, or a recalled prompt nobody changed."""
        if self._recalled is not None and self._recalled < len(self._earlier):
            return self.text == self._earlier[self._recalled] or not self.text
        return not self.text

    def _recall(self, place: int) -> None:
        self._recalled = place
        self.replace_text(self._earlier[place])
