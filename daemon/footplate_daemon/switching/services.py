"""Services: engines that are always on beside the chat engine, and never stopped for it.

Each is kept by a task of its own: started or adopted, watched, and started again with back-off. The
switching machine does not know them; their memory is simply not free.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

from footplate_daemon.catalog import Catalog
from footplate_daemon.errors import FootplateError, Unavailable
from footplate_daemon.processes import ProcessId
from footplate_daemon.supervisord import EngineRecord, Supervisord
from footplate_daemon.switching.engine import Engine, StartFailed, engine_name
from footplate_daemon.switching.engines import Engines
from footplate_daemon.switching.leases import Lease
from footplate_daemon.switching.machine import Target
from footplate_daemon.wire import Diagnosis, EngineState
from footplate_daemon.wire import Engine as EngineShape

logger = logging.getLogger(__name__)

BACK_OFF_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
"""Pauses before each restart in a row; the last one is repeated."""
STABLE_SECONDS = 60.0
"""Serving this long wipes the count of failures."""


@dataclass
class _Service:
    """One service as it is now."""

    engine: Engine
    failures: int = 0
    diagnosis: Diagnosis | None = None
    leases: int = 0
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

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants that are always on."""
        return self._wanted

    async def run(self) -> None:
        """Keep every service until cancelled; their processes go on for the next daemon."""
        async with asyncio.TaskGroup() as self._tasks:
            for variant in self._wanted:
                self._keep(variant)
            await asyncio.get_running_loop().create_future()

    async def take_up(self, variants: tuple[str, ...], former: Catalog, listing: Catalog) -> None:
        """Use a changed configuration: services that changed are started anew, those not wanted are ended."""
        self._wanted = variants
        for variant in list(self._services):
            if variant not in variants or former.variants.get(variant) != listing.variants.get(variant):
                await self._end(variant)
        for variant in variants:
            if variant not in self._services:
                self._keep(variant)

    @contextlib.asynccontextmanager
    async def lease(self, variant: str) -> AsyncIterator[Lease]:
        """Use a service for the length of the block; raise `Unavailable` while it is not ready."""
        service = self._services.get(variant)
        if service is None or service.engine.state is not EngineState.READY:
            cause = f": {service.diagnosis.cause}" if service is not None and service.diagnosis else ""
            raise Unavailable(
                f"The service {variant} is not ready{cause}", hint="See: footplate status", retry_after=2
            )
        engine = service.engine
        service.leases += 1
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
                engine.progressed,
            )
        finally:
            service.leases -= 1

    def leaders(self) -> Mapping[str, ProcessId]:
        """Give the leader of each service's process group, by the engine's name."""
        engines = [service.engine for service in self._services.values()]
        return {engine.name: engine.record.process for engine in engines if engine.record is not None}

    def is_running(self, attempt: int) -> bool:
        """Say whether a service runs under this attempt number."""
        return any(service.engine.attempt == attempt for service in self._services.values())

    def shapes(self) -> tuple[EngineShape, ...]:
        """Give every service as clients see it."""
        return tuple(_shape(service) for service in self._services.values())

    def _keep(self, variant: str) -> None:
        assert self._tasks is not None, "the services are not running"  # noqa: S101
        engine = self._engines.beside(Target(variant), self._changed)
        service = self._services[variant] = _Service(engine)
        service.keeper = self._tasks.create_task(self._keep_running(service), name=f"service {variant}")

    async def _end(self, variant: str) -> None:
        service = self._services.pop(variant)
        if service.keeper is not None:
            service.keeper.cancel()
            await asyncio.wait({service.keeper})
        await service.engine.settled()
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
            self._changed()
            await asyncio.sleep(BACK_OFF_SECONDS[min(service.failures, len(BACK_OFF_SECONDS)) - 1])

    async def _serve_once(self, service: _Service, record: EngineRecord | None) -> float | None:
        """Start or adopt the service and return when it has died: when it was ready, None if never."""
        engine = service.engine
        ready_at = None
        try:
            if record is None:
                await self._engines.launch(engine)
            else:
                await self._engines.join(engine, record)
            ready_at, service.diagnosis = time.monotonic(), None
            logger.info("service is ready", extra={"engine": engine.name})
            assert engine.record is not None  # noqa: S101 - it serves
            exit_code = await self._supervisord.exited(engine.record)
            failure = StartFailed(exit_code)
        except (StartFailed, TimeoutError) as error:
            failure = error if isinstance(error, StartFailed) else StartFailed(None, _too_slow(error))
        service.diagnosis = await self._engines.diagnose(engine, failure)
        engine.enter(EngineState.FAILED)
        logger.warning("service is down", extra={"engine": engine.name, "cause": service.diagnosis.cause})
        await self._supervisord.kill(engine.name)
        return ready_at


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


def _too_slow(error: BaseException) -> FootplateError:
    return FootplateError(f"It was not ready in time: {error}")
