"""Batches in words: a row of the list, how far one is, what it waits for, how it ended. Pure."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from footplate_daemon.wire_batches import (
    Batch,
    BatchError,
    BatchProgress,
    BatchStatus,
    BatchWaiting,
    FailedLine,
    WaitsFor,
)
from footplate_tui.cli.output import size, table
from footplate_tui.format import count, duration, rate
from footplate_tui.harmless import one_line

HEADS = ("ID", "MADE", "STATUS", "DONE", "FAILED", "LINES/S", "LEFT", "NAME")
NO_BATCHES = "There are no batches. Make one: footplate batch submit FILE"
NAME_KEY = "name"
"""Under this key of a batch's metadata stands what its owner calls it."""
EXIT_LINES_FAILED = 1
EXIT_NOT_COMPLETED = 4
"""The batch failed, expired, or was cancelled."""
BAD_LINES_SHOWN = 20
TOO_MANY = "too_many_tasks"
"""The code of the error for a file that holds more than a batch may."""


def exit_code(batch: Batch) -> int:
    """Say to a script how a batch ended."""
    if batch.status is not BatchStatus.COMPLETED:
        return EXIT_NOT_COMPLETED
    return EXIT_LINES_FAILED if batch.request_counts.failed else 0


def lines(progresses: Sequence[BatchProgress]) -> Iterator[str]:
    """Give batches as a person reads them."""
    if not progresses:
        yield NO_BATCHES
        return
    yield from table(HEADS, [_row(each) for each in progresses])


def whole_lines(progress: BatchProgress) -> Iterator[str]:
    """Give all of a batch as a person reads it."""
    facts = list(_facts(progress))
    width = max(len(name) for name, _ in facts)
    yield from (f"{name.ljust(width)}  {value}" for name, value in facts)
    if len(progress.models) > 1:
        yield ""
        yield from table(
            ("MODEL", "VARIANT", "LINES", "DONE", "FAILED"),
            [
                (
                    one_line(each.model),
                    each.variant or "-",
                    *_counted(each.total, each.completed, each.failed),
                )
                for each in progress.models
            ],
        )
    if progress.errors:
        yield ""
        yield from table(
            ("LINES", "HTTP", "ERROR", "THE FIRST OF THEM SAYS"),
            [
                (f"{each.count:,}", str(each.status_code or "-"), one_line(each.code), one_line(each.example))
                for each in progress.errors
            ],
        )
    if progress.first_failed:
        yield ""
        yield from map(_failed_line, progress.first_failed)
    if progress.batch.errors:
        yield ""
        yield from bad_lines(progress.batch.errors.data)


def bad_lines(errors: Sequence[BatchError], shown: int | None = None) -> Iterator[str]:
    """Name what is wrong with an input file, line by line; no more than `shown` of it."""
    for error in errors[:shown]:
        where = "the file" if error.line is None else f"line {error.line}"
        param = f" ({one_line(error.param)})" if error.param else ""
        yield f"{where}: {one_line(error.code)}{param}: {one_line(error.message)}"
    if shown is not None and len(errors) > shown:
        yield f"and {len(errors) - shown:,} more"


def state_line(progress: BatchProgress) -> str:
    """Say on one line how far a batch is: `in progress · 120 of 2,000 lines · 12.5 lines/s · …`."""
    parts = [_status(progress.batch.status), how_far(progress), pace(progress)]
    return " · ".join(filter(None, parts))


def how_far(progress: BatchProgress) -> str:
    """Give what is done of all there is."""
    counts = progress.batch.request_counts
    if progress.batch.status is BatchStatus.VALIDATING:
        return _validated(progress)
    if not counts.total:
        return ""
    done = f"{counts.completed + counts.failed:,} of {count(counts.total, 'line')}"
    return f"{done}, {counts.failed:,} failed" if counts.failed else done


def fraction(progress: BatchProgress) -> float | None:
    """Give how much is done, 0 to 1; None where there is no telling."""
    counts = progress.batch.request_counts
    if progress.batch.status is BatchStatus.VALIDATING:
        if progress.validated_bytes is None or not progress.input_bytes:
            return None
        return min(1.0, progress.validated_bytes / progress.input_bytes)
    return (counts.completed + counts.failed) / counts.total if counts.total else None


def pace(progress: BatchProgress) -> str:
    """Say how fast it goes and how long it will take; nothing where it does not go."""
    parts = []
    if progress.lines_per_second is not None:
        parts.append(f"{lines_rate(progress.lines_per_second)} lines/s")
    if progress.output_tokens_per_second:
        parts.append(rate(progress.output_tokens_per_second))
    if progress.eta_seconds is not None and not progress.batch.status.is_final:
        parts.append(f"about {_whole(progress.eta_seconds)} left")
    return " · ".join(parts)


def lines_rate(per_second: float) -> str:
    """Give lines per second: `0.05`, `3.2`, `12.5`, `1,240`."""
    if per_second < 0.995:
        return f"{per_second:.2f}"
    return f"{per_second:.1f}" if per_second < 99.95 else f"{per_second:,.0f}"


def waits(progress: BatchProgress) -> str:
    """Say what a batch waits for, and until when at the latest; nothing where its status says it."""
    waiting = progress.waiting
    if waiting is None or waiting.reason is WaitsFor.VALIDATION:
        return ""
    until = f" (until {moment(waiting.until)})" if waiting.until is not None else ""
    return f"waits for {_waited_for(waiting)}{until}: {one_line(waiting.message)}"


