"""From a request to the engine that answers it: model to variant, profile, lease, upstream, ledger.

Used by both ways to ask: the OpenAI face (the request belongs to its connection) and turns (it belongs
to the daemon). Knows nothing of ASGI.
"""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from footplate_daemon.catalog import Catalog, Variant, runtime_of
from footplate_daemon.errors import EngineFailed, FootplateError, Invalid, NotFound, Unavailable
from footplate_daemon.gateway.engine_errors import reshape
from footplate_daemon.gateway.ledger import Ledger
from footplate_daemon.gateway.sse import StreamWatch, Usage, error_of, usage_of
from footplate_daemon.gateway.upstream import Broken, Response, Upstream
from footplate_daemon.runtimes import parameters
from footplate_daemon.runtimes.base import Call, Runtime
from footplate_daemon.store.exchanges import Exchange, Outcome
from footplate_daemon.switching.leases import Lease
from footplate_daemon.switching.switcher import Switcher, Waiting

ERROR_BODY_LIMIT = 1024 * 1024
_ERROR_EVENT = b'data: {"error"'


@dataclass(frozen=True)
class Ask:
    """A request, read and checked as far as every runtime needs it."""

    path: str
    body: Mapping[str, Any]
    request_id: str = field(default_factory=lambda: f"req-{uuid.uuid4().hex}")
    client: str | None = None
    interactive: bool = True
    capability: str | None = None
    """What a variant must be able to do to answer it, where that is not chat."""

    @property
    def model(self) -> str | None:
        model = self.body.get("model")
        if model is not None and not isinstance(model, str):
            raise Invalid("`model` must be a string.", param="model", hint="GET /v1/models lists them.")
        return model or None

    @property
    def streams(self) -> bool:
        return self.body.get("stream") is True


