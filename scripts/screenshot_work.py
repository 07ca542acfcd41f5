"""What the benchmarks and batches in the pictures are of: a machine with one GPU and three runtimes."""

import math
from collections.abc import Iterator
from typing import Any

from tests.fakes.daemon import FakeDaemon
from tests.fakes.work import (
    batch_progress,
    benchmark,
    cell,
    distribution,
    entrant,
    measured,
    record,
    summary,
    wish,
)

from footplate_daemon.wire_batches import (
    BatchComparison,
    ComparedAnswer,
    ComparedLine,
    ComparedSide,
)
from footplate_daemon.wire_benchmarks import (
    BenchmarkRun,
    Cell,
    EngineStart,
    Entrant,
    Environment,
    GpuIdentity,
    LivePoint,
    Resources,
    Translation,
    Workload,
    WorkloadKind,
)

GB = 10**9
QWEN = ("vllm/qwen3-8b", "ollama/qwen3-8b", "llamacpp/qwen3-8b")
LOOKS = {
    "vllm": (62.0, 10.4, 96.2, 19.2, 41.7),
    "ollama": (88.0, 12.9, 77.3, 8.1, 9.4),
    "llamacpp": (41.0, 13.4, 74.5, 7.4, 3.8),
}
"""First token, time per token, tokens per second, memory, cold load."""
SECONDS = 24


def _points(number: int, runtime: str, level: int, seconds: int = SECONDS) -> Iterator[LivePoint]:
    ttft, _, rate, memory, _ = LOOKS[runtime]
    gain = 1 + (2.4 if runtime == "vllm" else 0.7) * math.log2(level)
    for second in range(1, seconds + 1):
        wave = 1 + 0.09 * math.sin(second / 1.7 + len(runtime)) + 0.05 * math.sin(second * 2.3)
        yield LivePoint(
            cell=number,
            at_seconds=float(second),
            tokens_per_second=rate * gain * wave * min(second / 2, 1),
            running=level,
            completed=second * level // 2,
            ttft_ms=ttft * (1 + level / 5) * (1 + 0.25 * math.sin(second * 1.3)) if second % 2 else None,
            vram_bytes=int(memory * GB * (1 if runtime == "vllm" else 0.93 + 0.07 * second / seconds)),
            gpu_utilisation_percent=min(97.0, 70 + 8 * level * wave),
            cpu_percent=110.0,
        )


def _entrant(variant: str, state: str = "done") -> Entrant:
    load = LOOKS[variant.partition("/")[0]][4]
    starts = (EngineStart(kind="cold", seconds=load), EngineStart(kind="warm", seconds=load * 0.4))
    versions = {"vllm": "0.11.2", "ollama": "0.13.0", "llamacpp": "b7190"}
    return entrant(
        variant,
        state=state,
        starts=starts if state == "done" else (),
        context=32768,
        runtime_version=versions[variant.partition("/")[0]],
        profile="default+precise",
    )


def _cell(number: int, place: int, variant: str, kind: str, level: int, slower: float = 1.0) -> Cell:
    runtime = variant.partition("/")[0]
    ttft, tpot, rate, memory, _ = LOOKS[runtime]
    gain = 1 + (2.4 if runtime == "vllm" else 0.7) * math.log2(level)
    facts: dict[str, Any] = {"errors": {"timeout": 2}, "failed": 2, "completed": 14} if number == 7 else {}
    if kind == "json-router":
        facts |= {"valid": 15, "checked": 16}
    translation = Translation(
        asked={"temperature": 0.2, "top_k": 40, "seed": 42},
        renamed={"max_tokens": "num_predict"} if runtime == "ollama" else {},
        ignored=("logit_bias",) if runtime == "ollama" else (),
    )
    texts = {
        "vllm": "A lease is a promise with an end: whoever holds it may act alone until it ends.",
        "ollama": "A lease is a promise with an end: its holder may act alone as long as it lasts.",
        "llamacpp": "A lease is a promise with an end: whoever holds it may act alone until it ends.",
    }
    first = ttft * (1 + level / 5) * slower
    records = tuple(
        record(
            each,
            texts[runtime],
            prompt="What is a lease?",
            ttft_ms=first * (1 + each % 5 / 50),
            e2el_ms=first + 11 * tpot * (1 + level / 9) * slower * (1 + each % 3 / 40),
        )
        for each in range(16)
    )
    return cell(
        number,
        place,
        variant,
        workload=kind,
        kind=WorkloadKind(kind),
        concurrency=level,
        points=tuple(_points(number, runtime, level)),
        records=records,
        translation=translation,
        **measured(
            summary=summary(
                ttft * (1 + level / 5) * slower,
                tpot * (1 + level / 9) * slower,
                rate * gain / slower,
                itl=distribution(tpot * 1.6),
                **facts,
            ),
            resources=Resources(
                vram_peak_bytes=int(memory * GB),
                gpu_utilisation_percent=93,
                cpu_percent=118,
                joules_per_token=310 / (rate * gain),
            ),
        ),
    )


