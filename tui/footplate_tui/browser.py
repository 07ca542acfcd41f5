"""Opening a file in the browser of whoever sits before the terminal, where there is one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def opener(environment: Mapping[str, str], platform: str = sys.platform) -> str | None:
    """Name the program that opens files here; None over SSH and where there are no windows.

    Python's own `webbrowser` would start a text browser in the middle of our screen.
    """
    if "SSH_CONNECTION" in environment:
        return None
    if platform == "darwin":
        return "open"
    has_windows = environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")
    return shutil.which("xdg-open", path=environment.get("PATH")) if has_windows else None


def open_file(path: Path, environment: Mapping[str, str]) -> bool:
    """Open a file (blocks a moment); say whether there is anything to open it with."""
    program = opener(environment)
    if program is None:
        return False
    try:
        subprocess.Popen(
            [program, path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return False
    return True
