"""`footplate env`: environments for runtimes, made by Footplate."""

import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import click
from rich.console import Console
from rich.status import Status

from footplate_daemon import environments
from footplate_daemon.environments import GB, RUNTIMES, Device, Environment, EnvironmentRuntime, Progress
from footplate_daemon.errors import Invalid
from footplate_daemon.paths import Paths
from footplate_daemon.surroundings import looking
from footplate_tui.cli.output import size, table
from footplate_tui.harmless import one_line

USE_IT = {"ray": "Use it: footplate batch submit FILE --on ray://HOST:10001 -o answers.jsonl"}


@click.group()
def env() -> None:
    """Make an environment for a runtime, or for Ray, apart from everything else."""


@env.command()
@click.argument("runtime", type=click.Choice(RUNTIMES))
@click.option("--path", "folder", type=click.Path(path_type=Path), help="In this folder, empty or not there.")
@click.option("--cpu", "device", flag_value="cpu", help="For the CPU.")
@click.option("--cuda", "device", flag_value="cuda", help="For NVIDIA GPUs; else what this machine has.")
@click.option(
    "--python", "python", help="Make it with this Python, if Footplate's own is too new or too old."
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask first.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
def create(
    runtime: str, folder: Path | None, device: str | None, python: str | None, *, yes: bool, as_json: bool
) -> None:
    """Make an environment for RUNTIME, from which Footplate then starts it; config.toml needs no change.

    Takes minutes and gigabytes. Ctrl-C leaves what is done, and the same command goes on from there.
    """
    paths = Paths.from_environment(os.environ)
    name = cast("EnvironmentRuntime", runtime)
    recipe = environments.recipe(name, cast("Device", device or _device_here()))
    known = environments.read(paths, runtime)
    place = folder.expanduser().absolute() if folder else None
    if known is None and not as_json:
        where = place or environments.envs_dir(paths) / runtime
        click.echo(f"An environment for {runtime} on {recipe.device.upper()}, about", nl=False)
        click.echo(f" {recipe.needs_bytes / GB:g} GB, in {where}")
        if not yes and sys.stdin.isatty() and sys.stdout.isatty():
            click.confirm("Make it?", default=True, abort=True)
    was_complete = known is not None and known.complete
    with _ended_by_signals(), _shown(quiet=as_json) as report:
        try:
            made = environments.create(paths, recipe, report, python=_python(python), folder=place)
        except KeyboardInterrupt:
            click.echo("\nInterrupted: the same command goes on from here.", err=True)
            raise
    if as_json:
        click.echo(json.dumps(_told(made)))
    elif was_complete:
        click.echo(f"It is there already: {_contents(made)} in {made.folder}")
    else:
        click.echo(f"It works: {_contents(made)} in {made.folder}")
        click.echo(USE_IT.get(runtime, "A running daemon takes it up with: footplate reload"))


@env.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print the environments as one JSON object.")
def list_(*, as_json: bool) -> None:
    """List the environments that Footplate has made."""
    found = environments.list_all(Paths.from_environment(os.environ))
    if as_json:
        click.echo(json.dumps({"environments": [_told(each) for each in found]}))
    elif found:
        click.echo("\n".join(table(("NAME", "FOR", "STATE", "SIZE", "HOLDS", "FOLDER"), _rows(found))))
    else:
        click.echo("Footplate has made no environment. Make one: footplate env create vllm")


@env.command()
@click.argument("name", type=click.Choice(RUNTIMES))
@click.option("--yes", "-y", is_flag=True, help="Do not ask first.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def remove(name: str, *, yes: bool, as_json: bool) -> None:
    """Remove the environment NAME and all that is in it."""
    paths = Paths.from_environment(os.environ)
    known = environments.read(paths, name)
    if known is not None and not yes and not as_json and sys.stdin.isatty():
        click.confirm(f"Remove {known.folder}?", default=False, abort=True)
    removed = environments.remove(paths, name)
    click.echo(json.dumps(_told(removed)) if as_json else f"{removed.folder} is removed.")


def _device_here() -> Device:
    return "cuda" if looking.gpus().found else "cpu"


def _python(named: str | None) -> str:
    if named is None:
        return sys.executable
    found = shutil.which(named)
    if found is None:
        raise Invalid(f"There is no Python at {named}.", param="python")
    return found


def _rows(found: tuple[Environment, ...]) -> list[tuple[str, ...]]:
    return [
        (
            each.name,
            each.device,
            "ready" if each.complete else f"{len(each.steps_done)} steps done",
            size(each.size_bytes) if each.size_bytes else "-",
            _contents(each) or "-",
            str(each.folder),
        )
        for each in found
    ]


def _contents(found: Environment) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.versions.items())


def _told(found: Environment) -> dict[str, Any]:
    return asdict(found) | {"folder": str(found.folder)}


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM, and the SIGHUP of a lost connection, end the work as Ctrl-C does."""
    signals = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(each, signal.default_int_handler) for each in signals]
    try:
        yield
    finally:
        for each, handler in zip(signals, before, strict=True):
            signal.signal(each, handler)


@contextlib.contextmanager
def _shown(*, quiet: bool) -> Iterator[environments.Report]:
    """Give a report: a line for each step, and on a terminal what pip does now under it."""
    if quiet:
        yield lambda _: None
    elif sys.stdout.isatty():
        console = Console()
        with console.status("") as status:
            yield _Lines(status)
    else:
        yield _Lines(None)


class _Lines:
    def __init__(self, status: Status | None) -> None:
        self._status = status

    def __call__(self, progress: Progress) -> None:
        heading = f"step {progress.number} of {progress.count}: {progress.step}"
        if self._status is None:
            if not progress.detail:
                click.echo(f"{heading}{' (done before)' if progress.skipped else ''}")
            elif not progress.detail.startswith("looking for"):
                click.echo(f"  {progress.detail}")
            return
        if progress.skipped:
            self._status.console.print(f"{heading} (done before)", highlight=False)
        elif not progress.detail:
            self._status.console.print(heading, highlight=False)
        self._status.update(f"[dim]{one_line(progress.detail or progress.step).replace('[', '(')}[/dim]")
