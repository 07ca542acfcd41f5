"""The commands of the benchmarks' screens."""

from __future__ import annotations

from textual.message import Message

from footplate_tui.command import BackWanted, Command, CopyWanted, Place


class BenchmarksWanted(Message):
    """Show the benchmarks; again: go back."""


class OpenRunWanted(Message):
    """Show the highlighted run with its charts and results."""


class NewRunWanted(Message):
    """Choose what a new run measures."""


class AgainWanted(Message):
    """Measure the same once more, after a look at the choices."""


class MarkRunWanted(Message):
    """Mark the highlighted run, to compare it with another."""


class CompareRunsWanted(Message):
    """Compare two runs."""


class CancelRunWanted(Message):
    """End a run; what was measured is kept."""


class DeleteRunWanted(Message):
    """Delete the highlighted run for good."""


class ToggleWanted(Message):
    """Choose what is highlighted, or choose it no more."""


class MoreWanted(Message):
    """Raise the highlighted number."""


class LessWanted(Message):
    """Lower the highlighted number."""


class TitleWanted(Message):
    """Name the run."""


class StartRunWanted(Message):
    """Begin the run."""


class AnswersWanted(Message):
    """Show what the entrants answered, side by side."""


class ReportWanted(Message):
    """Write the report and open it in a browser."""


class ChartsWanted(Message):
    """Give the charts more room, or the results."""


class EarlierAnswerWanted(Message):
    """Show the answers to the request before."""


class LaterAnswerWanted(Message):
    """Show the answers to the next request."""


class DifferingWanted(Message):
    """Show only what differs, or all again."""


VIEW_BENCHMARKS = Command(
    "view.benchmarks", "f3", "F3", "benchmarks", "Benchmarks",
    "Measure runtimes and models against each other, fairly, and see who is better (again: go back).",
    BenchmarksWanted, Place.PROGRAM, priority=True, leads_elsewhere=True,
)  # fmt: skip

COMMANDS: tuple[Command, ...] = (
    Command(
        "benchmarks.open", "enter", "⏎", "open", "Open",
        "Show the run: progress, charts, results.",
        OpenRunWanted, Place.BENCHMARKS,
    ),
    Command(
        "benchmarks.new", "n", "n", "new", "New benchmark",
        "Choose variants, presets, workloads and how many requests at a time, and begin.",
        NewRunWanted, Place.BENCHMARKS,
    ),
    Command(
        "benchmarks.again", "r", "r", "again", "Measure again",
        "Choose the same once more, to begin it as it was or changed.",
        AgainWanted, Place.BENCHMARKS,
    ),
    Command(
        "benchmarks.mark", "space", "␣", "mark", "Mark",
        "Mark a run, to compare it with another.",
        MarkRunWanted, Place.BENCHMARKS,
    ),
    Command(
        "benchmarks.compare", "v", "v", "compare", "Compare",
        "Compare with the marked run; without one, with the run before that measured the same.",
        CompareRunsWanted, Place.BENCHMARKS,
    ),
    Command(
        "benchmarks.cancel", "c", "c", "cancel", "Cancel",
        "End a run that waits or goes on, and keep what it has measured; press it twice.",
        CancelRunWanted, Place.BENCHMARKS,
    ),
    Command(
        "benchmarks.delete", "d", "d", "delete", "Delete",
        "Delete a run for good; press it twice.",
        DeleteRunWanted, Place.BENCHMARKS,
    ),
    Command(
        "benchmarks.back", "escape,q", "esc", "back", "Back",
        "Take back a question or the mark, else go back.",
        BackWanted, Place.BENCHMARKS,
    ),
    Command(
        "matrix.start", "enter", "⏎", "begin", "Begin",
        "Begin the run; where somebody is being answered, press it twice.",
        StartRunWanted, Place.MATRIX,
    ),
    Command(
        "matrix.toggle", "space", "␣", "choose", "Choose",
        "Choose what is highlighted, or choose it no more.",
        ToggleWanted, Place.MATRIX,
    ),
    Command(
        "matrix.less", "left,minus", "←", "less", "Less",
        "Lower the highlighted number (or type it).",
        LessWanted, Place.MATRIX,
    ),
    Command(
        "matrix.more", "right,plus", "→", "more", "More",
        "Raise the highlighted number (or type it).",
        MoreWanted, Place.MATRIX,
    ),
    Command(
        "matrix.title", "t", "t", "title", "Title",
        "Name the run, to find it again.",
        TitleWanted, Place.MATRIX,
    ),
    Command(
        "matrix.back", "escape,q", "esc", "back", "Back",
        "Leave what is typed, else go back; nothing is begun.",
        BackWanted, Place.MATRIX,
    ),
    Command(
        "benchmark.answers", "enter,a", "⏎", "answers", "Answers",
        "Show what each entrant answered to the same request, side by side.",
        AnswersWanted, Place.BENCHMARK,
    ),
    Command(
        "benchmark.report", "o", "o", "report", "Report",
        "Write the report, one HTML file with charts, and open it in the browser.",
        ReportWanted, Place.BENCHMARK,
    ),
    Command(
        "benchmark.compare", "v", "v", "compare", "Compare",
        "Compare with the run before that measured the same.",
        CompareRunsWanted, Place.BENCHMARK,
    ),
    Command(
        "benchmark.charts", "tab", "⇥", "charts", "Charts or results",
        "Give the charts more room, or the results.",
        ChartsWanted, Place.BENCHMARK,
    ),
    Command(
        "benchmark.cancel", "c", "c", "cancel", "Cancel",
        "End the run while it waits or goes on, and keep what it has measured; press it twice.",
        CancelRunWanted, Place.BENCHMARK,
    ),
    Command(
        "benchmark.again", "r", "r", "again", "Measure again",
        "Choose the same once more, to begin it as it was or changed.",
        AgainWanted, Place.BENCHMARK,
    ),
    Command(
        "benchmark.back", "escape,q", "esc", "back", "Back",
        "Take back a question, else go back; the run goes on.",
        BackWanted, Place.BENCHMARK,
    ),
    Command(
        "runs.differing", "d", "d", "differing", "What differs",
        "Show only what differs by more than 5 %, or all again.",
        DifferingWanted, Place.RUNS,
    ),
    Command(
        "runs.back", "escape,q", "esc", "back", "Back",
        "Go back.",
        BackWanted, Place.RUNS,
    ),
    Command(
        "answers.earlier", "left", "←", "before", "Request before",
        "Show the answers to the request before.",
        EarlierAnswerWanted, Place.ANSWERS, priority=True,
    ),
    Command(
        "answers.later", "right", "→", "next", "Next request",
        "Show the answers to the next request.",
        LaterAnswerWanted, Place.ANSWERS, priority=True,
    ),
    Command(
        "answers.differing", "d", "d", "differing", "What differs",
        "Show only requests whose answers differ, or all again.",
        DifferingWanted, Place.ANSWERS,
    ),
    Command(
        "answers.copy", "y", "y", "copy", "Copy the answers",
        "Copy the request with all answers to it.",
        CopyWanted, Place.ANSWERS,
    ),
    Command(
        "answers.back", "escape,q", "esc", "back", "Back",
        "Go back to the results.",
        BackWanted, Place.ANSWERS,
    ),
)  # fmt: skip
