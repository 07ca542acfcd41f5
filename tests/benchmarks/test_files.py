import json

import pytest

from footplate_daemon.benchmarks.files import parse
from footplate_daemon.errors import Invalid

QUESTION = {"role": "user", "content": "Why?"}


@pytest.mark.parametrize(
    "entry",
    [
        {"prompt": "Why?"},
        {"messages": [QUESTION]},
        {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [QUESTION]}},
        {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]},
    ],
)
def test_a_line_may_be_a_prompt_messages_a_batch_line_or_sharegpt(entry: object) -> None:
    (line,) = parse([json.dumps(entry)], "lines")

    assert line.messages == (QUESTION,)


def test_a_sharegpt_file_is_one_list_and_talks_without_an_answer_are_left_out() -> None:
    talk = {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]}
    half = {"conversations": [{"from": "human", "value": "Half"}]}

    lines = parse([json.dumps([half, talk, talk])], "lines")

    assert [line.messages for line in lines] == [(QUESTION,), (QUESTION,)]


def test_what_a_line_says_of_its_answer_is_kept() -> None:
    wanted = {"type": "json_object"}

    (line,) = parse([json.dumps({"prompt": "Why?", "max_tokens": 7, "response_format": wanted})], "lines")

    assert (line.max_tokens, line.response_format) == (7, wanted)


def test_empty_lines_are_passed_over_but_counted() -> None:
    with pytest.raises(Invalid, match="Line 3 ") as error:
        parse(['{"prompt": "a"}', "", "{"], "workloads.0.lines")

    assert error.value.param == "workloads.0.lines"


@pytest.mark.parametrize(
    "line",
    ["[]", "7", "{}", '{"prompt": ""}', '{"messages": []}', '{"messages": ["a"]}', '{"conversations": [1]}',
     '{"prompt": "a", "max_tokens": 0}', '{"prompt": "a", "max_tokens": true}', '{"body": []}',
     '{"prompt": "a", "response_format": "json"}', '{"conversations": [{"from": "gpt", "value": "a"}]}'],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_with_a_remedy(line: str) -> None:
    with pytest.raises(Invalid) as error:
        parse([line], "lines")

    assert error.value.hint
