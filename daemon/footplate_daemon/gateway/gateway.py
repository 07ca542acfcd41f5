"""From a request to the engine that answers it: model to variant, profile, lease, upstream, ledger.

Used by both ways to ask: the OpenAI face (the request belongs to its connection) and turns (it belongs
to the daemon). Knows nothing of HTTP's server side.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from footplate_daemon.bodies import dump
from footplate_daemon.catalog import Catalog, Variant, runtime_of
from footplate_daemon.errors import INTERNAL, FootplateError, Invalid, NotFound, Unavailable
from footplate_daemon.gateway import spreading
from footplate_daemon.gateway.answering import Answering, Ask
from footplate_daemon.gateway.chats import Chats
from footplate_daemon.gateway.ledger import Entry, Ledger
from footplate_daemon.gateway.upstream import Broken, Upstream
from footplate_daemon.runtimes import parameters
from footplate_daemon.runtimes.base import Runtime
from footplate_daemon.store.exchanges import CUT, CUT_HINT, Exchange, Outcome
from footplate_daemon.switching.leases import EngineDied, Lease, Waiting
from footplate_daemon.switching.switcher import Switcher

logger = logging.getLogger(__name__)

FILLED = frozenset({"/v1/chat/completions", "/v1/completions"})
"""The paths whose requests take what they leave out from the profile."""
NOT_EVERYWHERE = frozenset({"/v1/responses", "/v1/messages", "/v1/messages/count_tokens"})
"""The paths that pass through as they are, where the runtime has them."""
CUT_SECONDS = 0.3
"""A broken connection is noticed before the death behind it; so long the lease may take to say why."""
Respond = Callable[[Answering], Awaitable[None]]
"""Passes an engine's answer on, to whoever asked."""