def _run(run_id: int, now: float, slower: float = 1.0, **facts: Any) -> BenchmarkRun:
    works = [("short", 1), ("short", 4), ("json-router", 1), ("json-router", 4)]
    cells: list[Cell] = []
    for place, variant in enumerate(QWEN):
        for kind, level in works:
            cells.append(_cell(len(cells), place, variant, kind, level, slower))
    asked = wish(
        *QWEN,
        workloads=(Workload(kind=WorkloadKind.SHORT), Workload(kind=WorkloadKind.JSON_ROUTER)),
        concurrency=(1, 4),
    )
    return benchmark(
        run_id,
        wish=asked,
        entrants=tuple(map(_entrant, QWEN)),
        environment=Environment(
            footplate_version="0.1.0",
            host="gpu1",
            system="Linux 6.8.0 x86_64",
            python="3.12.3",
            cpu="AMD Ryzen 9 7950X",
            cpu_count=32,
            ram_total_bytes=64 * GB,
            gpus=(GpuIdentity(name="NVIDIA GeForce RTX 4090"),),
            driver_version="570.86" if slower == 1 else "565.57",
        ),
        **{
            "cells": tuple(cells),
            "created_at": now - 9_000,
            "started_at": now - 9_000,
            "ended_at": now - 8_480,
            **facts,
        },
    )


async def fill_benchmarks(daemon: FakeDaemon, now: float) -> None:
    """Have a run that goes on, one that is done, and some before."""
    await daemon.keep_run(
        _run(11, now, 1.0, created_at=now - 400_000, started_at=now - 400_000, ended_at=now - 399_500)
    )
    await daemon.keep_run(
        benchmark(
            12,
            wish=wish("vllm/gemma-3-12b"),
            state="failed",
            error="vllm/gemma-3-12b did not start: the KV cache does not fit.",
            created_at=now - 90_000,
            started_at=now - 90_000,
            ended_at=now - 89_930,
            cells_total=4,
        )
    )
    await daemon.keep_run(
        _run(13, now, 1.12, created_at=now - 80_000, started_at=now - 80_000, ended_at=now - 79_500)
    )
    await daemon.keep_run(_run(14, now))
    whole = _run(15, now)
    cells = []
    for each in whole.cells:
        if each.number < 5:
            cells.append(each)
        elif each.number == 5:
            half = tuple(_points(5, "ollama", 4, 15))
            cells.append(each.model_copy(update={"state": "measuring", "summary": None, "points": half}))
        else:
            waiting = {
                "state": "waiting",
                "summary": None,
                "resources": None,
                "points": (),
                "translation": None,
            }
            cells.append(each.model_copy(update=waiting))
    entrants = tuple(
        _entrant(name, state) for name, state in zip(QWEN, ("done", "measuring", "waiting"), strict=True)
    )
    await daemon.keep_run(
        whole.model_copy(
            update={
                "state": "running",
                "cells": tuple(cells),
                "entrants": entrants,
                "cells_done": 5,
                "fraction": 0.46,
                "eta_seconds": 312.0,
                "step": "ollama/qwen3-8b: short, 4 at a time",
                "started_at": now - 265,
                "created_at": now - 265,
                "ended_at": None,
            }
        )
    )


