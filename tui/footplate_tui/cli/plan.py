"""`footplate plan`: what a switch would do; nothing is done."""

import asyncio
import shlex
from collections.abc import Iterator

import click

from footplate_daemon import wire
from footplate_tui.cli import reaching
from footplate_tui.cli.names import complete_model
from footplate_tui.cli.output import size
from footplate_tui.format import duration


@click.command()
@click.argument("name", shell_complete=complete_model)
@click.option("--runtime", help="On this runtime; else the one that was used last.")
@click.option("--preset", help="With these launch parameters; else the default ones.")
@click.option("--context", type=click.IntRange(min=1), help="Longest prompt and answer, in tokens.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def plan(name: str, runtime: str | None, preset: str | None, context: int | None, *, as_json: bool) -> None:
    """Say what a switch to NAME would stop, start and need, and do none of it."""
    found = asyncio.run(_plan(name, runtime, preset, context))
    click.echo(found.model_dump_json() if as_json else "\n".join(lines(found)))


def lines(plan: wire.Plan) -> Iterator[str]:
    """Give the plan as a person reads it."""
    yield f"starts  {plan.variant}"
    yield f"stops   {', '.join(plan.stops) or 'nothing'}"
    if plan.needs_bytes is not None:
        free = f" of {size(plan.free_bytes)} free" if plan.free_bytes is not None else ""
        yield f"memory  {size(plan.needs_bytes)}{free}{'' if plan.fits else ': does not fit'}"
    yield f"takes   {f'about {duration(plan.seconds)}' if plan.seconds is not None else 'not known yet'}"
    if plan.command:
        yield f"runs    {shlex.join(plan.command)}"
    yield from (f"! {note}" for note in plan.notes)


async def _plan(name: str, runtime: str | None, preset: str | None, context: int | None) -> wire.Plan:
    async with reaching.client() as client:
        return await client.plan(name, runtime, preset, context)
