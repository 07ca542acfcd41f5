"""The line at the bottom: the keys that matter now, and news; it never cuts a key's word."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from footplate_tui.commands import BY_ID, Command
from footplate_tui.format import fit, truncate

IDLE_KEYS = (
    "prompt.send",
    "prompt.newline",
    "model.switch",
    "program.palette",
    "session.new",
    "chat.copy",
    "program.help",
    "program.quit",
    "view.theme",
    "scroll.up",
)
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
    """Shows keys, and a notice at the right end when there is one; the notice goes before the keys."""

    notice: reactive[str] = reactive("")
    standing: reactive[str] = reactive("")
    """What stands where a notice would, as long as there is none."""
    is_busy: reactive[bool] = reactive(False)

    def render(self) -> Content:
        width = self.content_size.width
        notice = truncate(self.notice or self.standing, width)
        room = width - cell_len(notice) - GAP if notice else width
        commands = [BY_ID[identity] for identity in (BUSY_KEYS if self.is_busy else IDLE_KEYS)]
        keys = compose_keys(commands, room)
        if not notice:
            return keys
        gap = " " * max(width - keys.cell_length - cell_len(notice), 0)
        return Content.assemble(keys, gap, (notice, "$warning"))


class KeyLine(Widget):
    """The keys of a screen, as many as fit."""

    keys: reactive[tuple[str, ...]] = reactive(())
    """Ids of commands, the most important first."""

    def __init__(self, *keys: str) -> None:
        super().__init__()
        self.set_reactive(KeyLine.keys, keys)

    def render(self) -> Content:
        return compose_keys([BY_ID[identity] for identity in self.keys], self.content_size.width)
