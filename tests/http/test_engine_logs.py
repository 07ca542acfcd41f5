"""An engine's log as text: its last lines, and what is written from then on."""

import asyncio
from pathlib import Path

from footplate_daemon.http.control.engines import _log_lines


async def test_a_line_that_is_being_written_comes_once_and_whole(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text("old\nfirst\nsec")
    following = _log_lines(log, 1, asyncio.Event())

    before = await anext(following)
    with log.open("a") as stream:
        stream.write("ond\nthi")
    after = await anext(following)

    assert (before, after) == (b"first\n", b"second\n")


async def test_without_following_the_line_that_has_no_end_is_given_too(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text("first\nsec")

    assert [piece async for piece in _log_lines(log, 2, None)] == [b"first\nsec\n"]
