"""Two batches of the same input, side by side: as a whole, and line for line. Pure but for the pages."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from footplate_daemon.wire_batches import BatchComparison, ComparedAnswer, ComparedLine, ComparedSide
from footplate_tui.cli.batch_words import lines_rate
from footplate_tui.cli.output import csv_line, table
from footplate_tui.format import count, duration
from footplate_tui.harmless import harmless, one_line

PAGE = 200
LONGEST_TEXT = 1200
"""Characters of an answer that a person is shown; programs get all of it."""
COLUMNS = tuple(ComparedAnswer.model_fields)


class Compares(Protocol):
    """Who compares batches, a page at a time."""

    async def compare_batches(
        self, first: str, second: str, *, from_line: int = 1, limit: int = 50
    ) -> BatchComparison:
        """Give a page."""


async def pages(
    client: Compares, first: str, second: str, limit: int | None
) -> AsyncIterator[BatchComparison]:
    """Yield the comparison page by page, with `limit` lines in all; None: with all there are."""
    from_line: int | None = 1
    left = limit
    while from_line is not None and (left is None or left > 0):
        size = PAGE if left is None else min(PAGE, left)
        page = await client.compare_batches(first, second, from_line=from_line, limit=size)
        yield page
        from_line = page.next_line
        left = None if left is None else left - len(page.lines)


def summary_lines(comparison: BatchComparison) -> Iterator[str]:
    """Give the two as a whole."""
    sides = (comparison.first, comparison.second)
    rows = [(name, *map(told, sides)) for name, told in FACTS]
    yield from table(("", "A", "B"), [row for row in rows if set(row[1:]) != {"-"}])
    yield ""
    yield f"{comparison.same_answers:,} of {count(comparison.common, 'common line')} got the same answer."
    if comparison.differing_inputs:
        yield f"! {count(comparison.differing_inputs, 'line')} did not ask the same in both."


async def csv_rows(compared: AsyncIterator[BatchComparison]) -> AsyncIterator[str]:
    """Yield the names of the columns, then each line with both answers."""
    sides = [f"{side}_{column}" for side in ("first", "second") for column in COLUMNS]
    yield csv_line(["custom_id", "prompt", "is_same_input", *sides])
    async for page in compared:
        for line in page.lines:
            cells = [cell for answer in (line.first, line.second) for cell in _cells(answer)]
            yield csv_line([line.custom_id, line.prompt, line.is_same_input, *cells])


async def json_pieces(compared: AsyncIterator[BatchComparison]) -> AsyncIterator[str]:
    """Yield one JSON object by pieces: the two as a whole, and under `lines` each line."""
    before_page, before_line = "", ""
    async for page in compared:
        if not before_page:
            head = page.model_dump(mode="json", exclude={"lines", "next_line"})
            before_page = json.dumps(head)[:-1] + ', "lines": ['
            yield before_page
        for line in page.lines:
            yield before_line + line.model_dump_json()
            before_line = ", "
    yield "]}"


def side_by_side(line: ComparedLine) -> RenderableType:
    """Draw both answers to a line, as wide as the console is."""
    title = Text(one_line(line.custom_id), style="bold")
    if line.prompt:
        title.append(f"  {one_line(line.prompt)}", style="not bold")
    if not line.is_same_input:
        title.append("  (they did not ask the same)", style="yellow")
    grid = Table(
        title=title, title_justify="left", title_style="", expand=True, box=None, padding=(0, 2, 0, 0)
    )
    for name, answer in (("A", line.first), ("B", line.second)):
        grid.add_column(Text(f"{name}  {_figures(answer)}", style="dim"), ratio=1, overflow="fold")
    grid.add_row(_said(line.first), _said(line.second))
    return Group(grid, "")


def _models(side: ComparedSide) -> str:
    return one_line(", ".join(side.models)) or "-"


def _mean(amount: float | None, unit: str = "") -> str:
    return "-" if amount is None else f"{amount:,.1f}{unit}"


FACTS: tuple[tuple[str, Callable[[ComparedSide], str]], ...] = (
    ("batch", lambda side: side.batch.id),
    ("models", _models),
    ("status", lambda side: side.batch.status.value.replace("_", " ")),
    ("answered", lambda side: f"{side.answered:,}"),
    ("failed", lambda side: f"{side.failed:,}"),
    ("characters each", lambda side: _mean(side.mean_characters)),
    ("tokens each", lambda side: _mean(side.mean_output_tokens)),
    ("tokens", lambda side: f"{side.output_tokens:,}"),
    ("time each", lambda side: "-" if side.mean_seconds is None else duration(side.mean_seconds)),
    ("lines/s", lambda side: "-" if side.lines_per_second is None else lines_rate(side.lines_per_second)),
    ("energy", lambda side: _mean(side.joules, " J")),
    ("energy each", lambda side: _mean(side.joules_per_line, " J")),
)


def _figures(answer: ComparedAnswer | None) -> str:
    if answer is None:
        return "no answer"
    parts = [] if answer.status_code in {None, 200} else [f"HTTP {answer.status_code}"]
    parts += [] if answer.output_tokens is None else [f"{answer.output_tokens:,} tok"]
    parts += [] if answer.seconds is None else [duration(answer.seconds)]
    parts += [count(answer.characters, "character")] if answer.characters else []
    return " · ".join(parts)


def _said(answer: ComparedAnswer | None) -> Text:
    text = harmless(answer.text).strip("\n") if answer else ""
    return Text(text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + " …")


def _cells(answer: ComparedAnswer | None) -> list[Any]:
    return [None] * len(COLUMNS) if answer is None else list(answer.model_dump().values())
