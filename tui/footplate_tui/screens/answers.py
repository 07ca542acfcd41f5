"""What each entrant of a benchmark answered to the same request, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.content import Content
from textual.widgets import Static

from footplate_daemon import errors
from footplate_daemon.wire_benchmarks import RequestRecord
from footplate_tui.answers import answers_text, record_lines
from footplate_tui.benchmark_lines import Square
from footplate_tui.commands import Place, bindings
from footplate_tui.harmless import one_line
from footplate_tui.screens.page import Page, told
from footplate_tui.screens.questions import say
from footplate_tui.widgets.lines import Lines
from footplate_tui.widgets.status_line import KeyLine

SIDE_BY_SIDE_FROM = 100
MOST_PANELS = 4
"""More are not read beside each other."""


class AnswersScreen(Page):
    """Shows one request at a time; the first entrant's answer is what the others are compared with."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.ANSWERS)
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (SIDE_BY_SIDE_FROM, "-wide")]  # noqa: RUF012 -- the base class's type

    def __init__(self, run_id: int, squares: Sequence[Square]) -> None:
        super().__init__()
        self._run_id = run_id
        self._squares = squares[:MOST_PANELS]
        self._records: list[dict[int, RequestRecord]] = []
        """Of each entrant, by number."""
        self._numbers: list[int] = []
        self._place = 0
        self._only_differing = False
        self._now = Static("Asking the daemon…", markup=False, classes="now")
        self._panels = [Lines(is_text=True) for _ in self._squares]

    def compose_body(self) -> ComposeResult:
        yield self._now
        with Container(classes="panels"):
            yield from self._panels
        yield KeyLine("answers.earlier", "answers.later", "answers.differing", "answers.copy", "answers.back")

    def on_mount(self) -> None:
        first = self._squares[0].first
        self.session_title = f"Answers: {one_line(first.workload)}, {first.concurrency} at a time"
        for panel, square in zip(self._panels, self._squares, strict=True):
            panel.wraps = True
            panel.border_title = Content(_name(square))
        self._panels[0].focus()
        self.look()

    @work(group="look", exclusive=True)
    async def look(self) -> None:
        """Get the requests of each cell."""
        daemon = await self.footplate.daemon()
        found: list[dict[int, RequestRecord]] = []
        try:
            for square in self._squares:
                run = await daemon.benchmark_run(self._run_id, records=True, cell=square.first.number)
                cell = next(each for each in run.cells if each.number == square.first.number)
                found.append({record.number: record for record in cell.records or ()})
        except errors.FootplateError as error:
            say(self._now, Content.styled(told(error), "$error"))
            return
        self._records = found
        self._choose()

    def _choose(self) -> None:
        """List which requests are shown; the one that is shown stays where it can."""
        shown = self._numbers[self._place] if self._numbers else 0
        numbers = sorted({number for records in self._records for number in records})
        self._numbers = [each for each in numbers if not self._only_differing or self._differs(each)]
        self._place = next((place for place, each in enumerate(self._numbers) if each >= shown), 0)
        self._show()

    def _differs(self, number: int) -> bool:
        answers = {record.answer if record else None for record in self._of(number)}
        return len(answers) > 1

    def _of(self, number: int) -> list[RequestRecord | None]:
        return [records.get(number) for records in self._records]

    def _show(self) -> None:
        if not self._numbers:
            words = (
                "All answers are the same to the letter. d shows them."
                if self._only_differing
                else ("No request has been answered yet.")
            )
            say(self._now, Content.styled(words, "$muted"))
            for panel in self._panels:
                panel.show([])
            return
        records = self._of(self._numbers[self._place])
        prompt = next((record.prompt for record in records if record and record.prompt), "")
        differing = sum(map(self._differs, self._numbers))
        told_ = f"{self._place + 1} of {len(self._numbers)}, {differing} differ   "
        say(self._now, Content.assemble((told_, "bold $primary"), one_line(prompt)[:1000]))
        for place, (panel, record) in enumerate(zip(self._panels, records, strict=True)):
            panel.show(record_lines(record, records[0] if place else None))
            panel.scroll_to(y=0, animate=False)

    # Keys.

    def on_earlier_answer_wanted(self) -> None:
        self._go(-1)

    def on_later_answer_wanted(self) -> None:
        self._go(1)

    def _go(self, step: int) -> None:
        if 0 <= self._place + step < len(self._numbers):
            self._place += step
            self._show()

    def on_differing_wanted(self) -> None:
        if self._records:
            self._only_differing = not self._only_differing
            self._choose()

    def on_copy_wanted(self) -> None:
        if not self._numbers:
            return
        records = self._of(self._numbers[self._place])
        prompt = next((record.prompt for record in records if record and record.prompt), "")
        named = [
            (_name(square), (record.answer or "") if record else "")
            for square, record in zip(self._squares, records, strict=True)
        ]
        self.footplate.copy(answers_text(prompt, named))

    def on_back_wanted(self) -> None:
        self.dismiss()


def _name(square: Square) -> str:
    entrant = square.entrant
    return one_line(" ".join(filter(None, (entrant.variant, entrant.preset))))
