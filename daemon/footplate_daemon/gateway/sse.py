"""Server-sent events on their way through: what can be learnt of an answer by looking at its bytes.

Nothing here changes a byte. `StreamWatch` remembers which events hold something and parses those few,
when asked; `EventSplitter` gives every event to whoever wants them all; `told_by` and `error_of` are for
answers in one piece. None of them raises, whatever comes.
Understands the streams of chat completions, completions, responses and messages.
"""

import json
import re
from typing import Any, NamedTuple

import orjson

from footplate_daemon.runtimes.reasoning import WARNING

EVENT_LIMIT = 16 * 1024 * 1024
"""Bytes of one event; what is longer is passed over unread."""


class Usage(NamedTuple):
    """The tokens that an engine says it counted; None where it says nothing."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None


class Told(NamedTuple):
    """What an answer says of itself; None where it says nothing."""

    usage: Usage | None = None
    finish_reason: str | None = None
    """Why it ended, in the words of the engine."""
    warning: str | None = None
    """Why it is not what was wanted although nothing failed."""


NOTHING = Told()


class StreamWatch:
    """Looks at a stream as it passes; tokens are counted by `usage`, never by events."""

    def __init__(self) -> None:
        self.event_count = 0
        """Events with data so far, `[DONE]` not among them."""
        self.has_content = False
        """Whether a token has come: content, reasoning, a tool call or text that is not empty."""
        self.is_done = False
        """Whether `[DONE]` came."""
        self._splitter = EventSplitter()
        self._first_usage: bytes | None = None
        self._newest: dict[bytes, bytes] = {}
        self._parsed: dict[bytes, tuple[bytes, Any]] = {}

    def passed_over(self, data: bytes) -> bool:
        """Count events of which none holds more than text, and say so; False: they have to be fed."""
        if (
            self.has_content
            and data.startswith(b"data: {")
            and data.endswith(b"}\n\n")
            and not self._splitter.holds_bytes
            and b"\r" not in data
            and _WANTED.search(data) is None
        ):
            self.event_count += 1 + data.count(_NEXT_EVENT)
            return True
        return False

    def feed(self, data: bytes) -> bool:
        """Look at the next bytes, wherever they begin and end; say whether an event with data came."""
        before = self.event_count
        for event in self._splitter.feed(data):
            self._look_at(event)
        return self.event_count > before

    @property
    def told(self) -> Told:
        """What the stream has said so far."""
        warning = _field(self._event(_WARNING), WARNING)
        return Told(self.usage, self.finish_reason, warning if isinstance(warning, str) else None)

    @property
    def usage(self) -> Usage | None:
        """What the stream said last of its tokens; what only its beginning said is kept."""
        newest = self._event(b"usage")
        if newest is None or self._first_usage is None:
            return None
        last = _usage(newest)
        return (
            last
            if self._newest[b"usage"] is self._first_usage
            else _merged(_usage(_json(self._first_usage)), last)
        )

    @property
    def finish_reason(self) -> str | None:
        """Why the answer ended, in the words of the engine."""
        return _finish_reason(self._event(b"finish_reason")) or _finish_reason(self._event(b"stop_reason"))

    @property
    def error(self) -> str | None:
        """The message of an error that came in the stream, after a good status."""
        return _error(self._event(b"error"))

    def _look_at(self, event: bytes) -> None:
        if event == b"[DONE]":
            self.is_done = True
            return
        self.event_count += 1
        if not self.has_content:
            self.has_content = _has_content(_json(event))
        for key in _WANTED.findall(event):
            self._newest[key] = event
            if key == b"usage" and self._first_usage is None:
                self._first_usage = event

    def _event(self, key: bytes) -> Any:
        """Parse the newest event with this key, once; None if there is none."""
        event = self._newest.get(key)
        if event is None:
            return None
        source, value = self._parsed.get(key, (None, None))
        if source is not event:
            value = _json(event)
            self._parsed[key] = (event, value)
        return value


class EventSplitter:
    """Gives the data of each event of a stream, wherever its bytes were split."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def holds_bytes(self) -> bool:
        """Whether an event has begun and not ended."""
        return bool(self._parts)

    def feed(self, data: bytes) -> list[bytes]:
        """Give the data of each event that these bytes complete; comments have none and are left out."""
        if b"\n" not in data and b"\r" not in data:
            self._keep(data)
            return []
        if self._parts:
            data = b"".join((*self._parts, data))
            self._parts.clear()
        self._size = 0
        held_back = b""
        if b"\r" in data:
            if data.endswith(b"\r"):  # half of a CRLF, perhaps
                data, held_back = data[:-1], b"\r"
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *blocks, rest = data.split(b"\n\n")
        self._keep(rest + held_back)
        return [event for block in blocks if (event := _data(block)) is not None]

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > EVENT_LIMIT:
            self._parts.clear()
        elif part:
            self._parts.append(part)


