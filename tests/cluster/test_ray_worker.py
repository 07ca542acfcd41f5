"""What the worker on Ray does without Ray: requests to rows, rows to answers, and the two files."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from footplate_daemon.cluster.ray_worker import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    Gathered,
    Ledger,
    Line,
    Model,
    Refused,
    Unusable,
    _root_cause,
    finish_reason,
)

HI = {"messages": [{"role": "user", "content": "Hi"}]}
MODEL = Model("org/name")


def line(body: Mapping[str, Any], number: int = 1, custom_id: str = "a") -> Line:
    return Line(number, f"batch_req_{number}", custom_id, {"model": "m", **body})


def asked(endpoint: str, body: Mapping[str, Any], model: Model = MODEL) -> list[dict[str, Any]]:
    """Give what the stages get for a body."""
    return [json.loads(row["request"]) for row in Gathered(endpoint, "m").split(line(body), model)]


def said(text: str, finish: str = "stop") -> str:
    return json.dumps({"text": text, "finish_reason": finish, "prompt_tokens": 5, "completion_tokens": 2})


def test_what_a_client_says_reaches_the_sampling_under_vllm_s_names() -> None:
    (row,) = asked(CHAT, {**HI, "temperature": 0, "max_completion_tokens": 9, "stop": "x", "seed": 3})

    assert row["messages"] == HI["messages"]
    assert row["sampling"] == {
        "temperature": 0.0,
        "max_tokens": 9,
        "seed": 3,
        "stop": ["x"],
        "stop_token_ids": [],
        "structured_outputs": None,
    }


def test_the_profile_fills_what_the_client_leaves_out() -> None:
    model = Model("w", defaults={"temperature": 0.3, "max_tokens": 50}, system="Be brief.")

    (filled,) = asked(CHAT, {**HI, "max_tokens": 7}, model)
    own = [{"role": "system", "content": "Be long."}, *HI["messages"]]
    (kept,) = asked(CHAT, {"messages": own}, model)

    assert filled["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (filled["sampling"]["temperature"], filled["sampling"]["max_tokens"]) == (0.3, 7)
    assert kept["messages"] == own


def test_a_profile_is_for_texts_and_of_it_what_the_endpoint_knows() -> None:
    model = Model("w", defaults={"temperature": 0.3, "reasoning_effort": "none"}, system="Be brief.")

    (embedded,) = asked(EMBEDDINGS, {"input": "a"}, model)
    (completed,) = asked(COMPLETIONS, {"prompt": "a", "max_tokens": None}, model)

    assert embedded == {"text": "a"}
    assert (completed["sampling"]["temperature"], completed["sampling"]["max_tokens"]) == (0.3, 16)


@pytest.mark.parametrize("prompt", [[], {}, 5, [[1], "a", 5], [[2**40]], [-1]])
def test_a_prompt_that_is_none_is_refused(prompt: Any) -> None:
    for endpoint, name in ((COMPLETIONS, "prompt"), (EMBEDDINGS, "input")):
        with pytest.raises(Refused) as caught:
            asked(endpoint, {name: prompt})
        assert caught.value.param == name


def test_several_choices_are_rows_each_with_a_seed_of_its_own() -> None:
    rows = asked(CHAT, {**HI, "n": 3, "seed": 40})

    assert [row["sampling"]["seed"] for row in rows] == [40, 41, 42]


def test_the_rows_of_a_line_become_one_answer_in_their_order() -> None:
    gathered = Gathered(CHAT, "m")
    gathered.split(line({**HI, "n": 2}, number=7), MODEL)

    first = list(gathered.take([{"line": 7, "part": 1, "answer": said("two", "length")}]))
    ((number, status, body),) = gathered.take([{"line": 7, "part": 0, "answer": said("one")}])

    assert first == []
    assert (number, status, body["object"], body["model"]) == (7, 200, "chat.completion", "m")
    assert [choice["message"]["content"] for choice in body["choices"]] == ["one", "two"]
    assert [choice["finish_reason"] for choice in body["choices"]] == ["stop", "length"]
    assert body["usage"] == {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}


def test_one_row_that_failed_is_the_answer_to_its_line_and_the_others_are_dropped() -> None:
    gathered = Gathered(COMPLETIONS, "m")
    gathered.split(line({"prompt": ["a", "b", "c"]}), MODEL)
    error = {"message": "Too long.", "type": "BadRequestError", "param": None, "code": 400}

    answers = list(
        gathered.take(
            [
                {"line": 1, "part": 0, "answer": said("x")},
                {"line": 1, "part": 2, "answer": json.dumps({"error": error})},
                {"line": 1, "part": 1, "answer": said("y")},
            ]
        )
    )

    assert answers == [(1, 400, {"error": error})]


def test_a_prompt_may_be_text_or_tokens_and_there_may_be_several() -> None:
    assert [row.get("text") for row in asked(COMPLETIONS, {"prompt": ["a", "b"], "n": 2})] == list("aabb")
    assert [row.get("tokens") for row in asked(COMPLETIONS, {"prompt": [[1, 2], [3]]})] == [[1, 2], [3]]
    (alone,) = asked(COMPLETIONS, {"prompt": [1, 2]})

    assert alone["tokens"] == [1, 2]
    assert alone["sampling"]["max_tokens"] == 16


@pytest.mark.parametrize("form", ["float", "base64"])
def test_texts_to_embed_become_one_list(form: str) -> None:
    gathered = Gathered(EMBEDDINGS, "m")
    gathered.split(line({"input": ["a", "b"], "encoding_format": form}), MODEL)
    rows = [
        {"line": 1, "part": part, "answer": json.dumps({"embedding": [part, 0.5], "prompt_tokens": 3})}
        for part in (0, 1)
    ]

    ((_, _, body),) = gathered.take(rows)

    first = "AAAAAAAAAD8=" if form == "base64" else [0, 0.5]
    assert body["data"][0] == {"object": "embedding", "index": 0, "embedding": first}
    assert [entry["index"] for entry in body["data"]] == [0, 1]
    assert body["usage"] == {"prompt_tokens": 6, "total_tokens": 6}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"logprobs": True}, "logprobs"),
        ({"never_heard_of": 1}, "never_heard_of"),
        ({"n": 0.5}, "n"),
        ({"n": 129}, "n"),
        ({"seed": 2**63}, "seed"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": True}, "max_tokens"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"stop": ["a", 5]}, "stop"),
        ({"stop": 5}, None),
        ({"stop_token_ids": [2**40]}, "stop_token_ids"),
        ({"top_k": 10**30}, "top_k"),
        ({"messages": [{"content": "no role"}]}, "messages"),
        ({"messages": ["Hi"]}, None),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
    ],
)
def test_what_would_be_answered_otherwise_than_asked_is_refused(
    body: dict[str, Any], param: str | None
) -> None:
    with pytest.raises(Refused) as caught:
        asked(CHAT, {**HI, **body})

    assert caught.value.param == param


def test_what_is_switched_off_or_null_needs_no_refusal() -> None:
    assert asked(CHAT, {**HI, "logprobs": False, "tools": None, "user": "ann", "stream": False})


@pytest.mark.parametrize(
    ("wanted", "structure"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"a": 1}}}, {"a": 1}),
    ],
)
def test_a_form_of_answer_is_vllm_s_structure(
    wanted: dict[str, Any], structure: dict[str, Any] | None
) -> None:
    (row,) = asked(CHAT, {**HI, "response_format": wanted})

    told = row["sampling"]["structured_outputs"]
    assert told is None if structure is None else json.loads(told["json"]) == structure


@pytest.mark.parametrize(
    ("tokens", "more", "reason"),
    [
        ([5, 2], {}, "stop"),
        ([5, 6, 7], {}, "length"),
        ([5, 6, 2], {}, "stop"),
        ([5, 6, 2], {"ignore_eos": True}, "length"),
        ([5, 9], {"stop_token_ids": [9]}, "stop"),
        ([5, 6], {"stop": ["x"]}, "stop"),
        ([5, 6, 7], {"stop": ["x"]}, "length"),
        ([], {}, "length"),
    ],
)
def test_why_an_answer_ended(tokens: Sequence[int], more: dict[str, Any], reason: str) -> None:
    sampling = {"max_tokens": 3, "stop": [], "stop_token_ids": [], **more}

    assert finish_reason(tokens, sampling, [2]) == reason


# The files


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "out.jsonl", tmp_path / "err.jsonl"


def test_answers_and_errors_go_into_a_file_each(files: tuple[Path, Path]) -> None:
    with Ledger.open(*files) as ledger:
        ledger.write([(line(HI, 1, "a"), 200, {"x": 1}), (line(HI, 2, "b"), 400, {"error": {}})])

    out, err = ([json.loads(row) for row in file.read_bytes().splitlines()] for file in files)
    assert [(row["custom_id"], row["response"]["status_code"], row["error"]) for row in (*out, *err)] == [
        ("a", 200, None),
        ("b", 400, None),
    ]
    assert out[0].keys() == {"id", "custom_id", "response", "error"}
    assert out[0]["response"]["body"] == {"x": 1}
    assert (ledger.completed, ledger.failed) == (1, 1)


def test_what_was_answered_before_is_not_written_again(files: tuple[Path, Path]) -> None:
    with Ledger.open(*files) as ledger:
        ledger.write([(line(HI, 1, "a"), 200, {}), (line(HI, 2, "b"), 500, {})])
    with Ledger.open(*files) as ledger:
        known = [ledger.has(line(HI, number, name)) for number, name in ((1, "a"), (2, "b"), (3, "c"))]
        ledger.write([(line(HI, 1, "a"), 200, {}), (line(HI, 3, "c"), 200, {})])

    assert known == [True, True, False]
    assert [len(file.read_bytes().splitlines()) for file in files] == [2, 1]
    assert (ledger.completed, ledger.failed) == (2, 1)


@settings(deadline=None)
@given(cut=st.integers(0, 400))
def test_whatever_is_left_of_a_file_each_line_is_in_it_once_at_the_end(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    files = folder / "out.jsonl", folder / "err.jsonl"
    lines = [line(HI, number, f"c{number}") for number in range(3)]
    with Ledger.open(*files) as ledger:
        ledger.write([(each, 200, {"x": "y" * 20}) for each in lines])
    os.truncate(files[0], min(cut, files[0].stat().st_size))

    with Ledger.open(*files) as ledger:
        ledger.write([(each, 200, {"x": "z"}) for each in lines])

    ids = [json.loads(row)["custom_id"] for row in files[0].read_bytes().splitlines()]
    assert sorted(ids) == ["c0", "c1", "c2"]


def test_the_answers_to_another_file_are_not_taken_for_ours(files: tuple[Path, Path]) -> None:
    with Ledger.open(*files) as ledger:
        ledger.write([(line(HI, 1, "a"), 200, {})])

    with (
        Ledger.open(*files) as ledger,
        pytest.raises(Unusable, match="another request with the custom_id 'a'"),
    ):
        ledger.has(line(HI, 2, "a"))


def test_two_do_not_write_into_the_same_file(files: tuple[Path, Path]) -> None:
    with (
        Ledger.open(*files),
        pytest.raises(Unusable, match=r"Another batch writes into .*out\.jsonl"),
        Ledger.open(*files),
    ):
        pass


def test_the_cause_of_a_long_trace_is_what_the_engine_said_first() -> None:
    error = RuntimeError(
        "ray::MapWorker() (pid=1)\n  File x\n"
        "(EngineCore pid=2) ValueError: No available memory for the cache blocks.\n"
        "RuntimeError: Engine core initialization failed. See root cause above.\n"
    )

    assert _root_cause(error) == "ValueError: No available memory for the cache blocks."
