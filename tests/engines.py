"""The real runtimes that tests start, where `scripts/engines.py` has put them."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = Path(os.environ.get("FOOTPLATE_ENGINES") or REPOSITORY / ".cache" / "engines")

GUIDE_GGUF = REPOSITORY / "daemon" / "footplate_daemon" / "guide" / "guide.gguf"
GUIDE_HF = REPOSITORY / "tests" / "data" / "guide-hf"

VLLM_LIGHT_ENV = {
    # With two threads on busy cores, OpenMP's waiting makes single requests take seconds.
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # Without it the first request for logprobs waits for a compilation, even with --enforce-eager.
    "TORCHDYNAMO_DISABLE": "1",
    # Without it the CPU platform starts a worker process all the same.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
VLLM_LIGHT_ARGS = (
    "--enforce-eager",
    *("--distributed-executor-backend", "uni"),
    # Its default is most of the machine's memory.
    *("--kv-cache-memory-bytes", "64M"),
)
"""What makes vLLM's CPU build light, as a variant's `args`; the guide goes with a context of 2048."""


def llama_server() -> Path | None:
    """Give the real llama-server, or None when it is not installed."""
    return _installed(FOLDER / "llama-server" / "bin" / "llama-server")


def vllm() -> Path | None:
    """Give the real `vllm` command, or None when it is not installed."""
    return _installed(FOLDER / "vllm" / "bin" / "vllm")


def ray() -> Path | None:
    """Give the Python of an environment with Ray and vLLM, or None when it is not installed."""
    return _installed(FOLDER / "ray" / "bin" / "python")


def require(engine: Path | None, name: str) -> Path:
    """Give the engine; without it skip the test, but fail where the tests must be whole (CI)."""
    if engine is not None:
        return engine
    message = f"there is no {name}: run `python scripts/engines.py {name}`"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def _installed(program: Path) -> Path | None:
    is_whole = (program.parent.parent / "complete").is_file()
    return program if is_whole and program.is_file() else None
