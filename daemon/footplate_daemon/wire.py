"""Every shape that crosses the daemon's socket, both ways.

Times are Unix seconds (UTC) as floats, durations say their unit in the name, sizes are bytes.
"""

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

LONGEST_CONTEXT = 100_000_000
"""Tokens; more than any model has, less than what would overflow somewhere."""
LONGEST_TEXT = 4_000_000
"""Characters of a prompt."""
LONGEST_TITLE = 200
"""Characters of a session's title."""
LONGEST_NAME = 255
"""Characters of a file's name."""
MOST_ATTACHMENTS = 20
KEY_START = "fp-"
"""What the secret of every API key begins with, and no key's name."""
KEY_PREFIX_LENGTH = len(KEY_START) + 6
"""Characters of an API key's secret that may be shown: enough to tell keys apart, too few to help a guess."""
LONGEST_LIFETIME_SECONDS = 100 * 365 * 86_400


class Shape(BaseModel):
    """What the daemon sends: frozen; a newer daemon may send more than we know."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Wish(BaseModel):
    """What a client asks for: frozen; a misspelt field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Identity(Shape):
    """Who answers on this socket."""

    name: Literal["footplate"] = "footplate"
    version: str
    pid: int
    started_at: float


class EngineState(StrEnum):
    """Where an engine is between stopped and serving."""

    STOPPED = "stopped"
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    SLEEPING = "sleeping"
    DRAINING = "draining"
    STOPPING = "stopping"
    FAILED = "failed"


class Engine(Shape):
    """One engine or service as it is now."""

    name: str
    """Its name under supervisord, e.g. `llamacpp-guide`."""
    runtime: str
    variant: str
    """e.g. `llamacpp/guide`."""
    model: str
    preset: str | None = None
    state: EngineState
    pid: int | None = None
    port: int | None = None
    since: float
    """When it entered this state."""
    leases: int = 0
    """Requests that it is answering now."""
    restarts: int = 0
    """Crashes in a row since it last served for a while."""
    pinned: bool = False
    memory_bytes: int | None = None
    """Resident memory of its process tree (GPU memory where there is a GPU)."""
    kv_cache_fraction: float | None = None
    """How much of its KV cache is in use, 0 to 1, where it tells."""
    requests_running: int | None = None
    """What it says of itself, requests that did not come through us among them."""
    requests_waiting: int | None = None
    diagnosis: "Diagnosis | None" = None
    """Why it is `failed`."""


class Remedy(Shape):
    """One way out of a failed start that can be applied by its number."""

    id: int
    title: str
    """An imperative a person can read: "Use the preset low-vram"."""
    applies: bool = True
    """Whether the daemon can do it by itself; otherwise `command` says what the user has to do."""
    command: str | None = None
    """The shell command to type, where the daemon cannot do it."""
    variant: str | None = None
    preset: str | None = None
    context: int | None = None
    """Largest prompt plus answer, in tokens."""
    env: dict[str, str] | None = None


class Diagnosis(Shape):
    """Why an engine did not start or died, and the way out."""

    code: str
    """Machine-readable cause, e.g. `kv_cache_too_small`."""
    cause: str
    """The cause in one sentence."""
    evidence: tuple[str, ...] = ()
    """The log lines that prove it, oldest first."""
    remedies: tuple[Remedy, ...] = ()
    exit_code: int | None = None


class StepName(StrEnum):
    """The steps of a switch, in order."""

    DRAIN = "drain"
    STOP = "stop"
    FREE_MEMORY = "free memory"
    START = "start"
    LOAD = "load"
    WARM_UP = "warm up"


class Step(Shape):
    """One step of a switch with its time."""

    name: StepName
    started_at: float
    seconds: float | None = None
    """None while it goes on."""
    detail: str = ""


SwitchOutcome = Literal["running", "done", "failed", "cancelled", "superseded"]


class Switch(Shape):
    """One attempt to make a variant active."""

    id: int
    variant: str
    preset: str | None = None
    previous: str | None = None
    reason: str = "asked"
    """`asked`, `request`, `restore`, `rollback`, `remedy`, `restart`, `adopted`, `benchmark`."""
    outcome: SwitchOutcome = "running"
    started_at: float
    ended_at: float | None = None
    steps: tuple[Step, ...] = ()
    fraction: float | None = None
    """Between 0 and 1, from recorded times; None when nothing is recorded yet."""
    eta_seconds: float | None = None
    log_tail: tuple[str, ...] = ()
    diagnosis: Diagnosis | None = None


