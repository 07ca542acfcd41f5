"""A batch, watched until it has ended: a bar on a terminal, a line for what changes in a pipe.

The daemon may go and come back meanwhile: the batch survives that, and so does who watches it.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from footplate_daemon import errors
from footplate_daemon.wire_batches import BatchProgress, BatchStatus, WaitsFor
from footplate_tui.cli.batch_words import fraction, how_far, pace, state_line, waits
from footplate_tui.cli.output import size
from footplate_tui.conversation import PASSING, pause_before

LONGEST_ABSENCE = 100
"""Attempts to reach a daemon that went away: about three minutes."""
BAR_CELLS = 24
AWAY = "The daemon does not answer; what is done is kept. Waiting for it …"


class Follows(Protocol):
    """Who tells of a batch."""

    def follow_batch(self, batch_id: str) -> AsyncIterator[BatchProgress]:
        """Yield a batch whenever it has come further."""


class Shown(Protocol):
    """Where the progress of a batch is shown."""

    def show(self, progress: BatchProgress) -> None:
        """Take in how far it has come."""

    def show_away(self) -> None:
        """Take in that the daemon does not answer."""


async def follow(
    client: Follows,
    batch_id: str,
    shown: Shown,
    *,
    is_there: bool = False,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> BatchProgress:
    """Show a batch as it goes on, over as many connections as it takes; give it when it has ended.

    A daemon that was there before is waited for when it goes; one that never was is not.
    """
    attempt = 0
    while True:
        error: errors.FootplateError = errors.DaemonUnreachable("The daemon ended the connection.")
        try:
            async for progress in client.follow_batch(batch_id):
                is_there, attempt = True, 0
                shown.show(progress)
                if progress.batch.status.is_final:
                    return progress
        except PASSING as passing:
            error = passing
        if not is_there or attempt >= LONGEST_ABSENCE:
            raise error
        if not attempt:
            shown.show_away()
        await pause(pause_before(attempt))
        attempt += 1


def for_people() -> AbstractContextManager[Shown]:
    """Give the bar where somebody looks at a terminal, lines where not."""
    return Bar(Console(stderr=True)) if sys.stdout.isatty() and sys.stderr.isatty() else Lines()


class Nowhere:
    """Shows nothing, for programs."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing."""

    def show(self, progress: BatchProgress) -> None:
        """Ignore it."""

    def show_away(self) -> None:
        """Ignore it."""


class Json(Nowhere):
    """One JSON object on a line for each change."""

    def show(self, progress: BatchProgress) -> None:
        """Write it."""
        click.echo(progress.model_dump_json())


class Lines(Nowhere):
    """A line when the status changes, when it begins to wait, and at every tenth of the way."""

    def __init__(self) -> None:
        self._told: tuple[BatchStatus, WaitsFor | None, int] | None = None

    def show(self, progress: BatchProgress) -> None:
        """Write what has changed since."""
        waiting = progress.waiting.reason if progress.waiting else None
        news = (progress.batch.status, waiting, int(10 * (fraction(progress) or 0.0)))
        told, self._told = self._told, news
        waits_no_more = told is not None and waiting is None and news[::2] == told[::2]
        if news == told or waits_no_more or progress.batch.status.is_final:
            return
        click.echo(state_line(progress))
        if waited := waits(progress):
            click.echo(f"  {waited}")

    def show_away(self) -> None:
        """Write it."""
        self._told = None
        click.echo(AWAY)


class Bar:
    """One bar that is gone at the end: how far, how fast, how long still, and what it waits for."""

    def __init__(self, console: Console) -> None:
        self._progress: BatchProgress | None = None
        self._is_away = False
        self._live = Live(
            console=console, transient=True, refresh_per_second=10, get_renderable=self._drawing
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, progress: BatchProgress) -> None:
        """Draw it so from now on."""
        self._progress, self._is_away = progress, False

    def show_away(self) -> None:
        """Say so below the bar."""
        self._is_away = True

    def _drawing(self) -> RenderableType:
        return drawing(self._progress, is_away=self._is_away) if self._progress else ""


def drawing(progress: BatchProgress, *, is_away: bool = False) -> RenderableType:
    """Draw a batch as it stands."""
    status = progress.batch.status.value.replace("_", " ")
    below = AWAY if is_away else waits(progress) or _speed(progress)
    return Group(
        _bar_row(status, fraction(progress), how_far(progress)),
        Text(f"  {below}", style="dim", no_wrap=True, overflow="ellipsis"),
    )


class Upload:
    """The bar of a file on its way to the daemon, where somebody looks at a terminal."""

    def __init__(self, name: str, byte_count: int) -> None:
        self._name = name
        self._byte_count = byte_count
        self._sent = 0
        self._live = Live(
            console=Console(stderr=True),
            transient=True,
            refresh_per_second=10,
            get_renderable=self._drawing,
        )
        self._is_seen = sys.stderr.isatty()

    def __enter__(self) -> Self:
        if self._is_seen:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_seen:
            self._live.stop()

    def told(self, sent: int) -> None:
        """Take in how many bytes are sent."""
        self._sent = sent

    def _drawing(self) -> RenderableType:
        part = min(1.0, self._sent / self._byte_count) if self._byte_count else None
        return _bar_row(f"uploading {self._name}", part, f"{size(self._sent)} of {size(self._byte_count)}")


def _bar_row(head: str, part: float | None, figures: str) -> RenderableType:
    row = Table.grid(padding=(0, 1))
    row.add_column(no_wrap=True)
    row.add_column()
    row.add_column(no_wrap=True, overflow="ellipsis")
    bar = ProgressBar(
        total=1.0,
        completed=part or 0.0,
        width=BAR_CELLS,
        pulse=part is None,
        complete_style="cyan",
        pulse_style="cyan",
    )
    row.add_row(Text(head, style="bold"), bar, Text(figures))
    return row


def _speed(progress: BatchProgress) -> str:
    parts = [pace(progress)]
    if progress.concurrency:
        parts.append(f"{progress.in_flight} of {progress.concurrency} at a time")
    if progress.retries:
        parts.append(f"{progress.retries:,} asked again")
    return " · ".join(filter(None, parts))
