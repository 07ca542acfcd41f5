"""The gateway, whole: official SDKs over both ways in, keys, and what goes on to the engine."""

import asyncio
import base64
import json
import re
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest

from footplate_daemon import lifecycle, wire
from footplate_daemon.paths import Paths
from footplate_daemon.switching.engine import free_port
from tests import engines
from tests.conftest import fresh_home
from tests.fakes.upstream import FakeUpstream, message, open_upstream
from tests.whole.clients import (
    ANSWER,
    QUESTION,
    Door,
    WayIn,
    chat,
    connected,
    ended,
    footplate_command,
    listening,
    open_door,
    unlocked,
    until_tcp_is_open,
)
from tests.whole.conftest import PATIENCE_SECONDS, Whole, error_of
from tests.whole.test_contract import PICTURE, SCHEMA, TOOLS
from tests.whole.test_services import DATA, running, until_serving

STATUS = "What is the status of vllm?"
FRENCH_WEATHER = "Quel temps fait-il ?"
MODELS = f"""
[services]
embedding = "llamacpp/embed"
[models.guide]
aliases = ["helper"]
[models.guide.ollama]
context = 2048
[models.guide.transformers]
weights = {json.dumps(str(engines.GUIDE_HF))}
[models.other.llamacpp]
weights = {json.dumps(str(engines.GUIDE_GGUF))}
context = 2048
[models.embed.llamacpp]
weights = {json.dumps(str(DATA / "tiny-embed.gguf"))}
capabilities = ["embedding"]
"""
ASKED: Any = [{"role": "user", "content": QUESTION}]


@pytest.fixture(scope="module")
def opened() -> Iterator[tuple[Paths, int, str]]:
    """Run a Footplate for all tests that leave it as it is: its paths, its port and the secret of its key."""
    port = free_port()
    with fresh_home() as paths:
        paths.make()
        paths.config_file.write_text(listening(port) + MODELS)
        lifecycle.up(paths)
        yield paths, port, asyncio.run(first_secret(paths, port))


async def first_secret(paths: Paths, port: int) -> str:
    async with connected(paths) as footplate:
        await until_serving(footplate, "llamacpp/embed")
        return (await unlocked(footplate, port)).secret


@pytest.fixture
async def door(opened: tuple[Paths, int, str]) -> AsyncIterator[Door]:
    """A Footplate with the guide active and a service, open on TCP to one key."""
    paths, port, secret = opened
    async with connected(paths) as footplate:
        yield Door(footplate, port, secret)


@pytest.fixture(params=["socket", "tcp"])
async def sdk(door: Door, request: pytest.FixtureRequest) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's own client, over either way in."""
    way_in: WayIn = request.param
    async with door.openai(way_in) as sdk:
        yield sdk


@pytest.fixture
async def claude(door: Door) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """Anthropic's own client."""
    async with door.anthropic() as sdk:
        yield sdk


# --- OpenAI's SDK ----------------------------------------------------------------------------------------


async def test_a_chat_and_its_stream_say_the_same_and_count_the_same_tokens(sdk: openai.AsyncOpenAI) -> None:
    whole = await sdk.chat.completions.create(model="guide", messages=ASKED, temperature=0, seed=7)
    stream = await sdk.chat.completions.create(
        model="guide",
        messages=ASKED,
        temperature=0,
        seed=7,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]

    *spoken, last = chunks
    assert whole.choices[0].message.content == ANSWER
    assert "".join(chunk.choices[0].delta.content or "" for chunk in spoken) == ANSWER
    assert spoken[-1].choices[0].finish_reason == whole.choices[0].finish_reason == "stop"
    assert last.choices == []
    assert whole.usage is not None
    assert last.usage is not None
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens
    assert last.usage.total_tokens == whole.usage.total_tokens


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "get_status"}}], ids=["any", "named"]
)
async def test_a_tool_that_is_forced_is_called_whole_and_streamed(
    sdk: openai.AsyncOpenAI, choice: object
) -> None:
    asked: Any = {
        "model": "guide",
        "messages": [{"role": "user", "content": STATUS}],
        "tools": TOOLS,
        "tool_choice": choice,
        "temperature": 0,
    }
    whole = await sdk.chat.completions.create(**asked)
    async with sdk.chat.completions.stream(**asked) as stream:
        streamed = await stream.get_final_completion()

    for answer in (whole.choices[0], streamed.choices[0]):
        (call,) = answer.message.tool_calls or []
        assert call.type == "function"
        assert (call.function.name, json.loads(call.function.arguments)) == (
            "get_status",
            {"runtime": "vllm"},
        )
        assert answer.finish_reason == "tool_calls"


