from pathlib import Path

import pytest

from footplate_daemon.errors import NotFound
from footplate_daemon.store.benchmarks import CUT_OFF, BenchmarkStore
from footplate_daemon.store.database import Database
from footplate_daemon.store.wanted import Wanted
from footplate_daemon.wire_benchmarks import (
    BenchmarkRun,
    BenchmarkWish,
    Cell,
    Entrant,
    LivePoint,
    RequestRecord,
    VariantChoice,
    WorkloadKind,
)

RECORD = RequestRecord(number=0, started_ms=0, ttft_ms=1.5, itl_ms=(1.0, 2.0), answer="Zażółć.")


@pytest.fixture
def store(database: Database) -> BenchmarkStore:
    return BenchmarkStore(database)


async def test_a_run_comes_back_with_its_cells_as_they_were_saved_last(store: BenchmarkStore) -> None:
    run = await store.add(a_run())
    point = LivePoint(cell=1, at_seconds=1, tokens_per_second=9, running=1, completed=0)
    changed = run.cells[1].model_copy(update={"state": "done", "points": (point,)})

    await store.save_cell(run.id, changed, [RECORD])
    await store.save(run.model_copy(update={"state": "running", "step": "one"}))

    expected = run.model_copy(update={"state": "running", "step": "one", "cells": (run.cells[0], changed)})
    assert await store.get(run.id) == expected


async def test_requests_come_when_they_are_asked_for(store: BenchmarkStore) -> None:
    run = await store.add(a_run())
    for cell in run.cells:
        await store.save_cell(run.id, cell, [RECORD])
    await store.save_cell(run.id, run.cells[0])  # without them: they stay

    assert await store.records(run.id) == {0: (RECORD,), 1: (RECORD,)}
    assert await store.records(run.id, 1) == {1: (RECORD,)}
    assert (await store.get(run.id)).cells[0].records is None


async def test_runs_are_listed_newest_first_and_by_pages(store: BenchmarkStore) -> None:
    for title in ("a", "b", "c"):
        await store.add(a_run(title=title))
    await store.add(a_run(title="check", purpose="check"))

    first = await store.list(2, purpose="benchmark")
    second = await store.list(2, before=first[-1].id, purpose="benchmark")

    assert [row.title for row in (*first, *second)] == ["c", "b", "a"]
    assert [row.title for row in await store.list(1)] == ["check"]


async def test_what_is_deleted_is_gone_with_its_cells_and_its_id_is_not_given_again(
    store: BenchmarkStore,
) -> None:
    run = await store.add(a_run())
    await store.save_cell(run.id, run.cells[0], [RECORD])

    await store.delete(run.id)

    assert await store.records(run.id) == {}
    assert (await store.add(a_run())).id > run.id
    with pytest.raises(NotFound):
        await store.get(run.id)
    with pytest.raises(NotFound):
        await store.delete(run.id)


async def test_a_run_that_a_former_daemon_left_is_cut_and_keeps_what_it_measured(
    store: BenchmarkStore,
) -> None:
    run = await store.add(a_run(state="running"))
    await store.save_cell(run.id, run.cells[0].model_copy(update={"state": "done"}), [RECORD])
    await store.remember_before(run.id, Wanted("vllm/qa", "low-vram", 2048))
    queued, ended = await store.add(a_run()), await store.add(a_run(state="done"))

    before = await store.cut_unfinished(99.0)

    cut = await store.get(run.id)
    assert before == Wanted("vllm/qa", "low-vram", 2048)
    assert (cut.state, cut.ended_at, cut.error) == ("cut", 99.0, CUT_OFF)
    assert [cell.state for cell in cut.cells] == ["done", "cut"]
    assert [entrant.state for entrant in cut.entrants] == ["cut"]
    assert (await store.get(queued.id)).state == "cut"
    assert (await store.get(ended.id)).state == "done"
    assert await store.cut_unfinished(100.0) is None


async def test_that_nothing_was_active_before_is_something_to_go_back_to(store: BenchmarkStore) -> None:
    run = await store.add(a_run(state="running"))
    await store.remember_before(run.id, Wanted(None))

    assert await store.cut_unfinished(1.0) == Wanted(None)


async def test_a_hash_holds_as_long_as_the_file_is_as_it_was(store: BenchmarkStore) -> None:
    file = Path("/models/qa.gguf")

    await store.remember_hash(file, 10, 5, "aa")
    await store.remember_hash(file, 10, 6, "bb")

    assert await store.known_hash(file, 10, 6) == "bb"
    assert await store.known_hash(file, 10, 5) is None
    assert await store.known_hash(file, 11, 6) is None


def a_run(**fields: object) -> BenchmarkRun:
    cell = Cell(
        number=0, entrant=0, variant="vllm/qa", runtime="vllm", model="qa", workload="short",
        kind=WorkloadKind.SHORT, concurrency=1, requests=4,
    )  # fmt: skip
    run = BenchmarkRun(
        id=0,
        title="a",
        state="queued",
        created_at=1.0,
        wish=BenchmarkWish(variants=(VariantChoice(name="vllm/qa"),)),
        entrants=(Entrant(variant="vllm/qa", runtime="vllm", model="qa"),),
        cells=(cell, cell.model_copy(update={"number": 1})),
    )
    return run.model_copy(update=fields)
