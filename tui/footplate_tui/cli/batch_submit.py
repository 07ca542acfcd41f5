"""A file on its way to become a batch: uploaded, made one, and seen through if that is wanted."""

import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import click

from footplate_daemon import errors
from footplate_daemon.client import FootplateClient
from footplate_daemon.wire_batches import BATCH_FILE_BYTES, Batch, BatchProgress, BatchWish
from footplate_tui.cli import batch_following, batch_parts, batch_results, batch_words
from footplate_tui.cli.output import size

STDIN = "-"
STDIN_NAME = "stdin.jsonl"
"""What a file that came through a pipe is called."""
PIECE = 1024 * 1024


@dataclass(frozen=True)
class Submission:
    """What is to become a batch."""

    file: Path
    name: str
    """Of the file."""
    endpoint: str
    metadata: Mapping[str, str]


@contextmanager
def taken(file: str) -> Iterator[tuple[Path, str]]:
    """Give a file on the disk and its name; what comes through a pipe is put there first."""
    path = Path(file)
    if file != STDIN and path.is_file():
        with opened(path) as source:
            _check_size(os.fstat(source.fileno()).st_size, file)
        yield path, path.name
        return
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as kept:
        with nullcontext(sys.stdin.buffer) if file == STDIN else opened(path) as source:
            while piece := source.read(PIECE):
                kept.write(piece)
                _check_size(kept.tell(), "What is piped in")
        kept.flush()
        yield Path(kept.name), STDIN_NAME


def opened(file: Path) -> BinaryIO:
    """Open a file to be read; raise `Invalid` if that cannot be."""
    try:
        return file.open("rb")
    except OSError as error:
        raise errors.Invalid(
            f"{file} cannot be read: {error.strerror}.", hint="Name a file that you may read."
        ) from error


def endpoint_of(file: Path) -> str:
    """Give the endpoint that the first line of a file names."""
    with file.open("rb") as source:
        found = batch_parts.endpoint_of(source)
    if found is None:
        raise errors.Invalid(
            f'The first line of {file.name} does not say with "url" what is asked.',
            hint="Mend the line, or say it: --endpoint /v1/chat/completions",
        )
    return found


async def submit(client: FootplateClient, submission: Submission) -> Batch:
    """Upload the file and make it a batch; a file that does not become one is deleted again."""
    with batch_following.Upload(submission.name, submission.file.stat().st_size) as upload:
        file = await client.upload_file(submission.file, filename=submission.name, told=upload.told)
    # The daemon says what is wrong with a wish, in a sentence.
    wish = BatchWish.model_construct(
        input_file_id=file.id, endpoint=submission.endpoint, metadata=dict(submission.metadata) or None
    )
    try:
        return await client.create_batch(wish)
    except errors.FootplateError:
        with suppress(errors.FootplateError):
            await client.delete_file(file.id)
        raise


@dataclass(frozen=True)
class Seeing:
    """How a batch that was made is seen through and reported."""

    waits: bool
    as_json: bool
    output: Path | None = None
    """Where its answers go."""

    async def through(self, client: FootplateClient, made: Batch) -> int:
        """Report a batch, at once or when it has ended; give the exit code."""
        if not self.waits:
            click.echo(made.model_dump_json() if self.as_json else "\n".join(_begun(made)))
            return 0
        if not self.as_json:
            click.echo(f"{made.id} is submitted.")
        ended = (await followed(client, made.id, self._shown(), is_there=True)).batch
        if self.output is not None and ended.output_file_id:
            with batch_results.sink(self.output) as target:
                await batch_results.copy(client, [ended.output_file_id], target)
        self._report(ended)
        return batch_words.exit_code(ended)

    def _report(self, ended: Batch) -> None:
        if self.as_json:
            click.echo(ended.model_dump_json())
            return
        click.echo("\n".join(batch_words.ending(ended)))
        if ended.output_file_id:
            fetch = f"footplate batch results {ended.id} -o results.jsonl"
            click.echo(f"The answers are in {self.output}." if self.output else f"The answers: {fetch}")

    def _shown(self) -> AbstractContextManager[batch_following.Shown]:
        return batch_following.Nowhere() if self.as_json else batch_following.for_people()


async def followed(
    client: FootplateClient,
    batch_id: str,
    showing: AbstractContextManager[batch_following.Shown],
    *,
    is_there: bool = False,
) -> BatchProgress:
    """See a batch through; who interrupts that is told how to come back."""
    try:
        with showing as shown:
            return await batch_following.follow(client, batch_id, shown, is_there=is_there)
    except asyncio.CancelledError:
        click.echo(f"The batch goes on. Come back: footplate batch show {batch_id} --follow", err=True)
        raise


def _begun(made: Batch) -> Iterator[str]:
    yield f"{made.id} is submitted."
    yield f"See it through: footplate batch show {made.id} --follow"


def _check_size(byte_count: int, what: str) -> None:
    if byte_count > BATCH_FILE_BYTES:
        raise errors.TooLarge(
            f"{what} is larger than the {size(BATCH_FILE_BYTES)} that a batch may have.",
            hint="Cut it into parts: footplate batch split FILE",
        )
