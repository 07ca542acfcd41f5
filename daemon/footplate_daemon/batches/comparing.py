"""Two batches of the same input, side by side: what each answered to the same `custom_id`."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import orjson

from footplate_daemon.batches.keeper import Batches
from footplate_daemon.batches.lines import Result, read_result
from footplate_daemon.batches.shapes import batch_shape
from footplate_daemon.errors import Conflict
from footplate_daemon.store.batches import Line, LineState, StoredBatch
from footplate_daemon.wire_batches import BatchComparison, ComparedAnswer, ComparedLine, ComparedSide

AT_A_TIME = 500
SHOWN_CHARACTERS = 20_000
"""Of an answer."""
PROMPT_CHARACTERS = 500


async def compare(
    batches: Batches, first: StoredBatch, second: StoredBatch, *, from_line: int, limit: int
) -> BatchComparison:
    """Compare two batches; raise `Conflict` when the lines of one are not known (any more)."""
    for row in (first, second):
        if not row.total:
            raise Conflict(
                f"The batch {row.id} has no lines: it is {row.status}.",
                hint="Compare batches whose lines were asked.",
            )
    summary = _Summary()
    shown: list[ComparedLine] = []
    number, next_line = 1, None
    with ExitStack() as opened:
        sides = [opened.enter_context(_Answers(batches, row)) for row in (first, second)]
        while some := await batches.store.lines(first.key, first=number, limit=AT_A_TIME):
            others = await batches.store.lines_named(second.key, [line.custom_id for line in some])
            compared = await asyncio.to_thread(_compared, some, others, sides, summary)
            for line, pair in zip(some, compared, strict=True):
                if line.number >= from_line and len(shown) < limit:
                    shown.append(pair)
                elif line.number >= from_line and next_line is None:
                    next_line = line.number
            number = some[-1].number + 1
        for state in (LineState.COMPLETED, LineState.FAILED):
            await _add_the_rest(batches, second, sides[1], state, summary)
    return BatchComparison(
        first=_side(first, summary.sides[0]),
        second=_side(second, summary.sides[1]),
        common=summary.common,
        differing_inputs=summary.differing_inputs,
        same_answers=summary.same_answers,
        lines=tuple(shown),
        next_line=next_line,
    )


@dataclass
class _Sum:
    answered: int = 0
    failed: int = 0
    characters: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    timed: int = 0

    def add(self, answer: ComparedAnswer | None) -> None:
        if answer is None:
            return
        if answer.status_code != 200:
            self.failed += 1
            return
        self.answered += 1
        self.characters += answer.characters
        self.output_tokens += answer.output_tokens or 0
        if answer.seconds is not None:
            self.seconds += answer.seconds
            self.timed += 1


class _Summary:
    def __init__(self) -> None:
        self.sides = (_Sum(), _Sum())
        self.common = self.differing_inputs = self.same_answers = 0


class _Answers:
    """The files of one batch, open for reading; those that are deleted give nothing."""

    def __init__(self, batches: Batches, row: StoredBatch) -> None:
        path = batches.files.path
        self.row = row
        self._paths: Mapping[str, Path] = {
            "input": path(row.input_file_id),
            "output": path(row.output_file_id),
            "error": path(row.error_file_id),
        }
        self._descriptors: dict[str, int] = {}

    def __enter__(self) -> Self:
        for name, path in self._paths.items():
            try:
                self._descriptors[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)

    def body(self, line: Line) -> dict[str, Any] | None:
        """Give what a line asked."""
        try:
            body = orjson.loads(self._read("input", line.offset, line.length))["body"]
        except (orjson.JSONDecodeError, KeyError):
            return None
        return body if isinstance(body, dict) else None

    def answer(self, line: Line) -> ComparedAnswer | None:
        """Give what was answered; None where nothing was, yet."""
        if line.state == LineState.PENDING:
            return None
        name = "output" if line.state == LineState.COMPLETED else "error"
        result = read_result(self._read(name, line.answer_offset or 0, line.answer_length or 0))
        return None if result is None else _answer(result, line.seconds)

    def _read(self, name: str, offset: int, length: int) -> bytes:
        descriptor = self._descriptors.get(name)
        return b"" if descriptor is None else os.pread(descriptor, length, offset)


def _compared(
    some: Sequence[Line], others: Mapping[str, Line], sides: Sequence[_Answers], summary: _Summary
) -> list[ComparedLine]:
    return [_line(line, others.get(line.custom_id), sides, summary) for line in some]


def _line(line: Line, other: Line | None, sides: Sequence[_Answers], summary: _Summary) -> ComparedLine:
    asked = sides[0].body(line)
    first = sides[0].answer(line)
    second = sides[1].answer(other) if other is not None else None
    summary.sides[0].add(first)
    is_same_input = True
    if other is not None:
        is_same_input = _without_model(asked) == _without_model(sides[1].body(other))
        summary.common += 1
        summary.differing_inputs += not is_same_input
        both_answered = first is not None and second is not None and first.status_code == second.status_code
        if both_answered and first is not None and second is not None:
            summary.same_answers += first.status_code == 200 and first.text == second.text
    return ComparedLine(
        custom_id=line.custom_id,
        prompt=_prompt(asked or {}),
        is_same_input=is_same_input,
        first=first,
        second=second,
    )


async def _add_the_rest(
    batches: Batches, row: StoredBatch, side: _Answers, state: LineState, summary: _Summary
) -> None:
    """Sum up the second batch over all of its lines, those that the first has not among them."""
    number = 1
    while some := await batches.store.lines(row.key, first=number, limit=AT_A_TIME):
        of_state = [line for line in some if line.state == state]
        answers = await asyncio.to_thread(lambda lines=of_state: [side.answer(line) for line in lines])  # type: ignore[misc]  # a default in a lambda
        for answer in answers:
            summary.sides[1].add(answer)
        number = some[-1].number + 1


def _side(row: StoredBatch, found: _Sum) -> ComparedSide:
    answered = found.answered
    done = row.completed + row.failed
    return ComparedSide(
        batch=batch_shape(row),
        models=row.models,
        answered=answered,
        failed=found.failed,
        mean_characters=found.characters / answered if answered else None,
        mean_output_tokens=found.output_tokens / answered if answered else None,
        mean_seconds=found.seconds / found.timed if found.timed else None,
        lines_per_second=done / row.running_seconds if row.running_seconds else None,
        output_tokens=row.output_tokens,
        joules=row.joules,
        joules_per_line=row.joules / done if row.joules is not None and done else None,
    )


def _answer(result: Result, seconds: float | None) -> ComparedAnswer:
    response = result.response or {}
    failure = result.failure
    if failure is not None:
        return ComparedAnswer(
            status_code=failure.status_code or None, text=failure.message or failure.code, seconds=seconds
        )
    text = text_of(response.get("body"))
    return ComparedAnswer(
        status_code=200,
        text=text[:SHOWN_CHARACTERS],
        characters=len(text),
        input_tokens=result.tokens.input,
        output_tokens=result.tokens.output,
        seconds=seconds,
    )


def text_of(body: object) -> str:
    """Give what an answer says, whatever its endpoint."""
    if not isinstance(body, dict):
        return ""
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        message = choices[0].get("message")
        if isinstance(message, dict):
            called = message.get("tool_calls")
            return str(message.get("content") or "") or (orjson.dumps(called).decode() if called else "")
        return str(choices[0].get("text") or "")
    output = body.get("output")
    if isinstance(output, list):
        return "".join(_output_text(item) for item in output)
    results = body.get("results") or body.get("data")
    return orjson.dumps(results).decode()[:PROMPT_CHARACTERS] if results else ""


def _output_text(item: object) -> str:
    content = item.get("content") if isinstance(item, dict) else None
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("text") or "") for part in parts if isinstance(part, dict))


def _prompt(body: Mapping[str, Any]) -> str:
    """Give the beginning of the last thing that was said."""
    messages = body.get("messages")
    said = messages[-1] if isinstance(messages, list) and messages else None
    for value in (
        said.get("content") if isinstance(said, dict) else None,
        body.get("prompt"),
        body.get("input"),
        body.get("query"),
    ):
        if isinstance(value, str):
            return value[:PROMPT_CHARACTERS]
        if value:
            return orjson.dumps(value).decode()[:PROMPT_CHARACTERS]
    return ""


def _without_model(body: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (body or {}).items() if name != "model"}
