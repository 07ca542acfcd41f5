"""A deep look at every part: engines and services generate something, the rest does what it is there for.

Nothing is loaded, woken or switched for it, no exchange is entered, and no idle engine is kept from being
unloaded.
"""

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from footplate_daemon import supervisord
from footplate_daemon.errors import EngineFailed, FootplateError, TimedOut, Unavailable
from footplate_daemon.paths import Paths
from footplate_daemon.store.database import Database
from footplate_daemon.store.probe import write_and_read
from footplate_daemon.switching.engine import Engine
from footplate_daemon.switching.probe import ask
from footplate_daemon.wire import DeepHealth, EngineState, HealthPart, Status
from footplate_daemon.wire import Engine as EngineShape

LIMIT_SECONDS = 10.0
"""How long any part may take; all are looked at together."""
LEAST_FREE_BYTES = 200_000_000
"""What the folder with the database and the logs needs to go on for a while."""
WITHOUT_CHAT = frozenset({400, 404, 422})
"""What engines say to a chat with a model that has no template for it."""


@dataclass(frozen=True)
class _Finding:
    message: str
    status: Literal["ok", "skipped"] = "ok"


class DeepLook:
    """Looks at everything when it is asked to."""

    def __init__(
        self,
        paths: Paths,
        database: Database,
        status: Callable[[], Status],
        running: Callable[[], Iterable[Engine]],
        *,
        limit_seconds: float = LIMIT_SECONDS,
        least_free_bytes: int = LEAST_FREE_BYTES,
    ) -> None:
        """`running` gives the engines and services of the status that have a place to be asked at."""
        self._paths = paths
        self._database = database
        self._status = status
        self._running = running
        self._limit_seconds = limit_seconds
        self._least_free_bytes = least_free_bytes
        self._one_at_a_time = asyncio.Lock()
        self._newest: tuple[float, DeepHealth] | None = None

    async def look(self) -> DeepHealth:
        """Give what was found; those who come while somebody else's look is under way share the next one."""
        came_at = time.monotonic()
        async with self._one_at_a_time:
            if self._newest is None or self._newest[0] < came_at:
                began_at = time.monotonic()
                self._newest = (began_at, await self._look())
            return self._newest[1]

    async def _look(self) -> DeepHealth:
        checks = [
            ("database", self._in_time(self._check_database())),
            ("supervisord", self._in_time(self._check_supervisord())),
            ("disk", self._in_time(self._check_disk())),
            *self._checks_of_engines(),
        ]
        async with asyncio.TaskGroup() as tasks:
            looks = [tasks.create_task(_part_of(name, check)) for name, check in checks]
        parts = tuple(look.result() for look in looks)
        has_failed = any(part.status == "failed" for part in parts)
        return DeepHealth(status="failed" if has_failed else "ok", parts=parts)

    async def _in_time(self, check: Awaitable[_Finding]) -> _Finding:
        """Limit a check; those of engines limit themselves, as what it means that time is up is theirs."""
        try:
            async with asyncio.timeout(self._limit_seconds):
                return await check
        except TimeoutError as error:
            raise TimedOut(
                f"It did not answer within {self._limit_seconds:g} s.", hint="See: footplate logs"
            ) from error

    async def _check_database(self) -> _Finding:
        await write_and_read(self._database)
        return _Finding("It was written and read.")

    async def _check_supervisord(self) -> _Finding:
        state = await asyncio.to_thread(supervisord.call, self._paths.supervisor_socket, "getState")
        if state["statename"] != "RUNNING":
            raise Unavailable(f"supervisord is {state['statename']}.", hint="Run: footplate restart")
        return _Finding("It answers.")

    async def _check_disk(self) -> _Finding:
        folder = self._paths.state_dir
        try:
            free = (await asyncio.to_thread(shutil.disk_usage, folder)).free
        except OSError as error:
            raise Unavailable(f"{folder} cannot be looked at: {error.strerror}.", hint="Mend it.") from error
        message = f"{free / 1e9:.1f} GB are free in {folder}."
        if free < self._least_free_bytes:
            raise Unavailable(message, hint="Free disk space: history and logs are about to be lost.")
        return _Finding(message)

    def _checks_of_engines(self) -> Iterator[tuple[str, Awaitable[_Finding]]]:
        status = self._status()
        running = {(each.name, each.variant.name): each for each in self._running()}
        if not status.engines and not status.services:
            yield "engines", _found(_Finding("Nothing is loaded, so there is nothing to probe.", "skipped"))
        for role, shapes in (("engine", status.engines), ("service", status.services)):
            for shape in shapes:
                engine = running.get((shape.name, shape.variant))
                is_needed = role == "service" or shape.variant == status.wanted
                yield f"{role} {shape.variant}", self._check_engine(shape, engine, is_needed=is_needed)

    async def _check_engine(self, shape: EngineShape, engine: Engine | None, *, is_needed: bool) -> _Finding:
        """Give what the engine is, or does when it is ready; raise when it ought to serve and does not."""
        if shape.state is EngineState.FAILED and is_needed:
            cause = shape.diagnosis.cause if shape.diagnosis else "It does not start."
            raise EngineFailed(cause, hint=f"See: footplate logs {shape.name}")
        if engine is None or shape.state is not EngineState.READY:
            return _Finding(f"It is {shape.state.value}.", "skipped")
        return await self._probe(engine)

    async def _probe(self, engine: Engine) -> _Finding:
        began_at = time.monotonic()
        status = await self._answer_of(engine, began_at + self._limit_seconds)
        seconds = time.monotonic() - began_at
        # A timer may go off a little early.
        is_time_up = seconds >= self._limit_seconds * 0.95
        if status == 200:
            return _Finding(f"It answered in {seconds:.2f} s.")
        if engine.state is not EngineState.READY:
            return _Finding(f"It was {engine.state.value} meanwhile.", "skipped")
        if status is None and engine.silent_seconds < seconds and is_time_up:
            return _Finding("It answers other requests, and the probe would have had to wait behind them.")
        if status is not None:
            what = f"It answered HTTP {status}." if status else "It answered what is no HTTP."
        elif not is_time_up:
            what = "It does not answer."
        else:
            what = f"It generated nothing within {seconds:.1f} s."
        raise EngineFailed(what, hint=f"See: footplate logs {engine.name}")

    async def _answer_of(self, engine: Engine, until: float) -> int | None:
        """Have it generate the least it can; give the HTTP status, None if it does not answer in time."""
        status = await _ask(engine, until, *_smallest(engine))
        if status in WITHOUT_CHAT and "chat" in engine.variant.capabilities:
            completion = _called(engine, "/v1/completions", {"prompt": "Hi", "max_tokens": 1})
            status = await _ask(engine, until, *completion)
        return status


