"""Reasoning under both of its names, whatever the engine calls it: `reasoning_content` and `reasoning`.

llama.cpp says `reasoning_content`, vLLM `reasoning`. Everything else passes through unread.
"""

import json
from collections.abc import Iterator
from typing import Any

NAMES = ("reasoning_content", "reasoning")
_MARK = b'"reasoning'
_END = b"\n\n"


class ReasoningInStream:
    """Rewrites the events of a stream that carry reasoning; an event goes on once it is whole."""

    def __init__(self) -> None:
        self._open = b""

    def feed(self, data: bytes) -> bytes:
        """Give the events that these bytes complete."""
        data = self._open + data
        cut = data.rfind(_END) + len(_END)
        if cut < len(_END):
            self._open = data
            return b""
        self._open = data[cut:]
        whole = data[:cut]
        return b"".join(map(_event, _events(whole))) if _MARK in whole else whole

    def end(self) -> bytes:
        """Give what is left."""
        left, self._open = self._open, b""
        return left


class ReasoningInBody:
    """Rewrites an answer in one piece."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        """Keep the bytes: an answer in one piece is rewritten as a whole."""
        self._parts.append(data)
        return b""

    def end(self) -> bytes:
        """Give the answer."""
        body = b"".join(self._parts)
        return _rewritten(body, "message") if _MARK in body else body


def _events(whole: bytes) -> Iterator[bytes]:
    for event in whole.split(_END)[:-1]:
        yield event + _END


def _event(event: bytes) -> bytes:
    if _MARK not in event or not event.startswith(b"data:"):
        return event
    return b"data: " + _rewritten(event[len(b"data:") :].strip(), "delta") + _END


def _rewritten(body: bytes, part: str) -> bytes:
    """Set both names where one is set; a body that is no JSON stays as it is."""
    try:
        answer = json.loads(body)
    except ValueError:
        return body
    for choice in answer.get("choices", ()) if isinstance(answer, dict) else ():
        _name_both(choice.get(part) if isinstance(choice, dict) else None)
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()


def _name_both(message: Any) -> None:
    if not isinstance(message, dict):
        return
    text = next((message[name] for name in NAMES if message.get(name) is not None), None)
    if text is not None:
        message.update(dict.fromkeys(NAMES, text))
