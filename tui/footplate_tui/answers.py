"""Answers side by side: where one leaves the other, and the lines that show it. Pure."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING

from textual.content import Content

from footplate_tui.benchmark_lines import milliseconds
from footplate_tui.exchange_lines import text_lines
from footplate_tui.format import finish_reason
from footplate_tui.harmless import harmless, one_line
from footplate_tui.widgets.lines import Line

if TYPE_CHECKING:
    from footplate_daemon.wire_benchmarks import RequestRecord

DIFFERS = "$warning"


def first_difference(one: str, other: str) -> int | None:
    """Give the place of the first character that is not the same; None where there is none."""
    for place, (left, right) in enumerate(zip_longest(one, other)):
        if left != right:
            return place
    return None


def record_lines(record: RequestRecord | None, compared_with: RequestRecord | None = None) -> list[Line]:
    """Give an answer under its figures; from where it leaves the other one it is marked."""
    if record is None:
        return [Line("(this request was not made)", "$muted")]
    lines = [Line(_figures(record), "$muted")]
    if record.error_kind is not None:
        return [*lines, Line(""), Line(f"✗ {record.error_kind}: {one_line(record.error or '')}", "$error")]
    if record.is_valid is not None:
        words = "✓ valid JSON" if record.is_valid else f"✗ {one_line(record.validity or 'not valid')}"
        lines.append(Line(words, "$success" if record.is_valid else "$error"))
    answer, start = record.answer or "", None
    if compared_with is not None and compared_with.error_kind is None:
        start = first_difference(answer, compared_with.answer or "")
        lines.append(_same_or_not(start))
    lines.append(Line(""))
    if record.reasoning:
        lines += [*text_lines(record.reasoning, "$muted"), Line("")]
    return [*lines, *(marked_lines(answer, start) or [Line("(nothing)", "$muted")])]


def _same_or_not(start: int | None) -> Line:
    if start is None:
        return Line("= the same to the letter", "$success")
    return Line(f"≠ differs from character {start + 1:,} on", DIFFERS)


def _figures(record: RequestRecord) -> str:
    tokens = record.counted_tokens if record.counted_tokens is not None else record.output_tokens
    facts = (
        f"{tokens:,} tok" if tokens is not None else "",
        f"first {milliseconds(record.ttft_ms)}" if record.ttft_ms is not None else "",
        f"{milliseconds(record.e2el_ms)} in all" if record.e2el_ms is not None else "",
        finish_reason(one_line(record.finish_reason or "")),
    )
    return " · ".join(filter(None, facts))


def marked_lines(text: str, start: int | None) -> list[Line]:
    """Give the lines of a text, from a place on in the colour of what differs."""
    if start is None:
        return text_lines(text)
    before, after = text_lines(text[:start]), text_lines(text[start:], DIFFERS)
    if not before or not after:
        return [*before, *after]
    joined = Content.assemble(before[-1].text, (after[0].text, DIFFERS))
    return [*before[:-1], Line(joined.plain, "", joined), *after[1:]]


def answers_text(prompt: str, named: list[tuple[str, str]]) -> str:
    """Give a request with all answers, to copy."""
    parts = [harmless(prompt)]
    parts += [f"--- {one_line(name)} ---\n{harmless(answer)}" for name, answer in named]
    return "\n\n".join(parts)
