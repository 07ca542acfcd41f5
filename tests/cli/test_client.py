"""The client's calls that no verb needs yet, against a real daemon."""

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
