"""Why an engine did not start, or died, and the ways out. Pure: what it needs to know comes in.

The engine's own runtime reads its log first; then comes what engines of every kind say, then what the exit
code tells. What nobody recognises is called unknown, with the line that tells most.
"""

import re
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from footplate_daemon.catalog import Variant
from footplate_daemon.errors import FootplateError, Unavailable
from footplate_daemon.runtimes.base import Cause, Runtime
from footplate_daemon.runtimes.patterns import find_cause, symptom
from footplate_daemon.switching.engine import engine_name
from footplate_daemon.wire import Diagnosis, Remedy

EVIDENCE_CHARACTERS = 500
"""Of one line; vLLM's longest telling sentence has 300 before the number that matters."""
SMALLEST_CONTEXT = 512
GIB = 1024**3


@dataclass(frozen=True)
class GpuHolder:
    """A process that holds GPU memory."""

    pid: int
    name: str
    owner: str
    memory_bytes: int
    is_ours: bool = False


def diagnose(
    runtime: Runtime,
    log: Sequence[str],
    *,
    exit_code: int | None,
    variant: Variant,
    preset: str | None = None,
    context: int | None = None,
    other_variants: Sequence[str] = (),
    cause: FootplateError | None = None,
    timed_out_after: float | None = None,
    gpu_holders: Sequence[GpuHolder] = (),
) -> Diagnosis:
    """Explain a failed start or a death, from what this attempt wrote (oldest line first).

    `exit_code` is negative, or 128 and more, for a signal. `cause` is what kept it from being started at all,
    or from serving. `timed_out_after` are the seconds it was given. `other_variants` are names of the same
    model elsewhere, the best first.
    """
    lines = [_clean(line) for line in log]
    found = (
        _not_installed(cause)
        or runtime.recognise(lines, exit_code)
        or find_cause(COMMON, lines)
        or find_cause(GENERIC, [line for line in lines if not _is_harmless(line)])
        or _by_signal(exit_code)
        or _from_error(cause)
        or _too_slow(timed_out_after)
        or _unknown(exit_code)
    )
    situation = _Situation(variant, preset, context or variant.launch_context(preset), gpu_holders)
    remedies = [
        *found.remedies,
        *_remedies(found, situation),
        *(_other_variant(name) for name in other_variants),
        _read_log(variant),
    ]
    return Diagnosis(
        code=found.code,
        cause=mask(found.cause),
        evidence=tuple(mask(_shorten(line)) for line in _evidence(found, lines)),
        remedies=tuple(remedy.model_copy(update={"id": n}) for n, remedy in enumerate(remedies, start=1)),
        exit_code=exit_code,
    )


def memory_held(variant: str, needed_bytes: int | None, holders: Sequence[GpuHolder]) -> Diagnosis:
    """Explain that the memory which an engine needs did not get free in time, and who holds it."""
    biggest = max(holders, key=lambda holder: holder.memory_bytes, default=None)
    who = f" {biggest.name} (pid {biggest.pid}, {biggest.owner}) holds most of it." if biggest else ""
    needed = f" {needed_bytes / 2**30:.1f} GiB are needed." if needed_bytes else ""
    remedies = [
        Remedy(
            id=number,
            title=f"End {holder.name} (pid {holder.pid}) of {holder.owner}, if it may be ended",
            applies=False,
            command=f"kill {holder.pid}",
        )
        for number, holder in enumerate(holders, start=1)
        if not holder.is_ours
    ]
    return Diagnosis(
        code="memory_held",
        cause=f"The memory for {variant} did not get free in time.{needed}{who}",
        evidence=tuple(
            f"pid {holder.pid} {holder.name} ({holder.owner}): {holder.memory_bytes / 2**30:.1f} GiB"
            for holder in holders
        ),
        remedies=tuple(remedies),
    )


def mask(text: str) -> str:
    """Hide what looks like a secret."""
    for expression, replacement in SECRETS:
        text = expression.sub(replacement, text)
    return text


@dataclass(frozen=True)
class _Situation:
    variant: Variant
    preset: str | None
    context: int | None
    gpu_holders: Sequence[GpuHolder]


# --- The cause -----------------------------------------------------------------------------------------

