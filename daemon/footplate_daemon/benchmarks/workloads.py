"""What engines are asked: prompts made from a seed, the same everywhere and always. Pure.

With `avoid`, every prompt begins with a mark of its own, so that no prefix cache helps; with `measure`, all
prompts of a workload begin with one text. A number below 0 is a warm-up's.
"""

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from footplate_daemon.benchmarks.files import Line
from footplate_daemon.benchmarks.words import SUBJECTS, WORDS
from footplate_daemon.wire_benchmarks import WorkloadKind

CONTEXT_UNKNOWN = 2048
"""Tokens that a long prompt is made for where nobody says how long a context is."""
SHAREDWORDS = 300
"""Of the text that prompts have in common where the prefix cache is to be measured."""
USUAL_ANSWER: Mapping[WorkloadKind, int] = {
    WorkloadKind.SHORT: 64,
    WorkloadKind.CHAT: 256,
    WorkloadKind.LONG_PROMPT: 64,
    WorkloadKind.JSON_ROUTER: 200,
    WorkloadKind.CONCURRENCY: 64,
    WorkloadKind.REPEAT: 64,
    WorkloadKind.FILE: 256,
}
"""Tokens of the longest answer."""
USUAL_LEVELS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Scale:
    """How many tokens words come to, as an engine has counted them."""

    per_word: float = 1.5
    beside: float = 60.0
    """What the chat template, the mark and the question take."""

    @classmethod
    def through(cls, first: tuple[int, int], second: tuple[int, int]) -> "Scale":
        """Draw the line through two pairs of words and tokens."""
        words = second[0] - first[0]
        per_word = max(0.1, (second[1] - first[1]) / words) if words else cls.per_word
        return cls(per_word, max(0.0, first[1] - per_word * first[0]))

    def words(self, tokens: int) -> int:
        """Give how many words fill so many tokens, and no more."""
        return max(1, int((tokens - self.beside) / self.per_word))


@dataclass(frozen=True)
class Work:
    """A workload with everything decided."""

    kind: WorkloadKind
    name: str
    requests: int
    seed: int
    answer_tokens: int | None = None
    """Longest answer, where the workload says so."""
    prompt_tokens: int | None = None
    cache: Literal["avoid", "measure"] = "avoid"
    lines: tuple[Line, ...] = ()

    @property
    def needs_scale(self) -> bool:
        """Whether its prompts are to have a certain length."""
        return self.kind is WorkloadKind.LONG_PROMPT or self.prompt_tokens is not None


@dataclass(frozen=True)
class Prompt:
    """One request, before a profile is put under it."""

    number: int
    messages: tuple[dict[str, Any], ...]
    mark: str = ""
    """What it begins with and no other does; empty where they are to begin alike."""
    usual: Mapping[str, Any] = field(default_factory=dict)
    """Parameters that give way to those of the benchmark."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Parameters that do not."""

    @property
    def schema(self) -> Any:
        """The JSON schema that the answer is to have; True for any JSON object; None for any text."""
        wanted = self.fixed.get("response_format")
        if not isinstance(wanted, Mapping):
            return None
        if wanted.get("type") == "json_schema":
            return (wanted.get("json_schema") or {}).get("schema", True)
        return {"type": "object"} if wanted.get("type") == "json_object" else None


def prompts(work: Work, numbers: Sequence[int], round_name: str, scale: Scale | None = None) -> list[Prompt]:
    """Make the prompts of one cell; `round_name` tells it from other cells of the same workload."""
    return [_prompt(work, number, round_name, scale or Scale()) for number in numbers]


def long_messages(words: int, seed: str, mark: str = "") -> tuple[dict[str, Any], ...]:
    """Give a message of so many words and a question."""
    notes = _sentences(random.Random(seed), words)  # noqa: S311 - it is to be the same each time
    begin = f"[{mark}] " if mark else ""
    text = f"{begin}Read these notes.\n\n{notes}\n\nSay in one sentence what they are about."
    return ({"role": "user", "content": text},)


def _prompt(work: Work, number: int, round_name: str, scale: Scale) -> Prompt:
    same_each_time = work.kind is WorkloadKind.REPEAT
    place = f"{work.seed}/{work.name}/" + ("" if same_each_time else f"{round_name}/{number}")
    mark = "" if work.cache == "measure" or same_each_time else _mark(place)
    rng = random.Random(place)  # noqa: S311
    usual: dict[str, Any] = {"max_tokens": USUAL_ANSWER[work.kind]}
    fixed: dict[str, Any] = {}
    match work.kind:
        case WorkloadKind.LONG_PROMPT:
            messages = long_messages(scale.words(work.prompt_tokens or CONTEXT_UNKNOWN), place)
        case WorkloadKind.CHAT:
            messages = _conversation(rng)
        case WorkloadKind.JSON_ROUTER:
            messages = ({"role": "user", "content": _to_route(rng)},)
            fixed["response_format"] = ROUTER_FORMAT
        case WorkloadKind.FILE:
            line = work.lines[number % len(work.lines)]
            messages = line.messages
            usual |= {} if line.max_tokens is None else {"max_tokens": line.max_tokens}
            fixed |= {} if line.response_format is None else {"response_format": line.response_format}
        case WorkloadKind.REPEAT:
            messages = ({"role": "user", "content": _question(rng)},)
            fixed |= {"temperature": 0, "seed": work.seed}
        case _:
            messages = ({"role": "user", "content": _question(rng)},)
    if work.prompt_tokens is not None and work.kind not in _OF_THEIR_OWN_LENGTH:
        messages = _lengthened(messages, scale.words(work.prompt_tokens), rng)
    if work.cache == "measure" and work.kind is not WorkloadKind.FILE and not same_each_time:
        messages = _begun_alike(messages, work)
    if work.answer_tokens is not None:
        fixed["max_tokens"] = work.answer_tokens
    return Prompt(number, _marked(messages, mark), mark, usual, fixed)


