"""What is measured of an entrant on a square of the matrix: first token, stream, latency, throughput. Pure.

A square is a workload with so many requests at a time. The rounds (repeats) of a cell belong to one square.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal, NamedTuple

from footplate_daemon.wire_benchmarks import BenchmarkRun, Cell, Entrant, RequestRecord
from footplate_tui.benchmarks import bootstrap
from footplate_tui.benchmarks.bootstrap import Estimate, Sample
from footplate_tui.harmless import one_line


class Measure(StrEnum):
    """A figure that entrants are compared by."""

    TTFT = "first token"
    """Median milliseconds until the first one."""
    STREAM = "stream"
    """Tokens per second of one stream, once it has begun: the reciprocal of the median TPOT."""
    LATENCY = "latency"
    """Median milliseconds until the end of an answer."""
    THROUGHPUT = "throughput"
    """Output tokens per second of all requests together."""

    @property
    def is_better_lower(self) -> bool:
        """Whether less is better."""
        return self in {Measure.TTFT, Measure.LATENCY}


class Square(NamedTuple):
    """Work that every entrant was given alike."""

    workload: str
    concurrency: int

    def __str__(self) -> str:
        workload = one_line(self.workload)
        return workload if self.concurrency == 1 else f"{workload}, {self.concurrency} at a time"


Counting = Literal["usage", "counted"]
"""By whom tokens are counted: each runtime itself, or one tokenizer for all."""


@dataclass(frozen=True)
class Showing:
    """What one entrant did on one square, in all rounds."""

    run: BenchmarkRun
    entrant: Entrant
    square: Square
    cells: tuple[Cell, ...]

    @cached_property
    def records(self) -> tuple[tuple[RequestRecord, ...], ...]:
        """The requests that succeeded, as they began, round by round."""
        return tuple(
            tuple(sorted((r for r in cell.records or () if r.error_kind is None), key=_began))
            for cell in self.cells
        )

    @property
    def failed(self) -> int:
        """How many requests failed."""
        return sum(cell.summary.failed for cell in self.cells if cell.summary)

    @property
    def completed(self) -> int:
        """How many succeeded."""
        return sum(cell.summary.completed for cell in self.cells if cell.summary)

    @property
    def disturbed_by(self) -> int:
        """How many requests of others the engine had meanwhile."""
        return sum(cell.summary.disturbed_by for cell in self.cells if cell.summary)

    def vram_peak(self) -> int | None:
        """Give the most bytes of GPU memory; None where nobody tells."""
        return _most(cell.resources.vram_peak_bytes for cell in self.cells if cell.resources)

    def ram_peak(self) -> int | None:
        """Give the most bytes of memory; None where nobody tells."""
        return _most(cell.resources.ram_peak_bytes for cell in self.cells if cell.resources)


def showings(run: BenchmarkRun) -> dict[Square, list[Showing]]:
    """Give what was measured, square by square, entrant by entrant, in the order of the run."""
    found: dict[tuple[Square, int], list[Cell]] = defaultdict(list)
    for cell in run.cells:
        found[Square(cell.workload, cell.concurrency), cell.entrant].append(cell)
    squares: dict[Square, list[Showing]] = defaultdict(list)
    for (square, entrant), cells in found.items():
        squares[square].append(Showing(run, run.entrants[entrant], square, tuple(cells)))
    return {square: sorted(shown, key=lambda s: _place(run, s.entrant)) for square, shown in squares.items()}


def counting_for(shown: Iterable[Showing]) -> Counting:
    """Say whose count is fair: the one tokenizer's where all have it and it is the models' own."""
    shown = list(shown)
    records = [record for one in shown for each in one.records for record in each]
    tokenizers = [one.run.tokenizers.get(one.entrant.model) for one in shown]
    is_own = all(each is not None and each.is_models_own for each in tokenizers)
    by_runtimes = all(record.output_tokens is not None for record in records)
    by_one = bool(records) and all(record.counted_tokens is not None for record in records)
    return "counted" if by_one and (is_own or not by_runtimes) else "usage"


@dataclass(frozen=True)
class Figure:
    """A measure of a showing, with what was drawn for it; see `bootstrap`."""

    value: float
    drawn: tuple[float, ...] = ()

    def estimate(self, confidence: float = bootstrap.CONFIDENCE) -> Estimate:
        """Give it with its interval."""
        return bootstrap.estimate(self.value, self.drawn, confidence)

    def ratio(self, base: "Figure", confidence: float = bootstrap.CONFIDENCE) -> Estimate:
        """Give how many times the base it is."""
        return bootstrap.ratio(self.value, base.value, self.drawn, base.drawn, confidence)


def figure(
    showing: Showing, measure: Measure, counting: Counting, draws: int = bootstrap.DRAWS
) -> Figure | None:
    """Give the measure; None where no request had it."""
    sample, statistic = _sample(showing, measure, counting)
    values = sample.values
    if not values:
        return _summarised(showing, measure)
    value = statistic(values)
    if not value:
        return None
    drawn = [each for each in bootstrap.draws(sample, statistic, count=draws) if each]
    if measure is Measure.THROUGHPUT:
        # The wall time of the cells holds what no single request does: the gaps between them.
        measured = _throughput_of_cells(showing, counting)
        drawn, value = [each * measured / value for each in drawn], measured
    return Figure(value, tuple(drawn))


def tpot_ms(record: RequestRecord, counting: Counting) -> float | None:
    """Give the time for each token after the first, as `vllm bench serve` does."""
    tokens = tokens_of(record, counting)
    if record.ttft_ms is None or record.e2el_ms is None or tokens is None or tokens < 2:
        return None
    return (record.e2el_ms - record.ttft_ms) / (tokens - 1)


def tokens_of(record: RequestRecord, counting: Counting) -> int | None:
    """Give how long the answer was."""
    return record.counted_tokens if counting == "counted" else record.output_tokens


def _sample(
    showing: Showing, measure: Measure, counting: Counting
) -> tuple[Sample[Any], Callable[[list[Any]], float]]:
    values, statistic = _CHOSEN[measure]
    found = (
        tuple(value for record in records if (value := values(record, counting)) is not None)
        for records in showing.records
    )
    return Sample(tuple(found)), statistic


def _per_second(tpots: list[float]) -> float:
    middle = bootstrap.median(tpots)
    return 1000 / middle if middle > 0 else 0.0


def _work(record: RequestRecord, counting: Counting) -> tuple[int, float] | None:
    tokens = tokens_of(record, counting)
    return None if tokens is None or record.e2el_ms is None else (tokens, record.e2el_ms)


def _work_per_second(work: list[tuple[int, float]]) -> float:
    busy_ms = sum(ms for _, ms in work)
    return sum(tokens for tokens, _ in work) / busy_ms * 1000 if busy_ms else 0.0


_CHOSEN: dict[Measure, tuple[Callable[[RequestRecord, Counting], Any], Callable[[list[Any]], float]]] = {
    Measure.TTFT: (lambda record, _: record.ttft_ms, bootstrap.median),
    Measure.LATENCY: (lambda record, _: record.e2el_ms, bootstrap.median),
    Measure.STREAM: (tpot_ms, _per_second),
    Measure.THROUGHPUT: (_work, _work_per_second),
}


def _throughput_of_cells(showing: Showing, counting: Counting) -> float:
    tokens = sum(tokens_of(r, counting) or 0 for each in showing.records for r in each)
    seconds = sum(cell.summary.duration_seconds for cell in showing.cells if cell.summary)
    return tokens / seconds if seconds else 0.0


def _summarised(showing: Showing, measure: Measure) -> Figure | None:
    """Give the figure of cells whose requests are not at hand: the mean of its rounds."""
    values = []
    for cell in showing.cells:
        summary = cell.summary
        if summary is None:
            continue
        values.append(
            {
                Measure.TTFT: summary.ttft.median if summary.ttft else None,
                Measure.LATENCY: summary.e2el.median if summary.e2el else None,
                Measure.STREAM: summary.decode_tokens_per_second,
                Measure.THROUGHPUT: summary.output_tokens_per_second or None,
            }[measure]
        )
    known = [each for each in values if each]
    return Figure(sum(known) / len(known)) if known else None


def _place(run: BenchmarkRun, entrant: Entrant) -> int:
    return next(place for place, each in enumerate(run.entrants) if each is entrant)


def _began(record: RequestRecord) -> float:
    return record.started_ms


def _most(values: Iterable[int | None]) -> int | None:
    return max((each for each in values if each is not None), default=None)


def names(entrants: Sequence[Entrant]) -> list[str]:
    """Name entrants by what tells them apart: `vllm/guide`, `vllm/guide (low-vram)`, `… (4096 tokens)`."""
    return [_name(each, entrants) for each in entrants]


def _name(entrant: Entrant, among: Sequence[Entrant]) -> str:
    alike = [each for each in among if each.variant == entrant.variant]
    told = []
    if len({each.preset for each in alike}) > 1:
        told.append(entrant.preset or "no preset")
    if len({each.context for each in alike}) > 1:
        told.append(f"{entrant.context} tokens" if entrant.context else "its own context")
    variant = one_line(entrant.variant)
    return f"{variant} ({one_line(', '.join(told))})" if told else variant
