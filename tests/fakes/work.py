"""The fake daemon's benchmarks and batches: kept in memory, they go on as the test says.

What it does not do: nothing is measured, no line is asked, no file is read.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from footplate_daemon import errors
from footplate_daemon.wire_batches import (
    Batch,
    BatchComparison,
    BatchProgress,
    BatchStatus,
    BatchWish,
    File,
    FilePurpose,
    RetryWish,
)
from footplate_daemon.wire_benchmarks import (
    BenchmarkPage,
    BenchmarkRow,
    BenchmarkRun,
    BenchmarkWish,
    Cell,
    Distribution,
    EngineStart,
    Entrant,
    LivePoint,
    Purpose,
    RequestRecord,
    Resources,
    Summary,
    VariantChoice,
    Workload,
    WorkloadKind,
)

CUT = errors.DaemonUnreachable("The connection to the Footplate daemon was cut.")
UNDER_WAY = {"queued", "running"}
OWN_FACTS = set(Batch.model_fields) - {"id", "object", "request_counts", "errors"}


class _Line:
    """What both kinds of work share with the daemon they are part of."""

    _changed: asyncio.Condition
    _line: int
    _refusals: list[errors.FootplateError]

    def _answer_only_when_up(self) -> None:
        raise NotImplementedError

    async def _tell(self) -> None:
        raise NotImplementedError

    def _refuse(self) -> None:
        self._answer_only_when_up()
        if self._refusals:
            raise self._refusals.pop(0)

    async def _until(self, line: int, is_so: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._line != line or is_so())
        if self._line != line:
            raise CUT


class FakeBenchmarks(_Line):
    """Every run by its id."""

    def __init__(self) -> None:
        self.runs: dict[int, BenchmarkRun] = {}
        self.benchmark_wishes: list[BenchmarkWish] = []
        self._run_news: list[BenchmarkRun | LivePoint] = []
        self._news_of: list[int] = []

    async def start_benchmark(self, wish: BenchmarkWish) -> BenchmarkRun:
        self._refuse()
        self.benchmark_wishes.append(wish)
        return await self.keep_run(benchmark(max(self.runs, default=0) + 1, wish=wish, state="queued"))

    async def benchmark_runs(
        self, limit: int = 50, before: int | None = None, purpose: Purpose | None = None
    ) -> BenchmarkPage:
        assert purpose is None, "the terminal lists checks, too"
        self._answer_only_when_up()
        known = [number for number in sorted(self.runs, reverse=True) if number < (before or 2**63)]
        names = BenchmarkRow.model_fields
        rows = [
            BenchmarkRow.model_validate(self.runs[number].model_dump(include=set(names))) for number in known
        ]
        more = len(rows) > limit
        return BenchmarkPage(runs=tuple(rows[:limit]), before=known[limit - 1] if more else None)

    async def benchmark_run(
        self, run_id: int, *, records: bool = False, cell: int | None = None
    ) -> BenchmarkRun:
        self._refuse()
        run = self._run(run_id)
        cells = tuple(
            each if records and cell in {None, each.number} else each.model_copy(update={"records": None})
            for each in run.cells
        )
        return run.model_copy(update={"cells": cells})

    async def follow_benchmark(self, run_id: int) -> AsyncIterator[BenchmarkRun | LivePoint]:
        run = await self.benchmark_run(run_id)
        line, place = self._line, len(self._run_news)
        yield run
        while run.state in UNDER_WAY:
            await self._until(line, lambda: len(self._run_news) > place)  # noqa: B023 -- waited for at once
            news, number = self._run_news[place], self._news_of[place]
            place += 1
            if number == run_id:
                run = news if isinstance(news, BenchmarkRun) else run
                yield news

    async def cancel_benchmark(self, run_id: int) -> BenchmarkRun:
        self._answer_only_when_up()
        if self._run(run_id).state not in UNDER_WAY:
            raise errors.Conflict("It has ended.")
        return await self.change_run(run_id, state="cancelled", ended_at=1_700_000_090.0)

    async def delete_benchmark(self, run_id: int) -> None:
        self._answer_only_when_up()
        del self.runs[self._run(run_id).id]
        await self._tell()

    def _run(self, run_id: int) -> BenchmarkRun:
        if run_id not in self.runs:
            raise errors.NotFound(f"There is no benchmark {run_id}.")
        return self.runs[run_id]

    # The test's side.

    async def keep_run(self, run: BenchmarkRun) -> BenchmarkRun:
        """Have a run."""
        self.runs[run.id] = run
        await self._tell_run(run.id, run)
        return run

    async def change_run(self, run_id: int, **facts: Any) -> BenchmarkRun:
        """Let a run go on or end."""
        return await self.keep_run(self.runs[run_id].model_copy(update=facts))

    async def measure(self, run_id: int, *points: LivePoint) -> None:
        """Let points be measured."""
        for point in points:
            await self._tell_run(run_id, point)

    async def _tell_run(self, run_id: int, news: BenchmarkRun | LivePoint) -> None:
        self._run_news.append(news)
        self._news_of.append(run_id)
        await self._tell()


class FakeBatches(_Line):
    """Every batch, the newest first."""

    def __init__(self) -> None:
        self.batches_known: tuple[BatchProgress, ...] = ()
        self.uploaded: list[Path] = []
        self.batch_wishes: list[BatchWish] = []
        self.retried: list[str] = []
        self.contents: dict[str, bytes] = {}
        """What the files hold, by id."""
        self.comparison: BatchComparison | None = None
        self.compared_from: list[int] = []

    async def upload_file(
        self,
        path: Path,
        purpose: str = "batch",
        *,
        filename: str | None = None,
        expires_after_seconds: int | None = None,
        told: Callable[[int], object] | None = None,
    ) -> File:
        assert filename is None
        assert expires_after_seconds is None
        self._refuse()
        self.uploaded.append(path)
        byte_count = (await asyncio.to_thread(path.stat)).st_size
        if told is not None:
            told(byte_count)
        number = f"file-{len(self.uploaded)}"
        return File(
            id=number, purpose=FilePurpose(purpose), filename=path.name, bytes=byte_count, created_at=1
        )

    async def file_content(self, file_id: str) -> AsyncIterator[bytes]:
        self._answer_only_when_up()
        if file_id not in self.contents:
            raise errors.NotFound(f"There is no file {file_id}.", hint="It has expired.")
        yield self.contents[file_id]

    async def create_batch(self, wish: BatchWish) -> Batch:
        self._refuse()
        self.batch_wishes.append(wish)
        made = batch_progress(
            f"batch_{len(self.batches_known) + 1}", status="validating", input_filename=self.uploaded[-1].name
        )
        self.batches_known = (made, *self.batches_known)
        await self._tell()
        return made.batch

    async def cancel_batch(self, batch_id: str) -> Batch:
        self._answer_only_when_up()
        return (await self.change_batch(batch_id, status="cancelled")).batch

    async def retry_failed_batch(self, batch_id: str, wish: RetryWish | None = None) -> Batch:
        assert wish is None
        self._refuse()
        self.retried.append(batch_id)
        again = batch_progress(f"{batch_id}-again", status="validating")
        self.batches_known = (again, *self.batches_known)
        await self._tell()
        return again.batch

    async def follow_batches(self, limit: int = 50) -> AsyncIterator[tuple[BatchProgress, ...]]:
        self._answer_only_when_up()
        line = self._line
        while True:
            told = self.batches_known
            yield told[:limit]
            await self._until(line, lambda: self.batches_known is not told)  # noqa: B023 -- waited for at once

    async def follow_batch(self, batch_id: str) -> AsyncIterator[BatchProgress]:
        self._answer_only_when_up()
        line = self._line
        while True:
            told = self._batch(batch_id)
            yield told
            if told.batch.status.is_final:
                return
            await self._until(line, lambda: self._batch(batch_id) is not told)  # noqa: B023 -- waited for at once

    async def compare_batches(
        self, first: str, second: str, *, from_line: int = 1, limit: int = 50
    ) -> BatchComparison:
        assert first != second
        self._refuse()
        self.compared_from.append(from_line)
        if self.comparison is None:
            raise errors.NotFound(f"There is no batch {first}.")
        lines = self.comparison.lines[from_line - 1 : from_line - 1 + limit]
        end = from_line + len(lines)
        next_line = end if end <= len(self.comparison.lines) else None
        return self.comparison.model_copy(update={"lines": lines, "next_line": next_line})

    def _batch(self, batch_id: str) -> BatchProgress:
        for each in self.batches_known:
            if each.batch.id == batch_id:
                return each
        raise errors.NotFound(f"There is no batch {batch_id}.")

    # The test's side.

    async def show_batches(self, *batches: BatchProgress) -> None:
        """Have these batches and no others."""
        self.batches_known = batches
        await self._tell()

    async def change_batch(self, batch_id: str, **facts: Any) -> BatchProgress:
        """Let a batch come further: facts of its progress, `status` and `counts` of the batch."""
        known = self._batch(batch_id)
        changed = batch_progress(batch_id, **{**_as_facts(known), **facts})
        self.batches_known = tuple(changed if each is known else each for each in self.batches_known)
        await self._tell()
        return changed


def batch_progress(batch_id: str, **facts: Any) -> BatchProgress:
    """Make a batch: facts of OpenAI's object and of the progress together, `counts` as three numbers.

    `bad_lines` are the errors of OpenAI's object, `errors` those of the progress.
    """
    counts = facts.pop("counts", (0, 0, 0))
    bad_lines = facts.pop("bad_lines", ())
    own = {name: facts.pop(name) for name in list(facts) if name in OWN_FACTS}
    total, completed, failed = counts
    batch = Batch.model_validate(
        {
            "id": batch_id,
            "endpoint": "/v1/chat/completions",
            "input_file_id": "file-1",
            "completion_window": "24h",
            "status": BatchStatus.IN_PROGRESS,
            "created_at": 1_700_000_000,
            "request_counts": {"total": total, "completed": completed, "failed": failed},
            "errors": {"data": bad_lines} if bad_lines else None,
            **own,
        }
    )
    return BatchProgress.model_validate({"input_filename": "questions.jsonl", **facts, "batch": batch})


def _as_facts(progress: BatchProgress) -> dict[str, Any]:
    facts = progress.model_dump(exclude={"batch"})
    batch = progress.batch.model_dump(include=OWN_FACTS)
    counts = progress.batch.request_counts
    bad_lines = progress.batch.errors.data if progress.batch.errors else ()
    return {
        **facts,
        **batch,
        "bad_lines": bad_lines,
        "counts": (counts.total, counts.completed, counts.failed),
    }


def wish(*variants: str, **facts: Any) -> BenchmarkWish:
    """Make a wish for a benchmark of some variants."""
    return BenchmarkWish(variants=tuple(VariantChoice(name=name) for name in variants), **facts)


def distribution(median: float, **facts: Any) -> Distribution:
    """Make a distribution around a median."""
    return Distribution.model_validate(
        {
            "count": 16, "mean": median, "std": median / 10, "minimum": median * 0.8, "median": median,
            "p90": median * 1.2, "p95": median * 1.3, "p99": median * 1.5, "maximum": median * 1.6, **facts,
        }
    )  # fmt: skip


def summary(ttft: float = 35.0, tpot: float = 9.1, rate: float = 87.4, **facts: Any) -> Summary:
    """Make the statistics of a cell."""
    return Summary.model_validate(
        {
            "requests": 16, "completed": 16, "failed": 0, "duration_seconds": 11.7,
            "prompt_tokens": 640, "output_tokens": 1024, "counted_tokens": 1024,
            "ttft": distribution(ttft), "tpot": distribution(tpot), "itl": distribution(tpot),
            "e2el": distribution(ttft + 63 * tpot), "output_tokens_per_second": rate,
            "counted_tokens_per_second": rate, "requests_per_second": rate / 64, **facts,
        }
    )  # fmt: skip


def entrant(variant: str, **facts: Any) -> Entrant:
    """Make an entrant, one that is done."""
    runtime, _, model = variant.partition("/")
    starts = (EngineStart(kind="cold", seconds=3.8), EngineStart(kind="warm", seconds=1.2))
    return Entrant.model_validate(
        {"variant": variant, "runtime": runtime, "model": model, "state": "done", "starts": starts,
         "runtime_version": "1.0", "context": 4096, **facts}
    )  # fmt: skip


def cell(number: int, entrant_place: int, variant: str, **facts: Any) -> Cell:
    """Make a cell, one that waits."""
    runtime, _, model = variant.partition("/")
    return Cell.model_validate(
        {"number": number, "entrant": entrant_place, "variant": variant, "runtime": runtime, "model": model,
         "workload": "short", "kind": WorkloadKind.SHORT, "concurrency": 1, "requests": 16, **facts}
    )  # fmt: skip


def measured(**facts: Any) -> dict[str, Any]:
    """Give what a cell has once it is done."""
    resources = Resources(vram_peak_bytes=2_000_000_000, cpu_percent=120.0, joules_per_token=1.5)
    return {"state": "done", "summary": summary(), "resources": resources, **facts}


def record(number: int, answer: str, **facts: Any) -> RequestRecord:
    """Make a request that was answered."""
    return RequestRecord.model_validate(
        {"number": number, "started_ms": number * 100.0, "ttft_ms": 35.0, "e2el_ms": 600.0,
         "output_tokens": 12, "finish_reason": "stop", "prompt": f"Question {number}?", "answer": answer,
         **facts}
    )  # fmt: skip


def benchmark(run_id: int, **facts: Any) -> BenchmarkRun:
    """Make a run, one that is done: without cells, unless they are given."""
    asked = facts.get("wish") or wish("llamacpp/guide", workloads=(Workload(kind=WorkloadKind.SHORT),))
    variants = tuple(choice.name for choice in asked.variants)
    cells = facts.get("cells", ())
    return BenchmarkRun.model_validate(
        {
            "id": run_id, "title": asked.title, "state": "done", "created_at": 1_700_000_000.0 + run_id,
            "started_at": 1_700_000_000.0 + run_id, "ended_at": 1_700_000_060.0 + run_id,
            "variants": variants, "workloads": tuple(each.kind.value for each in asked.workloads),
            "cells_done": sum(each.state == "done" for each in cells), "cells_total": len(cells),
            "entrants": tuple(entrant(name) for name in variants), "wish": asked, **facts,
        }
    )  # fmt: skip
