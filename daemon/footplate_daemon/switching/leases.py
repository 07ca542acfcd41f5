"""A request's hold on an engine, and what a request is told that gets none or loses it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple

from footplate_daemon.catalog import Variant
from footplate_daemon.errors import Busy, Conflict, EngineFailed, FootplateError, Unavailable
from footplate_daemon.switching.engine import engine_name
from footplate_daemon.switching.machine import Grant, Refusal, Refuse
from footplate_daemon.switching.probe import Address
from footplate_daemon.wire import Diagnosis, Switch

Waiting = Callable[[Switch | None], Awaitable[None]]
"""Told about once a second how far the switch has come that a request waits for."""


class Lease(NamedTuple):
    """A request's hold on an engine: as long as it lasts, the engine is not stopped in good order."""

    variant: Variant
    address: Address
    attempt: int
    context: int | None
    """Longest prompt plus answer that it was started with, in tokens; None where the runtime decided."""
    parameters: Mapping[str, Any]
    """The launch parameters: some runtimes want them again with each request."""
    queue_seconds: float
    switch_seconds: float
    """The part of the queue time during which the variant was being switched to."""
    preset: str | None
    progressed: Callable[[], None]
    """To be called whenever the engine says something: an engine that is silent for long is probed."""


@dataclass(frozen=True)
class Reservation:
    """Somebody's hold on what is active: as long as it lasts, nobody else switches or stops."""

    holder: str
    """Who has it: `Benchmark 7`."""
    remedy: str
    """How to end it before its time."""
    eta_seconds: Callable[[], float | None] = lambda: None
    """About how long it lasts."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def conflict(self) -> Conflict:
        """Give the error of a person who would switch or stop."""
        return Conflict(f"{self.holder} runs and must not be disturbed.", hint=self.remedy)

    def busy(self, variant: str) -> Busy:
        """Give the error of a request that needs another variant than the active one."""
        return Busy(
            f"{self.holder} runs: {variant} cannot be switched to meanwhile.",
            hint=f"Ask again later, or end it: {self.remedy}",
            retry_after=min(60.0, max(1.0, self.eta_seconds() or 60.0)),
        )


class Interrupted(EngineFailed):
    """The engine was taken away from a request, in good order."""


@dataclass(slots=True)
class Ticket:
    """A request, from when it asks for an engine to when it ends; as a block it holds the lease.

    Written out, where `asynccontextmanager` would do: every request comes through here.
    """

    request: int
    variant: str
    interactive: bool
    asked_at: float
    """Monotonic seconds."""
    task: "asyncio.Task[object]"
    waiting: Waiting | None
    take: Callable[["Ticket"], Awaitable[Lease]]
    give_back: Callable[["Ticket"], None]
    granted: "asyncio.Future[Grant] | None" = None
    """Set while it has to wait."""
    is_holder: bool = False
    """Whether it comes from whoever has reserved the engines."""
    is_cut: bool = False
    diagnosis: Diagnosis | None = None

    async def __aenter__(self) -> Lease:
        try:
            return await self.take(self)
        except BaseException as error:
            self._end(error)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        """Give the engine back; raise what there is to say if it was taken away, and not the client left."""
        self.give_back(self)
        if self.is_cut and isinstance(error, asyncio.CancelledError) and self.task.uncancel() == 0:
            raise lost(self.variant, self.diagnosis) from error

    def grant(self, grant: Grant) -> None:
        """Let the request go on."""
        if self.granted is not None and not self.granted.done():
            self.granted.set_result(grant)

    def refuse(self, error: FootplateError) -> None:
        """Tell the request why it does not."""
        if self.granted is not None and not self.granted.done():
            self.granted.set_exception(error)

    def cut(self, diagnosis: Diagnosis | None) -> None:
        """Take the engine away from the request, wherever its task is."""
        self.is_cut, self.diagnosis = True, diagnosis
        self.task.cancel()


class EngineDied(EngineFailed):
    """The engine of a request died, and not because somebody wanted it to end."""


def lost(variant: str, diagnosis: Diagnosis | None) -> EngineFailed:
    """Give the error of a request whose engine was stopped, or died with this diagnosis."""
    if diagnosis is None:
        return Interrupted(
            f"{variant} was stopped while it answered.",
            hint="Ask again: the request waits until an engine is ready.",
            retry_after=1,
        )
    return EngineDied(
        f"{variant} died while it answered: {diagnosis.cause}",
        hint="Ask again: it is being restarted.",
        retry_after=2,
        details={"diagnosis": diagnosis.model_dump(mode="json")},
    )


def refusal(refuse: Refuse) -> FootplateError:
    """Give the error of a request that gets no engine."""
    variant = refuse.variant
    match refuse.refusal:
        case Refusal.QUEUE_FULL:
            return Busy("Too many requests wait for an engine.", hint="Try again later.", retry_after=5)
        case Refusal.NOT_ACTIVE:
            return Unavailable(
                f"{variant} is not active and requests do not switch (auto_switch = false).",
                hint=f"Run: footplate switch {variant}",
            )
        case Refusal.PINNED:
            return Unavailable(
                f"{variant} would evict a pinned engine.", hint=f"Run: footplate switch {variant}"
            )
        case Refusal.STOPPED:
            return Unavailable(f"{variant} was stopped.", hint=f"Run: footplate switch {variant}")
        case Refusal.FAILED:
            diagnosis = refuse.diagnosis
            remedies = "; ".join(remedy.title for remedy in diagnosis.remedies) if diagnosis else ""
            return EngineFailed(
                f"{variant} does not start: {diagnosis.cause if diagnosis else 'unknown'}",
                hint=remedies or f"See: footplate logs {engine_name(variant)}",
                details={"diagnosis": diagnosis.model_dump(mode="json")} if diagnosis else None,
            )
