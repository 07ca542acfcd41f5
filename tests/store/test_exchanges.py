import pytest

from footplate_daemon.errors import FootplateError
from footplate_daemon.store.database import Database
from footplate_daemon.store.exchanges import Exchange, ExchangeStore

WHOLE = Exchange(
    id=2,
    request_id="r2",
    started_at=100.0,
    outcome="done",
    client="laptop",
    model_asked="qa",
    variant="vllm/qa",
    runtime="vllm",
    queue_ms=1.5,
    switch_ms=0.0,
    ttft_ms=12.25,
    total_ms=80.0,
    prompt_tokens=8,
    completion_tokens=20,
    tokens_per_second=200.0,
    finish_reason="stop",
    http_status=200,
    error=None,
)


@pytest.fixture
def store(database: Database) -> ExchangeStore:
    return ExchangeStore(database)


def _running(exchange_id: int, request_id: str = "r") -> Exchange:
    return Exchange(id=exchange_id, request_id=request_id, started_at=99.0, outcome="running")


async def test_exchanges_come_back_whole_newest_first(store: ExchangeStore) -> None:
    await store.add_many([_running(1), WHOLE])

    assert await store.list() == [WHOLE, _running(1)]
    assert await store.list(limit=1) == [WHOLE]


async def test_an_exchange_that_ran_is_replaced_by_its_end(store: ExchangeStore) -> None:
    await store.add_many([_running(2, "r2")])
    await store.add_many([WHOLE])

    assert await store.list() == [WHOLE]


async def test_clients_may_repeat_a_request_id(store: ExchangeStore) -> None:
    await store.add_many([_running(1, "same"), _running(2, "same")])

    assert [exchange.id for exchange in await store.list()] == [2, 1]


async def test_all_are_stored_or_none(store: ExchangeStore) -> None:
    broken = Exchange(id=2, request_id=None, started_at=1.0, outcome="done")  # type: ignore[arg-type]  # on purpose

    with pytest.raises(FootplateError):
        await store.add_many([_running(1), broken])

    assert await store.list() == []


async def test_what_ran_when_the_daemon_ended_was_cut(store: ExchangeStore) -> None:
    await store.add_many([_running(1), WHOLE])

    assert await store.cut_unfinished() == 1
    assert [exchange.outcome for exchange in await store.list()] == ["done", "cut"]


async def test_ids_go_on_after_a_restart(store: ExchangeStore) -> None:
    assert await store.newest_id() == 0

    await store.add_many([_running(41)])
    await store.add_many([])

    assert await store.newest_id() == 41