COMMON = (
    symptom("disk_full", r"No space left on device|Disk quota exceeded", "The disk is full."),
    symptom(
        "port_taken",
        r"Address already in use|address already in use|error while attempting to bind on address",
        "Another program listens on the engine's port.",
    ),
    symptom(
        "out_of_gpu_memory",
        r"CUDA out of memory\. Tried to allocate (?P<wanted>[\d.]+ [GMK]iB)\..*? of which "
        r"(?P<free>[\d.]+ [GMK]iB) is free\."
        r"(?:.*?\bProcess (?P<holder_pid>\d+) has (?P<held>[\d.]+ [GMK]iB) memory in use)?",
        "The GPU's memory is full: {wanted} more were needed, and {free} were free.",
    ),
    symptom(
        "out_of_gpu_memory",
        r"CUDA out of memory|CUDA error: out of memory|CUDA_ERROR_OUT_OF_MEMORY|HIP out of memory|"
        r"CUBLAS_STATUS_ALLOC_FAILED",
        "The GPU's memory is full.",
    ),
    symptom(
        "driver_mismatch",
        r"NVIDIA driver on your system is too old \(found version (?P<version>\d+)\)",
        "The NVIDIA driver is too old for this engine's CUDA.",
    ),
    symptom(
        "driver_mismatch",
        r"CUDA driver version is insufficient for CUDA runtime version|unsupported display driver|"
        r"system has unsupported .*driver|forward compatibility was attempted on non supported",
        "The NVIDIA driver is too old for this engine's CUDA.",
    ),
    symptom(
        "driver_mismatch",
        r"Driver/library version mismatch",
        "The NVIDIA driver was updated, and the one in the kernel is still the old one.",
    ),
    symptom(
        "driver_mismatch",
        r"no kernel image is available for execution on the device|PTX was compiled with an unsupported",
        "The engine was not built for this GPU's generation.",
    ),
    symptom(
        "driver_mismatch",
        r"(?P<library>lib(?:cuda|cudart|cublas|cudnn|nccl|nvrtc)\S*): cannot open shared object file",
        "The CUDA library {library} is missing.",
    ),
    symptom(
        "no_gpu",
        r"No CUDA GPUs are available|no CUDA-capable device is detected|Torch not compiled with CUDA enabled|"
        r"Found no NVIDIA driver",
        "The engine finds no GPU that it can use.",
    ),
    symptom(
        "bad_token",
        r"Invalid user token|Invalid credentials in Authorization header|Token is required|token is invalid",
        "The Hugging Face token is missing or not valid.",
    ),
    symptom(
        "gated_repo",
        r"Access to model (?P<repo>\S+) is restricted|gated repo (?:for url )?https://huggingface\.co/"
        r"(?P<repo_in_url>[^/\s]+/[^/\s]+)",
        "The owner of this model's repository must grant you access first.",
    ),
    symptom(
        "gated_repo",
        r"GatedRepoError|access a gated repo",
        "The owner of this model's repository must grant you access first.",
    ),
    symptom(
        "repo_missing",
        r"Repository Not Found for url: https://huggingface\.co/(?:api/models/)?(?P<repo>[^/\s]+/[^/\s]+)|"
        r"RepositoryNotFoundError|is not a valid model identifier listed on",
        "There is no such repository on Hugging Face, or it is private.",
    ),
    symptom(
        "bad_argument",
        r"error: unrecognized arguments?: (?P<argument>.+)",
        "The engine does not know the argument {argument}.",
    ),
    symptom(
        "bad_argument",
        r"error: (?:argument (?P<argument>[^:]+): (?P<reason>.+)|the following arguments are required: .+)",
        "The engine does not accept one of its arguments.",
    ),
    symptom(
        "corrupt_weights",
        r"Error while deserializing header|incomplete metadata, file not fully covered|"
        r"PytorchStreamReader failed|invalid load key",
        "A file of the weights is damaged or incomplete.",
    ),
    symptom(
        "out_of_memory",
        r"\bMemoryError\b|Cannot allocate memory|std::bad_alloc|DefaultCPUAllocator: can't allocate memory",
        "The machine's memory is full.",
    ),
    symptom(
        "not_installed",
        r"(?:ModuleNotFoundError: No module named|PackageNotFoundError: No package metadata was found for) "
        r"'?(?P<package>[\w.-]+)",
        "The runtime's installation is incomplete: {package} is missing.",
    ),
    symptom(
        "not_installed",
        r"command not found|execvp?: .*No such file or directory|can't find command '(?P<program>[^']+)'",
        "The engine's program is not there.",
    ),
)
"""What engines of every kind say; the telling rows first."""

GENERIC = (
    symptom(
        "child_died",
        r"EngineDeadError|EngineCore encountered an issue|Engine core initialization failed|"
        r"Engine core proc \S* ?died|WorkerProc (?:initialization failed|\S+ died)|"
        r"Worker proc .* died unexpectedly|llama runner process has terminated",
        "A process that the engine had started died.",
    ),
)
"""What is said after anything has gone wrong: asked last."""

