import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from footplate_daemon.errors import FootplateError, NotFound
from footplate_daemon.store.database import Database
from footplate_daemon.store.exchanges import (
    ROW_BYTES,
    Body,
    Exchange,
    ExchangeStore,
    admits,
    storable,
)
from footplate_daemon.store.packing import LIMIT, Packing
from footplate_daemon.wire import ExchangeFilter

CHAT = "/v1/chat/completions"
WHOLE = Exchange(
    id=2,
    request_id="r2",
    started_at=100.0,
    outcome="done",
    path=CHAT,
    streamed=True,
    session_id="s1",
    client="laptop",
    model_asked="qa",
    variant="vllm/qa",
    runtime="vllm",
    preset="low-vram",
    profile="default",
    queue_ms=1.5,
    switch_ms=0.0,
    ttft_ms=12.25,
    total_ms=80.0,
    prompt_tokens=8,
    completion_tokens=20,
    reasoning_tokens=3,
    cached_tokens=4,
    tokens_per_second=200.0,
    itl_p50_ms=5.0,
    itl_p99_ms=9.0,
    finish_reason="stop",
    http_status=200,
    error=None,
    hint="Nothing.",
)


@pytest.fixture
def store(database: Database) -> ExchangeStore:
    return ExchangeStore(database)


def _running(exchange_id: int, request_id: str = "r") -> Exchange:
    return Exchange(id=exchange_id, request_id=request_id, started_at=99.0, outcome="running", path=CHAT)


def _done(exchange_id: int, started_at: float = 0.0) -> Exchange:
    return Exchange(id=exchange_id, request_id="r", started_at=started_at, outcome="done", path=CHAT)


async def _ids(store: ExchangeStore, **wanted: object) -> list[int]:
    return [exchange.id for exchange in await store.list(ExchangeFilter.model_validate(wanted))]


async def test_exchanges_come_back_whole_newest_first(store: ExchangeStore) -> None:
    await store.add_many([_running(1), WHOLE])

    assert await store.list() == [WHOLE, _running(1)]
    assert await store.list(ExchangeFilter(limit=1)) == [WHOLE]
    assert await store.get(2) == WHOLE


async def test_one_that_is_not_there_is_not_found(store: ExchangeStore) -> None:
    with pytest.raises(NotFound, match="no exchange 7"):
        await store.get(7)


@pytest.mark.parametrize("count", [1, 127, 128, 129, 1000])
async def test_groups_of_any_size_are_stored(store: ExchangeStore, count: int) -> None:
    await store.add_many(
        [_done(number) for number in range(1, count + 1)],
        [Body.of(number, b"Why?", Packing([b"So."])) for number in range(1, count + 1)],
    )

    assert await _ids(store, limit=10_000) == list(range(count, 0, -1))
    last = await store.body(count)
    assert last is not None
    assert last.read() == (b"Why?", b"So.")


async def test_an_exchange_that_ran_is_replaced_by_its_end(store: ExchangeStore) -> None:
    await store.add_many([_running(2, "r2")], [Body.of(2, b"Why?", Packing([b""]))])
    await store.add_many([WHOLE], [Body.of(2, b"Why?", Packing([b"So."]))])

    assert await store.list() == [WHOLE]
    body = await store.body(2)
    assert body is not None
    assert body.read() == (b"Why?", b"So.")


async def test_clients_may_repeat_a_request_id(store: ExchangeStore) -> None:
    await store.add_many([_running(1, "same"), _running(2, "same")])

    assert await _ids(store, request_id="same") == [2, 1]


async def test_all_are_stored_or_none(store: ExchangeStore) -> None:
    broken = Exchange(id=2, request_id=None, started_at=1.0, outcome="done", path=CHAT)  # type: ignore[arg-type]  # on purpose

    with pytest.raises(FootplateError):
        await store.add_many([_running(1), broken])

    assert await store.list() == []


async def test_what_cannot_be_stored_can_be_made_so(store: ExchangeStore) -> None:
    odd = _done(1)
    odd.error, odd.prompt_tokens = "half a character: \ud800", 2**70

    with pytest.raises(FootplateError):
        await store.add_many([odd])
    await store.add_many([storable(odd)])

    kept = await store.get(1)
    assert (kept.error, kept.prompt_tokens) == ("half a character: ?", None)


FILTERS = [
    ({"outcome": "done"}, True),
    ({"outcome": "failed"}, False),
    ({"runtime": "vllm"}, True),
    ({"runtime": "ollama"}, False),
    ({"variant": "vllm/qa"}, True),
    ({"variant": "qa"}, False),
    ({"model": "qa"}, True),
    ({"model": "vllm"}, False),
    ({"client": "laptop"}, True),
    ({"client": "phone"}, False),
    ({"session": "s1"}, True),
    ({"session": "s2"}, False),
    ({"request_id": "r2"}, True),
    ({"request_id": "r"}, False),
    ({"path": CHAT}, True),
    ({"path": "/v1/embeddings"}, False),
    ({"since": 100.0}, True),
    ({"since": 100.5}, False),
    ({"before": 3}, True),
    ({"before": 2}, False),
    ({"runtime": "vllm", "client": "phone"}, False),
]


@pytest.mark.parametrize(("wanted", "is_found"), FILTERS)
async def test_a_filter_finds_the_same_in_the_database_and_in_memory(
    store: ExchangeStore, wanted: dict[str, object], is_found: bool
) -> None:
    await store.add_many([WHOLE])

    assert await _ids(store, **wanted) == ([2] if is_found else [])
    assert admits(ExchangeFilter.model_validate(wanted), WHOLE) is is_found


