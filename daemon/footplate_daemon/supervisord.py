"""supervisord over its socket: start, watch, stop and adopt engines.

supervisord is the only parent of engines, so they outlive us. What it runs is in three files for each
engine in the run folder: `<name>.conf` (its program), `<name>.sh` (command and environment) and
`<name>.json` (our record). All are 0600: they hold launch keys.

The command goes through a two-line shell script that ends in `exec`, because supervisor's `environment=`
has no escape: a value with both kinds of quotes or a line break cannot be written in it.
"""

import asyncio
import hashlib
import http.client
import json
import os
import re
import shlex
import shutil
import socket
import time
import xmlrpc.client
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from signal import Signals
from typing import TYPE_CHECKING, Any, Self, get_type_hints

from footplate_daemon import processes
from footplate_daemon.errors import EngineFailed, FootplateError, Invalid, NotFound, TimedOut, Unavailable
from footplate_daemon.paths import Paths
from footplate_daemon.processes import ProcessId

if TYPE_CHECKING:
    from footplate_daemon.runtimes.base import Launch

DAEMON = "footplated"
"""The program that is us; every other one is an engine."""
ANSWER_SECONDS = 10.0
"""supervisord answers in milliseconds; a program that is forked slowly takes longer."""
REAP_SECONDS = 5.0
"""How long supervisord may take to notice that a child has ended: every call of ours wakes it."""


