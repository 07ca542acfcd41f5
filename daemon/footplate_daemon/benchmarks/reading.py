"""From what was noted of a request to its record: events, texts, tokens. Blocks; not while it is measured."""

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import orjson

from footplate_daemon.benchmarks.measuring import Measured
from footplate_daemon.benchmarks.validity import why_invalid
from footplate_daemon.gateway.sse import EventSplitter
from footplate_daemon.wire_benchmarks import RequestRecord

LONGEST_ERROR = 500
"""Characters of an error that are kept."""


@dataclass
class Read:
    """What the events of one answer said."""

    times: list[float] = field(default_factory=list)
    """When each event with `choices` came."""
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    finish_reason: str | None = None
    error: str | None = None
    is_done: bool = False
    """Whether `[DONE]` came."""


def record(measured: Measured, began_at: float) -> RequestRecord:
    """Make the record of a request within a cell that began at that time."""
    read = _read(measured)
    kind, error = measured.error_kind, measured.error
    if kind is None and measured.ended_at is None:
        kind, error = "engine", "It was cut off."
    elif kind is None and read.error is not None:
        kind, error = "stream", read.error
    elif kind is None and not read.times:
        kind, error = "empty", "The stream held nothing."
    elif kind is None and not read.is_done and read.finish_reason is None:
        kind, error = "stream", "The stream ended without an end."
    began, times = measured.started_at, read.times
    answer, reasoning = "".join(read.text), "".join(read.reasoning)
    schema = measured.request.prompt.schema
    why = why_invalid(answer, schema) if kind is None and schema is not None else None
    return RequestRecord(
        number=measured.request.prompt.number,
        started_ms=_ms(began - began_at),
        ttft_ms=_ms(times[0] - began) if times else None,
        e2el_ms=_ms(times[-1] - began) if times else None,
        itl_ms=tuple(_ms(after - before) for before, after in pairwise(times)),
        prompt_tokens=_count(read.usage.get("prompt_tokens")),
        output_tokens=_count(read.usage.get("completion_tokens")),
        cached_tokens=_count((read.usage.get("prompt_tokens_details") or {}).get("cached_tokens")),
        finish_reason=read.finish_reason,
        error_kind=kind,
        error=error[:LONGEST_ERROR] if error else None,
        is_valid=None if schema is None or kind is not None else why is None,
        validity=why,
        prompt=_asked(measured),
        answer=answer,
        reasoning=reasoning or None,
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 4)


def _read(measured: Measured) -> Read:
    read = Read()
    for at, event in _events(measured):
        if event == b"[DONE]":
            read.is_done = True
            continue
        _take(read, at, event)
    return read


def _events(measured: Measured) -> Iterator[tuple[float, bytes]]:
    """Give every event in OpenAI's form, with the time at which it was whole."""
    # A copy: what was read once may be read again.
    translation, splitter = copy.deepcopy(measured.request.translation), EventSplitter()
    for at, piece in zip(measured.times, measured.unpacked(), strict=True):
        data = piece if translation is None else translation.feed(piece)
        for event in splitter.feed(data) if data else ():
            yield at, event
    rest = b"" if translation is None else translation.end()
    for event in splitter.feed(rest) if rest else ():
        yield measured.times[-1], event


def _take(read: Read, at: float, event: bytes) -> None:
    chunk = _json(event)
    if not isinstance(chunk, dict):
        return
    if chunk.get("error") is not None:
        read.error = _message(chunk["error"])
    if isinstance(chunk.get("usage"), dict):
        read.usage = chunk["usage"]
    choices = chunk.get("choices")
    if not isinstance(choices, list) or not choices:
        return
    read.times.append(at)
    choice = choices[0] if isinstance(choices[0], dict) else {}
    delta = choice.get("delta") or {}
    read.text.append(_text(delta.get("content")))
    read.reasoning.append(_text(delta.get("reasoning_content") or delta.get("reasoning")))
    read.finish_reason = choice.get("finish_reason") or read.finish_reason


def _json(event: bytes) -> Any:
    try:
        return orjson.loads(event)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(event)  # half a character is too much for the quick one
    except ValueError:
        return None


def _message(error: Any) -> str:
    said = error.get("message") if isinstance(error, dict) else error
    return said if isinstance(said, str) else json.dumps(error)


def _text(content: Any) -> str:
    """Give text as it can be stored: half a character is replaced."""
    return content.encode(errors="replace").decode() if isinstance(content, str) else ""


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _asked(measured: Measured) -> str:
    content = measured.request.prompt.messages[-1].get("content")
    return _text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False))
