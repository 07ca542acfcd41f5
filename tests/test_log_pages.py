"""Logs page by page: backwards, on, and through rotations."""

from pathlib import Path

import pytest

from footplate_daemon.errors import Invalid
from footplate_daemon.log_pages import LONGEST_BYTES, Place, has_more, page, page_after


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "engine.log"


def test_pages_backwards_give_every_line_once(log: Path) -> None:
    lines = [f"line {number} " + "ü" * (number % 300) for number in range(2_500)]
    log.write_text("".join(f"{line}\n" for line in lines))

    found = page(log, 400)
    pages = [found]
    while not found.is_first:
        found = page(log, 400, found.begin)
        pages.append(found)

    assert [line for each in reversed(pages) for line in each.lines] == lines
    assert len(pages) == 7


def test_what_is_written_from_then_on_follows(log: Path) -> None:
    log.write_text("one\ntwo\nthr")
    first = page(log, 10)
    assert first.lines == ("one", "two")
    assert has_more(log, first.end)

    assert page_after(log, first.end).lines == ()
    with log.open("a") as more:
        more.write("ee\nfour\n")
    second = page_after(log, first.end)

    assert second.lines == ("three", "four")
    assert not has_more(log, second.end)


def test_a_line_without_an_end_is_given_when_it_is_asked_for(log: Path) -> None:
    log.write_text("one\nkilled")
    first = page(log, 10)

    assert page_after(log, first.end, takes_unfinished=True).lines == ("killed",)


def test_places_hold_when_the_log_is_rotated(log: Path) -> None:
    log.write_text("one\ntwo\nthree\n")
    last = page(log, 1)
    log.rename(log.with_name("engine.log.1"))
    log.write_text("four\n")

    assert page(log, 10, last.begin).lines == ("one", "two")
    moved = page_after(log, last.end)
    assert moved.lines == ("four",)

    newest = page(log, 10)
    assert newest.lines == ("four",)
    assert not newest.is_first
    assert page(log, 10, newest.begin).lines == ("one", "two", "three")


def test_a_log_that_is_emptied_or_replaced_is_read_from_its_beginning(log: Path) -> None:
    log.write_text("one\ntwo\n")
    end = page(log, 10).end
    log.write_text("new\n")

    assert page_after(log, end).lines == ("new",)


def test_a_log_that_is_not_there_is_empty_and_followed_from_its_first_line(log: Path) -> None:
    nothing = page(log, 10)
    assert nothing.lines == ()
    assert nothing.is_first
    assert not has_more(log, nothing.end)
    log.write_text("one\n")

    assert page_after(log, nothing.end).lines == ("one",)


def test_a_line_longer_than_a_page_comes_in_pieces(log: Path) -> None:
    log.write_bytes(b"x" * (LONGEST_BYTES * 2 + 10) + b"\nend\n")

    found = page(log, 1)
    assert found.lines == ("end",)
    pieces = []
    while not found.is_first:
        found = page(log, 10, found.begin)
        pieces.append("".join(found.lines))

    assert "".join(pieces) == "x" * (LONGEST_BYTES * 2 + 10)


@pytest.mark.parametrize("text", ["", "1", "-", "a-b", "1--2", "9" * 50 + "-1", "1-2-3"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        Place.parse(text)


def test_a_place_is_read_as_it_was_written() -> None:
    assert Place.parse(str(Place(12, 345))) == Place(12, 345)
