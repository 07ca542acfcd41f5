"""What ssh is asked, and what its complaints mean. Pure: it starts no process.

One connection carries everything: a session there that says where the daemon's socket is and then holds
the line, and the socket, forwarded through it.
"""

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from footplate_daemon import errors
from footplate_tui.harmless import one_line

KEEP_ALIVE_SECONDS = 3
"""ssh asks so often whether the other side is there; with the third question not answered it gives up."""
CONNECT_SECONDS = 10
LOGIN_FAILED = 255
"""ssh's own exit code; every other is that of the command there."""


@dataclass(frozen=True)
class Box:
    """A machine with a Footplate, as ssh knows it."""

    host: str
    footplate: str = "footplate"
    """The command there, as a shell reads it."""
    ssh: tuple[str, ...] = ("ssh",)


@dataclass(frozen=True)
class Found:
    """What the Footplate there says of itself."""

    version: str
    socket: str
    answers: bool


@dataclass(frozen=True)
class Trouble:
    """Why there is no line, and whether another try may cure it."""

    error: errors.DaemonUnreachable
    is_passing: bool


def hold(box: Box, control: Path | None, *, start: bool, may_ask: bool) -> list[str]:
    """Give the command that logs in, says where the socket is, and holds the line as long as its stdin.

    With `control` it is the master of a connection of our own, without it uses the one that ssh knows of.
    """
    own = [] if control is None else ["ControlMaster=yes", f"ControlPath={_escaped(control)}"]
    options = [
        *own,
        "ControlPersist=no",
        # What the user's configuration forwards for this host, another ssh of his may have already.
        "ClearAllForwardings=yes",
        "RemoteCommand=none",
        f"ConnectTimeout={CONNECT_SECONDS}",
        f"ServerAliveInterval={KEEP_ALIVE_SECONDS}",
        "ServerAliveCountMax=2",
        *([] if may_ask else ["BatchMode=yes"]),
    ]
    words = ["where", "--json", *(["--start"] if start else [])]
    script = _script(box, words, " && exec cat")
    return [*box.ssh, "-T", "-a", "-x", *_options(options), "--", box.host, script]


def is_shared(box: Box) -> list[str]:
    """Give the command that succeeds when ssh has a connection to the box already."""
    return [*box.ssh, "-O", "check", "--", box.host]


def forward(box: Box, control: Path | None, here: Path, there: str) -> list[str]:
    """Give the command that brings a socket from there to here."""
    return [*_over(box, control), "-O", "forward", "-L", f"{here}:{there}", "--", box.host]


def take_back(box: Box, control: Path | None, here: Path, there: str) -> list[str]:
    """Give the command that ends what `forward` began."""
    return [*_over(box, control), "-O", "cancel", "-L", f"{here}:{there}", "--", box.host]


def run_there(box: Box, words: Sequence[str], *, on_terminal: bool) -> list[str]:
    """Give the command that runs `footplate …` there, with our terminal if we have one."""
    # ssh would tell with each command that it closes the connection.
    options = ["RemoteCommand=none", *(["LogLevel=ERROR"] if on_terminal else [])]
    script = _script(box, words)
    return [*box.ssh, "-t" if on_terminal else "-T", *_options(options), "--", box.host, script]


def found_in(line: str) -> Found | None:
    """Read the line in which the Footplate there answers; None for what a login script may print before.

    Raise the error that it tells of.
    """
    try:
        told = json.loads(line)
    except ValueError:
        return None
    if not isinstance(told, dict):
        return None
    if "error" in told:
        raise errors.from_json(told, 500)
    if isinstance(told.get("socket"), str):
        return Found(str(told.get("version", "")), told["socket"], told.get("answers") is True)
    return None


def trouble(box: Box, exit_code: int, said: str, *, may_ask: bool) -> Trouble:
    """Say why ssh, or the command that it ran there, has ended, from its exit code and what it said."""
    host = one_line(box.host)
    if exit_code != LOGIN_FAILED:
        return _trouble_there(box, exit_code, said)
    for pattern, sentence, hint, is_passing in _COMPLAINTS:
        if re.search(pattern, said, re.IGNORECASE):
            told = errors.DaemonUnreachable(sentence.format(host=host), hint=hint.format(host=host))
            return Trouble(told, is_passing)
    last = one_line(said.strip().rpartition("\n")[2])
    because = f": {last}" if last else "."
    hint = f"Try: ssh {shlex.quote(host)}"
    # Somebody sits before the first connection; a later one has worked before and may work again.
    told = errors.DaemonUnreachable(f"ssh could not connect to {host}{because}", hint=hint)
    return Trouble(told, is_passing=not may_ask)


