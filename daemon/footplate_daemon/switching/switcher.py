"""The one owner of the switching machine: it carries actions out and reports back what happened.

Ask it to make something so (`wish`, `lease`, `stop`); read its `status` only to show it.
"""

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from footplate_daemon import catalog, processes, weights
from footplate_daemon.catalog import Catalog, Variant, runtime_of
from footplate_daemon.errors import Busy, EngineFailed, FootplateError, NotFound, Unavailable
from footplate_daemon.events import Topic
from footplate_daemon.processes import ProcessId
from footplate_daemon.runtimes.base import LaunchPlan, Runtime
from footplate_daemon.settings import Paths
from footplate_daemon.store.switches import SwitchStore
from footplate_daemon.store.wanted import Wanted, WantedStore
from footplate_daemon.supervisord import EngineRecord, Supervisord, engine_log, fingerprint
from footplate_daemon.switching import machine
from footplate_daemon.switching.diagnosis import GpuHolder, diagnose, memory_held
from footplate_daemon.switching.engine import Engine, StartFailed, engine_name, free_port, new_key
from footplate_daemon.switching.estimates import footprint
from footplate_daemon.switching.machine import Reason, Refusal, Rules, Target
from footplate_daemon.switching.probe import Address
from footplate_daemon.switching.progress import SwitchProgress
from footplate_daemon.switching.read_ahead import read_ahead
from footplate_daemon.switching.readiness import is_ready, warm_up
from footplate_daemon.wire import Diagnosis, EngineState, Plan, Queue, StepName, Switch
from footplate_daemon.wire import Engine as EngineShape

logger = logging.getLogger(__name__)

TOLD_EVERY_SECONDS = 1.0
"""How often a request that waits is told how far the switch has come."""
LOG_TAIL = 5
WATCH_SECONDS = 5.0
"""How often the engines' memory is measured, and silent ones are looked for."""
SWITCHES_KEPT = 50
"""Ended switches that are kept in memory; all of them are in the database."""


@dataclass(frozen=True)
class Lease:
    """A request's hold on an engine: as long as it lasts, the engine is not stopped in good order."""

    variant: Variant
    address: Address
    attempt: int
    context: int | None
    """Longest prompt plus answer that it was started with, in tokens; None where the runtime decided."""
    queue_seconds: float
    switch_seconds: float
    """The part of the queue time during which the variant was being switched to."""
    progressed: Callable[[], None]
    """To be called whenever the engine says something: an engine that is silent for long is probed."""


@dataclass
class _Ticket:
    """A request, from when it asks for an engine to when it ends."""

    lease: "asyncio.Future[machine.Grant]"
    task: "asyncio.Task[object]"
    asked_at: float
    cut: bool = False
    diagnosis: Diagnosis | None = None


class Memory(Protocol):
    """The memory that engines share: the GPUs', or the machine's. May raise `Unavailable`."""

    async def kind(self) -> str:
        """Say which it is: `gpu` or `ram`."""

    async def capacity(self) -> int:
        """Give the bytes that engines may use together."""

    async def free(self) -> int:
        """Give the bytes that nobody uses now."""

    async def used_by(self, group: Sequence[ProcessId]) -> int:
        """Give the bytes that these processes hold together."""

    async def holders(self) -> tuple[GpuHolder, ...]:
        """Give who holds GPU memory now."""

    async def until_free(
        self, needed_bytes: int | None, gone: Sequence[ProcessId] = (), *, timeout_seconds: float = 30.0
    ) -> tuple[GpuHolder, ...] | None:
        """Return None once it is free, or who is in the way."""


@dataclass(frozen=True)
class Parts:
    """What the switcher works with."""

    paths: Paths
    supervisord: Supervisord
    runtimes: Mapping[str, Runtime]
    switches: SwitchStore
    wanted: WantedStore
    hf_cache: Path
    """Where Hugging Face's libraries keep what they downloaded."""
    memory: Memory
    start_seconds: float = 600.0
    """How long a start may take."""
    memory_seconds: float = 30.0
    """How long a stopped engine's memory may take to be free."""
    hang_seconds: float | None = 120.0
    """How long an engine may be silent to its requests before it is probed."""
    restore: bool = True
    """Bring back at the start what was wanted last."""


