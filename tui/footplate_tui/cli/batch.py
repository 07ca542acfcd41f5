"""`footplate batch`: thousands of requests in a file, asked when there is time for them."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from footplate_daemon.client import FootplateClient
from footplate_daemon.wire_batches import BatchProgressList, RetryWish
from footplate_tui.cli import (
    batch_following,
    batch_on_ray,
    batch_results,
    batch_submit,
    batch_words,
    reaching,
)
from footplate_tui.cli.batch_asking import ask, ask_about, meant
from footplate_tui.cli.batch_compare import compare
from footplate_tui.cli.batch_files import files
from footplate_tui.cli.batch_split import split


def _target(_: click.Context, __: click.Parameter, path: Path | None) -> Path | None:
    """See to it before a night of waiting that the file can be written at its end."""
    if path is not None and not os.access(path.parent, os.W_OK | os.X_OK):
        raise click.BadParameter(f"{path.parent} is no folder where you may write.")
    return path


def _answers(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    if path is not None and str(path) == batch_submit.STDIN:
        raise click.BadParameter("Name a file; afterwards there is: footplate batch results last")
    return _target(context, option, path)


def _metadata(_: click.Context, __: click.Parameter, pairs: Sequence[str]) -> dict[str, str]:
    bad = [pair for pair in pairs if not pair.partition("=")[0] or "=" not in pair]
    if bad:
        raise click.BadParameter(f"{bad[0]!r} is no pair. Write it as key=value.")
    return {key: value for key, _, value in (pair.partition("=") for pair in pairs)}


IN_A_FILE = click.Path(path_type=Path, dir_okay=False, writable=True, allow_dash=True)


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="List them as one JSON object.")
@click.pass_context
def batch(context: click.Context, *, as_json: bool) -> None:
    """Submit, watch and fetch batches; without a command, list them.

    Where an ID is wanted, `last` means the batch made last.

    \b
    Exit codes of --wait and --follow: 0 every line was answered, 1 some lines failed,
    4 the batch failed, expired or was cancelled, 130 interrupted (the batch goes on).
    """  # noqa: D301 - click's sign for "do not wrap"
    if context.invoked_subcommand is None:
        context.invoke(list_batches, as_json=as_json)


for each in (files, split, compare):
    batch.add_command(each)


@batch.command()
@click.argument("file")
@click.option("--endpoint", help="What the lines ask, such as /v1/embeddings; else what the first one names.")
@click.option("--name", help="What to call it: its metadata's `name`.")
@click.option(
    "--metadata", multiple=True, callback=_metadata, metavar="KEY=VALUE", help="Kept with it; up to 16."
)
@click.option("--wait", is_flag=True, help="Return when it has ended; Ctrl-C leaves it going on.")
@click.option(
    "-o", "--output", type=IN_A_FILE, callback=_answers, help="Wait, and put the answers into this file."
)
@batch_on_ray.options
@click.option("--json", "as_json", is_flag=True, help="Print OpenAI's batch as one JSON object.")
def submit(
    file: str,
    endpoint: str | None,
    name: str | None,
    metadata: dict[str, str],
    output: Path | None,
    *,
    on: str | None,
    wait: bool,
    as_json: bool,
    **cluster: Any,
) -> int:
    """Upload FILE, one request on each line in OpenAI's form, and make it a batch; - reads a pipe.

    \b
    footplate batch submit requests.jsonl --wait -o results.jsonl
    footplate batch submit requests.jsonl --name evals --metadata run=7
    footplate batch submit requests.jsonl --on ray://head.example:10001 -o results.jsonl
    """  # noqa: D301 - click's sign for "do not wrap"
    named = {batch_words.NAME_KEY: name} if name else {}
    batch_on_ray.check(on, cluster, named | metadata)
    seeing = batch_submit.Seeing(waits=wait or output is not None, as_json=as_json, output=output)

    with batch_submit.taken(file) as (path, filename):
        asked = endpoint or batch_submit.endpoint_of(path)
        if on is not None:
            return batch_on_ray.submit(path, asked, output, on, cluster, as_json=as_json)
        wanted = batch_submit.Submission(path, filename, asked, named | metadata)
        made = ask(lambda client: batch_submit.submit(client, wanted))
    return ask(lambda client: seeing.through(client, made))


@batch.command("list")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print them as one JSON object.")
def list_batches(limit: int, *, as_json: bool) -> None:
    """List every batch under way and the newest of the others."""
    found = ask(lambda client: client.batches_progress(limit))
    as_object = BatchProgressList(batches=found)
    click.echo(as_object.model_dump_json() if as_json else "\n".join(batch_words.lines(found)))


@batch.command()
@click.argument("batch_id", metavar="ID")
@click.option("-f", "--follow", "is_following", is_flag=True, help="Go on until it has ended.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; with --follow a line for each.")
def show(batch_id: str, *, is_following: bool, as_json: bool) -> int:
    """Show how far the batch ID is, how fast, what it waits for, and what failed."""
    if is_following:
        return asyncio.run(_follow(batch_id, as_json=as_json))
    found = ask_about(batch_id, lambda client, found: client.batch_progress(found))
    click.echo(found.model_dump_json() if as_json else "\n".join(batch_words.whole_lines(found)))
    return 0


@batch.command()
@click.argument("batch_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print OpenAI's batch as one JSON object.")
def cancel(batch_id: str, *, as_json: bool) -> None:
    """End the batch ID; what was answered until then is kept."""
    ended = ask_about(batch_id, lambda client, found: client.cancel_batch(found))
    kept = f"What was answered is kept: footplate batch results {ended.id}"
    click.echo(ended.model_dump_json() if as_json else f"{ended.id} is being cancelled. {kept}")


@batch.command()
@click.argument("batch_id", metavar="ID")
@click.option(
    "-o", "--output", type=IN_A_FILE, callback=_target, help="Into this file; it is there once it is whole."
)
@click.option("--errors", is_flag=True, help="The lines that failed.")
@click.option("--all", "everything", is_flag=True, help="Both, the answers and the lines that failed.")
@click.option("--ordered", is_flag=True, help="In the order of the input's lines.")
def results(batch_id: str, output: Path | None, *, errors: bool, everything: bool, ordered: bool) -> None:
    """Write out what the batch ID answered, one JSON object on each line.

    \b
    footplate batch results last -o results.jsonl --ordered
    footplate batch results last --errors | jq .response.body.error.message
    """  # noqa: D301 - click's sign for "do not wrap"

    async def fetched(client: FootplateClient, found: str) -> None:
        ended = await client.batch(found)
        wanted = batch_results.wanted_files(ended, errors=errors, everything=everything)
        if ordered:
            await client.file(ended.input_file_id)  # Before anything is written.
        with batch_results.sink(output) as target:
            if ordered:
                folder = output.parent if output else None
                await batch_results.copy_ordered(client, wanted, ended.input_file_id, target, folder=folder)
            else:
                await batch_results.copy(client, wanted, target)

    ask_about(batch_id, fetched)


@batch.command("retry-failed")
@click.argument("batch_id", metavar="ID")
@click.option("--metadata", multiple=True, callback=_metadata, metavar="KEY=VALUE", help="Else what it had.")
@click.option("--wait", is_flag=True, help="Return when it has ended; Ctrl-C leaves it going on.")
@click.option(
    "-o", "--output", type=IN_A_FILE, callback=_answers, help="Wait, and put the answers into this file."
)
@click.option("--json", "as_json", is_flag=True, help="Print OpenAI's batch as one JSON object.")
def retry_failed(
    batch_id: str, metadata: dict[str, str], output: Path | None, *, wait: bool, as_json: bool
) -> int:
    """Make a new batch of the lines of ID that failed."""
    seeing = batch_submit.Seeing(waits=wait or output is not None, as_json=as_json, output=output)

    async def retried(client: FootplateClient, found: str) -> int:
        wish = RetryWish.model_construct(metadata=metadata or None)
        return await seeing.through(client, await client.retry_failed_batch(found, wish))

    return ask_about(batch_id, retried)


async def _follow(batch_id: str, *, as_json: bool) -> int:
    async with reaching.client() as client:
        found = await meant(client, batch_id)
        showing = batch_following.Json() if as_json else batch_following.for_people()
        ended = await batch_submit.followed(client, found, showing)
    if not as_json:
        click.echo("\n".join(batch_words.ending(ended.batch)))
    return batch_words.exit_code(ended.batch)
