"""The OpenAI-compatible face.

A request belongs to its connection: when the client leaves, the generation is cancelled. A stream's bytes go
from the engine's connection to the client's as they come. A stream that waits for an engine gets SSE
comments, never invented content.
"""

import asyncio
import json
import logging
import pwd
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from footplate_daemon import errors
from footplate_daemon.access_log import AccessLog, AccessRecord
from footplate_daemon.bodies import dump, parse_object
from footplate_daemon.catalog import Variant
from footplate_daemon.errors import INTERNAL, FootplateError, NotFound, Unavailable
from footplate_daemon.gateway import requests
from footplate_daemon.gateway.answering import Answering, Ask
from footplate_daemon.gateway.gateway import Gateway
from footplate_daemon.gateway.keys import KeyRing, presented
from footplate_daemon.gateway.requests import PASSED_THROUGH, SERVED_BY
from footplate_daemon.http.answers import JSON, Headers, error_answer
from footplate_daemon.http.batches import BatchFace, is_about_batches
from footplate_daemon.http.model_list import model_list, model_named
from footplate_daemon.http.server import ClientLeft, Request
from footplate_daemon.ids import new_request_id
from footplate_daemon.store.keys import Key
from footplate_daemon.wire import Switch

logger = logging.getLogger(__name__)

ANSWER_LIMIT = 256 * 1024 * 1024
"""Bytes of an answer that is not streamed."""
SSE: Headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
HEADER_LIMIT = 2000
"""Characters of a header in which names stand that a client chose."""
NAME = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
"""A request's or session's id, as a client may choose it."""


def is_for_gateway(path: str) -> bool:
    """Say whether the gateway answers this path, and not control."""
    return path.startswith("/v1/") or path == "/v1" or path in PASSED_THROUGH


EXPOSED = (
    b"x-request-id, x-session-id, x-footplate-runtime, x-footplate-model, x-footplate-queue-ms, "
    b"x-footplate-ignored, x-footplate-clamped, retry-after"
)
"""Headers of an answer that a page in a browser may read."""
PREFLIGHT: Headers = [
    (b"access-control-allow-methods", b"GET, POST, DELETE, OPTIONS"),
    (
        b"access-control-allow-headers",
        b"authorization, content-type, x-api-key, x-request-id, x-session-id, *",
    ),
    (b"access-control-max-age", b"600"),
]
METHODS = (b"allow", b"GET, HEAD, POST, DELETE, OPTIONS")


@dataclass(frozen=True)
class FaceRules:
    """What the operator decided about requests."""

    body_limit: int
    """Bytes."""
    cors_origins: frozenset[bytes] = frozenset()
    """Pages of these origins may ask from a browser; `*` is any."""


