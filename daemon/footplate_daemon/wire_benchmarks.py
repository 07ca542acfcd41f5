"""Every shape of benchmarks that crosses the daemon's socket, both ways.

    POST   /api/v1/benchmark              BenchmarkWish to BenchmarkRun (202); those before it come first
    GET    /api/v1/benchmark              BenchmarkPage: the newest first, `?limit=&before=&purpose=`
    GET    /api/v1/benchmark/{id}         BenchmarkRun; `?records=1` with every request, `&cell=N` of one cell
    GET    /api/v1/benchmark/{id}/events  SSE: `run` (BenchmarkRun, no records) first and after changes,
                                          `point` (LivePoint) each second; the `run` that ended is the last.
                                          The first `run` has the points of all cells, later ones have none
    POST   /api/v1/benchmark/{id}/cancel  BenchmarkRun; what was measured is kept
    DELETE /api/v1/benchmark/{id}         204; `Conflict` while it waits or runs

A run is a matrix: entrants (a variant under a preset), workloads, concurrency and repeats; each square of it
is a cell with a result. The words and their definitions are those of `vllm bench serve`: TTFT is the first
event with `choices` after the request began to be sent; ITL the gaps between such events, of all requests
together; E2EL the last such event; TPOT (E2EL - TTFT) / (output tokens - 1), for answers of more than one
token; throughputs are totals over the wall time of the cell. Failed requests are in no latency, and counted.
"""

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from footplate_daemon.wire import LONGEST_CONTEXT, LONGEST_TITLE, Shape, Step, Wish

MOST_VARIANTS = 32
MOST_WORKLOADS = 32
MOST_CONCURRENCY = 1024
MOST_REQUESTS = 10_000
MOST_LINES = 100_000
LONGEST_LINE = 1_000_000
"""Characters of one line of a workload's file."""

# --- what is asked for ------------------------------------------------------------------------------------


class WorkloadKind(StrEnum):
    """What kind of work is given to an engine."""

    SHORT = "short"
    """Questions of a sentence, answers of a few."""
    CHAT = "chat"
    """Conversations of several turns, answers of a paragraph."""
    LONG_PROMPT = "long-prompt"
    """Prompts near the limit of the engine's context."""
    JSON_ROUTER = "json-router"
    """Requests that are to be sorted into a small JSON object of a given schema."""
    CONCURRENCY = "concurrency"
    """The work of `short`, on a ramp of concurrency: one cell for each of its `levels`."""
    REPEAT = "repeat"
    """One prompt, always the same, temperature 0 and a fixed seed: whether the answers are identical."""
    FILE = "file"
    """What the lines of a file say."""


class Workload(Wish):
    """Work for engines: the same seed and sizes give the same prompts, everywhere and always."""

    kind: WorkloadKind
    name: str | None = Field(default=None, min_length=1, max_length=LONGEST_TITLE)
    """What its cells are called; None: its kind. No two workloads of a run share a name."""
    requests: int | None = Field(default=None, ge=1, le=MOST_REQUESTS)
    """In each cell; None: those of the benchmark, of `file` each line once."""
    seed: int | None = Field(default=None, ge=0, le=2**31 - 1)
    """None: that of the benchmark."""
    prompt_tokens: int | None = Field(default=None, ge=1, le=LONGEST_CONTEXT)
    """About how long a prompt is; None: as its kind has it (`long-prompt`: the context less the answer)."""
    max_tokens: int | None = Field(default=None, ge=1, le=LONGEST_CONTEXT)
    """Longest answer; None: as its kind has it."""
    levels: tuple[int, ...] | None = Field(default=None, min_length=1, max_length=16)
    """Of `concurrency`: requests at a time, level by level; None: 1, 2, 4, 8."""
    lines: tuple[str, ...] | None = Field(default=None, min_length=1, max_length=MOST_LINES)
    """Of `file`: its lines, or the one text of a ShareGPT file, for the daemon may be on another machine.

    A line is JSON: `{"prompt"}`, `{"messages"}`, OpenAI's batch line `{"body": {…}}`, or ShareGPT's
    `{"conversations": [{"from", "value"}]}`; beside `prompt` and `messages`, `max_tokens` and
    `response_format` are heeded. A mark goes before each first text, unless `cache` is `measure`.
    """


