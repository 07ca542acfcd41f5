"""The shapes of files and batches: OpenAI's to the letter, and beside them our own, for control.

OpenAI's say every field, `null` where there is nothing; their times are whole Unix seconds. Ours say what
OpenAI does not tell: how fast it goes, when it will be done, what it waits for, what failed and why.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from footplate_daemon.wire import Shape, Wish

MOST_REQUESTS = 50_000
"""Lines of one batch."""
MOST_EMBEDDING_INPUTS = 50_000
"""Texts to embed in one batch, in all of its lines together."""
BATCH_FILE_BYTES = 200 * 1024 * 1024
FILE_BYTES = 512 * 1024 * 1024
"""The largest file of any other purpose."""
COMPLETION_SECONDS = 24 * 3600
BATCH_FILE_SECONDS = 30 * 86_400
"""After so long a file for a batch expires, unless its owner said otherwise."""
MOST_METADATA = 16
MOST_ERRORS = 1000
"""Bad lines that are named one by one; one more entry says how many there are besides."""
FIRST_FAILED = 20
"""Failed lines that the progress of a batch shows."""

# OpenAI's objects


class FilePurpose(StrEnum):
    """What a file is for; the last three are of files that we write."""

    ASSISTANTS = "assistants"
    BATCH = "batch"
    FINE_TUNE = "fine-tune"
    VISION = "vision"
    USER_DATA = "user_data"
    EVALS = "evals"
    ASSISTANTS_OUTPUT = "assistants_output"
    BATCH_OUTPUT = "batch_output"
    FINE_TUNE_RESULTS = "fine-tune-results"


class File(Shape):
    """A stored file."""

    object: Literal["file"] = "file"
    id: str
    purpose: FilePurpose
    filename: str
    bytes: int
    created_at: int
    expires_at: int | None = None
    status: Literal["uploaded", "processed", "error"] = "processed"
    status_details: str | None = None


class FileList(Shape):
    """A page of files."""

    object: Literal["list"] = "list"
    data: tuple[File, ...]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class FileDeleted(Shape):
    """The answer to the deletion of a file."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


class BatchStatus(StrEnum):
    """Where a batch is in its life."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing changes any more."""
        return self in {self.FAILED, self.COMPLETED, self.EXPIRED, self.CANCELLED}


class BatchError(Shape):
    """What is wrong with a line of the input file, or with the file."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None
    """Counted from 1; None where the whole file is meant."""


class BatchErrors(Shape):
    """Why a batch failed before anything ran."""

    object: Literal["list"] = "list"
    data: tuple[BatchError, ...]


class RequestCounts(Shape):
    """How many lines there are and what became of them."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class InputTokensDetails(Shape):
    """How many of the input's tokens an engine had kept."""

    cached_tokens: int = 0


class OutputTokensDetails(Shape):
    """How many of the output's tokens were reasoning."""

    reasoning_tokens: int = 0


class BatchUsage(Shape):
    """Tokens of all lines that were answered so far."""

    input_tokens: int = 0
    input_tokens_details: InputTokensDetails = InputTokensDetails()
    output_tokens: int = 0
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int = 0


class Batch(Shape):
    """OpenAI's batch."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None = None
    """Of all lines; None while that is not known, or where they name several."""
    errors: BatchErrors | None = None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int
    in_progress_at: int | None = None
    expires_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts = RequestCounts()
    usage: BatchUsage | None = None
    metadata: dict[str, str] | None = None


class BatchList(Shape):
    """A page of batches, the newest first."""

    object: Literal["list"] = "list"
    data: tuple[Batch, ...]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class ExpiresAfter(Wish):
    """When a file is to expire: so long after it was made."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=3600, le=2_592_000)


MetadataKey = Annotated[str, StringConstraints(max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=MOST_METADATA)]


class BatchWish(Wish):
    """Body of `POST /v1/batches`."""

    input_file_id: str
    endpoint: str
    completion_window: Literal["24h"] = "24h"
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None


class LineResponse(Shape):
    """What was answered to one line; above 399 its `body` holds the error."""

    status_code: int
    request_id: str
    body: Any


class LineError(Shape):
    """Why a line has no answer at all: `batch_expired`, `batch_cancelled`, `request_timeout`."""

    code: str
    message: str


class BatchResult(Shape):
    """One line of an output or error file."""

    id: str
    custom_id: str
    response: LineResponse | None = None
    error: LineError | None = None


# What OpenAI does not tell


