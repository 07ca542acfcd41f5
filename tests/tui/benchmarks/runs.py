"""Runs made up for tests: what engines of a given speed would have been measured as."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from footplate_daemon.wire import Step, StepName
from footplate_daemon.wire_benchmarks import (
    BenchmarkRun,
    BenchmarkWish,
    Cell,
    Distribution,
    EngineStart,
    Entrant,
    Environment,
    LivePoint,
    RequestRecord,
    Resources,
    Summary,
    Tokenizer,
    Translation,
    VariantChoice,
    Workload,
    WorkloadKind,
)
from footplate_tui.benchmarks import bootstrap, measures

BEGAN = 1_780_000_000.0
ENVIRONMENT = Environment(
    footplate_version="0.1.0",
    host="box",
    system="Linux 6.8.0 x86_64",
    python="3.11.7",
    cpu="EPYC",
    cpu_count=2,
    ram_total_bytes=24_000_000_000,
)


@dataclass(frozen=True)
class Engine:
    """How an engine behaves."""

    runtime: str = "llamacpp"
    model: str = "guide"
    preset: str | None = "balanced"
    ttft_ms: float = 10.0
    itl_ms: float = 2.0
    noise: float = 0.05
    """Standard deviation of every time, as a share of it."""
    tokens: int = 30
    vram_bytes: int | None = None
    ram_bytes: int | None = 60_000_000
    fails: int = 0
    """So many of the requests of each cell."""
    disturbed_by: int = 0
    ignored: tuple[str, ...] = ()
    answers: Sequence[str] = ()
    """To request 0, 1, …; the rest say `answer N`."""
    error: str | None = None
    """It does not start, for this reason."""
    version: str = "1"
    flags: tuple[str, ...] = ()

    @property
    def variant(self) -> str:
        return f"{self.runtime}/{self.model}"


@dataclass(frozen=True)
class Matrix:
    """What is asked of the engines."""

    workloads: tuple[WorkloadKind, ...] = (WorkloadKind.SHORT,)
    concurrency: tuple[int, ...] = (1,)
    requests: int = 24
    repeats: int = 1
    purpose: Any = "benchmark"
    parameters: dict[str, Any] = field(default_factory=dict)


def run(
    *engines: Engine,
    matrix: Matrix | None = None,
    run_id: int = 1,
    seed: int = 1,
    environment: Environment | None = ENVIRONMENT,
) -> BenchmarkRun:
    """Give a run that is done, with its requests; another seed is other noise."""
    matrix = matrix or Matrix()
    chance = random.Random(seed)
    cells = tuple(_cells(engines, matrix, chance))
    return BenchmarkRun(
        id=run_id,
        title="",
        purpose=matrix.purpose,
        state="done",
        created_at=BEGAN,
        started_at=BEGAN,
        ended_at=BEGAN + 10.0 * len(cells),
        variants=tuple(dict.fromkeys(engine.variant for engine in engines)),
        workloads=tuple(kind.value for kind in matrix.workloads),
        cells_done=len(cells),
        cells_total=len(cells),
        wish=BenchmarkWish(
            variants=tuple(VariantChoice(name=engine.variant) for engine in engines),
            workloads=tuple(Workload(kind=kind) for kind in matrix.workloads),
            concurrency=matrix.concurrency,
            requests=matrix.requests,
            repeats=matrix.repeats,
            parameters=matrix.parameters,
            purpose=matrix.purpose,
        ),
        entrants=tuple(map(entrant, engines)),
        cells=cells,
        environment=environment,
        tokenizers={e.model: Tokenizer(source="/models/guide", is_models_own=True) for e in engines},
    )


def entrant(engine: Engine) -> Entrant:
    return Entrant(
        variant=engine.variant,
        runtime=engine.runtime,
        model=engine.model,
        preset=engine.preset,
        context=2048,
        state="failed" if engine.error else "done",
        error=engine.error,
        starts=()
        if engine.error
        else (
            _start("cold", 2.0 * engine.ttft_ms / 10),
            _start("warm", 1.0 * engine.ttft_ms / 10),
        ),
        runtime_version=engine.version,
        command=(engine.runtime, "--port", "18000", *engine.flags),
        weights="/models/guide.gguf",
        weights_hash="sha256:ab",
        ram_loaded_bytes=engine.ram_bytes,
        vram_loaded_bytes=engine.vram_bytes,
    )


def distribution(values: Sequence[float]) -> Distribution | None:
    if not values:
        return None
    ordered = sorted(values)
    mean = sum(ordered) / len(ordered)
    return Distribution(
        count=len(ordered),
        mean=mean,
        std=(sum((each - mean) ** 2 for each in ordered) / len(ordered)) ** 0.5,
        minimum=ordered[0],
        median=bootstrap.quantile(ordered, 0.5),
        p90=bootstrap.quantile(ordered, 0.9),
        p95=bootstrap.quantile(ordered, 0.95),
        p99=bootstrap.quantile(ordered, 0.99),
        maximum=ordered[-1],
    )


def _start(kind: Any, seconds: float) -> EngineStart:
    step = Step(name=StepName.LOAD, started_at=BEGAN, seconds=seconds)
    return EngineStart(kind=kind, seconds=seconds, steps=(step,))


def _cells(engines: Sequence[Engine], matrix: Matrix, chance: random.Random) -> Iterator[Cell]:
    number = 0
    for place, engine in enumerate(engines):
        for kind in matrix.workloads:
            for concurrency in matrix.concurrency:
                for repeat in range(matrix.repeats):
                    yield _cell(engine, matrix, chance, place, (number, kind, concurrency, repeat))
                    number += 1


def _cell(
    engine: Engine,
    matrix: Matrix,
    chance: random.Random,
    place: int,
    which: tuple[int, WorkloadKind, int, int],
) -> Cell:
    number, kind, concurrency, repeat = which
    known = {
        "number": number,
        "entrant": place,
        "variant": engine.variant,
        "runtime": engine.runtime,
        "model": engine.model,
        "preset": engine.preset,
        "workload": kind.value,
        "kind": kind,
        "concurrency": concurrency,
        "repeat": repeat,
        "requests": matrix.requests,
    }
    if engine.error:
        return Cell(**known, state="failed", error=engine.error, records=())
    records = [_record(engine, kind, chance, each) for each in range(matrix.requests)]
    began = BEGAN + 10.0 * number
    return Cell(
        **known,
        state="done",
        started_at=began,
        ended_at=began + 10.0,
        records=tuple(records),
        summary=_summary(engine, records, concurrency, kind),
        resources=Resources(
            vram_start_bytes=engine.vram_bytes,
            vram_peak_bytes=engine.vram_bytes,
            vram_end_bytes=engine.vram_bytes,
            ram_start_bytes=engine.ram_bytes,
            ram_peak_bytes=engine.ram_bytes,
            ram_end_bytes=engine.ram_bytes,
        ),
        translation=Translation(asked={"temperature": 0}, sent={"temperature": 0}, ignored=engine.ignored),
        points=tuple(_point(engine, number, concurrency, second) for second in range(1, 8)),
    )


def _record(engine: Engine, kind: WorkloadKind, chance: random.Random, number: int) -> RequestRecord:
    began = number * 100.0
    if number < engine.fails:
        return RequestRecord(number=number, started_ms=began, error_kind="server", error="500: out of order")
    ttft = engine.ttft_ms * max(0.1, chance.gauss(1, engine.noise))
    gaps = [engine.itl_ms * max(0.1, chance.gauss(1, engine.noise)) for _ in range(engine.tokens - 1)]
    is_json = kind is WorkloadKind.JSON_ROUTER
    asked = 0 if kind is WorkloadKind.REPEAT else number
    return RequestRecord(
        number=number,
        started_ms=began,
        ttft_ms=ttft,
        e2el_ms=ttft + sum(gaps),
        itl_ms=tuple(gaps),
        prompt_tokens=20,
        output_tokens=engine.tokens,
        counted_tokens=engine.tokens,
        finish_reason="stop",
        is_valid=True if is_json else None,
        prompt=f"question {asked}",
        answer=engine.answers[number] if number < len(engine.answers) else f"answer {asked}",
    )


def _summary(
    engine: Engine, records: Sequence[RequestRecord], concurrency: int, kind: WorkloadKind
) -> Summary:
    good = [record for record in records if not record.error_kind]
    busy = sum(record.e2el_ms or 0 for record in good) / 1000 / concurrency
    tokens = sum(record.output_tokens or 0 for record in good)
    tpot = [ms for r in good if (ms := measures.tpot_ms(r, "usage")) is not None]
    is_json = kind is WorkloadKind.JSON_ROUTER
    return Summary(
        requests=len(records),
        completed=len(good),
        failed=len(records) - len(good),
        errors={"server": engine.fails} if engine.fails else {},
        duration_seconds=busy * 1.01 or 0.1,
        prompt_tokens=20 * len(good),
        output_tokens=tokens,
        counted_tokens=tokens,
        ttft=distribution([r.ttft_ms or 0 for r in good]),
        tpot=distribution(tpot),
        itl=distribution([gap for r in good for gap in r.itl_ms]),
        e2el=distribution([r.e2el_ms or 0 for r in good]),
        output_tokens_per_second=tokens / (busy * 1.01) if busy else 0.0,
        requests_per_second=len(good) / (busy * 1.01) if busy else 0.0,
        decode_tokens_per_second=1000 / bootstrap.median(tpot) if tpot else None,
        valid=len(good) if is_json else None,
        checked=len(good) if is_json else None,
        disturbed_by=engine.disturbed_by,
    )


def _point(engine: Engine, cell: int, concurrency: int, second: int) -> LivePoint:
    return LivePoint(
        cell=cell,
        at_seconds=float(second),
        tokens_per_second=1000 / engine.itl_ms * concurrency * (1 + 0.1 * (second % 3)),
        running=concurrency,
        completed=second * 2,
        ram_bytes=engine.ram_bytes,
        vram_bytes=engine.vram_bytes,
    )
