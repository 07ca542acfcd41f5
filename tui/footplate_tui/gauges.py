"""The gauges as lines of text: a card for each GPU, and one for the machine. Pure.

Each gauge has what it says, a bar and a sparkline, all on a fixed scale. Bars and sparklines differ by
their characters, not by colour alone: they read the same in 16 colours and in none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual.content import Content

from footplate_tui.cli.output import size
from footplate_tui.format import duration, truncate
from footplate_tui.gauge_words import (
    HARMLESS_REASONS,
    Holder,
    facts,
    gpu_holders,
    heat_colour,
    is_lost,
    memory_free,
    memory_share,
    percent,
    process_name,
    ram_holders,
    runtime_of,
    share,
)
from footplate_tui.harmless import one_line
from footplate_tui.past import (
    CPU,
    HEAT,
    HEAT_WITHOUT_LIMIT,
    MEMORY,
    PERCENT,
    POWER,
    RAM,
    USE,
    Key,
    Past,
    step_seconds,
)
from footplate_tui.sparkline import DOTS_ACROSS, sparkline
from footplate_tui.theme import runtime_colour

if TYPE_CHECKING:
    from footplate_daemon.wire import Engine, GpuProcess, GpuSnapshot, Sample

GAUGES = 4
"""Of a GPU: use, memory, heat, power."""
LABEL = 8
LEFT_FRACTION = 0.48
NARROWEST_LEFT, WIDEST_LEFT = 28, 56
NARROWEST_SPARKLINE = 12
GAP = 2
TALLEST = 8
NOTES_FROM_ROWS = 5
"""Gauges of so many rows have the facts beside them instead of under them."""
FULL, REST = "━", "─"
FOREIGN_FULL, UNTOLD_FULL = "╍", "┄"
NEAR_CAP = 0.97
OWNER_WIDTH = 12
FLAT_VALUE = 15
"""`18.1 of 25.8 GB`."""


@dataclass(frozen=True)
class Room:
    """How wide a card is, and how high its gauges and its list of processes are."""

    width: int
    rows: int
    """Of each gauge; with one row it is drawn without height."""
    processes: int
    """Lines of the list; 0 leaves it out."""

    @property
    def has_notes(self) -> bool:
        """Whether the facts stand beside the gauges."""
        return self.rows >= NOTES_FROM_ROWS

    @property
    def left(self) -> int:
        """The width of the bars."""
        left = min(max(round(self.width * LEFT_FRACTION), NARROWEST_LEFT), WIDEST_LEFT)
        return left if self.width - left - GAP >= NARROWEST_SPARKLINE else self.width

    @property
    def sparkline(self) -> int:
        """The width of the sparklines; 0 where there is no room for them."""
        return max(self.width - self.left - GAP, 0)

    @property
    def span_seconds(self) -> float:
        """How far back the sparklines go."""
        dots = self.sparkline * DOTS_ACROSS
        return dots * step_seconds(dots)


@dataclass(frozen=True)
class Gauge:
    """One figure: what it is, what it says, how full it is and was."""

    label: str
    value: str
    segments: tuple[tuple[float, str, str], ...]
    """Of the bar: fraction, character, colour."""
    past: Sequence[float | None]
    colour: str
    more: str = ""
    """What the value says, too, where there is room."""
    notes: tuple[Content, ...] = ()
    """What stands under the bar where there is room."""


# --- A GPU -------------------------------------------------------------------------------------------------


def gpu_card(gpu: Sample, past: Past, known: Mapping[str, Engine], room: Room) -> list[Content]:
    """Draw a GPU: its name, what holds it back, its gauges, facts, and who holds its memory."""
    lines = [_gpu_title(gpu, room.width)]
    if gpu.problem:
        mark, colour = ("✗", "$error") if is_lost(gpu) else ("▲", "$warning")
        lines.append(Content.styled(truncate(f"{mark} {one_line(gpu.problem)}", room.width), colour))
    for gauge in _gpu_gauges(gpu, past, known, room):
        lines += _drawn(gauge, room)
    lines += [Content.styled(line, "$muted") for line in _fact_lines(gpu, room)]
    return [*lines, *_processes(gpu, known, room)]


def gpu_height(gpu: Sample, room: Room) -> int:
    """Say how many lines `gpu_card` gives."""
    held = len(gpu.processes or ())
    listed = 1 + min(held, room.processes) if room.processes else 0
    return 1 + bool(gpu.problem) + GAUGES * room.rows + len(_fact_lines(gpu, room)) + listed


def _gpu_title(gpu: Sample, width: int) -> Content:
    name = Content.assemble((f"GPU {gpu.index}", "bold $primary"), "  ", (one_line(gpu.name), "bold"))
    held_back = _held_back(gpu)
    gap = width - name.cell_length - held_back.cell_length
    return Content.assemble(name, " " * max(gap, 2), held_back).truncate(width, ellipsis=True)


def _held_back(gpu: Sample) -> Content:
    """Say what holds its clocks down, what hurts first."""
    if not gpu.throttle_reasons:
        return Content("")
    reasons = sorted(
        gpu.throttle_reasons, key=lambda reason: (reason in HARMLESS_REASONS, "heat" not in reason)
    )
    parts = [Content.styled(reason, _reason_colour(reason)) for reason in reasons]
    mark = Content.styled("▼ slowed by ", _reason_colour(reasons[0]))
    return Content.assemble(mark, Content(", ").join(parts))


def _reason_colour(reason: str) -> str:
    if reason in HARMLESS_REASONS:
        return "$muted"
    return "$warning" if reason == "power cap" else "$error"


def _gpu_gauges(gpu: Sample, past: Past, known: Mapping[str, Engine], room: Room) -> Iterable[Gauge]:
    heat_limit = gpu.temperature_limit_celsius or HEAT_WITHOUT_LIMIT
    heat, power, told = gpu.temperature_celsius, gpu.power_watts, facts(gpu)
    yield Gauge(
        "use",
        percent(gpu.utilisation_percent),
        ((_fraction(gpu.utilisation_percent, PERCENT), FULL, "$primary"),),
        _fractions(past, (gpu.uuid, USE), room),
        "$primary",
        notes=_notes(told.clock, told.memory_clock, told.pcie),
    )
    free = memory_free(gpu.memory_free_bytes, gpu.memory_total_bytes)
    holders = gpu_holders(gpu, known)
    yield Gauge(
        "memory",
        memory_share(gpu.memory_used_bytes, gpu.memory_total_bytes),
        _segments(holders, gpu.memory_total_bytes),
        _fractions(past, (gpu.uuid, MEMORY), room),
        "$secondary",
        more=free and f" · {free}",
        notes=tuple(_holder_line(holder, room.left) for holder in holders),
    )
    heat_is = heat_colour(heat, gpu.temperature_limit_celsius)
    yield Gauge(
        "heat",
        share(heat, gpu.temperature_limit_celsius, " °C"),
        ((_fraction(heat, heat_limit), FULL, heat_is),),
        _fractions(past, (gpu.uuid, HEAT), room),
        heat_is,
        notes=_notes(told.fan),
    )
    power_limit = gpu.power_limit_watts
    is_capped = bool(power and power_limit and power >= power_limit * NEAR_CAP)
    power_colour = "$warning" if is_capped else "$accent"
    yield Gauge(
        "power",
        share(power, power_limit, " W"),
        ((_fraction(power, power_limit), FULL, power_colour),),
        _fractions(past, (gpu.uuid, POWER), room),
        power_colour,
        notes=_notes(told.energy),
    )


def _notes(*words: str) -> tuple[Content, ...]:
    return tuple(Content.styled(word, "$muted") for word in words if word)


def _fact_lines(gpu: Sample, room: Room) -> list[str]:
    """Give what stands under the gauges; where those are flat, what fits in one line."""
    if room.has_notes:
        return []
    lines = _filled(facts(gpu).told, room.width)
    return lines[:1] if room.rows == 1 else lines


def _processes(gpu: Sample, known: Mapping[str, Engine], room: Room) -> list[Content]:
    if not room.processes:
        return []
    if gpu.processes is None:
        return [
            Content.styled("" if is_lost(gpu) else "The driver does not tell who holds its memory.", "$muted")
        ]
    if not gpu.processes:
        return [Content.styled("Nobody holds memory.", "$muted")]
    width = max(room.width - 2 - 9 - OWNER_WIDTH - 10, 8)
    head = f"  {'PID':<9}{'OWNER':<{OWNER_WIDTH}}{'ENGINE OR PROGRAM':<{width}}{'MEMORY':>10}"
    lines = [Content.styled(head, "$muted").truncate(room.width)]
    fitting = room.processes if len(gpu.processes) <= room.processes else room.processes - 1
    shown, hidden = gpu.processes[:fitting], gpu.processes[fitting:]
    lines += [_process_line(process, known, width).truncate(room.width) for process in shown]
    if hidden:
        held = sum(process.memory_bytes or 0 for process in hidden)
        lines.append(Content.styled(f"  and {len(hidden)} more with {size(held)}", "$muted"))
    return lines


def _process_line(process: GpuProcess, known: Mapping[str, Engine], width: int) -> Content:
    runtime = runtime_of(process, known)
    mark, colour = ("■", runtime_colour(runtime)) if runtime else ("□", "$foreign")
    name = process_name(process, known)
    held = size(process.memory_bytes) if process.memory_bytes is not None else "not told"
    return Content.assemble(
        (f"{mark} ", colour),
        (f"{process.pid:<9}", "$muted"),
        _cells(one_line(process.owner), OWNER_WIDTH),
        (_cells(name, width), colour),
        f"{held:>10}",
    )


# --- The machine -------------------------------------------------------------------------------------------


def machine_card(
    snapshot: GpuSnapshot, past: Past, known: Mapping[str, Engine], room: Room, columns: int = 1
) -> list[Content]:
    """Draw CPU and RAM; where there is no GPU, what of the RAM our engines hold, too."""
    title = _machine_title(snapshot, room, _width_of(columns, room.width))
    holders = ram_holders(snapshot, known)
    listed = () if snapshot.gpus else tuple(_holder_line(holder, room.left) for holder in holders)
    gauges = (
        Gauge(
            "CPU",
            percent(snapshot.cpu_percent),
            ((_fraction(snapshot.cpu_percent, PERCENT), FULL, "$primary"),),
            _fractions(past, CPU, room),
            "$primary",
        ),
        Gauge(
            "RAM",
            memory_share(snapshot.ram_used_bytes, snapshot.ram_total_bytes),
            _segments(holders, snapshot.ram_total_bytes),
            _fractions(past, RAM, room),
            "$secondary",
            notes=listed,
        ),
    )
    drawn = [_drawn(gauge, room) for gauge in gauges]
    lines = beside(drawn, room.width) if columns > 1 else [line for each in drawn for line in each]
    return [title, *lines] if room.has_notes else [title, *lines, *listed]


def _machine_title(snapshot: GpuSnapshot, room: Room, width: int) -> Content:
    span = f"the last {duration(room.span_seconds)}" if room.sparkline else ""
    driver = f"driver {one_line(snapshot.driver_version)}" if snapshot.driver_version else ""
    right = " · ".join(filter(None, (driver, span)))
    title = "This machine"
    gap = width - len(title) - len(right)
    return Content.assemble((title, "bold"), " " * max(gap, 2), (right, "$muted")).truncate(width)


def _holder_line(holder: Holder, width: int) -> Content:
    """Say whose a part of a bar is."""
    mark, colour = "□", "$foreign"
    if holder.runtime:
        mark, colour = "■", runtime_colour(holder.runtime)
    elif not holder.is_told:
        mark, colour = "·", "$muted"
    return Content.assemble(
        (f"{mark} ", colour),
        (_cells(holder.name, max(width - 12, 8)), colour),
        f"{size(holder.memory_bytes):>10}",
    ).truncate(width, ellipsis=True)


def no_gpu(problem: str, width: int) -> Content:
    """Say in one line why there is no GPU to show."""
    return Content.styled(truncate(f"○ {one_line(problem)}", width), "$muted")


# --- One gauge ---------------------------------------------------------------------------------------------


def _drawn(gauge: Gauge, room: Room) -> list[Content]:
    """Draw a gauge in so many rows: label, value, bar and notes at the left, the sparkline at the right."""
    rows = room.rows - room.has_notes
    drawn = sparkline(gauge.past, room.sparkline, rows)
    left = _flat(gauge, room.left) if room.rows == 1 else _tall(gauge, room.left)
    left += gauge.notes if room.has_notes else ()
    left = [*left, *[Content("")] * (rows - len(left))][:rows]
    between = [Content("")] * room.has_notes
    if not room.sparkline:
        return [*left, *between]
    beside = [
        Content.assemble(_padded(line, room.left), " " * GAP, (dots, gauge.colour))
        for line, dots in zip(left, drawn, strict=True)
    ]
    return [*beside, *between]


def _tall(gauge: Gauge, width: int) -> list[Content]:
    value = gauge.value + gauge.more
    value = truncate(value if cell_len(value) <= width - LABEL else gauge.value, width - LABEL)
    head = Content.assemble((f"{gauge.label:<{LABEL}}", "$muted"), _cells(value, width - LABEL))
    return [head, _bar(gauge.segments, width)]


def _flat(gauge: Gauge, width: int) -> list[Content]:
    room = min(FLAT_VALUE, width - LABEL)
    value = _cells(truncate(gauge.value, room), room)
    bar = _bar(gauge.segments, max(width - LABEL - room - 1, 0))
    return [Content.assemble((f"{gauge.label:<{LABEL}}", "$muted"), value, " ", bar)]


def _bar(segments: Sequence[tuple[float, str, str]], width: int) -> Content:
    """Draw parts of a whole beside each other; each that is there has a cell at least."""
    parts: list[tuple[str, str]] = []
    left, exact = width, 0.0
    for fraction, character, colour in segments:
        exact += fraction * width
        cells = min(max(round(exact) - (width - left), 1 if fraction > 0 else 0), left)
        parts.append((character * cells, colour))
        left -= cells
    return Content.assemble(*parts, (REST * left, "$faint"))


def _segments(holders: Sequence[Holder], total: int | None) -> tuple[tuple[float, str, str], ...]:
    return tuple((_fraction(holder.memory_bytes, total), *_look(holder)) for holder in holders)


def _look(holder: Holder) -> tuple[str, str]:
    """Give the character and the colour of a holder's part: ours, another user's, or nobody's."""
    if not holder.is_told:
        return UNTOLD_FULL, "$muted"
    if holder.runtime is None:
        return FOREIGN_FULL, "$foreign"
    return FULL, runtime_colour(holder.runtime)


