"""An engine's error in the one shape in which errors travel; what it said stays, a hint is added.

Engines have five shapes: OpenAI's object, `{"error": "text"}`, FastAPI's `{"detail"}`, an empty body,
and an error event inside a 200 stream.
"""

import json
from typing import Any

DETAIL_LIMIT = 2000
"""Characters of a body that is no JSON."""


def reshape(status: int, body: bytes, variant: str) -> tuple[int, dict[str, Any]]:
    """Give the status and body to send for an engine's error answer."""
    said = _said(body)
    error = {
        "message": said.get("message") or f"{variant} answered HTTP {status} and said nothing.",
        "type": said.get("type") or ("invalid_request_error" if status < 500 else "server_error"),
        "code": said.get("code") if said.get("code") is not None else status,
        "param": said.get("param"),
        **{key: value for key, value in said.items() if key not in {"message", "type", "code", "param"}},
    }
    status, hint = _judge(status, str(error["message"]), variant)
    error["hint"] = said.get("hint") or hint
    return status, {"error": error}


def _said(body: bytes) -> dict[str, Any]:
    """Give what there is to know in an error's body, as the fields of OpenAI's error object."""
    content = _json(body)
    if content is None:
        return {"message": body.decode(errors="replace").strip()[:DETAIL_LIMIT]}
    if not isinstance(content, dict):
        return {"message": json.dumps(content)[:DETAIL_LIMIT]}
    error = content.get("error", content.get("detail", content))
    if isinstance(error, dict):
        message = error.get("message")
        return {**error, "message": message[:DETAIL_LIMIT]} if isinstance(message, str) else error
    if not isinstance(error, str):
        return {"message": json.dumps(error)[:DETAIL_LIMIT]}
    # Ollama passes the body of its model's process on as a text.
    is_wrapped = isinstance(_json(error), dict)
    return _said(error.encode(errors="replace")) if is_wrapped else {"message": error}


def _json(text: bytes | str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


_HINTS: tuple[tuple[tuple[str, ...], int | None, str], ...] = (
    (
        ("exceeds the available context", "maximum context length", "context size", "max_model_len"),
        400,
        "Shorten the prompt, lower max_tokens, or: footplate switch {variant} --context N (a larger one)",
    ),
    (
        ("image input is not supported", "is not a multimodal model"),
        400,
        "This model reads text only; choose one with vision: footplate models",
    ),
    (
        ("does not support thinking",),
        None,
        'Set reasoning = "none" in the profile, or choose another model: footplate models',
    ),
    (
        ("does not support tools",),
        None,
        "Send the request without tools, or choose another model: footplate models",
    ),
    (
        ("does not support embeddings", "does not support reranking"),
        None,
        "Ask a model with that capability.",
    ),
    (("currently busy", "server busy", "too many requests"), None, "Try again in a moment."),
    (("json.exception", "JSON decode", "parse error"), 400, "Mend the JSON that the message points at."),
)
"""What the message contains, the status it deserves (None: as it came), and what to do."""


def _judge(status: int, message: str, variant: str) -> tuple[int, str]:
    lowered = message.lower()
    for words, deserved, hint in _HINTS:
        if any(word.lower() in lowered for word in words):
            return deserved or status, hint.format(variant=variant)
    if status < 500:
        return status, f"{variant} does not accept this request; see: footplate explain {variant}"
    return status, "See: footplate logs; footplate status"
