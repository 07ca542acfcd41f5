"""A batch survives the end of the daemon at any step of its life: every line is answered, and recorded once.

The daemon is not really killed here: at the chosen step, and from then on, every step raises, so that
nothing more is written. What a power cut may take is taken as well: what was written to a file and not yet
synced, and the database's last moments.
"""

import json
import random
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest

from footplate_daemon.errors import Conflict
from footplate_daemon.gateway.answering import Ask
from footplate_daemon.settings import Batches as BatchSettings
from footplate_daemon.wire_batches import BatchStatus
from tests.batches.harness import ANN, Play, Running, ids, line, running, snapshot, until, written

LINES = 60
STEPS = (
    "created",
    "handing lines on",
    "looked through",
    "in progress",
    "mended",
    "before append",
    "within append",
    "between append and sync",
    "after sync",
    "before rows",
    "after rows",
    "cancelling",
    "finalizing",
    "finished",
)
SEEDS = 140
BLOCK = 14


class Killed(Exception):
    """Here the daemon ended."""


class Reaper:
    """Ends the daemon at a step, the so many-th time that it comes there."""

    def __init__(self, folder: Path, dice: random.Random, step: str | None, nth: int = 1) -> None:
        self.is_dead = False
        self._folder = folder
        self._dice = dice
        self._step = step
        self._left = nth
        self._before: bytes | None = None

    def __call__(self, step: str) -> None:
        if not self.is_dead and step == "before rows" and self._dice.random() < 0.5:
            self._before = snapshot(self._folder)
        if step == self._step and not self.is_dead:
            self._left -= 1
            self.is_dead = self._left <= 0
        if self.is_dead:
            raise Killed(step)

    def cut_power(self) -> None:
        """Take what a power cut may take: the database's last moments, and ends of files.

        What is synced but in no row is taken too: it has to be asked again then.
        """
        if self._before is not None and self._dice.random() < 0.5:
            for file in self._folder.glob("batches.db*"):
                file.unlink()
            (self._folder / "batches.db").write_bytes(self._before)
        with closing(sqlite3.connect(self._folder / "batches.db")) as database:
            query = "SELECT output_file_id, output_bytes, error_file_id, error_bytes, status FROM batches"
            for output, output_bytes, error, error_bytes, status in database.execute(query):
                if not BatchStatus(status).is_final:
                    self._spoil(self._folder / "files" / output, output_bytes)
                    self._spoil(self._folder / "files" / error, error_bytes)

    def _spoil(self, file: Path, known: int) -> None:
        size = file.stat().st_size if file.exists() else 0
        if size > known and self._dice.random() < 0.7:
            with file.open("r+b") as spoiled:
                spoiled.truncate(self._dice.randint(known, size))
                spoiled.seek(0, 2)
                spoiled.write(self._dice.choice([b"", b"\0" * 50, b'{"id": "batch_req_', b"{}\n"]))


