"""`footplate batch submit --on ray://…`: a batch for a cluster; no daemon is asked."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from footplate_daemon.cluster import submitting
from footplate_daemon.errors import Invalid
from footplate_daemon.paths import Paths
from footplate_daemon.wire_batches import BatchProgress, BatchStatus
from footplate_tui.cli import batch_following, batch_words
from footplate_tui.format import count

Command = TypeVar("Command", bound=Callable[..., Any])


def _pairs(_: click.Context, __: click.Parameter, pairs: Sequence[str]) -> dict[str, Any]:
    """Read `max_model_len=4096`: JSON where it is JSON, else text."""
    read: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{pair!r} is no pair. Write it as key=value.")
        try:
            read[name.strip().replace("-", "_")] = json.loads(value)
        except ValueError:
            read[name.strip().replace("-", "_")] = value
    return read


_OPTIONS = (
    click.option("--on", metavar="RAY", help="Answer it on a Ray cluster: ray://HOST:10001, auto, local."),
    click.option("--weights", help="With --on: what the nodes load: ORG/NAME, or a path on each of them."),
    click.option("--replicas", type=click.IntRange(1), help="With --on: so many engines at most; 1."),
    click.option("--gpus", type=click.FloatRange(0), help="With --on: GPUs of each; 1, and 0 is the CPU."),
    click.option(
        "--engine",
        multiple=True,
        callback=_pairs,
        metavar="KEY=VALUE",
        help="With --on: vLLM's engine arguments, such as max_model_len=4096.",
    ),
)


def options(command: Command) -> Command:
    """Add what is said of a cluster to a command; it gets it as `on` and `cluster`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def check(on: str | None, cluster: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Raise `Invalid` for what is said of a cluster without one, or of a batch that no daemon keeps."""
    said = [name for name, value in cluster.items() if value not in (None, {})]
    if on is None and said:
        raise Invalid(
            f"--{said[0]} is for a batch on a cluster.", param=said[0], hint="Name it: --on ray://HOST:10001"
        )
    if on is not None and metadata:
        raise Invalid(
            "A batch on a cluster has no name and no metadata: its files are all that is kept.",
            param="metadata",
            hint="Leave out --name and --metadata.",
        )


def submit(
    file: Path,
    endpoint: str,
    output: Path | None,
    on: str,
    cluster: Mapping[str, Any],
    *,
    as_json: bool,
) -> int:
    """Have a batch answered on a cluster, to its end; give the exit code."""
    if output is None or output == Path("-"):
        raise Invalid(
            "The answers from a cluster need a file.", param="output", hint="Name it: -o answers.jsonl"
        )
    paths = Paths.from_environment(os.environ)
    said = {name: value for name, value in cluster.items() if value is not None}
    wish = submitting.Wish(submitting.address(on), file, endpoint, output, errors_beside(output), **said)
    listed = submitting.read_catalog(paths)
    with batch_following.Nowhere() if as_json else batch_following.for_people() as shown:
        try:
            ended = submitting.submit(wish, listed, paths, os.environ, shown.show)
        except KeyboardInterrupt:
            click.echo("Interrupted; the same command goes on from here.", err=True)
            raise
    if as_json:
        click.echo(ended.batch.model_dump_json())
    else:
        click.echo("\n".join(_ending(ended, wish)))
    return batch_words.exit_code(ended.batch)


def errors_beside(output: Path) -> Path:
    """Give the file for lines that were answered with an error: `a.jsonl` has `a.errors.jsonl` beside it."""
    return output.with_name(f"{output.stem}.errors{output.suffix or '.jsonl'}")


def _ending(ended: BatchProgress, wish: submitting.Wish) -> Sequence[str]:
    batch, counts = ended.batch, ended.batch.request_counts
    if batch.status is BatchStatus.FAILED:
        found = batch.errors.data if batch.errors else ()
        return [
            "The file is not right; nothing was asked.",
            *(f"  {line}" for line in batch_words.bad_lines(found, batch_words.BAD_LINES_SHOWN)),
        ]
    told = [f"{count(counts.completed, 'line')} answered on {wish.address}: {wish.output}"]
    if counts.failed:
        told.append(f"{count(counts.failed, 'line')} failed: {wish.errors}")
    return told
