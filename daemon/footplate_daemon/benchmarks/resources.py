"""What an engine's process tree uses while it is measured: memory, CPU, the GPUs that it is on, their energy.

What nobody tells on this machine is None, never 0.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Literal

import psutil

from footplate_daemon import processes
from footplate_daemon.errors import Unavailable
from footplate_daemon.gpu.memory import resident_bytes
from footplate_daemon.gpu.nvml import Nvml, NvmlThread
from footplate_daemon.gpu.sampler import Sampler
from footplate_daemon.processes import ProcessId
from footplate_daemon.wire import GpuSnapshot, Sample
from footplate_daemon.wire_benchmarks import Resources

BIGGEST_ERROR_SECONDS = 2.0
"""Power is summed over time only for cells that last longer: it is read once a second."""


@dataclass(frozen=True)
class Use:
    """What an engine uses at one time."""

    at: float
    """Of `time.perf_counter`."""
    ram_bytes: int | None = None
    cpu_seconds: float | None = None
    vram_bytes: int | None = None
    vram_by: Literal["processes", "difference"] | None = None
    utilisation_percent: float | None = None
    power_watts: float | None = None


@dataclass
class Watch:
    """Looks at one engine; for the length of one cell."""

    engine: str
    """Its name under supervisord."""
    leader: ProcessId | None
    """None where nothing of it runs here."""
    sampler: Sampler
    gpus: NvmlThread
    base_bytes: int | None = None
    """GPU memory that was in use before the engine was started."""
    uses: list[Use] = field(default_factory=list)
    _energy_joules: dict[int, float] = field(default_factory=dict)
    """Of each GPU that it is on, at the beginning."""
    _own_cpu_seconds: float = 0.0
    _used: tuple[float | None, Literal["counter", "samples"] | None, float] | None = None

    async def begin(self) -> None:
        """Look for the first time."""
        self._own_cpu_seconds = time.process_time()
        snapshot = self.sampler.newest
        if snapshot is not None and self.leader is not None:
            for index in [gpu.index for gpu in _gpus_of(snapshot, self.engine)]:
                joules = await self._energy(index)
                if joules is not None:
                    self._energy_joules[index] = joules
        await self.look()

    async def look(self) -> Use:
        """Look now."""
        ram, cpu = await asyncio.to_thread(_used_by, self.leader)
        found = Use(time.perf_counter(), ram, cpu)
        snapshot = self.sampler.newest
        if snapshot is not None and self.leader is not None:
            found = _with_gpus(found, snapshot, self.engine, self.base_bytes)
        self.uses.append(found)
        return found

    async def end(self) -> None:
        """Look for the last time."""
        if self._used is None:
            own_cpu_seconds = time.process_time() - self._own_cpu_seconds
            joules, by = await self._energy_used()
            await self.look()
            self._used = (joules, by, own_cpu_seconds)

    async def summary(self, output_tokens: int) -> Resources:
        """Give what it all comes to."""
        await self.end()
        assert self._used is not None  # noqa: S101 - it has ended
        joules, by, own_cpu_seconds = self._used
        return summed_up(self.uses, joules, by, output_tokens, own_cpu_seconds)

    async def _energy_used(self) -> tuple[float | None, Literal["counter", "samples"] | None]:
        used = []
        for index, before in self._energy_joules.items():
            after = await self._energy(index)
            if after is None or after < before:  # the driver was loaded anew
                return None, None
            used.append(after - before)
        return (sum(used), "counter") if used else (None, None)

    async def _energy(self, index: int) -> float | None:
        with suppress(Unavailable):
            reading = await self.gpus.ask(lambda nvml: nvml.read(index))
            return reading.energy_joules
        return None


def summed_up(
    uses: Sequence[Use],
    joules: float | None,
    by: Literal["counter", "samples"] | None,
    output_tokens: int,
    own_cpu_seconds: float,
) -> Resources:
    """Sum up what was seen, from the first look to the last."""
    first, last = uses[0], uses[-1]
    seconds = last.at - first.at
    vram, ram = _known(use.vram_bytes for use in uses), _known(use.ram_bytes for use in uses)
    utilisation = _known(use.utilisation_percent for use in uses)
    power = _known(use.power_watts for use in uses)
    cpu = None
    if first.cpu_seconds is not None and last.cpu_seconds is not None:
        cpu = max(0.0, last.cpu_seconds - first.cpu_seconds)
    if joules is None and power and seconds > BIGGEST_ERROR_SECONDS:
        joules, by = fmean(power) * seconds, "samples"
    watts = joules / seconds if joules is not None and by == "counter" and seconds > 0 else None
    return Resources(
        vram_start_bytes=first.vram_bytes,
        vram_peak_bytes=max(vram, default=None),
        vram_end_bytes=last.vram_bytes,
        vram_by=next((use.vram_by for use in uses if use.vram_by), None),
        ram_start_bytes=first.ram_bytes,
        ram_peak_bytes=max(ram, default=None),
        ram_end_bytes=last.ram_bytes,
        cpu_seconds=cpu,
        cpu_percent=cpu / seconds * 100 if cpu is not None and seconds > 0 else None,
        gpu_utilisation_percent=fmean(utilisation) if utilisation else None,
        gpu_utilisation_peak_percent=max(utilisation, default=None),
        power_watts=watts if watts is not None else fmean(power) if power else None,
        energy_joules=joules,
        joules_per_token=joules / output_tokens if joules is not None and output_tokens else None,
        energy_by=by if joules is not None else None,
        client_cpu_seconds=own_cpu_seconds,
    )


def vram_of(snapshot: GpuSnapshot | None, engine: str) -> int | None:
    """Give the GPU memory that an engine holds now; None where it holds none that anybody tells."""
    if snapshot is None:
        return None
    held = [
        process.memory_bytes
        for gpu in snapshot.gpus
        for process in gpu.processes or ()
        if process.engine == engine and process.memory_bytes is not None
    ]
    return sum(held) if held else None


def gpu_memory_in_use(snapshot: GpuSnapshot | None) -> int | None:
    """Give the memory in use on all GPUs, whoever uses it; None where there is none."""
    used = (
        [gpu.memory_used_bytes for gpu in snapshot.gpus if gpu.memory_used_bytes is not None]
        if snapshot
        else []
    )
    return sum(used) if used else None


async def gpu_memory_in_use_now(gpus: NvmlThread) -> int | None:
    """As `gpu_memory_in_use`, read now."""
    with suppress(Unavailable):
        return await gpus.ask(_in_use)
    return None


def _in_use(nvml: Nvml) -> int | None:
    memories = [nvml.memory(index) for index in range(nvml.count())]
    used = [memory.used for memory in memories if memory is not None]
    return sum(used) if used else None


def ram_of(leader: ProcessId | None) -> int | None:
    """Give the RAM of a process tree. Blocks."""
    return _used_by(leader)[0]


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _gpus_of(snapshot: GpuSnapshot, engine: str) -> list[Sample]:
    """Give the GPUs that an engine has memory on; all of them where no driver names our processes."""
    its_own = [
        gpu for gpu in snapshot.gpus if any(process.engine == engine for process in gpu.processes or ())
    ]
    names_ours = any(process.engine for gpu in snapshot.gpus for process in gpu.processes or ())
    return its_own or ([] if names_ours else list(snapshot.gpus))


def _with_gpus(use: Use, snapshot: GpuSnapshot, engine: str, base_bytes: int | None) -> Use:
    gpus = _gpus_of(snapshot, engine)
    utilisation = _known(gpu.utilisation_percent for gpu in gpus)
    power = _known(gpu.power_watts for gpu in gpus)
    vram, in_use = vram_of(snapshot, engine), gpu_memory_in_use(snapshot)
    is_difference = vram is None and base_bytes is not None and in_use is not None
    return replace(
        use,
        vram_bytes=max(0, (in_use or 0) - (base_bytes or 0)) if is_difference else vram,
        vram_by="difference" if is_difference else None if vram is None else "processes",
        utilisation_percent=fmean(utilisation) if utilisation else None,
        power_watts=sum(power) if power else None,
    )


def _used_by(leader: ProcessId | None) -> tuple[int | None, float | None]:
    """Give RAM and CPU time of a process tree; None for one that is not here."""
    group = processes.group_members(leader) if leader is not None else []
    if not group:
        return None, None
    return resident_bytes(group), sum(_cpu_seconds(process) for process in group)


def _cpu_seconds(process: ProcessId) -> float:
    with suppress(psutil.Error):
        times = psutil.Process(process.pid).cpu_times()
        # Of children that have ended, too.
        return float(times.user + times.system + times.children_user + times.children_system)
    return 0.0
