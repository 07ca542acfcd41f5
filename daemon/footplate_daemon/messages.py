"""What a model is sent for a turn: what was said before, as much as fits, and the question.

Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from footplate_daemon.attachments import File, content, length
from footplate_daemon.branches import merged
from footplate_daemon.wire import Turn

Message = dict[str, Any]
NO_FILES: Mapping[int, Sequence[File]] = {}


@dataclass(frozen=True)
class Reader:
    """What matters of the model that is asked."""

    characters: int
    """How much it is given to read, at most; the question goes in any case."""
    sees_images: bool = False
    goes_on: bool = False
    """Whether it goes on with half an answer that it is given, without being asked in words."""


def messages(
    path: Sequence[Turn],
    reader: Reader,
    *,
    system: str | None = None,
    files: Mapping[int, Sequence[File]] = NO_FILES,
) -> list[Message]:
    """Give the messages for the last turn of a path; `files` are those of the turns that fit, by number."""
    *former, asked = fitting(path, reader.characters)

    def question(turn: Turn) -> Message:
        parts = content(turn.prompt, files.get(turn.number, ()), with_images=reader.sees_images)
        return {"role": "user", "content": parts}

    said = [question(asked)]
    if asked.answer:
        said.append({"role": "assistant", "content": asked.answer})
        if not reader.goes_on:
            said.append({"role": "user", "content": path[-1].prompt})
    for turn in reversed(former):
        if turn.answer:
            said[:0] = [question(turn), {"role": "assistant", "content": turn.answer}]
    return [{"role": "system", "content": system}, *said] if system else said


FORMER_FILES_BYTES = 64 * 1024 * 1024
"""Of former turns: they are sent anew with each question."""


def fitting(path: Sequence[Turn], characters: int) -> list[Turn]:
    """Give the last question of a path and, before it, as many of the newest as fit with it; each whole."""
    *former, asked = merged(path)
    room, bytes_left = characters - _length(asked), FORMER_FILES_BYTES
    fitted = [asked]
    for turn in reversed(former):
        room -= _length(turn)
        bytes_left -= sum(each.byte_count for each in turn.attachments)
        if room < 0 or bytes_left < 0:
            break
        fitted.insert(0, turn)
    return fitted


def _length(turn: Turn) -> int:
    return len(turn.prompt) + len(turn.answer) + sum(map(length, turn.attachments))
