"""`footplate stop`: unload an engine; the next request for it, or a switch, brings it back."""

import asyncio
import time

import click

from footplate_daemon import wire
from footplate_daemon.client import FootplateClient
from footplate_daemon.errors import NotFound
from footplate_tui.cli import reaching
from footplate_tui.cli.names import complete_engine
from footplate_tui.format import count, duration


@click.command()
@click.argument("name", required=False, shell_complete=complete_engine)
@click.option("--json", "as_json", is_flag=True, help="Print the status afterwards as one JSON object.")
def stop(name: str | None, *, as_json: bool) -> None:
    """Unload the engine of NAME (a variant, a model, or an engine's name); without it, the active one.

    Requests that it is answering may finish first.
    """
    begun = time.monotonic()
    stopped, status = asyncio.run(_stop(name, tell=not as_json))
    if as_json:
        click.echo(status.model_dump_json())
    elif stopped is None:
        click.echo("Nothing is active.")
    else:
        click.echo(f"{stopped} is stopped ({duration(time.monotonic() - begun)}).")


async def _stop(name: str | None, *, tell: bool) -> tuple[str | None, wire.Status]:
    async with reaching.client() as client:
        status = await client.status()
        name = name or status.active
        if name is None:
            return None, status
        engine = await _engine(client, status, name)
        if tell and engine.leases:
            click.echo(f"{engine.variant} finishes {count(engine.leases, 'request')} first.", err=True)
        await client.stop_engine(engine.variant)
        return engine.variant, await _gone(client, engine)


async def _engine(client: FootplateClient, status: wire.Status, name: str) -> wire.Engine:
    """Give the running engine that a name means; raise `NotFound`."""
    running = [engine for engine in status.engines if engine.state is not wire.EngineState.FAILED]
    meant = [engine for engine in running if name in {engine.name, engine.variant, engine.model}]
    if meant:
        return meant[0]
    await client.stop_engine(name)  # says so if there is no such engine
    there = ", ".join(engine.variant for engine in running)
    raise NotFound(f"{name} does not run.", hint=f"Running: {there or 'nothing'}.")


async def _gone(client: FootplateClient, engine: wire.Engine) -> wire.Status:
    """Wait until nothing is left of an engine; give the status then."""
    async for status in client.follow_status():
        if all(each.pid != engine.pid or each.name != engine.name for each in status.engines):
            return status
    return await client.status()
