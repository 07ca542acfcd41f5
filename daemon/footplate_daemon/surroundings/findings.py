"""What the facts mean: fine or not, in a sentence, with the exact command that mends it. Pure.

Nothing that is merely not there is a problem: Footplate works on a bare machine.
"""

import shlex
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from enum import StrEnum

from footplate_daemon.surroundings.facts import Disk, Facts, Gpus, Program

GB = 10**9
MIB = 1024**2
GIB = 1024**3
ENOUGH_FILES = 4096
"""Open files: an engine with many clients needs some hundreds."""
ENOUGH_PROCESSES = 4096
"""vLLM starts hundreds of threads, and a thread counts."""
SMALL_MEMORY = 4 * GIB
SHM = "/dev/shm"  # noqa: S108  # it is only named
SMALL_SHM = 64 * MIB
"""What containers have when nobody says otherwise."""
LITTLE_DISK = 5 * GB
NO_DISK = 200 * 10**6
TMUX_WITH_CLIPBOARD = (3, 2)


class Severity(StrEnum):
    """How bad it is."""

    FINE = "fine"
    NOTE = "note"
    """Neither good nor bad: something is not there that need not be."""
    WARNING = "warning"
    """Something will not work, or not well."""
    PROBLEM = "problem"
    """Footplate does not work so."""


@dataclass(frozen=True)
class Finding:
    """One thing found."""

    topic: str
    severity: Severity
    sentence: str
    command: str | None = None
    """Mends it, or gets what is missing; as a shell takes it."""


TOPICS = ("footplate", "runtimes", "gpu", "models", "machine", "terminal")


def findings(facts: Facts) -> tuple[Finding, ...]:
    """Say what is fine and what is not, topic by topic."""
    parts = (
        _configuration(facts),
        _daemon(facts),
        _llamacpp(facts),
        _vllm(facts),
        _transformers(facts),
        _ollama(facts),
        _no_runtime(facts),
        _gpus(facts.gpus),
        _models(facts),
        _machine(facts),
        _disks(facts.disks),
        _limits(facts),
        _session(facts),
        _terminal(facts),
        _unanswered(facts),
    )
    found = [finding for part in parts for finding in part]
    return tuple(sorted(found, key=lambda finding: TOPICS.index(finding.topic)))


def is_well(found: Iterable[Finding]) -> bool:
    """Say whether nothing keeps Footplate from working."""
    return all(finding.severity is not Severity.PROBLEM for finding in found)


def _fine(topic: str, sentence: str) -> Finding:
    return Finding(topic, Severity.FINE, sentence)


def _note(topic: str, sentence: str, command: str | None = None) -> Finding:
    return Finding(topic, Severity.NOTE, sentence, command)


def _warning(topic: str, sentence: str, command: str | None = None) -> Finding:
    return Finding(topic, Severity.WARNING, sentence, command)


def _problem(topic: str, sentence: str, command: str | None = None) -> Finding:
    return Finding(topic, Severity.PROBLEM, sentence, command)


def _configuration(facts: Facts) -> Iterator[Finding]:
    found = facts.configuration
    if found.problem:
        yield _problem("footplate", found.problem)
    if found.mistakes:
        for mistake in found.mistakes:
            yield _problem("footplate", f"config.toml, {mistake}", "footplate config check")
    elif found.exists:
        yield _fine("footplate", f"{found.file} has no mistakes.")
    else:
        yield _note("footplate", f"There is no {found.file}: the defaults hold.")
    for runtime, program in found.missing_programs.items():
        sentence = f"config.toml names {program} for {runtime}, and there is none."
        yield _problem("footplate", sentence, f"ls -l {shlex.quote(program)}")


