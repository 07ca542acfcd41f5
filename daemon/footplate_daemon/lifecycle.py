"""Bring the whole of Footplate up and down: supervisord, the daemon, and whatever they left behind.

Plain blocking functions for the command line. They hold a lock in the run folder, so that two at a time
wait for each other, and work in any state that a crash may have left.
"""

import fcntl
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from footplate_daemon import processes, supervisord
from footplate_daemon.errors import EngineFailed, FootplateError, Invalid, NotFound, TimedOut, Unavailable
from footplate_daemon.logs import render
from footplate_daemon.paths import Paths
from footplate_daemon.processes import ProcessId
from footplate_daemon.supervisord import DAEMON, engine_log

__all__ = ["State", "Up", "down", "engine_log", "engine_logs", "health"]
__all__ += ["logs", "record_self", "render", "restart", "state", "up"]

UP_SECONDS = 30.0
"""How long the daemon may take until it answers."""
DOWN_SECONDS = 10.0
"""How long the daemon and supervisord may take to stop before they are killed."""
POLL_SECONDS = 0.015
TAIL_LINES = 15


@dataclass(frozen=True)
class Health:
    """What the daemon says of itself."""

    pid: int
    version: str


@dataclass(frozen=True)
class Up:
    """The daemon that answers."""

    pid: int
    version: str
    was_up: bool
    """It ran before we did anything."""
    seconds: float
    """From the call until it answered."""


@dataclass(frozen=True)
class State:
    """What runs, from supervisord's point of view."""

    supervisord_pid: int | None
    daemon: str | None
    """supervisord's word for the daemon: `RUNNING`, `BACKOFF`, `FATAL`…; None without supervisord."""
    daemon_pid: int | None
    answers: bool
    """Whether `/health` says 200."""


def up(paths: Paths) -> Up:
    """Return when the daemon answers, having started whatever did not run.

    Raise `Invalid` for folders that cannot be used, `EngineFailed` with the end of the log when the daemon
    does not come up; nothing that this call started is left then.
    """
    began = time.monotonic()
    paths.make()
    _check_for_supervisor(paths)
    with _lock(paths):
        found, was_up = _up(paths)
    return Up(found.pid, found.version, was_up, time.monotonic() - began)


def down(paths: Paths) -> bool:
    """Stop every engine, the daemon and supervisord; leave no process, socket or record. Say if any ran."""
    if not paths.run_dir.is_dir():
        return False
    with _lock(paths):
        return _down(paths)


def restart(paths: Paths) -> Up:
    """Restart the daemon alone; engines stay loaded and are adopted by the new one."""
    began = time.monotonic()
    paths.make()
    _check_for_supervisor(paths)
    with _lock(paths):
        if _supervisord_pid(paths) is not None:
            _stop_daemon(paths)
        found, _ = _up(paths)
    return Up(found.pid, found.version, was_up=False, seconds=time.monotonic() - began)


def state(paths: Paths, seconds: float = 1.0) -> State:
    """Say what runs now; the daemon has these seconds to answer."""
    pid = _supervisord_pid(paths)
    info = _daemon_info(paths) if pid is not None else None
    return State(
        supervisord_pid=pid,
        daemon=info["statename"] if info else None,
        daemon_pid=info["pid"] or None if info else None,
        answers=health(paths, seconds) is not None,
    )


def health(paths: Paths, seconds: float = 1.0) -> Health | None:
    """Ask the daemon's `/health`; None when it does not answer with 200 in time."""
    connection = supervisord.UnixConnection(paths.socket, timeout=seconds)
    try:
        connection.request("GET", "/health")
        response = connection.getresponse()
        body = json.loads(response.read())
        return Health(int(body["pid"]), str(body["version"])) if response.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None
    finally:
        connection.close()


def record_self(paths: Paths) -> None:
    """Note this process as the daemon, for the `up` or `down` that comes after supervisord was killed."""
    me = processes.identify(os.getpid())
    if me is not None:
        supervisord.write_private(
            _daemon_record(paths), json.dumps({"pid": me.pid, "create_time": me.create_time})
        )


def engine_logs(paths: Paths) -> dict[str, Path]:
    """Give the log of every engine that ever ran here, by the engine's name."""
    prefix = "engine-"
    return {file.stem.removeprefix(prefix): file for file in sorted(paths.logs_dir.glob(f"{prefix}*.log"))}


def logs(paths: Paths) -> dict[str, Path]:
    """Give every log by its name: ours, and the engines'."""
    return {"daemon": paths.daemon_log, "access": paths.access_log, **engine_logs(paths)}


