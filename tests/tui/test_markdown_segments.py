"""Segments of growing Markdown: nothing is lost, nothing is torn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from footplate_tui.markdown_segments import Segment, Segmenter

LINES = st.lists(
    st.sampled_from(
        [
            "",
            "text",
            "  indented",
            "    code",
            "- item",
            "  - nested",
            "1. one",
            "2. two",
            "- ```sh",
            "```",
            "```python",
            "  ```",
            "~~~",
            "# head",
            "> quote",
            "| a | b |",
            "|---|---|",
            "---",
            "\ttab",
        ]
    ),
    max_size=40,
)
BLOCKS = st.lists(
    st.sampled_from(
        [
            "# A heading",
            "A paragraph\nof two lines.",
            "- a\n- b\n  - nested\n- c",
            "1. one\n\n   still one\n2. two",
            "- item with code\n\n  ```sh\n  ls\n\n  ls\n  ```\n- next",
            "```python\nx = 1\n\ny = 2\n```",
            "~~~\n```\n~~~",
            "> a quote\n> of two lines",
            "| a | b |\n|---|---|\n| 1 | 2 |",
            "***",
            "    indented code\n\n    goes on",
        ]
    ),
    max_size=12,
)


def cut(text: str, pieces: list[int]) -> list[Segment]:
    segmenter = Segmenter()
    segments: list[Segment] = []
    at = 0
    for size in pieces:
        segments += segmenter.feed(text[at : at + size])
        at += size
    segments += segmenter.feed(text[at:])
    return segments + segmenter.finish()


@given(LINES, st.lists(st.integers(1, 20)))
def test_segments_and_tail_join_to_the_text_at_every_moment(lines: list[str], pieces: list[int]) -> None:
    text = "\n".join(lines)
    segmenter = Segmenter()
    joined, at = "", 0
    for size in [*pieces, len(text)]:
        joined += "".join(segment.text for segment in segmenter.feed(text[at : at + size]))
        at = min(at + size, len(text))
        assert joined + segmenter.tail == text[:at]
    joined += "".join(segment.text for segment in segmenter.finish())
    assert joined + segmenter.tail == text


@given(LINES, st.lists(st.integers(1, 20)))
def test_where_the_chunks_were_cut_does_not_matter(lines: list[str], pieces: list[int]) -> None:
    text = "\n".join(lines)

    assert cut(text, pieces) == cut(text, [])


@given(BLOCKS)
def test_segments_mean_apart_what_they_mean_together(blocks: list[str]) -> None:
    text = "\n\n".join(blocks)
    markdown = MarkdownIt("gfm-like")

    apart = "".join(markdown.render(segment.text) for segment in cut(text, []))

    assert _without_list_seams(apart) == _without_list_seams(markdown.render(text))


@given(st.lists(st.sampled_from(["", "code", "- item", "# no head", "~~~", "    ```"]), max_size=30))
def test_a_fence_is_never_split(inside: list[str]) -> None:
    fence = "\n".join(["```", *inside, "```", ""])

    segments = [segment.text for segment in cut(f"before\n\n{fence}after", [])]

    assert segments == ["before\n\n", fence, "after"]


def test_a_long_list_is_cut_between_items_and_says_that_it_goes_on() -> None:
    segments = cut("".join(f"- item {number}\n" for number in range(20)), [])

    assert [segment.text.count("item") for segment in segments] == [8, 8, 4]
    assert [segment.is_continued for segment in segments] == [True, True, False]


@pytest.mark.parametrize(("first", "others"), [(1, 1), (0, 0), (5, 1), (1, 9)])
def test_a_numbered_list_counts_on_from_its_first_number(first: int, others: int) -> None:
    segments = cut(f"{first}. item\n" + f"{others}. item\n" * 19, [])

    assert [segment.first_number for segment in segments] == [None, first + 8, first + 16]


@pytest.mark.parametrize(("text", "is_code"), [("```py\nx", True), ("text", False), ("- ```\n  x", False)])
def test_the_tail_says_whether_it_is_code(text: str, is_code: bool) -> None:
    segmenter = Segmenter()
    segmenter.feed(text)

    assert segmenter.tail_is_code is is_code


def _without_list_seams(html: str) -> str:
    """Lists side by side are one list or several, tight or loose: that is not what matters here."""
    for tag in ("<ul>", "</ul>", "<ol>", "</ol>", "<p>", "</p>", '<ol start="2">', "\n"):
        html = html.replace(tag, "")
    return html
