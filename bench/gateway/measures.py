"""The measures. Each gives a row of numbers for one target; rounds and medians are the caller's business.

CPU time is that of the target's processes alone. It says more than requests per second, which depend on
who else uses the machine.
"""

import asyncio
import json
import sqlite3
import statistics
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace

import psutil
import uvloop
from bench.box import Figures, connect, cpu_seconds, http_request, memory_mb, percentile_ms, say
from bench.gateway.load import Question, SlowReaders, Target, Work, drive, for_seconds, times
from bench.gateway.targets import Lineup

from footplate_daemon.paths import Paths

Row = dict[str, float | None]
"""Numbers by name; None where there is nothing to measure, or nothing came of it."""

WARM_UP_SECONDS = 0.3
STREAM = Question(chunks=16)
JSON = Question(streamed=False)
JSON_CONNECTIONS = 32
BURST = Question(chunks=256)
PACED = Question(chunks=100, gap_ms=20)
"""50 chunks a second, for two seconds."""
PACED_STREAMS = 50
ENDLESS = Question(chunks=40_000)
"""7 MB, more than the kernel takes for one TCP connection: no slow reader comes to its end."""
FAST_READERS = 8
SLOW_READERS = 200
SLOW_START_SECONDS = 30.0
SETTLING_SECONDS = 4.0
FLUSH_SECONDS = 1.0
"""After so long the daemon has written down what has ended."""
NOTICE_SECONDS = 5.0
POLL_SECONDS = 0.01
FLAT_MB = 1.0
"""What the second half of many requests may add to memory that is called flat."""


def first_text(target: Target, seconds: float) -> Row:
    """Measure the first text of a stream, one at a time on one connection."""
    work, _ = _load(target, STREAM, 1, seconds)
    return {
        **{f"first_text_p{percent}_ms": _percentile(work.first_text, percent) for percent in (1, 10, 50)},
        "failed": work.failed,
    }


def json_requests(target: Target, seconds: float) -> Row:
    """Measure what a request costs that is no stream, 32 at a time."""
    work, cpu = _load(target, JSON, JSON_CONNECTIONS, seconds)
    return {
        "json_cpu_us": _each_us(cpu, work.answered),
        "json_per_second": round(work.answered / work.seconds),
        "failed": work.failed,
    }


def paced_chunks(target: Target, seconds: float) -> Row:
    """Measure what a chunk costs in 50 streams of 50 chunks a second, their beats apart from each other."""
    apart = PACED.gap_ms / 1000 / PACED_STREAMS
    work, cpu = _load(target, PACED, PACED_STREAMS, 2 * seconds, apart_seconds=apart)
    return {"paced_cpu_us": _each_us(cpu, work.chunks), "failed": work.failed}


def burst_chunks(target: Target, seconds: float) -> Row:
    """Measure what a chunk costs in 8 streams that come as fast as they are taken."""
    work, cpu = _load(target, BURST, 8, seconds)
    return {
        "burst_cpu_us": _each_us(cpu, work.chunks),
        "burst_per_second": round(work.chunks / work.seconds),
        "failed": work.failed,
    }


BY_TURNS: dict[str, Sequence[Callable[[Target, float], Row]]] = {
    "first": (first_text,),
    "json": (json_requests,),
    "chunks": (paced_chunks, burst_chunks),
}
"""What is measured round after round, each target in turn."""


def leaving(lineup: Lineup, attempts: int) -> dict[str, Row]:
    """Measure how soon the upstream is left alone after a client has left, by the upstream's own account."""
    ways = {
        "left_mid_stream": replace(PACED, chunks=1_000),
        "left_before_text": Question(gap_ms=60_000),
        "left_json": Question(gap_ms=60_000, streamed=False),
    }
    found: dict[tuple[str, str], list[float]] = {}
    unnoticed = set()
    for _ in range(attempts):
        for target in lineup.targets:
            for way, question in ways.items():
                if (target.name, way) in unnoticed:
                    continue
                seconds = _until_left(target, lineup.upstream, question)
                if seconds is None:
                    unnoticed.add((target.name, way))
                else:
                    found.setdefault((target.name, way), []).append(seconds)
    rows: dict[str, Row] = {target.name: {} for target in lineup.targets}
    for name, row in rows.items():
        for way in ways:
            spans = [] if (name, way) in unnoticed else found[name, way]
            row[f"{way}_ms"] = _ms(statistics.median(spans)) if spans else None
            row[f"{way}_max_ms"] = _ms(max(spans)) if spans else None
    return rows


def slow_readers(target: Target) -> Row:
    """Measure what 200 slow readers do to memory, and to 8 readers that keep up."""
    return uvloop.run(_beside_slow_readers(target))


