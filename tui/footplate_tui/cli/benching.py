"""A run of a benchmark, followed until it has ended: a bar on a terminal, and a line for each cell."""

import asyncio
import sys
from contextlib import AbstractContextManager
from typing import Protocol, Self

import click
from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from footplate_daemon.client import FootplateClient
from footplate_daemon.wire_benchmarks import BenchmarkRun, Cell, LivePoint
from footplate_tui.benchmarks import measures
from footplate_tui.cli import bench_text
from footplate_tui.format import count, duration, rate
from footplate_tui.harmless import one_line

ENDED = frozenset({"done", "failed", "cancelled", "cut"})
CELL_ENDED = frozenset({"done", "failed", "cancelled", "cut"})
AGAIN_SECONDS = 0.25
"""Before a stream that ended too early is asked for anew."""


class Shown(Protocol):
    """Where the progress of a run is shown."""

    def show(self, run: BenchmarkRun) -> None:
        """Take in how far it has come."""

    def point(self, point: LivePoint) -> None:
        """Take in what happened in the last second."""


async def follow(client: FootplateClient, run_id: int, shown: Shown) -> BenchmarkRun:
    """Show a run as it goes on; give it, with all its requests, when it has ended.

    Ctrl-C ends the following and says that the run goes on; what to do about it is said too.
    """
    try:
        while True:
            async for news in client.follow_benchmark(run_id):
                if isinstance(news, LivePoint):
                    shown.point(news)
                else:
                    shown.show(news)
            run = await client.benchmark_run(run_id, records=True)
            if run.state in ENDED:
                shown.show(run)
                return run
            await asyncio.sleep(AGAIN_SECONDS)
    except asyncio.CancelledError:
        click.echo(
            f"Run {run_id} goes on. Follow it: footplate bench follow {run_id}. "
            f"End it: footplate bench cancel {run_id}",
            err=True,
        )
        raise


def for_people() -> AbstractContextManager[Shown]:
    """Give the bar where somebody looks at a terminal, lines alone where not."""
    return Bar(Console()) if sys.stdout.isatty() else Lines()


class Nowhere:
    """Shows nothing, for programs."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing."""

    def show(self, run: BenchmarkRun) -> None:
        """Ignore it."""

    def point(self, point: LivePoint) -> None:
        """Ignore it."""


class Lines(Nowhere):
    """A line when the run begins, and one for each start and each cell that has ended."""

    def __init__(self) -> None:
        self._is_begun = False
        self._is_waiting = False
        self._starts: dict[int, int] = {}
        """How many starts of each entrant were told."""
        self._failed: set[int] = set()
        self._cells: set[int] = set()

    def show(self, run: BenchmarkRun) -> None:
        """Write what has happened since."""
        if not self._is_begun:
            self._is_begun = True
            self._write(bench_text.heading(run))
        if run.state == "queued" and not self._is_waiting:
            self._is_waiting = True
            self._write("It waits for the run before it.")
        for place, name in enumerate(measures.names(run.entrants)):
            entrant = run.entrants[place]
            for start in range(self._starts.get(place, 0), len(entrant.starts)):
                self._write(bench_text.start_line(entrant, name, start))
            self._starts[place] = len(entrant.starts)
            if entrant.error and place not in self._failed:
                self._failed.add(place)
                self._write(f"{name}: {one_line(entrant.error)}")
        for cell in run.cells:
            self._show_cell(run, cell)

    def _show_cell(self, run: BenchmarkRun, cell: Cell) -> None:
        if cell.state in CELL_ENDED and cell.number not in self._cells:
            self._cells.add(cell.number)
            # Of an entrant that did not start the reason was told once.
            if not (cell.state == "failed" and cell.entrant in self._failed):
                self._write(bench_text.cell_line(run, cell))

    def _write(self, line: str) -> None:
        click.echo(line)


class Bar(Lines):
    """The lines, and under them one bar that is gone at the end: step, time left, and the speed now."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._run: BenchmarkRun | None = None
        self._point: LivePoint | None = None
        self._live = Live(console=console, transient=True, refresh_per_second=4, get_renderable=self._drawing)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, run: BenchmarkRun) -> None:
        """Write what has ended since, and draw the rest so from now on."""
        self._run = run
        super().show(run)

    def point(self, point: LivePoint) -> None:
        """Draw this speed."""
        self._point = point

    def _write(self, line: str) -> None:
        self._console.print(Text(line))

    def _drawing(self) -> RenderableType:
        return drawing(self._run, self._point) if self._run else ""


def drawing(run: BenchmarkRun, point: LivePoint | None) -> RenderableType:
    """Draw a run as it stands."""
    row = Table.grid(padding=(0, 1))
    row.add_column(no_wrap=True)
    row.add_column(no_wrap=True, overflow="ellipsis")
    bar = ProgressBar(
        total=1.0,
        completed=run.fraction or 0.0,
        width=24,
        pulse=run.fraction is None,
        complete_style="cyan",
        pulse_style="cyan",
    )
    row.add_row(bar, Text(_figures(run, point)))
    return row


def _figures(run: BenchmarkRun, point: LivePoint | None) -> str:
    parts = [
        f"{run.cells_done} of {count(run.cells_total, 'cell')}",
        one_line(run.step),
        f"{rate(point.tokens_per_second)}, {point.completed} done" if point else "",
        f"{point.failed} failed" if point and point.failed else "",
        f"about {duration(run.eta_seconds)} left" if run.eta_seconds else "",
    ]
    return " · ".join(filter(None, parts))
