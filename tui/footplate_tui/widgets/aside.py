"""The panel beside a wide chat; it moves only when something happens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.reactive import reactive

from footplate_tui.gauge_line import Steady
from footplate_tui.widgets.gauge_lines import GaugeLines

if TYPE_CHECKING:
    from footplate_daemon.wire import GpuSnapshot, Status, Turn


class Aside(GaugeLines):
    """Shows what runs, how the GPUs do, and how fast the answers of the session were."""

    fits_lines: ClassVar[bool] = False

    status: reactive[Status | None] = reactive(None, repaint=False)

    def __init__(self) -> None:
        super().__init__()
        self._snapshot: GpuSnapshot | None = None
        self._turns: Sequence[Turn] = ()
        self._steady = Steady()

    def on_mount(self) -> None:
        self.watch(self.app, "gauges", self._take_gauges)

    def show_turns(self, turns: Sequence[Turn]) -> None:
        """Compare these answers."""
        self._turns = turns
        self._draw()

    def _take_gauges(self, snapshot: GpuSnapshot | None) -> None:
        self._snapshot = snapshot
        self._draw()

    def watch_status(self) -> None:
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def _draw(self) -> None:
        width, height = self.size
        if not width or not self.is_mounted:
            return
        from footplate_tui import aside  # noqa: PLC0415 -- not before the first picture

        parts = (
            aside.models_part(self.status, width),
            aside.gauges_part(self._snapshot, self.status, width, self._steady),
            aside.answers_part(self._turns, width),
        )
        lines = aside.joined(parts, height)
        self.show([*lines, *[aside.EMPTY] * (height - len(lines))])
