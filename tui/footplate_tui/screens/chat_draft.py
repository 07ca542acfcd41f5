"""What is being written: the prompt, its files, the user's own editor, and the draft on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from textual import work

from footplate_daemon import errors
from footplate_tui import editor
from footplate_tui.enclosing import Enclosed, enclose
from footplate_tui.harmless import one_line
from footplate_tui.screens.chat_parts import ChatParts

if TYPE_CHECKING:
    from textual.widgets import TextArea

    from footplate_tui.asking import Asking
    from footplate_tui.commands import AttachWanted, EditorWanted
    from footplate_tui.places import Version
    from footplate_tui.widgets.prompt import Prompt

DRAFT_SECONDS = 0.3
"""A crash costs at most what was typed in this time."""


class ChatDraft(ChatParts):
    """Keeps what the user writes until the daemon has it."""

    def __init__(self) -> None:
        super().__init__()
        self._editing: int | None = None
        """The turn in whose place the next question stands."""
        self._enclosed: list[Enclosed] = []
        """Files that go with the next question."""
        self._prompts: list[str] = []
        self._draft = ""
        """What is on disk."""

    def _bring_draft(self) -> None:
        """Show the draft that was kept on disk."""
        self._draft = self.footplate.remembered.draft
        self._prompt.replace_text(self._draft)
        self._prompt.focus()

    def _bring_back(self, asking: Asking) -> None:
        """Put what was asked, and its files, back into the prompt."""
        self._prompt.give_back(asking.text)
        self._enclosed[:0] = asking.enclosed
        self._show_chips()

    # A turn that is edited.

    def _edit(self, version: Version) -> None:
        """Bring a question back into the prompt, to stand in its own place."""
        if self._prompt.whole and self._editing is None:
            self._say("The prompt is not empty: send it, or take it away, first.")
            return
        self._editing = version.number
        self._prompt.replace_text(version.prompt)
        self._prompt.focus()
        self._show_chips()

    def _stop_editing(self) -> None:
        self._editing = None
        self._enclosed.clear()
        self._show_chips()

    # The editor and files.

    def on_editor_wanted(self, message: EditorWanted) -> None:
        message.stop()
        text = self._edited(self._prompt.whole)
        if text is not None:
            self._prompt.replace_text(text)

    def _edited(self, text: str) -> str | None:
        """Let the user edit a text in his own editor; the terminal waits. None when there is no editor."""
        try:
            command = editor.editor(self.footplate.environment)
            with nullcontext() if self.app.is_headless else self.app.suspend():
                text = editor.edited(command, text)
        except errors.FootplateError as error:
            self._say(f"{one_line(error.message)} {one_line(error.hint or '')}")
            return None
        self.refresh(layout=True)
        return text

    def on_attach_wanted(self, message: AttachWanted) -> None:
        message.stop()
        from footplate_tui.screens.attach import AttachScreen  # noqa: PLC0415 -- not before the first picture

        self.app.push_screen(AttachScreen(), self._attach_chosen)

    def _attach_chosen(self, path: Path | None) -> None:
        if path:
            self.attach([path])

    def on_prompt_dropped(self, message: Prompt.Dropped) -> None:
        self.attach(message.paths)

    def on_prompt_last_file_unwanted(self) -> None:
        if self._enclosed:
            self._enclosed.pop()
            self._show_chips()

    @work(group="attach")
    async def attach(self, paths: Sequence[Path]) -> None:
        """Read files; they go with the next question."""
        for path in paths:
            try:
                self._enclosed.append(await asyncio.to_thread(enclose, path))
            except errors.FootplateError as error:
                self._say(f"{one_line(error.message)} {one_line(error.hint or '')}")
        self._show_chips()

    def _show_chips(self) -> None:
        self._chips.show(self._editing, self._enclosed)

    # What ↑ brings back, and what a crash leaves.

    def _remember_prompts(self, sent: str = "") -> None:
        """Take up what ↑ brings back: of this session, and before that what was sent from this terminal."""
        if sent:
            self.footplate.remembered.keep_prompt(sent)
        here = [turn.prompt for turn in self._window.turns if turn.continue_of is None]
        here += [question.text for question in self._window.waiting]
        if sent and sent not in here[-1:]:
            here.append(sent)
        known = set(here)
        self._prompts = [prompt for prompt in self.footplate.remembered.prompts if prompt not in known] + here
        self._prompt.remember(self._prompts)

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
        kept = [*(question.text for question in self._window.waiting), self._prompt.whole]
        draft = "\n".join(text for text in kept if text)
        if draft != self._draft:
            self._draft = draft
            if not self.footplate.remembered.keep_draft(draft):
                self._say("The draft cannot be kept: the state folder cannot be written.")
