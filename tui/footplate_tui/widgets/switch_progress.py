"""A switch as it goes on: how far, its steps with their times, and the newest lines of the engine's log.

It moves only when the daemon says something new.
"""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.reactive import var
from textual.widgets import Static

from footplate_daemon.wire import Switch
from footplate_tui.cli.switch_text import heading
from footplate_tui.harmless import one_line
from footplate_tui.switching import bar, how_far, steps_text


class SwitchProgress(Vertical):
    """Shows the switch it is given."""

    switch: var[Switch | None] = var(None)

    def __init__(self) -> None:
        super().__init__()
        self._head = Static(markup=False)
        self._steps = Static(markup=False, classes="steps")
        self._log = Static(markup=False, classes="log")

    def compose(self) -> ComposeResult:
        yield self._head
        with Horizontal():
            yield self._steps
            yield self._log

    def watch_switch(self) -> None:
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def _draw(self) -> None:
        switch, width = self.switch, self.content_size.width
        if switch is None or not width:
            return
        what, far = Content.styled(one_line(heading(switch)), "bold"), how_far(switch)
        gap = " " * max(width - what.cell_length - len(far), 1)
        self._head.update(Content.assemble(what, gap, (far, "$muted"), "\n", bar(switch.fraction, width)))
        self._steps.update(steps_text(switch))
        self._log.update(Content("\n".join(one_line(line) for line in switch.log_tail)))
