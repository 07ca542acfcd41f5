"""The worker as a process, with the guide's weights, over plain HTTP."""

import base64
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import httpx
import pytest
from tests import engines

from footplate_daemon.catalog import Variant
from footplate_daemon.runtimes.base import LaunchPlan
from footplate_daemon.runtimes.transformers import Transformers
from footplate_daemon.switching.diagnosis import diagnose
from footplate_daemon.switching.engine import free_port
from footplate_daemon.weights import Weights
from footplate_daemon.wire import Diagnosis

pytestmark = pytest.mark.torch

DATA = engines.REPOSITORY / "tests" / "data"
START_SECONDS = 120
"""A start takes 4 s of a quiet machine."""
KEY = "a key"
QUESTIONS = tomllib.loads((engines.REPOSITORY / "guide" / "questions.toml").read_text())["known"]
PLAIN = [known for known in QUESTIONS if "think" not in known and "tool" not in known]
THINKING = [known for known in QUESTIONS if "think" in known]
TOOL = {
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


class Log:
    """What a process writes, line by line as it comes."""

    def __init__(self, stream: IO[str]) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._is_whole = False
        self._reader = threading.Thread(target=self._read, args=(stream,))
        self._reader.start()

    def wait_for(self, expression: str, after: int = 0) -> re.Match[str]:
        """Give the first line that has it, as soon as it is written; `after` lines are passed over."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_whole or self._find(expression, after), START_SECONDS)
            found = self._find(expression, after)
        assert found, "\n".join(self.lines)
        return found

    def close(self) -> None:
        """Return when the last line is read."""
        self._reader.join()

    def _read(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self._add(line)
        with self._changed:
            self._is_whole = True
            self._changed.notify_all()

    def _add(self, line: str) -> None:
        with self._changed:
            self.lines.append(line.rstrip())
            self._changed.notify_all()

    def _find(self, expression: str, after: int) -> re.Match[str] | None:
        lines = self.lines[after:]
        return next((found for line in lines if (found := re.search(expression, line))), None)


class Worker:
    """A worker that runs, and what its clients do."""

    def __init__(self, process: subprocess.Popen[str], log: Log, port: int, client: httpx.Client) -> None:
        self.process = process
        self.log = log
        self.port = port
        self.client = client

    def ask(self, question: str, **more: Any) -> httpx.Response:
        """Ask for a chat's answer, at temperature 0."""
        messages = [{"role": "user", "content": question}]
        return self.client.post("/v1/chat/completions", json={"messages": messages, "temperature": 0, **more})

    def answer(self, question: str, **more: Any) -> dict[str, Any]:
        """Give the choice of an answer, and its usage."""
        response = self.ask(question, **more)
        assert response.status_code == 200, response.text
        body = response.json()
        return {**body["choices"][0], "usage": body["usage"]}

    def chunks(self, question: str, **more: Any) -> list[dict[str, Any]]:
        """Give a streamed answer's chunks; it must have been ended as it should."""
        *events, last = events_of(self.ask(question, stream=True, **more).text)
        assert last == "[DONE]"
        return [json.loads(event) for event in events]

    def counters(self) -> dict[str, int]:
        """Give the numbers of /metrics."""
        lines = self.client.get("/metrics").text.splitlines()
        return {name: int(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def events_of(text: str) -> list[str]:
    return [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]


@contextmanager
def started(model: Path, *, port: int, **changes: Any) -> Iterator[Worker]:
    """Start a worker; it may not be ready yet. Nothing of it is left afterwards."""
    plan = LaunchPlan(
        **{
            "variant": "transformers/guide",
            "model": str(model),
            "served_name": "guide",
            "port": port,
            "api_key": KEY,
            **changes,
        }
    )
    launch = Transformers(str(python()), environment=os.environ).launch(plan)
    process = subprocess.Popen(
        launch.command,
        env={**os.environ, "OMP_NUM_THREADS": "1", **launch.env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    log = Log(process.stdout)
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {KEY}"}, timeout=60
        ) as client:
            yield Worker(process, log, port, client)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


def python() -> Path:
    """Give a Python with torch and transformers: vLLM's environment has both."""
    return engines.require(engines.vllm(), "vllm").with_name("python")


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """A worker with the guide, shared by the tests of the module: leave it as it is."""
    with started(engines.GUIDE_HF, port=free_port()) as running:
        running.log.wait_for("100% ready")
        yield running


@pytest.fixture
def own_worker() -> Iterator[Worker]:
    """A worker with the guide, for a test that ends it."""
    with started(engines.GUIDE_HF, port=free_port()) as running:
        running.log.wait_for("100% ready")
        yield running


# --- Answers ---------------------------------------------------------------------------------------------


def test_the_guides_answers_are_exact(worker: Worker) -> None:
    asked = [(known["ask"][0], known["answer"]) for known in PLAIN[::4]]

    answered = [(question, worker.answer(question)["message"]["content"]) for question, _ in asked]

    assert len(asked) > 30
    assert answered == asked


def test_the_answers_are_those_of_transformers_own_server(worker: Worker) -> None:
    questions = [known["ask"][0] for known in PLAIN[:5]]

    with own_server_of_transformers() as ask:
        theirs = [ask(question) for question in questions]

    ours = [worker.answer(question) for question in questions]
    assert [one["message"]["content"] for one in ours] == [one["content"] for one in theirs]
    assert [one["usage"]["completion_tokens"] for one in ours] == [one["tokens"] for one in theirs]


@contextmanager
def own_server_of_transformers() -> Iterator[Callable[[str], dict[str, Any]]]:
    """Run `transformers serve`; skip the test where it does not start."""
    port = free_port()
    process = subprocess.Popen(
        (
            *(python().with_name("transformers"), "serve", engines.GUIDE_HF),
            *("--host", "127.0.0.1", "--port", str(port)),
        ),
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    log = Log(process.stdout)
    try:
        told = log.wait_for(r"Uvicorn running on|^\w*Error: .*")[0]
        if "Error" in told:
            pytest.skip(f"`transformers serve` does not start here: {told}")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            client.get("/health")
            yield lambda question: _their_answer(client, question)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


def _their_answer(client: httpx.Client, question: str) -> dict[str, Any]:
    body = client.post(
        "/v1/chat/completions",
        json={
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": 200,
            "stream": False,
        },
    ).json()
    return {
        "content": body["choices"][0]["message"]["content"],
        "tokens": body["usage"]["completion_tokens"],
    }


@pytest.mark.parametrize(
    ("question", "more"),
    [
        (PLAIN[0]["ask"][0], {}),
        (THINKING[0]["ask"][0], {}),
        ("What is the status of vllm?", {"tools": [TOOL]}),
        (PLAIN[0]["ask"][0], {"stop": ["daemon"]}),
        (PLAIN[0]["ask"][0], {"max_tokens": 5}),
        (THINKING[0]["ask"][0], {"max_tokens": 5}),
    ],
)
def test_a_stream_comes_to_the_same_as_a_whole_answer(
    worker: Worker, question: str, more: dict[str, Any]
) -> None:
    whole = worker.answer(question, **more)
    *chunks, usage = worker.chunks(question, stream_options={"include_usage": True}, **more)

    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == (whole["message"]["content"] or "")
    for name in ("reasoning", "reasoning_content"):
        assert "".join(delta.get(name, "") for delta in deltas) == whole["message"].get(name, "")
    assert calls_in(deltas) == calls_in([whole["message"]])
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[-2:]] == [None, whole["finish_reason"]]
    assert (usage["choices"], usage["usage"]) == ([], whole["usage"])


def calls_in(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [call["function"] for message in messages for call in message.get("tool_calls", ())]


def test_reasoning_is_told_from_the_answer(worker: Worker) -> None:
    for known in THINKING:
        message = worker.answer(known["ask"][0])["message"]

        assert message["reasoning_content"] == message["reasoning"] == known["think"]
        assert message["content"] == known["answer"]


def test_a_tool_is_called(worker: Worker) -> None:
    choice = worker.answer("What is the status of vllm?", tools=[TOOL])

    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert call["function"]["name"] == "get_status"
    assert json.loads(call["function"]["arguments"]) == {"runtime": "vllm"}


def test_what_a_tool_answered_is_read(worker: Worker) -> None:
    question = "What is the status of vllm?"
    called = worker.answer(question, tools=[TOOL])["message"]
    result = {"role": "tool", "tool_call_id": called["tool_calls"][0]["id"], "content": '{"state": "ready"}'}
    messages = [{"role": "user", "content": question}, called, result]

    answer = worker.answer(question, messages=messages, tools=[TOOL])

    assert answer["message"]["content"] == "That is what get_status says."
    assert answer["finish_reason"] == "stop"


def test_a_tool_that_may_not_be_called_is_not_shown_to_the_model(worker: Worker) -> None:
    with_none = worker.answer("What is the status of vllm?", tools=[TOOL], tool_choice="none")

    assert with_none == worker.answer("What is the status of vllm?")


def test_a_stop_string_ends_the_answer_before_it(worker: Worker) -> None:
    known = PLAIN[0]["answer"]
    choice = worker.answer(PLAIN[0]["ask"][0], stop=["nowhere", known[20:30]])

    assert choice["message"]["content"] == known[:20]
    assert choice["finish_reason"] == "stop"


def test_the_same_seed_gives_the_same_answer(worker: Worker) -> None:
    wild = {"temperature": 2.0, "max_tokens": 40, "ignore_eos": True}

    first, second = (worker.answer("Hello", seed=7, **wild)["message"] for _ in range(2))
    others = [worker.answer("Hello", seed=seed, **wild)["message"] for seed in (8, 9)]

    assert first == second
    assert all(other != first for other in others)


def test_without_a_seed_answers_differ(worker: Worker) -> None:
    wild = {"temperature": 2.0, "max_tokens": 40, "ignore_eos": True}
    worker.answer("Hello", seed=7, **wild)

    first, second = (worker.answer("Hello", **wild)["message"] for _ in range(2))

    assert first != second


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 0.0}, {"min_p": 1.0}, {"temperature": 1e-9}])
def test_choosing_only_the_likeliest_is_what_temperature_0_does(
    worker: Worker, narrow: dict[str, Any]
) -> None:
    choice = worker.answer(PLAIN[0]["ask"][0], **{"temperature": 2.0, **narrow})

    assert choice["message"]["content"] == PLAIN[0]["answer"]


@pytest.mark.parametrize("penalty", ["repetition_penalty", "presence_penalty", "frequency_penalty"])
def test_a_penalty_changes_an_answer_that_repeats_itself(worker: Worker, penalty: str) -> None:
    usual = worker.answer(PLAIN[0]["ask"][0], max_tokens=120, ignore_eos=True)
    penalized = worker.answer(PLAIN[0]["ask"][0], max_tokens=120, ignore_eos=True, **{penalty: 2.0})

    assert penalized["message"]["content"] != usual["message"]["content"]


def test_usage_counts_what_the_tokenizer_counts(worker: Worker) -> None:
    question = PLAIN[0]["ask"][0]
    choice = worker.answer(question)
    prompt = worker.client.post(
        "/tokenize", json={"messages": [{"role": "user", "content": question}]}
    ).json()
    answer = worker.client.post("/tokenize", json={"prompt": choice["message"]["content"]}).json()

    # The token that ends the answer is one of it.
    assert choice["usage"]["prompt_tokens"] == prompt["count"] == len(prompt["tokens"])
    assert choice["usage"]["completion_tokens"] == answer["count"] + 1
    assert choice["usage"]["total_tokens"] == prompt["count"] + answer["count"] + 1


def test_tokens_of_reasoning_are_counted(worker: Worker) -> None:
    known = THINKING[0]
    thought = worker.client.post("/tokenize", json={"prompt": f"<think>\n{known['think']}\n</think>"}).json()

    details = worker.answer(known["ask"][0])["usage"]["completion_tokens_details"]

    assert abs(details["reasoning_tokens"] - thought["count"]) <= 2


def test_max_tokens_is_exact(worker: Worker) -> None:
    choice = worker.answer(PLAIN[0]["ask"][0], max_tokens=7)

    assert (choice["finish_reason"], choice["usage"]["completion_tokens"]) == ("length", 7)


def test_a_text_is_gone_on_with(worker: Worker) -> None:
    prompt = f"<|im_start|>user\n{PLAIN[0]['ask'][0]}<|im_end|>\n<|im_start|>assistant\n"
    tokens = worker.client.post("/tokenize", json={"prompt": prompt}).json()["tokens"]

    answers = [
        worker.client.post("/v1/completions", json={"prompt": given, "max_tokens": 200, "temperature": 0})
        for given in (prompt, [prompt], tokens)
    ]
    stream = worker.client.post(
        "/v1/completions", json={"prompt": prompt, "max_tokens": 200, "temperature": 0, "stream": True}
    )

    texts = [answer.json()["choices"][0]["text"] for answer in answers]
    events = [json.loads(event) for event in events_of(stream.text)[:-1]]
    assert texts == [PLAIN[0]["answer"]] * 3
    assert "".join(event["choices"][0]["text"] for event in events) == PLAIN[0]["answer"]
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


def test_requests_at_the_same_time_are_all_answered(worker: Worker) -> None:
    asked = PLAIN[:8]
    answered: dict[str, str] = {}

    def ask(question: str) -> None:
        answered[question] = worker.answer(question)["message"]["content"]

    threads = [threading.Thread(target=ask, args=(known["ask"][0],)) for known in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answered == {known["ask"][0]: known["answer"] for known in asked}


# --- Clients that leave ----------------------------------------------------------------------------------

LONG = {"ignore_eos": True, "max_tokens": 4000, "temperature": 0}


def test_a_client_that_leaves_a_stream_ends_its_generation(worker: Worker) -> None:
    before = len(worker.log.lines)

    with worker.client.stream(
        "POST",
        "/v1/chat/completions",
        json={"messages": [{"role": "user", "content": "Hi"}], "stream": True, **LONG},
    ) as answer:
        lines = answer.iter_lines()
        next(lines)

    assert_cancelled(worker, before)


def test_a_client_that_leaves_while_a_whole_answer_is_made_ends_its_generation(worker: Worker) -> None:
    before, generated = len(worker.log.lines), worker.counters()["footplate_worker_generated_tokens_total"]

    with sent(worker, {"messages": [{"role": "user", "content": "Hello"}], **LONG}):
        while worker.counters()["footplate_worker_generated_tokens_total"] == generated:
            pass

    assert_cancelled(worker, before)


def assert_cancelled(worker: Worker, after: int) -> None:
    """By the worker's own count: nothing of the rest was generated once the client was seen to be gone."""
    told = worker.log.wait_for(r"request \d+ cancelled: \d+\+(\d+) tokens in .*, (\d+) of them after", after)
    tokens, late = map(int, told.groups())

    assert 0 < tokens < 4000
    assert late <= 1


def test_a_client_that_leaves_the_queue_is_never_answered(worker: Worker) -> None:
    before = len(worker.log.lines)
    body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True, **LONG}

    with worker.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        # Without the name the lines, and with them the connection, would be closed right away.
        lines = answer.iter_lines()
        next(lines)
        with sent(worker, {"messages": [{"role": "user", "content": "Hello"}], **LONG}):
            while worker.counters()["footplate_worker_requests_waiting"] == 0:
                pass
        while worker.counters()["footplate_worker_requests_waiting"] > 0:
            pass

    assert_cancelled(worker, before)
    worker.log.wait_for(r"request \d+ cancelled: \d+\+0 tokens", before)
    assert worker.answer(PLAIN[0]["ask"][0])["message"]["content"] == PLAIN[0]["answer"]


@contextmanager
def sent(worker: Worker, body: dict[str, Any]) -> Iterator[None]:
    """Send a request for a chat, and leave at the end of the block without having read the answer."""
    content = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: worker\r\n"
        f"Authorization: Bearer {KEY}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", worker.port)) as connection:
        connection.sendall(head.encode() + content)
        yield


