"""What stands beside a wide chat: which engines run, how the GPUs do, and how fast the answers were. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from textual.content import Content

from footplate_tui.format import count, duration, rate, speaker, truncate
from footplate_tui.gauge_line import CPU_JITTERS, HEAT_JITTERS, MEMORY_JITTERS, USE_JITTERS, Steady
from footplate_tui.gauge_words import engines
from footplate_tui.gauges import Room, gpu_card, machine_card
from footplate_tui.harmless import one_line
from footplate_tui.past import Past
from footplate_tui.switching import COMING_OR_GOING, DOTS, bar, how_far
from footplate_tui.theme import runtime_colour

if TYPE_CHECKING:
    from footplate_daemon.wire import Engine, GpuSnapshot, Sample, Status, Switch, Turn

SPEAKERS = 5
"""So many that answered last are compared."""
POWER_JITTERS = 10
EMPTY = Content("")
NO_PAST = Past()
"""Sparklines would move all the time: they are on a screen of their own."""


def models_part(status: Status | None, width: int) -> list[Content]:
    """List what runs, the active one first, and the switch that goes on."""
    if status is None:
        return []
    running = [*status.engines, *status.services]
    running = [engine for engine in running if engine.state.value != "stopped"]
    running.sort(key=lambda engine: engine.variant != status.active)
    lines = [_head("MODELS")]
    lines += [_engine_line(engine, width, is_active=engine.variant == status.active) for engine in running]
    if not running:
        lines.append(Content.styled("none is loaded", "$muted"))
    switch = status.switch
    if switch and switch.outcome == "running":
        lines += _switch_lines(switch, width)
    return lines


def gauges_part(
    snapshot: GpuSnapshot | None, status: Status | None, width: int, steady: Steady
) -> list[Content]:
    """Draw each GPU, or the machine where there is none; figures that only jitter stay as they are."""
    if snapshot is None:
        return []
    known, room = engines(status), Room(width, rows=2, processes=0)
    if not snapshot.gpus:
        total = snapshot.ram_total_bytes or 0
        calm = {
            "cpu_percent": _calm(steady, "cpu", snapshot.cpu_percent, CPU_JITTERS),
            "ram_used_bytes": _calm(steady, "ram", snapshot.ram_used_bytes, total * MEMORY_JITTERS),
        }
        return machine_card(snapshot.model_copy(update=calm), NO_PAST, known, room)
    lines: list[Content] = []
    for gpu in snapshot.gpus:
        card = gpu_card(_calmed(gpu, steady), NO_PAST, known, room)
        lines += [*card, EMPTY]
    return lines[:-1]


def answers_part(turns: Sequence[Turn], width: int) -> list[Content]:
    """Compare who answered in this session: how fast in the mean, how long to the first token."""
    by_speaker: dict[tuple[str, str], list[Turn]] = {}
    for turn in reversed(turns):
        if turn.tokens_per_second and turn.model and turn.runtime:
            by_speaker.setdefault((turn.model, turn.runtime), []).append(turn)
    if not by_speaker:
        return []
    lines = [_head("SPEED OF THE ANSWERS")]
    for (model, runtime), answered in list(by_speaker.items())[:SPEAKERS]:
        name = truncate(speaker(one_line(model), one_line(runtime)), width)
        speed = _mean(turn.tokens_per_second for turn in answered)
        first = _mean(turn.ttft_seconds for turn in answered)
        told = [
            rate(speed or 0.0),
            f"first {duration(first)}" if first is not None else "",
            count(len(answered), "answer"),
        ]
        lines.append(Content.styled(name, runtime_colour(runtime)))
        lines.append(Content.styled(f"  {' · '.join(filter(None, told))}", "$muted"))
    return lines


def joined(parts: Iterable[list[Content]], height: int) -> list[Content]:
    """Put the parts under each other, with an empty line between; what does not fit whole is left out."""
    lines: list[Content] = []
    for part in parts:
        gap = [EMPTY] if lines and part else []
        if len(lines) + len(gap) + len(part) <= height:
            lines += [*gap, *part]
    return lines


def _head(words: str) -> Content:
    return Content.styled(words, "bold $muted")


def _engine_line(engine: Engine, width: int, *, is_active: bool) -> Content:
    dot, colour = DOTS.get(engine.state.value, COMING_OR_GOING)
    note = "" if engine.state.value == "ready" else f" {engine.state.value}"
    runtime, _, model = one_line(engine.variant).partition("/")
    shown = truncate(model, max(width - len(runtime) - len(note) - 3, 4))
    return Content.assemble(
        (f"{dot} ", colour),
        (f"{runtime}/", runtime_colour(engine.runtime)),
        (shown, "bold" if is_active else ""),
        (note, "$muted"),
    )


def _switch_lines(switch: Switch, width: int) -> list[Content]:
    step = switch.steps[-1].name.value if switch.steps else "start"
    told = " · ".join(filter(None, (step, how_far(switch))))
    return [
        Content.assemble(("◐ ", "$warning"), truncate(one_line(switch.variant), width - 2)),
        bar(switch.fraction, width),
        Content.styled(truncate(told, width), "$warning"),
    ]


def _calmed(gpu: Sample, steady: Steady) -> Sample:
    total = gpu.memory_total_bytes or 0
    return gpu.model_copy(
        update={
            "utilisation_percent": _calm(steady, f"use {gpu.index}", gpu.utilisation_percent, USE_JITTERS),
            "memory_used_bytes": _calm(
                steady, f"memory {gpu.index}", gpu.memory_used_bytes, total * MEMORY_JITTERS
            ),
            "memory_free_bytes": _calm(
                steady, f"free {gpu.index}", gpu.memory_free_bytes, total * MEMORY_JITTERS
            ),
            "temperature_celsius": _calm(steady, f"heat {gpu.index}", gpu.temperature_celsius, HEAT_JITTERS),
            "power_watts": _calm(steady, f"power {gpu.index}", gpu.power_watts, POWER_JITTERS),
            **dict.fromkeys(
                (
                    "sm_clock_mhz",
                    "memory_clock_mhz",
                    "pcie_rx_bytes_per_second",
                    "pcie_tx_bytes_per_second",
                    "fan_percent",
                    "energy_joules",
                    "pcie_generation",
                    "pcie_lanes",
                )
            ),
        }
    )


def _calm(steady: Steady, name: str, value: float | None, jitter: float) -> float | int | None:
    if value is None:
        return None
    shown = steady(name, value, jitter)
    return int(shown) if isinstance(value, int) else shown


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
