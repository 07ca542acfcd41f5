"""One run, carried out: entrant after entrant started, its cells warmed up, measured, read and stored."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from footplate_daemon.benchmarks import environment, reading
from footplate_daemon.benchmarks.asking import Asker, scale_of
from footplate_daemon.benchmarks.counting import Counting
from footplate_daemon.benchmarks.live import Live
from footplate_daemon.benchmarks.measuring import Client, Tally
from footplate_daemon.benchmarks.planning import Seat
from footplate_daemon.benchmarks.resources import Use, Watch
from footplate_daemon.benchmarks.starting import Running, Starter
from footplate_daemon.benchmarks.statistics import output_tokens, summarise
from footplate_daemon.benchmarks.workloads import Scale, Work, prompts
from footplate_daemon.catalog import Catalog, runtime_of
from footplate_daemon.errors import FootplateError, NotFound
from footplate_daemon.gateway.ledger import Ledger
from footplate_daemon.gateway.upstream import Upstream
from footplate_daemon.gpu.nvml import NvmlThread
from footplate_daemon.gpu.sampler import Sampler
from footplate_daemon.runtimes.base import Runtime
from footplate_daemon.store.benchmarks import BenchmarkStore
from footplate_daemon.store.exchanges import Exchange
from footplate_daemon.switching.leases import Lease
from footplate_daemon.switching.switcher import Switcher
from footplate_daemon.wire import EngineState, ExchangeFilter
from footplate_daemon.wire_benchmarks import (
    Cell,
    CellState,
    LivePoint,
    RequestRecord,
)

PERIOD_SECONDS = 1.0
"""Between two points."""
LONGEST_EXCHANGE_SECONDS = 3600.0
"""Requests of others that began longer ago are not looked for."""


@dataclass(frozen=True)
class Parts:
    """What runs are carried out with."""

    switcher: Switcher
    catalog: Callable[[], Catalog]
    runtimes: Mapping[str, Runtime]
    store: BenchmarkStore
    sampler: Sampler
    gpus: NvmlThread
    ledger: Ledger
    hf_cache: Path

    @property
    def starter(self) -> Starter:
        """What starts engines."""
        return Starter(self.switcher, self.runtimes, self.sampler, self.gpus, self.store, self.hf_cache)


@dataclass
class _Measurement:
    """The cell that is being measured."""

    cell: Cell
    client: Client
    watch: Watch

    @property
    def is_whole(self) -> bool:
        """Whether every request has ended."""
        return self.client.tally.completed + self.client.tally.failed == self.cell.requests


class Runner:
    """Measures one run. Cancelled in the middle, `settle` still makes results of what came so far."""

    def __init__(self, live: Live, parts: Parts) -> None:
        self._live = live
        self._parts = parts
        self._starter = parts.starter
        self._measurement: _Measurement | None = None
        self._scales: dict[str, Scale] = {}
        """How long words are, by model."""
        self._counting = Counting(live, self._keep)

    async def measure(self) -> None:
        """Measure every cell; what does not start or dies is noted with its cause."""
        live = self._live
        async with _read_every_second(self._parts.sampler):
            snapshot = await self._parts.sampler.snapshot()
            live.update(environment=await asyncio.to_thread(environment.of_machine, snapshot))
            self._warn_of_services()
            await self._counting.prepare(self._parts.catalog(), self._parts.runtimes, self._parts.hf_cache)
            for place, seat in self._counting.in_order():
                await self._measure_entrant(place, seat)
            await self._counting.count_the_rest()
            await self._hash_weights()

    async def settle(self, state: CellState) -> None:
        """Store what is known of the cell that was being measured, and how the other ones ended."""
        live = self._live
        if self._measurement is not None:
            was_whole = self._measurement.is_whole  # it was cancelled while its result was made
            await self._finish(self._measurement, "done" if was_whole else state, None)
        await self._counting.count_the_rest()
        for cell in live.run.cells:
            if cell.state in {"waiting", "warming up", "measuring"}:
                await self._save(live.update_cell(cell.number, state=state))
        for place, entrant in enumerate(live.run.entrants):
            if entrant.state in {"waiting", "starting", "measuring"}:
                live.update_entrant(place, state=state)

    async def _measure_entrant(self, place: int, seat: Seat) -> None:
        live, name = self._live, seat.variant.name
        live.update_entrant(place, state="starting")
        live.update(step=f"{name}: start")
        try:
            self._check_listed(seat)
            running = await self._starter.start(seat, cold=live.run.wish.cold)
        except FootplateError as error:
            await self._give_up(place, error.message)
            return
        live.update_entrant(place, state="measuring", **running.facts)
        await self._parts.store.save(live.run)
        self._warn_of_others(seat)
        for cell in [cell for cell in live.run.cells if cell.entrant == place]:
            await self._measure_cell(seat, running, cell)
        await self._count_by_engine(seat)
        mine = [cell for cell in live.run.cells if cell.entrant == place]
        has_failed = all(cell.state == "failed" for cell in mine)
        live.update_entrant(
            place,
            state="failed" if has_failed else "done",
            error=mine[0].error if has_failed else None,
        )
        await self._parts.store.save(live.run)

    async def _give_up(self, place: int, why: str) -> None:
        live = self._live
        live.update_entrant(place, state="failed", error=why)
        for cell in [cell for cell in live.run.cells if cell.entrant == place]:
            await self._save(live.update_cell(cell.number, state="failed", error=why))
        await self._parts.store.save(live.run)

    async def _measure_cell(self, seat: Seat, running: Running, cell: Cell) -> None:
        live = self._live
        work = next(work for work in live.matrix.works if work.name == cell.workload)
        at_a_time = f", {cell.concurrency} at a time" if cell.concurrency > 1 else ""
        live.update(step=f"{cell.variant}: {work.name}{at_a_time}")
        cell = live.update_cell(cell.number, state="warming up", started_at=time.time())
        try:
            self._check_listed(seat)
            async with self._parts.switcher.lease(seat.variant.name, is_holder=True) as lease:
                upstream = _upstream(lease)
                try:
                    await self._under_lease(lease, upstream, running, cell, work)
                finally:
                    await upstream.close()
        except FootplateError as error:
            if self._measurement is None:
                ended = live.update_cell(
                    cell.number, state="failed", error=error.message, ended_at=time.time()
                )
                await self._save(ended)
            else:
                await self._finish(self._measurement, "failed", error.message)

    async def _under_lease(
        self, lease: Lease, upstream: Upstream, running: Running, cell: Cell, work: Work
    ) -> None:
        live, wish = self._live, self._live.run.wish
        asker = Asker(lease, runtime_of(lease.variant, self._parts.runtimes), wish.parameters)
        if work.needs_scale:
            await self._calibrate(lease, upstream, asker)
        scale = self._scales.get(lease.variant.model)
        round_name = f"{cell.concurrency}.{cell.repeat}"
        warm_ups, _ = asker.write(prompts(work, range(-wish.warm_ups, 0), round_name, scale))
        requests, translation = asker.write(prompts(work, range(cell.requests), round_name, scale))
        await Client(upstream, wish.timeout_seconds).run(warm_ups, cell.concurrency)
        cell = live.update_cell(cell.number, state="measuring", translation=translation)
        watch = Watch(running.name, running.leader, self._parts.sampler, self._parts.gpus, running.base_bytes)
        await watch.begin()
        client = Client(upstream, wish.timeout_seconds)
        measurement = self._measurement = _Measurement(cell, client, watch)
        async with asyncio.TaskGroup() as tasks:
            ticking = tasks.create_task(self._tick(measurement, lease.progressed))
            await client.run(requests, cell.concurrency)
            ticking.cancel()
        await watch.end()
        await self._finish(measurement, "done", None)

    async def _calibrate(self, lease: Lease, upstream: Upstream, asker: Asker) -> None:
        """Ask how many tokens words are: the same for every entrant of a model."""
        model = lease.variant.model
        if model in self._scales:
            return
        client = Client(upstream, self._live.run.wish.timeout_seconds)
        await client.run(asker.for_calibration(), 1)
        counts = [reading.record(each, 0.0).prompt_tokens for each in client.measured]
        scale = scale_of(counts)
        if scale is None:
            self._live.warn(
                f"{lease.variant.name} does not tell the tokens of a prompt: how long prompts are is a guess."
            )
        self._scales[model] = scale or Scale()

    async def _tick(self, measurement: _Measurement, progressed: Callable[[], None]) -> None:
        """Make a point of each second."""
        tally, events, at = measurement.client.tally, 0, time.perf_counter()
        last = measurement.watch.uses[-1]
        while True:
            await asyncio.sleep(max(0.0, at + PERIOD_SECONDS - time.perf_counter()))
            now, events_now = time.perf_counter(), tally.events
            if events_now != events:
                progressed()
            use = await measurement.watch.look()
            point = _point(measurement.cell.number, tally, (events_now - events) / (now - at), use, last)
            self._live.add_point(point, (tally.completed + tally.failed) / measurement.cell.requests)
            events, at, last = events_now, now, use

    async def _finish(self, measurement: _Measurement, state: CellState, error: str | None) -> None:
        """Make a result of what was measured, and store it."""
        live = self._live
        client, cell = measurement.client, measurement.cell
        await measurement.watch.end()
        records = await asyncio.to_thread(
            lambda: [reading.record(each, client.tally.began_at) for each in client.measured]
        )
        records = await self._counting.count(cell, records)
        duration = client.tally.duration_seconds
        disturbances = await self._disturbances(cell)
        summary = summarise(records, duration, disturbed_by=disturbances)
        if state == "done" and not summary.completed:
            state, error = "failed", next((r.error for r in records if r.error), "Nothing was measured.")
        tokens = sum(output_tokens(record) for record in records if record.error_kind is None)
        changed = live.update_cell(
            cell.number,
            state=state,
            error=error,
            ended_at=time.time(),
            summary=summary,
            resources=await measurement.watch.summary(tokens),
            points=tuple(point for point in live.points if point.cell == cell.number),
        )
        await self._keep(changed, records)
        self._measurement = None
        await self._parts.store.save(live.run)

    async def _count_by_engine(self, seat: Seat) -> None:
        """Have the engine that runs count what nobody has counted of its model."""
        if not self._counting.needs(seat):
            return
        try:
            self._check_listed(seat)
            async with self._parts.switcher.lease(seat.variant.name, is_holder=True) as lease:
                upstream = _upstream(lease)
                try:
                    await self._counting.count_by_engine(seat, upstream)
                finally:
                    await upstream.close()
        except FootplateError as error:
            self._live.warn(f"{seat.variant.name} could not count tokens: {error.message}")

    async def _keep(self, cell: Cell, records: Sequence[RequestRecord]) -> None:
        """Store a cell with its requests, with their texts if they are to be kept."""
        keeps = self._live.run.wish.keep_answers
        kept = records if keeps else [_without_texts(record) for record in records]
        await self._parts.store.save_cell(self._live.run.id, cell, kept)

    async def _disturbances(self, cell: Cell) -> int:
        """Count the requests of others that the engine answered while the cell was measured."""
        began = cell.started_at or 0.0
        wanted = ExchangeFilter(variant=cell.variant, since=began - LONGEST_EXCHANGE_SECONDS, limit=10_000)
        found = await self._parts.ledger.find(wanted)
        return sum(was_answered_after(exchange, began) for exchange in found)

    async def _hash_weights(self) -> None:
        live = self._live
        live.update(step="weights: hash")
        for place, seat in enumerate(live.matrix.seats):
            entrant = live.run.entrants[place]
            if entrant.weights_hash is None and entrant.state == "done":
                live.update_entrant(place, weights_hash=await self._starter.hash(seat))

    def _check_listed(self, seat: Seat) -> None:
        """Raise `NotFound` for what a changed configuration has taken out of the catalog."""
        if seat.variant.name not in self._parts.catalog().variants:
            raise NotFound(f"{seat.variant.name} is no longer in the catalog.", hint="See: footplate models")

    def _warn_of_services(self) -> None:
        names = ", ".join(engine.variant for engine in self._parts.switcher.services.shapes())
        if names:
            self._live.warn(f"Services ran beside, and shared the machine: {names}.")

    def _warn_of_others(self, seat: Seat) -> None:
        beside = [
            engine.variant
            for engine in self._parts.switcher.engines()
            if engine.variant != seat.variant.name and engine.state is EngineState.READY
        ]
        if beside:
            self._live.warn(f"Beside {seat.variant.name} these were loaded: {', '.join(beside)}.")

    async def _save(self, cell: Cell) -> None:
        await self._parts.store.save_cell(self._live.run.id, cell)


@contextlib.asynccontextmanager
async def _read_every_second(sampler: Sampler) -> AsyncIterator[None]:
    """Have the gauges read each second for the length of the block."""

    async def follow() -> None:
        async for _ in sampler.follow():
            pass

    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(follow())
        try:
            yield
        finally:
            following.cancel()


def was_answered_after(exchange: Exchange, began: float) -> bool:
    """Say whether an engine was at an exchange after this moment; what ended with its daemon has no time."""
    if exchange.outcome == "waiting" or exchange.total_ms is None:
        return False
    return exchange.started_at + exchange.total_ms / 1000 >= began


def _upstream(lease: Lease) -> Upstream:
    address = lease.address
    return Upstream(
        address.host,
        address.port,
        api_key=address.api_key,
        name=lease.variant.name,
        tls=address.tls,
        base_path=address.base_path,
    )


def _point(cell: int, tally: Tally, tokens_per_second: float, use: Use, last: Use) -> LivePoint:
    firsts, tally.first_tokens = tally.first_tokens, []
    cpu = None
    if use.cpu_seconds is not None and last.cpu_seconds is not None and use.at > last.at:
        cpu = max(0.0, use.cpu_seconds - last.cpu_seconds) / (use.at - last.at) * 100
    return LivePoint(
        cell=cell,
        at_seconds=round(tally.duration_seconds, 3),
        tokens_per_second=round(tokens_per_second, 2),
        running=tally.running,
        completed=tally.completed,
        failed=tally.failed,
        ttft_ms=round(median(firsts) * 1000, 3) if firsts else None,
        vram_bytes=use.vram_bytes,
        ram_bytes=use.ram_bytes,
        cpu_percent=None if cpu is None else round(cpu, 1),
        gpu_utilisation_percent=use.utilisation_percent,
        power_watts=use.power_watts,
    )


def _without_texts(record: RequestRecord) -> RequestRecord:
    return record.model_copy(update={"prompt": None, "answer": None, "reasoning": None})
