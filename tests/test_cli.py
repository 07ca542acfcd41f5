"""The command line, as programs and pipes see it, with a real daemon behind it."""

import asyncio
import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import cast

import pytest
from click.testing import CliRunner

from footplate_daemon import lifecycle, logs, wire
from footplate_daemon.client import FootplateClient
from footplate_daemon.paths import Paths
from footplate_tui.__main__ import VERBS, footplate
from footplate_tui.cli import models as models_verb
from footplate_tui.cli import status as status_verb
from footplate_tui.cli.logs import follow, last_lines
from footplate_tui.cli.output import csv_line, size, table
from tests.conftest import ready_engine

SECONDS = 180


def environment(paths: Paths) -> dict[str, str]:
    return {**os.environ, "FOOTPLATE_HOME": str(paths.run_dir.parent)}


def run(paths: Paths, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "footplate_tui", *words],
        input=given,
        env=environment(paths),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_up_lets_go_of_its_pipes_and_of_the_terminal(home: Paths) -> None:
    up = run(home, "up")
    again = run(home, "up", "--json")

    assert (up.returncode, up.stderr) == (0, "")
    assert up.stdout.startswith("Footplate is up after")
    assert json.loads(again.stdout)["was_up"] is True
    pid = lifecycle.state(home).supervisord_pid
    assert {Path(f"/proc/{pid}/fd/{fd}").readlink() for fd in (0, 1, 2)} == {Path(os.devnull)}
    assert run(home, "down").stdout == "Footplate is down.\n"
    assert run(home, "down").stdout == "Footplate was not up.\n"


def test_status_names_the_engine_as_supervisorctl_does(running_home: Paths) -> None:
    status = wire.Status.model_validate_json(run(running_home, "status", "--json").stdout)
    shown = run(running_home, "status").stdout
    listed = run(running_home, "supervisorctl", "status").stdout

    (engine,) = status.engines
    assert engine.runtime == "llamacpp"
    assert f"active  {status.active}" in shown
    assert f"pid {engine.pid}," in listed
    assert engine.name in shown


def test_status_without_a_daemon_exits_3_with_a_hint(home: Paths) -> None:
    plain = run(home, "status")
    for_programs = run(home, "status", "--json")

    assert (plain.returncode, plain.stdout) == (3, "")
    assert "hint: Start it: footplate up" in plain.stderr
    assert for_programs.returncode == 3
    assert json.loads(for_programs.stdout)["error"]["code"] == "daemon_unreachable"


def test_models_lists_the_guide_as_a_demonstration(running_home: Paths) -> None:
    shown = run(running_home, "models").stdout
    listed = json.loads(run(running_home, "models", "--json").stdout)

    assert "llamacpp/guide" in shown
    assert "a demonstration" in shown
    assert "guide" in [model["name"] for model in listed["models"]]


def test_ask_writes_the_answer_and_nothing_else(running_home: Paths) -> None:
    asked = run(running_home, "ask", "How do I switch runtime?")

    assert (asked.returncode, asked.stderr) == (0, "")
    assert "footplate" in asked.stdout
    assert asked.stdout.endswith("\n")
    assert "\x1b" not in asked.stdout


def test_ask_takes_its_question_from_a_pipe(running_home: Paths) -> None:
    by_argument = run(running_home, "ask", "--temperature", "0", "How do I switch runtime?")
    by_pipe = run(running_home, "ask", "--temperature", "0", given="How do I switch runtime?\n")

    assert by_pipe.stdout == by_argument.stdout


