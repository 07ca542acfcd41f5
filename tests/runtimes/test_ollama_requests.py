"""Ollama: what is made of clients' requests."""

from collections.abc import Mapping
from typing import Any

import pytest
from tests.runtimes.ollama_talk import PIXEL, REFERENCE, chat

from footplate_daemon.errors import Invalid


def test_a_chat_carries_its_context_and_how_long_to_stay_with_every_request() -> None:
    call = chat("Hi", context=2048, stream=True)

    assert call.path == "/api/chat"
    assert call.body == {
        "model": "guide",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "keep_alive": -1,
        "truncate": False,
        "options": {"num_ctx": 2048, "num_predict": 2048},
    }


@pytest.mark.parametrize(
    ("said", "options", "renamed"),
    [
        ({"temperature": 0}, {"temperature": 0}, {"temperature": "options.temperature"}),
        ({"max_tokens": 9}, {"num_predict": 9}, {"max_tokens": "options.num_predict"}),
        (
            {"max_completion_tokens": 9, "max_tokens": 5},
            {"num_predict": 9},
            {"max_completion_tokens": "options.num_predict"},
        ),
        ({"stop": "."}, {"stop": ["."]}, {"stop": "options.stop"}),
        ({"seed": 7.0, "top_p": 0.5}, {"seed": 7, "top_p": 0.5}, None),
        ({"repetition_penalty": 1.1}, {"repeat_penalty": 1.1}, None),
        ({"temperature": None}, {}, {}),
    ],
)
def test_parameters_become_options(
    said: Mapping[str, Any], options: Mapping[str, Any], renamed: Mapping[str, str] | None
) -> None:
    translated = REFERENCE.translate(said)

    assert translated.body.get("options", {}) == options
    assert renamed is None or translated.renamed == renamed


def test_an_answer_is_never_longer_than_the_context() -> None:
    translated = REFERENCE.translate({"max_tokens": 9000}, 2048)

    assert translated.body["options"]["num_predict"] == 2048
    assert translated.clamped == {"max_tokens": "9000 → 2048, the context"}


@pytest.mark.parametrize(
    ("said", "think"),
    [
        ({}, None),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "minimal"}, "low"),
        ({"reasoning_effort": "high"}, "high"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"chat_template_kwargs": {"enable_thinking": True}}, True),
        ({"chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": "low"}, "low"),
        ({"chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "low"}, False),
        ({"think": "max"}, "max"),
    ],
)
def test_how_much_to_think_is_said_in_any_of_three_ways(said: Mapping[str, Any], think: Any) -> None:
    assert chat("Hi", **said).body.get("think") == think


@pytest.mark.parametrize(
    ("wanted", "native"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "object"}),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array"}}},
            {"type": "array"},
        ),
    ],
)
def test_a_format_is_a_schema(wanted: Any, native: Any) -> None:
    call = chat("Hi", response_format=wanted)

    assert call.body.get("format") == native
    assert call.translated.ignored == ()


def test_what_has_no_place_there_is_named() -> None:
    said: dict[str, Any] = {
        "n": 2,
        "tool_choice": "required",
        "logit_bias": {"5": 1},
        "user": "me",
        "temprature": 1,
        "max_tokens": 5,
        "max_completion_tokens": 6,
        "response_format": {"type": "grammar"},
        "chat_template_kwargs": {"documents": []},
    }

    translated = chat("Hi", **said).translated

    assert set(translated.ignored) == {
        *("n", "tool_choice", "logit_bias", "user", "temprature", "max_tokens", "response_format"),
        "chat_template_kwargs.documents",
    }


def test_what_says_no_more_than_what_happens_anyway_is_not_called_ignored() -> None:
    call = chat("Hi", n=1, tool_choice="auto", parallel_tool_calls=True, logit_bias={}, logprobs=False)

    assert call.translated.ignored == ()


