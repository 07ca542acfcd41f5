"""A batch from its file to its last line."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from footplate_daemon.batches.lines import answered
from footplate_daemon.errors import Busy, Conflict, EngineFailed, Invalid, NotFound, Unavailable
from footplate_daemon.gateway.answering import Ask
from footplate_daemon.settings import Batches as BatchSettings
from footplate_daemon.store.files import Owner
from footplate_daemon.switching.leases import Interrupted
from footplate_daemon.wire_batches import BatchWish
from tests.batches.harness import ANN, CHAT, Play, ids, line, many, running, until, written


def question(ask: Ask) -> str:
    return str(ask.body["messages"][-1]["content"])


async def test_every_line_is_answered_once_and_counted(tmp_path: Path) -> None:
    async with running(tmp_path) as batch:
        made = await batch.submit(many(300), metadata={"night": "1"})
        row = await batch.ended(made.id)
        output = batch.output(row)

    assert (made.status, row.status) == ("validating", "completed")
    assert (row.total, row.completed, row.failed) == (300, 300, 0)
    assert (row.input_tokens, row.cached_tokens, row.output_tokens) == (1500, 600, 900)
    assert ids(output) == sorted(f"line-{number}" for number in range(300))
    assert len({each["id"] for each in output}) == 300
    assert set(batch.play.asked.values()) == {1}
    assert not batch.files.path(row.error_file_id).exists()
    assert row.metadata == {"night": "1"}


async def test_an_answer_is_written_as_openai_does(tmp_path: Path) -> None:
    async with running(tmp_path) as batch:
        row = await batch.ended((await batch.submit(written([line("a")]))).id)
        (result,) = batch.output(row)

    assert list(result) == ["id", "custom_id", "response", "error"]
    assert list(result["response"]) == ["status_code", "request_id", "body"]
    assert result["error"] is None
    assert result["response"]["body"]["choices"][0]["message"]["content"] == "m: a"


async def test_a_line_that_always_fails_goes_to_the_error_file_and_stops_nothing(tmp_path: Path) -> None:
    play = Play(answers=lambda ask: 400 if question(ask) == "line-3" else None)
    async with running(tmp_path, play) as batch:
        row = await batch.ended((await batch.submit(many(10))).id)
        output, errors = batch.output(row), batch.errors(row)

    assert (row.status, row.completed, row.failed) == ("completed", 9, 1)
    assert len(output) == 9
    (error,) = errors
    assert error["custom_id"] == "line-3"
    assert error["error"] is None
    assert error["response"]["status_code"] == 400
    assert error["response"]["body"]["error"]["message"] == "It went wrong."
    assert play.asked["line-3"] == 1


@pytest.mark.parametrize("trouble", [503, 500, 429, Busy("full"), Unavailable("starting"), EngineFailed("?")])
async def test_trouble_that_passes_is_tried_again(tmp_path: Path, trouble: object) -> None:
    left = {f"line-{number}": 2 for number in range(5)}

    def answers(ask: Ask) -> object:
        left[question(ask)] -= 1
        return trouble if left[question(ask)] >= 0 else None

    async with running(tmp_path, Play(answers=answers)) as batch:
        row = await batch.ended((await batch.submit(many(5))).id)

    assert (row.completed, row.failed) == (5, 0)
    assert row.retries == 10
    assert set(batch.play.asked.values()) == {3}


async def test_an_engine_that_always_errs_on_a_line_is_asked_a_few_times(tmp_path: Path) -> None:
    play = Play(answers=lambda ask: 500 if question(ask) == "line-0" else None)
    async with running(tmp_path, play) as batch:
        row = await batch.ended((await batch.submit(many(3))).id)
        (error,) = batch.errors(row)

    assert (row.completed, row.failed) == (2, 1)
    assert error["response"]["status_code"] == 500
    assert play.asked["line-0"] == 6


async def test_a_line_that_kills_its_engine_is_found_and_the_others_are_not_blamed(tmp_path: Path) -> None:
    died = EngineFailed("It died.", details={"diagnosis": {"cause": "x"}})
    play = Play(answers=lambda ask: died if question(ask) == "line-7" else None)
    async with running(tmp_path, play) as batch:
        row = await batch.ended((await batch.submit(many(40))).id)
        (error,) = batch.errors(row)

    assert (row.completed, row.failed) == (39, 1)
    assert error["custom_id"] == "line-7"
    assert error["response"]["status_code"] == 502
    assert play.asked["line-7"] == 3


async def test_lines_are_asked_again_when_their_engine_is_taken_away(tmp_path: Path) -> None:
    taken = {"line-1": 1, "line-2": 9}

    def answers(ask: Ask) -> object:
        taken[question(ask)] = taken.get(question(ask), 0) - 1
        return Interrupted("It was stopped.") if taken[question(ask)] >= 0 else None

    async with running(tmp_path, Play(answers=answers)) as batch:
        row = await batch.ended((await batch.submit(many(4))).id)

    assert (row.completed, row.failed, row.retries) == (4, 0, 0)


async def test_an_engine_that_cannot_be_had_is_waited_for(tmp_path: Path) -> None:
    play = Play(refusals=[Unavailable("It was stopped."), EngineFailed("It does not start.")])
    async with running(tmp_path, play) as batch:
        row = await batch.ended((await batch.submit(many(4))).id)

    assert row.completed == 4
    assert play.leased == ["play/m"]


async def test_each_model_of_a_file_is_loaded_once(tmp_path: Path) -> None:
    mixed = written(line(f"{number}", model="m" if number % 2 else "other") for number in range(100))
    async with running(tmp_path) as batch:
        row = await batch.ended((await batch.submit(mixed)).id)

    assert row.completed == 100
    assert row.models == ("other", "m")
    assert sorted(batch.play.leased) == ["play/m", "play/other"]
    assert batch.play.order[:50] == [batch.play.order[0]] * 50


async def test_lines_that_begin_alike_are_asked_together(tmp_path: Path) -> None:
    def asked(number: int) -> dict[str, object]:
        system = {"role": "system", "content": f"You are {number % 3}."}
        return line(str(number), messages=[system, {"role": "user", "content": str(number)}])

    play = Play()
    play.gate.clear()
    async with running(tmp_path, play, rules=BatchSettings(max_concurrency=1, min_free_mib=0)) as batch:
        made = await batch.submit(written(asked(number) for number in range(30)))
        play.gate.set()
        await batch.ended(made.id)

    order = [int(each) % 3 for each in play.asked]
    assert sum(before != after for before, after in pairwise(order)) == 2


async def test_two_batches_for_one_model_share_its_engine(tmp_path: Path) -> None:
    play = Play()
    play.gate.clear()
    async with running(tmp_path, play) as batch:
        first = await batch.submit(many(50))
        second = await batch.submit(written(line(f"second-{number}") for number in range(50)))
        await batch.until(second.id, lambda row: row.status == "in_progress")
        play.gate.set()
        rows = [await batch.ended(first.id), await batch.ended(second.id)]

    assert [row.completed for row in rows] == [50, 50]
    assert len(play.leased) <= 2


async def test_a_cancelled_batch_keeps_what_it_has_and_names_the_rest(tmp_path: Path) -> None:
    play = Play(answers=lambda ask: None if int(question(ask).removeprefix("line-")) < 4 else Busy("full"))
    async with running(tmp_path, play) as batch:
        made = await batch.submit(many(20))
        await batch.until(made.id, lambda row: row.completed == 4)
        cancelling = await batch.batches.cancel(made.id, ANN)
        row = await batch.ended(made.id)
        output, errors = batch.output(row), batch.errors(row)

    assert (cancelling.status, row.status) == ("cancelling", "cancelled")
    assert row.cancelling_at is not None
    assert len(output) == row.completed == 4
    assert ids([*output, *errors]) == sorted(f"line-{number}" for number in range(20))
    assert {each["error"]["code"] for each in errors if each["error"]} == {"batch_cancelled"}
    assert all(each["response"] is None for each in errors if each["error"])


async def test_cancelling_ends_what_is_being_asked(tmp_path: Path) -> None:
    play = Play()
    play.gate.clear()
    async with running(tmp_path, play) as batch:
        made = await batch.submit(many(20))
        await batch.until(made.id, lambda _: play.under_way > 0)
        await batch.batches.cancel(made.id, ANN)
        again = await batch.batches.cancel(made.id, ANN)
        row = await batch.ended(made.id)

    assert again.status in {"cancelling", "cancelled"}
    assert (row.status, row.completed, row.failed) == ("cancelled", 0, 20)
    assert play.under_way == 0


async def test_an_engine_that_no_batch_wants_any_more_is_not_waited_for(tmp_path: Path) -> None:
    play = Play(loading={"play/m"})
    async with running(tmp_path, play) as batch:
        unwanted = await batch.submit(many(3))
        await batch.until(unwanted.id, lambda _: play.leased == ["play/m"])
        await batch.batches.cancel(unwanted.id, ANN)
        await batch.ended(unwanted.id)
        row = await batch.ended((await batch.submit(many(3, model="other"))).id)

    assert (row.completed, play.leased) == (3, ["play/m", "play/other"])


async def test_a_batch_that_has_ended_cannot_be_cancelled(tmp_path: Path) -> None:
    async with running(tmp_path) as batch:
        row = await batch.ended((await batch.submit(many(1))).id)

        with pytest.raises(Conflict, match="Cannot cancel a batch with status 'completed'"):
            await batch.batches.cancel(row.id, ANN)


async def test_what_is_not_done_when_its_time_is_over_expires(tmp_path: Path) -> None:
    now = [1_000_000.0]
    play = Play()
    async with running(tmp_path, play, clock=lambda: now[0]) as batch:
        made = await batch.submit(many(3))
        await batch.ended(made.id)
        play.gate.clear()
        late = await batch.submit(many(5))
        await batch.until(late.id, lambda _: play.under_way > 0)
    now[0] += 24 * 3600 + 1
    async with running(tmp_path, play, clock=lambda: now[0]) as batch:
        row = await batch.ended(late.id)
        errors = batch.errors(row)

    assert (row.status, row.failed) == ("expired", 5)
    assert {each["error"]["code"] for each in errors} == {"batch_expired"}
    assert errors[0]["error"]["message"].endswith("before the completion window expired.")


async def test_the_output_expires_when_the_wish_says_so(tmp_path: Path) -> None:
    now = [1_000_000.0]
    after = {"anchor": "created_at", "seconds": 3600}
    async with running(tmp_path, clock=lambda: now[0]) as batch:
        row = await batch.ended((await batch.submit(many(1), output_expires_after=after)).id)
        file = await batch.files.get(row.output_file_id, ANN)
        now[0] += 3601

        with pytest.raises(NotFound):
            await batch.files.get(row.output_file_id, ANN)

    assert file.expires_at == 1_003_600
    async with running(tmp_path, clock=lambda: now[0]) as batch:
        await until(lambda: not batch.files.path(row.output_file_id).exists())


async def test_a_file_that_is_deleted_serves_its_batch_to_the_end(tmp_path: Path) -> None:
    play = Play()
    play.gate.clear()
    async with running(tmp_path, play) as batch:
        made = await batch.submit(many(600))
        await batch.until(made.id, lambda _: play.under_way > 0)
        await batch.files.delete(made.input_file_id, ANN)
        was_there = batch.files.path(made.input_file_id).exists()
        play.gate.set()
        row = await batch.ended(made.id)

        assert was_there
        assert row.completed == 600
        await until(lambda: not batch.files.path(made.input_file_id).exists())


async def test_a_model_that_leaves_the_catalog_fails_its_lines_alone(tmp_path: Path) -> None:
    play = Play()
    play.gate.clear()
    mixed = written([line("a"), line("b", model="other"), line("c")])
    async with running(tmp_path, play) as batch:
        made = await batch.submit(mixed)
        await batch.until(made.id, lambda row: row.status == "in_progress")
    play.models = frozenset({"m"})
    play.gate.set()
    async with running(tmp_path, play) as batch:
        row = await batch.ended(made.id)
        (error,) = batch.errors(row)

    assert (row.completed, row.failed) == (2, 1)
    assert error["custom_id"] == "b"
    assert error["response"]["status_code"] == 404


async def test_a_missing_file_is_told_when_it_is_looked_for(tmp_path: Path) -> None:
    async with running(tmp_path) as batch:
        wish = BatchWish(input_file_id="file-none", endpoint="/v1/embeddings")
        made = await batch.batches.create(wish, ANN)
        row = await batch.ended(made.id)

    assert (made.status, row.status) == ("validating", "failed")
    assert row.errors is not None
    assert row.errors[0]["param"] == "input_file_id"


async def test_an_endpoint_that_is_none_is_refused_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as batch:
        with pytest.raises(Invalid, match="not supported for this endpoint") as refused:
            await batch.submit(many(1), endpoint="/v1/images/generations")

    assert refused.value.param == "endpoint"


async def test_a_key_sees_what_was_made_with_it_alone(tmp_path: Path) -> None:
    async with running(tmp_path) as batch:
        row = await batch.ended((await batch.submit(many(1))).id)

        with pytest.raises(NotFound):
            await batch.batches.get(row.id, Owner("ann", by_key=True))
        with pytest.raises(NotFound):
            await batch.files.get(row.output_file_id, Owner("bob", by_key=True))
        assert (await batch.batches.get(row.id, Owner("bob", by_key=False))).id == row.id


async def test_a_key_for_some_models_makes_no_batch_for_others(tmp_path: Path) -> None:
    async with running(tmp_path) as batch:
        file_id = await batch.store(written([line("a"), line("b", model="other")]))
        wish = BatchWish(input_file_id=file_id, endpoint=CHAT)
        row = await batch.ended((await batch.batches.create(wish, ANN, ("m",))).id)

    assert row.status == "failed"
    assert row.errors is not None
    assert [(error["line"], error["code"]) for error in row.errors] == [(2, "model_not_found")]


async def test_more_lines_at_a_time_are_asked_while_that_is_quicker(tmp_path: Path) -> None:
    async with running(tmp_path, rules=BatchSettings(max_concurrency=7, min_free_mib=0)) as batch:
        row = await batch.ended((await batch.submit(many(3000))).id)

    assert row.completed == 3000
    assert batch.play.most_under_way <= 7


def test_an_answer_over_several_lines_becomes_one_line() -> None:
    text = answered("batch_1", 1, "a", 200, "req-1", b'{\n  "x": 1\r\n}')

    assert text.count(b"\n") == 1
    assert json.loads(text)["response"]["body"] == {"x": 1}


async def test_lines_that_are_not_in_the_file_any_more_fail_alone(tmp_path: Path) -> None:
    play = Play()
    play.gate.clear()
    async with running(tmp_path, play, rules=BatchSettings(max_concurrency=1, min_free_mib=0)) as batch:
        made = await batch.submit(many(10))
        await batch.until(made.id, lambda _: play.under_way == 1)
        path = batch.files.path(made.input_file_id)
        path.write_bytes(path.read_bytes()[: len(many(5)) + 20])
        play.gate.set()
        row = await batch.ended(made.id)
        errors = batch.errors(row)

    assert (row.status, row.completed, row.failed) == ("completed", 5, 5)
    assert {each["error"]["code"] for each in errors} == {"input_unreadable"}
