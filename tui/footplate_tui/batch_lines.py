"""Batches in the terminal's words: a row of the list, all that is known of one, what it waits for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from textual.content import Content

from footplate_tui import tables
from footplate_tui.cli.output import size
from footplate_tui.format import count, duration, rate, truncate
from footplate_tui.harmless import one_line
from footplate_tui.history import when
from footplate_tui.switching import bar
from footplate_tui.tables import Column
from footplate_tui.theme import runtime_colour
from footplate_tui.widgets.lines import Line

if TYPE_CHECKING:
    from footplate_daemon.wire_batches import Batch, BatchModel, BatchProgress

MARKS = {
    "validating": ("◐", "$warning"),
    "in_progress": ("●", "$success"),
    "finalizing": ("●", "$success"),
    "cancelling": ("◐", "$warning"),
    "completed": ("✓", "$muted"),
    "failed": ("✗", "$error"),
    "expired": ("✗", "$error"),
    "cancelled": ("○", "$muted"),
}
WAITING = ("◐", "$warning")
WORDS = {
    "validating": "checked",
    "in_progress": "running",
    "finalizing": "finishing",
    "cancelling": "ending",
    "completed": "done",
}
"""How a status reads; the others read as they are."""
BAR_CELLS = 14
COLUMNS = (
    Column("FILE", 0, is_words=True),
    Column("ID", 17, 176, is_words=True),
    Column("MODEL", 22, 118, is_words=True),
    Column("BEGAN", 11, 90, is_words=True),
    Column("STATE", 11, is_words=True),
    Column("PROGRESS", BAR_CELLS + 7, is_words=True),
    Column("LINES", 15, 92),
    Column("FAILED", 8),
    Column("RATE", 11, 104),
    Column("TOK/S", 9, 130),
    Column("LEFT", 12, 60),
)


def fraction(progress: BatchProgress) -> float | None:
    """Say how far a batch is: of its lines, or of its file while that is checked."""
    counts, batch = progress.batch.request_counts, progress.batch
    if batch.status.value == "validating":
        if progress.input_bytes and progress.validated_bytes is not None:
            return progress.validated_bytes / progress.input_bytes
        return None
    return (counts.completed + counts.failed) / counts.total if counts.total else None


def mark_of(progress: BatchProgress) -> tuple[str, str]:
    """Give the mark of what goes on: one that waits does not run."""
    if progress.batch.status.value == "in_progress" and progress.waiting:
        return WAITING
    return MARKS[progress.batch.status.value]


def state_of(progress: BatchProgress) -> str:
    """Say in a word what goes on."""
    status = progress.batch.status.value
    if status == "in_progress" and progress.waiting:
        return "waiting"
    return WORDS.get(status, status)


def name_of(progress: BatchProgress) -> str:
    """Say what a batch is of: its file's name."""
    return one_line(progress.input_filename or progress.batch.input_file_id)


def table_head(width: int) -> Content:
    """Give the line over the list."""
    return tables.head(COLUMNS, width)


def table_line(progress: BatchProgress, now: float, width: int, *, is_marked: bool = False) -> Content:
    """Lay a batch out in a width."""
    batch = progress.batch
    counts, is_over = batch.request_counts, batch.status.is_final
    mark, colour = ("◆", "$primary") if is_marked else mark_of(progress)
    far = fraction(progress)
    texts: dict[str, str | Content] = {
        "FILE": Content.styled(name_of(progress), "$foreground"),
        "ID": one_line(batch.id),
        "MODEL": models_of(progress),
        "BEGAN": when(batch.created_at, now),
        "STATE": state_of(progress),
        "PROGRESS": _progress(far, is_over=is_over),
        "LINES": f"{counts.completed + counts.failed:,}/{counts.total:,}" if counts.total else "-",
        "FAILED": f"{counts.failed:,}" if counts.failed else "-",
        "RATE": f"{lines_rate(progress.lines_per_second)}" if progress.lines_per_second is not None else "",
        "TOK/S": f"{progress.output_tokens_per_second:,.0f}"
        if progress.output_tokens_per_second is not None
        else "",
        "LEFT": took(batch) if is_over else left(progress),
    }
    styles = {
        "STATE": mark_of(progress)[1],
        "FAILED": "bold $error" if counts.failed else "$muted",
        "LEFT": "$muted" if is_over else "bold",
    }
    return tables.line(COLUMNS, width, (f"{mark} ", colour), texts, styles)