async def test_what_a_schema_forces_is_json_that_fits_it(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(
        model="guide",
        messages=ASKED,
        response_format={"type": "json_schema", "json_schema": {"name": "light", "schema": SCHEMA}},
    )

    said = json.loads(answer.choices[0].message.content or "")
    assert said.keys() == {"colour", "is_ready"}
    assert said["colour"] in {"red", "green"}
    assert isinstance(said["is_ready"], bool)


async def test_logprobs_come_for_every_token(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(
        model="guide", messages=ASKED, logprobs=True, top_logprobs=3, max_tokens=4
    )

    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert answer.usage is not None
    tokens = logprobs.content or []
    assert len(tokens) == answer.usage.completion_tokens == 4
    assert "".join(token.token for token in tokens) == answer.choices[0].message.content
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 3 for token in tokens)


async def test_the_same_seed_says_the_same_however_hot(sdk: openai.AsyncOpenAI) -> None:
    async def say(seed: int) -> str:
        answer = await sdk.chat.completions.create(
            model="guide",
            messages=[{"role": "user", "content": "zebra"}],
            temperature=5,
            top_p=1,
            seed=seed,
            max_tokens=20,
            extra_body={"min_p": 0, "top_k": 0},
        )
        return answer.choices[0].message.content or ""

    first = [await say(seed) for seed in range(5)]
    again = [await say(seed) for seed in range(5)]

    assert again == first
    assert len(set(first)) > 1


async def test_vectors_come_in_the_sdks_own_form_and_in_numbers(sdk: openai.AsyncOpenAI) -> None:
    texts = [QUESTION, "Which key quits?"]

    usual = await sdk.embeddings.create(model="embed", input=texts)
    packed = await sdk.embeddings.create(model="embed", input=texts, encoding_format="base64")

    assert [each.index for each in usual.data] == [0, 1]
    for one, other in zip(usual.data, packed.data, strict=True):
        assert isinstance(other.embedding, str)
        assert struct.unpack("<64f", base64.b64decode(other.embedding)) == pytest.approx(
            tuple(one.embedding), abs=1e-5
        )


async def test_every_name_of_a_model_is_listed_found_and_answers(sdk: openai.AsyncOpenAI) -> None:
    listed = [model.id async for model in sdk.models.list()]
    names = ("guide", "llamacpp/guide", "helper")
    found = [await sdk.models.retrieve(name) for name in names]
    answers = [await sdk.chat.completions.create(model=name, messages=ASKED, temperature=0) for name in names]

    assert set(names) <= set(listed)
    assert len(set(listed)) == len(listed)
    assert [model.id for model in found] == list(names)
    assert {answer.choices[0].message.content for answer in answers} == {ANSWER}


async def test_a_model_that_is_not_there_is_told_with_those_that_are(sdk: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as asked:
        await sdk.chat.completions.create(model="nope", messages=ASKED)
    with pytest.raises(openai.NotFoundError) as looked_up:
        await sdk.models.retrieve("nope")

    for error in (asked.value, looked_up.value):
        assert (error.code, error.param, error.type) == ("not_found", "model", "not_found_error")
        assert isinstance(error.body, dict)
        assert "guide" in error.body["hint"]


async def test_headers_say_who_answered_and_keep_the_id(sdk: openai.AsyncOpenAI) -> None:
    raw = await sdk.chat.completions.with_raw_response.create(
        model="helper", messages=ASKED, extra_headers={"x-request-id": "mine-7"}
    )

    assert raw.parse().choices[0].message.content
    assert raw.headers["x-request-id"] == raw.request_id == "mine-7"
    assert raw.headers["x-footplate-runtime"] == "llamacpp"
    assert raw.headers["x-footplate-model"] == "guide"
    assert int(raw.headers["x-footplate-queue-ms"]) >= 0


async def test_a_picture_reaches_an_engine_that_says_it_reads_none(sdk: openai.AsyncOpenAI) -> None:
    seen: Any = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": PICTURE}},
    ]
    with pytest.raises(openai.BadRequestError, match="image") as refused:
        await sdk.chat.completions.create(model="guide", messages=[{"role": "user", "content": seen}])

    assert isinstance(refused.value.body, dict)
    assert "vision" in refused.value.body["hint"]


async def test_responses_come_whole_and_streamed(sdk: openai.AsyncOpenAI) -> None:
    whole = await sdk.responses.create(model="guide", input=QUESTION, temperature=0)
    stream = await sdk.responses.create(model="guide", input=QUESTION, temperature=0, stream=True)
    events = [event async for event in stream]

    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    last = events[-1]
    assert whole.output_text == ANSWER
    assert "".join(deltas) == ANSWER
    assert last.type == "response.completed"
    assert last.response.output_text == ANSWER


async def test_responses_are_counted_in_the_ledger(door: Door) -> None:
    async with door.openai() as sdk:
        await sdk.responses.create(model="guide", input=QUESTION, extra_headers={"x-request-id": "whole"})
        stream = await sdk.responses.create(
            model="guide", input=QUESTION, stream=True, extra_headers={"x-request-id": "streamed"}
        )
        async for _ in stream:
            pass

    whole = await ended(door.footplate, "whole")
    streamed = await ended(door.footplate, "streamed")
    assert (whole.outcome, whole.path, whole.client) == ("done", "/v1/responses", "all")
    assert whole.prompt_tokens == streamed.prompt_tokens == 17
    assert whole.completion_tokens == streamed.completion_tokens == 18
    assert streamed.ttft_ms is not None


async def test_an_answer_is_the_engines_own_but_for_what_differs_each_time(door: Door) -> None:
    asked = chat(temperature=0, logprobs=True, top_logprobs=2, tools=TOOLS, n=2, logit_bias={"5": 1})
    asked["cache_prompt"] = False  # what is cached is computed a little differently
    record = door.footplate.record()
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{record.port}", timeout=PATIENCE_SECONDS) as engine,
        door.http() as http,
    ):
        key = {"authorization": f"Bearer {record.api_key}"}
        there = await engine.post("/v1/chat/completions", json=asked, headers=key)
        here = await http.post("/v1/chat/completions", json=asked, headers=door.headers())

    assert there.status_code == here.status_code == 200
    assert lasting(here.json()) == lasting(there.json())


