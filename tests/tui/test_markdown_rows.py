"""Rows of a width: nothing is lost, nothing is too wide."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.style import Style

from footplate_tui.highlighting import Line
from footplate_tui.markdown_blocks import Mark, parse
from footplate_tui.markdown_rows import Look, Sheet, breaks, lay_out

PLAIN = Style()
LOOK = Look(
    text=PLAIN,
    heading=PLAIN,
    bullet=PLAIN,
    code=PLAIN,
    quote=PLAIN,
    quote_bar=PLAIN,
    table_head=PLAIN,
    table_line=PLAIN,
    rule=PLAIN,
    marks=tuple((mark, PLAIN) for mark in Mark),
)
WORDS = st.lists(
    st.sampled_from(["a", "word", "日本語", "e\u0301", "longestword", "👩‍🚀", " ", "x" * 30]), max_size=20
)
BLOCKS = st.lists(
    st.sampled_from(
        [
            "# A heading that is long",
            "A paragraph\nof **two** lines that go on.",
            "- a\n- b\n  - nested `code` here\n    1. deeper still\n- c",
            "1. one\n\n   still one\n2. two\n\n   ```sh\n   ls -l --all\n   ```\n",
            "```\nx = 1\n\n日本語の = 2  # and it is long\n```",
            "> a quote\n> - with a list",
            "| a | b |\n|---|---|\n| 1 | a cell with much text |\n| 日本 | 3 |",
            "***",
            "-",
        ]
    ),
    max_size=6,
)


def colourless(code: str, language: str) -> list[Line]:
    assert language is not None
    return [[(line, PLAIN)] for line in code.split("\n")]


def rows_of(text: str, width: int) -> Sheet:
    return lay_out(parse(text), width, LOOK, colourless)


def shown(text: str, width: int) -> list[str]:
    return [
        "".join(segment.text for segment in (*row.prefix, *row.body)).rstrip()
        for row in rows_of(text, width).rows
    ]


@given(WORDS, st.integers(1, 40))
def test_wrapped_text_fits_and_only_words_that_are_too_wide_are_cut(words: list[str], width: int) -> None:
    text = " ".join(words)
    places = [0, *breaks(text, width), len(text)]

    parts = [text[start:end] for start, end in pairwise(places)]

    assert "".join(parts) == text
    assert all(cell_len(part.rstrip()) <= max(width, 2) for part in parts)


@given(BLOCKS, st.integers(12, 60))
def test_no_row_is_wider_than_there_is_room(blocks: list[str], width: int) -> None:
    for row in shown("\n\n".join(blocks), width):
        assert cell_len(row) <= max(width, 24)


@given(BLOCKS, st.integers(12, 60))
def test_every_row_says_which_part_of_which_line_it_shows(blocks: list[str], width: int) -> None:
    sheet = rows_of("\n\n".join(blocks), width)

    for row in sheet.rows:
        body = "".join(segment.text for segment in row.body)
        line = sheet.lines[row.line]
        assert line[row.start : row.start + len(body)] == body or line == "───"


def test_a_list_with_wrapped_and_nested_items() -> None:
    assert shown("- one two three\n- b\n  - c", 10) == ["• one two", "  three", "• b", "  ▪ c", ""]


def test_numbers_stand_right() -> None:
    assert shown("9. a\n10. b", 20) == ["  9. a", " 10. b", ""]


def test_a_table_is_as_wide_as_it_must_be_and_obeys_its_sides() -> None:
    assert shown("| q | tok/s |\n|:-:|--:|\n| abc | 5 |", 40) == [
        "┌─────┬───────┐",
        "│  q  │ tok/s │",
        "├─────┼───────┤",
        "│ abc │     5 │",
        "└─────┴───────┘",
        "",
    ]


def test_a_table_too_wide_wraps_its_widest_column_and_parts_its_rows() -> None:
    assert shown("| a | b |\n|---|---|\n| 1 | one two three |\n| 2 | x |", 17) == [
        "┌───┬───────────┐",
        "│ a │ b         │",
        "├───┼───────────┤",
        "│ 1 │ one two   │",
        "│   │ three     │",
        "├───┼───────────┤",
        "│ 2 │ x         │",
        "└───┴───────────┘",
        "",
    ]


@pytest.mark.parametrize("closes", [True, False])
def test_a_piece_that_goes_on_ends_without_air(closes: bool) -> None:
    sheet = lay_out(parse("- a"), 10, LOOK, colourless, closes=closes)

    assert len(sheet.rows) == (2 if closes else 1)


def test_long_lines_of_code_are_folded_and_stay_one_line() -> None:
    sheet = rows_of("```\nabcdefghij\n```", 10)

    assert sheet.lines == ["abcdefghij", ""]
    assert [row.line for row in sheet.rows] == [0, 0, 1]