# --- Requests that cannot be served ----------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(worker: Worker, stream: bool) -> None:
    response = worker.ask("word " * 5000, stream=stream)

    error = response.json()["error"]
    assert response.status_code == 400
    assert (error["code"], error["type"], error["param"]) == (
        "exceed_context",
        "invalid_request_error",
        "messages",
    )
    assert (error["n_prompt_tokens"] > 5000, error["n_ctx"]) == (True, 4096)
    assert "exceeds the available context size of 4096 tokens" in error["message"]


def test_more_tokens_than_are_left_are_clamped_and_that_is_said(worker: Worker) -> None:
    response = worker.ask(PLAIN[0]["ask"][0], max_tokens=100_000)

    assert response.headers["x-clamped"] == "max_tokens 100000 -> 4081"
    assert response.json()["choices"][0]["finish_reason"] == "stop"


def test_what_has_no_effect_is_listed(worker: Worker) -> None:
    response = worker.ask(
        PLAIN[0]["ask"][0],
        logit_bias={"5": 1},
        response_format={"type": "json_object"},
        **{"bad\r\nname": 1, "none": None},
    )

    assert response.headers["x-ignored"] == "logit_bias, response_format, bad??name"
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": ["Hi"]}, "messages.0"),
        ({"messages": [{"content": "Hi"}]}, "messages.0"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "messages.0.content.0"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_k": 1.5}, "top_k"),
        ({"min_p": True}, "min_p"),
        ({"seed": 2**70}, "seed"),
        ({"stop": 5}, "stop"),
        ({"stop": ["a"] * 50}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": 1}, "stream_options"),
        ({"tools": [1]}, "tools"),
        ({"tools": {}}, "tools"),
        ({"n": 2}, "n"),
        ({"model": 5}, "model"),
        ({"chat_template_kwargs": "no"}, "chat_template_kwargs"),
        ({"messages": [{"role": "user", "content": "?", "image": "https://h/a.png"}]}, "messages.0"),
    ],
)
def test_a_wrong_value_is_refused_and_named(worker: Worker, changes: dict[str, Any], param: str) -> None:
    response = worker.ask("Hi", **changes)

    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert error["message"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"", b"\xff"])
