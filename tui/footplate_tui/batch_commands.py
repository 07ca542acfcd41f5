"""The commands of the batches' screens."""

from __future__ import annotations

from textual.message import Message

from footplate_tui.benchmark_commands import DifferingWanted
from footplate_tui.command import BackWanted, Command, CopyWanted, Place


class BatchesWanted(Message):
    """Show the batches; again: go back."""


class OpenBatchWanted(Message):
    """Show the highlighted batch: figures, errors, failed lines."""


class SubmitWanted(Message):
    """Choose a file of requests, send it, and begin a batch of it."""


class MarkBatchWanted(Message):
    """Mark the highlighted batch, to compare it with another."""


class CompareBatchesWanted(Message):
    """Compare two batches of the same input."""


class CancelBatchWanted(Message):
    """End a batch; what was answered is kept."""


class RetryFailedWanted(Message):
    """Begin a new batch of the lines that failed."""


class SaveResultsWanted(Message):
    """Write the results to a file on this machine."""


VIEW_BATCHES = Command(
    "view.batches", "f10", "F10", "batches", "Batches",
    "Send files of requests to be answered, and see how far they are (again: go back).",
    BatchesWanted, Place.PROGRAM, priority=True, leads_elsewhere=True,
)  # fmt: skip

COMMANDS: tuple[Command, ...] = (
    Command(
        "batches.open", "enter", "⏎", "open", "Open",
        "Show the batch: figures, what it waits for, errors by kind, the first failed lines.",
        OpenBatchWanted, Place.BATCHES,
    ),
    Command(
        "batches.submit", "n", "n", "new", "New batch",
        "Choose a file of requests on this machine, send it, and begin.",
        SubmitWanted, Place.BATCHES,
    ),
    Command(
        "batches.save", "s", "s", "save", "Save the results",
        "Write the results to a file on this machine; failed lines to one beside it.",
        SaveResultsWanted, Place.BATCHES,
    ),
    Command(
        "batches.retry", "r", "r", "retry failed", "Retry what failed",
        "Begin a new batch of the lines that failed.",
        RetryFailedWanted, Place.BATCHES,
    ),
    Command(
        "batches.mark", "space", "␣", "mark", "Mark",
        "Mark a batch, to compare it with another.",
        MarkBatchWanted, Place.BATCHES,
    ),
    Command(
        "batches.compare", "v", "v", "compare", "Compare",
        "Compare with the marked batch: answers side by side, lengths, times, tokens, energy.",
        CompareBatchesWanted, Place.BATCHES,
    ),
    Command(
        "batches.cancel", "c", "c", "cancel", "Cancel",
        "End the batch and keep what was answered; press it twice.",
        CancelBatchWanted, Place.BATCHES,
    ),
    Command(
        "batches.back", "escape,q", "esc", "back", "Back",
        "Take back a question or the mark, else go back.",
        BackWanted, Place.BATCHES,
    ),
    Command(
        "batch.save", "s", "s", "save", "Save the results",
        "Write the results to a file on this machine; failed lines to one beside it.",
        SaveResultsWanted, Place.BATCH,
    ),
    Command(
        "batch.retry", "r", "r", "retry failed", "Retry what failed",
        "Begin a new batch of the lines that failed.",
        RetryFailedWanted, Place.BATCH,
    ),
    Command(
        "batch.cancel", "c", "c", "cancel", "Cancel",
        "End the batch and keep what was answered; press it twice.",
        CancelBatchWanted, Place.BATCH,
    ),
    Command(
        "batch.back", "escape,q", "esc", "back", "Back",
        "Take back a question, else go back.",
        BackWanted, Place.BATCH,
    ),
    Command(
        "compared.differing", "d", "d", "differing", "What differs",
        "Show only lines whose answers differ, or all again.",
        DifferingWanted, Place.BATCHES_COMPARED,
    ),
    Command(
        "compared.copy", "y", "y", "copy", "Copy the answers",
        "Copy the line with both answers.",
        CopyWanted, Place.BATCHES_COMPARED,
    ),
    Command(
        "compared.back", "escape,q", "esc", "back", "Back",
        "Go back to the batches.",
        BackWanted, Place.BATCHES_COMPARED,
    ),
)  # fmt: skip
