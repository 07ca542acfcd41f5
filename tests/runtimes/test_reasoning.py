"""Reasoning reaches clients under both names, wherever the bytes were split."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footplate_daemon.runtimes.reasoning import ReasoningInBody, ReasoningInStream

STREAM = (
    b'data: {"choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{"reasoning":"Hm\xc3\xbc"}}]}\n\n'
    b": a comment\n\n"
    b'data: {"choices":[{"index":0,"delta":{"content":"say \\"reasoning\\""}}]}\n\n'
    b"data: [DONE]\n\n"
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=6))
def test_a_stream_is_the_same_wherever_it_was_split(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    translation = ReasoningInStream()

    pieces = [translation.feed(STREAM[a:b]) for a, b in itertools.pairwise(places)]
    text = b"".join([*pieces, translation.end()])

    events = text.split(b"\n\n")
    delta = json.loads(events[1].removeprefix(b"data: "))["choices"][0]["delta"]
    assert delta == {"reasoning": "Hmü", "reasoning_content": "Hmü"}
    assert [events[0], *events[2:3], *events[4:]] == [STREAM.split(b"\n\n")[n] for n in (0, 2, 4, 5)]


def test_events_without_reasoning_pass_through_untouched() -> None:
    data = b'data: {"choices": [{"delta": {"content": "x"}}]}\n\n'

    assert ReasoningInStream().feed(data) == data


def test_an_answer_in_one_piece_names_it_twice_too() -> None:
    translation = ReasoningInBody()
    body = b'{"choices":[{"message":{"reasoning_content":"Hm","content":"Yes"}}]}'

    assert translation.feed(body) == b""
    message = json.loads(translation.end())["choices"][0]["message"]

    assert message == {"reasoning_content": "Hm", "reasoning": "Hm", "content": "Yes"}


def test_what_is_no_json_stays_as_it_is() -> None:
    translation = ReasoningInBody()
    translation.feed(b'"reasoning but no json')

    assert translation.end() == b'"reasoning but no json'


def test_the_empty_lines_between_reasoning_and_answer_go() -> None:
    translation = ReasoningInStream()
    texts = [{"reasoning": "\n"}, {"reasoning": "Hm\n"}, {"content": "\n\n"}, {"content": "Yes\n\n"}]
    stream = [{"choices": [{"index": 0, "delta": text}]} for text in texts]

    out = b"".join(translation.feed(b"data: %b\n\n" % json.dumps(chunk).encode()) for chunk in stream)

    deltas = [json.loads(event[6:])["choices"][0]["delta"] for event in out.split(b"\n\n")[:-1]]
    assert "".join(delta.get("reasoning", "") for delta in deltas) == "Hm\n"
    assert "".join(delta.get("content", "") for delta in deltas) == "Yes\n\n"


def test_an_answer_cut_while_it_reasoned_carries_a_warning_for_that_choice_alone() -> None:
    translation = ReasoningInStream()
    cut = {"index": 0, "delta": {"reasoning": "Hm"}, "finish_reason": None}
    whole = {"index": 1, "delta": {"reasoning": "Hm", "content": "Yes"}, "finish_reason": "length"}
    end = {"index": 0, "delta": {}, "finish_reason": "length"}

    events = [
        translation.feed(b"data: %b\n\n" % json.dumps({"choices": [each]}).encode())
        for each in (cut, whole, end)
    ]

    assert ["x_footplate_warning" in event.decode() for event in events] == [False, False, True]


def test_a_mark_that_an_engine_let_through_is_taken_off() -> None:
    event = b'data: {"choices":[{"index":0,"delta":{"reasoning":"<think>\\nHm"}}]}\n\n'

    delta = json.loads(ReasoningInStream().feed(event).removeprefix(b"data: "))["choices"][0]["delta"]

    assert delta["reasoning"] == "Hm"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_stream_with_other_line_ends_is_passed_on_as_it_comes(size: int) -> None:
    said = b'data: {"choices":[]}\r\n\r\ndata: {"n":1}\r\n\r\n'
    stream = ReasoningInStream()

    out = [stream.feed(said[at : at + size]) for at in range(0, len(said), size)]

    assert b"".join(out) == said.replace(b"\r\n", b"\n")
