"""Benchmarks in words, for the command line. Pure."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from footplate_daemon.wire_benchmarks import BenchmarkRow, BenchmarkRun, Cell, Entrant
from footplate_tui.benchmarks import figures, measures, recommendation, results
from footplate_tui.benchmarks.bootstrap import Estimate
from footplate_tui.benchmarks.comparison import Comparison, Line, Table, certain_change
from footplate_tui.benchmarks.guard import Finding, Guarded
from footplate_tui.benchmarks.measures import Measure
from footplate_tui.cli.output import table
from footplate_tui.format import count, duration, rate
from footplate_tui.harmless import one_line

LIST_HEADS = ("ID", "BEGAN", "STATE", "CELLS", "TOOK", "VARIANTS", "WORKLOADS", "TITLE")


def list_lines(runs: Sequence[BenchmarkRow]) -> Iterator[str]:
    """Give the runs, a line for each."""
    yield from table(LIST_HEADS, [_list_row(run) for run in runs])


def heading(run: BenchmarkRun) -> str:
    """Say what a run does: `Run 3: llamacpp/guide, vllm/guide; short, chat; 1, 8 at a time; …`."""
    wish = run.wish
    levels = ", ".join(dict.fromkeys(str(cell.concurrency) for cell in run.cells))
    parts = [
        ", ".join(map(one_line, run.variants)),
        ", ".join(map(one_line, run.workloads)),
        f"{levels} at a time" if levels else "",
        _requests(run),
        count(wish.repeats, "round"),
    ]
    title = f" ({one_line(run.title)})" if run.title else ""
    return f"Run {run.id}{title}: {'; '.join(filter(None, parts))}"


def _requests(run: BenchmarkRun) -> str:
    numbers = sorted({cell.requests for cell in run.cells})
    if not numbers:
        return ""
    return count(numbers[0], "request") if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]} requests"


def cell_line(run: BenchmarkRun, cell: Cell) -> str:
    """Give a cell that has ended: `  vllm/guide  short, 4 at a time  first token 9.80 ms · 410 tok/s …`."""
    name = measures.names(run.entrants)[cell.entrant]
    work = str(measures.Square(cell.workload, cell.concurrency))
    told = f", round {cell.repeat + 1}" if run.wish.repeats > 1 else ""
    return f"  {name}  {work}{told}  {cell_figures(cell)}"


def cell_figures(cell: Cell) -> str:
    """Give what was measured in a cell."""
    summary = cell.summary
    if summary is None:
        return f"{cell.state}: {one_line(cell.error)}" if cell.error else cell.state
    parts = [
        f"first token {figures.milliseconds(summary.ttft.median)}" if summary.ttft else "",
        f"stream {rate(summary.decode_tokens_per_second)}" if summary.decode_tokens_per_second else "",
        f"all {rate(summary.output_tokens_per_second)}" if cell.concurrency > 1 else "",
        f"{summary.failed} of {count(summary.requests, 'request')} failed" if summary.failed else "",
        f"{summary.valid} of {summary.checked} valid" if summary.checked else "",
        f"disturbed by {count(summary.disturbed_by, 'request')}" if summary.disturbed_by else "",
        cell.state if cell.state in {"cancelled", "cut", "failed"} else "",
    ]
    return " · ".join(filter(None, parts))


def start_line(entrant: Entrant, name: str, place: int) -> str:
    """Give one of an entrant's starts: `llamacpp/guide: cold start 0.41 s`."""
    start = entrant.starts[place]
    if start.kind == "running":
        return f"{name}: runs already"
    kind = "" if start.kind == "unknown" else f"{start.kind} "
    return f"{name}: {kind}start {duration(start.seconds or 0.0)}"


def result_lines(run: BenchmarkRun) -> Iterator[str]:
    """Give everything of a run that a person wants to see first: results, load times, what to keep."""
    found = results.rows(run)
    measured = results.measured(found)
    if measured:
        yield from _narrowed(results.HEADS, [results.cells(row) for row in measured])
        yield ""
        yield from load_lines(run)
    notes = [*results.remarks(found), *map(one_line, run.warnings)]
    if notes:
        if measured:
            yield ""
        yield from (f"note: {one_line(each)}" for each in notes)
    if run.purpose == "benchmark" and len(run.entrants) > 1:
        yield ""
        yield from (each.sentence for each in recommendation.recommend(run))


