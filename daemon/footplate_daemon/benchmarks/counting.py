"""The tokens of answers, counted alike for all runtimes of a model: at once, or by an engine later."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from footplate_daemon import weights
from footplate_daemon.benchmarks.live import Live
from footplate_daemon.benchmarks.planning import Seat
from footplate_daemon.benchmarks.statistics import summarise
from footplate_daemon.benchmarks.tokenizing import (
    COUNTING,
    WORDS,
    Counter,
    EngineCounter,
    TokenCounter,
    counter_for,
)
from footplate_daemon.catalog import Catalog
from footplate_daemon.gateway.upstream import Upstream
from footplate_daemon.runtimes.base import Runtime
from footplate_daemon.wire_benchmarks import Cell, RequestRecord, Tokenizer

Keep = Callable[[Cell, Sequence[RequestRecord]], Awaitable[None]]
"""Stores a cell anew with its requests."""


class Counting:
    """Counts the tokens of one run."""

    def __init__(self, live: Live, keep: Keep) -> None:
        self._live = live
        self._keep = keep
        self._counters: dict[str, Counter] = {}
        """What counts, by model, where that does not take an engine."""
        self._uncounted: dict[str, dict[int, list[RequestRecord]]] = {}
        """The requests of cells whose tokens nobody has counted yet, by model."""

    async def prepare(self, catalog: Catalog, runtimes: Mapping[str, Runtime], hf_cache: Path) -> None:
        """Find what counts the tokens of each model."""
        for name in dict.fromkeys(seat.variant.model for seat in self._live.matrix.seats):
            variants = catalog.models[name].variants if name in catalog.models else ()
            found = [await asyncio.to_thread(weights.on_disk, each.weights, hf_cache) for each in variants]
            places = [each.path for each in found if each.path is not None]
            folders = [place if place.is_dir() else place.parent for place in places]
            counter = await counter_for(folders, runtimes)
            if counter is not None:
                self._counters[name] = counter
                self._name(name, counter.shape)

    def in_order(self) -> list[tuple[int, Seat]]:
        """Give the entrants as they were named; where an engine is to count, those that can come last."""
        return sorted(
            enumerate(self._live.matrix.seats),
            key=lambda each: (
                each[1].variant.model not in self._counters and each[1].variant.runtime in COUNTING
            ),
        )

    async def count(self, cell: Cell, records: list[RequestRecord]) -> list[RequestRecord]:
        """Count the requests of a cell, or remember that they are to be counted later."""
        counter = self._counters.get(cell.model)
        if counter is not None:
            return await _counted(counter, records)
        self._uncounted.setdefault(cell.model, {})[cell.number] = records
        return records

    def needs(self, seat: Seat) -> bool:
        """Whether an entrant's engine is to count while it runs."""
        return seat.variant.runtime in COUNTING and bool(self._uncounted.get(seat.variant.model))

    async def count_by_engine(self, seat: Seat, upstream: Upstream) -> None:
        """Have an engine count what nobody has counted of its model."""
        variant = seat.variant
        counter = EngineCounter(upstream, variant.runtime, variant.served_name)
        if await self._count_all(variant.model, counter):
            former = self._live.run.tokenizers.get(variant.model)
            named = f"/tokenize of {variant.name}"
            sources = named if former is None else f"{former.source}, {named}"
            self._name(variant.model, Tokenizer(source=sources, is_models_own=True))

    async def count_the_rest(self) -> None:
        """Count words where no tokenizer was to be had; but not beside tokens, which they are not."""
        for model, cells in self._uncounted.items():
            if not cells:
                continue
            if model in self._live.run.tokenizers:
                self._live.warn(f"The tokens of {len(cells)} cells of {model} were not counted alike.")
            elif await self._count_all(model, Counter(WORDS)):
                self._name(model, WORDS)
        self._uncounted.clear()

    async def _count_all(self, model: str, counter: TokenCounter) -> bool:
        """Count what is not counted of a model; say whether that could be done."""
        for number, records in list(self._uncounted[model].items()):
            counted = await _counted(counter, records)
            if counted is records:
                return False
            cell = self._live.run.cells[number]
            former = cell.summary
            assert former is not None  # noqa: S101 - it was measured
            summary = summarise(counted, former.duration_seconds, disturbed_by=former.disturbed_by)
            await self._keep(self._live.update_cell(number, summary=summary), counted)
            del self._uncounted[model][number]
        return True

    def _name(self, model: str, shape: Tokenizer) -> None:
        self._live.update(tokenizers={**self._live.run.tokenizers, model: shape})


async def _counted(counter: TokenCounter, records: list[RequestRecord]) -> list[RequestRecord]:
    """Count every answer's tokens; give the very same list where that cannot be done."""
    counts = await counter.count([(record.reasoning or "") + (record.answer or "") for record in records])
    if counts is None:
        return records
    return [
        record if record.error_kind else record.model_copy(update={"counted_tokens": count})
        for record, count in zip(records, counts, strict=True)
    ]