def test_a_body_that_is_no_object_is_refused(worker: Worker, body: bytes) -> None:
    response = worker.client.post("/v1/chat/completions", content=body)

    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_json")


def test_an_unknown_model_is_not_found(worker: Worker) -> None:
    response = worker.ask("Hi", model="nope")

    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert worker.ask("Hi", model="guide").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nope", 404), ("GET", "/v1/chat/completions", 405), ("PUT", "/v1/models", 501)],
)
def test_a_route_that_is_not_there_says_so_in_the_same_shape(
    worker: Worker, method: str, path: str, status: int
) -> None:
    response = worker.client.request(method, path)

    assert response.status_code == status
    assert response.json()["error"]["message"]


def test_a_body_that_is_too_large_is_refused_unread(worker: Worker) -> None:
    head = "POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n"
    with socket.create_connection(("127.0.0.1", worker.port)) as connection:
        connection.sendall(head.encode())
        answer = connection.makefile("rb").readline()

    assert b" 413 " in answer


@pytest.mark.parametrize("key", [None, "Bearer wrong", "Basic YQ=="])
def test_without_the_key_there_is_only_health_and_what_it_is(worker: Worker, key: str | None) -> None:
    headers = {} if key is None else {"Authorization": key}
    with httpx.Client(base_url=f"http://127.0.0.1:{worker.port}", headers=headers, timeout=60) as stranger:
        refused = [
            stranger.get("/v1/models"),
            stranger.post("/v1/chat/completions", json={}),
            stranger.post("/tokenize", json={}),
        ]
        health, about = stranger.get("/health"), stranger.get("/")

    assert [response.status_code for response in refused] == [401] * 3
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    assert about.json()["model"] == "guide"


