"""Full-text search: what is found, how it is marked, and that the index keeps step with what is stored."""

import sqlite3
import string
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from footplate_daemon.store.database import Database
from footplate_daemon.store.migrations import MIGRATIONS
from footplate_daemon.store.search import SNIPPET_LIMIT, match_expression
from footplate_daemon.store.sessions import RESTORE_SECONDS, SessionStore
from footplate_daemon.wire import SearchHit, Session, SessionChange, Turn, TurnState

BEFORE_SEARCH = 3
"""Migrations that there were before the index."""


class Clock:
    """A clock that the test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database: Database, clock: Clock) -> SessionStore:
    return SessionStore(database, clock)


async def answered(
    store: SessionStore,
    session: Session,
    prompt: str = "Why?",
    answer: str = "",
    reasoning: str = "",
    at: float = 101.0,
) -> Turn:
    turn = await store.add_turn(session.id, prompt, {}, None, at)
    done = turn.model_copy(
        update={
            "state": TurnState.DONE,
            "answer": answer,
            "reasoning": reasoning,
            "runtime": "vllm",
            "variant": "vllm/qa",
            "model": "qa",
            "ended_at": at + 1,
        }
    )
    await store.finish_turn(done)
    return done


async def session_with(store: SessionStore, prompt: str = "Why?", answer: str = "") -> Session:
    session = await store.create("Chat", now=100.0)
    await answered(store, session, prompt, answer)
    return session


async def is_sound(database: Database) -> bool:
    """Compare the index with the texts, word for word; FTS5 raises if they differ."""

    def check(connection: sqlite3.Connection) -> bool:
        for index in ("turn_words", "title_words"):
            connection.execute(f"INSERT INTO {index} ({index}, rank) VALUES ('integrity-check', 1)")
        return True

    return await database.write(check)


def marked(hit: SearchHit) -> list[str]:
    return [hit.snippet[first:last] for first, last in hit.matches]


async def test_a_hit_says_where_and_who_answered(store: SessionStore) -> None:
    session = await store.create("Trains", now=100.0)
    await answered(store, session, "Why?", "The footplate is where the driver stands.")

    hit, *others = await store.search("driver")

    assert others == []
    assert (hit.session_id, hit.title, hit.turn, hit.field) == (session.id, "Trains", 1, "answer")
    assert (hit.runtime, hit.variant, hit.model, hit.at) == ("vllm", "vllm/qa", "qa", 101.0)
    assert hit.snippet == "The footplate is where the driver stands."
    assert hit.matches == ((27, 33),)


@pytest.mark.parametrize("field", ["prompt", "answer", "reasoning"])
async def test_prompts_answers_and_reasoning_are_searched(store: SessionStore, field: str) -> None:
    session = await store.create("Chat", now=100.0)
    await answered(store, session, **{"prompt": "Why?", field: "about boilers"})  # type: ignore[arg-type]

    assert [hit.field for hit in await store.search("boilers")] == [field]


async def test_titles_are_searched_and_come_first(store: SessionStore) -> None:
    titled = await store.create("Boilers and valves", now=100.0)
    told = await session_with(store, "What are boilers?")

    found = await store.search("boil")

    assert [(hit.session_id, hit.turn, hit.field) for hit in found] == [
        (titled.id, None, "title"),
        (told.id, 1, "prompt"),
    ]
    assert marked(found[0]) == ["Boilers"]


async def test_the_last_word_may_be_a_beginning_the_others_not(store: SessionStore) -> None:
    await session_with(store, "The kettle sings")

    assert await store.search("kettle si")
    assert not await store.search("kett sings")


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("odpowiedz", "odpowiedź"),
        ("ODPOWIEDŹ", "odpowiedz"),
        ("odpowiedz\u0301", "odpowiedź"),
        ("lodz", "Łódź"),
        ("Łódź", "lodz"),
        ("zazolc", "Zażółć"),
        ("cafe", "café"),
        ("strasse", "strasse"),
        ("模型", "模型"),
    ],
)
async def test_case_and_diacritics_do_not_matter(store: SessionStore, query: str, text: str) -> None:
    await session_with(store, f"see {text} here")

    assert [marked(hit) for hit in await store.search(query)] == [[text]]


async def test_every_word_must_be_there_in_any_order(store: SessionStore) -> None:
    both = await session_with(store, "steam", "and water")
    await session_with(store, "steam alone")

    assert [hit.session_id for hit in await store.search("water steam")] == [both.id]


async def test_a_word_in_a_prompt_counts_more_and_of_equals_the_newer_comes_first(
    store: SessionStore,
) -> None:
    session = await store.create("Chat", now=100.0)
    await answered(store, session, "one two", "three valve", at=101.0)
    await answered(store, session, "one valve", "three four", at=102.0)
    await answered(store, session, "one valve", "three four", at=103.0)

    assert [hit.turn for hit in await store.search("valve")] == [3, 2, 1]


@pytest.mark.parametrize(
    "query",
    [
        "",
        "   ",
        '"',
        '"""',
        "'; DROP TABLE turns; --",
        "steam OR",
        "AND",
        "NOT steam",
        "NEAR(steam water, 2)",
        "prompt: steam",
        "{prompt answer}: steam",
        "steam*",
        "*",
        "^steam",
        "(steam",
        "ste-am",
        "steam + water",
        "🚂",
        "🚂 steam 👩‍🚒",
        "\x00steam\x00",
        "\ufffd\u200b\u202e",
        "steam " * 2000,
        "x" * 10_000,
        "l" * 10_000,
        " ".join(str(number) for number in range(2000)),
    ],
)
async def test_no_query_is_an_error(store: SessionStore, query: str) -> None:
    await session_with(store, "steam and water")

    hits = await store.search(query)

    assert all(marked(hit) for hit in hits)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(query=st.text() | st.text(alphabet=string.punctuation + 'lłaN"*^: ', max_size=60))
