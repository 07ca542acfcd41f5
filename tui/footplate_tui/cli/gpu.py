"""`footplate gpu`: the gauges on paper, once or as they change."""

import asyncio
import sys
from collections.abc import Iterator, Mapping

import click

from footplate_daemon import wire
from footplate_daemon.client import FootplateClient
from footplate_tui.cli import reaching
from footplate_tui.cli.output import size, table
from footplate_tui.gauge_words import engines, facts, is_lost, memory_share, percent, process_name, share
from footplate_tui.harmless import one_line

HEADS = ("GPU", "NAME", "USE", "MEMORY", "FREE", "HEAT", "POWER", "SLOWED BY")
PROCESS_HEADS = ("GPU", "PID", "OWNER", "ENGINE OR PROGRAM", "MEMORY")
REDRAW = "\x1b[H\x1b[J"
"""Go to the top left corner, and take away what stands there."""


@click.command()
@click.option("-w", "--watch", "is_watching", is_flag=True, help="Go on, once a second; Ctrl-C ends it.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object; with --watch, one on each line."
)
def gpu(*, is_watching: bool, as_json: bool) -> None:
    """Show what each GPU does and who holds its memory, with the CPU and RAM of the machine."""
    asyncio.run(_show(is_watching=is_watching, as_json=as_json))


def lines(snapshot: wire.GpuSnapshot, known: Mapping[str, wire.Engine]) -> Iterator[str]:
    """Give the gauges as a person reads them."""
    if snapshot.gpus:
        yield from table(HEADS, [_row(gpu) for gpu in snapshot.gpus])
        yield from (f"! GPU {gpu.index}: {one_line(gpu.problem)}" for gpu in snapshot.gpus if gpu.problem)
        yield from (
            f"  GPU {gpu.index}: {', '.join(facts(gpu).told)}" for gpu in snapshot.gpus if facts(gpu).told
        )
        yield from _processes(snapshot, known)
    elif snapshot.problem:
        yield one_line(snapshot.problem)
    yield ""
    ram = memory_share(snapshot.ram_used_bytes, snapshot.ram_total_bytes)
    yield f"CPU {percent(snapshot.cpu_percent)}   RAM {ram}"
    if not snapshot.gpus:
        held = [(each.variant, size(each.memory_bytes)) for each in known.values() if each.memory_bytes]
        yield from table(("ENGINE", "RAM"), held) if held else ()


async def _show(*, is_watching: bool, as_json: bool) -> None:
    async with reaching.client() as client:
        if not is_watching:
            await _write(client, await client.gpu(), as_json=as_json, is_redrawn=False)
            return
        is_redrawn = sys.stdout.isatty() and not as_json
        async for snapshot in client.follow_gpu():
            await _write(client, snapshot, as_json=as_json, is_redrawn=is_redrawn)


async def _write(
    client: FootplateClient, snapshot: wire.GpuSnapshot, *, as_json: bool, is_redrawn: bool
) -> None:
    if as_json:
        click.echo(snapshot.model_dump_json())
        return
    text = "\n".join(lines(snapshot, engines(await client.status())))
    click.echo(f"{REDRAW}{text}" if is_redrawn else text)


def _row(gpu: wire.Sample) -> tuple[str, ...]:
    slowed = "lost" if is_lost(gpu) else ", ".join(gpu.throttle_reasons or ()) or "-"
    return (
        str(gpu.index),
        one_line(gpu.name),
        percent(gpu.utilisation_percent),
        memory_share(gpu.memory_used_bytes, gpu.memory_total_bytes),
        size(gpu.memory_free_bytes) if gpu.memory_free_bytes is not None else "-",
        share(gpu.temperature_celsius, gpu.temperature_limit_celsius, " °C"),
        share(gpu.power_watts, gpu.power_limit_watts, " W"),
        slowed,
    )


def _processes(snapshot: wire.GpuSnapshot, known: Mapping[str, wire.Engine]) -> Iterator[str]:
    rows = [
        (
            str(gpu.index),
            str(process.pid),
            one_line(process.owner),
            process_name(process, known),
            size(process.memory_bytes) if process.memory_bytes is not None else "not told",
        )
        for gpu in snapshot.gpus
        for process in gpu.processes or ()
    ]
    if rows:
        yield ""
        yield from table(PROCESS_HEADS, rows)
