"""The control face: our own API, on the Unix socket only, described by its generated OpenAPI."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Header, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from footplate_daemon import __version__, errors, wire
from footplate_daemon.catalog import Variant
from footplate_daemon.errors import INTERNAL, Conflict, FootplateError, Invalid, NotFound
from footplate_daemon.events import Topic
from footplate_daemon.gpu.sampler import Sampler
from footplate_daemon.http.answers import retry_headers
from footplate_daemon.store.sessions import SessionStore
from footplate_daemon.store.switches import SwitchStore
from footplate_daemon.supervisord import tail
from footplate_daemon.switching.engine import engine_name
from footplate_daemon.switching.machine import Reason, Target
from footplate_daemon.switching.switcher import Switcher
from footplate_daemon.turns import TurnKeeper

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 15.0
"""A comment is sent on a stream that is silent for so long, so that a dead connection is noticed."""
STATUS_SECONDS = 0.05
"""Followers of the status get at most one event in this time."""
LOG_POLL_SECONDS = 0.2


Number = Annotated[int, PathParameter(ge=1, le=2**63 - 1)]
"""A number in a path: what SQLite can hold."""


@dataclass(frozen=True)
class ControlParts:
    """What the control face stands on."""

    identity: wire.Identity
    status: Topic[wire.Status]
    find: Callable[[str | None, str | None], Awaitable[Variant]]
    models: Callable[[], Awaitable[list[wire.ModelInfo]]]
    explain: Callable[[str, str | None, str | None], Awaitable[wire.Explanation]]
    plan: Callable[[str, str | None, str | None, int | None], Awaitable[wire.Plan]]
    config: Callable[[], dict[str, Any]]
    reload: Callable[[], Awaitable[wire.Status]]
    engine_logs: Callable[[], Mapping[str, Path]]
    switcher: Switcher
    switches: SwitchStore
    sessions: SessionStore
    turns: TurnKeeper
    sampler: Sampler
    closing: asyncio.Event
    """Set when the daemon is asked to stop: event streams end, and their followers come back."""


def control_app(parts: ControlParts) -> FastAPI:
    """Build the app; its routes are grouped by what they are about."""
    app = FastAPI(title="Footplate control", version=__version__, docs_url=None, redoc_url=None)
    _answer_errors(app)
    _daemon_routes(app, parts)
    _engine_routes(app, parts)
    _switch_routes(app, parts)
    _history_routes(app, parts)
    return app


def _daemon_routes(app: FastAPI, parts: ControlParts) -> None:
    @app.get("/")
    def identity() -> wire.Identity:
        return parts.identity

    @app.get("/health")
    async def health() -> wire.Health:
        return wire.Health(version=parts.identity.version, pid=parts.identity.pid)

    @app.get("/config")
    async def config() -> dict[str, Any]:
        return parts.config()

    @app.post("/api/v1/reload")
    async def reload() -> wire.Status:
        return await parts.reload()

    @app.get("/api/v1/status")
    async def status() -> wire.Status:
        return parts.status.snapshot()

    @app.get("/api/v1/gpu")
    async def gpu() -> wire.GpuSnapshot:
        return await parts.sampler.snapshot()

    @app.get("/api/v1/events")
    async def events(topic: Literal["status", "gpu"] = "status") -> Response:
        if topic == "gpu":
            return _event_stream(_numbered("gpu", parts.sampler.follow()), parts.closing)
        return _event_stream(_numbered("status", parts.status.follow(STATUS_SECONDS)), parts.closing)


def _engine_routes(app: FastAPI, parts: ControlParts) -> None:
    switcher = parts.switcher

    @app.get("/api/v1/models")
    async def models() -> dict[str, list[wire.ModelInfo]]:
        return {"models": await parts.models()}

    @app.get("/api/v1/models/{name:path}/explain")
    async def explain(name: str, runtime: str | None = None, preset: str | None = None) -> wire.Explanation:
        return await parts.explain(name, runtime, preset)

    @app.post("/api/v1/models/activate", status_code=202)
    async def activate(wish: wire.SwitchWish, wait: bool = False) -> wire.Switch:
        variant = await parts.find(wish.name, wish.runtime)
        variant.preset(wish.preset)
        return await _switch(switcher, Target(variant.name, wish.preset, wish.context), wait=wait)

    @app.get("/api/v1/system/llm-servers")
    async def engines() -> dict[str, Sequence[wire.Engine]]:
        return {"engines": switcher.engines()}

    @app.post("/api/v1/system/llm-servers/active", status_code=202)
    async def activate_runtime(wish: wire.RuntimeWish, wait: bool = False) -> wire.Switch:
        variant = await parts.find(wish.model, wish.runtime)
        variant.preset(wish.preset)
        return await _switch(switcher, Target(variant.name, wish.preset, wish.context), wait=wait)

    @app.post("/api/v1/system/llm-servers/{engine:path}/stop")
    async def stop(engine: str) -> wire.Status:
        await switcher.adopted.wait()
        switcher.stop(engine)
        return parts.status.snapshot()

    @app.get("/api/v1/system/llm-servers/{engine:path}/logs")
    async def logs(
        engine: str, lines: Annotated[int, Query(ge=0, le=100_000)] = 100, follow: bool = False
    ) -> Response:
        known = parts.engine_logs()
        log = known.get(engine_name(engine))
        if log is None:
            raise NotFound(f"No engine {engine} has run here.", hint=f"Logs: {', '.join(known) or 'none'}.")
        return StreamingResponse(
            _log_lines(log, lines, parts.closing if follow else None), media_type="text/plain; charset=utf-8"
        )


def _switch_routes(app: FastAPI, parts: ControlParts) -> None:
    switcher = parts.switcher

    @app.get("/api/v1/plan")
    async def plan(
        name: str,
        runtime: str | None = None,
        preset: str | None = None,
        context: Annotated[int | None, Query(ge=1, le=wire.LONGEST_CONTEXT)] = None,
    ) -> wire.Plan:
        return await parts.plan(name, runtime, preset, context)

    @app.get("/api/v1/switches")
    async def switches(limit: Annotated[int, Query(ge=1, le=1000)] = 20) -> dict[str, list[wire.Switch]]:
        ended = await parts.switches.list(limit)
        last = switcher.last_switch()
        running = [last] if last is not None and last.outcome == "running" else []
        return {"switches": [*running, *ended][:limit]}

    @app.get("/api/v1/switches/{switch_id}")
    async def switch(switch_id: Number) -> wire.Switch:
        try:
            return switcher.switch(switch_id)
        except NotFound:
            return await parts.switches.get(switch_id)

    @app.delete("/api/v1/switches/{switch_id}")
    async def cancel(switch_id: Number) -> wire.Switch:
        return switcher.cancel(switch_id)

    @app.post("/api/v1/switches/{switch_id}/remedies/{number}", status_code=202)
    async def apply_remedy(switch_id: Number, number: Number, wait: bool = False) -> wire.Switch:
        failed = await switch(switch_id)
        target = _remedied(failed, number)
        await parts.find(target.variant, None)
        return await _switch(switcher, target, wait=wait, reason=Reason.REMEDY)


def _history_routes(app: FastAPI, parts: ControlParts) -> None:
    @app.post("/api/v1/sessions", status_code=201)
    async def create_session(wish: wire.SessionWish) -> wire.Session:
        return await parts.sessions.create(wish.title, time.time())

    @app.get("/api/v1/sessions")
    async def sessions(limit: Annotated[int, Query(ge=1, le=10_000)] = 50) -> dict[str, list[wire.Session]]:
        return {"sessions": await parts.sessions.list(limit)}

    @app.get("/api/v1/sessions/{session_id}")
    async def session(session_id: str) -> wire.SessionWithTurns:
        return await parts.sessions.get(session_id)

    @app.patch("/api/v1/sessions/{session_id}")
    async def rename_session(session_id: str, change: wire.SessionChange) -> wire.Session:
        return await parts.sessions.rename(session_id, change.title)

    @app.delete("/api/v1/sessions/{session_id}", status_code=204)
    async def delete_session(session_id: str) -> None:
        await parts.turns.delete_session(session_id)

    @app.post("/api/v1/sessions/{session_id}/turns", status_code=202)
    async def ask(session_id: str, wish: wire.TurnWish) -> wire.Turn:
        return await parts.turns.ask(session_id, wish)

    @app.get("/api/v1/sessions/{session_id}/turns/{number}/events")
    async def follow_turn(
        session_id: str, number: Number, last_event_id: Annotated[str | None, Header()] = None
    ) -> Response:
        await parts.sessions.get_turn(session_id, number)
        events = _turn_events(parts.turns, session_id, number, last_event_id)
        return _event_stream(events, parts.closing)

    @app.post("/api/v1/sessions/{session_id}/turns/{number}/stop")
    async def stop_turn(session_id: str, number: Number) -> wire.Turn:
        return await parts.turns.stop(session_id, number)


async def _switch(
    switcher: Switcher, target: Target, *, wait: bool, reason: Reason = Reason.ASKED
) -> wire.Switch:
    await switcher.adopted.wait()
    switch = switcher.wish(target, reason)
    await switcher.remembered()
    return await switcher.ended(switch.id) if wait else switch


def _remedied(failed: wire.Switch, number: int) -> Target:
    """Give what a remedy of a failed switch makes the target; raise `NotFound` or `Conflict`."""
    remedies = failed.diagnosis.remedies if failed.diagnosis else ()
    remedy = next((remedy for remedy in remedies if remedy.id == number), None)
    if remedy is None:
        there = ", ".join(f"{each.id} ({each.title})" for each in remedies)
        raise NotFound(f"Switch {failed.id} has no remedy {number}.", hint=there or "It has none.")
    if not remedy.applies:
        raise Conflict(f"This is for you to do: {remedy.title}.", hint=remedy.command)
    return Target(remedy.variant or failed.variant, remedy.preset or failed.preset, remedy.context)


async def _numbered(name: str, snapshots: AsyncIterator[BaseModel]) -> AsyncIterator[bytes]:
    number = 0
    async for snapshot in snapshots:
        number += 1
        yield _event(name, str(number), snapshot)


async def _turn_events(
    turns: TurnKeeper, session_id: str, number: int, last_event_id: str | None
) -> AsyncIterator[bytes]:
    async for event_id, shape in turns.follow(session_id, number, last_event_id):
        yield _event("turn" if isinstance(shape, wire.Turn) else "delta", event_id, shape)


def _event(name: str, event_id: str, shape: BaseModel) -> bytes:
    return f"id: {event_id}\nevent: {name}\ndata: {shape.model_dump_json()}\n\n".encode()


def _event_stream(events: AsyncIterator[bytes], closing: asyncio.Event) -> StreamingResponse:
    return StreamingResponse(
        _with_heartbeat(events, closing),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache"},
    )


async def _with_heartbeat(events: AsyncIterator[bytes], closing: asyncio.Event) -> AsyncIterator[bytes]:
    coming = asyncio.ensure_future(_next(events))
    ending = asyncio.ensure_future(closing.wait())
    try:
        while not ending.done():
            done, _ = await asyncio.wait(
                {coming, ending}, timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                yield b": still here\n\n"
                continue
            event = coming.result() if coming in done else None
            if event is None:
                return
            yield event
            coming = asyncio.ensure_future(_next(events))
    finally:
        for task in (coming, ending):
            task.cancel()
        await asyncio.wait({coming, ending})


async def _next(events: AsyncIterator[bytes]) -> bytes | None:
    return await anext(events, None)


async def _log_lines(log: Path, line_count: int, closing: asyncio.Event | None) -> AsyncIterator[bytes]:
    """Give the last lines, and with `closing` what is written from then on, until it is set."""
    position = await asyncio.to_thread(_size, log)
    yield "".join(f"{line}\n" for line in await asyncio.to_thread(tail, log, line_count)).encode()
    while closing is not None and not closing.is_set():
        await asyncio.sleep(LOG_POLL_SECONDS)
        position, more = await asyncio.to_thread(_read_on, log, position)
        if more:
            yield more


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def _read_on(log: Path, position: int) -> tuple[int, bytes]:
    """Give what was written since, and where the next reading begins; a rotated log begins anew."""
    size = _size(log)
    start = position if position <= size else 0
    if start == size:
        return size, b""
    with log.open("rb") as stream:
        stream.seek(start)
        return size, stream.read(size - start)


def _answer_errors(app: FastAPI) -> None:
    """Give every error its one shape; a mistake of ours is logged whole and answered as `internal`."""

    @app.exception_handler(FootplateError)
    async def ours(_: Request, error: Exception) -> Response:
        assert isinstance(error, FootplateError)  # noqa: S101 - Starlette hands over what was asked for
        return _error_response(error)

    @app.exception_handler(RequestValidationError)
    async def bad_request(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        return _error_response(_invalid(error))

    @app.exception_handler(HTTPException)
    async def by_router(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        if error.status_code == 400:
            return _error_response(Invalid("The body cannot be read as JSON.", hint="Send one JSON object."))
        known = NotFound(
            f"There is no {request.method} {request.url.path} here.",
            hint="GET /openapi.json lists the calls.",
        )
        return _error_response(known, status=error.status_code)

    @app.exception_handler(Exception)
    async def mistake(request: Request, error: Exception) -> Response:
        logger.error("a request failed", exc_info=error, extra={"path": request.url.path})
        return _error_response(INTERNAL)


def _error_response(error: FootplateError, status: int | None = None) -> Response:
    headers = {name.decode(): value.decode() for name, value in retry_headers(error)}
    return JSONResponse(errors.to_json(error), status_code=status or error.http_status, headers=headers)


def _invalid(error: RequestValidationError) -> Invalid:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part not in {"body", "query", "path"}]
    field = ".".join(place)
    message = f"{field}: {first['msg']}." if field else f"The request is wrong: {first['msg']}."
    return Invalid(message, param=field or None, hint="GET /openapi.json describes every call.")
