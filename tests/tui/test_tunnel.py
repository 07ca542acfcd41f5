"""The way to another machine: what ssh is asked, what its complaints mean, what is said of a cut."""

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.fakes.daemon import FakeDaemon
from tests.tui.conftest import Open

from footplate_daemon import errors
from footplate_tui import ssh
from footplate_tui.footplate_app import FootplateApp
from footplate_tui.remembered import Remembered
from footplate_tui.ssh import Box, Found
from footplate_tui.tunnel import FOLDER, LONGEST_PARENT, Tunnel, make_folder, pause_before
from footplate_tui.widgets.header import read

BOX = Box("me@box")


@pytest.mark.parametrize(
    ("said", "sentence", "is_passing"),
    [
        (
            "ssh: Could not resolve hostname box: Name or service not known",
            "Nobody knows a host me@box.",
            True,
        ),
        ("Host key verification failed.", "The host key of me@box is not one that you trust.", False),
        ("me@box: Permission denied (publickey).", "me@box refuses the login.", False),
        ("ssh: connect to host box port 22: Connection refused", "me@box takes no SSH connections.", True),
        ("ssh: connect to host box port 22: Connection timed out", "me@box does not answer.", True),
        ("Timeout, server box not responding.", "me@box does not answer.", True),
        ('unix_listener: path "/x" too long for Unix domain socket', "control socket is too long.", False),
        ("Bad owner or permissions on ~/.ssh/config", "ssh could not connect to me@box: Bad owner", True),
        ("", "ssh could not connect to me@box.", True),
    ],
)
def test_a_complaint_of_ssh_becomes_a_sentence_with_a_remedy(
    said: str, sentence: str, *, is_passing: bool
) -> None:
    trouble = ssh.trouble(BOX, ssh.LOGIN_FAILED, said, may_ask=False)

    assert sentence in trouble.error.message
    assert trouble.error.hint
    assert trouble.is_passing is is_passing


@pytest.mark.parametrize(
    ("exit_code", "said", "sentence"),
    [
        (127, "sh: 1: footplate: not found", "There is no command 'footplate' on me@box."),
        (2, "Error: No such command 'where'.", "The Footplate on me@box is too old"),
        (1, "\x1b[2JTraceback", "footplate failed on me@box: ␛[2JTraceback"),
    ],
)
def test_what_fails_there_becomes_a_sentence_with_a_remedy(exit_code: int, said: str, sentence: str) -> None:
    trouble = ssh.trouble(BOX, exit_code, said, may_ask=True)

    assert sentence in trouble.error.message
    assert trouble.error.hint
    assert not trouble.is_passing


def test_what_a_login_script_prints_is_passed_over() -> None:
    told = '{"version": "1.0", "socket": "/run/x.sock", "answers": true}'

    found = [ssh.found_in(line) for line in ("Welcome!", "[1, 2]", "{}", told)]

    assert found == [None, None, None, Found("1.0", "/run/x.sock", answers=True)]


def test_an_error_of_the_footplate_there_is_raised_here() -> None:
    told = '{"error": {"message": "No room.", "code": "engine_failed", "hint": "Make room."}}'

    with pytest.raises(errors.EngineFailed, match="No room") as raised:
        ssh.found_in(told)

    assert raised.value.hint == "Make room."


