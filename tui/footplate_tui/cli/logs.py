"""`footplate logs`: the log files, read as they are; the daemon need not be up."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import click

from footplate_daemon import access_log, lifecycle
from footplate_daemon.errors import NotFound
from footplate_daemon.paths import Paths

POLL_SECONDS = 0.1
ACCESS = "access"
"""No engine has this name: theirs begin with a runtime."""


@click.command()
@click.argument("engine", required=False)
@click.option("-f", "--follow", "is_following", is_flag=True, help="Go on with what is written from now on.")
@click.option("-n", "--lines", "line_count", type=click.IntRange(min=0), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The lines as they are: one JSON object each.")
def logs(engine: str | None, line_count: int, *, is_following: bool, as_json: bool) -> None:
    """Show the end of the daemon's log, or of ENGINE's; `access` is the log of requests."""
    paths = Paths.from_environment(os.environ)
    file, rendered = _log(paths, engine)
    shown: Callable[[str], str] = str if as_json else rendered
    lines = follow(file, line_count) if is_following else iter(last_lines(file, line_count))
    for line in lines:
        click.echo(shown(line))


def last_lines(file: Path, line_count: int) -> list[str]:
    """Give the last lines, going back into the file before the last rotation where needed."""
    return _last(_read(file), file, line_count)


def follow(file: Path, line_count: int) -> Iterator[str]:
    """Yield the last lines, then each new one as it is written, through rotations, without end."""
    with _open(file) as stream:
        *old, rest = stream.read().split(b"\n")
        yield from _last(old, file, line_count)
        yield from _follow_file(file, stream, rest)
    while True:
        with _open(file) as stream:
            yield from _follow_file(file, stream, b"")


def _follow_file(file: Path, stream: BinaryIO, rest: bytes) -> Iterator[str]:
    """Yield each new line until the file's name stands for another one."""
    while True:
        chunk = stream.read()
        *whole, rest = (rest + chunk).split(b"\n")
        yield from map(_text, whole)
        if chunk:
            continue
        if _is_another(file, stream):
            return
        time.sleep(POLL_SECONDS)


def _log(paths: Paths, name: str | None) -> tuple[Path, Callable[[str], str]]:
    """Give the file of a log, and how its lines are shown to a person."""
    if name is None:
        return paths.daemon_log, lifecycle.render
    if name == ACCESS:
        return paths.access_log, access_log.render
    return _engine_log(paths, name), str


def _engine_log(paths: Paths, engine: str) -> Path:
    known = lifecycle.engine_logs(paths)
    if engine not in known:
        names = ", ".join(known) or "none yet"
        raise NotFound(f"There is no log of an engine {engine!r}.", hint=f"Engines with a log: {names}")
    return known[engine]


def _last(lines: list[bytes], file: Path, line_count: int) -> list[str]:
    if len(lines) < line_count:
        lines = _read(file.with_name(f"{file.name}.1")) + lines
    return [_text(line) for line in lines[-line_count:]] if line_count else []


def _read(file: Path) -> list[bytes]:
    """Read the whole lines of a file; logs are rotated at 10 MB."""
    try:
        return file.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []


def _text(line: bytes) -> str:
    return line.decode(errors="replace")


def _open(file: Path) -> BinaryIO:
    """Open a log; one that is not there yet is empty, and another one as soon as it is."""
    try:
        return file.open("rb")
    except FileNotFoundError:
        return Path(os.devnull).open("rb")


def _is_another(file: Path, stream: BinaryIO) -> bool:
    """Whether the name stands for another file than the one that is open, or for a shorter one."""
    try:
        now = file.stat()
    except FileNotFoundError:
        return False
    return now.st_ino != os.fstat(stream.fileno()).st_ino or now.st_size < stream.tell()
