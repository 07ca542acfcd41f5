"""An sshd of our own: this user's, on a free port of the loopback, with keys that were made for it."""

import getpass
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from footplate_daemon.switching.engine import free_port

BOX = "box"
"""What ssh's configuration calls the machine that the sshd makes of ours."""
SECONDS = 30
SEPARATION = Path("/run/sshd")
"""An sshd that root starts wants this folder; the system's own start makes it."""


@dataclass(frozen=True)
class Sshd:
    """The sshd that runs, and how to come through it."""

    folder: Path
    pid: int

    @property
    def ssh(self) -> str:
        """The ssh command whose configuration knows the box."""
        return shlex.join(["ssh", "-F", str(self.folder / "config")])

    @property
    def footplate(self) -> str:
        """The command `footplate` as the box has it: for the home of this test."""
        return shlex.quote(str(self.folder / "footplate"))

    def environment(self) -> dict[str, str]:
        """Give what makes `footplate` here reach the box."""
        here = self.folder / "here"
        return {
            "FOOTPLATE_HOME": str(here),
            "FOOTPLATE_SSH": self.ssh,
            "FOOTPLATE_REMOTE": self.footplate,
            "XDG_RUNTIME_DIR": str(self.folder),
            "PYTHONSAFEPATH": "1",
        }

    def cut(self) -> int:
        """Kill what serves the connections that there are; give how many processes it were."""
        serving = psutil.Process(self.pid).children()
        for process in serving:
            # Its own child, where privileges are separated, ends with it.
            process.kill()
        return len(serving)

    def connections(self) -> int:
        """Count the connections that are served."""
        return len(psutil.Process(self.pid).children())


def require_sshd() -> str:
    """Give the path of sshd; skip the test without one, but fail where the tests must be whole (CI)."""
    found = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if found and shutil.which("ssh"):
        return found
    message = "there is no sshd: install openssh-server to reach this machine over SSH"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@contextmanager
def running_sshd(home: Path, *more: str) -> Iterator[Sshd]:
    """Run an sshd that takes one key; `footplate` there has its home in this folder."""
    program = require_sshd()
    folder = Path(tempfile.mkdtemp(prefix="fps", dir="/tmp"))
    if os.geteuid() == 0:
        SEPARATION.mkdir(exist_ok=True)
    port = free_port()
    write(folder, port, home, more)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "-D", "-e", "-f", str(folder / "sshd_config")], stdin=subprocess.DEVNULL, stderr=log
        )
    try:
        until_listening(process, port, folder / "log")
        yield Sshd(folder, process.pid)
    finally:
        serving = psutil.Process(process.pid).children(recursive=True)
        for each in serving:
            each.kill()
        process.terminate()
        process.wait(SECONDS)
        shutil.rmtree(folder)


def write(folder: Path, port: int, home: Path, more: tuple[str, ...]) -> None:
    """Write what sshd and ssh read, and the command `footplate` of the box."""
    for name in ("host", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    host_key = (folder / "host.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
    (folder / "sshd_config").write_text(
        "\n".join(
            [
                *more,
                f"Port {port}",
                "ListenAddress 127.0.0.1",
                f"HostKey {folder}/host",
                f"AuthorizedKeysFile {folder}/key.pub",
                "PidFile none",
                "UsePAM no",
                "StrictModes no",
                "PasswordAuthentication no",
                "KbdInteractiveAuthentication no",
                "",
            ]
        )
    )
    (folder / "config").write_text(
        f"Host {BOX}\n"
        "HostName 127.0.0.1\n"
        f"Port {port}\n"
        f"User {getpass.getuser()}\n"
        f"IdentityFile {folder}/key\n"
        "IdentitiesOnly yes\n"
        f"UserKnownHostsFile {folder}/known_hosts\n"
        "StrictHostKeyChecking yes\n"
    )
    command = folder / "footplate"
    command.write_text(
        f"#!/bin/sh\nFOOTPLATE_HOME={shlex.quote(str(home))} "
        f'exec {shlex.quote(sys.executable)} -P -m footplate_tui "$@"\n'
    )
    command.chmod(0o755)


def until_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return when sshd takes connections; its log says when."""
    while f"listening on 127.0.0.1 port {port}" not in log.read_text().replace("Server l", "l"):
        try:
            process.wait(0.01)
        except subprocess.TimeoutExpired:
            continue
        pytest.fail(f"sshd ended: {log.read_text()}")
