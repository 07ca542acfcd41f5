"""A session on paper: Markdown to read, JSON to keep, and back from JSON.

Pure, and deterministic: the same session gives the same text, anywhere and at any time.
"""

import json
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from footplate_daemon import attachments
from footplate_daemon.errors import Invalid
from footplate_daemon.wire import (
    LONGEST_NAME,
    LONGEST_TITLE,
    Attachment,
    AttachmentWish,
    SessionWithTurns,
    Turn,
    TurnState,
    Wish,
)

FORMAT = "footplate-session"
VERSION = 2
"""Goes up when an older Footplate would misread what a newer one wrote."""
LARGEST_INTEGER = 2**63 - 1
DEEPEST = 100
"""Levels of objects and lists in each other."""
END_OF_TIME = 253_402_300_800.0
"""The year 10000: no clock shows more."""


def to_json(session: SessionWithTurns) -> str:
    """Write everything there is to a session."""
    whole = session.model_dump(mode="json")
    return json.dumps({"format": FORMAT, "version": VERSION, "session": whole}, ensure_ascii=False, indent=2)


def from_json(raw: bytes) -> SessionWithTurns:
    """Read what `to_json` wrote; raise `Invalid` that names the field that is wrong."""
    value = _parsed(raw)
    if value.get("format") != FORMAT:
        raise _invalid("format", f'must be "{FORMAT}"', hint="Import what was exported as JSON.")
    _check_version(value.get("version"))
    _check_values(value)
    try:
        export = _Export.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _invalid(".".join(map(str, first["loc"])), first["msg"]) from error
    _check_names(value, export.model_dump(mode="json"))
    _check_turns(export.session)
    return SessionWithTurns.model_validate(export.session.model_dump())


def to_markdown(session: SessionWithTurns) -> str:
    """Write a session for people: who asked what when, who answered, how fast."""
    blocks = [f"# {_one_line(session.title) or 'Untitled'}", _head(session)]
    for turn in session.turns:
        blocks.extend(_turn_blocks(turn))
    return "\n\n".join(blocks) + "\n"


_Time = Annotated[float, Field(ge=0, lt=END_OF_TIME)]


class _Attachment(Attachment):
    """A file as it is taken in: with its bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=LONGEST_NAME)
    data: str


class _Turn(Turn):
    """A turn as it is taken in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(ge=1)
    attachments: tuple[_Attachment, ...] = ()
    asked_at: _Time
    ended_at: _Time | None = None


