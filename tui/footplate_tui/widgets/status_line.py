"""The line at the bottom: the keys that matter now, news, and the gauges; it never cuts a key's word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from footplate_tui.commands import Command
from footplate_tui.format import fit, truncate
from footplate_tui.gauge_line import Steady, compact
from footplate_tui.keymap import keymap_of

if TYPE_CHECKING:
    from footplate_daemon.wire import GpuSnapshot

IDLE_KEYS = (
    "prompt.send",
    "model.switch",
    "program.palette",
    "program.help",
    "session.history",
    "chat.turn",
    "view.gauges",
    "view.logs",
    "view.exchanges",
    "prompt.newline",
    "session.new",
    "chat.copy",
    "program.quit",
    "view.theme",
)
"""What opens everything else comes first: it is there on a screen of 80, too."""
BUSY_KEYS = ("chat.stop", *IDLE_KEYS)

GAP = 3


def compose_keys(commands: Sequence[Command], width: int) -> Content:
    """Lay out as many keys as fit, whole."""
    items = [f"{command.shown} {command.word}" for command in commands]
    fitting = fit(items, width, gap=GAP)
    parts = [
        Content.assemble((command.shown, "bold $footer-key-foreground"), (f" {command.word}", "$muted"))
        for command in commands[:fitting]
    ]
    return Content(" " * GAP).join(parts)


class StatusLine(Widget):
    """Shows keys, at the right end the gauges, and a notice when there is one; keys give way first."""

    notice: reactive[str] = reactive("")
    standing: reactive[str] = reactive("")
    """What stands where a notice would, as long as there is none."""
    is_busy: reactive[bool] = reactive(False)
    gauges: reactive[Content] = reactive(Content(""), always_update=True)

    def __init__(self) -> None:
        super().__init__()
        self._steady = Steady()

    def on_mount(self) -> None:
        self.watch(self.app, "gauges", self._take_gauges)

    def _take_gauges(self, snapshot: GpuSnapshot | None) -> None:
        gauges = compact(snapshot, self._steady)
        if (gauges.plain, gauges.spans) != (self.gauges.plain, self.gauges.spans):
            self.gauges = gauges

    def render(self) -> Content:
        width = self.content_size.width
        notice = truncate(self.notice or self.standing, width)
        parts = [Content.styled(notice, "$warning"), self.gauges]
        right = Content(" " * GAP).join(part for part in parts if part.plain)
        if right.cell_length > width:
            right = parts[0]
        room = width - right.cell_length - GAP if right.plain else width
        keymap = keymap_of(self.app)
        commands = [keymap.command(identity) for identity in (BUSY_KEYS if self.is_busy else IDLE_KEYS)]
        keys = compose_keys(commands, room)
        if not right.plain:
            return keys
        return Content.assemble(keys, " " * max(width - keys.cell_length - right.cell_length, 0), right)


class KeyLine(Widget):
    """The keys of a screen, as many as fit."""

    keys: reactive[tuple[str, ...]] = reactive(())
    """Ids of commands, the most important first."""

    def __init__(self, *keys: str) -> None:
        super().__init__()
        self.set_reactive(KeyLine.keys, keys)

    def render(self) -> Content:
        keymap = keymap_of(self.app)
        return compose_keys([keymap.command(identity) for identity in self.keys], self.content_size.width)
