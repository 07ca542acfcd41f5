"""The one owner of the switching machine: it carries actions out and reports back what happened.

Ask it to make something so (`wish`, `lease`, `stop`); read what it shows only to show it.
"""

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Awaitable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

from footplate_daemon.catalog import Catalog, runtime_of
from footplate_daemon.errors import Conflict, FootplateError, NotFound, Unavailable
from footplate_daemon.events import Topic
from footplate_daemon.processes import ProcessId
from footplate_daemon.runtimes.base import Load
from footplate_daemon.settings import mask_arguments
from footplate_daemon.store.wanted import Wanted, WantedStore
from footplate_daemon.switching import machine, shapes
from footplate_daemon.switching.engine import Engine, engine_name
from footplate_daemon.switching.engines import Engines, Limits, Parts
from footplate_daemon.switching.leases import Lease, Reservation, Ticket, Waiting, refusal
from footplate_daemon.switching.machine import Reason, Rules, Target
from footplate_daemon.switching.progress import SwitchProgress
from footplate_daemon.switching.seating import Seating
from footplate_daemon.switching.services import Services
from footplate_daemon.wire import Engine as EngineShape
from footplate_daemon.wire import Plan, Queue, StepName, Switch

logger = logging.getLogger(__name__)

NO_WAIT_SECONDS = 0.005
"""A request that got its engine within this time did not wait for a switch."""
TOLD_EVERY_SECONDS = 1.0
"""How often a request that waits is told how far the switch has come."""
LOG_TAIL = 5
SWITCHES_KEPT = 50
"""Switches that are kept in memory; all of them are in the database."""