def _progress(far: float | None, *, is_over: bool) -> Content:
    if far is None:
        return Content("")
    line = Content("━" * round(far * BAR_CELLS)) if is_over else bar(far, BAR_CELLS)
    if is_over:
        line = Content.styled(line.plain.ljust(BAR_CELLS, "─"), "$faint")
    return Content.assemble(line, (f" {int(far * 100):>3}%", "$muted"))


def models_of(progress: BatchProgress) -> str:
    """Name the model; or how many there are."""
    if len(progress.models) > 1:
        return count(len(progress.models), "model")
    if progress.models:
        return one_line(progress.models[0].model)
    return one_line(progress.batch.model or "-")


def lines_rate(lines_per_second: float, unit: str = "") -> str:
    """Give lines per second, or per minute where they are few."""
    if lines_per_second >= 0.995:
        return f"{lines_per_second:,.1f}{unit}/s"
    return f"{lines_per_second * 60:.1f}{unit}/min"


def left(progress: BatchProgress) -> str:
    """Say about how long it will go on."""
    return "" if progress.eta_seconds is None else f"~{duration(progress.eta_seconds)}"


def ended_at(batch: Batch) -> int | None:
    """Say when a batch ended."""
    return batch.completed_at or batch.failed_at or batch.expired_at or batch.cancelled_at


def took(batch: Batch) -> str:
    """Say how long a batch took; its times are whole seconds."""
    end = ended_at(batch)
    if end is None:
        return ""
    return duration(end - batch.created_at) if end > batch.created_at else "< 1 s"


def now_line(batches: Sequence[BatchProgress]) -> Content:
    """Say how many run, how many wait, and how fast it goes."""
    under_way = [each for each in batches if not each.batch.status.is_final]
    waiting = [each for each in under_way if state_of(each) in {"waiting", "checked"}]
    running = len(under_way) - len(waiting)
    speed = sum(each.output_tokens_per_second or 0 for each in under_way)
    in_flight = sum(each.in_flight for each in under_way)
    parts = [
        Content.styled(f"● {running} running", "$success" if running else "$muted"),
        Content.styled(f"◐ {len(waiting)} waiting", "$warning" if waiting else "$muted"),
    ]
    if in_flight:
        parts.append(Content.styled(f"{count(in_flight, 'line')} being asked", "$muted"))
    if speed:
        parts.append(Content.styled(rate(speed), "$muted"))
    return Content("   ").join(parts)


def about(progress: BatchProgress, width: int) -> Content:
    """Say about the highlighted batch what its row has no room for, in two lines."""
    batch = progress.batch
    usage = batch.usage
    facts = (
        one_line(batch.id),
        batch.endpoint,
        models_of(progress),
        f"{usage.input_tokens:,} + {usage.output_tokens:,} tokens" if usage and usage.total_tokens else "",
        count(progress.retries, "retry").replace("retrys", "retries") if progress.retries else "",
        f"by {one_line(progress.owner)}" if progress.owner else "",
    )
    second = Content.styled(truncate(one_line(" · ".join(filter(None, facts))), width), "$muted")
    return Content("\n").join([_what_matters(progress).truncate(width, ellipsis=True), second])