def _fraction(value: float | None, whole: float | None) -> float:
    return min(max(value / whole, 0.0), 1.0) if value is not None and whole else 0.0


def _fractions(past: Past, key: Key, room: Room) -> list[float | None]:
    dots = room.sparkline * DOTS_ACROSS
    return past.fractions(key, dots, step_seconds(dots)) if dots else []


def _filled(words: Sequence[str], width: int) -> list[str]:
    """Fill lines with as many facts as fit, whole."""
    lines: list[str] = []
    for word in words:
        if lines and cell_len(lines[-1]) + 3 + cell_len(word) <= width:
            lines[-1] += f"   {word}"
        else:
            lines.append(truncate(word, width))
    return lines


def _padded(line: Content, width: int) -> Content:
    """Cut or fill a line to a width."""
    return line.truncate(width, ellipsis=True).pad_right(max(width - line.cell_length, 0))


def _cells(text: str, width: int) -> str:
    """Cut or fill a text to a width in cells."""
    cut = truncate(text, max(width - 1, 1)) if cell_len(text) > width else text
    return cut + " " * (width - cell_len(cut))


# --- The screen as a whole ---------------------------------------------------------------------------------

TWO_COLUMNS_FROM = 136
COLUMN_GAP = 4
SHAPES = (
    *((rows, processes) for rows in range(TALLEST, 2, -1) for processes in (12, 8)),
    *((rows, processes) for rows in (2, 1) for processes in (12, 8, 6, 4, 3)),
)
"""How high gauges and how long lists of processes may be, the best first: a list goes before height."""