def test_tools_are_not_offered_when_none_may_be_called() -> None:
    tools = [{"type": "function", "function": {"name": "get_status"}}]

    assert chat("Hi", tools=tools).body["tools"] == tools
    assert "tools" not in chat("Hi", tools=tools, tool_choice="none").body


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", "hot"),
        ("temperature", float("nan")),
        ("max_tokens", 1.5),
        ("seed", True),
        ("stop", 5),
        ("stop", ["a", 5]),
    ],
)
def test_a_value_of_a_wrong_type_is_named_before_it_becomes_a_server_error(field: str, value: Any) -> None:
    with pytest.raises(Invalid) as refusal:
        chat("Hi", **{field: value})

    assert refusal.value.param == field


@pytest.mark.parametrize(
    "message",
    [
        {"content": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}]},
        {"content": [{"type": "image_url", "image_url": f"data:image/png;base64,{PIXEL}"}]},
        {
            "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png,not%20really%20a%20picture"}}
            ]
        },
        {"content": "", "images": [PIXEL]},
        {"content": "", "image": f"data:image/png;base64,{PIXEL}"},
    ],
)
def test_a_picture_arrives_as_base64(message: Mapping[str, Any]) -> None:
    call = chat({"role": "user", **message})

    assert call.body["messages"] == [{"role": "user", "content": "", "images": [PIXEL]}]


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}, "does not fetch"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,ä"}}, "no base64"),
        ({"type": "image_url", "image_url": {"url": "data:image/png"}}, "no data"),
        ({"type": "image_url"}, "must be a data URI"),
        ({"type": "input_audio", "input_audio": {}}, "input_audio"),
    ],
)
def test_what_cannot_be_shown_to_it_is_refused_with_its_place(part: Mapping[str, Any], words: str) -> None:
    with pytest.raises(Invalid, match=words) as refusal:
        chat("Hello", {"role": "user", "content": [{"type": "text", "text": "See:"}, part]})

    assert refusal.value.param == "messages.1.content.1"


def test_a_conversation_with_tools_keeps_its_names_and_its_reasoning() -> None:
    called = {"id": "call_7", "type": "function", "function": {"name": "get_status", "arguments": '{"a": 1}'}}

    messages = chat(
        {"role": "developer", "content": "Be brief."},
        {"role": "assistant", "content": None, "tool_calls": [called], "reasoning_content": "Hm."},
        {"role": "tool", "tool_call_id": "call_7", "content": "ready"},
    ).body["messages"]

    assert messages == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "assistant",
            "content": "",
            "thinking": "Hm.",
            "tool_calls": [{"id": "call_7", "function": {"name": "get_status", "arguments": {"a": 1}}}],
        },
        {"role": "tool", "content": "ready", "tool_call_id": "call_7", "tool_name": "get_status"},
    ]


def test_a_completion_goes_on_with_the_text_as_it_is() -> None:
    plain = REFERENCE.call("/v1/completions", {"prompt": ["Once"], "max_tokens": 5}, "guide", 512)
    filling = REFERENCE.call("/v1/completions", {"prompt": "def f(", "suffix": "return"}, "guide", None)

    assert plain.path == "/api/generate"
    assert (plain.body["prompt"], plain.body["raw"], plain.body["think"]) == ("Once", True, False)
    assert filling.body["suffix"] == "return"
    assert "raw" not in filling.body


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": [1, 2]}),
        ("/v1/completions", {"prompt": ["a", "b"]}),
        ("/v1/embeddings", {"input": [1, 2]}),
        ("/v1/embeddings", {"input": []}),
        ("/v1/rerank", {"query": "x"}),
        ("/v1/chat/completions", {"messages": ["Hi"]}),
    ],
)
def test_what_it_has_no_request_for_is_refused(path: str, body: Mapping[str, Any]) -> None:
    with pytest.raises(Invalid):
        REFERENCE.call(path, body, "guide", None)
