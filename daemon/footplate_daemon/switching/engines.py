"""The engines' lives: started, adopted, watched, measured, put to sleep, stopped.

Carries out what the switching machine decides, and reports to it what happened. Nothing is decided here.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from footplate_daemon import catalog, processes, weights
from footplate_daemon.catalog import Catalog, Variant
from footplate_daemon.errors import FootplateError, Unavailable
from footplate_daemon.paths import Paths
from footplate_daemon.processes import ProcessId
from footplate_daemon.runtimes.base import Host, LaunchPlan, Load, Runtime
from footplate_daemon.store.switches import SwitchStore
from footplate_daemon.supervisord import EngineRecord, Supervisord, engine_log, fingerprint
from footplate_daemon.switching import machine
from footplate_daemon.switching.diagnosis import GpuHolder, diagnose, memory_held
from footplate_daemon.switching.engine import Engine, StartFailed, engine_name, free_port, new_key
from footplate_daemon.switching.estimates import footprint
from footplate_daemon.switching.machine import Room, Target
from footplate_daemon.switching.probe import Address, ask
from footplate_daemon.switching.read_ahead import read_ahead
from footplate_daemon.switching.readiness import is_ready
from footplate_daemon.switching.remote import until_gone
from footplate_daemon.wire import Diagnosis, EngineState, StepName

logger = logging.getLogger(__name__)

WATCH_SECONDS = 5.0
"""How often memory and load are read, and silent engines are looked for (oftener if they may hang less)."""
PROBE_SECONDS = 2.0
SLEEP_SECONDS = 30.0
"""How long an engine may take to fall asleep or wake up before it is ended instead."""
ASLEEP_MOST = 2
"""Sleeping engines hold RAM; the one that has slept longest is ended first."""
EVIDENCE_LINES = 5
LONGEST_PAUSE_SECONDS = 30.0
"""Between two tries to end an engine that does not go."""
ATTEMPTS_APART = 100
"""Between the attempt numbers of adopted processes: a host holds several models."""


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
    """What engines are run with."""

    paths: Paths
    supervisord: Supervisord
    runtimes: Mapping[str, Runtime]
    switches: SwitchStore
    memory: Memory
    hosts: Mapping[str, Host]
    """Those of the runtimes whose one process holds many models."""
    hf_cache: Path
    """Where Hugging Face's libraries keep what they downloaded."""


@dataclass(frozen=True)
class Limits:
    """How long things may take, as the operator decided; in seconds."""

    start_seconds: float = 600.0
    """How long a start may take."""
    memory_seconds: float = 30.0
    """How long a stopped engine's memory may take to be free."""
    hang_seconds: float | None = 120.0
    """How long an engine may be silent to its requests before it is probed."""


