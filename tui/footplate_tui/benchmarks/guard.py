"""The regression guard: whether a run is slower than the last comparable one on this machine. Pure.

It speaks when the change is beyond the threshold, and surely so: the whole confidence interval of the change
is (divided among everything that is looked at, so that looking often finds no ghosts). Where still earlier
runs of exactly the same are at hand, their own spread is the noise of this machine, and a change within it
is none.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from footplate_daemon.wire_benchmarks import BenchmarkRun
from footplate_tui.benchmarks import bootstrap, likeness, measures
from footplate_tui.benchmarks.bootstrap import Estimate
from footplate_tui.benchmarks.measures import Counting, Figure, Measure, Showing, Square

THRESHOLD = 0.05
DRAWS = 2000
"""The ends of narrow intervals need more of them."""
WATCHED = (Measure.TTFT, Measure.STREAM, Measure.LATENCY, Measure.THROUGHPUT)

Verdict = Literal["same", "slower", "perhaps slower", "faster"]


@dataclass(frozen=True)
class Finding:
    """One figure, now and then."""

    variant: str
    square: Square
    measure: str
    before: float
    now: float
    change: Estimate
    """How many times worse it is: 1.1 is a tenth slower, less than 1 is better."""
    noise: float
    """By how much earlier runs of the same differ among themselves, as a share; 0 where there are none."""
    verdict: Verdict


@dataclass(frozen=True)
class Guarded:
    """What the guard has to say of a run."""

    run: BenchmarkRun
    before: BenchmarkRun
    threshold: float
    findings: tuple[Finding, ...]
    more: tuple[str, ...]
    """Regressions that are no speed: more errors, more GPU memory, an entrant that does not start."""
    differences: tuple[str, ...]
    """What is not alike between the two: the suspects."""

    @property
    def slower(self) -> tuple[Finding, ...]:
        """What is surely worse."""
        return tuple(each for each in self.findings if each.verdict == "slower")

    @property
    def is_quiet(self) -> bool:
        """Whether there is nothing to say."""
        return not self.slower and not self.more


def guard(
    run: BenchmarkRun,
    before: BenchmarkRun,
    earlier: Sequence[BenchmarkRun] = (),
    threshold: float = THRESHOLD,
) -> Guarded:
    """Judge a run by the one before; `earlier` ones tell how noisy the machine is."""
    pairs = list(_pairs(run, before))
    confidence = 1 - (1 - bootstrap.CONFIDENCE) / max(1, len(pairs) * len(WATCHED))
    findings = [
        finding
        for now, then in pairs
        for finding in _findings(now, then, _alike(then, earlier), threshold, confidence)
    ]
    more = [sentence for now, then in pairs for sentence in _more(now, then, threshold)]
    more += _not_started(run, before)
    return Guarded(
        run,
        before,
        threshold,
        tuple(findings),
        tuple(dict.fromkeys(more)),
        tuple(likeness.differences(run, before)),
    )


def _pairs(run: BenchmarkRun, before: BenchmarkRun) -> Iterator[tuple[Showing, Showing]]:
    older = measures.showings(before)
    for square, shown in measures.showings(run).items():
        candidates = [each for each in older.get(square, []) if each.completed]
        for now in shown:
            match = likeness.counterpart(now.entrant, [each.entrant for each in candidates])
            if match is not None:
                yield now, next(each for each in candidates if each.entrant is match)


def _findings(
    now: Showing, then: Showing, alike: Sequence[Showing], threshold: float, confidence: float
) -> Iterator[Finding]:
    counting = measures.counting_for([now, then, *alike])
    for measure in WATCHED:
        new, old = _figure(now, measure, counting), _figure(then, measure, counting)
        if new is None or old is None:
            continue
        worse, better = (new, old) if measure.is_better_lower else (old, new)
        change = worse.ratio(better, confidence)
        noise = _noise([then, *alike], measure, counting)
        verdict = _verdict(change, max(threshold, noise))
        yield Finding(now.entrant.variant, now.square, measure, old.value, new.value, change, noise, verdict)


def _verdict(change: Estimate, margin: float) -> Verdict:
    if change.low is not None and change.low > 1 + margin:
        return "slower"
    if change.high is not None and change.high < 1 / (1 + margin):
        return "faster"
    return "perhaps slower" if change.value > 1 + margin else "same"


def _noise(shown: Sequence[Showing], measure: Measure, counting: Counting) -> float:
    """Give by how much the slowest run differs from the quickest, of runs in which nothing was changed."""
    values = [each.value for one in shown if (each := _figure(one, measure, counting, draws=0))]
    return max(values) / min(values) - 1 if len(values) > 1 else 0.0


def _alike(then: Showing, earlier: Sequence[BenchmarkRun]) -> list[Showing]:
    return [
        each
        for run in earlier
        for each in measures.showings(run).get(then.square, [])
        if each.completed and likeness.is_same_subject(each.entrant, then.entrant)
    ]


def _more(now: Showing, then: Showing, threshold: float) -> Iterator[str]:
    where = f"{now.entrant.variant}, {now.square}"
    asked, asked_before = now.failed + now.completed, then.failed + then.completed
    if asked and now.failed / asked > then.failed / asked_before:
        yield f"{where}: {now.failed} of {asked} requests failed, {then.failed} of {asked_before} before"
    vram, vram_before = now.vram_peak(), then.vram_peak()
    if vram and vram_before and vram > vram_before * (1 + threshold):
        gigabytes, before = vram / 1e9, vram_before / 1e9
        yield f"{where}: {gigabytes:.2f} GB of GPU memory, {before:.2f} GB before"


def _not_started(run: BenchmarkRun, before: BenchmarkRun) -> Iterator[str]:
    for entrant in run.entrants:
        match = likeness.counterpart(entrant, before.entrants)
        if entrant.state == "failed" and match is not None and match.state == "done":
            yield f"{entrant.variant} did not start; in run {before.id} it did"


def _figure(showing: Showing, measure: Measure, counting: Counting, draws: int = DRAWS) -> Figure | None:
    return measures.figure(showing, measure, counting, draws)
