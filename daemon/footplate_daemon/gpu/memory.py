"""The memory that engines share: how much there is, how much is free, and who holds it.

It is the GPUs' memory; on a machine without a GPU, or whose GPU has no memory of its own, the machine's
RAM. Decides nothing: the switcher does.
"""

import asyncio
import contextlib
import logging
import os
import pwd
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import psutil

from footplate_daemon import processes
from footplate_daemon.errors import Unavailable
from footplate_daemon.gpu.nvml import GpuLost, GpuMemory, NoGpu, Nvml, NvmlThread
from footplate_daemon.processes import ProcessId
from footplate_daemon.switching.diagnosis import GpuHolder

logger = logging.getLogger(__name__)

Kind = Literal["gpu", "ram"]

POLL_SECONDS = 0.025
LOST_POLL_SECONDS = 0.25
"""Between two looks at a GPU that answers no more: each opens the driver anew."""
FREE_SECONDS = 30.0
GIB = 1024**3
RAM_HOLDERS = 5
"""How many are named when RAM is short."""

NAME_CHARACTERS = 80

Engines = Callable[[], Mapping[str, ProcessId]]
"""Gives the leaders of the engines' process groups by the engines' names, as a mapping of its own."""


class Memory:
    """What engines share. Every method may raise `Unavailable` once a GPU was seen and is lost."""

    def __init__(
        self,
        gpus: NvmlThread,
        engines: Engines,
        *,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._gpus = gpus
        self._engines = engines
        self._pause = pause
        self._gpu_capacity: int | None = None

    async def kind(self) -> Kind:
        """Say which memory the engines share; once a GPU was seen it stays the GPU's."""
        if self._gpu_capacity is None:
            await self._look()
        return "ram" if self._gpu_capacity is None else "gpu"

    async def capacity(self) -> int:
        """Give the bytes that engines may use together."""
        try:
            look = await self._look()
        except GpuLost:
            if self._gpu_capacity is None:
                raise
            return self._gpu_capacity
        return _ram_capacity() if look is None else look.capacity

    async def free(self) -> int:
        """Give the bytes that nobody uses now."""
        look = await self._look()
        return _ram_available() if look is None else look.free

    async def used_by(self, group: Sequence[ProcessId]) -> int:
        """Give the bytes that these processes hold together."""
        look = await self._look()
        if look is None:
            return await asyncio.to_thread(resident_bytes, group)
        return sum(look.held.get(process.pid) or 0 for process in group)

    async def holders(self) -> tuple[GpuHolder, ...]:
        """Give who holds GPU memory now, the biggest first; nobody where there is no GPU."""
        look = await self._look()
        return () if look is None else await asyncio.to_thread(_name, look.held, self._engines(), ())

    async def until_free(
        self,
        needed_bytes: int | None,
        gone: Sequence[ProcessId] = (),
        *,
        timeout_seconds: float = FREE_SECONDS,
    ) -> tuple[GpuHolder, ...] | None:
        """Return None once no process of `gone` holds memory and so much is free; else who is in the way.

        Without a GPU a process that is gone holds nothing. Raise `Unavailable` when at the end of that
        time the GPU could not be read.
        """
        loop = asyncio.get_running_loop()
        began, free_at_first = loop.time(), None
        while True:
            is_late = loop.time() >= began + timeout_seconds
            try:
                look = await self._look()
            except Unavailable:
                if is_late:
                    raise
                await self._pause(LOST_POLL_SECONDS)
                continue
            free = _ram_available() if look is None else look.free
            free_at_first = free if free_at_first is None else free_at_first
            staying = () if look is None else _still_listed(look.held, gone)
            if not staying and free >= (needed_bytes or 0):
                _log_release(loop.time() - began, free - free_at_first)
                return None
            if is_late:
                is_short = free < (needed_bytes or 0)
                held = await asyncio.to_thread(_in_the_way, look, staying, is_short=is_short)
                return await asyncio.to_thread(_name, held, self._engines(), gone)
            await self._pause(POLL_SECONDS)

    async def _look(self) -> "_Look | None":
        """Look at the GPUs; None where RAM is what counts."""
        try:
            look = await self._gpus.ask(_look_at_gpus)
        except NoGpu as error:
            if self._gpu_capacity is None:
                return None
            raise GpuLost(error.message, hint=error.hint) from error
        if look is not None:
            self._gpu_capacity = look.capacity
        elif self._gpu_capacity is not None:
            raise GpuLost("The GPU no longer tells how much memory it has.", hint="See: nvidia-smi")
        return look


@dataclass(frozen=True)
class Tenant:
    """A process as people know it."""

    name: str
    owner: str
    engine: str | None
    """The engine of ours that it belongs to."""


HIDDEN = "(not visible here)"
"""The name of a process that ended, or that lives outside of our container."""


def who_is(pid: int, engines: Mapping[str, ProcessId]) -> Tenant:
    """Name a process, its owner, and the engine in whose process group it is."""
    try:
        owner_id, group_id = (processes.PROC / str(pid)).stat().st_uid, os.getpgid(pid)
    except OSError:
        return Tenant(HIDDEN, "unknown", None)
    engine = next((name for name, leader in engines.items() if leader.pid in (group_id, pid)), None)
    return Tenant(_process_name(pid), _user_name(owner_id), engine)


def by_size(held: Mapping[int, int | None]) -> list[tuple[int, int | None]]:
    """Give pids with their bytes, the biggest first."""
    return sorted(held.items(), key=lambda item: item[1] or 0, reverse=True)


@dataclass(frozen=True)
class _Look:
    """All GPUs together, at one time."""

    memories: tuple[GpuMemory, ...]
    held: Mapping[int, int | None] = field(default_factory=dict)

    @property
    def capacity(self) -> int:
        return sum(memory.total - memory.reserved for memory in self.memories)

    @property
    def free(self) -> int:
        return sum(memory.free for memory in self.memories)


def _look_at_gpus(nvml: Nvml) -> _Look | None:
    """Look at every GPU that answers; raise `GpuLost` when none does."""
    memories: list[GpuMemory] = []
    held: dict[int, int | None] = {}
    lost: GpuLost | None = None
    count = nvml.count()
    answered = 0
    for index in range(count):
        try:
            memory, holding = nvml.memory(index), nvml.processes(index)
        except GpuLost as error:
            lost = error
            continue
        answered += 1
        memories.extend([memory] if memory is not None else [])
        for pid, used in (holding or {}).items():
            held[pid] = used if held.get(pid) is None else (held[pid] or 0) + (used or 0)
    if lost is not None and not answered:
        raise lost
    return _Look(tuple(memories), held) if memories else None


def _still_listed(held: Mapping[int, int | None], gone: Sequence[ProcessId]) -> list[int]:
    """Give the pids of `gone` that the driver lists, unless the number is another process's by now."""
    return [
        process.pid
        for process in gone
        if process.pid in held and processes.identify(process.pid) in (None, process)
    ]


def _in_the_way(look: _Look | None, staying: Sequence[int], *, is_short: bool) -> Mapping[int, int | None]:
    if look is None:
        return _biggest_in_ram()
    return look.held if is_short else {pid: look.held[pid] for pid in staying}


def _name(
    held: Mapping[int, int | None], engines: Mapping[str, ProcessId], gone: Sequence[ProcessId]
) -> tuple[GpuHolder, ...]:
    """Say who holds how much, the biggest first; those of `gone` are ours too."""
    ended = {process.pid for process in gone}
    found = []
    for pid, memory_bytes in by_size(held):
        tenant = who_is(pid, engines)
        is_ours = tenant.engine is not None or pid in ended
        found.append(GpuHolder(pid, tenant.name, tenant.owner, memory_bytes or 0, is_ours))
    return tuple(found)


def _log_release(seconds: float, released_bytes: int) -> None:
    logger.info(
        "memory is free",
        extra={"seconds": round(seconds, 3), "released_gib": round(max(0, released_bytes) / GIB, 2)},
    )


def _process_name(pid: int) -> str:
    """Give `python train.py` for what runs a script, else the program's name; always printable."""
    folder = processes.PROC / str(pid)
    try:
        words = [word for word in (folder / "cmdline").read_bytes().split(b"\0") if word]
        name = (folder / "comm").read_bytes().strip()
    except OSError:
        return HIDDEN
    program = words[0].rpartition(b"/")[2] if words else name
    script = _script(words[1:]) if program.startswith(b"python") else b""
    text = (program + b" " + script).strip().decode(errors="replace")
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:NAME_CHARACTERS]


