"""Turns that are asked again, gone on with, or asked with files: the real daemon and the guide."""

import base64
from typing import Any

import pytest

from footplate_daemon import errors
from footplate_daemon.client import FootplateClient
from footplate_daemon.wire import AttachmentWish, Turn, TurnWish
from tests.whole.conftest import Whole

PRESET = "What is a preset?"
NOTES = AttachmentWish(name="notes.txt", data=base64.b64encode(b"Milk and bread").decode())
IMAGE = AttachmentWish(name="a.png", data=base64.b64encode(b"\x89PNG\r\n\x1a\n").decode())


async def answered(client: FootplateClient, session_id: str, prompt: str, **more: Any) -> Turn:
    """Ask, and give the turn as it ended."""
    turn = await client.ask(session_id, TurnWish(prompt=prompt, **more))
    async for _, event in client.follow_turn(session_id, turn.number):
        if isinstance(event, Turn):
            turn = event
    return turn


async def test_an_answer_that_was_cut_off_goes_on_where_it_ended(footplate: Whole) -> None:
    await footplate.until_ready()
    session = await footplate.client.create_session()
    whole = await answered(footplate.client, session.id, PRESET, parameters={"temperature": 0})
    cut = await answered(
        footplate.client, session.id, PRESET, parameters={"temperature": 0, "max_tokens": 5}, instead_of=1
    )

    rest = await answered(
        footplate.client, session.id, "Go on.", parameters={"temperature": 0}, continue_of=cut.number
    )

    assert cut.finish_reason == "length"
    assert cut.answer + rest.answer == whole.answer
    assert (rest.number, rest.continue_of) == (3, 2)


async def test_files_go_with_a_question_its_retries_and_its_export(footplate: Whole) -> None:
    await footplate.until_ready()
    session = await footplate.client.create_session()
    await answered(footplate.client, session.id, PRESET, attachments=(NOTES,))

    again = await answered(footplate.client, session.id, PRESET, instead_of=1)
    exported = await footplate.client.export_session(session.id, "json")
    imported = await footplate.client.import_session(exported)

    kept = await footplate.client.session(imported.id)
    assert [each.name for each in again.attachments] == ["notes.txt"]
    assert [turn.attachments for turn in kept.turns] == [again.attachments, again.attachments]
    assert exported.count(NOTES.data) == 2


@pytest.mark.parametrize(
    ("wish", "kind"),
    [
        (TurnWish(prompt="x", instead_of=99), errors.NotFound),
        (TurnWish(prompt="x", continue_of=99), errors.NotFound),
        (TurnWish(prompt="x", instead_of=1, after=1), errors.Invalid),
        (TurnWish(prompt="x", attachments=(IMAGE,)), errors.Invalid),
    ],
)
async def test_what_cannot_be_asked_is_refused_before_anything_is_stored(
    footplate: Whole, wish: TurnWish, kind: type[errors.FootplateError]
) -> None:
    await footplate.until_ready()
    session = await footplate.client.create_session()

    with pytest.raises(kind) as caught:
        await footplate.client.ask(session.id, wish)

    assert caught.value.hint
    assert (await footplate.client.session(session.id)).turns == ()
