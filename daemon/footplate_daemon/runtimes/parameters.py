"""What a runtime makes of OpenAI's generation parameters, from its table of names."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from footplate_daemon.errors import Invalid
from footplate_daemon.runtimes.base import Call, Translated
from footplate_daemon.runtimes.reasoning import ReasoningInBody, ReasoningInStream, is_off


@dataclass(frozen=True)
class Names:
    """Which parameters a runtime heeds, and under which names."""

    heeded: frozenset[str]
    renamed: Mapping[str, str] = field(default_factory=dict)
    """What others call it → what this runtime calls it."""


def check(body: Mapping[str, Any]) -> None:
    """Raise `Invalid` for a parameter of a wrong type, the same for every runtime; a null says nothing.

    Left to themselves one engine refuses it, another reads a number off a text, a third drops it.
    """
    for name, value in body.items():
        is_right, words = TYPES.get(name, _ANYTHING)
        if value is not None and not is_right(value):
            raise Invalid(
                f"`{name}` must be {words}, not {_shown(value)}.",
                param=name,
                hint=f"Send `{name}` as {words}, or leave it out.",
            )


def translate(names: Names, body: Mapping[str, Any]) -> Translated:
    """Rename what the runtime calls otherwise; name what it will not heed, and pass it on as it is.

    Where the body has a parameter under both names, the runtime's own wins.
    """
    translated: dict[str, Any] = {}
    renamed: dict[str, str] = {}
    ignored: list[str] = []
    for name, value in body.items():
        own_name = names.renamed.get(name)
        if own_name is None:
            translated[name] = value
            if name not in names.heeded and not says_nothing(name, value):
                ignored.append(name)
        elif own_name in body:
            ignored.append(name)
        else:
            translated[own_name] = value
            renamed[name] = own_name
    return _with_reasoning_off(Translated(translated, renamed=renamed, ignored=tuple(ignored)))


def says_nothing(name: str, value: Any) -> bool:
    """Whether to leave a parameter out comes to the same."""
    return value is None or (name, value) in _USUAL


class SpeaksOpenAI:
    """What runtimes share that speak OpenAI's API themselves: requests go on, their parameters translated."""

    also_answers: Collection[str] = frozenset({"/v1/responses", "/v1/messages", "/v1/messages/count_tokens"})

    def translate(self, body: Mapping[str, Any], context: int | None = None) -> Translated:  # noqa: ARG002
        """Pass everything on as it is; most runtimes know better."""
        return Translated(dict(body))

    def probe(
        self,
        served_name: str,
        context: int | None = None,  # noqa: ARG002
        parameters: Mapping[str, Any] | None = None,  # noqa: ARG002
    ) -> tuple[str, Mapping[str, Any]]:
        """Ask for one token of chat."""
        message = {"role": "user", "content": "Hi"}
        return "/v1/chat/completions", {"model": served_name, "max_tokens": 1, "messages": [message]}

    def call(
        self,
        path: str,
        body: Mapping[str, Any],
        served_name: str,
        context: int | None = None,
        parameters: Mapping[str, Any] | None = None,  # noqa: ARG002
    ) -> Call:
        """Pass an OpenAI request on; the answer is in OpenAI's form, but for the names of reasoning."""
        if path in self.also_answers:
            return Call(path, {**body, "model": served_name}, Translated(body))
        translated = self.translate(body, context)
        sent = {**translated.body, "model": served_name}
        kind = ReasoningInStream if sent.get("stream") is True else ReasoningInBody
        return Call(path, sent, translated, kind(is_off=is_off(sent)))


def _with_reasoning_off(translated: Translated) -> Translated:
    """Tell the chat template not to think: the word `none` for an effort is one that many engines refuse."""
    if translated.body.get("reasoning_effort") != "none":
        return translated
    body = {name: value for name, value in translated.body.items() if name != "reasoning_effort"}
    if "prompt" in body:  # a text goes on as it is: no template writes it
        return translated._replace(body=body, ignored=(*translated.ignored, "reasoning_effort"))
    kwargs = body.get("chat_template_kwargs")
    own = kwargs if isinstance(kwargs, Mapping) else {}
    body["chat_template_kwargs"] = {"enable_thinking": False, **own}
    renamed = {**translated.renamed, "reasoning_effort": "chat_template_kwargs.enable_thinking"}
    return translated._replace(body=body, renamed=renamed)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


_USUAL: tuple[tuple[str, Any], ...] = (
    ("best_of", 1),
    ("echo", False),
    ("frequency_penalty", 0),
    ("logit_bias", {}),
    ("logprobs", False),
    ("n", 1),
    ("parallel_tool_calls", True),
    ("presence_penalty", 0),
    ("response_format", {"type": "text"}),
    ("stop", []),
    ("store", False),
    ("tool_choice", "auto"),
    ("tools", []),
)
"""What says no more than what happens anyway."""

OPENAI = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "model",
        "n",
        "parallel_tool_calls",
        "presence_penalty",
        "prompt",
        "response_format",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
    }
)
"""What both vLLM and llama.cpp heed of OpenAI's own."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_whole(value) and value >= 1


def _is_boolean(value: Any) -> bool:
    return isinstance(value, bool)


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping)


def _are_texts(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(each, str) for each in value)
    )


def _are_tools(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(tool, Mapping) and isinstance(tool.get("function", {}), Mapping) for tool in value
    )


def _is_typed(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("type"), str)


_ANYTHING: tuple[Callable[[Any], bool], str] = (lambda _: True, "anything")

TYPES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(
        ("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty"),
        (_is_number, "a number"),
    ),
    **dict.fromkeys(("seed", "top_k", "top_logprobs", "max_tokens"), (_is_whole, "a whole number")),
    **dict.fromkeys(("max_completion_tokens", "n"), (_is_count, "a whole number of at least 1")),
    **dict.fromkeys(("stream", "parallel_tool_calls", "ignore_eos"), (_is_boolean, "true or false")),
    "stop": (_are_texts, "a string or a list of strings"),
    **dict.fromkeys(("stream_options", "logit_bias", "chat_template_kwargs"), (_is_object, "an object")),
    "reasoning_effort": (lambda value: isinstance(value, str), "a string like low or none"),
    "response_format": (_is_typed, "an object with a type"),
    "tools": (_are_tools, "a list of objects with a function"),
    "tool_choice": (lambda value: isinstance(value, str | Mapping), "a string or an object"),
}
"""A parameter → whether a value is of its type, and the words for that type."""
