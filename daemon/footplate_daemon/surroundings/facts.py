"""What was found on the machine, as values: no judgement in them, and no secret."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Limits:
    """What one process of this user may have; None: no limit."""

    open_files: int | None = None
    processes: int | None = None
    locked_bytes: int | None = None


@dataclass(frozen=True)
class Machine:
    """The computer."""

    python: str = ""
    cores: int = 0
    memory_bytes: int = 0
    memory_free_bytes: int = 0
    swap_bytes: int = 0
    shm_bytes: int | None = None
    """Size of /dev/shm; None where there is none."""
    limits: Limits = Limits()


@dataclass(frozen=True)
class Disk:
    """A folder, and what is left on its disk."""

    use: str
    """What lies there: `models`."""
    folder: Path
    free_bytes: int | None
    """None where it could not be found out."""
    writable: bool = True


@dataclass(frozen=True)
class Gpu:
    """One GPU."""

    name: str
    memory_bytes: int | None
    used_bytes: int | None


@dataclass(frozen=True)
class Gpus:
    """What the NVIDIA driver tells."""

    found: tuple[Gpu, ...] = ()
    driver: str | None = None
    cuda: str | None = None
    """The newest CUDA that the driver can do."""
    nvidia_smi: bool = False
    problem: str | None = None
    """Why there is no GPU although there is something of a driver; None without a driver."""
    problem_hint: str | None = None


@dataclass(frozen=True)
class Program:
    """A runtime that is installed."""

    path: str
    version: str | None = None
    build: Literal["CPU", "CUDA"] | None = None
    packages: Mapping[str, str] = field(default_factory=dict)
    """Those of its environment that matter, with their versions."""
    origin: str = ""
    """Why it is the one: `PATH`, `config.toml`, `made by Footplate`."""


@dataclass(frozen=True)
class OllamaModel:
    """A model that Ollama has."""

    name: str
    size_bytes: int | None = None
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ollama:
    """Ollama: its program, a server that runs, its store."""

    program: Program | None = None
    server: str | None = None
    """Address of a server that answers."""
    server_version: str | None = None
    store: Path | None = None
    models: tuple[OllamaModel, ...] = ()


@dataclass(frozen=True)
class CachedModel:
    """A repository in the Hugging Face cache."""

    repo: str
    size_bytes: int
    whole: bool
    """It can be loaded without a download."""
    kind: Literal["chat", "vision", "embedding", "rerank", "gguf", "other"] = "other"
    ggufs: tuple[str, ...] = ()
    """For GGUF: what to write after the repository's name, `""` or `:Q4_K_M`, for each file that is there."""


@dataclass(frozen=True)
class Cache:
    """The Hugging Face cache."""

    folder: Path | None = None
    models: tuple[CachedModel, ...] = ()
    signed_in: bool = False


@dataclass(frozen=True)
class LocalModel:
    """A GGUF file, or a folder of weights, outside the Hugging Face cache and Ollama's store."""

    name: str
    runtime: Literal["llamacpp", "vllm"]
    path: Path
    size_bytes: int
    mmproj: Path | None = None
    listed: bool = False
    """It lies where Footplate looks anyway."""


@dataclass(frozen=True)
class Terminal:
    """Where the terminal program would run."""

    is_there: bool = False
    term: str = ""
    colorterm: str = ""
    tmux: str | None = None
    """tmux's version, within tmux."""
    utf8: bool = True


@dataclass(frozen=True)
class Session:
    """What systemd does with this user's things."""

    user: str = ""
    runtime_dir: str | None = None
    """XDG_RUNTIME_DIR; None where it is not set, or cannot be written in."""
    run_dir_is_there: bool = False
    """Footplate's sockets lie in it."""
    systemd: bool = False
    lingers: bool = False
    """The user's processes and runtime folder stay when the last session ends."""


@dataclass(frozen=True)
class Configuration:
    """config.toml."""

    file: Path | None = None
    exists: bool = False
    mistakes: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()
    """Models that are listed already, in lower case."""
    weights: frozenset[tuple[str, str]] = frozenset()
    """Runtime and weights of the variants that are listed already."""
    missing_programs: Mapping[str, str] = field(default_factory=dict)
    """Runtime → the program that config.toml names for it, and that is not there."""
    problem: str | None = None
    """Why the folders cannot be used at all."""


@dataclass(frozen=True)
class Daemon:
    """The daemon."""

    supervisord: bool = False
    state: str | None = None
    """supervisord's word: `RUNNING`, `FATAL`."""
    answers: bool = False
    version: str | None = None
    pid: int | None = None
    agrees: bool | None = None
    """Its configuration is that of the file; None where that cannot be said."""
    config_errors: tuple[str, ...] = ()
    active: str | None = None
    failed: tuple[str, ...] = ()
    """Engines that do not run although they should."""


@dataclass(frozen=True)
class Facts:
    """Everything."""

    version: str = ""
    """Footplate's."""
    machine: Machine = Machine()
    disks: tuple[Disk, ...] = ()
    gpus: Gpus = Gpus()
    embedded: str | None = None
    """Version of the llama.cpp that comes along; None where it cannot be imported."""
    llama_server: Program | None = None
    llama_server_used: bool = False
    """config.toml names a `llama-server`, in place of the one that comes along."""
    vllm: Program | None = None
    transformers: Program | None = None
    ollama: Ollama = Ollama()
    cache: Cache = Cache()
    local_models: tuple[LocalModel, ...] = ()
    terminal: Terminal = Terminal()
    session: Session = Session()
    configuration: Configuration = Configuration()
    daemon: Daemon = Daemon()
    unanswered: tuple[str, ...] = ()
    """Looks that did not end in time, or at all, in words."""
