"""The terminal, whole: `footplate` in a real tmux, against the real daemon and the guide."""

import asyncio
import os
import pty
import re
import shlex
import shutil
import signal
import sys
import tempfile
import termios
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from footplate_daemon import lifecycle
from footplate_daemon.client import FootplateClient
from footplate_daemon.paths import Paths
from tests.whole.conftest import PATIENCE_SECONDS

SWITCH, SWITCH_ANSWER = "How do I switch runtime?", "Run footplate switch with the name of a runtime"
PRESET = "What is a preset?"
LABEL = re.compile(r"guide @ llamacpp · \d+ tok · .*? in all")
WIDTH, HEIGHT = 80, 24

Holds = Callable[[str], bool]


class Terminal:
    """One program in one pane of a tmux server of its own, which ends with it."""

    def __init__(self, socket: Path, control: asyncio.subprocess.Process) -> None:
        self._socket = socket
        self._control = control
        self._screen = ""

    async def type(self, text: str) -> None:
        """Type a text as a person would."""
        await tmux(self._socket, "send-keys", "-l", text)

    async def press(self, key: str) -> None:
        """Press one key, by tmux's name."""
        await tmux(self._socket, "send-keys", key)

    async def copied(self) -> str:
        """Give what was copied last."""
        return await tmux(self._socket, "show-buffer")

    async def until(self, holds: Holds) -> str:
        """Look at the screen after everything that is written to it, until it is so; give it."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not holds(await self._look()):
                    assert await self._something_written(), f"The program ended:\n{self._screen}"
        except TimeoutError:
            pytest.fail(f"Not on screen:\n{self._screen}")
        return self._screen

    async def ended(self) -> None:
        """Return when the program has ended, and tmux with it."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await self._something_written():
                pass

    async def _look(self) -> str:
        self._screen = await tmux(self._socket, "capture-pane", "-p")
        return self._screen

    async def _something_written(self) -> bool:
        assert self._control.stdout is not None
        async for line in self._control.stdout:
            if line.startswith(b"%output"):
                return True
        return False


