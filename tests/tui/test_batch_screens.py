"""Batches against a fake daemon: sending, watching, cancelling, retrying, saving, comparing."""

from pathlib import Path
from typing import Any

import pytest
from tests.fakes.daemon import FakeDaemon
from tests.fakes.work import batch_progress
from tests.tui.conftest import Open, Terminal, rows_of, seen
from textual import events
from textual.widgets import Input

from footplate_daemon import errors
from footplate_daemon.wire_batches import BatchComparison, ComparedAnswer, ComparedLine, ComparedSide
from footplate_tui.screens.attach import AttachScreen
from footplate_tui.screens.batch import BatchScreen
from footplate_tui.screens.batches import BatchesScreen
from footplate_tui.screens.batches_compared import PAGE, BatchesComparedScreen
from footplate_tui.widgets.rows import Rows

SIZES = [(80, 24), (200, 60), (50, 12)]
LINE = '{"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": {"input": "x"}}\n'
RUNNING: dict[str, Any] = {
    "counts": (400, 100, 0),
    "model": "guide",
    "in_flight": 8,
    "concurrency": 8,
    "lines_per_second": 2.0,
    "output_tokens_per_second": 120.0,
    "eta_seconds": 150.0,
}
FAILED: dict[str, Any] = {
    "status": "completed",
    "completed_at": 1_700_000_060,
    "counts": (400, 398, 2),
    "output_file_id": "file-out",
    "error_file_id": "file-err",
    "errors": [
        {"code": "context_length", "status_code": 400, "count": 2, "example": "Too long.\x1b[2J"},
    ],
    "first_failed": [
        {"line": 7, "custom_id": "row-7\x1b[2J", "code": "context_length", "message": "Too long."},
    ],
}


async def open_batches(terminal: Terminal) -> BatchesScreen:
    await terminal.until_shown("guide")
    await terminal.pilot.press("f10")
    screen = await terminal.until_on(BatchesScreen)
    await terminal.until(lambda: "Asking" not in seen(terminal))
    return screen


async def until_rows(terminal: Terminal) -> None:
    await terminal.until(lambda: rows_of(terminal)[0] != "")


def names_in(folder: Path) -> list[str]:
    """What lies in a folder, but for what the terminal remembers there."""
    return sorted(file.name for file in folder.glob("*.jsonl*"))


def comparison(lines: int) -> BatchComparison:
    """Two batches of the same input; every second answer differs."""
    sides = [
        ComparedSide(
            batch=batch_progress(f"batch_{number}").batch, models=(model,), answered=lines,
            failed=0, mean_characters=12.0, mean_output_tokens=4.0, mean_seconds=0.5, joules_per_line=30.0,
        )
        for number, model in ((1, "guide"), (2, "qwen3-8b"))
    ]  # fmt: skip
    compared = []
    for number in range(lines):
        texts = ("The same.", "The same." if number % 2 else "The other.")
        answers = [
            ComparedAnswer(status_code=200, text=text, characters=len(text), output_tokens=3, seconds=0.5)
            for text in texts
        ]
        compared.append(
            ComparedLine(
                custom_id=f"row-{number}", prompt=f"Question {number}?", first=answers[0], second=answers[1]
            )
        )
    return BatchComparison(
        first=sides[0], second=sides[1], common=lines, differing_inputs=0, same_answers=lines // 2,
        lines=tuple(compared),
    )  # fmt: skip


# The list.


async def test_without_batches_the_list_says_what_one_is(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon) as terminal:
        await open_batches(terminal)

        await terminal.until(lambda: "No batch yet." in seen(terminal))
        assert '"url": "/v1/chat/completions"' in seen(terminal)
        await daemon.go_down()
        await terminal.until(lambda: "footplate up" in seen(terminal))
        await daemon.show_batches(batch_progress("batch_1"))
        await daemon.come_back()
        await until_rows(terminal)