def _up(paths: Paths) -> tuple[Health, bool]:
    was_there = _supervisord_pid(paths) is not None
    if was_there and (found := health(paths)):
        return found, True
    # One that is slow to answer, or not ready yet, is the same daemon afterwards.
    pid_before = _daemon_info(paths)["pid"] if was_there else None
    if not was_there:
        _end_leftovers(paths)
        _write_first_config(paths)
        _start_supervisord(paths)
    try:
        _start_daemon(paths)
        found = _wait_for_daemon(paths)
    except FootplateError:
        if not was_there:
            _down(paths)
        raise
    return found, found.pid == pid_before


def _down(paths: Paths) -> bool:
    pid = _supervisord_pid(paths)
    if pid is not None:
        _stop_daemon(paths)
        _stop_engines(paths)
        _stop_supervisord(paths, pid)
    ended = _end_leftovers(paths)
    for name in supervisord.recorded_names(paths):
        supervisord.forget(paths, name)
    return pid is not None or ended


def _start_supervisord(paths: Paths) -> None:
    conf = resources.files("footplate_daemon").joinpath("supervisor.conf").read_text()
    supervisord.write_private(paths.supervisor_conf, conf)
    # It forks away from us and lets go of these pipes once it serves its socket.
    started = subprocess.run(
        [sys.executable, "-m", "supervisor.supervisord", "-c", str(paths.supervisor_conf)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=paths.run_dir,
        env=_environment(paths, os.environ),
        start_new_session=True,
        check=False,
    )
    if started.returncode != 0:
        raise Unavailable(f"supervisord did not start: {started.stdout.strip()[-2000:]}")


def _environment(paths: Paths, ours: Mapping[str, str]) -> dict[str, str]:
    """Give what supervisord is started with: ours, with the folders that were asked for."""
    environment = dict(ours)
    root = paths.config_dir.parent
    if Paths.from_environment({"FOOTPLATE_HOME": str(root)}) == paths:
        environment["FOOTPLATE_HOME"] = str(root)
    return environment | {"FOOTPLATE_LOGS": str(paths.logs_dir), "FOOTPLATE_PYTHON": sys.executable}


def _start_daemon(paths: Paths) -> None:
    if _daemon_info(paths)["statename"] == "BACKOFF":
        supervisord.call(paths.supervisor_socket, "stopProcess", DAEMON, False)
    # supervisord would start it by itself, at its next tick, which comes up to a second later.
    try:
        supervisord.call(paths.supervisor_socket, "startProcess", DAEMON, False)
    except EngineFailed as error:
        if _daemon_info(paths)["statename"] not in ("RUNNING", "STARTING"):
            raise _did_not_come_up(paths, f"supervisord could not start it ({error.message})") from error


def _wait_for_daemon(paths: Paths) -> Health:
    process = processes.identify(_daemon_info(paths)["pid"] or -1)
    deadline = time.monotonic() + UP_SECONDS
    while time.monotonic() < deadline:
        if found := health(paths):
            return found
        # supervisord goes on trying; that it ended once, before it answered, is enough for us.
        if process is None or not processes.is_alive(process):
            raise _did_not_come_up(paths, "it ended")
        time.sleep(POLL_SECONDS)
    raise _did_not_come_up(paths, f"it did not answer within {UP_SECONDS:.0f} s")


def _did_not_come_up(paths: Paths, reason: str) -> EngineFailed:
    lines = [render(line) for line in supervisord.tail(paths.daemon_log, TAIL_LINES)]
    shown = "\n".join(["", *lines]) if lines else " Its log is empty."
    return EngineFailed(
        f"The daemon did not come up: {reason}.{shown}",
        hint=f"The whole log: {paths.daemon_log}",
        details={"log_tail": lines},
    )


def _stop_daemon(paths: Paths) -> None:
    process = processes.identify(_daemon_info(paths)["pid"] or -1)
    with suppress(EngineFailed):  # It does not run.
        supervisord.call(paths.supervisor_socket, "stopProcess", DAEMON, False)
    if process is not None:
        processes.wait_gone([process], DOWN_SECONDS)
        processes.kill_group(process)
        _wait_until_reaped(paths)


def _wait_until_reaped(paths: Paths) -> None:
    deadline = time.monotonic() + DOWN_SECONDS
    while _daemon_info(paths)["statename"] == "STOPPING":
        if time.monotonic() > deadline:
            raise TimedOut("supervisord does not notice that the daemon has ended.")
        time.sleep(POLL_SECONDS)


def _stop_engines(paths: Paths) -> None:
    """Ask all of them at once, then kill what is left of each."""
    listed = supervisord.call(paths.supervisor_socket, "getAllProcessInfo")
    leaders = [
        process
        for info in listed
        if info["name"] != DAEMON and info["pid"] and (process := processes.identify(info["pid"]))
    ]
    for info in listed:
        with suppress(EngineFailed, NotFound):  # It has ended.
            supervisord.call(paths.supervisor_socket, "stopProcess", info["name"], False)
    records = (supervisord.read_record(paths, info["name"]) for info in listed)
    processes.wait_gone(leaders, max((record.stop_wait_seconds for record in records if record), default=10))
    for leader in leaders:
        processes.kill_group(leader)


def _stop_supervisord(paths: Paths, pid: int) -> None:
    process = processes.identify(pid)
    if process is None:
        return
    with suppress(Unavailable):  # It is shutting down already.
        supervisord.call(paths.supervisor_socket, "shutdown")
    deadline = time.monotonic() + DOWN_SECONDS
    while processes.wait_gone([process], POLL_SECONDS) and time.monotonic() < deadline:
        # It goes on only when something happens, or with its next tick, up to a second later.
        with suppress(Unavailable):
            supervisord.call(paths.supervisor_socket, "getState")
    processes.kill_until_gone(lambda: [process] if processes.is_alive(process) else [])


def _end_leftovers(paths: Paths) -> bool:
    """End what a killed supervisord has left, remove sockets and pid files; say if anything ran."""
    ended = _end_mute_supervisord(paths)
    daemon = _read_daemon_record(paths)
    if daemon is not None and processes.is_alive(daemon):
        ended = True
        processes.send(daemon, signal.SIGTERM)
        processes.wait_gone([daemon], 3.0)
        processes.kill_group(daemon)
    for name in supervisord.recorded_names(paths):
        record = supervisord.read_record(paths, name)
        if record is not None and record.pid:
            ended |= bool(processes.group_members(record.process))
            processes.kill_group(record.process)
        supervisord.forget(paths, name)
    ended |= bool(_marked(paths))
    processes.kill_until_gone(lambda: _marked(paths))
    for file in (paths.socket, paths.supervisor_socket, _pid_file(paths), _daemon_record(paths)):
        file.unlink(missing_ok=True)
    return ended


def _end_mute_supervisord(paths: Paths) -> bool:
    """Kill a supervisord that lives but has lost its socket, or hangs."""
    with suppress(FileNotFoundError, ValueError):
        process = processes.identify(int(_pid_file(paths).read_text()))
        if process and str(paths.supervisor_conf) in processes.command_line(process):
            processes.kill_until_gone(lambda: [process] if processes.is_alive(process) else [])
            return True
    return False


def _marked(paths: Paths) -> list[ProcessId]:
    """Find our processes without a record: supervisord names its socket to each of its children."""
    ours = processes.ancestors()
    marked = processes.with_environment(f"SUPERVISOR_SERVER_URL=unix://{paths.supervisor_socket}")
    return [process for process in marked if process.pid not in ours]


def _supervisord_pid(paths: Paths) -> int | None:
    try:
        return int(supervisord.call(paths.supervisor_socket, "getPID"))
    except Unavailable:
        return None


def _daemon_info(paths: Paths) -> dict[str, Any]:
    info: dict[str, Any] = supervisord.call(paths.supervisor_socket, "getProcessInfo", DAEMON)
    return info


def _pid_file(paths: Paths) -> Path:
    return paths.run_dir / "supervisord.pid"


def _daemon_record(paths: Paths) -> Path:
    return paths.run_dir / "footplated.json"


def _read_daemon_record(paths: Paths) -> ProcessId | None:
    try:
        record = json.loads(_daemon_record(paths).read_text())
        return ProcessId(int(record["pid"]), float(record["create_time"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _check_for_supervisor(paths: Paths) -> None:
    """Refuse the folders that supervisord's configuration cannot express, instead of its strange error."""
    for folder, forbidden in ((paths.run_dir, r"[%*?\[]|\s[;#]"), (paths.logs_dir, r"%|\s[;#]")):
        if found := re.search(forbidden, str(folder)):
            raise Invalid(
                f"supervisord cannot use a path with {found.group().strip()!r} in it: {folder}",
                hint="Set FOOTPLATE_HOME to another folder.",
            )


@contextmanager
def _lock(paths: Paths) -> Iterator[None]:
    with (paths.run_dir / "lifecycle.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_first_config(paths: Paths) -> None:
    """Write config.toml if there is none; it belongs to the human from then on."""
    with suppress(FileExistsError), paths.config_file.open("x") as file:
        file.write(_first_config(paths))


def _first_config(paths: Paths) -> str:
    memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1024**3
    gpu = "NVIDIA driver found" if shutil.which("nvidia-smi") else "none found (no nvidia-smi)"
    return f"""\
# Footplate's configuration: yours, Footplate never rewrites it.
# Every line that begins with '#' shows a default; remove the '#' to change it.
#
# Found on this machine at the first start:
#   cores   {os.cpu_count()}
#   memory  {memory_gib:.0f} GiB
#   GPU     {gpu}
#   models  {paths.models_dir}  (put GGUF files there, they appear as models)

[daemon]
# log_level = "info"

[gateway]
# A request for a model that is not active starts a switch.
# auto_switch = true

[switching]
# What is active after the first start.
# default = "guide"
# Stop an engine that nobody has used for so long ("30m"); the next request brings it back.
# idle_unload = false
"""
