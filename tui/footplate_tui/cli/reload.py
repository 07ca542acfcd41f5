"""`footplate reload`: the daemon takes up a changed config.toml."""

import asyncio
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import click

from footplate_daemon import wire
from footplate_daemon.client import FootplateClient
from footplate_daemon.errors import Invalid
from footplate_daemon.paths import Paths

Flat = Mapping[str, Any]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def reload(*, as_json: bool) -> int:
    """Take up a changed config.toml, and say what holds now; engines that it does not change keep running.

    With mistakes in it, all of them are printed, the former configuration stays, and the exit code is 1.
    """
    file = Paths.from_environment(os.environ).config_file
    try:
        before, now, status = asyncio.run(_reload())
    except Invalid as error:
        if "mistakes" not in error.details:
            raise
        mistakes = error.details["mistakes"]
        told = {"file": str(file), "ok": False, "mistakes": mistakes}
        click.echo(json.dumps(told, ensure_ascii=False) if as_json else error.message)
        click.echo("The daemon keeps the configuration that it had.", err=True)
        return 1
    changed = dict(changes(before, now))
    if as_json:
        told = {"file": str(file), "ok": True, "changed": changed, "problems": status.config_errors}
        click.echo(json.dumps(told, ensure_ascii=False))
    else:
        click.echo("\n".join(lines(changed, status)))
    return 0


def lines(changed: Flat, status: wire.Status) -> Iterator[str]:
    """Give what a reload has changed as a person reads it."""
    yield "The configuration is in force." if changed else "The configuration is in force; no key changed."
    yield from (f"  {_said(key, value)}" for key, value in changed.items())
    yield from (f"! {problem}" for problem in status.config_errors)


def changes(before: Flat, now: Flat) -> Iterator[tuple[str, Any]]:
    """Give each key whose value is another one now, dotted, with that value; None for one that is gone."""
    old, new = dict(_flat(before)), dict(_flat(now))
    for key in dict.fromkeys([*new, *old]):
        is_new_and_empty = key not in old and not new[key]
        if old.get(key) != new.get(key) and not is_new_and_empty:
            yield key, new.get(key)


def _said(key: str, value: Any) -> str:
    return f"{key} is no longer set" if value is None else f"{key} = {json.dumps(value, ensure_ascii=False)}"


async def _reload() -> tuple[Flat, Flat, wire.Status]:
    async with FootplateClient(Paths.from_environment(os.environ).socket) as client:
        before = await client.config()
        status = await client.reload()
        return before, await client.config(), status


def _flat(table: Flat, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
