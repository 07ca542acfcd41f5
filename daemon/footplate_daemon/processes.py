"""Processes of this machine by what cannot be mistaken: a pid together with when it was started.

Linux only: reads /proc and waits on pidfds, so nothing here polls. Knows nothing of supervisord.
Everything blocks; the daemon calls it in a thread.
"""

import asyncio
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from footplate_daemon.errors import TimedOut

PROC = Path("/proc")
KILL_SECONDS = 20.0
"""How long a killed process may take to go: the kernel frees its memory first, a GPU driver's too."""


@dataclass(frozen=True)
class ProcessId:
    """One process, never another one that got its number later."""

    pid: int
    create_time: float
    """Seconds from the machine's boot to the process's start: no clock change moves it."""


def identify(pid: int) -> ProcessId | None:
    """Give the process that has this pid now (a zombie too), or None."""
    stat = _read_stat(pid)
    return ProcessId(pid, stat.create_time) if stat else None


def is_alive(process: ProcessId) -> bool:
    """Whether that very process runs; a zombie does not."""
    stat = _read_stat(process.pid)
    return stat is not None and stat.create_time == process.create_time and not stat.is_dead


def group_members(leader: ProcessId) -> list[ProcessId]:
    """List the live processes of the group that this leader made, whether or not it lives itself."""
    now_there = identify(leader.pid)
    if now_there is not None and now_there != leader:
        return []  # The kernel gives no number away while a group has it: the group is gone.
    return [
        ProcessId(stat.pid, stat.create_time)
        for stat in _all_stats()
        if not stat.is_dead and leader.pid in (stat.pgid, stat.pid) and stat.create_time >= leader.create_time
    ]


def with_environment(entry: str) -> list[ProcessId]:
    """List the live processes of ours that were started with `NAME=value` in their environment."""
    wanted = os.fsencode(entry)
    return [
        ProcessId(stat.pid, stat.create_time)
        for stat in _all_stats()
        if not stat.is_dead and wanted in _environment(stat.pid)
    ]


def command_line(process: ProcessId) -> tuple[str, ...]:
    """Give the arguments it was started with; empty when it is gone."""
    words = _read(PROC / str(process.pid) / "cmdline").split(b"\0")[:-1]
    return tuple(os.fsdecode(word) for word in words) if is_alive(process) else ()


def ancestors() -> set[int]:
    """Give our own pid and those of our parents: nothing of ours kills these."""
    found = set[int]()
    pid = os.getpid()
    while pid and pid not in found:
        found.add(pid)
        stat = _read_stat(pid)
        pid = stat.parent if stat else 0
    return found


def wait_gone(watched: Iterable[ProcessId], seconds: float) -> list[ProcessId]:
    """Wait until all of them have ended; give those that have not after that time."""
    deadline = time.monotonic() + seconds
    left = list(watched)
    while left:
        fd = _open_pidfd(left[0])
        if fd is None:
            left.pop(0)
            continue
        try:
            ended = _wait_readable(fd, deadline - time.monotonic())
        finally:
            os.close(fd)
        if not ended:
            return [process for process in left if is_alive(process)]
        left.pop(0)
    return []


def send(process: ProcessId, signal_number: signal.Signals) -> None:
    """Signal that very process; nothing happens when it is gone."""
    fd = _open_pidfd(process)
    if fd is None:
        return
    try:
        signal.pidfd_send_signal(fd, signal_number)
    except (ProcessLookupError, PermissionError):
        return  # Gone, or no longer ours: who waits for it says so.
    finally:
        os.close(fd)


def kill_group(leader: ProcessId, seconds: float = KILL_SECONDS) -> None:
    """Kill what is left of the group and return when it is empty; raise `TimedOut` naming who stays."""
    kill_until_gone(lambda: group_members(leader), seconds)


def kill_until_gone(find: Callable[[], list[ProcessId]], seconds: float = KILL_SECONDS) -> None:
    """Kill what `find` gives, again and again (they may fork), until it gives nothing."""
    deadline = time.monotonic() + seconds
    while members := find():
        for member in members:
            send(member, signal.SIGKILL)
        left = wait_gone(members, deadline - time.monotonic())
        if left:
            pids = ", ".join(str(process.pid) for process in left)
            raise TimedOut(
                f"Killed, but still there after {seconds:.0f} s: process {pids}.",
                hint="It hangs in the kernel, often in a GPU driver: see dmesg.",
            )


async def gone(process: ProcessId) -> None:
    """Return as soon as that very process has ended."""
    fd = _open_pidfd(process)
    if fd is None:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(fd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)


@dataclass(frozen=True)
class _Stat:
    pid: int
    state: str
    parent: int
    pgid: int
    create_time: float

    @property
    def is_dead(self) -> bool:
        return self.state in "ZX"


_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def _read_stat(pid: int) -> _Stat | None:
    text = _read(PROC / str(pid) / "stat")
    # The name, in parentheses, may hold anything, parentheses too.
    fields = text[text.rfind(b")") + 1 :].split()
    if len(fields) < 20:
        return None
    return _Stat(pid, fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[19]) / _TICKS_PER_SECOND)


def _all_stats() -> Iterator[_Stat]:
    for folder in PROC.iterdir():
        if folder.name.isdecimal() and (stat := _read_stat(int(folder.name))):
            yield stat


def _environment(pid: int) -> list[bytes]:
    return _read(PROC / str(pid) / "environ").split(b"\0")


def _read(file: Path) -> bytes:
    """Read a file of /proc; empty when the process is gone or another user's."""
    try:
        return file.read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


def _wait_readable(fd: int, seconds: float) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(max(0.0, seconds) * 1000))


def _open_pidfd(process: ProcessId) -> int | None:
    """Open a descriptor that gets readable when the process ends; None when it has ended."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    if is_alive(process):
        return fd
    os.close(fd)
    return None
