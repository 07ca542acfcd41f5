"""The chat against a fake daemon: what is asked, what is shown, what is never lost."""

import pytest
from tests.fakes.daemon import FakeDaemon, answered, session
from tests.tui.conftest import Open
from textual.widgets import OptionList

from footplate_daemon import errors
from footplate_tui.widgets.answer import Answer
from footplate_tui.widgets.header import Header
from footplate_tui.widgets.reasoning import Reasoning
from footplate_tui.widgets.transcript import ROWS_KEPT, Pill

CLOSED_HEIGHT = 2
"""A line, and a gap below it."""
LONG = "\n\n".join(f"Paragraph {number} of a long answer." for number in range(1, 61))


async def test_an_answer_is_shown_while_it_streams_and_says_who_wrote_it(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.send("How do I switch runtime?")
        await terminal.until(lambda: daemon.asked == ["How do I switch runtime?"])
        await daemon.say("Press **Ctrl+R**")
        await terminal.until_shown("Press Ctrl+R")
        await daemon.say(" and choose.\n\nThen ask.")
        await daemon.finish(completion_tokens=12, tokens_per_second=87.4, ttft_seconds=0.21)

        await terminal.until_shown("guide @ llamacpp · 12 tok · 87.4 tok/s · first 0.21 s")

        assert "Press Ctrl+R and choose." in terminal.text
        assert "Then ask." in terminal.text
        assert terminal.screen.session_title == "How do I switch runtime?"


async def test_the_guide_is_called_what_it_is_and_its_examples_can_be_chosen(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("a tiny demonstration model that knows only its guide")
        await terminal.pilot.press("up")
        await terminal.until(lambda: isinstance(terminal.app.focused, OptionList))
        await terminal.pilot.press("home", "enter")

        await terminal.until(lambda: daemon.asked == ["How do I switch runtime?"])


async def test_another_model_is_not_called_a_demonstration(open_terminal: Open) -> None:
    async with open_terminal(FakeDaemon(is_demonstration=False)) as terminal:
        await terminal.until_shown("A new session with guide @ llamacpp")

        assert "demonstration" not in terminal.text


async def test_the_last_session_is_resumed(daemon: FakeDaemon, open_terminal: Open) -> None:
    daemon.store(session("old", title="Older", updated_at=1.0))
    turn = answered("new", 1, "What is a preset?", "Launch parameters.")
    daemon.store(session("new", title="Presets", updated_at=2.0, turns=(turn,)))

    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("Launch parameters.")

        assert terminal.screen.session_title == "Presets"
        assert "42 tok" in terminal.text


async def test_an_answer_that_runs_when_the_terminal_opens_is_followed(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    running = answered("s1", 1, "Go on?", "It began", state="streaming", ended_at=None, finish_reason=None)
    daemon.store(session("s1", turns=(running,)))

    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("It began")
        await daemon.say(" and went on.")
        await daemon.finish()

        await terminal.until_shown("It began and went on.")


async def test_only_a_window_of_a_long_session_is_mounted_and_older_turns_come_when_scrolled_to(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    turns = tuple(answered("s1", number, f"Question {number}", "Answer.") for number in range(1, 201))
    daemon.store(session("s1", turns=turns))

    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("Question 200")
        mounted = len(terminal.screen.query(Answer))
        assert mounted < 50
        await terminal.until(lambda: terminal.transcript.scroll_y > 0)
        terminal.transcript.scroll_to(y=0, animate=False)

        await terminal.until(lambda: len(terminal.screen.query(Answer)) > mounted)


def long_session(daemon: FakeDaemon, turns: int) -> None:
    answer = "Answer.\n\n" * 6
    stored = tuple(answered("s1", number, f"Question {number}.", answer) for number in range(1, turns + 1))
    daemon.store(session("s1", turns=stored))


async def test_what_is_read_stays_where_it_is_when_older_turns_are_mounted_above(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    long_session(daemon, 200)

    async with open_terminal(daemon) as terminal:
        await terminal.until(lambda: terminal.transcript.scroll_y > 0)
        mounted = len(terminal.screen.query(Answer))
        reader = next(iter(terminal.screen.query(Answer)))
        terminal.transcript.scroll_to(y=reader.virtual_region.y, animate=False)
        seen: set[int] = {reader.region.y}
        while len(terminal.screen.query(Answer)) == mounted or reader.virtual_region.y < 50:
            await terminal.pilot.pause()
            seen.add(reader.region.y)

        assert reader.region.y == terminal.transcript.region.y
        assert terminal.transcript.scroll_y == reader.virtual_region.y


async def test_however_far_one_scrolls_only_what_is_near_is_mounted_and_end_goes_to_the_end(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    long_session(daemon, 250)

    async with open_terminal(daemon) as terminal:
        await terminal.until(lambda: terminal.transcript.scroll_y > 0)
        most = 0
        while "Question 1." not in terminal.text:
            terminal.transcript.scroll_to(y=0, animate=False)
            await terminal.pilot.pause()
            most = max(most, len(terminal.screen.query(Answer)))
        assert most * 16 < 4 * ROWS_KEPT
        assert "Question 250." not in terminal.text
        assert not terminal.transcript.is_following
        while "Question 250." not in terminal.text:
            terminal.transcript.scroll_end(animate=False)
            await terminal.pilot.pause()
        assert "Question 1." not in terminal.text
        terminal.transcript.scroll_to(y=0, animate=False)

        await terminal.pilot.press("end")

        await terminal.until(lambda: terminal.transcript.is_following)
        assert "Question 250." in terminal.text
        await terminal.send("One more?")
        await terminal.until(lambda: daemon.asked == ["One more?"])


async def test_a_question_asked_far_above_the_end_is_seen_at_the_end(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    long_session(daemon, 400)

    async with open_terminal(daemon) as terminal:
        await terminal.until(lambda: terminal.transcript.scroll_y > 0)
        while "Question 400." in terminal.text:
            terminal.transcript.scroll_to(y=0, animate=False)
            await terminal.pilot.pause()

        await terminal.send("One more?")
        await terminal.until(lambda: daemon.asked == ["One more?"])
        await daemon.say("Yes.")
        await terminal.until_shown("Yes.")

        assert "Question 400." in terminal.text
        await terminal.until(lambda: terminal.transcript.is_following)


async def test_scrolling_up_lets_go_of_the_end_and_end_takes_hold_again(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    daemon.store(session("s1", turns=(answered("s1", 1, "Tell me more", LONG),)))

    async with open_terminal(daemon) as terminal:
        await terminal.until(lambda: terminal.transcript.max_scroll_y > 50)
        await terminal.send("And on?")
        await terminal.until(lambda: len(daemon.asked) == 1)
        await terminal.pilot.press("pageup")
        await terminal.until(lambda: not terminal.transcript.is_following)
        read_at = terminal.transcript.scroll_y
        await daemon.say("New.\n\n" * 20)
        await terminal.until(lambda: terminal.transcript.lines_below > 0)
        pill = terminal.screen.query_one(Pill)
        assert terminal.transcript.scroll_y == read_at
        assert pill.display
        assert "new line" in str(pill.visual)

        await terminal.pilot.press("end")

        await terminal.until(lambda: terminal.transcript.is_following)
        await terminal.until(lambda: terminal.transcript.scroll_y == terminal.transcript.max_scroll_y)
        assert not pill.display


async def test_escape_stops_the_answer_and_keeps_what_came(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.send("Tell me all")
        await terminal.until(lambda: len(daemon.asked) == 1)
        await daemon.say("As far as this")
        await terminal.until_shown("As far as this")
        await terminal.pilot.press("escape")

        await terminal.until_shown("· stopped")

        assert "As far as this" in terminal.text
        assert "Tell me all" in terminal.text


async def test_an_error_is_shown_in_its_place_with_its_hint(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.send("Go")
        await terminal.until(lambda: len(daemon.asked) == 1)
        await daemon.say("Half an ans")
        await daemon.fail("The engine died while it answered.", "See: footplate logs")

        await terminal.until_shown("· failed")

        assert "✗ The engine died while it answered.\nSee: footplate logs" in terminal.text
        assert "Half an ans" in terminal.text


async def test_a_cut_line_is_mended_and_loses_nothing(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.send("Count")
        await terminal.until(lambda: len(daemon.asked) == 1)
        await daemon.say("one ")
        await terminal.until_shown("one")
        await daemon.go_down()
        await terminal.until(lambda: "Reconnecting" in terminal.screen.notice)
        await daemon.say("two ")
        await daemon.come_back()
        await daemon.say("three")
        await daemon.finish()

        await terminal.until_shown("one two three")

        assert daemon.attached_with == [None, "1"]
        await terminal.until(lambda: terminal.screen.is_connected)


async def test_an_answer_that_the_daemon_lost_in_a_crash_is_kept_with_the_reason(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.send("Go")
        await terminal.until(lambda: len(daemon.asked) == 1)
        await daemon.say("What I had so far")
        await terminal.until_shown("What I had so far")
        await daemon.crash()
        await terminal.until(lambda: not terminal.screen.is_connected)
        await daemon.come_back()

        await terminal.until_shown("The daemon stopped while this was being answered.")

        assert "What I had so far" in terminal.text


async def test_a_refused_prompt_comes_back_into_the_box(daemon: FakeDaemon, open_terminal: Open) -> None:
    daemon.refuse_next(errors.Busy("Too many questions wait.", hint="Try again in a minute."))

    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.send("A long and careful question")

        await terminal.until_shown("Too many questions wait.\nTry again in a minute.")

        assert terminal.prompt.text == "A long and careful question"
        assert "A long and careful question" not in terminal.text


async def test_a_prompt_sent_while_the_daemon_is_away_is_asked_once_when_it_is_back(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        await daemon.go_down()
        await terminal.send("Are you there?")
        await terminal.until_shown("waits for the daemon · Esc takes it back")
        await daemon.come_back()

        await terminal.until(lambda: daemon.asked == ["Are you there?"])

        await terminal.until(lambda: "waits for the daemon" not in terminal.text)


async def test_a_prompt_that_waits_for_the_daemon_can_be_taken_back(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        await daemon.go_down()
        await terminal.send("Never mind")
        await terminal.until_shown("waits for the daemon")
        await terminal.pilot.press("escape")

        await terminal.until(lambda: terminal.prompt.text == "Never mind")

        assert "waits" not in terminal.text
        assert daemon.asked == []


async def test_a_question_whose_receipt_was_cut_off_is_not_asked_twice(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        daemon.take_next_but_cut()
        await terminal.send("Once only")
        await terminal.until(lambda: len(daemon.attached_with) == 1)
        await daemon.say("Answered once.")

        await terminal.until_shown("Answered once.")

        assert daemon.asked == ["Once only"]


async def test_a_question_asked_during_an_answer_waits_for_its_turn(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.send("First")
        await terminal.until(lambda: daemon.asked == ["First"])
        await terminal.send("Second")
        await terminal.until_shown("waits for the answer above")
        assert daemon.asked == ["First"]
        await daemon.say("One.")
        await daemon.finish()

        await terminal.until(lambda: daemon.asked == ["First", "Second"])


async def test_what_was_typed_survives_the_end_of_the_terminal(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.pilot.press(*"half a thought")

    async with open_terminal(FakeDaemon()) as terminal:
        assert terminal.prompt.text == "half a thought"


async def test_a_draft_is_on_disk_before_anyone_quits(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.pilot.press(*"crash me")

        await terminal.until(lambda: terminal.app.remembered.draft == "crash me")


async def test_reasoning_is_open_while_it_streams_and_closes_when_the_answer_begins(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.send("Think")
        await terminal.until(lambda: len(daemon.asked) == 1)
        await daemon.say(reasoning="First I wonder.")
        await terminal.until_shown("First I wonder.")
        await daemon.say("Then I answer.")
        await daemon.finish()
        await terminal.until_shown("▸ thought for")
        assert not terminal.screen.query_one(Reasoning).is_open

        await terminal.pilot.press("f2")

        await terminal.until(lambda: terminal.screen.query_one(Reasoning).is_open)


async def test_closed_reasoning_leaves_no_room_behind(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.send("Think long")
        await terminal.until(lambda: len(daemon.asked) == 1)
        await daemon.say(reasoning="First I wonder, and then again. " * 20)
        await terminal.until(
            lambda: any(each.size.height > CLOSED_HEIGHT for each in terminal.screen.query(Reasoning))
        )
        await daemon.say("Then I answer.")
        await terminal.until_shown("▸ thought for")

        await terminal.until(lambda: terminal.screen.query_one(Reasoning).outer_size.height == CLOSED_HEIGHT)


async def test_hostile_output_reaches_the_screen_as_harmless_text(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    hostile = "a\x1b]52;c;ZXZpbA==\x07b\x1b[2Jc\x1b]8;;http://x\x1b\\d\u202ee \x9b31m"

    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.send("Be evil")
        await terminal.until(lambda: len(daemon.asked) == 1)
        await daemon.say(hostile)
        await daemon.finish()
        await terminal.until_shown("␛]52;c;ZXZpbA==␇")

        assert not set(terminal.text) & set("\x1b\x07\x9b\u202e")


async def test_up_in_an_empty_prompt_brings_back_earlier_prompts(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    turns = (answered("s1", 1, "First?", "1"), answered("s1", 2, "Second?", "2"))
    daemon.store(session("s1", turns=turns))

    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("Second?")
        await terminal.pilot.press("up")
        await terminal.until(lambda: terminal.prompt.text == "Second?")
        await terminal.pilot.press("up")
        await terminal.until(lambda: terminal.prompt.text == "First?")
        await terminal.pilot.press("down", "down")
        await terminal.until(lambda: terminal.prompt.text == "")


async def test_ctrl_j_begins_a_line_and_enter_sends_both(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("built-in guide")
        await terminal.pilot.press("a", "ctrl+j", "b", "enter")

        await terminal.until(lambda: daemon.asked == ["a\nb"])


async def test_a_new_session_is_empty_and_is_made_with_its_first_question(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    daemon.store(session("s1", title="Old", turns=(answered("s1", 1, "Old?", "Old."),)))

    async with open_terminal(daemon) as terminal:
        await terminal.until_shown("Old.")
        await terminal.pilot.press("ctrl+n")
        await terminal.until_shown("built-in guide")
        assert len(daemon.stored) == 1
        await terminal.send("New?")

        await terminal.until(lambda: daemon.asked == ["New?"])

        assert len(daemon.stored) == 2


async def test_light_or_dark_is_remembered(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.pilot.press("ctrl+t")
        await terminal.until(lambda: terminal.app.remembered.theme == "footplate-light")

    async with open_terminal(FakeDaemon()) as terminal:
        assert terminal.app.theme == "footplate-light"


@pytest.mark.parametrize("size", [(80, 24), (160, 48), (40, 12)])
async def test_the_header_names_who_answers_at_every_size(
    size: tuple[int, int], daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon, size=size) as terminal:
        await terminal.until_shown("built-in guide")

        assert "● guide @ llamacpp" in str(terminal.screen.query_one(Header).render())


async def test_copying_says_which_way_it_went(daemon: FakeDaemon, open_terminal: Open) -> None:
    daemon.store(session("s1", turns=(answered("s1", 1, "Q", "To be copied"),)))

    async with open_terminal(daemon, environment={}) as terminal:
        await terminal.until_shown("To be copied")
        await terminal.pilot.press("ctrl+y")

        await terminal.until(lambda: terminal.app.clipboard == "To be copied")
        await terminal.until(
            lambda: any("the terminal (OSC 52)" in note.message for note in terminal.app._notifications)
        )


async def test_help_lists_the_keys_and_escape_closes_it(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.pilot.press("f1")
        await terminal.until(lambda: len(terminal.app.screen_stack) == 3)
        await terminal.pilot.press("escape")

        await terminal.until(lambda: len(terminal.app.screen_stack) == 2)


@pytest.mark.parametrize("turns", range(1, 6))
async def test_a_session_that_fits_is_followed_from_the_start(
    turns: int, daemon: FakeDaemon, open_terminal: Open
) -> None:
    answer = "An answer of words enough for two lines, on a terminal that is a hundred columns wide. " * 2
    stored = tuple(answered("s1", number, f"Question {number}.", answer) for number in range(1, turns + 1))
    daemon.store(session("s1", turns=stored))

    async with open_terminal(daemon, size=(100, 8 * turns + 5)) as terminal:
        await terminal.until_shown(f"Question {turns}.")
        await terminal.until(lambda: terminal.transcript.virtual_size.height > 5)

        await terminal.until(lambda: terminal.transcript.is_following)
        assert not terminal.screen.query_one(Pill).display