@pytest.mark.parametrize("size", SIZES)
async def test_the_list_shows_how_far_each_is_and_what_it_waits_for(
    size: tuple[int, int], daemon: FakeDaemon, open_terminal: Open
) -> None:
    waiting = {"reason": "quiet time", "message": "Somebody chats; it goes on a minute later."}
    await daemon.show_batches(
        batch_progress("batch_2", **RUNNING),
        batch_progress("batch_1", counts=(10, 0, 0), waiting=waiting, input_filename="night\x1b[2J.jsonl"),
    )

    async with open_terminal(daemon, size=size) as terminal:
        await open_batches(terminal)
        await until_rows(terminal)

        assert rows_of(terminal)[0].startswith("●")
        assert " 25%" in rows_of(terminal)[0]
        assert rows_of(terminal)[1].startswith("◐")
        assert "● 1 running   ◐ 1 waiting" in seen(terminal)
        assert "\x1b" not in seen(terminal)
        await terminal.pilot.press("down")
        await terminal.until(lambda: "Somebody chats" in seen(terminal))
        if size[0] > 150:
            assert all(part in rows_of(terminal)[0] for part in ("100/400", "2.0/s", "120", "~2 min 30 s"))


async def test_a_batch_goes_on_while_the_highlight_stays(daemon: FakeDaemon, open_terminal: Open) -> None:
    await daemon.show_batches(batch_progress("batch_2", **RUNNING), batch_progress("batch_1", **FAILED))

    async with open_terminal(daemon) as terminal:
        await open_batches(terminal)
        await until_rows(terminal)
        await terminal.pilot.press("down")
        await daemon.change_batch("batch_2", counts=(400, 200, 0))
        await terminal.until(lambda: " 50%" in rows_of(terminal)[0])
        new = batch_progress("batch_3", status="validating")
        await daemon.show_batches(new, *daemon.batches_known)
        await terminal.until(lambda: "checked" in rows_of(terminal)[0])

        rows = terminal.app.screen.query_one(Rows)
        assert rows.highlighted == 2
        assert "Too long.␛[2J" in seen(terminal)


async def test_a_cut_line_is_mended(daemon: FakeDaemon, open_terminal: Open) -> None:
    await daemon.show_batches(batch_progress("batch_1", **RUNNING))

    async with open_terminal(daemon) as terminal:
        await open_batches(terminal)
        await until_rows(terminal)
        await daemon.go_down()
        await daemon.change_batch("batch_1", counts=(400, 300, 0))
        await daemon.come_back()

        await terminal.until(lambda: " 75%" in rows_of(terminal)[0])


async def test_keys_that_come_in_one_go_keep_their_order(daemon: FakeDaemon, open_terminal: Open) -> None:
    await daemon.show_batches(batch_progress("batch_2", **FAILED), batch_progress("batch_1", **FAILED))

    async with open_terminal(daemon) as terminal:
        await open_batches(terminal)
        await until_rows(terminal)
        terminal.app.post_message(events.Key("space", " "))
        terminal.app.post_message(events.Key("down", None))

        await terminal.until(lambda: terminal.app.screen.query_one(Rows).highlighted == 1)
        await terminal.until(lambda: rows_of(terminal)[0].startswith("◆"))


# Submitting.


async def test_a_file_is_chosen_sent_and_becomes_a_batch_of_what_its_lines_ask(
    daemon: FakeDaemon, open_terminal: Open, tmp_path: Path
) -> None:
    file = tmp_path / "night.jsonl"
    file.write_text(LINE)

    async with open_terminal(daemon) as terminal:
        await open_batches(terminal)
        await terminal.pilot.press("n")
        asking = await terminal.until_on(AttachScreen)
        asking.query_one(Input).value = str(file)
        await terminal.pilot.press("enter")
        await terminal.until(lambda: "night.jsonl" in rows_of(terminal)[0])

        assert daemon.uploaded == [file]
        assert daemon.batch_wishes[0].endpoint == "/v1/embeddings"
        await terminal.until(lambda: terminal.app.screen.query_one(Rows).highlighted == 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("no json\n", "is no JSON"),
        ('{"custom_id": "1"}\n', "names no url"),
    ],
)
async def test_a_file_that_is_no_batch_is_told_before_it_is_sent(
    text: str, said: str, daemon: FakeDaemon, open_terminal: Open, tmp_path: Path
) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(text)

    async with open_terminal(daemon) as terminal:
        screen = await open_batches(terminal)
        screen.submit(file)

        await terminal.until(lambda: said in seen(terminal))
        assert daemon.uploaded == []


