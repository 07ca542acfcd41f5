"""`footplate supervisorctl`."""

import os
import sys

import click

from footplate_daemon.errors import DaemonUnreachable
from footplate_daemon.paths import Paths


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def supervisorctl(arguments: tuple[str, ...]) -> None:
    """Run supervisor's own supervisorctl on the supervisord that holds our engines."""
    paths = Paths.from_environment(os.environ)
    if not paths.supervisor_socket.exists():
        raise DaemonUnreachable(
            f"No supervisord answers on {paths.supervisor_socket}.", hint="Start it: footplate up"
        )
    command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(paths.supervisor_conf)]
    os.execv(sys.executable, [*command, *arguments])  # noqa: S606 - it takes our place, terminal and all