@dataclass(frozen=True)
class EngineRecord:
    """What we know of a running engine, kept in a file so that the next daemon can adopt it."""

    name: str
    """Its name under supervisord, e.g. `llamacpp-guide`."""
    variant: str
    runtime: str
    port: int
    api_key: str | None = None
    preset: str | None = None
    context: int | None = None
    fingerprint: str = ""
    """Of its launch, see `fingerprint`; filled in by `start`."""
    stop_wait_seconds: int = 10
    """Copied from its launch by `start`."""
    pid: int = 0
    """0 before `start`."""
    create_time: float = 0.0
    """Seconds from the machine's boot to its start: with the pid, this process and no other."""
    started_at: float = 0.0
    """Unix time."""

    @property
    def process(self) -> ProcessId:
        return ProcessId(self.pid, self.create_time)

    def to_json(self) -> str:
        """Write it for the next daemon."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: bytes) -> Self | None:
        """Read what some daemon wrote, of whichever version; None where it makes no sense."""
        try:
            told = json.loads(text)
            record = cls(**{each.name: told[each.name] for each in fields(cls) if each.name in told})
        except (ValueError, TypeError):
            return None
        kinds = get_type_hints(cls)
        return record if all(isinstance(getattr(record, name), kinds[name]) for name in kinds) else None


@dataclass(frozen=True)
class Program:
    """An engine to start: `start` completes the record with the process."""

    name: str
    launch: "Launch"
    log_file: Path
    record: EngineRecord


class Supervisord:
    """The supervisord whose socket is in this run folder.

    Every method raises `Unavailable` when supervisord does not answer. What is begun is finished even
    if the caller is cancelled: an engine never runs without its record.
    """

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    async def start(self, program: Program) -> EngineRecord:
        """Run the program, ending an older one of its name first; return as soon as it is spawned.

        Raise `EngineFailed` when there is no such program or it ended at once, with its exit code and the
        end of its log in `details`.
        """
        return await asyncio.to_thread(self._start, program)

    async def exited(self, record: EngineRecord) -> int | None:
        """Return when that very process has ended: its exit code, negative for a signal, None if unknown."""
        await processes.gone(record.process)
        return await asyncio.to_thread(self._exit_code, record)

    async def stop(self, name: str) -> None:
        """Ask the engine to stop, kill what is left of its process group, and return when that is empty.

        Nothing happens when there is none. Raise `TimedOut` when a killed process does not go.
        """
        record = read_record(self._paths, name)
        if record is not None:
            await asyncio.to_thread(self._ask_to_stop, name)
            with suppress(TimeoutError):
                async with asyncio.timeout(record.stop_wait_seconds):
                    await processes.gone(record.process)
        await asyncio.to_thread(self._clear, name)

    async def kill(self, name: str) -> None:
        """As `stop`, without asking: for a load that nobody waits for."""
        await asyncio.to_thread(self._clear, name)

    async def running(self) -> list[EngineRecord]:
        """Give the engines that can be adopted, by name; everything else of an engine is killed and removed.

        To adopt: the recorded process lives, and supervisord knows it as its own.
        """
        return await asyncio.to_thread(self._running)

    def _start(self, program: Program) -> EngineRecord:
        _check(program)
        self._clear(program.name)
        _write_program(self._paths, program)
        self._call("reloadConfig")
        self._call("addProcessGroup", program.name)
        started_at = time.time()
        try:
            self._call("startProcess", program.name, False)
        except EngineFailed as error:
            raise self._ended_at_once(program) from error
        process = processes.identify(self._info(program.name)["pid"] or -1)
        if process is None:
            raise self._ended_at_once(program)
        record = replace(
            program.record,
            name=program.name,
            fingerprint=fingerprint(program.launch, program.record),
            stop_wait_seconds=program.launch.stop_wait_seconds,
            pid=process.pid,
            create_time=process.create_time,
            started_at=started_at,
        )
        write_private(_file(self._paths, program.name, "json"), record.to_json())
        return record

    def _ended_at_once(self, program: Program) -> EngineFailed:
        info = self._info(program.name)
        exit_code = self._exit_code_in(info)
        self._clear(program.name)
        return EngineFailed(
            f"{program.name} ended at once with exit code {exit_code}.",
            hint=f"See: footplate logs {program.name}",
            details={"exit_code": exit_code, "log_tail": tail(program.log_file, 15)},
        )

    def _exit_code(self, record: EngineRecord) -> int | None:
        try:
            for _ in _tries(REAP_SECONDS):
                info = self._info(record.name)
                if info["pid"] != record.pid:
                    return self._exit_code_in(info)
        except (NotFound, Unavailable):
            return None
        return None

    def _exit_code_in(self, info: Mapping[str, Any]) -> int | None:
        if info["pid"] or not info["stop"]:
            return None
        # supervisord says -1 for any signal; which one is in its log alone.
        return info["exitstatus"] if info["exitstatus"] >= 0 else self._signal_in_log(info["name"])

    def _signal_in_log(self, name: str) -> int | None:
        log = self._call("readLog", -16384, 0)
        found = re.findall(rf"(?:exited|stopped): {re.escape(name)} \(terminated by (SIG\w+)", log)
        return -Signals[found[-1]].value if found and found[-1] in Signals.__members__ else None

    def _ask_to_stop(self, name: str) -> None:
        # EngineFailed: it is not running any more, which is as well.
        with suppress(NotFound, EngineFailed):
            self._call("stopProcess", name, False)

    def _clear(self, name: str) -> None:
        """Kill whatever there is of an engine and forget it; its log stays."""
        for process in self._leaders(name):
            processes.kill_group(process)
        self._remove_group(name)
        forget(self._paths, name)

    def _leaders(self, name: str) -> set[ProcessId]:
        """Give the recorded process and the one that supervisord runs: they differ after a crash of ours."""
        record = read_record(self._paths, name)
        leaders = {record.process} if record else set()
        with suppress(NotFound):
            process = processes.identify(self._info(name)["pid"] or -1)
            leaders |= {process} if process else set()
        return leaders

    def _remove_group(self, name: str) -> None:
        for _ in _tries(REAP_SECONDS):
            try:
                self._call("removeProcessGroup", name)
            except NotFound:
                return
            except EngineFailed:
                continue  # STILL_RUNNING: it has not reaped the process yet.
            return
        raise TimedOut(f"supervisord does not let go of {name}.", hint="See: footplate supervisorctl status")

    def _running(self) -> list[EngineRecord]:
        listed = {info["name"]: info["pid"] for info in self._call("getAllProcessInfo")}
        adopted = []
        for name in sorted((listed.keys() | set(recorded_names(self._paths))) - {DAEMON}):
            record = read_record(self._paths, name)
            if record and listed.get(name) == record.pid and processes.is_alive(record.process):
                adopted.append(record)
            else:
                self._clear(name)
        return adopted

    def _info(self, name: str) -> dict[str, Any]:
        info: dict[str, Any] = self._call("getProcessInfo", name)
        return info

    def _call(self, method: str, *arguments: Any) -> Any:
        return call(self._paths.supervisor_socket, method, *arguments)


def call(supervisor_socket: Path, method: str, *arguments: Any) -> Any:
    """Call supervisord and wait for its answer; its faults and the socket's come as `errors.*`.

    `NotFound`: it knows no such program. `EngineFailed`: the program is not in the state for that.
    """
    # A connection for each call: supervisord closes those that are older than half an hour unasked.
    server = xmlrpc.client.ServerProxy("http://supervisord/RPC2", transport=_UnixTransport(supervisor_socket))
    try:
        with server:
            return getattr(server.supervisor, method)(*arguments)
    except xmlrpc.client.Fault as fault:
        raise _from_fault(fault, method, arguments) from fault
    except (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError) as error:
        raise Unavailable(
            f"supervisord does not answer on {supervisor_socket}: {error}", hint="Start it: footplate up"
        ) from error


def fingerprint(launch: "Launch", record: EngineRecord) -> str:
    """Hash what the engine is started with, less the port and the key, which differ at every start."""
    text = json.dumps(
        [launch.command, sorted(launch.env.items()), launch.stop_signal, launch.stop_wait_seconds]
    )
    text = re.sub(rf"\b{record.port}\b", "{port}", text)
    if record.api_key:
        text = text.replace(record.api_key, "{key}")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def engine_log(paths: Paths, name: str) -> Path:
    """Give the log of the engine with this name; rotated to `….log.1` and so on."""
    return paths.logs_dir / f"engine-{name}.log"


def recorded_names(paths: Paths) -> list[str]:
    """List the engines that have left a file of any kind in the run folder."""
    return sorted({file.stem for file in paths.engines_dir.glob("[!.]*") if file.suffix in _SUFFIXES})


def read_record(paths: Paths, name: str) -> EngineRecord | None:
    """Read an engine's record; None when there is none or it makes no sense."""
    try:
        return EngineRecord.from_json(_file(paths, name, "json").read_bytes())
    except FileNotFoundError:
        return None