def _what_matters(progress: BatchProgress) -> Content:
    batch = progress.batch
    if progress.waiting:
        return Content.assemble(("◐ ", "$warning"), one_line(progress.waiting.message))
    if batch.errors and batch.errors.data:
        first = batch.errors.data[0]
        line = f"line {first.line}: " if first.line else ""
        more = len(batch.errors.data) - 1
        told = f"{line}{one_line(first.message)}" + (f"  and {more:,} more: ⏎ shows them" if more else "")
        return Content.assemble(("✗ ", "$error"), told)
    if progress.errors:
        worst = progress.errors[0]
        failed = count(batch.request_counts.failed, "line")
        return Content.assemble(
            ("✗ ", "$error"),
            f"{failed} failed, {worst.count:,} by {one_line(worst.code)}: {one_line(worst.example)}",
        )
    if not batch.status.is_final:
        asked = f"{count(progress.in_flight, 'line')} being asked, {progress.concurrency} at most"
        return Content.assemble(("● ", "$success"), asked if progress.concurrency else state_of(progress))
    return Content(f"{batch.status.value.replace('_', ' ')} in {took(batch)}")


# One batch, whole.


def whole_lines(progress: BatchProgress, width: int) -> list[Line]:
    """Give all that is known of a batch."""
    lines = [*_top(progress, width), Line(""), *(_of(fact) for fact in _facts(progress))]
    if len(progress.models) > 1 or any(model.failed for model in progress.models):
        lines += [Line(""), _title("Models"), *(_of(_model(model)) for model in progress.models)]
    if progress.errors:
        lines += [Line(""), _title("Errors by kind"), *_errors(progress)]
    if progress.first_failed:
        shown, failed = len(progress.first_failed), progress.batch.request_counts.failed
        title = "Failed lines" if shown >= failed else f"The first {shown} of {failed:,} failed lines"
        lines += [Line(""), _title(title), *_failed(progress)]
    if progress.batch.errors:
        lines += [Line(""), _title("What is wrong with the file"), *_bad_lines(progress)]
    return lines


def _top(progress: BatchProgress, width: int) -> list[Line]:
    mark, colour = mark_of(progress)
    counts = progress.batch.request_counts
    head = Content.assemble(
        (f"{mark} {state_of(progress)}", f"bold {colour}"),
        f"  {name_of(progress)}",
        (f"  {one_line(progress.batch.id)}", "$muted"),
    )
    far = fraction(progress)
    lines = [_of(head)]
    if far is not None:
        told = f"{counts.completed + counts.failed:,} of {counts.total:,} · {int(far * 100)}%"
        if progress.eta_seconds is not None:
            told += f" · about {duration(progress.eta_seconds)} left"
        lines.append(
            _of(Content.assemble(bar(far, max(min(width, 120) - len(told) - 2, 4)), "  ", (told, "$muted")))
        )
    if progress.waiting:
        lines.append(Line(f"◐ {one_line(progress.waiting.message)}", "$warning"))
    return lines


def _facts(progress: BatchProgress) -> list[Content]:
    batch, usage = progress.batch, progress.batch.usage
    counts = batch.request_counts
    speeds = (
        lines_rate(progress.lines_per_second, " lines") if progress.lines_per_second is not None else "",
        rate(progress.output_tokens_per_second) if progress.output_tokens_per_second is not None else "",
    )
    facts = {
        "lines": f"{counts.completed:,} answered, {counts.failed:,} failed, "
        f"{counts.total - counts.completed - counts.failed:,} left" if counts.total else "",
        "speed": " · ".join(filter(None, speeds)),
        "asked now": f"{progress.in_flight}, {progress.concurrency} at most" if progress.concurrency else "",
        "retries": f"{progress.retries:,} lines were asked again" if progress.retries else "",
        "tokens": _tokens(progress),
        "energy": _energy(progress, usage.output_tokens if usage else 0),
        "endpoint": batch.endpoint,
        "model": models_of(progress),
        "by": progress.owner or "",
        "metadata": ", ".join(f"{name}={value}" for name, value in (batch.metadata or {}).items()),
        "times": " · ".join(_times(batch)),
        "worked": duration(progress.running_seconds) if progress.running_seconds else "",
        "results": _files(batch),
    }  # fmt: skip
    return [
        Content.assemble((f"{name:<11}", "$muted"), one_line(value)) for name, value in facts.items() if value
    ]


