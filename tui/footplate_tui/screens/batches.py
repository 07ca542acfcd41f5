"""The batches: every one with its progress, what it waits for, and the way to a new one.

They belong to the daemon: they go on when this screen, and the terminal, are closed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from textual import work
from textual.binding import BindingType
from textual.content import Content

from footplate_daemon import errors
from footplate_daemon.wire_batches import BatchProgress
from footplate_tui import conversation
from footplate_tui.batch_lines import about, now_line, table_head, table_line
from footplate_tui.commands import Place, bindings, elsewhere
from footplate_tui.screens.attach import AttachScreen
from footplate_tui.screens.batch import BatchScreen
from footplate_tui.screens.batch_actions import BatchActions
from footplate_tui.screens.batches_compared import BatchesComparedScreen
from footplate_tui.screens.listing import Listing

MOST = 200
"""The daemon tells so many: those under way, and the newest others."""

KEYS = (
    "batches.submit",
    "batches.open",
    "batches.save",
    "batches.mark",
    "batches.compare",
    "batches.back",
    *elsewhere("view.batches"),
)
FAILED_KEYS = ("batches.submit", "batches.open", "batches.retry", *KEYS[2:])
UNDER_WAY_KEYS = (
    *("batches.open", "batches.cancel", "batches.submit", "batches.back"),
    *elsewhere("view.batches"),
)
EMPTY_KEYS = ("batches.submit", "batches.back", *elsewhere("view.batches"))
NOTHING_YET = (
    "No batch yet.\n\n"
    "A batch is a file with a request on each line, as OpenAI's Batch API takes them:\n\n"
    '  {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions",\n'
    '   "body": {"model": "guide", "messages": [{"role": "user", "content": "What is a preset?"}]}}\n\n'
    "Its lines are answered when there is time, the chat goes first, and none is lost: not by a crash, not\n"
    "by a reboot.\n\n"
    "Choose a file:  n        from a script:  footplate batch submit FILE"
)
NO_DAEMON = "No daemon answers.\n\nStart it in another shell:  footplate up\nThis list fills by itself then."


class BatchesScreen(Listing, BatchActions):
    """Lists the batches: those under way, then the newest."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.BATCHES)

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__(*KEYS)
        self._clock = clock
        self._batches: tuple[BatchProgress, ...] | None = None
        self._marked: str | None = None
        self._begun: str | None = None
        """The batch to highlight as soon as it is listed."""

    def on_mount(self) -> None:
        self.session_title = "Batches"
        self.follow()

    # What comes.

    @work(group="follow")
    async def follow(self) -> None:
        """Show the batches now and whenever one has come further."""
        daemon = await self.footplate.daemon()
        attempt = 0
        while True:
            try:
                async for batches in daemon.follow_batches(MOST):
                    attempt = 0
                    self._take(batches)
            except errors.FootplateError:
                self.draw_soon()
            await asyncio.sleep(conversation.pause_before(attempt))
            attempt += 1

    def _take(self, batches: tuple[BatchProgress, ...]) -> None:
        if batches == self._batches:
            return
        chosen, was_on_top = self.chosen_batch(), self.rows.highlighted in {None, 0}
        before = chosen.batch.status if chosen else None
        self._batches = batches
        places = {each.batch.id: place for place, each in enumerate(batches)}
        stays = places.get(chosen.batch.id, 0) if chosen and not was_on_top else 0
        if self._begun in places:
            stays, self._begun = places[self._begun], None
        self.list_again(stays)
        now = self.chosen_batch()
        if now and chosen and now.batch.id == chosen.batch.id and now.batch.status != before:
            self.forget_news()
        self.draw_soon()

    def show_begun(self, batch_id: str) -> None:
        self._begun = batch_id
        if self._batches is not None:
            known, self._batches = self._batches, None
            self._take(known)

    # What is shown.

    def chosen_batch(self) -> BatchProgress | None:
        place = self.place
        return self._batches[place] if self._batches and place is not None else None

    def row_count(self) -> int:
        return len(self._batches or ())

    def head_words(self, width: int) -> Content:
        return table_head(width)

    def now_words(self, width: int) -> Content:
        return now_line(self._batches or ()).truncate(width, ellipsis=True)

    def draw_row(self, place: int, width: int) -> list[Content]:
        if self._batches is None or place >= len(self._batches):
            return []
        progress = self._batches[place]
        is_marked = progress.batch.id == self._marked
        return [table_line(progress, self._clock(), width, is_marked=is_marked)]

    def about_words(self, width: int) -> Content:
        chosen = self.chosen_batch()
        return about(chosen, width) if chosen else Content("")

    def why_empty(self) -> str:
        if self._batches:
            return ""
        if not self.is_connected:
            return NO_DAEMON
        return "Asking the daemon…" if self._batches is None else NOTHING_YET

    def keys_now(self) -> tuple[str, ...]:
        chosen = self.chosen_batch()
        if chosen is None:
            return EMPTY_KEYS
        if not chosen.batch.status.is_final:
            return UNDER_WAY_KEYS
        return FAILED_KEYS if chosen.batch.request_counts.failed else KEYS

    # Keys.

    def on_back_wanted(self) -> None:
        if self.take_back():
            return
        if self._marked is not None:
            self._mark(None)
        else:
            self.dismiss()

    def on_open_batch_wanted(self) -> None:
        if chosen := self.chosen_batch():
            self.app.push_screen(BatchScreen(chosen))

    def on_rows_chosen(self) -> None:
        self.on_open_batch_wanted()

    def on_submit_wanted(self) -> None:
        def take(path: Path | None) -> None:
            if path is not None:
                self.submit(path)

        self.app.push_screen(AttachScreen("New batch", "path of a JSONL file, a request on each line"), take)

    def on_mark_batch_wanted(self) -> None:
        if chosen := self.chosen_batch():
            self._mark(None if self._marked == chosen.batch.id else chosen.batch.id)

    def _mark(self, batch_id: str | None) -> None:
        self._marked = batch_id
        self.rows.redraw()
        self.tell("" if batch_id is None else "Marked. v on another batch compares them, line by line.")

    def on_compare_batches_wanted(self) -> None:
        chosen = self.chosen_batch()
        if chosen is None:
            return
        if self._marked is None or self._marked == chosen.batch.id:
            self.tell("Mark the other batch first: space, then v on this one.")
        else:
            self.app.push_screen(BatchesComparedScreen(self._marked, chosen.batch.id))