class Engines:
    """Every engine that runs here.

    `report` hears what happens to them, `changed` when clients may see something new, `learned` when a
    footprint was measured.
    """

    def __init__(
        self,
        parts: Parts,
        listing: Catalog,
        limits: Limits,
        report: Callable[[machine.Event], None],
        changed: Callable[[], None],
        learned: Callable[[], None],
        is_busy: Callable[[int], bool],
    ) -> None:
        self.catalog = listing
        self.limits = limits
        """Both are replaced as a whole when the configuration changes."""
        self._parts = parts
        self._report = report
        self._changed = changed
        self._learned = learned
        self._is_busy = is_busy
        self._running: dict[int, Engine] = {}
        self._asleep: dict[Target, Engine] = {}
        self._hosts: dict[str, EngineRecord] = {}
        """The processes of hosts that run, by runtime."""
        self._starts: dict[int, asyncio.Task[None]] = {}
        self._watches: dict[int, asyncio.Task[None]] = {}
        self._measures: dict[int, asyncio.Task[None]] = {}
        self._released: list[ProcessId] = []
        """Processes of stopped engines whose memory nobody has seen free yet."""
        self._capacity = 0
        self._beside = 0
        self._left_beside: dict[str, EngineRecord] = {}
        """What an earlier daemon left running of the services, by variant."""
        self._forgotten = asyncio.Event()
        """Set, and replaced, when an engine of the machine is gone."""
        self._ending: set[str] = set()
        """Variants that were asked to stop for good: they are not put to sleep."""
        self._tasks: asyncio.TaskGroup | None = None

    def open(self, tasks: asyncio.TaskGroup) -> None:
        """Carry out what is asked as tasks of this group."""
        self._tasks = tasks

    # What there is

    def all(self) -> list[Engine]:
        """Give every engine, those that sleep too."""
        return [*self._running.values(), *self._asleep.values()]

    def get(self, attempt: int) -> Engine | None:
        """Give the engine of an attempt, if anything of it is left."""
        return self._running.get(attempt)

    def of(self, target: Target) -> Engine | None:
        """Give the engine that runs, or comes to run, with this target."""
        return next((engine for engine in self._running.values() if engine.target == target), None)

    def leaders(self) -> dict[str, ProcessId]:
        """Give the leader of each engine's process group, by the engine's name."""
        return {engine.name: engine.record.process for engine in self.all() if engine.record is not None}

    # What the machine asks for

    def start(self, target: Target, attempt: int) -> None:
        """Start an engine, or wake the one that sleeps with this target; `Loaded` or `Failed` is reported."""
        asleep = self._asleep.pop(target, None)
        if target.variant not in self.catalog.variants:
            gone = Diagnosis(code="not_found", cause=f"{target.variant} is no longer in the catalog.")
            self._spawn(self._report_later(machine.Failed(attempt, gone, time.monotonic())))
        elif asleep is not None:
            asleep.attempt = attempt
            self._running[attempt] = asleep
            self._follow_start(asleep, self._wake(asleep))
        else:
            engine = self._new(target, attempt)
            self._follow_start(engine, self._launch(engine))

    async def _report_later(self, event: machine.Event) -> None:
        # Not within the step that asked for it.
        self._report(event)

    def stop(self, attempt: int, *, kill: bool, following: str | None) -> None:
        """End an engine, or put it to sleep; `Stopped` is reported when it holds no memory any more.

        `following` is the variant that comes next: if the same process will hold it, that stays.
        """
        self._spawn(self._stop(attempt, kill=kill, following=following))

    def await_memory(self, target: Target, attempt: int, needed_bytes: int | None) -> None:
        """Report `MemoryFreed` when what the target needs is free, else `Failed`."""
        self._spawn(self._await_memory(target, attempt, needed_bytes))

    def end_for_good(self, variant: str) -> None:
        """See to it that the variant's engine is ended rather than put to sleep."""
        if any(engine.variant.name == variant for engine in self._running.values()):
            self._ending.add(variant)
        for target in [target for target in self._asleep if target.variant == variant]:
            self._spawn(self._end_sleeper(self._asleep.pop(target)))

    def read_ahead(self, target: Target) -> None:
        """Bring the target's weights into the page cache."""
        self._spawn(self._read_ahead(target))

    async def adopt(self, wanted: Target | None, services: Collection[str]) -> None:
        """Take over what an earlier daemon left running, the wanted variant first, but not services."""
        running = await self._parts.supervisord.running()
        self._left_beside = {record.variant: record for record in running if record.variant in services}
        records = [record for record in running if record.variant not in services]
        records.sort(key=lambda record: wanted is None or record.variant != wanted.variant)
        for number, record in enumerate(records):
            await self._adopt(record, ATTEMPTS_APART * number + 1, wanted)

    # For services, which the machine does not know

    def beside(self, target: Target, changed: Callable[[], None]) -> Engine:
        """Make an engine that is kept beside those of the machine, with a number that no attempt has."""
        self._beside += 1
        return self._make(target, -self._beside, changed)

    async def until_gone(self, variant: str) -> None:
        """Return when the machine has no engine of this variant: one beside it would have the same name."""
        while any(engine.variant.name == variant for engine in self.all()):
            await self._forgotten.wait()

    async def launch(self, engine: Engine) -> None:
        """Start it; raise `StartFailed`, or `TimeoutError` after the operator's limit."""
        async with asyncio.timeout(self.limits.start_seconds):
            await self._launch(engine)

    async def join(self, engine: Engine, record: EngineRecord) -> None:
        """As `launch`, with the process that an earlier daemon started."""
        engine.record = record
        engine.plan = self.plan(engine.target, record.port, record.api_key)
        async with asyncio.timeout(self.limits.start_seconds):
            await engine.become_ready(self._parts.supervisord)

    async def adoptable(self, target: Target) -> EngineRecord | None:
        """Give, once, the record of what `adopt` found running, if it would be started so now."""
        record = self._left_beside.pop(target.variant, None)
        if record is None:
            return None
        same = await asyncio.to_thread(self._fingerprint, target, record) == record.fingerprint
        return record if same else None

    async def measure(self, engine: Engine) -> None:
        """Read what it holds; the most it ever held is what plans expect."""
        if engine.record is not None:
            await self._read(engine, engine.record)

    async def _used_by(self, group: Sequence[ProcessId]) -> int | None:
        """Give what they hold; None while the GPU is lost."""
        try:
            return await self._parts.memory.used_by(group)
        except Unavailable:
            return None

    async def load_of(self, engine: Engine) -> Load:
        """Ask an engine how busy it is."""
        metrics = await ask(engine.address, "GET", "/metrics", timeout_seconds=PROBE_SECONDS)
        if metrics is None or metrics.status != 200:
            return Load()
        return engine.runtime.load(metrics.body.decode(errors="replace"))

    async def diagnose(self, engine: Engine, error: StartFailed | TimeoutError) -> Diagnosis:
        """Say why an engine did not start, or died."""
        if isinstance(error, StartFailed) and error.diagnosis is not None:
            return error.diagnosis
        holders: tuple[GpuHolder, ...] = ()
        with contextlib.suppress(Unavailable):
            holders = await self._parts.memory.holders()
        return diagnose(
            engine.runtime,
            await asyncio.to_thread(engine.log),
            exit_code=error.exit_code if isinstance(error, StartFailed) else None,
            cause=error.cause if isinstance(error, StartFailed) else None,
            timed_out_after=self.limits.start_seconds if isinstance(error, TimeoutError) else None,
            variant=engine.variant,
            preset=engine.target.preset,
            context=engine.target.context,
            other_variants=self._others(engine.variant),
            gpu_holders=holders,
        )

    # What is known

    async def room(self, room: Room) -> Room:
        """Complete the room with what is known: how much memory there is, and what each variant needs."""
        peaks = await self._parts.switches.memory_peaks()
        sizes = await asyncio.to_thread(self._sizes)
        known = {name: footprint(name, peaks, size) for name, size in sizes.items()}
        known |= {name: 0 for name, each in self.catalog.variants.items() if each.runtime == "remote"}
        footprints = {name: size for name, size in known.items() if size is not None}
        with contextlib.suppress(Unavailable):  # a GPU that is lost has the capacity that it had
            self._capacity = await self._parts.memory.capacity()
        return replace(room, capacity=self._capacity, footprints=footprints)

    def plan(self, target: Target, port: int = 0, api_key: str | None = None) -> LaunchPlan:
        """Decide everything an engine is started with; raise `NotFound` for a preset that there is not."""
        variant = self.catalog.variants[target.variant]
        return catalog.plan(
            variant,
            preset=target.preset,
            context=target.context,
            port=port,
            api_key=api_key,
            weights_at=weights.on_disk(variant.weights, self._parts.hf_cache).path,
        )

    # Starting

    def _new(self, target: Target, attempt: int) -> Engine:
        engine = self._running[attempt] = self._make(target, attempt, self._changed)
        return engine

    def _make(self, target: Target, attempt: int, changed: Callable[[], None]) -> Engine:
        variant = self.catalog.variants[target.variant]
        host = self._parts.hosts.get(variant.runtime)
        return Engine(
            attempt,
            target,
            variant,
            self._parts.runtimes[variant.runtime],
            engine_log(self._parts.paths, variant.runtime if host else engine_name(variant.name)),
            host,
            changed=changed,
        )

    def _follow_start(self, engine: Engine, start: Awaitable[None]) -> None:
        self._starts[engine.attempt] = self._spawn(self._finish_start(engine, start))

    async def _launch(self, engine: Engine) -> None:
        """Start a process; an engine of the same variant that sleeps with another target goes first."""
        for target in [target for target in self._asleep if target.variant == engine.target.variant]:
            await self._end_sleeper(self._asleep.pop(target))
        if engine.variant.elsewhere is not None and engine.host is None:
            return await engine.reach(engine.variant.elsewhere)
        try:
            plan = self.plan(engine.target, free_port(), new_key())
        except FootplateError as error:
            raise StartFailed(None, error) from error
        if engine.variant.elsewhere is not None:
            await engine.load_elsewhere(engine.variant.elsewhere, plan)
        elif engine.host is not None:
            await self._load_in_host(engine, plan)
        else:
            await engine.start(self._parts.supervisord, plan)
        return None

    async def _load_in_host(self, engine: Engine, plan: LaunchPlan) -> None:
        """Have a host load the model: in the process that runs, if it was started as it would be now."""
        record = self._hosts.get(engine.runtime.name)
        if record is not None and record.fingerprint == await asyncio.to_thread(
            self._fingerprint, engine.target, record
        ):
            engine.record, engine.plan = record, replace(plan, port=record.port, api_key=record.api_key)
            await engine.become_ready(self._parts.supervisord)
            return
        try:
            await engine.start(self._parts.supervisord, plan)
        finally:
            if engine.record is not None:
                self._hosts[engine.runtime.name] = engine.record

    async def _wake(self, engine: Engine) -> None:
        """Wake a sleeping engine up; start it anew if it does not."""
        engine.enter(EngineState.STARTING, StepName.START, "waking up")
        sleeping = engine.runtime.sleeping(engine.plan) if engine.plan is not None else None
        if sleeping is not None:
            answer = await ask(engine.address, "POST", sleeping.wake, timeout_seconds=SLEEP_SECONDS)
            if answer is not None and answer.status == 200:
                return await engine.become_ready(self._parts.supervisord)
        logger.warning("engine does not wake up", extra={"engine": engine.name})
        await self._parts.supervisord.kill(engine.name)
        return await self._launch(engine)

    async def _finish_start(self, engine: Engine, start: Awaitable[None]) -> None:
        """See a start through and report what came of it; a cancelled one reports nothing."""
        try:
            async with asyncio.timeout(self.limits.start_seconds):
                await start
        except (StartFailed, TimeoutError) as error:
            diagnosis = await self.diagnose(engine, error)
            logger.warning(
                "engine did not start",
                extra={"engine": engine.name, "code": diagnosis.code, "cause": diagnosis.cause},
            )
            if engine.host is None or not self._stays(engine, None):
                await self._end_surely(engine, kill=True)
            self._forget(engine.attempt)
            self._report(machine.Failed(engine.attempt, diagnosis, time.monotonic()))
        else:
            pid = engine.record.pid if engine.record else None
            logger.info("engine is ready", extra={"engine": engine.name, "pid": pid})
            self._starts.pop(engine.attempt, None)
            self._watch(engine)
            self._report(machine.Loaded(engine.attempt, time.monotonic()))
            self._measure(engine)

    async def _adopt(self, record: EngineRecord, attempt: int, wanted: Target | None) -> None:
        target = Target(record.variant, record.preset, record.context)
        if await asyncio.to_thread(self._fingerprint, target, record) != record.fingerprint:
            logger.info("engine is not adopted: it would be started otherwise", extra={"engine": record.name})
            return await self._parts.supervisord.stop(record.name)
        if record.runtime in self._parts.hosts:
            return await self._adopt_host(record, attempt, wanted)
        engine = self._new(target, attempt)
        engine.record, engine.plan = record, self.plan(target, record.port, record.api_key)
        if await self._is_asleep(engine):
            engine.enter(EngineState.SLEEPING)
            self._asleep[target] = self._running.pop(attempt)
            self._spawn(self._report_sleeper(engine))
            return None
        ready = await is_ready(engine.address, engine.runtime, engine.variant.served_name)
        engine.enter(EngineState.READY if ready else EngineState.LOADING, StepName.LOAD)
        logger.info("engine is adopted", extra={"engine": record.name, "pid": record.pid, "ready": ready})
        self._report(machine.Adopted(target, attempt, is_ready=ready, at=time.monotonic()))
        if ready:
            self._watch(engine)
        else:
            self._follow_start(engine, engine.become_ready(self._parts.supervisord))
        return None

    async def _adopt_host(self, record: EngineRecord, attempt: int, wanted: Target | None) -> None:
        """Take over a host with those of its models that the catalog lists; without one it is ended."""
        runtime, host = self._parts.runtimes[record.runtime], self._parts.hosts[record.runtime]
        address = Address(record.port, record.api_key)
        loaded: Mapping[str, int | None] = {}
        with contextlib.suppress(FootplateError):  # it hangs, and is ended below
            loaded = await host.loaded_names(address)
        for variant in [each for each in self.catalog.variants.values() if each.runtime == record.runtime]:
            is_wanted = wanted is not None and wanted.variant == variant.name
            target = wanted if wanted is not None and is_wanted else Target(variant.name)
            context = variant.launch_context(target.preset, target.context)
            if variant.served_name in loaded and _holds(loaded[variant.served_name], context):
                engine = self._new(target, attempt)
                engine.record, engine.plan = record, self.plan(target, record.port, record.api_key)
                engine.enter(EngineState.READY)
                self._hosts[runtime.name] = record
                self._report(machine.Adopted(target, attempt, is_ready=True, at=time.monotonic()))
                self._watch(engine)
                attempt += 1
        if runtime.name not in self._hosts:
            await self._parts.supervisord.stop(record.name)

    def _fingerprint(self, target: Target, record: EngineRecord) -> str:
        """Hash how the engine would be started now; empty when it could not be."""
        variant = self.catalog.variants.get(target.variant)
        if variant is None or variant.runtime not in self._parts.runtimes:
            return ""
        try:
            plan = self.plan(target, record.port, record.api_key)
            return fingerprint(self._parts.runtimes[variant.runtime].launch(plan), record)
        except FootplateError:
            return ""

    # Stopping

    async def _stop(self, attempt: int, *, kill: bool, following: str | None) -> None:
        engine = self._running.get(attempt)
        if engine is not None:
            was_starting = attempt in self._starts
            for tasks in (self._starts, self._watches, self._measures):
                task = tasks.pop(attempt, None)
                if task is not None:
                    task.cancel()
            if not kill and await self._put_to_sleep(engine):
                self._running.pop(attempt)
            elif engine.host is not None and self._outlives(engine, following, was_starting or not kill):
                await self._unload(engine, engine.host)
            else:
                await self._end_surely(engine, kill=kill)
        self._forget(attempt)
        self._report(machine.Stopped(attempt, time.monotonic()))

    def _outlives(self, engine: Engine, following: str | None, is_well: bool) -> bool:
        """Say whether a host goes on when one of its models is stopped: somebody else's always does."""
        return engine.remote is not None or (is_well and self._stays(engine, following))

    def _stays(self, engine: Engine, following: str | None) -> bool:
        """Say whether a host's process is needed after one of its models is gone."""
        beside = [each for each in self._running.values() if each.host is engine.host and each is not engine]
        comes = self.catalog.variants.get(following or "")
        return bool(beside) or (comes is not None and comes.runtime == engine.runtime.name)

    async def _unload(self, engine: Engine, host: Host) -> None:
        """Have a host give a model's memory back; end the host if it does not."""
        engine.enter(EngineState.STOPPING)
        await engine.settled()
        if engine.record is None and engine.remote is None:
            return
        leader = engine.record.process if engine.record is not None else None
        try:
            await host.unload_model(engine.address, engine.variant.served_name, leader=leader)
        except FootplateError as error:
            logger.warning(
                "model is not unloaded; its host is ended",
                extra={"engine": engine.name, "cause": error.message},
            )
            await self._end(engine, kill=True)

    async def _end_surely(self, engine: Engine, *, kill: bool) -> None:
        """End an engine however long it takes: nothing may start beside what is not gone."""
        pause = 1.0
        while True:
            try:
                return await self._end(engine, kill=kill)
            except FootplateError as error:
                logger.error("engine does not end", extra={"engine": engine.name, "cause": error.message})  # noqa: TRY400
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def _end(self, engine: Engine, *, kill: bool) -> None:
        engine.enter(EngineState.STOPPING)
        self._ending.discard(engine.variant.name)
        await engine.settled()
        if engine.remote is not None:
            return
        if engine.host is not None:
            self._hosts.pop(engine.runtime.name, None)
        if engine.record is not None:
            self._released += await asyncio.to_thread(processes.group_members, engine.record.process)
        if kill:
            await self._parts.supervisord.kill(engine.name)
        else:
            await self._parts.supervisord.stop(engine.name)
        logger.info("engine is stopped", extra={"engine": engine.name})

    def _forget(self, attempt: int) -> None:
        for things in (self._running, self._starts, self._watches, self._measures):
            things.pop(attempt, None)
        self._tell_forgotten()

    def _tell_forgotten(self) -> None:
        self._forgotten.set()
        self._forgotten = asyncio.Event()

    async def _await_memory(self, target: Target, attempt: int, needed: int | None) -> None:
        """Wait until what was stopped has given its memory back, and what the target needs is free."""
        memory = self._parts.memory
        try:
            if await memory.kind() == "ram":
                needed = None  # the kernel makes room: it drops cached files, and weights can be mapped
            in_the_way = await memory.until_free(
                needed, tuple(self._released), timeout_seconds=self.limits.memory_seconds
            )
        except FootplateError as error:
            diagnosis = Diagnosis(code=error.code, cause=error.message)
            self._report(machine.Failed(attempt, diagnosis, time.monotonic()))
            return
        if in_the_way is None:
            self._released.clear()
            self._report(machine.MemoryFreed(attempt, time.monotonic()))
        else:
            diagnosis = memory_held(target.variant, needed, in_the_way)
            self._report(machine.Failed(attempt, diagnosis, time.monotonic()))

    # Sleeping

    async def _put_to_sleep(self, engine: Engine) -> bool:
        """Have an engine give its GPU memory back and stay warm, where its runtime can; say if it does."""
        if engine.plan is None or engine.record is None or engine.variant.name in self._ending:
            return False
        sleeping = engine.runtime.sleeping(engine.plan)
        if sleeping is None:
            return False
        answer = await ask(engine.address, "POST", sleeping.sleep, timeout_seconds=SLEEP_SECONDS)
        if answer is None or answer.status != 200 or not await self._is_asleep(engine):
            return False
        engine.enter(EngineState.SLEEPING)
        self._asleep[engine.target] = engine
        self._spawn(self._report_sleeper(engine))
        logger.info("engine sleeps", extra={"engine": engine.name})
        while len(self._asleep) > ASLEEP_MOST:
            await self._end_sleeper(self._asleep.pop(next(iter(self._asleep))))
        return True

    async def _is_asleep(self, engine: Engine) -> bool:
        sleeping = engine.runtime.sleeping(engine.plan) if engine.plan is not None else None
        if sleeping is None:
            return False
        answer = await ask(engine.address, "GET", sleeping.ask, timeout_seconds=PROBE_SECONDS)
        said = answer.json() if answer is not None and answer.status == 200 else None
        return isinstance(said, dict) and said.get("is_sleeping") is True

    async def _report_sleeper(self, engine: Engine) -> None:
        """Clear away an engine that dies in its sleep."""
        assert engine.record is not None  # noqa: S101 - it has slept
        await self._parts.supervisord.exited(engine.record)
        if self._asleep.get(engine.target) is engine:
            logger.warning("engine died in its sleep", extra={"engine": engine.name})
            await self._end_sleeper(self._asleep.pop(engine.target))

    async def _end_sleeper(self, engine: Engine) -> None:
        await self._end(engine, kill=True)
        self._tell_forgotten()
        self._changed()

    # Watching

    def _watch(self, engine: Engine) -> None:
        self._watches[engine.attempt] = self._spawn(self._report_death(engine))

    async def _report_death(self, engine: Engine) -> None:
        if engine.remote is not None:
            diagnosis = await until_gone(engine.remote, engine.runtime, engine.variant.served_name)
        else:
            assert engine.record is not None  # noqa: S101 - only what runs is watched
            exit_code = await self._parts.supervisord.exited(engine.record)
            diagnosis = await self.diagnose(engine, StartFailed(exit_code))
        logger.warning("engine died", extra={"engine": engine.name, "cause": diagnosis.cause})
        self._report(machine.Died(engine.attempt, diagnosis, time.monotonic()))

    async def keep_watch(self) -> None:
        """Read the engines' memory and load now and then, and probe the silent ones, until cancelled."""
        while True:
            hang = self.limits.hang_seconds
            await asyncio.sleep(min(WATCH_SECONDS, hang / 2) if hang else WATCH_SECONDS)
            for engine in [each for each in self._running.values() if each.state is EngineState.READY]:
                if hang and self._is_busy(engine.attempt) and engine.silent_seconds > hang:
                    self._spawn(self._probe(engine, hang))
                else:
                    self._measure(engine)

    async def _probe(self, engine: Engine, hang_seconds: float) -> None:
        """Ask a silent engine for one token; if it gives none, it hangs and is replaced."""
        engine.progressed()
        before = await self.load_of(engine)
        status = await engine.generate_one_token(hang_seconds)
        if status is None or status >= 500:
            after = await self.load_of(engine)
            if before.generated is not None and (after.generated or 0) > before.generated:
                engine.progressed()  # it is busy with a long answer, and the probe waits behind it
                return
            diagnosis = Diagnosis(
                code="hung",
                cause=f"It was silent for {hang_seconds:.0f} s and did not answer a probe.",
                evidence=tuple(engine.log(EVIDENCE_LINES)),
            )
            logger.warning("engine hangs", extra={"engine": engine.name})
            self._report(machine.Died(engine.attempt, diagnosis, time.monotonic()))

    def _measure(self, engine: Engine) -> None:
        # A task that a stop can cancel: llama.cpp does not end while somebody waits for its metrics.
        if engine.record is not None and engine.attempt not in self._measures:
            task = self._measures[engine.attempt] = self._spawn(self._read(engine, engine.record))
            task.add_done_callback(lambda _: self._measures.pop(engine.attempt, None))

    async def _read(self, engine: Engine, record: EngineRecord) -> None:
        """Read what an engine holds and how busy it says it is."""
        group = await asyncio.to_thread(processes.group_members, record.process)
        used = await self._used_by(group)
        if used is not None:
            alone = [each.name for each in self._running.values()].count(engine.name) <= 1
            if alone and used > (engine.memory_bytes or 0):
                name, preset = engine.variant.name, engine.target.preset
                try:
                    await self._parts.switches.record_memory(name, preset, used, time.time())
                    self._learned()
                except FootplateError as error:
                    logger.warning("a footprint is not stored", extra={"cause": error.message})
            engine.memory_bytes = used
        engine.load = await self.load_of(engine)
        self._changed()

    def _others(self, variant: Variant) -> list[str]:
        """Name the same model's variants that could be started instead."""
        installed = self.catalog.installed
        return [
            other.name
            for other in self.catalog.variants.values()
            if other.model == variant.model
            and other.name != variant.name
            and (installed is None or other.runtime in installed)
        ]

    async def _read_ahead(self, target: Target) -> None:
        variant = self.catalog.variants.get(target.variant)
        if variant is None:
            return
        found = await asyncio.to_thread(weights.on_disk, variant.weights, self._parts.hf_cache)
        if found.path is None:
            return
        stop = threading.Event()
        try:
            await asyncio.to_thread(read_ahead, found.path, stop)
        finally:
            stop.set()  # a cancelled task leaves its thread behind otherwise

    def _sizes(self) -> dict[str, int | None]:
        cache = self._parts.hf_cache
        variants = self.catalog.variants
        return {name: weights.on_disk(each.weights, cache).size_bytes for name, each in variants.items()}

    def _spawn(self, work: Awaitable[None]) -> "asyncio.Task[None]":
        assert self._tasks is not None, "the engines are not running"  # noqa: S101
        return self._tasks.create_task(_as_coroutine(work))


def _holds(loaded_context: int | None, wanted_context: int | None) -> bool:
    """Say whether a loaded model is as it is wanted; one made for less is capped by its host."""
    return wanted_context is None or loaded_context is None or loaded_context <= wanted_context


async def _as_coroutine(work: Awaitable[None]) -> None:
    await work
