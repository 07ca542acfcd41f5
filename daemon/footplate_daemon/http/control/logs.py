"""Every log by its name: page by page backwards, and following."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Query, Response

from footplate_daemon import log_pages, wire
from footplate_daemon.errors import NotFound
from footplate_daemon.http.control.parts import ControlParts
from footplate_daemon.http.control.streams import event, event_stream
from footplate_daemon.log_pages import Page, Place
from footplate_daemon.switching.engine import engine_name

POLL_SECONDS = 0.25
POLLS_UNTIL_TAKEN = 3
"""A line without an end is given when nothing was added to it for so long."""

LineCount = Annotated[int, Query(ge=0, le=10_000)]


def log_routes(app: FastAPI, parts: ControlParts) -> None:
    """Add the routes about logs."""

    @app.get("/api/v1/logs")
    async def logs() -> dict[str, list[wire.LogInfo]]:
        return {"logs": await asyncio.to_thread(lambda: [_info(*each) for each in parts.logs().items()])}

    @app.get("/api/v1/logs/{name:path}/follow")
    async def follow(name: str, lines: LineCount = 1000, after: str | None = None) -> Response:
        name, log = _known(parts, name)
        place = None if after is None else Place.parse(after)
        return event_stream(_events(name, log, lines, place), parts.closing)

    @app.get("/api/v1/logs/{name:path}")
    async def log_page(name: str, lines: LineCount = 1000, before: str | None = None) -> wire.LogPage:
        name, log = _known(parts, name)
        place = None if before is None else Place.parse(before)
        return _shape(name, await asyncio.to_thread(log_pages.page, log, lines, place))


def _known(parts: ControlParts, name: str) -> tuple[str, Path]:
    """Give a log by its own name, or by the variant that its engine serves."""
    known = parts.logs()
    own_name = name if name in known else engine_name(name)
    log = known.get(own_name)
    if log is None:
        raise NotFound(f"There is no log {name}.", hint=f"Logs: {', '.join(known)}.")
    return own_name, log


def _info(name: str, log: Path) -> wire.LogInfo:
    try:
        found = log.stat()
    except FileNotFoundError:
        return wire.LogInfo(name=name, byte_count=0)
    return wire.LogInfo(name=name, byte_count=found.st_size, changed_at=found.st_mtime)


async def _events(name: str, log: Path, line_count: int, after: Place | None) -> AsyncIterator[bytes]:
    """Give the last lines or those after a place, and then what is written."""
    first = (
        await asyncio.to_thread(log_pages.page, log, line_count)
        if after is None
        else await asyncio.to_thread(log_pages.page_after, log, after)
    )
    yield _event(name, first)
    place, polls_unfinished = first.end, 0
    while True:
        await asyncio.sleep(POLL_SECONDS)
        if not await asyncio.to_thread(log_pages.has_more, log, place):
            continue
        takes_unfinished = polls_unfinished >= POLLS_UNTIL_TAKEN
        more = await asyncio.to_thread(log_pages.page_after, log, place, takes_unfinished=takes_unfinished)
        polls_unfinished = 0 if more.lines else polls_unfinished + 1
        place = more.end
        if more.lines:
            yield _event(name, more)


def _event(name: str, page: Page) -> bytes:
    return event("page", str(page.end), _shape(name, page))


def _shape(name: str, page: Page) -> wire.LogPage:
    return wire.LogPage(
        name=name, lines=page.lines, begin=str(page.begin), end=str(page.end), is_first=page.is_first
    )