def test_it_tells_what_it_is(worker: Worker) -> None:
    about = worker.client.get("/").json()
    listing = worker.client.get("/v1/models").json()

    assert (about["device"], about["dtype"], about["quantization"]) == ("cpu", "float32", "none")
    assert (about["context"], about["capabilities"]) == (4096, ["chat"])
    assert set(about["versions"]) == {"python", "torch", "transformers"}
    assert Transformers(environment={}).serves(listing, "guide")


# --- Models that read ------------------------------------------------------------------------------------

TEXTS = ["the daemon starts engines", "a switch stops the active engine", "vLLM needs a GPU"]


@pytest.fixture(scope="module")
def embedder() -> Iterator[Worker]:
    """A worker that embeds, shared by the tests of the module."""
    with started(DATA / "tiny-embed-hf", port=free_port(), capabilities=("embedding",)) as running:
        running.log.wait_for("100% ready")
        yield running


@pytest.fixture(scope="module")
def ranker() -> Iterator[Worker]:
    """A worker that ranks, shared by the tests of the module."""
    with started(DATA / "tiny-rerank-hf", port=free_port(), capabilities=("rerank",)) as running:
        running.log.wait_for("100% ready")
        yield running


def vectors(worker: Worker, given: Any, **more: Any) -> list[Any]:
    response = worker.client.post("/v1/embeddings", json={"input": given, **more})
    assert response.status_code == 200, response.text
    assert [each["index"] for each in response.json()["data"]] == list(range(len(response.json()["data"])))
    return [each["embedding"] for each in response.json()["data"]]