def _daemon(facts: Facts) -> Iterator[Finding]:
    daemon = facts.daemon
    if not daemon.answers:
        if daemon.supervisord:
            word = f" (supervisord says {daemon.state})" if daemon.state else ""
            yield _problem("footplate", f"The daemon does not answer{word}.", "footplate logs -n 50")
        else:
            yield _note("footplate", "The daemon is down.", "footplate up")
        return
    active = f", {daemon.active} is active" if daemon.active else ""
    yield _fine("footplate", f"The daemon is up (version {daemon.version}, pid {daemon.pid}){active}.")
    if daemon.version != facts.version:
        sentence = f"The daemon is version {daemon.version}, this command {facts.version}."
        yield _warning("footplate", sentence, "footplate restart")
    if daemon.agrees is False and not facts.configuration.mistakes:
        sentence = "The daemon works with another configuration than config.toml has now."
        yield _warning("footplate", sentence, "footplate reload")
    if not facts.configuration.mistakes:
        for error in daemon.config_errors:
            yield _warning("footplate", error, "footplate reload")
    for engine in daemon.failed:
        yield _warning("footplate", f"{engine} has failed.", f"footplate switch {shlex.quote(engine)}")


def _llamacpp(facts: Facts) -> Iterator[Finding]:
    if facts.embedded:
        yield _fine("runtimes", f"llama.cpp: comes along (xllamacpp {facts.embedded})")
    else:
        yield _warning(
            "runtimes",
            "llama.cpp: the engine that comes along cannot be imported.",
            "pip install xllamacpp",
        )
    server = facts.llama_server
    if server is None:
        return
    shown = _shown("llama-server", server)
    if facts.llama_server_used:
        yield _fine("runtimes", f"{shown}, as config.toml says")
    else:
        yield _note(
            "runtimes",
            f"{shown}, not used; to use it, put under [runtimes.llamacpp] in config.toml:",
            f'program = "{server.path}"',
        )


def _vllm(facts: Facts) -> Iterator[Finding]:
    found = facts.vllm
    if found is None:
        if "vllm" not in facts.configuration.missing_programs:
            yield _note("runtimes", "vLLM: not installed", _create("vllm", facts.gpus))
        return
    has_gpu = bool(facts.gpus.found)
    if found.build == "CUDA" and not has_gpu:
        sentence = f"{_shown('vLLM', found)}: a build for CUDA, and there is no GPU that it could use."
        yield _warning("runtimes", sentence, "footplate env create vllm --cpu")
    elif found.build == "CPU" and has_gpu:
        sentence = f"{_shown('vLLM', found)}: a build for the CPU, which leaves the GPU idle."
        yield _warning("runtimes", sentence, "footplate env create vllm --cuda")
    else:
        yield _fine("runtimes", _shown("vLLM", found))


def _transformers(facts: Facts) -> Iterator[Finding]:
    found = facts.transformers
    if found is None:
        if "transformers" not in facts.configuration.missing_programs:
            yield _note("runtimes", "transformers: not installed", _create("transformers", facts.gpus))
        return
    yield _fine("runtimes", _shown("transformers", found))
    python = shlex.quote(found.path)
    if facts.gpus.found and found.build == "CPU":
        sentence = "transformers has a torch for the CPU, which leaves the GPU idle."
        yield _warning("runtimes", sentence, "footplate env create transformers --cuda")
    if facts.gpus.found and found.packages and "bitsandbytes" not in found.packages:
        sentence = "transformers cannot quantize to 4 or 8 bits: bitsandbytes is missing."
        yield _note("runtimes", sentence, f"{python} -m pip install bitsandbytes")
    if found.packages and "accelerate" not in found.packages:
        sentence = "transformers cannot load straight to a GPU: accelerate is missing."
        yield _note("runtimes", sentence, f"{python} -m pip install accelerate")


def _create(runtime: str, gpus: Gpus) -> str:
    return f"footplate env create {runtime} {'--cuda' if gpus.found else '--cpu'}"


def _ollama(facts: Facts) -> Iterator[Finding]:
    found = facts.ollama
    if found.program is not None:
        yield _fine("runtimes", _shown("Ollama", found.program))
    elif "ollama" not in facts.configuration.missing_programs:
        sentence = "Ollama: not installed"
        if found.server:
            sentence = "Ollama: no program on this machine's PATH"
        yield _note("runtimes", sentence, "curl -fsSL https://ollama.com/install.sh | sh")
    if found.server:
        yield _fine(
            "runtimes", f"Ollama: a server answers on {found.server} (version {found.server_version})"
        )