def _script(arguments: Sequence[bytes]) -> bytes:
    """Give the script or module that a Python runs, if any: what follows the options."""
    for position, word in enumerate(arguments):
        if word == b"-c":
            return b""
        if word == b"-m":
            return b" ".join(arguments[position : position + 2])
        if not word.startswith(b"-"):
            return word.rpartition(b"/")[2]
    return b""


def _user_name(user_id: int) -> str:
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)


# --- RAM -----------------------------------------------------------------------------------------------


def _ram_capacity() -> int:
    total: int = psutil.virtual_memory().total
    return max(0, total - min(max(total // 10, GIB), 8 * GIB))


def _ram_available() -> int:
    available: int = psutil.virtual_memory().available
    return available


def resident_bytes(group: Sequence[ProcessId]) -> int:
    """Sum what is in RAM; a page that several of them share counts once."""
    return sum(_proportional_bytes(process) for process in group)


def _proportional_bytes(process: ProcessId) -> int:
    if not processes.is_alive(process):
        return 0
    try:
        found = psutil.Process(process.pid)
        with contextlib.suppress(psutil.AccessDenied):
            return int(found.memory_full_info().pss)
        return int(found.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _biggest_in_ram() -> dict[int, int | None]:
    sizes = {
        process.pid: process.info["memory_info"].rss
        for process in psutil.process_iter(["memory_info"])
        if process.info["memory_info"] is not None
    }
    biggest = sorted(sizes, key=lambda pid: sizes[pid], reverse=True)[:RAM_HOLDERS]
    return {pid: sizes[pid] for pid in biggest}
