"""The sections with charts: distributions, concurrency, memory and loading, every second. Pure."""

from collections.abc import Callable, Iterator, Sequence

from footplate_daemon.wire_benchmarks import BenchmarkRun, Cell, Entrant, RequestRecord
from footplate_tui.benchmarks import figures, measures
from footplate_tui.benchmarks.measures import Counting, Measure, Showing, Square
from footplate_tui.benchmarks.report import charts
from footplate_tui.benchmarks.report.charts import Axes, Path, Series
from footplate_tui.benchmarks.report.markup import Markup, element
from footplate_tui.format import rate

FEWEST_POINTS = 5
"""Seconds that make a timeline; a run of less has nothing to show there."""


def sections(run: BenchmarkRun) -> Iterator[Markup]:
    """Give every section for which something was measured."""
    shown = measures.showings(run)
    each_request = [
        part
        for square, those in shown.items()
        if any(each.completed for each in those)
        for part in _distributions(run, square, those)
    ]
    if each_request:
        yield element("section", element("h2", "Each request"), *each_request)
    yield from _concurrency(run, shown)
    yield from _memory_and_loading(run)
    yield from _timeline(run)


def _distributions(run: BenchmarkRun, square: Square, shown: Sequence[Showing]) -> Iterator[Markup]:
    counting = measures.counting_for(shown)
    of: tuple[tuple[str, Callable[[RequestRecord], float | None]], ...] = (
        ("Time to first token", lambda r: r.ttft_ms),
        ("Time per output token", lambda r: measures.tpot_ms(r, counting)),
        ("Latency", lambda r: r.e2el_ms),
    )
    yield element("h3", str(square))
    series = ((title, _series(run, shown, value)) for title, value in of)
    drawn = (
        _figure(title, charts.strips(each, title, figures.milliseconds, figures.axis_time))
        for title, each in series
    )
    yield element("div", *drawn, class_="grid")


def _series(
    run: BenchmarkRun, shown: Sequence[Showing], value: Callable[[RequestRecord], float | None]
) -> list[Series]:
    names = measures.names([each.entrant for each in shown])
    return [
        Series(
            name,
            _place(run, each.entrant),
            [found for records in each.records for r in records if (found := value(r)) is not None],
        )
        for name, each in zip(names, shown, strict=True)
        if each.completed
    ]


def _concurrency(run: BenchmarkRun, shown: dict[Square, list[Showing]]) -> Iterator[Markup]:
    for workload in dict.fromkeys(square.workload for square in shown):
        levels = sorted(square.concurrency for square in shown if square.workload == workload)
        if len(levels) < 2:
            continue
        counting = measures.counting_for(
            e for s, those in shown.items() if s.workload == workload for e in those
        )
        squares = {level: shown[Square(workload, level)] for level in levels}
        drawn = [
            _figure(title, _levels(run, squares, measure, counting, title))
            for title, measure in (
                ("Tokens per second, all together", Measure.THROUGHPUT),
                ("Median time to first token", Measure.TTFT),
                ("Tokens per second of one stream", Measure.STREAM),
            )
        ]
        yield element(
            "section",
            element("h2", f"{workload}: more at a time"),
            _legend(run),
            element("div", *drawn, class_="grid"),
        )


def _levels(
    run: BenchmarkRun,
    squares: dict[int, list[Showing]],
    measure: Measure,
    counting: Counting,
    title: str,
) -> Markup:
    paths = []
    for place, (entrant, name) in enumerate(zip(run.entrants, measures.names(run.entrants), strict=True)):
        points = [
            (float(level), found.value)
            for level, shown in squares.items()
            for each in shown
            if each.entrant is entrant and (found := measures.figure(each, measure, counting, draws=0))
        ]
        if points:
            paths.append(Path(name, place, [points]))

    def unit(amount: float) -> str:
        return figures.value(measure, amount)

    beside = figures.axis_time if measure.is_better_lower else figures.axis
    levels = [float(level) for level in squares]
    return charts.lines(paths, title, Axes(figures.axis, beside, unit, levels))


