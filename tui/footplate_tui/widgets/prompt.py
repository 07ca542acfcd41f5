"""Where the user types: Enter sends, Ctrl+J begins a line, ↑ in an empty prompt brings back the last one.

A long text that is pasted stands as a few words in its place, and is sent whole; to lay out 10,000 lines at
every key would freeze the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from textual import events
from textual.message import Message
from textual.reactive import reactive

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
from footplate_tui.enclosing import dropped_paths
from footplate_tui.format import count
from footplate_tui.widgets.fields import TextField

LINES_SHOWN = 100
CHARACTERS_SHOWN = 20_000
"""A longer text is shown as a few words."""


class Prompt(TextField):
    """A text area that posts `Sent` and keeps nothing: who hears it owns the text from then on."""

    BINDINGS = bindings(Place.PROMPT)

    speaker: reactive[str] = reactive("")
    """Who will answer next."""

    @dataclass
    class Sent(Message):
        """The user wants this to be asked."""

        text: str

    @dataclass
    class Dropped(Message):
        """Paths of files were pasted, as a terminal does with what is dropped on it."""

        paths: list[Path]

    class LastFileUnwanted(Message):
        """The user deletes in an empty prompt."""

    class UpFromEmpty(Message):
        """The user went up out of an empty prompt, and there is something above, or nothing to bring back."""

    def __init__(self) -> None:
        super().__init__(placeholder="Ask anything")
        self.asks_first = False
        """Whether ↑ may lead to something above the prompt, instead of to an earlier prompt."""
        self._paste_count = 0
        self._pasted: dict[str, str] = {}
        """Long texts by the words that stand for them."""
        self._earlier: Sequence[str] = ()
        self._recalled: int | None = None

    def watch_speaker(self) -> None:
        self.border_title = self.speaker

    def remember(self, prompts: Sequence[str]) -> None:
        """Take the prompts that ↑ brings back, oldest first."""
        self._earlier = prompts
        self._recalled = None

    @property
    def whole(self) -> str:
        """What stands there, with all that was pasted."""
        text = self.text
        for words, pasted in self._pasted.items():
            text = text.replace(words, pasted)
        return text

    def replace_text(self, text: str) -> None:
        """Put a text in place of what stands there, the cursor behind it."""
        self._pasted.clear()
        self.text = self._shortened(text)
        self.move_cursor(self.document.end)

    def give_back(self, text: str) -> None:
        """Put a text that could not be sent before what was typed since."""
        self.replace_text(f"{text}\n{self.whole}" if self.text else text)

    def recall_last(self) -> None:
        """Bring back the newest earlier prompt, if there is one."""
        if self._earlier:
            self._recall(len(self._earlier) - 1)

    def _shortened(self, text: str) -> str:
        """Give a text, or the words that stand for it when it is long."""
        lines = text.count("\n") + 1
        if lines <= LINES_SHOWN and len(text) <= CHARACTERS_SHOWN:
            return text
        amount = count(lines, "line") if lines > 1 else count(len(text), "character")
        self._paste_count += 1
        words = f"[{amount} pasted, {self._paste_count}]"
        self._pasted[words] = text
        return words

    async def _on_paste(self, event: events.Paste) -> None:
        event.stop()
        event.prevent_default()
        paths = dropped_paths(event.text)
        if paths:
            self.post_message(self.Dropped(paths))
            return
        text = event.text.replace("\r\n", "\n").replace("\r", "\n")
        await super()._on_paste(events.Paste(self._shortened(text)))

    def action_delete_left(self) -> None:
        """Delete on the left: a character, or the words of a paste; in an empty prompt, the last file."""
        if not self.text:
            self.post_message(self.LastFileUnwanted())
        row, column = self.cursor_location
        before = self.document.get_line(row)[:column]
        words = next((words for words in self._pasted if before.endswith(words)), None)
        if words and self.selection.is_empty:
            self.delete((row, column - len(words)), (row, column))  # undone, they mean the text again
        else:
            super().action_delete_left()

    def action_command(self, identity: str) -> None:
        self.post_message(BY_ID[identity].message())

    def on_send_wanted(self, message: SendWanted) -> None:
        message.stop()
        text = self.whole.strip()
        if text:
            self._recalled = None
            self._pasted.clear()
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
        if not self._earlier or (self.asks_first and self._recalled is None):
            self.post_message(self.UpFromEmpty())
        elif place > 0:
            self._recall(place - 1)

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
            return self.whole == self._earlier[self._recalled] or not self.text
        return not self.text

    def _recall(self, place: int) -> None:
        self._recalled = place
        self.replace_text(self._earlier[place])