async def test_what_the_daemon_refuses_is_told(
    daemon: FakeDaemon, open_terminal: Open, tmp_path: Path
) -> None:
    file = tmp_path / "night.jsonl"
    file.write_text(LINE)
    daemon.refuse_next(errors.TooLarge("The disk is full.", hint="Delete files."))

    async with open_terminal(daemon) as terminal:
        screen = await open_batches(terminal)
        screen.submit(file)

        await terminal.until(lambda: "The disk is full. Delete files." in seen(terminal))


# Cancelling, retrying, saving.


async def test_a_batch_is_cancelled_by_a_key_pressed_twice(daemon: FakeDaemon, open_terminal: Open) -> None:
    await daemon.show_batches(batch_progress("batch_1", **RUNNING))

    async with open_terminal(daemon) as terminal:
        await open_batches(terminal)
        await until_rows(terminal)
        await terminal.pilot.press("c")
        await terminal.until(lambda: "Cancel questions.jsonl?" in seen(terminal))
        await terminal.pilot.press("escape")
        await terminal.until(lambda: "Cancel questions.jsonl?" not in seen(terminal))
        assert daemon.batches_known[0].batch.status.value == "in_progress"
        await terminal.pilot.press("c", "c")
        await terminal.until(lambda: rows_of(terminal)[0].startswith("○"))
        await terminal.pilot.press("c")

        await terminal.until(lambda: "It has ended." in seen(terminal))