def lasting(answer: dict[str, Any]) -> dict[str, Any]:
    """Give of an answer what is the same when it is asked for again."""
    usage = {name: value for name, value in answer["usage"].items() if not name.endswith("_details")}
    rest = {name: value for name, value in answer.items() if name not in {"id", "created", "timings"}}
    return {**rest, "usage": usage}


# --- Anthropic's SDK -------------------------------------------------------------------------------------


async def test_messages_come_whole_and_streamed(claude: anthropic.AsyncAnthropic) -> None:
    whole = await claude.messages.create(model="guide", max_tokens=50, messages=ASKED)
    async with claude.messages.stream(model="guide", max_tokens=50, messages=ASKED) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        final = await stream.get_final_message()

    (block,) = whole.content
    assert block.type == "text"
    assert block.text == text == ANSWER
    assert whole.stop_reason == final.stop_reason == "end_turn"
    assert whole.usage.output_tokens == final.usage.output_tokens > 0


async def test_tokens_of_messages_are_counted_without_an_answer(claude: anthropic.AsyncAnthropic) -> None:
    counted = await claude.messages.count_tokens(model="guide", messages=ASKED)

    assert counted.input_tokens == 17


async def test_messages_are_counted_in_the_ledger(door: Door, claude: anthropic.AsyncAnthropic) -> None:
    await claude.messages.create(
        model="guide", max_tokens=50, messages=ASKED, extra_headers={"x-request-id": "messages-1"}
    )

    exchange = await ended(door.footplate, "messages-1")
    assert (exchange.outcome, exchange.path, exchange.client) == ("done", "/v1/messages", "all")
    assert (exchange.completion_tokens, exchange.finish_reason) == (18, "end_turn")