async def test_a_model_is_found_by_the_name_of_its_variant_too(store: ExchangeStore) -> None:
    aliased = _done(1)
    aliased.model_asked, aliased.variant, aliased.runtime = "q", "vllm/org/qa", "vllm"
    await store.add_many([aliased])

    for model in ("q", "org/qa"):
        assert await _ids(store, model=model) == [1]
        assert admits(ExchangeFilter(model=model), aliased)


async def test_pages_follow_one_another(store: ExchangeStore) -> None:
    await store.add_many([_done(number) for number in range(1, 6)])

    first = await _ids(store, limit=2)
    second = await _ids(store, limit=2, before=first[-1])

    assert (first, second) == ([5, 4], [3, 2])


async def test_what_was_under_way_when_the_daemon_ended_was_cut(store: ExchangeStore) -> None:
    waiting = _running(3)
    waiting.outcome, waiting.total_ms = "waiting", 12.0
    await store.add_many([_running(1), WHOLE, waiting])

    assert await store.cut_unfinished() == 2

    kept = await store.list()
    assert [exchange.outcome for exchange in kept] == ["cut", "done", "cut"]
    assert kept[0].total_ms is None
    assert "daemon ended" in (kept[0].error or "")
    assert kept[0].hint


async def test_ids_go_on_after_a_restart(store: ExchangeStore) -> None:
    assert await store.newest_id() == 0

    await store.add_many([_running(41)])
    await store.add_many([])

    assert await store.newest_id() == 41


async def _prune(store: ExchangeStore, before: float | None = None, max_bytes: int = 2**40) -> int:
    pieces = 0
    while await store.prune_some(before=before, max_bytes=max_bytes):
        pieces += 1
    return pieces


async def test_what_is_too_old_goes_in_small_pieces_and_no_id_is_given_out_again(
    store: ExchangeStore,
) -> None:
    await store.add_many(
        [_done(number, float(number)) for number in range(1, 1202)], [Body.of(1, b"?", Packing([b"!"]))]
    )

    assert await _prune(store, before=1200.0) == 3
    assert await _ids(store) == [1201, 1200]
    assert await store.body(1) is None

    await _prune(store, before=5000.0)
    assert await _ids(store) == []
    assert await store.newest_id() == 1201
    assert await store.size() == 0


async def test_of_what_is_too_much_the_oldest_bodies_go_first_then_the_oldest_rows(
    store: ExchangeStore,
) -> None:
    numbers = range(1, 5)
    bodies = [Body(number, b"x" * 10_000, b"", 10_000, 0) for number in numbers]
    await store.add_many([_done(number, float(number)) for number in numbers], bodies)

    await _prune(store, max_bytes=25_000)
    assert [number for number in numbers if await store.body(number)] == [3, 4]
    assert await _ids(store) == [4, 3, 2, 1]

    await _prune(store, max_bytes=2 * ROW_BYTES)
    assert [number for number in numbers if await store.body(number)] == []
    assert await _ids(store) == [4, 3]


async def test_the_size_counts_each_body_once_however_often_it_is_replaced(store: ExchangeStore) -> None:
    for answer in (b"", b"So.", b"So it is."):
        await store.add_many([_done(1)], [Body(1, b"1234", answer, 4, len(answer))])

    assert await store.size() == ROW_BYTES + 4 + len(b"So it is.")


async def test_nothing_is_pruned_that_is_young_and_small(store: ExchangeStore) -> None:
    await store.add_many([_done(1, 100.0)], [Body.of(1, b"Why?", Packing([b"So."]))])

    assert await _prune(store, before=100.0) == 0
    assert await store.body(1) is not None


async def test_a_body_that_is_too_long_is_not_kept_and_the_other_is() -> None:
    body = Body.of(1, b"Why?", Packing([b"x" * (LIMIT + 1)]))

    assert body.read() == (b"Why?", None)
    assert body.answer_bytes == LIMIT + 1


async def test_exchanges_of_an_older_footplate_are_taken_over(path: Path) -> None:
    from footplate_daemon.store.migrations import MIGRATIONS  # noqa: PLC0415

    with sqlite3.connect(path) as old:
        old.executescript("".join(MIGRATIONS[:2]))
        old.execute(
            "INSERT INTO exchanges (id, request_id, started_at, outcome) VALUES (7, 'r', 1.0, 'running')"
        )
        old.execute("PRAGMA user_version = 2")
    old.close()

    async with Database.open(path) as database:
        store = ExchangeStore(database)
        await store.cut_unfinished()
        (kept,) = await store.list()

    assert (kept.id, kept.path, kept.outcome, kept.streamed) == (7, CHAT, "cut", False)


async def test_the_last_speed_of_each_variant_is_known(store: ExchangeStore) -> None:
    speeds = [("vllm/qa", 10.0), ("vllm/qa", 20.0), ("ollama/qa", 5.0), ("vllm/qa", None)]
    await store.add_many(
        [
            replace(WHOLE, id=number, variant=variant, tokens_per_second=speed)
            for number, (variant, speed) in enumerate(speeds, 1)
        ]
    )

    assert await store.last_speeds() == {"vllm/qa": 20.0, "ollama/qa": 5.0}
