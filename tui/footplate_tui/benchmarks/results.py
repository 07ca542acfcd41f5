"""The results of a run as rows: each entrant on each square, all rounds together. Pure."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from footplate_daemon.wire_benchmarks import BenchmarkRun, Distribution, RequestRecord, Summary
from footplate_tui.benchmarks import bootstrap, figures, measures
from footplate_tui.benchmarks.marks import Mark, marks
from footplate_tui.benchmarks.measures import Counting, Measure, Showing, Square
from footplate_tui.format import rate


@dataclass(frozen=True)
class Spread:
    """The middle of some times, and what most of them do not exceed."""

    median: float
    p95: float


@dataclass(frozen=True)
class Row:
    """One entrant on one square."""

    square: Square
    name: str
    showing: Showing
    ttft_ms: Spread | None
    tpot_ms: Spread | None
    latency_ms: Spread | None
    stream: float | None
    """Tokens per second of one stream."""
    throughput: float | None
    """Tokens per second of all together."""
    completed: int
    failed: int
    vram_bytes: int | None
    ram_bytes: int | None
    marks: tuple[Mark, ...]


def rows(run: BenchmarkRun) -> list[Row]:
    """Give a row for each entrant on each square, square by square."""
    found = []
    for square, shown in measures.showings(run).items():
        names = measures.names([each.entrant for each in shown])
        counting = measures.counting_for(shown)
        found += [_row(square, name, each, counting) for name, each in zip(names, shown, strict=True)]
    return found


def measured(found: Sequence[Row]) -> list[Row]:
    """Leave out those of whom nothing was measured anywhere: the remarks say why."""
    names = {row.name for row in found if row.completed or row.failed}
    return [row for row in found if row.name in names]


HEADS = (
    "WORKLOAD",
    "VARIANT",
    "TTFT",
    "P95",
    "STREAM",
    "LATENCY",
    "P95",
    "THROUGHPUT",
    "DONE",
    "FAILED",
    "VRAM",
    "RAM",
)


def cells(row: Row) -> tuple[str, ...]:
    """Give a row as text, in the order of `HEADS`."""
    return (
        str(row.square),
        row.name,
        figures.milliseconds(row.ttft_ms.median if row.ttft_ms else None),
        figures.milliseconds(row.ttft_ms.p95 if row.ttft_ms else None),
        rate(row.stream) if row.stream else figures.NONE,
        figures.milliseconds(row.latency_ms.median if row.latency_ms else None),
        figures.milliseconds(row.latency_ms.p95 if row.latency_ms else None),
        rate(row.throughput) if row.throughput else figures.NONE,
        f"{row.completed:,}",
        f"{row.failed:,}",
        figures.memory(row.vram_bytes),
        figures.memory(row.ram_bytes),
    )


def remarks(found: Sequence[Row]) -> list[str]:
    """Give what speaks against figures, each thing once: `vllm/guide: 1 of 16 requests failed (chat)`."""
    where: dict[tuple[str, str], list[Square]] = {}
    for row in found:
        for mark in row.marks:
            where.setdefault((row.name, mark.sentence), []).append(row.square)
    everywhere = Counter(row.name for row in found)
    return [
        f"{name}: {sentence}"
        if len(squares) == everywhere[name]
        else f"{name}: {sentence} ({'; '.join(map(str, squares))})"
        for (name, sentence), squares in where.items()
    ]


def _row(square: Square, name: str, showing: Showing, counting: Counting) -> Row:
    stream = measures.figure(showing, Measure.STREAM, counting, draws=0)
    throughput = measures.figure(showing, Measure.THROUGHPUT, counting, draws=0)
    return Row(
        square=square,
        name=name,
        showing=showing,
        ttft_ms=_spread(showing, lambda r: r.ttft_ms, lambda s: s.ttft),
        tpot_ms=_spread(showing, lambda r: measures.tpot_ms(r, counting), lambda s: s.tpot),
        latency_ms=_spread(showing, lambda r: r.e2el_ms, lambda s: s.e2el),
        stream=stream.value if stream else None,
        throughput=throughput.value if throughput else None,
        completed=showing.completed,
        failed=showing.failed,
        vram_bytes=showing.vram_peak(),
        ram_bytes=showing.ram_peak(),
        marks=marks(showing),
    )


def _spread(
    showing: Showing,
    of: Callable[[RequestRecord], float | None],
    summarised: Callable[[Summary], Distribution | None],
) -> Spread | None:
    """Give it of all requests together; of rounds whose requests are not at hand, of the first."""
    values = sorted(v for records in showing.records for r in records if (v := of(r)) is not None)
    if values:
        return Spread(bootstrap.quantile(values, 0.5), bootstrap.quantile(values, 0.95))
    for cell in showing.cells:
        known = summarised(cell.summary) if cell.summary else None
        if known:
            return Spread(known.median, known.p95)
    return None