class Queue(Shape):
    """Requests that wait for an engine."""

    waiting: int = 0
    by_variant: dict[str, int] = Field(default_factory=dict)
    capacity: int = 0


class Status(Shape):
    """Everything a client needs to draw the daemon: a snapshot."""

    daemon: Identity
    active: str | None
    """The variant that answers now."""
    wanted: str | None
    """The variant that should be."""
    engines: tuple[Engine, ...] = ()
    services: tuple[Engine, ...] = ()
    queue: Queue = Queue()
    switch: Switch | None = None
    """The switch in progress, else the last one."""
    config_errors: tuple[str, ...] = ()
    """Why a changed config.toml was not taken up."""


class VariantInfo(Shape):
    """A model on one runtime, as listed."""

    name: str
    runtime: str
    model: str
    served_name: str
    state: EngineState = EngineState.STOPPED
    active: bool = False
    on_disk: bool | None = None
    size_bytes: int | None = None
    context: int | None = None
    capabilities: tuple[str, ...] = ("chat",)
    presets: tuple[str, ...] = ()
    last_load_seconds: float | None = None
    last_tokens_per_second: float | None = None
    memory_bytes: int | None = None
    """Recorded peak of its memory on this machine."""
    fits: bool | None = None
    """Whether there is room for it, were every engine of ours stopped; None where its need is not known."""


class ModelInfo(Shape):
    """A logical entry of the catalog with its variants."""

    name: str
    description: str = ""
    demonstration: bool = False
    """True for the built-in guide, which knows only its questions."""
    variants: tuple[VariantInfo, ...]


class SwitchWish(Wish):
    """Body of `POST /api/v1/models/activate`."""

    name: str
    """A model, or a variant `runtime/model`."""
    runtime: str | None = None
    preset: str | None = None
    context: int | None = Field(default=None, ge=1, le=LONGEST_CONTEXT)


class RuntimeWish(Wish):
    """Body of `POST /api/v1/system/llm-servers/active`."""

    runtime: str
    model: str | None = None
    preset: str | None = None
    context: int | None = Field(default=None, ge=1, le=LONGEST_CONTEXT)


class Plan(Shape):
    """What a switch would do, undone."""

    variant: str
    stops: tuple[str, ...]
    needs_bytes: int | None
    free_bytes: int | None
    fits: bool
    seconds: float | None
    """From recorded times; None when it was never loaded here."""
    command: tuple[str, ...]
    notes: tuple[str, ...] = ()


class TurnState(StrEnum):
    """What has become of a turn."""

    WAITING = "waiting"
    STREAMING = "streaming"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


class TurnError(Shape):
    """Why a turn has no (whole) answer."""

    message: str
    code: str
    hint: str | None = None
    diagnosis: Diagnosis | None = None
    """Where an engine failed: why, and the ways out."""


class Attachment(Shape):
    """A file that was sent with a question."""

    name: str
    media_type: str
    """`image/png`, `image/jpeg`, `image/webp`, `image/gif`, or `text/plain`; found by looking into it."""
    byte_count: int
    data: str | None = None
    """Its bytes in base64: in the export of a session, nowhere else."""