async def test_not_even_by_chance(store: SessionStore, query: str) -> None:
    await store.search(query)


async def test_what_is_marked_stands_in_the_text_whatever_else_does(store: SessionStore) -> None:
    await session_with(store, "a <b>steam</b>\r\n<0123456789abcdef>steam\tengine 🚂 steam")

    (hit,) = await store.search("steam")

    assert marked(hit) == ["steam"] * 3
    assert "\n" not in hit.snippet


async def test_a_snippet_is_short_and_begins_near_what_was_found(store: SessionStore) -> None:
    long_word, page = "y" * 9000, "word " * 5000
    await session_with(store, f"{page} needle {page}")
    await session_with(store, f"{long_word} needle {long_word}")

    hits = await store.search("needle")

    assert len(hits) == 2
    for hit in hits:
        assert marked(hit) == ["needle"]
        assert len(hit.snippet) <= SNIPPET_LIMIT


async def test_no_more_than_asked_for_and_titles_leave_room(store: SessionStore) -> None:
    for _ in range(10):
        titled = await store.create("steam", now=100.0)
        await answered(store, titled, "steam")

    found = await store.search("steam", limit=6)

    assert [hit.turn for hit in found] == [None, None, 1, 1, 1, 1]
    assert len(await store.search("steam", limit=1)) == 1


async def test_an_answer_is_found_once_it_has_ended(store: SessionStore, database: Database) -> None:
    session = await store.create("Chat", now=100.0)
    turn = await store.add_turn(session.id, "question", {}, None, 101.0)
    await store.append_answer(session.id, 1, "kett", "think")
    await store.append_answer(session.id, 1, "le")

    while_it_comes = [await store.search(word) for word in ("question", "kettle", "think")]
    streaming = await store.get_turn(session.id, 1)
    await store.finish_turn(streaming.model_copy(update={"state": TurnState.DONE, "answer": "kettle on"}))
    when_it_has_ended = [await store.search(word) for word in ("question", "kettle", "think")]

    assert [len(hits) for hits in while_it_comes] == [1, 0, 0]
    assert [len(hits) for hits in when_it_has_ended] == [1, 1, 1]
    assert turn.number == 1
    assert await is_sound(database)


async def test_the_index_is_not_written_while_an_answer_comes(
    store: SessionStore, database: Database
) -> None:
    session = await store.create("Chat", now=100.0)
    await store.add_turn(session.id, "question", {}, None, 101.0)
    before = await database.read(_index_size)

    for _ in range(100):
        await store.append_answer(session.id, 1, "more and more ")

    assert await database.read(_index_size) == before


def _index_size(connection: sqlite3.Connection) -> list[tuple[int, bytes]]:
    return [tuple(row) for row in connection.execute("SELECT id, block FROM turn_words_data")]


async def test_a_turn_that_is_finished_twice_is_found_by_its_last_text(
    store: SessionStore, database: Database
) -> None:
    session = await store.create("Chat", now=100.0)
    turn = await answered(store, session, "q", "kettle")

    await store.finish_turn(turn.model_copy(update={"answer": "teapot"}))

    assert [len(await store.search(word)) for word in ("kettle", "teapot")] == [0, 1]
    assert await is_sound(database)


async def test_what_a_former_daemon_left_half_is_found_after_the_cut(
    store: SessionStore, database: Database
) -> None:
    session = await store.create("Chat", now=100.0)
    await store.add_turn(session.id, "question", {}, None, 101.0)
    await store.append_answer(session.id, 1, "half a kettle")

    await store.cut_unfinished(now=200.0)

    assert [hit.field for hit in await store.search("kettle")] == ["answer"]
    assert await is_sound(database)


async def test_a_new_title_is_found_the_old_one_not(store: SessionStore, database: Database) -> None:
    session = await store.create("kettle", now=100.0)

    await store.change(session.id, SessionChange(title="teapot"))

    assert [len(await store.search(word)) for word in ("kettle", "teapot")] == [0, 1]
    assert await is_sound(database)


