"""What a client may rely on, whichever runtime answers: one suite through the gateway, for each of them.

Where a runtime differs, it says so in its own `cannot`, from which docs/runtimes.md is made. A case that it
cannot do is tested too: it must say so, and never pretend. The profile of the model under test has reasoning
off, and its template can switch that.
"""

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from footplate_daemon import lifecycle, processes
from footplate_daemon.client import FootplateClient
from footplate_daemon.gateway.sse import EventSplitter
from footplate_daemon.paths import Paths
from footplate_daemon.runtimes.cases import Case
from footplate_daemon.runtimes.reasoning import WARNING
from footplate_daemon.runtimes.table import RUNTIMES
from footplate_daemon.wire import Engine, Status
from tests import engines
from tests.conftest import fresh_home
from tests.runtimes.test_ollama_server import create_guide, serving
from tests.whole.conftest import Whole, error_of, follow_until
from tests.whole.test_switching import members, switch

pytestmark = pytest.mark.timeout(420)

LOAD_SECONDS = 180.0
CONTEXT = 2048
QUESTION = "How do I switch runtime?"
ANSWER = "Run footplate switch with the name of a runtime, for example: footplate switch vllm."
THINKS = "Think: which key quits?"
STATUS = "What is the status of vllm?"
PICTURE = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
KEEP_TALKING: dict[str, Any] = {"ignore_eos": True, "max_tokens": 1800}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_status",
            "description": "Status of a runtime",
            "parameters": {
                "type": "object",
                "properties": {"runtime": {"type": "string"}},
                "required": ["runtime"],
            },
        },
    }
]
"""The tool that the guide knows to call."""
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green"]}, "is_ready": {"type": "boolean"}},
    "required": ["colour", "is_ready"],
    "additionalProperties": False,
}
OLLAMA = engines.REPOSITORY / "tests" / "fakes" / "ollama" / "ollama"


@dataclass(frozen=True)
class Subject:
    """A running Footplate with the guide on one runtime."""

    paths: Paths
    variant: str
    talker: str
    """A variant that goes on talking."""
    is_real: bool = True
    """Not a stand-in, which computes nothing."""

    @property
    def cannot(self) -> Mapping[Case, str]:
        return RUNTIMES[self.variant.partition("/")[0]][0]


@pytest.fixture(
    scope="module",
    params=[
        "embedded",
        "llama-server",
        pytest.param("vllm", marks=pytest.mark.vllm),
        pytest.param("transformers", marks=pytest.mark.torch),
        "ollama-stand-in",
        "ollama",
    ],
)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """Start each runtime once, for all cases."""
    folder = tmp_path_factory.mktemp("subject")
    config = CONFIGS[request.param](folder)
    runtime = request.param.partition("-")[0]
    name = {"embedded": "llamacpp", "llama": "llamacpp"}.get(runtime, runtime)
    variant = f"{name}/tested"
    with fresh_home() as paths:
        paths.make()
        paths.config_file.write_text(f'[switching]\ndefault = "{variant}"\n{config}\n')
        lifecycle.up(paths)
        asyncio.run(until_active(paths, variant))
        is_stand_in = request.param == "ollama-stand-in"
        yield Subject(paths, variant, "ollama/endless" if is_stand_in else variant, not is_stand_in)


async def until_active(paths: Paths, variant: str) -> None:
    async with asyncio.timeout(LOAD_SECONDS), FootplateClient(paths.socket) as client:
        await follow_until(client, lambda status: status.active == variant)


@pytest.fixture
async def footplate(subject: Subject) -> AsyncIterator[Whole]:
    transport = httpx.AsyncHTTPTransport(uds=str(subject.paths.socket))
    async with (
        FootplateClient(subject.paths.socket) as client,
        httpx.AsyncClient(transport=transport, base_url="http://footplate", timeout=LOAD_SECONDS) as http,
    ):
        yield Whole(subject.paths, client, http)


# --- How each is configured ------------------------------------------------------------------------------


def template() -> str:
    """Give the guide's template with a switch for reasoning, which its own has not."""
    text = (engines.REPOSITORY / "guide" / "template.jinja").read_text()
    is_off = "enable_thinking is defined and enable_thinking is false"
    message, written = r"message.role + '\n' + text(message.content)", "text(message.content)"
    assert text.count(message) == 1
    switched = f"({written} | replace('Think: ', '') if {is_off} else {written})"
    return text.replace(message, message.replace(written, switched))