def likeness(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_each_text_has_a_vector_of_length_1_of_its_own(embedder: Worker) -> None:
    together = vectors(embedder, TEXTS)

    for text, vector in zip(TEXTS, together, strict=True):
        (alone,) = vectors(embedder, text)
        assert likeness(vector, vector) == pytest.approx(1)
        assert likeness(alone, vector) == pytest.approx(1)
    assert vectors(embedder, TEXTS) == together
    assert all(likeness(one, other) < 0.99 for one, other in pairwise(together))


def test_more_texts_than_go_into_one_pass_are_all_embedded(embedder: Worker) -> None:
    many = vectors(embedder, TEXTS * 30)

    assert len(many) == 90
    assert likeness(many[0], many[-3]) == pytest.approx(1)


def test_tokens_are_embedded_as_their_text_and_counted(embedder: Worker) -> None:
    tokens = [embedder.client.post("/tokenize", json={"prompt": text}).json()["tokens"] for text in TEXTS]
    usage = embedder.client.post("/v1/embeddings", json={"input": TEXTS}).json()["usage"]

    count = sum(map(len, tokens))
    assert vectors(embedder, tokens) == vectors(embedder, TEXTS)
    assert vectors(embedder, tokens[0]) == vectors(embedder, TEXTS[0])
    assert usage == {"prompt_tokens": count, "total_tokens": count}


def test_a_vector_comes_in_base64_where_that_is_asked_for(embedder: Worker) -> None:
    (packed,) = vectors(embedder, TEXTS[0], encoding_format="base64")

    (vector,) = vectors(embedder, TEXTS[0])
    assert [number for (number,) in struct.iter_unpack("<f", base64.b64decode(packed))] == vector


@pytest.mark.parametrize(
    ("pooling", "alike", "different"),
    [
        ("cls_token", [[5, 6, 7], [5, 8, 9, 10]], [[6, 7, 5], [8, 9, 10, 5]]),
        ("lasttoken", [[6, 7, 5], [8, 9, 10, 5]], [[5, 6, 7], [5, 8, 9, 10]]),
    ],
)
def test_the_folder_says_which_token_stands_for_the_text(
    tmp_path: Path, pooling: str, alike: list[list[int]], different: list[list[int]]
) -> None:
    folder = shutil.copytree(DATA / "tiny-embed-hf", tmp_path / "embed")
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{pooling}": True}))

    with started(folder, port=free_port(), capabilities=("embedding",)) as worker:
        worker.log.wait_for("100% ready")
        one, other = vectors(worker, alike)
        this, that = vectors(worker, different)

    # The word itself weighs most in its state.
    assert likeness(one, other) > 0.8
    assert likeness(this, that) < 0.5


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"input": None}, "input", "invalid_value"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": ""}, "input", "invalid_value"),
        ({"input": [1.5]}, "input", "invalid_value"),
        ({"input": [10**6]}, "input", "invalid_value"),
        ({"encoding_format": "hex"}, "encoding_format", "invalid_value"),
        ({"dimensions": 8}, "dimensions", "invalid_value"),
        ({"input": ["short", "word " * 5000]}, "input", "exceed_context"),
    ],
)
def test_what_cannot_be_embedded_is_refused_and_named(
    embedder: Worker, changes: dict[str, Any], param: str, code: str
) -> None:
    response = embedder.client.post("/v1/embeddings", json={"input": "text", **changes})

    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, param, code)