@dataclass
class Answering:
    """An exchange under way: who answers, and the bytes as they come."""

    ask: Ask
    lease: Lease
    response: Response
    call: Call
    asked_at: float
    """Monotonic seconds."""
    error: str | None = None
    """What the engine said instead of an answer."""
    watch: StreamWatch = field(default_factory=StreamWatch)
    first_at: float | None = None
    last_at: float | None = None
    _whole: tuple[Usage | None, str | None] = (None, None)

    @property
    def variant(self) -> Variant:
        return self.lease.variant

    async def stream(self) -> AsyncIterator[bytes]:
        """Give the answer's bytes as they come, in OpenAI's form."""
        translation = self.call.translation
        async for data in self.response:
            chunk = data if translation is None else translation.feed(data)
            if chunk:
                yield self._looked_at(chunk)
        rest = translation.end() if translation is not None else b""
        if rest:
            yield self._looked_at(rest)
        self.error = self.watch.error

    async def whole(self, limit: int) -> bytes:
        """Give an answer that is not streamed, in OpenAI's form.

        Raise `EngineFailed` if it is too long; that, or `Invalid`, if it is an error in spite of its status.
        """
        body = await self.response.read(limit)
        if self.call.translation is not None:
            body = self.call.translation.feed(body) + self.call.translation.end()
        self.first_at = self.last_at = time.monotonic()
        self._whole = usage_of(body)
        if b'"error"' in body and error_of(body):
            raise self._failed(body)
        return body

    async def failure(self) -> tuple[int, dict[str, Any]]:
        """Give the status and body for an engine's error answer, in the one shape of errors."""
        body = await self.response.read(ERROR_BODY_LIMIT)
        status, shaped = reshape(self.response.status, body, self.variant.name)
        self.error = str(shaped["error"]["message"])
        return status, shaped

    def _failed(self, body: bytes) -> FootplateError:
        status, shaped = reshape(500, body, self.variant.name)
        said = shaped["error"]
        kind = Invalid if status < 500 else EngineFailed
        return kind(str(said["message"]), hint=said["hint"], param=said["param"])

    def _looked_at(self, chunk: bytes) -> bytes:
        """Note what a chunk of a stream tells; give it, an error in it in the one shape of errors."""
        if _ERROR_EVENT in chunk:
            chunk = b"\n\n".join(map(self._reshaped, chunk.split(b"\n\n")))
        events = self.watch.event_count
        self.watch.feed(chunk)
        if self.watch.event_count > events:
            self.lease.progressed()  # comments do not count: an engine that hangs may still send pings
        now = time.monotonic()
        if self.first_at is None and self.watch.has_content:
            self.first_at = now
        self.last_at = now
        return chunk

    def _reshaped(self, event: bytes) -> bytes:
        if not event.startswith(_ERROR_EVENT):
            return event
        _, shaped = reshape(500, event.removeprefix(b"data:"), self.variant.name)
        return b"data: " + json.dumps(shaped, ensure_ascii=False).encode()

    @property
    def usage(self) -> Usage | None:
        """The tokens that the engine counted; None as long as it has not said."""
        return self._whole[0] or self.watch.usage

    @property
    def finish_reason(self) -> str | None:
        """Why the answer ended; None as long as it has not."""
        return self._whole[1] or self.watch.finish_reason

    @property
    def ttft_seconds(self) -> float | None:
        """From the lease to the first content; None before."""
        if self.first_at is None:
            return None
        return self.first_at - self.asked_at - self.lease.queue_seconds

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens after the first, over the time between first and last; None when there is no telling."""
        tokens = self.usage.completion_tokens if self.usage else None
        if not self.ask.streams or tokens is None or tokens < 2 or not self.first_at or not self.last_at:
            return None
        seconds = self.last_at - self.first_at
        return (tokens - 1) / seconds if seconds > 0 else None


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
        self._upstreams: dict[int, Upstream] = {}

    def resolve_for(self, ask: Ask) -> Variant:
        """Give the variant for a request: one that names no model goes to the service for its path.

        Raise `Invalid` when the variant is none for that, before anything is loaded for it.
        """
        if ask.model is None and ask.capability is not None:
            return self._always_on(ask.capability, ask.path)
        variant = self.resolve(ask.model)
        if not _MAY_ANSWER[ask.capability].intersection(variant.capabilities):
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

    @asynccontextmanager
    async def answer(self, ask: Ask, waiting: Waiting | None = None) -> AsyncIterator[Answering]:
        """Hold the engine's response for the block; leaving it early cancels the generation.

        Every way of ending is noted in the ledger.
        """
        started_at, asked_at = time.time(), time.monotonic()
        answering: Answering | None = None
        variant: Variant | None = None
        outcome: Outcome = "failed"
        error: str | None = None
        try:
            parameters.check(ask.body)
            variant = self.resolve_for(ask)
            async with self._switcher.lease(
                variant.name, interactive=ask.interactive, waiting=waiting
            ) as lease:
                runtime = runtime_of(variant, self._runtimes)
                call = runtime.call(
                    ask.path,
                    _filled(ask.body, variant) if ask.capability is None else ask.body,
                    variant.served_name,
                    lease.context,
                    lease.parameters,
                )
                async with _cut_first(), await self._send(ask, call, lease) as response:
                    answering = Answering(ask, lease, response, call, asked_at)
                    yield answering
                    outcome = "failed" if response.status >= 400 or answering.error else "done"
        except FootplateError as failure:
            error = failure.message
            raise
        except (asyncio.CancelledError, GeneratorExit):
            outcome = "cancelled"
            raise
        finally:
            self._note(ask, variant, answering, outcome, error, started_at, asked_at)

    async def close(self) -> None:
        """Cut every connection to every engine."""
        upstreams, self._upstreams = self._upstreams, {}
        for upstream in upstreams.values():
            await upstream.close()

    async def _send(self, ask: Ask, call: Call, lease: Lease) -> Response:
        upstream = await self._upstream(lease)
        return await upstream.request(
            "POST",
            call.path,
            ((b"content-type", b"application/json"), (b"x-request-id", ask.request_id.encode())),
            _encoded(call.body),
        )

    async def _upstream(self, lease: Lease) -> Upstream:
        upstream = self._upstreams.get(lease.attempt)
        if upstream is None:
            address = lease.address
            upstream = Upstream(
                address.host,
                address.port,
                api_key=address.api_key,
                name=lease.variant.name,
                tls=address.tls,
                base_path=address.base_path,
            )
            gone = [attempt for attempt in self._upstreams if not self._switcher.is_running(attempt)]
            self._upstreams[lease.attempt] = upstream
            for former in [self._upstreams.pop(attempt) for attempt in gone]:
                await former.close()
        return upstream

    def _note(
        self,
        ask: Ask,
        variant: Variant | None,
        answering: Answering | None,
        outcome: Outcome,
        error: str | None,
        started_at: float,
        asked_at: float,
    ) -> None:
        lease = answering.lease if answering else None
        usage = answering.usage if answering else None
        ttft = answering.ttft_seconds if answering else None
        self._ledger.note(
            Exchange(
                id=self._ledger.next_id(),
                request_id=ask.request_id,
                started_at=started_at,
                outcome=outcome,
                client=ask.client,
                model_asked=ask.body.get("model") if isinstance(ask.body.get("model"), str) else None,
                variant=variant.name if variant else None,
                runtime=variant.runtime if variant else None,
                queue_ms=lease.queue_seconds * 1000 if lease else None,
                switch_ms=lease.switch_seconds * 1000 if lease else None,
                ttft_ms=ttft * 1000 if ttft is not None else None,
                total_ms=(time.monotonic() - asked_at) * 1000,
                prompt_tokens=usage.prompt_tokens if usage else None,
                completion_tokens=usage.completion_tokens if usage else None,
                tokens_per_second=answering.tokens_per_second if answering else None,
                finish_reason=answering.finish_reason if answering else None,
                http_status=answering.response.status if answering else None,
                error=error or (answering.error if answering else None),
            )
        )


def _encoded(body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Invalid(
            "The request holds half of a surrogate pair, which is no character.", hint="Write it in UTF-8."
        ) from error


CUT_SECONDS = 0.3
"""A broken connection is noticed before the death behind it; so long the lease may take to say why."""


@asynccontextmanager
async def _cut_first() -> AsyncIterator[None]:
    """When the connection breaks, let the lease speak first: it knows of what the engine died."""
    try:
        yield
    except Broken:
        await asyncio.sleep(CUT_SECONDS)
        raise


_MAY_ANSWER: Mapping[str | None, frozenset[str]] = {
    None: frozenset({"chat", "vision"}),
    # A model that is said to be for chat may do more: its runtime knows.
    "embedding": frozenset({"embedding", "chat"}),
    "rerank": frozenset({"rerank", "embedding", "chat"}),
}
"""What a request needs → the capabilities of which a variant must have one."""


def _filled(body: Mapping[str, Any], variant: Variant) -> dict[str, Any]:
    """Fill from the variant's profile what the client left out; what generates nothing has no use for it."""
    if not {"messages", "prompt"}.intersection(body):
        return dict(body)
    filled = {**variant.profile.body(), **body}
    system = variant.profile.system
    messages = body.get("messages")
    if system and isinstance(messages, list) and not any(_role(message) == "system" for message in messages):
        filled["messages"] = [{"role": "system", "content": system}, *messages]
    return filled


def _role(message: object) -> object:
    return message.get("role") if isinstance(message, dict) else None
