"""One batch: how far it is, its figures, errors by kind, the first failed lines."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content
from textual.widget import Widget

from footplate_daemon import errors
from footplate_daemon.wire_batches import BatchProgress
from footplate_tui import conversation
from footplate_tui.batch_lines import name_of, whole_lines
from footplate_tui.commands import Place, bindings
from footplate_tui.screens.batch_actions import BatchActions
from footplate_tui.widgets.lines import Lines

KEYS = ("batch.save", "batch.back")
FAILED_KEYS = ("batch.save", "batch.retry", "batch.back")
UNDER_WAY_KEYS = ("batch.cancel", "batch.back")


class BatchScreen(BatchActions):
    """Follows a batch until it has ended."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.BATCH)

    def __init__(self, progress: BatchProgress) -> None:
        super().__init__(*KEYS)
        self._progress = progress
        self._lines = Lines(is_text=True)
        self._shown: list[Content] = []

    def compose_body(self) -> ComposeResult:
        yield self._lines
        yield self.input
        yield self.about
        yield self.keys

    @property
    def body(self) -> Widget:
        return self._lines

    def on_mount(self) -> None:
        self.session_title = name_of(self._progress)
        self._lines.wraps = True
        self._lines.focus()
        self.follow()

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    @work(group="follow")
    async def follow(self) -> None:
        """Show it now and whenever it has come further, until it has ended."""
        daemon = await self.footplate.daemon()
        attempt = 0
        while True:
            try:
                async for progress in daemon.follow_batch(self._progress.batch.id):
                    attempt = 0
                    self._progress = progress
                    self._draw()
                if self._progress.batch.status.is_final:
                    return
            except errors.NotFound as error:
                self.tell_error(error)
                return
            except errors.FootplateError:
                attempt = max(attempt, 1)
            await asyncio.sleep(conversation.pause_before(attempt))
            attempt += 1

    def chosen_batch(self) -> BatchProgress | None:
        return self._progress

    def _draw(self) -> None:
        """Show what is known; painted is only what differs, and the place stays."""
        if not self.is_mounted:
            return
        lines = whole_lines(self._progress, self._lines.scrollable_content_region.width)
        shown = [line.content or Content.styled(line.text, line.style) for line in lines]
        if len(shown) != len(self._shown) or not all(
            new.is_same(old) for new, old in zip(shown, self._shown, strict=True)
        ):
            self._shown = shown
            top = self._lines.scroll_offset.y
            self._lines.show(lines)
            self._lines.scroll_to(y=top, animate=False)
        self.draw_about()

    def about_words(self, width: int) -> Content:  # noqa: ARG002 -- there is room for all of it above
        return Content("")

    def draw_about(self) -> None:
        super().draw_about()
        self.about.display = bool(self.news)

    def keys_now(self) -> tuple[str, ...]:
        batch = self._progress.batch
        if not batch.status.is_final:
            return UNDER_WAY_KEYS
        return FAILED_KEYS if batch.request_counts.failed else KEYS

    def on_back_wanted(self) -> None:
        if self.news and not self.is_typing:
            self.forget_question()
        elif not self.take_back():
            self.dismiss()