@pytest.mark.parametrize("block", range(SEEDS // BLOCK))
async def test_every_line_is_recorded_once_wherever_the_daemon_ends(tmp_path: Path, block: int) -> None:
    for seed in range(block * BLOCK, block * BLOCK + BLOCK):
        folder = tmp_path / str(seed)
        folder.mkdir()
        await live_through(folder, seed)


async def live_through(folder: Path, seed: int) -> None:
    """Kill a daemon at one step after the other, then let the last one finish; check what it leaves."""
    dice = random.Random(seed)
    play = Play(answers=answers)
    cancels = seed % 3 == 0
    kills = 0
    for step in [STEPS[seed % len(STEPS)], *dice.choices(STEPS, k=dice.randint(0, 3))]:
        reaper = Reaper(folder, dice, step, dice.randint(1, 4))
        await live(folder, play, reaper, cancels=cancels)
        is_power_cut = dice.random() < 0.5
        if is_power_cut:
            reaper.cut_power()
        kills += reaper.is_dead or is_power_cut
    batch_id = await live(folder, play, Reaper(folder, dice, None), cancels=cancels)

    assert batch_id is not None
    await check(folder, batch_id, play, kills, cancels=cancels)


async def live(folder: Path, play: Play, reaper: Reaper, *, cancels: bool) -> str | None:
    """Run a daemon until it is killed, or the batch has ended: give its id then."""
    rules = BatchSettings(max_concurrency=8, min_free_mib=0)
    with suppress(Killed, ExceptionGroup):
        async with running(folder, play, fault=reaper, rules=rules) as batch:
            rows = await batch.batches.store.page(ANN, 10)
            row = rows[0] if rows else await batch.submit(CONTENT)
            if cancels:
                await until(
                    lambda: (
                        reaper.is_dead or sum(play.asked.values()) > LINES // 2 or has_ended(batch, row.id)
                    )
                )
                with suppress(Conflict):
                    await batch.batches.cancel(row.id, ANN)
            await until(lambda: reaper.is_dead or has_ended(batch, row.id))
            if not reaper.is_dead:
                return row.id
    return None


def has_ended(batch: Running, batch_id: str) -> bool:
    return batch.batches.live(batch_id) is None


async def check(folder: Path, batch_id: str, play: Play, kills: int, *, cancels: bool) -> None:
    async with running(folder, play) as batch:
        row = await batch.batches.get(batch_id, ANN)
        lines = await batch.batches.store.lines(row.key, first=1, limit=1000)
        counted = await batch.batches.store.errors(row.key)
        output, errors = batch.output(row), batch.errors(row)
        known = await batch.files.store.needed()

    assert row.status in ({"completed", "cancelled"} if cancels else {"completed"})
    if row.total:  # else it was cancelled before it was looked through
        assert ids([*output, *errors]) == sorted(str(number) for number in range(LINES))
        assert len({each["id"] for each in [*output, *errors]}) == LINES
    assert (row.completed, row.failed) == (len(output), len(errors))
    assert (row.input_tokens, row.output_tokens) == (5 * len(output), 3 * len(output))
    assert sum(count for _, count in counted) == len(errors)
    assert max(play.asked.values(), default=0) <= kills + 1
    raw = {1: file_bytes(folder, row.output_file_id), 2: file_bytes(folder, row.error_file_id)}
    for each in lines:
        assert each.answer_offset is not None
        assert each.answer_length is not None
        told = json.loads(raw[each.state][each.answer_offset : each.answer_offset + each.answer_length])
        assert told["custom_id"] == each.custom_id
    assert {file.name for file in (folder / "files").iterdir()} <= known


def file_bytes(folder: Path, name: str) -> bytes:
    path = folder / "files" / name
    return path.read_bytes() if path.exists() else b""


def answers(ask: Ask) -> int | None:
    """Every seventh line fails."""
    return 400 if int(str(ask.body["messages"][-1]["content"])) % 7 == 0 else None


CONTENT = written(line(str(number), model="m" if number % 2 else "other") for number in range(LINES))


@pytest.mark.parametrize("lost", ["half", "all", "removed"])
async def test_answers_that_the_disk_lost_are_asked_again(tmp_path: Path, lost: str) -> None:
    play = Play(answers=answers)
    async with running(tmp_path, play) as batch:
        made = await batch.submit(CONTENT)
        play.gate.set()
        await batch.until(made.id, lambda row: row.completed > 0)
        row = await batch.batches.get(made.id, ANN)
    with closing(sqlite3.connect(tmp_path / "batches.db")) as database, database:
        database.execute(
            "UPDATE batches SET status = 'in_progress', finalizing_at = NULL, completed_at = NULL"
        )
        database.execute("DELETE FROM files WHERE purpose = 'batch_output'")
    output = tmp_path / "files" / row.output_file_id
    if lost == "removed":
        output.unlink()
    else:
        with output.open("r+b") as cut:
            cut.truncate(output.stat().st_size // 2 if lost == "half" else 0)

    async with running(tmp_path, play) as batch:
        row = await batch.ended(made.id)
        output_lines, errors = batch.output(row), batch.errors(row)

    assert row.status == "completed"
    assert ids([*output_lines, *errors]) == sorted(str(number) for number in range(LINES))
    assert row.output_tokens == 3 * row.completed == 3 * len(output_lines)