class OpenAIFace:
    """Answers `/v1/…`; raises nothing but `ClientLeft`."""

    def __init__(
        self,
        gateway: Gateway,
        rules: FaceRules,
        keys: KeyRing,
        metrics: Callable[[str | None], tuple[bytes, str]],
        access_log: AccessLog,
        started_at: float,
        batches: BatchFace | None = None,
    ) -> None:
        self.rules = rules
        """Replaced as a whole when the configuration changes."""
        self._gateway = gateway
        self._keys = keys
        self._metrics = metrics
        self._access_log = access_log
        self._started_at = started_at
        self._batches = batches

    async def answer_local(self, request: Request) -> None:
        """Answer a request on the Unix socket: who may open it may ask."""
        await self._answer(request, is_local=True)

    async def answer_public(self, request: Request) -> None:
        """Answer a request on TCP: who has a key may ask, and control is not there."""
        await self._answer(request, is_local=False)

    async def _answer(self, request: Request, *, is_local: bool) -> None:
        reply = _Reply(request, self.rules)
        try:
            if is_local:
                reply.client = _user(request.peer.user_id)
            elif request.method != "OPTIONS":
                self._check_key(request, reply)
            await self._route(request, reply, is_local=is_local)
        except ClientLeft:
            raise
        except FootplateError as error:
            reply.fail(error)
            reply.client = reply.client or error.details.get("key")
            if reply.ask is None and request.method == "POST" and reply.client is not None:
                self._gateway.note_refused(
                    request.path, reply.request_id, reply.client, reply.session_id, error
                )
        except asyncio.CancelledError:
            if request.is_gone or not request.is_stopping:
                raise
            reply.fail(
                Unavailable("The daemon is being stopped.", hint="Ask again when it is back.", retry_after=2)
            )
        except Exception:
            logger.exception("a request failed", extra={"path": request.path, "request_id": reply.request_id})
            reply.fail(INTERNAL)
        finally:
            if self._access_log.is_on:
                self._access_log.note(reply.record())

    def _check_key(self, request: Request, reply: "_Reply") -> None:
        secret = presented(request.header(b"authorization"), request.header(b"x-api-key"))
        reply.key = self._keys.check(secret, time.time())
        reply.client = reply.key.name

    async def _route(self, request: Request, reply: "_Reply", *, is_local: bool) -> None:
        method, path = request.method, request.path
        if method == "POST" and path in PASSED_THROUGH:
            raw = await request.body(self.rules.body_limit)
            reply.ask = ask = _checked(path, raw, reply, self._permit(reply))
            request.on_left = request.task.cancel if request.task is not None else None
            await self._pass_on(ask, reply)
        elif method == "GET" and path == "/v1/models":
            reply.json(200, model_list(self._gateway, self._started_at))
        elif method == "GET" and path.startswith("/v1/models/"):
            reply.json(200, model_named(self._gateway, path.removeprefix("/v1/models/"), self._started_at))
        elif self._batches is not None and method != "OPTIONS" and is_about_batches(path):
            await self._batches.answer(reply)
        elif method == "OPTIONS" and (is_for_gateway(path) or path in {"/health", "/metrics"}):
            request.answer(204, [METHODS, *(PREFLIGHT if reply.is_cross_origin else ()), *reply.headers], b"")
        elif method == "GET" and path == "/health" and not is_local:
            reply.json(200, {"status": "ok"})
        elif method == "GET" and path == "/metrics" and not is_local:
            body, kind = self._metrics((request.header(b"accept") or b"").decode("latin-1"))
            request.answer(200, [(b"content-type", kind.encode()), *reply.headers], body)
        else:
            raise NotFound(
                f"There is no {method} {path} here.",
                hint=f"GET /v1/models, POST {', '.join(PASSED_THROUGH)}",
            )

    def _permit(self, reply: "_Reply") -> Callable[[Variant], None] | None:
        """Give what refuses the models that the client's key is not for."""
        key = reply.key
        if key is None or not key.models:
            return None
        return lambda variant: self._keys.check_model(key, variant.model, variant.name)

    async def _pass_on(self, ask: Ask, reply: "_Reply") -> None:
        async def tell(switch: Switch | None) -> None:
            if not reply.request.has_begun:
                reply.labels = _names(self._gateway.resolve_for(ask))
            await reply.comment(_progress(ask, switch))

        await self._gateway.answer(ask, reply.respond, tell if ask.streams else None)


class _Reply:
    """The way back to the client: knows whether a stream has begun, because then errors are events."""

    def __init__(self, request: Request, rules: FaceRules) -> None:
        self.request = request
        self.client: str | None = None
        self.key: Key | None = None
        self.ask: Ask | None = None
        self.variant: Variant | None = None
        self.is_cross_origin = False
        self._has_failed = False
        self._came_at = time.time()
        self.request_id, self.session_id = _ids(request)
        self.headers: Headers = [(b"x-request-id", self.request_id.encode())]
        if self.session_id is not None:
            self.headers.append((b"x-session-id", self.session_id.encode()))
        self.labels: Headers = []
        """Headers that say who answers, and how."""
        if rules.cors_origins:
            self._allow_origin(rules.cors_origins)

    def _allow_origin(self, origins: frozenset[bytes]) -> None:
        origin = self.request.header(b"origin")
        if origin is not None and not origins.isdisjoint((origin, b"*")):
            self.is_cross_origin = True
            self.headers += (
                (b"access-control-allow-origin", origin),
                (b"access-control-expose-headers", EXPOSED),
                (b"vary", b"origin"),
            )

    def record(self) -> AccessRecord:
        """Give the line of the access log."""
        request, ask, variant = self.request, self.ask, self.variant
        model = ask.body.get("model") if ask is not None else None
        return AccessRecord(
            self._came_at,
            "HEAD" if request.head_only else request.method,
            request.target.decode("latin-1"),
            request.status,
            time.time() - self._came_at,
            len(ask.raw) if ask is not None else 0,
            request.sent_bytes,
            self.client,
            request.peer.address,
            self.request_id,
            model if isinstance(model, str) else None,
            variant.name if variant is not None else None,
            self._outcome(),
        )

    def _outcome(self) -> str:
        if self._has_failed or self.request.status >= 400:
            return "failed"
        return "done" if self.request.is_answered else "cancelled"

    def json(self, status: int, value: Any) -> None:
        """Answer with JSON."""
        self.request.answer(status, [JSON, *self.headers, *self.labels], dump(value))

    async def respond(self, answering: Answering) -> None:
        """Pass on what the engine answers: an error, a stream, or an answer in one piece."""
        self.variant = answering.variant
        self.labels = _labels(answering)
        if answering.response.status >= 400:
            self.fail_as(*await answering.failure())
        elif answering.ask.streams:
            await self.stream(answering)
        else:
            body = await answering.whole(ANSWER_LIMIT)
            self.request.answer(answering.response.status, [JSON, *self.headers, *self.labels], body)

    async def comment(self, text: str) -> None:
        """Say how it goes, in a stream that waits."""
        self._begin_stream()
        self.request.write(f": {text}\n\n".encode())

    async def stream(self, answering: Answering) -> None:
        """Pass a stream on, no faster than the client reads."""
        request = self.request
        self._begin_stream()
        request.on_paused, request.on_resumed = answering.pause, answering.resume
        await answering.relay(request.write)
        request.end()

    def fail(self, error: FootplateError) -> None:
        """Tell an error: as the answer, or as the last event of a stream that has begun."""
        if self.request.is_answered:
            return
        self._has_failed = True
        if self.request.has_begun:
            self._end_stream(errors.to_json(error))
        else:
            headers, body = error_answer(error)
            self.request.answer(error.http_status, [*headers, *self.headers, *self.labels], body)

    def fail_as(self, status: int, shaped: dict[str, Any]) -> None:
        """Tell an engine's error."""
        self._has_failed = True
        if self.request.has_begun:
            self._end_stream(shaped)
        else:
            self.json(status, shaped)

    def _begin_stream(self) -> None:
        if not self.request.has_begun:
            self.request.probe = b":\n\n"
            self.request.begin(200, [*SSE, *self.headers, *self.labels])

    def _end_stream(self, shaped: dict[str, Any]) -> None:
        self.request.write(b"data: " + dump(shaped) + b"\n\n")
        self.request.end()


