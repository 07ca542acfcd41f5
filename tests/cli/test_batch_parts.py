"""A file of requests cut into parts: nothing lost, in order, within the limits, and what is bad is named."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from footplate_tui.cli.batch_parts import BadLine, Limits, Line, bad_lines, endpoint_of, numbered, read, write

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
ROOMY = Limits()


def line(custom_id: object = "a", **changes: Any) -> bytes:
    request = {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": {"model": "guide"}}
    return json.dumps({**request, **changes}).encode() + b"\n"


def embedding(custom_id: str, given: object) -> bytes:
    return line(custom_id, url=EMBEDDINGS, body={"model": "tiny", "input": given})


def parts_of(source: list[bytes], limits: Limits) -> list[list[bytes]]:
    found: dict[int, list[bytes]] = {}
    for number, each in numbered(read(source, limits), limits):
        found.setdefault(number, []).append(each.raw)
    return [found[number] for number in sorted(found)]


def test_good_lines_are_counted_in_the_file_and_empty_ones_left_out() -> None:
    found = list(read([line("a"), b"\n", b"  \n", line("b")], ROOMY))

    assert [(each.number, type(each)) for each in found] == [(1, Line), (4, Line)]


def test_the_last_line_gets_its_end() -> None:
    (found,) = read([line().rstrip(b"\n")], ROOMY)

    assert found.raw == line()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"custom_id": \n', "This is no JSON."),
        (b"\xff\xfe\n", "This is no JSON."),
        (b"[1]\n", "This is no JSON object."),
        (line("first"), 'Its "custom_id" is that of line 1.'),
        (line(""), '"custom_id" must be a text.'),
        (line(7), '"custom_id" must be a text.'),
        (line("b", method="GET"), '"method" must be "POST".'),
        (line("b", url=EMBEDDINGS), f'"url" must be "{CHAT}", as in the lines before.'),
        (line("b", url=None), '"url" must name an endpoint, such as "/v1/chat/completions".'),
        (line("b", body="hello"), '"body" must be a JSON object.'),
        (line("b", body={}), '"body.model" must name a model.'),
        (line("b", body={"model": "guide", "stream": True}), '"body.stream" must not be set.'),
        (
            line("b", method="PUT", body={}),
            '"method" must be "POST". "body.model" must name a model.',
        ),
    ],
)
def test_what_is_wrong_with_a_line_is_said(raw: bytes, message: str) -> None:
    (bad,) = bad_lines([line("first"), raw, line("last")], ROOMY)

    assert (bad.number, bad.raw, bad.message) == (2, raw, message)


def test_a_line_that_fits_into_no_part_is_bad() -> None:
    (bad,) = bad_lines(
        [line("a"), line("b", body={"model": "guide", "prompt": "x" * 500})], Limits(bytes=200)
    )

    assert (bad.number, bad.message) == (2, "It is longer than 200 bytes.")


@pytest.mark.parametrize(
    ("limits", "sizes"),
    [
        (Limits(lines=2), [2, 2, 1]),
        (Limits(lines=5), [5]),
        (Limits(bytes=2 * len(line())), [2, 2, 1]),
        (Limits(bytes=len(line())), [1, 1, 1, 1, 1]),
    ],
)
def test_a_part_holds_as_much_as_it_may(limits: Limits, sizes: list[int]) -> None:
    parts = parts_of([line(custom_id) for custom_id in "abcde"], limits)

    assert [len(part) for part in parts] == sizes


def test_texts_to_embed_count_and_not_only_lines() -> None:
    source = [
        embedding("a", ["x", "y"]),
        embedding("b", "x"),
        embedding("c", [1, 2, 3]),
        embedding("d", ["x"]),
    ]

    assert [len(part) for part in parts_of(source, Limits(inputs=3))] == [2, 2]


def test_any_file_is_cut_without_loss_and_in_order() -> None:
    for seed in range(200):
        chance = random.Random(seed)
        source = [
            line(str(number), body={"model": "guide", "prompt": "x" * chance.randint(0, 300)})
            for number in range(chance.randint(0, 60))
        ]
        limits = Limits(lines=chance.randint(1, 20), bytes=chance.randint(400, 2000))

        parts = parts_of(source, limits)

        assert [raw for part in parts for raw in part] == source
        assert all(len(part) <= limits.lines for part in parts)
        assert all(sum(map(len, part)) <= limits.bytes for part in parts)


def test_parts_and_what_is_bad_are_written_beside_each_other(tmp_path: Path) -> None:
    source = [line("a"), b"no\n", line("b"), line("c")]

    parts = write(read(source, Limits(lines=2)), Limits(lines=2), tmp_path, Path("big.jsonl"))

    assert [(part.path.name, part.lines) for part in parts] == [
        ("big.part-001.jsonl", 2),
        ("big.part-002.jsonl", 1),
    ]
    assert parts[0].path.read_bytes() == line("a") + line("b")
    assert [part.bytes for part in parts] == [part.path.stat().st_size for part in parts]
    assert (tmp_path / "big.bad.jsonl").read_bytes() == b"no\n"


def test_no_file_is_written_over_and_none_is_left_half_done(tmp_path: Path) -> None:
    (tmp_path / "big.part-002.jsonl").write_text("mine")

    with pytest.raises(FileExistsError):
        write(read([line("a"), line("b")], ROOMY), Limits(lines=1), tmp_path, Path("big.jsonl"))

    assert [file.name for file in tmp_path.iterdir()] == ["big.part-002.jsonl"]


@pytest.mark.parametrize(
    ("source", "endpoint"),
    [
        ([b"\n", line()], CHAT),
        ([embedding("a", "x")], EMBEDDINGS),
        ([], None),
        ([b"no\n"], None),
        ([b"[]\n"], None),
        ([line(url=7)], None),
    ],
)
def test_the_first_request_says_what_is_asked(source: list[bytes], endpoint: str | None) -> None:
    assert endpoint_of(source) == endpoint


def test_a_mark_of_the_encoding_is_no_part_of_the_first_line() -> None:
    marked = [b"\xef\xbb\xbf" + line("a"), line("b")]

    assert [each.raw for each in read(marked, ROOMY)] == [line("a"), line("b")]
    assert endpoint_of(marked) == CHAT


def test_a_bad_line_keeps_the_bytes_it_came_with() -> None:
    (bad,) = read([b"\xff"], ROOMY)

    assert isinstance(bad, BadLine)
    assert bad.raw == b"\xff\n"