def load_lines(run: BenchmarkRun) -> Iterator[str]:
    """Give how long each entrant took to load, and what it took in memory."""
    heads = ("VARIANT", "COLD START", "WARM START", "VRAM LOADED", "RAM LOADED", "VERSION")
    yield from _narrowed(
        heads,
        [
            (
                name,
                figures.seconds(entrant.load_seconds.get("cold")),
                figures.seconds(entrant.load_seconds.get("warm")),
                figures.memory(entrant.vram_loaded_bytes),
                figures.memory(entrant.ram_loaded_bytes),
                one_line(entrant.runtime_version or figures.NONE),
            )
            for name, entrant in zip(measures.names(run.entrants), run.entrants, strict=True)
        ],
    )


def ending(run: BenchmarkRun) -> str:
    """Say how a run ended, and what to do with it."""
    took = f" in {duration(run.ended_at - run.started_at)}" if run.ended_at and run.started_at else ""
    cells = f"{run.cells_done} of {count(run.cells_total, 'cell')}"
    error = f": {one_line(run.error).rstrip('.')}" if run.error else ""
    return f"Run {run.id} is {run.state}{took}, {cells}{error}. See: footplate bench report {run.id}"


def comparison_lines(compared: Comparison) -> Iterator[str]:
    """Give a table for each square, with the intervals and the changes against the base."""
    for place, each in enumerate(compared.tables):
        if place:
            yield ""
        yield f"{each.square}:"
        yield from table(("", *(m.value.upper() for m in Measure), "NOTES"), list(_comparison_rows(each)))
    if compared.notes:
        yield ""
        yield from (f"note: {note}" for note in compared.notes)


def guard_lines(guarded: Guarded) -> Iterator[str]:
    """Give what the guard says: the verdict, then its figures and the suspects."""
    run, before = guarded.run.id, guarded.before.id
    margin = f"{guarded.threshold * 100:g} %"
    if guarded.is_quiet:
        yield f"Run {run} is no slower than run {before} (by {margin} or more, surely)."
    else:
        yield f"Run {run} is worse than run {before}:"
        yield from (f"  {each}" for each in guarded.more)
    told = [each for each in guarded.findings if each.verdict != "same"]
    if told:
        yield from table(("VARIANT", "WORKLOAD", "", "BEFORE", "NOW", "CHANGE", ""), [*map(_finding, told)])
    if guarded.differences and told:
        yield "What is different: " + "; ".join(map(one_line, guarded.differences)) + "."


def _list_row(run: BenchmarkRow) -> tuple[str, ...]:
    took = run.ended_at - run.started_at if run.ended_at and run.started_at else None
    return (
        str(run.id),
        datetime.fromtimestamp(run.created_at).astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        run.state,
        f"{run.cells_done}/{run.cells_total}",
        duration(took) if took is not None else "-",
        ", ".join(map(one_line, run.variants)),
        ", ".join(map(one_line, run.workloads)),
        one_line(run.title),
    )


def _narrowed(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lay out a table without the columns in which nobody has anything."""
    kept = [
        place
        for place in range(len(heads))
        if place < 2 or any(row[place] not in {figures.NONE, "0"} for row in rows)
    ]
    yield from table([heads[p] for p in kept], [[row[p] for p in kept] for row in rows])


def _comparison_rows(shown: Table) -> Iterator[tuple[str, ...]]:
    for line in shown.lines:
        estimates = {measure: figure.estimate() for measure, figure in line.figures.items()}
        marks = "; ".join(mark.sentence for mark in line.marks)
        yield (line.name, *(figures.interval(m, estimates.get(m)) for m in Measure), marks)
        if line.changes:
            yield ("", *(_change(line, measure) for measure in Measure), "")


def _change(line: Line, measure: Measure) -> str:
    change = line.changes.get(measure)
    return "" if change is None else f"  {figures.change(measure, change)}"


def _finding(finding: Finding) -> tuple[str, ...]:
    measure = Measure(finding.measure)
    return (
        finding.variant,
        str(finding.square),
        finding.measure,
        figures.value(measure, finding.before),
        figures.value(measure, finding.now),
        _worse(finding.change),
        finding.verdict,
    )


def _worse(change: Estimate) -> str:
    """Give a change for the worse with its interval: `12 % worse (8 to 16)`."""
    words = figures.times(1 / change.value)
    if change.low is None or change.high is None or not certain_change(change):
        return f"{words}, uncertain"
    low, high = change.low, change.high
    if change.value < 1:
        low, high = 1 / high, 1 / low
    if low >= 1.5:
        return f"{words} ({low:.1f} to {high:.1f} times)"
    return f"{words} ({(low - 1) * 100:.0f} to {(high - 1) * 100:.0f} %)"