def weights(folder: Path) -> Path:
    """Give the guide's folder with that template."""
    copy = folder / "guide-hf"
    shutil.copytree(engines.GUIDE_HF, copy)
    (copy / "chat_template.jinja").write_text(template())
    return copy


def embedded(folder: Path) -> str:  # noqa: ARG001
    return f"""
[models.tested]
profile = {{ reasoning = "off" }}
[models.tested.llamacpp]
weights = {json.dumps(str(engines.GUIDE_GGUF))}
context = {CONTEXT}
slots = 2
chat_template = {json.dumps(template())}
"""


def llama_server(folder: Path) -> str:
    server = engines.require(engines.llama_server(), "llama-server")
    (folder / "template.jinja").write_text(template())
    return f"""
[models.tested]
profile = {{ reasoning = "off" }}
[models.tested.llamacpp]
weights = {json.dumps(str(engines.GUIDE_GGUF))}
command = [{json.dumps(str(server))}]
args = ["--chat-template-file", {json.dumps(str(folder / "template.jinja"))}]
context = {CONTEXT}
"""


def vllm(folder: Path) -> str:
    environment = engines.require(engines.vllm(), "vllm").parent.parent
    light = ", ".join(f"{name} = {json.dumps(value)}" for name, value in engines.VLLM_LIGHT_ENV.items())
    args = [
        *engines.VLLM_LIGHT_ARGS,
        *("--reasoning-parser", "deepseek_v3", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
        *("--structured-outputs-config", '{"backend":"xgrammar","disable_any_whitespace":true}'),
    ]
    return f"""
[runtimes.vllm]
program = {json.dumps(str(environment))}
env = {{ {light} }}
[models.tested]
profile = {{ reasoning = "off" }}
[models.tested.vllm]
weights = {json.dumps(str(weights(folder)))}
args = {json.dumps(args)}
context = {CONTEXT}
"""


def transformers(folder: Path) -> str:
    environment = engines.require(engines.vllm(), "vllm").parent.parent
    return f"""
[runtimes.transformers]
program = {json.dumps(str(environment))}
env = {{ OMP_NUM_THREADS = "1" }}
[models.tested]
profile = {{ reasoning = "off" }}
[models.tested.transformers]
weights = {json.dumps(str(weights(folder)))}
context = {CONTEXT}
"""


def ollama_stand_in(folder: Path) -> str:
    return ollama_config(OLLAMA, folder) + f"[models.endless.ollama]\ncontext = {CONTEXT}\n"


def ollama(folder: Path) -> str:
    program = os.environ.get("FOOTPLATE_TEST_OLLAMA") or shutil.which("ollama")
    if program is None:
        pytest.skip("there is no real ollama on PATH or in FOOTPLATE_TEST_OLLAMA")
    with serving(program, folder, OLLAMA_MODELS=str(folder / "models")) as server:
        asyncio.run(create_guide(server))
    return ollama_config(Path(program), folder)


def ollama_config(program: Path, folder: Path) -> str:
    models = json.dumps(str(folder / "models"))
    return f"""
[runtimes.ollama]
program = {json.dumps(str(program))}
env = {{ STAND_IN_MODELS = "guide endless", OLLAMA_MODELS = {models} }}
[models.tested]
profile = {{ reasoning = "off" }}
[models.tested.ollama]
weights = "guide"
context = {CONTEXT}
"""


CONFIGS: Mapping[str, Callable[[Path], str]] = {
    "embedded": embedded,
    "llama-server": llama_server,
    "vllm": vllm,
    "transformers": transformers,
    "ollama-stand-in": ollama_stand_in,
    "ollama": ollama,
}


# --- How they are asked ----------------------------------------------------------------------------------


def body_of(subject: Subject, question: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}]
    return {"model": subject.variant, "messages": messages, "temperature": 0, **more}


async def post(footplate: Whole, subject: Subject, question: str, **more: Any) -> httpx.Response:
    body = body_of(subject, question, **more)
    return await footplate.http.post("/v1/chat/completions", json=body)


async def whole(footplate: Whole, subject: Subject, question: str, **more: Any) -> dict[str, Any]:
    """Ask for an answer in one piece."""
    response = await post(footplate, subject, question, **more)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def chunks(footplate: Whole, subject: Subject, question: str, **more: Any) -> list[dict[str, Any]]:
    """Ask for a stream; give its chunks after checking how it ends."""
    response = await post(footplate, subject, question, stream=True, **more)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, last = EventSplitter().feed(response.content)
    assert last == b"[DONE]"
    return [json.loads(event) for event in events]