class Turn(Shape):
    """One question and its answer."""

    session_id: str
    number: int
    """1 for the first turn of a session."""
    state: TurnState
    prompt: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    """OpenAI generation parameters that it was asked with."""
    answer: str = ""
    reasoning: str = ""
    runtime: str | None = None
    """Which runtime answered, or failed to; None as long as none was asked."""
    variant: str | None = None
    model: str | None = None
    preset: str | None = None
    profile: str | None = None
    """The names of the profiles that made up the variant's, joined by `+`."""
    asked_at: float
    ended_at: float | None = None
    ttft_seconds: float | None = None
    """Time to first token, from when the engine was free to take it."""
    tokens_per_second: float | None = None
    """Completion tokens after the first, per second between first and last."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    request_id: str | None = None
    error: TurnError | None = None
    warning: str | None = None
    """Why the answer is not what was wanted although nothing failed: its tokens all went into reasoning."""
    instead_of: int | None = None
    """The turn in whose place it stands: asked again, or asked otherwise."""
    after: int | None = None
    """The turn that it goes on from; None: the one before it."""
    continue_of: int | None = None
    """The turn whose answer it goes on with, from where that stopped."""
    attachments: tuple[Attachment, ...] = ()


class Session(Shape):
    """A chat in the history."""

    id: str
    title: str
    created_at: float
    updated_at: float
    turn_count: int = 0
    last_variant: str | None = None
    system: str | None = None
    """What its turns tell the model first, instead of the profile's."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """OpenAI generation parameters of its turns: over the profile's, under those of a turn."""
    forked_from: str | None = None
    """The session that its first turns were copied from, which may be gone."""
    forked_turn: int | None = None
    """The last turn that was copied."""


class SessionPage(Shape):
    """Some of the sessions, those used last first."""

    sessions: tuple[Session, ...]
    before: str | None = None
    """What to ask with for those that follow; None when this is the end."""


class SessionsChanged(Shape):
    """Something in the history is not as it was: look again."""

    version: int
    """How often so far; counts from 0 when the daemon starts."""


class SessionWithTurns(Session):
    """A session with its turns: all of them, or those that were asked for."""

    turns: tuple[Turn, ...]


class SessionWish(Wish):
    """Body of `POST /api/v1/sessions`."""

    title: str = Field(default="", max_length=LONGEST_TITLE)
    system: str | None = Field(default=None, max_length=LONGEST_TEXT)
    parameters: dict[str, Any] = Field(default_factory=dict)


class SessionChange(Wish):
    """Body of `PATCH /api/v1/sessions/{id}`: what is left out stays as it is."""

    title: str = Field(default="", min_length=1, max_length=LONGEST_TITLE)
    system: str | None = Field(default=None, max_length=LONGEST_TEXT)
    """None goes back to the profile's."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Instead of all that were there."""


class ForkWish(Wish):
    """Body of `POST /api/v1/sessions/{id}/fork`."""

    turn: int = Field(ge=1, le=2**63 - 1)
    """The last turn that the new session takes over."""
    title: str | None = Field(default=None, min_length=1, max_length=LONGEST_TITLE)
    """None takes over that of the old one."""


class SearchHit(Shape):
    """One place in the history where the words of a search stand."""

    session_id: str
    title: str
    """The session's."""
    turn: int | None = None
    """None where the title itself has the words."""
    field: Literal["title", "prompt", "answer", "reasoning"]
    """Where the snippet is from."""
    snippet: str
    matches: tuple[tuple[int, int], ...]
    """Where in the snippet the words stand: the first character and the one after the last.

    Counted in Unicode code points.
    """
    runtime: str | None = None
    variant: str | None = None
    model: str | None = None
    at: float
    """When the turn was asked, or the session last used."""


class AttachmentWish(Wish):
    """A file to send with a question: an image (PNG, JPEG, WebP, GIF) or a text (UTF-8)."""

    name: str = Field(min_length=1, max_length=LONGEST_NAME)
    data: str
    """Its bytes in base64."""


class TurnWish(Wish):
    """Body of `POST /api/v1/sessions/{id}/turns`."""

    prompt: str = Field(min_length=1, max_length=LONGEST_TEXT)
    model: str | None = None
    """A model or variant; None asks whatever is active."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """OpenAI generation parameters that override the profile: `temperature`, `max_tokens`…"""
    instead_of: int | None = Field(default=None, ge=1)
    """Answer anew what this turn asked, in its place: retry, another model's answer, an edited prompt."""
    after: int | None = Field(default=None, ge=1)
    """Go on from this turn; None goes on from the newest."""
    continue_of: int | None = Field(default=None, ge=1)
    """Go on with this turn's answer from where it stopped; a runtime that cannot is asked the prompt."""
    attachments: tuple[AttachmentWish, ...] | None = Field(default=None, max_length=MOST_ATTACHMENTS)
    """Files that go with the question; None takes those of the turn that it stands in place of."""


class TurnDelta(Shape):
    """Text that came since the last event of a turn."""

    content: str = ""
    reasoning: str = ""
    pieces: int | None = None
    """In how many pieces the engine has sent the turn's text so far: mostly a token each."""


ExchangeOutcome = Literal["waiting", "running", "done", "failed", "cancelled", "cut"]
"""`waiting`: for an engine; `cancelled`: by the client or by a person; `cut`: by the end of the daemon."""


