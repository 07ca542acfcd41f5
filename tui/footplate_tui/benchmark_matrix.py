"""What a new benchmark is to measure: the choices, the cells they make, and how long it may take. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from footplate_daemon.wire_benchmarks import BenchmarkWish, VariantChoice, Workload, WorkloadKind

if TYPE_CHECKING:
    from footplate_daemon.wire import ModelInfo, Status, VariantInfo

LEVELS = (1, 2, 4, 8, 16, 32, 64)
RAMP = (1, 2, 4, 8)
WORDS: Mapping[str, str] = {
    "short": "questions of a sentence",
    "chat": "conversations of several turns",
    "long-prompt": "near the limit of the context",
    "json-router": "sorting into a JSON object",
    "concurrency": "short, at 1, 2, 4, 8 at a time",
    "repeat": "one prompt: same answers?",
    "file": "a JSONL or ShareGPT file",
}
TOKENS: Mapping[str, int] = {
    "short": 64, "chat": 192, "long-prompt": 64, "json-router": 48, "concurrency": 64, "repeat": 64,
    "file": 128,
}  # fmt: skip
"""About how long an answer is, to say how long it will take; what is measured, the daemon decides."""
USUAL_TOKENS_PER_SECOND = 30.0
USUAL_LOAD_SECONDS = 30.0
"""Where nothing was ever measured."""
WITHOUT_ROW = {"parameters", "keep_answers", "timeout_seconds", "purpose"}
"""What of a wish is not chosen here."""
STARTS_COLD = 2
"""A cold start, and a warm one after it."""
GAIN = 0.6
"""What each more at a time brings, about."""

NUMBERS: Mapping[str, tuple[str, int, int]] = {
    "requests": ("Requests in each cell", 1, 100_000),
    "warm_ups": ("Warm-ups before each cell", 0, 1000),
    "repeats": ("Repeats of each cell", 1, 100),
    "seed": ("Seed of the prompts", 0, 2**31 - 1),
}
"""Each with its words, the least and the most."""


@dataclass(frozen=True)
class Matrix:
    """The choices as they are."""

    variants: tuple[str, ...] = ()
    presets: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ("short",)
    levels: tuple[int, ...] = (1, 4)
    requests: int = 16
    warm_ups: int = 2
    repeats: int = 1
    seed: int = 42
    is_cold: bool = True
    measures_cache: bool = False
    title: str = ""
    file: str = ""
    """Path of the file whose lines are asked; its lines come when it begins."""
    base: BenchmarkWish | None = None
    """The wish of the earlier run: what has no row here stays as it was there."""

    @property
    def cells(self) -> int:
        """How many cells there are."""
        return self.entrants * self._cells_of_entrant * self.repeats

    @property
    def entrants(self) -> int:
        """How many entrants there are: each variant under each preset."""
        return len(self.variants) * max(len(self.presets), 1)

    @property
    def _cells_of_entrant(self) -> int:
        return sum(len(self.levels_of(name)) for name in self.workloads)

    def levels_of(self, workload: str) -> tuple[int, ...]:
        """Give at how many at a time a workload is measured."""
        return RAMP if workload == "concurrency" else self.levels

    def lack(self) -> str:
        """Say what is missing before it can begin; empty when nothing is."""
        if not self.variants:
            return "Choose at least one variant."
        if not self.workloads:
            return "Choose at least one workload."
        if not self.levels and set(self.workloads) != {"concurrency"}:
            return "Choose how many requests at a time."
        if "file" in self.workloads and not self.file:
            return "Name the file whose lines are asked."
        return ""

    def toggled(self, name: str, value: str | int) -> Matrix:
        """Give the matrix with a value chosen, or chosen no more; the order stays that of the list."""
        chosen: tuple[str | int, ...] = getattr(self, name)
        kept = tuple(each for each in chosen if each != value)
        now = kept if value in chosen else (*chosen, value)
        changed: dict[str, Any] = {name: tuple(sorted(now)) if name == "levels" else now}
        return replace(self, **changed)

    def with_number(self, name: str, value: int) -> Matrix:
        """Give the matrix with a number, within its bounds."""
        _, least, most = NUMBERS[name]
        changed: dict[str, Any] = {name: min(max(value, least), most)}
        return replace(self, **changed)


def first_choice(models: Iterable[ModelInfo], status: Status | None) -> Matrix:
    """Give what is most probably wanted: the active model on every runtime that has it here."""
    listed = [(model, variant) for model in models for variant in model.variants if can_take_part(variant)]
    active = status.active if status else None
    wanted = next((model.name for model, variant in listed if variant.name == active), None)
    if wanted is None and listed:
        wanted = listed[0][0].name
    chosen = [
        variant.name for model, variant in listed if model.name == wanted and variant.on_disk is not False
    ]
    return Matrix(variants=tuple(chosen))


def can_take_part(variant: VariantInfo) -> bool:
    """Whether a variant can be asked what a benchmark asks."""
    return "chat" in variant.capabilities


def of_wish(wish: BenchmarkWish) -> Matrix:
    """Give the choices of an earlier run."""
    return Matrix(
        variants=tuple(dict.fromkeys(map(_name_of, wish.variants))),
        presets=wish.presets,
        workloads=tuple(dict.fromkeys(workload.kind.value for workload in wish.workloads)),
        levels=tuple(sorted(wish.concurrency)),
        requests=wish.requests,
        warm_ups=wish.warm_ups,
        repeats=wish.repeats,
        seed=wish.seed,
        is_cold=wish.cold,
        measures_cache=wish.cache == "measure",
        title=wish.title,
        base=wish,
    )


def wish_of(matrix: Matrix, lines: Sequence[str] = ()) -> BenchmarkWish:
    """Give the wish for what was chosen; `lines` are those of the file."""
    base = matrix.base
    kept = base.model_dump(include=WITHOUT_ROW) if base else {}
    return BenchmarkWish(
        variants=tuple(choice for name in matrix.variants for choice in _choices(name, base)),
        workloads=tuple(work for kind in matrix.workloads for work in _workloads(kind, base, lines)),
        presets=matrix.presets,
        concurrency=matrix.levels or (1,),
        requests=matrix.requests,
        warm_ups=matrix.warm_ups,
        repeats=matrix.repeats,
        seed=matrix.seed,
        cold=matrix.is_cold,
        cache="measure" if matrix.measures_cache else "avoid",
        title=matrix.title,
        **kept,
    )


def _name_of(choice: VariantChoice) -> str:
    return f"{choice.runtime}/{choice.name}" if choice.runtime and "/" not in choice.name else choice.name


def _choices(name: str, base: BenchmarkWish | None) -> list[VariantChoice]:
    known = [each for each in base.variants if _name_of(each) == name] if base else []
    return known or [VariantChoice(name=name)]


def _workloads(kind: str, base: BenchmarkWish | None, lines: Sequence[str]) -> list[Workload]:
    if kind == "file":
        return [Workload(kind=WorkloadKind.FILE, lines=tuple(lines))]
    known = [each for each in base.workloads if each.kind.value == kind] if base else []
    return known or [Workload(kind=WorkloadKind(kind))]


@dataclass(frozen=True)
class Estimate:
    """About how long a run will take."""

    seconds: float
    is_guessed: bool
    """Whether a variant was never loaded or never asked here, and usual figures stand in for its own."""
    loads: Mapping[str, float] = field(default_factory=dict)


def estimate(matrix: Matrix, variants: Mapping[str, VariantInfo]) -> Estimate:
    """Say about how long it will take, from what was recorded of each variant."""
    seconds, is_guessed, loads = 0.0, False, {}
    for name in matrix.variants:
        info = variants.get(name)
        load = info.last_load_seconds if info else None
        rate = info.last_tokens_per_second if info else None
        is_guessed = is_guessed or load is None or rate is None
        start = (load or USUAL_LOAD_SECONDS) * (STARTS_COLD if matrix.is_cold else 1)
        loads[name] = start
        seconds += max(len(matrix.presets), 1) * (
            start + _work_seconds(matrix, rate or USUAL_TOKENS_PER_SECOND)
        )
    return Estimate(seconds, is_guessed, loads)


def _work_seconds(matrix: Matrix, tokens_per_second: float) -> float:
    total = 0.0
    for name in matrix.workloads:
        for level in matrix.levels_of(name):
            gain = 1 + GAIN * (level - 1)
            tokens = (matrix.requests * matrix.repeats + matrix.warm_ups) * TOKENS[name]
            total += tokens / (tokens_per_second * gain)
    return total


def stopped_meanwhile(matrix: Matrix, status: Status | None) -> list[str]:
    """Name the running engines that stop while it is measured; what was active comes back at the end."""
    if status is None:
        return []
    running = [
        engine.variant for engine in status.engines if engine.state.value in {"ready", "sleeping", "loading"}
    ]
    kept = matrix.variants if not matrix.is_cold and len(matrix.variants) == 1 else ()
    return [variant for variant in running if variant and variant not in kept]
