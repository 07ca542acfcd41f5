"""`footplate down`."""

import os

import click

from footplate_daemon import lifecycle
from footplate_daemon.paths import Paths


@click.command()
def down() -> None:
    """Stop every engine, the daemon and supervisord, and leave no process and no socket."""
    was_up = lifecycle.down(Paths.from_environment(os.environ))
    click.echo("Footplate is down." if was_up else "Footplate was not up.")
