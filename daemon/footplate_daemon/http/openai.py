"""The OpenAI-compatible face: a plain ASGI app, because it is the hot path.

A request belongs to its connection: when the client leaves, the generation is cancelled. A stream's bytes
pass through as they come. A stream that waits for an engine gets SSE comments, never invented content.
"""

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import Coroutine
from typing import Any

from footplate_daemon import errors
from footplate_daemon.catalog import Catalog, Variant
from footplate_daemon.errors import INTERNAL, FootplateError, Invalid, NotFound
from footplate_daemon.gateway.gateway import Answering, Ask, Gateway
from footplate_daemon.http.answers import (
    JSON,
    ClientLeft,
    Headers,
    Receive,
    Scope,
    Send,
    parse_object,
    read_body,
    send_bytes,
    send_error,
    send_json,
)
from footplate_daemon.wire import Switch

logger = logging.getLogger(__name__)

ANSWER_LIMIT = 256 * 1024 * 1024
"""Bytes of an answer that is not streamed."""
SSE: Headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
SCORED = ("text_1", "queries", "data_1")
PASSED_THROUGH = {
    "/v1/chat/completions": ("messages",),
    "/v1/completions": ("prompt",),
    "/v1/embeddings": ("input",),
    "/v1/rerank": ("query",),
    "/rerank": ("query",),
    "/v1/score": SCORED,
    "/score": SCORED,
}
"""What engines answer themselves, with the fields of which a request must have one."""
HEADER_LIMIT = 2000
"""Characters of a header in which names stand that a client chose."""
SERVED_BY = {
    "/v1/embeddings": "embedding",
    **dict.fromkeys(("/v1/rerank", "/rerank", "/v1/score", "/score"), "rerank"),
}
"""The capability that a path needs, where that is not chat."""
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


def is_for_gateway(path: str) -> bool:
    """Say whether the gateway answers this path, and not control."""
    return path.startswith("/v1/") or path in PASSED_THROUGH


class OpenAIFace:
    """Answers `/v1/…`; raises nothing."""

    def __init__(self, gateway: Gateway, body_limit: int, started_at: float) -> None:
        self._gateway = gateway
        self.body_limit = body_limit
        """Bytes of a request."""
        self._started_at = started_at

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request_id = _request_id(scope)
        headers: Headers = [(b"x-request-id", request_id.encode())]
        sending = _Sending(send)
        try:
            await self._route(scope, receive, sending, request_id, headers)
        except ClientLeft:
            return
        except FootplateError as error:
            await sending.fail(error, headers)
        except Exception:
            logger.exception("a request failed", extra={"path": scope["path"], "request_id": request_id})
            await sending.fail(INTERNAL, headers)

    async def _route(
        self, scope: Scope, receive: Receive, sending: "_Sending", request_id: str, headers: Headers
    ) -> None:
        method, path = scope["method"], scope["path"]
        if method == "GET" and path == "/v1/models":
            await send_json(sending.send, 200, _listing(self._gateway.catalog, self._started_at), headers)
        elif method == "GET" and path.startswith("/v1/models/"):
            name = path.removeprefix("/v1/models/")
            variant = self._gateway.resolve(name)
            await send_json(sending.send, 200, _model(name, variant, self._started_at), headers)
        elif method == "POST" and path in PASSED_THROUGH:
            ask = _checked(path, parse_object(await read_body(receive, self.body_limit)), request_id)
            await _while_connected(receive, self._answer(ask, sending, headers))
        else:
            raise NotFound(
                f"There is no {method} {path} here.",
                hint=f"GET /v1/models, POST {', '.join(PASSED_THROUGH)}",
            )

    async def _answer(self, ask: Ask, sending: "_Sending", headers: Headers) -> None:
        async def tell(switch: Switch | None) -> None:
            await sending.comment(_progress(ask, switch), headers)

        async with self._gateway.answer(ask, tell if ask.streams else None) as answering:
            head = [*headers, *_labels(answering)]
            if answering.response.status >= 400:
                await _pass_error(answering, sending, head)
            elif ask.streams:
                await _pass_stream(answering, sending, head)
            else:
                body = await answering.whole(ANSWER_LIMIT)
                await send_bytes(sending.send, answering.response.status, body, [JSON, *head])