class _Session(SessionWithTurns):
    """A session as it is taken in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(max_length=LONGEST_TITLE)
    created_at: _Time
    updated_at: _Time
    turns: tuple[_Turn, ...]


class _Export(Wish):
    """The whole file."""

    format: Literal["footplate-session"]
    version: Literal[1, 2]
    session: _Session


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise Invalid("The export is nested too deeply.", hint=_HINT) from error
    except UnicodeEncodeError as error:
        raise Invalid(
            "The export holds half of a surrogate pair, which is no character.", hint=_HINT
        ) from error
    except ValueError as error:
        raise Invalid(f"The export is no JSON: {error}.", hint=_HINT) from error
    if not isinstance(value, dict):
        raise Invalid("The export must be a JSON object.", hint=_HINT)
    return value


def _check_version(version: object) -> None:
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise _invalid("version", f"must be a whole number from 1 to {VERSION}")
    if version > VERSION:
        raise _invalid(
            "version",
            f"{version} is of a newer Footplate; this one reads up to {VERSION}",
            hint="Update Footplate.",
        )


def _check_values(value: object, place: tuple[str | int, ...] = ()) -> None:
    """Refuse numbers that Python takes for JSON but that cannot be kept, and what is too deep to handle."""
    if len(place) > DEEPEST:
        raise _invalid(".".join(map(str, place[:4])), "is nested too deeply")
    match value:
        case dict():
            for name, inner in value.items():
                _check_values(inner, (*place, name))
        case list():
            for index, inner in enumerate(value):
                _check_values(inner, (*place, index))
        case float() if not math.isfinite(value):
            raise _invalid(".".join(map(str, place)), "must be a finite number")
        case int() if abs(value) > LARGEST_INTEGER:
            raise _invalid(".".join(map(str, place)), "is too large a number")


def _check_names(given: object, known: object, place: tuple[str | int, ...] = ()) -> None:
    """Refuse a field that nothing was made of, however deep it stands."""
    match given, known:
        case dict(), dict():
            for name, inner in given.items():
                if name not in known:
                    raise _invalid(".".join(map(str, (*place, name))), "is no field that is known here")
                _check_names(inner, known[name], (*place, name))
        case list(), list():
            for index, (inner, taken) in enumerate(zip(given, known, strict=True)):
                _check_names(inner, taken, (*place, index))


def _check_turns(session: SessionWithTurns) -> None:
    for index, turn in enumerate(session.turns):
        place = f"session.turns.{index}"
        if turn.number != index + 1:
            raise _invalid(f"{place}.number", f"must be {index + 1}: turns count from 1")
        if turn.state in {TurnState.WAITING, TurnState.STREAMING}:
            raise _invalid(f"{place}.state", f'is "{turn.state}": a turn must have ended')
        for name in ("instead_of", "after", "continue_of"):
            former = getattr(turn, name)
            if former is not None and not 1 <= former < turn.number:
                raise _invalid(f"{place}.{name}", "must be the number of an earlier turn")
        for number, each in enumerate(turn.attachments):
            _check_attachment(f"{place}.attachments.{number}", each)


def _check_attachment(place: str, attachment: Attachment) -> None:
    try:
        (file,) = attachments.read((AttachmentWish(name=attachment.name, data=attachment.data or ""),))
    except Invalid as error:
        raise _invalid(place, error.message.rstrip(".")) from error
    if (file.media_type, len(file.data)) != (attachment.media_type, attachment.byte_count):
        raise _invalid(place, f"is {file.media_type} of {len(file.data)} bytes, not what it says")


def _invalid(field: str, what: str, hint: str | None = None) -> Invalid:
    return Invalid(f"{field}: {what}.", param=field, hint=hint or _HINT)


_HINT = "Mend the file, or export the session again as JSON."


def _head(session: SessionWithTurns) -> str:
    lines = [f"Session `{session.id}`, begun {_date(session.created_at)}."]
    if session.forked_from:
        lines.append(f"Forked from `{session.forked_from}` at turn {session.forked_turn}.")
    if session.parameters:
        lines.append(f"Parameters: {_code(json.dumps(session.parameters, ensure_ascii=False))}")
    if session.system:
        lines.append(f"System:\n\n{_quoted(session.system)}")
    return "\n\n".join(lines)


def _turn_blocks(turn: Turn) -> Iterator[str]:
    yield f"## {turn.number}. {_date(turn.asked_at)}"
    if turn.continue_of is not None:
        yield f"Goes on with the answer of turn {turn.continue_of}."
    elif turn.instead_of is not None:
        yield f"Asked instead of turn {turn.instead_of}."
    elif turn.after is not None:
        yield f"Goes on from turn {turn.after}."
    yield _quoted(turn.prompt)
    if turn.attachments:
        yield f"Attached: {', '.join(_code(each.name) for each in turn.attachments)}"
    if turn.reasoning:
        yield f"<details><summary>Reasoning</summary>\n\n{_quoted(turn.reasoning)}\n\n</details>"
    if turn.answer:
        yield _closed(turn.answer)
    if turn.error:
        yield f"**Failed:** {_one_line(turn.error.message)}"
    elif turn.state is not TurnState.DONE:
        yield f"**{turn.state.capitalize()}.**"
    if turn.warning:
        yield f"**Warning:** {_one_line(turn.warning)}"
    yield " · ".join(_figures(turn)) or "Nobody answered."


def _figures(turn: Turn) -> Iterator[str]:
    if turn.variant:
        yield f"{_code(turn.variant)} on {turn.runtime}" if turn.runtime else _code(turn.variant)
    elif turn.model:
        yield _code(turn.model)
    if turn.preset:
        yield f"preset {_code(turn.preset)}"
    if turn.profile:
        yield f"profile {_code(turn.profile)}"
    if turn.parameters:
        yield _code(json.dumps(turn.parameters, ensure_ascii=False))
    if turn.completion_tokens is not None:
        yield f"{turn.completion_tokens} tokens"
    if turn.tokens_per_second is not None:
        yield f"{turn.tokens_per_second:.1f} tokens/s"
    if turn.ttft_seconds is not None:
        yield f"first after {1000 * turn.ttft_seconds:.0f} ms"
    if turn.finish_reason not in {None, "stop"}:
        yield f"ended by {turn.finish_reason}"
    if turn.request_id:
        yield f"request {_code(turn.request_id)}"


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _quoted(text: str) -> str:
    """Give a text as a quotation: no heading in it ends up among ours."""
    return "\n".join(f"> {line}".rstrip() for line in _closed(text).split("\n"))


def _closed(text: str) -> str:
    """Give Markdown with its last fence closed: an answer that was cut off must not swallow what follows."""
    fence = ""
    for line in text.splitlines():
        found = _FENCE.match(line)
        if not found:
            continue
        if not fence:
            fence = found["fence"]
        elif found["fence"].startswith(fence) and not found["info"].strip():
            fence = ""
    ended = text.strip("\n")
    return f"{ended}\n{fence}" if fence else ended


_FENCE = re.compile(r" {0,3}(?P<fence>`{3,}|~{3,})(?P<info>.*)")


def _code(text: str) -> str:
    """Give a text as inline code, whatever backticks it has itself."""
    line = _one_line(text)
    ticks = "`" * (max((len(run) for run in re.findall(r"`+", line)), default=0) + 1)
    pad = " " if "`" in line else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"
