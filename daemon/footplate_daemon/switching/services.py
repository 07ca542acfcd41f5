"""Services: engines that are always on beside the chat engine, and never stopped for it.

Each is kept by a task of its own: started or adopted, watched, and started again with back-off. The
switching machine does not know them; their memory is simply not free.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

from footplate_daemon.catalog import Catalog
from footplate_daemon.errors import FootplateError, Invalid, Unavailable
from footplate_daemon.processes import ProcessId
from footplate_daemon.supervisord import EngineRecord, Supervisord
from footplate_daemon.switching.engine import Engine, StartFailed, engine_name
from footplate_daemon.switching.engines import Engines
from footplate_daemon.switching.leases import Lease
from footplate_daemon.switching.machine import Target
from footplate_daemon.switching.remote import until_gone
from footplate_daemon.wire import Diagnosis, EngineState
from footplate_daemon.wire import Engine as EngineShape

logger = logging.getLogger(__name__)

BACK_OFF_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
"""Pauses before each restart in a row; the last one is repeated."""
STABLE_SECONDS = 60.0
"""Serving this long wipes the count of failures."""
MEASURE_SECONDS = 5.0
ADOPTION_SECONDS = 15.0
"""How long a request waits for a new daemon to take over what runs."""
STARTING_SECONDS = 5.0
"""When to ask again for a service that starts."""


@dataclass
class _Service:
    """One service as it is now."""

    variant: str
    engine: Engine
    """A new one for each launch: its number tells the gateway which address is meant."""
    failures: int = 0
    diagnosis: Diagnosis | None = None
    """Why it died or did not start last; None once it serves."""
    leases: int = 0
    next_start_at: float | None = None
    """Monotonic seconds; None unless it waits to be started again."""
    was_looked_for: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when what an earlier daemon left running has been taken over, or there is nothing."""
    keeper: "asyncio.Task[None] | None" = None


