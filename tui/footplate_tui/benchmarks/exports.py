"""A run as text for other programs and people: JSON, CSV, Markdown, HTML. Pure."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from footplate_daemon.wire_benchmarks import BenchmarkRun, Cell, Distribution, Resources, Summary
from footplate_tui.benchmarks import figures, measures, recommendation, results
from footplate_tui.benchmarks.agreement import Asked
from footplate_tui.benchmarks.bootstrap import Estimate
from footplate_tui.benchmarks.comparison import Comparison, Line
from footplate_tui.benchmarks.guard import Guarded
from footplate_tui.benchmarks.report import page
from footplate_tui.harmless import one_line

STATISTICS = ("mean", "median", "p95", "p99", "std")
TIMES = ("ttft", "tpot", "itl", "e2el")
_OF_CELL = (
    "number",
    "variant",
    "runtime",
    "model",
    "preset",
    "workload",
    "concurrency",
    "repeat",
    "state",
    "error",
)
_OF_SUMMARY = tuple(name for name in Summary.model_fields if name not in {*TIMES, "errors"})
_OF_RESOURCES = tuple(Resources.model_fields)
CSV_COLUMNS = (
    "run",
    *_OF_CELL,
    "context",
    "runtime_version",
    "load_cold_seconds",
    "load_warm_seconds",
    *_OF_SUMMARY,
    *(f"{time}_{statistic}_ms" for time in TIMES for statistic in STATISTICS),
    *_OF_RESOURCES,
    "ignored",
    "clamped",
)


def as_json(run: BenchmarkRun) -> str:
    """Give everything: the run as the API has it, every request in it."""
    return run.model_dump_json(indent=1)


def as_csv(run: BenchmarkRun) -> str:
    """Give a row for each cell, for spreadsheets."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    writer.writerows([_inert(value) for value in _csv_row(run, cell)] for cell in run.cells)
    return text.getvalue()


def as_markdown(run: BenchmarkRun) -> str:
    """Give the results for a page that people read: tables, what to keep, and what it was measured with."""
    return "\n".join(_markdown(run)) + "\n"


FORMATS: dict[str, Callable[[BenchmarkRun], str]] = {
    "json": as_json,
    "csv": as_csv,
    "md": as_markdown,
    "html": page.as_html,
}


def comparison_as_json(compared: Comparison) -> dict[str, Any]:
    """Give a comparison for programs: values, intervals, and ratios to the base."""
    return {
        "runs": [run.id for run in compared.runs],
        "squares": [
            {
                "workload": each.square.workload,
                "concurrency": each.square.concurrency,
                "tokens_counted_by": each.counting,
                "entrants": [_line_as_json(line) for line in each.lines],
            }
            for each in compared.tables
        ],
        "notes": list(compared.notes),
    }


def guarded_as_json(guarded: Guarded) -> dict[str, Any]:
    """Give what the guard says for programs."""
    return {
        "run": guarded.run.id,
        "before": guarded.before.id,
        "threshold": guarded.threshold,
        "quiet": guarded.is_quiet,
        "findings": [
            asdict(each)
            | {"square": {"workload": each.square.workload, "concurrency": each.square.concurrency}}
            for each in guarded.findings
        ],
        "more": list(guarded.more),
        "differences": list(guarded.differences),
    }


def asked_as_json(asked: Asked) -> dict[str, Any]:
    """Give the answers to one prompt for programs."""
    return asdict(asked) | {
        "square": {"workload": asked.square.workload, "concurrency": asked.square.concurrency},
        "equal": asked.is_equal if asked.is_comparable else None,
    }


def _line_as_json(line: Line) -> dict[str, Any]:
    return {
        "name": line.name,
        "run": line.showing.run.id,
        "variant": line.showing.entrant.variant,
        "preset": line.showing.entrant.preset,
        "is_base": line.is_base,
        "figures": {m.value: _estimate(figure.estimate()) for m, figure in line.figures.items()},
        "times_the_base": {m.value: _estimate(change) for m, change in line.changes.items()},
        "marks": [mark.sentence for mark in line.marks],
    }


def _estimate(estimate: Estimate) -> dict[str, float | None]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def _csv_row(run: BenchmarkRun, cell: Cell) -> Iterator[Any]:
    entrant = run.entrants[cell.entrant]
    yield run.id
    yield from (getattr(cell, name) for name in _OF_CELL)
    yield from (entrant.context, entrant.runtime_version)
    yield from (entrant.load_seconds.get(kind) for kind in ("cold", "warm"))
    yield from (getattr(cell.summary, name) if cell.summary else None for name in _OF_SUMMARY)
    for time in TIMES:
        found: Distribution | None = getattr(cell.summary, time) if cell.summary else None
        yield from (getattr(found, statistic) if found else None for statistic in STATISTICS)
    yield from (getattr(cell.resources, name) if cell.resources else None for name in _OF_RESOURCES)
    translation = cell.translation
    yield " ".join(translation.ignored) if translation else ""
    yield " ".join(translation.clamped) if translation else ""


def _inert(value: Any) -> Any:
    """Keep a spreadsheet from taking text of others for a formula."""
    if not isinstance(value, str):
        return value
    line = one_line(value)
    return f"'{line}" if line[:1] in {"=", "+", "-", "@"} else line


def _markdown(run: BenchmarkRun) -> Iterator[str]:
    yield f"# Benchmark {run.id}{f': {_cell(run.title)}' if run.title else ''}"
    yield ""
    if run.started_at:
        began = datetime.fromtimestamp(run.started_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
        yield f"{began}, {run.state}, {run.cells_done} of {run.cells_total} cells."
        yield ""
    for recommended in recommendation.recommend(run):
        yield from (f"**{_cell(recommended.sentence)}**", "")
    found = results.rows(run)
    times = ("TTFT", "p95", "stream", "latency", "p95", "throughput")
    heads = ("workload", "variant", *times, "done", "failed")
    yield from _markdown_table(
        (*heads, "VRAM", "RAM"), [results.cells(row) for row in results.measured(found)]
    )
    yield ""
    for remark in [*results.remarks(found), *run.warnings]:
        yield f"- {_cell(remark)}"
    yield from ("", "## Loading", "")
    yield from _markdown_table(
        ("variant", "cold start", "warm start", "version", "context", "weights"),
        [
            (
                name,
                figures.seconds(entrant.load_seconds.get("cold")),
                figures.seconds(entrant.load_seconds.get("warm")),
                entrant.runtime_version or figures.NONE,
                str(entrant.context or figures.NONE),
                entrant.weights_hash or entrant.weights or figures.NONE,
            )
            for name, entrant in zip(measures.names(run.entrants), run.entrants, strict=True)
        ],
    )
    yield from ("", "## Measured with", "")
    yield from (f"- {_cell(name)}: {_cell(value)}" for name, value in page.environment_facts(run))


def _markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    yield from (f"| {' | '.join(map(_cell, row))} |" for row in rows)


def _cell(text: str) -> str:
    """Keep text of others from ending a cell or beginning markup."""
    return one_line(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
