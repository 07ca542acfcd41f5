"""Reads every GPU, the CPU and the RAM once a second, for whoever follows.

While nobody follows it reads less often, for the history alone. A GPU that gets lost stays in the
snapshot, with the reason, and is read again as soon as it answers.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

import psutil

from footplate_daemon.errors import Unavailable
from footplate_daemon.events import Topic
from footplate_daemon.gpu.history import History
from footplate_daemon.gpu.memory import Engines, by_size, who_is
from footplate_daemon.gpu.nvml import Nvml, NvmlThread, Reading
from footplate_daemon.processes import ProcessId
from footplate_daemon.wire import GpuHistory, GpuProcess, GpuSnapshot, Sample

logger = logging.getLogger(__name__)

PERIOD_SECONDS = 1.0
IDLE_SECONDS = 5.0
BACK_SECONDS = 60.0
"""For so long a GPU that was lost says that it is back."""
UNLISTED = "The NVIDIA driver no longer lists the GPU."


class Sampler:
    """Owns the newest snapshot; `run` must be running for it to change."""

    def __init__(
        self,
        gpus: NvmlThread,
        engines: Engines,
        *,
        period_seconds: float = PERIOD_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._gpus = gpus
        self._engines = engines
        self._period_seconds = period_seconds
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._newest: GpuSnapshot | None = None
        self._history = History()
        self._has_read = asyncio.Event()
        self._followers = 0
        self._is_followed = asyncio.Event()
        self._topic: Topic[GpuSnapshot | None] = Topic(lambda: self._newest)

    async def run(self) -> None:
        """Read until cancelled."""
        psutil.cpu_percent()  # the first call only begins to count
        while True:
            self._newest = await self._read()
            self._history.add(self._newest)
            self._has_read.set()
            self._topic.changed()
            await self._until_due()

    @property
    def newest(self) -> GpuSnapshot | None:
        """The newest snapshot; None until the very first."""
        return self._newest

    async def snapshot(self) -> GpuSnapshot:
        """Give the newest snapshot, waiting for the very first."""
        await self._has_read.wait()
        assert self._newest is not None  # noqa: S101 - it has been read
        return self._newest

    def history(self, seconds: float) -> GpuHistory:
        """Give what was read in so many seconds before now, ten minutes at most."""
        return self._history.last(seconds)

    async def follow(self, pause_seconds: float = 0.0) -> AsyncIterator[GpuSnapshot]:
        """Yield the newest snapshot and each that comes, at most one in each `pause_seconds`."""
        self._followers += 1
        self._is_followed.set()
        try:
            async for snapshot in self._topic.follow(pause_seconds):
                if snapshot is not None:
                    yield snapshot
        finally:
            self._followers -= 1
            if not self._followers:
                self._is_followed.clear()

    async def _until_due(self) -> None:
        if self._followers:
            await asyncio.sleep(self._period_seconds)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._idle_seconds):
                await self._is_followed.wait()

    async def _read(self) -> GpuSnapshot:
        now = self._clock()
        is_first = self._newest is None
        samples, problem, version = await self._read_gpus(now)
        ram = psutil.virtual_memory()
        return GpuSnapshot(
            at=now,
            gpus=samples,
            problem=problem,
            driver_version=version,
            cpu_percent=None if is_first else psutil.cpu_percent(),
            ram_total_bytes=ram.total,
            ram_used_bytes=ram.total - ram.available,
        )

    async def _read_gpus(self, now: float) -> tuple[tuple[Sample, ...], str | None, str | None]:
        version: str | None = None
        samples: dict[str, Sample] = {}
        failures: dict[int, str] = {}
        problem: str | None = None
        try:
            count = await self._gpus.ask(Nvml.count)
            version = await self._gpus.ask(Nvml.driver_version)
        except Unavailable as error:
            count, problem = 0, error.message
        for index in range(count):
            try:
                sample = await self._read_gpu(index)
            except Unavailable as error:
                failures[index] = error.message
            else:
                samples[sample.uuid] = self._note_read(sample, now)
        for uuid, known in self._known.items():
            if uuid not in samples:
                why = failures.pop(known.sample.index, None) or problem or UNLISTED
                samples[uuid] = self._note_lost(known, why, now)
        never_read = [Sample(index=index, name="GPU", problem=why) for index, why in failures.items()]
        in_order = sorted([*samples.values(), *never_read], key=lambda sample: sample.index)
        return tuple(in_order), problem, version

    async def _read_gpu(self, index: int) -> Sample:
        engines = self._engines()
        return await self._gpus.ask(lambda nvml: _sample(nvml.read(index), engines))

    def _note_read(self, sample: Sample, now: float) -> Sample:
        known = self._known.get(sample.uuid)
        if known is None:
            known = self._known[sample.uuid] = _Known(sample)
        known.sample = sample
        if known.lost_at is not None:
            known.away_seconds, known.back_at, known.lost_at = now - known.lost_at, now, None
            logger.info("gpu is back", extra={"gpu": sample.index, "seconds": round(known.away_seconds, 1)})
        if known.back_at is None or now - known.back_at > BACK_SECONDS:
            return sample
        problem = f"The GPU was lost for {max(1, round(known.away_seconds))} s and is back."
        return sample.model_copy(update={"problem": problem})

    def _note_lost(self, known: "_Known", why: str, now: float) -> Sample:
        if known.lost_at is None:
            known.lost_at = now
            logger.warning("gpu is lost", extra={"gpu": known.sample.index, "cause": why})
        return Sample(index=known.sample.index, uuid=known.sample.uuid, name=known.sample.name, problem=why)


@dataclass
class _Known:
    """A GPU that has been read once."""

    sample: Sample
    lost_at: float | None = None
    back_at: float | None = None
    away_seconds: float = 0.0


def _sample(reading: Reading, engines: Mapping[str, ProcessId]) -> Sample:
    memory = reading.memory
    return Sample(
        index=reading.index,
        uuid=reading.uuid,
        name=reading.name,
        utilisation_percent=reading.utilisation_percent,
        memory_total_bytes=memory and memory.total,
        memory_used_bytes=memory and memory.used,
        memory_free_bytes=memory and memory.free,
        temperature_celsius=reading.temperature_celsius,
        temperature_limit_celsius=reading.temperature_limit_celsius,
        power_watts=reading.power_watts,
        power_limit_watts=reading.power_limit_watts,
        energy_joules=reading.energy_joules,
        sm_clock_mhz=reading.sm_clock_mhz,
        sm_clock_limit_mhz=reading.sm_clock_limit_mhz,
        memory_clock_mhz=reading.memory_clock_mhz,
        pcie_generation=reading.pcie_generation,
        pcie_lanes=reading.pcie_lanes,
        pcie_rx_bytes_per_second=reading.pcie_rx_bytes_per_second,
        pcie_tx_bytes_per_second=reading.pcie_tx_bytes_per_second,
        throttle_reasons=reading.throttle_reasons,
        fan_percent=reading.fan_percent,
        processes=None if reading.processes is None else _processes(reading.processes, engines),
    )


def _processes(held: Mapping[int, int | None], engines: Mapping[str, ProcessId]) -> tuple[GpuProcess, ...]:
    found = []
    for pid, memory_bytes in by_size(held):
        tenant = who_is(pid, engines)
        found.append(
            GpuProcess(
                pid=pid,
                name=tenant.name,
                owner=tenant.owner,
                memory_bytes=memory_bytes,
                engine=tenant.engine,
            )
        )
    return tuple(found)
