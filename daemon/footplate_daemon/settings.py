"""What the operator wrote, validated once, and where Footplate keeps its files.

The one place that turns the environment into paths and `config.toml` into `Settings`. What the
models in it amount to is `catalog`'s business.
"""

import functools
import ipaddress
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, time
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from footplate_daemon import mistakes
from footplate_daemon.errors import Invalid
from footplate_daemon.mistakes import ConfigErrors, Mistake
from footplate_daemon.toml_lines import Place, line_of, locate

HOURS = r"([01]?\d|2[0-3]):([0-5]\d)\s*-\s*([01]?\d|2[0-3]):([0-5]\d)"

RuntimeName = Literal["vllm", "llamacpp", "ollama", "transformers", "remote"]
RUNTIMES: tuple[RuntimeName, ...] = get_args(RuntimeName)
"""The kinds of inference server that the configuration knows, the preferred one first."""


def load(path: Path) -> "Settings":
    """Read a config.toml, or the defaults where there is none; raise `ConfigErrors` with all its mistakes."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return Settings()
    except OSError as error:
        raise Invalid(
            f"{path} cannot be read: {error.strerror}.", hint="Mend its permissions, or move it away."
        ) from error
    return parse(raw, path)


def parse(raw: bytes, path: Path) -> "Settings":
    """Do what `load` does with text that is already read; `path` is only named."""
    try:
        text = raw.decode().replace("\r\n", "\n")
        data = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        mistake = Mistake(line, "", "This is not UTF-8 text.", "Save the file in UTF-8.")
        raise ConfigErrors(path, [mistake]) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigErrors(path, [mistakes.of_syntax(text, str(error))]) from error
    return _validate(data, text, path)


def ready_made() -> "Settings":
    """Give everything that comes with Footplate, with each model that `[catalog] include` may name."""
    return Settings.model_validate({"catalog": {"include": sorted(_ready_made_data()["models"])}})


def json_schema() -> dict[str, Any]:
    """Give the JSON Schema of config.toml, for editors."""
    schema = Settings.model_json_schema(mode="validation")
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **schema,
        "title": "Footplate config.toml",
        "description": "What the operator of a Footplate writes; every key has a default.",
    }


def masked(settings: "Settings") -> dict[str, Any]:
    """Give the settings as JSON values, with what looks like a secret left out."""
    masked_settings: dict[str, Any] = _mask(settings.model_dump(mode="json"))
    return masked_settings


def hf_cache_dir(environment: Mapping[str, str]) -> Path:
    """Give the folder in which Hugging Face's libraries keep downloaded models."""
    if environment.get("HF_HUB_CACHE"):
        return Path(environment["HF_HUB_CACHE"]).expanduser()
    cache = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(environment.get("HF_HOME") or f"{cache}/huggingface").expanduser() / "hub"