class VariantChoice(Wish):
    """A variant that takes part."""

    name: str
    """A variant `runtime/model`, or a model when `runtime` is given."""
    runtime: str | None = None
    preset: str | None = None
    """None: each of the benchmark's presets; when it has none, the variant's own."""
    context: int | None = Field(default=None, ge=1, le=LONGEST_CONTEXT)


Purpose = Literal["benchmark", "check"]


class BenchmarkWish(Wish):
    """Body of `POST /api/v1/benchmark`."""

    variants: tuple[VariantChoice, ...] = Field(min_length=1, max_length=MOST_VARIANTS)
    workloads: tuple[Workload, ...] = Field(
        default=(Workload(kind=WorkloadKind.SHORT),), min_length=1, max_length=MOST_WORKLOADS
    )
    presets: tuple[str, ...] = Field(default=(), max_length=16)
    """Each variant is measured under each of these; every one must have them."""
    concurrency: tuple[int, ...] = Field(default=(1,), min_length=1, max_length=16)
    """Requests at a time, one cell for each; workloads of the kind `concurrency` have their own."""
    requests: int = Field(default=16, ge=1, le=MOST_REQUESTS)
    """In each cell, where the workload does not say."""
    warm_ups: int = Field(default=2, ge=0, le=1000)
    """Requests before each cell that are not counted."""
    repeats: int = Field(default=1, ge=1, le=100)
    """Each cell is measured so often; the rounds are interleaved within an engine's life."""
    seed: int = Field(default=42, ge=0, le=2**31 - 1)
    cold: bool = True
    """Stop the engine first and start it with its weights out of the page cache, then once more with them in
    it (`warm`); False measures what runs, or starts it as it comes."""
    cache: Literal["avoid", "measure"] = "avoid"
    """`avoid`: every prompt is unique from its first word, so that no prefix cache helps; `measure`: all
    prompts of a cell begin with one long text, and the warm-ups have filled the cache with it."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """OpenAI generation parameters, over the profile of every variant alike: `temperature`, `ignore_eos`…"""
    keep_answers: bool = True
    """Keep prompts and answers with the requests."""
    timeout_seconds: float = Field(default=600.0, gt=0, le=86_400)
    """A request that takes longer has failed."""
    title: str = Field(default="", max_length=LONGEST_TITLE)
    purpose: Purpose = "benchmark"


# --- what was measured ------------------------------------------------------------------------------------

ErrorKind = Literal["refused", "server", "timeout", "connection", "stream", "engine", "empty"]
"""`refused`: status 4xx; `server`: 5xx; `stream`: an error within the stream, or no proper end; `engine`: it
was stopped or died; `empty`: a stream that held nothing."""


class RequestRecord(Shape):
    """One request of a cell, as raw as it was measured."""

    number: int
    """Counts from 0 within a cell: the same number has the same prompt for every entrant."""
    started_ms: float
    """After the cell began."""
    ttft_ms: float | None = None
    e2el_ms: float | None = None
    itl_ms: tuple[float, ...] = ()
    """The gaps between the events that had `choices`."""
    prompt_tokens: int | None = None
    """By the engine's own `usage`, as are the next two."""
    output_tokens: int | None = None
    cached_tokens: int | None = None
    counted_tokens: int | None = None
    """Of the answer with its reasoning, by the one tokenizer of the run; None where it has none."""
    finish_reason: str | None = None
    error_kind: ErrorKind | None = None
    """None: it succeeded."""
    error: str | None = None
    is_valid: bool | None = None
    """Of `json-router` and wherever a schema was asked for: whether the answer is such an object."""
    validity: str | None = None
    """Why it is not valid, in a sentence."""
    prompt: str | None = None
    """The last message that was sent; None where answers are not kept."""
    answer: str | None = None
    reasoning: str | None = None


class Distribution(Shape):
    """Milliseconds: percentiles are linear, as numpy's; the deviation is that of a whole population."""

    count: int
    mean: float
    std: float
    minimum: float
    median: float
    p90: float
    p95: float
    p99: float
    maximum: float


