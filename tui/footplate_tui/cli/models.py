"""`footplate models`."""

import asyncio
import json
from collections.abc import Iterator, Sequence

import click

from footplate_daemon import wire
from footplate_tui.cli import reaching
from footplate_tui.cli.output import size, table


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the models as one JSON object.")
def models(*, as_json: bool) -> None:
    """List the models, and for each the runtimes that it runs on; * is active."""
    found = asyncio.run(_models())
    if as_json:
        click.echo(json.dumps({"models": [model.model_dump(mode="json") for model in found]}))
    else:
        click.echo("\n".join(lines(found)))


def lines(models: Sequence[wire.ModelInfo]) -> Iterator[str]:
    """Give the models as a person reads them."""
    rows = [_row(model, variant) for model in models for variant in model.variants]
    yield from table(("", "VARIANT", "STATE", "SIZE", "CONTEXT", "ON DISK", "CAN"), rows)
    yield from (
        f"{model.name}: a demonstration, it knows only Footplate's guide."
        for model in models
        if model.demonstration
    )


async def _models() -> list[wire.ModelInfo]:
    async with reaching.client() as client:
        return await client.models()


_ON_DISK = {True: "yes", False: "no", None: "-"}


def _row(model: wire.ModelInfo, variant: wire.VariantInfo) -> tuple[str, ...]:
    return (
        "*" if variant.active else "",
        variant.name or model.name,
        variant.state.value,
        size(variant.size_bytes) if variant.size_bytes is not None else "-",
        str(variant.context or "-"),
        _ON_DISK[variant.on_disk],
        ", ".join(variant.capabilities),
    )