def joined(chunks: list[dict[str, Any]], name: str = "content") -> str:
    return "".join(choice["delta"].get(name) or "" for chunk in chunks for choice in chunk["choices"])


def finish_reasons(chunks: list[dict[str, Any]]) -> list[str]:
    return [
        choice["finish_reason"]
        for chunk in chunks
        for choice in chunk["choices"]
        if choice.get("finish_reason") is not None
    ]


def choice_of(answer: dict[str, Any]) -> dict[str, Any]:
    (choice,) = answer["choices"]
    assert isinstance(choice, dict)
    return choice


def engine_of(status: Status, variant: str) -> Engine | None:
    return next((engine for engine in status.engines if engine.variant == variant), None)


async def refused(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    return error_of(response)


# --- The cases -------------------------------------------------------------------------------------------


async def test_a_stream_joins_to_the_whole_answer(footplate: Whole, subject: Subject) -> None:
    answer = await whole(footplate, subject, QUESTION)

    streamed = await chunks(footplate, subject, QUESTION)

    assert choice_of(answer)["message"]["content"] == ANSWER
    assert joined(streamed) == ANSWER
    assert finish_reasons(streamed) == [choice_of(answer)["finish_reason"]] == ["stop"]
    assert streamed[0]["choices"][0]["delta"]["role"] == "assistant"
    assert {chunk["object"] for chunk in streamed} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in streamed}) == 1


async def test_a_stop_word_ends_the_answer_and_is_left_out(footplate: Whole, subject: Subject) -> None:
    answer = choice_of(await whole(footplate, subject, QUESTION, stop=["name", "never"]))
    streamed = await chunks(footplate, subject, QUESTION, stop="name")

    assert answer["message"]["content"].rstrip() == "Run footplate switch with the"
    assert joined(streamed).rstrip() == "Run footplate switch with the"
    assert answer["finish_reason"] == "stop"


async def test_the_same_seed_gives_the_same_answer(footplate: Whole, subject: Subject) -> None:
    async def say(seed: int) -> str:
        more = {"temperature": 2.0, "ignore_eos": True, "max_tokens": 40}
        answer = await whole(footplate, subject, QUESTION, seed=seed, **more)
        content: str = choice_of(answer)["message"]["content"]
        return content

    said = [await say(seed) for seed in (1, 2, 3, 4)]

    assert [await say(seed) for seed in (1, 2, 3, 4)] == said
    assert len(set(said)) > 1 or not subject.is_real


async def test_several_answers_come_or_are_told_not_to(footplate: Whole, subject: Subject) -> None:
    response = await post(footplate, subject, QUESTION, n=2, temperature=0.5)

    if Case.SEVERAL not in subject.cannot:
        assert [choice["index"] for choice in response.json()["choices"]] == [0, 1]
    elif response.status_code == 200:
        assert "n" in response.headers["x-footplate-ignored"].split(",")
    else:
        assert (await refused(response, 400))["param"] == "n"


async def test_tokens_are_counted(footplate: Whole, subject: Subject) -> None:
    more = {"ignore_eos": True, "max_tokens": 5}
    answer = await whole(footplate, subject, QUESTION, **more)
    streamed = await chunks(footplate, subject, QUESTION, stream_options={"include_usage": True}, **more)

    usage = answer["usage"]
    assert streamed[-1]["choices"] == []
    last = streamed[-1]["usage"]
    for each in (usage, last):
        assert 5 <= each["prompt_tokens"] <= 60
        assert 5 <= each["completion_tokens"] <= 6
        assert each["total_tokens"] == each["prompt_tokens"] + each["completion_tokens"]
    assert choice_of(answer)["finish_reason"] == "length"
    assert finish_reasons(streamed) == ["length"]


async def test_who_hangs_up_frees_the_engine(footplate: Whole, subject: Subject) -> None:
    body = body_of(subject, QUESTION, stream=True, **KEEP_TALKING) | {"model": subject.talker}

    busy = asyncio.ensure_future(footplate.until(lambda status: leases(status, subject.talker) == 1))
    async with footplate.http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200
        chunks = response.aiter_text()  # held: dropped, it would close the connection
        await anext(chunks)
        await busy

    await footplate.until(lambda status: is_quiet(status, subject.talker))
    answer = await whole(footplate, subject, QUESTION)
    assert choice_of(answer)["message"]["content"] == ANSWER


def leases(status: Status, variant: str) -> int | None:
    engine = engine_of(status, variant)
    return engine.leases if engine else None


