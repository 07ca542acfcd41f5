"""An exchange under way: who answers, the bytes as they come, and what they tell of themselves."""

import asyncio
import time
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from footplate_daemon.bodies import dump
from footplate_daemon.catalog import Variant
from footplate_daemon.errors import EngineFailed, FootplateError, Invalid
from footplate_daemon.gateway.engine_errors import reshape
from footplate_daemon.gateway.sse import NOTHING, StreamWatch, Told, Usage, error_of, told_by, without_usage
from footplate_daemon.gateway.upstream import Response
from footplate_daemon.ids import new_request_id
from footplate_daemon.runtimes.base import Call
from footplate_daemon.switching.leases import Lease

LONGEST_NAME = 300
"""Characters of a model's name."""
STREAMED = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"})
"""The paths whose answers may be streams."""
ERROR_BODY_LIMIT = 1024 * 1024
_ERROR_EVENT = b'data: {"error"'


@dataclass(slots=True)
class Ask:
    """A request, read and checked as far as every runtime needs it."""

    path: str
    body: Mapping[str, Any]
    request_id: str = field(default_factory=new_request_id)
    client: str | None = None
    session_id: str | None = None
    interactive: bool = True
    capability: str | None = None
    """What a variant must be able to do to answer it, where that is not chat."""
    raw: bytes = b""
    """The body as it was sent, for the ledger."""
    is_stopping: Callable[[], bool] | None = None
    """Says whether the daemon's end, rather than the client's, is why it is cancelled."""
    task: "asyncio.Task[None] | None" = None
    """What asks, where that is known: to be told by the loop takes a system call."""
    permit: Callable[[Variant], None] | None = None
    """Raises an error for a variant that the client may not ask."""
    streams: bool = field(init=False)
    """Whether the answer is to be a stream."""

    def __post_init__(self) -> None:
        self.streams = self.path in STREAMED and self.body.get("stream") is True

    @property
    def model(self) -> str | None:
        model = self.body.get("model")
        if model is not None and not isinstance(model, str):
            raise Invalid("`model` must be a string.", param="model", hint="GET /v1/models lists them.")
        if model is not None and len(model) > LONGEST_NAME:
            raise Invalid(
                f"`model` is longer than {LONGEST_NAME} characters.",
                param="model",
                hint="GET /v1/models lists them.",
            )
        return model or None


