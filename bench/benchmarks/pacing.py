"""What Footplate's benchmark makes of a server whose times are known."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import fmean, median, quantiles

from bench.benchmarks.runs import run_benchmark
from bench.box import REPOSITORY, Figures, fresh_home
from tests.fakes.pacing import MODEL

from footplate_daemon import lifecycle
from footplate_daemon.wire_benchmarks import BenchmarkRun

TOKENS = 64


def measure(requests: int, ttft_ms: float = 200.0, itl_ms: float = 20.0) -> Figures:
    """Give the errors at one and at eight requests at a time."""
    with _pacing(ttft_ms, itl_ms) as port:
        far = f'[models.far.remote]\nurl = "http://127.0.0.1:{port}"\nserved_name = "{MODEL}"\n'
        with fresh_home(far) as paths:
            lifecycle.up(paths)
            run = run_benchmark(
                paths,
                variants=[{"name": "remote/far"}],
                parameters={"max_tokens": TOKENS},
                concurrency=[1, 8],
                requests=requests,
                warm_ups=8,
            )
    return {f"{cell.concurrency} at a time": _errors(run, cell.number, ttft_ms, itl_ms) for cell in run.cells}


def _errors(run: BenchmarkRun, cell: int, ttft_ms: float, itl_ms: float) -> Figures:
    """Compare with what was asked of the server, and with what it says that it did."""
    records = run.cells[cell].records or ()
    paced = [[float(word) for word in (record.answer or "").split()] for record in records]
    ttfts = [record.ttft_ms or 0.0 for record in records]
    # The last gap is before the event that says why it ended: it comes at once.
    gaps = [gap for record in records for gap in record.itl_ms[:-1]]
    paced_gaps = [gap for row in paced for gap in row[1:]]
    late = [found - row[0] for found, row in zip(ttfts, paced, strict=True)]
    return {
        "ttft_median_ms": round(median(ttfts), 3),
        "ttft_error_ms": round(median(ttfts) - ttft_ms, 3),
        "ttft_error_to_its_own_clock_ms": round(median(late), 3),
        "lowest_tenth_ms": round(quantiles(late, n=10)[0], 3),
        "itl_median_ms": round(median(gaps), 3),
        "itl_error_percent": round((median(gaps) / itl_ms - 1) * 100, 2),
        "itl_mean_error_to_its_own_clock_percent": round((fmean(gaps) / fmean(paced_gaps) - 1) * 100, 3),
    }


@contextmanager
def _pacing(ttft_ms: float, itl_ms: float) -> Iterator[int]:
    command = [sys.executable, "-m", "tests.fakes.pacing", "--ttft-ms", str(ttft_ms), "--itl-ms", str(itl_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.terminate()
