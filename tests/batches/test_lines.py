"""The lines of a batch's files: whatever stands in one, it is taken whole or refused in words."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from footplate_daemon.batches import lines
from footplate_daemon.errors import Invalid
from footplate_daemon.store.batches import Failure, LineState, Tokens
from tests.batches.harness import CHAT, line

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.text(min_size=1, max_size=lines.LONGEST_CUSTOM_ID)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_read(raw: bytes) -> None:
    found = lines.read(raw, CHAT, 3)

    assert isinstance(found, lines.Request) or (found and all(error.line == 3 for error in found))


@settings(deadline=None)
@given(JSON)
def test_any_json_is_refused_or_read(value: Any) -> None:
    found = lines.read(json.dumps(value).encode(), CHAT, 1)

    assert not isinstance(found, lines.Request)
    assert all(error.code and error.message for error in found)


@settings(deadline=None)
@given(NAMES, st.text(min_size=1), st.dictionaries(st.text(min_size=1), JSON, max_size=3))
def test_a_good_line_is_read_whole(custom_id: str, question: str, more: dict[str, Any]) -> None:
    known = {"custom_id", "method", "url", "body"}
    messages = [{"role": "user", "content": question}]
    good = {**{name: value for name, value in more.items() if name not in known}, **line(custom_id)}
    good["body"] = {"model": "m", "messages": messages}

    found = lines.read(json.dumps(good).encode(), CHAT, 1)

    assert isinstance(found, lines.Request)
    assert (found.custom_id, found.model, found.body["messages"]) == (custom_id, "m", messages)


@settings(deadline=None)
@given(st.sampled_from(["custom_id", "method", "url", "body"]), JSON)
def test_a_field_that_is_wrong_is_named(field: str, value: Any) -> None:
    good = line("a")
    raw = json.dumps({**good, field: value}).encode()

    found = lines.read(raw, CHAT, 9)

    if isinstance(found, lines.Request):
        assert field == "custom_id"
        assert isinstance(value, str)
    else:
        assert all((error.param or "").split(".")[0] == field for error in found)


@settings(deadline=None)
@given(NAMES, JSON.filter(lambda value: value is not None), st.integers(200, 599))
def test_what_is_written_is_one_line_and_read_again(custom_id: str, body: Any, status: int) -> None:
    raw = lines.answered("batch_1", 7, custom_id, status, "req-1", json.dumps(body, indent=2).encode())

    result = lines.read_result(raw)

    assert raw.count(b"\n") == 1
    assert raw.endswith(b"\n")
    assert result is not None
    assert result.custom_id == custom_id
    assert result.state is (LineState.COMPLETED if status == 200 else LineState.FAILED)
    assert json.loads(raw)["response"]["body"] == body


@pytest.mark.parametrize("body", [b"", b"NaN", b'{"x": Infinity}', b"<html>", b'{"x": 1'])
def test_an_answer_that_is_no_json_is_never_written(body: bytes) -> None:
    with pytest.raises(Invalid, match="no JSON"):
        lines.answered("batch_1", 7, "a", 200, "req-1", body)


@settings(deadline=None)
@given(st.data())
def test_a_line_that_is_torn_is_no_result(data: st.DataObject) -> None:
    raw = lines.answered("batch_1", 7, "a", 200, "req-1", b'{"usage": {}}')
    cut = data.draw(st.integers(0, len(raw) - 2))

    assert lines.read_result(raw[:cut]) is None


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}, Tokens(3, 0, 4, 0)),
        (
            {
                "input_tokens": 3,
                "output_tokens": 4,
                "input_tokens_details": {"cached_tokens": 1},
                "output_tokens_details": {"reasoning_tokens": 2},
            },
            Tokens(3, 1, 4, 2),
        ),
        ({"prompt_tokens": 5, "total_tokens": 5}, Tokens(5, 0, 0, 0)),
        ({"total_tokens": 5}, Tokens(5, 0, 0, 0)),
        (None, Tokens()),
        ({"prompt_tokens": None}, Tokens()),
    ],
)
def test_tokens_are_counted_whatever_their_endpoint_calls_them(
    usage: dict[str, Any] | None, tokens: Tokens
) -> None:
    assert lines.tokens_of(usage) == tokens


@pytest.mark.parametrize(
    ("response", "error", "failure"),
    [
        (None, {"code": "batch_expired", "message": "Late."}, Failure("batch_expired", 0, "Late.")),
        (
            {"status_code": 400, "body": {"error": {"message": "No.", "type": "bad", "code": 400}}},
            None,
            Failure("bad", 400, "No."),
        ),
        (
            {"status_code": 404, "body": {"error": {"message": "No.", "type": "x", "code": "not_found"}}},
            None,
            Failure("not_found", 404, "No."),
        ),
        ({"status_code": 500, "body": "Oh"}, None, Failure("error", 500, "Oh")),
    ],
)
def test_failures_have_a_kind(
    response: dict[str, Any] | None, error: dict[str, Any] | None, failure: Failure
) -> None:
    assert lines.failure_of(response, error) == failure


def test_lines_with_the_same_instructions_belong_together() -> None:
    def prefix(*messages: dict[str, str]) -> int:
        return lines.prefix_of({"messages": list(messages)})

    system, other = {"role": "system", "content": "A"}, {"role": "developer", "content": "B"}
    user = {"role": "user", "content": "x"}

    assert prefix(system, user) == prefix(system, {"role": "user", "content": "y"})
    assert len({prefix(system, user), prefix(other, user), prefix(user)}) == 3
    assert prefix(user) == lines.prefix_of({"input": "x"}) == 0
