"""What speaks against comparing a figure with others, in sentences. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from footplate_tui.benchmarks.measures import Showing
from footplate_tui.format import count
from footplate_tui.harmless import one_line

HARMLESS = frozenset({"seed", "user", "stream", "stream_options", "logprobs", "top_logprobs", "n"})
"""Parameters that change what is said, perhaps, but not how much work it is."""
BUSY_CLIENT = 0.9
"""Share of one core from which on the measuring may have been the bottleneck."""

MarkKind = Literal["unmeasured", "errors", "disturbed", "translation", "client", "cut short"]


@dataclass(frozen=True)
class Mark:
    """One thing that speaks against a figure."""

    kind: MarkKind
    sentence: str
    excludes: bool
    """Whether it may not win anything by this figure."""


def marks(showing: Showing) -> tuple[Mark, ...]:
    """Give what speaks against the figures of one entrant on one square."""
    return tuple(dict.fromkeys(_marks(showing)))


def _marks(showing: Showing) -> Iterator[Mark]:
    if not showing.completed:
        why = one_line(next((c.error for c in showing.cells if c.error), None) or showing.entrant.error or "")
        yield Mark("unmeasured", f"nothing was measured{f': {why}' if why else ''}", excludes=True)
        if not showing.failed:
            return
    if showing.failed:
        requests = showing.failed + showing.completed
        yield Mark("errors", f"{showing.failed} of {count(requests, 'request')} failed", excludes=True)
    if showing.disturbed_by:
        others = count(showing.disturbed_by, "request")
        yield Mark("disturbed", f"the engine had {others} of others meanwhile", excludes=True)
    if any(cell.state in {"cancelled", "cut"} for cell in showing.cells):
        yield Mark("cut short", "it was ended before all requests were made", excludes=False)
    yield from _translation(showing)
    yield from _client(showing)


def _translation(showing: Showing) -> Iterator[Mark]:
    for cell in showing.cells:
        translation = cell.translation
        if translation is None:
            continue
        for name in translation.ignored:
            yield Mark("translation", f"{name} is ignored", excludes=name not in HARMLESS)
        for name, how in translation.clamped.items():
            yield Mark("translation", f"{name} is changed: {one_line(how)}", excludes=name not in HARMLESS)


def _client(showing: Showing) -> Iterator[Mark]:
    for cell in showing.cells:
        used = cell.resources.client_cpu_seconds if cell.resources else None
        seconds = cell.summary.duration_seconds if cell.summary else 0.0
        if used is not None and seconds > 1 and used / seconds > BUSY_CLIENT:
            yield Mark("client", "the measuring itself was busy: the engine may be faster", excludes=False)