_KEY_NAMES = r"(?:api[_-]?key|token|password|secret)"
SECRETS = (
    (re.compile(r"\bhf_[A-Za-z0-9]{6,}"), "hf_…"),
    (re.compile(r"\bsk-[A-Za-z0-9_-]{6,}"), "sk-…"),
    (re.compile(r"(Bearer\s+)[^\s'\",]+", re.IGNORECASE), r"\1…"),
    (re.compile(rf"({_KEY_NAMES}[\"']?\s*[=:]\s*\[?[\"']?)[^\s\"',\]}}]{{8,}}", re.IGNORECASE), r"\1…"),
    (re.compile(r"(://)[^/\s:@]+:[^/\s@]+@"), r"\1…@"),
)

_PREFIX = re.compile(r"^[\d.]+ [EWI] ")
"""llama.cpp's time and level."""
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_ERROR = re.compile(r"\b\w*(?:Error|Exception)\b:|\berror:|\bfatal\b|\bpanick?ed\b|^[\d.]+ E ", re.IGNORECASE)
_HARMLESS = re.compile(r"\b(?:WARNING|INFO|DEBUG)\b|\bFutureWarning\b|\bwarning:|^[\d.]+ [WI] ")


def _not_installed(error: FootplateError | None) -> Cause | None:
    return Cause("not_installed", error.message, ()) if isinstance(error, Unavailable) else None


def _by_signal(exit_code: int | None) -> Cause | None:
    match _signal_of(exit_code):
        case None:
            return None
        case signal.SIGKILL:
            return Cause(
                "killed",
                "The engine was killed (SIGKILL), by someone or by the kernel because memory ran out.",
                (),
            )
        case signal.SIGILL:
            return Cause(
                "unsupported_cpu", "The engine was built for another kind of processor (SIGILL).", ()
            )
        case number:
            return Cause("crashed", f"The engine ended by the signal {number.name}.", ())


def _signal_of(exit_code: int | None) -> signal.Signals | None:
    if exit_code is None:
        return None
    number = -exit_code if exit_code < 0 else exit_code - 128
    return signal.Signals(number) if number in set(signal.Signals) else None


def _from_error(error: FootplateError | None) -> Cause | None:
    return Cause(error.code, error.message, ()) if error is not None else None


def _too_slow(timed_out_after: float | None) -> Cause | None:
    if timed_out_after is None:
        return None
    return Cause("start_timeout", f"The engine was not ready within {timed_out_after:.0f} seconds.", ())


def _unknown(exit_code: int | None) -> Cause:
    if exit_code is None:
        return Cause("unknown", "The engine failed, and Footplate does not know why.", ())
    if exit_code == 0:
        return Cause(
            "unknown", "The engine ended though nobody asked it to; Footplate does not know why.", ()
        )
    return Cause("unknown", f"The engine exited with code {exit_code}; Footplate does not know why.", ())


# --- The evidence --------------------------------------------------------------------------------------


def _evidence(cause: Cause, lines: Sequence[str]) -> Iterable[str]:
    """Give the lines that prove the cause; where none does, the first like an error, or the end."""
    if cause.evidence and cause.code != "child_died":
        return cause.evidence
    generic = [row.expression for row in GENERIC]
    errors = [
        line
        for line in lines
        if _ERROR.search(line) and not _is_harmless(line) and not any(row.search(line) for row in generic)
    ]
    if errors:
        return errors[:1]
    return cause.evidence or [line for line in lines if line.strip()][-3:]


def _clean(line: str) -> str:
    return _ESCAPES.sub("", line).rpartition("\r")[2].rstrip()


def _shorten(line: str) -> str:
    line = _PREFIX.sub("", line.strip())
    return line if len(line) <= EVIDENCE_CHARACTERS else f"{line[:EVIDENCE_CHARACTERS]}…"


def _is_harmless(line: str) -> bool:
    return _HARMLESS.search(line) is not None


# --- The ways out --------------------------------------------------------------------------------------