def _checked(path: str, raw: bytes, reply: _Reply, permit: Callable[[Variant], None] | None) -> Ask:
    """Check what every runtime needs, so that a mistake is answered before anything is loaded."""
    body = parse_object(raw)
    requests.check(path, body)
    request = reply.request  # not the reply, which holds what is asked: a circle would keep both
    return Ask(
        path,
        body,
        reply.request_id,
        reply.client,
        reply.session_id,
        capability=SERVED_BY.get(path),
        raw=raw,
        task=request.task,
        permit=permit,
        is_stopping=lambda: request.is_stopping,
    )


def _ids(request: Request) -> tuple[str, str | None]:
    """Give the ids of request and session that the client sent; the first is made up if need be."""
    request_id = session_id = None
    for name, value in request.headers:
        if name == b"x-request-id" and NAME.fullmatch(value):
            request_id = value.decode()
        elif name == b"x-session-id" and NAME.fullmatch(value):
            session_id = value.decode()
    return request_id or new_request_id(), session_id


@lru_cache(maxsize=256)
def _user(user_id: int | None) -> str | None:
    """Name a user of this machine."""
    if user_id is None:
        return None
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)


def _labels(answering: Answering) -> Headers:
    """Say who answers, which parameters it does not heed, and which not as they are."""
    translated = answering.call.translated
    labels = [
        *_names(answering.variant),
        (b"x-footplate-queue-ms", b"%d" % round(answering.lease.queue_seconds * 1000)),
    ]
    # The tables of what a runtime heeds are of generation.
    if translated.ignored and answering.ask.capability is None:
        labels.append((b"x-footplate-ignored", _in_header(",".join(translated.ignored))))
    if translated.clamped:
        clamped = "; ".join(f"{name} {how}" for name, how in translated.clamped.items())
        labels.append((b"x-footplate-clamped", _in_header(clamped.replace("→", "->"))))
    return labels


def _names(variant: Variant) -> Headers:
    return list(_named(variant.runtime, variant.model))


@lru_cache(maxsize=256)
def _named(runtime: str, model: str) -> tuple[tuple[bytes, bytes], ...]:
    return (b"x-footplate-runtime", runtime.encode()), (b"x-footplate-model", model.encode())


def _in_header(text: str) -> bytes:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:HEADER_LIMIT]).encode(
        "ascii", "replace"
    )


def _progress(ask: Ask, switch: Switch | None) -> str:
    if switch is None:
        return f"waiting for {json.dumps(ask.model) if ask.model else 'an engine'}"
    step = switch.steps[-1].name if switch.steps else "waiting"
    gone = time.time() - switch.started_at
    if switch.eta_seconds is None:
        return f"{step} {switch.variant} {gone:.0f} s"
    return f"{step} {switch.variant} {gone:.0f}/{gone + switch.eta_seconds:.0f} s"
