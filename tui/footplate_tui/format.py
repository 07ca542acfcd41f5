"""How values read on screen and on paper. Pure: values in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ELLIPSIS = "…"


def duration(seconds: float) -> str:
    """Give a duration as one says it: `35 ms`, `0.21 s`, `12.4 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 0.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def rate(tokens_per_second: float) -> str:
    """Give tokens per second: `8.71 tok/s`, `87.4 tok/s`, `1,240 tok/s`."""
    if tokens_per_second < 9.995:
        return f"{tokens_per_second:.2f} tok/s"
    if tokens_per_second < 99.95:
        return f"{tokens_per_second:.1f} tok/s"
    return f"{tokens_per_second:,.0f} tok/s"


def count(number: int, noun: str) -> str:
    """Give a number with its noun: `1 line`, `1,200 lines`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def truncate(text: str, width: int) -> str:
    """Cut a text to a width in cells, with an ellipsis where something is missing."""
    from rich.cells import cell_len, set_cell_size  # noqa: PLC0415 -- rich is for the terminal; the CLI formats without it

    if cell_len(text) <= width:
        return text
    if width <= 1:
        return ELLIPSIS[:width]
    return set_cell_size(text, width - 1).rstrip() + ELLIPSIS


@dataclass(frozen=True)
class Answered:
    """What is known about an answer, for its label."""

    model: str | None = None
    runtime: str | None = None
    completion_tokens: int | None = None
    tokens_per_second: float | None = None
    ttft_seconds: float | None = None
    finish_reason: str | None = None
    seconds: float | None = None
    """From when it was asked to its end."""


def speaker(model: str | None, runtime: str | None) -> str:
    """Give who answers: `guide @ llamacpp`."""
    if model and runtime:
        return f"{model} @ {runtime}"
    return model or runtime or "no model"


def answer_figures(answered: Answered) -> str:
    """Give the figures of an answer: `612 tok · 87.4 tok/s · first 0.21 s`; a plain `stop` goes unsaid."""
    parts = []
    if answered.completion_tokens is not None:
        parts.append(f"{answered.completion_tokens:,} tok")
    if answered.tokens_per_second is not None:
        parts.append(rate(answered.tokens_per_second))
    if answered.ttft_seconds is not None:
        parts.append(f"first {duration(answered.ttft_seconds)}")
    if answered.finish_reason not in {None, "stop"}:
        parts.append(finish_reason(answered.finish_reason or ""))
    if answered.seconds is not None:
        parts.append(f"{duration(answered.seconds)} in all")
    return " · ".join(parts)


def finish_reason(reason: str) -> str:
    """Say why an answer ended, in words where the API's own word says little."""
    words = {"length": "cut off at max_tokens", "tool_calls": "calls a tool", "content_filter": "filtered"}
    return words.get(reason, reason)


def size(byte_count: int) -> str:
    """Give the size of a file: `420 B`, `12 kB`, `3.4 MB`."""
    if byte_count < 1000:
        return f"{byte_count} B"
    if byte_count < 999_500:
        return f"{byte_count / 1000:.0f} kB"
    return f"{byte_count / 1e6:.1f} MB"


def fit(items: Sequence[str], width: int, *, gap: int = 2) -> int:
    """Say how many of the items fit in a width, whole, with a gap between them."""
    used = 0
    for fitting, item in enumerate(items):
        used += len(item) + (gap if fitting else 0)
        if used > width:
            return fitting
    return len(items)
