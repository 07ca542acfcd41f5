"""An entrant's engine: stopped, started cold and warm, and described."""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from footplate_daemon import weights
from footplate_daemon.benchmarks import environment
from footplate_daemon.benchmarks.planning import Seat
from footplate_daemon.benchmarks.resources import gpu_memory_in_use_now, ram_of, vram_of
from footplate_daemon.errors import EngineFailed, FootplateError
from footplate_daemon.gpu.nvml import NvmlThread
from footplate_daemon.gpu.sampler import Sampler
from footplate_daemon.processes import ProcessId
from footplate_daemon.runtimes.base import Runtime
from footplate_daemon.settings import mask_arguments, mask_environment
from footplate_daemon.store.benchmarks import BenchmarkStore
from footplate_daemon.switching.engine import Engine
from footplate_daemon.switching.machine import Reason
from footplate_daemon.switching.switcher import Switcher
from footplate_daemon.wire import EngineState, StepName, Switch
from footplate_daemon.wire_benchmarks import EngineStart

_LOADING = frozenset({StepName.START, StepName.LOAD, StepName.WARM_UP})
_NOTHING_LEFT = frozenset({EngineState.STOPPED, EngineState.FAILED})


@dataclass(frozen=True)
class Running:
    """An engine that runs for an entrant."""

    name: str
    leader: ProcessId | None
    base_bytes: int | None
    """GPU memory that was in use before it was started, where nothing of ours was running then."""
    facts: Mapping[str, Any]
    """Fields of its `Entrant`."""


@dataclass(frozen=True)
class Starter:
    """Starts engines for entrants."""

    switcher: Switcher
    runtimes: Mapping[str, Runtime]
    sampler: Sampler
    gpus: NvmlThread
    store: BenchmarkStore
    hf_cache: Path

    async def start(self, seat: Seat, *, cold: bool) -> Running:
        """Start an entrant's engine; raise `EngineFailed` with the cause if it does not start."""
        is_elsewhere = seat.variant.elsewhere is not None
        base_bytes: int | None = None
        if cold:
            await self.stop_all()
        if is_elsewhere or not cold:
            starts = [await self._start_once(seat, "unknown")]
        else:
            base_bytes = await gpu_memory_in_use_now(self.gpus)
            dropped = await environment.dropped(await self.files(seat))
            first = await self._start_once(seat, "cold")
            await self.stop_all()
            starts = [
                first.model_copy(update={"page_cache_dropped": dropped}),
                await self._start_once(seat, "warm"),
            ]
        return await self._describe(seat, tuple(starts), base_bytes)

    async def stop_all(self) -> None:
        """Stop every engine but services, and return when nothing of them is left."""
        for engine in self.switcher.engines():
            if engine.state not in _NOTHING_LEFT:
                self.switcher.stop(engine.variant, Reason.BENCHMARK)
                await self.switcher.until_gone(engine.variant)

    async def files(self, seat: Seat) -> list[Path]:
        """List the files of the entrant's weights; none where they are not here."""
        found = await asyncio.to_thread(weights.on_disk, seat.variant.weights, self.hf_cache)
        if found.path is None:
            return []
        return await asyncio.to_thread(environment.weight_files, found.path)

    async def hash(self, seat: Seat) -> str | None:
        """Give the hash of the entrant's weights, read once for as long as the files stay as they are."""
        hashes = []
        for file in await self.files(seat):
            told = await asyncio.to_thread(file.stat)
            digest = await self.store.known_hash(file, told.st_size, told.st_mtime_ns)
            if digest is None:
                digest = await asyncio.to_thread(environment.hash_of_file, file)
                if digest is None:
                    return None
                await self.store.remember_hash(file, told.st_size, told.st_mtime_ns, digest)
            hashes.append((file.name, digest))
        return environment.hash_of_all(hashes)

    async def _start_once(self, seat: Seat, kind: Literal["cold", "warm", "unknown"]) -> EngineStart:
        switch = await self.switcher.ended(self.switcher.wish(seat.target, Reason.BENCHMARK).id)
        if switch.outcome != "done":
            raise EngineFailed(_why(seat, switch), hint=f"See: footplate logs {seat.variant.name}")
        loading = [step for step in switch.steps if step.name in _LOADING and step.seconds is not None]
        if not loading:
            return EngineStart(kind="running", steps=switch.steps)
        return EngineStart(
            kind=kind, seconds=sum(step.seconds or 0.0 for step in loading), steps=switch.steps
        )

    async def _describe(self, seat: Seat, starts: tuple[EngineStart, ...], base_bytes: int | None) -> Running:
        engine = next(each for each in self.switcher.running() if each.target == seat.target)
        leader = engine.record.process if engine.record is not None else None
        command, added = self._launched(engine)
        version = await environment.runtime_version(seat.variant.runtime, engine.address, command)
        found = await asyncio.to_thread(weights.on_disk, seat.variant.weights, self.hf_cache)
        digest = None
        if seat.variant.runtime == "ollama":
            digest = await environment.ollama_digest(engine.address, seat.variant.served_name)
        snapshot = await self.sampler.snapshot()
        facts = {
            "starts": starts,
            "context": engine.context or seat.entrant.context,
            "runtime_version": version,
            "command": command,
            "environment": added,
            "weights_bytes": found.size_bytes,
            "weights_hash": digest,
            "vram_loaded_bytes": vram_of(snapshot, engine.name),
            "ram_loaded_bytes": await asyncio.to_thread(ram_of, leader),
        }
        return Running(engine.name, leader, base_bytes, facts)

    def _launched(self, engine: Engine) -> tuple[tuple[str, ...], dict[str, str]]:
        """Give what an engine was started with, secrets masked; nothing for one elsewhere."""
        if engine.plan is not None and engine.remote is None:
            with contextlib.suppress(FootplateError):
                launch = engine.runtime.launch(engine.plan)
                return tuple(mask_arguments(launch.command)), mask_environment(launch.env)
        return (), {}


def _why(seat: Seat, switch: Switch) -> str:
    if switch.diagnosis is not None:
        return f"{seat.variant.name} does not start: {switch.diagnosis.cause}"
    return f"{seat.variant.name} was not started: its switch was {switch.outcome}."
