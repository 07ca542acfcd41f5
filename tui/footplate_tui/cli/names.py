"""What a shell offers where a name is wanted: asked of the daemon, and nothing when it is down or slow."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import click

from footplate_daemon.client import FootplateClient
from footplate_daemon.errors import FootplateError
from footplate_daemon.paths import Paths

PATIENCE_SECONDS = 0.5
"""A key was pressed: rather no offer than a late one."""

Ask: TypeAlias = Callable[[FootplateClient], Awaitable[Sequence[str]]]


def complete_model(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Offer models and variants."""
    return _offers(context, _models, incomplete)


def complete_target(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Offer what one can switch to: models, variants, and runtimes."""
    return _offers(context, _targets, incomplete)


def complete_engine(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Offer the variants that run."""
    return _offers(context, _running, incomplete)


def _offers(context: click.Context, ask: Ask, incomplete: str) -> list[str]:
    if context.find_root().params.get("host"):
        return []  # To log in there takes longer than our patience.
    names = asyncio.run(_answer(ask))
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


async def _answer(ask: Ask) -> Sequence[str]:
    socket = Paths.from_environment(os.environ).socket
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), FootplateClient(socket) as client:
            return await ask(client)
    except (FootplateError, TimeoutError):
        return []


async def _models(client: FootplateClient) -> list[str]:
    models = await client.models()
    return [model.name for model in models] + [each.name for model in models for each in model.variants]


async def _targets(client: FootplateClient) -> list[str]:
    names = await _models(client)
    return names + [name.partition("/")[0] for name in names if "/" in name]


async def _running(client: FootplateClient) -> list[str]:
    return [engine.variant for engine in (await client.status()).engines]