def test_ask_as_json_tells_who_answered(running_home: Paths) -> None:
    answer = json.loads(run(running_home, "ask", "--json", "--max-tokens", "3", "What is a preset?").stdout)

    assert answer["answer"]
    assert answer["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3


def test_ask_in_a_session_adds_a_turn(running_home: Paths) -> None:
    refused = run(running_home, "ask", "--session", "no-such-session", "What is a preset?")

    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ")
    assert refused.stdout == ""


def test_ask_starts_what_is_down(home: Paths) -> None:
    asked = run(home, "ask", "What is a preset?")

    assert (asked.returncode, asked.stderr) == (0, "")
    assert asked.stdout.strip()


def test_an_unknown_model_is_an_error_with_a_hint(running_home: Paths) -> None:
    asked = run(running_home, "ask", "--model", "nope", "Hello")
    for_programs = run(running_home, "ask", "--json", "--model", "nope", "Hello")

    assert asked.returncode == 1
    assert asked.stdout == ""
    assert "nope" in asked.stderr
    assert "hint: " in asked.stderr
    assert json.loads(for_programs.stdout)["error"]["code"] == "not_found"


def test_asking_nothing_is_wrong_usage(home: Paths) -> None:
    asked = run(home, "ask")

    assert asked.returncode == 2
    assert "There is no question" in asked.stderr


@pytest.fixture
def held_engine(running_home: Paths) -> Iterator[int]:
    """The pid of the engine, which is stopped in its tracks."""
    pid = asyncio.run(ready_engine(running_home)).pid
    assert pid
    os.kill(pid, signal.SIGSTOP)
    yield pid
    os.kill(pid, signal.SIGCONT)


def start_asking(paths: Paths) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "footplate_tui", "ask", "What is a preset?"],
        env=environment(paths),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def until_asked(paths: Paths) -> None:
    """Return when the engine has a request."""
    async with asyncio.timeout(SECONDS), FootplateClient(paths.socket) as client:
        async for status in client.follow_status():
            if any(engine.leases for engine in status.engines):
                return


@pytest.mark.usefixtures("held_engine")
def test_an_interrupted_ask_exits_130_without_a_trace(running_home: Paths) -> None:
    with start_asking(running_home) as asking:
        asyncio.run(until_asked(running_home))
        asking.send_signal(signal.SIGINT)

        written, said = asking.communicate(timeout=SECONDS)
        assert (asking.returncode, written, said.strip()) == (130, "", "")


def test_a_closed_pipe_ends_ask_quietly(running_home: Paths, held_engine: int) -> None:
    with start_asking(running_home) as asking:
        assert asking.stdout
        assert asking.stderr
        asking.stdout.close()
        os.kill(held_engine, signal.SIGCONT)

        assert asking.wait(SECONDS) == 1
        assert asking.stderr.read() == ""


def test_logs_show_the_daemons_lines_for_people(running_home: Paths) -> None:
    shown = run(running_home, "logs").stdout
    raw = run(running_home, "logs", "--json", "-n", "1").stdout

    assert " INFO    started  version=" in shown
    assert json.loads(raw)["level"]


def test_logs_of_an_engine_stay_when_it_is_down(home: Paths) -> None:
    home.make()
    (home.logs_dir / "engine-llamacpp-guide.log").write_text("one\ntwo\nthree\n")

    assert run(home, "logs", "llamacpp-guide", "-n", "2").stdout == "two\nthree\n"


def test_logs_of_an_unknown_engine_say_which_there_are(home: Paths) -> None:
    home.make()
    (home.logs_dir / "engine-llamacpp-guide.log").touch()

    shown = run(home, "logs", "nope")

    assert shown.returncode == 1
    assert "hint: Engines with a log: llamacpp-guide" in shown.stderr


def test_the_last_lines_go_back_behind_a_rotation(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    (tmp_path / "a.log.1").write_text("1\n2\n")
    log.write_text("3\n")

    assert last_lines(log, 2) == ["2", "3"]
    assert last_lines(log, 0) == []
    assert last_lines(tmp_path / "none.log", 5) == []


def test_following_goes_on_through_a_rotation(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("old\nlast\nha")
    lines = cast("Generator[str]", follow(log, 1))

    assert next(lines) == "last"
    with log.open("a") as stream:
        stream.write("lf\n")
    assert next(lines) == "half"
    with log.open("a") as stream:
        stream.write("before\n")
    log.rename(tmp_path / "a.log.1")
    log.write_text("after\n")
    assert [next(lines), next(lines)] == ["before", "after"]
    lines.close()


def test_a_log_line_is_written_for_people() -> None:
    line = json.dumps(
        {"time": 0, "level": "WARNING", "logger": "x", "message": "slow", "engine": "a b", "seconds": 2}
    )

    assert logs.render(line).endswith(' WARNING slow  engine="a b"  seconds=2')
    assert logs.render("not ours {") == "not ours {"
    assert logs.render('{"other": 1}\n') == '{"other": 1}'


def test_a_trace_comes_under_its_line() -> None:
    line = json.dumps({"time": 0, "level": "ERROR", "message": "broke", "exc_info": "Traceback…"})

    assert logs.render(line).splitlines()[1:] == ["Traceback…"]


def test_the_log_is_one_json_object_a_line() -> None:
    program = "from footplate_daemon import logs; import logging; logs.configure('info');"
    program += "logging.getLogger('here').info('two\\nlines', extra={'engine': 'e'}); logging.debug('unseen')"

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr

    (line,) = said.splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["message"]) == ("INFO", "here", "two\nlines")
    assert entry["engine"] == "e"
    assert entry["time"] > 0


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str) -> None:
    if verb == "supervisorctl":
        pytest.skip("its --help is supervisorctl's own")
    result = CliRunner().invoke(footplate, [verb, "--help"])

    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: footplate {verb}")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_prints_a_script(shell: str) -> None:
    result = CliRunner().invoke(footplate, ["completion", shell])

    assert "_FOOTPLATE_COMPLETE" in result.output


