"""The benchmarks: every run with its progress, and the way to a new one.

The runs belong to the daemon: they go on when this screen, and the terminal, are closed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import ClassVar

from textual import work
from textual.binding import BindingType
from textual.content import Content

from footplate_daemon import errors
from footplate_daemon.wire_benchmarks import BenchmarkRow, BenchmarkRun
from footplate_tui import conversation
from footplate_tui.benchmark_compare import comparable
from footplate_tui.benchmark_lines import UNDER_WAY, about_run, now_line, run_head, run_line
from footplate_tui.benchmark_matrix import of_wish
from footplate_tui.commands import Place, bindings, elsewhere
from footplate_tui.screens.benchmark import BenchmarkScreen
from footplate_tui.screens.listing import Listing
from footplate_tui.screens.matrix import MatrixScreen
from footplate_tui.screens.page import told
from footplate_tui.screens.runs import RunsScreen

PAGE = 50
LOOK_SECONDS, LOOK_SELDOM_SECONDS = 1.5, 3.0
"""The list is read again so often while something goes on, and while nothing does."""

KEYS = (
    "benchmarks.new",
    "benchmarks.open",
    "benchmarks.compare",
    "benchmarks.mark",
    "benchmarks.again",
    "benchmarks.delete",
    "benchmarks.back",
    *elsewhere("view.benchmarks"),
)
UNDER_WAY_KEYS = (
    *("benchmarks.open", "benchmarks.cancel", "benchmarks.new", "benchmarks.back"),
    *elsewhere("view.benchmarks"),
)
EMPTY_KEYS = ("benchmarks.new", "benchmarks.back", *elsewhere("view.benchmarks"))
NOTHING_YET = (
    "Nothing has been measured yet.\n\n"
    "A benchmark gives the same work with the same parameters to each runtime and model you choose, starts\n"
    "each of them cold, and measures first tokens, speed, memory and energy. It says who is better, and\n"
    "whether that is certain. It goes on when you close the terminal.\n\n"
    "Choose what is measured:  n"
)
NO_DAEMON = "No daemon answers.\n\nStart it in another shell:  footplate up\nThis list fills by itself then."


class BenchmarksScreen(Listing):
    """Lists the runs, the newest first."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.BENCHMARKS)

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__(*KEYS)
        self._clock = clock
        self._runs: list[BenchmarkRow] | None = None
        self._before: int | None = None
        """Where the next page begins; None: all are here."""
        self._marked: int | None = None
        self._look_now = asyncio.Event()

    def on_mount(self) -> None:
        self.session_title = "Benchmarks"
        self.follow()

    # What comes.

    @work(group="follow")
    async def follow(self) -> None:
        """Read the list again and again; nobody is told of new runs otherwise."""
        daemon = await self.footplate.daemon()
        attempt = 0
        while True:
            try:
                page = await daemon.benchmark_runs(limit=PAGE)
            except errors.FootplateError:
                self.draw_soon()
                pause = conversation.pause_before(attempt)
                attempt += 1
            else:
                attempt = 0
                self._take(page.runs, page.before)
                is_under_way = any(row.state in UNDER_WAY for row in page.runs)
                pause = LOOK_SECONDS if is_under_way else LOOK_SELDOM_SECONDS
            self._look_now.clear()
            try:
                await asyncio.wait_for(self._look_now.wait(), pause)
            except TimeoutError:
                continue

    def _take(self, runs: tuple[BenchmarkRow, ...], before: int | None) -> None:
        """Show the newest runs; older ones that were read stay."""
        oldest = runs[-1].id if runs else 0
        older = [row for row in self._runs or [] if row.id < oldest]
        if not older:
            self._before = before
        self._list([*runs, *older])

    def _list(self, runs: list[BenchmarkRow]) -> None:
        if runs == self._runs:
            return
        chosen = self._chosen()
        was_on_top = self.rows.highlighted in {None, 0}
        self._runs = runs
        place = next((at for at, row in enumerate(runs) if chosen and row.id == chosen.id), 0)
        self.list_again(0 if was_on_top else place)
        self.draw()

    def on_rows_end_near(self) -> None:
        self.load_older()

    @work(group="older", exclusive=True)
    async def load_older(self) -> None:
        """Get the page that follows what is listed."""
        if self._before is None or self._runs is None:
            return
        daemon = await self.footplate.daemon()
        try:
            page = await daemon.benchmark_runs(limit=PAGE, before=self._before)
        except errors.FootplateError as error:
            self.tell(told(error))
            return
        self._before = page.before
        known = {row.id for row in self._runs}
        self._list([*self._runs, *(row for row in page.runs if row.id not in known)])

    def watch_is_connected(self) -> None:
        self._look_now.set()
        self.draw_soon()

    # What is shown.

    def row_count(self) -> int:
        return len(self._runs or [])

    def head_words(self, width: int) -> Content:
        return run_head(width)

    def now_words(self, width: int) -> Content:
        return now_line(self._runs or []).truncate(width, ellipsis=True)

    def draw_row(self, place: int, width: int) -> list[Content]:
        if self._runs is None or place >= len(self._runs):
            return []
        row = self._runs[place]
        return [run_line(row, self._clock(), width, is_marked=row.id == self._marked)]

    def about_words(self, width: int) -> Content:
        chosen = self._chosen()
        return about_run(chosen, width) if chosen else Content("")

    def why_empty(self) -> str:
        if self._runs:
            return ""
        if not self.is_connected:
            return NO_DAEMON
        return "Asking the daemon…" if self._runs is None else NOTHING_YET

    def keys_now(self) -> tuple[str, ...]:
        chosen = self._chosen()
        if chosen is None:
            return EMPTY_KEYS
        return UNDER_WAY_KEYS if chosen.state in UNDER_WAY else KEYS

    def _chosen(self) -> BenchmarkRow | None:
        place = self.place
        return self._runs[place] if self._runs and place is not None else None

    # Keys.

    def on_back_wanted(self) -> None:
        if self.take_back():
            return
        if self._marked is not None:
            self._mark(None)
        else:
            self.dismiss()

    def on_open_run_wanted(self) -> None:
        if chosen := self._chosen():
            self._open(chosen.id)

    def on_rows_chosen(self) -> None:
        self.on_open_run_wanted()

    def _open(self, run_id: int) -> None:
        self.app.push_screen(BenchmarkScreen(run_id), lambda _: self._look_now.set())

    def on_new_run_wanted(self) -> None:
        self._choose(MatrixScreen())

    def on_again_wanted(self) -> None:
        if chosen := self._chosen():
            self.again(chosen.id)

    @work(group="again", exclusive=True)
    async def again(self, run_id: int) -> None:
        """Open the choices as they were for a run."""
        daemon = await self.footplate.daemon()
        try:
            run = await daemon.benchmark_run(run_id)
        except errors.FootplateError as error:
            self.tell(told(error))
            return
        self._choose(MatrixScreen(of_wish(run.wish)))

    def _choose(self, screen: MatrixScreen) -> None:
        def begun(run: BenchmarkRun | None) -> None:
            self._look_now.set()
            if run is not None:
                self._open(run.id)

        self.app.push_screen(screen, begun)

    def on_mark_run_wanted(self) -> None:
        if chosen := self._chosen():
            self._mark(None if self._marked == chosen.id else chosen.id)

    def _mark(self, run_id: int | None) -> None:
        self._marked = run_id
        self.rows.redraw()
        self.tell("" if run_id is None else f"Run {run_id} is marked. v on another one compares them.")

    def on_compare_runs_wanted(self) -> None:
        chosen = self._chosen()
        if chosen is None:
            return
        if self._marked is not None and self._marked != chosen.id:
            first, second = sorted((self._marked, chosen.id))
            self.app.push_screen(RunsScreen(first, second))
            return
        earlier = comparable(chosen, self._runs or [])
        if earlier is None:
            self.tell("No run before it measured the same. Mark another one with space, then v.")
        else:
            self.app.push_screen(RunsScreen(earlier.id, chosen.id))

    def on_cancel_run_wanted(self) -> None:
        chosen = self._chosen()
        if chosen is None:
            return
        if chosen.state not in UNDER_WAY:
            self.tell(f"Run {chosen.id} has ended.")
        elif self.is_confirmed(
            "c", chosen.id, f"Cancel run {chosen.id}? What it has measured is kept.", "cancels it"
        ):
            self.cancel(chosen.id)

    @work(group="cancel")
    async def cancel(self, run_id: int) -> None:
        """End a run."""
        daemon = await self.footplate.daemon()
        try:
            await daemon.cancel_benchmark(run_id)
        except errors.FootplateError as error:
            self.tell(told(error))
        else:
            self.tell(f"Run {run_id} is cancelled.")
        self._look_now.set()

    def on_delete_run_wanted(self) -> None:
        chosen = self._chosen()
        if chosen is None:
            return
        if chosen.state in UNDER_WAY:
            self.tell("It goes on. Cancel it first:  c")
        elif self.is_confirmed(
            "d", chosen.id, f"Delete run {chosen.id} with all that it measured, for good?", "deletes it"
        ):
            self.delete(chosen.id)

    @work(group="cancel")
    async def delete(self, run_id: int) -> None:
        """Delete a run for good."""
        daemon = await self.footplate.daemon()
        try:
            await daemon.delete_benchmark(run_id)
        except errors.FootplateError as error:
            self.tell(told(error))
            return
        self._list([row for row in self._runs or [] if row.id != run_id])
        self.tell(f"Run {run_id} is deleted.")
