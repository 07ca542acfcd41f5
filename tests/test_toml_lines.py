"""Where the keys of a TOML text stand."""

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from footplate_daemon.toml_lines import Place, line_of, locate

TEXT = '''# a comment with [brackets] and "quotes"
top = 1

[gateway]
queue_limit = 5   # five
note = """
[not.a.table]
"" key = "no" """
[models."qwen2.5".vllm]
args = [
  "--a",   # ] not yet
  'b',
]
env = { A = "1", B.C = '}' }
'models'.x = true

[[rows]]
a = 1
[rows.inner]
b = 2
[[rows]]
a = 3
'''


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("top",), 2),
        (("gateway",), 4),
        (("gateway", "queue_limit"), 5),
        (("gateway", "note"), 6),
        (("models",), 9),
        (("models", "qwen2.5", "vllm"), 9),
        (("models", "qwen2.5", "vllm", "args"), 10),
        (("models", "qwen2.5", "vllm", "args", 0), 11),
        (("models", "qwen2.5", "vllm", "args", 1), 12),
        (("models", "qwen2.5", "vllm", "env", "B", "C"), 14),
        (("models", "qwen2.5", "vllm", "models", "x"), 15),
        (("rows", 0, "a"), 18),
        (("rows", 0, "inner", "b"), 20),
        (("rows", 1, "a"), 22),
    ],
)
def test_every_key_has_its_line(place: Place, line: int) -> None:
    assert locate(TEXT)[place] == line


def test_a_place_that_is_not_there_has_the_line_of_the_table_around_it() -> None:
    lines = locate(TEXT)

    assert line_of(lines, ("gateway", "missing", 3)) == 4
    assert line_of(lines, ("nowhere",)) == 1


STATEMENTS = [
    "[a]", "[a.b]", "[ a . 'b.c' ]", "[[t]]", "[[t.u]]", "[t.v]", '["x y".z]', "# comment = [", "", "   ",
    "k = 1", "k2 = 'it'", 'k3 = "a\\"]b"', 'k4 = """\n[x]\n\\"""""""', "k5 = '''\n''' # end",
    "k6 = ''''q'''''",
    "k7 = [1, [2, 3], {a = 4}]", "k8 = [\n  1, # one ]\n  'two',\n]", "k9 = {}", "l.m = 1979-05-27 07:32:00",
    '"q.r" . s = { "t u" = [ ], v.w = "}" }', "m\t=\t+1_000.5e3", "'n' = ''", 'o = ""', "b1 = true",
    '"\\u00e9" = 1',
]  # fmt: skip


@given(st.lists(st.sampled_from(STATEMENTS), max_size=12))
def test_the_places_are_those_that_tomllib_finds(statements: list[str]) -> None:
    text = "\n".join(statements)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        assume(condition=False)

    assert set(locate(text)) == set(places(data, ()))


def places(value: Any, place: Place) -> Iterator[Place]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, inner in parts:
        yield (*place, part)
        yield from places(inner, (*place, part))