@pytest.mark.parametrize("variant", ["ollama/guide", "transformers/guide"])
async def test_a_runtime_without_messages_says_which_have_them(
    door: Door, claude: anthropic.AsyncAnthropic, variant: str
) -> None:
    with pytest.raises(anthropic.NotFoundError) as refused:
        await claude.messages.create(model=variant, max_tokens=50, messages=ASKED)

    error = error_of(httpx.Response(404, content=refused.value.response.content))
    assert variant.partition("/")[0] in error["message"]
    assert "llamacpp" in error["hint"]
    assert (await door.footplate.client.status()).wanted == "llamacpp/guide"


# --- Keys over TCP ---------------------------------------------------------------------------------------


async def ask(door: Door, secret: str | None = None, **more: Any) -> httpx.Response:
    """Ask over TCP with a key, or without one."""
    headers = door.headers(secret) if secret else {}
    async with door.http() as http:
        return await http.post("/v1/chat/completions", json=chat(**more), headers=headers)


async def create_key(door: Door, name: str, **limits: Any) -> str:
    """Make a key and give its secret."""
    made = await door.footplate.client.create_key(wire.ApiKeyWish(name=name, **limits))
    return made.secret


async def test_without_a_key_or_with_a_wrong_one_nobody_gets_in(door: Door) -> None:
    without, wrong = await ask(door), await ask(door, "fp-wrong")

    assert (without.status_code, error_of(without)["code"]) == (401, "unauthorized")
    assert (wrong.status_code, error_of(wrong)["code"]) == (401, "unauthorized")
    assert "no API key" in error_of(without)["message"]
    assert "not one of" in error_of(wrong)["message"]


async def test_a_revoked_key_opens_nothing_from_then_on(door: Door) -> None:
    secret = await create_key(door, "lost")

    before = await ask(door, secret)
    await door.footplate.client.revoke_key("lost")
    after = await ask(door, secret)

    assert before.status_code == 200
    assert after.status_code == 401
    assert '"lost" is revoked' in error_of(after)["message"]


async def test_an_expired_key_opens_nothing(door: Door) -> None:
    secret = await create_key(door, "short", lifetime_seconds=5)

    first = response = await ask(door, secret)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while response.status_code == 200:
            response = await ask(door, secret)

    assert first.status_code == 200
    assert response.status_code == 401
    assert '"short" expired' in error_of(response)["message"]


