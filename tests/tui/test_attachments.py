"""Files that go with a question, long pastes, and what is kept of what was typed."""

from contextlib import closing
from pathlib import Path

import pytest
from tests.fakes.daemon import FakeDaemon
from tests.tui.conftest import Open, Terminal, text_of
from textual import events
from textual.widgets import Input, OptionList

from footplate_daemon import errors
from footplate_tui.enclosing import completions, dropped_paths, enclose, typed_path
from footplate_tui.remembered import Remembered
from footplate_tui.screens.attach import AttachScreen
from footplate_tui.widgets.chips import Chips


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    file = tmp_path / "my notes.txt"
    file.write_text("Milk")
    return file


def chips(terminal: Terminal) -> str:
    return str(terminal.screen.query_one(Chips).visual)


async def test_an_attached_file_is_shown_and_goes_with_the_question(
    daemon: FakeDaemon, open_terminal: Open, notes: Path
) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.send(f"/attach '{notes}'")
        await terminal.until(lambda: "+ my notes.txt 4 B" in chips(terminal))
        await terminal.send("What is on it?")
        await terminal.until(lambda: daemon.asked == ["What is on it?"])

        (sent,) = daemon.wishes[0].attachments or ()
        assert (sent.name, sent.data) == ("my notes.txt", "TWlsaw==")
        assert "+ my notes.txt · 4 B" in terminal.text
        assert not terminal.screen.query_one(Chips).display


async def test_a_file_that_is_dropped_on_the_terminal_is_attached(
    daemon: FakeDaemon, open_terminal: Open, notes: Path
) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        terminal.prompt.post_message(events.Paste(str(notes).replace(" ", "\\ ")))

        await terminal.until(lambda: "my notes.txt" in chips(terminal))
        assert terminal.prompt.text == ""


async def test_backspace_in_an_empty_prompt_takes_the_last_file_away(
    daemon: FakeDaemon, open_terminal: Open, notes: Path
) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.send(f"/attach {notes}")
        await terminal.until(lambda: "my notes.txt" in chips(terminal))
        await terminal.pilot.press("backspace")

        await terminal.until(lambda: not terminal.screen.query_one(Chips).display)


async def test_a_file_that_is_not_there_is_said(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.send("/attach /nowhere/file.png")

        await terminal.until(lambda: "No such file" in terminal.screen.notice)
        assert daemon.asked == []


async def test_files_come_back_with_a_question_that_was_refused(
    daemon: FakeDaemon, open_terminal: Open, notes: Path
) -> None:
    daemon.refuse_next(errors.Invalid("guide reads text only.", hint="These read images: ollama/eye."))

    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.send(f"/attach '{notes}'")
        await terminal.until(lambda: "my notes.txt" in chips(terminal))
        await terminal.send("What is on it?")
        await terminal.until_shown("These read images: ollama/eye.")

        assert terminal.prompt.text == "What is on it?"
        assert "my notes.txt" in chips(terminal)


async def test_a_path_is_completed_and_the_file_attached(
    daemon: FakeDaemon, open_terminal: Open, notes: Path
) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.pilot.press("f9")
        asking = await terminal.until_on(AttachScreen)
        asking.query_one(Input).value = f"{notes.parent}/my"
        fitting = asking.query_one(OptionList)
        await terminal.until(lambda: "my notes.txt" in text_of(fitting) and fitting.option_count == 1)
        await terminal.pilot.press("tab", "enter")

        await terminal.until(lambda: "my notes.txt" in chips(terminal))


async def test_a_long_paste_is_shown_in_a_few_words_kept_and_sent_whole(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    pasted = "\n".join(f"line {number}" for number in range(10_000))

    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.pilot.press(*"See: ")
        terminal.prompt.post_message(events.Paste(pasted))
        await terminal.until(lambda: terminal.prompt.text == "See: [10,000 lines pasted, 1]")
        await terminal.until(lambda: terminal.app.remembered.draft == f"See: {pasted}")
        await terminal.pilot.press("enter")
        await terminal.until(lambda: len(daemon.asked) == 1)

        assert daemon.asked == [f"See: {pasted}"]
        assert "more lines" in terminal.text


async def test_what_was_sent_is_brought_back_in_another_session(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.send("Remember me")
        await terminal.until(lambda: daemon.asked == ["Remember me"])

    async with open_terminal(FakeDaemon(is_demonstration=False)) as terminal:
        await terminal.until_shown("A new session")
        await terminal.pilot.press("up")

        await terminal.until(lambda: terminal.prompt.text == "Remember me")


def test_two_terminals_have_drafts_of_their_own_and_none_is_lost(tmp_path: Path) -> None:
    first, second = Remembered(tmp_path), Remembered(tmp_path)
    first.keep_draft("mine")
    second.keep_draft("yours")

    assert (first.draft, second.draft) == ("mine", "yours")

    first.keep_draft("")
    first.close()
    second.close()
    with closing(Remembered(tmp_path)) as again, closing(Remembered(tmp_path)) as beside:
        assert (again.draft, beside.draft) == ("yours", "")


def test_a_terminal_takes_what_one_that_crashed_has_left(tmp_path: Path) -> None:
    first = Remembered(tmp_path)
    first.keep_draft("half a thought")
    first.close()

    with closing(Remembered(tmp_path)) as second:
        assert second.draft == "half a thought"


@pytest.mark.parametrize("spelling", ["{}", "'{}'", '"{}"', "file://{}", " {}\n"])
def test_a_dropped_path_is_recognised_however_the_terminal_spells_it(spelling: str, notes: Path) -> None:
    assert dropped_paths(spelling.format(notes)) == [notes]


@pytest.mark.parametrize("text", ["", "hello", "/nowhere/file", "ls /tmp", "/tmp", "a\nb", "'unclosed"])
def test_other_text_is_no_dropped_path(text: str) -> None:
    assert dropped_paths(text) == []


def test_a_typed_path_may_be_quoted_or_not(notes: Path) -> None:
    assert typed_path(f"'{notes}'") == notes
    assert typed_path(str(notes)) == notes
    assert typed_path("~/x") == Path.home() / "x"


def test_completions_are_the_files_that_begin_so(notes: Path) -> None:
    (notes.parent / "folder").mkdir()
    (notes.parent / ".hidden").write_text("")

    assert completions(f"{notes.parent}/") == [f"{notes.parent}/folder/", f"{notes.parent}/my notes.txt"]
    assert completions(f"{notes.parent}/.h") == [f"{notes.parent}/.hidden"]
    assert completions("/nowhere/at/all") == []


def test_a_folder_is_no_attachment(tmp_path: Path) -> None:
    with pytest.raises(errors.Invalid, match="is a folder"):
        enclose(tmp_path)
