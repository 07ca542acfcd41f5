"""The history against a fake daemon: finding, opening, changing and taking along what was said before."""

from pathlib import Path

import pytest
from tests.fakes.daemon import GUIDE, FakeDaemon, answered, session
from tests.tui.conftest import Open, Terminal, text_of
from textual.widgets import Input, Static

from footplate_daemon import wire
from footplate_tui.screens.chat import ChatScreen
from footplate_tui.screens.history import PAGE, HistoryScreen
from footplate_tui.widgets.header import Header
from footplate_tui.widgets.question import Question
from footplate_tui.widgets.rows import Rows


@pytest.fixture
def daemon() -> FakeDaemon:
    daemon = FakeDaemon()
    store(daemon, "s1", "Bread", 1.0, ("How long does dough rest?", "An hour, or a night in the cold."))
    store(
        daemon,
        "s2",
        "Tea",
        2.0,
        ("Which water?", "Soft water."),
        ("How hot?", "Eighty degrees; a zeppelin of steam is too hot."),
        variant="vllm/qwen3-8b",
    )
    store(daemon, "s3", "Maps", 3.0, ("Where is Łódź?", "In the middle of Poland."))
    return daemon


def store(
    daemon: FakeDaemon, session_id: str, title: str, at: float, *turns: tuple[str, str], variant: str = GUIDE
) -> None:
    runtime, _, model = variant.partition("/")
    kept = session(
        session_id,
        title=title,
        updated_at=at,
        turns=tuple(
            answered(session_id, number, prompt, answer, variant=variant, runtime=runtime, model=model)
            for number, (prompt, answer) in enumerate(turns, 1)
        ),
    )
    daemon.store(kept.model_copy(update={"last_variant": variant if turns else None}))


async def open_history(terminal: Terminal) -> HistoryScreen:
    await terminal.until(lambda: bool(terminal.text.strip()))
    await terminal.pilot.press("ctrl+o")
    screen = await terminal.until_on(HistoryScreen)
    await terminal.until(lambda: "Asking the daemon" not in said(terminal))
    return screen


def history(terminal: Terminal) -> HistoryScreen:
    screen = terminal.app.screen
    assert isinstance(screen, HistoryScreen)
    return screen


async def until_found(terminal: Terminal, words: str) -> None:
    """Wait until the list is that of all the words: some of them may have found as much."""
    await terminal.until(lambda: history(terminal)._found_for == words)


def listed(terminal: Terminal) -> list[str]:
    """The lines of the list that are in sight."""
    rows = history(terminal).query_one(Rows)
    if not rows.display:
        return []
    return [line for y in range(rows.size.height) if (line := rows.render_line(y).text.strip())]


def titles(terminal: Terminal) -> list[str]:
    return [line.split()[0] for line in listed(terminal)]


def said(terminal: Terminal) -> str:
    """All that stands around the list."""
    return "\n".join(text_of(each) for each in terminal.app.screen.query(Static) if each.display)


def focused(terminal: Terminal) -> Input:
    widget = terminal.app.focused
    assert isinstance(widget, Input)
    return widget


def highlighted(terminal: Terminal) -> int | None:
    return history(terminal).query_one(Rows).highlighted


@pytest.mark.parametrize("size", [(80, 24), (160, 48), (50, 16)])
async def test_sessions_are_listed_newest_first_with_what_answered_them(
    size: tuple[int, int], daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon, size=size) as terminal:
        screen = await open_history(terminal)
        await terminal.until(lambda: titles(terminal) == ["Maps", "Tea", "Bread"])

        tea = listed(terminal)[1]
        assert "vllm" in tea
        assert ("vllm/qwen3-8b" in tea) == (size[0] >= 60)
        assert "2 turns" in tea
        assert screen.session_title == "History · 3 sessions"
        assert screen.query_one("KeyLine").region.bottom <= size[1]


async def test_a_wide_screen_previews_the_highlighted_session(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon, size=(160, 48)) as terminal:
        await open_history(terminal)
        await terminal.until(lambda: "In the middle of Poland." in said(terminal))
        await terminal.pilot.press("down")

        await terminal.until(lambda: "Soft water." in said(terminal))

        assert "▸ Which water?" in said(terminal)
        assert "2 turns · begun" in said(terminal)