def many(target: Target, requests: int, streams: int) -> Figures:
    """Measure whether memory stays flat over many requests, then over many streams."""
    uvloop.run(drive(target, JSON, JSON_CONNECTIONS, times(requests // 20)))
    figures: Figures = {"before": _memory(target)}
    for name, question, amount in (("requests", JSON, requests), ("streams", STREAM, streams)):
        rss = [_memory(target)["rss_mb"]]
        failed = 0
        for tenth in range(10):
            say(f"  {amount} {name}: {tenth * 10} %")
            failed += uvloop.run(drive(target, question, JSON_CONNECTIONS, times(amount // 10))).failed
            rss.append(_memory(target)["rss_mb"])
        growth = round(rss[-1] - rss[5], 1)
        figures[f"after_{amount}_{name}"] = {
            **_memory(target),
            "second_half_mb": growth,
            "flat": growth < FLAT_MB,
            "failed": failed,
        }
        figures[f"rss_mb_over_{name}"] = " ".join(map(str, rss))
    return figures


def ledger(home: Paths, ours: Sequence[Target]) -> Figures:
    """Count what the ledger has of all that was ever asked of our daemon."""
    time.sleep(FLUSH_SECONDS)
    with closing(sqlite3.connect(f"file:{home.database}?mode=ro", uri=True)) as database:
        rows = dict(database.execute("SELECT outcome, count(*) FROM exchanges GROUP BY outcome"))
    asked = sum(target.asked for target in ours)
    return {"asked": asked, "rows": sum(rows.values()), "missed": asked - sum(rows.values()), **rows}


def memory_now(target: Target) -> Row:
    """Give the memory of all of a target's processes."""
    return {name: round(mb, 1) for name, mb in _memory(target).items()} if target.pid else {}


def _load(
    target: Target, question: Question, connections: int, seconds: float, *, apart_seconds: float = 0.0
) -> tuple[Work, float | None]:
    """Drive a target that is warm; give what came of it, and the CPU time that it took."""

    async def measured() -> tuple[Work, float | None]:
        warm_up = replace(question, gap_ms=0)
        await drive(target, warm_up, connections, for_seconds(WARM_UP_SECONDS))
        before = _cpu_seconds(target)
        work = await drive(target, question, connections, for_seconds(seconds), apart_seconds=apart_seconds)
        return work, _cpu_seconds(target) - before if target.pid else None

    return uvloop.run(measured())


async def _beside_slow_readers(target: Target) -> Row:
    alone = await _fast_readers(target)
    before = _rss_mb(target)
    slow = SlowReaders(target, ENDLESS, SLOW_READERS)
    async with asyncio.TaskGroup() as tasks:
        readers = [tasks.create_task(slow.read()) for _ in range(SLOW_READERS)]
        with suppress(TimeoutError):
            await asyncio.wait_for(slow.all_answered.wait(), SLOW_START_SECONDS)
        await asyncio.sleep(SETTLING_SECONDS)
        beside = await _fast_readers(target)
        after, served = _rss_mb(target), slow.streaming
        for reader in readers:
            reader.cancel()
    return {
        "slow_readers": served,
        "slow_rss_mb": None if before is None or after is None else round(after - before, 1),
        "gap_alone_p50_ms": _percentile(alone.gaps, 50),
        "gap_alone_p99_ms": _percentile(alone.gaps, 99),
        "gap_beside_p50_ms": _percentile(beside.gaps, 50),
        "gap_beside_p99_ms": _percentile(beside.gaps, 99),
        "failed": alone.failed + beside.failed,
    }


async def _fast_readers(target: Target) -> Work:
    apart = PACED.gap_ms / 1000 / FAST_READERS
    return await drive(target, PACED, FAST_READERS, times(2 * FAST_READERS), apart_seconds=apart)


def _until_left(target: Target, upstream: Target, question: Question) -> float | None:
    """Ask and leave; give the seconds until the upstream saw it, None if it did not in time."""
    mark = uuid.uuid4().hex
    with connect(target.address) as connection:
        target.asked += 1
        connection.sendall(replace(question, mark=mark).request(target))
        if _marked(upstream, mark, "arrived_at") is None:
            say(f"{target.name} does not pass a request on")
            return None
        if question.chunks > 1:
            connection.recv(65536)
            connection.recv(65536)
        left_at = time.monotonic()
    noticed_at = _marked(upstream, mark, "left_at")
    return None if noticed_at is None else noticed_at - left_at


def _marked(upstream: Target, mark: str, event: str) -> float | None:
    """Wait until the upstream has seen something happen to a request."""
    deadline = time.monotonic() + NOTICE_SECONDS
    while time.monotonic() < deadline:
        with connect(upstream.address) as connection:
            connection.sendall(http_request("GET", f"/marks/{mark}"))
            answer = json.loads(connection.recv(65536).partition(b"\r\n\r\n")[2])
        if (at := answer.get(event)) is not None:
            return float(at)
        time.sleep(POLL_SECONDS)
    return None


def _processes(target: Target) -> list[int]:
    if target.pid is None:
        return []
    return [target.pid, *(child.pid for child in psutil.Process(target.pid).children(recursive=True))]


def _cpu_seconds(target: Target) -> float:
    return sum(map(cpu_seconds, _processes(target)))


def _memory(target: Target) -> dict[str, float]:
    found = [memory_mb(pid) for pid in _processes(target)]
    return {name: round(sum(each[name] for each in found), 1) for name in ("rss_mb", "pss_mb")}


def _rss_mb(target: Target) -> float | None:
    return _memory(target)["rss_mb"] if target.pid else None


def _percentile(seconds: Sequence[float], percent: float) -> float | None:
    return percentile_ms(seconds, percent) if seconds else None


def _each_us(cpu: float | None, amount: int) -> float | None:
    return round(cpu / amount * 1e6, 2) if cpu is not None and amount else None


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
