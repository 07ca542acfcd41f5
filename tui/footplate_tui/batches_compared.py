"""Two batches of the same input, side by side: as a whole, and line by line. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from footplate_tui import tables
from footplate_tui.answers import first_difference, marked_lines
from footplate_tui.batch_lines import joules, lines_rate
from footplate_tui.format import duration
from footplate_tui.harmless import one_line
from footplate_tui.tables import Column
from footplate_tui.widgets.lines import Line

if TYPE_CHECKING:
    from footplate_daemon.wire_batches import BatchComparison, ComparedAnswer, ComparedLine, ComparedSide

COLUMNS = (
    Column("LINE", 16, is_words=True),
    Column("ASKED", 0, is_words=True),
    Column("A CHARS", 9, 64),
    Column("B CHARS", 9, 64),
    Column("A TOK", 8, 100),
    Column("B TOK", 8, 100),
    Column("A TIME", 10, 124),
    Column("B TIME", 10, 124),
)
NO_PROMPT = "-"


def differs(line: ComparedLine) -> bool:
    """Whether the two answers are not the same."""
    return (line.first.text if line.first else None) != (line.second.text if line.second else None)


def names_of(comparison: BatchComparison) -> tuple[str, str]:
    """Name both sides by their models."""
    first, second = (
        one_line(", ".join(side.models)) or "-" for side in (comparison.first, comparison.second)
    )
    if first == second:
        return f"A  {first}  {comparison.first.batch.id}", f"B  {second}  {comparison.second.batch.id}"
    return f"A  {first}", f"B  {second}"


def side_line(name: str, side: ComparedSide, width: int) -> Content:
    """Say a side's figures in a line."""
    facts = (
        f"{side.answered:,} answered",
        f"{side.failed:,} failed" if side.failed else "",
        f"{side.mean_characters:,.0f} characters" if side.mean_characters is not None else "",
        f"{side.mean_output_tokens:,.0f} tokens" if side.mean_output_tokens is not None else "",
        f"{duration(side.mean_seconds)} each" if side.mean_seconds is not None else "",
        lines_rate(side.lines_per_second) if side.lines_per_second is not None else "",
        f"{joules(side.joules_per_line)} each" if side.joules_per_line is not None else "",
    )
    told = " · ".join(filter(None, facts))
    return Content.assemble((f"{name}  ", "bold"), (told, "$muted")).truncate(width, ellipsis=True)


def same_line(comparison: BatchComparison, width: int) -> Content:
    """Say how many lines both have, and how many answers are the same."""
    parts = [
        Content(f"{comparison.common:,} lines in both"),
        Content.styled(f"{comparison.same_answers:,} answers the same", "$muted"),
    ]
    if comparison.differing_inputs:
        parts.append(Content.styled(f"≠ {comparison.differing_inputs:,} did not ask the same", "$warning"))
    return Content("   ").join(parts).truncate(width, ellipsis=True)


def table_head(width: int) -> Content:
    """Give the line over the list."""
    return tables.head(COLUMNS, width)


def table_line(line: ComparedLine, width: int) -> Content:
    """Lay a line out in a width."""
    is_other = differs(line)
    texts: dict[str, str | Content] = {
        "LINE": one_line(line.custom_id),
        "ASKED": Content.assemble(
            ("≠ " if not line.is_same_input else "", "$warning"), one_line(line.prompt) or NO_PROMPT
        ),
    }
    for letter, answer in (("A", line.first), ("B", line.second)):
        texts |= _figures(letter, answer)
    mark = ("≠ ", "$warning") if is_other else ("= ", "$muted")
    return tables.line(COLUMNS, width, mark, texts, {})


def _figures(letter: str, answer: ComparedAnswer | None) -> dict[str, str | Content]:
    if answer is None:
        return {f"{letter} CHARS": "-"}
    failed = answer.status_code is not None and answer.status_code >= 400
    characters = Content.styled("failed", "$error") if failed else f"{answer.characters:,}"
    return {
        f"{letter} CHARS": characters,
        f"{letter} TOK": "-" if answer.output_tokens is None else f"{answer.output_tokens:,}",
        f"{letter} TIME": "-" if answer.seconds is None else duration(answer.seconds),
    }


def answer_lines(answer: ComparedAnswer | None, compared_with: ComparedAnswer | None = None) -> list[Line]:
    """Give an answer under its figures; from where it leaves the other one it is marked."""
    if answer is None:
        return [Line("(no answer)", "$muted")]
    facts = (
        f"{answer.characters:,} characters",
        f"{answer.output_tokens:,} tok" if answer.output_tokens is not None else "",
        duration(answer.seconds) if answer.seconds is not None else "",
        f"status {answer.status_code}" if answer.status_code and answer.status_code >= 400 else "",
    )
    start = first_difference(answer.text, compared_with.text) if compared_with else None
    return [Line(" · ".join(filter(None, facts)), "$muted"), Line(""), *marked_lines(answer.text, start)]
