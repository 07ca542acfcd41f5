"""The requests of a cell, written for one engine: the same profile for all, in each runtime's own words."""

from collections.abc import Mapping, Sequence
from typing import Any

from footplate_daemon.benchmarks.measuring import Request
from footplate_daemon.benchmarks.workloads import Prompt, Scale, long_messages
from footplate_daemon.bodies import dump
from footplate_daemon.catalog import Variant
from footplate_daemon.gateway.gateway import filled
from footplate_daemon.runtimes.base import Call, Runtime
from footplate_daemon.switching.leases import Lease
from footplate_daemon.wire_benchmarks import Translation

PATH = "/v1/chat/completions"
CALIBRATION_WORDS = (60, 240)
"""Two lengths of text, of which an engine says how many tokens they are."""
_NOT_SHOWN = frozenset({"messages", "model", "prompt", "stream", "stream_options"})


class Asker:
    """Writes requests for the engine of one lease."""

    def __init__(self, lease: Lease, runtime: Runtime, parameters: Mapping[str, Any]) -> None:
        """`parameters` are the benchmark's, over the profile of the variant."""
        self._lease = lease
        self._runtime = runtime
        self._parameters = parameters

    def write(self, prompts: Sequence[Prompt]) -> tuple[list[Request], Translation]:
        """Write requests; say what became of their parameters. Raise `Invalid` for what cannot be asked."""
        requests, translation = [], Translation()
        for prompt in prompts:
            body = _body(prompt, self._parameters, self._lease.variant)
            call = self._runtime.call(
                PATH, body, self._lease.variant.served_name, self._lease.context, self._lease.parameters
            )
            requests.append(Request(prompt, call.path, dump(call.body), call.translation))
            if prompt is prompts[0]:
                translation = _told(body, call)
        return requests, translation

    def for_calibration(self) -> list[Request]:
        """Write one request for each of the calibration's lengths."""
        prompts = [
            Prompt(
                0,
                long_messages(words, f"calibration/{words}", "0123456789"),
                "0123456789",
                {},
                {"max_tokens": 1},
            )
            for words in CALIBRATION_WORDS
        ]
        return self.write(prompts)[0]


def scale_of(prompt_tokens: Sequence[int | None]) -> Scale | None:
    """Give how many tokens words come to, from what the calibration's requests were said to hold."""
    first, second = prompt_tokens
    if first is None or second is None or second <= first:
        return None
    return Scale.through((CALIBRATION_WORDS[0], first), (CALIBRATION_WORDS[1], second))


def _body(prompt: Prompt, parameters: Mapping[str, Any], variant: Variant) -> Mapping[str, Any]:
    asked = {**variant.profile_body, **prompt.usual, **parameters, **prompt.fixed}
    if "max_completion_tokens" in parameters and "max_tokens" not in {**parameters, **prompt.fixed}:
        del asked["max_tokens"]
    stream = {"stream": True, "stream_options": {"include_usage": True}}
    body = dict(filled({**asked, "messages": list(prompt.messages), **stream}, variant))
    first, *others = body["messages"]
    if prompt.mark and first is not prompt.messages[0]:  # the profile's system message goes before it
        body["messages"] = [{**first, "content": f"[{prompt.mark}] {first['content']}"}, *others]
    return body


def _told(body: Mapping[str, Any], call: Call) -> Translation:
    translated = call.translated
    return Translation(
        asked=_shown(body),
        sent=_shown(call.body),
        renamed=dict(translated.renamed),
        clamped=dict(translated.clamped),
        ignored=tuple(name for name in translated.ignored if name not in _NOT_SHOWN),
    )


def _shown(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in _NOT_SHOWN}
