"""The switcher's state as clients see it; decides nothing."""

import time
from collections.abc import Iterable, Mapping

from footplate_daemon.catalog import Variant
from footplate_daemon.switching.engine import Engine, engine_name
from footplate_daemon.switching.machine import Breaker, Phase, Resident, State
from footplate_daemon.wire import Engine as EngineShape
from footplate_daemon.wire import EngineState, Queue


def queue(state: State) -> Queue:
    """Give who waits."""
    by_variant: dict[str, int] = {}
    for waiting in state.waiting:
        by_variant[waiting.variant] = by_variant.get(waiting.variant, 0) + 1
    return Queue(waiting=len(state.waiting), by_variant=by_variant, capacity=state.rules.queue_limit)


def engines(
    state: State, running: Iterable[Engine], variants: Mapping[str, Variant]
) -> tuple[EngineShape, ...]:
    """Give every engine that runs, and those that failed."""
    shapes = [_running(state, engine) for engine in running]
    names = {shape.variant for shape in shapes}
    failed = [
        _failed(variants[name], breaker)
        for name, breaker in state.breakers.items()
        if name not in names and name in variants and _is_given_up(state, breaker)
    ]
    return tuple(shapes + failed)


def resident(state: State, attempt: int) -> Resident | None:
    """Give the resident of an attempt."""
    return next((each for each in state.residents if each.attempt == attempt), None)


def _running(state: State, engine: Engine) -> EngineShape:
    seated = resident(state, engine.attempt)
    breaker = state.breakers.get(engine.variant.name)
    is_draining = seated is not None and seated.phase is Phase.DRAINING
    return EngineShape(
        name=engine.name,
        runtime=engine.variant.runtime,
        variant=engine.variant.name,
        model=engine.variant.model,
        preset=engine.target.preset,
        state=EngineState.DRAINING if is_draining else engine.state,
        pid=engine.record.pid if engine.record else None,
        port=engine.record.port if engine.record else None,
        since=engine.since,
        leases=len(seated.leases) if seated else 0,
        restarts=breaker.failures if breaker else 0,
        pinned=engine.variant.name in state.rules.pinned,
        memory_bytes=engine.memory_bytes,
        kv_cache_fraction=engine.load.kv_cache_fraction,
        requests_running=engine.load.running,
        requests_waiting=engine.load.waiting,
    )


def _failed(variant: Variant, breaker: Breaker) -> EngineShape:
    return EngineShape(
        name=engine_name(variant.name),
        runtime=variant.runtime,
        variant=variant.name,
        model=variant.model,
        state=EngineState.FAILED,
        since=time.time() - (time.monotonic() - breaker.failed_at),
        restarts=breaker.failures,
        diagnosis=breaker.diagnosis,
    )


def _is_given_up(state: State, breaker: Breaker) -> bool:
    return breaker.at_start or breaker.failures > len(state.rules.back_off)
