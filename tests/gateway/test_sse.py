import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footplate_daemon.gateway.sse import (
    EVENT_LIMIT,
    EventSplitter,
    StreamWatch,
    Told,
    Usage,
    error_of,
    told_by,
)


def _chunk(delta: dict[str, Any], finish_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}], **fields}


def _stream(*events: Any, end: bytes = b"\n\n") -> bytes:
    return b"".join(b"data: " + (e if isinstance(e, bytes) else json.dumps(e).encode()) + end for e in events)


CHAT = [
    _chunk({"role": "assistant", "content": ""}),
    _chunk({"content": 'He said "usage": Zażółć'}, usage=None),
    _chunk({"content": " gęślą"}),
    _chunk({}, "stop"),
    {
        "choices": [],
        "usage": {
            "prompt_tokens": 8,
            "completion_tokens": 5,
            "completion_tokens_details": {"reasoning_tokens": 2},
            "prompt_tokens_details": {"cached_tokens": 4},
        },
    },
]


def _watched(*pieces: bytes) -> StreamWatch:
    watch = StreamWatch()
    for piece in pieces:
        watch.feed(piece)
    return watch


def _cut(raw: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    return [raw[start:end] for start, end in pairwise(bounds)]


def _facts(watch: StreamWatch) -> tuple[object, ...]:
    return (
        watch.event_count,
        watch.has_content,
        watch.is_done,
        watch.usage,
        watch.finish_reason,
        watch.error,
    )


def test_a_chat_is_understood_from_its_passing_bytes() -> None:
    watch = _watched(_stream(*CHAT, b"[DONE]"))

    assert _facts(watch) == (5, True, True, Usage(8, 5, 2, 4), "stop", None)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n: ping\n\n"])
@given(cuts=st.lists(st.integers(0, 2000), max_size=30))
def test_it_is_understood_the_same_however_it_is_split(end: bytes, cuts: list[int]) -> None:
    raw = b": loading\r\n\r\nevent: x\nid: 3\n" + _stream(*CHAT, b"[DONE]", end=end) + b"\n"

    watch = _watched(*_cut(raw, cuts))

    assert _facts(watch) == (5, True, True, Usage(8, 5, 2, 4), "stop", None)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_it_may_be_split_at_every_byte(end: bytes) -> None:
    raw = _stream(*CHAT, b"[DONE]", end=end)

    for cut in range(len(raw)):
        assert _watched(raw[:cut], raw[cut:]).event_count == 5
    assert _facts(_watched(*(raw[at : at + 1] for at in range(len(raw))))) == _facts(_watched(raw))


@pytest.mark.parametrize(
    "event",
    [
        _chunk({"content": "x"}),
        _chunk({"reasoning_content": "x"}),
        _chunk({"reasoning": "x"}),
        _chunk({"tool_calls": [{"index": 0}]}),
        {"choices": [{"index": 0, "text": "x"}]},
        {"type": "response.output_text.delta", "delta": "x"},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "x"}},
        {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "x"}},
    ],
)
def test_this_is_content(event: dict[str, Any]) -> None:
    assert _watched(_stream(event)).has_content


@pytest.mark.parametrize(
    "event",
    [
        _chunk({"role": "assistant", "content": "", "reasoning_content": None}),
        _chunk({}, "stop"),
        {"choices": [{"index": 0, "text": ""}]},
        {"choices": [], "usage": {"prompt_tokens": 3}},
        {"type": "message_start", "message": {"content": []}},
        {"error": {"message": "No."}},
        [1],
        3,
        b"no json",
        b"[DONE]",
    ],
)
def test_this_is_no_content(event: object) -> None:
    assert not _watched(_stream(event)).has_content


def test_the_last_usage_counts_when_every_event_has_one() -> None:
    events = [_chunk({"content": "x"}, usage={"prompt_tokens": 3, "completion_tokens": n}) for n in range(4)]

    watch = StreamWatch()
    seen = []
    for event in events:
        watch.feed(_stream(event))
        seen.append(watch.usage)

    assert seen == [Usage(3, n) for n in range(4)]


