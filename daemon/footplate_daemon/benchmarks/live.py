"""A run while it waits or runs: how it stands, who follows it, and how far it has come."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from footplate_daemon.benchmarks.planning import Matrix
from footplate_daemon.switching.machine import Target
from footplate_daemon.wire_benchmarks import BenchmarkRun, Cell, Entrant, LivePoint

FOLLOW_SECONDS = 0.2
"""A follower gets the run at most once in this time."""
LEAST_FRACTION = 0.02
"""Before that, how long the rest takes is anybody's guess."""


@dataclass
class Live:
    """A run that has not ended; changes of it reach its followers."""

    run: BenchmarkRun
    matrix: Matrix
    task: "asyncio.Task[None] | None" = None
    """What measures; None while it waits."""
    is_cancelled: bool = False
    """Whether a person asked for its end."""
    has_begun: bool = False
    """Whether anything was switched for it."""
    before: Target | None = None
    """What was to be active before it."""
    points: list[LivePoint] = field(default_factory=list)
    _followers: set[asyncio.Event] = field(default_factory=set)
    _version: int = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing of it changes any more."""
        return self.run.state not in {"queued", "running"}

    def update(self, **fields: object) -> None:
        """Change the run."""
        self.run = self.run.model_copy(update=fields)
        self._tell()

    def update_entrant(self, place: int, **fields: object) -> Entrant:
        """Change one of its entrants."""
        changed = self.run.entrants[place].model_copy(update=fields)
        self.update(entrants=(*self.run.entrants[:place], changed, *self.run.entrants[place + 1 :]))
        return changed

    def update_cell(self, number: int, **fields: object) -> Cell:
        """Change one of its cells."""
        changed = self.run.cells[number].model_copy(update=fields)
        self.run = self.run.model_copy(
            update={"cells": (*self.run.cells[:number], changed, *self.run.cells[number + 1 :])}
        )
        self._progress(0.0)
        self._tell()
        return changed

    def add_point(self, point: LivePoint, cell_fraction: float) -> None:
        """Add what happened in the last second of a cell that has come so far."""
        self.points.append(point)
        self._progress(cell_fraction)
        self._tell()

    def warn(self, sentence: str) -> None:
        """Add what one should know of the figures, once."""
        if sentence not in self.run.warnings:
            self.update(warnings=(*self.run.warnings, sentence))

    def eta_seconds(self) -> float | None:
        """About how long it goes on."""
        return self.run.eta_seconds

    async def follow(self) -> AsyncIterator[BenchmarkRun | LivePoint]:
        """Yield the run now and after changes, and each point; the last is the run that ended."""
        follower = asyncio.Event()
        self._followers.add(follower)
        version, point_count = self._version, len(self.points)
        try:
            yield self.run
            while not self.is_over or version != self._version:
                await follower.wait()
                follower.clear()
                for point in self.points[point_count:]:
                    yield point
                    point_count += 1
                if version != self._version:
                    version = self._version
                    yield without_points(self.run)
                    if not self.is_over:
                        await asyncio.sleep(FOLLOW_SECONDS)
        finally:
            self._followers.discard(follower)

    def _progress(self, cell_fraction: float) -> None:
        cells = self.run.cells
        ended = sum(cell.state not in {"waiting", "warming up", "measuring"} for cell in cells)
        fraction = min(1.0, (ended + cell_fraction) / len(cells)) if cells else 1.0
        eta = None
        if fraction >= LEAST_FRACTION and self.run.started_at is not None:
            eta = (time.time() - self.run.started_at) * (1 - fraction) / fraction
        self.run = self.run.model_copy(update={"cells_done": ended, "fraction": fraction, "eta_seconds": eta})

    def _tell(self) -> None:
        self._version += 1
        for follower in self._followers:
            follower.set()


def without_points(run: BenchmarkRun) -> BenchmarkRun:
    """Leave out what its follower got point by point."""
    return run.model_copy(
        update={"cells": tuple(cell.model_copy(update={"points": ()}) for cell in run.cells)}
    )
