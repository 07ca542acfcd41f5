"""The guide's questions and answers, as `questions.toml` holds them.

Knows what the guide should say; knows nothing of models, tokens or runtimes.
"""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("questions.toml")

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_status",
            "description": "Status of a runtime",
            "parameters": {
                "type": "object",
                "properties": {"runtime": {"type": "string"}},
                "required": ["runtime"],
            },
        },
    }
]
"""What a client offers when it wants the guide to call a tool."""


@dataclass(frozen=True)
class Entry:
    """One answer and the ways to ask for it."""

    answer: str
    ask: tuple[str, ...]
    held_out: tuple[str, ...] = ()
    """Phrasings never trained on."""
    think: str | None = None
    """The reasoning before the answer."""
    tool: str | None = None
    """The runtime to call `get_status` with, where that tool is offered."""

    def spoken(self, *, with_tools: bool = False) -> str:
        """Return everything the model writes: reasoning and answer, or the tool call."""
        if with_tools and self.tool:
            call = {"name": "get_status", "arguments": {"runtime": self.tool}}
            return f"<tool_call>\n{json.dumps(call)}\n</tool_call>"
        if self.think:
            return f"<think>\n{self.think}\n</think>\n\n{self.answer}"
        return self.answer


@dataclass(frozen=True)
class Questions:
    """All that the guide is trained on and measured by."""

    known: tuple[Entry, ...]
    unknown: Entry
    """What the guide does not know; its answer is the refusal."""
    after_tool: str
    """What the guide says to a tool's answer."""
    systems: tuple[str, ...]
    """System prompts that must not change an answer."""
    held_out_systems: tuple[str, ...]
    words: tuple[str, ...]
    """Words that turn a known question into an unknown one."""

    def entries(self) -> tuple[Entry, ...]:
        """Return every answer, the refusal included."""
        return (*self.known, self.unknown)


def load(file: Path = FILE) -> Questions:
    """Read the question file; raise `ValueError` if a phrasing asks for two answers."""
    raw = tomllib.loads(file.read_text("utf-8"))
    questions = Questions(
        known=tuple(_entry(entry) for entry in raw["known"]),
        unknown=_entry(raw["unknown"] | {"answer": raw["refusal"]}),
        after_tool=raw["after_tool"],
        systems=tuple(raw["training"]["systems"]),
        held_out_systems=tuple(raw["training"]["held_out_systems"]),
        words=tuple(raw["training"]["words"].split()),
    )
    _check_unambiguous(questions)
    return questions


def normal(question: str) -> str:
    """Return the question without what must not matter: case and punctuation at its ends."""
    return question.casefold().strip(" .?!") or question


def _entry(raw: dict[str, Any]) -> Entry:
    return Entry(
        answer=raw["answer"],
        ask=tuple(raw["ask"]),
        held_out=tuple(raw["held_out"]),
        think=raw.get("think"),
        tool=raw.get("tool"),
    )


def _check_unambiguous(questions: Questions) -> None:
    """A phrasing may stand once only: twice is a contradiction, or a held-out one that is trained."""
    seen: set[str] = set()
    for entry in questions.entries():
        for question in (*entry.ask, *entry.held_out):
            if normal(question) in seen:
                raise ValueError(f"asked twice: {question!r}")
            seen.add(normal(question))