async def test_an_empty_history_says_what_it_is_for(open_terminal: Open) -> None:
    async with open_terminal(FakeDaemon()) as terminal:
        await open_history(terminal)

        await terminal.until(lambda: "No sessions yet." in said(terminal))

        assert "Every chat is kept here by itself" in said(terminal)


async def test_only_pages_that_somebody_scrolls_to_are_read(open_terminal: Open) -> None:
    daemon = FakeDaemon()
    for number in range(10 * PAGE):
        daemon.store(session(f"n{number}", title=f"Number{number}", updated_at=float(number)))

    async with open_terminal(daemon) as terminal:
        screen = await open_history(terminal)
        rows = screen.query_one(Rows)
        await terminal.until(lambda: rows.row_count == PAGE)
        assert "and more" in str(screen.query_one(Header).render())
        await terminal.pilot.press("end")

        await terminal.until(lambda: rows.row_count == 2 * PAGE)

        assert rows.highlighted == PAGE - 1
        assert "Number900" in " ".join(listed(terminal))


async def test_enter_opens_the_highlighted_session_in_the_chat(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await open_history(terminal)
        await terminal.until(lambda: len(listed(terminal)) == 3)
        await terminal.pilot.press("down", "down", "enter")

        await terminal.until_shown("How long does dough rest?")

        assert "Bread" in str(terminal.screen.query_one(Header).render())
        await terminal.send("And rye?")
        await terminal.until(lambda: daemon.asked == ["And rye?"])
        assert daemon.newest.session_id == "s1"


async def test_typing_searches_and_a_hit_opens_at_its_turn(daemon: FakeDaemon, open_terminal: Open) -> None:
    long = [(f"Question {number}?", "Word.\n\n" * 20) for number in range(1, 80)]
    long[49] = ("Question 50?", "Here is the xylophone.")
    store(daemon, "s4", "Music", 4.0, *long)

    async with open_terminal(daemon) as terminal:
        await open_history(terminal)
        await terminal.until(lambda: len(listed(terminal)) == 4)
        await terminal.pilot.press(*"xylo")
        await terminal.until(lambda: len(listed(terminal)) == 2)
        head, words = listed(terminal)
        assert "Music" in head
        assert "turn 50 · answer" in head
        assert "the xylophone" in words
        await until_found(terminal, "xylo")
        await terminal.pilot.press("enter")
        await terminal.until(lambda: terminal.screen.is_active and "xylophone" in terminal.text)

        def asked() -> Question:
            return next(each for each in terminal.screen.query(Question) if each.text == "Question 50?")

        await terminal.until(lambda: asked().region.y - terminal.transcript.region.y in {0, 1})

        assert not terminal.transcript.is_following
        assert terminal.transcript.max_scroll_y > terminal.transcript.scroll_y


async def test_what_was_found_is_marked_and_hostile_text_is_harmless(open_terminal: Open) -> None:
    daemon = FakeDaemon()
    store(daemon, "s1", "\x1b]0;owned\x07 Tea", 1.0, ("Hot?", "\x1b[2J a\nzeppelin"))

    async with open_terminal(daemon) as terminal:
        screen = await open_history(terminal)
        await terminal.until(lambda: "␛]0;owned" in " ".join(listed(terminal)))
        await terminal.pilot.press("slash", *"zeppelin")
        await terminal.until(lambda: len(listed(terminal)) == 2)
        strip = screen.query_one(Rows).render_line(1)

        assert strip.text.strip() == "␛[2J a zeppelin"
        found = next(segment for segment in strip if segment.text == "zeppelin")
        assert found.style is not None
        assert found.style.bold


async def test_escape_leaves_the_search_and_then_the_history(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon) as terminal:
        await open_history(terminal)
        await terminal.pilot.press(*"nowhere")
        await terminal.until(lambda: "Nothing has all of “nowhere”" in said(terminal))
        await terminal.pilot.press("escape")
        await terminal.until(lambda: len(listed(terminal)) == 3)
        await terminal.pilot.press("escape")

        await terminal.until(lambda: terminal.screen.is_active)


async def test_a_session_is_renamed_in_its_place(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon) as terminal:
        await open_history(terminal)
        await terminal.until(lambda: len(listed(terminal)) == 3)
        await terminal.pilot.press("down", "r")
        await terminal.until(lambda: isinstance(terminal.app.focused, Input))
        assert focused(terminal).value == "Tea"
        await terminal.until(
            lambda: focused(terminal).region.y == history(terminal).query_one(Rows).region.y + 1
        )
        await terminal.pilot.press(*" time", "enter")

        await terminal.until(lambda: "Tea time" in listed(terminal)[1])

        assert daemon.stored["s2"].title == "Tea time"
        assert terminal.app.focused is history(terminal).query_one(Rows)


async def test_the_title_of_the_open_session_follows(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon) as terminal:
        await open_history(terminal)
        await terminal.until(lambda: len(listed(terminal)) == 3)
        await terminal.pilot.press("r", *" of Poland", "enter")
        await terminal.until(lambda: "Maps of Poland" in listed(terminal)[0])
        await terminal.pilot.press("ctrl+o")

        await terminal.until(lambda: terminal.screen.session_title == "Maps of Poland")


async def test_what_was_deleted_comes_back_by_u(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon) as terminal:
        await open_history(terminal)
        await terminal.until(lambda: len(listed(terminal)) == 3)
        await terminal.pilot.press("down", "d")
        await terminal.until(lambda: titles(terminal) == ["Maps", "Bread"])
        assert "“Tea” deleted · u brings it back" in said(terminal)
        assert highlighted(terminal) == 1
        await terminal.pilot.press("u")

        await terminal.until(lambda: titles(terminal) == ["Maps", "Tea", "Bread"])

        assert "“Tea” is back." in said(terminal)
        assert highlighted(terminal) == 1


async def test_deleting_can_be_undone_after_the_history_was_closed(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await open_history(terminal)
        await terminal.until(lambda: len(listed(terminal)) == 3)
        await terminal.pilot.press("d")
        await terminal.until(lambda: "s3" in daemon.deleted)
        await terminal.pilot.press("escape")
        await terminal.until(lambda: "Ask anything" in terminal.text or "built-in guide" in terminal.text)
        await open_history(terminal)
        await terminal.until(lambda: "“Maps” deleted · u brings it back" in said(terminal))
        await terminal.pilot.press("u")

        await terminal.until(lambda: titles(terminal) == ["Maps", "Tea", "Bread"])


async def test_a_fork_from_a_hit_has_the_turns_up_to_it_and_is_opened(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    store(daemon, "s4", "Cups", 4.0, ("One?", "Porcelain."), ("Two?", "Glass."), ("Three?", "Tin."))

    async with open_terminal(daemon) as terminal:
        await open_history(terminal)
        await terminal.pilot.press("slash", *"glass")
        await terminal.until(lambda: len(listed(terminal)) == 2)
        await until_found(terminal, "glass")
        await terminal.pilot.press("down", "f")

        await terminal.until(lambda: terminal.screen.is_active and "after turn 2" in terminal.screen.notice)

        assert daemon.stored["s5"].forked_from == "s4"
        assert "Glass." in terminal.text
        assert "Tin." not in terminal.text


async def test_an_export_goes_to_a_file_of_this_folder(
    daemon: FakeDaemon, open_terminal: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "maps.md").write_text("mine")

    async with open_terminal(daemon) as terminal:
        await open_history(terminal)
        await terminal.until(lambda: len(listed(terminal)) == 3)
        await terminal.pilot.press("e")
        await terminal.until(lambda: isinstance(terminal.app.focused, Input))
        assert focused(terminal).value == "maps-2.md"
        await terminal.pilot.press("enter")

        await terminal.until(lambda: f"Written to {tmp_path / 'maps-2.md'}." in said(terminal))

        assert (tmp_path / "maps-2.md").read_text() == "# Maps\n"


async def test_a_file_that_is_there_is_replaced_by_a_second_enter_only(
    daemon: FakeDaemon, open_terminal: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.md").write_text("mine")

    async with open_terminal(daemon) as terminal:
        await open_history(terminal)
        await terminal.until(lambda: len(listed(terminal)) == 3)
        await terminal.pilot.press("e")
        await terminal.until(lambda: isinstance(terminal.app.focused, Input))
        focused(terminal).value = "x.md"
        await terminal.pilot.press("enter")
        await terminal.until(lambda: "x.md is there already. ⏎ again replaces it." in said(terminal))
        assert (tmp_path / "x.md").read_text() == "mine"
        await terminal.pilot.press("enter")

        await terminal.until(lambda: "Written to" in said(terminal))


async def test_what_was_exported_as_json_is_taken_in(
    daemon: FakeDaemon, open_terminal: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    async with open_terminal(daemon) as terminal:
        await open_history(terminal)
        await terminal.until(lambda: len(listed(terminal)) == 3)
        await terminal.pilot.press("e")
        await terminal.until(lambda: isinstance(terminal.app.focused, Input))
        focused(terminal).value = "maps.json"
        await terminal.pilot.press("enter")
        await terminal.until(lambda: "Written to" in said(terminal))
        await terminal.pilot.press("i")
        await terminal.until(lambda: isinstance(terminal.app.focused, Input))
        await terminal.pilot.press(*"nowhere.json", "enter")
        await terminal.until(lambda: "nowhere.json: No such file or directory." in said(terminal))
        focused(terminal).value = "maps.json"
        await terminal.pilot.press("enter")

        await terminal.until(lambda: titles(terminal) == ["Maps", "Maps", "Tea", "Bread"])

        assert "“Maps” is here, with 1 turn." in said(terminal)


async def test_the_list_follows_what_other_terminals_do(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon) as terminal:
        await open_history(terminal)
        await terminal.until(lambda: len(listed(terminal)) == 3)
        await terminal.pilot.press("down")
        await daemon.change_elsewhere(session("s9", title="Elsewhere", updated_at=9.0))

        await terminal.until(lambda: titles(terminal) == ["Elsewhere", "Maps", "Tea", "Bread"])

        assert highlighted(terminal) == 2


async def test_without_a_daemon_it_says_how_to_start_one_and_fills_by_itself(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("Poland")
        await daemon.go_down()
        await terminal.pilot.press("ctrl+o")
        await terminal.until(
            lambda: isinstance(terminal.app.screen, HistoryScreen) and "footplate up" in said(terminal)
        )
        await daemon.come_back()

        await terminal.until(lambda: len(listed(terminal)) == 3)


async def test_what_changes_in_the_chat_under_it_paints_nothing(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await open_history(terminal)
        assert not terminal.screen.is_current
        await terminal.pilot.press("escape")

        await terminal.until(lambda: terminal.screen.is_current)


async def test_an_answer_that_streams_goes_on_while_another_session_is_open(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("Poland")
        await terminal.send("And Kraków?")
        await terminal.until(lambda: daemon.asked == ["And Kraków?"])
        await daemon.say("In the ")
        await terminal.until_shown("In the")
        await open_history(terminal)
        await terminal.until(lambda: len(listed(terminal)) == 3)
        await terminal.pilot.press("end", "enter")
        await terminal.until_shown("dough")
        assert not terminal.screen.is_busy
        await daemon.say("south.")
        await open_history(terminal)
        await terminal.until(lambda: len(listed(terminal)) == 3)
        await terminal.pilot.press("home", "enter")
        await terminal.until_shown("In the south.")
        await daemon.finish()

        await terminal.until(lambda: not terminal.screen.is_busy)

        assert daemon.newest.state is wire.TurnState.DONE


async def test_of_a_long_session_only_the_end_is_read_until_somebody_scrolls_up(open_terminal: Open) -> None:
    daemon = FakeDaemon()
    store(daemon, "s1", "Long", 1.0, *((f"Question {number}?", "Word.") for number in range(1, 501)))

    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("Question 500?")
        assert daemon.turns_asked_for == [(None, None, 60)]
        while "Question 430?" not in terminal.text:
            await terminal.pilot.press("pageup")
            await terminal.pilot.pause()

        assert (381, 60, None) in daemon.turns_asked_for


@pytest.mark.parametrize("session_id", ["s1", "gone"])
async def test_the_terminal_opens_with_the_session_that_is_asked_for(
    session_id: str, daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon, session_id=session_id) as terminal:
        await terminal.until_shown("dough" if session_id == "s1" else "There is no session gone.")

        assert isinstance(terminal.app.screen, ChatScreen)
