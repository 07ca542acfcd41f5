"""A full disk makes a batch pause, and it goes on by itself when there is room; no line is lost."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from footplate_daemon.batches.output import DiskFull, OutputFile
from footplate_daemon.batches.shapes import Shower
from footplate_daemon.errors import Unavailable
from footplate_daemon.settings import Batches as BatchSettings
from footplate_daemon.store.batches import StoredBatch
from footplate_daemon.wire_batches import BatchProgress, WaitsFor
from tests.batches.harness import ANN, Running, ids, many, running, until

SIZE_MIB = 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, leave: int = 0) -> Path:
    """Use all of a disk, but for so many bytes."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        with suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        file.truncate(file.tell() - leave)
    return filler


async def waiting_for(batch: Running, row: StoredBatch) -> BatchProgress:
    return await Shower(batch.batches).progress(await batch.batches.get(row.id, ANN))


async def test_a_batch_pauses_on_a_full_disk_and_goes_on(small_disk: Path) -> None:
    async with running(small_disk) as batch:
        batch.play.gate.clear()
        made = await batch.submit(many(400))
        await batch.until(made.id, lambda row: row.status == "in_progress")
        filler = fill(small_disk)
        batch.play.gate.set()
        await until(lambda: batch.batches.recorder.problem is not None)
        paused = await waiting_for(batch, made)
        filler.unlink()
        row = await batch.ended(made.id)
        output = batch.output(row)

    assert paused.waiting is not None
    assert paused.waiting.reason is WaitsFor.DISK
    assert "Free disk space" in paused.waiting.message
    assert row.completed == 400
    assert ids(output) == sorted(f"line-{number}" for number in range(400))


async def test_a_daemon_that_ends_while_the_disk_is_full_loses_no_line(small_disk: Path) -> None:
    async with running(small_disk) as batch:
        batch.play.gate.clear()
        made = await batch.submit(many(400))
        await batch.until(made.id, lambda row: row.status == "in_progress")
        filler = fill(small_disk, leave=40_000)
        batch.play.gate.set()
        await until(lambda: batch.batches.recorder.problem is not None)
    filler.unlink()
    async with running(small_disk) as batch:
        row = await batch.ended(made.id)
        output = batch.output(row)

    assert ids(output) == sorted(f"line-{number}" for number in range(400))


async def test_a_batch_pauses_while_some_room_is_left_for_others(tmp_path: Path) -> None:
    everything = BatchSettings(min_free_mib=2**40)
    async with running(tmp_path, rules=everything) as batch:
        made = await batch.submit(many(5))
        await until(lambda: batch.batches.recorder.problem is not None)
        paused = await waiting_for(batch, made)
        batch.batches.take_up(BatchSettings(min_free_mib=0))
        row = await batch.ended(made.id)

    assert paused.waiting is not None
    assert "min_free_mib" in paused.waiting.message
    assert row.completed == 5


async def test_an_upload_that_does_not_fit_leaves_nothing(small_disk: Path) -> None:
    async with running(small_disk) as batch:
        with pytest.raises(Unavailable, match="No space left"):
            await batch.store(b"x" * (SIZE_MIB + 1) * 1024 * 1024)

        assert list((small_disk / "files").iterdir()) == []


def test_a_group_of_lines_that_does_not_fit_is_not_written_at_all(small_disk: Path) -> None:
    output = OutputFile(small_disk / "out", 0)
    output.append([b"first\n"])

    with pytest.raises(DiskFull):
        output.append([b"x" * 1000 + b"\n"] * 5000)
    output.append([b"second\n"])
    output.close()

    assert (small_disk / "out").read_bytes() == b"first\nsecond\n"