def _refuse(sentence: str, remedy: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{sentence}", {"sentence": sentence, "remedy": remedy})


def _seconds(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value)
    if isinstance(value, str) and re.fullmatch(DURATION, value.strip()):
        parts = re.findall(r"([\d.]+)(ms|[smhd])", value)
        return sum(float(amount) * SECONDS_IN[unit] for amount, unit in parts)
    raise _refuse(f"{value!r} is no duration", 'Write a number of seconds, or "45s", "10m", "1h30m".')


def _seconds_or_never(value: Any) -> float | None:
    if value is False or value is None:
        return None
    if value is True:
        raise _refuse("true is no duration", 'Write how long, like "10m", or false for never.')
    return _seconds(value)


def _days_or_for_ever(value: Any) -> float | None:
    if value is False or value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf"):
        return float(value)
    raise _refuse(f"{value!r} is no number of days", "Write one like 30, or false for ever.")


def _name_or_nothing(value: Any) -> Any:
    return None if value is False else value


def _word(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _words(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _home_expanded(value: str) -> str:
    return os.path.expanduser(value)  # noqa: PTH111  # a repository's name must not become a Path


def _server_url(value: str) -> str:
    if not re.fullmatch(r"https?://[^/\s?#@]+(/[^\s?#]*)?", value):
        raise _refuse(f"{value!r} is no server's address", 'Write it like "https://gpu.example:8000/v1".')
    return value.rstrip("/").removesuffix("/v1").rstrip("/")


def _tcp_address(value: str) -> str:
    if re.fullmatch(r":?\d+|\*:\d+", value):
        port = value.rpartition(":")[2]
        remedy = f'Say who may reach it: "127.0.0.1:{port}" this machine alone, "0.0.0.0:{port}" everybody.'
        raise _refuse(f"{value!r} does not say on which address", remedy)
    try:
        Address.parse(value)
    except ValueError as error:
        remedy = 'Write an IP address and a port, like "127.0.0.1:8000" or "[::1]:8000".'
        raise _refuse(f"{value!r} is no address to listen on", remedy) from error
    return value


def _origin(value: str) -> str:
    if value != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s?#@*]+", value):
        raise _refuse(
            f"{value!r} is no origin", 'Write it like "https://chat.example", without a path, or "*".'
        )
    return value


def _layers(value: Any) -> Any:
    is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if is_number or (isinstance(value, str) and value in {"all", "auto"}):
        return value
    raise _refuse(f"{value!r} is no number of layers", 'Write a whole number, "all" or "auto".')


def _profile_kind(value: Any) -> str | None:
    if isinstance(value, str):
        return "name"
    return "table" if isinstance(value, Mapping | Profile) else None


DURATION = r"(\d+(\.\d+)?(ms|[smhd]))+"
SECONDS_IN = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION_SCHEMA: list[dict[str, Any]] = [
    {"type": "number", "minimum": 0},
    {"type": "string", "pattern": f"^{DURATION}$"},
]

Duration = Annotated[float, BeforeValidator(_seconds), WithJsonSchema({"anyOf": _DURATION_SCHEMA})]
"""Seconds; written as a number or as `"45s"`, `"10m"`, `"1h30m"`."""
DurationOrNever = Annotated[
    float | None,
    BeforeValidator(_seconds_or_never),
    WithJsonSchema({"anyOf": [*_DURATION_SCHEMA, {"const": False}]}),
]
DaysOrForEver = Annotated[
    float | None,
    BeforeValidator(_days_or_for_ever),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"const": False}]}),
]
NameOrNothing = Annotated[
    str | None,
    BeforeValidator(_name_or_nothing),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"const": False}]}),
]
Word = Annotated[
    str, BeforeValidator(_word), WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}]})
]
"""Text that reaches a program; numbers may be written without quotes."""
Words = Annotated[tuple[Word, ...], Field(strict=False)]
Names = Annotated[tuple[str, ...], Field(strict=False)]
StopWords = Annotated[
    tuple[str, ...],
    BeforeValidator(_words),
    Field(strict=False),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
PathText = Annotated[str, AfterValidator(_home_expanded)]
Addresses = Annotated[
    tuple[Annotated[str, AfterValidator(_tcp_address)], ...],
    BeforeValidator(_words),
    Field(strict=False),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
Origin = Annotated[str, AfterValidator(_origin)]
Parameter = bool | int | float | str | list[Any] | dict[str, Any]
"""A launch parameter's value, as the runtime takes it."""
Layers = Annotated[
    int | str,
    BeforeValidator(_layers),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"enum": ["all", "auto"]}]}),
]
Capability = Literal["chat", "vision", "embedding", "rerank"]


def _hours(value: Any) -> str:
    """Check hours of a day, and give them as `HH:MM-HH:MM`."""
    found = re.fullmatch(HOURS, value.strip()) if isinstance(value, str) else None
    if found is None:
        raise _refuse(f"{value!r} are no hours", 'Write when they begin and end: "01:00-07:00".')
    begin, end = (f"{int(hour):02}:{minute}" for hour, minute in (found.group(1, 2), found.group(3, 4)))
    if begin == end:
        raise _refuse("batch_window ends when it begins", 'Write two times: "01:00-07:00".')
    return f"{begin}-{end}"