@dataclass
class _Board:
    """What is known of engines and switches beyond the machine's state."""

    engines: dict[int, Engine] = field(default_factory=dict)
    switches: dict[int, SwitchProgress] = field(default_factory=dict)
    starts: dict[int, "asyncio.Task[None]"] = field(default_factory=dict)
    watches: dict[int, "asyncio.Task[None]"] = field(default_factory=dict)


class Switcher:
    """Owns which engines run; `run` must be running for anything to happen."""

    def __init__(self, parts: Parts, listing: Catalog, rules: Rules) -> None:
        self._parts = parts
        self._catalog = listing
        self._state = machine.State(rules=rules)
        self._board = _Board()
        self._tickets: dict[int, _Ticket] = {}
        self._requests = itertools.count(1)
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._is_closed = False
        self._released: list[ProcessId] = []
        """Processes of stopped engines whose memory nobody has seen free yet."""
        self.adopted = asyncio.Event()
        """Set when the engines of an earlier daemon have been taken over."""
        self.topic: Topic[Any] = Topic(lambda: None)
        """Changes whenever engines, queue or switch do."""

    # Its task

    async def run(self) -> None:
        """Adopt what runs, restore what was wanted, then carry out actions until cancelled."""
        newest = await self._parts.switches.newest_id()
        self._state = replace(self._state, next_switch=newest + 1)
        self._state = replace(self._state, rules=await self._with_room(self._state.rules))
        async with asyncio.TaskGroup() as self._tasks:
            try:
                await self._adopt()
                self.adopted.set()
                await self._keep_watch()
            finally:
                self._is_closed = True
                if self._timer is not None:
                    self._timer.cancel()

    async def _adopt(self) -> None:
        wanted = await self._parts.wanted.wanted()
        records = await self._parts.supervisord.running()
        records.sort(key=lambda record: wanted is None or record.variant != wanted.variant)
        for record in records:
            await self._adopt_one(record)
        target = self._target_at_start(wanted)
        if target is not None and not any(engine.target == target for engine in self._board.engines.values()):
            self._happen(machine.Wished(target, _now(), Reason.RESTORE))

    def _target_at_start(self, wanted: Wanted | None) -> Target | None:
        if wanted is None:  # the very first start
            first = self._catalog.wanted_first()
            return Target(first.name) if first else None
        variant = self._catalog.variants.get(wanted.variant or "")
        if not self._parts.restore or variant is None or variant.runtime not in self._parts.runtimes:
            return None
        return Target(variant.name, wanted.preset, wanted.context)

    async def _adopt_one(self, record: EngineRecord) -> None:
        variant = self._catalog.variants.get(record.variant)
        target = Target(record.variant, record.preset, record.context)
        if variant is None or self._fingerprint(variant, target, record) != record.fingerprint:
            logger.info("engine is not adopted: its configuration changed", extra={"engine": record.name})
            return await self._parts.supervisord.stop(record.name)
        attempt = self._state.next_attempt
        engine = self._new_engine(target, attempt)
        engine.record = record
        ready = await is_ready(engine.address, engine.runtime, variant.served_name)
        engine.enter(EngineState.READY if ready else EngineState.LOADING, StepName.LOAD)
        logger.info("engine is adopted", extra={"engine": record.name, "pid": record.pid, "ready": ready})
        self._happen(machine.Adopted(target, attempt, is_ready=ready, at=_now()))
        if ready:
            self._watch(attempt)
        else:
            self._spawn_start(
                attempt, self._finish_start(engine, engine.become_ready(self._parts.supervisord))
            )
        return None

    def _fingerprint(self, variant: Variant, target: Target, record: EngineRecord) -> str:
        try:
            plan = self._plan(variant, target, record.port, record.api_key)
            return fingerprint(self._parts.runtimes[variant.runtime].launch(plan), record)
        except FootplateError:
            return ""

    def _plan(self, variant: Variant, target: Target, port: int, api_key: str | None) -> LaunchPlan:
        found = weights.on_disk(variant.weights, self._parts.hf_cache)
        return catalog.plan(
            variant,
            preset=target.preset,
            context=target.context,
            port=port,
            api_key=api_key,
            weights_at=found.path,
        )

    # What others ask of it

    def wish(self, target: Target, reason: Reason = Reason.ASKED) -> Switch:
        """Make a target active; give the switch that does it, which may have ended already.

        Raise `Unavailable` when this Footplate cannot start its runtime.
        """
        runtime_of(self._catalog.variants[target.variant], self._parts.runtimes)
        before = self._state.next_switch
        self._happen(machine.Wished(target, _now(), reason))
        running = self._state.switch
        return self.switch(running.id if running is not None else before)

    def stop(self, name: str) -> None:
        """Unload the engine of a variant (or engine) name; raise `NotFound`."""
        for variant in self._catalog.variants:
            if name in (variant, engine_name(variant)):
                return self._happen(machine.StopWished(variant, _now()))
        raise NotFound(
            f"There is no engine {name}.", hint=f"Engines: {', '.join(self._engine_names()) or 'none'}."
        )

    def cancel(self, switch_id: int) -> Switch:
        """End a running switch and go back to what was active; raise `NotFound`."""
        self.switch(switch_id)
        self._happen(machine.CancelWished(switch_id, _now()))
        return self.switch(switch_id)

    def take_up(self, listing: Catalog, rules: Rules, altered: frozenset[str]) -> None:
        """Use a changed configuration: engines that would be started differently now are replaced.

        All others keep running. Altered variants that had failed may be tried again.
        """
        former, self._catalog = self._catalog, listing
        self._happen(machine.RulesChanged(rules, _now(), forgiven=altered))
        for resident in self._state.residents:
            if _is_started_alike(former, listing, resident.target):
                continue
            variant = resident.target.variant
            was_active = self._state.active == variant
            self._happen(machine.StopWished(variant, _now()))
            if was_active and variant in listing.variants:
                self._happen(machine.Wished(resident.target, _now()))

    @asynccontextmanager
    async def lease(
        self,
        variant: str,
        *,
        interactive: bool = True,
        waiting: Callable[[Switch | None], Awaitable[None]] | None = None,
    ) -> AsyncIterator[Lease]:
        """Hold an engine of the variant for the length of the block, switching to it if need be.

        While it waits, `waiting` is told about once a second how far the switch has come. Raise `Busy`
        (queue full), `Unavailable`, or `EngineFailed` with the diagnosis; the last also out of the
        middle of the block, when the engine dies or is stopped.
        """
        runtime_of(self._catalog.variants[variant], self._parts.runtimes)
        await self.adopted.wait()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - we are a coroutine
        request = next(self._requests)
        ticket = _Ticket(asyncio.get_running_loop().create_future(), task, _now())
        self._tickets[request] = ticket
        try:
            self._happen(machine.Requested(request, variant, _now(), interactive))
            grant = await self._granted(ticket, variant, waiting)
            yield self._lease(ticket, grant)
        except asyncio.CancelledError as cancelled:
            if not ticket.cut or task.uncancel() > 0:
                raise
            raise _lost(variant, ticket.diagnosis) from cancelled
        finally:
            del self._tickets[request]
            self._happen(machine.Released(request, _now()))

    async def _granted(
        self, ticket: _Ticket, variant: str, waiting: Callable[[Switch | None], Awaitable[None]] | None
    ) -> machine.Grant:
        while waiting is not None and not ticket.lease.done():
            done, _ = await asyncio.wait({ticket.lease}, timeout=TOLD_EVERY_SECONDS)
            if not done:
                await waiting(self._switch_to(variant))
        return await ticket.lease

    def _lease(self, ticket: _Ticket, grant: machine.Grant) -> Lease:
        engine = self._board.engines[grant.attempt]
        target = engine.target
        if not self._is_busy(engine):
            engine.progressed()
        queue_seconds = _now() - ticket.asked_at
        return Lease(
            engine.variant,
            engine.address,
            grant.attempt,
            engine.variant.launch_context(target.preset, target.context),
            queue_seconds,
            min(queue_seconds, self._switch_seconds_since(target, time.time() - queue_seconds)),
            engine.progressed,
        )

    def _is_busy(self, engine: Engine) -> bool:
        """Say whether it answers other requests too: then its silence goes on."""
        resident = next((r for r in self._state.residents if r.attempt == engine.attempt), None)
        return resident is not None and len(resident.leases) > 1

    def _switch_seconds_since(self, target: Target, since: float) -> float:
        """Give how long the last switch to the target went on after a point in time."""
        for progress in reversed(self._board.switches.values()):
            if progress.switch.target == target and progress.ended_at is not None:
                return max(0.0, progress.ended_at - max(progress.started_at, since))
        return 0.0

    # What it shows

    def leaders(self) -> dict[str, ProcessId]:
        """Give the leader of each engine's process group, by the engine's name."""
        return {
            engine.name: engine.record.process
            for engine in self._board.engines.values()
            if engine.record is not None
        }

    def is_running(self, attempt: int) -> bool:
        """Say whether anything is left of the engine of this attempt."""
        return attempt in self._board.engines

    @property
    def active(self) -> str | None:
        """The variant that answers now."""
        return self._state.active

    @property
    def wanted(self) -> str | None:
        """The variant that should answer."""
        return self._state.wanted.variant if self._state.wanted else None

    def default_variant(self) -> str | None:
        """Where a request goes that names no model: what is wanted, else what was active last."""
        target = self._state.wanted or self._state.last
        if target is not None and target.variant in self._catalog.variants:
            return target.variant
        first = self._catalog.wanted_first()
        return first.name if first else None

    def switch(self, switch_id: int) -> Switch:
        """Give one switch of this daemon's life; raise `NotFound`."""
        progress = self._board.switches.get(switch_id)
        if progress is None:
            raise NotFound(f"There is no switch {switch_id}.", hint="GET /api/v1/status names the last one.")
        return self._snapshot(progress)

    async def ended(self, switch_id: int) -> Switch:
        """Wait until a switch has ended and give it; raise `NotFound`."""
        async for _ in self.topic.follow():
            switch = self.switch(switch_id)
            if switch.outcome != "running":
                break
        return switch

    async def last_used(self, runtime: str) -> tuple[str, ...]:
        """Give the variant that was last used on a runtime, as far as it is remembered."""
        model = await self._parts.wanted.last_model(runtime)
        return (f"{runtime}/{model}",) if model else ()

    async def plan(self, target: Target) -> Plan:
        """Say what a switch to the target would do, and do nothing."""
        variant = self._catalog.variants[target.variant]
        stops = machine.in_the_way(self._state, target)
        notes = []
        command: tuple[str, ...] = ()
        try:
            launch = runtime_of(variant, self._parts.runtimes).launch(self._plan(variant, target, 0, None))
            command = launch.command
        except FootplateError as error:
            notes.append(f"{error.message} {error.hint or ''}".strip())
        preset = variant.preset(target.preset)
        if preset is not None and preset.risky:
            notes.append(f"The preset {preset.name} is risky: it may not start.")
        busy = sum(len(resident.leases) for resident in stops)
        if busy:
            notes.append(f"{busy} requests that run now may finish first.")
        needs = self._state.rules.room.footprints.get(target.variant)
        try:
            free = await self._parts.memory.free()
        except Unavailable as error:
            free = None
            notes.append(error.message)
        released = sum(self._measured(resident) for resident in stops)
        usual = await self._parts.switches.median_steps(target.variant, target.preset)
        return Plan(
            variant=target.variant,
            stops=tuple(resident.target.variant for resident in stops),
            needs_bytes=needs,
            free_bytes=free,
            fits=needs is None or free is None or needs <= free + released,
            seconds=sum(usual.values()) if usual else None,
            command=command,
            notes=tuple(notes),
        )

    def _measured(self, resident: machine.Resident) -> int:
        engine = self._board.engines.get(resident.attempt)
        return engine.memory_bytes or 0 if engine else 0

    def last_switch(self) -> Switch | None:
        """Give the switch in progress, else the one that ended last."""
        if not self._board.switches:
            return None
        running = self._state.switch
        return self.switch(running.id if running else max(self._board.switches))

    def queue(self) -> Queue:
        """Give who waits."""
        by_variant: dict[str, int] = {}
        for waiting in self._state.waiting:
            by_variant[waiting.variant] = by_variant.get(waiting.variant, 0) + 1
        return Queue(
            waiting=len(self._state.waiting), by_variant=by_variant, capacity=self._state.rules.queue_limit
        )

    def engines(self) -> tuple[EngineShape, ...]:
        """Give every engine that runs, and those that failed."""
        running = [self._shape(engine) for engine in self._board.engines.values()]
        names = {shape.variant for shape in running}
        failed = [
            self._failed_shape(name, breaker)
            for name, breaker in self._state.breakers.items()
            if name not in names and name in self._catalog.variants and self._is_given_up(breaker)
        ]
        return tuple(running + failed)

    def _is_given_up(self, breaker: machine.Breaker) -> bool:
        return breaker.at_start or breaker.failures > len(self._state.rules.back_off)

    def _failed_shape(self, name: str, breaker: machine.Breaker) -> EngineShape:
        variant = self._catalog.variants[name]
        return EngineShape(
            name=engine_name(name),
            runtime=variant.runtime,
            variant=name,
            model=variant.model,
            state=EngineState.FAILED,
            since=time.time(),
            restarts=breaker.failures,
            diagnosis=breaker.diagnosis,
        )

    def _shape(self, engine: Engine) -> EngineShape:
        resident = next((r for r in self._state.residents if r.attempt == engine.attempt), None)
        state = engine.state
        if resident is not None and resident.phase is machine.Phase.DRAINING:
            state = EngineState.DRAINING
        breaker = self._state.breakers.get(engine.variant.name)
        return EngineShape(
            name=engine.name,
            runtime=engine.variant.runtime,
            variant=engine.variant.name,
            model=engine.variant.model,
            preset=engine.target.preset,
            state=state,
            pid=engine.record.pid if engine.record else None,
            port=engine.record.port if engine.record else None,
            since=engine.since,
            leases=len(resident.leases) if resident else 0,
            restarts=breaker.failures if breaker else 0,
            pinned=engine.variant.name in self._state.rules.pinned,
            memory_bytes=engine.memory_bytes,
        )

    def _snapshot(self, progress: SwitchProgress) -> Switch:
        engine = self._engine_of(progress.switch.target)
        lines = engine.log(LOG_TAIL) if engine is not None and progress.outcome == "running" else []
        return progress.snapshot(time.time(), lines)

    def _engine_of(self, target: Target) -> Engine | None:
        return next((e for e in self._board.engines.values() if e.target == target), None)

    def _switch_to(self, variant: str) -> Switch | None:
        running = self._state.switch
        return self.switch(running.id) if running and running.target.variant == variant else None

    def _engine_names(self) -> list[str]:
        return [engine.name for engine in self._board.engines.values()]

    # What happened, and carrying out what follows

    def _happen(self, event: machine.Event) -> None:
        if self._is_closed:
            return  # the engines go on; the next daemon adopts them
        before = self._state
        self._state, actions = machine.step(before, event)
        for action in actions:
            self._carry_out(action)
        self._note_step()
        if self._state.wanted != before.wanted:
            self._remember_wanted()
        self.topic.changed()

    def _carry_out(self, action: machine.Action) -> None:
        match action:
            case machine.AwaitMemory(target=target, attempt=attempt):
                self._spawn(self._await_memory(target, attempt))
            case machine.Start(target=target, attempt=attempt):
                engine = self._new_engine(target, attempt)
                self._spawn_start(attempt, self._finish_start(engine, self._start(engine)))
            case machine.Stop(attempt=attempt, kill=kill):
                self._spawn(self._stop(attempt, kill=kill))
            case machine.Grant(request=request):
                self._resolve(request, lambda ticket: ticket.lease.set_result(action))
            case machine.Refuse(request=request):
                refusal = _refusal(action)
                self._resolve(request, lambda ticket: ticket.lease.set_exception(refusal))
            case machine.Cut(request=request, diagnosis=diagnosis):
                self._cut(request, diagnosis)
            case machine.SwitchBegan(switch=switch):
                self._began(switch)
            case machine.SwitchEnded():
                self._ended(action)
            case machine.WakeAt(at=at):
                self._wake_at(at)

    def _resolve(self, request: int, answer: Callable[[_Ticket], None]) -> None:
        ticket = self._tickets.get(request)
        if ticket is not None and not ticket.lease.done():
            answer(ticket)

    def _cut(self, request: int, diagnosis: Diagnosis | None) -> None:
        ticket = self._tickets.get(request)
        if ticket is not None:
            ticket.cut, ticket.diagnosis = True, diagnosis
            ticket.task.cancel()

    def _wake_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay = max(0.0, at - _now())
        self._timer = asyncio.get_running_loop().call_later(
            delay, lambda: self._happen(machine.Ticked(_now()))
        )

    def _spawn(self, work: Awaitable[None]) -> "asyncio.Task[None]":
        assert self._tasks is not None, "the switcher is not running"  # noqa: S101
        return self._tasks.create_task(_as_coroutine(work))

    # Engines

    def _new_engine(self, target: Target, attempt: int) -> Engine:
        variant = self._catalog.variants[target.variant]
        engine = Engine(
            attempt,
            target,
            variant,
            self._parts.runtimes[variant.runtime],
            engine_log(self._parts.paths, engine_name(variant.name)),
            changed=self._engine_changed,
        )
        self._board.engines[attempt] = engine
        return engine

    def _engine_changed(self) -> None:
        self._note_step()
        self.topic.changed()

    async def _await_memory(self, target: Target, attempt: int) -> None:
        """Wait until what was stopped has given its memory back, and what the target needs is free."""
        memory = self._parts.memory
        needed = self._state.rules.room.footprints.get(target.variant)
        try:
            if await memory.kind() == "ram":
                needed = None  # the kernel makes room: it drops cached files, and weights can be mapped
            in_the_way = await memory.until_free(
                needed, tuple(self._released), timeout_seconds=self._parts.memory_seconds
            )
        except FootplateError as error:
            diagnosis = Diagnosis(code=error.code, cause=error.message)
            self._happen(machine.Failed(attempt, diagnosis, _now()))
            return
        if in_the_way is None:
            self._released.clear()
            self._happen(machine.MemoryFreed(attempt, _now()))
        else:
            self._happen(machine.Failed(attempt, memory_held(target.variant, needed, in_the_way), _now()))

    async def _with_room(self, rules: Rules) -> Rules:
        """Complete the rules with what is known of memory: how much there is, and what each variant needs."""
        peaks = await self._parts.switches.memory_peaks()
        sizes = await asyncio.to_thread(self._sizes)
        known = {name: footprint(name, peaks, size) for name, size in sizes.items()}
        footprints = {name: size for name, size in known.items() if size is not None}
        capacity = rules.room.capacity
        with contextlib.suppress(Unavailable):  # a GPU that is lost has the capacity that it had
            capacity = await self._parts.memory.capacity()
        return replace(rules, room=replace(rules.room, capacity=capacity, footprints=footprints))

    def _sizes(self) -> dict[str, int | None]:
        cache = self._parts.hf_cache
        return {
            name: weights.on_disk(each.weights, cache).size_bytes
            for name, each in self._catalog.variants.items()
        }

    async def _keep_watch(self) -> None:
        """Measure the engines' memory now and then, and probe those that are silent to their requests."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for engine in list(self._board.engines.values()):
                if engine.state is EngineState.READY:
                    await self._measure(engine)
                    if self._is_silent(engine):
                        self._spawn(self._probe(engine))

    async def _measure(self, engine: Engine) -> None:
        if engine.record is None:
            return
        group = await asyncio.to_thread(processes.group_members, engine.record.process)
        try:
            used = await self._parts.memory.used_by(group)
        except Unavailable:
            return  # the GPU is lost; nothing can be measured
        if used > (engine.memory_bytes or 0):
            await self._parts.switches.record_memory(
                engine.variant.name, engine.target.preset, used, time.time()
            )
        engine.memory_bytes = used

    def _is_silent(self, engine: Engine) -> bool:
        resident = next((r for r in self._state.residents if r.attempt == engine.attempt), None)
        limit = self._parts.hang_seconds
        if resident is None or not resident.leases or limit is None:
            return False
        return _now() - engine.progressed_at > limit

    async def _probe(self, engine: Engine) -> None:
        """Ask a silent engine for one token; if it gives none, it hangs and is replaced."""
        engine.progressed()
        status = await warm_up(engine.address, engine.variant.served_name, self._parts.hang_seconds or 60.0)
        if status is None or status >= 500:
            diagnosis = Diagnosis(
                code="hung",
                cause=f"It was silent for {self._parts.hang_seconds:.0f} s and did not answer a probe.",
                evidence=tuple(engine.log(LOG_TAIL)),
            )
            logger.warning("engine hangs", extra={"engine": engine.name})
            self._happen(machine.Died(engine.attempt, diagnosis, _now()))

    def _spawn_start(self, attempt: int, work: Awaitable[None]) -> None:
        self._board.starts[attempt] = self._spawn(work)

    async def _start(self, engine: Engine) -> None:
        try:
            plan = self._plan(engine.variant, engine.target, free_port(), new_key())
        except FootplateError as error:
            raise StartFailed(None, error) from error
        await engine.start(self._parts.supervisord, plan)

    async def _finish_start(self, engine: Engine, start: Awaitable[None]) -> None:
        """See a start through and report what came of it; a cancelled one reports nothing."""
        attempt = engine.attempt
        try:
            async with asyncio.timeout(self._parts.start_seconds):
                await start
        except (StartFailed, TimeoutError) as error:
            diagnosis = self._diagnose(engine, error)
            logger.warning(
                "engine did not start",
                extra={"engine": engine.name, "cause": diagnosis.cause, "code": diagnosis.code},
            )
            await self._parts.supervisord.kill(engine.name)
            self._forget_engine(attempt)
            self._happen(machine.Failed(attempt, diagnosis, _now()))
        else:
            logger.info(
                "engine is ready", extra={"engine": engine.name, "pid": engine.record and engine.record.pid}
            )
            self._board.starts.pop(attempt, None)
            self._watch(attempt)
            self._happen(machine.Loaded(attempt, _now()))
            await self._measure(engine)
            self._happen(machine.RulesChanged(await self._with_room(self._state.rules), _now()))

    def _watch(self, attempt: int) -> None:
        self._board.watches[attempt] = self._spawn(self._report_death(self._board.engines[attempt]))

    async def _report_death(self, engine: Engine) -> None:
        assert engine.record is not None  # noqa: S101 - only what runs is watched
        exit_code = await self._parts.supervisord.exited(engine.record)
        diagnosis = self._diagnose(engine, StartFailed(exit_code))
        logger.warning(
            "engine died", extra={"engine": engine.name, "exit_code": exit_code, "cause": diagnosis.cause}
        )
        self._happen(machine.Died(engine.attempt, diagnosis, _now()))

    async def _stop(self, attempt: int, *, kill: bool) -> None:
        """End an engine whatever it is doing, and report when nothing of it is left."""
        engine = self._board.engines.get(attempt)
        if engine is not None:
            engine.enter(EngineState.STOPPING)
            for tasks in (self._board.starts, self._board.watches):
                task = tasks.pop(attempt, None)
                if task is not None:
                    task.cancel()
            await engine.settled()
            if engine.record is not None:
                self._released += await asyncio.to_thread(processes.group_members, engine.record.process)
            if kill:
                await self._parts.supervisord.kill(engine.name)
            else:
                await self._parts.supervisord.stop(engine.name)
            logger.info("engine is stopped", extra={"engine": engine.name})
        self._forget_engine(attempt)
        self._happen(machine.Stopped(attempt, _now()))

    def _forget_engine(self, attempt: int) -> None:
        for things in (self._board.engines, self._board.starts, self._board.watches):
            things.pop(attempt, None)

    def _diagnose(self, engine: Engine, error: StartFailed | TimeoutError) -> Diagnosis:
        others = [
            name
            for name, variant in self._catalog.variants.items()
            if variant.model == engine.variant.model and name != engine.variant.name
        ]
        return diagnose(
            engine.runtime,
            engine.log(),
            exit_code=error.exit_code if isinstance(error, StartFailed) else None,
            cause=error.cause if isinstance(error, StartFailed) else None,
            timed_out_after=self._parts.start_seconds if isinstance(error, TimeoutError) else None,
            variant=engine.variant,
            preset=engine.target.preset,
            other_variants=others,
        )

    # Switches

    def _began(self, switch: machine.RunningSwitch) -> None:
        progress = SwitchProgress(switch, time.time())
        self._board.switches[switch.id] = progress
        for old in sorted(self._board.switches)[:-SWITCHES_KEPT]:
            del self._board.switches[old]
        logger.info(
            "switch began",
            extra={"switch": switch.id, "variant": switch.target.variant, "why": switch.reason},
        )
        self._spawn(self._prepare(progress))

    async def _prepare(self, progress: SwitchProgress) -> None:
        target = progress.switch.target
        variant = self._catalog.variants[target.variant]
        progress.usual = await self._parts.switches.median_steps(target.variant, target.preset)
        found = weights.on_disk(variant.weights, self._parts.hf_cache)
        if found.path is not None:
            await asyncio.to_thread(read_ahead, found.path)

    def _ended(self, ended: machine.SwitchEnded) -> None:
        progress = self._board.switches[ended.switch.id]
        progress.end(ended.outcome, time.time(), ended.diagnosis)
        logger.info(
            "switch ended",
            extra={
                "switch": ended.switch.id,
                "variant": ended.switch.target.variant,
                "outcome": ended.outcome,
            },
        )
        self._spawn(self._parts.switches.save(progress.snapshot(time.time())))

    def _note_step(self) -> None:
        """Give the running switch the step that the machine and the engine have reached."""
        running, incoming = self._state.switch, self._state.incoming
        if running is None or incoming is None:
            return
        progress = self._board.switches[running.id]
        match incoming.entry:
            case machine.Entry.MAKING_ROOM:
                draining = [r for r in self._state.residents if r.phase is machine.Phase.DRAINING]
                step = StepName.DRAIN if draining else StepName.STOP
                detail = f"{sum(len(r.leases) for r in draining)} requests" if draining else ""
            case machine.Entry.AWAITING_MEMORY:
                step, detail = StepName.FREE_MEMORY, ""
            case machine.Entry.STARTING:
                engine = self._board.engines[incoming.attempt]
                step, detail = engine.step, engine.detail
                progress.told_fraction = engine.fraction
        progress.enter(step, time.time(), detail)

    def _remember_wanted(self) -> None:
        target = self._state.wanted
        wanted = Wanted(target.variant, target.preset, target.context) if target else Wanted(None)
        self._spawn(self._parts.wanted.set_wanted(wanted))
        if target is not None and target.variant in self._catalog.variants:
            variant = self._catalog.variants[target.variant]
            self._spawn(self._parts.wanted.set_last_model(variant.runtime, variant.model))


def _is_started_alike(former: Catalog, listing: Catalog, target: Target) -> bool:
    old, new = former.variants.get(target.variant), listing.variants.get(target.variant)
    if old is None or new is None:
        return False
    try:
        return old.fingerprint(target.preset, target.context) == new.fingerprint(
            target.preset, target.context
        )
    except NotFound:  # its preset is gone
        return False


def _now() -> float:
    return time.monotonic()


async def _as_coroutine(work: Awaitable[None]) -> None:
    await work


def _lost(variant: str, diagnosis: Diagnosis | None) -> EngineFailed:
    if diagnosis is None:
        return EngineFailed(
            f"{variant} was stopped while it answered.",
            hint="Ask again: the request waits until an engine is ready.",
            retry_after=1,
        )
    return EngineFailed(
        f"{variant} died while it answered: {diagnosis.cause}",
        hint="Ask again: it is being restarted.",
        retry_after=2,
        details={"diagnosis": diagnosis.model_dump(mode="json")},
    )


def _refusal(refuse: machine.Refuse) -> FootplateError:
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
