"""The memory that engines share, with two GPUs, with lost ones, and with none."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from tests.fakes.nvml.driver import GIB, FakeDriver, with_driver, without_driver

from footplate_daemon import processes
from footplate_daemon.gpu.memory import HIDDEN, Memory
from footplate_daemon.gpu.nvml import GpuLost, NvmlThread
from footplate_daemon.processes import ProcessId
from footplate_daemon.switching.diagnosis import GpuHolder

GONE = ProcessId(4_194_305, 1.0)
"""A process that is no more: no pid is that large."""


def memory_of(engines: Mapping[str, ProcessId] | None = None, **options: object) -> Memory:
    return Memory(NvmlThread(retry_seconds=0), lambda: dict(engines or {}), **options)  # type: ignore[arg-type]  # one is enough


def beside(driver: FakeDriver, name: str) -> Path:
    return driver.file.with_name(name)


@contextmanager
def running(script: Path) -> Iterator[ProcessId]:
    """A process in a group of its own, as an engine is."""
    script.write_text("print(flush=True)\ninput()\n")
    program = [sys.executable, "-u", str(script), "--port", "8000"]
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        process = processes.identify(child.pid)
        assert process is not None
        yield process
        child.communicate(b"\n")


@with_driver
async def test_all_gpus_together_are_what_engines_share(driver: FakeDriver) -> None:
    driver.change({"0.memory.free": 5 * GIB})
    memory = memory_of()

    assert await memory.kind() == "gpu"
    assert await memory.capacity() == 46 * GIB
    assert await memory.free() == 28 * GIB


@with_driver
async def test_used_by_sums_the_processes_of_a_group_over_all_gpus(driver: FakeDriver) -> None:
    driver.change({"0.compute": f"10:{GIB} 11:{GIB} 12:-", "1.compute": f"10:{3 * GIB} 13:{GIB}"})

    used = await memory_of().used_by([ProcessId(10, 1.0), ProcessId(11, 1.0), ProcessId(12, 1.0)])

    assert used == 5 * GIB


@with_driver
async def test_memory_that_is_released_late_is_waited_for(driver: FakeDriver) -> None:
    driver.change({"0.compute": f"{GONE.pid}:{20 * GIB}", "0.memory.free": 3 * GIB})
    releases: list[Mapping[str, object]] = [{}, {"0.compute": ""}, {}, {"0.memory.free": 23 * GIB}]

    async def release(seconds: float) -> None:
        assert 0.02 <= seconds <= 0.05
        driver.change(releases.pop(0))

    assert await memory_of(pause=release).until_free(40 * GIB, [GONE]) is None
    assert releases == []


@with_driver
async def test_a_process_that_stays_listed_is_named_when_time_is_up(driver: FakeDriver) -> None:
    with running(beside(driver, "train.py")) as foreign:
        driver.change({"1.compute": f"{GONE.pid}:{2 * GIB} {foreign.pid}:{GIB}"})

        in_the_way = await memory_of().until_free(None, [GONE], timeout_seconds=0.1)

    assert in_the_way == (GpuHolder(GONE.pid, HIDDEN, "unknown", 2 * GIB, is_ours=True),)


@with_driver
async def test_a_foreign_process_that_holds_too_much_is_named_with_its_owner(driver: FakeDriver) -> None:
    with running(beside(driver, "train.py")) as foreign, running(beside(driver, "serve.py")) as engine:
        driver.change(
            {
                "0.memory.free": GIB,
                "0.compute": f"{engine.pid}:{5 * GIB} {foreign.pid}:{17 * GIB}",
            }
        )
        memory = memory_of({"vllm-gemma": engine})

        in_the_way = await memory.until_free(30 * GIB, timeout_seconds=0)

        owner = psutil.Process(foreign.pid).username()
        python = Path(sys.executable).name
        assert in_the_way == (
            GpuHolder(foreign.pid, f"{python} train.py", owner, 17 * GIB, is_ours=False),
            GpuHolder(engine.pid, f"{python} serve.py", owner, 5 * GIB, is_ours=True),
        )
        assert await memory.holders() == in_the_way


@with_driver
async def test_what_a_process_calls_itself_reaches_nobody_raw(driver: FakeDriver) -> None:
    with running(beside(driver, "\x1b]52;c;eHg=\x07\udcff.py")) as process:
        driver.change({"0.compute": f"{process.pid}:{GIB}"})

        (holder,) = await memory_of().holders()

    assert holder.name.endswith(" ?]52;c;eHg=?\N{REPLACEMENT CHARACTER}.py")


@with_driver
async def test_a_number_that_another_process_has_by_now_is_not_waited_for(driver: FakeDriver) -> None:
    with running(beside(driver, "serve.py")) as process:
        driver.change({"0.compute": f"{process.pid}:{GIB}"})
        former = ProcessId(process.pid, process.create_time - 10)

        assert await memory_of().until_free(None, [former], timeout_seconds=0) is None


@with_driver
async def test_a_gpu_that_is_lost_while_waiting_is_waited_for(driver: FakeDriver) -> None:
    driver.change({"0.compute": f"{GONE.pid}:{GIB}"})
    fates: list[Mapping[str, object]] = [
        {"0.error": 15, "1.error": 15},
        {"init": 9, "generation": 2},
        {"init": 0, "0.error": None, "1.error": None, "0.compute": ""},
    ]

    async def go_on(_: float) -> None:
        driver.change(fates.pop(0))

    assert await memory_of(pause=go_on).until_free(GIB, [GONE]) is None
    assert fates == []


@with_driver
async def test_a_gpu_that_stays_lost_is_an_error_and_never_free(driver: FakeDriver) -> None:
    memory = memory_of()
    assert await memory.capacity() == 46 * GIB

    driver.change({"0.error": 15, "1.error": 15})

    with pytest.raises(GpuLost, match="The GPU is lost"):
        await memory.until_free(None, [GONE], timeout_seconds=0)
    with pytest.raises(GpuLost):
        await memory.free()
    assert await memory.capacity() == 46 * GIB
    assert await memory.kind() == "gpu"
    driver.change({"init": 18, "generation": 2})
    with pytest.raises(GpuLost, match="was updated"):
        await memory.free()


@with_driver
async def test_one_lost_gpu_of_two_leaves_the_other_to_share(driver: FakeDriver) -> None:
    driver.change({"1.error": 15})

    assert await memory_of().capacity() == 23 * GIB


@with_driver
async def test_a_gpu_without_memory_of_its_own_shares_the_machines(driver: FakeDriver) -> None:
    driver.change({"count": 1, "0.memory.total": None, "0.memory.free": None})

    assert await memory_of().kind() == "ram"


@without_driver
async def test_without_a_gpu_ram_is_what_engines_share(driver: FakeDriver) -> None:
    memory = memory_of()

    total = psutil.virtual_memory().total
    assert await memory.kind() == "ram"
    assert total * 0.5 < await memory.capacity() < total
    assert 0 < await memory.free() <= total
    assert await memory.holders() == ()
    with running(beside(driver, "serve.py")) as process:
        assert await memory.used_by([process, GONE]) > 1024**2


@without_driver
async def test_without_a_gpu_nothing_is_waited_for_but_room(driver: FakeDriver) -> None:
    del driver
    memory = memory_of()

    assert await memory.until_free(None, [GONE], timeout_seconds=0) is None
    in_the_way = await memory.until_free(10**18, [GONE], timeout_seconds=0)
    assert in_the_way
    assert in_the_way[0].memory_bytes >= in_the_way[-1].memory_bytes > 0
