"""What is decided about the terminal."""

from pathlib import Path

import pytest
import textual

from footplate_tui.remembered import Remembered
from footplate_tui.terminal import (
    TESTED_TEXTUAL_VERSIONS,
    ClipboardRoute,
    Colours,
    clipboard_route,
    colours,
    mend_textual,
    prepare,
)


@pytest.mark.parametrize(
    ("environment", "chosen"),
    [
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, Colours.TRUECOLOR),
        ({"TERM": "xterm-kitty"}, Colours.TRUECOLOR),
        ({"TERM": "xterm-256color"}, Colours.PALETTE),
        ({"TERM": "tmux-256color", "TMUX": "/tmp/t,1,0", "TERM_PROGRAM": "kitty"}, Colours.PALETTE),
        ({"TERM": "linux"}, Colours.SIXTEEN),
        ({}, Colours.PALETTE),
    ],
)
def test_colours(environment: dict[str, str], chosen: Colours) -> None:
    assert colours(environment) is chosen


def test_what_the_user_set_for_textual_stays() -> None:
    environment = {"TERM": "xterm-256color", "TEXTUAL_COLOR_SYSTEM": "truecolor"}

    prepare(environment)

    assert environment["TEXTUAL_COLOR_SYSTEM"] == "truecolor"
    assert environment["TEXTUAL_ANIMATIONS"] == "none"


@pytest.mark.parametrize(
    ("environment", "route"),
    [
        ({"TMUX": "/tmp/tmux-0/default,1,0"}, ClipboardRoute.TMUX),
        ({"TMUX": ""}, ClipboardRoute.TERMINAL),
        ({"SSH_CONNECTION": "x"}, ClipboardRoute.TERMINAL),
    ],
)
def test_the_way_to_the_clipboard(environment: dict[str, str], route: ClipboardRoute) -> None:
    assert clipboard_route(environment) is route


def test_textual_is_changed_only_where_that_was_tested() -> None:
    assert not mend_textual("0.0.1", slim=True)
    assert textual.__version__ in TESTED_TEXTUAL_VERSIONS


def test_a_folder_that_cannot_be_written_costs_the_memory_not_the_program(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    remembered = Remembered(tmp_path / "file")

    assert not remembered.keep_draft("text")
    assert remembered.draft == ""
