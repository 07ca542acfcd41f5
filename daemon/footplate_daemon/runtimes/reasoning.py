"""Reasoning under both of its names, whatever the engine calls it: `reasoning_content` and `reasoning`.

llama.cpp says `reasoning_content`, vLLM `reasoning`. Where an answer is not what was wanted because of its
reasoning, a warning goes with it. Everything else passes through unread.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

NAMES = ("reasoning_content", "reasoning")
WARNING = "x_footplate_warning"
"""The field of an answer, or of a stream's last chunk, for a warning; clients skip what they do not know."""
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
        self._answer = _Answer("delta", is_off=is_off)

    def feed(self, data: bytes) -> bytes:
        """Give the events that these bytes complete, with line ends as OpenAI writes them."""
        data = self._open + data
        if b"\r" in data:
            held_back = data.endswith(b"\r")  # half of a CRLF, perhaps
            data = data.replace(b"\r\n", b"\n")
            if not held_back:
                data = data.replace(b"\r", b"\n")
        cut = data.rfind(_END) + len(_END)
        if cut < len(_END):
            self._open = data
            return b""
        self._open = data[cut:]
        whole = data[:cut]
        if _MARK not in whole and not self._answer.has_begun:
            return whole
        return b"".join(map(self._event, _events(whole)))

    def end(self) -> bytes:
        """Give what is left."""
        left, self._open = self._open, b""
        return left

    def _event(self, event: bytes) -> bytes:
        is_telling = _MARK in event or self._answer.wants_more or _FINISHED.search(event)
        if not event.startswith(b"data:") or not is_telling:
            return event
        data = event[len(b"data:") :].strip()
        rewritten = self._answer.rewritten(data)
        return event if rewritten == data else b"data: " + rewritten + _END


class ReasoningInBody:
    """Rewrites an answer in one piece."""

    def __init__(self, *, is_off: bool = False) -> None:
        """Begin one answer, for which reasoning was asked to be off or not."""
        self._parts: list[bytes] = []
        self._is_off = is_off

    def feed(self, data: bytes) -> bytes:
        """Keep the bytes: an answer in one piece is rewritten as a whole."""
        self._parts.append(data)
        return b""

    def end(self) -> bytes:
        """Give the answer."""
        body = b"".join(self._parts)
        return _Answer("message", is_off=self._is_off).rewritten(body) if _MARK in body else body


def is_off(body: Mapping[str, Any]) -> bool:
    """Whether a request asks for an answer without reasoning, in whichever words."""
    kwargs = body.get("chat_template_kwargs")
    told = kwargs.get("enable_thinking") if kwargs and isinstance(kwargs, Mapping) else None
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
    """What one choice of an answer has told so far."""

    def __init__(self, *, is_off: bool) -> None:
        self._has_reasoned = False
        self._has_content = False
        self._is_off = is_off

    @property
    def wants_more(self) -> bool:
        """Whether it reasons and has not said anything."""
        return self._has_reasoned and not self._has_content

    def rewrite(self, message: dict[str, Any]) -> bool:
        """Set both names where one is set; take off the empty lines with which reasoning and answer begin.

        Say whether anything was changed.
        """
        text = next((message[name] for name in NAMES if message.get(name) is not None), None)
        if isinstance(text, str):
            if not self._has_reasoned:
                # Under load several tokens share a chunk, and vLLM's parsers then let the mark through.
                text = text.lstrip().removeprefix("<think>").lstrip()
            self._has_reasoned |= bool(text)
            message.update(dict.fromkeys(NAMES, text))
        content = message.get("content")
        if self.wants_more and isinstance(content, str) and content:
            content = message["content"] = content.lstrip()
        self._has_content |= bool(content or message.get("tool_calls"))
        return self._has_reasoned or isinstance(text, str)

    def warning(self, finish_reason: object) -> str | None:
        """Say what is wrong with the answer that ended so."""
        return warning(
            has_reasoned=self._has_reasoned,
            has_content=self._has_content,
            finish_reason=finish_reason,
            is_off=self._is_off,
        )


class _Answer:
    """Rewrites the parts of one answer, whichever choices they belong to."""

    def __init__(self, part: str, *, is_off: bool) -> None:
        self._part = part
        self._is_off = is_off
        self._told: dict[object, _Told] = {}

    @property
    def has_begun(self) -> bool:
        """Whether any reasoning has come."""
        return bool(self._told)

    @property
    def wants_more(self) -> bool:
        """Whether a choice reasons and has not said anything."""
        return any(told.wants_more for told in self._told.values())

    def rewritten(self, body: bytes) -> bytes:
        """Give the answer with what is missing; what misses nothing, or is no JSON, stays as it is."""
        try:
            answer = json.loads(body)
        except ValueError:
            return body
        choices = answer.get("choices") if isinstance(answer, dict) else None
        said = [self._rewrite(choice) for choice in choices or () if isinstance(choice, dict)]
        if not any(is_changed for is_changed, _ in said):
            return body
        if warnings := dict.fromkeys(text for _, text in said if text):
            answer[WARNING] = " ".join(warnings)
        return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()

    def _rewrite(self, choice: dict[str, Any]) -> tuple[bool, str | None]:
        """Rewrite one choice; say whether it was changed, and what is wrong with it if it has ended."""
        message = choice.get(self._part)
        if not isinstance(message, dict):
            return False, None
        told = self._told.setdefault(choice.get("index"), _Told(is_off=self._is_off))
        is_changed = told.rewrite(message)
        reason = choice.get("finish_reason")
        return is_changed, told.warning(reason) if reason is not None else None


def _events(whole: bytes) -> Iterator[bytes]:
    for event in whole.split(_END)[:-1]:
        yield event + _END
