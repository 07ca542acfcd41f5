"""Talking with the daemon so that a cut line costs nothing: attach again, miss nothing, ask nothing twice.

Knows nothing of the screen. What happens is given as news, one small value each.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from footplate_daemon import errors, wire
from footplate_tui.asking import Asking

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 2.0

TURNS_AT_FIRST = 60
"""So many turns are read at a time: more than are mounted at first, much less than a long session has."""
TURNS_BEFORE = 20
"""So many are read before the one at which a session is opened."""

FINISHED = frozenset({wire.TurnState.DONE, wire.TurnState.STOPPED, wire.TurnState.FAILED})

PASSING = (errors.DaemonUnreachable, errors.TimedOut, errors.Unavailable, errors.Busy)
"""What another try, a little later, may cure while an answer is followed."""

Pause = Callable[[float], Awaitable[None]]


class Daemon(Protocol):
    """What the terminal needs of `footplate_daemon.client.FootplateClient`."""

    async def models(self) -> list[wire.ModelInfo]: ...
    def follow_status(self) -> AsyncIterator[wire.Status]: ...
    def follow_gpu(self) -> AsyncIterator[wire.GpuSnapshot]: ...
    async def gpu_history(self, seconds: float = 600.0) -> wire.GpuHistory: ...
    async def plan(
        self, name: str, runtime: str | None = None, preset: str | None = None, context: int | None = None
    ) -> wire.Plan: ...
    async def activate(self, wish: wire.SwitchWish, *, wait: bool = False) -> wire.Switch: ...
    async def switches(self, limit: int = 20) -> list[wire.Switch]: ...
    async def switch(self, switch_id: int) -> wire.Switch: ...
    async def cancel_switch(self, switch_id: int) -> wire.Switch: ...
    async def apply_remedy(self, switch_id: int, number: int, *, wait: bool = False) -> wire.Switch: ...
    async def stop_engine(self, name: str) -> wire.Status: ...
    async def sessions(self, limit: int = 50) -> list[wire.Session]: ...
    def follow_sessions(self) -> AsyncIterator[wire.SessionsChanged]: ...
    async def session_page(self, limit: int = 50, before: str | None = None) -> wire.SessionPage: ...
    async def search(self, words: str, limit: int = 20) -> list[wire.SearchHit]: ...
    async def session(
        self, session_id: str, *, first: int | None = None, limit: int | None = None, last: int | None = None
    ) -> wire.SessionWithTurns: ...
    async def rename_session(self, session_id: str, title: str) -> wire.Session: ...
    async def fork_session(self, session_id: str, wish: wire.ForkWish) -> wire.Session: ...
    async def delete_session(self, session_id: str) -> None: ...
    async def restore_session(self, session_id: str) -> wire.Session: ...
    async def export_session(
        self,
        session_id: str,
        format: Literal["markdown", "json"] = "markdown",  # noqa: A002 -- the client's name
    ) -> str: ...
    async def import_session(self, exported: str | bytes) -> wire.Session: ...
    async def create_session(self, wish: wire.SessionWish | None = None) -> wire.Session: ...
    async def change_session(self, session_id: str, change: wire.SessionChange) -> wire.Session: ...
    async def ask(self, session_id: str, wish: wire.TurnWish) -> wire.Turn: ...
    async def stop_turn(self, session_id: str, number: int) -> wire.Turn: ...
    def follow_turn(
        self, session_id: str, number: int, *, last_event_id: str | None = None
    ) -> AsyncIterator[tuple[str, wire.TurnDelta | wire.Turn]]: ...
    async def logs(self) -> list[wire.LogInfo]: ...
    async def log_page(self, name: str, lines: int = 1000, before: str | None = None) -> wire.LogPage: ...
    def follow_log(
        self, name: str, lines: int = 1000, after: str | None = None
    ) -> AsyncIterator[wire.LogPage]: ...
    async def exchanges(self, wanted: wire.ExchangeFilter | None = None) -> list[wire.Exchange]: ...
    async def exchange(self, exchange_id: int) -> wire.ExchangeWhole: ...
    def follow_exchanges(self, wanted: wire.ExchangeFilter | None = None) -> AsyncIterator[wire.Exchange]: ...
    async def cancel_exchange(self, exchange_id: int) -> wire.Exchange: ...
    async def replay_exchange(
        self, exchange_id: int, *, runtime: str | None = None, variant: str | None = None
    ) -> wire.Replay: ...
    async def aclose(self) -> None: ...


@dataclass(frozen=True)
class Grew:
    """More of the answer came."""

    content: str
    reasoning: str
    pieces: int | None = None
    """In how many pieces the engine has sent all of it so far: mostly a token each."""


@dataclass(frozen=True)
class Changed:
    """The turn as the daemon has it; what it says goes."""

    turn: wire.Turn


@dataclass(frozen=True)
class Cut:
    """The line to the daemon is cut; it is being mended."""

    error: errors.FootplateError


@dataclass(frozen=True)
class Mended:
    """The line is there again."""


def pause_before(attempt: int) -> float:
    """Give the seconds to wait before the n-th attempt, counted from 0."""
    return min(FIRST_PAUSE_SECONDS * 2.0 ** min(attempt, 10), LONGEST_PAUSE_SECONDS)


async def follow_answer(
    daemon: Daemon, session_id: str, number: int, *, pause: Pause = asyncio.sleep
) -> AsyncIterator[Grew | Changed | Cut | Mended]:
    """Yield what becomes of a turn until it is finished, over as many connections as it takes.

    Raise the daemon's error when it says that another attempt is of no use.
    """
    last_event_id: str | None = None
    failed_attempts = 0
    while True:
        error: errors.FootplateError = errors.DaemonUnreachable("The daemon ended the connection.")
        try:
            async for event_id, event in daemon.follow_turn(session_id, number, last_event_id=last_event_id):
                if failed_attempts:
                    failed_attempts = 0
                    yield Mended()
                last_event_id = event_id or last_event_id
                if isinstance(event, wire.TurnDelta):
                    yield Grew(event.content, event.reasoning, event.pieces)
                    continue
                yield Changed(event)
                if event.state in FINISHED:
                    return
        except PASSING as passing:
            error = passing
        if not failed_attempts:
            yield Cut(error)
        await pause(pause_before(failed_attempts))
        failed_attempts += 1


async def follow_status(daemon: Daemon, *, pause: Pause = asyncio.sleep) -> AsyncIterator[wire.Status | Cut]:
    """Yield each status for ever; `Cut` when the line is cut, until the next status."""
    failed_attempts = 0
    while True:
        error: errors.FootplateError = errors.DaemonUnreachable("The daemon ended the connection.")
        try:
            async for status in daemon.follow_status():
                failed_attempts = 0
                yield status
        except errors.FootplateError as failure:
            error = failure
        if not failed_attempts:
            yield Cut(error)
        await pause(pause_before(failed_attempts))
        failed_attempts += 1


async def follow_gauges(
    daemon: Daemon, *, pause: Pause = asyncio.sleep
) -> AsyncIterator[wire.GpuSnapshot | None]:
    """Yield each reading for ever; None when the line is cut, until the next reading."""
    failed_attempts = 0
    while True:
        with contextlib.suppress(errors.FootplateError):
            async for snapshot in daemon.follow_gpu():
                failed_attempts = 0
                yield snapshot
        yield None
        await pause(pause_before(failed_attempts))
        failed_attempts += 1


async def ask(
    daemon: Daemon, session_id: str, asking: Asking, *, turns_known: int, was_tried: bool
) -> wire.Turn:
    """Ask once. `was_tried`: an earlier attempt was cut, so look first whether it arrived."""
    if was_tried:
        session = await daemon.session(session_id, first=turns_known + 1)
        arrived = next((turn for turn in reversed(session.turns) if turn.prompt == asking.text), None)
        if arrived:
            return arrived
    return await daemon.ask(session_id, _wish(asking))


def _wish(asking: Asking) -> wire.TurnWish:
    try:
        files = tuple(wire.AttachmentWish(name=each.name, data=each.data) for each in asking.enclosed)
        return wire.TurnWish(
            prompt=asking.text,
            model=asking.model,
            instead_of=asking.instead_of,
            continue_of=asking.continue_of,
            after=asking.after,
            attachments=files or None,
        )
    except ValueError as error:
        raise errors.Invalid(
            "This question cannot be sent as it is.", hint="Send fewer files, or a shorter text."
        ) from error


async def last_session(daemon: Daemon) -> wire.SessionWithTurns | None:
    """Give the session used last with its last turns; None when there is none."""
    sessions = await daemon.sessions(limit=1)
    return await open_session(daemon, sessions[0].id) if sessions else None


async def open_session(daemon: Daemon, session_id: str, turn: int | None = None) -> wire.SessionWithTurns:
    """Give a session with its last turns, or with those from a little before a certain one."""
    if turn is None:
        return await daemon.session(session_id, last=TURNS_AT_FIRST)
    return await daemon.session(session_id, first=max(turn - TURNS_BEFORE, 1))


async def earlier_turns(daemon: Daemon, session_id: str, before: int) -> tuple[wire.Turn, ...]:
    """Give some of the turns before the one of this number."""
    first = max(before - TURNS_AT_FIRST, 1)
    return (await daemon.session(session_id, first=first, limit=before - first)).turns


async def demonstrations(daemon: Daemon) -> frozenset[str]:
    """Give the variants that are demonstrations, not models to work with."""
    models = await daemon.models()
    return frozenset(variant.name for model in models if model.demonstration for variant in model.variants)


async def last_failure(daemon: Daemon, variant: str) -> wire.Switch | None:
    """Give the last switch to a variant if it failed and somebody knows why."""
    switches = await daemon.switches(limit=100)
    last = next((switch for switch in switches if switch.variant == variant), None)
    return last if last and last.outcome == "failed" and last.diagnosis else None
