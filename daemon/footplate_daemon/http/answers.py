"""What both faces share: reading bodies within a limit, and errors in their one shape."""

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from footplate_daemon import errors
from footplate_daemon.errors import FootplateError, Invalid, TooLarge

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")


class ClientLeft(Exception):
    """Whoever asked is gone; nobody reads an answer."""


async def read_body(receive: Receive, limit: int) -> bytes:
    """Give a request's whole body; raise `TooLarge` as soon as it is, `ClientLeft` if it breaks off."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise TooLarge(
                f"The body is larger than {limit // (1024 * 1024)} MiB.",
                hint="Send less, or raise max_body_mib in [gateway] of config.toml.",
            )
        if not message.get("more_body"):
            return b"".join(parts)


def parse_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object; raise `Invalid` that says where it is wrong."""
    try:
        value = json.loads(body)
    except UnicodeDecodeError as error:
        raise Invalid("The body is not UTF-8.", hint="Send JSON in UTF-8.") from error
    except json.JSONDecodeError as error:
        raise Invalid(
            f"The body is no JSON: {error.msg} at line {error.lineno}, column {error.colno}.",
            hint="Mend the JSON; it must be one object.",
        ) from error
    except RecursionError as error:
        raise Invalid("The body is nested too deeply.", hint="Send flatter JSON.") from error
    except ValueError as error:  # an integer of thousands of digits
        raise Invalid(f"The body cannot be read: {error}.", hint="Send smaller numbers.") from error
    if b"\\ud" in body or b"\\uD" in body:
        _refuse_half_characters(value)
    if not isinstance(value, dict):
        raise Invalid("The body must be a JSON object.", hint='For example: {"messages": [...]}')
    return value


def _refuse_half_characters(value: Any) -> None:
    """Raise `Invalid` for half of a surrogate pair: JSON can write it, but no text holds it."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Invalid(
            "The body holds half of a surrogate pair, which is no character.", hint="Write it in UTF-8."
        ) from error


async def send_json(send: Send, status: int, value: Any, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Answer with JSON."""
    body = json.dumps(value, ensure_ascii=False).encode(errors="replace")
    await send_bytes(send, status, body, [JSON, *headers])


async def send_bytes(send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Answer with a body that is there as a whole."""
    head = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, error: FootplateError, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Answer with an error in its one shape."""
    await send_json(send, error.http_status, errors.to_json(error), [*headers, *retry_headers(error)])


def retry_headers(error: FootplateError) -> Headers:
    """Give `Retry-After` where there is something to say."""
    if error.retry_after is None:
        return []
    return [(b"retry-after", str(max(1, round(error.retry_after))).encode())]
