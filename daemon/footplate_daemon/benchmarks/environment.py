"""The circumstances of a run: the machine, and of each engine its version, its launch and its weights."""

import asyncio
import contextlib
import hashlib
import importlib.metadata
import os
import platform
import re
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from footplate_daemon import __version__
from footplate_daemon.switching.probe import Address, ask
from footplate_daemon.wire import GpuSnapshot
from footplate_daemon.wire_benchmarks import Environment, GpuIdentity

ANSWER_SECONDS = 5.0
BLOCK_BYTES = 4 * 1024 * 1024
WEIGHT_SUFFIXES = frozenset({".gguf", ".safetensors", ".bin", ".json", ".jinja", ".model", ".txt"})
"""What decides what a model answers: its weights, its tokenizer, its template."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


def of_machine(snapshot: GpuSnapshot | None) -> Environment:
    """Describe the machine. Blocks a little."""
    gpus = snapshot.gpus if snapshot else ()
    return Environment(
        footplate_version=__version__,
        host=socket.gethostname(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        cpu=_cpu_name(),
        cpu_count=len(os.sched_getaffinity(0)),
        ram_total_bytes=psutil.virtual_memory().total,
        gpus=tuple(
            GpuIdentity(
                name=gpu.name,
                uuid=gpu.uuid,
                memory_total_bytes=gpu.memory_total_bytes,
                power_limit_watts=gpu.power_limit_watts,
            )
            for gpu in gpus
        ),
        driver_version=snapshot.driver_version if snapshot else None,
        is_container=any(Path(mark).exists() for mark in ("/.dockerenv", "/run/.containerenv")),
    )


async def runtime_version(runtime: str, address: Address, command: Sequence[str]) -> str | None:
    """Ask an engine for its version; None where it does not tell."""
    path = _VERSION_PATHS.get(runtime)
    answer = await ask(address, "GET", path, timeout_seconds=ANSWER_SECONDS) if path else None
    found = answer.json() if answer is not None and answer.status == 200 else None
    told = _version_in(found) if isinstance(found, dict) else None
    if runtime == "llamacpp" and "footplate_daemon.runtimes.embedded" in command:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            packaged = f"xllamacpp {importlib.metadata.version('xllamacpp')}"
            return f"{packaged} (llama.cpp {told})" if told else packaged
    return told


async def ollama_digest(address: Address, name: str) -> str | None:
    """Ask Ollama by which digest it knows a model."""
    answer = await ask(address, "GET", "/api/tags", timeout_seconds=ANSWER_SECONDS)
    listing = answer.json() if answer is not None else None
    models = listing.get("models") if isinstance(listing, dict) else None
    for model in models if isinstance(models, list) else ():
        known_as = str(model.get("name")) if isinstance(model, dict) else ""
        if name in {known_as, known_as.removesuffix(":latest")}:
            digest = model.get("digest")
            return f"sha256:{digest}" if isinstance(digest, str) and digest else None
    return None


def weight_files(weights: Path) -> list[Path]:
    """List what a model is made of: the file, or all of the folder that counts. Blocks."""
    if not weights.is_dir():
        return [weights] if weights.is_file() else []
    return sorted(file for file in weights.iterdir() if file.suffix in WEIGHT_SUFFIXES and file.is_file())


def hash_of_file(file: Path) -> str | None:
    """Give the SHA-256 of a file; Hugging Face's cache names big files by it. Blocks; None if unreadable."""
    real = file.resolve()
    if _SHA256.fullmatch(real.name):
        return real.name
    digest = hashlib.sha256()
    block = bytearray(BLOCK_BYTES)
    view = memoryview(block)
    try:
        with real.open("rb", buffering=0) as stream:
            while count := stream.readinto(block):
                digest.update(view[:count])
    except OSError:
        return None
    return digest.hexdigest()


def hash_of_all(hashes: Sequence[tuple[str, str]]) -> str | None:
    """Make one hash of the names and hashes of files: that of the file itself where there is one."""
    if not hashes:
        return None
    if len(hashes) == 1:
        return f"sha256:{hashes[0][1]}"
    text = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def drop_from_page_cache(files: Sequence[Path]) -> bool:
    """Put files out of the page cache; say whether the kernel took the advice for all of them. Blocks."""
    for file in files:
        try:
            descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError:
            return False
        finally:
            os.close(descriptor)
    return bool(files)


_VERSION_PATHS = {
    "vllm": "/version",
    "ollama": "/api/version",
    "llamacpp": "/props",
    "transformers": "/",
}


def _version_in(found: dict[str, Any]) -> str | None:
    """Read the version off what an engine says of itself."""
    versions = found.get("versions")
    if isinstance(versions, dict):  # our worker's
        return ", ".join(f"{name} {version}" for name, version in versions.items())
    told = found.get("version") or found.get("build_info")
    return told if isinstance(told, str) else None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or sys.platform)


async def dropped(files: Sequence[Path]) -> bool:
    """Put files out of the page cache, in a thread."""
    return await asyncio.to_thread(drop_from_page_cache, files)
