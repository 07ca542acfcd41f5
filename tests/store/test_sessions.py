import asyncio
import base64
import sqlite3
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from footplate_daemon.attachments import File
from footplate_daemon.errors import Conflict, Invalid, NotFound
from footplate_daemon.store.database import Database
from footplate_daemon.store.sessions import RESTORE_SECONDS, Branch, SessionStore, title_of
from footplate_daemon.wire import Session, SessionChange, Turn, TurnError, TurnState


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
            "preset": "balanced",
            "profile": "default",
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


async def test_the_pages_of_the_list_hold_each_session_once(store: SessionStore) -> None:
    made = {(await store.create(str(n), now=100.0 + n // 3)).id for n in range(10)}

    pages, before = [], None
    while page := await store.list(limit=4, before=before):
        pages.append(page)
        before = (page[-1].updated_at, page[-1].id)

    listed = [session for page in pages for session in page]
    assert [len(page) for page in pages] == [4, 4, 2]
    assert {session.id for session in listed} == made
    assert listed == await store.list()


async def test_a_session_that_is_used_between_two_pages_hides_no_other(store: SessionStore) -> None:
    oldest, middle, newest = [await store.create(str(n), now=100.0 + n) for n in range(3)]

    first = await store.list(limit=2)
    await _ask(store, middle, now=300.0)
    second = await store.list(limit=2, before=(first[-1].updated_at, first[-1].id))

    assert [session.id for session in first] == [newest.id, middle.id]
    assert [session.id for session in second] == [oldest.id]


@pytest.mark.parametrize(
    ("part", "numbers"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"first": 4}, [4, 5]),
        ({"first": 2, "limit": 2}, [2, 3]),
        ({"first": 9}, []),
        ({"last": 2}, [4, 5]),
        ({"last": 99}, [1, 2, 3, 4, 5]),
    ],
)
async def test_a_part_of_a_session_says_how_long_the_whole_is(
    store: SessionStore, session: Session, part: dict[str, int], numbers: list[int]
) -> None:
    for _ in range(5):
        await _ask(store, session)

    given = await store.get(session.id, **part)

    assert [turn.number for turn in given.turns] == numbers
    assert given.turn_count == 5


async def test_what_is_set_for_a_session_is_kept_and_only_what_is_given_changes(
    store: SessionStore,
) -> None:
    session = await store.create("A", now=1.0, system="Be brief.", parameters={"seed": 1})

    titled = await store.change(session.id, SessionChange(title="B"))
    warmer = await store.change(session.id, SessionChange(parameters={"temperature": 0.9}))
    plain = await store.change(session.id, SessionChange(system=None))
    same = await store.change(session.id, SessionChange())

    assert (titled.title, titled.system, titled.parameters) == ("B", "Be brief.", {"seed": 1})
    assert (warmer.system, warmer.parameters) == ("Be brief.", {"temperature": 0.9})
    assert (plain.system, plain.parameters) == (None, {"temperature": 0.9})
    assert same == plain == await _listed(store, session)


async def _listed(store: SessionStore, session: Session) -> Session:
    return next(each for each in await store.list() if each.id == session.id)


async def test_half_a_character_is_refused_wherever_it_hides(store: SessionStore, session: Session) -> None:
    for change in (
        SessionChange.model_construct({"title"}, title="\ud800"),
        SessionChange(parameters={"stop": ["\ud800"]}),
    ):
        with pytest.raises(Invalid):
            await store.change(session.id, change)


async def test_renaming_changes_the_title_and_nothing_else(store: SessionStore, session: Session) -> None:
    renamed = await store.change(session.id, SessionChange(title="Better"))

    assert renamed == session.model_copy(update={"title": "Better"})


async def test_deleting_takes_the_turns_along(store: SessionStore, session: Session) -> None:
    await _ask(store, session)

    await store.delete(session.id)

    assert await store.list() == []
    with pytest.raises(NotFound):
        await store.get_turn(session.id, 1)
    for gone in (
        store.get(session.id),
        store.delete(session.id),
        store.change(session.id, SessionChange(title="x")),
        store.fork(session.id, 1, None, 1.0),
        store.add_turn(session.id, "Why?", {}, None, 1.0),
    ):
        with pytest.raises(NotFound) as caught:
            await gone
        assert caught.value.hint == (
            f"It was deleted; bring it back: footplate sessions restore {session.id}"
        )


async def test_a_deleted_session_can_be_brought_back_whole(store: SessionStore, session: Session) -> None:
    await _ask(store, session)
    whole = await store.get(session.id)

    await store.delete(session.id)
    restored = await store.restore(session.id)
    again = await store.restore(session.id)

    assert await store.get(session.id) == whole
    assert restored == again == await _listed(store, session)


async def test_after_a_while_it_is_gone_for_good(database: Database, session: Session) -> None:
    moments = iter([1000.0, 1000.0 + RESTORE_SECONDS - 1, 2000.0, 2000.0 + RESTORE_SECONDS])
    store = SessionStore(database, lambda: next(moments))

    await store.delete(session.id)
    await store.restore(session.id)
    await store.delete(session.id)

    with pytest.raises(NotFound):
        await store.restore(session.id)


async def test_deleting_another_session_purges_what_was_deleted_long_ago(
    database: Database, session: Session
) -> None:
    moments = iter([1000.0, 1000.0 + RESTORE_SECONDS])
    store = SessionStore(database, lambda: next(moments))
    other = await store.create("other", now=100.0)

    await store.delete(session.id)
    await store.delete(other.id)

    assert await database.read(_ids) == [other.id]


async def test_purging_takes_only_what_nobody_can_bring_back(database: Database, session: Session) -> None:
    moments = iter([1000.0, 1300.0, 1000.0 + RESTORE_SECONDS])
    store = SessionStore(database, lambda: next(moments))
    later = await store.create("later", now=100.0)
    kept = await store.create("kept", now=101.0)

    await store.delete(session.id)
    await store.delete(later.id)
    count = await store.purge()

    assert count == 1
    assert await database.read(_ids) == [later.id, kept.id]


def _ids(connection: sqlite3.Connection) -> list[str]:
    return [row["id"] for row in connection.execute("SELECT id FROM sessions ORDER BY id")]


async def test_a_fork_has_copies_of_the_first_turns_and_goes_its_own_way(store: SessionStore) -> None:
    session = await store.create("A", now=1.0, system="Be brief.", parameters={"seed": 1})
    for answer in ("one", "two", "three"):
        await _finished(store, await _ask(store, session), answer=answer)
    await store.label_turn((await store.get_turn(session.id, 2)).model_copy(update={"preset": "balanced"}))

    fork = await store.fork(session.id, 2, None, now=500.0)
    await _ask(store, fork, "Another way?", now=600.0)

    old, new = await store.get(session.id), await store.get(fork.id)
    assert (fork.forked_from, fork.forked_turn, fork.turn_count) == (session.id, 2, 2)
    assert (fork.title, fork.system, fork.parameters) == ("A", "Be brief.", {"seed": 1})
    assert (fork.created_at, fork.updated_at) == (500.0, 500.0)
    copies = tuple(turn.model_copy(update={"session_id": fork.id}) for turn in old.turns[:2])
    assert new.turns[:2] == copies
    assert [turn.prompt for turn in new.turns] == ["Why?", "Why?", "Another way?"]
    assert len(old.turns) == 3


async def test_a_fork_outlives_its_origin(store: SessionStore, session: Session) -> None:
    await _finished(store, await _ask(store, session))
    fork = await store.fork(session.id, 1, "Mine", now=500.0)

    await store.delete(session.id)

    kept = await store.get(fork.id)
    assert (kept.title, kept.forked_from, len(kept.turns)) == ("Mine", session.id, 1)


async def test_nothing_is_forked_from_a_turn_that_is_being_answered(
    store: SessionStore, session: Session
) -> None:
    await _ask(store, session)

    with pytest.raises(Conflict, match="still being answered"):
        await store.fork(session.id, 1, None, now=500.0)
    with pytest.raises(NotFound):
        await store.fork(session.id, 2, None, now=500.0)


async def test_who_was_to_answer_is_known_even_if_nothing_came(store: SessionStore, session: Session) -> None:
    turn = await _ask(store, session)
    labels = {
        "runtime": "vllm",
        "variant": "vllm/qa",
        "model": "qa",
        "preset": "balanced",
        "profile": "default+precise",
        "request_id": "r1",
    }

    await store.label_turn(turn.model_copy(update=labels))
    await store.cut_unfinished(now=200.0)

    cut = await store.get_turn(session.id, 1)
    assert cut.model_dump(include=set(labels)) == labels
    assert (cut.state, cut.parameters) == (TurnState.FAILED, {"temperature": 0.5})


async def _finished(store: SessionStore, turn: Turn, **fields: object) -> Turn:
    done = turn.model_copy(update={"state": TurnState.DONE, "ended_at": 150.0, **fields})
    await store.finish_turn(done)
    return done


async def test_what_does_not_exist_is_not_found_and_the_hint_says_what_does(
    store: SessionStore, session: Session
) -> None:
    turn = await _ask(store, session)
    elsewhere = turn.model_copy(update={"session_id": "nope"})

    for missing in (
        store.get("nope"),
        store.change("nope", SessionChange(title="x")),
        store.delete("nope"),
        store.add_turn("nope", "Why?", {}, None, 1.0),
        store.append_answer("nope", 1, "x"),
        store.finish_turn(elsewhere),
        store.label_turn(elsewhere),
        store.restore("nope"),
        store.fork("nope", 1, None, 1.0),
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


IMAGE = File("a.png", "image/png", b"\x89PNG\r\n\x1a\nbytes")
NOTES = File("notes.txt", "text/plain", b"Milk")


async def test_a_turn_knows_where_it_stands_and_what_was_attached(
    store: SessionStore, session: Session
) -> None:
    await _finished(store, await _ask(store, session))

    turn = await store.add_turn(
        session.id, "Again", {}, None, 5.0, branch=Branch(instead_of=1), files=[IMAGE, NOTES]
    )
    await _finished(store, turn)

    kept = await store.get_turn(session.id, 2)
    assert (kept.instead_of, kept.after, kept.continue_of) == (1, None, None)
    assert [(each.name, each.byte_count, each.data) for each in kept.attachments] == [
        ("a.png", 13, None),
        ("notes.txt", 4, None),
    ]
    assert await store.files(session.id, [1, 2]) == {1: (), 2: (IMAGE, NOTES)}


async def test_a_fork_and_an_export_have_the_attachments_too(store: SessionStore, session: Session) -> None:
    turn = await store.add_turn(session.id, "What is this?", {}, None, 5.0, files=[IMAGE])
    await _finished(store, turn)

    fork = await store.fork(session.id, 1, None, 6.0)
    whole = await store.whole(session.id)
    imported = await store.add(whole, 7.0)
    await store.delete(session.id)

    assert await store.files(fork.id, [1]) == {1: (IMAGE,)}
    assert await store.files(imported.id, [1]) == {1: (IMAGE,)}
    assert base64.b64decode(whole.turns[0].attachments[0].data or "") == IMAGE.data


async def test_whoever_follows_the_list_hears_of_each_change_but_not_of_text_that_streams_in(
    store: SessionStore, session: Session
) -> None:
    changes = store.changes.follow()
    before = (await anext(changes)).version

    turn = await _ask(store, session)
    await store.append_answer(session.id, turn.number, "Because.")
    await store.change(session.id, SessionChange(title="Why"))
    await store.delete(session.id)
    await store.restore(session.id)

    assert (await anext(changes)).version == before + 4