def test_what_only_the_beginning_says_of_usage_is_kept() -> None:
    watch = _watched(
        _stream(
            {"type": "message_start", "message": {"usage": {"input_tokens": 7, "output_tokens": 1}}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
        )
    )

    assert (watch.usage, watch.finish_reason) == (Usage(7, 9), "end_turn")


def test_the_usage_of_a_response_is_found() -> None:
    usage = {"input_tokens": 7, "output_tokens": 9, "output_tokens_details": {"reasoning_tokens": 4}}

    watch = _watched(_stream({"type": "response.completed", "response": {"error": None, "usage": usage}}))

    assert (watch.usage, watch.error) == (Usage(7, 9, 4), None)


def test_an_error_after_a_good_status_is_noticed() -> None:
    error = {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "code": 500}

    watch = _watched(_stream(_chunk({"content": "x"}), {"error": error}, b"[DONE]"))

    assert (watch.error, watch.is_done) == ("EngineCore encountered an issue.", True)


def test_a_stream_that_says_nothing_leaves_everything_open() -> None:
    assert _facts(_watched(b": ping\n\n", b"event: x\n\n", b"data: cut off")) == (
        0,
        False,
        False,
        None,
        None,
        None,
    )


@given(
    st.lists(
        st.one_of(st.binary(max_size=50), st.sampled_from([b"data: ", b"\n\n", b"\r", b'{"error":'])),
        max_size=20,
    )
)
def test_whatever_comes_is_only_looked_at(pieces: list[bytes]) -> None:
    _facts(_watched(*pieces))


LINE = st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"]), max_size=20).map(
    str.encode
)


@given(
    events=st.lists(st.lists(LINE, min_size=1, max_size=3), max_size=6),
    line_end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    cuts=st.lists(st.integers(0, 400), max_size=20),
)
def test_every_event_is_given_whole(events: list[list[bytes]], line_end: bytes, cuts: list[int]) -> None:
    raw = b"".join(
        b"".join(b"data: " + line + line_end for line in lines) + b"id: 1" + line_end * 2 for lines in events
    )
    splitter = EventSplitter()

    given_events = [event for piece in [*_cut(raw, cuts), b"\n"] for event in splitter.feed(piece)]

    assert given_events == [b"\n".join(lines) for lines in events]


def test_an_event_without_end_does_not_grow_memory() -> None:
    splitter = EventSplitter()
    piece = b"x" * (1024 * 1024)

    splitter.feed(b"data: ")
    for _ in range(2 * EVENT_LIMIT // len(piece)):
        splitter.feed(piece)
        assert sum(map(len, splitter._parts)) <= EVENT_LIMIT

    assert splitter.feed(b"\n\ndata: next\n\n") == [b"next"]


def test_an_answer_in_one_piece_says_its_usage_and_why_it_ended() -> None:
    body = {
        "choices": [{"message": {"content": "x"}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
    }

    assert told_by(json.dumps(body).encode()) == Told(Usage(3, 4), "length")


@pytest.mark.parametrize("body", [b"", b"no json", b"[]", b'{"usage": null, "choices": 3}', b"[" * 100_000])
def test_an_answer_that_says_nothing_of_usage_has_none(body: bytes) -> None:
    assert told_by(body) == Told()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "Loading model", "code": 503}}', "Loading model"),
        (b'{"error": "Unauthorized"}', "Unauthorized"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"detail": [{"loc": ["body"], "msg": "wrong"}]}', '[{"loc": ["body"], "msg": "wrong"}]'),
        (b'{"response": {"error": {"message": "No."}}}', "No."),
        (b"", None),
        (b"<html>", None),
        (b'{"error": null}', None),
    ],
)
def test_errors_are_understood_in_every_shape(body: bytes, message: str | None) -> None:
    assert error_of(body) == message
