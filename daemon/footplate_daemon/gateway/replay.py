"""Replay: a request that the ledger kept, asked once more, of another variant or the same.

The replay is a request like any other: it may start a switch, waits in the queue, and has its own exchange.
"""

from typing import Any

from footplate_daemon import wire
from footplate_daemon.bodies import dump, parse_object
from footplate_daemon.errors import Conflict
from footplate_daemon.gateway import reading
from footplate_daemon.gateway.answering import Answering, Ask
from footplate_daemon.gateway.gateway import Gateway
from footplate_daemon.gateway.ledger import CHAT_PATHS, Ledger, Record
from footplate_daemon.store.exchanges import Exchange

ANSWER_LIMIT = 64 * 1024 * 1024
STREAMED = frozenset({"/v1/chat/completions", "/v1/completions"})
"""These are streamed in any case: only a stream has a time to the first token."""


class Replayer:
    """Asks again what was asked before."""

    def __init__(self, gateway: Gateway, ledger: Ledger) -> None:
        self._gateway = gateway
        self._ledger = ledger

    async def replay(self, exchange_id: int, runtime: str | None, variant: str | None) -> wire.Replay:
        """Ask the model's variant on a runtime, or a variant, else the same again; give both answers.

        Raise `NotFound` for the exchange or the variant, `Conflict` where the request was not kept, and what
        the gateway raises when nothing answers.
        """
        record = await self._ledger.get(exchange_id)
        body = _request(record)
        target = variant or self._same_model(record.exchange, runtime)
        ask = _ask(record.exchange.path, body, target)
        answer = await self._answer(ask)
        (again,) = await self._ledger.find(wire.ExchangeFilter(request_id=ask.request_id, limit=1))
        text, reasoning = reading.said(answer)
        replayed = wire.ExchangeText(**reading.row(again).model_dump(), text=text, reasoning=reasoning)
        return wire.Replay(original=reading.with_text(record), replay=replayed)

    def _same_model(self, exchange: Exchange, runtime: str | None) -> str | None:
        """Give the variant of the same model on a runtime; raise `NotFound` with the ones there are."""
        name = exchange.variant or exchange.model_asked
        if name is None or runtime is None:
            return name
        variants = self._gateway.catalog.variants
        model = variants[name].model if name in variants else name.partition("/")[2] or name
        return self._gateway.catalog.resolve(model, runtime).name

    async def _answer(self, ask: Ask) -> bytes:
        pieces: list[bytes] = []

        async def respond(answering: Answering) -> None:
            if answering.response.status >= 400:
                await answering.failure()
            elif ask.streams:
                await answering.relay(pieces.append)
            else:
                pieces.append(await answering.whole(ANSWER_LIMIT))

        await self._gateway.answer(ask, respond)
        return b"".join(pieces)


def _request(record: Record) -> dict[str, Any]:
    """Give the body of a request that was kept; raise `Conflict`."""
    exchange = record.exchange
    if exchange.path not in CHAT_PATHS:
        raise Conflict(
            f"{exchange.path} cannot be replayed: its answer is no text.",
            hint="Replay a chat or a completion.",
        )
    request = record.body.read()[0] if record.body else None
    if request is None:
        raise Conflict(
            f"The request of exchange {exchange.id} was not kept.",
            hint='Those up to 4 MiB are, with keep_bodies = "chat" under [ledger] in config.toml;'
            " what was asked in a session is kept there.",
        )
    return parse_object(request)


def _ask(path: str, body: dict[str, Any], variant: str | None) -> Ask:
    asked = {**body, **({"model": variant} if variant else {})}
    if path in STREAMED:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    return Ask(path, asked, client="replay", raw=dump(asked))
