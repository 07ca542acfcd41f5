"""A file is looked through line by line: every bad line is named, and a large one takes no memory."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from footplate_daemon.batches.validation import Findings, Limits, Stopped, Validation
from footplate_daemon.store.batches import NewLine
from footplate_daemon.wire_batches import BatchError
from tests.batches.harness import CHAT, line, many, written


def judge(model: str) -> BatchError | None:
    return None if model in {"m", "other"} else BatchError(code="model_not_found", message="No.")


def looked_through(
    folder: Path, content: bytes, limits: Limits | None = None, endpoint: str = CHAT
) -> tuple[Findings, list[NewLine]]:
    path = folder / "in.jsonl"
    path.write_bytes(content)
    good: list[NewLine] = []
    validation = Validation(endpoint, limits or Limits(1_000_000), judge, good.extend)
    found = validation.run(path)
    return found, good


def test_every_good_line_is_handed_on_with_its_place(tmp_path: Path) -> None:
    content = written([line("a"), line("b", model="other"), line("ä")])
    found, good = looked_through(tmp_path, content)

    assert found.is_good
    assert found.models == ["m", "other"]
    assert [(each.number, each.custom_id, each.model) for each in good] == [
        (1, "a", 0),
        (2, "b", 1),
        (3, "ä", 0),
    ]
    for each in good:
        assert json.loads(content[each.offset : each.offset + each.length])["custom_id"] == each.custom_id


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_ends_of_lines_empty_lines_and_a_mark_at_the_beginning_do_not_matter(
    tmp_path: Path, end: bytes
) -> None:
    rows = [json.dumps(line(name)).encode() for name in ("a", "b")]
    content = b"\xef\xbb\xbf" + rows[0] + end + b"  " + end + rows[1]  # and no end of the last
    found, good = looked_through(tmp_path, content)

    assert found.is_good
    assert [(each.number, each.custom_id) for each in good] == [(1, "a"), (3, "b")]
    assert [content[each.offset : each.offset + each.length].strip() for each in good] == rows


def test_one_line_in_a_hundred_that_is_bad_is_named_and_nothing_else(tmp_path: Path) -> None:
    rows = [json.dumps(line(f"{number}")) for number in range(1, 2001)]
    for number in range(100, 2001, 100):
        rows[number - 1] = rows[number - 1][:-3]
    found, _ = looked_through(tmp_path, "\n".join(rows).encode())

    assert [error.line for error in found.errors] == list(range(100, 2001, 100))
    assert {error.code for error in found.errors} == {"invalid_json_line"}
    assert found.total == 2000


def test_an_id_that_comes_again_is_told_with_the_line_that_had_it_first(tmp_path: Path) -> None:
    found, _ = looked_through(tmp_path, written([line("a"), line("b"), line("a"), line("a")]))

    assert [(error.line, error.code) for error in found.errors] == [
        (3, "duplicate_custom_id"),
        (4, "duplicate_custom_id"),
    ]
    assert "line 1" in found.errors[0].message


def test_the_list_of_errors_is_bounded_and_says_how_many_there_are_besides(tmp_path: Path) -> None:
    found, _ = looked_through(tmp_path, b"{\n" * 50, Limits(1000, errors=20))

    *named, last = found.all_errors()
    assert len(named) == 20
    assert last.code == "too_many_errors"
    assert "30 more" in last.message


@pytest.mark.parametrize(
    ("content", "limits", "code"),
    [
        (b"", Limits(1000), "empty_file"),
        (b"\n  \n", Limits(1000), "empty_file"),
        (many(4), Limits(1000, requests=3), "too_many_tasks"),
    ],
)
def test_too_few_and_too_many_lines_are_refused(
    tmp_path: Path, content: bytes, limits: Limits, code: str
) -> None:
    found, _ = looked_through(tmp_path, content, limits)

    assert [(error.code, error.line) for error in found.errors] == [(code, None)]


def test_too_many_texts_to_embed_are_refused(tmp_path: Path) -> None:
    url = "/v1/embeddings"
    rows = [
        {"custom_id": name, "method": "POST", "url": url, "body": body}
        for name, body in (
            ("a", {"model": "m", "input": ["x", "y"]}),
            ("b", {"model": "m", "input": [1, 2, 3]}),
            ("c", {"model": "m", "input": "z"}),
        )
    ]
    few, _ = looked_through(tmp_path, written(rows), Limits(1000, embedding_inputs=4), url)
    found, _ = looked_through(tmp_path, written(rows), Limits(1000, embedding_inputs=3), url)

    assert few.is_good
    assert [error.code for error in found.errors] == ["too_many_tasks"]


def test_a_line_that_is_too_long_is_passed_over(tmp_path: Path) -> None:
    long = line("long", messages=[{"role": "user", "content": "x" * 5000}])
    found, good = looked_through(tmp_path, written([line("a"), long, line("b")]), Limits(1000))

    assert [(error.line, error.code) for error in found.errors] == [(2, "invalid_request")]
    assert [each.custom_id for each in good] == ["a"]
    assert found.total == 2


def test_it_stops_when_nobody_wants_it_any_more(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(many(5000))
    handed: list[int] = []

    def hand_on(some: Sequence[NewLine]) -> None:
        handed.append(len(some))
        raise Stopped

    with pytest.raises(Stopped):
        Validation(CHAT, Limits(1000), judge, hand_on).run(path)

    assert len(handed) == 1
