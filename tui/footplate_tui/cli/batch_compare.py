"""`footplate batch compare`: what two batches answered to the same lines."""

import asyncio
from collections.abc import AsyncIterator

import click
from rich.console import Console

from footplate_daemon.wire_batches import BatchComparison
from footplate_tui.cli import batch_answers, reaching
from footplate_tui.cli.batch_asking import meant

SHOWN = 10
"""Lines that a person is shown who does not say how many."""


@click.command()
@click.argument("first", metavar="ID")
@click.argument("second", metavar="ID")
@click.option("-n", "--limit", type=click.IntRange(min=1), help="So many lines; else 10, for programs all.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the lines with both answers as CSV.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with all lines.")
def compare(first: str, second: str, limit: int | None, *, as_csv: bool, as_json: bool) -> None:
    """Compare what two batches answered to the same lines: A/B.

    \b
    footplate batch compare batch_1 batch_2
    footplate batch compare batch_1 batch_2 --csv > both.csv
    """  # noqa: D301 - click's sign for "do not wrap"
    if as_csv and as_json:
        raise click.UsageError("--csv does not go with --json.")
    asyncio.run(_compare(first, second, limit, as_csv=as_csv, as_json=as_json))


async def _compare(first: str, second: str, limit: int | None, *, as_csv: bool, as_json: bool) -> None:
    async with reaching.client() as client:
        is_for_programs = as_csv or as_json
        compared = batch_answers.pages(
            client,
            await meant(client, first),
            await meant(client, second),
            limit if limit or is_for_programs else SHOWN,
        )
        if as_json:
            async for piece in batch_answers.json_pieces(compared):
                click.echo(piece, nl=False)
            click.echo()
        elif as_csv:
            async for row in batch_answers.csv_rows(compared):
                click.echo(row)
        else:
            await _show(compared)


async def _show(compared: AsyncIterator[BatchComparison]) -> None:
    console = Console(highlight=False)
    is_first = True
    async for page in compared:
        if is_first:
            click.echo("\n".join(batch_answers.summary_lines(page)) + "\n")
        for line in page.lines:
            console.print(batch_answers.side_by_side(line))
        is_first = False
