"""`footplate keys`: the keys that open the API over TCP."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from typing import TypeVar

import click
from pydantic import TypeAdapter, ValidationError

from footplate_daemon import wire
from footplate_daemon.client import FootplateClient
from footplate_daemon.settings import Duration
from footplate_tui.cli import reaching
from footplate_tui.cli.output import table

T = TypeVar("T")


def lifetime(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """Give a duration, written as in config.toml, in seconds."""
    if value is None:
        return None
    try:
        seconds = TypeAdapter(Duration).validate_python(value)
    except ValidationError:
        seconds = 0.0
    if not 0 < seconds <= wire.LONGEST_LIFETIME_SECONDS:
        raise click.BadParameter(f"{value!r} is no lifetime. Write it like 12h, 30d or 365d.")
    return seconds


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="List them as one JSON object.")
@click.pass_context
def keys(context: click.Context, *, as_json: bool) -> None:
    """Make, list and revoke the keys that open the API over TCP; without a command, list them."""
    if context.invoked_subcommand is None:
        context.invoke(list_keys, as_json=as_json)


@keys.command()
@click.argument("name")
@click.option(
    "--expires", callback=lifetime, metavar="DURATION", help="After so long it is worth nothing: 12h, 30d."
)
@click.option("--models", default="", help="Only for these models or variants, with commas between them.")
@click.option("--rpm", type=click.IntRange(1, 100_000), help="How many requests it may make in a minute.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def create(name: str, expires: float | None, models: str, rpm: int | None, *, as_json: bool) -> None:
    """Make a key called NAME and print it, this once: it is stored nowhere.

    Alone on stdout, so that a script can take it: KEY=$(footplate keys create ci)
    """
    wish = wire.ApiKeyWish(
        name=name,
        lifetime_seconds=expires,
        models=tuple(filter(None, map(str.strip, models.split(",")))),
        requests_per_minute=rpm,
    )
    made = _ask(lambda client: client.create_key(wish))
    if as_json:
        click.echo(made.model_dump_json())
        return
    click.echo(made.secret)
    click.echo(f"The key {made.name} is not shown again: put it where it is needed now.", err=True)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the keys as one JSON object.")
def list_keys(*, as_json: bool) -> None:
    """List the keys, as far as they may be shown."""
    found = _ask(lambda client: client.keys())
    if as_json:
        click.echo(json.dumps({"keys": [key.model_dump(mode="json") for key in found]}))
    else:
        click.echo("\n".join(lines(found, time.time())))


@keys.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def revoke(name: str, *, as_json: bool) -> None:
    """Revoke the key called NAME, or that begins so; requests that are being answered may finish."""
    revoked = _ask(lambda client: client.revoke_key(name))
    click.echo(revoked.model_dump_json() if as_json else f"{revoked.name} ({revoked.prefix}…) is revoked.")


def lines(keys: Sequence[wire.ApiKey], now: float) -> Iterator[str]:
    """Give the keys as a person reads them."""
    if not keys:
        yield "There are no keys. Make one: footplate keys create NAME"
        return
    heads = ("NAME", "KEY", "STATE", "CREATED", "LAST USED", "EXPIRES", "PER MINUTE", "MODELS")
    yield from table(heads, [_row(key, now) for key in keys])


def _ask(question: Callable[[FootplateClient], Awaitable[T]]) -> T:
    async def asked() -> T:
        async with reaching.client() as client:
            return await question(client)

    return asyncio.run(asked())


def _row(key: wire.ApiKey, now: float) -> tuple[str, ...]:
    return (
        key.name,
        f"{key.prefix}…",
        _state(key, now),
        _moment(key.created_at),
        _moment(key.last_used_at),
        _moment(key.expires_at),
        str(key.requests_per_minute or "-"),
        ", ".join(key.models) or "all",
    )


def _state(key: wire.ApiKey, now: float) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now else "live"


def _moment(at: float | None) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M") if at is not None else "-"