def test_the_shell_is_told_our_verbs(home: Paths) -> None:
    completed = subprocess.run(
        [sys.executable, "-m", "footplate_tui"],
        env=environment(home)
        | {"_FOOTPLATE_COMPLETE": "bash_complete", "COMP_WORDS": "footplate stat", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert completed.stdout == "plain,status\n"


@pytest.mark.parametrize("words", [["nope"], ["status", "--nope"], ["completion", "tcsh"]])
def test_wrong_usage_exits_2(home: Paths, words: list[str]) -> None:
    result = run(home, *words)

    assert result.returncode == 2
    assert "Usage: footplate" in result.stderr


def test_without_a_terminal_there_is_no_terminal_program(home: Paths) -> None:
    result = run(home)

    assert result.returncode == 2
    assert "This is no terminal" in result.stderr
    assert not home.socket.exists()


def test_a_status_with_everything_in_it_is_readable() -> None:
    engine = wire.Engine(
        name="vllm-a",
        runtime="vllm",
        variant="vllm/a",
        model="a",
        state=wire.EngineState.FAILED,
        since=90.0,
        diagnosis=wire.Diagnosis(code="oom", cause="The GPU is full."),
    )
    status = wire.Status(
        daemon=wire.Identity(version="1", pid=7, started_at=40.0),
        active=None,
        wanted="vllm/a",
        engines=(engine,),
        queue=wire.Queue(waiting=2, capacity=100),
        switch=wire.Switch(id=1, variant="vllm/a", started_at=1.0, eta_seconds=3.0),
        config_errors=("line 3",),
    )

    assert list(status_verb.lines(status, now=100.0)) == [
        "daemon  1, pid 7, up 1 min 00 s",
        "active  nothing",
        "wanted  vllm/a",
        "switch  to vllm/a, about 3.0 s left",
        "queue   2 of 100 waiting",
        "",
        "ENGINE  STATE   FOR     RUNTIME  VARIANT  PRESET  PID  PORT  REQUESTS",
        "vllm-a  failed  10.0 s  vllm     vllm/a   -       -    -     0",
        "! vllm-a: The GPU is full.",
        "! config.toml: line 3",
    ]


def test_a_cell_of_several_lines_stays_in_its_row() -> None:
    cells = ['It said "no":\nno room,\r\nno time', "", "7"]

    assert list(csv.reader(io.StringIO(csv_line(cells), newline=""))) == [cells]


def test_an_empty_list_of_models_is_its_heads() -> None:
    assert list(models_verb.lines([])) == ["  VARIANT  STATE  SIZE  CONTEXT  ON DISK  CAN"]


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert list(table(("A", "B"), [("long", "x"), ("", "y")])) == ["A     B", "long  x", "      y"]


@pytest.mark.parametrize(
    ("byte_count", "text"),
    [(0, "0 B"), (999, "999 B"), (646_000, "646 KB"), (4_200_000_000, "4.2 GB"), (2 * 10**12, "2.0 TB")],
)
def test_sizes_have_a_unit_that_suits_them(byte_count: int, text: str) -> None:
    assert size(byte_count) == text
