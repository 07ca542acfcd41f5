"""Parameters are checked the same for every runtime, and reasoning is switched off in its own words."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footplate_daemon.errors import Invalid
from footplate_daemon.runtimes.base import Runtime
from footplate_daemon.runtimes.llamacpp import LlamaCpp
from footplate_daemon.runtimes.parameters import TYPES, check
from footplate_daemon.runtimes.reasoning import ReasoningInBody, ReasoningInStream
from footplate_daemon.runtimes.transformers import Transformers
from footplate_daemon.runtimes.vllm import Vllm

SPEAK_OPENAI: list[Runtime] = [LlamaCpp(environment={}), Vllm(environment={}), Transformers(environment={})]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*TYPES, "unknown"]), ANYTHING))
def test_whatever_is_sent_it_is_taken_or_refused_by_name(body: dict[str, Any]) -> None:
    try:
        check(body)
    except Invalid as refusal:
        name, message, hint = refusal.param, refusal.message, refusal.hint
    else:
        return

    assert name in body
    assert name in message
    assert hint


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.5", True, [0.5]])
def test_a_temperature_is_a_number(value: object) -> None:
    with pytest.raises(Invalid, match="`temperature` must be a number"):
        check({"temperature": value})


@pytest.mark.parametrize("runtime", SPEAK_OPENAI, ids=lambda runtime: runtime.name)
def test_no_effort_to_reason_is_told_to_the_template(runtime: Runtime) -> None:
    translated = runtime.translate({"reasoning_effort": "none", "chat_template_kwargs": {"a": 1}})

    assert translated.body == {"chat_template_kwargs": {"enable_thinking": False, "a": 1}}
    assert translated.renamed == {"reasoning_effort": "chat_template_kwargs.enable_thinking"}
    assert translated.ignored == ()


@pytest.mark.parametrize("runtime", SPEAK_OPENAI, ids=lambda runtime: runtime.name)
def test_a_text_has_no_template_to_be_told(runtime: Runtime) -> None:
    translated = runtime.translate({"prompt": "x", "reasoning_effort": "none"})

    assert translated.body == {"prompt": "x"}
    assert translated.ignored == ("reasoning_effort",)


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("runtime", SPEAK_OPENAI, ids=lambda runtime: runtime.name)
def test_an_answer_that_reasons_all_the_same_says_so(runtime: Runtime, streams: bool) -> None:
    body = {"messages": [], "stream": streams, "reasoning_effort": "none"}
    translation = runtime.call("/v1/chat/completions", body, "m").translation
    part = "delta" if streams else "message"
    said = f'{{"choices":[{{"{part}":{{"reasoning":"Hm","content":"Yes"}},"finish_reason":"stop"}}]}}'

    assert isinstance(translation, ReasoningInStream if streams else ReasoningInBody)
    out = translation.feed(f"data: {said}\n\n".encode() if streams else said.encode()) + translation.end()

    assert b"this model cannot switch it off" in out


def test_vllm_is_not_asked_for_more_heat_than_it_takes() -> None:
    translated = Vllm(environment={}).translate({"temperature": 3})

    assert translated.body == {"temperature": 2}
    assert translated.clamped == {"temperature": "3 → 2, the most that vLLM takes"}
