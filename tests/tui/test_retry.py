"""Turns asked again, edited, gone on with: what is asked, and which answers stand beside each other."""

from tests.fakes.daemon import FakeDaemon, answered, model, session
from tests.tui.conftest import Open, Terminal
from textual.widgets import OptionList, Static

from footplate_daemon import errors
from footplate_tui.screens.turn import TurnScreen
from footplate_tui.widgets.answer import Answer
from footplate_tui.widgets.chips import Chips
from footplate_tui.widgets.versions import Versions

WIDE = (140, 40)


def two_turns(daemon: FakeDaemon) -> None:
    turns = (answered("s1", 1, "First?", "One."), answered("s1", 2, "Second?", "Two."))
    daemon.store(session("s1", turns=turns))


async def choose(terminal: Terminal, *keys: str) -> None:
    """Open what can be done with a turn, and press keys there."""
    await terminal.pilot.press("f7")
    await terminal.until(lambda: isinstance(terminal.app.screen, TurnScreen))
    await terminal.pilot.press(*keys)


async def test_a_retry_stands_beside_the_first_answer_and_says_which_one_goes_on(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    two_turns(daemon)

    async with open_terminal(daemon, size=WIDE) as terminal:
        await terminal.until_shown("Two.")
        await choose(terminal, "r")
        await terminal.until(lambda: len(daemon.wishes) == 1)
        await daemon.say("Two, again.")
        await daemon.finish()
        await terminal.until_shown("Two, again.")

        first, second = terminal.screen.query_one(Versions).query(Answer)
        await terminal.until(lambda: first.region.x < second.region.x)
        assert first.region.y == second.region.y
        assert (daemon.wishes[0].prompt, daemon.wishes[0].instead_of) == ("Second?", 2)
        assert terminal.text.count("· goes on") == 1


async def test_where_there_is_little_room_answers_stand_one_below_the_other(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    turns = (answered("s1", 1, "Q?", "Old."), answered("s1", 2, "Q?", "New.", instead_of=1))
    daemon.store(session("s1", turns=turns))

    async with open_terminal(daemon, size=(80, 24)) as terminal:
        await terminal.until_shown("New.")

        first, second = terminal.screen.query_one(Versions).query(Answer)
        await terminal.until(lambda: second.region.y > first.region.y)
        assert first.region.x == second.region.x


async def test_a_retry_on_another_runtime_asks_that_one(daemon: FakeDaemon, open_terminal: Open) -> None:
    daemon.catalog = [model("guide", "vllm"), model("qwen", "ollama")]
    two_turns(daemon)

    async with open_terminal(daemon, size=WIDE) as terminal:
        await terminal.until_shown("Two.")
        await choose(terminal, "o")
        await terminal.until(lambda: terminal.app.screen.query_one(OptionList).option_count == 2)
        await terminal.pilot.press("enter")
        await terminal.until(lambda: len(daemon.wishes) == 1)
        await daemon.say("Two, faster.")
        await daemon.finish()
        await terminal.until_shown("Two, faster.")

        assert (daemon.wishes[0].model, daemon.wishes[0].instead_of) == ("vllm/guide", 2)
        assert "Two." in terminal.text
        assert "guide @ vllm" in terminal.text


async def test_the_other_answer_can_be_gone_on_from(daemon: FakeDaemon, open_terminal: Open) -> None:
    turns = (
        answered("s1", 1, "Q?", "Old."),
        answered("s1", 2, "And then?", "What followed."),
        answered("s1", 3, "Q?", "New.", instead_of=1),
    )
    daemon.store(session("s1", turns=turns))

    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("New.")
        assert "What followed." not in terminal.text
        await choose(terminal, "p")
        await terminal.until_shown("What followed.")
        await terminal.send("Further?")
        await terminal.until(lambda: len(daemon.wishes) == 1)

        assert daemon.wishes[0].after == 2


async def test_an_edited_question_stands_in_the_place_of_the_old_one(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    two_turns(daemon)

    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("Two.")
        await choose(terminal, "left", "e")
        await terminal.until(lambda: terminal.prompt.text == "First?")
        assert "instead of turn 1" in str(terminal.screen.query_one(Chips).visual)
        await terminal.send("First, but better?")
        await terminal.until(lambda: len(daemon.wishes) == 1)
        await daemon.say("One and a half.")
        await daemon.finish()
        await terminal.until_shown("One and a half.")

        assert daemon.wishes[0].instead_of == 1
        assert "Second?" not in terminal.text
        assert "First, but better?" in terminal.text


async def test_escape_leaves_the_question_as_it_was(daemon: FakeDaemon, open_terminal: Open) -> None:
    two_turns(daemon)

    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("Two.")
        await choose(terminal, "e")
        await terminal.until(lambda: terminal.prompt.text == "Second?")
        await terminal.pilot.press("escape")
        await terminal.until(lambda: terminal.prompt.text == "")
        await terminal.send("A third?")
        await terminal.until(lambda: len(daemon.wishes) == 1)

        assert daemon.wishes[0].instead_of is None


async def test_an_edited_question_that_is_refused_comes_back(daemon: FakeDaemon, open_terminal: Open) -> None:
    two_turns(daemon)
    daemon.refuse_next(errors.Busy("Too many questions wait.", hint="Wait."))

    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("Two.")
        await choose(terminal, "e")
        await terminal.until(lambda: terminal.prompt.text == "Second?")
        await terminal.send("Second, better?")
        await terminal.until_shown("Too many questions wait.")

        assert terminal.prompt.text == "Second, better?"
        await terminal.pilot.press("enter")
        await terminal.until(lambda: len(daemon.wishes) == 1)
        assert daemon.wishes[0].instead_of == 2


async def test_an_answer_that_was_cut_off_is_continued_in_its_place(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    cut = answered("s1", 1, "Tell me", "It began", finish_reason="length")
    daemon.store(session("s1", turns=(cut,)))

    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("cut off at max_tokens")
        await choose(terminal, "c")
        await terminal.until(lambda: len(daemon.wishes) == 1)
        await daemon.say(" and went on.")
        await daemon.finish()
        await terminal.until_shown("It began and went on.")

        assert daemon.wishes[0].continue_of == 1
        assert "Continue exactly" not in terminal.text
        assert len(terminal.screen.query(Answer)) == 1


async def test_what_a_turn_does_not_allow_is_said(daemon: FakeDaemon, open_terminal: Open) -> None:
    two_turns(daemon)

    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("Two.")
        await choose(terminal, "c")

        await terminal.until(
            lambda: "not for this turn" in str(terminal.app.screen.query_one(".news", Static).visual)
        )


async def test_while_an_answer_comes_nothing_is_asked_again(daemon: FakeDaemon, open_terminal: Open) -> None:
    two_turns(daemon)

    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("Two.")
        await terminal.send("Third?")
        await terminal.until(lambda: len(daemon.wishes) == 1)
        await choose(terminal, "r")
        await terminal.until(lambda: "Wait for the answer" in terminal.screen.notice)

        assert len(daemon.wishes) == 1


async def test_without_a_turn_there_is_nothing_to_do(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.pilot.press("f7")

        await terminal.until(lambda: "no turn yet" in terminal.screen.notice)
