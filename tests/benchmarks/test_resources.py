import asyncio
import os
from typing import Any

import pytest

from footplate_daemon import processes
from footplate_daemon.benchmarks.resources import Use, Watch, gpu_memory_in_use, summed_up, vram_of
from footplate_daemon.gpu.nvml import NvmlThread
from footplate_daemon.gpu.sampler import Sampler
from footplate_daemon.wire import GpuProcess, GpuSnapshot, Sample

ENGINE = "vllm-qa"
USES = [
    Use(0.0, 100, 1.0, 1000, "processes", 50.0, 200.0),
    Use(5.0, 300, 4.0, 3000, "processes", 90.0, 300.0),
    Use(10.0, 200, 6.0, 2000, "processes", 70.0, 100.0),
]


def test_peaks_are_the_highest_and_stability_can_be_seen() -> None:
    found = summed_up(USES, None, None, 100, 0.5)

    assert (found.vram_start_bytes, found.vram_peak_bytes, found.vram_end_bytes) == (1000, 3000, 2000)
    assert (found.ram_start_bytes, found.ram_peak_bytes, found.ram_end_bytes) == (100, 300, 200)
    assert (found.cpu_seconds, found.cpu_percent) == (5.0, 50.0)
    assert (found.gpu_utilisation_percent, found.gpu_utilisation_peak_percent) == (70.0, 90.0)
    assert found.client_cpu_seconds == 0.5


def test_energy_is_the_counters_where_there_is_one() -> None:
    found = summed_up(USES, 500.0, "counter", 100, 0.0)

    assert (found.energy_joules, found.joules_per_token, found.energy_by) == (500.0, 5.0, "counter")
    assert found.power_watts == 50.0


def test_energy_is_else_the_power_over_time() -> None:
    found = summed_up(USES, None, None, 100, 0.0)

    assert (found.energy_joules, found.joules_per_token, found.energy_by) == (2000.0, 20.0, "samples")


def test_what_nobody_tells_is_none_and_never_zero() -> None:
    found = summed_up([Use(0.0), Use(10.0)], None, None, 100, 0.0)

    told = found.model_dump(exclude={"client_cpu_seconds"})
    assert set(told.values()) == {None}


def test_energy_of_an_answer_without_tokens_is_not_per_token() -> None:
    assert summed_up(USES, 500.0, "counter", 0, 0.0).joules_per_token is None


def test_gpu_memory_is_that_of_the_engines_processes() -> None:
    snapshot = gpus(held(1, 10, ENGINE), held(2, 20, ENGINE), held(3, 40, None))

    assert vram_of(snapshot, ENGINE) == 30
    assert vram_of(snapshot, "other") is None
    assert vram_of(None, ENGINE) is None
    assert gpu_memory_in_use(snapshot) == 70


@pytest.mark.parametrize(
    ("snapshot", "base", "expected"),
    [
        ((10, ENGINE), None, (10, "processes")),
        ((10, None), 4, (6, "difference")),
        ((10, None), None, (None, None)),
    ],
)
async def test_where_the_driver_does_not_know_our_processes_it_is_the_difference(
    snapshot: tuple[int, str | None], base: int | None, expected: tuple[int | None, str | None]
) -> None:
    watch = Watch(ENGINE, leader(), seeing(gpus(held(1, *snapshot))), NvmlThread(), base)

    use = await watch.look()

    assert (use.vram_bytes, use.vram_by) == expected


async def test_a_process_tree_is_watched_with_its_children() -> None:
    shell = ("sh", "-c", "sleep 60 & sleep 60 & wait")
    tree = await asyncio.create_subprocess_exec(*shell, start_new_session=True)
    whole = processes.identify(tree.pid)
    assert whole is not None
    watch = Watch(ENGINE, whole, seeing(None), NvmlThread())
    await watch.begin()
    found = await watch.summary(10)
    processes.kill_group(whole)
    await tree.wait()

    assert found.ram_peak_bytes
    assert found.cpu_seconds is not None
    assert found.vram_peak_bytes is None
    assert found.energy_joules is None


async def test_of_what_runs_elsewhere_nothing_is_told() -> None:
    watch = Watch("far", None, seeing(gpus(held(1, 10, ENGINE))), NvmlThread())
    await watch.begin()

    found = await watch.summary(10)

    assert found.ram_peak_bytes is None
    assert found.vram_peak_bytes is None
    assert found.gpu_utilisation_percent is None


def leader() -> processes.ProcessId:
    found = processes.identify(os.getpid())
    assert found is not None
    return found


def seeing(snapshot: GpuSnapshot | None) -> Sampler:
    sampler = Sampler(NvmlThread(), dict)
    sampler._newest = snapshot
    return sampler


def gpus(*held: GpuProcess) -> GpuSnapshot:
    used = sum(process.memory_bytes or 0 for process in held)
    gpu: dict[str, Any] = {"index": 0, "name": "GPU", "utilisation_percent": 40, "power_watts": 100}
    return GpuSnapshot(at=0.0, gpus=(Sample(**gpu, memory_used_bytes=used, processes=held),))


def held(pid: int, size: int, engine: str | None) -> GpuProcess:
    return GpuProcess(pid=pid, name="python", owner="me", memory_bytes=size, engine=engine)
