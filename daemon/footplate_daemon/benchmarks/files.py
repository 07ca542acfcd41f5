"""The lines of a workload's file: JSONL of prompts, of messages, of OpenAI's batches, or ShareGPT. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from footplate_daemon.errors import Invalid

HINT = (
    'A line is {"prompt": "…"}, {"messages": […]}, {"body": {"messages": […]}} or ShareGPT\'s '
    '{"conversations": [{"from": "human", "value": "…"}, …]}.'
)
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


@dataclass(frozen=True)
class Line:
    """What one line asks."""

    messages: tuple[dict[str, Any], ...]
    max_tokens: int | None = None
    response_format: Any = None


def parse(lines: Sequence[str], param: str) -> tuple[Line, ...]:
    """Read every line; raise `Invalid` naming the first that cannot be used. Empty lines are passed over."""
    if len(lines) == 1 and lines[0].lstrip().startswith("["):
        entries = _list(lines[0], param)
    else:
        entries = [
            (number, _json(line, number, param)) for number, line in enumerate(lines, 1) if line.strip()
        ]
    found = [_line(entry, number, param) for number, entry in entries]
    if not found:
        raise Invalid("The workload's file holds no line.", param=param, hint=HINT)
    return tuple(found)


def _list(text: str, param: str) -> list[tuple[int, Any]]:
    """Take the conversations of a ShareGPT file that begin with a person and have an answer."""
    entries: list[Any] = _json(text, 1, param)
    whole = [
        (number, entry)
        for number, entry in enumerate(entries, 1)
        if not isinstance(entry, Mapping) or len(entry.get("conversations") or ()) != 1
    ]
    return whole or list(enumerate(entries, 1))


def _json(text: str, number: int, param: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Invalid(
            f"Line {number} of the workload's file is not JSON: {error}.", param=param, hint=HINT
        ) from error


def _line(entry: Any, number: int, param: str) -> Line:
    body = entry.get("body", entry) if isinstance(entry, Mapping) else None
    if not isinstance(body, Mapping):
        raise _wrong(number, "is no object", param)
    messages = _messages(body)
    if not messages:
        raise _wrong(number, "holds no prompt", param)
    longest = body.get("max_tokens", body.get("max_completion_tokens"))
    if longest is not None and (not isinstance(longest, int) or isinstance(longest, bool) or longest < 1):
        raise _wrong(number, "has a max_tokens that is no whole number above 0", param)
    wanted = body.get("response_format")
    if wanted is not None and not isinstance(wanted, Mapping):
        raise _wrong(number, "has a response_format that is no object", param)
    return Line(messages, longest, wanted)


def _messages(body: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    prompt, messages, conversation = (body.get(name) for name in ("prompt", "messages", "conversations"))
    if isinstance(prompt, str) and prompt:
        return ({"role": "user", "content": prompt},)
    if isinstance(messages, list) and messages:
        are_whole = all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in messages)
        return tuple(messages) if are_whole else ()
    if isinstance(conversation, list):
        return _first_question(conversation)
    return ()


def _first_question(conversation: list[Any]) -> tuple[dict[str, Any], ...]:
    """Take what comes up to and with the first question, as `vllm bench serve` does."""
    messages: list[dict[str, Any]] = []
    for said in conversation:
        role = _ROLES.get(str(said.get("from"))) if isinstance(said, Mapping) else None
        value = said.get("value") if isinstance(said, Mapping) else None
        if role is None or not isinstance(value, str) or not value:
            return ()
        messages.append({"role": role, "content": value})
        if role == "user":
            return tuple(messages)
    return ()


def _wrong(number: int, what: str, param: str) -> Invalid:
    return Invalid(f"Line {number} of the workload's file {what}.", param=param, hint=HINT)
