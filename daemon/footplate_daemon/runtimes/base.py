"""What Footplate needs to know of a kind of inference server, and nothing of how it is supervised.

A runtime turns a variant into a command line, says when the engine is ready, how its log tells
of progress, and what it makes of each generation parameter. It starts nothing itself.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from footplate_daemon.processes import ProcessId
from footplate_daemon.runtimes.cases import Case, Need
from footplate_daemon.wire import Remedy


@dataclass(frozen=True)
class LaunchPlan:
    """Everything an engine is started with, decided before it is started."""

    variant: str
    """`runtime/model`."""
    model: str
    """Path, repository or name of the weights, as the runtime takes it."""
    served_name: str
    """The name under which the engine lists the model."""
    port: int
    """Loopback port that the engine listens on."""
    api_key: str | None = None
    """A key for this launch only; reaches the engine by its environment, never by its command line."""
    context: int | None = None
    """Largest prompt plus answer of one request, in tokens; overrides the preset's own; None leaves it to the
    preset, then to the runtime."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """The preset's and variant's launch parameters under the runtime's own names (`max_num_seqs`)."""
    args: tuple[str, ...] = ()
    """More arguments, as they are, after ours."""
    env: Mapping[str, str] = field(default_factory=dict)
    """More environment, as it is, over ours."""
    command: tuple[str, ...] | None = None
    """Replaces the program itself (a container, a wrapper). `{port}` and `{model}` are filled in, a word
    `{args}` becomes our arguments; without any of the three our arguments follow at the end."""
    capabilities: tuple[str, ...] = ("chat",)
    """`chat`, `vision`, `embedding`, `rerank`."""
    mmproj: Path | None = None
    """The vision projector of a GGUF model."""


@dataclass(frozen=True)
class Launch:
    """A program for supervisord to run."""

    command: tuple[str, ...]
    env: Mapping[str, str]
    """Added to the daemon's own environment; holds the API key where there is one."""
    stop_signal: str = "TERM"
    stop_wait_seconds: int = 10
    """How long it may take to stop before it is killed."""
    cancel_signal: str = "TERM"
    """What ends it while it loads; `KILL` (to the whole group) where the runtime heeds nothing else then."""


@dataclass(frozen=True)
class Progress:
    """How far a start has come, read from one log line."""

    step: str
    """Words for a person: `loading weights`."""
    fraction: float | None = None
    """Of the whole start, 0 to 1, where the line tells."""


@dataclass(frozen=True)
class Cause:
    """A recognised reason, before the remedies that depend on the catalog are added."""

    code: str
    cause: str
    evidence: tuple[str, ...]
    remedies: tuple[Remedy, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the lines said in numbers: `{"largest_context": 896}`."""


_NONE: Mapping[str, str] = {}


class Translated(NamedTuple):
    """A profile as one runtime takes it."""

    body: Mapping[str, Any]
    renamed: Mapping[str, str] = _NONE
    """The client's name → the runtime's."""
    clamped: Mapping[str, str] = _NONE
    """Name → what was made of it, and why, in words."""
    ignored: tuple[str, ...] = ()
    """What will have no effect there. Names that nobody knows are among them, passed on as they are."""


@dataclass(frozen=True)
class SleepCalls:
    """Paths by which an engine gives its GPU memory back and stays warm."""

    sleep: str
    """POST."""
    wake: str
    """POST."""
    ask: str
    """GET; answers `{"is_sleeping": true}`."""


@dataclass(frozen=True)
class Load:
    """How busy an engine says it is; None where it does not say."""

    kv_cache_fraction: float | None = None
    running: int | None = None
    waiting: int | None = None
    generated: float | None = None
    """Something that grows as it generates, while it does: tokens, or steps."""


class Translation(Protocol):
    """Turns an engine's answer into OpenAI's, byte by byte as it comes; one for each answer."""

    def feed(self, data: bytes) -> bytes:
        """Give what these bytes come to, in OpenAI's form; empty while nothing is complete."""

    def end(self) -> bytes:
        """Give what is left once the engine has said everything."""


class Call(NamedTuple):
    """A request of a client as one kind of engine takes it."""

    path: str
    body: Mapping[str, Any]
    translated: Translated
    """What became of the generation parameters, for the report."""
    translation: Translation | None = None
    """None: the engine's bytes are OpenAI's and pass through as they are."""


class Runtime(Protocol):
    """One kind of inference server."""

    name: str
    """The first part of a variant's name: `vllm`."""
    cannot: Mapping[Case, str]
    """What it cannot do whatever the model, and what comes instead, in a sentence."""
    needs: Mapping[Case, Need]
    """What it can do under a condition."""
    also_answers: Collection[str]
    """Paths beyond chat, completions, embeddings and ranking that it has, and takes as they are."""

    def find(self) -> str | None:
        """Give the program that would be run, or None when the runtime is not installed."""

    def launch(self, plan: LaunchPlan) -> Launch:
        """Give the command line and environment; raise `errors.Unavailable` when it is not installed."""

    def health_path(self) -> str:
        """Path that answers 200 when the engine serves (and, when it hangs, often still)."""

    def serves(self, listing: Any, served_name: str) -> bool:
        """Whether this answer of `/v1/models` is this runtime serving that name, not a foreign server's."""

    def progress(self, line: str) -> Progress | None:
        """Read one log line; None when it tells nothing."""

    def recognise(self, log: Sequence[str], exit_code: int | None) -> Cause | None:
        """Find why a start failed in its log (oldest line first); None when nothing is recognised.

        Only what this runtime alone says; `switching.diagnosis` knows what they have in common.
        """

    def sleeping(self, plan: LaunchPlan) -> SleepCalls | None:
        """Give how an engine launched so is put to sleep; None where it cannot be."""

    def load(self, metrics: str) -> Load:
        """Read what the engine's `/metrics` say (Prometheus text)."""

    def translate(self, body: Mapping[str, Any], context: int | None = None) -> Translated:
        """Say what this runtime makes of OpenAI generation parameters, when launched with that context."""

    def probe(
        self,
        served_name: str,
        context: int | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> tuple[str, Mapping[str, Any]]:
        """Give path and body of the smallest request that makes an engine generate: one token."""

    def call(
        self,
        path: str,
        body: Mapping[str, Any],
        served_name: str,
        context: int | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> Call:
        """Give an OpenAI request as this runtime takes it; raise `errors.Invalid` for what it cannot take.

        `context` and `parameters` are those of the launch: some runtimes want them again with each request.
        """


class Host(Protocol):
    """A runtime whose one process holds many models, each loaded and unloaded by request."""

    def is_up(self, answer: Any) -> bool:
        """Whether this answer of `health_path` is the process being able to load models."""

    async def load_model(
        self,
        address: Any,
        served_name: str,
        context: int | None,
        parameters: Mapping[str, Any] | None = None,
        *,
        capabilities: Sequence[str] = ("chat",),
    ) -> Any:
        """Return once the model is loaded; raise `errors.EngineFailed` with the runtime's words."""

    async def unload_model(self, address: Any, served_name: str, *, leader: ProcessId | None = None) -> None:
        """Return once the model's memory is given back; raise `errors.TimedOut` if it is not."""

    async def loaded_names(self, address: Any) -> Mapping[str, int | None]:
        """Give the models that are loaded, and the context of each."""