class Gateway:
    """Answers requests with whatever engine they need; one for the daemon."""

    def __init__(
        self, switcher: Switcher, catalog: Catalog, runtimes: Mapping[str, Runtime], ledger: Ledger
    ) -> None:
        self.catalog = catalog
        """Replaced as a whole when the configuration changes."""
        self._switcher = switcher
        self._runtimes = runtimes
        self._ledger = ledger
        self._upstreams: dict[int, Upstream | spreading.Spread] = {}
        self.chats = Chats()
        """Who asks now: batches make way for them."""

    def resolve_for(self, ask: Ask) -> Variant:
        """Give the variant for a request: one that names no model goes to the service for its path.

        Raise `Invalid` when the variant is none for that, before anything is loaded for it.
        """
        model = ask.model
        if model is None and ask.capability is not None:
            return self._always_on(ask.capability, ask.path)
        variant = self.resolve(model)
        if _MAY_ANSWER[ask.capability].isdisjoint(variant.capabilities):
            raise Invalid(
                f"{variant.name} is for {' and '.join(variant.capabilities)}: it does not answer {ask.path}.",
                param="model",
                hint="GET /v1/models lists what each model is for.",
            )
        return variant

    def _always_on(self, capability: str, path: str) -> Variant:
        """Give what answers at any time without being named: a service, else the active variant."""
        for name in (*self._switcher.services.variants, self._switcher.active):
            variant = self.catalog.variants.get(name or "")
            if variant is not None and capability in variant.capabilities:
                return variant
        raise NotFound(
            f"No service answers {path}.",
            param="model",
            hint="Name a model, or put one under [services] in config.toml.",
        )

    def resolve(self, model: str | None) -> Variant:
        """Give the variant that answers for a model name; None means whatever is active or wanted.

        Raise `NotFound` naming the models there are, `Unavailable` when there is none at all.
        """
        if model is not None:
            active = self._switcher.active or self._switcher.wanted
            return self.catalog.resolve(model, last_used=(active,) if active else ())
        name = self._switcher.default_variant()
        if name is None:
            raise Unavailable("There is no model to ask.", hint="Add one to config.toml: footplate doctor")
        return self.catalog.variants[name]

    def states(self) -> dict[str, str]:
        """Give the state of every variant that has an engine."""
        engines = (*self._switcher.engines(), *self._switcher.services.shapes())
        return {engine.variant: engine.state.value for engine in engines}

    async def answer(self, ask: Ask, respond: Respond, waiting: Waiting | None = None) -> None:
        """Have `respond` pass on what the engine answers; to cancel this cancels the generation.

        Where the engine is lost before it has told anything, the request waits for it and is asked once more:
        `respond` is called again. The ledger has the exchange from now on, and every way in which it ends.
        """
        asked_at = time.monotonic()
        hand = _Hand(ask.task or asyncio.current_task())
        entry = self._enter(ask, hand)
        exchange = entry.exchange
        outcome: Outcome = "failed"
        try:
            try:
                outcome = await self._pass(ask, entry, respond, waiting, asked_at)
            except (Broken, EngineDied) as error:
                if entry.has_told or not ask.interactive:  # batches ask again by rules of their own
                    raise
                _note_again(exchange, error)
                outcome = await self._pass(ask, entry, respond, waiting, asked_at)
        except FootplateError as error:
            exchange.error, exchange.hint = error.message, error.hint
            exchange.http_status = error.http_status
            raise
        except Exception:
            exchange.error, exchange.http_status = INTERNAL.message, INTERNAL.http_status
            raise
        except asyncio.CancelledError as cancelled:
            outcome = "cancelled"
            if ask.is_stopping is not None and ask.is_stopping():
                outcome, exchange.error, exchange.hint = "cut", CUT, CUT_HINT
            elif hand.has_let_go():
                exchange.error, exchange.http_status = "It was cancelled by hand.", 503
                raise Unavailable(exchange.error, hint="Ask again if it was not meant.") from cancelled
            raise
        finally:
            exchange.outcome = outcome
            exchange.total_ms = (time.monotonic() - asked_at) * 1000
            self._ledger.end(entry)

    async def _pass(
        self, ask: Ask, entry: Entry, respond: Respond, waiting: Waiting | None, asked_at: float
    ) -> Outcome:
        """Wait for the engine, ask it, and have its answer passed on; say what became of it."""
        exchange = entry.exchange
        parameters.check(ask.body)
        variant = self.resolve_for(ask)
        exchange.variant, exchange.runtime = variant.name, variant.runtime
        exchange.profile = variant.profile_name
        if ask.permit is not None:
            ask.permit(variant)
        self.check_path(variant, ask.path)
        if not ask.interactive:
            return await self._pass_leased(ask, entry, respond, waiting, asked_at, variant)
        self.chats.began(variant.name)
        try:
            return await self._pass_leased(ask, entry, respond, waiting, asked_at, variant)
        finally:
            self.chats.ended(variant.name)

    async def _pass_leased(
        self,
        ask: Ask,
        entry: Entry,
        respond: Respond,
        waiting: Waiting | None,
        asked_at: float,
        variant: Variant,
    ) -> Outcome:
        exchange, runtime = entry.exchange, runtime_of(variant, self._runtimes)
        holding = self._switcher.lease(
            variant.name, interactive=ask.interactive, waiting=waiting, asked_at=asked_at, task=ask.task
        )
        async with holding as lease:
            exchange.outcome = "running"
            exchange.preset = lease.preset
            exchange.queue_ms = lease.queue_seconds * 1000
            exchange.switch_ms = lease.switch_seconds * 1000
            body = filled(ask.body, variant) if ask.path in FILLED else ask.body
            hides_usage = ask.streams and ask.path in FILLED and not _asks_for_usage(body)
            call = runtime.call(
                ask.path,
                _asking_for_usage(body) if hides_usage else body,
                variant.served_name,
                lease.context,
                lease.parameters,
            )
            upstream = self._upstreams.get(lease.attempt) or await self._upstream(lease)
            keep = entry.answer.add if entry.request else None
            try:
                async with await upstream.post(call.path, dump(call.body), ask.request_id) as response:
                    answering = Answering(ask, lease, response, call, asked_at, keep, hides_usage=hides_usage)
                    try:
                        await respond(answering)
                    finally:
                        _complete(entry, answering)
            except Broken:
                await asyncio.sleep(CUT_SECONDS)  # the lease may say better of what the engine died
                raise
        return "failed" if answering.status >= 400 or answering.error else "done"

    def note_refused(
        self, path: str, request_id: str, client: str, session_id: str | None, error: FootplateError
    ) -> None:
        """Enter a request that could not even be read: the ledger misses nothing."""
        entry = Entry(Exchange(self._ledger.next_id(), request_id, time.time(), "failed", path), lambda: None)
        exchange = entry.exchange
        exchange.client, exchange.session_id, exchange.total_ms = client, session_id, 0.0
        exchange.http_status, exchange.error, exchange.hint = error.http_status, error.message, error.hint
        self._ledger.begin(entry)
        self._ledger.end(entry)

    def check_path(self, variant: Variant, path: str) -> None:
        """Raise `NotFound` when the variant's runtime does not have this path."""
        runtime = runtime_of(variant, self._runtimes)
        if path not in NOT_EVERYWHERE or path in runtime.also_answers:
            return
        having = [name for name, each in self._runtimes.items() if path in each.also_answers]
        raise NotFound(
            f"{runtime.name} has no {path}.",
            hint=f"These have: {', '.join(having)}. Name a variant there, or ask /v1/chat/completions.",
        )

    async def close(self) -> None:
        """Cut every connection to every engine."""
        upstreams, self._upstreams = self._upstreams, {}
        for upstream in upstreams.values():
            await upstream.close()

    def _enter(self, ask: Ask, hand: "_Hand") -> Entry:
        model = ask.body.get("model")
        ledger = self._ledger
        entry = Entry(
            Exchange(
                ledger.next_id(),
                ask.request_id,
                time.time(),
                "waiting",
                ask.path,
                ask.streams,
                ask.session_id,
                ask.client,
                model if isinstance(model, str) else None,
            ),
            hand.let_go,
        )
        if ask.raw and ledger.keeps(ask.path):
            entry.request = ask.raw
        ledger.begin(entry)
        return entry

    async def _upstream(self, lease: Lease) -> Upstream | spreading.Spread:
        upstream = spreading.reach(lease.address, lease.variant.name)
        gone = [attempt for attempt in self._upstreams if not self._switcher.is_running(attempt)]
        self._upstreams[lease.attempt] = upstream
        for former in [self._upstreams.pop(attempt) for attempt in gone]:
            await former.close()
        return upstream


