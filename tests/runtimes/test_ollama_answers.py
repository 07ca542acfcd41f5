"""Ollama: what is made of its answers."""

import base64
import json
import struct
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from tests.runtimes.ollama_talk import LONG, REFERENCE, chat, deltas, events, translation

from footplate_daemon.gateway.sse import StreamWatch, Told, Usage, told_by
from footplate_daemon.runtimes.base import Call

AT = "2026-11-20T17:09:56.567926000Z"


def line(message: Mapping[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    said = {"message": {"role": "assistant", "content": "", **(message or {})}}
    return {"model": "guide", "created_at": AT, **said, "done": False, **fields}


def done(reason: str = "stop", **fields: Any) -> dict[str, Any]:
    counts = {"prompt_eval_count": 8, "eval_count": 5}
    return line(done=True, done_reason=reason, **{**counts, **fields})


def ndjson(*lines: Any) -> bytes:
    return b"".join(json.dumps(each, ensure_ascii=False).encode() + b"\n" for each in lines)


def turned(call: Call, *pieces: bytes) -> bytes:
    turning = translation(call)
    return b"".join([*(turning.feed(piece) for piece in pieces), turning.end()])


def test_a_stream_becomes_openais_from_the_role_to_done() -> None:
    raw = ndjson(line({"thinking": "Hm."}), line({"content": "Zażółć"}), line({"content": " it."}), done())

    out = turned(chat("Hi", stream=True, stream_options={"include_usage": True}), raw)

    *chunks, finish, usage, end = events(out)
    for chunk in (*chunks, finish, usage):
        ChatCompletionChunk.model_validate(chunk, strict=True)
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "Hm.", "reasoning": "Hm."},
        {"content": "Zażółć"},
        {"content": " it."},
    ]
    assert finish["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 13)
    assert end == b"[DONE]"
    assert {(c["object"], c["model"], c["created"]) for c in (*chunks, finish)} == {
        ("chat.completion.chunk", "guide", 1795194596)
    }
    assert len({c["id"] for c in (*chunks, finish, usage)}) == 1


def test_a_stream_is_understood_by_the_gateways_watch() -> None:
    watch = StreamWatch()

    watch.feed(
        turned(
            chat("Hi", stream=True, stream_options={"include_usage": True}),
            ndjson(line({"content": "Yes"}), done("length")),
        )
    )

    assert (watch.has_content, watch.is_done, watch.finish_reason) == (True, True, "length")
    assert watch.usage == Usage(8, 5)


@pytest.mark.parametrize(
    ("reason", "finish"), [("stop", "stop"), ("length", "length"), ("load", "stop"), ("unload", "stop")]
)
def test_why_an_answer_ended_is_said_in_openais_words(reason: str, finish: str) -> None:
    out = turned(chat("Hi", stream=True), ndjson(done(reason)))

    assert events(out)[-2]["choices"][0]["finish_reason"] == finish


def test_tool_calls_get_ids_and_their_arguments_as_text() -> None:
    calls = [{"function": {"name": "a", "arguments": {"x": 1}}}, {"function": {"name": "b", "arguments": {}}}]
    more = [{"id": "call_9", "function": {"name": "c", "arguments": {}}}]

    out = turned(
        chat("Hi", stream=True), ndjson(line({"tool_calls": calls}), line({"tool_calls": more}), done())
    )

    called = [call for delta in deltas(out) for call in delta.get("tool_calls", ())]
    assert [(call["index"], call["function"]) for call in called] == [
        (0, {"name": "a", "arguments": '{"x": 1}'}),
        (1, {"name": "b", "arguments": "{}"}),
        (2, {"name": "c", "arguments": "{}"}),
    ]
    assert called[0]["id"].startswith("call_")
    assert called[2]["id"] == "call_9"
    assert events(out)[-2]["choices"][0]["finish_reason"] == "tool_calls"


def test_an_answer_in_one_piece_has_everything() -> None:
    said = {"thinking": "Hm.", "content": "", "tool_calls": [{"function": {"name": "a", "arguments": {}}}]}

    body = json.loads(turned(chat("Hi"), json.dumps({**done(), **line(said), "done": True}).encode()))

    choice = body["choices"][0]
    ChatCompletion.model_validate(body, strict=True)
    assert body["object"] == "chat.completion"
    assert (choice["message"]["content"], choice["message"]["reasoning"]) == (None, "Hm.")
    assert "index" not in choice["message"]["tool_calls"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert told_by(json.dumps(body).encode()) == Told(Usage(8, 5), "tool_calls")


def test_probabilities_are_passed_on() -> None:
    logprobs = [{"token": "Hi", "logprob": -0.1}]

    call = chat("Hi", stream=True, logprobs=True, top_logprobs=2)
    out = turned(call, ndjson(line({"content": "Hi"}, logprobs=logprobs), done()))

    assert (call.body["logprobs"], call.body["top_logprobs"]) == (True, 2)
    assert events(out)[1]["choices"][0]["logprobs"] == {"content": logprobs}


def test_a_completion_is_text() -> None:
    call = REFERENCE.call("/v1/completions", {"prompt": "Once", "stream": True}, "guide", None)
    said = {"model": "guide", "created_at": AT, "response": " upon", "done": False}

    out = turned(call, ndjson(said, {**said, "response": "", "done": True, "done_reason": "stop"}))

    first, finish, end = events(out)
    Completion.model_validate({**first, "choices": finish["choices"]}, strict=True)
    assert (first["object"], first["choices"][0]["text"]) == ("text_completion", " upon")
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert end == b"[DONE]"


def test_embeddings_come_as_numbers_or_as_the_bytes_that_openais_client_asks_for() -> None:
    native = json.dumps({"model": "embed", "embeddings": [[0.5, -1.0]], "prompt_eval_count": 3}).encode()
    body = {"input": "x", "dimensions": 2, "user": "me"}

    numbers = REFERENCE.call("/v1/embeddings", body, "embed", 512)
    packed = REFERENCE.call("/v1/embeddings", {**body, "encoding_format": "base64"}, "embed", 512)

    assert (numbers.path, numbers.body["truncate"], numbers.body["dimensions"]) == ("/api/embed", False, 2)
    assert numbers.body["options"] == {"num_ctx": 512}
    assert numbers.translated.ignored == ("user",)
    answer = json.loads(turned(numbers, native))
    CreateEmbeddingResponse.model_validate(answer, strict=True)
    assert answer["data"] == [{"object": "embedding", "index": 0, "embedding": [0.5, -1.0]}]
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    vector = json.loads(turned(packed, native))["data"][0]["embedding"]
    assert struct.unpack("<2f", base64.b64decode(vector)) == (0.5, -1.0)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (
            ndjson(
                line({"content": "Yes"}),
                {"error": "an error was encountered while running the model: unexpected EOF"},
            ),
            "unexpected EOF",
        ),
        (ndjson(line({"content": "Yes"})), "stopped in the middle"),
        (b"", "stopped in the middle"),
        (b"<html>\n", "no JSON object"),
        (b"[]\n", "no JSON object"),
        (ndjson({"error": {"message": "Loading model"}}), "Loading model"),
        (ndjson({"error": ""}), "said nothing"),
    ],
)
def test_an_answer_that_fails_ends_in_an_error_and_not_in_done(raw: bytes, words: str) -> None:
    out = turned(chat("Hi", stream=True), raw)

    assert words in events(out)[-1]["error"]["message"]
    assert b"[DONE]" not in out


