"""Two batches of the same input compared: figures, and both answers to every line."""

from __future__ import annotations

from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.content import Content
from textual.widgets import Static

from footplate_daemon import errors
from footplate_daemon.wire_batches import BatchComparison, ComparedLine
from footplate_tui.answers import answers_text
from footplate_tui.batches_compared import (
    answer_lines,
    differs,
    names_of,
    same_line,
    side_line,
    table_head,
    table_line,
)
from footplate_tui.commands import Place, bindings
from footplate_tui.harmless import one_line
from footplate_tui.screens.listing import Listing
from footplate_tui.screens.page import told
from footplate_tui.screens.questions import say
from footplate_tui.widgets.lines import Lines

PAGE = 200


class BatchesComparedScreen(Listing):
    """Lists the lines; both answers to the highlighted one stand below."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.BATCHES_COMPARED)

    def __init__(self, first: str, second: str) -> None:
        super().__init__("compared.differing", "compared.copy", "compared.back")
        self._ids = first, second
        self._comparison: BatchComparison | None = None
        self._all: list[ComparedLine] = []
        self._lines: list[ComparedLine] = []
        self._next: int | None = 1
        self._only_differing = False
        self._problem = ""
        self._sides = Static(markup=False, classes="sides")
        self._panels = (Lines(is_text=True), Lines(is_text=True))

    def compose_body(self) -> ComposeResult:
        yield self.now
        yield self._sides
        yield self.head
        yield self.rows
        yield self.empty
        with Container(classes="panels"):
            yield from self._panels
        yield self.input
        yield self.about
        yield self.keys

    def on_mount(self) -> None:
        self.session_title = "Two batches"
        for panel in self._panels:
            panel.wraps = True
        self.load()

    # What comes.

    def on_rows_end_near(self) -> None:
        if self._comparison is not None:
            self.load()

    @work(group="load", exclusive=True)
    async def load(self) -> None:
        """Get the next page of lines."""
        if self._next is None:
            return
        daemon = await self.footplate.daemon()
        try:
            page = await daemon.compare_batches(*self._ids, from_line=self._next, limit=PAGE)
        except errors.FootplateError as error:
            self._problem = told(error)
            self.tell(Content.styled(self._problem, "$error"))
            self.draw()
            return
        self._comparison, self._next, self._problem = page, page.next_line, ""
        self._all += page.lines
        self._list(self.rows.highlighted)
        if self._only_differing and len(self._lines) < self.size.height:
            self.call_later(self.load)

    def watch_is_connected(self) -> None:
        if self.is_connected and self.is_mounted and self._comparison is None:
            self.load()
        super().watch_is_connected()

    def _list(self, highlighted: int | None) -> None:
        self._lines = [line for line in self._all if differs(line) or not self._only_differing]
        self.list_again(highlighted)
        self.draw()
        self._show_answers()

    # What is shown.

    def row_count(self) -> int:
        return len(self._lines)

    def head_words(self, width: int) -> Content:
        return table_head(width)

    def now_words(self, width: int) -> Content:
        return same_line(self._comparison, width) if self._comparison else Content("")

    def draw(self) -> None:
        super().draw()
        comparison = self._comparison
        self._sides.display = comparison is not None
        for panel in self._panels:
            panel.display = bool(self._lines)
        self.about.display = bool(self.news)
        if comparison is None:
            return
        width = max(self.size.width - 2, 1)
        sides = (comparison.first, comparison.second)
        names = names_of(comparison)
        lines = [side_line(name, side, width) for name, side in zip(names, sides, strict=True)]
        say(self._sides, Content("\n").join(lines))
        for panel, name in zip(self._panels, names, strict=True):
            panel.border_title = Content(name)

    def draw_row(self, place: int, width: int) -> list[Content]:
        return [table_line(self._lines[place], width)] if place < len(self._lines) else []

    def about_words(self, width: int) -> Content:  # noqa: ARG002 -- the answers say it
        return Content("")

    def draw_about(self) -> None:
        super().draw_about()
        self.about.display = bool(self.news)

    def why_empty(self) -> str:
        if self._lines:
            return ""
        if self._problem:
            return self._problem
        if self._comparison is None:
            return "Asking the daemon…"
        return (
            "All answers are the same to the letter. d shows them."
            if self._only_differing
            else "No line is in both."
        )

    def on_rows_highlighted(self) -> None:
        self._show_answers()

    def _show_answers(self) -> None:
        line = self._line()
        answers = (line.first, line.second) if line else (None, None)
        shown = (answer_lines(answers[0]), answer_lines(answers[1], answers[0])) if line else ([], [])
        for panel, lines in zip(self._panels, shown, strict=True):
            panel.show(lines)
            panel.scroll_to(y=0, animate=False)

    def _line(self) -> ComparedLine | None:
        place = self.place
        return self._lines[place] if place is not None else None

    # Keys.

    def on_differing_wanted(self) -> None:
        self._only_differing = not self._only_differing
        self._list(0)
        if len(self._lines) < self.size.height:
            self.load()

    def on_copy_wanted(self) -> None:
        line = self._line()
        if line is None or self._comparison is None:
            return
        answers = [answer.text if answer else "" for answer in (line.first, line.second)]
        named = list(zip(names_of(self._comparison), answers, strict=True))
        self.footplate.copy(answers_text(f"{one_line(line.custom_id)}: {line.prompt}", named))

    def on_back_wanted(self) -> None:
        if not self.take_back():
            self.dismiss()