async def test_a_key_that_is_used_too_often_says_when_to_come_back(door: Door) -> None:
    secret = await create_key(door, "slow", requests_per_minute=2)

    answers = [await ask(door, secret) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert error_of(answers[2])["code"] == "busy"
    assert 1 <= int(answers[2].headers["retry-after"]) <= 60


async def test_a_key_for_one_model_is_for_no_other(door: Door) -> None:
    secret = await create_key(door, "guide-only", models=("guide",))

    allowed = await ask(door, secret, model="llamacpp/guide")
    refused = await ask(door, secret, model="other")

    assert allowed.status_code == 200
    assert (refused.status_code, error_of(refused)["code"]) == (403, "forbidden")
    assert error_of(refused)["param"] == "model"
    assert (await door.footplate.client.status()).wanted == "llamacpp/guide"


@pytest.mark.parametrize(
    "path", ["/", "/config", "/openapi.json", "/health/deep", "/api/v1/status", "/api/v1/keys", "//config"]
)
async def test_control_is_not_on_tcp(door: Door, path: str) -> None:
    async with door.http() as http:
        with_key = await http.get(f"{door.url}{path}", headers=door.headers())
        without = await http.get(f"{door.url}{path}")

    assert (with_key.status_code, error_of(with_key)["code"]) == (404, "not_found")
    assert without.status_code == 401


async def test_what_is_too_large_is_refused(home: Paths) -> None:
    async with open_door(home, "max_body_mib = 1\nmax_header_kib = 8") as door, door.http() as http:
        large = await http.post("/v1/chat/completions", content=b" " * 2_000_000, headers=door.headers())
        headed = await http.get("/v1/models", headers=door.headers() | {"x-much": "x" * 10_000})
        fine = await http.get("/v1/models", headers=door.headers() | {"x-much": "x" * 5_000})

    assert (large.status_code, error_of(large)["code"]) == (413, "too_large")
    assert headed.status_code == 431
    assert error_of(headed)["message"]
    assert fine.status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_tcp_opens_with_the_first_key_and_not_before(home: Paths, host: str) -> None:
    port = free_port()
    async with running(home, "") as footplate:
        await footplate.until_ready()
        before = await footplate.client.health()
        home.config_file.write_text(f'[gateway]\nlisten = "{host}:{port}"\n')
        checked = await footplate_command(home, "config", "check")
        await footplate.http.post("/api/v1/reload")
        told = await footplate_command(home, "status")
        is_shut = await refuses(port)

        made = await footplate.client.create_key(wire.ApiKeyWish(name="first"))
        await footplate_command(home, "reload")
        await until_tcp_is_open(footplate)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS) as http:
            opened = await http.get("/v1/models", headers={"x-api-key": made.secret})

        assert checked.returncode == (0 if host == "127.0.0.1" else 1)
        assert is_shut
        assert "no API key yet" in told.stdout
        assert opened.status_code == 200
        assert (await footplate.client.health()).pid == before.pid


async def refuses(port: int) -> bool:
    """Say whether nobody takes connections there."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def test_a_daemon_that_starts_without_a_key_stays_shut_until_there_is_one(home: Paths) -> None:
    port = free_port()
    async with running(home, f'[gateway]\nlisten = "127.0.0.1:{port}"\n') as footplate:
        await footplate.until_ready()
        is_shut = await refuses(port)
        errors = (await footplate.client.status()).config_errors

        await footplate.client.create_key(wire.ApiKeyWish(name="first"))
        await until_tcp_is_open(footplate)

        assert is_shut
        assert any("no API key yet" in error for error in errors)
        assert not await refuses(port)


async def test_no_file_ever_holds_a_secret(home: Paths) -> None:
    async with open_door(home, config='[daemon]\nlog_level = "debug"') as door:
        limited = await create_key(door, "limited", models=("guide",), requests_per_minute=1)
        async with door.http() as http:
            for headers in (door.headers(), {"x-api-key": door.secret}):
                await http.post("/v1/chat/completions", json=chat(), headers=headers)
                await http.post("/v1/nothing", json={}, headers=headers)
            await http.get(f"/v1/models?key={door.secret}&api_key={limited}", headers=door.headers())
            await http.get(f"/v1/models?token={door.secret}")
        await ask(door, limited, model="other")
        await ask(door, limited)
        await ask(door, f"{limited}x")
        await footplate_command(home, "keys", "revoke", limited)
        await asyncio.to_thread(lifecycle.down, home)

        root = home.run_dir.parent
        files = [file for file in root.rglob("*") if file.is_file()]
        for secret in (door.secret, limited):
            assert [file for file in files if secret[10:].encode() in file.read_bytes()] == []
        assert {file.name for file in files} >= {"access.log", "footplate.db"}


async def test_what_a_key_did_is_in_the_ledger_under_its_name(door: Door) -> None:
    secret = await create_key(door, "ci", requests_per_minute=1)
    async with door.http() as http:
        for request_id in ("first", "second"):
            await http.post(
                "/v1/chat/completions",
                json=chat(),
                headers=door.headers(secret) | {"x-request-id": request_id},
            )

    assert (await ended(door.footplate, "first")).client == "ci"
    (key,) = [key for key in await door.footplate.client.keys() if key.name == "ci"]
    assert key.last_used_at is not None


# --- What goes on to the engine --------------------------------------------------------------------------


@pytest.fixture
async def far() -> AsyncIterator[FakeUpstream]:
    """A server elsewhere."""
    async with open_upstream("far") as upstream:
        yield upstream


@pytest.fixture
async def footplate(home: Paths, far: FakeUpstream) -> AsyncIterator[Whole]:
    """A Footplate whose model elsewhere has a profile with a system message."""
    config = f"""
