"""What one terminal remembers between its runs: the text that was typed but not sent, and the theme.

Small files in the state folder, each replaced whole. It holds nothing that matters to the daemon, so a
folder that cannot be written costs the memory, not the program.
"""

from __future__ import annotations

import os
from pathlib import Path


class Remembered:
    """The terminal's files in one folder, made when first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def draft(self) -> str:
        """What was typed and not sent."""
        return self._read("draft.txt")

    def keep_draft(self, text: str) -> bool:
        """Keep what is typed; False when it cannot be kept."""
        return self._write("draft.txt", text)

    @property
    def theme(self) -> str:
        """The name of the theme chosen last; empty when none was."""
        return self._read("theme").strip()

    def keep_theme(self, name: str) -> bool:
        """Keep the chosen theme; False when it cannot be kept."""
        return self._write("theme", name)

    def _read(self, name: str) -> str:
        try:
            return (self._folder / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def _write(self, name: str, text: str) -> bool:
        fresh = self._folder / f".{name}.{os.getpid()}"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh.write_text(text, encoding="utf-8", errors="replace")
            fresh.chmod(0o600)
            fresh.replace(self._folder / name)
        except OSError:
            return False
        return True
