"""The client's calls that no verb needs yet, against a real daemon."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import pytest

from footplate_daemon import errors, wire
from footplate_daemon.client import FootplateClient
from tests.cli.conftest import Shell


async def test_a_session_is_renamed_and_deleted(started: Shell) -> None:
    async with FootplateClient(started.paths.socket) as client:
        session = await client.create_session()
        renamed = await client.rename_session(session.id, "Presets")
        with pytest.raises(errors.Invalid):
            await client.rename_session(session.id, "")
        await client.delete_session(session.id)

        with pytest.raises(errors.NotFound):
            await client.session(session.id)

    assert renamed.title == "Presets"


async def test_the_end_of_an_engines_log_is_read(started: Shell) -> None:
    async with FootplateClient(started.paths.socket) as client:
        log = await client.engine_log("llamacpp-guide", lines=2)
        with pytest.raises(errors.NotFound):
            await client.engine_log("nope")

    assert len(log.splitlines()) == 2


async def test_a_switch_is_waited_for_when_wanted(started: Shell) -> None:
    async with FootplateClient(started.paths.socket) as client:
        there = await client.activate(wire.SwitchWish(name="second"), wait=True)
        back = await client.activate_runtime(wire.RuntimeWish(runtime="llamacpp", model="guide"), wait=True)
        failed = await client.activate(wire.SwitchWish(name="broken"), wait=True)

        assert await client.switch(there.id) == there
        with pytest.raises(errors.NotFound):
            await client.apply_remedy(failed.id, 99)

    assert (there.outcome, back.outcome, failed.outcome) == ("done", "done", "failed")


async def test_a_log_is_read_page_by_page_and_followed(started: Shell) -> None:
    async with FootplateClient(started.paths.socket) as client:
        names = [log.name for log in await client.logs()]
        last = await client.log_page("llamacpp/guide", lines=2)
        earlier = await client.log_page(last.name, lines=2, before=last.begin)
        first = await _first(client.follow_log(last.name, after=earlier.begin))
        with pytest.raises(errors.NotFound):
            await client.log_page("nope")
        with pytest.raises(errors.Invalid):
            await client.log_page("daemon", before="nowhere")

    assert names[:2] == ["daemon", "access"]
    assert last.name == "llamacpp-guide"
    assert first.lines[:4] == (*earlier.lines, *last.lines)  # more may have been written since


async def test_who_stops_following_is_no_failure(started: Shell) -> None:
    async with FootplateClient(started.paths.socket) as client:
        await _first(client.follow_log("daemon"))
    async with FootplateClient(started.paths.socket) as client:
        lines = (await client.log_page("daemon")).lines

    assert not [line for line in lines if "a request failed" in line]


async def _first(pages: AsyncIterator[wire.LogPage]) -> wire.LogPage:
    """Give the first page, and leave."""
    assert isinstance(pages, AsyncGenerator)
    async with aclosing(pages):
        return await anext(pages)
