"""`footplate switches`."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from datetime import datetime

import click

from footplate_daemon import wire
from footplate_tui.cli import reaching
from footplate_tui.cli.output import table
from footplate_tui.cli.switch_text import seconds
from footplate_tui.format import duration


@click.command()
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the switches as one JSON object.")
def switches(limit: int, *, as_json: bool) -> None:
    """List the last switches, newest first: why, how they ended, and how long each took."""
    found = asyncio.run(_switches(limit))
    if as_json:
        click.echo(json.dumps({"switches": [switch.model_dump(mode="json") for switch in found]}))
    else:
        click.echo("\n".join(lines(found)))


def lines(switches: Sequence[wire.Switch]) -> Iterator[str]:
    """Give the switches as a person reads them."""
    heads = ("ID", "BEGAN", "VARIANT", "PRESET", "WHY", "OUTCOME", "TOOK", "CAUSE")
    yield from table(heads, [_row(switch) for switch in switches])


async def _switches(limit: int) -> list[wire.Switch]:
    async with reaching.client() as client:
        return await client.switches(limit)


def _row(switch: wire.Switch) -> tuple[str, ...]:
    return (
        str(switch.id),
        datetime.fromtimestamp(switch.started_at).astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        switch.variant,
        switch.preset or "-",
        switch.reason,
        switch.outcome,
        duration(seconds(switch)),
        switch.diagnosis.cause if switch.diagnosis else "",
    )
