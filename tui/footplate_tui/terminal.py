"""What is decided about the terminal before Textual is there: its colours, the way to its clipboard.

Pure but for `prepare`, which writes the environment, `mend_textual`, which changes Textual, `give_mouse`,
`end_with_terminal`, and `load_tmux_buffer`, which runs tmux.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, MutableMapping
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from textual.driver import Driver

TRUECOLOR_TERMS = (
    "kitty",
    "alacritty",
    "foot",
    "wezterm",
    "ghostty",
    "contour",
    "iterm",
    "-direct",
    "vscode",
)
TMUX_SECONDS = 3.0

TESTED_TEXTUAL_VERSIONS = frozenset({"8.2.8"})
"""Where `tests/tui` has shown that what we change of Textual's private parts fits."""


class Colours(StrEnum):
    """How many colours the terminal is given; the values are Textual's."""

    TRUECOLOR = "truecolor"
    PALETTE = "256"
    SIXTEEN = "standard"


class ClipboardRoute(StrEnum):
    """How a copied text reaches the clipboard of whoever sits before the terminal."""

    TMUX = "tmux"
    """`tmux load-buffer -w`: the only way that works in every setting of tmux."""
    TERMINAL = "the terminal (OSC 52)"


def colours(environment: Mapping[str, str]) -> Colours:
    """Say how many colours to use; when unsure 256: our themes are made of them and look the same.

    sshd forwards no COLORTERM and tmux sets none, so its absence says nothing.
    """
    term = environment.get("TERM", "").lower()
    program = environment.get("TERM_PROGRAM", "").lower()
    if environment.get("COLORTERM", "").lower() in {"truecolor", "24bit"}:
        return Colours.TRUECOLOR
    if "TMUX" not in environment and any(name in f"{term} {program}" for name in TRUECOLOR_TERMS):
        return Colours.TRUECOLOR
    if term in {"linux", "vt100", "vt220", "ansi", "xterm-16color"}:
        return Colours.SIXTEEN
    return Colours.PALETTE


def prepare(environment: MutableMapping[str, str]) -> Colours:
    """Set what Textual reads at its import; what the user set himself stays."""
    chosen = colours(environment)
    environment.setdefault("TEXTUAL_COLOR_SYSTEM", chosen)
    environment.setdefault("TEXTUAL_ANIMATIONS", "none")
    environment.setdefault("TEXTUAL_SMOOTH_SCROLL", "0")
    return chosen


def mend_textual(version: str, *, slim: bool) -> bool:
    """Make Textual write little and know Alt+Enter; False and nothing done for versions not tested."""
    if version not in TESTED_TEXTUAL_VERSIONS:
        return False
    from textual._ansi_sequences import ANSI_SEQUENCES_KEYS  # noqa: PLC0415 -- private: only where it is known
    from textual.keys import Keys  # noqa: PLC0415 -- Textual reads the environment at its import

    from footplate_tui import slim_writer  # noqa: PLC0415 -- the same

    # Terminals without the extended keys send Esc Return for Alt+Enter; Textual takes that for Enter.
    ANSI_SEQUENCES_KEYS["\x1b\r"] = (Keys.ControlJ,)  # type: ignore[index]  # a dict, declared a Mapping
    if slim:
        slim_writer.install()
    return True


def end_with_terminal(loop: AbstractEventLoop) -> None:
    """End the program when its terminal is gone, as SIGHUP does where it comes.

    `make run` and `nohup` keep that signal to themselves; Textual then reads nothing again and again, on a
    whole core, for ever.
    """
    descriptor = sys.stdin.fileno()
    if not os.isatty(descriptor):
        return
    # Asked for nothing, epoll tells of a hang-up alone.
    hang_up = select.epoll()
    hang_up.register(descriptor, 0)

    def end() -> None:
        hang_up.close()
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGHUP)

    loop.add_reader(hang_up.fileno(), end)


def give_mouse(driver: Driver, *, is_ours: bool) -> None:
    """Take the mouse or give it to the terminal, while Textual runs."""
    # Private, and not in every driver: a browser has no mouse to give.
    change = getattr(driver, "_enable_mouse_support" if is_ours else "_disable_mouse_support", None)
    # Without a mouse both of them do nothing.
    driver._mouse = True  # noqa: SLF001 -- see above
    if change:
        change()
        driver.flush()
    driver._mouse = is_ours  # noqa: SLF001 -- see above


def clipboard_route(environment: Mapping[str, str]) -> ClipboardRoute:
    """Say which way a copied text goes."""
    return ClipboardRoute.TMUX if environment.get("TMUX") else ClipboardRoute.TERMINAL


def load_tmux_buffer(text: str) -> bool:
    """Hand the text to tmux for its client's clipboard; False when tmux will not take it (blocks)."""
    try:
        subprocess.run(
            ["tmux", "load-buffer", "-w", "-"],
            input=text.encode(errors="replace"),
            capture_output=True,
            timeout=TMUX_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return True
