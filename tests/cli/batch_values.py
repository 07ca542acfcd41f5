"""Batches as a daemon would tell them."""

from typing import Any

from footplate_daemon.wire_batches import Batch, BatchProgress, BatchStatus, RequestCounts

ID = "batch_1"


def batch(
    status: BatchStatus = BatchStatus.IN_PROGRESS,
    total: int = 0,
    completed: int = 0,
    failed: int = 0,
    **more: Any,
) -> Batch:
    return Batch(
        id=ID,
        endpoint="/v1/chat/completions",
        input_file_id="file-in",
        completion_window="24h",
        status=status,
        created_at=1_700_000_000,
        request_counts=RequestCounts(total=total, completed=completed, failed=failed),
        **more,
    )


def progress(told: Batch | None = None, **more: Any) -> BatchProgress:
    return BatchProgress(batch=told or batch(), **more)
