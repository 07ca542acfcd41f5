"""`footplate config`: the configuration file, checked without a daemon."""

import json
import os
from pathlib import Path

import click

from footplate_daemon import reach, settings
from footplate_daemon.errors import Invalid
from footplate_daemon.paths import Paths


@click.group()
def config() -> None:
    """Check the configuration file, say where it is, describe it to editors."""


@config.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(file: Path | None, *, as_json: bool) -> None:
    """Say everything that is wrong in FILE, or in your config.toml; exit 1 if anything is."""
    paths = Paths.from_environment(os.environ)
    path = file or paths.config_file
    try:
        reach.load(paths, path)
    except Invalid as error:
        if "mistakes" not in error.details:
            raise
        print(_as_json(path, error.details["mistakes"]) if as_json else error.message)
        raise SystemExit(1) from error
    if as_json:
        print(_as_json(path, []))
    elif path.exists():
        print(f"{path} has no mistakes.")
    else:
        print(f"There is no {path}: the defaults hold.")


@config.command()
def path() -> None:
    """Print where your config.toml is, or would be."""
    print(Paths.from_environment(os.environ).config_file)


@config.command()
def schema() -> None:
    """Print the JSON Schema of config.toml, by which editors complete and check it."""
    print(json.dumps(settings.json_schema(), indent=2, ensure_ascii=False))


def _as_json(path: Path, mistakes: list[dict[str, object]]) -> str:
    return json.dumps({"file": str(path), "ok": not mistakes, "mistakes": mistakes}, ensure_ascii=False)