def _remedies(cause: Cause, situation: _Situation) -> list[Remedy]:
    """Give what may help against this cause, the most promising first; other variants always follow."""
    variant = situation.variant
    match cause.code:
        case "kv_cache_too_small" | "context_too_long":
            return [*_shorter_context(cause, situation), *_smaller_presets(cause, situation)]
        case "out_of_gpu_memory":
            return [
                *_smaller_presets(cause, situation),
                *_halved_context(situation),
                *_gpu_holders(cause, situation),
            ]
        case "out_of_memory" | "killed":
            return [*_smaller_presets(cause, situation), *_halved_context(situation)]
        case "port_taken":
            return [_again(variant, situation, "Try again, on another port")]
        case "start_timeout" | "child_died" | "crashed":
            return [_again(variant, situation, "Try again")]
        case "model_missing" | "repo_missing" | "not_gguf" if variant.weights.kind == "repo":
            return [_typed("Fetch the weights", f"hf download {_what_to_fetch(variant)}")]
        case "corrupt_weights" if variant.weights.kind == "repo":
            return [_typed("Fetch them again", f"hf download --force-download {_what_to_fetch(variant)}")]
        case "model_missing" | "not_gguf" | "corrupt_weights":
            return [_typed("See where its weights are looked for", f"footplate explain {variant.name}")]
        case "gated_repo":
            repository = cause.facts.get("repo") or cause.facts.get("repo_in_url") or variant.weights.location
            page = f"https://huggingface.co/{repository}"
            return [_typed(f"Ask for access on {page}, then sign in", "hf auth login")]
        case "bad_token":
            return [_typed("Sign in to Hugging Face", "hf auth login")]
        case "bad_argument" | "unsupported_option":
            return [_typed("See what is passed to it", f"footplate explain {variant.name}")]
        case "unsupported_dtype":
            return [
                _typed(
                    'Add args = ["--dtype", "half"] to the variant in config.toml, then', "footplate reload"
                )
            ]
        case "driver_mismatch" | "no_gpu":
            return [_typed("See the driver and its version", "nvidia-smi")]
        case "not_installed" if variant.runtime in INSTALL:
            return [_typed(f"Install {variant.runtime}", INSTALL[variant.runtime])]
        case "disk_full":
            return [_typed("See which disk is full", "df -h")]
        case "unknown_architecture" if variant.runtime == "vllm":
            return [_typed("Upgrade vLLM in its environment", "pip install --upgrade vllm")]
        case _:
            return []


INSTALL = {
    "vllm": "python3 -m venv ~/.venvs/vllm && ~/.venvs/vllm/bin/pip install vllm",
    "llamacpp": "pip install xllamacpp",
    "ollama": "curl -fsSL https://ollama.com/install.sh | sh",
}


def _shorter_context(cause: Cause, situation: _Situation) -> list[Remedy]:
    largest = cause.facts.get("largest_context")
    if isinstance(largest, int) and largest > 0:
        return [_context(situation, largest)]
    return _halved_context(situation)


def _halved_context(situation: _Situation) -> list[Remedy]:
    if situation.context is None or situation.context < 2 * SMALLEST_CONTEXT:
        return []
    return [_context(situation, situation.context // 2)]


def _context(situation: _Situation, context: int) -> Remedy:
    return Remedy(
        id=0,
        title=f"Use a context of {context} tokens",
        variant=situation.variant.name,
        preset=situation.preset,
        context=context,
    )


def _smaller_presets(cause: Cause, situation: _Situation) -> list[Remedy]:
    """Give the presets with less context than was tried, and no more than fits; the largest first."""
    variant, largest = situation.variant, cause.facts.get("largest_context")
    limits = [limit for limit in (situation.context, largest and largest + 1) if isinstance(limit, int)]
    smaller = [
        (preset.context, name)
        for name, preset in variant.presets.items()
        if name != (situation.preset or variant.default_preset)
        and preset.context is not None
        and all(preset.context < limit for limit in limits)
    ]
    return [
        Remedy(id=0, title=f"Use the preset {name}", variant=variant.name, preset=name, context=context)
        for context, name in sorted(smaller, reverse=True)
    ]


def _gpu_holders(cause: Cause, situation: _Situation) -> list[Remedy]:
    holders = sorted(situation.gpu_holders, key=lambda holder: holder.memory_bytes, reverse=True)
    foreign = [
        _typed(
            f"End process {holder.pid} ({holder.name} of {holder.owner}), which holds "
            f"{holder.memory_bytes / GIB:.1f} GiB of the GPU's memory",
            f"kill {holder.pid}",
        )
        for holder in holders
        if not holder.is_ours
    ]
    if foreign:
        return foreign
    pid, held = cause.facts.get("holder_pid"), cause.facts.get("held")
    if pid and not holders:
        return [_typed(f"End process {pid}, which holds {held} of the GPU's memory", f"kill {pid}")]
    return [_typed("See who holds the GPU's memory", "nvidia-smi")]


def _again(variant: Variant, situation: _Situation, title: str) -> Remedy:
    return Remedy(id=0, title=title, variant=variant.name, preset=situation.preset)


def _other_variant(name: str) -> Remedy:
    return Remedy(id=0, title=f"Use {name} instead", variant=name)


def _read_log(variant: Variant) -> Remedy:
    return _typed("Read its log", f"footplate logs {engine_name(variant.name)}")


def _typed(title: str, command: str) -> Remedy:
    return Remedy(id=0, title=title, applies=False, command=command)


def _what_to_fetch(variant: Variant) -> str:
    repository, _, quantization = variant.weights.location.partition(":")
    return f"{repository} --include '*{quantization}*'" if quantization else repository
