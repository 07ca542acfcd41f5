import asyncio
import sqlite3
from array import array
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from footplate_daemon import settings
from footplate_daemon.errors import Conflict, NotFound
from footplate_daemon.gateway import reading
from footplate_daemon.gateway.ledger import KEPT_BODY_BYTES, KEPT_WHILE_FAILING, Entry, Ledger
from footplate_daemon.store.database import Database
from footplate_daemon.store.exchanges import Exchange, ExchangeStore, Outcome
from footplate_daemon.store.packing import LIMIT, Packing
from footplate_daemon.wire import ExchangeFilter

CHAT = "/v1/chat/completions"
ALL = ExchangeFilter(limit=10_000)
LARGE = b"x" * 4 * 1024 * 1024
SECONDS = 60


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "footplate.db"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    async with Database.open(path) as database:
        yield database


@pytest.fixture
def store(database: Database) -> ExchangeStore:
    return ExchangeStore(database)


@pytest.fixture
async def ledger(store: ExchangeStore) -> Ledger:
    ledger = Ledger(store)
    await ledger.open()
    return ledger


def begin(
    ledger: Ledger,
    outcome: Outcome = "running",
    *,
    path: str = CHAT,
    request: bytes = b"",
    cancel: Callable[[], None] = lambda: None,
) -> Entry:
    number = ledger.next_id()
    exchange = Exchange(
        id=number, request_id=f"r{number}", started_at=100.0 + number, outcome=outcome, path=path
    )
    entry = Entry(exchange, cancel, request=request)
    ledger.begin(entry)
    return entry


def end(ledger: Ledger, entry: Entry, outcome: Outcome = "done") -> None:
    entry.exchange.outcome = outcome
    ledger.end(entry)


def pass_one(ledger: Ledger, *, request: bytes = b"", answer: Sequence[bytes] = ()) -> Entry:
    entry = begin(ledger, request=request)
    entry.answer = Packing(answer)
    end(ledger, entry)
    return entry


async def stored(store: ExchangeStore) -> list[tuple[int, str]]:
    return [(exchange.id, exchange.outcome) for exchange in await store.list(ALL)]


async def fill_the_disk(database: Database) -> None:
    def fill(connection: sqlite3.Connection) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}").close()

    await database.read(fill)


async def free_the_disk(database: Database) -> None:
    await database.read(lambda connection: connection.execute("PRAGMA max_page_count = 1000000").close())


@pytest.mark.parametrize("outcome", ["done", "failed", "cancelled"])
async def test_every_exchange_that_ended_is_stored(
    ledger: Ledger, store: ExchangeStore, outcome: Outcome
) -> None:
    end(ledger, begin(ledger), outcome)

    await ledger.flush()

    assert await stored(store) == [(1, outcome)]


async def test_one_that_lasts_is_stored_while_it_waits_and_runs_and_when_it_has_ended(
    ledger: Ledger, store: ExchangeStore
) -> None:
    entry = begin(ledger, "waiting", request=b"{}")
    await ledger.flush()
    assert await stored(store) == []

    await ledger.flush()
    assert await stored(store) == [(1, "waiting")]

    entry.exchange.outcome = "running"
    await ledger.flush()
    assert await stored(store) == [(1, "running")]

    entry.answer.add(b"So.")
    end(ledger, entry)
    await ledger.flush()
    assert await stored(store) == [(1, "done")]
    body = await store.body(1)
    assert body is not None
    assert body.read() == (b"{}", b"So.")


async def test_what_was_under_way_at_a_kill_is_cut_at_the_next_start(path: Path) -> None:
    async with Database.open(path) as killed:
        ledger = Ledger(ExchangeStore(killed))
        await ledger.open()
        pass_one(ledger)
        begin(ledger, request=b'{"messages": []}')
        await ledger.flush()
        await ledger.flush()

        async with Database.open(path) as database:  # what is there without the first one's close
            store = ExchangeStore(database)
            assert await store.cut_unfinished() == 1
            after = Ledger(store)
            await after.open()
            record = await after.get(2)

    assert (record.exchange.outcome, record.exchange.total_ms) == ("cut", None)
    assert record.exchange.error
    assert record.body is not None
    assert record.body.read() == (b'{"messages": []}', b"")
    assert after.next_id() == 3


async def test_what_is_entered_is_stored_at_the_end_of_its_task(ledger: Ledger, store: ExchangeStore) -> None:
    running = asyncio.create_task(ledger.run())
    await asyncio.sleep(0)
    pass_one(ledger)

    running.cancel()
    await asyncio.wait({running})

    assert await stored(store) == [(1, "done")]


async def test_a_full_disk_keeps_what_ended_and_stores_it_in_order_when_there_is_room(
    ledger: Ledger, store: ExchangeStore, database: Database
) -> None:
    told: list[int] = []
    ledger.listeners.append(lambda group: told.extend(entry.exchange.id for entry in group))
    await fill_the_disk(database)
    for _ in range(300):
        pass_one(ledger, request=b"Why?", answer=[b"So."])
    await ledger.flush()
    pass_one(ledger)
    await ledger.flush()
    assert await stored(store) == []
    assert len(await ledger.find(ALL)) == 301

    await free_the_disk(database)
    await ledger.flush()

    assert [number for number, _ in await stored(store)] == list(range(301, 0, -1))
    assert told == list(range(1, 302))
    assert await store.body(1) is not None


