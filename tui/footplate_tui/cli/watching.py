"""A switch, watched until it has ended: a bar on a terminal, a line for each step in a pipe."""

import asyncio
import sys
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from footplate_daemon import wire
from footplate_daemon.client import FootplateClient
from footplate_tui.cli.switch_text import heading, step_line
from footplate_tui.format import duration
from footplate_tui.harmless import one_line

FIRST_POLL_SECONDS = 0.02
LAST_POLL_SECONDS = 0.25


class Shown(Protocol):
    """Where the progress of a switch is shown."""

    def show(self, switch: wire.Switch) -> None:
        """Take in how far it has come."""


async def watch(client: FootplateClient, switch: wire.Switch, shown: Shown) -> wire.Switch:
    """Show a switch as it goes on; give it when it has ended."""
    pause = FIRST_POLL_SECONDS
    while switch.outcome == "running":
        shown.show(switch)
        await asyncio.sleep(pause)
        pause = min(pause * 1.3, LAST_POLL_SECONDS)
        switch = await client.switch(switch.id)
    shown.show(switch)
    return switch


def for_people() -> AbstractContextManager[Shown]:
    """Give the bar where somebody looks at a terminal, lines where not."""
    return Bar(Console(stderr=True)) if sys.stdout.isatty() and sys.stderr.isatty() else Lines()


class Nowhere:
    """Shows nothing, for programs."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing."""

    def show(self, switch: wire.Switch) -> None:
        """Ignore it."""


class Lines(Nowhere):
    """One line when a switch begins, and one for each of its steps."""

    def __init__(self) -> None:
        self._id: int | None = None
        self._told = 0

    def show(self, switch: wire.Switch) -> None:
        """Write the steps that have ended since."""
        if switch.id != self._id:
            self._id, self._told = switch.id, 0
            if switch.outcome == "running" or switch.steps:
                click.echo(heading(switch))
        ended = [step for step in switch.steps if step.seconds is not None]
        for step in ended[self._told :]:
            click.echo(step_line(step))
        self._told = len(ended)


class Bar:
    """One bar that is gone at the end: step, time gone, time left, and the newest line of the log."""

    def __init__(self, console: Console) -> None:
        self._switch: wire.Switch | None = None
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

    def show(self, switch: wire.Switch) -> None:
        """Draw it so from now on."""
        self._switch = switch

    def _drawing(self) -> RenderableType:
        return drawing(self._switch, time.time()) if self._switch else ""


def drawing(switch: wire.Switch, now: float) -> RenderableType:
    """Draw a switch as it stands."""
    row = Table.grid(padding=(0, 1))
    row.add_column(no_wrap=True)
    row.add_column()
    row.add_column(no_wrap=True)
    fraction = switch.fraction
    bar = ProgressBar(
        total=1.0,
        completed=fraction or 0.0,
        width=24,
        pulse=fraction is None,
        complete_style="cyan",
        pulse_style="cyan",
    )
    row.add_row(Text(switch.variant, style="bold"), bar, Text(_figures(switch, now)))
    newest = one_line(switch.log_tail[-1]) if switch.log_tail else ""
    return Group(row, Text(f"  {newest}", style="dim", no_wrap=True, overflow="ellipsis"))


def _figures(switch: wire.Switch, now: float) -> str:
    step = switch.steps[-1] if switch.steps else None
    parts = [
        step.name.value if step else "",
        one_line(step.detail) if step else "",
        duration(max(0.0, now - switch.started_at)),
        f"about {duration(switch.eta_seconds)} left" if switch.eta_seconds else "",
    ]
    return " · ".join(filter(None, parts))