def test_an_answer_in_one_piece_that_fails_is_an_error() -> None:
    assert "EOF" in json.loads(turned(chat("Hi"), b'{"error": "EOF"}'))["error"]["message"]
    assert "no JSON" in json.loads(turned(chat("Hi"), b'{"mess'))["error"]["message"]


@pytest.mark.parametrize(
    ("prompt", "counted", "is_flagged"),
    [
        (LONG, 30, True),
        (LONG, 2400, False),
        (LONG, 0, False),
        ("字" * 4000, 200, True),
        ("字" * 4000, 3000, False),
        (" " * 9000 + "x", 12, False),
    ],
)
def test_a_prompt_that_was_cut_without_a_word_is_flagged(prompt: str, counted: int, is_flagged: bool) -> None:
    call = chat(prompt, stream=True, stream_options={"include_usage": True})

    finish, usage, _ = events(turned(call, ndjson(done(prompt_eval_count=counted))))[-3:]

    assert ("x_footplate_warning" in finish) is is_flagged
    assert ("x_footplate_warning" in usage) is is_flagged


@pytest.mark.parametrize(
    ("message", "reason", "is_warned"),
    [
        ({"thinking": "Hm, let me"}, "length", True),
        ({"thinking": "Hm."}, "stop", False),
        ({"thinking": "Hm.", "content": "So"}, "length", False),
    ],
)
def test_an_answer_that_was_cut_while_it_was_nothing_but_thought_says_what_to_do(
    message: Mapping[str, Any], reason: str, is_warned: bool
) -> None:
    finish = events(turned(chat("Hi", stream=True), ndjson(line(message), done(reason))))[-2]

    assert ("raise max_tokens" in finish.get("x_footplate_warning", "")) is is_warned


def test_half_a_surrogate_pair_does_not_break_the_stream() -> None:
    raw = ndjson(line({"content": "X"}), done()).replace(b"X", b"\\ud83d")

    assert deltas(turned(chat("Hi", stream=True), raw))[1] == {"content": "?"}


TEXTS = st.text(max_size=20)
MESSAGES = st.fixed_dictionaries(
    {}, optional={"content": TEXTS, "thinking": TEXTS, "tool_calls": st.just([{"function": {"name": "a"}}])}
)


@given(st.lists(MESSAGES, max_size=8), st.lists(st.integers(0, 4000), max_size=12))
def test_a_stream_says_the_same_wherever_its_bytes_are_split(
    messages: list[dict[str, Any]], cuts: list[int]
) -> None:
    raw = ndjson(*map(line, messages), done())
    bounds = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]

    out = turned(chat("Hi", stream=True), *(raw[start:end] for start, end in pairwise(bounds)))

    said = deltas(out)
    for key in ("content", "thinking"):
        own = "reasoning" if key == "thinking" else key
        expected = "".join(message.get(key, "") for message in messages)
        assert "".join(delta.get(own, "") for delta in said) == expected
    assert events(out)[-1] == b"[DONE]"


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.lists(st.binary(max_size=60) | JUNK.map(lambda value: json.dumps(value).encode() + b"\n"), max_size=6)
)
def test_whatever_comes_the_stream_ends_in_done_or_in_an_error(pieces: list[bytes]) -> None:
    out = turned(chat("Hi", stream=True), *pieces)

    last = events(out)[-1]
    assert last == b"[DONE]" or "error" in last