def _trouble_there(box: Box, exit_code: int, said: str) -> Trouble:
    host, last = one_line(box.host), one_line(said.strip().rpartition("\n")[2])
    if "No such command" in said:
        sentence = f"The Footplate on {host} is too old to be reached over SSH."
        return Trouble(errors.DaemonUnreachable(sentence, hint=f"Upgrade it on {host}."), is_passing=False)
    if exit_code in {126, 127}:
        return Trouble(no_footplate(box), is_passing=False)
    sentence = f"{one_line(box.footplate)} failed on {host}" + (f": {last}" if last else ".")
    hint = f"Try: ssh {shlex.quote(host)} {box.footplate} status"
    return Trouble(errors.DaemonUnreachable(sentence, hint=hint), is_passing=exit_code == 0)


def no_footplate(box: Box) -> errors.DaemonUnreachable:
    """Give the error for a box on which the command is not found."""
    host = one_line(box.host)
    return errors.DaemonUnreachable(
        f"There is no command {one_line(box.footplate)!r} on {host}.",
        hint="Install it there, or say where it is: "
        f"footplate --host {shlex.quote(host)} --remote-command /path/to/footplate",
    )


def check_up(box: Box, found: Found) -> None:
    """Raise the error for a box on which the daemon is down."""
    if found.answers:
        return
    raise errors.DaemonUnreachable(
        f"No Footplate daemon answers on {one_line(box.host)} ({one_line(found.socket)}).",
        hint=f"Start it: footplate --host {shlex.quote(box.host)} up",
    )


def not_forwarded(box: Box, said: str) -> errors.DaemonUnreachable:
    """Give the error for a connection over which no socket comes."""
    last = one_line(said.strip().rpartition("\n")[2])
    return errors.DaemonUnreachable(
        f"{one_line(box.host)} does not forward the daemon's socket" + (f": {last}" if last else "."),
        hint="Its sshd_config needs AllowTcpForwarding and AllowStreamLocalForwarding, both yes by default.",
    )


_COMPLAINTS = (
    (
        r"could not resolve|name or service not known|temporary failure in name",
        "Nobody knows a host {host}.",
        "Check the name, or give its address in ~/.ssh/config.",
        True,
    ),
    (
        r"host key verification failed|identification has changed|no .* host key is known",
        "The host key of {host} is not one that you trust.",
        "If it has changed for a good reason, or is new: ssh {host}",
        False,
    ),
    (
        r"permission denied|too many authentication failures|no supported authentication",
        "{host} refuses the login.",
        "Try: ssh {host}    (a key: ssh-copy-id {host}; another user: --host user@host)",
        False,
    ),
    (
        r"connection refused",
        "{host} takes no SSH connections.",
        "Is sshd running there? For another port, write a Host entry in ~/.ssh/config.",
        True,
    ),
    (
        r"controlpath too long|too long for unix domain socket|path .* too long",
        "The path of ssh's control socket is too long.",
        "Set XDG_RUNTIME_DIR to a folder with a shorter path.",
        False,
    ),
    (
        r"timed out|no route|unreachable|connection closed|connection reset|broken pipe|not responding",
        "{host} does not answer.",
        "Is it on, and are you on its network? Try: ssh {host}",
        True,
    ),
)
"""What to look for, the sentence, the hint, and whether it may pass by itself; the most telling first."""


def _script(box: Box, words: Sequence[str], then: str = "") -> str:
    """Give one command line for whatever shell the user has there.

    It is no login shell: where pip and uv put programs is not in its PATH. A FOOTPLATE_HOST that ssh
    brought along would lead on from there. A shell that Ctrl+C kills would hide how the command ended.
    """
    before = "trap : INT; unset FOOTPLATE_HOST; PATH=$PATH:$HOME/.local/bin"
    return f"exec sh -c {shlex.quote(f'{before}; {box.footplate} {shlex.join(words)}{then}')}"


def _over(box: Box, control: Path | None) -> list[str]:
    if control is None:
        return list(box.ssh)
    # Without the user's configuration: it would ask for his own forwardings, too.
    return [*box.ssh, "-F", "/dev/null", *_options([f"ControlPath={_escaped(control)}"])]


def _options(options: Sequence[str]) -> list[str]:
    return [word for option in options for word in ("-o", option)]


def _escaped(path: Path) -> str:
    return str(path).replace("%", "%%")