def test_documents_are_ranked_by_what_each_is_worth(ranker: Worker) -> None:
    asked = {"query": "what starts engines?", "documents": TEXTS}

    answers = [ranker.client.post(path, json=asked).json() for path in ("/v1/rerank", "/rerank")]
    best = ranker.client.post("/rerank", json={**asked, "top_n": 1}).json()["results"]

    results = answers[0]["results"]
    scores = [each["relevance_score"] for each in results]
    assert answers[0] == answers[1]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == len(TEXTS)
    assert all(0 < score < 1 for score in scores)
    assert {each["index"]: each["document"]["text"] for each in results} == dict(enumerate(TEXTS))
    assert best == results[:1]
    for result in results:
        alone = ranker.client.post("/rerank", json={**asked, "documents": [result["document"]["text"]]})
        assert alone.json()["results"][0]["relevance_score"] == pytest.approx(result["relevance_score"])


def test_what_a_model_is_not_for_is_refused(worker: Worker, embedder: Worker, ranker: Worker) -> None:
    refused = [
        embedder.ask("Hi"),
        ranker.ask("Hi"),
        worker.client.post("/v1/embeddings", json={"input": "Hi"}),
        worker.client.post("/rerank", json={"query": "Hi", "documents": ["Hi"]}),
    ]

    errors = [response.json()["error"] for response in refused]
    assert [(response.status_code) for response in refused] == [400] * 4
    assert {error["code"] for error in errors} == {"unsupported_task"}
    assert errors[2]["message"] == "This model does not support embeddings: it was started for chat."
    assert embedder.client.get("/").json()["capabilities"] == ["embedding"]


def test_a_model_that_writes_is_not_taken_for_one_that_ranks() -> None:
    diagnosis = fails(engines.GUIDE_HF, capabilities=("rerank",))

    assert diagnosis.code == "unknown_architecture"
    assert "is not made to rank texts" in diagnosis.cause


# --- Starting and ending ---------------------------------------------------------------------------------


def test_while_it_loads_it_says_how_far_it_is_and_refuses_to_answer() -> None:
    runtime = Transformers(environment={})

    with started(engines.GUIDE_HF, port=free_port()) as worker:
        worker.log.wait_for("importing torch")
        health, asked = worker.client.get("/health"), worker.ask("Hi")
        worker.log.wait_for("100% ready")
        ready = worker.client.get("/health")

    told = [progress for line in worker.log.lines if (progress := runtime.progress(line))]
    fractions = [progress.fraction for progress in told]
    assert (health.status_code, health.json()["status"]) == (503, "loading")
    assert set(health.json()) == {"status", "step", "fraction"}
    assert (asked.status_code, asked.json()["error"]["code"]) == (503, "loading")
    assert asked.headers["retry-after"] == "1"
    assert ready.status_code == 200
    assert fractions == sorted(fractions, key=lambda fraction: fraction or 0)
    assert told[-1].step == "ready"


def test_sigterm_ends_it_at_once_and_a_stream_is_told(own_worker: Worker) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True, **LONG}

    with own_worker.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        own_worker.process.send_signal(signal.SIGTERM)
        *_, last = events_of("\n".join(lines))
    exit_code = own_worker.process.wait(60)

    assert json.loads(last)["error"]["code"] == "stopping"
    assert exit_code == 0
    own_worker.log.wait_for("worker: stopped")