@asynccontextmanager
async def open_terminal(command: str, environment: dict[str, str]) -> AsyncIterator[Terminal]:
    """Run a command in a tmux of its own; end it however the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="fpt", dir="/tmp"))
    socket = folder / "tmux"
    words = ["env", *(f"{name}={value}" for name, value in environment.items()), "sh", "-c", command]
    size = ("-x", str(WIDTH), "-y", str(HEIGHT))
    await tmux(socket, "-f", os.devnull, "new-session", "-d", *size, shlex.join(words))
    control = await asyncio.create_subprocess_exec(
        *("tmux", "-S", str(socket), "-C", "attach", "-f", "ignore-size"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        # What is written before it has attached wakes nobody: it says so first.
        assert control.stdout is not None
        await asyncio.wait_for(control.stdout.readline(), PATIENCE_SECONDS)
        yield Terminal(socket, control)
    finally:
        await tmux(socket, "kill-server", may_fail=True)
        assert control.stdin is not None
        control.stdin.close()
        await control.communicate()
        shutil.rmtree(folder)


async def tmux(socket: Path, *arguments: str, may_fail: bool = False) -> str:
    """Give one command to the tmux server on this socket."""
    process = await asyncio.create_subprocess_exec(
        *("tmux", "-S", str(socket), *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, mistakes = await process.communicate()
    assert may_fail or process.returncode == 0, mistakes.decode()
    return output.decode()


def require_tmux() -> None:
    """Skip the test without tmux, but fail where the tests must be whole (CI)."""
    if shutil.which("tmux"):
        return
    message = "there is no tmux: install it to see the terminal as a person does"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


async def test_a_question_is_answered_before_and_after_the_daemon_is_killed(home: Paths) -> None:
    require_tmux()
    exit_code = home.config_dir.parent / "exit-code"
    program = shlex.join([sys.executable, "-m", "footplate_tui"])
    environment = {
        "FOOTPLATE_HOME": str(home.config_dir.parent),
        "PYTHONSAFEPATH": "1",
        "TERM": "tmux-256color",
        "LC_ALL": "C.UTF-8",
    }
    async with open_terminal(f"{program}; echo $? >{shlex.quote(str(exit_code))}", environment) as terminal:
        await terminal.until(lambda screen: "Ask anything" in screen and "● guide @ llamacpp" in screen)

        await terminal.type(SWITCH)
        await terminal.press("Enter")
        answered = await terminal.until(lambda screen: SWITCH_ANSWER in flat(screen) and has_label(screen))
        daemon = lifecycle.state(home).daemon_pid
        assert daemon is not None
        os.kill(daemon, signal.SIGKILL)
        cut = await terminal.until(tells_of_the_cut)
        await terminal.type(PRESET)
        await terminal.press("Enter")
        again = await terminal.until(lambda screen: len(LABEL.findall(flat(screen))) == 2)
        await terminal.press("C-q")
        await terminal.ended()

    async with FootplateClient(home.socket) as client:
        health = await client.health()
        session = await client.session((await client.sessions())[0].id)
    assert answered.index(SWITCH) < answered.index("guide @ llamacpp ·")
    assert SWITCH_ANSWER in flat(cut)
    assert PRESET in again
    assert [turn.prompt for turn in session.turns] == [SWITCH, PRESET]
    assert {turn.runtime for turn in session.turns} == {"llamacpp"}
    assert health.pid != daemon
    assert exit_code.read_text() == "0\n"


def has_label(screen: str) -> bool:
    return LABEL.search(flat(screen)) is not None


def tells_of_the_cut(screen: str) -> bool:
    """The header says that the daemon is gone; the status line says so, or already that it is back."""
    news = screen.rstrip().splitlines()[-1]
    return ("daemon unreachable" in screen and "cut" in news) or "Connected to the daemon again" in news


def flat(screen: str) -> str:
    """Undo the wrapping of lines, and leave out the bars beside them."""
    return " ".join(screen.replace("▌", " ").split())


async def test_a_question_is_asked_again_and_edited(home: Paths) -> None:
    require_tmux()
    program = shlex.join([sys.executable, "-m", "footplate_tui"])
    environment = {
        "FOOTPLATE_HOME": str(home.config_dir.parent),
        "PYTHONSAFEPATH": "1",
        "TERM": "tmux-256color",
        "LC_ALL": "C.UTF-8",
    }
    async with open_terminal(program, environment) as terminal:
        await terminal.until(lambda screen: "Ask anything" in screen and "● guide @ llamacpp" in screen)
        await terminal.type(SWITCH)
        await terminal.press("Enter")
        await terminal.until(lambda screen: SWITCH_ANSWER in flat(screen) and has_label(screen))
        await terminal.press("F7")
        await terminal.until(lambda screen: "turn 1 of 1" in screen)
        await terminal.press("r")
        beside = await terminal.until(
            lambda screen: len(LABEL.findall(flat(screen))) == 2 and "goes on" in flat(screen)
        )
        await terminal.press("F7")
        await terminal.until(lambda screen: "turn 1 of 1" in screen)
        await terminal.press("e")
        await terminal.until(
            lambda screen: (
                "instead of turn 2" in screen and f"│ {SWITCH}" in screen and "turn 1 of 1" not in screen
            )
        )
        await terminal.press("C-u")
        await terminal.type(PRESET)
        await terminal.press("Enter")
        await terminal.until(
            lambda screen: "A preset holds" in flat(screen) and len(LABEL.findall(flat(screen))) == 2
        )
        await terminal.press("C-q")
        await terminal.ended()

    async with FootplateClient(home.socket) as client:
        session = await client.session((await client.sessions())[0].id)
        exported = await client.export_session(session.id, "json")
        imported = await client.import_session(exported)
        again = await client.session(imported.id)
    assert flat(beside).count(SWITCH_ANSWER) == 2
    asked = [(turn.prompt, turn.instead_of) for turn in session.turns]
    assert asked == [(SWITCH, None), (SWITCH, 1), (PRESET, 2)]
    assert [(turn.prompt, turn.instead_of) for turn in again.turns] == asked


async def test_it_ends_with_its_terminal_although_nobody_says_so(home: Paths) -> None:
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (HEIGHT, WIDTH))
    environment = {**os.environ, "FOOTPLATE_HOME": str(home.config_dir.parent), "TERM": "tmux-256color"}
    # In a session of its own it has no controlling terminal, and gets no SIGHUP.
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "footplate_tui"),
        stdin=its,
        stdout=its,
        stderr=its,
        env=environment,
        start_new_session=True,
    )
    os.close(its)
    shown = b""
    while b"sk anything" not in shown:  # the cursor stands on the first letter
        shown += await asyncio.to_thread(os.read, ours, 65536)

    os.close(ours)

    assert await asyncio.wait_for(process.wait(), PATIENCE_SECONDS) == -signal.SIGHUP
