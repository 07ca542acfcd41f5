"""`footplate --plain`: a chat line by line, with a real daemon and the guide."""

import os
import signal
import subprocess
import sys

import pytest

from tests.cli.conftest import SECONDS, Shell

ANSWER = "llamacpp/guide: A preset holds"


@pytest.fixture
def footplate(started: Shell) -> Shell:
    """The command, with the guide active whatever was switched to before."""
    assert started("switch", "guide").returncode == 0
    return started


def chat(footplate: Shell, *lines: str, words: tuple[str, ...] = ("--plain",)) -> list[str]:
    """Type some lines; give what was written."""
    ended = subprocess.run(
        [sys.executable, "-m", "footplate_tui", *words],
        env=footplate.environment,
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def test_a_question_is_answered_as_plain_text(footplate: Shell) -> None:
    written = chat(footplate, "/new", "What is a preset?")

    assert any(ANSWER in line for line in written)
    assert any(line.startswith("End of answer: ") for line in written)
    assert not any("\x1b" in line or "\r" in line for line in written)


def test_the_session_goes_on_until_a_new_one_is_begun(footplate: Shell) -> None:
    chat(footplate, "/new", "What is a preset?")

    assert any(line.startswith("Session: What is a preset?, 1 turn.") for line in chat(footplate))
    assert any("A new session." in line for line in chat(footplate, "/new"))


def test_commands_are_listed_and_what_is_none_is_said(footplate: Shell) -> None:
    written = "\n".join(chat(footplate, "/help", "/stpo", "/models", "/status", "/stop", ""))

    assert "/switch NAME: " in written
    assert "/stpo is no command. /help lists them" in written
    assert "llamacpp/guide: ready, active" in written
    assert "No answer goes on in this session." in written


def test_a_question_that_begins_with_a_slash_is_asked_with_two(footplate: Shell) -> None:
    written = chat(footplate, "/new", "//new what is that?", "/quit", "never asked")

    assert sum(line.startswith("End of answer: ") for line in written) == 1


def test_a_switch_is_told_step_by_step_and_a_wrong_name_with_those_that_exist(footplate: Shell) -> None:
    written = "\n".join(chat(footplate, "/switch nope", "/switch second", "/switch guide", "/switch"))

    assert 'Error: There is no model "nope".' in written
    assert "What helps: " in written
    assert "llamacpp/second answers now." in written
    assert "llamacpp/guide answers now." in written
    assert "Which model? /switch NAME" in written


def test_the_environment_of_a_screen_reader_is_enough(footplate: Shell) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "footplate_tui"],
        env={**footplate.environment, "ACCESSIBLE": "1"},
        input="/status\n",
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert "llamacpp/guide answers." in ended.stdout


def test_ctrl_c_takes_a_switch_back(footplate: Shell) -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "footplate_tui", "--plain"],
        env=footplate.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write("/switch endless\n")
    process.stdin.flush()
    for line in process.stdout:
        if "stop" in line:
            break
    os.kill(process.pid, signal.SIGINT)

    written, _ = process.communicate(timeout=SECONDS)

    assert "The switch to llamacpp/endless was cancelled." in written