Hours = Annotated[str, BeforeValidator(_hours), WithJsonSchema({"type": "string", "pattern": f"^{HOURS}$"})]


@dataclass(frozen=True)
class Address:
    """An IP address and a port of this machine."""

    host: str
    port: int
    """0 lets the system choose."""

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read `127.0.0.1:8000`, `[::1]:8000` or `localhost:8000`; raise `ValueError` for anything else."""
        found = re.fullmatch(r"(?:\[(?P<v6>[^\]]+)\]|(?P<v4>[^:\[\]]+)):(?P<port>[0-9]{1,5})", text)
        if found is None or int(found["port"]) > 65535:
            raise ValueError(text)
        if found["v6"]:
            return cls(str(ipaddress.IPv6Address(found["v6"])), int(found["port"]))
        host = "127.0.0.1" if found["v4"] == "localhost" else found["v4"]
        return cls(str(ipaddress.IPv4Address(host)), int(found["port"]))

    @property
    def is_loopback(self) -> bool:
        """Whether this machine alone can reach it."""
        return ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Table(BaseModel):
    """A table of config.toml: nothing is guessed, and a misspelt key is a mistake."""

    # Built when first used: most commands want the paths alone.
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, defer_build=True
    )


class Daemon(Table):
    """The daemon itself."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """How much the daemon's log tells."""


class Gateway(Table):
    """Requests of programs, in OpenAI's form."""

    auto_switch: bool = True
    """Whether a request for a model that is not loaded starts a switch; otherwise it is refused."""
    queue_limit: int = Field(default=100, ge=0)
    """How many requests may wait for an engine; more are refused with 429."""
    max_hold_seconds: Duration = 10.0
    """How long requests for the loaded model go first while others wait for another model."""
    access_log: bool = True
    """Whether each request is noted in `access.log`, beside the daemon's own log."""
    max_body_mib: int = Field(default=128, ge=1)
    """The largest request that is accepted, in MiB (pictures count)."""
    listen: Addresses = ()
    """TCP addresses to answer on, beside the Unix socket: `"127.0.0.1:8000"`; each request needs a key."""
    tls_cert: PathText | None = None
    """A PEM file with the certificate and its chain; TCP speaks TLS then."""
    tls_key: PathText | None = None
    """A PEM file with the certificate's private key."""
    cors_origins: Annotated[tuple[Origin, ...], Field(strict=False)] = ()
    """Web pages whose scripts may ask: `"https://chat.example"`, or `"*"` for all."""
    max_connections: int = Field(default=1000, ge=1)
    """How many TCP connections may be open at a time; more are closed."""
    max_header_kib: int = Field(default=64, ge=1, le=1024)
    """The largest head of a request, in KiB."""
    request_timeout_seconds: Annotated[Duration, Field(gt=0)] = 30.0
    """How long a request's head may take to arrive, and each next part of its body."""

    @property
    def addresses(self) -> "tuple[Address, ...]":
        """What `listen` says, taken apart."""
        return tuple(Address.parse(text) for text in dict.fromkeys(self.listen))


class Switching(Table):
    """Which engines run, and for how long."""

    policy: Literal["one", "fit"] = "one"
    """`one`: one engine at a time. `fit`: as many as fit in memory; the least recently used goes first."""
    default: NameOrNothing = "guide"
    """The model or variant that is loaded when there is none to restore; `false` loads nothing."""
    restore: bool = True
    """Whether the variant that was active last is loaded again when the daemon starts."""
    idle_unload: DurationOrNever = None
    """Stop an engine unused for so long (`"10m"`); the next request brings it back. `false`: never."""
    start_timeout_seconds: Duration = 600.0
    """How long an engine may take until it answers."""
    drain_timeout_seconds: Duration = 60.0
    """How long running requests may go on before the engine under them is stopped."""
    hang_timeout_seconds: DurationOrNever = 120.0
    """After so long a silence an engine is asked for a token, and replaced if none comes; `false`: never."""
    memory_timeout_seconds: Duration = 30.0
    """How long to wait until a stopped engine's memory is free."""