async def test_the_deleted_is_not_found_the_restored_is(
    store: SessionStore, database: Database, clock: Clock
) -> None:
    session = await session_with(store, "kettle")

    await store.delete(session.id)
    deleted = await store.search("kettle")
    await store.restore(session.id)
    restored = await store.search("kettle")
    await store.delete(session.id)
    clock.now += RESTORE_SECONDS
    await store.purge()

    assert (len(deleted), len(restored)) == (0, 1)
    assert await store.search("kettle") == []
    assert await is_sound(database)


async def test_deleting_while_an_answer_comes_leaves_no_word_behind(
    store: SessionStore, database: Database, clock: Clock
) -> None:
    session = await store.create("Chat", now=100.0)
    await store.add_turn(session.id, "kettle", {}, None, 101.0)
    await store.append_answer(session.id, 1, "some words")

    await store.delete(session.id)
    clock.now += RESTORE_SECONDS
    await store.purge()

    assert await is_sound(database)
    assert await database.read(_documents) == 0


def _documents(connection: sqlite3.Connection) -> int:
    count: int = connection.execute("SELECT count(*) FROM turn_words_docsize").fetchone()[0]
    return count


async def test_copies_are_found_beside_the_original(store: SessionStore, database: Database) -> None:
    session = await session_with(store, "kettle", "steam")
    fork = await store.fork(session.id, 1, None, now=200.0)
    taken = await store.add(await store.get(session.id), now=300.0)

    assert {hit.session_id for hit in await store.search("steam")} == {session.id, fork.id, taken.id}
    assert await is_sound(database)


async def test_vacuum_does_not_mix_up_what_is_found(store: SessionStore, database: Database) -> None:
    gone = await session_with(store, "first")
    kept = await session_with(store, "kettle")
    await database.write(
        lambda connection: connection.execute("DELETE FROM sessions WHERE id = ?", (gone.id,))
    )

    await database.read(lambda connection: connection.execute("VACUUM"))

    assert [hit.session_id for hit in await store.search("kettle")] == [kept.id]
    assert await is_sound(database)


async def test_what_was_there_before_the_index_is_found_too(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for script in MIGRATIONS[:BEFORE_SEARCH]:
            connection.executescript(script)
        connection.execute(f"PRAGMA user_version = {BEFORE_SEARCH}")
        connection.execute("INSERT INTO sessions VALUES ('s1', 'Trains', 1.0, 2.0)")
        for number, state in enumerate(("done", "streaming"), start=1):
            connection.execute(
                "INSERT INTO turns (session_id, number, state, prompt, parameters, answer, asked_at, runtime)"
                " VALUES ('s1', ?, ?, 'question', '{\"seed\": 7}', 'kettle', 1.5, 'vllm')",
                (number, state),
            )
        connection.commit()

    async with Database.open(path) as database:
        store = SessionStore(database)
        before_the_cut = await store.search("kettle")
        await store.cut_unfinished(now=3.0)
        session = await store.get("s1")

        assert [hit.turn for hit in before_the_cut] == [1]
        assert len(await store.search("kettle")) == 2
        assert [hit.field for hit in await store.search("trains")] == ["title"]
        assert (session.title, session.turn_count, session.turns[0].parameters) == ("Trains", 2, {"seed": 7})
        assert session.turns[0].runtime == "vllm"
        assert await is_sound(database)


async def test_ten_thousand_turns(store: SessionStore, database: Database) -> None:
    session = await store.create("Long", now=100.0)
    turn = Turn(session_id="", number=1, state=TurnState.DONE, prompt="", asked_at=1.0, ended_at=2.0)
    turns = tuple(
        turn.model_copy(update={"number": number, "prompt": f"question number{number}", "answer": "steam"})
        for number in range(1, 10_001)
    )
    long = await store.add((await store.get(session.id)).model_copy(update={"turns": turns}), now=200.0)

    (hit,) = await store.search("question number7777")
    many = await store.search("st", limit=50)
    middle = await store.get(long.id, first=5001, limit=3)
    end = await store.get(long.id, last=2)

    assert (hit.session_id, hit.turn, marked(hit)) == (long.id, 7777, ["question", "number7777"])
    assert len({hit.turn for hit in many}) == 50
    assert ([turn.number for turn in middle.turns], middle.turn_count) == ([5001, 5002, 5003], 10_000)
    assert ([turn.number for turn in end.turns], end.turn_count) == ([9999, 10_000], 10_000)
    assert await is_sound(database)


def test_nothing_of_a_query_is_an_operator() -> None:
    assert match_expression('a"b OR') == '("a") AND ("b") AND ("or"*)'
    assert match_expression("łal") == '("lal"* OR "lał"* OR "łal"* OR "łał"*)'
    assert match_expression("🚂 -- ''") == ""
