"""Whether a variant is good enough: what was measured against targets, PASS or FAIL with figures. Pure.

What could not be measured here is said to be so, and is no PASS.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from footplate_daemon.wire_benchmarks import (
    BenchmarkRun,
    BenchmarkWish,
    Cell,
    Distribution,
    Entrant,
    RequestRecord,
    Summary,
    VariantChoice,
    Workload,
    WorkloadKind,
)
from footplate_tui.benchmarks import agreement, figures, measures
from footplate_tui.benchmarks.targets import Json, Memory, Statistic, Targets
from footplate_tui.format import count, rate
from footplate_tui.harmless import one_line

Verdict = Literal["PASS", "FAIL", "not measured"]
SHOWN_REASON = 120
"""Characters of an error that are told."""

Taken: TypeAlias = tuple[int | None, int | None, int | None]
"""Bytes at the start of a cell, the most of it, and at its end."""


@dataclass(frozen=True)
class Checked:
    """One target of one variant."""

    name: str
    variant: str
    target: str
    measured: str
    verdict: Verdict
    reason: str = ""
    """Why it failed, or was not measured."""


@dataclass(frozen=True)
class Report:
    """Everything that was checked in one run."""

    run: BenchmarkRun
    checked: tuple[Checked, ...]

    @property
    def failed(self) -> int:
        """How many targets were missed."""
        return sum(each.verdict == "FAIL" for each in self.checked)

    @property
    def unmeasured(self) -> int:
        """How many could not be measured."""
        return sum(each.verdict == "not measured" for each in self.checked)


def wish(variants: Sequence[VariantChoice], targets: Targets) -> BenchmarkWish:
    """Give the run that measures what the targets speak of, and nothing else."""
    return BenchmarkWish(
        variants=tuple(variants),
        workloads=tuple(_workloads(targets)),
        seed=targets.seed,
        cold=False,
        parameters={"temperature": 0, "seed": targets.seed},
        purpose="check",
        title="check",
    )


def evaluate(run: BenchmarkRun, targets: Targets) -> Report:
    """Hold what was measured against the targets, variant by variant."""
    checked: list[Checked] = []
    for place, (entrant, name) in enumerate(zip(run.entrants, measures.names(run.entrants), strict=True)):
        cells = [cell for cell in run.cells if cell.entrant == place]
        checked += _Checks(run, entrant, name, cells, targets).all()
    return Report(run, tuple(checked))


def _workloads(targets: Targets) -> Iterator[Workload]:
    if targets.determinism or targets.agreement:
        requests = targets.determinism.requests if targets.determinism else 2
        yield Workload(kind=WorkloadKind.REPEAT, requests=requests)
    needs_short = (targets.first_token, targets.stream, targets.latency, targets.agreement, targets.memory)
    if any(needs_short):
        yield Workload(kind=WorkloadKind.SHORT, requests=targets.requests)
    if targets.json_:
        yield Workload(kind=WorkloadKind.JSON_ROUTER, requests=targets.json_.requests)
    if targets.long_prompt:
        yield Workload(kind=WorkloadKind.LONG_PROMPT, requests=targets.long_prompt.requests)


class _Checks:
    """The targets of one variant, one method for each."""

    def __init__(
        self, run: BenchmarkRun, entrant: Entrant, name: str, cells: Sequence[Cell], targets: Targets
    ) -> None:
        self._run = run
        self._entrant = entrant
        self._name = name
        self._cells = cells
        self._targets = targets

    def all(self) -> Iterator[Checked]:
        """Check everything that is demanded, in the order of the targets table."""
        targets = self._targets
        if targets.json_:
            yield self._json(targets.json_)
        if targets.determinism:
            yield self._determinism(targets.determinism.min_identical_percent)
        if targets.first_token:
            goal = targets.first_token
            yield self._time("first token", goal.max_ms, goal.statistic, lambda s: s.ttft)
        if targets.stream:
            yield self._stream(targets.stream.min_tokens_per_second)
        if targets.latency:
            goal_latency = targets.latency
            yield self._time("latency", goal_latency.max_ms, goal_latency.statistic, lambda s: s.e2el)
        if targets.memory:
            yield from self._memory(targets.memory)
        if targets.long_prompt:
            yield self._long_prompt(targets.long_prompt.min_answered_percent)
        if targets.agreement and not self._is_reference():
            yield self._agreement(targets.agreement.min_equal_percent)

    # --- answers ------------------------------------------------------------------------------------------

    def _json(self, goal: Json) -> Checked:
        target = f">= {_percents(goal.min_valid_percent)} valid"
        cells = self._of(WorkloadKind.JSON_ROUTER)
        if missing := self._missing("JSON", target, cells):
            return missing
        asked = sum(cell.summary.requests for cell in cells if cell.summary)
        valid = sum(cell.summary.valid or 0 for cell in cells if cell.summary)
        wrong = next((r for r in _records(cells) if r.is_valid is False or r.error_kind), None)
        reason = _why_invalid(wrong) if wrong else ""
        return self._share("JSON", target, (valid, asked, "valid"), goal.min_valid_percent, reason)

    def _determinism(self, goal: float) -> Checked:
        target = f">= {_percents(goal)} identical"
        cells = self._of(WorkloadKind.REPEAT)
        if missing := self._missing("determinism", target, cells):
            return missing
        records = list(_records(cells))
        answered = [r for r in records if not r.error_kind]
        if any(r.answer is None for r in answered):
            return self._unmeasured("determinism", target, "the answers were not kept")
        said = Counter((r.reasoning or "", r.answer or "") for r in answered)
        usual, often = said.most_common(1)[0]
        other = next((each for each in said if each != usual), None)
        reason = f"one answer differs {_place(usual, other)}" if other else _failures(records)
        return self._share("determinism", target, (often, len(records), "identical"), goal, reason)

    def _agreement(self, goal: float) -> Checked:
        target = f">= {_percents(goal)} equal"
        peers = [each for each in self._run.entrants if each.model == self._entrant.model]
        if len(peers) < 2:
            why = f"{self._entrant.model} was asked on one runtime only: give several"
            return self._unmeasured("agreement", target, why)
        reference = measures.names(peers)[0]
        if missing := self._missing("agreement", target, self._of(WorkloadKind.SHORT)):
            return missing
        pairs = [(asked, mine) for asked in self._asked() if (mine := _mine(asked, self._name, reference))]
        if not pairs:
            return self._unmeasured("agreement", target, "no prompt was answered by both")
        apart = [(asked, mine) for asked, mine in pairs if mine.difference]
        reason = _parted(*apart[0], reference) if apart else ""
        share = (len(pairs) - len(apart), len(pairs), f"equal to {reference}")
        return self._share("agreement", target, share, goal, reason)

    def _is_reference(self) -> bool:
        """Whether the others of its model are compared with it."""
        peers = [each for each in self._run.entrants if each.model == self._entrant.model]
        return len(peers) > 1 and peers[0] is self._entrant

    def _asked(self) -> Iterator[agreement.Asked]:
        kinds = {cell.workload for cell in self._of(WorkloadKind.SHORT) + self._of(WorkloadKind.REPEAT)}
        for asked in agreement.side_by_side(self._run, self._entrant.model):
            if asked.square.workload in kinds:
                yield asked

    # --- times --------------------------------------------------------------------------------------------

    def _time(
        self, name: str, limit: float, statistic: Statistic, of: Callable[[Summary], Distribution | None]
    ) -> Checked:
        target = f"< {figures.milliseconds(limit)} ({statistic})"
        cells = self._of(WorkloadKind.SHORT)
        if missing := self._missing(name, target, cells):
            return missing
        found = [d for cell in cells if cell.summary and (d := of(cell.summary))]
        if not found:
            return self._unmeasured(name, target, "no answer had it")
        worst = max(getattr(each, statistic) for each in found)
        failures = _failures(list(_records(cells)))
        shown = figures.milliseconds(worst)
        reason = failures or _beyond(worst / limit, "over")
        return self._judged(name, target, shown, is_met=worst < limit and not failures, reason=reason)

    def _stream(self, least: float) -> Checked:
        target = f"> {rate(least)}"
        cells = self._of(WorkloadKind.SHORT)
        if missing := self._missing("stream", target, cells):
            return missing
        speeds = [s for cell in cells if cell.summary and (s := cell.summary.decode_tokens_per_second)]
        if not speeds:
            return self._unmeasured("stream", target, "no answer came in more than one token")
        failures = _failures(list(_records(cells)))
        slowest = min(speeds)
        is_met, reason = slowest > least and not failures, failures or _beyond(least / slowest, "too slow")
        return self._judged("stream", target, rate(slowest), is_met=is_met, reason=reason)

    # --- memory, and survival -----------------------------------------------------------------------------

    def _memory(self, goal: Memory) -> Iterator[Checked]:
        cells = sorted((c for c in self._cells if c.resources), key=lambda cell: cell.started_at or 0.0)
        if goal.max_vram_gb is not None:
            yield self._most("VRAM", goal.max_vram_gb, [_vram(cell) for cell in cells], _NO_GPU)
        if goal.max_vram_growth_percent is not None:
            yield self._growth(
                "VRAM stable", goal.max_vram_growth_percent, [_vram(cell) for cell in cells], _NO_GPU
            )
        if goal.max_ram_gb is not None:
            yield self._most("RAM", goal.max_ram_gb, [_ram(cell) for cell in cells], _UNTOLD)
        if goal.max_ram_growth_percent is not None:
            yield self._growth(
                "RAM stable", goal.max_ram_growth_percent, [_ram(cell) for cell in cells], _UNTOLD
            )

    def _most(self, name: str, gigabytes: float, taken: Sequence[Taken], untold: str) -> Checked:
        target = f"< {figures.memory(gigabytes * 1e9)}"
        peaks = [peak for _, peak, _ in taken if peak is not None]
        if not peaks:
            return self._unmeasured(name, target, untold)
        most = max(peaks)
        reason = _beyond(most / (gigabytes * 1e9), "over")
        return self._judged(name, target, figures.memory(most), is_met=most < gigabytes * 1e9, reason=reason)

    def _growth(self, name: str, percent: float, taken: Sequence[Taken], untold: str) -> Checked:
        target = f"<= {percent:g} % growth"
        starts = [start for start, _, _ in taken if start]
        ends = [end for _, _, end in taken if end is not None]
        if not starts or not ends:
            return self._unmeasured(name, target, untold)
        growth = (ends[-1] / starts[0] - 1) * 100
        told = f"{growth:+.1f} %, {figures.memory(starts[0])} to {figures.memory(ends[-1])}"
        return self._judged(name, target, told, is_met=growth <= percent)

    def _long_prompt(self, goal: float) -> Checked:
        target = f">= {_percents(goal)} answered"
        cells = self._of(WorkloadKind.LONG_PROMPT)
        if missing := self._missing("long prompt", target, cells):
            return missing
        asked = sum(cell.summary.requests for cell in cells if cell.summary)
        answered = sum(cell.summary.completed for cell in cells if cell.summary)
        records = list(_records(cells))
        longest = max((r.prompt_tokens or 0 for r in records if not r.error_kind), default=0)
        what = f"answered, up to {longest:,} tokens" if longest else "answered"
        share = (answered, asked, what)
        return self._share("long prompt", target, share, goal, _failures(records))

    # --- verdicts -----------------------------------------------------------------------------------------

    def _of(self, kind: WorkloadKind) -> list[Cell]:
        return [cell for cell in self._cells if cell.kind is kind]

    def _missing(self, name: str, target: str, cells: Sequence[Cell]) -> Checked | None:
        """Give the verdict where there is nothing to judge: the engine failed, or nobody asked it."""
        if self._entrant.state == "failed" or any(cell.state == "failed" for cell in cells):
            why = self._entrant.error or next((cell.error for cell in cells if cell.error), None)
            reason = f"the engine failed: {_short(why)}" if why else "the engine failed"
            return Checked(name, self._name, target, figures.NONE, "FAIL", reason)
        if not any(cell.summary for cell in cells):
            return self._unmeasured(name, target, "the check ended before")
        if not any(cell.summary and cell.summary.completed for cell in cells):
            reason = _failures(list(_records(cells))) or "no request was answered"
            return Checked(name, self._name, target, figures.NONE, "FAIL", reason)
        return None

    def _share(
        self, name: str, target: str, share: tuple[int, int, str], goal: float, reason: str
    ) -> Checked:
        good, asked, what = share
        measured = f"{good} of {asked} {what}"
        return self._judged(name, target, measured, is_met=good * 100 >= goal * asked, reason=reason)

    def _judged(self, name: str, target: str, measured: str, *, is_met: bool, reason: str = "") -> Checked:
        verdict: Verdict = "PASS" if is_met else "FAIL"
        return Checked(name, self._name, target, measured, verdict, "" if is_met else reason)

    def _unmeasured(self, name: str, target: str, why: str) -> Checked:
        return Checked(name, self._name, target, figures.NONE, "not measured", why)


_NO_GPU = "no GPU memory of the engine can be read here"
_UNTOLD = "nobody tells how much memory it takes"


def _vram(cell: Cell) -> Taken:
    used = cell.resources
    return (used.vram_start_bytes, used.vram_peak_bytes, used.vram_end_bytes) if used else (None, None, None)


def _ram(cell: Cell) -> Taken:
    used = cell.resources
    return (used.ram_start_bytes, used.ram_peak_bytes, used.ram_end_bytes) if used else (None, None, None)


def _records(cells: Sequence[Cell]) -> Iterator[RequestRecord]:
    for cell in cells:
        yield from cell.records or ()


def _failures(records: Sequence[RequestRecord]) -> str:
    failed = [record for record in records if record.error_kind]
    if not failed:
        return ""
    first = failed[0]
    told = f": {_short(first.error)}" if first.error else f" ({first.error_kind})"
    return f"{len(failed)} of {count(len(records), 'request')} failed{told}"


def _why_invalid(record: RequestRecord) -> str:
    if record.error_kind:
        return _failures([record])
    said = f" ({_short(record.answer)})" if record.answer else ""
    return f"request {record.number}: {_short(record.validity) or 'no such object'}{said}"


def _place(usual: tuple[str, str], other: tuple[str, str] | None) -> str:
    """Say where two answers, each with its reasoning before it, first part."""
    if other is None:
        return ""
    for what, one, another in zip(("in its reasoning ", ""), usual, other, strict=True):
        found = agreement.first_difference(one, another)
        if found:
            return f"{what}{_difference(found)}"
    return ""


def _difference(found: agreement.Difference) -> str:
    said, expected = one_line(found.found), one_line(found.expected)
    return f"after {count(found.at, 'character')}: {said!r}, not {expected!r}"


def _mine(asked: agreement.Asked, name: str, reference: str) -> agreement.Answer | None:
    """Give this entrant's answer, where the one that it is compared with answered too."""
    answers = {each.name: each for each in asked.answers}
    mine, theirs = answers.get(name), answers.get(reference)
    return mine if mine and theirs and mine.text is not None and theirs.text is not None else None


def _parted(asked: agreement.Asked, mine: agreement.Answer, reference: str) -> str:
    if mine.difference is None:
        return ""
    return f"{asked.square}, request {asked.number}: from {reference} {_difference(mine.difference)}"


def _beyond(ratio: float, how: str) -> str:
    """Say by how much a target was missed: `12 % over`, `3.4 times over`."""
    if ratio < 2:
        return f"{(ratio - 1) * 100:.0f} % {how}"
    return f"{ratio:,.1f} times {how}" if ratio < 100 else f"{ratio:,.0f} times {how}"


def _percents(share: float) -> str:
    return f"{share:g} %"


def _short(text: str | None) -> str:
    line = one_line(text or "")
    return line if len(line) <= SHOWN_REASON else f"{line[: SHOWN_REASON - 1]}…"