def is_quiet(status: Status, variant: str) -> bool:
    engine = engine_of(status, variant)
    return engine is not None and not engine.leases and not engine.requests_running


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_prompt_that_is_too_long_is_refused_with_a_way_on(
    footplate: Whole, subject: Subject, stream: bool
) -> None:
    response = await post(footplate, subject, "so many words " * CONTEXT, stream=stream)

    error = await refused(response, 400)
    assert "horten the prompt" in error["hint"]


async def test_an_unknown_model_is_told_with_those_there_are(footplate: Whole, subject: Subject) -> None:
    response = await post(footplate, subject, QUESTION, model="nonsense-7b")

    error = await refused(response, 404)
    assert "nonsense-7b" in error["message"]


WRONG = [
    ("temperature", "warm"),
    ("temperature", True),
    ("top_p", []),
    ("max_tokens", "many"),
    ("max_tokens", 1.5),
    ("seed", "x"),
    ("stop", 5),
    ("stop", [1]),
    ("n", 0),
    ("stream_options", "all"),
    ("tools", {"name": "get_status"}),
    ("response_format", "json"),
    ("reasoning_effort", 3),
    ("logit_bias", [1]),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_parameter_of_a_wrong_type_is_named(footplate: Whole, subject: Subject, stream: bool) -> None:
    for name, value in WRONG:
        error = await refused(await post(footplate, subject, QUESTION, stream=stream, **{name: value}), 400)

        assert error["param"] == name
        assert name in error["message"]


@pytest.mark.parametrize("content", [5, {"type": "text"}, ["Hello"], [{"text": "Hello"}]])
async def test_a_message_of_a_wrong_type_is_named(
    footplate: Whole, subject: Subject, content: object
) -> None:
    messages = [{"role": "user", "content": content}]

    error = await refused(await post(footplate, subject, "", messages=messages), 400)

    assert error["param"] == "messages.0.content"


async def test_nulls_say_nothing(footplate: Whole, subject: Subject) -> None:
    nulls = dict.fromkeys((*(name for name, _ in WRONG), "stream", "tool_choice"), None)

    response = await post(footplate, subject, QUESTION, **nulls | {"temperature": 0})

    assert response.status_code == 200, response.text
    assert choice_of(response.json())["message"]["content"] == ANSWER
    assert "x-footplate-ignored" not in response.headers


async def test_a_parameter_that_nobody_knows_is_named_as_ignored(footplate: Whole, subject: Subject) -> None:
    response = await post(footplate, subject, QUESTION, temprature=1, user="me")

    assert response.status_code == 200, response.text
    assert set(response.headers["x-footplate-ignored"].split(",")) == {"temprature", "user"}


async def test_reasoning_comes_apart_under_both_names(footplate: Whole, subject: Subject) -> None:
    message = choice_of(await whole(footplate, subject, THINKS, reasoning_effort="low"))["message"]
    streamed = await chunks(footplate, subject, THINKS, reasoning_effort="low")

    assert message["reasoning_content"].startswith("The user wants to leave")
    assert message["reasoning"] == message["reasoning_content"]
    assert message["content"].strip().startswith("Press Ctrl+Q.")
    assert joined(streamed, "reasoning") == joined(streamed, "reasoning_content")
    assert joined(streamed, "reasoning").strip() == message["reasoning"].strip()
    assert joined(streamed).strip() == message["content"].strip()


async def test_reasoning_that_the_profile_switches_off_is_off(footplate: Whole, subject: Subject) -> None:
    answer = await whole(footplate, subject, THINKS)
    streamed = await chunks(footplate, subject, THINKS)

    message = choice_of(answer)["message"]
    assert message["content"].startswith("Press Ctrl+Q")
    assert "</think>" not in message["content"]
    assert not message.get("reasoning")
    assert not joined(streamed, "reasoning")
    assert joined(streamed) == message["content"]
    assert WARNING not in answer


async def test_an_answer_that_is_all_reasoning_says_so(footplate: Whole, subject: Subject) -> None:
    more = {"reasoning_effort": "low", "max_tokens": 6}
    answer = await whole(footplate, subject, THINKS, **more)
    streamed = await chunks(footplate, subject, THINKS, **more)

    assert not choice_of(answer)["message"]["content"]
    assert "raise max_tokens" in answer[WARNING]
    assert not joined(streamed)
    assert "raise max_tokens" in next(chunk[WARNING] for chunk in streamed if WARNING in chunk)


async def test_a_turn_that_is_all_reasoning_keeps_the_warning(footplate: Whole, subject: Subject) -> None:
    session = await footplate.http.post("/api/v1/sessions", json={})
    path = f"/api/v1/sessions/{session.json()['id']}"
    parameters = {"reasoning_effort": "low", "max_tokens": 6, "temperature": 0}
    wish = {"prompt": THINKS, "model": subject.variant, "parameters": parameters}
    turn = await footplate.http.post(f"{path}/turns", json=wish)
    await footplate.http.get(f"{path}/turns/{turn.json()['number']}/events")

    (kept,) = (await footplate.http.get(path)).json()["turns"]

    assert kept["answer"] == ""
    assert "raise max_tokens" in kept["warning"]


async def test_a_tool_is_called(footplate: Whole, subject: Subject) -> None:
    answer = choice_of(await whole(footplate, subject, STATUS, tools=TOOLS))
    streamed = await chunks(footplate, subject, STATUS, tools=TOOLS)

    (call,) = answer["message"]["tool_calls"]
    pieces = [
        piece
        for chunk in streamed
        for choice in chunk["choices"]
        for piece in choice["delta"].get("tool_calls") or ()
    ]
    arguments = "".join(piece["function"].get("arguments") or "" for piece in pieces)
    assert (call["type"], call["function"]["name"]) == ("function", "get_status")
    assert call["id"]
    assert json.loads(call["function"]["arguments"]) == {"runtime": "vllm"} == json.loads(arguments)
    assert pieces[0]["function"]["name"] == "get_status"
    assert {piece["index"] for piece in pieces} == {0}
    assert pieces[0]["id"]
    assert [answer["finish_reason"]] == finish_reasons(streamed) == ["tool_calls"]


async def test_what_a_tool_said_is_answered(footplate: Whole, subject: Subject) -> None:
    call = choice_of(await whole(footplate, subject, STATUS, tools=TOOLS))["message"]
    messages = [
        {"role": "user", "content": STATUS},
        call,
        {"role": "tool", "tool_call_id": call["tool_calls"][0]["id"], "content": "ready"},
    ]

    answer = choice_of(await whole(footplate, subject, "", tools=TOOLS, messages=messages))

    assert answer["message"]["content"] == "That is what get_status says."


async def test_json_fits_its_schema_or_is_told_not_to(footplate: Whole, subject: Subject) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "state", "strict": True, "schema": SCHEMA}}

    response = await post(footplate, subject, QUESTION, response_format=wanted, max_tokens=200)

    assert response.status_code == 200, response.text
    if Case.JSON_SCHEMA in subject.cannot:
        assert "response_format" in response.headers["x-footplate-ignored"]
        return
    said = json.loads(choice_of(response.json())["message"]["content"])
    assert said.keys() == {"colour", "is_ready"}
    assert said["colour"] in {"red", "green"}
    assert isinstance(said["is_ready"], bool)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_picture_for_a_model_that_reads_text_is_refused(
    footplate: Whole, subject: Subject, stream: bool
) -> None:
    picture = {"type": "image_url", "image_url": {"url": PICTURE}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, picture]}]

    response = await post(footplate, subject, "", messages=messages, stream=stream)

    error = await refused(response, 400)
    assert "vision" in error["hint"]


async def test_an_engine_that_dies_in_a_stream_is_told_and_comes_back(
    footplate: Whole, subject: Subject
) -> None:
    await switch(footplate, subject.talker)
    engine = await footplate.until_ready(subject.talker)
    group = members(engine.pid)
    body = body_of(subject, QUESTION, stream=True, **KEEP_TALKING) | {"model": subject.talker}

    async with footplate.http.stream("POST", "/v1/chat/completions", json=body) as response:
        pieces = response.aiter_bytes()
        said = await anext(pieces)
        os.kill(engine.pid or 0, signal.SIGKILL)
        said += b"".join([piece async for piece in pieces])

    error = json.loads(EventSplitter().feed(said)[-1])["error"]
    assert (error["code"], bool(error["hint"])) == ("engine_failed", True)
    async with asyncio.timeout(LOAD_SECONDS):
        await follow_until(
            footplate.client,
            lambda status: (
                status.active == subject.talker and all(each.pid != engine.pid for each in status.engines)
            ),
        )
    assert not [each for each in group if processes.is_alive(each)]
    await switch(footplate, subject.variant)
    answer = await whole(footplate, subject, QUESTION)
    assert choice_of(answer)["message"]["content"] == ANSWER
