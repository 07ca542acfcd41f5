"""Over SSH, whole: a real sshd, `footplate --host` here, the daemon there; and the line is cut."""

import asyncio
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack

import psutil
import pytest

from footplate_daemon import lifecycle
from footplate_daemon.client import FootplateClient
from footplate_daemon.paths import Paths
from footplate_daemon.wire import Turn, TurnDelta, TurnState, TurnWish
from tests.conftest import ready_engine
from tests.sshd import BOX, Sshd, running_sshd
from tests.whole.conftest import PATIENCE_SECONDS, held
from tests.whole.test_ground import SWITCH, SWITCH_ANSWER
from tests.whole.test_terminal import flat, has_label, open_terminal, require_tmux

LONG = {"ignore_eos": True, "max_tokens": 3500}


@pytest.fixture
def sshd(home: Paths) -> Iterator[Sshd]:
    with running_sshd(home.config_dir.parent) as sshd:
        yield sshd


@pytest.fixture
def box(home: Paths, sshd: Sshd) -> Sshd:
    """A box on which the guide is active."""
    lifecycle.up(home)
    asyncio.run(ready_engine(home))
    return sshd


def footplate(sshd: Sshd, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `footplate --host box …` here."""
    return subprocess.run(
        [sys.executable, "-m", "footplate_tui", "--host", BOX, *words],
        env={**os.environ, **sshd.environment(), **more},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def program(*words: str) -> str:
    return shlex.join([sys.executable, "-m", "footplate_tui", "--host", BOX, *words])


def test_verbs_speak_to_the_daemon_there(box: Sshd) -> None:
    status = footplate(box, "status")
    asked = footplate(box, "ask", SWITCH)
    listed = footplate(box, "models")
    said = footplate(box, "logs", "-n", "1000")
    session = footplate(box, "sessions", "new").stdout

    assert (status.returncode, status.stderr) == (0, "")
    assert "active  llamacpp/guide" in status.stdout
    assert (asked.returncode, asked.stdout.strip()) == (0, SWITCH_ANSWER)
    assert "llamacpp/guide" in listed.stdout
    assert "started" in said.stdout
    assert session.strip()
    assert not (box.folder / "here" / "state").exists()


def test_nothing_is_left_of_a_line_when_the_verb_has_ended(box: Sshd) -> None:
    footplate(box, "status")

    assert list(box.folder.glob("footplate-ssh-*")) == []
    assert not ssh_of(box)


def test_verbs_about_the_machine_run_there(home: Paths, sshd: Sshd) -> None:
    down = footplate(sshd, "status")
    up = footplate(sshd, "up")
    config = footplate(sshd, "config", "path")
    unknown = footplate(sshd, "supervisorctl", "status", "nobody")
    again = footplate(sshd, "down")

    assert down.returncode == 3
    assert f"No Footplate daemon answers on {BOX} ({home.socket})" in down.stderr
    assert f"hint: Start it: footplate --host {BOX} up" in down.stderr
    assert up.stdout.startswith("Footplate is up after")
    assert config.stdout.strip() == str(home.config_file)
    assert unknown.returncode != 0
    assert again.stdout == "Footplate is down.\n"


def test_ask_starts_the_daemon_there(home: Paths, sshd: Sshd) -> None:
    asked = footplate(sshd, "ask", SWITCH)

    assert (asked.returncode, asked.stdout.strip()) == (0, SWITCH_ANSWER)
    assert lifecycle.health(home, PATIENCE_SECONDS)


def test_what_keeps_us_out_is_said_with_its_remedy(sshd: Sshd) -> None:
    strange = footplate(sshd, "status", FOOTPLATE_SSH=f"{sshd.ssh} -o PubkeyAuthentication=no")
    absent = footplate(sshd, "status", FOOTPLATE_REMOTE="/nowhere/footplate")
    also_absent = footplate(sshd, "up", FOOTPLATE_REMOTE="/nowhere/footplate")
    unknown = footplate(sshd, "status", FOOTPLATE_SSH=f"{sshd.ssh} -o UserKnownHostsFile=/dev/null")
    closed = footplate(sshd, "status", FOOTPLATE_SSH=f"{sshd.ssh} -p 1")
    no_ssh = footplate(sshd, "status", "--json", FOOTPLATE_SSH="no-such-ssh")

    assert {each.returncode for each in (strange, absent, also_absent, unknown, closed, no_ssh)} == {3}
    assert "refuses the login" in strange.stderr
    assert "There is no command '/nowhere/footplate' on box." in absent.stderr
    assert "--remote-command" in absent.stderr
    assert "--remote-command" in also_absent.stderr
    assert "The host key of box is not one that you trust." in unknown.stderr
    assert "box takes no SSH connections." in closed.stderr
    assert "apt install openssh-client" in no_ssh.stdout


def test_a_box_that_forwards_nothing_says_so(home: Paths) -> None:
    lifecycle.up(home)
    with running_sshd(home.config_dir.parent, "AllowStreamLocalForwarding no") as sshd:
        refused = footplate(sshd, "status")

    assert refused.returncode == 3
    assert "does not forward the daemon's socket" in refused.stderr
    assert "AllowStreamLocalForwarding" in refused.stderr


def test_a_connection_that_ssh_has_already_is_used_and_stays(box: Sshd) -> None:
    config = box.folder / "config"
    config.write_text(config.read_text() + f"ControlPath {box.folder}/mine\n")
    ssh = shlex.split(box.ssh)
    with subprocess.Popen(
        [*ssh, "-M", BOX, "echo in; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as mine:
        assert mine.stdout
        assert mine.stdout.readline() == b"in\n"
        # There is no key any more: only who is in already comes in.
        (box.folder / "key").unlink()
        status = footplate(box, "status")

        assert (status.returncode, status.stderr) == (0, "")
        assert subprocess.run([*ssh, "-O", "check", BOX], check=False, capture_output=True).returncode == 0


def test_ssh_ends_with_a_program_that_is_killed(box: Sshd) -> None:
    following = subprocess.Popen(
        [sys.executable, "-m", "footplate_tui", "--host", BOX, "exchanges", "--follow", "--json"],
        env={**os.environ, **box.environment()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    with following:
        assert following.stdout
        footplate(box, "ask", SWITCH)
        assert following.stdout.readline()
        held = ssh_of(box)
        following.kill()

    _, alive = psutil.wait_procs(held, PATIENCE_SECONDS)
    assert held
    assert alive == []


async def test_an_answer_survives_a_cut_line(home: Paths, box: Sshd) -> None:
    require_tmux()
    environment = {**box.environment(), "TERM": "tmux-256color", "LC_ALL": "C.UTF-8"}
    async with open_terminal(program(), environment) as terminal:
        await terminal.until(lambda screen: "Ask anything" in screen and "● guide @ llamacpp" in screen)
        await terminal.type(SWITCH)
        await terminal.press("Enter")
        await terminal.until(
            lambda screen: SWITCH_ANSWER in flat(screen.replace("▌", "")) and has_label(screen)
        )
        await terminal.press("C-q")
        await terminal.ended()
    engine = await ready_engine(home)
    async with AsyncExitStack() as stack:
        there = await stack.enter_async_context(FootplateClient(home.socket))
        session = (await there.sessions())[0]
        asked = await there.ask(session.id, TurnWish(prompt=SWITCH, parameters=LONG))
        await begun(there, asked)
        go_on = stack.enter_context(held(engine.pid or 0))
        terminal = await stack.enter_async_context(open_terminal(program(), environment))
        await terminal.until(lambda screen: "guide @ llamacpp" in screen and "esc stop" in screen)
        await terminal.type("typed meanwhile")
        await terminal.until(lambda screen: "typed meanwhile" in screen)
        assert box.cut() == 1
        cut = await terminal.until(lambda screen: f"reconnecting to {BOX}…" in screen)
        meanwhile = (await there.session(session.id)).turns[-1]
        go_on()
        whole = await ended(there, asked)
        shown = await terminal.until(lambda screen: "3500 tok" in screen.replace(",", ""))
        await terminal.press("C-y")
        await terminal.until(lambda screen: "Copied" in screen)
        copied = await terminal.copied()
        await terminal.press("C-q")
        await terminal.ended()

    assert meanwhile.state is TurnState.STREAMING
    assert len(meanwhile.answer) < len(whole.answer)
    assert whole.completion_tokens == LONG["max_tokens"]
    assert copied.strip() == whole.answer.strip()
    assert "typed meanwhile" in cut
    assert "typed meanwhile" in shown
    assert not ssh_of(box)


async def begun(there: FootplateClient, turn: Turn) -> None:
    """Return when the answer has begun to come."""
    async for _, event in there.follow_turn(turn.session_id, turn.number):
        if isinstance(event, TurnDelta) or event.answer:
            return


async def ended(there: FootplateClient, turn: Turn) -> Turn:
    """Give the turn when it is finished."""
    last: Turn | TurnDelta | None = None
    async for _, event in there.follow_turn(turn.session_id, turn.number):
        last = event
    assert isinstance(last, Turn)
    return last


def ssh_of(sshd: Sshd) -> list[psutil.Process]:
    """List the ssh that hold a line to this box."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(sshd.folder / "config") in (process.info["cmdline"] or [])
    ]