def _tokens(progress: BatchProgress) -> str:
    usage = progress.batch.usage
    if usage is None or not usage.total_tokens:
        return ""
    cached, reasoning = usage.input_tokens_details.cached_tokens, usage.output_tokens_details.reasoning_tokens
    parts = (
        f"{usage.input_tokens:,} in the prompts",
        f"{cached:,} of them cached" if cached else "",
        f"{usage.output_tokens:,} in the answers",
        f"{reasoning:,} of them reasoning" if reasoning else "",
    )
    return ", ".join(filter(None, parts))


def _energy(progress: BatchProgress, output_tokens: int) -> str:
    if progress.joules is None:
        return ""
    each = f", {progress.joules / output_tokens:.2f} J for each token" if output_tokens else ""
    return f"{joules(progress.joules)}{each}"


def joules(amount: float) -> str:
    """Give energy: `740 J`, `12.4 kJ`, `1.2 MJ`."""
    if amount < 999.5:
        return f"{amount:.0f} J"
    return f"{amount / 1000:.1f} kJ" if amount < 999_500 else f"{amount / 1e6:.1f} MJ"


def _times(batch: Batch) -> Iterable[str]:
    named = (
        ("created", batch.created_at),
        ("begun", batch.in_progress_at),
        ("cancelled", batch.cancelled_at),
        ("failed", batch.failed_at),
        ("expired", batch.expired_at),
        ("done", batch.completed_at),
        ("expires", None if batch.status.is_final else batch.expires_at),
    )
    for name, at in named:
        if at is not None:
            yield f"{name} {datetime.fromtimestamp(at).astimezone():%d %b %H:%M:%S}"


def _files(batch: Batch) -> str:
    named = (("answers", batch.output_file_id), ("errors", batch.error_file_id))
    return ", ".join(f"{name} in {file_id}" for name, file_id in named if file_id)


def _model(model: BatchModel) -> Content:
    variant = one_line(model.variant or "not in the configuration any more")
    runtime, slash, rest = variant.partition("/")
    failed = (f"  {model.failed:,} failed", "bold $error") if model.failed else ""
    return Content.assemble(
        f"{one_line(model.model):<24} ", (runtime + slash, runtime_colour(runtime)), rest,
        (f"  {model.completed + model.failed:,} of {model.total:,}", "$muted"), failed,
    )  # fmt: skip


def _errors(progress: BatchProgress) -> Iterable[Line]:
    for error in progress.errors:
        status = f" ({error.status_code})" if error.status_code else ""
        head = Content.assemble((f"{error.count:>7,} ", "bold $error"), f"{one_line(error.code)}{status}: ")
        yield _of(Content.assemble(head, (one_line(error.example), "$muted")))


def _failed(progress: BatchProgress) -> Iterable[Line]:
    for failed in progress.first_failed:
        head = Content.assemble(
            (f"{failed.line:>7,} ", "$muted"),
            f"{one_line(failed.custom_id)}  ",
            (one_line(failed.code), "$error"),
        )
        yield _of(Content.assemble(head, (f"  {one_line(failed.message)}", "$muted")))


def _bad_lines(progress: BatchProgress) -> Iterable[Line]:
    for error in progress.batch.errors.data if progress.batch.errors else ():
        line = f"{error.line:>7,} " if error.line else " " * 8
        head = Content.assemble((line, "$muted"), (one_line(error.code), "$error"))
        yield _of(Content.assemble(head, f"  {one_line(error.message)}"))


def _title(text: str) -> Line:
    return Line(text, "bold $heading")


def _of(content: Content) -> Line:
    return Line(content.plain, "", content)


def sent(name: str, done: int, total: int) -> str:
    """Say how far a file is sent."""
    far = f"{min(done / total, 1):.0%} of {size(total)}" if total else size(done)
    return f"Sending {one_line(name)}: {far}"
