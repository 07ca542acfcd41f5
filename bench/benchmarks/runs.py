"""A benchmark run of a daemon, from its wish to its result."""

import asyncio
from typing import Any

from footplate_daemon.client import FootplateClient
from footplate_daemon.paths import Paths
from footplate_daemon.wire_benchmarks import BenchmarkRun, BenchmarkWish


def run_benchmark(paths: Paths, **wish: Any) -> BenchmarkRun:
    """Run one to its end, and give it with every request."""
    return asyncio.run(_run(paths, BenchmarkWish.model_validate(wish)))


async def _run(paths: Paths, wish: BenchmarkWish) -> BenchmarkRun:
    async with FootplateClient(paths.socket) as client:
        begun = await client.start_benchmark(wish)
        async for _ in client.follow_benchmark(begun.id):
            pass
        run = await client.benchmark_run(begun.id, records=True)
    if run.state != "done":
        raise SystemExit(f"The run is {run.state}: {run.error or [cell.error for cell in run.cells]}")
    return run