def told_by(body: bytes) -> Told:
    """Read what an answer in one piece says of itself."""
    value = _json(body)
    warning = _field(value, WARNING)
    return Told(_usage(value), _finish_reason(value), warning if isinstance(warning, str) else None)


def without_usage(events: bytes) -> bytes:
    """Leave out the event that tells only the tokens, which a client did not ask for."""
    kept = [event for event in events.split(b"\n\n") if not _tells_only_usage(event)]
    return b"\n\n".join(kept)


def _tells_only_usage(event: bytes) -> bool:
    value = _json(_data(event) or b"") if b'"usage"' in event else None
    return bool(_field(value, "usage")) and _field(value, "choices") == []


def error_of(body: bytes) -> str | None:
    """Read the message off the body of an error, in whichever of the engines' shapes; None if it has none."""
    return _error(_json(body))


_WARNING = WARNING.encode()
_NEXT_EVENT = b"\n\ndata: {"
_WANTED = re.compile(rb'"(usage|finish_reason|stop_reason|error|%b)":(?!\s*null)' % _WARNING)


def _data(block: bytes) -> bytes | None:
    """Give the data of one event, its lines joined; None if it has none."""
    if block.startswith(b"data:") and b"\n" not in block:
        return block[6:] if block[5:6] == b" " else block[5:]
    lines = [line[5:].removeprefix(b" ") for line in block.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def _json(data: bytes) -> Any:
    """Parse what an engine sent; None if it is no JSON."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _field(value: Any, *names: str) -> Any:
    """Follow names into nested objects; None where there is nothing."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _choices(value: Any) -> list[Any]:
    choices = _field(value, "choices")
    return choices if isinstance(choices, list) else []


_CONTENT = ("content", "reasoning_content", "reasoning", "tool_calls", "function_call", "refusal", "audio")
_TEXTS = ("text", "thinking", "partial_json")


def _has_content(value: Any) -> bool:
    delta = _field(value, "delta")
    if isinstance(delta, str):  # responses
        return bool(delta)
    if any(_field(delta, name) for name in _TEXTS):  # messages
        return True
    return any(
        _field(choice, "text") or any(_field(choice, "delta", name) for name in _CONTENT)
        for choice in _choices(value)
    )


def _usage(value: Any) -> Usage | None:
    """Find the usage where chat completions, responses and messages have it, under the names of either."""
    usage = _field(value, "usage") or _field(value, "response", "usage") or _field(value, "message", "usage")
    if not isinstance(usage, dict):
        return None
    get = usage.get
    asked = get("prompt_tokens_details") or get("input_tokens_details")
    said = get("completion_tokens_details") or get("output_tokens_details")
    return Usage(
        _count(get("prompt_tokens"), get("input_tokens")),
        _count(get("completion_tokens"), get("output_tokens")),
        _count(_field(said, "reasoning_tokens")) if said else None,
        _count(_field(asked, "cached_tokens")) if asked else _count(get("cache_read_input_tokens")),
    )


def _count(*values: Any) -> int | None:
    for value in values:
        if isinstance(value, int):
            return value
    return None


def _merged(first: Usage | None, last: Usage | None) -> Usage | None:
    if first is None or last is None:
        return last or first
    return Usage(
        _count(last.prompt_tokens, first.prompt_tokens),
        _count(last.completion_tokens, first.completion_tokens),
        _count(last.reasoning_tokens, first.reasoning_tokens),
        _count(last.cached_tokens, first.cached_tokens),
    )


def _finish_reason(value: Any) -> str | None:
    for choice in _choices(value):
        reason = _field(choice, "finish_reason")
        if isinstance(reason, str) and reason:
            return reason
    reason = _field(value, "stop_reason") or _field(value, "delta", "stop_reason")
    return reason if isinstance(reason, str) else None


def _error(value: Any) -> str | None:
    """Read OpenAI's `error.message`, a bare `error`, FastAPI's `detail`, or a failed response's error."""
    error = _field(value, "error") or _field(value, "response", "error")
    message = _field(error, "message") or error or _field(value, "detail")
    if not message:
        return None
    return message if isinstance(message, str) else json.dumps(message, ensure_ascii=False)
