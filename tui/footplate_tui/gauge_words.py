"""What the gauges say, in words: for the screen, the line in the chat and the command line alike. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from footplate_tui.cli.output import size
from footplate_tui.harmless import one_line

if TYPE_CHECKING:
    from footplate_daemon.wire import Engine, GpuProcess, GpuSnapshot, Sample, Status

UNTOLD = "everything else"
"""Whose the memory is that nobody is told to hold."""
UNTOLD_FRACTION = 0.005
"""Less than this of all memory is the driver's own, and left out."""
HOT_CELSIUS = 10
"""So near to where it slows itself down a GPU is hot."""
HARMLESS_REASONS = frozenset({"clocks set by a user", "display clocks", "sync boost"})
"""What holds clocks down because somebody wants it so."""


@dataclass(frozen=True)
class Holder:
    """Who holds memory: an engine of ours, or a user with all that is his."""

    name: str
    memory_bytes: int
    runtime: str | None = None
    """Of an engine of ours."""
    is_told: bool = True
    """Whether the driver says whose it is."""


def share(used: float | None, total: float | None, unit: str = "") -> str:
    """Give how much of how much: `215 of 350 W`; a dash for what is not told."""
    if used is None:
        return "-"
    return f"{used:,.0f}{f' of {total:,.0f}' if total else ''}{unit}"


def memory_share(used: int | None, total: int | None) -> str:
    """Give how much memory of how much: `18.1 of 25.8 GB`."""
    if used is None or not total:
        return "-"
    return f"{_in_unit_of(total, used)} of {size(total)}"


def memory_free(free: int | None, total: int | None) -> str:
    """Give how much memory is free, in the unit of `memory_share`: `6.3 free`."""
    return f"{_in_unit_of(total, free)} free" if free is not None and total else ""


def _in_unit_of(total: int, amount: int) -> str:
    divisor = {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[size(total).split()[1]]
    scaled = amount / divisor
    return f"{scaled:.0f}" if scaled >= 99.5 else f"{scaled:.1f}"


def percent(value: float | None) -> str:
    """Give a percentage: `93%`."""
    return "-" if value is None else f"{value:.0f}%"


def energy(joules: float) -> str:
    """Give energy as the electricity bill does: `1.20 kWh`, `35 Wh`."""
    watt_hours = joules / 3600
    return f"{watt_hours:.0f} Wh" if watt_hours < 999.5 else f"{watt_hours / 1000:,.2f} kWh"


@dataclass(frozen=True)
class Facts:
    """What a GPU tells beyond its four gauges, each in a few words; empty is what it does not tell."""

    clock: str
    pcie: str
    fan: str
    memory_clock: str
    energy: str

    @property
    def told(self) -> list[str]:
        """Those that are told, what matters most first."""
        return [fact for fact in (self.clock, self.pcie, self.fan, self.memory_clock, self.energy) if fact]


def facts(gpu: Sample) -> Facts:
    """Put into words what a GPU tells."""
    clocks = share(gpu.sm_clock_mhz, gpu.sm_clock_limit_mhz, " MHz")
    traffic = [
        f"{arrow} {size(value)}/s"
        for arrow, value in (("↓", gpu.pcie_rx_bytes_per_second), ("↑", gpu.pcie_tx_bytes_per_second))
        if value is not None
    ]
    link = [
        f"gen {gpu.pcie_generation}" if gpu.pcie_generation else "",
        f"x{gpu.pcie_lanes}" if gpu.pcie_lanes else "",
    ]
    pcie = " ".join(filter(None, (*link, *traffic)))
    return Facts(
        clock=f"clock {clocks}" if gpu.sm_clock_mhz is not None else "",
        pcie=f"PCIe {pcie}" if pcie else "",
        fan=f"fan {gpu.fan_percent}%" if gpu.fan_percent is not None else "",
        memory_clock=f"memory clock {gpu.memory_clock_mhz:,} MHz" if gpu.memory_clock_mhz is not None else "",
        energy=f"energy {energy(gpu.energy_joules)}" if gpu.energy_joules is not None else "",
    )


def is_lost(gpu: Sample) -> bool:
    """Say whether a GPU cannot be read; one that is back has a problem to tell, too."""
    return gpu.problem is not None and gpu.memory_total_bytes is None and gpu.utilisation_percent is None


def heat_colour(celsius: float | None, limit: float | None) -> str:
    """Give the colour of a temperature."""
    if celsius is None or limit is None or celsius < limit - HOT_CELSIUS:
        return "$success"
    return "$error" if celsius >= limit else "$warning"


def engines(status: Status | None) -> dict[str, Engine]:
    """Give every engine and service by its name."""
    return {each.name: each for each in (*status.engines, *status.services)} if status else {}


def process_name(process: GpuProcess, known: Mapping[str, Engine]) -> str:
    """Give what a process is: the variant that our engine serves, else its program."""
    if process.engine is None:
        return one_line(process.name)
    engine = known.get(process.engine)
    return one_line(engine.variant if engine else process.engine)


def runtime_of(process: GpuProcess, known: Mapping[str, Engine]) -> str | None:
    """Give the runtime of an engine's process; None for a foreign one."""
    if process.engine is None:
        return None
    engine = known.get(process.engine)
    return engine.runtime if engine else process.engine.partition("-")[0]


def gpu_holders(gpu: Sample, known: Mapping[str, Engine]) -> list[Holder]:
    """Say who holds a GPU's memory: our engines, then other users, then what nobody is told to hold."""
    ours: dict[tuple[str, str | None], int] = {}
    foreign: dict[str, int] = {}
    for process in gpu.processes or ():
        held = process.memory_bytes or 0
        if process.engine is not None:
            key = process_name(process, known), runtime_of(process, known)
            ours[key] = ours.get(key, 0) + held
        else:
            owner = one_line(process.owner)
            foreign[owner] = foreign.get(owner, 0) + held
    found = [Holder(name, held, runtime) for (name, runtime), held in ours.items()]
    found += [Holder(name, held) for name, held in foreign.items()]
    return _with_untold(found, gpu.memory_used_bytes, gpu.memory_total_bytes)


def ram_holders(snapshot: GpuSnapshot, known: Mapping[str, Engine]) -> list[Holder]:
    """Say what of the RAM our engines hold, and how much is everybody else's."""
    found = [
        Holder(one_line(engine.variant), engine.memory_bytes, engine.runtime)
        for engine in known.values()
        if engine.memory_bytes and not snapshot.gpus
    ]
    return _with_untold(found, snapshot.ram_used_bytes, snapshot.ram_total_bytes)


def _with_untold(found: Iterable[Holder], used: int | None, total: int | None) -> list[Holder]:
    """Add what is used beyond what is told; nobody is shown to hold more than is used."""
    holders = [holder for holder in found if holder.memory_bytes]
    rest = (used or 0) - sum(holder.memory_bytes for holder in holders)
    if total and rest > total * UNTOLD_FRACTION:
        holders.append(Holder(UNTOLD, rest, is_told=False))
    return holders
