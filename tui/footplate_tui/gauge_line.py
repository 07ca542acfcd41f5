"""The gauges in a few words, for the chat: they move only when something happens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual.content import Content

from footplate_tui.format import count
from footplate_tui.gauge_words import HARMLESS_REASONS, heat_colour, is_lost, memory_share, percent

if TYPE_CHECKING:
    from footplate_daemon.wire import GpuSnapshot, Sample

EIGHTHS = "▁▂▃▄▅▆▇█"
USE_JITTERS, HEAT_JITTERS, CPU_JITTERS = 4, 2, 5
MEMORY_JITTERS = 0.01
"""Of all there is."""


class Steady:
    """Figures that stay as they are shown until they have moved by more than they jitter."""

    def __init__(self) -> None:
        self._shown: dict[str, float] = {}

    def __call__(self, name: str, value: float, jitter: float) -> float:
        """Give what to show for a figure."""
        shown = self._shown.get(name)
        if shown is None or abs(value - shown) > jitter:
            shown = self._shown[name] = value
        return shown


def compact(snapshot: GpuSnapshot | None, steady: Steady) -> Content:
    """Give the gauges in a few words; without a GPU those of the machine."""
    if snapshot is None:
        return Content("")
    if not snapshot.gpus:
        return _compact_machine(snapshot, steady)
    readable = [gpu for gpu in snapshot.gpus if not is_lost(gpu)]
    lost = len(snapshot.gpus) - len(readable)
    name = "GPU" if len(snapshot.gpus) == 1 else count(len(snapshot.gpus), "GPU")
    parts = [
        Content.styled(name, "$muted"),
        _compact_use(readable, steady),
        _compact_memory(readable, steady),
        _compact_heat(readable, steady),
        Content.styled("▼" if any(map(_is_slowed, readable)) else "", "$warning"),
        Content.styled((f"{lost} lost" if readable else "lost") if lost else "", "bold $error"),
    ]
    return Content(" ").join(part for part in parts if part.plain)


def _compact_use(gpus: Sequence[Sample], steady: Steady) -> Content:
    used = [
        steady(f"use {gpu.index}", gpu.utilisation_percent, USE_JITTERS)
        for gpu in gpus
        if gpu.utilisation_percent is not None
    ]
    if len(used) > 1:
        return Content("".join(EIGHTHS[min(int(value / 12.5), 7)] for value in used))
    return Content(percent(used[0]) if used else "")


def _compact_memory(gpus: Sequence[Sample], steady: Steady) -> Content:
    total = sum(gpu.memory_total_bytes or 0 for gpu in gpus)
    used = sum(gpu.memory_used_bytes or 0 for gpu in gpus)
    return Content(_tight(steady("memory", used, total * MEMORY_JITTERS), total) if total else "")


def _compact_heat(gpus: Sequence[Sample], steady: Steady) -> Content:
    heats = [gpu for gpu in gpus if gpu.temperature_celsius is not None]
    if not heats:
        return Content("")
    hottest = max(heats, key=lambda gpu: gpu.temperature_celsius or 0)
    shown = steady("heat", hottest.temperature_celsius or 0, HEAT_JITTERS)
    colour = heat_colour(hottest.temperature_celsius, hottest.temperature_limit_celsius)
    return Content.styled(f"{shown:.0f}°", "" if colour == "$success" else colour)


def _is_slowed(gpu: Sample) -> bool:
    return bool(set(gpu.throttle_reasons or ()) - HARMLESS_REASONS)


def _compact_machine(snapshot: GpuSnapshot, steady: Steady) -> Content:
    total = snapshot.ram_total_bytes or 0
    cpu = (
        percent(steady("cpu", snapshot.cpu_percent, CPU_JITTERS)) if snapshot.cpu_percent is not None else ""
    )
    ram = _tight(steady("ram", snapshot.ram_used_bytes or 0, total * MEMORY_JITTERS), total) if total else ""
    told = [("CPU", cpu), ("RAM", ram)]
    return Content(" ").join(Content.assemble((name, "$muted"), f" {value}") for name, value in told if value)


def _tight(used: float, total: int) -> str:
    return memory_share(round(used), total).replace(" of ", "/")
