"""What a command is, and the places where keys are heard."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from textual.message import Message


class BackWanted(Message):
    """Leave the innermost thing: question, filter, switch, screen."""


class CopyWanted(Message):
    """Copy what is shown: the last answer, lines, both answers."""


class Place(StrEnum):
    """Where a command's keys are heard."""

    PROMPT = "Prompt"
    CHAT = "Chat"
    SWITCHER = "Models (^r)"
    FAILURE = "When a model did not start"
    HISTORY = "History (^o)"
    GAUGES = "Gauges (F4)"
    LOGS = "Logs (F5)"
    EXCHANGES = "Exchanges and queue (F6)"
    EXCHANGE = "One exchange"
    TURN = "One turn (F7)"
    SESSION = "Session (F8)"
    ATTACH = "Attach (F9)"
    BENCHMARKS = "Benchmarks (F3)"
    MATRIX = "A new benchmark"
    BENCHMARK = "One benchmark"
    RUNS = "Two benchmarks compared"
    ANSWERS = "Answers side by side"
    BATCHES = "Batches (F10)"
    BATCH = "One batch"
    BATCHES_COMPARED = "Two batches compared"
    PROGRAM = "Program"


@dataclass(frozen=True)
class Command:
    """One thing a user can ask for."""

    id: str
    """`group.action`, what a key map names."""
    keys: str
    """Textual's names, by comma; the first is the one shown."""
    shown: str
    """How the key reads in the footer."""
    word: str
    """One word, for the footer."""
    title: str
    """A few words, for palette and help."""
    explanation: str
    message: type[Message]
    place: Place
    priority: bool = False
    """Whether its keys come before those of the focused widget."""
    leads_elsewhere: bool = False
    """Whether it shows another screen: it is heard on every page."""
