"""Asking the daemon about a batch; `last` stands for the one that was made last."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from footplate_daemon.client import FootplateClient
from footplate_daemon.errors import NotFound
from footplate_tui.cli import reaching
from footplate_tui.cli.batch_words import NO_BATCHES

T = TypeVar("T")

LAST = "last"
"""Stands for the id of the newest batch."""


def ask(question: Callable[[FootplateClient], Awaitable[T]]) -> T:
    """Ask the daemon that is meant."""

    async def asked() -> T:
        async with reaching.client() as client:
            return await question(client)

    return asyncio.run(asked())


def ask_about(batch_id: str, question: Callable[[FootplateClient, str], Awaitable[T]]) -> T:
    """Ask about the batch that is meant."""

    async def asked(client: FootplateClient) -> T:
        return await question(client, await meant(client, batch_id))

    return ask(asked)


async def meant(client: FootplateClient, batch_id: str) -> str:
    """Give the id of the batch that is meant."""
    if batch_id != LAST:
        return batch_id
    newest = (await client.batches(limit=1)).data
    if not newest:
        sentence, _, way_out = NO_BATCHES.partition(". ")
        raise NotFound(f"{sentence}.", hint=way_out)
    return newest[0].id