_OF_THEIR_OWN_LENGTH = frozenset({WorkloadKind.LONG_PROMPT, WorkloadKind.FILE})


def _mark(place: str) -> str:
    return hashlib.sha256(place.encode()).hexdigest()[:10]


def _marked(messages: Sequence[dict[str, Any]], mark: str) -> tuple[dict[str, Any], ...]:
    """Begin the first text with a mark."""
    if not mark:
        return tuple(messages)
    first, *others = messages
    content = first.get("content")
    if isinstance(content, str):
        return ({**first, "content": f"[{mark}] {content}"}, *others)
    parts = content if isinstance(content, list) else []
    return ({**first, "content": [{"type": "text", "text": f"[{mark}]"}, *parts]}, *others)


def _begun_alike(messages: Sequence[dict[str, Any]], work: Work) -> tuple[dict[str, Any], ...]:
    """Put one long text before the first message: the same for all prompts of the workload."""
    shared = random.Random(f"{work.seed}/{work.name}/shared")  # noqa: S311
    first, *others = messages
    return ({**first, "content": f"{_sentences(shared, SHAREDWORDS)}\n\n{first['content']}"}, *others)


def _lengthened(
    messages: Sequence[dict[str, Any]], words: int, rng: random.Random
) -> tuple[dict[str, Any], ...]:
    """Put words before the question until the prompt is as long as it is to be."""
    *others, last = messages
    there = sum(len(str(message["content"]).split()) for message in messages)
    more = _sentences(rng, max(0, words - there))
    return (*others, {**last, "content": f"{more}\n\n{last['content']}".strip()})


def _sentences(rng: random.Random, words: int) -> str:
    """Give so many words, in sentences of about twelve."""
    chosen = rng.choices(WORDS, k=words)
    rows = [chosen[start : start + 12] for start in range(0, words, 12)]
    return " ".join(f"{' '.join(row).capitalize()}." for row in rows)


def _question(rng: random.Random) -> str:
    return rng.choice(_QUESTIONS).format(rng.choice(SUBJECTS), rng.choice(SUBJECTS))


def _conversation(rng: random.Random) -> tuple[dict[str, Any], ...]:
    """Give two turns that were, and a third question."""
    subject, other = rng.sample(SUBJECTS, 2)
    return (
        {"role": "user", "content": f"I want to understand {subject}. Where do I begin?"},
        {"role": "assistant", "content": f"Begin with what {subject} is for. {_sentences(rng, 48)}"},
        {"role": "user", "content": f"And how does that differ from {other}?"},
        {
            "role": "assistant",
            "content": f"{other.capitalize()} goes about it otherwise. {_sentences(rng, 60)}",
        },
        {
            "role": "user",
            "content": f"Compare {subject} with {other} in a paragraph, and say which you would choose.",
        },
    )


def _to_route(rng: random.Random) -> str:
    return (
        "Sort this request. Answer with a JSON object only: category (one of "
        f"{', '.join(_CATEGORIES)}), urgency (1 to 5), needs_human (true or false).\n\n"
        f"Request: {rng.choice(_REQUESTS).format(rng.choice(_THINGS), rng.randint(2, 90))}"
    )


_CATEGORIES = ("billing", "technical", "delivery", "account", "other")
ROUTER_FORMAT: Mapping[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "route",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {
                "category": {"type": "string", "enum": list(_CATEGORIES)},
                "urgency": {"type": "integer", "minimum": 1, "maximum": 5},
                "needs_human": {"type": "boolean"},
            },
            "required": ["category", "urgency", "needs_human"],
            "additionalProperties": False,
        },
    },
}
_REQUESTS = (
    "I was charged twice for the {} that I ordered {} days ago.",
    "The {} does not switch on any more, and I need it in {} minutes.",
    "Where is my {}? It should have come {} hours ago.",
    "Please change the address of my account; the {} goes to number {} from now on.",
    "Do you still sell the {} for {} euros?",
    "Your {} has burnt my table. I want to speak to somebody. I have waited {} minutes.",
)
_THINGS = (
    "kettle",
    "router",
    "bicycle lamp",
    "printer",
    "desk",
    "radio",
    "heater",
    "headset",
    "drill",
    "clock",
)
_QUESTIONS = (
    "Explain in two or three sentences how {0} works.",
    "What is {0} good for? Answer briefly.",
    "Name the most important difference between {0} and {1}.",
    "Give one example of {0} from everyday life.",
    "Why would somebody prefer {0} to {1}?",
    "What should one know about {0} before using it?",
)
