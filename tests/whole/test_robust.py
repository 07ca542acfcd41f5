"""What must not end the daemon, hang a session or give a secret away: each was once seen to."""

import asyncio
import json
import os
import signal
import sqlite3
from typing import Any

import pytest

from footplate_daemon.errors import Conflict
from footplate_daemon.wire import Turn, TurnState, TurnWish
from tests.whole.clients import answered_by, ended
from tests.whole.conftest import Whole, error_of
from tests.whole.test_ground import MANY_TOKENS, SWITCH, SWITCH_ANSWER, copy_guide, drain

HALF = "\ud800"
"""Half of a surrogate pair: JSON can write it, no text holds it."""


@pytest.mark.parametrize(
    "body",
    [
        {"model": HALF, "messages": [{"role": "user", "content": "x"}]},
        {"messages": [{"role": "user", "content": HALF}]},
        {"messages": [{"role": "user", "content": "x"}], "seed": "HUGE"},
    ],
    ids=["model", "content", "number"],
)
async def test_what_no_text_holds_is_refused(footplate: Whole, body: dict[str, Any]) -> None:
    before = (await footplate.client.health()).pid
    sent = json.dumps(body).replace('"HUGE"', "9" * 5000)

    response = await footplate.http.post("/v1/chat/completions", content=sent)

    assert response.status_code == 400
    assert error_of(response)["code"] == "invalid"
    assert await footplate.answer(SWITCH) == SWITCH_ANSWER
    assert (await footplate.client.health()).pid == before


async def test_a_turn_that_cannot_be_sent_fails_alone(footplate: Whole) -> None:
    before = (await footplate.client.health()).pid
    session = await footplate.client.create_session()
    content = json.dumps({"prompt": "x", "parameters": {"stop": [HALF]}})
    response = await footplate.http.post(
        f"/api/v1/sessions/{session.id}/turns", content=content, headers={"content-type": "application/json"}
    )

    if response.status_code == 202:
        turn = await drain(footplate.client.follow_turn(session.id, 1))
        assert turn.state is TurnState.FAILED
    else:
        assert response.status_code == 400
    assert (await footplate.client.health()).pid == before


async def test_a_reload_that_removes_the_active_model_leaves_the_daemon_up(footplate: Whole) -> None:
    before = (await footplate.client.health()).pid
    file = footplate.paths.models_dir / "mine.gguf"
    copy_guide(file)
    await footplate.client.reload()
    await footplate.answer(SWITCH, model="mine")

    file.unlink()
    await footplate.client.reload()
    await footplate.until(lambda status: all(each.variant != "llamacpp/mine" for each in status.engines))

    assert await footplate.answer(SWITCH) == SWITCH_ANSWER
    assert (await footplate.client.health()).pid == before


async def test_stopping_twice_at_once_leaves_the_session_usable(footplate: Whole) -> None:
    session = await footplate.client.create_session()
    turn = await footplate.client.ask(session.id, TurnWish(prompt=SWITCH, parameters=MANY_TOKENS))
    await anext(footplate.client.follow_turn(session.id, turn.number))

    await asyncio.gather(*(footplate.client.stop_turn(session.id, turn.number) for _ in range(4)))
    second = await footplate.client.ask(session.id, TurnWish(prompt=SWITCH))

    assert (await drain(footplate.client.follow_turn(session.id, second.number))).answer == SWITCH_ANSWER


async def test_of_two_questions_at_once_in_a_session_one_is_refused(footplate: Whole) -> None:
    session = await footplate.client.create_session()
    wish = TurnWish(prompt=SWITCH, parameters=MANY_TOKENS)

    results = await asyncio.gather(
        *(footplate.client.ask(session.id, wish) for _ in range(2)), return_exceptions=True
    )

    assert sorted(type(result).__name__ for result in results) == [Conflict.__name__, Turn.__name__]


async def test_deleting_a_session_ends_its_generation(footplate: Whole) -> None:
    session = await footplate.client.create_session()
    turn = await footplate.client.ask(session.id, TurnWish(prompt=SWITCH, parameters=MANY_TOKENS))
    await anext(footplate.client.follow_turn(session.id, turn.number))

    response = await footplate.http.delete(f"/api/v1/sessions/{session.id}")

    assert response.status_code == 204
    await footplate.until(lambda status: all(engine.leases == 0 for engine in status.engines))


async def test_a_busy_database_does_not_end_the_daemon(footplate: Whole) -> None:
    before = (await footplate.client.health()).pid
    session = await footplate.client.create_session()
    await footplate.until_ready()
    held = sqlite3.connect(footplate.paths.database, isolation_level=None)
    held.execute("BEGIN IMMEDIATE")

    switching = asyncio.ensure_future(footplate.http.post("/api/v1/models/activate", json={"name": "guide"}))
    answer = await footplate.answer(SWITCH)
    await switching
    held.execute("ROLLBACK")
    held.close()

    assert answer == SWITCH_ANSWER
    turn = await footplate.client.ask(session.id, TurnWish(prompt=SWITCH))
    assert (await drain(footplate.client.follow_turn(session.id, turn.number))).answer == SWITCH_ANSWER
    assert (await footplate.client.health()).pid == before


async def test_a_plan_shows_no_secret(footplate: Whole) -> None:
    footplate.paths.config_file.write_text(
        '[models.mine.vllm]\nweights = "org/mine"\nargs = ["--hf-token", "hf_SECRETSECRET"]\n'
    )
    await footplate.client.reload()

    plan = await footplate.http.get("/api/v1/plan", params={"name": "mine"})
    explained = await footplate.http.get("/api/v1/models/mine/explain")

    assert "SECRETSECRET" not in plan.text + explained.text


async def test_control_has_a_limit_for_bodies_too(footplate: Whole) -> None:
    big = await footplate.http.post("/api/v1/sessions", content=b'{"title": "' + b"x" * 140_000_000 + b'"}')
    long = await footplate.http.post("/api/v1/sessions", json={"title": "x" * 300})

    assert (big.status_code, error_of(big)["code"]) == (413, "too_large")
    assert (long.status_code, error_of(long)["param"]) == (400, "title")


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
async def test_a_request_whose_engine_dies_unheard_waits_for_the_next_one(
    footplate: Whole, is_streamed: bool
) -> None:
    engine = await footplate.until_ready()
    body = {"stream": is_streamed, "messages": [{"role": "user", "content": SWITCH}]}
    headers = {"x-request-id": "unheard"}
    os.kill(engine.pid or 0, signal.SIGSTOP)

    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(footplate.http.post("/v1/chat/completions", json=body, headers=headers))
        await answered_by(footplate, "unheard", "running")
        os.kill(engine.pid or 0, signal.SIGKILL)

    assert asking.result().status_code == 200
    assert "error" not in asking.result().text
    exchange = await ended(footplate, "unheard")
    assert (exchange.outcome, exchange.error) == ("done", None)
    assert (await footplate.until_ready()).pid != engine.pid


async def test_a_dying_engine_tells_the_client_what_happened(footplate: Whole) -> None:
    engine = await footplate.until_ready()
    body = {"stream": True, "messages": [{"role": "user", "content": SWITCH}], **MANY_TOKENS}

    async with footplate.http.stream("POST", "/v1/chat/completions", json=body) as response:
        chunks = response.aiter_text()
        await anext(chunks)
        os.kill(engine.pid or 0, signal.SIGKILL)
        rest = "".join([chunk async for chunk in chunks])

    told = json.loads(rest.split("data: ")[-1])["error"]
    assert "died while it answered" in told["message"]
    assert told["hint"] == "Ask again: it is being restarted."
