"""What Markdown consists of."""

import pytest

from footplate_tui.markdown_blocks import (
    Code,
    Heading,
    Item,
    Items,
    Mark,
    Paragraph,
    Piece,
    Quote,
    Rule,
    Side,
    Table,
    parse,
)


def plain(text: str) -> tuple[Piece, ...]:
    return (Piece(text),)


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("# Title", Heading(plain("Title"))),
        ("some\n  text", Paragraph((Piece("some"), Piece(" "), Piece("text")))),
        ("```py extra\nx\n\ny\n```", Code("x\n\ny", "py")),
        ("    indented", Code("indented")),
        ("> said", Quote((Paragraph(plain("said")),))),
        ("***", Rule()),
        ("- a", Items((Item("•", (Paragraph(plain("a")),)),))),
        ("7. a", Items((Item("7.", (Paragraph(plain("a")),)),))),
        ("| a |\n|--:|\n| b |", Table((plain("a"),), (Side.RIGHT,), ((plain("b"),),))),
    ],
)
def test_each_kind_of_block(text: str, block: object) -> None:
    assert parse(text) == (block,)


def test_marks_are_kept_with_their_text() -> None:
    (paragraph,) = parse("a **b *c*** `d` ~~e~~ [f](g)")

    assert isinstance(paragraph, Paragraph)
    assert [
        (piece.text, set(piece.marks), piece.href) for piece in paragraph.inline if piece.text != " "
    ] == [
        ("a ", set(), ""),
        ("b ", {Mark.STRONG}, ""),
        ("c", {Mark.STRONG, Mark.EMPHASIS}, ""),
        ("d", {Mark.CODE}, ""),
        ("e", {Mark.STRIKE}, ""),
        ("f", {Mark.LINK}, "g"),
    ]


def test_a_piece_of_a_list_counts_on_but_lists_in_it_do_not() -> None:
    (items,) = parse("1. a\n   1. b\n2. c", first_number=9)

    assert isinstance(items, Items)
    assert [item.marker for item in items.items] == ["9.", "10."]
    nested = items.items[0].blocks[1]
    assert isinstance(nested, Items)
    assert nested.items[0].marker == "1."


@pytest.mark.parametrize("hostile", ["&#8238;", "&#x202e;", "`&#8238;` &#8238;", "[x](y '&#8238;') &#8238;"])
def test_what_entities_stand_for_is_made_harmless(hostile: str) -> None:
    assert "\u202e" not in repr(parse(hostile)).encode().decode("unicode_escape")


def test_html_is_text() -> None:
    (paragraph,) = parse("<b>bold</b>")

    assert paragraph == Paragraph(plain("<b>bold</b>"))
