import json
from typing import Any

import pytest

from footplate_daemon.gateway.engine_errors import DETAIL_LIMIT, reshape
from footplate_daemon.gateway.sse import EventSplitter, StreamWatch

SHORTEN = "Shorten the prompt"
TEXT_ONLY = "reads text only"
SEE_LOGS = "footplate logs"
EXPLAIN = "footplate explain ollama/guide"

LLAMACPP_LONG = {
    "code": 400,
    "message": "request (12014 tokens) exceeds the available context size (1024 tokens), try increasing it",
    "type": "exceed_context_size_error",
    "n_prompt_tokens": 12014,
    "n_ctx": 1024,
}
VLLM_LONG = {
    "message": "This model's maximum context length is 2048 tokens. However, your prompt contains 2049.",
    "type": "BadRequestError",
    "param": "input_tokens",
    "code": 400,
}
VLLM_BUSY = {
    "message": "The engine is currently busy and cannot accept new requests. Please try again later.",
    "type": "Service Unavailable",
    "param": None,
    "code": 503,
}
VLLM_DEAD = {
    "message": "EngineCore encountered an issue. See stack trace (above) for the root cause.",
    "type": "InternalServerError",
    "param": None,
    "code": 500,
}


def shaped(status: int, body: Any) -> tuple[int, dict[str, Any]]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, content = reshape(status, raw, "ollama/guide")
    return status, content["error"]


@pytest.mark.parametrize("said", [LLAMACPP_LONG, VLLM_LONG, VLLM_BUSY, VLLM_DEAD])
def test_openais_object_stays_as_it_is_and_gets_a_hint(said: dict[str, Any]) -> None:
    status, error = shaped(said["code"], {"error": said})

    assert status == said["code"]
    assert {"param": None, **said} == {name: value for name, value in error.items() if name != "hint"}
    assert error["hint"]


@pytest.mark.parametrize(
    ("status", "body", "message", "kind"),
    [
        (401, {"error": "Unauthorized"}, "Unauthorized", "invalid_request_error"),
        (404, {"error": "model 'x' not found"}, "model 'x' not found", "invalid_request_error"),
        (500, {"error": "boom"}, "boom", "server_error"),
        (404, {"detail": "Not Found"}, "Not Found", "invalid_request_error"),
        (
            400,
            {"detail": "Server is pinned to '/m@main'; requested 'demo'."},
            "Server is pinned to '/m@main'; requested 'demo'.",
            "invalid_request_error",
        ),
        (
            422,
            {"detail": [{"type": "missing", "loc": ["body"]}]},
            '[{"type": "missing", "loc": ["body"]}]',
            "invalid_request_error",
        ),
        (503, b"", "ollama/guide answered HTTP 503 and said nothing.", "server_error"),
        (403, b"", "ollama/guide answered HTTP 403 and said nothing.", "invalid_request_error"),
        (500, {"error": ""}, "ollama/guide answered HTTP 500 and said nothing.", "server_error"),
        (500, b"Internal Server Error", "Internal Server Error", "server_error"),
        (404, b"404 page not found\n", "404 page not found", "invalid_request_error"),
        (400, ["no", "object"], '["no", "object"]', "invalid_request_error"),
    ],
)
def test_every_other_shape_becomes_openais(status: int, body: Any, message: str, kind: str) -> None:
    own_status, error = shaped(status, body)

    assert own_status == status
    assert error == {"message": message, "type": kind, "code": status, "param": None, "hint": error["hint"]}


@pytest.mark.parametrize(
    ("said", "message"),
    [(VLLM_BUSY, VLLM_BUSY["message"]), (VLLM_DEAD, VLLM_DEAD["message"]), ("boom", "boom")],
)
def test_an_error_event_in_a_good_stream_has_one_of_these_shapes(said: Any, message: str) -> None:
    raw = b"data: " + json.dumps({"error": said}).encode() + b"\n\ndata: [DONE]\n\n"
    watch = StreamWatch()

    watch.feed(raw)
    _, error = shaped(500, EventSplitter().feed(raw)[0])

    assert error["message"] == watch.error == message


@pytest.mark.parametrize("wrapped", [{"error": LLAMACPP_LONG}, LLAMACPP_LONG])
def test_an_error_that_is_json_inside_a_text_is_read(wrapped: Any) -> None:
    status, error = shaped(400, {"error": json.dumps(wrapped)})

    assert status == 400
    assert error.items() >= LLAMACPP_LONG.items()
    assert "footplate switch ollama/guide --context N" in error["hint"]


@pytest.mark.parametrize("text", ['"quoted"', "[1, 2]", "{broken", "5", "null"])
def test_a_text_that_merely_looks_like_json_is_a_message(text: str) -> None:
    _, error = shaped(400, {"error": text})

    assert error["message"] == text


def test_a_page_of_text_is_cut() -> None:
    _, error = shaped(502, b"<html>" + b"x" * 5000)

    assert len(error["message"]) == DETAIL_LIMIT


@pytest.mark.parametrize(
    ("status", "message", "deserved", "hint"),
    [
        (400, LLAMACPP_LONG["message"], 400, SHORTEN),
        (400, VLLM_LONG["message"], 400, SHORTEN),
        (400, "max_tokens=5000 cannot be greater than max_model_len=2048.", 400, SHORTEN),
        (500, "image input is not supported - hint: you may need the mmproj", 400, TEXT_ONLY),
        (400, "tiny-qwen3 is not a multimodal model", 400, TEXT_ONLY),
        (400, '"plain" does not support thinking', 400, 'reasoning = "none"'),
        (400, "registry.ollama.ai/library/plain:latest does not support tools", 400, "without tools"),
        (501, "This server does not support embeddings. Start it with --embeddings", 501, "capability"),
        (503, VLLM_BUSY["message"], 503, "in a moment"),
        (500, "[json.exception.parse_error.101] parse error at line 1", 400, "Mend the JSON"),
        (400, "something else", 400, EXPLAIN),
        (500, "something else", 500, SEE_LOGS),
    ],
)
def test_what_a_message_says_decides_the_status_and_what_to_do(
    status: int, message: str, deserved: int, hint: str
) -> None:
    own_status, error = shaped(status, {"error": message})

    assert own_status == deserved
    assert hint in error["hint"]


def test_a_hint_of_the_engines_own_is_kept() -> None:
    _, error = shaped(400, {"error": {"message": "no", "hint": "Do this."}})

    assert error["hint"] == "Do this."
