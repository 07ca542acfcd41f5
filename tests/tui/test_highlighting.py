"""Colours for code that grows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.style import Style

from footplate_tui.highlighting import Colouring

RED, PLAIN = Style(color="red"), Style()


def colouring() -> Colouring:
    return Colouring(PLAIN, {"Token.Keyword": RED})


@given(st.lists(st.sampled_from(["", "def f():", "    return 1", '"""', "x = 'a'", "\tb"]), max_size=100))
def test_no_character_is_lost_or_added(lines: list[str]) -> None:
    code = "\n".join(lines)

    for coloured in (colouring().whole(code, "python"), colouring().growing(code, "python")):
        assert ["".join(text for text, _ in line) for line in coloured] == code.split("\n")


@pytest.mark.parametrize("language", ["python", "py", "PYTHON"])
def test_kinds_of_tokens_inherit_the_style_of_their_parents(language: str) -> None:
    (line,) = colouring().whole("class A", language)

    assert line[0] == ("class", RED)


@pytest.mark.parametrize("language", ["", "no such language", "../../etc"])
def test_what_nobody_knows_stays_plain(language: str) -> None:
    assert colouring().whole("def f", language) == [[("def f", PLAIN)]]


def test_what_is_finished_of_a_growing_code_is_coloured_once() -> None:
    growing = colouring()
    before = growing.growing("def f(): pass\n\ndef g(): pass\n\ndef h", "python")

    after = growing.growing("def f(): pass\n\ndef g(): pass\n\ndef h(): pass\nx", "python")

    assert after[0] is before[0]