def _no_runtime(facts: Facts) -> Iterator[Finding]:
    programs = (facts.llama_server if facts.llama_server_used else None, facts.vllm, facts.transformers)
    if not facts.embedded and not any(programs) and not (facts.ollama.program or facts.ollama.server):
        yield _problem("runtimes", "There is no runtime at all.", "pip install xllamacpp")


def _shown(name: str, program: Program) -> str:
    version = f" {program.version}" if program.version else ""
    build = f" ({program.build})" if program.build else ""
    others = {package: number for package, number in program.packages.items() if package != name}
    packages = ", ".join(f"{package} {number}" for package, number in others.items())
    origin = f" ({program.origin})" if program.origin else ""
    return f"{name}{version}{build}: {program.path}{origin}{f', with {packages}' if packages else ''}"


def _gpus(gpus: Gpus) -> Iterator[Finding]:
    for gpu in gpus.found:
        memory = ""
        if gpu.memory_bytes is not None:
            memory = f", {gpu.memory_bytes / GIB:.0f} GiB"
            if gpu.used_bytes is not None:
                memory += f", {gpu.used_bytes / GIB:.1f} GiB of it used"
        yield _fine("gpu", f"{gpu.name}{memory}")
    if gpus.found:
        cuda = f", CUDA up to {gpus.cuda}" if gpus.cuda else ""
        yield _fine("gpu", f"NVIDIA driver {gpus.driver or 'of unknown version'}{cuda}")
    elif gpus.problem:
        yield _problem("gpu", gpus.problem, gpus.problem_hint)
    else:
        yield _note("gpu", "There is no NVIDIA driver: engines run on the CPU.")
    if gpus.found and not gpus.nvidia_smi:
        yield _note("gpu", "nvidia-smi is not on PATH; Footplate does not need it.")


def _models(facts: Facts) -> Iterator[Finding]:
    listed = [model for model in facts.local_models if model.listed]
    if listed:
        total = sum(model.size_bytes for model in listed)
        yield _fine("models", f"Models folders: {_count(listed, 'model')}, {total / GB:.1f} GB")
    cache = facts.cache
    if cache.models:
        total = sum(model.size_bytes for model in cache.models)
        held = f"{_count(cache.models, 'repository')}, {total / GB:.1f} GB"
        yield _fine("models", f"Hugging Face cache: {held} ({cache.folder})")
        for model in cache.models:
            if not model.whole:
                command = f"hf download {shlex.quote(model.repo)}"
                yield _warning("models", f"{model.repo} was not fetched whole.", command)
    else:
        yield _note("models", f"Hugging Face cache: empty ({cache.folder})")
    if facts.ollama.models:
        where = facts.ollama.server or facts.ollama.store
        yield _fine("models", f"Ollama: {_count(facts.ollama.models, 'model')} ({where})")
    others = [model for model in facts.local_models if not model.listed]
    if others:
        folders = ", ".join(sorted({str(model.path.parent) for model in others})[:4])
        yield _note("models", f"Elsewhere: {_count(others, 'model')}, in {folders}")


def _machine(facts: Facts) -> Iterator[Finding]:
    machine = facts.machine
    swap = f"{machine.swap_bytes / GIB:.0f} GiB swap" if machine.swap_bytes else "no swap"
    memory = (
        f"{machine.memory_bytes / GIB:.0f} GiB memory, {machine.memory_free_bytes / GIB:.0f} free, {swap}"
    )
    yield _fine("machine", f"Python {machine.python}, {_count(range(machine.cores), 'core')}, {memory}")
    if machine.memory_bytes < SMALL_MEMORY:
        yield _warning("machine", "The memory is small: vLLM and transformers need 4 GiB and more.")
    if machine.shm_bytes is None or machine.shm_bytes <= SMALL_SHM:
        size = "is not there" if machine.shm_bytes is None else f"has {machine.shm_bytes // MIB} MiB"
        sentence = f"{SHM} {size}: vLLM over several GPUs needs more (in a container: --shm-size=8g)."
        command = f"sudo mount -o remount,size=8G {SHM}"
        # One GPU or none does without.
        severity = Severity.WARNING if len(facts.gpus.found) > 1 else Severity.NOTE
        yield Finding("machine", severity, sentence, command)


