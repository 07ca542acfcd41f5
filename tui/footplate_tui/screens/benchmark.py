"""One benchmark: how far it is, its charts as it goes on, its results, and who is better."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content
from textual.widgets import Static

from footplate_daemon import errors
from footplate_daemon.wire_benchmarks import BenchmarkRun
from footplate_tui import conversation
from footplate_tui.benchmark_charts import Points, charts, rows_for
from footplate_tui.benchmark_compare import comparable
from footplate_tui.benchmark_lines import (
    UNDER_WAY,
    Square,
    about_result,
    best_of,
    head_line,
    progress_line,
    result_head,
    result_line,
    squares,
    verdict_lines,
)
from footplate_tui.benchmark_matrix import of_wish
from footplate_tui.benchmarks.recommendation import Recommendation, recommend
from footplate_tui.benchmarks.report.page import as_html
from footplate_tui.browser import open_file
from footplate_tui.commands import Place, bindings
from footplate_tui.screens.answers import AnswersScreen
from footplate_tui.screens.listing import Listing
from footplate_tui.screens.matrix import MatrixScreen
from footplate_tui.screens.page import told
from footplate_tui.screens.questions import say
from footplate_tui.screens.runs import RunsScreen
from footplate_tui.widgets.gauge_lines import GaugeLines

KEYS = (
    "benchmark.answers",
    "benchmark.report",
    "benchmark.compare",
    "benchmark.charts",
    "benchmark.again",
    "benchmark.back",
)
UNDER_WAY_KEYS = ("benchmark.cancel", "benchmark.charts", "benchmark.answers", "benchmark.back")
AROUND = 7
"""Lines that are neither charts nor results: header, head, table head, about, keys."""
VERDICT_PART = 6
"""What to keep gets a sixth of the screen."""
LEAST_RESULTS = 3
LOOKED_THROUGH = 100
"""So many runs are looked through for one to compare with."""


class BenchmarkScreen(Listing):
    """Follows a run until it has ended; leaving it leaves the run alone."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.BENCHMARK)

    def __init__(self, run_id: int) -> None:
        super().__init__(*KEYS)
        self._number = run_id
        self._run: BenchmarkRun | None = None
        self._points = Points()
        self._squares: list[Square] = []
        self._best: dict[tuple[str, int], dict[str, Square]] = {}
        self._problem = ""
        self._verdicts: tuple[Recommendation, ...] = ()
        """What to keep and why, once that is known."""
        self._prefers_charts = False
        self._progress = Static(markup=False, classes="progress")
        self._charts = GaugeLines()

    def compose_above(self) -> ComposeResult:
        yield self._progress
        yield self._charts

    def on_mount(self) -> None:
        self.session_title = f"Benchmark {self._number}"
        self.follow()

    # What comes.

    @work(group="follow")
    async def follow(self) -> None:
        """Show the run as it goes on, until it has ended."""
        daemon = await self.footplate.daemon()
        attempt = 0
        while self._run is None or self._run.state in UNDER_WAY:
            try:
                async for news in daemon.follow_benchmark(self._number):
                    attempt, self._problem = 0, ""
                    if isinstance(news, BenchmarkRun):
                        self._take(news)
                    else:
                        self._points.take([news])
                        self.draw_soon()
            except errors.DaemonUnreachable:
                self.draw_soon()
            except errors.FootplateError as error:
                self._problem = told(error)
                self.draw_soon()
                if isinstance(error, errors.NotFound):
                    return
            await asyncio.sleep(conversation.pause_before(attempt))
            attempt += 1
        self.judge()

    @work(group="judge", exclusive=True)
    async def judge(self) -> None:
        """Work out what to keep; that takes every request, and some time."""
        run = await self._whole()
        if run is not None and run.cells_done:
            self._verdicts = await asyncio.to_thread(recommend, run)
            self.draw()

    async def _whole(self) -> BenchmarkRun | None:
        """Get the run with every request; what the daemon refuses is said, and is None here."""
        daemon = await self.footplate.daemon()
        try:
            return await daemon.benchmark_run(self._number, records=True)
        except errors.FootplateError as error:
            self.tell(Content.styled(told(error), "$error"))
            return None

    def _take(self, run: BenchmarkRun) -> None:
        self._run = run
        for cell in run.cells:
            self._points.take(cell.points)
        self._squares = squares(run)
        self._best = best_of(self._squares)
        self.list_again()
        self.draw_soon()

    # What is shown.

    def draw(self) -> None:
        super().draw()
        run = self._run
        if run is None or not self.is_mounted:
            return
        width = max(self.size.width - 2, 1)
        lines = [progress_line(run, width)] if run.state in UNDER_WAY else self._verdict_lines(width)
        self._progress.display = bool(lines)
        say(self._progress, Content("\n").join(lines))
        self._draw_charts(run, width, len(lines))

    def _verdict_lines(self, width: int) -> list[Content]:
        """Say what to keep, in no more lines than leave room for the results."""
        lines = [line for verdict in self._verdicts for line in verdict_lines(verdict, width)]
        return lines[: max(self.size.height // VERDICT_PART, 1)]

    def _draw_charts(self, run: BenchmarkRun, width: int, above: int) -> None:
        lines = self._chart_lines(run, above)
        self._charts.display = lines > 0
        if lines:
            drawn = charts(run, self._points, width, rows_for(len(run.entrants), lines))
            self._charts.show(drawn[:lines])

    def _chart_lines(self, run: BenchmarkRun, above: int) -> int:
        """Say how many lines the charts have: what the results do not need, or nearly all."""
        room = self.size.height - AROUND - above
        if self._prefers_charts:
            return max(room - LEAST_RESULTS, 0)
        least = len(run.entrants) + 1
        lines = room - max(min(len(self._squares), room * 3 // 5), LEAST_RESULTS)
        if lines < least:
            return least if room - least >= LEAST_RESULTS else 0
        return lines

    def row_count(self) -> int:
        return len(self._squares)

    def head_words(self, width: int) -> Content:
        return result_head(width)

    def now_words(self, width: int) -> Content:
        return head_line(self._run, width) if self._run else Content("")

    def draw_row(self, place: int, width: int) -> list[Content]:
        if place >= len(self._squares):
            return []
        square = self._squares[place]
        work_ = (square.first.workload, square.first.concurrency)
        above = self._squares[place - 1].first if place else None
        repeats_work = above is not None and (above.workload, above.concurrency) == work_
        return [result_line(square, self._best.get(work_, {}), width, repeats_work=repeats_work)]

    def about_words(self, width: int) -> Content:
        square = self._square()
        return about_result(square, width) if square else Content("")

    def why_empty(self) -> str:
        if self._run is not None:
            return "" if self._squares else "Its matrix is being worked out…"
        if self._problem:
            return self._problem
        return "Asking the daemon…" if self.is_connected else "No daemon answers. Start it:  footplate up"

    def keys_now(self) -> tuple[str, ...]:
        return UNDER_WAY_KEYS if self._run is None or self._run.state in UNDER_WAY else KEYS

    def _square(self) -> Square | None:
        place = self.place
        return self._squares[place] if place is not None else None

    # Keys.

    def on_back_wanted(self) -> None:
        if not self.take_back():
            self.dismiss()

    def on_charts_wanted(self) -> None:
        self._prefers_charts = not self._prefers_charts
        self.draw()

    def on_cancel_run_wanted(self) -> None:
        run = self._run
        if run is None:
            return
        if run.state not in UNDER_WAY:
            self.tell("It has ended.")
        elif self.is_confirmed("c", run.id, "Cancel it? What it has measured is kept.", "cancels it"):
            self.cancel()

    @work(group="cancel")
    async def cancel(self) -> None:
        """End the run."""
        daemon = await self.footplate.daemon()
        try:
            await daemon.cancel_benchmark(self._number)
        except errors.FootplateError as error:
            self.tell(told(error))
        else:
            self.tell("It is being cancelled.")

    def on_again_wanted(self) -> None:
        if self._run is not None:
            self.app.push_screen(MatrixScreen(of_wish(self._run.wish)), self._begun)

    def _begun(self, run: BenchmarkRun | None) -> None:
        if run is not None:
            self.app.switch_screen(BenchmarkScreen(run.id))

    def on_answers_wanted(self) -> None:
        square, run = self._square(), self._run
        if square is None or run is None:
            return
        if not run.wish.keep_answers:
            self.tell("Its answers were not kept: it was asked to keep none.")
            return
        first = square.first
        rivals = [
            each
            for each in self._squares
            if (each.first.workload, each.first.concurrency) == (first.workload, first.concurrency)
        ]
        self.app.push_screen(AnswersScreen(run.id, rivals))

    def on_rows_chosen(self) -> None:
        self.on_answers_wanted()

    def on_report_wanted(self) -> None:
        if self._run is not None:
            self.report()

    @work(group="report", exclusive=True)
    async def report(self) -> None:
        """Write the report to this machine, and open it where there is a browser."""
        self.tell("Writing the report…")
        run = await self._whole()
        if run is None:
            return
        path = Path.cwd() / f"footplate-bench-{run.id}.html"
        try:
            await asyncio.to_thread(_write_report, run, path)
        except OSError as error:
            self.tell(Content.styled(f"✗ {path}: {error.strerror}.", "$error"))
            return
        is_open = await asyncio.to_thread(open_file, path, self.footplate.environment)
        self.tell(f"Written to {path}{', and opened.' if is_open else '; open it in a browser.'}")

    def on_compare_runs_wanted(self) -> None:
        self.compare()

    @work(group="compare", exclusive=True)
    async def compare(self) -> None:
        """Find the run before that measured the same, and compare with it."""
        run = self._run
        if run is None:
            return
        daemon = await self.footplate.daemon()
        try:
            page = await daemon.benchmark_runs(limit=LOOKED_THROUGH, before=run.id)
        except errors.FootplateError as error:
            self.tell(told(error))
            return
        earlier = comparable(run, page.runs)
        if earlier is None:
            self.tell("No run before it measured the same. In the list, space marks any other one.")
        else:
            self.app.push_screen(RunsScreen(earlier.id, run.id))


def _write_report(run: BenchmarkRun, path: Path) -> None:
    path.write_text(as_html(run), encoding="utf-8")
