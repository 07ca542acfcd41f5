"""Two batches side by side."""

import csv
import io
import json

from rich.console import Console

from footplate_daemon.wire_batches import (
    BatchComparison,
    BatchStatus,
    ComparedAnswer,
    ComparedLine,
    ComparedSide,
)
from footplate_tui.cli import batch_answers
from tests.cli.batch_values import batch

LINES = tuple(
    ComparedLine(
        custom_id=f"q-{number}",
        prompt="What is a preset?",
        is_same_input=number != 3,
        first=ComparedAnswer(
            status_code=200, text="It holds\nparameters.", characters=20, output_tokens=5, seconds=0.4
        ),
        second=None if number == 2 else ComparedAnswer(status_code=500, text="\x1b[2JNo.", characters=7),
    )
    for number in range(1, 6)
)


class Pages:
    """Compares two batches of five lines, no more than two at a time."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    async def compare_batches(
        self, first: str, second: str, *, from_line: int = 1, limit: int = 50
    ) -> BatchComparison:
        assert (first, second) == ("a", "b")
        self.asked.append((from_line, limit))
        end = from_line - 1 + min(limit, 2)
        side = ComparedSide(
            batch=batch(BatchStatus.COMPLETED, total=5),
            models=("guide",),
            answered=5,
            failed=0,
            mean_characters=20.0,
            mean_seconds=0.4,
            lines_per_second=12.5,
        )
        return BatchComparison(
            first=side,
            second=side.model_copy(update={"joules": 12.5, "models": ("second", "third")}),
            common=5,
            differing_inputs=1,
            same_answers=0,
            lines=LINES[from_line - 1 : end],
            next_line=end + 1 if end < len(LINES) else None,
        )


async def test_pages_are_asked_for_until_the_end() -> None:
    daemon = Pages()

    found = [page async for page in batch_answers.pages(daemon, "a", "b", None)]

    assert [line for page in found for line in page.lines] == list(LINES)
    assert [first for first, _ in daemon.asked] == [1, 3, 5]


async def test_no_more_is_asked_for_than_is_wanted() -> None:
    daemon = Pages()

    found = [page async for page in batch_answers.pages(daemon, "a", "b", 3)]

    assert [line for page in found for line in page.lines] == list(LINES[:3])
    assert daemon.asked == [(1, 3), (3, 1)]


async def test_programs_get_one_object_with_all_lines() -> None:
    pieces = [
        piece async for piece in batch_answers.json_pieces(batch_answers.pages(Pages(), "a", "b", None))
    ]

    whole = BatchComparison.model_validate(json.loads("".join(pieces)))
    assert whole.lines == LINES
    assert whole.second.joules == 12.5


async def test_spreadsheets_get_a_row_for_each_line() -> None:
    rows = [row async for row in batch_answers.csv_rows(batch_answers.pages(Pages(), "a", "b", None))]

    read = list(csv.DictReader(io.StringIO("\r\n".join(rows), newline="")))
    assert [row["custom_id"] for row in read] == [line.custom_id for line in LINES]
    assert (read[0]["first_text"], read[0]["first_output_tokens"]) == ("It holds\nparameters.", "5")
    assert (read[1]["second_text"], read[1]["second_status_code"]) == ("", "")


async def test_the_two_are_summed_up() -> None:
    page = await Pages().compare_batches("a", "b")

    shown = list(batch_answers.summary_lines(page))

    assert "models           guide      second, third" in shown
    assert "energy           -          12.5 J" in shown
    assert not [line for line in shown if line.startswith("tokens each")]
    assert "time each        0.40 s     0.40 s" in shown
    assert shown[-2:] == [
        "0 of 5 common lines got the same answer.",
        "! 1 line did not ask the same in both.",
    ]


def test_answers_stand_side_by_side_and_command_nothing() -> None:
    paper = io.StringIO()

    for line in LINES[:3]:
        Console(file=paper, width=80).print(batch_answers.side_by_side(line))

    shown = paper.getvalue()
    first = shown.splitlines()
    assert first[0].split() == ["q-1", "What", "is", "a", "preset?"]
    assert first[1].startswith("A  5 tok · 0.40 s · 20 characters")
    assert "B  HTTP 500 · 7 characters" in first[1]
    assert first[2].split() == ["It", "holds", "␛[2JNo."]
    assert first[3].strip() == "parameters."
    assert "B  no answer" in shown
    assert "(they did not ask the same)" in shown
    assert "\x1b" not in shown
