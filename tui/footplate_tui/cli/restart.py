"""`footplate restart`."""

import os

import click

from footplate_daemon import lifecycle
from footplate_daemon.paths import Paths


@click.command()
@click.option("--all", "everything", is_flag=True, help="Engines and supervisord too.")
def restart(*, everything: bool) -> None:
    """Restart the daemon alone: loaded engines stay loaded and go on answering."""
    paths = Paths.from_environment(os.environ)
    if everything:
        lifecycle.down(paths)
        found = lifecycle.up(paths)
    else:
        found = lifecycle.restart(paths)
    click.echo(
        f"Footplate is up again after {found.seconds:.1f} s (version {found.version}, pid {found.pid})."
    )