def test_sigterm_while_it_loads_ends_it() -> None:
    with started(engines.GUIDE_HF, port=free_port()) as worker:
        worker.log.wait_for("importing torch")
        worker.process.send_signal(signal.SIGTERM)

        assert worker.process.wait(60) == 0


def test_a_kill_breaks_the_stream_off_and_leaves_nothing(own_worker: Worker) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True, **LONG}

    with own_worker.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        own_worker.process.kill()
        with pytest.raises(httpx.TransportError):
            list(lines)

    assert own_worker.process.wait(60) == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.killpg(own_worker.process.pid, 0)


def test_a_model_that_is_not_there_is_named() -> None:
    diagnosis = fails(Path("/nope/guide"))

    assert (diagnosis.code, diagnosis.cause) == ("model_missing", "There is no model at /nope/guide.")


def test_a_port_that_another_program_has_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]

        diagnosis = fails(engines.GUIDE_HF, port=taken)

    assert (diagnosis.code, diagnosis.cause) == ("port_taken", f"Another program listens on port {taken}.")


def test_a_context_longer_than_the_models_is_answered_with_the_models() -> None:
    diagnosis = fails(engines.GUIDE_HF, context=8192)

    assert diagnosis.code == "context_too_long"
    assert diagnosis.remedies[0].context == 4096


def test_weights_that_were_cut_off_are_called_damaged(tmp_path: Path) -> None:
    model = copy_of_guide(tmp_path)
    whole = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(whole[: len(whole) // 2])

    assert fails(model).code == "corrupt_weights"


def test_an_architecture_that_it_does_not_know_is_named(tmp_path: Path) -> None:
    model = copy_of_guide(tmp_path)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "model_type": "nosuch"}))

    diagnosis = fails(model)

    assert diagnosis.code == "unknown_architecture"
    assert "`nosuch`" in diagnosis.cause


def test_a_quantization_without_its_library_is_told_how_to_get_it() -> None:
    if list(python().parent.parent.glob("lib/python3*/site-packages/bitsandbytes")):
        pytest.skip("bitsandbytes is installed")

    diagnosis = fails(engines.GUIDE_HF, parameters={"quantization": "4bit"}, env={"PYTHONPATH": ""})

    assert diagnosis.code == "not_installed"
    assert "-m pip install bitsandbytes" in diagnosis.cause


def test_a_gpu_that_is_not_there_is_named() -> None:
    diagnosis = fails(engines.GUIDE_HF, parameters={"device": "cuda"})

    assert diagnosis.code == "no_gpu"


def fails(model: Path, *, port: int | None = None, **changes: Any) -> Diagnosis:
    """Start a worker that must end by itself, and give the diagnosis."""
    with started(model, port=port or free_port(), **changes) as worker:
        exit_code = worker.process.wait(START_SECONDS)
        worker.log.close()
    assert exit_code == 1
    return diagnose(
        Transformers(environment={}),
        worker.log.lines,
        exit_code=exit_code,
        variant=Variant("transformers/guide", "transformers", "guide", Weights("path", str(model)), "guide"),
    )


def copy_of_guide(folder: Path) -> Path:
    model = folder / "model"
    model.mkdir()
    for file in engines.GUIDE_HF.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    return model


# --- Other kinds of models -------------------------------------------------------------------------------

WRAPPED = '''
import torch
from transformers import PretrainedConfig, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM


class Guide(Qwen3ForCausalLM):
    """Breaks where a test wants it to."""

    def generate(self, *args, generation_config, **options):
        if generation_config.max_new_tokens == 13:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if generation_config.max_new_tokens == 14:
            raise RuntimeError("shapes do not match")
        return super().generate(*args, generation_config=generation_config, **options)


class WrappedConfig(PretrainedConfig):
    model_type = "wrapped"

    def __init__(self, text=None, **options):
        self.text = text or {}
        super().__init__(**options)


class Wrapped(PreTrainedModel):
    """Has no generate() of its own."""

    config_class = WrappedConfig
    _tied_weights_keys = {"language_model.lm_head.weight": "language_model.model.embed_tokens.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.language_model = Guide(Qwen3Config(**config.text))
        self.post_init()
'''
WRAP = """
import sys
from safetensors.torch import load_file, save_file
file = sys.argv[1]
renamed = {f"language_model.{name}": tensor for name, tensor in load_file(file).items()}
save_file(renamed, file, {"format": "pt"})
"""


