"""A daemon's socket, brought here from another machine by the system's ssh, and brought again after a cut.

ssh is our child and holds the line only as long as the pipe to it is open: it ends with us, even when we
are killed. It may ask for a password at the first time, when there is a terminal to ask on, and never later.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from footplate_daemon.errors import DaemonUnreachable, FootplateError
from footplate_tui import ssh
from footplate_tui.ssh import Box, Found, Trouble

PAUSES_SECONDS = (0.5, 1.0, 2.0, 5.0)
"""Before the first, second … try to mend the line; the last one from then on."""
MEND_SECONDS = 20.0
"""A try that asks nobody anything takes no longer."""
ORDER_SECONDS = 10.0
"""For what is asked of an ssh that is connected already."""
END_SECONDS = 2.0
SAID_LINES = 40
LONGEST_PARENT = 50
"""Bytes: our names take 39 more, ssh adds 17 to those of its control socket, and Linux takes 107 in all."""
FOLDER = "footplate-ssh-"

# Ctrl+C is for us: what it interrupts may still have something to say to the daemon, over this line.
_DEAF_TO_CTRL_C = ("sh", "-c", 'trap "" INT QUIT; exec "$@"', "sh")

Tell = Callable[[Trouble], None]


def pause_before(attempt: int) -> float:
    """Give the seconds to wait before the n-th try to mend the line, counted from 0."""
    return PAUSES_SECONDS[min(attempt, len(PAUSES_SECONDS) - 1)]


class Tunnel:
    """The line to one box; use it as `with`, or call `close`. `open` before anything else.

    Every failure is raised as `DaemonUnreachable`, or as what the Footplate there said.
    """

    def __init__(self, box: Box, environment: Mapping[str, str]) -> None:
        self.box = box
        self._folder = make_folder(environment)
        self._line: _Line | None = None
        self._closing = threading.Event()
        self._mender: threading.Thread | None = None

    @property
    def socket(self) -> Path:
        """The daemon's socket, here: the same one however often the line is mended."""
        return self._folder / "footplate.sock"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self, *, start: bool = False) -> Found:
        """Connect, asking on the terminal what ssh must know; with `start`, start the daemon there."""
        with _interruptible():
            return self._connect(start=start, may_ask=True).found

    def keep(self, tell: Tell) -> None:
        """Mend the line from now on whenever it is cut; `tell` is called, in a thread, with each trouble."""
        self._mender = threading.Thread(target=self._mend, args=(tell,), name="mend the line", daemon=True)
        self._mender.start()

    def close(self) -> None:
        """End the line, and leave nothing of it."""
        self._closing.set()
        if self._line:
            self._line.close()
        if self._mender:
            self._mender.join(END_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _mend(self, tell: Tell) -> None:
        line = self._line
        while line:
            line.wait()
            line.close()
            if self._closing.is_set():
                return
            cut = DaemonUnreachable(f"The line to {self.box.host} is cut.")
            tell(Trouble(cut, is_passing=True))
            line = self._connect_again(tell)

    def _connect_again(self, tell: Tell) -> "_Line | None":
        """Try until there is a line; None when another try is of no use, or nobody wants it any more."""
        attempt = 0
        while not self._closing.wait(pause_before(attempt)):
            try:
                return self._connect(start=False, may_ask=False)
            except FootplateError as error:
                trouble = error.trouble if isinstance(error, _NoLine) else _passing(error)
            except (OSError, ValueError) as error:  # no more processes or descriptors; closed meanwhile
                trouble = Trouble(DaemonUnreachable(f"ssh could not be started: {error}."), is_passing=True)
            if self._closing.is_set():
                return None
            tell(trouble)
            if not trouble.is_passing:
                return None
            attempt += 1
        return None

    def _connect(self, *, start: bool, may_ask: bool) -> "_Line":
        control = None if _succeeds(ssh.is_shared(self.box)) else self._folder / "control"
        line = self._line = _Line(self.box, control, start=start, may_ask=may_ask)
        try:
            with _no_longer_than(None if may_ask else MEND_SECONDS, line.kill):
                line.ask_where()
            # Later on a daemon that is down may come back: the line is ready for it.
            if may_ask:
                ssh.check_up(self.box, line.found)
            line.bring(self.socket)
        except BaseException:
            line.close()
            raise
        return line


class _NoLine(DaemonUnreachable):
    """ssh gave up; it knows whether to try again."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.error.message, hint=trouble.error.hint)
        self.trouble = trouble


def _passing(error: FootplateError) -> Trouble:
    return Trouble(DaemonUnreachable(error.message, hint=error.hint), is_passing=True)


class _Line:
    """One connection: the ssh that holds it, what it said, and what is forwarded over it."""

    found: Found

    def __init__(self, box: Box, control: Path | None, *, start: bool, may_ask: bool) -> None:
        self._box = box
        self._control = control
        self._may_ask = may_ask
        self._brought: Path | None = None
        self._said: deque[str] = deque(maxlen=SAID_LINES)
        self._is_heard = may_ask
        self._process = _start(ssh.hold(box, control, start=start, may_ask=may_ask), may_ask=may_ask)
        self._listener = threading.Thread(target=self._listen, name="listen to ssh", daemon=True)
        self._listener.start()

    def ask_where(self) -> None:
        """Set `found`, once somebody is logged in; raise what kept him from it."""
        assert self._process.stdout  # noqa: S101 - it is a pipe
        for line in self._process.stdout:
            found = ssh.found_in(line.decode(errors="replace"))
            if found:
                self.found = found
                self._is_heard = False
                return
        exit_code = self._process.wait()
        self._listener.join(END_SECONDS)
        raise _NoLine(ssh.trouble(self._box, exit_code, "".join(self._said), may_ask=self._may_ask))

    def bring(self, here: Path) -> None:
        """Forward the daemon's socket; see that it answers through it, if it does at all."""
        here.unlink(missing_ok=True)
        self._brought = here
        words = ssh.forward(self._box, self._control, here, self.found.socket)
        if not _succeeds(words) or (self.found.answers and not _answers(here)):
            raise ssh.not_forwarded(self._box, "".join(self._said))

    def wait(self) -> None:
        """Return when the line is cut."""
        self._process.wait()

    def kill(self) -> None:
        """End it in the middle of whatever it does."""
        self._process.kill()

    def close(self) -> None:
        """End it."""
        if self._control is None and self._brought and self._process.poll() is None:
            _succeeds(ssh.take_back(self._box, None, self._brought, self.found.socket))
        self._process.terminate()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join(END_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()

    def _listen(self) -> None:
        """Keep what ssh says; until the line stands it says it to the user, too."""
        errors_of_ssh: IO[bytes] | None = self._process.stderr
        assert errors_of_ssh  # noqa: S101 - it is a pipe
        with errors_of_ssh:
            for raw in errors_of_ssh:
                line = raw.decode(errors="replace")
                self._said.append(line)
                if self._is_heard and not _is_complaint(line):
                    sys.stderr.write(line)
                    sys.stderr.flush()


def make_folder(environment: Mapping[str, str]) -> Path:
    """Make a private folder on a short path, and remove those that killed programs have left."""
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    is_good = bool(runtime) and os.access(runtime, os.W_OK) and len(os.fsencode(runtime)) <= LONGEST_PARENT
    parent = Path(runtime if is_good else "/tmp")  # noqa: S108 - mkdtemp makes a folder that is ours alone
    for left in parent.glob(f"{FOLDER}*-*"):
        if not _lives(left.name.removeprefix(FOLDER).partition("-")[0]):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-", dir=parent))


def _lives(pid: str) -> bool:
    return not pid.isdecimal() or Path(f"/proc/{pid}").exists() or not Path("/proc/self").exists()


def _start(words: list[str], *, may_ask: bool) -> subprocess.Popen[bytes]:
    """Start ssh with our terminal to ask on, or without any."""
    try:
        return subprocess.Popen(
            [*_DEAF_TO_CTRL_C, *words] if may_ask else words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=not may_ask,
        )
    except (FileNotFoundError, PermissionError) as error:
        raise no_ssh(words[0]) from error


def no_ssh(program: str) -> DaemonUnreachable:
    """Give the error for a machine without ssh."""
    return DaemonUnreachable(
        f"There is no {program} on this machine.", hint="Install OpenSSH's client: apt install openssh-client"
    )


def _succeeds(words: list[str]) -> bool:
    try:
        ended = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=ORDER_SECONDS, check=False
        )
    except (FileNotFoundError, PermissionError) as error:
        raise no_ssh(words[0]) from error
    except subprocess.TimeoutExpired:
        return False
    return ended.returncode == 0


def _answers(path: Path) -> bool:
    """Say whether anything comes back through a socket: a forwarding that is forbidden closes at once."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ORDER_SECONDS)
        try:
            connection.connect(str(path))
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: footplate\r\nConnection: close\r\n\r\n")
            return bool(connection.recv(1))
        except OSError:
            return False


def _is_complaint(line: str) -> bool:
    """Say whether a line is the reason of an end, which is told as an error of ours."""
    return line.startswith(("ssh: ", "sh: ", "Host key verification failed")) or "Permission denied (" in line


@contextlib.contextmanager
def _no_longer_than(seconds: float | None, end: Callable[[], None]) -> Iterator[None]:
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, end)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl+C interrupt: `asyncio.run` keeps it for itself, and would wait for us first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
