"""The history: sessions and their turns."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Header, Query, Request, Response

from footplate_daemon import transcripts, wire
from footplate_daemon.errors import Invalid
from footplate_daemon.http.control.parts import ControlParts, Number
from footplate_daemon.http.control.streams import event, event_stream
from footplate_daemon.turns import TurnKeeper

Count = Annotated[int | None, Query(ge=1, le=2**63 - 1)]
"""How many turns; None: all."""


def history_routes(app: FastAPI, parts: ControlParts) -> None:
    """Add the routes about sessions and turns."""
    _session_routes(app, parts)
    _copy_routes(app, parts)
    _turn_routes(app, parts)


def _session_routes(app: FastAPI, parts: ControlParts) -> None:
    @app.post("/api/v1/sessions", status_code=201)
    async def create_session(wish: wire.SessionWish) -> wire.Session:
        return await parts.sessions.create(
            wish.title, time.time(), system=wish.system, parameters=wish.parameters
        )

    @app.get("/api/v1/sessions")
    async def sessions(
        limit: Annotated[int, Query(ge=1, le=10_000)] = 50, before: str | None = None
    ) -> wire.SessionPage:
        page = await parts.sessions.list(limit, _parse_place(before))
        following = _place(page[-1]) if len(page) == limit else None
        return wire.SessionPage(sessions=tuple(page), before=following)

    @app.get("/api/v1/search")
    async def search(
        q: str, limit: Annotated[int, Query(ge=1, le=1000)] = 20
    ) -> dict[str, list[wire.SearchHit]]:
        return {"hits": await parts.sessions.search(q, limit)}

    @app.get("/api/v1/sessions/{session_id}")
    async def session(
        session_id: str,
        first: Annotated[int, Query(alias="from", ge=1, le=2**63 - 1)] = 1,
        limit: Count = None,
        last: Count = None,
    ) -> wire.SessionWithTurns:
        if last is not None and (first != 1 or limit is not None):
            raise Invalid(
                "last does not go with from and limit.",
                param="last",
                hint="Ask for last=N, or from=N&limit=M.",
            )
        return await parts.sessions.get(session_id, first=first, limit=limit, last=last)

    @app.patch("/api/v1/sessions/{session_id}")
    async def change_session(session_id: str, change: wire.SessionChange) -> wire.Session:
        return await parts.sessions.change(session_id, change)

    @app.delete("/api/v1/sessions/{session_id}", status_code=204)
    async def delete_session(session_id: str) -> None:
        await parts.turns.delete_session(session_id)

    @app.post("/api/v1/sessions/{session_id}/restore")
    async def restore_session(session_id: str) -> wire.Session:
        return await parts.sessions.restore(session_id)


def _copy_routes(app: FastAPI, parts: ControlParts) -> None:
    @app.post("/api/v1/sessions/{session_id}/fork", status_code=201)
    async def fork_session(session_id: str, wish: wire.ForkWish) -> wire.Session:
        return await parts.sessions.fork(session_id, wish.turn, wish.title, time.time())

    @app.get("/api/v1/sessions/{session_id}/export", response_class=Response, responses=_EXPORTED)
    async def export_session(session_id: str, format: Literal["markdown", "json"] = "markdown") -> Response:  # noqa: A002 - the query's name
        whole = await parts.sessions.whole(session_id)
        write, media_type, suffix = _EXPORTS[format]
        return Response(
            await asyncio.to_thread(write, whole),
            media_type=media_type,
            headers={"Content-Disposition": f'attachment; filename="footplate-{whole.id}.{suffix}"'},
        )

    @app.post("/api/v1/sessions/import", status_code=201, openapi_extra=_JSON_BODY)
    async def import_session(request: Request) -> wire.Session:
        session = await asyncio.to_thread(transcripts.from_json, await request.body())
        return await parts.sessions.add(session, time.time())


_EXPORTS = {
    "markdown": (transcripts.to_markdown, "text/markdown", "md"),
    "json": (transcripts.to_json, "application/json", "json"),
}
_EXPORTED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {}, "text/markdown": {}}, "description": "The session, whole."}
}
_JSON_BODY = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
}


def _turn_routes(app: FastAPI, parts: ControlParts) -> None:
    @app.post("/api/v1/sessions/{session_id}/turns", status_code=202)
    async def ask(session_id: str, wish: wire.TurnWish) -> wire.Turn:
        return await parts.turns.ask(session_id, wish)

    @app.get("/api/v1/sessions/{session_id}/turns/{number}/events")
    async def follow_turn(
        session_id: str, number: Number, last_event_id: Annotated[str | None, Header()] = None
    ) -> Response:
        await parts.sessions.get_turn(session_id, number)
        events = _turn_events(parts.turns, session_id, number, last_event_id)
        return event_stream(events, parts.closing)

    @app.post("/api/v1/sessions/{session_id}/turns/{number}/stop")
    async def stop_turn(session_id: str, number: Number) -> wire.Turn:
        return await parts.turns.stop(session_id, number)


def _place(session: wire.Session) -> str:
    """Say where in the list a session stands: the next page begins behind it, even if it moves meanwhile."""
    return f"{session.updated_at},{session.id}"


def _parse_place(place: str | None) -> tuple[float, str] | None:
    if place is None:
        return None
    found = re.fullmatch(r"(\d{1,20}(?:\.\d{1,20})?(?:e[+-]?\d{1,2})?),([0-9a-z]{1,40})", place)
    if found is None:
        raise Invalid(
            "before: This is no place in the list.", param="before", hint="Take it from the page before."
        )
    return float(found[1]), found[2]


async def _turn_events(
    turns: TurnKeeper, session_id: str, number: int, last_event_id: str | None
) -> AsyncIterator[bytes]:
    async for event_id, shape in turns.follow(session_id, number, last_event_id):
        yield event("turn" if isinstance(shape, wire.Turn) else "delta", event_id, shape)
