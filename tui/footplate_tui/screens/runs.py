"""Two benchmarks compared: what became better, what worse, and what was different about them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar

from textual import work
from textual.binding import BindingType
from textual.content import Content

from footplate_daemon import errors
from footplate_daemon.wire_benchmarks import BenchmarkRun
from footplate_tui.benchmark_compare import (
    Pair,
    about_pair,
    compare_head,
    compared_words,
    machine_differences,
    pair_line,
    pairs,
    verdict,
)
from footplate_tui.commands import Place, bindings
from footplate_tui.screens.listing import Listing
from footplate_tui.screens.page import told


class RunsScreen(Listing):
    """Compares an earlier run with a later one."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.RUNS)

    def __init__(self, first: int, second: int, clock: Callable[[], float] = time.time) -> None:
        super().__init__("runs.differing", "runs.back")
        self._numbers = first, second
        self._clock = clock
        self._runs: tuple[BenchmarkRun, BenchmarkRun] | None = None
        self._pairs: list[Pair] = []
        self._only_differing = False
        self._problem = ""

    def on_mount(self) -> None:
        self.session_title = f"Benchmarks {self._numbers[0]} and {self._numbers[1]}"
        self.look()

    @work(group="look", exclusive=True)
    async def look(self) -> None:
        """Get both runs."""
        daemon = await self.footplate.daemon()
        try:
            first, second = [await daemon.benchmark_run(number) for number in self._numbers]
        except errors.FootplateError as error:
            self._problem = told(error)
        else:
            self._runs = first, second
        self._list()

    def watch_is_connected(self) -> None:
        if self.is_connected and self._runs is None and self.is_mounted:
            self.look()
        super().watch_is_connected()

    def _list(self) -> None:
        found = pairs(*self._runs) if self._runs else []
        self._pairs = [pair for pair in found if pair.differs or not self._only_differing]
        self.list_again(0)
        self.draw()

    def row_count(self) -> int:
        return len(self._pairs)

    def head_words(self, width: int) -> Content:
        return compare_head(width)

    def now_words(self, width: int) -> Content:
        if self._runs is None:
            return Content("")
        words = [compared_words(*self._runs, self._clock()), verdict(pairs(*self._runs))]
        words.append(Content.styled(machine_differences(*self._runs), "$muted"))
        return Content("   ").join(words).truncate(width, ellipsis=True)

    def draw_row(self, place: int, width: int) -> list[Content]:
        return [pair_line(self._pairs[place], width)] if place < len(self._pairs) else []

    def about_words(self, width: int) -> Content:
        place = self.place
        return about_pair(self._pairs[place], width) if place is not None else Content("")

    def why_empty(self) -> str:
        if self._pairs:
            return ""
        if self._problem:
            return self._problem
        if self._runs is None:
            return "Asking the daemon…"
        return (
            "Nothing differs by more than 5 %. d shows all."
            if self._only_differing
            else "They share nothing."
        )

    def on_differing_wanted(self) -> None:
        self._only_differing = not self._only_differing
        self._list()

    def on_back_wanted(self) -> None:
        self.dismiss()
