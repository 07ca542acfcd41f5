"""Verbs that are about a machine itself run there, by the Footplate that is there."""

import subprocess
import sys
from collections.abc import Sequence

import click

from footplate_daemon.errors import DaemonUnreachable
from footplate_tui import ssh
from footplate_tui.harmless import one_line
from footplate_tui.ssh import Box
from footplate_tui.tunnel import no_ssh

NOT_FOUND = 127


class There(click.Command):
    """A verb that is about the machine itself: it runs there, by the Footplate that is there."""

    def __init__(self, name: str, box: Box) -> None:
        arguments = click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)
        settings = {"ignore_unknown_options": True, "help_option_names": []}
        super().__init__(name, params=[arguments], context_settings=settings, callback=self.run)
        self._box = box

    def run(self, words: Sequence[str]) -> int:
        """Run it there; give its exit code."""
        return run_there(self._box, [self.name or "", *words])


def run_there(box: Box, words: Sequence[str]) -> int:
    """Run `footplate …` there with our terminal; give its exit code."""
    command = ssh.run_there(box, words, on_terminal=sys.stdin.isatty() and sys.stdout.isatty())
    try:
        code = subprocess.run(command, check=False).returncode
    except (FileNotFoundError, PermissionError) as error:
        raise no_ssh(command[0]) from error
    if code == ssh.LOGIN_FAILED:
        raise DaemonUnreachable(f"ssh could not reach {one_line(box.host)}.", hint=f"Try: ssh {box.host}")
    if code == NOT_FOUND:
        raise ssh.no_footplate(box)
    return code
