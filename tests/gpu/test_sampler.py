"""What followers of the GPUs see: samples, who holds the memory, losses and returns, and no GPU at all."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import psutil
from tests.fakes.nvml.driver import GIB, FakeDriver, with_driver, without_driver

from footplate_daemon import processes
from footplate_daemon.gpu.nvml import NvmlThread
from footplate_daemon.gpu.sampler import Sampler
from footplate_daemon.processes import ProcessId
from footplate_daemon.wire import GpuProcess, GpuSnapshot


@asynccontextmanager
async def sampling(
    engines: Mapping[str, ProcessId] | None = None,
    *,
    clock: Callable[[], float] = lambda: 1000.0,
    idle_seconds: float = 600.0,
    period_seconds: float = 0.01,
) -> AsyncIterator[Sampler]:
    sampler = Sampler(
        NvmlThread(retry_seconds=0),
        lambda: dict(engines or {}),
        period_seconds=period_seconds,
        idle_seconds=idle_seconds,
        clock=clock,
    )
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(sampler.run())
        yield sampler
        task.cancel()


async def first(sampler: Sampler, matches: Callable[[GpuSnapshot], bool]) -> GpuSnapshot:
    """Follow until a snapshot matches."""
    async for snapshot in sampler.follow():
        if matches(snapshot):
            return snapshot
    raise AssertionError("The sampler ended.")


def gpu_0_has_problem(snapshot: GpuSnapshot) -> bool:
    return snapshot.gpus[0].problem is not None


def gpu_0_is_read(snapshot: GpuSnapshot) -> bool:
    return snapshot.gpus[0].memory_free_bytes is not None


@with_driver
async def test_a_snapshot_has_every_gpu_and_the_machine_beside(driver: FakeDriver) -> None:
    driver.change({"1.fan": None, "1.throttle": 0})
    async with sampling() as sampler:
        snapshot = await sampler.snapshot()

    zero, one = snapshot.gpus
    assert (snapshot.at, snapshot.problem, snapshot.driver_version) == (1000.0, None, "570.86.15")
    assert (zero.index, zero.uuid, zero.name, zero.problem) == (0, "GPU-0", "Fake GPU 0", None)
    assert (zero.memory_total_bytes, zero.memory_used_bytes, zero.memory_free_bytes) == (
        24 * GIB,
        0,
        23 * GIB,
    )
    assert (zero.utilisation_percent, zero.temperature_celsius, zero.temperature_limit_celsius) == (
        37,
        61,
        90,
    )
    assert (zero.power_watts, zero.power_limit_watts) == (215.5, 350.0)
    assert (zero.pcie_rx_bytes_per_second, zero.pcie_tx_bytes_per_second) == (1_200_000, 300_000)
    assert (zero.throttle_reasons, zero.fan_percent, zero.processes) == (("power cap", "heat"), 45, ())
    assert (one.throttle_reasons, one.fan_percent) == ((), None)
    assert snapshot.cpu_percent is None  # there is nothing yet to compare with
    assert snapshot.ram_total_bytes == psutil.virtual_memory().total
    assert 0 < (snapshot.ram_used_bytes or 0) < snapshot.ram_total_bytes


@with_driver
async def test_processes_are_ours_by_engine_and_foreign_by_owner(driver: FakeDriver) -> None:
    engine = processes.identify(os.getpgrp())
    parent = psutil.Process(1)
    assert engine is not None
    driver.change({"0.compute": f"{os.getpid()}:{GIB} 1:{2 * GIB}"})

    async with sampling({"vllm-gemma": engine}) as sampler:
        held = (await sampler.snapshot()).gpus[0].processes

    assert held is not None
    foreign, ours = held
    assert (foreign.pid, foreign.owner, foreign.engine) == (1, parent.username(), None)
    assert foreign.memory_bytes == 2 * GIB
    assert (ours.pid, ours.engine, ours.memory_bytes) == (os.getpid(), "vllm-gemma", GIB)


@with_driver
async def test_a_process_whose_bytes_are_not_told_is_still_shown(driver: FakeDriver) -> None:
    driver.change({"0.compute": "4194305:-"})

    async with sampling() as sampler:
        held = (await sampler.snapshot()).gpus[0].processes

    assert held == (GpuProcess(pid=4_194_305, name="(not visible here)", owner="unknown"),)


@with_driver
async def test_a_gpu_that_is_lost_says_so_and_tells_when_it_is_back(driver: FakeDriver) -> None:
    now = 1000.0
    async with sampling(clock=lambda: now) as sampler:
        await first(sampler, gpu_0_is_read)

        driver.change({"0.error": 15})
        lost = await first(sampler, gpu_0_has_problem)
        now = 1012.0
        driver.change({"0.error": None})
        back = await first(sampler, gpu_0_is_read)
        now = 1100.0
        later = await first(sampler, lambda snapshot: snapshot.at == 1100.0)

    assert lost.gpus[0].problem == "The GPU is lost: it has fallen off the bus or broke down."
    assert (lost.gpus[0].name, lost.gpus[0].utilisation_percent) == ("Fake GPU 0", None)
    assert lost.gpus[1].utilisation_percent == 37
    assert back.gpus[0].problem == "The GPU was lost for 12 s and is back."
    assert later.gpus[0].problem is None


@with_driver
async def test_a_driver_that_is_unloaded_and_loaded_again_is_followed_through(driver: FakeDriver) -> None:
    async with sampling() as sampler:
        await first(sampler, gpu_0_is_read)

        driver.change({"init": 9, "generation": 2})
        lost = await first(sampler, gpu_0_has_problem)
        driver.change({"init": 0})
        back = await first(sampler, gpu_0_is_read)

    assert lost.problem == "The NVIDIA driver is installed, but the kernel has not loaded it."
    assert [gpu.name for gpu in lost.gpus] == ["Fake GPU 0", "Fake GPU 1"]
    assert back.problem is None
    assert "is back" in (back.gpus[0].problem or "")


@with_driver
async def test_a_gpu_that_was_lost_from_the_beginning_has_its_place(driver: FakeDriver) -> None:
    driver.change({"1.error": 16})

    async with sampling() as sampler:
        snapshot = await sampler.snapshot()

    assert [(gpu.index, gpu.problem) for gpu in snapshot.gpus] == [(0, None), (1, "The GPU must be reset.")]


@without_driver
async def test_without_a_driver_one_sentence_says_why_and_the_machine_is_still_read(
    driver: FakeDriver,
) -> None:
    del driver
    async with sampling() as sampler:
        snapshot = await first(sampler, lambda snapshot: snapshot.cpu_percent is not None)

    assert snapshot.gpus == ()
    assert snapshot.problem == "This machine has no NVIDIA driver (libnvidia-ml.so.1 was not found)."
    assert snapshot.ram_total_bytes


@with_driver
async def test_a_driver_that_comes_later_is_found(driver: FakeDriver) -> None:
    driver.change({"init": 9})
    async with sampling() as sampler:
        await first(sampler, lambda snapshot: snapshot.problem is not None)

        driver.change({"init": 0})

        assert (await first(sampler, lambda snapshot: bool(snapshot.gpus))).problem is None


@with_driver
async def test_it_rests_while_nobody_follows_and_wakes_for_a_follower(driver: FakeDriver) -> None:
    del driver
    reads = 0

    def clock() -> float:
        nonlocal reads
        reads += 1
        return float(reads)

    async with sampling(clock=clock) as sampler:
        assert (await sampler.snapshot()).at == 1.0

        woken = await first(sampler, lambda snapshot: snapshot.at == 3.0)

    assert woken.at == 3.0


@with_driver
async def test_the_history_has_the_last_minutes_and_none_where_a_gpu_was_lost(driver: FakeDriver) -> None:
    now = 1000.0
    async with sampling(clock=lambda: now) as sampler:
        await first(sampler, gpu_0_is_read)
        driver.change({"0.error": 15, "1.utilisation": 99})
        now = 1300.0
        await first(sampler, lambda snapshot: snapshot.at == 1300.0)
        driver.change({"0.error": None})
        now = 1700.0
        await first(sampler, lambda snapshot: snapshot.at == 1700.0)

        history = sampler.history(600)

    places = [history.at.index(1300.0), history.at.index(1700.0)]
    zero, one = history.gpus
    assert min(history.at) == 1300.0
    assert len(history.at) == len(history.cpu_percent) == len(zero.power_watts)
    assert [zero.utilisation_percent[place] for place in places] == [None, 37]
    assert [one.utilisation_percent[place] for place in places] == [99, 99]
    assert one.memory_used_bytes[-1] == 0
    assert one.temperature_celsius[-1] == 61


@without_driver
async def test_without_a_driver_the_history_is_the_machines(driver: FakeDriver) -> None:
    del driver
    async with sampling() as sampler:
        await first(sampler, lambda snapshot: snapshot.cpu_percent is not None)

        history = sampler.history(600)

    assert history.gpus == ()
    assert history.ram_used_bytes[-1]
