"""Benchmarks, whole: a real daemon measures a real llama.cpp, and a server that keeps a pace."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from footplate_daemon import lifecycle
from footplate_daemon.client import FootplateClient
from footplate_daemon.errors import Busy, Conflict, DaemonUnreachable, NotFound
from footplate_daemon.paths import Paths
from footplate_daemon.wire import SwitchWish
from footplate_daemon.wire_batches import BatchWish
from footplate_daemon.wire_benchmarks import BenchmarkRun, BenchmarkWish, LivePoint
from tests.fakes.pacing import MODEL, Pace, PacingUpstream, open_pacing
from tests.whole.conftest import PATIENCE_SECONDS, Whole, error_of
from tests.whole.test_ground import SWITCH, SWITCH_ANSWER
from tests.whole.test_services import running

GUIDE = "llamacpp/guide"
FAR = "remote/far"
LONG_PATIENCE_SECONDS = 4 * PATIENCE_SECONDS
"""For vLLM, which takes its time to start on a busy machine."""
QUICK: dict[str, Any] = {"requests": 3, "warm_ups": 1, "cold": False}


async def test_the_guide_is_measured_cold_and_warm_with_all_its_circumstances(footplate: Whole) -> None:
    await footplate.until_ready()

    run = await measured(
        footplate,
        variants=[{"name": GUIDE}],
        workloads=[{"kind": "short"}, {"kind": "json-router", "requests": 1, "max_tokens": 500}],
        requests=4,
    )

    (entrant,), (short, router) = run.entrants, run.cells
    assert (run.state, entrant.state, short.state, run.error) == ("done", "done", "done", None)
    assert [start.kind for start in entrant.starts] == ["cold", "warm"]
    assert all(seconds > 0 for seconds in entrant.load_seconds.values())
    assert entrant.runtime_version
    assert entrant.weights_hash is not None
    assert entrant.weights_hash.startswith("sha256:")
    assert "********" in entrant.environment.values()
    assert short.summary is not None
    assert (short.summary.completed, short.summary.failed) == (4, 0)
    assert short.summary.ttft is not None
    assert short.summary.output_tokens > 4
    assert short.resources is not None
    assert short.resources.ram_peak_bytes
    assert short.translation is not None
    assert short.translation.is_followed
    assert router.summary is not None
    assert (router.summary.valid, router.summary.checked) == (1, 1)
    assert run.environment is not None
    assert run.environment.cpu_count > 0
    assert run.tokenizers["guide"].source == f"/tokenize of {GUIDE}"
    assert short.summary.counted_tokens
    assert run.restored == GUIDE
    assert await footplate.answer(SWITCH) == SWITCH_ANSWER


async def test_results_are_kept_with_every_request_and_can_be_listed_and_deleted(footplate: Whole) -> None:
    client = footplate.client
    first = await measured(footplate, variants=[{"name": GUIDE}], title="first", **QUICK)
    second = await measured(
        footplate, variants=[{"name": GUIDE}], purpose="check", keep_answers=False, **QUICK
    )

    assert [row.id for row in (await client.benchmark_runs()).runs] == [second.id, first.id]
    assert [row.title for row in (await client.benchmark_runs(purpose="benchmark")).runs] == ["first"]
    page = await client.benchmark_runs(limit=1)
    assert [row.id for row in (await client.benchmark_runs(before=page.before)).runs] == [first.id]
    (cell,) = (await client.benchmark_run(first.id, records=True, cell=0)).cells
    assert cell.records is not None
    assert [record.number for record in cell.records] == [0, 1, 2]
    assert all(record.answer and record.prompt and record.ttft_ms for record in cell.records)
    (bare,) = (await client.benchmark_run(second.id, records=True)).cells
    assert bare.records is not None
    assert {record.answer for record in bare.records} == {None}
    await client.delete_benchmark(first.id)
    with pytest.raises(NotFound):
        await client.benchmark_run(first.id)
    with pytest.raises(NotFound):
        await client.benchmark_run(second.id, cell=7)


async def test_a_run_goes_on_when_its_follower_leaves(home: Paths) -> None:
    async with paced(home, Pace(ttft_ms=50)) as (footplate, _):
        run = await begun(footplate, variants=[{"name": FAR}], requests=20, warm_ups=0)
        async with FootplateClient(home.socket) as terminal:
            async for change in terminal.follow_benchmark(run.id):
                if isinstance(change, BenchmarkRun) and change.cells[0].state == "measuring":
                    break

        ended = await until(footplate, run.id, is_over)

    assert ended.state == "done"
    assert ended.cells[0].summary is not None
    assert ended.cells[0].summary.completed == 20


async def test_followers_get_the_run_first_then_points_and_last_the_run_that_ended(home: Paths) -> None:
    # Points from before there was a follower are not told: the first comes seconds after the run begins.
    async with paced(home, Pace(ttft_ms=1500, itl_ms=20)) as (footplate, _):
        run = await begun(
            footplate, variants=[{"name": FAR}], requests=1, warm_ups=1, parameters={"max_tokens": 120}
        )
        changes = [change async for change in footplate.client.follow_benchmark(run.id)]
        whole = await footplate.client.benchmark_run(run.id)

    points = [change for change in changes if isinstance(change, LivePoint)]
    assert isinstance(changes[0], BenchmarkRun)
    assert isinstance(changes[-1], BenchmarkRun)
    assert changes[-1].state == "done"
    assert points
    assert whole.cells[0].points == tuple(points)
    assert whole.fraction == 1


async def test_what_was_measured_before_a_run_was_cancelled_is_kept(home: Paths) -> None:
    async with paced(home, Pace(held_after=3)) as (footplate, _):
        works = [{"kind": kind} for kind in ("short", "chat", "repeat")]
        run = await begun(footplate, variants=[{"name": FAR}], workloads=works, requests=2, warm_ups=0)
        await until(footplate, run.id, has_completed_one_of_the_second_cell)

        await footplate.client.cancel_benchmark(run.id)
        ended = await until(footplate, run.id, is_over)
        with pytest.raises(Conflict):
            await footplate.client.cancel_benchmark(run.id)
        status = await footplate.client.status()

    assert ended.state == "cancelled"
    assert [cell.state for cell in ended.cells] == ["done", "cancelled", "cancelled"]
    assert ended.cells[0].summary is not None
    assert ended.cells[0].summary.completed == 2
    assert ended.cells[1].summary is not None
    assert ended.cells[1].summary.completed == 1
    assert status.active == GUIDE


async def test_a_daemon_that_is_killed_leaves_a_cut_run_and_the_former_variant_comes_back(
    home: Paths,
) -> None:
    async with paced(home, Pace(held_after=3)) as (footplate, _):
        works = [{"kind": "short"}, {"kind": "chat"}]
        run = await begun(footplate, variants=[{"name": FAR}], workloads=works, requests=2, warm_ups=0)
        await until(footplate, run.id, has_completed_one_of_the_second_cell)

        before = (await footplate.client.health()).pid
        os.kill(before, signal.SIGKILL)
        await footplate.until(lambda status: status.daemon.pid != before and status.active == GUIDE)
        cut = await footplate.client.benchmark_run(run.id, records=True)

    assert cut.state == "cut"
    assert [cell.state for cell in cut.cells] == ["done", "cut"]
    assert cut.cells[0].records is not None
    assert len(cut.cells[0].records) == 2


async def test_nobody_switches_meanwhile_and_who_asks_the_engine_is_counted(home: Paths) -> None:
    async with paced(home, Pace(ttft_ms=200)) as (footplate, upstream):
        run = await begun(footplate, variants=[{"name": FAR}], requests=30, warm_ups=0)
        await until(footplate, run.id, lambda run: run.cells[0].state == "measuring")

        with pytest.raises(Conflict, match=f"Benchmark {run.id}") as refused:
            await footplate.client.activate(SwitchWish(name=GUIDE))
        with pytest.raises(Conflict):
            await footplate.client.stop_engine(FAR)
        busy = await footplate.chat(SWITCH, model=GUIDE)
        let_through = await footplate.http.post("/v1/chat/completions", json=chat_with(FAR))
        ended = await until(footplate, run.id, is_over)
        afterwards = await footplate.chat(SWITCH, model=GUIDE)

    assert refused.value.hint
    assert busy.status_code == Busy.http_status
    assert error_of(busy)["code"] == "busy"
    assert let_through.status_code == 200
    assert ended.cells[0].summary is not None
    assert ended.cells[0].summary.disturbed_by == 1
    assert len(upstream.asked) == 31
    assert afterwards.status_code == 200


async def test_runs_wait_for_one_another(home: Paths) -> None:
    async with paced(home, Pace(ttft_ms=300)) as (footplate, _):
        client = footplate.client
        first = await begun(footplate, variants=[{"name": FAR}], requests=10)
        second = await begun(footplate, variants=[{"name": FAR}], requests=1)
        third = await begun(footplate, variants=[{"name": FAR}], requests=1)
        await client.cancel_benchmark(second.id)
        with pytest.raises(Conflict):
            await client.delete_benchmark(third.id)
        ended = [await until(footplate, run.id, is_over) for run in (first, second, third)]

    assert [run.state for run in ended] == ["done", "cancelled", "done"]
    assert [cell.state for cell in ended[1].cells] == ["cancelled"]
    assert (ended[0].ended_at or 0) <= (ended[2].started_at or 0)


async def test_a_batch_gives_way_and_goes_on_afterwards(footplate: Whole, tmp_path: Path) -> None:
    await footplate.until_ready()
    messages = [{"role": "user", "content": SWITCH}]
    long = {"model": "guide", "messages": messages, "max_tokens": 200, "ignore_eos": True}
    line = {"method": "POST", "url": "/v1/chat/completions", "body": long}
    file = tmp_path / "lines.jsonl"
    file.write_text("".join(json.dumps({**line, "custom_id": str(n)}) + "\n" for n in range(40)))
    uploaded = await footplate.client.upload_file(file)
    wish = BatchWish(input_file_id=uploaded.id, endpoint="/v1/chat/completions")
    batch = await footplate.client.create_batch(wish)
    async for progress in footplate.client.follow_batch(batch.id):
        if progress.in_flight:
            break

    run = await measured(footplate, variants=[{"name": GUIDE}], **QUICK)
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for progress in footplate.client.follow_batch(batch.id):
            last = progress

    assert run.state == "done"
    assert run.cells[0].summary is not None
    assert run.cells[0].summary.disturbed_by == 0
    assert last.batch.status == "completed"
    assert last.batch.request_counts.completed == 40


async def test_an_engine_that_dies_fails_its_cell_and_the_next_one_is_measured(footplate: Whole) -> None:
    engine = await footplate.until_ready()
    assert engine.pid is not None
    talk = {"ignore_eos": True, "max_tokens": 100_000, "temperature": 0}
    run = await begun(
        footplate, variants=[{"name": GUIDE}], requests=1, warm_ups=0, cold=False, parameters=talk,
        workloads=[{"kind": "short"}, {"kind": "repeat", "max_tokens": 5}],
    )  # fmt: skip
    await until(footplate, run.id, lambda run: run.cells[0].state == "measuring")

    os.kill(engine.pid, signal.SIGKILL)
    ended = await until(footplate, run.id, is_over)

    assert [cell.state for cell in ended.cells] == ["failed", "done"]
    assert ended.cells[0].error
    assert ended.cells[0].summary is not None
    assert ended.cells[0].summary.failed == 1
    assert ended.state == "done"


async def test_a_variant_that_does_not_start_fails_and_the_others_are_measured(home: Paths) -> None:
    broken = '[models.broken.llamacpp]\nweights = "broken.gguf"\n'
    async with running(home, broken) as footplate:
        home.models_dir.mkdir(parents=True, exist_ok=True)
        (home.models_dir / "broken.gguf").write_bytes(b"GGUF nothing")
        await footplate.until_ready()

        run = await measured(footplate, variants=[{"name": "llamacpp/broken"}, {"name": GUIDE}], **QUICK)

    assert [entrant.state for entrant in run.entrants] == ["failed", "done"]
    assert run.entrants[0].error
    assert [cell.state for cell in run.cells] == ["failed", "done"]
    assert run.state == "done"
    assert run.restored == GUIDE


async def test_what_cannot_be_measured_is_refused_with_its_field(footplate: Whole) -> None:
    half = '{"variants": [{"name": "guide"}], "parameters": {"stop": ["\\ud800"]}}'
    wishes = [
        ('{"variants": []}', "variants"),
        ('{"variants": [{"name": "nobody"}]}', "variants.0.name"),
        ('{"variants": [{"name": "guide"}], "workloads": [{"kind": "sing"}]}', "workloads.0.kind"),
        ('{"variants": [{"name": "guide"}], "requests": 0}', "requests"),
        ('{"variants": [{"name": "guide"}], "speed": 1}', "speed"),
        (half, "parameters"),
    ]
    for wish, field in wishes:
        headers = {"content-type": "application/json"}
        response = await footplate.http.post("/api/v1/benchmark", content=wish, headers=headers)

        assert response.status_code in {400, 404}, response.text
        assert error_of(response)["param"] == field


@asynccontextmanager
async def paced(home: Paths, pace: Pace) -> AsyncIterator[tuple[Whole, PacingUpstream]]:
    """A Footplate with the guide active, and beside it a server that keeps a pace."""
    async with open_pacing(pace) as upstream:
        far = f'[models.far.remote]\nurl = "http://127.0.0.1:{upstream.port}"\nserved_name = "{MODEL}"\n'
        async with running(home, far) as footplate:
            await footplate.until_ready()
            yield footplate, upstream
            await asyncio.to_thread(lifecycle.down, home)


async def begun(footplate: Whole, **fields: Any) -> BenchmarkRun:
    return await footplate.client.start_benchmark(BenchmarkWish.model_validate(fields))


async def measured(footplate: Whole, **fields: Any) -> BenchmarkRun:
    return await until(footplate, (await begun(footplate, **fields)).id, is_over)


async def until(footplate: Whole, run_id: int, holds: Callable[[BenchmarkRun], bool]) -> BenchmarkRun:
    async with asyncio.timeout(LONG_PATIENCE_SECONDS):
        while True:
            try:
                async for change in footplate.client.follow_benchmark(run_id):
                    if isinstance(change, BenchmarkRun) and holds(change):
                        return change
            except DaemonUnreachable:
                await asyncio.sleep(0.02)


def has_completed_one_of_the_second_cell(run: BenchmarkRun) -> bool:
    """Whether a second has passed in which one of its requests was answered: a point says so."""
    return run.cells[1].state == "measuring" and (run.fraction or 0) * len(run.cells) > 1


def is_over(run: BenchmarkRun) -> bool:
    return run.state not in {"queued", "running"}


def chat_with(model: str) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": "Why?"}],
        "stream": True,
        "max_tokens": 2,
    }
