"""`footplate doctor`: what is installed, what is missing, and the command that gets it."""

import dataclasses
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import click

from footplate_daemon.errors import FootplateError
from footplate_daemon.paths import Paths
from footplate_daemon.surroundings import entries, findings, looking
from footplate_daemon.surroundings.entries import Added, Entry
from footplate_daemon.surroundings.findings import TOPICS, Finding, Severity
from footplate_tui.harmless import one_line

HEADINGS = {
    "footplate": "Footplate",
    "runtimes": "Runtimes",
    "gpu": "GPU",
    "models": "Models",
    "machine": "Machine",
    "terminal": "Terminal",
}
MARKS = {Severity.FINE: "✓", Severity.NOTE: "-", Severity.WARNING: "!", Severity.PROBLEM: "✗"}
PLAIN_MARKS = {Severity.FINE: "ok", Severity.NOTE: "-", Severity.WARNING: "!", Severity.PROBLEM: "X"}
COLOURS = {Severity.FINE: "green", Severity.NOTE: None, Severity.WARNING: "yellow", Severity.PROBLEM: "red"}


@click.command()
@click.option(
    "--write", is_flag=True, help="Append the models found to config.toml; the former file is kept."
)
@click.option(
    "--within",
    "seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=looking.LOOK_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="Leave out what has not answered by then.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(*, write: bool, seconds: float, as_json: bool) -> int:
    """Say what is installed and what is missing, with the command that gets it, and offer the models found.

    Works with the daemon down. Exit code 1: something keeps Footplate from working.
    """
    paths = Paths.from_environment(os.environ)
    is_terminal = sys.stdout.isatty()
    facts = looking.around(paths, os.environ, is_terminal=is_terminal, seconds=seconds)
    found = findings.findings(facts)
    offered = entries.entries(facts)
    is_well = findings.is_well(found)
    added: Added | None = None
    error: FootplateError | None = None
    if write:
        try:
            added = entries.add(paths.config_file, offered, stamp=time.strftime("%Y%m%d-%H%M%S"))
        except FootplateError as refused:
            # The report is worth reading all the same, and most of all then.
            error = refused
    if as_json:
        told = {
            "ok": is_well and error is None,
            "findings": _plain(found),
            "entries": [_plain(entry) | {"toml": entry.toml} for entry in offered],
            "written": _plain(added),
            "error": error.message if error else None,
            "facts": _plain(facts),
        }
        click.echo(json.dumps(told, ensure_ascii=False))
    else:
        is_plain = not is_terminal or "NO_COLOR" in os.environ
        rest = _written(added) if added else _offer(offered if error is None else ())
        click.echo("\n".join([*lines(found, is_plain=is_plain), *rest]))
        if error is not None:
            raise error
    return 0 if is_well and error is None else 1


def lines(found: Sequence[Finding], *, is_plain: bool) -> Iterator[str]:
    """Give the findings as a person reads them, under the heading of their topic."""
    for topic in TOPICS:
        within = [finding for finding in found if finding.topic == topic]
        if within:
            yield HEADINGS[topic] if is_plain else click.style(HEADINGS[topic], bold=True)
            for finding in within:
                yield from _lines_of(finding, is_plain=is_plain)
            yield ""
    yield _verdict(found)


def _lines_of(finding: Finding, *, is_plain: bool) -> Iterator[str]:
    mark = f"{PLAIN_MARKS[finding.severity]:2}"
    if not is_plain:
        mark = click.style(MARKS[finding.severity], fg=COLOURS[finding.severity])
    # What is shown is the names of other people's files, too.
    sentence = one_line(finding.sentence)
    if is_plain:
        sentence = sentence.replace("…", "...")
    yield f"  {mark} {sentence}"
    if finding.command:
        yield f"{' ' * (7 if is_plain else 6)}{one_line(finding.command)}"


def _verdict(found: Sequence[Finding]) -> str:
    problems = sum(finding.severity is Severity.PROBLEM for finding in found)
    warnings = sum(finding.severity is Severity.WARNING for finding in found)
    warned = (
        f" {warnings} {'thing is' if warnings == 1 else 'things are'} worth a look (!)." if warnings else ""
    )
    if problems:
        mark = "one thing" if problems == 1 else f"{problems} things"
        return f"Footplate does not work as it is: mend {mark}.{warned}"
    return f"Nothing keeps Footplate from working.{warned}"


def _offer(offered: Sequence[Entry]) -> Iterator[str]:
    if not offered:
        return
    yield ""
    yield "Models that config.toml does not have. Paste what you want, or add all: footplate doctor --write"
    yield ""
    for entry in offered:
        yield f"# {one_line(entry.where)}"
        yield entry.toml
        yield ""


def _written(added: Added) -> Iterator[str]:
    yield ""
    file = shlex.quote(str(added.file))
    for entry in added.skipped:
        yield f"{one_line(entry.model)} is in {file} already."
    if not added.added:
        yield f"There is nothing to add to {file}."
        return
    names = ", ".join(one_line(f"{entry.runtime}/{entry.model}") for entry in added.added)
    yield f"Added to {file}: {names}"
    if added.backup:
        yield f"The former file: {shlex.quote(str(added.backup))}"
    yield "A running daemon takes it up with: footplate reload"


def _plain(value: Any) -> Any:
    """Give values as JSON has them."""
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, frozenset | set):
        return sorted(_plain(entry) for entry in value)
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value