class WaitsFor(StrEnum):
    """Why no line of a batch is being asked although some are left."""

    VALIDATION = "validation"
    TURN = "turn"
    """Another batch has the engine, with another model."""
    QUIET_TIME = "quiet time"
    """It needs a switch, and somebody chatted a moment ago."""
    BATCH_WINDOW = "batch_window"
    """It needs a switch, and only `batch_window` allows it."""
    SWITCH = "switch"
    """Its engine is being started."""
    ENGINE = "engine"
    """Its engine cannot be had just now; it is asked again."""
    DISK = "disk full"


class BatchWaiting(Shape):
    """What a batch waits for."""

    reason: WaitsFor
    message: str
    """A sentence for a person: what it waits for and what to do about it."""
    until: float | None = None
    """When it goes on at the latest, where that is known; Unix seconds."""


class BatchModel(Shape):
    """The lines of a batch that ask for one model."""

    model: str
    variant: str | None = None
    """The variant that answers; None when the configuration has it no more."""
    total: int
    completed: int
    failed: int


class ErrorCount(Shape):
    """How many lines failed in the same way."""

    code: str
    """The error's code, or its type where it has none: `invalid_request_error`, `batch_cancelled`."""
    status_code: int | None = None
    count: int
    example: str
    """The message of the first of them."""


class FailedLine(Shape):
    """A line that has failed."""

    line: int
    """In the input file, counted from 1."""
    custom_id: str
    status_code: int | None = None
    code: str
    message: str


class BatchProgress(Shape):
    """A batch with everything that a person wants to see of it; one event of `follow_batch`."""

    batch: Batch
    owner: str | None = None
    """The name of the key, or the user, that made it."""
    input_filename: str | None = None
    input_bytes: int | None = None
    validated_bytes: int | None = None
    """How far it is while it is `validating`."""
    in_flight: int = 0
    """Lines that are being asked now."""
    concurrency: int = 0
    """How many may be asked at a time now; it adapts to the engine."""
    lines_per_second: float | None = None
    """In the last half minute; None while nothing runs."""
    output_tokens_per_second: float | None = None
    eta_seconds: float | None = None
    """Until the last line at this pace; None while there is no telling."""
    running_seconds: float = 0.0
    """Time in which it had lines under way."""
    retries: int = 0
    """Lines that were asked again because an engine broke off or had no room."""
    waiting: BatchWaiting | None = None
    """None while lines are being asked, and when it has ended."""
    models: tuple[BatchModel, ...] = ()
    errors: tuple[ErrorCount, ...] = ()
    """What failed, by kind, the most frequent first."""
    first_failed: tuple[FailedLine, ...] = ()
    joules: float | None = None
    """What the GPUs used while it had lines under way; None where that is not measured."""


class BatchProgressList(Shape):
    """Every batch that is under way and the newest of the others; one event of `follow_batches`."""

    batches: tuple[BatchProgress, ...]


class RetryWish(Wish):
    """Body of `POST /api/v1/batches/{id}/retry-failed`."""

    metadata: Metadata | None = None
    """None: what the batch had."""


class ComparedAnswer(Shape):
    """One answer of two that are compared."""

    status_code: int | None = None
    text: str = ""
    """What the model said; for an embedding its beginning, for a failed line the error."""
    characters: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    seconds: float | None = None
    """From when it was asked to the end of its answer."""


class ComparedLine(Shape):
    """What two batches answered to the same `custom_id`."""

    custom_id: str
    prompt: str = ""
    """The beginning of the last thing that was said to the model."""
    is_same_input: bool = True
    """Whether the two lines asked the same, the model aside."""
    first: ComparedAnswer | None = None
    """None where that batch has no such line, or no answer yet."""
    second: ComparedAnswer | None = None


class ComparedSide(Shape):
    """One of two batches that are compared, as a whole."""

    batch: Batch
    models: tuple[str, ...]
    answered: int
    failed: int
    mean_characters: float | None = None
    mean_output_tokens: float | None = None
    mean_seconds: float | None = None
    lines_per_second: float | None = None
    output_tokens: int = 0
    joules: float | None = None
    joules_per_line: float | None = None


class BatchComparison(Shape):
    """Two batches of the same input, side by side."""

    first: ComparedSide
    second: ComparedSide
    common: int
    """Lines whose `custom_id` is in both."""
    differing_inputs: int
    """Those of them that did not ask the same."""
    same_answers: int
    """Those of them whose answers are the same to the letter."""
    lines: tuple[ComparedLine, ...]
    """In the order of the first batch's input file: a page."""
    next_line: int | None = None
    """Pass it as `from_line` for the next page; None at the end."""
