"""A batch on a cluster, told in the shapes in which every batch is told."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from footplate_daemon.errors import EngineFailed
from footplate_daemon.wire_batches import (
    Batch,
    BatchError,
    BatchErrors,
    BatchProgress,
    BatchStatus,
    BatchWaiting,
    RequestCounts,
    WaitsFor,
)

PACE_SECONDS = 30.0
"""The pace is that of so long a while."""
Tell = Callable[[BatchProgress], None]


class Story:
    """Hears what the worker says, and tells how far the batch is."""

    def __init__(self, address: str, endpoint: str, file: Path, output: Path, tell: Tell) -> None:
        self._address = address
        self._file = file
        self._tell = tell
        self._began_at = time.monotonic()
        digest = hashlib.blake2b(str(output.absolute()).encode(), digest_size=8).hexdigest()
        self._batch = Batch(
            id=f"batch_{digest}",
            endpoint=endpoint,
            input_file_id=file.name,
            completion_window="24h",
            status=BatchStatus.VALIDATING,
            created_at=int(time.time()),
        )
        self._waiting: BatchWaiting | None = None
        self._steps: list[tuple[float, int]] = []
        """When how many lines were done, of late."""
        self._problem: str | None = None
        self._show()

    def refused(self, errors: Sequence[BatchError]) -> BatchProgress:
        """End it before anything ran."""
        told = BatchErrors(data=tuple(errors))
        self._update(status=BatchStatus.FAILED, errors=told, failed_at=int(time.time()))
        return self._show()

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take in what the worker says."""
        match event["event"]:
            case "begun":
                counts = RequestCounts(
                    total=event["total"], completed=event["completed"], failed=event["failed"]
                )
                now = int(time.time())
                self._update(status=BatchStatus.IN_PROGRESS, in_progress_at=now, request_counts=counts)
            case "loading":
                message = f"{event['model']} is being loaded on {self._address}."
                self._waiting = BatchWaiting(reason=WaitsFor.ENGINE, message=message)
            case "waiting":
                self._waiting = BatchWaiting(reason=WaitsFor.ENGINE, message=event["message"])
            case "progress" | "done":
                self._count(event["completed"], event["failed"])
            case "failed":
                self._problem = event["message"]
        self._show()

    def ended(self, exit_code: int | None, log: Path, tail: Sequence[str]) -> BatchProgress:
        """Give how it ended; raise `EngineFailed` if lines are left that nobody answers."""
        if exit_code or self._problem:
            raise EngineFailed(
                self._problem
                or "\n".join(["The worker on Ray ended early.", *(f"  {line}" for line in tail)]),
                hint=f"The same command goes on from here. All that was logged: {log}",
                details={"log_tail": list(tail)},
            )
        now = int(time.time())
        self._waiting = None
        self._update(status=BatchStatus.COMPLETED, finalizing_at=now, completed_at=now)
        return self._show()

    def _count(self, completed: int, failed: int) -> None:
        before = self._batch.request_counts
        if completed > before.completed and self._waiting is not None:
            self._waiting = None  # an engine answers: from now on there is a pace
            self._steps = []
        counts = before.model_copy(update={"completed": completed, "failed": failed})
        self._update(request_counts=counts)
        now = time.monotonic()
        self._steps.append((now, completed + failed))
        while self._steps[0][0] < now - PACE_SECONDS and len(self._steps) > 2:
            del self._steps[0]

    def _update(self, **changes: Any) -> None:
        self._batch = self._batch.model_copy(update=changes)

    def _show(self) -> BatchProgress:
        counts, pace = self._batch.request_counts, self._pace()
        left = counts.total - counts.completed - counts.failed
        told = BatchProgress(
            batch=self._batch,
            input_filename=self._file.name,
            lines_per_second=pace,
            eta_seconds=left / pace if pace and left else None,
            running_seconds=time.monotonic() - self._began_at,
            waiting=self._waiting,
        )
        self._tell(told)
        return told

    def _pace(self) -> float | None:
        if len(self._steps) < 2 or self._waiting is not None:
            return None
        (first_at, first), (last_at, last) = self._steps[0], self._steps[-1]
        return (last - first) / (last_at - first_at) if last_at > first_at else None