async def test_while_the_disk_is_full_the_newest_are_kept_within_bounds(
    ledger: Ledger, store: ExchangeStore, database: Database
) -> None:
    await fill_the_disk(database)
    for _ in range(KEPT_WHILE_FAILING):
        pass_one(ledger)
    await ledger.flush()
    too_many = KEPT_BODY_BYTES // len(LARGE) + 5
    for _ in range(too_many):
        pass_one(ledger, request=LARGE)
    await ledger.flush()

    await free_the_disk(database)
    await ledger.flush()

    numbers = [number for number, _ in await stored(store)]
    assert (numbers[0], numbers[-1]) == (KEPT_WHILE_FAILING + too_many, too_many + 1)
    newest = range(numbers[0] - too_many + 1, numbers[0] + 1)
    assert [bool(await store.body(number)) for number in newest] == [False] * 5 + [True] * (too_many - 5)


async def test_one_that_cannot_be_stored_as_it_is_holds_nobody_up(
    ledger: Ledger, store: ExchangeStore
) -> None:
    pass_one(ledger)
    odd = pass_one(ledger)
    odd.exchange.error = "half a character: \udc80"
    impossible = pass_one(ledger)
    impossible.exchange.request_id = None  # type: ignore[assignment]  # on purpose
    pass_one(ledger)

    await ledger.flush()

    assert await stored(store) == [(4, "done"), (2, "done"), (1, "done")]
    assert (await store.get(2)).error == "half a character: ?"


async def test_a_flush_that_is_cancelled_loses_nothing_and_stores_nothing_twice(
    ledger: Ledger, store: ExchangeStore
) -> None:
    pass_one(ledger, request=b"Why?", answer=[b"So."])
    await ledger.flush()
    size = await store.size()
    pass_one(ledger, request=b"Why?", answer=[b"So."])

    flushing = asyncio.create_task(ledger.flush())
    await asyncio.sleep(0)
    flushing.cancel()
    await asyncio.wait({flushing})
    await ledger.flush()

    assert await stored(store) == [(2, "done"), (1, "done")]
    assert await store.size() == 2 * size


@pytest.mark.parametrize(
    ("gaps", "p50", "p99"),
    [
        ([0.5], 500.0, 500.0),
        ([0.25, 0.125], 125.0, 250.0),
        ([n / 1000 for n in range(100, 0, -1)], 50.0, 99.0),
    ],
)
async def test_the_gaps_of_a_stream_become_percentiles(
    ledger: Ledger, store: ExchangeStore, gaps: list[float], p50: float, p99: float
) -> None:
    entry = begin(ledger)
    entry.gaps = array("d", gaps)
    end(ledger, entry)

    await ledger.flush()

    exchange = await store.get(1)
    assert [exchange.itl_p50_ms, exchange.itl_p99_ms] == pytest.approx([p50, p99])


@pytest.mark.parametrize(
    ("kept", "chat", "embeddings"), [("chat", True, False), ("all", True, True), ("none", False, False)]
)
async def test_bodies_are_kept_as_the_configuration_says(
    ledger: Ledger, kept: str, chat: bool, embeddings: bool
) -> None:
    ledger.rules = settings.Ledger.model_validate({"keep_bodies": kept})

    assert (ledger.keeps(CHAT), ledger.keeps("/v1/embeddings")) == (chat, embeddings)


async def test_bodies_are_no_longer_kept_as_soon_as_the_configuration_says_so(
    ledger: Ledger, store: ExchangeStore
) -> None:
    pass_one(ledger, request=b"Why?", answer=[b"So."])

    ledger.rules = settings.Ledger(keep_bodies="none")
    await ledger.flush()

    assert await store.body(1) is None


async def test_an_answer_that_is_too_long_is_not_kept_and_that_is_said(ledger: Ledger) -> None:
    pass_one(ledger, request=b'{"model": "qa"}', answer=[b"x" * LIMIT, b"x"])
    await ledger.flush()

    whole = reading.whole(await ledger.get(1))

    assert whole.request is not None
    assert whole.request.value == {"model": "qa"}
    assert whole.answer is not None
    assert (whole.answer.kept, whole.answer.byte_count) == (False, LIMIT + 1)


async def test_those_in_memory_are_listed_with_the_stored_each_once(ledger: Ledger) -> None:
    pass_one(ledger)
    lasting = begin(ledger, "waiting")
    await ledger.flush()
    await ledger.flush()
    lasting.exchange.outcome = "running"
    pass_one(ledger)
    begin(ledger, "waiting")

    found = await ledger.find(ALL)

    assert [(each.id, each.outcome) for each in found] == [
        (4, "waiting"),
        (3, "done"),
        (2, "running"),
        (1, "done"),
    ]
    assert [each.id for each in await ledger.find(ExchangeFilter(limit=2, before=4))] == [3, 2]
    assert await ledger.find(ExchangeFilter(outcome="failed")) == []


