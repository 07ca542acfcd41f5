"""How the figures are laid out: measures down, targets across, and ours over nginx."""

from collections.abc import Mapping, Sequence
from typing import Any

ROWS = {
    "first_text_p1_ms": "first text, p1: direct, and added to it (ms)",
    "first_text_p10_ms": "first text, p10 (ms)",
    "first_text_p50_ms": "first text, p50 (ms)",
    "json_cpu_us": "CPU for a JSON request, 32 at a time (µs)",
    "json_per_second": "JSON requests a second",
    "paced_cpu_us": "CPU for a chunk, 50 streams at 50/s (µs)",
    "burst_cpu_us": "CPU for a chunk, 8 streams of 256 at once (µs)",
    "burst_per_second": "chunks a second, at once",
    "left_mid_stream_ms": "upstream left alone, mid-stream: median (ms)",
    "left_mid_stream_max_ms": "… slowest (ms)",
    "left_before_text_ms": "upstream left alone, no token yet: median (ms)",
    "left_before_text_max_ms": "… slowest (ms)",
    "left_json_ms": "upstream left alone, JSON: median (ms)",
    "left_json_max_ms": "… slowest (ms)",
    "slow_readers": "slow readers that were served",
    "slow_rss_mb": "… memory for them (MB)",
    "gap_alone_p50_ms": "gap between chunks of 20 ms, nobody else: p50 (ms)",
    "gap_alone_p99_ms": "… p99 (ms)",
    "gap_beside_p50_ms": "… beside the slow readers: p50 (ms)",
    "gap_beside_p99_ms": "… p99 (ms)",
    "rss_mb": "memory after the rounds, RSS (MB)",
    "pss_mb": "… PSS (MB)",
    "failed": "failed requests",
}
COMPARED = ("footplate-tcp", "footplate-unix")
"""The first of them that was measured is compared with nginx."""


def lines(figures: Mapping[str, Any]) -> list[str]:
    """Lay out all that was found."""
    targets: Mapping[str, Mapping[str, Any]] = figures["targets"]
    ours = next((name for name in COMPARED if name in targets), None)
    compares = ours is not None and "nginx" in targets
    cells = [["", *targets, *([f"{ours} ÷ nginx"] if compares else [])]]
    for key, label in ROWS.items():
        if any(key in row for row in targets.values()):
            row = [label, *(_cell(key, name, found) for name, found in targets.items())]
            if compares:
                row.append(_ratio(targets[ours or ""].get(key), targets["nginx"].get(key)))
            cells.append(row)
    text = [f"  {line}" for line in _aligned(cells)] if targets else []
    text += [f"  {name} left out: {reason}" for name, reason in figures["left_out"].items()]
    for name in ("memory", "ledger", "profile"):
        if name in figures:
            text += ["", f"  {name}", *_nested(figures[name], "    ")]
    return [*text, "", f"  {figures['setup']}", f"  {figures['command']}"]


def _cell(key: str, target: str, found: Mapping[str, Any]) -> str:
    """Write a number; what is added to the direct way has a sign, what never happened a dash."""
    value = found.get(key)
    if value is None:
        return "never" if key in found and key.startswith("left_") else "-"
    is_added = key.startswith("first_text") and target != "direct"
    return f"{value:+.3f}" if is_added else f"{value:,}"


def _ratio(ours: float | None, nginx: float | None) -> str:
    return f"{ours / nginx:.2f}" if ours is not None and nginx else ""


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(_padded, row, widths, range(len(row)))).rstrip() for row in cells]


def _padded(cell: str, width: int, column: int) -> str:
    """Labels stand left, numbers right."""
    return cell.rjust(width) if column else cell.ljust(width)


def _nested(figures: Mapping[str, Any], indent: str) -> list[str]:
    text = []
    for name, value in figures.items():
        if isinstance(value, Mapping) and any(isinstance(each, Mapping | list) for each in value.values()):
            text += [f"{indent}{name}", *_nested(value, indent + "  ")]
        elif isinstance(value, Mapping):
            text.append(f"{indent}{name}: " + " · ".join(f"{key} {each}" for key, each in value.items()))
        elif isinstance(value, list):
            text += [f"{indent}{name}", *(f"{indent}  {line}" for line in value)]
        else:
            text.append(f"{indent}{name}: {value}")
    return text