class Summary(Shape):
    """The statistics of one cell."""

    requests: int
    completed: int
    failed: int
    errors: dict[ErrorKind, int] = Field(default_factory=dict)
    duration_seconds: float
    """From the first request to the end of the last."""
    prompt_tokens: int = 0
    """Of completed requests; as told by `usage`, or where it says nothing, by the one tokenizer."""
    output_tokens: int = 0
    cached_tokens: int | None = None
    counted_tokens: int | None = None
    """The output in tokens of the run's one tokenizer."""
    ttft: Distribution | None = None
    """None where no request had it, as with the next three."""
    tpot: Distribution | None = None
    itl: Distribution | None = None
    e2el: Distribution | None = None
    output_tokens_per_second: float = 0.0
    counted_tokens_per_second: float | None = None
    """What compares runtimes whose tokenizers, or ways to count, differ."""
    requests_per_second: float = 0.0
    total_tokens_per_second: float = 0.0
    """Prompt and output together."""
    decode_tokens_per_second: float | None = None
    """Of one stream: the reciprocal of the median TPOT."""
    valid: int | None = None
    """Answers that were valid JSON of the schema; None where none was asked for."""
    checked: int | None = None
    """Answers that were looked at for it."""
    disturbed_by: int = 0
    """Requests of others that the engine answered meanwhile: the figures are not of an idle engine."""


class Resources(Shape):
    """What the engine's process tree used while a cell was measured; None is what nobody tells here."""

    vram_start_bytes: int | None = None
    vram_peak_bytes: int | None = None
    vram_end_bytes: int | None = None
    vram_by: Literal["processes", "difference"] | None = None
    """What the driver says that its processes hold; or, where it does not know them (in a container), how
    much more is in use than before the engine was started."""
    ram_start_bytes: int | None = None
    ram_peak_bytes: int | None = None
    """Proportional: what is shared within the tree counts once."""
    ram_end_bytes: int | None = None
    cpu_seconds: float | None = None
    cpu_percent: float | None = None
    """100 is one core, over the whole cell."""
    gpu_utilisation_percent: float | None = None
    """Mean over the samples of the GPUs that it is on."""
    gpu_utilisation_peak_percent: float | None = None
    power_watts: float | None = None
    energy_joules: float | None = None
    """Of the GPUs that it is on, with whatever else runs there."""
    joules_per_token: float | None = None
    """Per output token."""
    energy_by: Literal["counter", "samples"] | None = None
    """The GPU's own energy counter, or the sum of its power over time."""
    client_cpu_seconds: float | None = None
    """Of the daemon itself, everything it did meanwhile: whether the measuring was the bottleneck."""


class Translation(Shape):
    """What the runtime made of the parameters that every entrant was asked with."""

    asked: dict[str, Any] = Field(default_factory=dict)
    """In OpenAI's words, without the prompt."""
    sent: dict[str, Any] = Field(default_factory=dict)
    """In the runtime's."""
    renamed: dict[str, str] = Field(default_factory=dict)
    clamped: dict[str, str] = Field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    @property
    def is_followed(self) -> bool:
        """Whether the runtime does what was asked; renaming is no difference."""
        return not self.clamped and not self.ignored


class LivePoint(Shape):
    """What happened in one second of a cell: for charts, live and afterwards."""

    cell: int
    at_seconds: float
    """After the cell began; the end of that second."""
    tokens_per_second: float
    """Events that held something, as they came: about the tokens, before `usage` has told."""
    running: int
    completed: int
    """Requests so far."""
    failed: int = 0
    ttft_ms: float | None = None
    """Median of the requests whose first token came in this second."""
    vram_bytes: int | None = None
    ram_bytes: int | None = None
    cpu_percent: float | None = None
    gpu_utilisation_percent: float | None = None
    power_watts: float | None = None


CellState = Literal["waiting", "warming up", "measuring", "done", "failed", "cancelled", "cut"]
"""`failed`: nothing was measured (the engine did not start, or died); failed requests are in the summary."""


class Cell(Shape):
    """One square of the matrix, with its result."""

    number: int
    """Counts from 0 within its run."""
    entrant: int
    """The place of its entrant in the run's `entrants`."""
    variant: str
    runtime: str
    model: str
    preset: str | None = None
    workload: str
    """Its name."""
    kind: WorkloadKind
    concurrency: int
    repeat: int = 0
    """Counts from 0."""
    requests: int
    state: CellState = "waiting"
    error: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    summary: Summary | None = None
    """Also of a cell that was cancelled: of what had ended."""
    resources: Resources | None = None
    translation: Translation | None = None
    points: tuple[LivePoint, ...] = ()
    records: tuple[RequestRecord, ...] | None = None
    """None where they were not asked for."""