def ending(batch: Batch) -> Iterator[str]:
    """Say how a batch ended, and what to do next."""
    counts, done = batch.request_counts, f"{batch.id} is {_status(batch.status)}"
    match batch.status:
        case BatchStatus.COMPLETED:
            yield f"{done}: {count(counts.completed, 'line')} answered{_took(batch)}."
        case BatchStatus.FAILED:
            found = batch.errors.data if batch.errors else ()
            yield f"{batch.id} failed before anything ran."
            yield from (f"  {line}" for line in bad_lines(found, BAD_LINES_SHOWN))
            if len(found) > BAD_LINES_SHOWN:
                yield f"All of them: footplate batch show {batch.id}"
            if any(each.code == TOO_MANY for each in found):
                yield "Cut it into parts: footplate batch split FILE"
        case _:
            yield f"{done}: {counts.completed:,} of {count(counts.total, 'line')} answered{_took(batch)}."
    if counts.failed:
        yield f"{count(counts.failed, 'line')} failed. Which: footplate batch results {batch.id} --errors"
        yield f"Ask them again: footplate batch retry-failed {batch.id}"


def moment(at: float) -> str:
    """Give a time of this place."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M")


def _row(progress: BatchProgress) -> tuple[str, ...]:
    counts = progress.batch.request_counts
    waiting = f" ({_waited_for(progress.waiting)})" if progress.waiting and waits(progress) else ""
    speed, eta = progress.lines_per_second, progress.eta_seconds
    return (
        progress.batch.id,
        moment(progress.batch.created_at),
        _status(progress.batch.status) + waiting,
        f"{counts.completed + counts.failed:,}/{counts.total:,}",
        f"{counts.failed:,}" if counts.failed else "-",
        "-" if speed is None else lines_rate(speed),
        "-" if eta is None or progress.batch.status.is_final else _whole(eta),
        _name(progress),
    )


def _facts(progress: BatchProgress) -> Iterator[tuple[str, str]]:
    batch = progress.batch
    yield "id", batch.id
    yield "status", state_line(progress)
    if waited := waits(progress):
        yield "waiting", waited
    yield "endpoint", one_line(batch.endpoint)
    if batch.model:
        yield "model", one_line(batch.model)
    if progress.owner:
        yield "owner", one_line(progress.owner)
    yield "input", _input(progress)
    yield from (("output", file) for file in [batch.output_file_id] if file)
    yield from (("errors", file) for file in [batch.error_file_id] if file)
    yield from ((name, moment(at)) for name, at in _moments(batch) if at is not None)
    if progress.running_seconds:
        yield "ran", duration(progress.running_seconds)
    if progress.concurrency and not batch.status.is_final:
        yield "at a time", f"{progress.in_flight} of {progress.concurrency}"
    if progress.retries:
        yield "asked again", count(progress.retries, "line")
    if batch.usage:
        yield "tokens", f"{batch.usage.input_tokens:,} in, {batch.usage.output_tokens:,} out"
    if progress.joules is not None:
        yield "energy", f"{progress.joules:,.0f} J"
    yield from (
        (f"metadata {one_line(key)}", one_line(value)) for key, value in (batch.metadata or {}).items()
    )


def _moments(batch: Batch) -> Iterator[tuple[str, int | None]]:
    yield "made", batch.created_at
    if batch.status.is_final:
        at = (batch.completed_at, batch.failed_at, batch.expired_at, batch.cancelled_at)
        yield "ended", next((each for each in at if each is not None), None)
    else:
        yield "expires", batch.expires_at


def _input(progress: BatchProgress) -> str:
    parts = [progress.batch.input_file_id]
    if progress.input_filename:
        parts.append(one_line(progress.input_filename))
    if progress.input_bytes is not None:
        parts.append(size(progress.input_bytes))
    return ", ".join(parts)


def _validated(progress: BatchProgress) -> str:
    if progress.validated_bytes is None or progress.input_bytes is None:
        return ""
    return f"{size(progress.validated_bytes)} of {size(progress.input_bytes)} read"


def _failed_line(failed: FailedLine) -> str:
    what = failed.code if failed.status_code is None else f"{failed.status_code} {failed.code}"
    return f"line {failed.line} ({one_line(failed.custom_id)}): {one_line(what)}: {one_line(failed.message)}"


def _name(progress: BatchProgress) -> str:
    named = (progress.batch.metadata or {}).get(NAME_KEY)
    return one_line(named or progress.input_filename or "-")


def _status(status: BatchStatus) -> str:
    return status.value.replace("_", " ")


def _waited_for(waiting: BatchWaiting) -> str:
    return waiting.reason.value.replace("_", " ")


def _took(batch: Batch) -> str:
    ended = batch.completed_at or batch.expired_at or batch.cancelled_at
    return "" if ended is None else f" in {_whole(ended - batch.created_at)}"


def _whole(seconds: float) -> str:
    """Give a duration that is not known to a fraction of a second."""
    return f"{max(1, round(seconds))} s" if seconds < 59.5 else duration(seconds)


def _counted(*numbers: int) -> tuple[str, ...]:
    return tuple(f"{number:,}" for number in numbers)
