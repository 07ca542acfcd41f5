"""A text in the user's own editor, and back."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from footplate_daemon import errors

FALLBACKS = ("sensible-editor", "nano", "vi")


def editor(environment: Mapping[str, str]) -> list[str]:
    """Give the command of the editor that the user wants; raise `NotFound` when there is none."""
    from shutil import which  # noqa: PLC0415 -- seldom wanted

    wanted = environment.get("VISUAL") or environment.get("EDITOR")
    if wanted:
        try:
            words = shlex.split(wanted)
        except ValueError:
            words = []
        if not words:
            raise errors.NotFound("The editor's command cannot be read.", hint="Say which: export EDITOR=…")
        return words
    found = next((name for name in FALLBACKS if which(name)), None)
    if found is None:
        raise errors.NotFound("No editor is found.", hint="Say which: export EDITOR=…")
    return [found]


def edited(command: list[str], text: str) -> str:
    """Let the user edit a text; blocks until the editor is closed. Raise `NotFound` if it does not start."""
    with tempfile.TemporaryDirectory(prefix="footplate-") as folder:
        file = Path(folder) / "text.md"
        try:
            file.write_text(text, encoding="utf-8", errors="replace")
            subprocess.run([*command, str(file)], check=False)
            return file.read_text(encoding="utf-8", errors="replace").removesuffix("\n")
        except OSError as error:
            raise errors.NotFound(
                f"The editor {command[0]} could not be used: {error.strerror}.", hint="Set EDITOR to another."
            ) from error
