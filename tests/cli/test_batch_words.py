"""Batches in words."""

import pytest

from footplate_daemon.wire_batches import (
    BatchError,
    BatchErrors,
    BatchModel,
    BatchProgress,
    BatchStatus,
    BatchUsage,
    BatchWaiting,
    ErrorCount,
    FailedLine,
    WaitsFor,
)
from footplate_tui.cli import batch_words
from tests.cli.batch_values import ID, batch, progress

QUIET = BatchWaiting(reason=WaitsFor.QUIET_TIME, message="Somebody chatted 12 s ago.")


@pytest.mark.parametrize(
    ("status", "failed", "code"),
    [
        (BatchStatus.COMPLETED, 0, 0),
        (BatchStatus.COMPLETED, 3, 1),
        (BatchStatus.FAILED, 0, 4),
        (BatchStatus.EXPIRED, 3, 4),
        (BatchStatus.CANCELLED, 0, 4),
    ],
)
def test_a_script_learns_how_it_ended(status: BatchStatus, failed: int, code: int) -> None:
    assert batch_words.exit_code(batch(status, total=9, failed=failed)) == code


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (progress(), "in progress"),
        (progress(batch(BatchStatus.VALIDATING)), "validating"),
        (
            progress(batch(BatchStatus.VALIDATING), input_bytes=2_000_000, validated_bytes=500_000),
            "validating · 500 KB of 2.0 MB read",
        ),
        (
            progress(
                batch(total=2000, completed=118, failed=2),
                lines_per_second=12.5,
                output_tokens_per_second=874.0,
                eta_seconds=150.4,
            ),
            "in progress · 120 of 2,000 lines, 2 failed · 12.5 lines/s · 874 tok/s · about 2 min 30 s left",
        ),
        (progress(batch(BatchStatus.COMPLETED, total=1, completed=1)), "completed · 1 of 1 line"),
    ],
)
def test_one_line_says_how_far_it_is(told: BatchProgress, line: str) -> None:
    assert batch_words.state_line(told) == line


@pytest.mark.parametrize(
    ("told", "fraction"),
    [
        (progress(), None),
        (progress(batch(total=10, completed=2, failed=3)), 0.5),
        (progress(batch(BatchStatus.VALIDATING)), None),
        (progress(batch(BatchStatus.VALIDATING), input_bytes=0, validated_bytes=0), None),
        (progress(batch(BatchStatus.VALIDATING), input_bytes=8, validated_bytes=2), 0.25),
    ],
)
def test_a_bar_is_as_long_as_what_is_done(told: BatchProgress, fraction: float | None) -> None:
    assert batch_words.fraction(told) == fraction


@pytest.mark.parametrize(
    ("speed", "text"), [(0.053, "0.05"), (3.21, "3.2"), (12.5, "12.5"), (1240.4, "1,240")]
)
def test_a_rate_has_as_many_digits_as_mean_something(speed: float, text: str) -> None:
    assert batch_words.lines_rate(speed) == text


def test_what_it_waits_for_is_said_with_its_end() -> None:
    window = BatchWaiting(reason=WaitsFor.BATCH_WINDOW, message="batch_window opens at 01:00.", until=0.0)

    assert batch_words.waits(progress(waiting=QUIET)) == "waits for quiet time: Somebody chatted 12 s ago."
    assert batch_words.waits(progress(waiting=window)).startswith("waits for batch window (until 19")


def test_what_the_status_says_is_not_said_again() -> None:
    looked_at = BatchWaiting(reason=WaitsFor.VALIDATION, message="Its file is being looked through.")

    assert batch_words.waits(progress(batch(BatchStatus.VALIDATING), waiting=looked_at)) == ""


def test_the_list_has_a_row_for_each() -> None:
    heads, first, second = batch_words.lines(
        [
            progress(batch(total=2000, completed=100, metadata={"name": "evals"}), waiting=QUIET),
            progress(
                batch(BatchStatus.COMPLETED, total=5, completed=3, failed=2), input_filename="a\x1b.jsonl"
            ),
        ]
    )

    assert heads.split() == list(batch_words.HEADS)
    assert "in progress (quiet time)  100/2,000" in first
    assert first.endswith("  evals")
    assert "completed" in second
    assert second.endswith("  a␛.jsonl")


