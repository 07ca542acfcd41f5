"""`footplate batch split`: cut a large file into parts that a batch may have. It asks no daemon."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from footplate_daemon.errors import Conflict
from footplate_daemon.wire_batches import BATCH_FILE_BYTES, MOST_REQUESTS
from footplate_tui.cli import batch_parts
from footplate_tui.cli.batch_submit import opened
from footplate_tui.cli.output import size
from footplate_tui.format import count

UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1024, "mi": 1024**2, "gi": 1024**3}


def _bytes(_: click.Context, __: click.Parameter, value: str | None) -> int:
    if value is None:
        return BATCH_FILE_BYTES
    text = value.strip().lower().removesuffix("b")
    digits = text.rstrip("kmgi")
    unit = text[len(digits) :]
    if not digits.isdecimal() or unit not in UNITS:
        raise click.BadParameter(f"{value!r} is no size. Write it like 50MB, 64MiB or 1000000.")
    found = int(digits) * UNITS[unit]
    if not 0 < found <= BATCH_FILE_BYTES:
        raise click.BadParameter(f"A batch has 1 to {BATCH_FILE_BYTES:,} bytes.")
    return found


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--lines",
    type=click.IntRange(1, MOST_REQUESTS),
    default=MOST_REQUESTS,
    show_default=True,
    help="In each part, at most.",
)
@click.option("--bytes", "byte_count", callback=_bytes, metavar="SIZE", help="Of each part, at most: 50MB.")
@click.option("--into", type=click.Path(path_type=Path, file_okay=False), help="The folder; else FILE's.")
@click.option("--skip-bad", is_flag=True, help="Leave bad lines out, into a file of their own.")
@click.option("--json", "as_json", is_flag=True, help="Print the parts as one JSON object.")
def split(
    file: Path, lines: int, byte_count: int, into: Path | None, *, skip_bad: bool, as_json: bool
) -> int:
    """Cut FILE into parts that a batch may have, and name the lines that no batch would take.

    Nothing is written while there are bad lines (exit code 1), unless --skip-bad is given. It asks no daemon.

    \b
    footplate batch split big.jsonl
    footplate batch split big.jsonl --lines 10000 --into parts
    """  # noqa: D301 - click's sign for "do not wrap"
    limits = batch_parts.Limits(lines=lines, bytes=byte_count)
    with opened(file) as source:
        bad = [(each.number, each.message) for each in batch_parts.bad_lines(source, limits)]
    if bad and not skip_bad:
        _report([], bad, as_json=as_json)
        return 1
    folder = into or file.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with file.open("rb") as source:
            parts = batch_parts.write(batch_parts.read(source, limits), limits, folder, file)
    except FileExistsError as error:
        hint = "Remove it, or name another folder: --into FOLDER"
        raise Conflict(f"{error.filename} is there already.", hint=hint) from error
    except OSError as error:
        raise click.FileError(str(error.filename or folder), error.strerror) from error
    _report(parts, bad, as_json=as_json)
    return 0


def _report(parts: Sequence[batch_parts.Part], bad: Sequence[tuple[int, str]], *, as_json: bool) -> None:
    if as_json:
        written = [{"file": str(part.path), "lines": part.lines, "bytes": part.bytes} for part in parts]
        wrong = [{"line": number, "message": message} for number, message in bad]
        click.echo(json.dumps({"parts": written, "bad": wrong}))
        return
    for number, message in bad:
        click.echo(f"line {number}: {message}", err=True)
    if bad and not parts:
        click.echo(f"{count(len(bad), 'bad line')}; nothing is written. Leave them out: --skip-bad", err=True)
    for part in parts:
        click.echo(f"{part.path}  {count(part.lines, 'line')}, {size(part.bytes)}")
