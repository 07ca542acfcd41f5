"""The only way into the daemon from outside: one method per route, errors as `errors.*`.

Used by the terminal, the command line and scripts.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from httpx_sse import ServerSentEvent, aconnect_sse
from pydantic import BaseModel

from footplate_daemon import errors, wire

Shape = TypeVar("Shape", bound=BaseModel)

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 60.0
"""For calls that answer at once; streams have no limit."""


class FootplateClient:
    """A connection pool to one daemon; use it as `async with`, or call `aclose`.

    Every method raises a subclass of `errors.FootplateError`: what the daemon said, or
    `DaemonUnreachable` when nobody answers.
    """

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = socket_path
        self._http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(socket_path)),
            base_url="http://footplate",
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def health(self) -> wire.Health:
        """`GET /health`."""
        return await self._get("/health", wire.Health)

    async def status(self) -> wire.Status:
        """`GET /api/v1/status`."""
        return await self._get("/api/v1/status", wire.Status)

    async def models(self) -> list[wire.ModelInfo]:
        """`GET /api/v1/models`."""
        body = await self._json("GET", "/api/v1/models")
        return [wire.ModelInfo.model_validate(entry) for entry in body["models"]]

    async def explain(
        self, name: str, runtime: str | None = None, preset: str | None = None
    ) -> wire.Explanation:
        """`GET /api/v1/models/{name}/explain`: what would be started, and what its profile comes to there."""
        asked = {"runtime": runtime, "preset": preset}
        params = {key: value for key, value in asked.items() if value is not None}
        body = await self._json("GET", f"/api/v1/models/{quote(name, safe='')}/explain", params=params)
        return wire.Explanation.model_validate(body)

    async def follow_status(self) -> AsyncIterator[wire.Status]:
        """Yield the status now and whenever it changes, until the connection ends."""
        async with self._events("/api/v1/events") as events:
            async for event in events:
                if event.event == "status":
                    yield wire.Status.model_validate_json(event.data)

    async def create_session(self, wish: wire.SessionWish | None = None) -> wire.Session:
        """`POST /api/v1/sessions`."""
        return await self._post("/api/v1/sessions", wish or wire.SessionWish(), wire.Session)

    async def sessions(self, limit: int = 50) -> list[wire.Session]:
        """`GET /api/v1/sessions`: the most recently used first."""
        body = await self._json("GET", "/api/v1/sessions", params={"limit": limit})
        return [wire.Session.model_validate(entry) for entry in body["sessions"]]

    async def session(self, session_id: str) -> wire.SessionWithTurns:
        """`GET /api/v1/sessions/{id}`."""
        return await self._get(f"/api/v1/sessions/{session_id}", wire.SessionWithTurns)

    async def ask(self, session_id: str, wish: wire.TurnWish) -> wire.Turn:
        """`POST /api/v1/sessions/{id}/turns`: the stored turn; its answer comes by `follow_turn`."""
        return await self._post(f"/api/v1/sessions/{session_id}/turns", wish, wire.Turn)

    async def stop_turn(self, session_id: str, number: int) -> wire.Turn:
        """`POST …/turns/{n}/stop`: end the generation, keep what came."""
        return await self._post(f"/api/v1/sessions/{session_id}/turns/{number}/stop", None, wire.Turn)

    async def follow_turn(
        self, session_id: str, number: int, *, last_event_id: str | None = None
    ) -> AsyncIterator[tuple[str, wire.TurnDelta | wire.Turn]]:
        """Yield `(event id, delta or turn)`; the last one is a finished turn.

        The first event after a fresh attach is the turn as it stands. After a cut, pass the last
        event id seen: only what is missing comes.
        """
        path = f"/api/v1/sessions/{session_id}/turns/{number}/events"
        async with self._events(path, last_event_id) as events:
            async for event in events:
                if event.event == "delta":
                    yield event.id, wire.TurnDelta.model_validate_json(event.data)
                elif event.event == "turn":
                    yield event.id, wire.Turn.model_validate_json(event.data)

    async def chat(self, body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """`POST /v1/chat/completions` with `stream`: yield each chunk as parsed JSON."""
        request = {**body, "stream": True, "stream_options": {"include_usage": True}}
        async with self._events("/v1/chat/completions", method="POST", json=request) as events:
            async for event in events:
                if event.data == "[DONE]":
                    return
                chunk = json.loads(event.data)
                if "error" in chunk:
                    raise errors.from_json(chunk, 200)
                yield chunk

    async def _get(self, path: str, shape: type[Shape]) -> Shape:
        return shape.model_validate(await self._json("GET", path))

    async def _post(self, path: str, wish: BaseModel | None, shape: type[Shape]) -> Shape:
        body = None if wish is None else wish.model_dump(exclude_none=True)
        return shape.model_validate(await self._json("POST", path, json=body))

    async def _json(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            response = await self._http.request(method, path, **arguments)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if response.is_error:
            raise errors.from_json(_body(response), response.status_code)
        return response.json()

    @asynccontextmanager
    async def _events(
        self, path: str, last_event_id: str | None = None, *, method: str = "GET", json: Any = None
    ) -> AsyncIterator[AsyncIterator[ServerSentEvent]]:
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        limits = httpx.Timeout(None, connect=CONNECT_SECONDS)
        try:
            async with aconnect_sse(
                self._http, method, path, headers=headers, json=json, timeout=limits
            ) as source:
                if source.response.is_error:
                    await source.response.aread()
                    raise errors.from_json(_body(source.response), source.response.status_code)
                yield source.aiter_sse()
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.TransportError) -> errors.FootplateError:
        if isinstance(error, httpx.ReadTimeout):
            return errors.TimedOut("The daemon did not answer in time.", hint="See: footplate logs")
        if isinstance(error, httpx.ConnectError):
            return errors.DaemonUnreachable(
                f"No Footplate daemon answers on {self.socket_path}.", hint="Start it: footplate up"
            )
        return errors.DaemonUnreachable(
            "The connection to the Footplate daemon was cut.", hint="See: footplate status; footplate logs"
        )


def _body(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return response.text
