"""The gauges: every GPU with its last minutes and who holds its memory, CPU and RAM beside."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.reactive import var
from textual.screen import Screen
from textual.widgets import Static

from footplate_daemon import errors
from footplate_tui.commands import BY_ID, Place, bindings, elsewhere
from footplate_tui.gauge_words import engines, ram_holders
from footplate_tui.gauges import beside, fitting, gpu_card, machine_card, no_gpu
from footplate_tui.past import SECONDS, Past
from footplate_tui.widgets.gauge_lines import GaugeLines
from footplate_tui.widgets.header import Header
from footplate_tui.widgets.status_line import KeyLine

if TYPE_CHECKING:
    from footplate_daemon.wire import GpuSnapshot, Status
    from footplate_tui.footplate_app import FootplateApp

ASKING = "Asking the daemon for its gauges…"
DAEMON_IS_DOWN = "No daemon answers. Start it in another shell:  footplate up"
DAEMON_IS_GONE = "✗ The daemon does not answer; below is what it said last."


class GaugesScreen(Screen[None]):
    """Shows the app's snapshots as they come, after what the daemon remembers."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.GAUGES)
    VERTICAL_BREAKPOINTS = [(0, "-low"), (32, "-high")]  # noqa: RUF012 -- the base class's type

    status: var[Status | None] = var(None)
    is_connected: var[bool] = var(True)

    def __init__(self) -> None:
        super().__init__()
        self._past = Past()
        self._snapshot: GpuSnapshot | None = None
        self._cards: list[GaugeLines] = []
        """One for each row of GPUs; two GPUs may stand side by side in one."""
        self._machine = GaugeLines()
        self._said = Static(markup=False, classes="said")
        self._stage = VerticalScroll()

    @property
    def footplate(self) -> FootplateApp:
        """The app, by its own type."""
        return cast("FootplateApp", self.app)

    def compose(self) -> ComposeResult:
        header = Header(self.footplate.place).data_bind(GaugesScreen.status, GaugesScreen.is_connected)
        header.session_title = "Gauges"
        yield header
        yield self._said
        with self._stage:
            yield self._machine
        yield KeyLine(
            "gauges.close", *elsewhere("view.gauges"), "program.palette", "program.help", "view.theme"
        )

    def on_mount(self) -> None:
        self._stage.focus()
        self.remember()
        self.watch(self.app, "gauges", self._take)

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    def watch_status(self) -> None:
        self._draw()

    def watch_is_connected(self) -> None:
        if self.is_connected and self.is_mounted:
            self.remember()
        self._draw()

    @work(group="remember", exclusive=True)
    async def remember(self) -> None:
        """Fetch the minutes before this screen was opened."""
        daemon = await self.footplate.daemon()
        try:
            self._past.fill(await daemon.gpu_history(SECONDS))
        except errors.FootplateError:
            # The line is cut, or the daemon is older: the sparklines begin now.
            return
        self._draw()

    def _take(self, snapshot: GpuSnapshot | None) -> None:
        if snapshot is not None:
            self._snapshot = snapshot
            self._past.add(snapshot)
        self._draw()

    # What it shows.

    def _draw(self) -> None:
        width = self._stage.scrollable_content_region.width
        if not self.is_mounted or not width:
            return
        snapshot = self._snapshot
        self._say(snapshot, width)
        if snapshot is None:
            return
        known = engines(self.status)
        listed = 0 if snapshot.gpus else len(ram_holders(snapshot, known))
        columns, room = fitting(snapshot.gpus, width, self._height, listed=listed)
        cards = [gpu_card(gpu, self._past, known, room) for gpu in snapshot.gpus]
        rows = [cards[first : first + columns] for first in range(0, len(cards), columns)]
        self._show_cards([beside(row, room.width) for row in rows])
        self._machine.show(machine_card(snapshot, self._past, known, room, columns))

    @property
    def _height(self) -> int:
        """How many lines can be seen of the cards; the stage itself learns only later what is shown."""
        return self.size.height - 2 - self._said.display - self._stage.gutter.height

    def _say(self, snapshot: GpuSnapshot | None, width: int) -> None:
        """Say above the cards why there is none, or that they are old."""
        words = Content("")
        if not self.is_connected:
            words = Content.styled(DAEMON_IS_GONE if snapshot else DAEMON_IS_DOWN, "$error")
        elif snapshot is None:
            words = Content.styled(ASKING, "$muted")
        elif snapshot.problem and not snapshot.gpus:
            words = no_gpu(snapshot.problem, width)
        self._said.display = bool(words.plain)
        self._said.update(words)

    def _show_cards(self, cards: list[list[Content]]) -> None:
        """Show a card for each; one more or fewer only when GPUs come or go, or the screen is resized."""
        for card in self._cards[len(cards) :]:
            card.remove()
        del self._cards[len(cards) :]
        missing = [GaugeLines() for _ in cards[len(self._cards) :]]
        if missing:
            self._stage.mount_all(missing, before=self._machine)
            self._cards += missing
        for card, lines in zip(self._cards, cards, strict=True):
            card.show([*lines, Content("")])

    # Keys.

    def action_command(self, identity: str) -> None:
        self.post_message(BY_ID[identity].message())

    def on_back_wanted(self) -> None:
        self.dismiss(None)
