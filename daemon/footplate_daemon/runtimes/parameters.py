"""What a runtime makes of OpenAI's generation parameters, from its table of names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from footplate_daemon.runtimes.base import Call, Translated
from footplate_daemon.runtimes.reasoning import ReasoningInBody, ReasoningInStream


@dataclass(frozen=True)
class Names:
    """Which parameters a runtime heeds, and under which names."""

    heeded: frozenset[str]
    renamed: Mapping[str, str] = field(default_factory=dict)
    """What others call it → what this runtime calls it."""


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
            if name not in names.heeded:
                ignored.append(name)
        elif own_name in body:
            ignored.append(name)
        else:
            translated[own_name] = value
            renamed[name] = own_name
    return Translated(translated, renamed=renamed, ignored=tuple(ignored))


def openai_probe(served_name: str) -> tuple[str, dict[str, Any]]:
    """Give the smallest chat request of OpenAI's API."""
    message = {"role": "user", "content": "Hi"}
    return "/v1/chat/completions", {"model": served_name, "max_tokens": 1, "messages": [message]}


def openai_call(path: str, translated: Translated, served_name: str) -> Call:
    """Give the request for a runtime that speaks OpenAI's API itself."""
    body = {**translated.body, "model": served_name}
    streams = body.get("stream") is True
    return Call(path, body, translated, ReasoningInStream() if streams else ReasoningInBody())


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
