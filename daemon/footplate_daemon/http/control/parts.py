"""What the control face stands on, and what its routes share."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import Path as PathParameter

from footplate_daemon import wire
from footplate_daemon.batches.keeper import Batches
from footplate_daemon.benchmarks.keeper import Benchmarks
from footplate_daemon.catalog import Variant
from footplate_daemon.deep_health import DeepLook
from footplate_daemon.events import Topic
from footplate_daemon.gateway.keys import KeyRing
from footplate_daemon.gateway.ledger import Ledger
from footplate_daemon.gpu.sampler import Sampler
from footplate_daemon.metrics.exposition import Metrics
from footplate_daemon.store.sessions import SessionStore
from footplate_daemon.store.switches import SwitchStore
from footplate_daemon.switching.switcher import Switcher
from footplate_daemon.turns import TurnKeeper

Number = Annotated[int, PathParameter(ge=1, le=2**63 - 1)]
"""A number in a path: what SQLite can hold."""


@dataclass(frozen=True)
class ControlParts:
    """What the control face stands on."""

    identity: wire.Identity
    status: Topic[wire.Status]
    find: Callable[[str | None, str | None], Awaitable[Variant]]
    models: Callable[[], Awaitable[list[wire.ModelInfo]]]
    explain: Callable[[str, str | None, str | None], Awaitable[wire.Explanation]]
    plan: Callable[[str, str | None, str | None, int | None], Awaitable[wire.Plan]]
    config: Callable[[], dict[str, Any]]
    reload: Callable[[], Awaitable[wire.Status]]
    engine_logs: Callable[[], Mapping[str, Path]]
    logs: Callable[[], Mapping[str, Path]]
    """The engines' and our own."""
    switcher: Switcher
    switches: SwitchStore
    sessions: SessionStore
    turns: TurnKeeper
    sampler: Sampler
    metrics: Metrics
    deep_look: DeepLook
    keys: KeyRing
    ledger: Ledger
    batches: Batches
    replay: Callable[[int, str | None, str | None], Coroutine[Any, Any, wire.Replay]]
    benchmarks: Benchmarks
    closing: asyncio.Event
    """Set when the daemon is asked to stop: event streams end, and their followers come back."""
