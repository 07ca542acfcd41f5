"""Files on their way into a question: named by a path that was typed, pasted or dropped.

A terminal pastes what is dropped on it: a path, quoted or with escaped spaces, or a `file:` address.
"""

from __future__ import annotations

import base64
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from footplate_daemon import errors

LARGEST_BYTES = 20 * 1024 * 1024
LONGEST_DROP = 4000
"""Characters; what is longer is text and no list of paths."""


@dataclass(frozen=True)
class Enclosed:
    """A file that goes with the next question."""

    name: str
    byte_count: int
    data: str
    """In base64."""


def enclose(path: Path) -> Enclosed:
    """Read a file (blocks); raise `NotFound` or `Invalid` with what to do."""
    try:
        if path.is_dir():
            raise errors.Invalid(f"{path} is a folder.", hint="Attach its files one by one.")
        if path.exists() and not path.is_file():
            raise errors.Invalid(f"{path} is no file.", hint="Attach a picture or a text file.")
        with path.open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise errors.NotFound(f"{path}: {cause}.", hint="/attach PATH") from error
    if len(data) > LARGEST_BYTES:
        raise errors.Invalid(
            f"{path.name} is larger than 20 MiB.", hint="Make the image smaller, or cut the text."
        )
    name = os.fsencode(path.name).decode(errors="replace")
    return Enclosed(name, len(data), base64.b64encode(data).decode())


def is_folder(path: Path) -> bool:
    """Whether it is a folder, as far as one may look."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_file(path: Path) -> bool:
    """Whether it is a file, as far as one may look."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def typed_path(text: str) -> Path:
    """Give the path that a user typed: with `~`, quotes or escapes as in a shell, or as it is."""
    words = _words(text)
    return _path(words[0] if len(words) == 1 else text.strip())


def dropped_paths(text: str) -> list[Path]:
    """Give the files whose paths were pasted; empty when the text is anything else."""
    if not text.strip() or len(text) > LONGEST_DROP:
        return []
    for words in ([text.strip()], text.strip().splitlines(), _words(text)):
        paths = [_path(word) for word in words]
        if paths and all(path.is_absolute() and is_file(path) for path in paths):
            return paths
    return []


def completions(typed: str, limit: int = 50) -> list[str]:
    """Give the paths that begin with what was typed; folders end with a slash."""
    folder, _, beginning = typed.rpartition("/")
    start = f"{folder}/" if "/" in typed else ""
    try:
        found = sorted(Path(start or ".").expanduser().iterdir())
    except (OSError, RuntimeError, ValueError):
        return []
    is_wanted = (
        path
        for path in found
        if path.name.startswith(beginning) and (beginning.startswith(".") or not path.name.startswith("."))
    )
    return [f"{start}{path.name}{'/' if is_folder(path) else ''}" for path in is_wanted][:limit]


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return [text.strip()]


def _path(word: str) -> Path:
    if word.startswith("file:"):
        word = unquote(urlsplit(word).path)
    try:
        return Path(word).expanduser()
    except RuntimeError:
        return Path(word)
