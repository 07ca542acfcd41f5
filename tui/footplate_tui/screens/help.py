"""Every key, on one screen."""

from __future__ import annotations

import textwrap
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from footplate_tui.commands import Command, Place
from footplate_tui.keymap import Keymap, keymap_of

KEY_COLUMN = 8
TEXT_COLUMN = 54
"""So wide that a line fits on a screen of 80."""


class HelpScreen(ModalScreen[None]):
    """Lists the commands with their keys; any of Esc, F1, q closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,f1,q,enter", "dismiss", "Close")]

    def compose(self) -> ComposeResult:
        box = VerticalScroll()
        box.border_title = "Keys"
        box.border_subtitle = "Esc closes"
        with box:
            yield Static(_listing(keymap_of(self.app)), markup=False)


def _listing(keymap: Keymap) -> Content:
    lines: list[Content] = []
    for place in Place:
        lines.append(Content.styled(keymap.title(place), "bold $heading"))
        lines += [_line(command) for command in keymap.commands(place)]
        lines.append(Content(""))
    lines.append(
        Content.styled(
            "Shift and the mouse select text; F12 or --no-mouse gives the mouse to the terminal. "
            "Other keys: keys.toml, see docs/terminal.md. "
            "Answers belong to the daemon: quitting stops none of them.",
            "$muted",
        )
    )
    return Content("\n").join(lines)


def _line(command: Command) -> Content:
    first, *others = textwrap.wrap(command.explanation, TEXT_COLUMN)
    key = (f"  {command.shown:<{KEY_COLUMN}}", "bold $footer-key-foreground")
    return Content.assemble(key, first, *(f"\n{'':{KEY_COLUMN + 2}}{other}" for other in others))
