import asyncio
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from footplate_daemon.errors import Conflict, NotFound
from footplate_daemon.store.database import Database
from footplate_daemon.store.sessions import SessionStore, title_of
from footplate_daemon.wire import Session, Turn, TurnError, TurnState


@pytest.fixture
def store(database: Database) -> SessionStore:
    return SessionStore(database)


@pytest.fixture
async def session(store: SessionStore) -> Session:
    return await store.create("", now=100.0)


async def _ask(store: SessionStore, session: Session, prompt: str = "Why?", now: float = 101.0) -> Turn:
    return await store.add_turn(session.id, prompt, {"temperature": 0.5}, None, now)


async def test_a_new_session_is_empty(store: SessionStore) -> None:
    created = await store.create("Cooking", now=100.0)

    session = await store.get(created.id)
    assert (session.title, session.turns, session.turn_count) == ("Cooking", (), 0)
    assert (session.created_at, session.updated_at, session.last_variant) == (100.0, 100.0, None)


async def test_ids_are_short_url_safe_distinct_and_sort_by_time(store: SessionStore) -> None:
    ids = [(await store.create("", now=1_700_000_000 + n / 1000)).id for n in range(20)]
    same_moment = {(await store.create("", now=1_800_000_000.0)).id for _ in range(50)}

    assert ids == sorted(ids)
    assert len(same_moment) == 50
    assert all(len(session_id) == 12 and session_id.isalnum() for session_id in [*ids, *same_moment])


async def test_a_turn_waits_with_the_next_number(store: SessionStore, session: Session) -> None:
    first = await _ask(store, session)
    second = await _ask(store, session, "And then?")

    assert (first.number, first.state, first.prompt, first.answer) == (1, TurnState.WAITING, "Why?", "")
    assert second.number == 2
    assert (await store.get(session.id)).turns == (first, second)


async def test_concurrent_questions_get_different_numbers(store: SessionStore, session: Session) -> None:
    turns = await asyncio.gather(*(_ask(store, session) for _ in range(20)))

    assert sorted(turn.number for turn in turns) == list(range(1, 21))


async def test_text_is_appended_with_what_is_known_of_who_answers(
    store: SessionStore, session: Session
) -> None:
    turn = await _ask(store, session)

    await store.append_answer(
        session.id, turn.number, "", "Hm. ", runtime="vllm", variant="vllm/qa", model="qa"
    )
    await store.append_answer(session.id, turn.number, "Zażółć ", "So.", request_id="r1")
    await store.append_answer(session.id, turn.number, "gęślą")

    streaming = await store.get_turn(session.id, turn.number)
    assert (streaming.state, streaming.answer, streaming.reasoning) == (
        "streaming",
        "Zażółć gęślą",
        "Hm. So.",
    )
    assert (streaming.runtime, streaming.variant, streaming.model) == ("vllm", "vllm/qa", "qa")
    assert streaming.request_id == "r1"


async def test_many_answers_grow_at_once_without_mixing(store: SessionStore, session: Session) -> None:
    turns = [await _ask(store, session) for _ in range(8)]

    await asyncio.gather(
        *(
            store.append_answer(session.id, turn.number, f"{turn.number}:{part} ")
            for part in range(25)
            for turn in turns
        )
    )

    for turn in (await store.get(session.id)).turns:
        assert turn.answer == "".join(f"{turn.number}:{part} " for part in range(25))


async def test_a_finished_turn_is_stored_whole(store: SessionStore, session: Session) -> None:
    turn = await _ask(store, session)
    finished = turn.model_copy(
        update={
            "state": TurnState.DONE,
            "answer": "Because.",
            "reasoning": "Hm.",
            "runtime": "vllm",
            "variant": "vllm/qa",
            "model": "qa",
            "ended_at": 109.0,
            "ttft_seconds": 0.2,
            "tokens_per_second": 40.5,
            "prompt_tokens": 3,
            "completion_tokens": 2,
            "finish_reason": "stop",
            "request_id": "r1",
        }
    )

    await store.finish_turn(finished)

    stored = await store.get(session.id)
    assert stored.turns == (finished,)
    assert (stored.updated_at, stored.last_variant) == (109.0, "vllm/qa")


async def test_a_failed_turn_keeps_its_error_and_its_text(store: SessionStore, session: Session) -> None:
    turn = await _ask(store, session)
    error = TurnError(code="engine_failed", message="It died.", hint="Ask again.")

    await store.finish_turn(
        turn.model_copy(update={"state": TurnState.FAILED, "answer": "Bec", "error": error})
    )

    failed = await store.get_turn(session.id, 1)
    assert (failed.state, failed.answer, failed.error) == (TurnState.FAILED, "Bec", error)


async def test_text_that_comes_after_the_end_is_refused(store: SessionStore, session: Session) -> None:
    turn = await _ask(store, session)
    await store.finish_turn(turn.model_copy(update={"state": TurnState.STOPPED, "answer": "Bec"}))

    with pytest.raises(Conflict, match="has ended: stopped"):
        await store.append_answer(session.id, 1, "ause")

    assert (await store.get_turn(session.id, 1)).answer == "Bec"


