"""`footplate up`."""

import json
import os
from dataclasses import asdict

import click

from footplate_daemon import lifecycle
from footplate_daemon.paths import Paths


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def up(*, as_json: bool) -> None:
    """Start the daemon under supervisord and return when it answers.

    Harmless when it is up already. What a crash has left is ended first.
    """
    found = lifecycle.up(Paths.from_environment(os.environ))
    if as_json:
        click.echo(json.dumps(asdict(found)))
    elif found.was_up:
        click.echo(f"Footplate is up already (version {found.version}, pid {found.pid}).")
    else:
        click.echo(f"Footplate is up after {found.seconds:.1f} s (version {found.version}, pid {found.pid}).")
