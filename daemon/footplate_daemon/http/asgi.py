"""Carries a request to an ASGI app: the control face is one, the gateway is not."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from footplate_daemon.errors import TooLarge
from footplate_daemon.http.answers import error_answer
from footplate_daemon.http.server import Handler, Request

Message = MutableMapping[str, Any]
App = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]


def asgi(app: App, body_limit: int) -> Handler:
    """Make a handler of an app; a body above the limit, in bytes, never reaches it.

    What the app has begun goes on when the client leaves: only reading from it and writing to it end.
    """

    async def handle(request: Request) -> None:
        try:
            body = await request.body(body_limit)
        except TooLarge as error:
            request.answer(error.http_status, *error_answer(error))
            return
        exchange = _Exchange(request, body)
        await app(_scope(request), exchange.receive, exchange.send)

    return handle


def _scope(request: Request) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": request.path,
        "raw_path": request.target.partition(b"?")[0],
        "query_string": request.query,
        "root_path": "",
        "headers": request.headers,
        "server": None,
        "client": None,
    }


class _Exchange:
    """The two ways of one request: the app receives its body at once, and sends through it."""

    def __init__(self, request: Request, body: bytes) -> None:
        self._request = request
        self._body: bytes | None = body
        self._over = asyncio.Event()
        self._status = 200
        self._headers: list[tuple[bytes, bytes]] = []
        request.on_left = self._over.set

    async def receive(self) -> Message:
        """Give the body, and after that wait until the client leaves or has its answer."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Pass on the app's answer, no faster than the client reads it."""
        request = self._request
        if request.is_gone:
            return
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], list(message.get("headers", ()))
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        if not request.has_begun and not more:
            kept = [pair for pair in self._headers if pair[0] != b"content-length"]
            request.answer(self._status, kept, body)
        else:
            if not request.has_begun:
                request.begin(self._status, self._headers)
            request.write(body)
            if more:
                await request.drain()
            else:
                request.end()
        if not more:
            self._over.set()
