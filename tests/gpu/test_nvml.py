"""NVML through its C ABI: what is read, what is not told, and a driver that is gone, new or back."""

import asyncio
import threading

import pytest
from tests.fakes.nvml.driver import GIB, FakeDriver, with_driver, without_driver

from footplate_daemon.gpu.nvml import GpuLost, GpuMemory, NoGpu, Nvml, NvmlThread


@with_driver
async def test_everything_of_a_gpu_is_read(driver: FakeDriver) -> None:
    driver.change({"1.compute": f"4711:{2 * GIB} 4712:-", "1.graphics": f"4711:{GIB} 99:{GIB}"})
    nvml = Nvml()

    reading = nvml.read(1)

    assert (nvml.count(), nvml.driver_version()) == (2, "570.86.15")
    assert (reading.index, reading.uuid, reading.name) == (1, "GPU-1", "Fake GPU 1")
    assert reading.memory == GpuMemory(total=24 * GIB, reserved=GIB, used=0, free=23 * GIB)
    assert reading.processes == {4711: 2 * GIB, 4712: None, 99: GIB}
    assert reading.utilisation_percent == 37
    assert (reading.temperature_celsius, reading.temperature_limit_celsius) == (61, 90)
    assert (reading.power_watts, reading.power_limit_watts) == (215.5, 350.0)
    assert reading.energy_joules == 3_600_000
    assert (reading.sm_clock_mhz, reading.sm_clock_limit_mhz, reading.memory_clock_mhz) == (1905, 2520, 9751)
    assert (reading.pcie_generation, reading.pcie_lanes) == (4, 16)
    assert (reading.pcie_rx_bytes_per_second, reading.pcie_tx_bytes_per_second) == (1_200_000, 300_000)
    assert reading.throttle_reasons == ("power cap", "heat")
    assert reading.fan_percent == 45


@with_driver
async def test_what_a_gpu_does_not_support_is_none_and_never_zero(driver: FakeDriver) -> None:
    driver.change({key: None for key in driver.values if key.startswith("0.")})
    driver.change({"0.name": "Fake GPU", "0.uuid": "GPU-0"})

    reading = Nvml().read(0)

    told = {name for name, value in vars(reading).items() if value is not None}
    assert told == {"index", "uuid", "name"}


@with_driver
async def test_an_idle_gpu_is_not_throttled(driver: FakeDriver) -> None:
    driver.change({"0.throttle": 1})

    assert Nvml().read(0).throttle_reasons == ()


@with_driver
async def test_a_restarted_driver_is_opened_anew_within_the_same_call(driver: FakeDriver) -> None:
    nvml = Nvml()
    nvml.memory(0)

    driver.change({"generation": 2})

    assert nvml.memory(0) is not None
    driver.change({"generation": 3})
    assert nvml.count() == 2


@with_driver
async def test_a_lost_gpu_leaves_the_other_readable_and_is_read_again_when_it_is_back(
    driver: FakeDriver,
) -> None:
    nvml = Nvml()
    nvml.memory(0)

    driver.change({"0.error": 15})

    with pytest.raises(GpuLost, match="The GPU is lost"):
        nvml.memory(0)
    assert nvml.memory(1) is not None
    driver.change({"0.error": None})
    assert nvml.memory(0) is not None


@with_driver
async def test_a_gpu_that_is_no_longer_listed_is_lost(driver: FakeDriver) -> None:
    nvml = Nvml()
    nvml.memory(1)

    driver.change({"count": 1})

    with pytest.raises(GpuLost, match="no longer lists"):
        nvml.memory(1)


@with_driver
async def test_a_driver_newer_than_the_kernels_is_said_clearly(driver: FakeDriver) -> None:
    driver.change({"init": 18})

    with pytest.raises(NoGpu) as refused:
        Nvml().count()

    assert "was updated, and the one in the kernel is still the old one" in refused.value.message
    assert "Restart the machine" in (refused.value.hint or "")


@with_driver
async def test_an_error_without_words_of_ours_has_the_drivers(driver: FakeDriver) -> None:
    driver.change({"init": 77})

    with pytest.raises(NoGpu, match="An error of the fake driver"):
        Nvml().count()


@with_driver
async def test_a_driver_without_gpus_says_so(driver: FakeDriver) -> None:
    driver.change({"count": 0})

    with pytest.raises(NoGpu, match="finds no GPU"):
        Nvml().count()


@without_driver
async def test_no_driver_is_said_in_a_sentence(driver: FakeDriver) -> None:
    del driver
    with pytest.raises(NoGpu, match="This machine has no NVIDIA driver"):
        Nvml().count()


@with_driver
async def test_an_absent_driver_is_not_looked_for_at_every_question(driver: FakeDriver) -> None:
    driver.change({"init": 9})
    patient, eager = NvmlThread(retry_seconds=600), NvmlThread(retry_seconds=0)
    for thread in (patient, eager):
        with pytest.raises(NoGpu, match="has not loaded it"):
            await thread.ask(Nvml.count)

    driver.change({"init": 0})

    with pytest.raises(NoGpu, match="has not loaded it"):
        await patient.ask(Nvml.count)
    assert await eager.ask(Nvml.count) == 2


@with_driver
async def test_the_driver_is_asked_in_a_thread_and_one_thing_at_a_time(driver: FakeDriver) -> None:
    del driver
    thread = NvmlThread()
    at_once: list[int] = []
    asking = threading.Semaphore()

    def question(nvml: Nvml) -> int:
        assert asking.acquire(blocking=False)
        at_once.append(threading.get_ident())
        nvml.read(0)
        asking.release()
        return nvml.count()

    assert await asyncio.gather(*(thread.ask(question) for _ in range(20))) == [2] * 20
    assert threading.get_ident() not in at_once


@with_driver
async def test_a_driver_that_hangs_counts_as_lost_and_keeps_one_thread(driver: FakeDriver) -> None:
    del driver
    thread = NvmlThread(answer_seconds=2)
    let_go = threading.Event()
    asked: list[str] = []

    def hang(nvml: Nvml) -> int:
        asked.append("hang")
        let_go.wait(20)
        return nvml.count()

    for _ in range(2):
        with pytest.raises(GpuLost, match="has not answered"):
            await thread.ask(hang)

    assert asked == ["hang"]
    let_go.set()
    assert await thread.ask(Nvml.count) == 2