def _disks(disks: Iterable[Disk]) -> Iterator[Finding]:
    for disk in disks:
        where = f"{disk.use} ({disk.folder})"
        if not disk.writable:
            mend = f'sudo chown -R "$USER" {shlex.quote(str(disk.folder))}'
            yield _problem("machine", f"{where} cannot be written in.", mend)
        elif disk.free_bytes is None:
            yield _note("machine", f"The disk of {where} could not be asked.")
        elif disk.free_bytes < LITTLE_DISK:
            is_full = disk.free_bytes < NO_DISK
            severity = Severity.PROBLEM if is_full else Severity.WARNING
            sentence = f"{disk.free_bytes / GB:.1f} GB left for {where}."
            yield Finding("machine", severity, sentence, f"df -h {shlex.quote(str(disk.folder))}")
        else:
            yield _fine("machine", f"{disk.free_bytes / GB:.0f} GB left for {where}")


def _limits(facts: Facts) -> Iterator[Finding]:
    limits = facts.machine.limits
    few = False
    if limits.open_files is not None and limits.open_files < ENOUGH_FILES:
        few = True
        yield _warning(
            "machine",
            f"A process may open {limits.open_files} files: too few for many clients.",
            f"ulimit -n {ENOUGH_FILES * 16} && footplate restart --all",
        )
    if limits.processes is not None and limits.processes < ENOUGH_PROCESSES:
        few = True
        sentence = f"This user may have {limits.processes} processes and threads: too few for vLLM."
        yield _warning("machine", sentence, f"ulimit -u {ENOUGH_PROCESSES * 4} && footplate restart --all")
    if not few:
        locked = "any memory"
        if limits.locked_bytes is not None:
            locked = f"{limits.locked_bytes // 1024} KiB of memory"
        files = "any number of" if limits.open_files is None else limits.open_files
        yield _fine("machine", f"Limits: {files} open files, {locked} locked")


def _session(facts: Facts) -> Iterator[Finding]:
    session = facts.session
    if session.run_dir_is_there and session.systemd and not session.lingers:
        yield _warning(
            "machine",
            "Footplate's sockets are in XDG_RUNTIME_DIR, which is removed when you log out everywhere.",
            f"loginctl enable-linger {shlex.quote(session.user)}",
        )
    if session.runtime_dir is None and session.systemd:
        yield _note("machine", "XDG_RUNTIME_DIR is not set: sockets are in the state folder.")


def _terminal(facts: Facts) -> Iterator[Finding]:
    terminal = facts.terminal
    if not terminal.utf8:
        yield _warning(
            "terminal", "The locale is not UTF-8: lines and marks look broken.", "export LANG=C.UTF-8"
        )
    if not terminal.is_there and not terminal.term:
        return
    if terminal.term == "dumb":
        yield _warning(
            "terminal", "TERM=dumb: the terminal program cannot draw.", "export TERM=xterm-256color"
        )
        return
    full = terminal.colorterm.lower() in {"truecolor", "24bit"}
    colours = "all colours" if full else "256 colours (COLORTERM=truecolor, if it can do more)"
    yield _fine("terminal", f"TERM={terminal.term or '(not set)'}: {colours}")
    if terminal.tmux is not None:
        if _tmux_number(terminal.tmux) < TMUX_WITH_CLIPBOARD:
            sentence = (
                f"tmux {terminal.tmux}: what is copied reaches tmux alone; from 3.2 on, your clipboard."
            )
            yield _warning("terminal", sentence, "sudo apt install tmux")
        else:
            yield _fine("terminal", f"tmux {terminal.tmux}: what is copied reaches your clipboard")


def _tmux_number(version: str) -> tuple[int, int]:
    """Read `3.3a`, `next-3.5`; what cannot be read counts as new."""
    digits = "".join(character if character.isdigit() else " " for character in version).split()
    return (int(digits[0]), int(digits[1])) if len(digits) >= 2 else (99, 0)


def _unanswered(facts: Facts) -> Iterator[Finding]:
    for look in facts.unanswered:
        yield _warning("footplate", f"Could not find out about {look}.", "footplate doctor --within 60")


def _count(things: Sized, name: str) -> str:
    number = len(things)
    plural = f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"
    return f"{number} {name if number == 1 else plural}"
