"""What the ledger keeps, made readable: bodies as JSON or text, answers as what they say.

Pure. Understands chat completions, completions, responses and messages, streamed or in one piece; of several
choices the first. None of it raises, whatever was kept.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from footplate_daemon import wire
from footplate_daemon.gateway.ledger import Record
from footplate_daemon.gateway.sse import EventSplitter
from footplate_daemon.store.exchanges import Exchange


def row(exchange: Exchange) -> wire.Exchange:
    """Give an exchange without its bodies."""
    return wire.Exchange.model_validate(exchange, from_attributes=True)


def with_text(record: Record) -> wire.ExchangeText:
    """Give an exchange with what its answer says."""
    answer = record.body.read()[1] if record.body else None
    text, reasoning = said(answer or b"")
    return wire.ExchangeText(**asdict(record.exchange), text=text, reasoning=reasoning)


def whole(record: Record) -> wire.ExchangeWhole:
    """Give an exchange with all that is kept of it."""
    told = with_text(record).model_dump()
    if record.body is None:
        return wire.ExchangeWhole(**told)
    request, answer = record.body.read()
    return wire.ExchangeWhole(
        **told,
        request=_body(request, record.body.request_bytes),
        answer=_body(answer, record.body.answer_bytes),
    )


def said(answer: bytes) -> tuple[str, str]:
    """Give the text and the reasoning of an answer, of a stream all its pieces together."""
    if answer.lstrip().startswith(b"{"):
        pieces: Iterable[tuple[str, str]] = _of_whole(_json(answer))
    else:
        events = EventSplitter().feed(answer)
        pieces = (piece for event in events for piece in _of_event(_json(event)))
    texts, reasonings = [], []
    for text, reasoning in pieces:
        texts.append(text)
        reasonings.append(reasoning)
    return "".join(texts), "".join(reasonings)


def _of_whole(answer: Any) -> Iterator[tuple[str, str]]:
    choice = _first(_field(answer, "choices"))
    yield _text(_field(choice, "text")), ""
    yield _of_message(_field(choice, "message"))
    for block in _items(_field(answer, "content")):  # messages
        yield _text(_field(block, "text")), _text(_field(block, "thinking"))
    for item in _items(_field(answer, "output")):  # responses
        parts = [*_items(_field(item, "content")), *_items(_field(item, "summary"))]
        text = "".join(_text(_field(part, "text")) for part in parts)
        yield ("", text) if _field(item, "type") == "reasoning" else (text, "")


def _of_event(event: Any) -> Iterator[tuple[str, str]]:
    choice = _first(_field(event, "choices"))
    yield _text(_field(choice, "text")), ""
    yield _of_message(_field(choice, "delta"))
    delta = _field(event, "delta")
    if isinstance(delta, str):  # responses
        kind = _text(_field(event, "type"))
        if "reasoning" in kind:
            yield "", delta
        elif kind == "response.output_text.delta":
            yield delta, ""
    else:  # messages
        yield _text(_field(delta, "text")), _text(_field(delta, "thinking"))


def _of_message(message: Any) -> tuple[str, str]:
    reasoning = _field(message, "reasoning_content") or _field(message, "reasoning")
    return _text(_field(message, "content")), _text(reasoning)


def _body(body: bytes | None, byte_count: int) -> wire.ExchangeBody:
    if body is None:
        return wire.ExchangeBody(byte_count=byte_count, kept=False)
    value = _json(body)
    text = None if value is not None else body.decode(errors="replace")
    return wire.ExchangeBody(byte_count=byte_count, kept=True, value=value, text=text)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _first(value: Any) -> Any:
    return next(iter(_items(value)), None)


def _text(value: Any) -> str:
    """Give text as it can be sent on; what is none is left out."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else ""