class Profile(Table):
    """Generation parameters, the same for every runtime; what a request says itself goes first."""

    temperature: float | None = Field(default=None, ge=0, le=5)
    """0 gives the likeliest answer, higher more varied ones."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Choose only among the likeliest tokens that together have this probability."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Longest answer, in tokens."""
    context: int | None = Field(default=None, ge=1)
    """Longest prompt and answer together, in tokens."""
    seed: int | None = None
    """The same seed gives the same answer, as far as the runtime can."""
    stop: StopWords | None = None
    """Texts that end the answer."""
    system: str | None = None
    """Sent as the first message, unless the request has a system message."""
    reasoning: Literal["off", "none", "low", "medium", "high"] | None = None
    """How much a model that can think does so before it answers; `off` and `none` are the same."""

    def under(self, over: "Profile | None") -> "Profile":
        """Give this profile with what `over` says put over it."""
        return self if over is None else self.model_copy(update=over.model_dump(exclude_unset=True))

    def body(self) -> dict[str, Any]:
        """Give what it says under OpenAI's names; the context and the system message are no part of that."""
        said = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
            "stop": None if self.stop is None else list(self.stop),
            "reasoning_effort": "none" if self.reasoning == "off" else self.reasoning,
        }
        return {name: value for name, value in said.items() if value is not None}


ProfileWish = Annotated[
    Annotated[str, Tag("name")] | Annotated[Profile, Tag("table")],
    Discriminator(
        _profile_kind,
        custom_error_type="refused",
        custom_error_message="Must be the name of a profile, or a table like { temperature = 0.2 }",
    ),
]