class Services:
    """Keeps the services of the catalog running; `run` must be running."""

    def __init__(
        self,
        engines: Engines,
        supervisord: Supervisord,
        variants: tuple[str, ...],
        changed: Callable[[], None],
    ) -> None:
        self._engines = engines
        self._supervisord = supervisord
        self._wanted = variants
        self._changed = changed
        self._services: dict[str, _Service] = {}
        self._tasks: asyncio.TaskGroup | None = None
        """None before `run` and while it ends: nothing can be kept then."""
        self._opened = asyncio.Event()
        self._one_change_at_a_time = asyncio.Lock()

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants that are always on."""
        return self._wanted

    async def run(self) -> None:
        """Keep every service until cancelled; their processes go on for the next daemon.

        To be called when `Engines.adopt` has returned: it clears away what is only being started.
        """
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                for variant in self._wanted:
                    self._keep(variant, tasks)
                self._opened.set()
                await asyncio.get_running_loop().create_future()
            finally:
                self._tasks = None

    async def take_up(self, variants: tuple[str, ...], former: Catalog, listing: Catalog) -> None:
        """Use a changed configuration: services that changed or failed are started anew, others go on.

        Those not wanted any more are ended.
        """
        self._wanted = variants
        async with self._one_change_at_a_time:
            for variant, service in list(self._services.items()):
                is_alike = _is_started_alike(former, listing, variant)
                if variant not in variants or not is_alike or service.engine.state is EngineState.FAILED:
                    await self._end(variant)
            for variant in variants:
                if self._tasks is not None and variant not in self._services:
                    self._keep(variant, self._tasks)

    @contextlib.asynccontextmanager
    async def lease(self, variant: str) -> AsyncIterator[Lease]:
        """Use a service for the length of the block; raise `Unavailable` while it is not ready."""
        service = await self._find(variant)
        if service is None or service.engine.state is not EngineState.READY:
            raise _not_ready(variant, service)
        engine = service.engine
        service.leases += 1
        self._changed()
        try:
            parameters = engine.plan.parameters if engine.plan is not None else {}
            yield Lease(
                engine.variant,
                engine.address,
                engine.attempt,
                engine.context,
                parameters,
                0.0,
                0.0,
                engine.target.preset,
                engine.progressed,
            )
        finally:
            service.leases -= 1
            self._changed()

    def leaders(self) -> Mapping[str, ProcessId]:
        """Give the leader of each service's process group, by the engine's name."""
        engines = [service.engine for service in self._services.values()]
        return {engine.name: engine.record.process for engine in engines if engine.record is not None}

    def engines(self) -> list[Engine]:
        """Give the engine of each service."""
        return [service.engine for service in self._services.values()]

    def is_running(self, attempt: int) -> bool:
        """Say whether a service runs under this attempt number."""
        return any(service.engine.attempt == attempt for service in self._services.values())

    def shapes(self) -> tuple[EngineShape, ...]:
        """Give every service as clients see it."""
        return tuple(_shape(service) for service in self._services.values())

    async def _find(self, variant: str) -> _Service | None:
        """Give the service; wait a moment while a new daemon takes over what runs."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ADOPTION_SECONDS):
                await self._opened.wait()
                if variant in self._services:
                    await self._services[variant].was_looked_for.wait()
        return self._services.get(variant)

    def _keep(self, variant: str, tasks: asyncio.TaskGroup) -> None:
        service = self._services[variant] = _Service(variant, self._new_engine(variant))
        service.keeper = tasks.create_task(self._keep_running(service), name=f"service {variant}")

    def _new_engine(self, variant: str) -> Engine:
        return self._engines.beside(Target(variant), self._changed)

    async def _end(self, variant: str) -> None:
        service = self._services.pop(variant)
        if service.keeper is not None:
            service.keeper.cancel()
            await asyncio.wait({service.keeper})
        await service.engine.settled()
        if service.engine.host is None:
            await self._supervisord.stop(service.engine.name)
        self._changed()

    async def _keep_running(self, service: _Service) -> None:
        record = await self._engines.adoptable(service.engine.target)
        while True:
            ready_at = await self._serve_once(service, record)
            record = None
            if ready_at is not None and time.monotonic() - ready_at >= STABLE_SECONDS:
                service.failures = 0
            service.failures += 1
            pause = BACK_OFF_SECONDS[min(service.failures, len(BACK_OFF_SECONDS)) - 1]
            service.next_start_at = time.monotonic() + pause
            self._changed()
            await asyncio.sleep(pause)
            service.next_start_at = None
            if service.variant not in self._engines.catalog.variants:
                return  # a reload that has removed it is about to end it
            service.engine = self._new_engine(service.variant)

    async def _serve_once(self, service: _Service, record: EngineRecord | None) -> float | None:
        """Start or adopt the service and return when it has died: when it was ready, None if never."""
        engine = service.engine
        ready_at = None
        try:
            await self._bring_up(service, record)
            ready_at, service.diagnosis = time.monotonic(), None
            logger.info("service is ready", extra={"engine": engine.name})
            failure: StartFailed | TimeoutError = await self._until_dead(engine)
        except (StartFailed, TimeoutError) as error:
            failure = error
        except FootplateError as error:
            failure = StartFailed(None, error)
        await engine.settled()
        service.diagnosis = await self._engines.diagnose(engine, failure)
        engine.enter(EngineState.FAILED)
        logger.warning("service is down", extra={"engine": engine.name, "cause": service.diagnosis.cause})
        await self._clear_away(engine)
        return ready_at

    async def _bring_up(self, service: _Service, record: EngineRecord | None) -> None:
        """Return once it serves; raise `StartFailed` or `TimeoutError` if it does not."""
        engine = service.engine
        try:
            if engine.host is not None:
                # Its process is the chat engines' too, and goes when they do.
                raise StartFailed(None, _is_shared(engine))
            if record is not None:
                await self._engines.join(engine, record)
        finally:
            service.was_looked_for.set()
        if record is None:
            # What was a chat engine until a reload is stopped by its name, which will be this one's.
            await self._engines.until_gone(service.variant)
            await self._engines.launch(engine)

    async def _until_dead(self, engine: Engine) -> StartFailed:
        """Measure a service that serves until it does so no more; say what ended it."""
        if engine.remote is not None:
            wrong = await until_gone(engine.remote, engine.runtime, engine.variant.served_name)
            return StartFailed(None, diagnosis=wrong)
        assert engine.record is not None  # noqa: S101 - what serves here was started or adopted
        async with asyncio.TaskGroup() as tasks:
            measuring = tasks.create_task(self._keep_measuring(engine))
            exit_code = await self._supervisord.exited(engine.record)
            measuring.cancel()
        return StartFailed(exit_code)

    async def _keep_measuring(self, engine: Engine) -> None:
        while True:
            await self._engines.measure(engine)
            await asyncio.sleep(MEASURE_SECONDS)

    async def _clear_away(self, engine: Engine) -> None:
        """Kill what is left of it; what cannot be killed now is killed by the next start."""
        if engine.host is not None:
            return
        try:
            await self._supervisord.kill(engine.name)
        except FootplateError as error:
            logger.warning("service is not cleared away", extra={"engine": engine.name, "cause": str(error)})


def _is_shared(engine: Engine) -> Invalid:
    return Invalid(
        f"{engine.runtime.name} cannot run services.", hint="Put the model on llama.cpp, vLLM or a remote."
    )


def _not_ready(variant: str, service: _Service | None) -> Unavailable:
    if service is None or service.diagnosis is None:
        return Unavailable(
            f"The service {variant} is still starting.",
            hint="Ask again when footplate status shows it ready.",
            retry_after=STARTING_SECONDS,
        )
    at = service.next_start_at
    return Unavailable(
        f"The service {variant} is down, and will be started again: {service.diagnosis.cause}",
        hint=f"See: footplate status; footplate logs {engine_name(variant)}",
        retry_after=STARTING_SECONDS if at is None else max(1.0, at - time.monotonic()),
        details={"diagnosis": service.diagnosis.model_dump(mode="json")},
    )


def _is_started_alike(former: Catalog, listing: Catalog, variant: str) -> bool:
    old, new = former.variants.get(variant), listing.variants.get(variant)
    if old is None or new is None:
        return False
    return old.elsewhere == new.elsewhere and old.fingerprint() == new.fingerprint()


def _shape(service: _Service) -> EngineShape:
    engine = service.engine
    return EngineShape(
        name=engine_name(engine.variant.name),
        runtime=engine.variant.runtime,
        variant=engine.variant.name,
        model=engine.variant.model,
        state=engine.state,
        pid=engine.record.pid if engine.record and engine.state is not EngineState.FAILED else None,
        port=engine.record.port if engine.record else None,
        since=engine.since,
        leases=service.leases,
        restarts=service.failures,
        pinned=True,
        memory_bytes=engine.memory_bytes,
        diagnosis=service.diagnosis,
    )
