"""Which daemon a verb speaks to: the one here, or with `--host` the one there, through a tunnel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from footplate_daemon import __version__
from footplate_daemon.client import FootplateClient
from footplate_daemon.paths import Paths
from footplate_tui.harmless import one_line

if TYPE_CHECKING:
    from footplate_tui.ssh import Box, Found
    from footplate_tui.tunnel import Tunnel


def client() -> FootplateClient:
    """Give a client of the daemon that is meant."""
    return FootplateClient(socket(), host=host())


def host() -> str | None:
    """Give the host that the user named; None means the machine we run on."""
    box = _box()
    return box.host if box else None


def socket(*, start: bool = False) -> Path:
    """Give the socket of the daemon that is meant, with a tunnel to it if it is elsewhere.

    The tunnel lasts as long as the command line runs. With `start` the daemon is started if need be.
    """
    box = _box()
    if box:
        return tunnel(click.get_current_context().find_root(), box, start=start).socket
    paths = Paths.from_environment(os.environ)
    if start:
        from footplate_daemon import lifecycle  # noqa: PLC0415 - most verbs start nothing

        if lifecycle.health(paths) is None:
            lifecycle.up(paths)
    return paths.socket


def tunnel(root: click.Context, box: Box, *, start: bool) -> Tunnel:
    """Give the tunnel of this command line; it is opened when it is wanted first."""
    known: Tunnel | None = root.meta.get(__name__)
    if known:
        return known
    from footplate_tui.tunnel import Tunnel  # noqa: PLC0415 - only with --host

    opened = root.with_resource(Tunnel(box, os.environ))
    _warn_of_version(box, opened.open(start=start))
    root.meta[__name__] = opened
    return opened


def _box() -> Box | None:
    context = click.get_current_context(silent=True)
    return context.find_root().obj if context else None


def _warn_of_version(box: Box, found: Found) -> None:
    """Say on stderr that here and there are different versions: most works, but perhaps not all."""
    if found.version != __version__:
        there = f"{one_line(box.host)} runs Footplate {one_line(found.version)}, here is {__version__}"
        click.echo(f"{click.style('note:', fg='yellow')} {there}: upgrade the older one.", err=True)