class PresetTable(Table):
    """Launch parameters for a size of GPU, under the runtime's own names, like `max_num_seqs = 4`."""

    model_config = ConfigDict(extra="allow")

    __pydantic_extra__: dict[str, Parameter]
    description: str = ""
    """One line for the list."""
    risky: bool = False
    """Marks a preset that may not start."""

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The launch parameters alone."""
        return dict(self.__pydantic_extra__)


class Presets(Table):
    """Presets of each runtime."""

    vllm: dict[str, PresetTable] = {}
    llamacpp: dict[str, PresetTable] = {}
    ollama: dict[str, PresetTable] = {}
    transformers: dict[str, PresetTable] = {}


class RuntimeTable(Table):
    """A kind of inference server on this machine."""

    program: PathText | None = None
    """Its program (vLLM: or its environment's folder); else what is found, or what comes with Footplate."""
    preset: str | None = None
    """The preset of variants that name none."""
    args: Words = ()
    """More arguments for each of its engines."""
    env: dict[str, Word] = {}
    """More environment for each of its engines."""


class OllamaRuntimeTable(RuntimeTable):
    """Ollama on this machine: started by Footplate, or one that runs already."""

    url: Annotated[str, AfterValidator(_server_url)] | None = None
    """Use the server that answers here (`"http://127.0.0.1:11434"`) instead of starting one."""


class Runtimes(Table):
    """The kinds of inference server on this machine."""

    vllm: RuntimeTable = Field(default_factory=RuntimeTable)
    llamacpp: RuntimeTable = Field(default_factory=RuntimeTable)
    ollama: OllamaRuntimeTable = Field(default_factory=OllamaRuntimeTable)
    transformers: RuntimeTable = Field(default_factory=RuntimeTable)


class VariantTable(Table):
    """A model on one runtime."""

    weights: PathText | None = None
    """A path from the models folder on, a repository (`org/name`) or Ollama's name; else the model's name."""
    served_name: str | None = None
    """The name under which the engine lists the model; else the model's name."""
    preset: str | None = None
    """The preset to start it with; else the runtime's."""
    context: int | None = Field(default=None, ge=1)
    """Longest prompt and answer together, in tokens; goes before the profile's and the preset's."""
    profile: ProfileWish | None = None
    """A profile's name or a table of generation parameters; goes over the model's."""
    parameters: dict[str, Parameter] = {}
    """More launch parameters under the runtime's own names; they go over the preset's."""
    args: Words = ()
    """More arguments, passed as they are."""
    env: dict[str, Word] = {}
    """More environment, passed as it is."""
    command: Words | None = None
    """Starts it in another way (a container, a launcher); `{port}`, `{model}`, `{args}` are filled in."""
    capabilities: Annotated[tuple[Capability, ...], Field(strict=False)] | None = None
    """What it can do; else `["chat"]`, with a picture projector `["chat", "vision"]`."""
    pinned: bool = False
    """Whether it stays loaded when others need room and when it is idle."""


class VllmTable(VariantTable):
    """A model on vLLM."""

    chat_template: PathText | None = None
    """A file with the chat template, in place of the model's own."""


class LlamacppTable(VariantTable):
    """A model on llama.cpp."""

    gpu_layers: Layers | None = None
    """Layers on the GPU: a number, "all" or "auto"."""
    slots: int | None = Field(default=None, ge=1)
    """Requests that it answers at the same time, each with the whole context."""
    mmproj: PathText | None = None
    """The picture projector's file (from the models folder on)."""
    chat_template: PathText | None = None
    """A file with the chat template, or the name of one that llama.cpp knows, in place of the model's own."""


class OllamaTable(VariantTable):
    """A model on Ollama."""


class TransformersTable(VariantTable):
    """A model on transformers."""


class RemoteTable(Table):
    """A model on a server elsewhere that speaks OpenAI's API; nothing is started for it."""

    url: Annotated[str, AfterValidator(_server_url)] | None = None
    """Where it answers, up to `/v1`: `"https://gpu.example:8000/v1"`."""
    urls: Annotated[tuple[Annotated[str, AfterValidator(_server_url)], ...], Field(strict=False)] = ()
    """In place of `url`, several servers of the same model: requests are spread over those that are well."""
    key_file: PathText | None = None
    """A file that holds the server's API key and nothing else; of several servers, the key of each."""
    served_name: str | None = None
    """The name under which the server lists the model; else the model's name."""
    context: int | None = Field(default=None, ge=1)
    """Longest prompt and answer together, in tokens, where it is known."""
    profile: ProfileWish | None = None
    """A profile's name or a table of generation parameters; goes over the model's."""
    capabilities: Annotated[tuple[Capability, ...], Field(strict=False)] | None = None
    """What it can do; else `["chat"]`."""

    @model_validator(mode="after")
    def _is_somewhere(self) -> "RemoteTable":
        if self.url is not None and self.urls:
            raise _refuse("It has both url and urls", "Keep one: url for one server, urls for several.")
        if not self.addresses:
            raise _refuse("It has no address", 'Add where it answers: url = "https://gpu.example:8000/v1"')
        for address in self.urls:
            if self.urls.count(address) > 1:
                raise _refuse(f"urls has {address} twice", "Name each server once.")
        return self

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every server that has the model."""
        return self.urls if self.url is None else (self.url,)


class ModelTable(Table):
    """What a user picks, with one table for each runtime that can serve it."""

    description: str = ""
    """One line for the list."""
    profile: ProfileWish | None = None
    """A profile's name or a table of generation parameters."""
    aliases: Names = ()
    """More names for it."""
    vllm: VllmTable | None = None
    llamacpp: LlamacppTable | None = None
    ollama: OllamaTable | None = None
    transformers: TransformersTable | None = None
    remote: RemoteTable | None = None

    def variants(self) -> dict[RuntimeName, VariantTable | RemoteTable]:
        """Its variants by runtime, the preferred one first."""
        tables = {runtime: getattr(self, runtime) for runtime in RUNTIMES}
        return {runtime: table for runtime, table in tables.items() if table is not None}


class Listing(Table):
    """Which models are listed beside those of `[models]`."""

    include: Names = ()
    """Ready-made models, or variants such as `vllm/gemma-3-4b-it`."""
    guide: bool = True
    """Whether the built-in guide is listed."""
    folders: Annotated[tuple[PathText, ...], Field(strict=False)] = ()
    """More folders to look for models in, beside the models folder."""


class Ledger(Table):
    """What is kept of each request that passed; with or without bodies there is a row for each."""

    keep_bodies: Literal["chat", "all", "none"] = "chat"
    """Of which requests both bodies are kept: `chat`, `all` (embeddings and reranking too), `none`."""
    keep_days: DaysOrForEver = 90.0
    """How many days everything is kept; `false`: for ever."""
    max_mib: int = Field(default=2048, ge=1)
    """How large it may become, in MiB: the oldest bodies go first, then the oldest rows."""


class Batches(Table):
    """OpenAI's batches: requests in a file, asked when there is time for them."""

    batch_window: Hours | None = None
    """Hours in which batches may switch models at once, by this machine's clock: `"01:00-07:00"`."""
    quiet_seconds: DurationOrNever = 60.0
    """Outside of it a batch switches when nobody has asked anything for so long; `false`: never."""
    max_concurrency: int = Field(default=256, ge=1, le=4096)
    """How many lines may be asked at a time at most; it adapts to the engine below that."""
    min_free_mib: int = Field(default=256, ge=0)
    """Batches pause when less than this is free on the disk, in MiB."""

    def is_window_open(self, now: datetime) -> bool:
        """Say whether it is now one of the hours of `batch_window`."""
        if self.batch_window is None:
            return False
        begin, end = (time.fromisoformat(part) for part in self.batch_window.split("-"))
        at = now.time()
        return begin <= at < end if begin < end else at >= begin or at < end


class Services(Table):
    """Models that are always on beside the chat engine, and never stopped for it."""

    embedding: str | None = None
    """The variant that answers `/v1/embeddings`, e.g. `"llamacpp/my-embedder"`."""
    reranker: str | None = None
    """The variant that answers `/v1/rerank`."""


class Settings(Table):
    """The effective configuration: what the operator wrote over what comes with Footplate."""

    daemon: Daemon = Field(default_factory=Daemon)
    gateway: Gateway = Field(default_factory=Gateway)
    switching: Switching = Field(default_factory=Switching)
    catalog: Listing = Field(default_factory=Listing)
    runtimes: Runtimes = Field(default_factory=Runtimes)
    profiles: dict[str, Profile] = {}
    """Generation parameters by name; the one named `default` holds for every model."""
    presets: Presets = Field(default_factory=Presets)
    models: dict[str, ModelTable] = {}
    """Models by name."""
    services: Services = Services()
    ledger: Ledger = Field(default_factory=Ledger)
    batches: Batches = Field(default_factory=Batches)

    @model_validator(mode="before")
    @classmethod
    def _over_what_is_ready_made(cls, data: Any) -> Any:
        return _effective(data) if isinstance(data, dict) else data


def _validate(data: dict[str, Any], text: str, path: Path) -> Settings:
    found = _dangling(_effective(data))
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        lines = locate(text)
        shape = mistakes.of_shape(error.errors(include_url=False), data, lines, Settings)
        rest = [mistake for mistake in _placed(found, lines) if not _explained(mistake, shape)]
        raise ConfigErrors(path, [*shape, *rest]) from error
    if found:
        raise ConfigErrors(path, _placed(found, locate(text)))
    return settings


def _explained(mistake: Mistake, others: Iterable[Mistake]) -> bool:
    """Say whether another mistake within the same table is the likelier reason."""
    return any(other.key.startswith(f"{mistake.key}.") for other in others)


def _placed(found: Iterable["_Dangling"], lines: Mapping[Place, int]) -> list[Mistake]:
    """Give them their lines, without those that are not in the operator's file but follow from what is."""
    return [
        Mistake(line_of(lines, entry.place), mistakes.dotted(entry.place), entry.sentence, entry.remedy)
        for entry in found
        if entry.place in lines
    ]


@functools.cache
def _ready_made_data() -> dict[str, Any]:
    text = (resources.files("footplate_daemon") / "ready_made.toml").read_text("utf-8")
    return tomllib.loads(text)


def _effective(data: dict[str, Any]) -> dict[str, Any]:
    """Put the operator's tables over the ready-made ones that are included; shape is not looked at."""
    ready = _ready_made_data()
    listing = _table(data, "catalog")
    models: dict[str, Any] = {}
    if listing.get("guide") is not False:
        models["guide"] = ready["models"]["guide"]
    include = listing.get("include")
    for name in include if isinstance(include, list | tuple) else ():
        runtime, _, model = name.rpartition("/") if isinstance(name, str) else ("", "", "")
        entry = ready["models"].get(model)
        if entry is not None:
            models[model] = _over(models.get(model, {}), _on_runtime(entry, runtime))
    base = {**{section: ready[section] for section in ("runtimes", "presets")}, "models": models}
    effective: dict[str, Any] = _over(base, data)
    return effective


def _on_runtime(entry: dict[str, Any], runtime: str) -> dict[str, Any]:
    """Leave out the variants of other runtimes, if one is named."""
    return {
        key: value for key, value in entry.items() if not runtime or key not in RUNTIMES or key == runtime
    }


def _over(base: Any, data: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(data, dict)):
        return data
    return {**base, **{key: _over(base.get(key), value) for key, value in data.items()}}


@dataclass(frozen=True)
class _Dangling:
    """A name in the file that leads nowhere."""

    place: Place
    sentence: str
    remedy: str


def _dangling(data: dict[str, Any]) -> list[_Dangling]:
    """Find names that lead nowhere; tables of a wrong shape are left to the shape's own mistakes."""
    return [
        *_dangling_tls(data),
        *_dangling_includes(data),
        *_dangling_models(data),
        *_dangling_presets(data),
        *_dangling_services(data),
        *_taken_names(data),
    ]


def _dangling_tls(data: dict[str, Any]) -> Iterator[_Dangling]:
    gateway = _table(data, "gateway")
    for key, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        path = gateway.get(key)
        if not isinstance(path, str):
            continue
        place: Place = ("gateway", key)
        if other not in gateway:
            yield _Dangling(place, f"It needs {other} beside it.", f"Add {other}, or remove {key}.")
        elif reason := _unreadable(_home_expanded(path)):
            remedy = "Name a PEM file that the user of the daemon may read, with its whole path."
            yield _Dangling(place, f"{path} cannot be read: {reason}.", remedy)


def _unreadable(path: str) -> str | None:
    try:
        with Path(path).open("rb"):
            return None
    except OSError as error:
        return error.strerror
    except ValueError:  # a zero in it
        return "no path"


def _dangling_includes(data: dict[str, Any]) -> Iterator[_Dangling]:
    include = _table(data, "catalog").get("include")
    models = _ready_made_data()["models"]
    for index, name in enumerate(include if isinstance(include, list) else ()):
        if not isinstance(name, str):
            continue
        runtime, _, model = name.rpartition("/")
        place: Place = ("catalog", "include", index)
        if model not in models:
            remedy = mistakes.suggestion(model, models, kind="models")
            yield _Dangling(place, f'There is no ready-made model "{model}".', remedy)
        elif runtime and runtime not in models[model]:
            there = [key for key in models[model] if key in RUNTIMES]
            remedy = mistakes.suggestion(runtime, there, kind="runtimes")
            yield _Dangling(place, f'{model} is not ready-made for "{runtime}".', remedy)


def _dangling_models(data: dict[str, Any]) -> Iterator[_Dangling]:
    profiles = _table(data, "profiles")
    for name, model in _tables(data, "models"):
        place: Place = ("models", name)
        if not re.fullmatch(r"[A-Za-z0-9][\w.:+@-]*", name):
            remedy = "Use letters, digits and . _ - : + @, and put the repository in weights."
            yield _Dangling(place, f'"{name}" cannot be a model\'s name.', remedy)
        if not any(key in model for key in RUNTIMES):
            remedy = f"Add a table for one that can serve it: [{mistakes.dotted(place)}.llamacpp]"
            yield _Dangling(place, "It is on no runtime.", remedy)
        yield from _dangling_profile((*place, "profile"), model.get("profile"), profiles)
        for runtime in RUNTIMES:
            variant = _table(model, runtime)
            yield from _dangling_profile((*place, runtime, "profile"), variant.get("profile"), profiles)
            yield from _dangling_preset((*place, runtime, "preset"), variant.get("preset"), data, runtime)


def _dangling_presets(data: dict[str, Any]) -> Iterator[_Dangling]:
    for runtime in RUNTIMES:
        preset = _table(_table(data, "runtimes"), runtime).get("preset")
        yield from _dangling_preset(("runtimes", runtime, "preset"), preset, data, runtime)


def _dangling_services(data: dict[str, Any]) -> Iterator[_Dangling]:
    variants = [
        f"{runtime}/{name}"
        for name, model in _tables(data, "models")
        for runtime in RUNTIMES
        if runtime in model
    ]
    for service, variant in _table(data, "services").items():
        if isinstance(variant, str) and variant not in variants:
            remedy = mistakes.suggestion(variant, variants, kind="variants")
            yield _Dangling(("services", service), f'There is no variant "{variant}".', remedy)


def _dangling_profile(place: Place, name: Any, profiles: Mapping[str, Any]) -> Iterator[_Dangling]:
    if isinstance(name, str) and name not in profiles:
        remedy = (
            mistakes.suggestion(name, profiles, kind="profiles") if profiles else f"Write [profiles.{name}]."
        )
        yield _Dangling(place, f'There is no profile "{name}".', remedy)


def _dangling_preset(place: Place, name: Any, data: dict[str, Any], runtime: str) -> Iterator[_Dangling]:
    presets = _table(_table(data, "presets"), runtime)
    if isinstance(name, str) and name not in presets:
        own = f"Write [presets.{runtime}.{name}]."
        remedy = mistakes.suggestion(name, presets, kind="presets") if presets else own
        yield _Dangling(place, f'There is no preset "{name}" for {runtime}.', remedy)


def _taken_names(data: dict[str, Any]) -> Iterator[_Dangling]:
    owners = {name: name for name, _ in _tables(data, "models")}
    for name, model in _tables(data, "models"):
        aliases = model.get("aliases")
        for index, alias in enumerate(aliases if isinstance(aliases, list) else ()):
            owner = owners.setdefault(alias, name) if isinstance(alias, str) else name
            if owner != name:
                place: Place = ("models", name, "aliases", index)
                yield _Dangling(place, f'"{alias}" already stands for {owner}.', "Choose another alias.")


def _table(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _tables(data: Mapping[str, Any], key: str) -> list[tuple[str, dict[str, Any]]]:
    return [(name, value) for name, value in _table(data, key).items() if isinstance(value, dict)]


_SECRET_WORDS = {"key", "token", "secret", "password", "credential", "credentials"}
MASK = "********"


def mask_arguments(arguments: Iterable[str]) -> list[str]:
    """Give a command line with the values of options that look like a secret left out."""
    shown: list[str] = []
    hide_next = False
    for argument in arguments:
        option, equals, _ = argument.partition("=")
        is_secret = option.startswith("-") and _is_secret(option)
        shown.append(MASK if hide_next else f"{option}={MASK}" if is_secret and equals else argument)
        hide_next = is_secret and not equals
    return shown


def mask_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Give the variables with the values of those that look like a secret left out."""
    return {name: MASK if value and _is_secret(name) else value for name, value in environment.items()}


def _is_secret(name: str) -> bool:
    return not _SECRET_WORDS.isdisjoint(re.split(r"[^a-z]+", name.lower()))


def _mask(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return mask_environment(value) if name == "env" else {key: _mask(value[key], key) for key in value}
    if isinstance(value, list):
        return mask_arguments(value) if name in {"args", "command"} else [_mask(entry) for entry in value]
    return value


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))  # noqa: T201