class Exchange(Shape):
    """One request that passed the gateway, with what is known of its answer."""

    id: int
    """Counts up, and is never given out again; request ids may come from clients and repeat."""
    request_id: str
    started_at: float
    outcome: ExchangeOutcome
    path: str
    """What was asked: `/v1/chat/completions`."""
    streamed: bool = False
    session_id: str | None = None
    """The `x-session-id` that the client sent, or the session of a turn."""
    client: str | None = None
    """The name of its key, the user at the other end of the socket, or `terminal`."""
    model_asked: str | None = None
    """What the client named: a model, an alias or a variant."""
    variant: str | None = None
    """The variant that answered, or would have."""
    runtime: str | None = None
    preset: str | None = None
    profile: str | None = None
    """The names of the profiles that made up the variant's, joined by `+`."""
    queue_ms: float | None = None
    """How long it waited for its engine; while it waits, how long so far."""
    switch_ms: float | None = None
    ttft_ms: float | None = None
    """Time to first token, from when the engine was free to take it."""
    total_ms: float | None = None
    """From its arrival to its end; while it is under way, to now. None for what was cut."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    tokens_per_second: float | None = None
    """Completion tokens after the first, per second between first and last."""
    itl_p50_ms: float | None = None
    """Inter-token latency: the time between two chunks of a stream that held something; nearest rank."""
    itl_p99_ms: float | None = None
    finish_reason: str | None = None
    http_status: int | None = None
    """The engine's; None where none was asked."""
    error: str | None = None
    hint: str | None = None
    """What to do about it; also where nothing failed, but the answer is empty."""


class ExchangeFilter(Wish):
    """Which exchanges are asked for: those for which all that is given holds."""

    limit: int = Field(default=50, ge=1, le=10_000)
    before: int | None = Field(default=None, ge=1, le=2**63 - 1)
    """Those with a lower id: the id of the last one on the page before."""
    since: float | None = None
    """Those that began then or later; seconds since the epoch."""
    outcome: ExchangeOutcome | None = None
    runtime: str | None = None
    variant: str | None = None
    model: str | None = None
    """The model of the variant, or what the client named."""
    client: str | None = None
    session: str | None = None
    request_id: str | None = None
    path: str | None = None


class ExchangeBody(Shape):
    """What was sent, as it was kept."""

    byte_count: int
    """As it was sent; at least so many where it was too large to keep."""
    kept: bool
    """False where it was too large."""
    value: Any = None
    """The JSON that it is."""
    text: str | None = None
    """Where it is none, as a stream is none."""


class ExchangeText(Exchange):
    """An exchange with what its answer says."""

    text: str = ""
    """Of a stream: its pieces together."""
    reasoning: str = ""


class ExchangeWhole(ExchangeText):
    """An exchange with all that is kept of it."""

    request: ExchangeBody | None = None
    """None where no body is kept: docs/exchanges.md says of which requests they are."""
    answer: ExchangeBody | None = None


class Replay(Shape):
    """An exchange, and the same request asked again."""

    original: ExchangeText
    replay: ExchangeText


class LogInfo(Shape):
    """A log that can be read."""

    name: str
    """`daemon`, `access`, or the engine's name."""
    byte_count: int
    """Without what was put aside when it was rotated."""
    changed_at: float | None = None


class LogPage(Shape):
    """Lines of a log that follow one another, as they were written."""

    name: str
    lines: tuple[str, ...]
    begin: str
    """Where the first of them begins: ask for what is `before`. It holds when the log is rotated."""
    end: str
    """Where the next one will begin: ask for what is `after`."""
    is_first: bool = False
    """Whether nothing is kept from before."""


class Health(Shape):
    """`GET /health`."""

    status: Literal["ok"] = "ok"
    version: str
    pid: int


class HealthPart(Shape):
    """What a deep look at one part has found."""

    name: str
    """`database`, `supervisord`, `disk`, `engine vllm/qwen3-8b`, `service …`."""
    status: Literal["ok", "skipped", "failed"]
    """`skipped`: there is nothing to probe now, and nothing wrong with that."""
    seconds: float
    message: str
    hint: str | None = None


class DeepHealth(Shape):
    """`GET /health/deep`: 200, or 503 when a part has failed."""

    status: Literal["ok", "failed"]
    parts: tuple[HealthPart, ...]


class ParameterExplained(Shape):
    """What one generation parameter of the profile comes to on a runtime."""

    name: str
    """The profile's word: `max_tokens`."""
    value: Any = None
    """What the profile says; None leaves it to the runtime."""
    outcome: Literal["same", "renamed", "clamped", "ignored", "at launch", "first message"]
    becomes: str | None = None
    """The runtime's word for it (`options.num_predict`), or the arguments it is launched with."""
    note: str = ""
    """How it is clamped."""