def fitting(gpus: Sequence[Sample], width: int, height: int, *, listed: int = 0) -> tuple[int, Room]:
    """Say how many cards stand side by side, and the room of each: as tall as everything fits.

    `listed`: so many lines stand under the machine's gauges where they are not high.
    """
    columns = 2 if len(gpus) > 1 and width >= TWO_COLUMNS_FROM else 1
    card_width = (width - COLUMN_GAP * (columns - 1)) // columns
    for rows, processes in SHAPES:
        room = Room(card_width, rows, processes)
        if _total_height(gpus, columns, room, listed) <= height:
            return columns, room
    return columns, Room(card_width, *SHAPES[-1])


def _total_height(gpus: Sequence[Sample], columns: int, room: Room, listed: int) -> int:
    heights = [gpu_height(gpu, room) for gpu in gpus]
    rows_of_cards = [max(heights[first : first + columns]) for first in range(0, len(heights), columns)]
    machine = 1 + 2 // columns * room.rows + (0 if room.has_notes else listed)
    return sum(height + 1 for height in rows_of_cards) + machine


def beside(cards: Sequence[Sequence[Content]], width: int) -> list[Content]:
    """Lay the lines of cards beside each other, each card in this width."""
    tallest = max(map(len, cards))
    padded = [[*card, *[Content("")] * (tallest - len(card))] for card in cards]
    gap = Content(" " * COLUMN_GAP)
    return [
        gap.join(line.pad_right(width - line.cell_length) for line in lines)
        for lines in zip(*padded, strict=True)
    ]


def _width_of(columns: int, width: int) -> int:
    return columns * width + (columns - 1) * COLUMN_GAP