class _Sending:
    """The way back to the client: knows whether a stream has begun, because then errors are events."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.has_begun = False

    async def begin_stream(self, headers: Headers) -> None:
        if not self.has_begun:
            self.has_begun = True
            await self.send({"type": "http.response.start", "status": 200, "headers": [*SSE, *headers]})

    async def pass_on(self, chunk: bytes) -> None:
        await self.send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def comment(self, text: str, headers: Headers) -> None:
        await self.begin_stream(headers)
        await self.pass_on(f": {text}\n\n".encode())

    async def end(self) -> None:
        await self.send({"type": "http.response.body", "body": b""})

    async def fail(self, error: FootplateError, headers: Headers) -> None:
        if not self.has_begun:
            await send_error(self.send, error, headers)
            return
        await self.pass_on(b"data: " + _dump(errors.to_json(error)) + b"\n\n")
        await self.end()


async def _while_connected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do the work unless the client leaves first: then cancel it and raise `ClientLeft`."""
    working = asyncio.ensure_future(work)
    listening = asyncio.ensure_future(_until_gone(receive))
    try:
        await asyncio.wait({working, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientLeft
    finally:
        listening.cancel()
        working.cancel()
        await asyncio.wait({working, listening})
    working.result()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _pass_stream(answering: Answering, sending: _Sending, headers: Headers) -> None:
    await sending.begin_stream(headers)
    async for chunk in answering.stream():
        await sending.pass_on(chunk)
    await sending.end()


async def _pass_error(answering: Answering, sending: _Sending, headers: Headers) -> None:
    status, shaped = await answering.failure()
    if sending.has_begun:
        await sending.pass_on(b"data: " + _dump(shaped) + b"\n\n")
        await sending.end()
    else:
        await send_json(sending.send, status, shaped, headers)


def _checked(path: str, body: dict[str, Any], request_id: str) -> Ask:
    """Check what every runtime needs, so that a mistake is answered before anything is loaded."""
    fields = PASSED_THROUGH[path]
    if not any(field in body for field in fields):
        named = " or ".join(f"`{field}`" for field in fields)
        raise Invalid(f"{named} is missing.", param=fields[0], hint=f"POST {path} needs {named}.")
    if "messages" in fields:
        _check_messages(body["messages"])
    return Ask(path, body, request_id=request_id, capability=SERVED_BY.get(path))


def _check_messages(messages: object) -> None:
    if not isinstance(messages, list) or not messages:
        raise Invalid(
            "`messages` must be a list with at least one message.",
            param="messages",
            hint='For example: [{"role": "user", "content": "Hello"}]',
        )
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise Invalid(
                f"Message {index} must be an object with a `role`.",
                param=f"messages.{index}.role",
                hint="Roles are system, user, assistant and tool.",
            )
        content = message.get("content")
        if not (content is None or isinstance(content, str) or _are_parts(content)):
            raise Invalid(
                f"The content of message {index} must be a string or a list of parts.",
                param=f"messages.{index}.content",
                hint='For example: [{"type": "text", "text": "Hello"}]',
            )


def _are_parts(content: object) -> bool:
    return isinstance(content, list) and all(
        isinstance(part, dict) and isinstance(part.get("type"), str) for part in content
    )


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            kept: str = value.decode()
            return kept
    return f"req-{uuid.uuid4().hex}"


def _labels(answering: Answering) -> Headers:
    """Say who answers, which parameters it does not heed, and which not as they are."""
    translated = answering.call.translated
    clamped = (f"{name} {how}" for name, how in translated.clamped.items())
    # The tables of what a runtime heeds are of generation.
    ignored = translated.ignored if answering.ask.capability is None else ()
    told = {
        b"x-footplate-ignored": ",".join(ignored),
        b"x-footplate-clamped": "; ".join(clamped).replace("→", "->"),
    }
    return [
        *((name, _in_header(text)) for name, text in told.items() if text),
        (b"x-footplate-runtime", answering.variant.runtime.encode()),
        (b"x-footplate-model", answering.variant.model.encode()),
        (b"x-footplate-queue-ms", str(round(answering.lease.queue_seconds * 1000)).encode()),
    ]


def _in_header(text: str) -> bytes:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:HEADER_LIMIT]).encode(
        "ascii", "replace"
    )


def _progress(ask: Ask, switch: Switch | None) -> str:
    if switch is None:
        return f"waiting for {ask.model or 'an engine'}"
    step = switch.steps[-1].name if switch.steps else "waiting"
    gone = time.time() - switch.started_at
    if switch.eta_seconds is None:
        return f"{step} {switch.variant} {gone:.0f} s"
    return f"{step} {switch.variant} {gone:.0f}/{gone + switch.eta_seconds:.0f} s"


def _listing(catalog: Catalog, created: float) -> dict[str, Any]:
    """List each model once, under its own name; variants by name work too, and are not listed."""
    data = [_model(name, model.variants[0], created) for name, model in catalog.models.items()]
    return {"object": "list", "data": data}


def _model(name: str, variant: Variant, created: float) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": int(created),
        "owned_by": "footplate",
        "runtime": variant.runtime,
        "context_length": variant.launch_context(),
        "capabilities": list(variant.capabilities),
        "demonstration": variant.demonstration,
    }


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