async def test_at_the_start_unanswered_turns_become_failed_and_keep_what_came(
    store: SessionStore, session: Session
) -> None:
    done, half, waiting = [await _ask(store, session) for _ in range(3)]
    await store.finish_turn(done.model_copy(update={"state": TurnState.DONE, "answer": "Whole."}))
    await store.append_answer(session.id, half.number, "Hal")

    count = await store.cut_unfinished(now=200.0)

    whole, cut, never = (await store.get(session.id)).turns
    assert count == 2
    assert (whole.state, whole.answer, whole.error) == (TurnState.DONE, "Whole.", None)
    assert (cut.state, cut.answer, cut.ended_at) == (TurnState.FAILED, "Hal", 200.0)
    assert cut.error is not None
    assert (cut.error.code, cut.error.message) == (
        "unavailable",
        "The daemon was stopped while this was being answered.",
    )
    assert (never.number, never.state, never.answer) == (waiting.number, TurnState.FAILED, "")


async def test_an_untitled_session_takes_its_title_from_the_first_prompt(
    store: SessionStore, session: Session
) -> None:
    await _ask(store, session, "\n  What is   a footplate?\nAnd why?")
    await _ask(store, session, "Something else")

    assert (await store.get(session.id)).title == "What is a footplate?"


async def test_a_title_that_was_given_stays(store: SessionStore) -> None:
    session = await store.create("Trains", now=100.0)

    await _ask(store, session)

    assert (await store.get(session.id)).title == "Trains"


@pytest.mark.parametrize(
    ("prompt", "title"),
    [
        ("short", "short"),
        ("", ""),
        ("\n \n", ""),
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 59 + "…"),
        ("word " * 20, "word " * 11 + "word…"),
        ("ą" * 50 + " " + "b" * 50, "ą" * 50 + "…"),
    ],
)
def test_titles_are_cut_at_a_word(prompt: str, title: str) -> None:
    assert title_of(prompt) == title
    assert len(title_of(prompt)) <= 60


async def test_the_list_begins_with_what_was_used_last(store: SessionStore) -> None:
    old = await store.create("old", now=100.0)
    new = await store.create("new", now=200.0)
    await store.add_turn(old.id, "Why?", {}, None, now=300.0)

    assert [session.id for session in await store.list()] == [old.id, new.id]
    assert [session.turn_count for session in await store.list(limit=1)] == [1]


async def test_renaming_changes_the_title_and_nothing_else(store: SessionStore, session: Session) -> None:
    renamed = await store.rename(session.id, "Better")

    assert renamed == session.model_copy(update={"title": "Better"})


async def test_deleting_takes_the_turns_along(store: SessionStore, session: Session) -> None:
    await _ask(store, session)

    await store.delete(session.id)

    assert await store.list() == []
    with pytest.raises(NotFound):
        await store.get_turn(session.id, 1)


async def test_what_does_not_exist_is_not_found_and_the_hint_says_what_does(
    store: SessionStore, session: Session
) -> None:
    turn = await _ask(store, session)
    elsewhere = turn.model_copy(update={"session_id": "nope"})

    for missing in (
        store.get("nope"),
        store.rename("nope", "x"),
        store.delete("nope"),
        store.add_turn("nope", "Why?", {}, None, 1.0),
        store.append_answer("nope", 1, "x"),
        store.finish_turn(elsewhere),
    ):
        with pytest.raises(NotFound) as caught:
            await missing
        assert session.id in str(caught.value.hint)
    with pytest.raises(NotFound) as no_turn:
        await store.get_turn(session.id, 7)
    assert no_turn.value.hint == "Its turns are 1 to 1."


WRITER = """
import asyncio, sys
from pathlib import Path
from footplate_daemon.store.database import Database
from footplate_daemon.store.sessions import SessionStore

async def main():
    async with Database.open(Path(sys.argv[1])) as database:
        store = SessionStore(database)
        session = await store.create("", 1.0)
        await store.add_turn(session.id, "Why?", {}, None, 2.0)
        for part in range(1_000_000):
            await store.append_answer(session.id, 1, f"{part} ")
            print(session.id, part, flush=True)

asyncio.run(main())
"""


async def test_kill_9_loses_nothing_of_an_answer_that_was_stored(path: Path) -> None:
    writer = await asyncio.create_subprocess_exec(sys.executable, "-c", WRITER, str(path), stdout=PIPE)
    assert writer.stdout is not None
    reports = [await writer.stdout.readline() for _ in range(20)]
    writer.kill()
    reports += (await writer.stdout.read()).splitlines(keepends=True)
    await writer.wait()
    session_id, last_part = next(line for line in reversed(reports) if line.endswith(b"\n")).decode().split()

    async with Database.open(path) as database:
        store = SessionStore(database)
        cut = await store.cut_unfinished(now=3.0)
        turn = await store.get_turn(session_id, 1)

    parts = turn.answer.split()
    assert cut == 1
    assert turn.state is TurnState.FAILED
    assert parts == [str(part) for part in range(len(parts))]
    assert len(parts) > int(last_part)
