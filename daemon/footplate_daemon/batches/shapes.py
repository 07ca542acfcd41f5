"""Batches and files as clients see them: OpenAI's objects, and the progress that is our own."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from footplate_daemon.batches.asking import ask_of
from footplate_daemon.batches.keeper import Batches
from footplate_daemon.batches.lines import read_result
from footplate_daemon.batches.live import LiveBatch
from footplate_daemon.batches.output import read_at
from footplate_daemon.errors import FootplateError
from footplate_daemon.store.batches import Line, LineState, StoredBatch
from footplate_daemon.store.files import StoredFile
from footplate_daemon.wire_batches import (
    FIRST_FAILED,
    Batch,
    BatchError,
    BatchErrors,
    BatchModel,
    BatchProgress,
    BatchStatus,
    BatchUsage,
    BatchWaiting,
    ErrorCount,
    FailedLine,
    File,
    FilePurpose,
    InputTokensDetails,
    OutputTokensDetails,
    RequestCounts,
    WaitsFor,
)

ENDED_KEPT = 200
"""Batches that have ended whose progress is kept in memory: it does not change any more."""


def file_shape(file: StoredFile) -> File:
    """Give a file as OpenAI does."""
    return File(
        id=file.id,
        purpose=FilePurpose(file.purpose),
        filename=file.filename,
        bytes=file.bytes,
        created_at=file.created_at,
        expires_at=file.expires_at,
    )


def batch_shape(row: StoredBatch) -> Batch:
    """Give a batch as OpenAI does."""
    status = BatchStatus(row.status)
    errors = row.errors and BatchErrors(data=tuple(BatchError.model_validate(each) for each in row.errors))
    return Batch(
        id=row.id,
        endpoint=row.endpoint,
        model=row.models[0] if len(row.models) == 1 else None,
        errors=errors or None,
        input_file_id=row.input_file_id,
        completion_window=row.completion_window,
        status=status,
        output_file_id=row.output_file_id if status.is_final and row.output_bytes else None,
        error_file_id=row.error_file_id if status.is_final and row.error_bytes else None,
        created_at=row.created_at,
        in_progress_at=row.in_progress_at,
        expires_at=row.expires_at,
        finalizing_at=row.finalizing_at,
        completed_at=row.completed_at,
        failed_at=row.failed_at,
        expired_at=row.expired_at,
        cancelling_at=row.cancelling_at,
        cancelled_at=row.cancelled_at,
        request_counts=RequestCounts(total=row.total, completed=row.completed, failed=row.failed),
        usage=BatchUsage(
            input_tokens=row.input_tokens,
            input_tokens_details=InputTokensDetails(cached_tokens=row.cached_tokens),
            output_tokens=row.output_tokens,
            output_tokens_details=OutputTokensDetails(reasoning_tokens=row.reasoning_tokens),
            total_tokens=row.input_tokens + row.output_tokens,
        ),
        metadata=row.metadata,
    )


class Shower:
    """Tells of each batch what a person wants to see."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._ended: dict[str, BatchProgress] = {}

    async def progress(self, row: StoredBatch) -> BatchProgress:
        """Give a batch with all that is known of how it goes."""
        if row.id in self._ended:
            return self._ended[row.id]
        live = self._batches.live(row.id)
        row = live.row if live is not None else row
        shown = await self._shown(row, live)
        if live is None and shown.batch.status.is_final:
            if len(self._ended) >= ENDED_KEPT:
                self._ended.pop(next(iter(self._ended)))
            self._ended[row.id] = shown
        return shown

    async def _shown(self, row: StoredBatch, live: LiveBatch | None) -> BatchProgress:
        store = self._batches.store
        errors = await store.errors(row.key) if row.failed else []
        pace = live.pace.each_second(time.monotonic()) if live is not None else None
        left = row.total - row.completed - row.failed
        seconds, joules = live.metered if live is not None else (row.running_seconds, row.joules)
        validation = live.validation if live is not None else None
        return BatchProgress(
            batch=batch_shape(row),
            owner=row.owner.name,
            input_filename=row.input_filename,
            input_bytes=row.input_bytes,
            validated_bytes=validation.read_bytes if validation is not None else None,
            in_flight=live.in_flight if live is not None else 0,
            concurrency=live.concurrency if live is not None else 0,
            lines_per_second=pace[0] if pace is not None else None,
            output_tokens_per_second=pace[1] if pace is not None else None,
            eta_seconds=left / pace[0] if pace is not None and pace[0] > 0 else None,
            running_seconds=seconds,
            retries=row.retries,
            waiting=self._waiting(live) if live is not None else None,
            models=await self._models(row),
            errors=tuple(
                ErrorCount(
                    code=failure.code,
                    status_code=failure.status_code or None,
                    count=count,
                    example=failure.message,
                )
                for failure, count in errors
            ),
            first_failed=await self._first_failed(row) if row.failed else (),
            joules=joules,
        )

    def _waiting(self, live: LiveBatch) -> BatchWaiting | None:
        if live.trouble is not None:
            return BatchWaiting(reason=WaitsFor.DISK, message=live.trouble)
        if self._batches.recorder.problem is not None:
            return BatchWaiting(reason=WaitsFor.DISK, message=self._batches.recorder.problem)
        if live.row.status == BatchStatus.VALIDATING:
            return BatchWaiting(reason=WaitsFor.VALIDATION, message="Its file is being looked through.")
        if live.in_flight or live.row.status != BatchStatus.IN_PROGRESS:
            return None
        return self._batches.lanes.why_waiting(live)

    async def _models(self, row: StoredBatch) -> tuple[BatchModel, ...]:
        if len(row.models) == 1:
            counts = [(0, int(LineState.COMPLETED), row.completed), (0, int(LineState.FAILED), row.failed)]
            counts.append((0, int(LineState.PENDING), row.total - row.completed - row.failed))
        else:
            counts = await self._batches.store.counts(row.key)
        return tuple(self._model(row, place, counts) for place in range(len(row.models)))

    def _model(self, row: StoredBatch, place: int, counts: Sequence[tuple[int, int, int]]) -> BatchModel:
        by_state = {state: count for model, state, count in counts if model == place}
        model = row.models[place]
        try:
            ask = ask_of(row.id, row.endpoint, {"model": model})
            variant: str | None = self._batches.gateway.resolve_for(ask).name
        except FootplateError:
            variant = None
        return BatchModel(
            model=model,
            variant=variant,
            total=sum(by_state.values()),
            completed=by_state.get(int(LineState.COMPLETED), 0),
            failed=by_state.get(int(LineState.FAILED), 0),
        )

    async def _first_failed(self, row: StoredBatch) -> tuple[FailedLine, ...]:
        failed = await self._batches.store.failed_lines(row.key, after=0, limit=FIRST_FAILED)
        path = self._batches.files.path(row.error_file_id)
        return await asyncio.to_thread(lambda: tuple(_failed_line(path, line) for line in failed))


def _failed_line(path: Path, line: Line) -> FailedLine:
    try:
        result = read_result(read_at(path, line.answer_offset or 0, line.answer_length or 0))
    except OSError:  # the file is deleted
        result = None
    failure = result.failure if result is not None else None
    return FailedLine(
        line=line.number,
        custom_id=line.custom_id,
        status_code=failure.status_code or None if failure is not None else None,
        code=failure.code if failure is not None else "unknown",
        message=failure.message if failure is not None else "Its error file is deleted.",
    )
