"""`footplate status`."""

import asyncio
import time
from collections.abc import Iterator

import click

from footplate_daemon import wire
from footplate_tui.cli import reaching
from footplate_tui.cli.output import table
from footplate_tui.format import duration


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the whole status as one JSON object.")
@click.option(
    "--deep", is_flag=True, help="Have every engine and service generate something, and say if it does."
)
def status(*, as_json: bool, deep: bool) -> int:
    """Say which variant is active, which engines run, and what the daemon is doing.

    Exit code 3: there is no daemon. With --deep, 1: a part has failed.
    """
    if deep:
        health = asyncio.run(_deep_health())
        click.echo(health.model_dump_json() if as_json else "\n".join(health_lines(health)))
        return 0 if health.status == "ok" else 1
    found = asyncio.run(_status())
    click.echo(found.model_dump_json() if as_json else "\n".join(lines(found, time.time())))
    return 0


def lines(status: wire.Status, now: float) -> Iterator[str]:
    """Give the status as a person reads it."""
    up_for = duration(now - status.daemon.started_at)
    yield f"daemon  {status.daemon.version}, pid {status.daemon.pid}, up {up_for}"
    yield f"active  {status.active or 'nothing'}"
    if status.wanted != status.active:
        yield f"wanted  {status.wanted or 'nothing'}"
    if status.switch and status.switch.outcome == "running":
        yield f"switch  {_switch(status.switch)}"
    if status.queue.waiting:
        yield f"queue   {status.queue.waiting} of {status.queue.capacity} waiting"
    engines = [*status.engines, *status.services]
    if engines:
        yield ""
        yield from table(
            ("ENGINE", "STATE", "FOR", "RUNTIME", "VARIANT", "PRESET", "PID", "PORT", "REQUESTS"),
            [_row(engine, now) for engine in engines],
        )
    for engine in engines:
        if engine.diagnosis:
            yield f"! {engine.name}: {engine.diagnosis.cause}"
    yield from (f"! config.toml: {mistake}" for mistake in status.config_errors)


def health_lines(health: wire.DeepHealth) -> Iterator[str]:
    """Give what a deep look has found as a person reads it."""
    yield from table(
        ("PART", "STATUS", "SECONDS", ""),
        [(part.name, part.status, f"{part.seconds:.2f}", part.message) for part in health.parts],
    )
    for part in health.parts:
        if part.hint:
            yield f"! {part.name}: {part.hint}"


async def _deep_health() -> wire.DeepHealth:
    async with reaching.client() as client:
        return await client.deep_health()


async def _status() -> wire.Status:
    async with reaching.client() as client:
        return await client.status()


def _switch(switch: wire.Switch) -> str:
    step = f", {switch.steps[-1].name}" if switch.steps else ""
    eta = f", about {duration(switch.eta_seconds)} left" if switch.eta_seconds is not None else ""
    return f"to {switch.variant}{step}{eta}"


def _row(engine: wire.Engine, now: float) -> tuple[str, ...]:
    return (
        engine.name,
        engine.state.value,
        duration(now - engine.since),
        engine.runtime,
        engine.variant,
        engine.preset or "-",
        str(engine.pid or "-"),
        str(engine.port or "-"),
        str(engine.leases),
    )