async def test_what_failed_is_retried_and_where_nothing_did_that_is_said(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    done = {**FAILED, "counts": (10, 10, 0), "errors": [], "first_failed": []}
    await daemon.show_batches(batch_progress("batch_2", **done), batch_progress("batch_1", **FAILED))

    async with open_terminal(daemon) as terminal:
        await open_batches(terminal)
        await until_rows(terminal)
        await terminal.pilot.press("r")
        await terminal.until(lambda: "No line failed." in seen(terminal))
        await terminal.pilot.press("down", "r")
        await terminal.until(lambda: len(daemon.batches_known) == 3)

        assert daemon.retried == ["batch_1"]


async def test_results_are_saved_with_errors_beside_and_nothing_is_replaced_unasked(
    daemon: FakeDaemon, open_terminal: Open, tmp_path: Path
) -> None:
    await daemon.show_batches(batch_progress("batch_1", **FAILED))
    daemon.contents = {"file-out": b'{"answer": 1}\n', "file-err": b'{"error": 1}\n'}
    file = tmp_path / "out.jsonl"
    file.write_text("mine")

    async with open_terminal(daemon) as terminal:
        screen = await open_batches(terminal)
        await until_rows(terminal)
        await terminal.pilot.press("s")
        await terminal.until(lambda: screen.input.value == "questions-results.jsonl")
        screen.input.value = str(file)
        await terminal.pilot.press("enter")
        await terminal.until(lambda: "is there already" in seen(terminal))
        assert file.read_text() == "mine"
        await terminal.pilot.press("enter")
        await terminal.until(lambda: "Written: " in seen(terminal))

        assert file.read_bytes() == b'{"answer": 1}\n'
        assert (tmp_path / "out-errors.jsonl").read_bytes() == b'{"error": 1}\n'
        assert names_in(tmp_path) == ["out-errors.jsonl", "out.jsonl"]


async def test_results_that_are_gone_or_cannot_be_written_are_told(
    daemon: FakeDaemon, open_terminal: Open, tmp_path: Path
) -> None:
    await daemon.show_batches(batch_progress("batch_1", **FAILED))

    async with open_terminal(daemon, size=(160, 40)) as terminal:
        screen = await open_batches(terminal)
        await until_rows(terminal)
        await terminal.pilot.press("s")
        await terminal.until(lambda: screen.is_typing)
        screen.input.value = str(tmp_path / "out.jsonl")
        await terminal.pilot.press("enter")
        await terminal.until(lambda: "There is no file file-out. It has expired." in seen(terminal))
        screen.input.value = str(tmp_path / "nowhere" / "out.jsonl")
        await terminal.pilot.press("enter")

        await terminal.until(lambda: "No such file or directory" in seen(terminal))
        assert names_in(tmp_path) == []


# One batch.


@pytest.mark.parametrize("size", SIZES)
async def test_one_batch_is_shown_whole_until_it_has_ended(
    size: tuple[int, int], daemon: FakeDaemon, open_terminal: Open
) -> None:
    await daemon.show_batches(batch_progress("batch_1", **RUNNING))

    async with open_terminal(daemon, size=size) as terminal:
        await open_batches(terminal)
        await until_rows(terminal)
        await terminal.pilot.press("enter")
        await terminal.until(lambda: isinstance(terminal.app.screen, BatchScreen))
        await terminal.until(lambda: "100 answered, 0 failed, 300 left" in seen(terminal))
        await daemon.change_batch("batch_1", **FAILED)
        await terminal.until(lambda: "Errors by kind" in seen(terminal))

        text = seen(terminal)
        assert "context_length (400): Too long.␛[2J" in text
        assert "row-7␛[2J" in text
        assert "\x1b" not in text
        await terminal.pilot.press("r")
        await terminal.until(lambda: daemon.retried == ["batch_1"])


async def test_bad_lines_are_all_listed(daemon: FakeDaemon, open_terminal: Open) -> None:
    bad = [{"code": "invalid_json", "message": "This is no JSON.", "line": line} for line in range(1, 60)]
    await daemon.show_batches(batch_progress("batch_1", status="failed", failed_at=1, bad_lines=bad))

    async with open_terminal(daemon) as terminal:
        await open_batches(terminal)
        await until_rows(terminal)
        await terminal.until(lambda: "line 1: This is no JSON.  and 58 more" in seen(terminal))
        await terminal.pilot.press("enter")

        await terminal.until(lambda: "     59 invalid_json  This is no JSON." in seen(terminal))


# Comparing.


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
async def test_two_batches_are_compared_line_by_line(
    size: tuple[int, int], daemon: FakeDaemon, open_terminal: Open
) -> None:
    await daemon.show_batches(batch_progress("batch_2", **FAILED), batch_progress("batch_1", **FAILED))
    daemon.comparison = comparison(PAGE + 40)

    async with open_terminal(daemon, size=size) as terminal:
        await open_batches(terminal)
        await until_rows(terminal)
        await terminal.pilot.press("v")
        await terminal.until(lambda: "Mark the other batch first" in seen(terminal))
        await terminal.pilot.press("space")
        await terminal.until(lambda: rows_of(terminal)[0].startswith("◆"))
        await terminal.pilot.press("down", "v")
        await terminal.until(lambda: isinstance(terminal.app.screen, BatchesComparedScreen))
        await terminal.until(lambda: "The other." in seen(terminal))

        assert "240 lines in both   120 answers the same" in seen(terminal)
        assert "A  guide" in seen(terminal)
        assert rows_of(terminal)[0].startswith("≠ row-0")
        await terminal.pilot.press("d")
        await terminal.until(lambda: rows_of(terminal)[1].startswith("≠ row-2"))
        await terminal.pilot.press("end")
        await terminal.until(lambda: daemon.compared_from == [1, PAGE + 1])
        await terminal.until(lambda: terminal.app.screen.query_one(Rows).row_count == (PAGE + 40) // 2)
        await terminal.pilot.press("home", "y")
        await terminal.until(lambda: "The other." in terminal.app.clipboard)


async def test_batches_that_cannot_be_compared_are_told(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon) as terminal:
        await open_batches(terminal)
        await terminal.app.push_screen(BatchesComparedScreen("batch_1", "batch_2"))

        await terminal.until(lambda: "There is no batch batch_1." in seen(terminal))
