import json
from array import array
from typing import Any

import pytest

from footplate_daemon.benchmarks.measuring import Measured, Request
from footplate_daemon.benchmarks.reading import record
from footplate_daemon.benchmarks.workloads import Prompt
from footplate_daemon.runtimes.base import Translation
from footplate_daemon.wire_benchmarks import RequestRecord

ROLE = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
DONE = b"data: [DONE]\n\n"
USAGE = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}


def test_the_first_event_with_choices_is_the_first_token_and_the_last_one_the_end() -> None:
    found = read((1.0, ROLE), (1.5, says("a")), (1.75, says("b")), (2.0, END), (3.0, USAGE), (4.0, DONE))

    assert found.ttft_ms == 1000
    assert found.itl_ms == (500, 250, 250)
    assert found.e2el_ms == 2000
    assert found.answer == "ab"
    assert (found.prompt_tokens, found.output_tokens) == (5, 2)


def test_events_that_came_together_came_at_one_time() -> None:
    together = b"".join(sse(each) for each in (says("a"), says("b")))

    found = read((1.0, together), (2.0, END), (2.0, DONE))

    assert found.itl_ms == (0, 1000)


def test_an_event_in_two_pieces_came_with_its_last_one() -> None:
    whole = sse(says("a"))

    found = read((1.0, whole[:20]), (1.25, whole[20:]), (2.0, END), (2.0, DONE))

    assert found.ttft_ms == 1250


def test_comments_and_words_that_are_no_json_are_no_tokens() -> None:
    found = read((0.5, b": ping\n\n"), (0.6, b"data: {\n\n"), (1.0, says("a")), (2.0, END), (2.0, DONE))

    assert found.ttft_ms == 1000
    assert found.error_kind is None


def test_reasoning_is_kept_apart() -> None:
    thought = {"choices": [{"index": 0, "delta": {"reasoning_content": "hm", "reasoning": "hm"}}]}

    found = read((1.0, thought), (2.0, says("a")), (3.0, END), (3.0, DONE))

    assert (found.answer, found.reasoning) == ("a", "hm")


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        ([], "empty"),
        ([(1.0, USAGE), (1.0, DONE)], "empty"),
        ([(1.0, ROLE)], "stream"),
        ([(1.0, ROLE), (2.0, {"error": {"message": "It broke."}}), (2.0, DONE)], "stream"),
    ],
)
def test_a_stream_that_did_not_go_well_is_an_error(events: list[Any], kind: str) -> None:
    assert read(*events).error_kind == kind


def test_what_the_stream_said_of_its_error_is_kept() -> None:
    found = read((1.0, says("a")), (2.0, {"error": {"message": "It broke."}}))

    assert found.error == "It broke."


@pytest.mark.parametrize(("answer", "is_valid"), [('{"a": 1}', True), ("no", False)])
def test_an_answer_that_is_to_be_json_is_looked_at(answer: str, is_valid: bool) -> None:
    prompt = Prompt(
        0, ({"role": "user", "content": "?"},), fixed={"response_format": {"type": "json_object"}}
    )

    found = read((1.0, says(answer)), (2.0, END), (2.0, DONE), prompt=prompt)

    assert found.is_valid is is_valid
    assert (found.validity is None) is is_valid


def test_other_forms_are_translated_and_keep_the_times_of_what_they_were_made_of() -> None:
    class Upper:
        def feed(self, data: bytes) -> bytes:
            return sse(says(data.decode().upper()))

        def end(self) -> bytes:
            return sse(END) + DONE

    found = read((1.0, b"a"), (2.0, b"b"), translation=Upper())

    assert found.answer == "AB"
    assert (found.ttft_ms, found.e2el_ms) == (1000, 2000)


def test_what_was_read_can_be_read_again() -> None:
    class Once:
        was_fed = False

        def feed(self, data: bytes) -> bytes:
            assert not self.was_fed
            self.was_fed = True
            return data

        def end(self) -> bytes:
            return b""

    prompt = Prompt(0, ({"role": "user", "content": "?"},))
    pieces = [sse(says("a")) + sse(END) + DONE]
    measured = Measured(Request(prompt, "/", b"", Once()), 0.0, 9.0, array("d", [1.0]), pieces)

    assert record(measured, 0.0) == record(measured, 0.0)


def test_half_a_character_can_be_stored() -> None:
    found = read((1.0, says("\ud83d")), (2.0, END), (2.0, DONE))

    assert found.answer == "?"


def read(
    *events: tuple[float, Any], prompt: Prompt | None = None, translation: Translation | None = None
) -> RequestRecord:
    prompt = prompt or Prompt(0, ({"role": "user", "content": "?"},))
    times = array("d", [at for at, _ in events])
    pieces = [said if isinstance(said, bytes) else sse(said) for _, said in events]
    return record(Measured(Request(prompt, "/", b"", translation), 0.0, 9.0, times, pieces), 0.0)


def says(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}


def sse(event: dict[str, Any] | bytes) -> bytes:
    return b"data: %b\n\n" % (event if isinstance(event, bytes) else json.dumps(event).encode())
