"""`footplate gpu`: what it writes of a GPU, and what a real daemon tells of this machine."""

import asyncio
import json
import signal

from footplate_daemon import wire
from footplate_daemon.client import FootplateClient
from footplate_tui.cli import gpu
from tests.cli.conftest import SECONDS, Shell
from tests.fakes.daemon import engine

GB = 10**9
ENGINES = {"vllm-qwen3-8b": engine("vllm/qwen3-8b", memory_bytes=11 * GB)}


def shown(*gpus: wire.Sample, problem: str | None = None) -> list[str]:
    snapshot = wire.GpuSnapshot(
        at=1.0, gpus=gpus, problem=problem, cpu_percent=34, ram_total_bytes=64 * GB, ram_used_bytes=28 * GB
    )
    return list(gpu.lines(snapshot, ENGINES))


def test_a_gpu_is_a_row_and_each_process_is_another() -> None:
    ours = wire.GpuProcess(pid=7, name="vllm", owner="a", memory_bytes=11 * GB, engine="vllm-qwen3-8b")
    foreign = wire.GpuProcess(pid=8, name="\x1b[2Jevil", owner="anna")
    sample = wire.Sample(
        index=0,
        name="NVIDIA H200",
        utilisation_percent=93,
        memory_total_bytes=24 * GB,
        memory_used_bytes=18 * GB,
        memory_free_bytes=6 * GB,
        throttle_reasons=("power cap", "heat"),
        fan_percent=45,
        processes=(ours, foreign),
    )

    head, row, facts, _, _, first, second, _, machine = shown(sample)

    assert head.split() == " ".join(gpu.HEADS).split()
    assert row.split("  ")[-1].strip() == "power cap, heat"
    assert "93%  18.0 of 24.0 GB  6.0 GB  -" in row
    assert facts == "  GPU 0: fan 45%"
    assert first.split() == ["0", "7", "a", "vllm/qwen3-8b", "11.0", "GB"]
    assert "\x1b" not in second
    assert second.endswith("not told")
    assert machine == "CPU 34%   RAM 28.0 of 64.0 GB"


def test_a_lost_gpu_says_why() -> None:
    lines = shown(wire.Sample(index=1, name="NVIDIA H200", problem="The GPU is lost."))

    assert lines[1].endswith("lost")
    assert lines[2] == "! GPU 1: The GPU is lost."


def test_without_a_gpu_the_engines_ram_is_shown() -> None:
    lines = shown(problem="This machine has no NVIDIA driver.")

    assert lines[0] == "This machine has no NVIDIA driver."
    assert lines[-1] == "vllm/qwen3-8b  11.0 GB"


def test_this_machine_is_told(footplate: Shell) -> None:
    told = wire.GpuSnapshot.model_validate_json(footplate("gpu", "--json").stdout)

    listed = footplate("gpu")

    assert told.ram_total_bytes
    assert bool(told.gpus) != bool(told.problem)
    assert "RAM " in listed.stdout
    assert "\x1b" not in listed.stdout


def test_the_daemon_remembers_what_was_read(footplate: Shell) -> None:
    async def asked() -> tuple[wire.GpuSnapshot, wire.GpuHistory]:
        async with FootplateClient(footplate.paths.socket) as client:
            return await client.gpu(), await client.gpu_history(60)

    newest, remembered = asyncio.run(asked())

    assert round(newest.at, 2) in remembered.at
    assert newest.ram_used_bytes in remembered.ram_used_bytes
    assert [trace.uuid for trace in remembered.gpus] == [gpu.uuid for gpu in newest.gpus]


def test_it_is_watched_until_it_is_interrupted(footplate: Shell) -> None:
    watching = footplate.start("gpu", "--watch", "--json")
    assert watching.stdout is not None
    first, second = (json.loads(watching.stdout.readline()) for _ in range(2))

    watching.send_signal(signal.SIGINT)
    watching.communicate(timeout=SECONDS)

    assert second["at"] > first["at"]
    assert watching.returncode == 130
