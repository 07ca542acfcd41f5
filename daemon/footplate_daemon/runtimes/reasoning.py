"""Reasoning under both of its names, whatever the engine calls it: `reasoning_content` and `reasoning`.

llama.cpp says `reasoning_content`, vLLM `reasoning`. Where an answer came out other than it was wanted because
of its reasoning, a warning goes with it. Everything else passes through unread.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

NAMES = ("reasoning_content", "reasoning")
WARNING = "x_footplate_warning"
"""The field of an answer, or of a stream's last chunk, in which a warning goes; clients skip what they do not know."""
ONLY_REASONING = "All tokens of the answer went into the reasoning: raise max_tokens, or think less."
THOUGH_OFF = "Reasoning was asked to be off, and this model cannot switch it off."

_MARK = b'"reasoning'
_END = b"\n\n"
_FINISHED = re.compile(rb'"finish_reason":\s*"')


class ReasoningInStream:
    """Rewrites the events of a stream that carry reasoning; an event goes on once it is whole."""

    def __init__(self, *, is_off: bool = False) -> None:
        """Begin one answer, for which reasoning was asked to be off or not."""
        self._open = b""
        self._told = _Told(is_off=is_off)

    def feed(self, data: bytes) -> bytes:
        """Give the events that these bytes complete."""
        data = self._open + data
        cut = data.rfind(_END) + len(_END)
        if cut < len(_END):
            self._open = data
            return b""
        self._open = data[cut:]
        whole = data[:cut]
        if _MARK not in whole and not self._told.has_reasoned:
            return whole
        return b"".join(map(self._event, _events(whole)))

    def end(self) -> bytes:
        """Give what is left."""
        left, self._open = self._open, b""
        return left

    def _event(self, event: bytes) -> bytes:
        is_telling = self._told.wants_more or _FINISHED.search(event)
        if not event.startswith(b"data:") or not (_MARK in event or is_telling):
            return event
        data = event[len(b"data:") :].strip()
        rewritten = _rewritten(data, "delta", self._told)
        return event if rewritten == data else b"data: " + rewritten + _END


class ReasoningInBody:
    """Rewrites an answer in one piece."""

    def __init__(self, *, is_off: bool = False) -> None:
        """Begin one answer, for which reasoning was asked to be off or not."""
        self._parts: list[bytes] = []
        self._told = _Told(is_off=is_off)

    def feed(self, data: bytes) -> bytes:
        """Keep the bytes: an answer in one piece is rewritten as a whole."""
        self._parts.append(data)
        return b""

    def end(self) -> bytes:
        """Give the answer."""
        body = b"".join(self._parts)
        return _rewritten(body, "message", self._told) if _MARK in body else body


def is_off(body: Mapping[str, Any]) -> bool:
    """Whether a request asks for an answer without reasoning, in whichever words."""
    kwargs = body.get("chat_template_kwargs")
    told = kwargs.get("enable_thinking") if isinstance(kwargs, Mapping) else None
    return told is False or (told is None and body.get("reasoning_effort") == "none")


def warning(
    *, has_reasoned: bool, has_content: bool, finish_reason: object, is_off: bool = False
) -> str | None:
    """Say what is wrong with an answer because of its reasoning; None if nothing is."""
    if not has_reasoned:
        return None
    is_cut = finish_reason == "length" and not has_content
    return " ".join([THOUGH_OFF] * is_off + [ONLY_REASONING] * is_cut) or None


class _Told:
    """What an answer has told so far."""

    def __init__(self, *, is_off: bool) -> None:
        self.has_reasoned = False
        self._has_content = False
        self._is_off = is_off

    @property
    def wants_more(self) -> bool:
        """Whether it still matters if content comes."""
        return self.has_reasoned and not self._has_content

    def hear(self, choice: Mapping[str, Any], message: Mapping[str, Any]) -> str | None:
        """Note what came; give a warning once the answer has ended."""
        self.has_reasoned |= any(message.get(name) for name in NAMES)
        self._has_content |= bool(message.get("content") or message.get("tool_calls"))
        reason = choice.get("finish_reason")
        if reason is None:
            return None
        return warning(
            has_reasoned=self.has_reasoned,
            has_content=self._has_content,
            finish_reason=reason,
            is_off=self._is_off,
        )


def _events(whole: bytes) -> Iterator[bytes]:
    for event in whole.split(_END)[:-1]:
        yield event + _END


def _rewritten(body: bytes, part: str, told: _Told) -> bytes:
    """Set both names where one is set; what has none and needs no warning stays as it is, like what is no JSON."""
    try:
        answer = json.loads(body)
    except ValueError:
        return body
    choices = answer.get("choices") if isinstance(answer, dict) else None
    is_changed = False
    for choice in choices if isinstance(choices, list) else ():
        message = choice.get(part) if isinstance(choice, dict) else None
        if not isinstance(message, dict):
            continue
        is_changed |= _name_both(message)
        said = told.hear(choice, message)
        if said is not None:
            answer[WARNING] = said
            is_changed = True
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode() if is_changed else body


def _name_both(message: dict[str, Any]) -> bool:
    text = next((message[name] for name in NAMES if message.get(name) is not None), None)
    if text is not None:
        message.update(dict.fromkeys(NAMES, text))
    return text is not None
