"""The ground, whole: the guide answers through every way in, and survives what is killed under it."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import httpx2
import openai
import psutil
import pytest

from footplate_daemon import lifecycle
from footplate_daemon.errors import DaemonUnreachable
from footplate_daemon.supervisord import call
from footplate_daemon.wire import Turn, TurnDelta, TurnState, TurnWish
from tests.whole.conftest import PATIENCE_SECONDS, Whole, error_of, held

SWITCH = "How do I switch runtime?"
SWITCH_ANSWER = "Run footplate switch with the name of a runtime, for example: footplate switch vllm."
MANY_TOKENS: dict[str, Any] = {
    "ignore_eos": True,
    "max_tokens": 3500,
    "logprobs": True,
    "top_logprobs": 10,
}
"""Keeps the guide talking: more than all buffers on the way to a client that does not read."""


async def test_the_guide_answers(footplate: Whole) -> None:
    answer = await footplate.answer(SWITCH)

    assert answer == SWITCH_ANSWER


async def test_an_answer_says_who_gave_it(footplate: Whole) -> None:
    response = await footplate.http.post(
        "/v1/chat/completions",
        json={"messages": [{"role": "user", "content": SWITCH}]},
        headers={"x-request-id": "mine-1"},
    )

    assert response.headers["x-request-id"] == "mine-1"
    assert response.headers["x-footplate-runtime"] == "llamacpp"
    assert response.headers["x-footplate-model"] == "guide"


async def test_the_official_sdk_chats_and_streams_over_the_socket(footplate: Whole) -> None:
    transport = httpx2.AsyncHTTPTransport(uds=str(footplate.paths.socket))
    async with (
        httpx2.AsyncClient(transport=transport) as http,
        openai.AsyncOpenAI(base_url="http://footplate/v1", api_key="none", http_client=http) as sdk,
    ):
        models = [model.id async for model in sdk.models.list()]
        stream = await sdk.chat.completions.create(
            model="guide", stream=True, messages=[{"role": "user", "content": SWITCH}]
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        with pytest.raises(openai.NotFoundError, match="nope"):
            await sdk.chat.completions.create(model="nope", messages=[{"role": "user", "content": "Hi"}])

    assert models == ["guide", "llamacpp/guide"]
    assert text == SWITCH_ANSWER


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (b'{"messages": [', 400, "invalid", None),
        (b"[]", 400, "invalid", None),
        (b"\xff", 400, "invalid", None),
        (b"{}", 400, "invalid", "messages"),
        (b'{"messages": []}', 400, "invalid", "messages"),
        (b'{"messages": ["hello"]}', 400, "invalid", "messages.0.role"),
        (b'{"model": 3, "messages": [{"role": "user", "content": "x"}]}', 400, "invalid", "model"),
        (b'{"model": "nope", "messages": [{"role": "user", "content": "x"}]}', 404, "not_found", "model"),
        (b'{"messages": [{"role": "user", "content": "' + b"word " * 9000 + b'"}]}', 400, 400, None),
        (b"0" * 140_000_000, 413, "too_large", None),
    ],
    ids=["cut", "list", "latin", "empty", "none", "text", "number", "unknown", "long", "140MB"],
)
async def test_bad_input_gets_a_clear_error(
    footplate: Whole, body: bytes, status: int, code: object, param: str | None
) -> None:
    response = await footplate.http.post("/v1/chat/completions", content=body)

    error = error_of(response)
    assert (response.status_code, error["code"], error["param"]) == (status, code, param)


async def test_bad_calls_of_control_have_the_same_shape(footplate: Whole) -> None:
    unknown = await footplate.http.get("/api/v1/nothing")
    misspelt = await footplate.http.post("/api/v1/sessions", json={"titel": "x"})
    no_session = await footplate.http.get("/api/v1/sessions/nope")

    assert error_of(unknown)["code"] == "not_found"
    assert error_of(misspelt)["param"] == "titel"
    assert error_of(no_session)["code"] == "not_found"


async def test_a_client_that_leaves_cancels_the_generation(footplate: Whole) -> None:
    body = {
        "messages": [{"role": "user", "content": SWITCH}],
        "stream": True,
        **MANY_TOKENS,
    }
    async with footplate.http.stream("POST", "/v1/chat/completions", json=body) as response:
        chunks = response.aiter_bytes()  # held: dropped, it would close the connection
        await anext(chunks)
        busy = await footplate.until(lambda status: status.engines[0].leases == 1)
    idle = await footplate.until(lambda status: status.engines[0].leases == 0)

    assert busy.engines[0].pid == idle.engines[0].pid
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for page in footplate.client.follow_log("llamacpp-guide"):
            if any("cancel" in line for line in page.lines):
                break


async def test_status_supervisord_and_ps_agree(footplate: Whole) -> None:
    engine = await footplate.until_ready()

    listed = await asyncio.to_thread(call, footplate.paths.supervisor_socket, "getAllProcessInfo")

    pids = {info["name"]: info["pid"] for info in listed}
    assert engine.runtime == "llamacpp"
    assert pids == {"footplated": lifecycle.state(footplate.paths).daemon_pid, "llamacpp-guide": engine.pid}
    assert psutil.pid_exists(engine.pid or 0)


async def test_a_killed_engine_comes_back(footplate: Whole) -> None:
    engine = await footplate.until_ready()
    os.kill(engine.pid or 0, signal.SIGKILL)
    await footplate.until(lambda status: all(each.pid != engine.pid for each in status.engines))

    answer = await footplate.answer(SWITCH)

    again = await footplate.until_ready()
    assert answer == SWITCH_ANSWER
    assert again.pid != engine.pid
    assert again.restarts == 1


async def test_clients_are_told_when_the_engine_dies_under_their_stream(footplate: Whole) -> None:
    engine = await footplate.until_ready()
    body = {"messages": [{"role": "user", "content": SWITCH}], "stream": True, **MANY_TOKENS}

    async with footplate.http.stream("POST", "/v1/chat/completions", json=body) as response:
        chunks = response.aiter_text()
        await anext(chunks)
        os.kill(engine.pid or 0, signal.SIGKILL)
        rest = "".join([chunk async for chunk in chunks])

    assert '"code":"engine_failed"' in rest


async def test_a_killed_daemon_comes_back_and_the_engine_stays(footplate: Whole) -> None:
    engine = await footplate.until_ready()
    session = await footplate.client.create_session()
    turn = await footplate.client.ask(session.id, TurnWish(prompt=SWITCH, parameters=MANY_TOKENS))
    events = footplate.client.follow_turn(session.id, turn.number)
    await anext(events)
    await anext(events)
    os.kill((await footplate.client.health()).pid, signal.SIGKILL)
    with pytest.raises(DaemonUnreachable):
        await drain(events)

    again = await footplate.until_ready()

    assert again.pid == engine.pid
    assert await footplate.answer(SWITCH) == SWITCH_ANSWER
    cut = (await footplate.client.session(session.id)).turns[0]
    assert cut.state is TurnState.FAILED
    assert cut.error is not None


async def test_a_restarted_daemon_adopts_the_engine(footplate: Whole) -> None:
    engine = await footplate.until_ready()
    before = (await footplate.client.health()).pid

    await asyncio.to_thread(call, footplate.paths.supervisor_socket, "signalProcess", "footplated", "TERM")
    status = await footplate.until(lambda status: status.daemon.pid != before and status.active is not None)

    assert [each.pid for each in status.engines] == [engine.pid]


async def test_a_turn_is_stored_and_can_be_followed_again(footplate: Whole) -> None:
    session = await footplate.client.create_session()
    turn = await footplate.client.ask(session.id, TurnWish(prompt=SWITCH))

    first = await drain(footplate.client.follow_turn(session.id, turn.number))
    again = await drain(footplate.client.follow_turn(session.id, turn.number))

    assert (first.state, first.answer, first.variant) == (TurnState.DONE, SWITCH_ANSWER, "llamacpp/guide")
    assert first.completion_tokens
    assert first.ttft_seconds is not None
    assert again == first
    assert (await footplate.client.sessions())[0].title == SWITCH


async def test_a_follower_knows_who_answers_before_the_first_text(footplate: Whole) -> None:
    session = await footplate.client.create_session()
    turn = await footplate.client.ask(session.id, TurnWish(prompt=SWITCH))

    variant = None
    async for _, event in footplate.client.follow_turn(session.id, turn.number):
        variant = event.variant if isinstance(event, Turn) else variant
        assert variant or not seen("", event)


async def test_a_follower_that_comes_back_misses_nothing(footplate: Whole) -> None:
    engine = await footplate.until_ready()
    session = await footplate.client.create_session()
    turn = await footplate.client.ask(session.id, TurnWish(prompt=SWITCH, parameters=MANY_TOKENS))
    text, last_id = "", None
    async for event_id, event in footplate.client.follow_turn(session.id, turn.number):
        text, last_id = seen(text, event), event_id
        if text:
            break

    with held(engine.pid or 0) as go_on:
        rest = footplate.client.follow_turn(session.id, turn.number, last_event_id=last_id)
        coming = asyncio.ensure_future(anext(rest))
        meanwhile = (await footplate.client.session(session.id)).turns[0]
        go_on()
        events = [await coming, *[each async for each in rest]]
    for _, event in events:
        if isinstance(event, TurnDelta):
            text += event.content
        else:
            final = event

    assert meanwhile.state is not TurnState.DONE
    assert final.state is TurnState.DONE
    assert text == final.answer


async def test_a_stopped_turn_keeps_what_came(footplate: Whole) -> None:
    session = await footplate.client.create_session()
    turn = await footplate.client.ask(session.id, TurnWish(prompt=SWITCH, parameters=MANY_TOKENS))
    async for _, event in footplate.client.follow_turn(session.id, turn.number):
        if seen("", event):
            break

    stopped = await footplate.client.stop_turn(session.id, turn.number)

    stored = (await footplate.client.session(session.id)).turns[0]
    assert stopped.state is TurnState.STOPPED
    assert stored.answer == stopped.answer != ""
    await footplate.until(lambda status: status.engines[0].leases == 0)


async def test_a_gguf_in_the_models_folder_is_a_model_that_requests_switch_to(footplate: Whole) -> None:
    engine = await footplate.until_ready()
    copy_guide(footplate.paths.models_dir / "my-model.gguf")
    response = await footplate.http.post("/api/v1/reload")
    assert response.status_code == 200

    listed = [model.name for model in await footplate.client.models()]
    answer = await footplate.answer(SWITCH, model="my-model")

    assert listed == ["guide", "my-model"]
    assert answer == SWITCH_ANSWER
    assert not psutil.pid_exists(engine.pid or 0)
    assert (await footplate.client.status()).active == "llamacpp/my-model"


async def test_down_leaves_no_process_and_no_socket(footplate: Whole) -> None:
    await footplate.until_ready()
    ours = {footplate.record().pid, (await footplate.client.health()).pid}

    await asyncio.to_thread(lifecycle.down, footplate.paths)

    assert not [pid for pid in ours if psutil.pid_exists(pid)]
    assert not footplate.paths.socket.exists()
    assert not footplate.paths.supervisor_socket.exists()
    with pytest.raises(DaemonUnreachable):
        await footplate.client.health()


def seen(text: str, event: Turn | TurnDelta) -> str:
    """Add what an event shows to the text so far."""
    return event.answer if isinstance(event, Turn) else text + event.content


async def drain(events: Any) -> Turn:
    """Follow a turn to its end."""
    last: Turn | TurnDelta | None = None
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for _, event in events:
            last = event
    assert isinstance(last, Turn)
    return last


def copy_guide(target: Path) -> None:
    from footplate_daemon import guide  # noqa: PLC0415

    target.write_bytes(guide.path().read_bytes())


async def test_an_orderly_restart_ends_event_streams_and_says_nothing_bad(footplate: Whole) -> None:
    await footplate.until_ready()
    following = footplate.client.follow_status()
    before = (await anext(following)).daemon.pid

    await asyncio.to_thread(lifecycle.restart, footplate.paths)
    rest = [status async for status in following]

    assert all(status.daemon.pid == before for status in rest)
    assert (await footplate.client.health()).pid != before
    log = footplate.paths.daemon_log.read_text()
    assert "Traceback" not in log
