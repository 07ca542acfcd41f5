"""Text of others never commands the terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footplate_tui.harmless import harmless, one_line


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b]52;c;ZXZpbA==\x07", "␛]52;c;ZXZpbA==␇"),
        ("\x1b[2J", "␛[2J"),
        ("\x1b]8;;http://x\x1b\\y", "␛]8;;http://x␛\\y"),
        ("\x9b31m", "<U+009B>31m"),
        ("a\u202eb", "a<U+202E>b"),
        ("line\r\nline", "line\nline"),
        ("one\u2028two", "one\ntwo"),
        ("half \ud800", "half \ufffd"),
        ("tab\tand\nnewline", "tab\tand\nnewline"),
        ("Привет, 世界 👋🏽", "Привет, 世界 👋🏽"),
    ],
)
def test_what_is_shown(hostile: str, shown: str) -> None:
    assert harmless(hostile) == shown


@given(st.text(st.characters()), st.integers(0, 20))
def test_where_a_chunk_was_cut_does_not_matter(text: str, at: int) -> None:
    assert harmless(text[:at]) + harmless(text[at:]) == harmless(text)


@given(st.text(st.characters()))
def test_what_is_harmless_can_be_written_and_holds_no_control(text: str) -> None:
    shown = harmless(text)

    shown.encode()
    assert not any(character < " " and character not in "\t\n" for character in shown)


def test_a_title_stays_on_one_line() -> None:
    assert one_line("a\n  b\x1b") == "a b␛"
