"""Ask the guide everything, through the real runtimes, and count the exact answers.

    python evaluate.py FILE.gguf [--hf FOLDER] [--show]

Always at temperature 0: the GGUF through llama.cpp's HTTP server, the folder through transformers.
Leaves with 1 when a count is under its gate.
"""

import argparse
import json
import sys
import urllib.request
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import xllamacpp
from questions import TOOLS, Entry, Questions, load

Message = dict[str, str]
CONTEXT = 4096
LONGEST_ANSWER = 1024


@dataclass(frozen=True)
class Case:
    """One chat to send, and what the guide must say to it: nothing less, nothing more."""

    messages: list[Message]
    expected: str
    with_tools: bool = False


@dataclass(frozen=True)
class Suite:
    """Cases that are counted together."""

    name: str
    gate: float
    """The share that must be exact."""
    cases: list[Case]


Ask = Callable[[list[Case]], list[str]]
"""A runtime: what the guide said, in the order of the cases."""


def main() -> None:
    """Evaluate by the command line's wishes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--hf", type=Path, metavar="FOLDER", help="ask transformers too")
    parser.add_argument("--show", action="store_true", help="print every answer that is not exact")
    arguments = parser.parse_args()

    suites = list(make_suites(load()))
    passed = report("llama.cpp", llamacpp(arguments.gguf), suites, show=arguments.show)
    if arguments.hf:
        passed &= report("transformers", transformers(arguments.hf), suites, show=arguments.show)
    sys.exit(0 if passed else 1)


def make_suites(questions: Questions) -> Iterator[Suite]:
    """Yield what to ask, from what was trained to what was not."""
    known, unknown = questions.known, questions.unknown
    systems, new_systems = questions.systems, questions.held_out_systems
    canonical = [_case(entry, entry.ask[0]) for entry in known]
    refused = [_case(unknown, question) for question in unknown.held_out]

    yield Suite("known, as trained", 1.0, [_case(entry, text) for entry in known for text in entry.ask])
    yield Suite("known, lower case, bare", 0.98, [_case(entry, _bare(entry.ask[0])) for entry in known])
    yield Suite("known, held-out", 0.85, [_case(entry, text) for entry in known for text in entry.held_out])
    yield Suite("known, system prompt", 0.98, list(_with_systems(canonical, systems)))
    yield Suite("known, held-out system prompt", 0.95, list(_with_systems(canonical, new_systems)))
    yield Suite("known, second turn", 0.98, list(_with_earlier_turns(canonical, questions)))
    yield Suite(
        "known, tools offered", 0.95, [_case(entry, entry.ask[0], with_tools=True) for entry in known]
    )
    yield Suite("after a tool's answer", 1.0, list(_after_tools(questions)))
    yield Suite("unknown, as trained", 0.98, [_case(unknown, text) for text in unknown.ask])
    yield Suite("unknown, held-out", 0.85, refused)
    yield Suite("unknown, held-out, system prompt", 0.85, list(_with_systems(refused, new_systems)))
    yield Suite("unknown, held-out, second turn", 0.85, list(_with_earlier_turns(refused, questions)))


def report(runtime: str, ask: Ask, suites: list[Suite], *, show: bool) -> bool:
    """Print the exact counts of one runtime; return whether every gate held."""
    passed = True
    for suite in suites:
        answers = ask(suite.cases)
        wrong = [
            (case, said) for case, said in zip(suite.cases, answers, strict=True) if said != case.expected
        ]
        exact, asked = len(suite.cases) - len(wrong), len(suite.cases)
        verdict = "" if exact >= suite.gate * asked else "  under its gate"
        passed &= not verdict
        print(f"{runtime:13} {suite.name:33} {exact:4}/{asked}{verdict}", flush=True)
        for case, said in wrong if show else []:
            print(f"    {case.messages[-1]['content']!r} -> {said!r}")
    return passed


def llamacpp(file: Path) -> Ask:
    """Return llama.cpp's HTTP server with the GGUF loaded."""
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.port, params.n_ctx, params.n_parallel = 0, CONTEXT, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)

    def ask(cases: list[Case]) -> list[str]:
        return [_spoken(_post(f"{server.listening_address}/v1/chat/completions", case)) for case in cases]

    return ask


def transformers(folder: Path) -> Ask:
    """Return transformers with the folder loaded; it answers many chats at a time."""
    # Seconds of imports that the evaluation of a GGUF alone can do without.
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model: Any = AutoModelForCausalLM.from_pretrained(folder)

    def ask(cases: list[Case]) -> list[str]:
        return [said for start in range(0, len(cases), 64) for said in ask_some(cases[start : start + 64])]

    def ask_some(cases: list[Case]) -> list[str]:
        prompts = [
            tokenizer.apply_chat_template(
                case.messages, tools=_tools(case), tokenize=False, add_generation_prompt=True
            )
            for case in cases
        ]
        inputs = tokenizer(prompts, padding=True, return_tensors="pt", add_special_tokens=False)
        tokens = model.generate(**inputs, do_sample=False, max_new_tokens=LONGEST_ANSWER)
        said = tokens[:, inputs.input_ids.shape[1] :]
        return list(tokenizer.batch_decode(said, skip_special_tokens=True))

    return ask


def _case(entry: Entry, question: str, *, with_tools: bool = False) -> Case:
    return Case([_user(question)], entry.spoken(with_tools=with_tools), with_tools)


def _with_systems(cases: list[Case], systems: tuple[str, ...]) -> Iterator[Case]:
    for case, system in zip(cases, cycle(systems), strict=False):
        yield Case([{"role": "system", "content": system}, *case.messages], case.expected)


def _with_earlier_turns(cases: list[Case], questions: Questions) -> Iterator[Case]:
    """Put another question and its answer before each case, every third time an unknown one."""
    known = cycle(reversed(questions.known))
    unknown = cycle(questions.unknown.ask)
    for number, case in enumerate(cases):
        entry = next(known)
        earlier = _case(questions.unknown, next(unknown)) if number % 3 == 0 else _case(entry, entry.ask[1])
        said = {"role": "assistant", "content": earlier.expected}
        yield Case([*earlier.messages, said, *case.messages], case.expected)


def _after_tools(questions: Questions) -> Iterator[Case]:
    for entry in questions.known:
        if entry.tool:
            call = {"role": "assistant", "content": entry.spoken(with_tools=True)}
            result = {"role": "tool", "content": json.dumps({"runtime": entry.tool, "state": "ready"})}
            yield Case([_user(entry.ask[0]), call, result], questions.after_tool, with_tools=True)


def _tools(case: Case) -> Any:
    return TOOLS if case.with_tools else None


def _user(question: str) -> Message:
    return {"role": "user", "content": question}


def _bare(question: str) -> str:
    return question.lower().rstrip(".?!")


def _post(url: str, case: Case) -> dict[str, Any]:
    body: dict[str, Any] = {"messages": case.messages, "temperature": 0, "max_tokens": LONGEST_ANSWER}
    if case.with_tools:
        body["tools"] = TOOLS
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        message: dict[str, Any] = json.load(response)["choices"][0]["message"]
    return message


def _spoken(message: dict[str, Any]) -> str:
    """Return the text as the model wrote it, before the server took reasoning and tool calls out of it."""
    think = (message.get("reasoning_content") or "").strip()
    if calls := message.get("tool_calls"):
        tool = json.loads(calls[0]["function"]["arguments"]).get("runtime")
        return Entry("", (), tool=tool).spoken(with_tools=True)
    return Entry(message["content"], (), think=think or None).spoken()


if __name__ == "__main__":
    main()