def _memory_and_loading(run: BenchmarkRun) -> Iterator[Markup]:
    names = list(zip(measures.names(run.entrants), range(len(run.entrants)), strict=True))
    drawn = []
    for title, of in (("GPU memory", _vram), ("Memory of the processes (RAM)", _ram)):
        groups = [(name, place, of(run, place)) for name, place in names]
        if any(values for _, _, values in groups):
            drawn.append(_figure(title, charts.bars(groups, title, figures.memory)))
    starts = [(name, place, list(_starts(run.entrants[place]))) for name, place in names]
    if any(values for _, _, values in starts):
        title = "From start to ready"
        drawn.append(_figure(title, charts.bars(starts, title, figures.seconds)))
    energy = [(name, place, list(_energy(run, place))) for name, place in names]
    if any(values for _, _, values in energy):
        title = "Energy of the GPU"
        drawn.append(_figure(title, charts.bars(energy, title, _joules)))
    if drawn:
        grid = element("div", *drawn, class_="grid")
        yield element("section", element("h2", "Memory and loading"), grid)


def _timeline(run: BenchmarkRun) -> Iterator[Markup]:
    names = measures.names(run.entrants)
    paths = [Path(name, place, list(_parts(run, place))) for place, name in enumerate(names)]
    paths = [path for path in paths if path.parts]
    if sum(len(part) for path in paths for part in path.parts) < FEWEST_POINTS:
        return
    title = "Tokens per second, second by second; between the cells time stands still"
    drawn = charts.lines(paths, title, Axes(figures.axis_clock, figures.axis, rate), width=charts.WIDE)
    yield element(
        "section",
        element("h2", "While it was measured"),
        _legend(run),
        _figure(title, element("div", drawn, class_="scrolls")),
    )


def _parts(run: BenchmarkRun, place: int) -> Iterator[list[tuple[float, float]]]:
    """Give the points of each cell, one cell after the other without the pauses between them."""
    began = 0.0
    for cell in sorted(run.cells, key=lambda each: each.started_at or 0.0):
        if cell.entrant == place and cell.points:
            yield [(began + point.at_seconds, point.tokens_per_second) for point in cell.points]
        began += cell.points[-1].at_seconds if cell.points else 0.0


def _vram(run: BenchmarkRun, place: int) -> list[tuple[str, float]]:
    peaks = [c.resources.vram_peak_bytes for c in _cells(run, place) if c.resources]
    return _peak_and_loaded(peaks, run.entrants[place].vram_loaded_bytes)


def _ram(run: BenchmarkRun, place: int) -> list[tuple[str, float]]:
    peaks = [c.resources.ram_peak_bytes for c in _cells(run, place) if c.resources]
    return _peak_and_loaded(peaks, run.entrants[place].ram_loaded_bytes)


def _peak_and_loaded(peaks: Sequence[int | None], loaded: int | None) -> list[tuple[str, float]]:
    known = [each for each in peaks if each]
    found = [("at most", float(max(known)))] if known else []
    return found + ([("loaded", float(loaded))] if loaded else [])


def _starts(entrant: Entrant) -> Iterator[tuple[str, float]]:
    yield from entrant.load_seconds.items()


def _energy(run: BenchmarkRun, place: int) -> Iterator[tuple[str, float]]:
    cells = [cell for cell in _cells(run, place) if cell.resources and cell.resources.energy_joules]
    joules = sum(cell.resources.energy_joules or 0.0 for cell in cells if cell.resources)
    tokens = sum(cell.summary.output_tokens for cell in cells if cell.summary)
    if joules and tokens:
        yield ("a token", joules / tokens)


def _cells(run: BenchmarkRun, place: int) -> list[Cell]:
    return [cell for cell in run.cells if cell.entrant == place]


def _place(run: BenchmarkRun, entrant: Entrant) -> int:
    return next(place for place, each in enumerate(run.entrants) if each is entrant)


def _legend(run: BenchmarkRun) -> Markup:
    measured = {cell.entrant for cell in run.cells if cell.summary and cell.summary.completed}
    names = enumerate(measures.names(run.entrants))
    return charts.legend([(name, place) for place, name in names if place in measured])


def _figure(title: str, drawn: Markup) -> Markup:
    return element("figure", element("figcaption", title), drawn)


def _joules(amount: float) -> str:
    return f"{amount:.2f} J"