async def fill_batches(daemon: FakeDaemon, at: float) -> None:
    """Have batches in every state."""
    now = int(at)
    counts = (50_000, 31_240, 12)
    usage = {"input_tokens": 2_811_600, "output_tokens": 1_124_640, "total_tokens": 3_936_240}
    errors = [
        {
            "code": "context_length_exceeded",
            "status_code": 400,
            "count": 9,
            "example": "The prompt has 41,208 tokens, the context 32,768.",
        },
        {
            "code": "timeout",
            "status_code": 504,
            "count": 3,
            "example": "The engine did not answer within 600 s.",
        },
    ]
    failed = [
        {
            "line": 118 + 977 * number,
            "custom_id": f"review-{118 + 977 * number:05}",
            "status_code": 400,
            "code": "context_length_exceeded",
            "message": f"The prompt has {41_208 + number * 311:,} tokens, the context 32,768.",
        }
        for number in range(9)
    ]
    await daemon.show_batches(
        batch_progress(
            "batch_8f21c0de",
            input_filename="reviews-2025.jsonl",
            counts=counts,
            usage=usage,
            model="qwen3-8b",
            created_at=now - 8_000,
            in_progress_at=now - 7_990,
            expires_at=now + 78_000,
            owner="anna",
            in_flight=48,
            concurrency=48,
            lines_per_second=3.9,
            output_tokens_per_second=1420.0,
            eta_seconds=4_810.0,
            running_seconds=7_900.0,
            retries=31,
            models=[
                {"model": "qwen3-8b", "variant": QWEN[0], "total": 50_000, "completed": 31_240, "failed": 12}
            ],
            errors=errors,
            first_failed=failed,
            joules=2_400_000.0,
        ),
        batch_progress(
            "batch_77ab01f4",
            input_filename="summaries-gemma.jsonl",
            counts=(1200, 0, 0),
            model="gemma-3-12b",
            created_at=now - 900,
            waiting={
                "reason": "batch_window",
                "message": "Needs ollama/gemma-3-12b; batch_window allows it from 01:00 to 07:00.",
                "until": now + 9_000,
            },
            models=[
                {
                    "model": "gemma-3-12b",
                    "variant": "ollama/gemma-3-12b",
                    "total": 1200,
                    "completed": 0,
                    "failed": 0,
                }
            ],
        ),
        batch_progress(
            "batch_41c3b7aa",
            input_filename="router-eval.jsonl",
            status="completed",
            counts=(2000, 2000, 0),
            model="qwen3-8b",
            created_at=now - 30_000,
            completed_at=now - 28_600,
            output_file_id="file-out1",
            usage=usage,
            models=[{"model": "qwen3-8b", "variant": QWEN[0], "total": 2000, "completed": 2000, "failed": 0}],
        ),
        batch_progress(
            "batch_41c3b7ab",
            input_filename="router-eval.jsonl",
            status="completed",
            counts=(2000, 1988, 12),
            model="gemma-3-12b",
            created_at=now - 28_000,
            completed_at=now - 25_100,
            output_file_id="file-out2",
            error_file_id="file-err2",
            usage=usage,
            models=[
                {
                    "model": "gemma-3-12b",
                    "variant": "ollama/gemma-3-12b",
                    "total": 2000,
                    "completed": 1988,
                    "failed": 12,
                }
            ],
            errors=errors[:1],
        ),
        batch_progress(
            "batch_09d4e001",
            input_filename="nightly.jsonl",
            status="failed",
            created_at=now - 90_000,
            failed_at=now - 89_990,
            bad_lines=[
                {
                    "code": "invalid_json_line",
                    "message": "This line is not parseable as valid JSON.",
                    "line": 17,
                },
                {
                    "code": "duplicate_custom_id",
                    "message": "The custom_id night-00041 was used on line 41.",
                    "line": 96,
                },
            ],
        ),
        batch_progress(
            "batch_09d4e000",
            input_filename="nightly.jsonl",
            status="cancelled",
            counts=(10_000, 4_100, 0),
            created_at=now - 190_000,
            cancelled_at=now - 186_000,
            output_file_id="file-out3",
        ),
    )
    daemon.comparison = _comparison(daemon)


def _comparison(daemon: FakeDaemon) -> BatchComparison:
    first, second = (each.batch for each in daemon.batches_known[2:4])
    asked = (
        "Where is my parcel?",
        "I want my money back for the blue one.",
        "Do you ship to Łódź?",
        "The app crashes when I log in.",
    )
    routes = (
        ("shipping", "shipping"),
        ("refund", "complaint"),
        ("shipping", "shipping"),
        ("support", "support"),
    )
    lines = []
    for number in range(60):
        route = routes[number % 4]
        texts = [
            f'{{"route": "{each}", "urgency": {1 + number % 3}, "reason": "{asked[number % 4]}"}}'
            for each in route
        ]
        both = [
            ComparedAnswer(
                status_code=200,
                text=text,
                characters=len(text),
                input_tokens=48,
                output_tokens=21 + place,
                seconds=0.4 + place / 2,
            )
            for place, text in enumerate(texts)
        ]
        lines.append(
            ComparedLine(
                custom_id=f"router-{number:04}", prompt=asked[number % 4], first=both[0], second=both[1]
            )
        )
    sides = [
        ComparedSide(
            batch=batch,
            models=(model,),
            answered=answered,
            failed=failed,
            mean_characters=72.0 + place * 9,
            mean_output_tokens=21.4 + place,
            mean_seconds=0.41 + place / 2,
            lines_per_second=1.4 - place * 0.7,
            output_tokens=42_800,
            joules=61_000.0,
            joules_per_line=30.5 + 22 * place,
        )
        for place, (batch, model, answered, failed) in enumerate(
            ((first, "qwen3-8b", 2000, 0), (second, "gemma-3-12b", 1988, 12))
        )
    ]
    return BatchComparison(
        first=sides[0],
        second=sides[1],
        common=2000,
        differing_inputs=0,
        same_answers=1460,
        lines=tuple(lines),
    )