def test_an_empty_list_says_how_to_make_one() -> None:
    assert list(batch_words.lines([])) == [batch_words.NO_BATCHES]


def test_all_of_a_batch_is_shown() -> None:
    told = progress(
        batch(
            total=10,
            completed=7,
            failed=2,
            usage=BatchUsage(input_tokens=700, output_tokens=1400, total_tokens=2100),
            output_file_id="file-out",
            expires_at=1_700_086_400,
            metadata={"run": "7"},
        ),
        owner="ci",
        input_filename="evals.jsonl",
        input_bytes=4200,
        in_flight=1,
        concurrency=8,
        running_seconds=14.0,
        retries=3,
        models=(
            BatchModel(model="guide", variant="llamacpp/guide", total=6, completed=5, failed=1),
            BatchModel(model="gone", total=4, completed=2, failed=1),
        ),
        errors=(ErrorCount(code="invalid", status_code=400, count=2, example="There is no\nsuch field."),),
        first_failed=(
            FailedLine(
                line=3, custom_id="c", status_code=400, code="invalid", message="There is no such field."
            ),
        ),
        joules=1250.4,
    )

    shown = "\n".join(batch_words.whole_lines(told))

    for said in (
        "status        in progress · 9 of 10 lines, 2 failed",
        "owner         ci",
        "input         file-in, evals.jsonl, 4.2 KB",
        "output        file-out",
        "ran           14.0 s",
        "at a time     1 of 8",
        "asked again   3 lines",
        "tokens        700 in, 1,400 out",
        "energy        1,250 J",
        "metadata run  7",
        "gone   -               4      2     1",
        "2      400   invalid  There is no such field.",
        "line 3 (c): 400 invalid: There is no such field.",
    ):
        assert said in shown.splitlines()


def test_every_bad_line_is_named() -> None:
    errors = tuple(
        BatchError(code="duplicate_custom_id", message="Twice.", param="custom_id", line=number)
        for number in range(1, 31)
    )
    failed = batch(
        BatchStatus.FAILED, errors=BatchErrors(data=(*errors, BatchError(code="x", message="And.")))
    )

    ending = list(batch_words.ending(failed))
    shown = list(batch_words.whole_lines(progress(failed)))

    assert ending[0] == "batch_1 failed before anything ran."
    assert ending[1] == "  line 1: duplicate_custom_id (custom_id): Twice."
    assert ending[-2:] == ["  and 11 more", f"All of them: footplate batch show {ID}"]
    assert shown[-31:-1] == [
        f"line {number}: duplicate_custom_id (custom_id): Twice." for number in range(1, 31)
    ]
    assert shown[-1] == "the file: x: And."


def test_a_file_that_holds_too_much_is_to_be_cut() -> None:
    too_many = BatchError(code="too_many_tasks", message="The file holds more than 50000 requests.")
    failed = batch(BatchStatus.FAILED, errors=BatchErrors(data=(too_many,)))

    assert list(batch_words.ending(failed))[1:] == [
        "  the file: too_many_tasks: The file holds more than 50000 requests.",
        "Cut it into parts: footplate batch split FILE",
    ]


def test_the_end_says_what_to_do_next() -> None:
    done = batch(BatchStatus.COMPLETED, total=5, completed=5, completed_at=1_700_000_012)
    some = batch(BatchStatus.CANCELLED, total=5, completed=2, failed=3, cancelled_at=1_700_000_012)

    assert list(batch_words.ending(done)) == ["batch_1 is completed: 5 lines answered in 12 s."]
    assert list(batch_words.ending(some)) == [
        "batch_1 is cancelled: 2 of 5 lines answered in 12 s.",
        "3 lines failed. Which: footplate batch results batch_1 --errors",
        "Ask them again: footplate batch retry-failed batch_1",
    ]
