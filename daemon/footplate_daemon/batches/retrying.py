"""A new batch of the lines of another that failed."""

import asyncio
import os
from pathlib import Path

from footplate_daemon.batches.files import Files, Upload
from footplate_daemon.batches.keeper import Batches
from footplate_daemon.errors import Conflict, NotFound
from footplate_daemon.store.batches import Line, StoredBatch
from footplate_daemon.store.files import Owner
from footplate_daemon.wire_batches import (
    BATCH_FILE_BYTES,
    BatchStatus,
    BatchWish,
    ExpiresAfter,
    FilePurpose,
    RetryWish,
)

AT_A_TIME = 500


async def retry_failed(batches: Batches, batch_id: str, owner: Owner, wish: RetryWish) -> StoredBatch:
    """Make a batch of all lines of another that failed, were cancelled or came too late.

    Raise `NotFound` when its input file is gone, `Conflict` when it has not ended or none has failed.
    """
    row = await batches.get(batch_id, owner)
    if not BatchStatus(row.status).is_final:
        raise Conflict(
            f"The batch is {row.status}: more lines may fail.",
            hint=f"Wait until it has ended, or cancel it: footplate batch cancel {row.id}",
        )
    if not row.failed:
        raise Conflict(
            "No line of this batch has failed.",
            hint="A batch that is `failed` ran nothing: mend its file and submit it again.",
        )
    path = batches.files.path(row.input_file_id)
    if not path.exists():
        raise NotFound(
            f"The input file {row.input_file_id} is deleted: its lines cannot be asked again.",
            hint="Submit them from a file of your own.",
        )
    file_id = await _failed_lines_file(batches, batches.files, row, path)
    again = BatchWish(
        input_file_id=file_id,
        endpoint=row.endpoint,
        metadata=row.metadata if wish.metadata is None else wish.metadata,
        output_expires_after=None
        if row.output_expires_seconds is None
        else ExpiresAfter(anchor="created_at", seconds=row.output_expires_seconds),
    )
    return await batches.create(again, row.owner, row.allowed_models)


async def _failed_lines_file(batches: Batches, files: Files, row: StoredBatch, path: Path) -> str:
    upload = files.receive()
    try:
        number = 0
        while some := await batches.store.failed_lines(row.key, after=number, limit=AT_A_TIME):
            await asyncio.to_thread(_copy, path, some, upload)
            number = some[-1].number
        if not upload.size:
            raise Conflict(
                "It is not known any more which lines of this batch failed.",
                hint="Its error file says it; submit them from a file of your own.",
            )
        name = f"retry-of-{row.id}.jsonl"
        file = await files.keep(upload, row.owner, FilePurpose.BATCH, name)
    finally:
        await asyncio.to_thread(upload.close)
    return file.id


def _copy(path: Path, some: list[Line], upload: Upload) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for line in some:
            raw = os.pread(descriptor, line.length, line.offset)
            upload.write(raw.rstrip(b"\r\n") + b"\n", BATCH_FILE_BYTES)
    finally:
        os.close(descriptor)
