"""The files of a batch, written out whole, in order, or not at all."""

import io
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import click
import pytest

from footplate_daemon.errors import Conflict, DaemonUnreachable, NotFound
from footplate_daemon.wire_batches import BatchStatus
from footplate_tui.cli.batch_results import Screen, copy, copy_ordered, lines_of, sink, wanted_files
from tests.cli.batch_values import batch


def line(custom_id: str, text: str = "") -> bytes:
    return json.dumps({"custom_id": custom_id, "text": text}).encode() + b"\n"


class Stored:
    """Files that come in pieces of a few bytes."""

    def __init__(self, piece: int = 7, **files: bytes) -> None:
        self.files = files
        self.piece = piece

    async def file_content(self, file_id: str) -> AsyncIterator[bytes]:
        content = self.files[file_id]
        for offset in range(0, len(content), self.piece):
            yield content[offset : offset + self.piece]


async def test_files_are_written_one_after_the_other() -> None:
    target = io.BytesIO()

    await copy(Stored(out=b"one\n", errors=b"two\n"), ["out", "errors"], target)

    assert target.getvalue() == b"one\ntwo\n"


async def test_lines_come_in_the_order_of_the_input() -> None:
    for seed in range(50):
        chance = random.Random(seed)
        ids = [str(number) for number in range(chance.randint(0, 40))]
        answers = {custom_id: line(custom_id, "ä" * chance.randint(0, 20)) for custom_id in ids}
        shuffled = chance.sample(ids, len(ids))
        cut = chance.randint(0, len(ids))
        stored = Stored(
            chance.randint(1, 50),
            asked=b"".join(map(line, ids)),
            out=b"".join(answers[custom_id] for custom_id in shuffled[:cut]),
            errors=b"".join(answers[custom_id] for custom_id in shuffled[cut:]),
        )
        target = io.BytesIO()

        await copy_ordered(stored, ["out", "errors"], "asked", target)

        assert target.getvalue() == b"".join(answers.values())


async def test_what_was_not_answered_is_left_out() -> None:
    target = io.BytesIO()

    await copy_ordered(
        Stored(asked=line("a") + line("b") + b"\n", out=line("b", "x")), ["out"], "asked", target
    )

    assert target.getvalue() == line("b", "x")


async def test_lines_are_put_together_from_pieces() -> None:
    stored = Stored(3, it=b"one\n\ntwo\nthree")

    assert [line async for line in lines_of(stored.file_content("it"))] == [b"one", b"two", b"three"]


def test_a_file_is_there_only_once_it_is_whole(tmp_path: Path) -> None:
    wanted = tmp_path / "results.jsonl"
    wanted.write_text("old")

    with pytest.raises(DaemonUnreachable):
        write_half(wanted)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]

    with sink(wanted) as target:
        target.write(b"whole")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["whole"]


def write_half(path: Path) -> None:
    with sink(path) as target:
        target.write(b"half")
        raise DaemonUnreachable("Cut.")


def test_a_terminal_is_not_commanded_wherever_a_piece_is_cut() -> None:
    terminal = io.StringIO()
    screen = Screen(terminal)

    for byte in "ä\x9b31m\u202e\n".encode():
        screen.write(bytes([byte]))

    assert terminal.getvalue() == "ä<U+009B>31m<U+202E>\n"


def test_where_nothing_can_be_written_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(click.FileError) as refused, sink(tmp_path / "nowhere" / "results.jsonl"):
        pass

    assert str(tmp_path) in refused.value.format_message()


@pytest.mark.parametrize(
    ("errors", "everything", "files"),
    [
        (False, False, ["out"]),
        (True, False, ["bad"]),
        (False, True, ["out", "bad"]),
        (True, True, ["out", "bad"]),
    ],
)
def test_one_gets_the_files_one_names(errors: bool, everything: bool, files: list[str]) -> None:
    ended = batch(BatchStatus.COMPLETED, output_file_id="out", error_file_id="bad")

    assert wanted_files(ended, errors=errors, everything=everything) == files


def test_what_is_not_there_is_explained() -> None:
    with pytest.raises(Conflict) as early:
        wanted_files(batch(), errors=False, everything=False)
    with pytest.raises(NotFound) as spotless:
        wanted_files(batch(BatchStatus.COMPLETED, output_file_id="out"), errors=True, everything=False)
    with pytest.raises(NotFound) as hopeless:
        wanted_files(batch(BatchStatus.COMPLETED, error_file_id="bad"), errors=False, everything=False)

    assert "--follow" in (early.value.hint or "")
    assert "No line" in spotless.value.message
    assert "--errors" in (hopeless.value.hint or "")