[switching]
default = "remote/far"
[models.far]
profile = {{ system = "Odpowiadaj po polsku.", temperature = 0.25, max_tokens = 33, stop = ["KONIEC"] }}
[models.far.remote]
url = "http://127.0.0.1:{far.port}"
"""
    async with running(home, config) as whole:
        await whole.until_ready("remote/far")
        yield whole


async def test_the_profile_fills_what_the_client_leaves_out_and_nothing_else(
    footplate: Whole, far: FakeUpstream
) -> None:
    await footplate.chat("Hi", model="far")
    filled = far.newest
    own: list[dict[str, Any]] = [
        {"role": "system", "content": FRENCH_WEATHER},
        {"role": "user", "content": "Hi"},
    ]
    await footplate.chat("", model="far", messages=own, temperature=1, max_tokens=5, stop="END")
    kept = far.newest

    assert filled["messages"] == [
        {"role": "system", "content": "Odpowiadaj po polsku."},
        {"role": "user", "content": "Hi"},
    ]
    assert (filled["temperature"], filled["max_tokens"], filled["stop"]) == (0.25, 33, ["KONIEC"])
    assert kept["messages"] == own
    assert (kept["temperature"], kept["max_tokens"], kept["stop"]) == (1, 5, "END")


async def test_what_nobody_here_knows_reaches_the_engine_unharmed(
    footplate: Whole, far: FakeUpstream
) -> None:
    sent: list[dict[str, Any]] = [
        {"role": "system", "content": "Zażółć gęślą jaźń \U0001f99c"},
        {
            "role": "user",
            "name": "ann",
            "content": [
                {"type": "text", "text": "x"},
                {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": [1]}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "fine"},
    ]
    more: dict[str, Any] = {
        "tools": TOOLS,
        "tool_choice": {"type": "function", "function": {"name": "get_status"}},
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": SCHEMA, "strict": True},
        },
        "metadata": {"a": "b"},
        "never_heard_of": [1, {"deep": None}],
        "logprobs": True,
        "seed": 2**53,
        "user": "ann",
    }
    response = await footplate.chat("", model="far", messages=sent, **more)

    assert response.json() == far.answer
    assert far.newest == {
        "model": "far",
        "messages": sent,
        "temperature": 0.25,
        "max_tokens": 33,
        "stop": ["KONIEC"],
        **more,
    }


async def test_a_stream_reaches_the_client_byte_for_byte(footplate: Whole, far: FakeUpstream) -> None:
    far.answer = b": odd\n\n" + b"".join(
        b'data: {"choices":[{"index":0,"delta":{"content":"%d"},"x":"\xc3\xb3"}]}\n\n' % n for n in range(99)
    )
    far.answer += b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'

    response = await footplate.chat("Hi", model="far", stream=True)

    assert response.content == far.answer


async def test_a_connection_that_ends_unheard_is_tried_once_more(footplate: Whole, far: FakeUpstream) -> None:
    far.hangs_up = 1

    response = await footplate.http.post("/v1/chat/completions", json=chat(model="far"))

    assert response.status_code == 200, response.text
    assert response.headers.get_list("x-footplate-model") == ["far"]
    assert len(far.asked) == 2


async def test_a_connection_that_ends_unheard_twice_is_told(footplate: Whole, far: FakeUpstream) -> None:
    far.hangs_up = 3

    response = await footplate.http.post("/v1/chat/completions", json=chat(model="far"))

    assert (response.status_code, error_of(response)["code"]) == (502, "engine_failed")
    assert len(far.asked) == 2


async def test_a_parameter_that_the_runtime_does_not_know_is_named(door: Door) -> None:
    response = await ask(door, door.secret, never_heard_of=1, temperature=0)
    plain = await ask(door, door.secret, temperature=0)

    assert response.status_code == 200
    assert "never_heard_of" in re.split(r",\s*", response.headers["x-footplate-ignored"])
    assert "x-footplate-ignored" not in plain.headers


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_an_answer_of_reasoning_alone_has_a_hint_in_the_ledger(
    footplate: Whole, far: FakeUpstream, *, stream: bool
) -> None:
    far.answer = message("", "length", reasoning_content="Let me think about this")
    if stream:
        far.answer = (
            b'data: {"choices":[{"index":0,"delta":{"reasoning_content":"Let me"}}]}\n\n'
            b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}\n\ndata: [DONE]\n\n'
        )
    response = await footplate.http.post(
        "/v1/chat/completions",
        json=chat(model="far", stream=stream, max_tokens=3),
        headers={"x-request-id": "thought"},
    )

    exchange = await ended(footplate, "thought")
    assert response.status_code == 200
    assert (exchange.outcome, exchange.error, exchange.finish_reason) == ("done", None, "length")
    assert "max_tokens" in (exchange.hint or "")


@pytest.mark.parametrize("status", [400, 422, 429, 500, 503])
async def test_an_engines_refusal_comes_with_its_status_and_in_our_shape(
    footplate: Whole, far: FakeUpstream, status: int
) -> None:
    far.status, far.answer = status, {"detail": "the far side says no"}

    response = await footplate.chat("Hi", model="far")

    assert response.status_code == status
    assert "the far side says no" in error_of(response)["message"]


# --- Health and metrics ----------------------------------------------------------------------------------


async def test_metrics_parse_over_tcp_and_on_the_socket(door: Door) -> None:
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415

    await ask(door, door.secret)
    async with door.http() as http:
        over_tcp = await http.get("/metrics", headers=door.headers())
        without = await http.get("/metrics")
    here = await door.footplate.http.get("/metrics")

    assert without.status_code == 401
    for response in (over_tcp, here):
        names = {family.name for family in text_string_to_metric_families(response.text)}
        assert {"footplate_requests", "footplate_engine_state", "footplate_build_info"} <= names
        assert door.secret not in response.text


async def test_health_is_short_over_tcp_and_deep_on_the_socket(door: Door) -> None:
    async with door.http() as http:
        short = await http.get("/health", headers=door.headers())
    deep = await door.footplate.http.get("/health/deep")

    assert (short.status_code, short.json()) == (200, {"status": "ok"})
    assert (deep.status_code, deep.json()["status"]) == (200, "ok")
    assert {part["name"] for part in deep.json()["parts"]} == {
        "database",
        "supervisord",
        "disk",
        "engine llamacpp/guide",
        "service llamacpp/embed",
    }