def forget(paths: Paths, name: str) -> None:
    """Remove the files of an engine, but its log."""
    for suffix in _SUFFIXES:
        (paths.engines_dir / f"{name}{suffix}").unlink(missing_ok=True)


def write_private(file: Path, text: str) -> None:
    """Write a file whole or not at all, readable by its owner alone."""
    new = file.with_name(f".{file.name}.new")
    new.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(text)
        new.replace(file)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise Unavailable(
            f"Footplate cannot write {file}: {error.strerror}.",
            hint="Free disk space or mend its permissions.",
        ) from error


def tail(log_file: Path, line_count: int) -> list[str]:
    """Give the last lines of a log, oldest first; empty when there is none."""
    if not line_count:
        return []
    try:
        with log_file.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - 256 * line_count - 4096))
            return stream.read().decode(errors="replace").splitlines()[-line_count:]
    except FileNotFoundError:
        return []


def _check(program: Program) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", program.name) or program.name == DAEMON:
        raise Invalid(f"{program.name!r} is no name for an engine: letters, digits, '.', '_' and '-'.")
    for name, value in program.launch.env.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or "\0" in value:
            raise Invalid(f"{name!r} cannot be set in an engine's environment.", param="env")
    search_path = program.launch.env.get("PATH")
    if not program.launch.command or not shutil.which(program.launch.command[0], path=search_path):
        missing = program.launch.command[0] if program.launch.command else "(empty command)"
        raise EngineFailed(
            f"There is no program {missing}.", hint="Install it, or set its full path in config.toml."
        )


def _write_program(paths: Paths, program: Program) -> None:
    script = _file(paths, program.name, "sh")
    exports = [f"export {name}={shlex.quote(value)}" for name, value in program.launch.env.items()]
    write_private(script, "\n".join([*exports, f"exec {shlex.join(program.launch.command)}", ""]))
    write_private(
        _file(paths, program.name, "conf"),
        f"""[program:{program.name}]
command = /bin/sh {_expandable(shlex.quote(str(script)))}
autostart = false
autorestart = false
startsecs = 0
stopasgroup = true
killasgroup = true
stopsignal = {program.launch.stop_signal}
stopwaitsecs = {program.launch.stop_wait_seconds}
redirect_stderr = true
stdout_logfile = {_expandable(_expandable(str(program.log_file)))}
stdout_logfile_maxbytes = 10MB
stdout_logfile_backups = 3
""",
    )


def _expandable(value: str) -> str:
    """Write a value for supervisor, which expands `%` (in a log file's name: twice) and cuts at ` ;`."""
    if re.search(r"\s[;#]|[\r\n]", value):
        raise Invalid(
            f"supervisord cannot use this path: {value!r}.",
            hint="Set FOOTPLATE_HOME to a folder without ' ;' and ' #' in its path.",
        )
    return value.replace("%", "%%")


def _file(paths: Paths, name: str, suffix: str) -> Path:
    return paths.engines_dir / f"{name}.{suffix}"


def _tries(seconds: float) -> Iterator[None]:
    """Try at once, then every 5 ms, until the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        yield
        if time.monotonic() > deadline:
            return
        time.sleep(0.005)


_SUFFIXES = (".conf", ".sh", ".json")
_BAD_NAME = 10
_SHUTTING_DOWN = 6


def _from_fault(fault: xmlrpc.client.Fault, method: str, arguments: tuple[Any, ...]) -> FootplateError:
    said = f"supervisord: {method}{arguments}: {fault.faultString}"
    if fault.faultCode == _BAD_NAME:
        return NotFound(said)
    if fault.faultCode == _SHUTTING_DOWN:
        return Unavailable("supervisord is shutting down.", hint="Wait, then: footplate up", retry_after=2)
    return EngineFailed(said)


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = UnixConnection(self._path, ANSWER_SECONDS)
        self._connection = host, connection  # Its `close` closes this one.
        return connection


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