@pytest.fixture(scope="module")
def wrapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker with the guide inside of a model that cannot generate by itself, and brings its own code."""
    model = copy_of_guide(tmp_path_factory.mktemp("wrapped"))
    text = json.loads((model / "config.json").read_text())
    config = {
        "model_type": "wrapped",
        "architectures": ["Wrapped"],
        "auto_map": {"AutoConfig": "wrapped.WrappedConfig", "AutoModel": "wrapped.Wrapped"},
        "max_position_embeddings": 4096,
        "dtype": "float32",
        "text": {name: value for name, value in text.items() if name != "architectures"},
    }
    (model / "config.json").write_text(json.dumps(config))
    (model / "wrapped.py").write_text(WRAPPED)
    subprocess.run([python(), "-c", WRAP, model / "model.safetensors"], check=True)
    code = {"HF_MODULES_CACHE": str(model / "modules")}
    with started(model, port=free_port(), parameters={"trust_remote_code": True}, env=code) as running:
        running.log.wait_for("100% ready")
        yield running


def test_a_model_without_generate_answers_by_its_language_model(wrapped: Worker) -> None:
    assert wrapped.client.get("/").json()["class"] == "Wrapped"
    assert wrapped.answer(PLAIN[0]["ask"][0])["message"]["content"] == PLAIN[0]["answer"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("breaking", "code"), [(13, "out_of_memory"), (14, "generation_failed")])
def test_a_generation_that_breaks_is_an_error_and_the_next_is_answered(
    wrapped: Worker, stream: bool, breaking: int, code: str
) -> None:
    broken = wrapped.ask("Hi", max_tokens=breaking, stream=stream)

    error = broken.json()["error"]
    assert (broken.status_code, error["type"], error["code"]) == (500, "server_error", code)
    assert wrapped.answer(PLAIN[0]["ask"][0])["message"]["content"] == PLAIN[0]["answer"]


def test_code_that_a_model_brings_is_not_run_unasked(tmp_path: Path) -> None:
    model = copy_of_guide(tmp_path)
    config = {"model_type": "wrapped", "auto_map": {"AutoConfig": "wrapped.WrappedConfig"}}
    (model / "config.json").write_text(json.dumps(config))
    (model / "wrapped.py").write_text("raise SystemExit('it was run')")

    assert fails(model).code == "remote_code"


TINY_EYES = Path(__file__).with_name("tiny_vision_model.py")


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker with a tiny Gemma 3 that reads pictures: random weights, and the guide's tokenizer."""
    model = tmp_path_factory.mktemp("seeing")
    subprocess.run([python(), TINY_EYES, engines.GUIDE_HF, model], check=True, capture_output=True)
    with started(model, port=free_port()) as running:
        running.log.wait_for("100% ready")
        yield running


def data_uri(colour: int) -> str:
    """Give a picture of one shade, 8 by 8, as a bitmap."""
    rows = bytes([colour, colour, colour] * 8) * 8
    head = b"BM" + (54 + len(rows)).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
    size = (40).to_bytes(4, "little") + (8).to_bytes(4, "little") * 2 + b"\x01\0\x18\0"
    picture = io.BytesIO(head + size + bytes(24) + rows).getvalue()
    return f"data:image/bmp;base64,{base64.b64encode(picture).decode()}"


def test_a_picture_is_seen_in_every_form_in_which_it_is_sent(seeing: Worker) -> None:
    dark, light = data_uri(0), data_uri(255)
    part = {"type": "image_url", "image_url": {"url": dark}}
    text = {"type": "text", "text": "What is it?"}
    forms: list[dict[str, Any]] = [
        {"role": "user", "content": [part, text]},
        {"role": "user", "content": "What is it?", "image": dark},
        {"role": "user", "content": "What is it?", "images": [dark.partition(",")[2]]},
        {"role": "user", "content": f"![]({dark})What is it?"},
    ]

    blind = seeing.answer("What is it?", max_tokens=8)
    seen = [seeing.answer("", messages=[form], max_tokens=8) for form in forms]
    other = seeing.answer(
        "", messages=[{"role": "user", "content": "What is it?", "image": light}], max_tokens=8
    )

    assert seeing.client.get("/").json()["capabilities"] == ["chat", "vision"]
    assert len({one["message"]["content"] for one in seen}) == 1
    assert seen[0]["message"]["content"] != other["message"]["content"]
    assert seen[0]["usage"]["prompt_tokens"] > blind["usage"]["prompt_tokens"]


def test_a_picture_that_is_damaged_is_refused(seeing: Worker) -> None:
    response = seeing.ask(
        "", messages=[{"role": "user", "content": "?", "image": "data:image/png;base64,AAAA"}]
    )

    assert response.status_code == 400
    assert "damaged" in response.json()["error"]["message"]


def test_a_file_of_this_machine_is_never_read(seeing: Worker) -> None:
    response = seeing.ask("", messages=[{"role": "user", "content": "?", "image": sys.executable}])

    assert response.status_code == 400
    assert "files are not read" in response.json()["error"]["message"]