class Answering:
    """What an engine answers to one request."""

    def __init__(
        self,
        ask: Ask,
        lease: Lease,
        response: Response,
        call: Call,
        asked_at: float,
        keep: Callable[[bytes], None] | None = None,
        *,
        hides_usage: bool = False,
    ) -> None:
        self.ask = ask
        self.lease = lease
        self.response = response
        self.call = call
        self.asked_at = asked_at
        """Monotonic seconds."""
        self.status = response.status
        """What the client gets."""
        self.error: str | None = None
        """What the engine said instead of an answer."""
        self.hint: str | None = None
        self.first_at: float | None = None
        self.last_at: float | None = None
        self.gaps: array[float] | None = None
        """Seconds between the chunks of a stream that held something."""
        self._keep = keep
        self._hides_usage = hides_usage
        """The tokens were asked for by us, and are none of the client's business."""
        self._watch: StreamWatch | None = None
        self._whole: Told = NOTHING

    @property
    def variant(self) -> Variant:
        return self.lease.variant

    async def relay(self, sink: Callable[[bytes], None]) -> None:
        """Hand the answer's bytes on as they come, in OpenAI's form; return at their end.

        `sink` is called from the connection itself: it must not block, and may `pause`. Raise `EngineFailed`
        if the answer breaks off.
        """
        translation, look = self.call.translation, self._looked_at
        watch = self._watch = StreamWatch()
        self.gaps = array("f")

        def pass_on(data: bytes) -> None:
            chunk = data if translation is None else translation.feed(data)
            if chunk:
                shown = look(chunk, watch)
                if shown:
                    sink(shown)

        await self.response.relay(pass_on)
        rest = translation.end() if translation is not None else b""
        if rest:
            sink(look(rest, watch))
        self.error = watch.error

    def pause(self) -> None:
        """Let no more bytes come for now: whoever reads them is slower."""
        self.response.pause()

    def resume(self) -> None:
        """Let bytes come again."""
        self.response.resume()

    async def whole(self, limit: int) -> bytes:
        """Give an answer that is not streamed, in OpenAI's form.

        Raise `EngineFailed` if it is longer than `limit` bytes; that, or `Invalid`, if it is an error in
        spite of its status.
        """
        body = await self.response.read(limit)
        if self.call.translation is not None:
            body = self.call.translation.feed(body) + self.call.translation.end()
        self.first_at = self.last_at = time.monotonic()
        self._whole = told_by(body)
        if self._keep is not None:
            self._keep(body)
        if b'"error"' in body and error_of(body):
            raise self._failed(body)
        return body

    async def failure(self) -> tuple[int, dict[str, Any]]:
        """Give the status and body for an engine's error answer, in the one shape of errors."""
        body = await self.response.read(ERROR_BODY_LIMIT)
        status, shaped = reshape(self.response.status, body, self.variant.name)
        self.error, self.hint, self.status = str(shaped["error"]["message"]), shaped["error"]["hint"], status
        return status, shaped

    @property
    def has_told_something(self) -> bool:
        """Whether anything of the answer has been handed on."""
        return self.last_at is not None

    @property
    def told(self) -> Told:
        """What the answer has said of itself so far."""
        return self._whole if self._watch is None else self._watch.told

    @property
    def usage(self) -> Usage | None:
        """The tokens that the engine counted; None as long as it has not said."""
        return self.told.usage

    @property
    def finish_reason(self) -> str | None:
        """Why the answer ended; None as long as it has not."""
        return self.told.finish_reason

    @property
    def ttft_seconds(self) -> float | None:
        """From the lease to the first content; None before."""
        if self.first_at is None:
            return None
        return self.first_at - self.asked_at - self.lease.queue_seconds

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens after the first, over the time between first and last; None when there is no telling."""
        usage = self.usage
        tokens = usage.completion_tokens if usage else None
        if not self.ask.streams or tokens is None or tokens < 2 or not self.first_at or not self.last_at:
            return None
        seconds = self.last_at - self.first_at
        return (tokens - 1) / seconds if seconds > 0 else None

    def _failed(self, body: bytes) -> FootplateError:
        status, shaped = reshape(500, body, self.variant.name)
        said = shaped["error"]
        kind = Invalid if status < 500 else EngineFailed
        return kind(str(said["message"]), hint=said["hint"], param=said["param"])

    def _looked_at(self, chunk: bytes, watch: StreamWatch) -> bytes:
        """Note what a chunk of a stream tells; give it, an error in it in the one shape of errors."""
        came = watch.passed_over(chunk)
        if not came:
            if _ERROR_EVENT in chunk:
                chunk = b"\n\n".join(map(self._reshaped, chunk.split(b"\n\n")))
            came = watch.feed(chunk)
            if self._hides_usage and b'"usage"' in chunk:
                chunk = without_usage(chunk)
        if came:  # comments do not count: an engine that hangs may still send pings
            self.lease.progressed()
            now = time.monotonic()
            if self.first_at is not None and self.last_at is not None and self.gaps is not None:
                self.gaps.append(now - self.last_at)
            elif watch.has_content:
                self.first_at = now
            self.last_at = now
        if self._keep is not None:
            self._keep(chunk)
        return chunk

    def _reshaped(self, event: bytes) -> bytes:
        if not event.startswith(_ERROR_EVENT):
            return event
        _, shaped = reshape(500, event.removeprefix(b"data:"), self.variant.name)
        return b"data: " + dump(shaped)