class _Hand:
    """Cancels a request for a person: not the same as a client that leaves, who is told nothing."""

    def __init__(self, task: "asyncio.Task[Any] | None") -> None:
        self._task = task
        self._is_open = False

    def let_go(self) -> None:
        if self._task is not None and not self._is_open:
            self._is_open = True
            self._task.cancel()

    def has_let_go(self) -> bool:
        """Whether a cancellation that came was this one, and no other came beside it."""
        return self._is_open and self._task is not None and self._task.uncancel() == 0


_MAY_ANSWER: Mapping[str | None, frozenset[str]] = {
    None: frozenset({"chat", "vision"}),
    # A model that is said to be for chat may do more: its runtime knows.
    "embedding": frozenset({"embedding", "chat"}),
    "rerank": frozenset({"rerank", "embedding", "chat"}),
}
"""What a request needs → the capabilities of which a variant must have one."""


def _note_again(exchange: Exchange, error: FootplateError) -> None:
    """Note that a request waits for its engine once more."""
    exchange.outcome = "waiting"
    logger.warning(
        "a request is asked again",
        extra={"request_id": exchange.request_id, "variant": exchange.variant, "cause": error.message},
    )


def _complete(entry: Entry, answering: Answering) -> None:
    """Enter what the answer told of itself."""
    exchange, told = entry.exchange, answering.told
    entry.has_told = answering.has_told_something
    ttft = answering.ttft_seconds
    exchange.ttft_ms = ttft * 1000 if ttft is not None and answering.ask.streams else None
    exchange.tokens_per_second = answering.tokens_per_second
    exchange.http_status = answering.status
    exchange.finish_reason = told.finish_reason
    exchange.error = answering.error
    exchange.hint = answering.hint or told.warning
    usage = told.usage
    if usage is not None:
        exchange.prompt_tokens = usage.prompt_tokens
        exchange.completion_tokens = usage.completion_tokens
        exchange.reasoning_tokens = usage.reasoning_tokens
        exchange.cached_tokens = usage.cached_tokens
    entry.gaps = answering.gaps


def filled(body: Mapping[str, Any], variant: Variant) -> Mapping[str, Any]:
    """Fill from the variant's profile what the client left out."""
    filled = {**variant.profile_body, **body}
    system = variant.profile.system
    messages = body.get("messages")
    if system and isinstance(messages, list) and not any(_role(message) in _ABOVE for message in messages):
        filled["messages"] = [{"role": "system", "content": system}, *messages]
    return filled


_ABOVE = frozenset({"system", "developer"})
"""Roles of which one message is enough: the profile's is left out."""


def _asks_for_usage(body: Mapping[str, Any]) -> bool:
    """Whether the client wants the tokens told; the ledger always does."""
    options = body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _asking_for_usage(body: Mapping[str, Any]) -> dict[str, Any]:
    return {**body, "stream_options": {**(body.get("stream_options") or {}), "include_usage": True}}


def _role(message: object) -> object:
    return message.get("role") if isinstance(message, dict) else None
