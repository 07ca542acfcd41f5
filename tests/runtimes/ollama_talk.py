"""What the tests of Ollama have in common: asking it as a client does, and reading what comes of it."""

import base64
import json
from typing import Any

from footplate_daemon.gateway.sse import EventSplitter
from footplate_daemon.runtimes.base import Call, LaunchPlan, Translation
from footplate_daemon.runtimes.ollama import Ollama
from footplate_daemon.switching.probe import ask

REFERENCE = Ollama(environment={}, ask=ask)
PIXEL = base64.b64encode(b"not really a picture").decode()
LONG = "so many words " * 600


def plan(**changes: Any) -> LaunchPlan:
    return LaunchPlan(
        **{
            "variant": "ollama/gemma",
            "model": "gemma3:4b",
            "served_name": "gemma3:4b",
            "port": 4711,
            "command": ("ollama", "serve"),
            **changes,
        }
    )


def chat(*messages: Any, context: int | None = None, **body: Any) -> Call:
    said = [
        {"role": "user", "content": message} if isinstance(message, str) else message for message in messages
    ]
    return REFERENCE.call("/v1/chat/completions", {"messages": said, **body}, "guide", context)


def translation(call: Call) -> Translation:
    assert call.translation is not None
    return call.translation


def events(raw: bytes) -> list[Any]:
    return [event if event == b"[DONE]" else json.loads(event) for event in EventSplitter().feed(raw)]


def deltas(raw: bytes) -> list[Any]:
    return [event["choices"][0]["delta"] for event in events(raw)[:-1] if event["choices"]]