class Explanation(Shape):
    """What would be started for a variant, and what its profile comes to there."""

    variant: str
    runtime: str
    model: str
    preset: str | None = None
    context: int | None = None
    """Longest prompt and answer, in tokens; None leaves it to the runtime."""
    weights: str
    served_name: str
    command: tuple[str, ...] = ()
    """The exact command line, but `PORT` for a port that is chosen at launch; empty if there is none."""
    environment: dict[str, str] = Field(default_factory=dict)
    """What is added to the environment; secrets are masked."""
    parameters: tuple[ParameterExplained, ...] = ()
    notes: tuple[str, ...] = ()
    """Why there is no command line, and what else one should know."""


class GpuProcess(Shape):
    """A process that holds memory of a GPU."""

    pid: int
    name: str
    """Its program, and the script when it runs one: `python train.py`."""
    owner: str
    """The user whose it is."""
    memory_bytes: int | None = None
    engine: str | None = None
    """The engine of ours that it belongs to; None for anyone else's."""


class Sample(Shape):
    """One reading of one GPU; None is what it does not tell."""

    index: int
    uuid: str = ""
    name: str
    problem: str | None = None
    """Why it cannot be read, or that it was lost and is back; in a sentence."""
    utilisation_percent: float | None = None
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    """By processes; what the driver keeps for itself is neither used nor free."""
    memory_free_bytes: int | None = None
    temperature_celsius: float | None = None
    temperature_limit_celsius: float | None = None
    """Where the GPU slows itself down."""
    power_watts: float | None = None
    power_limit_watts: float | None = None
    energy_joules: float | None = None
    """Used since the driver was loaded."""
    sm_clock_mhz: int | None = None
    sm_clock_limit_mhz: int | None = None
    """As fast as it goes."""
    memory_clock_mhz: int | None = None
    pcie_generation: int | None = None
    """Of the link as it is now: it slows down when it is idle."""
    pcie_lanes: int | None = None
    pcie_rx_bytes_per_second: int | None = None
    pcie_tx_bytes_per_second: int | None = None
    throttle_reasons: tuple[str, ...] | None = None
    """What holds its clocks down, in words; empty when nothing does."""
    fan_percent: int | None = None
    processes: tuple[GpuProcess, ...] | None = None
    """The biggest first; None when the driver does not tell."""


class GpuSnapshot(Shape):
    """The newest sample of each GPU, with the machine's CPU and RAM beside."""

    at: float
    gpus: tuple[Sample, ...] = ()
    problem: str | None = None
    """Why there is no GPU to show, in a sentence."""
    driver_version: str | None = None
    cpu_percent: float | None = None
    """Of all cores together: 0 to 100."""
    ram_total_bytes: int | None = None
    ram_used_bytes: int | None = None
    """What cannot be taken back for something else."""


class GpuTrace(Shape):
    """What one GPU did: a value for each time of its `GpuHistory`, None where it was not told."""

    index: int
    uuid: str
    utilisation_percent: tuple[float | None, ...] = ()
    memory_used_bytes: tuple[int | None, ...] = ()
    temperature_celsius: tuple[float | None, ...] = ()
    power_watts: tuple[float | None, ...] = ()


class GpuHistory(Shape):
    """What was read in the last minutes: each second while somebody followed, else every few seconds."""

    at: tuple[float, ...] = ()
    """When it was read, the oldest first; each value below stands at the place of its time."""
    gpus: tuple[GpuTrace, ...] = ()
    cpu_percent: tuple[float | None, ...] = ()
    ram_used_bytes: tuple[int | None, ...] = ()


class ApiKey(Shape):
    """A key for the gateway over TCP, without its secret."""

    name: str
    prefix: str
    """The first characters of its secret."""
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    last_used_at: float | None = None
    models: tuple[str, ...] = ()
    """Models and variants that it is for; empty: every one."""
    requests_per_minute: int | None = None


class NewApiKey(ApiKey):
    """A key that was just made, with its secret, which is shown this once."""

    secret: str = Field(repr=False)


class ApiKeyWish(Wish):
    """Body of `POST /api/v1/keys`."""

    name: str
    """Up to 64 letters, digits and . _ -, as no other live key has it."""
    lifetime_seconds: float | None = Field(default=None, gt=0, le=LONGEST_LIFETIME_SECONDS)
    """After so long it expires; None: never."""
    models: tuple[str, ...] = Field(default=(), max_length=1000)
    """Models and variants that it is for; empty: every one."""
    requests_per_minute: int | None = Field(default=None, ge=1, le=100_000)
    """How many requests it may make in any 60 seconds."""