def test_the_command_there_is_one_line_for_any_shell(tmp_path: Path) -> None:
    command = tmp_path / "foot plate"
    command.write_text('#!/bin/sh\nprintf "%s|" "$FOOTPLATE_HOST" "$@"\n')
    command.chmod(0o755)
    box = Box("box", footplate=f"WHATEVER=1 '{command}'")

    *_, there = ssh.run_there(box, ["up", "it's here", "$HOME"], on_terminal=False)

    environment = {**os.environ, "FOOTPLATE_HOST": "elsewhere"}
    said = subprocess.run(["sh", "-c", there], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout == "|up|it's here|$HOME|"


def test_nobody_is_asked_when_the_line_is_mended() -> None:
    first = ssh.hold(BOX, Path("/c"), start=True, may_ask=True)
    later = ssh.hold(BOX, Path("/c"), start=False, may_ask=False)

    assert "BatchMode=yes" not in first
    assert "BatchMode=yes" in later


def test_the_pauses_grow_to_five_seconds() -> None:
    assert [pause_before(attempt) for attempt in range(6)] == [0.5, 1.0, 2.0, 5.0, 5.0, 5.0]


def test_the_sockets_get_a_short_path_and_what_a_killed_program_left_is_removed(tmp_path: Path) -> None:
    runtime = tmp_path if len(os.fsencode(tmp_path)) <= LONGEST_PARENT else Path("/tmp")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = runtime / f"{FOLDER}{ended.pid}-abc"
    left.mkdir()

    short = make_folder({"XDG_RUNTIME_DIR": str(runtime)})
    long = make_folder({"XDG_RUNTIME_DIR": str(tmp_path / ("x" * 100))})

    assert not left.exists()
    assert short.parent == runtime
    assert long.parent == Path("/tmp")
    for folder in (short, long):
        assert folder.stat().st_mode & 0o777 == 0o700
        folder.rmdir()


def test_a_machine_without_ssh_says_how_to_get_it(tmp_path: Path) -> None:
    box = Box("box", ssh=(str(tmp_path / "ssh"),))

    with (
        Tunnel(box, {}) as tunnel,
        pytest.raises(errors.DaemonUnreachable, match="on this machine") as raised,
    ):
        tunnel.open()

    assert "openssh-client" in (raised.value.hint or "")
    assert not tunnel.socket.parent.exists()


def test_ctrl_c_ends_a_verb_while_ssh_asks(tmp_path: Path) -> None:
    asking = tmp_path / "ssh"
    asking.write_text("#!/bin/sh\ncase $* in *-O*) exit 1;; esac\necho Password? >&2\nexec cat\n")
    asking.chmod(0o755)
    environment = {"FOOTPLATE_SSH": str(asking), "FOOTPLATE_HOME": str(tmp_path)}
    verb = subprocess.Popen(
        [sys.executable, "-m", "footplate_tui", "--host", "box", "status"],
        env=os.environ | environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    with verb:
        assert verb.stderr
        assert verb.stderr.readline() == "Password?\n"
        verb.send_signal(signal.SIGINT)
        said = verb.stderr.read()

    assert (verb.returncode, said.strip()) == (130, "")


def test_the_header_names_the_host_that_it_reconnects_to() -> None:
    assert read(None, is_connected=False, host="me@box").words == "reconnecting to me@box…"
    assert read(None, is_connected=False).words == "daemon unreachable"


def test_a_draft_is_kept_for_each_host(tmp_path: Path) -> None:
    hosts = ("", "me@box", "../box", "x" * 300)
    for host in hosts:
        with closing(Remembered(tmp_path, host)) as remembered:
            remembered.keep_draft(f"for {host}")

    for host in hosts:
        with closing(Remembered(tmp_path, host)) as remembered:
            assert remembered.draft == f"for {host}"


async def test_the_screen_says_why_the_line_is_cut_and_when_the_user_must_act(
    open_terminal: Open, daemon: FakeDaemon
) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until(lambda: terminal.screen.status is not None)
        away = errors.DaemonUnreachable("box does not answer.")
        refused = errors.DaemonUnreachable("box refuses the login.")

        await asyncio.to_thread(terminal.app.tell_of_line, away, is_passing=True)
        await terminal.until(lambda: terminal.screen.notice == "box does not answer. Reconnecting…")
        await asyncio.to_thread(terminal.app.tell_of_line, refused, is_passing=False)
        await terminal.until(
            lambda: terminal.screen.notice == "box refuses the login. Leave (^q) and start again."
        )

        assert not terminal.screen.is_connected


async def test_a_terminal_on_another_machine_shows_its_host(tmp_path: Path, daemon: FakeDaemon) -> None:
    app = FootplateApp(lambda: daemon, Remembered(tmp_path), place="me@box", host="me@box")
    async with app.run_test() as pilot:
        app.tell_of_line(errors.DaemonUnreachable("The line to me@box is cut."), is_passing=True)
        async with asyncio.timeout(20):
            while "reconnecting to me@box…" not in shown(app):
                await pilot.pause()


def shown(app: FootplateApp) -> str:
    """Give the first line on screen."""
    return app.screen.query("Header").first().render_line(0).text