async def _part_of(name: str, check: Awaitable[_Finding]) -> HealthPart:
    began_at = time.monotonic()
    try:
        found = await check
    except FootplateError as error:
        return _part(name, "failed", began_at, error.message, error.hint)
    return _part(name, found.status, began_at, found.message)


async def _ask(engine: Engine, until: float, path: str, body: Mapping[str, Any]) -> int | None:
    """Ask; of several servers of the same model, one that answers is enough."""
    places = (engine.address, *engine.address.others)
    status = None
    for places_left, place in zip(range(len(places), 0, -1), places, strict=True):
        seconds = (until - time.monotonic()) / places_left
        answer = await ask(place, "POST", path, body=dict(body), timeout_seconds=seconds)
        status = None if answer is None else answer.status
        if status is not None and status < 500:
            break
    return status


def _smallest(engine: Engine) -> tuple[str, Mapping[str, Any]]:
    """Give path and body of the smallest request that makes it work: a token, a vector, or a score."""
    capabilities = engine.variant.capabilities
    if "chat" in capabilities:
        return engine.runtime.probe(engine.variant.served_name, engine.context, _parameters(engine))
    if "embedding" in capabilities:
        return _called(engine, "/v1/embeddings", {"input": "Hi"})
    return _called(engine, "/v1/rerank", {"query": "Hi", "documents": ["Hi"]})


def _called(engine: Engine, path: str, body: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Give an OpenAI request as the engine's runtime takes it."""
    name = engine.variant.served_name
    call = engine.runtime.call(path, body, name, engine.context, _parameters(engine))
    return call.path, call.body


def _parameters(engine: Engine) -> Mapping[str, Any] | None:
    return engine.plan.parameters if engine.plan else None


def _part(
    name: str,
    status: Literal["ok", "skipped", "failed"],
    began_at: float,
    message: str,
    hint: str | None = None,
) -> HealthPart:
    seconds = round(time.monotonic() - began_at, 4)
    return HealthPart(name=name, status=status, seconds=seconds, message=message, hint=hint)


async def _found(finding: _Finding) -> _Finding:
    return finding
