"""What one terminal remembers between its runs: the text that was typed but not sent, the theme, the mouse.

Small files in the state folder, each replaced whole. It holds nothing that matters to the daemon, so a
folder that cannot be written costs the memory, not the program.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from urllib.parse import quote

TERMINALS = 20
"""So many terminals at a time have drafts of their own; more share the last one."""
PROMPTS_KEPT = 500
LONGEST_PROMPT = 4000
"""Characters of a prompt that can be brought back after a restart."""


class Remembered:
    """The terminal's files in one folder, made when first needed; `close` lets go of its draft."""

    def __init__(self, folder: Path, host: str = "") -> None:
        """What is typed for another host than this one is kept apart."""
        self._folder = folder
        # A name is at most 255 bytes long; a host that is longer shares its draft with hosts that begin so.
        self._draft_name = f"draft-{quote(host, safe='@')[:200]}.txt" if host else "draft.txt"
        self._lock: TextIOWrapper | None = None
        """Held as long as the draft is ours: two terminals must not overwrite each other's."""
        self._own_draft: str | None = None

    @property
    def draft(self) -> str:
        """What was typed and not sent."""
        return self._read(self._own())

    def keep_draft(self, text: str) -> bool:
        """Keep what is typed; False when it cannot be kept."""
        return self._write(self._own(), text)

    def close(self) -> None:
        """Let the next terminal have the draft."""
        if self._lock:
            self._lock.close()
            self._lock = None
        self._own_draft = None

    @property
    def prompts(self) -> list[str]:
        """What was sent from here, oldest first."""
        return [prompt for prompt in map(_prompt, self._read("prompts.jsonl").splitlines()) if prompt]

    def keep_prompt(self, text: str) -> bool:
        """Keep a prompt that was sent; False when it cannot be kept, or is too long for it."""
        if len(text) > LONGEST_PROMPT:
            return False
        kept = [prompt for prompt in self.prompts if prompt != text][-PROMPTS_KEPT + 1 :]
        return self._write("prompts.jsonl", "".join(f"{json.dumps(prompt)}\n" for prompt in (*kept, text)))

    def _own(self) -> str:
        """Give the name of the draft that is ours: one that was left with a text, else the first free."""
        if self._own_draft is None:
            free = list(self._free_drafts())
            chosen = next((name for name, _ in free if self._read(name)), free[0][0] if free else None)
            for name, lock in free:
                if name == chosen:
                    self._lock = lock
                else:
                    lock.close()
            self._own_draft = chosen or self._draft_name
        return self._own_draft

    def _free_drafts(self) -> Iterator[tuple[str, TextIOWrapper]]:
        stem = self._draft_name.removesuffix(".txt")
        for number in range(1, TERMINALS + 1):
            name = self._draft_name if number == 1 else f"{stem}~{number}.txt"
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock = (self._folder / f".{name}.lock").open("a", encoding="utf-8")
            except OSError:
                return
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
                continue
            yield name, lock
            if not (self._folder / name).exists():
                return

    @property
    def theme(self) -> str:
        """The name of the theme chosen last; empty when none was."""
        return self._read("theme").strip()

    def keep_theme(self, name: str) -> bool:
        """Keep the chosen theme; False when it cannot be kept."""
        return self._write("theme", name)

    @property
    def mouse(self) -> bool:
        """Whether the mouse is ours; otherwise it is the terminal's, to select with."""
        return self._read("mouse").strip() != "off"

    def keep_mouse(self, *, on: bool) -> bool:
        """Keep whose the mouse is; False when it cannot be kept."""
        return self._write("mouse", "on" if on else "off")

    @property
    def aside(self) -> bool:
        """Whether the panel beside a wide chat is shown."""
        return self._read("aside").strip() != "off"

    def keep_aside(self, *, on: bool) -> bool:
        """Keep whether the panel is shown; False when it cannot be kept."""
        return self._write("aside", "on" if on else "off")

    @property
    def keys_file(self) -> Path:
        """Where a person writes the keys that he wants."""
        return self._folder / "keys.toml"

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


def _prompt(line: str) -> str:
    try:
        prompt = json.loads(line)
    except ValueError:
        return ""
    return prompt if isinstance(prompt, str) else ""