async def test_those_under_way_have_their_times_so_far(ledger: Ledger) -> None:
    begin(ledger, "waiting")
    begin(ledger, "running").exchange.queue_ms = 3.0

    running, waiting = await ledger.find(ALL)

    assert waiting.total_ms is not None
    assert waiting.total_ms > 0
    assert waiting.queue_ms == waiting.total_ms
    assert (running.queue_ms, (running.total_ms or 0) > 3.0) == (3.0, True)


async def test_one_under_way_is_shown_with_what_came_so_far(ledger: Ledger) -> None:
    entry = begin(ledger, request=b"{}")
    entry.answer.add(b'data: {"choices": [{"delta": {"content": "So"}}]}\n\n')

    whole = reading.whole(await ledger.get(1))

    assert (whole.outcome, whole.text) == ("running", "So")


async def test_one_under_way_is_cancelled_and_one_that_has_ended_is_not(ledger: Ledger) -> None:
    cancelled: list[str] = []
    begin(ledger, cancel=lambda: cancelled.append("first"))
    pass_one(ledger)

    await ledger.cancel(1)
    with pytest.raises(Conflict, match="has ended: done"):
        await ledger.cancel(2)
    with pytest.raises(NotFound):
        await ledger.cancel(3)

    assert cancelled == ["first"]


async def test_followers_see_the_last_then_each_beginning_and_end_once(ledger: Ledger) -> None:
    pass_one(ledger)
    await ledger.flush()
    pass_one(ledger)
    entry = begin(ledger, "waiting")
    following = ledger.follow(ALL)

    async with asyncio.timeout(SECONDS):
        first = [await anext(following) for _ in range(3)]
        entry.exchange.outcome = "running"
        then = await anext(following)
        end(ledger, entry, "failed")
        pass_one(ledger)
        await ledger.flush()
        last = [await anext(following) for _ in range(2)]
    await following.aclose()  # type: ignore[attr-defined]  # it is a generator

    assert [each.id for each in first] == [1, 2, 3]
    assert (then.id, then.outcome) == (3, "running")
    assert [(each.id, each.outcome) for each in last] == [(3, "failed"), (4, "done")]
    assert ledger.listeners == []


async def test_pruning_follows_the_configuration(ledger: Ledger, store: ExchangeStore) -> None:
    pass_one(ledger)
    await ledger.flush()

    ledger.rules = settings.Ledger.model_validate({"keep_days": False})
    await ledger.prune()
    assert len(await stored(store)) == 1

    ledger.rules = settings.Ledger.model_validate({"keep_days": 1})
    await ledger.prune()
    assert await stored(store) == []


STREAMS = {
    "chat": (
        b'data: {"choices": [{"delta": {"reasoning_content": "Hm."}}]}\r\n\r\n'
        b'data: {"choices": [{"delta": {"content": "S"}}]}\n\n'
        b'data: {"choices": [{"delta": {"content": "o."}}]}\n\n'
        b'data: {"choices": [], "usage": {}}\n\ndata: [DONE]\n\n'
    ),
    "completion": b'data: {"choices": [{"text": "S"}]}\n\ndata: {"choices": [{"text": "o."}]}\n\n',
    "responses": (
        b"event: response.reasoning_text.delta\n"
        b'data: {"type": "response.reasoning_text.delta", "delta": "Hm."}\n\n'
        b'event: response.output_text.delta\ndata: {"type": "response.output_text.delta", "delta": "So."}\n\n'
        b'data: {"type": "response.function_call_arguments.delta", "delta": "{}"}\n\n'
    ),
    "messages": (
        b'data: {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "Hm."}}\n\n'
        b'data: {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "So."}}\n\n'
    ),
    "whole chat": b'{"choices": [{"message": {"content": "So.", "reasoning": "Hm."}}]}',
    "whole completion": b' {"choices": [{"text": "So."}]}',
    "whole responses": (
        b'{"output": [{"type": "reasoning", "summary": [{"text": "Hm."}]},'
        b' {"type": "message", "content": [{"type": "output_text", "text": "So."}]}]}'
    ),
    "whole messages": b'{"content": [{"thinking": "Hm."}, {"type": "text", "text": "So."}]}',
}


@pytest.mark.parametrize("form", STREAMS)
def test_what_an_answer_says_is_read_in_every_form(form: str) -> None:
    text, reasoning = reading.said(STREAMS[form])

    assert text == "So."
    assert reasoning == ("" if "completion" in form else "Hm.")


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        b"{",
        b"[]",
        b"data: 1\n\n",
        b'{"choices": 3}',
        b'{"choices": [[]]}',
        b'data: {"delta": 1}\n\n',
        b"\xff",
    ],
)
def test_an_odd_answer_says_nothing(odd: bytes) -> None:
    assert reading.said(odd) == ("", "")
