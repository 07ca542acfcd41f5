"""How lines are asked: beside those who chat, and after them."""

from dataclasses import replace
from pathlib import Path

from footplate_daemon.settings import Batches as BatchSettings
from footplate_daemon.switching.machine import Target
from tests.batches.harness import AT_ONCE, PATIENCE_SECONDS, Play, line, many, running, until, written

VARIANT = "play/m"


async def test_in_a_full_engine_somebody_who_chats_takes_the_place_of_a_line(tmp_path: Path) -> None:
    play = Play(slots=2)
    play.gate.clear()
    async with running(tmp_path, play) as batch:
        made = await batch.submit(many(30))
        live = batch.batches.live(made.id)
        assert live is not None
        await until(lambda: play.under_way == 8 and live.concurrency == 4)
        play.chats.began(VARIANT)
        await until(lambda: play.under_way == 1)
        play.chats.ended(VARIANT)
        await until(lambda: play.under_way == 4)
        play.gate.set()
        row = await batch.ended(made.id)

    assert (row.completed, row.failed, row.retries) == (30, 0, 0)


async def test_between_two_chats_a_batch_does_not_come_back(tmp_path: Path) -> None:
    play = Play(slots=2)
    play.gate.clear()
    async with running(tmp_path, play, patience=replace(AT_ONCE, chat=PATIENCE_SECONDS)) as batch:
        made = await batch.submit(many(30))
        live = batch.batches.live(made.id)
        assert live is not None
        await until(lambda: play.under_way == 8 and live.concurrency == 4)
        play.chats.began(VARIANT)
        await until(lambda: play.under_way == 1)
        play.most_under_way = play.under_way
        play.chats.ended(VARIANT)
        play.gate.set()
        row = await batch.ended(made.id)

    assert row.completed == 30
    assert play.most_under_way == 1


async def test_those_who_chat_with_another_model_disturb_nothing(tmp_path: Path) -> None:
    play = Play(slots=2)
    play.gate.clear()
    async with running(tmp_path, play) as batch:
        made = await batch.submit(many(30))
        await until(lambda: play.under_way >= 3)
        play.chats.began("play/other")
        before = play.under_way
        play.gate.set()
        row = await batch.ended(made.id)

    assert before >= 3
    assert set(play.asked.values()) == {1}
    assert row.completed == 30


async def test_a_batch_that_comes_later_joins_the_turn_of_its_model(tmp_path: Path) -> None:
    play = Play()
    play.gate.clear()
    rules = BatchSettings(max_concurrency=2, min_free_mib=0)
    async with running(tmp_path, play, rules=rules) as batch:
        first = await batch.submit(many(40))
        await until(lambda: play.under_way == 2)
        second = await batch.submit(written(line(f"second-{number}") for number in range(10)))
        await batch.until(second.id, lambda row: row.status == "in_progress")
        play.gate.set()
        for each in (first, second):
            await batch.ended(each.id)

    order = list(play.asked)
    assert play.leased == [VARIANT]
    assert order.index("second-9") < order.index("line-39")


async def test_a_batch_that_comes_later_does_not_hold_up_one_that_waits_for_another_model(
    tmp_path: Path,
) -> None:
    play = Play()
    play.gate.clear()
    rules = BatchSettings(max_concurrency=1, min_free_mib=0)
    async with running(tmp_path, play, rules=rules) as batch:
        first = await batch.submit(many(5))
        await until(lambda: play.under_way == 1)
        other = await batch.submit(written(line(f"other-{number}", model="other") for number in range(5)))
        await batch.until(other.id, lambda row: row.status == "in_progress")
        late = await batch.submit(written(line(f"late-{number}") for number in range(5)))
        await batch.until(late.id, lambda row: row.status == "in_progress")
        play.gate.set()
        for each in (first, other, late):
            await batch.ended(each.id)

    assert play.order == ["m"] * 5 + ["other"] * 5 + ["m"] * 5


async def test_what_somebody_wanted_before_comes_back_when_the_batches_are_through(tmp_path: Path) -> None:
    play = Play(wanted=Target("play/chat", "low-vram"))
    async with running(tmp_path, play) as batch:
        made = await batch.submit(written([line("a"), line("b", model="other")]))
        await batch.ended(made.id)
        await until(lambda: play.brought_back)

    assert play.brought_back == [Target("play/chat", "low-vram")]


async def test_whoever_asked_for_another_model_meanwhile_keeps_it(tmp_path: Path) -> None:
    play = Play(wanted=Target("play/chat"))
    play.gate.clear()
    async with running(tmp_path, play) as batch:
        made = await batch.submit(many(3))
        await until(lambda: play.under_way > 0)
        play.wanted = Target("play/third")
        play.gate.set()
        await batch.ended(made.id)

    assert play.brought_back == []