class EngineStart(Shape):
    """How an entrant's engine was started, as the switch recorded it."""

    kind: Literal["cold", "warm", "unknown", "running"]
    """`unknown`: its weights may have been in the page cache; `running`: it ran already."""
    seconds: float | None = None
    """From its start until it was ready: the steps start, load and warm up."""
    steps: tuple[Step, ...] = ()
    page_cache_dropped: bool = False
    """Whether its weights were put out of the page cache before; not everyone may or can."""


class Entrant(Shape):
    """A variant under a preset, with everything that makes its figures what they are."""

    variant: str
    runtime: str
    model: str
    preset: str | None = None
    context: int | None = None
    """Tokens, as it was started; None where the runtime decided."""
    served_name: str = ""
    state: Literal["waiting", "starting", "measuring", "done", "failed", "cancelled", "cut"] = "waiting"
    error: str | None = None
    """Why it did not start, or how it died."""
    starts: tuple[EngineStart, ...] = ()
    runtime_version: str | None = None
    command: tuple[str, ...] = ()
    """What it was started with, secrets masked."""
    environment: dict[str, str] = Field(default_factory=dict)
    """What was added to its environment, secrets masked."""
    profile: str | None = None
    """The names of the profiles that make up its own, joined by `+`."""
    profile_parameters: dict[str, Any] = Field(default_factory=dict)
    weights: str = ""
    weights_bytes: int | None = None
    weights_hash: str | None = None
    """`sha256:…` of the files, or the digest that their source knows them by; None where it is not known."""
    vram_loaded_bytes: int | None = None
    """Once it was ready, before the first request."""
    ram_loaded_bytes: int | None = None

    @property
    def load_seconds(self) -> dict[str, float]:
        """How long it took to load: `cold` and `warm`, as far as they were measured."""
        return {start.kind: start.seconds for start in self.starts if start.seconds is not None}


class GpuIdentity(Shape):
    """A GPU of the machine."""

    name: str
    uuid: str = ""
    memory_total_bytes: int | None = None
    power_limit_watts: float | None = None


class Environment(Shape):
    """The machine and the programs that a run was measured with."""

    footplate_version: str
    host: str
    system: str
    """`Linux 6.8.0 x86_64`."""
    python: str
    cpu: str
    cpu_count: int
    ram_total_bytes: int
    gpus: tuple[GpuIdentity, ...] = ()
    driver_version: str | None = None
    is_container: bool = False


class Tokenizer(Shape):
    """What counts tokens alike for every runtime."""

    source: str
    """A path, `/tokenize of llamacpp/qwen`, or `words` where no tokenizer was to be had."""
    is_models_own: bool
    """False: no tokenizer of the model was found here, and `words` counts words and marks instead, which
    compares answers fairly too, but not in tokens."""
    sha256: str | None = None


RunState = Literal["queued", "running", "done", "failed", "cancelled", "cut"]
"""`failed`: not one cell was measured; `cut`: by the end of the daemon. Measured cells are always kept."""


class BenchmarkRow(Shape):
    """A run, as it is listed."""

    id: int
    title: str
    purpose: Purpose = "benchmark"
    state: RunState
    created_at: float
    started_at: float | None = None
    ended_at: float | None = None
    variants: tuple[str, ...] = ()
    """As they were resolved, each once."""
    workloads: tuple[str, ...] = ()
    cells_done: int = 0
    cells_total: int = 0
    step: str = ""
    """What is done now, in words: `llamacpp/guide: load`, `vllm/guide: short, 4 at a time`."""
    fraction: float | None = None
    """Between 0 and 1."""
    eta_seconds: float | None = None
    error: str | None = None


class BenchmarkRun(BenchmarkRow):
    """A run with its matrix and all results, but for its requests, which come when asked for."""

    wish: BenchmarkWish
    """As it was asked; the lines of files are left out."""
    entrants: tuple[Entrant, ...] = ()
    cells: tuple[Cell, ...] = ()
    environment: Environment | None = None
    tokenizers: dict[str, Tokenizer] = Field(default_factory=dict)
    """What counted the tokens, by the model: every runtime's answers of a model are counted by the same."""
    warnings: tuple[str, ...] = ()
    """What one should know of the figures, in sentences."""
    restored: str | None = None
    """The variant that was active before and is again."""


class BenchmarkPage(Shape):
    """Some runs, the newest first."""

    runs: tuple[BenchmarkRow, ...]
    before: int | None = None
    """What to ask with for those that follow; None when this is the end."""
