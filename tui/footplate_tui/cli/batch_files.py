"""`footplate batch files`: what was uploaded for batches, and what they wrote."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from footplate_daemon.client import FootplateClient
from footplate_daemon.wire_batches import File, FilePurpose
from footplate_tui.cli import batch_results
from footplate_tui.cli.batch_asking import ask
from footplate_tui.cli.batch_words import moment
from footplate_tui.cli.output import size, table
from footplate_tui.harmless import one_line

HEADS = ("ID", "MADE", "EXPIRES", "PURPOSE", "SIZE", "NAME")


@click.group()
def files() -> None:
    """List, read and delete the files of batches."""


@files.command("list")
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@click.option("--purpose", type=click.Choice([purpose.value for purpose in FilePurpose]))
@click.option("--json", "as_json", is_flag=True, help="Print OpenAI's list as one JSON object.")
def list_files(limit: int, purpose: str | None, *, as_json: bool) -> None:
    """List the files, the newest first."""
    found = ask(lambda client: client.files(purpose=purpose, limit=limit))
    click.echo(found.model_dump_json() if as_json else "\n".join(lines(found.data)))


@files.command()
@click.argument("file_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print OpenAI's file as one JSON object.")
def show(file_id: str, *, as_json: bool) -> None:
    """Say what is known of the file ID."""
    found = ask(lambda client: client.file(file_id))
    click.echo(found.model_dump_json() if as_json else "\n".join(lines([found])))


@files.command()
@click.argument("file_id", metavar="ID")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Into this file.")
def get(file_id: str, output: Path | None) -> None:
    """Write out what is in the file ID."""

    async def fetched(client: FootplateClient) -> None:
        await client.file(file_id)  # Before anything is written.
        with batch_results.sink(output) as target:
            await batch_results.copy(client, [file_id], target)

    ask(fetched)


@files.command()
@click.argument("file_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each.")
def delete(file_ids: tuple[str, ...], *, as_json: bool) -> None:
    """Delete files; a batch that is under way keeps what it needs of them."""

    async def deleted(client: FootplateClient) -> None:
        for file_id in file_ids:
            gone = await client.delete_file(file_id)
            click.echo(gone.model_dump_json() if as_json else f"{gone.id} is deleted.")

    ask(deleted)


def lines(files: Sequence[File]) -> Iterator[str]:
    """Give files as a person reads them."""
    if not files:
        yield "There are no files."
        return
    yield from table(HEADS, [_row(file) for file in files])


def _row(file: File) -> tuple[str, ...]:
    return (
        file.id,
        moment(file.created_at),
        "-" if file.expires_at is None else moment(file.expires_at),
        file.purpose.value,
        size(file.bytes),
        one_line(file.filename),
    )
