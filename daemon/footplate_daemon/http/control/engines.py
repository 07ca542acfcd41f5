"""Models and the engines that serve them: list, explain, activate, stop, and their logs."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Query, Response
from fastapi.responses import StreamingResponse

from footplate_daemon import wire
from footplate_daemon.errors import NotFound
from footplate_daemon.http.control.parts import ControlParts
from footplate_daemon.http.control.switches import begin_switch
from footplate_daemon.supervisord import tail
from footplate_daemon.switching.engine import engine_name
from footplate_daemon.switching.machine import Target

LOG_POLL_SECONDS = 0.2


def engine_routes(app: FastAPI, parts: ControlParts) -> None:
    """Add the routes about models and engines."""
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
        return await begin_switch(switcher, Target(variant.name, wish.preset, wish.context), wait=wait)

    @app.get("/api/v1/system/llm-servers")
    async def engines() -> dict[str, Sequence[wire.Engine]]:
        return {"engines": switcher.engines()}

    @app.post("/api/v1/system/llm-servers/active", status_code=202)
    async def activate_runtime(wish: wire.RuntimeWish, wait: bool = False) -> wire.Switch:
        variant = await parts.find(wish.model, wish.runtime)
        variant.preset(wish.preset)
        return await begin_switch(switcher, Target(variant.name, wish.preset, wish.context), wait=wait)

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


async def _log_lines(log: Path, line_count: int, closing: asyncio.Event | None) -> AsyncIterator[bytes]:
    """Give the last lines, and with `closing` what is written from then on, until it is set."""
    if closing is None:
        yield "".join(f"{line}\n" for line in await asyncio.to_thread(tail, log, line_count)).encode()
        return
    position, last = await asyncio.to_thread(_last_lines, log, line_count)
    yield last
    while not closing.is_set():
        await asyncio.sleep(LOG_POLL_SECONDS)
        position, more = await asyncio.to_thread(_read_on, log, position)
        if more:
            yield more


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def _last_lines(log: Path, line_count: int) -> tuple[int, bytes]:
    """Give the last lines that have an end, and where the next reading begins: behind them."""
    position, text = _read_on(log, max(0, _size(log) - 256 * line_count - 4096))
    return position, b"".join(text.splitlines(keepends=True)[-line_count:]) if line_count else b""


def _read_on(log: Path, position: int) -> tuple[int, bytes]:
    """Give the lines written since that have an end, and where the next reading begins.

    A rotated log begins anew.
    """
    size = _size(log)
    start = position if position <= size else 0
    if start == size:
        return size, b""
    with log.open("rb") as stream:
        stream.seek(start)
        text = stream.read()
    # A progress bar ends its lines with a carriage return alone.
    end = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
    return start + end, text[:end]