class Switcher:
    """Owns which engines run; `run` must be running for anything to happen."""

    def __init__(
        self,
        parts: Parts,
        wanted: WantedStore,
        listing: Catalog,
        rules: Rules,
        limits: Limits,
        *,
        restore: bool = True,
        services: tuple[str, ...] = (),
    ) -> None:
        """With `restore`, what was wanted last is brought back; `services` are always on."""
        self._parts = parts
        self._wanted = wanted
        self._restore = restore
        self._seating = Seating(machine.State(rules=rules))
        self._engines = Engines(
            parts, listing, limits, self._happen, self._engine_changed, self._learn, self._has_leases
        )
        self.services = Services(self._engines, parts.supervisord, services, self._service_changed)
        self._switches: dict[int, SwitchProgress] = {}
        self._tickets: dict[int, Ticket] = {}
        self._requests = itertools.count(1)
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._is_closed = False
        self._reservation: Reservation | None = None
        self._remembering: set[asyncio.Task[None]] = set()
        self.adopted = asyncio.Event()
        """Set when the engines of an earlier daemon have been taken over."""
        self.topic: Topic[Any] = Topic(lambda: None)
        """Changes whenever engines, queue or switch do."""

    # Its task

    async def run(self) -> None:
        """Adopt what runs, restore what was wanted, then carry out actions until cancelled."""
        rules = await self._complete(self._state.rules)
        newest = await self._parts.switches.newest_id()
        self._seating.begin(replace(self._state, rules=rules, next_switch=newest + 1))
        async with asyncio.TaskGroup() as self._tasks:
            self._engines.open(self._tasks)
            try:
                await self._take_over()
                self.adopted.set()
                self._spawn(self.services.run())
                await self._engines.keep_watch()
            finally:
                self._is_closed = True
                if self._timer is not None:
                    self._timer.cancel()

    async def _take_over(self) -> None:
        wanted = await self._wanted.wanted()
        target = self._target_at_start(wanted)
        await self._engines.adopt(target, self.services.variants)
        if target is not None and self._engines.of(target) is None:
            self._happen(machine.Wished(target, _now(), Reason.RESTORE))

    def _target_at_start(self, wanted: Wanted | None) -> Target | None:
        listing = self._engines.catalog
        if wanted is None:  # the very first start
            first = listing.wanted_first()
            return Target(first.name) if first else None
        variant = listing.variants.get(wanted.variant or "")
        if not self._restore or variant is None or variant.runtime not in self._parts.runtimes:
            return None
        if variant.name in self.services.variants:
            return None
        return Target(variant.name, wanted.preset, wanted.context)

    async def _complete(self, rules: Rules) -> Rules:
        """Add to the rules what is known of memory; what services hold is not there for others."""
        room = await self._engines.room(rules.room)
        held = sum(room.footprints.get(variant, 0) for variant in self.services.variants)
        return replace(rules, room=replace(room, capacity=max(0, room.capacity - held)))

    # What others ask of it

    def wish(self, target: Target, reason: Reason = Reason.ASKED) -> Switch:
        """Make a target active; give the switch that does it, which may have ended already.

        Raise `Unavailable` when this Footplate cannot start its runtime, `Conflict` while it is reserved.
        """
        self._refuse_reserved(reason)
        self._refuse_service(target.variant)
        runtime_of(self._engines.catalog.variants[target.variant], self._parts.runtimes)
        before = self._state.next_switch
        self._happen(machine.Wished(target, _now(), reason))
        running = self._state.switch
        return self.switch(running.id if running is not None else before)

    def stop(self, name: str, reason: Reason = Reason.ASKED) -> None:
        """End the engine of a variant (or engine) name for good; raise `NotFound`; `Conflict` as `wish`."""
        self._refuse_reserved(reason)
        engines = self._engines.all()
        variants = [each for each in self._engines.catalog.variants if name in (each, engine_name(each))]
        variants += [engine.variant.name for engine in engines if engine.name == name]
        if not variants:
            running = ", ".join(engine.name for engine in engines)
            raise NotFound(f"There is no engine {name}.", hint=f"Engines: {running or 'none'}.")
        for variant in dict.fromkeys(variants):
            self._refuse_service(variant)
            self._engines.end_for_good(variant)
            self._happen(machine.StopWished(variant, _now()))

    def _refuse_service(self, variant: str) -> None:
        if variant in self.services.variants:
            raise Conflict(
                f"{variant} is a service: it is always on.",
                hint="Remove it from [services] in config.toml, then: footplate reload",
            )

    @contextlib.contextmanager
    def reserve(self, reservation: Reservation) -> Iterator[None]:
        """Keep others from switching or stopping for the block: what is active answers, and nothing else.

        Batches lose their engine, and wait until the end. Whoever holds it switches with the reason
        `BENCHMARK`. Raise `Conflict` while somebody else has it.
        """
        self._refuse_reserved(Reason.ASKED)
        self._reservation = reservation
        put_off = self._put_batches_off()
        try:
            yield
        finally:
            self._reservation = None
            reservation.ended.set()
            for ticket in put_off:
                if ticket.request in self._tickets:
                    self._happen(machine.Requested(ticket.request, ticket.variant, _now(), interactive=False))

    def _put_batches_off(self) -> list[Ticket]:
        """Take from batches what they have, and out of the line those that wait; give the latter."""
        waiting = []
        for ticket in [each for each in self._tickets.values() if not each.interactive]:
            if ticket.granted is None or ticket.granted.done():
                ticket.cut(None)
            else:
                self._happen(machine.Released(ticket.request, _now()))
                waiting.append(ticket)
        return waiting

    async def _admit(self, ticket: Ticket) -> None:
        """Let a request through that disturbs no reservation; raise `Busy` for one that needs a switch."""
        while self._reservation is not None and not ticket.interactive:
            await self._reservation.ended.wait()
        if self._reservation is not None and ticket.variant != self.active:
            raise self._reservation.busy(ticket.variant)

    def _refuse_reserved(self, reason: Reason) -> None:
        if self._reservation is not None and reason is not Reason.BENCHMARK:
            raise self._reservation.conflict()

    async def until_calm(self) -> None:
        """Return when no switch goes on and nobody waits for one."""
        await self.adopted.wait()
        async for _ in self.topic.follow():
            if self._state.switch is None and self._state.incoming is None and not self._state.waiting:
                return

    async def until_gone(self, variant: str) -> None:
        """Return when no engine of the variant is left."""
        await self._engines.until_gone(variant)

    def cancel(self, switch_id: int) -> Switch:
        """End a running switch and go back to what was active; raise `NotFound`, or `Conflict` as `wish`."""
        self._refuse_reserved(Reason.ASKED)
        self.switch(switch_id)
        self._happen(machine.CancelWished(switch_id, _now()))
        return self.switch(switch_id)

    async def take_up(
        self,
        listing: Catalog,
        rules: Rules,
        limits: Limits,
        services: tuple[str, ...],
        altered: frozenset[str],
    ) -> None:
        """Use a changed configuration: engines that would be started differently now are replaced.

        All others keep running. Altered variants that had failed may be tried again.
        """
        former, self._engines.catalog = self._engines.catalog, listing
        self._engines.limits = limits
        await self.services.take_up(services, former, listing)
        known = frozenset(listing.variants)
        self._happen(machine.RulesChanged(await self._complete(rules), _now(), altered, known))
        for engine in self._engines.all():
            variant = engine.variant.name
            if variant in services:
                self._engines.end_for_good(variant)
                self._happen(machine.StopWished(variant, _now()))
            elif not _is_started_alike(former, listing, engine.target):
                self._engines.end_for_good(variant)
                self._happen(machine.Replaced(variant, _now()))

    def lease(
        self,
        variant: str,
        *,
        interactive: bool = True,
        waiting: Waiting | None = None,
        asked_at: float | None = None,
        task: "asyncio.Task[Any] | None" = None,
        is_holder: bool = False,
    ) -> AbstractAsyncContextManager[Lease]:
        """Hold an engine of the variant for the length of the block, switching to it if need be.

        While it waits, `waiting` is told how far the switch has come. Its queue time counts from `asked_at`,
        monotonic seconds, else from now. `task` is the caller's, where it is at hand.

        Raise `Busy` (queue full), `Unavailable`, or `EngineFailed` with the diagnosis; the last also out of
        the middle of the block, when the engine dies or is stopped.
        While it is reserved only its holder gets what is not active: others are told `Busy`, batches wait.
        """
        if variant in self.services.variants:
            return self.services.lease(variant)
        task = task or asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine asks
        return Ticket(
            next(self._requests),
            variant,
            interactive,
            _now() if asked_at is None else asked_at,
            task,
            waiting,
            self._take,
            self._give_back,
            is_holder=is_holder,
        )

    async def _take(self, ticket: Ticket) -> Lease:
        runtime_of(self._engines.catalog.variants[ticket.variant], self._parts.runtimes)
        if not self.adopted.is_set():
            await self.adopted.wait()
        if self._reservation is not None and not ticket.is_holder:
            await self._admit(ticket)
        self._tickets[ticket.request] = ticket
        attempt = self._seating.seat(ticket.request, ticket.variant, _now(), interactive=ticket.interactive)
        if attempt is None:
            attempt = (await self._granted(ticket)).attempt
        else:
            self.topic.changed()
        return self._lease(ticket, attempt)

    async def _granted(self, ticket: Ticket) -> machine.Grant:
        granted: asyncio.Future[machine.Grant] = asyncio.get_running_loop().create_future()
        ticket.granted = granted
        self._happen(machine.Requested(ticket.request, ticket.variant, _now(), ticket.interactive))
        while ticket.waiting is not None and not granted.done():
            done, _ = await asyncio.wait({granted}, timeout=TOLD_EVERY_SECONDS)
            if not done:
                await ticket.waiting(self._switch_to(ticket.variant))
        return await granted

    def _give_back(self, ticket: Ticket) -> None:
        if self._tickets.pop(ticket.request, None) is None:
            return
        if self._seating.unseat(ticket.request, _now()):
            self.topic.changed()
        else:
            self._happen(machine.Released(ticket.request, _now()))

    def _lease(self, ticket: Ticket, attempt: int) -> Lease:
        engine = self._engines.get(attempt)
        assert engine is not None, "an engine with a lease runs"  # noqa: S101
        if self._seating.lease_count(attempt) <= 1:
            engine.progressed()  # its silence begins now; beside other requests it goes on
        target = engine.target
        queue_seconds = _now() - ticket.asked_at
        return Lease(
            engine.variant,
            engine.address,
            attempt,
            engine.context,
            engine.plan.parameters if engine.plan is not None else {},
            queue_seconds,
            min(queue_seconds, self._switch_seconds_since(target, time.time() - queue_seconds))
            if queue_seconds > NO_WAIT_SECONDS
            else 0.0,
            target.preset,
            engine.progressed,
        )

    def _switch_seconds_since(self, target: Target, since: float) -> float:
        """Give how long the last switch to the target went on after a point in time."""
        for progress in reversed(self._switches.values()):
            if progress.switch.target == target and progress.ended_at is not None:
                return max(0.0, progress.ended_at - max(progress.started_at, since))
        return 0.0

    def open_batch_window(self, is_open: bool) -> None:
        """Let batches switch at once, or only when nobody chats."""
        if is_open != self._state.is_batch_window:
            self._happen(machine.BatchWindowChanged(is_open, _now()))

    async def load(self, attempt: int) -> Load:
        """Ask an engine how busy it is; nothing is known of one that is gone, or does not say."""
        for engine in self.running():
            if engine.attempt == attempt:
                return await self._engines.load_of(engine)
        return Load()

    # What it shows

    def batch_may_switch_at(self) -> float | None:
        """Give when a batch may switch if nobody chats until then: Unix seconds; None while it must not."""
        due = machine.batch_may_switch_at(self._seating.settled())
        return None if due is None else time.time() + max(0.0, due - _now())

    def leaders(self) -> dict[str, ProcessId]:
        """Give the leader of each engine's process group, by the engine's name."""
        return {**self._engines.leaders(), **self.services.leaders()}

    def running(self) -> list[Engine]:
        """Give engines and services alike, to be asked and not to be decided about."""
        return [*self._engines.all(), *self.services.engines()]

    def is_running(self, attempt: int) -> bool:
        """Say whether anything is left of the engine of this attempt."""
        return self._engines.get(attempt) is not None or self.services.is_running(attempt)

    @property
    def active(self) -> str | None:
        """The variant that answers now."""
        return self._state.active

    @property
    def wanted(self) -> str | None:
        """The variant that should answer."""
        return self._state.wanted.variant if self._state.wanted else None

    @property
    def wanted_target(self) -> Target | None:
        """The same, with the launch parameters that were asked for."""
        return self._state.wanted

    def bring_back(self, target: Target) -> None:
        """Make active again what was displaced, if it still can be."""
        if target.variant in self._engines.catalog.variants:
            with contextlib.suppress(FootplateError):
                self.wish(target, Reason.RESTORE)

    def default_variant(self) -> str | None:
        """Where a request goes that names no model: what is wanted, else what was active last."""
        target = self._state.wanted or self._state.last
        if target is not None and target.variant in self._engines.catalog.variants:
            return target.variant
        first = self._engines.catalog.wanted_first()
        return first.name if first else None

    def switch(self, switch_id: int) -> Switch:
        """Give one switch of this daemon's life; raise `NotFound`."""
        progress = self._switches.get(switch_id)
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
        model = await self._wanted.last_model(runtime)
        return (f"{runtime}/{model}",) if model else ()

    async def fitting(self) -> dict[str, bool]:
        """Say of each variant whose need is known whether there is room for it, were every engine stopped."""
        try:
            free = await self._parts.memory.free()
        except Unavailable:
            return {}
        room = free + sum(engine.memory_bytes or 0 for engine in self._engines.all())
        return {name: size <= room for name, size in self._state.rules.room.footprints.items()}

    async def plan(self, target: Target) -> Plan:
        """Say what a switch to the target would do, and do nothing."""
        stops = machine.in_the_way(self._seating.settled(), target)
        needs = self._state.rules.room.footprints.get(target.variant)
        usual = await self._parts.switches.median_steps(target.variant, target.preset)
        command, notes = self._command(target)
        free = None
        with contextlib.suppress(Unavailable):
            free = await self._parts.memory.free()
        stopping = [engine for resident in stops if (engine := self._engines.get(resident.attempt))]
        released = sum(engine.memory_bytes or 0 for engine in stopping)
        busy = sum(len(resident.leases) for resident in stops)
        if busy:
            notes.append(f"{busy} requests that run now may finish first.")
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

    def _command(self, target: Target) -> tuple[tuple[str, ...], list[str]]:
        """Give what would be run, and what speaks against it."""
        variant = self._engines.catalog.variants[target.variant]
        preset = variant.preset(target.preset)
        risky = preset is not None and preset.risky
        notes = [f"The preset {preset.name} is risky: it may not start."] if preset and risky else []
        try:
            launch = runtime_of(variant, self._parts.runtimes).launch(self._engines.plan(target))
        except FootplateError as error:
            return (), [*notes, f"{error.message} {error.hint or ''}".strip()]
        return tuple(mask_arguments(launch.command)), notes

    def last_switch(self) -> Switch | None:
        """Give the switch in progress, else the one that ended last."""
        if not self._switches:
            return None
        running = self._state.switch
        return self.switch(running.id if running else max(self._switches))

    def queue(self) -> Queue:
        """Give who waits."""
        return shapes.queue(self._state)

    def engines(self) -> tuple[EngineShape, ...]:
        """Give every engine that runs, and those that failed."""
        return shapes.engines(self._seating.settled(), self._engines.all(), self._engines.catalog.variants)

    def _snapshot(self, progress: SwitchProgress) -> Switch:
        engine = self._engines.of(progress.switch.target)
        lines = engine.log(LOG_TAIL) if engine is not None and progress.outcome == "running" else []
        return progress.snapshot(time.time(), lines)

    def _switch_to(self, variant: str) -> Switch | None:
        running = self._state.switch
        return self.switch(running.id) if running and running.target.variant == variant else None

    # What happened, and carrying out what follows

    @property
    def _state(self) -> machine.State:
        return self._seating.state

    def _happen(self, event: machine.Event) -> None:
        if self._is_closed:
            return  # the engines go on; the next daemon adopts them
        before = self._state
        for action in self._seating.step(event):
            self._carry_out(action)
        self._note_step()
        if self._state.wanted is not before.wanted and self._state.wanted != before.wanted:
            self._remember_wanted()
        self.topic.changed()

    def _carry_out(self, action: machine.Action) -> None:
        match action:
            case machine.Grant(request=request) if request in self._tickets:
                self._tickets[request].grant(action)
            case machine.AwaitMemory(target=target, attempt=attempt):
                needed = self._state.rules.room.footprints.get(target.variant)
                self._engines.await_memory(target, attempt, needed)
            case machine.Start(target=target, attempt=attempt):
                self._engines.start(target, attempt)
            case machine.Stop(attempt=attempt, kill=kill):
                incoming = self._state.incoming
                following = incoming.target.variant if incoming is not None else None
                self._engines.stop(attempt, kill=kill, following=following)
            case machine.Refuse(request=request) if request in self._tickets:
                self._tickets[request].refuse(refusal(action))
            case machine.Cut(request=request, diagnosis=diagnosis) if request in self._tickets:
                self._tickets[request].cut(diagnosis)
            case machine.SwitchBegan(switch=switch):
                self._began(switch)
            case machine.SwitchEnded():
                self._ended(action)
            case machine.WakeAt(at=at):
                self._wake_at(at)

    def _wake_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay = max(0.0, at - _now())
        self._timer = asyncio.get_running_loop().call_later(
            delay, lambda: self._happen(machine.Ticked(_now()))
        )

    async def remembered(self) -> None:
        """Return when what was decided so far is in the database, or could not be put there."""
        if self._remembering:
            await asyncio.wait(self._remembering)

    def _remember(self, work: Awaitable[None]) -> None:
        """Do bookkeeping: when the database is busy or full that is logged, and switching goes on."""
        task = self._spawn(_logged(work))
        self._remembering.add(task)
        task.add_done_callback(self._remembering.discard)

    def _spawn(self, work: Awaitable[None]) -> "asyncio.Task[None]":
        assert self._tasks is not None, "the switcher is not running"  # noqa: S101
        return self._tasks.create_task(_as_coroutine(work))

    def _has_leases(self, attempt: int) -> bool:
        return self._seating.lease_count(attempt) > 0

    def _service_changed(self) -> None:
        self.topic.changed()

    def _learn(self) -> None:
        self._remember(self._take_in_footprints())

    async def _take_in_footprints(self) -> None:
        room = (await self._complete(self._state.rules)).room
        # Of now, not of before: the rules may have changed meanwhile.
        self._happen(machine.RulesChanged(replace(self._state.rules, room=room), _now()))

    def _engine_changed(self) -> None:
        self._note_step()
        self.topic.changed()

    # Switches

    def _began(self, switch: machine.RunningSwitch) -> None:
        progress = SwitchProgress(switch, time.time())
        self._switches[switch.id] = progress
        for old in sorted(self._switches)[:-SWITCHES_KEPT]:
            del self._switches[old]
        logger.info(
            "switch began",
            extra={"switch": switch.id, "variant": switch.target.variant, "why": switch.reason},
        )
        self._remember(self._look_up_usual_times(progress))
        self._engines.read_ahead(switch.target)

    async def _look_up_usual_times(self, progress: SwitchProgress) -> None:
        target = progress.switch.target
        progress.usual = await self._parts.switches.median_steps(target.variant, target.preset)

    def _ended(self, ended: machine.SwitchEnded) -> None:
        progress = self._switches[ended.switch.id]
        progress.end(ended.outcome, time.time(), ended.diagnosis)
        logger.info(
            "switch ended",
            extra={
                "switch": ended.switch.id,
                "variant": ended.switch.target.variant,
                "outcome": ended.outcome,
            },
        )
        self._remember(self._parts.switches.save(progress.snapshot(time.time())))

    def _note_step(self) -> None:
        """Give the running switch the step that the machine and the engine have reached."""
        running, incoming = self._state.switch, self._state.incoming
        if running is None or incoming is None:
            return
        progress = self._switches[running.id]
        match incoming.entry:
            case machine.Entry.MAKING_ROOM:
                draining = [r for r in self._state.residents if r.phase is machine.Phase.DRAINING]
                step = StepName.DRAIN if draining else StepName.STOP
                detail = f"{sum(len(r.leases) for r in draining)} requests" if draining else ""
            case machine.Entry.AWAITING_MEMORY:
                step, detail = StepName.FREE_MEMORY, ""
            case machine.Entry.STARTING:
                engine = self._engines.get(incoming.attempt)
                if engine is None:
                    return
                step, detail = engine.step, engine.detail
                progress.told_fraction = engine.fraction
        progress.enter(step, time.time(), detail)

    def _remember_wanted(self) -> None:
        target = self._state.wanted
        wanted = Wanted(target.variant, target.preset, target.context) if target else Wanted(None)
        self._remember(self._wanted.set_wanted(wanted))
        variant = self._engines.catalog.variants.get(target.variant) if target else None
        if variant is not None:
            self._remember(self._wanted.set_last_model(variant.runtime, variant.model))


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


async def _logged(work: Awaitable[None]) -> None:
    try:
        await work
    except FootplateError as error:
        logger.warning("this was not remembered", extra={"cause": error.message})
