"""`footplate where`: what a Footplate on another machine asks over SSH before it forwards our socket."""

import json
import os

import click

from footplate_daemon import __version__, lifecycle
from footplate_daemon.paths import Paths

BUSY_SECONDS = 10.0
"""So long a daemon may take to answer that has much to do; one that is down refuses at once."""


@click.command(hidden=True)
@click.option("--start", is_flag=True, help="Start the daemon if it is down.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def where(*, start: bool, as_json: bool) -> None:
    """Print the path of the daemon's socket; as JSON also our version, and whether the daemon answers."""
    paths = Paths.from_environment(os.environ)
    if start:
        lifecycle.up(paths)
    if as_json:
        answers = lifecycle.health(paths, BUSY_SECONDS) is not None
        told = {"version": __version__, "socket": str(paths.socket), "answers": answers}
        # The one who asks reads on: it must come at once.
        click.echo(json.dumps(told))
    else:
        click.echo(paths.socket)
