"""Which entrant to keep, in a sentence with its evidence. Pure.

Only what is comparable counts: squares of the matrix on which everyone who takes part did the same work,
with no failed request and undisturbed. Four prizes are given: the fastest first token, the fastest stream,
the most throughput of many requests at a time, the least memory. Kept is who is best on the whole (the
geometric mean of the speeds); where that is not sure, who of the best needs least memory. Every claim that
the confidence intervals do not bear out is said to be uncertain.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from footplate_daemon.wire_benchmarks import BenchmarkRun, Entrant
from footplate_tui.benchmarks import figures, measures
from footplate_tui.benchmarks.bootstrap import Estimate
from footplate_tui.benchmarks.marks import marks
from footplate_tui.benchmarks.measures import Counting, Figure, Measure, Showing, Square

SAME_MEMORY = 0.02
"""Memory that differs by less is the same."""


@dataclass(frozen=True)
class Prize:
    """Who is best at one thing."""

    what: str
    """`the fastest first token`."""
    winner: str
    value: str
    """The winner's figure, over everything that counted."""
    standings: tuple[tuple[str, str], ...]
    """Everyone with his figure, the best first."""
    runner_up: str | None = None
    lead: Estimate | None = None
    """How many times better than the runner-up; without an interval where nothing is known of it."""
    is_certain: bool = True


@dataclass(frozen=True)
class Recommendation:
    """What to keep for one model, and why."""

    model: str
    keep: str | None
    """None where nothing comparable was measured."""
    is_certain: bool
    sentence: str
    prizes: tuple[Prize, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    """Who could not be compared, and why not."""


def recommend(run: BenchmarkRun) -> tuple[Recommendation, ...]:
    """Give a recommendation for each model of the run."""
    models = dict.fromkeys(entrant.model for entrant in run.entrants)
    return tuple(_of_model(run, model) for model in models)


@dataclass(frozen=True)
class _Contender:
    name: str
    showings: Mapping[Square, Showing]


def _of_model(run: BenchmarkRun, model: str) -> Recommendation:
    everyone = _contenders(run, model)
    those, left_out = _comparable(everyone)
    if not those:
        sentence = f"Nothing can be said of {model}: no figure of it can be compared."
        return Recommendation(model, None, is_certain=False, sentence=sentence, left_out=tuple(left_out))
    shared = [square for square in those[0].showings if _is_clean_for(those, square)]
    counting = measures.counting_for(each.showings[square] for each in those for square in shared)
    speeds = {prize: found for prize in _SPEEDS if (found := _speeds(those, shared, prize, counting))}
    prizes = [_speed_prize(prize, those, found) for prize, found in speeds.items()]
    memory = _memory(those)
    if memory:
        prizes.append(_memory_prize(*memory))
    keep, rivals = _keep(those, speeds, memory[1] if memory else {})
    sentence = _sentence(model, those, keep, rivals, prizes, left_out)
    return Recommendation(model, keep, not rivals, sentence, tuple(prizes), tuple(left_out))


# --- who takes part ---------------------------------------------------------------------------------------


def _contenders(run: BenchmarkRun, model: str) -> list[_Contender]:
    entrants = [each for each in run.entrants if each.model == model]
    shown = measures.showings(run)
    return [
        _Contender(name, dict(_showings_of(entrant, shown)))
        for name, entrant in zip(measures.names(entrants), entrants, strict=True)
    ]


def _showings_of(
    entrant: Entrant, shown: Mapping[Square, Sequence[Showing]]
) -> Iterator[tuple[Square, Showing]]:
    for square, those in shown.items():
        for each in those:
            if each.entrant is entrant:
                yield square, each


def _comparable(everyone: Sequence[_Contender]) -> tuple[list[_Contender], list[tuple[str, str]]]:
    """Leave out who is clean on no square that the others are clean on."""
    clean = {each.name: {square for square in each.showings if _is_clean(each, square)} for each in everyone}
    left_out = [(each.name, _why_not(each)) for each in everyone if not clean[each.name]]
    those = [each for each in everyone if clean[each.name]]
    while those and not set.intersection(*(clean[each.name] for each in those)):
        fewest = min(those, key=lambda each: len(clean[each.name]))
        left_out.append((fewest.name, _why_not(fewest)))
        those.remove(fewest)
    return those, left_out


def _is_clean(contender: _Contender, square: Square) -> bool:
    showing = contender.showings.get(square)
    return showing is not None and showing.completed > 0 and not any(mark.excludes for mark in marks(showing))


def _is_clean_for(those: Sequence[_Contender], square: Square) -> bool:
    return all(_is_clean(each, square) for each in those)


def _why_not(contender: _Contender) -> str:
    reasons = dict.fromkeys(
        mark.sentence for showing in contender.showings.values() for mark in marks(showing) if mark.excludes
    )
    return "; ".join(reasons) or "nothing was measured"


# --- the prizes -------------------------------------------------------------------------------------------

_SPEEDS = ("the fastest first token", "the fastest stream", "the most throughput")
_MEASURES = dict(zip(_SPEEDS, (Measure.TTFT, Measure.STREAM, Measure.THROUGHPUT), strict=True))


def _speeds(
    those: Sequence[_Contender], shared: Sequence[Square], prize: str, counting: Counting
) -> dict[str, Figure]:
    """Give everyone's figure for the prize, over all squares that bear on it; nothing if someone has none."""
    squares = _squares_for(prize, shared)
    found = {each.name: _over_all(each, squares, _MEASURES[prize], counting) for each in those}
    known = {name: figure for name, figure in found.items() if figure is not None}
    return known if len(known) == len(those) else {}


def _squares_for(prize: str, shared: Sequence[Square]) -> list[Square]:
    """Take one request at a time for what one user feels, and the most at a time for throughput."""
    if not shared:
        return []
    fewest = min(square.concurrency for square in shared)
    most = max(square.concurrency for square in shared)
    if prize == "the most throughput":
        return [square for square in shared if square.concurrency == most] if most > 1 else []
    return [square for square in shared if square.concurrency == fewest]


def _over_all(
    contender: _Contender, squares: Sequence[Square], measure: Measure, counting: Counting
) -> Figure | None:
    """Give the geometric mean over squares: each counts alike, however slow its work is."""
    found = [measures.figure(contender.showings[square], measure, counting) for square in squares]
    known = [each for each in found if each is not None]
    if not known or len(known) < len(found):
        return None
    drawn = zip(*(each.drawn for each in known), strict=False)
    return Figure(_geometric([each.value for each in known]), tuple(_geometric(values) for values in drawn))


def _speed_prize(prize: str, those: Sequence[_Contender], found: Mapping[str, Figure]) -> Prize:
    measure = _MEASURES[prize]
    order = sorted(found, key=lambda name: found[name].value, reverse=not measure.is_better_lower)
    standings = tuple((name, figures.value(measure, found[name].value)) for name in order)
    winner = order[0]
    value = standings[0][1]
    if len(those) == 1:
        return Prize(prize, winner, value, standings)
    second = order[1]
    better, worse = (second, winner) if measure.is_better_lower else (winner, second)
    lead = found[better].ratio(found[worse])
    return Prize(prize, winner, value, standings, second, lead, is_certain=lead.excludes(1.0))


def _memory(those: Sequence[_Contender]) -> tuple[str, dict[str, int]] | None:
    """Give the kind of memory that is known of everyone, and how much each took at most."""
    for kind, peak in (("GPU memory", Showing.vram_peak), ("memory", Showing.ram_peak)):
        peaks = {each.name: [peak(showing) for showing in each.showings.values()] for each in those}
        most = {name: max((p for p in known if p), default=0) for name, known in peaks.items()}
        if all(most.values()):
            return kind, most
    return None


def _memory_prize(kind: str, most: Mapping[str, int]) -> Prize:
    order = sorted(most, key=lambda name: most[name])
    standings = tuple((name, figures.memory(most[name])) for name in order)
    what = f"the least {kind}"
    if len(order) == 1:
        return Prize(what, order[0], standings[0][1], standings)
    lead = most[order[1]] / most[order[0]]
    return Prize(
        what,
        order[0],
        standings[0][1],
        standings,
        order[1],
        Estimate(lead),
        is_certain=lead > 1 + SAME_MEMORY,
    )


# --- whom to keep -----------------------------------------------------------------------------------------


def _keep(
    those: Sequence[_Contender], speeds: Mapping[str, Mapping[str, Figure]], memory: Mapping[str, int]
) -> tuple[str, list[str]]:
    """Give who is to be kept, and the rivals that may be as good."""
    scores = {each.name: _score(each.name, speeds) for each in those}
    best = max(scores, key=lambda name: scores[name].value)
    rivals = [name for name in scores if name != best and not _is_surely_better(scores[best], scores[name])]
    tied = [best, *rivals]
    keep = min(tied, key=lambda name: (memory.get(name, 0), -scores[name].value))
    return keep, [name for name in tied if name != keep]


def _score(name: str, speeds: Mapping[str, Mapping[str, Figure]]) -> Figure:
    """Give the speed on the whole: the geometric mean of all, times turned into rates."""
    parts = [
        _inverted(found[name]) if _MEASURES[prize].is_better_lower else found[name]
        for prize, found in speeds.items()
    ]
    if not parts:
        return Figure(1.0)
    drawn = zip(*(part.drawn for part in parts), strict=False)
    return Figure(_geometric([part.value for part in parts]), tuple(_geometric(each) for each in drawn))


def _is_surely_better(one: Figure, other: Figure) -> bool:
    lead = one.ratio(other)
    return lead.low is not None and lead.low > 1


def _inverted(figure: Figure) -> Figure:
    return Figure(1 / figure.value, tuple(1 / each for each in figure.drawn))


def _geometric(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


# --- in words ---------------------------------------------------------------------------------------------


def _sentence(
    model: str,
    those: Sequence[_Contender],
    keep: str,
    rivals: Sequence[str],
    prizes: Sequence[Prize],
    left_out: Sequence[tuple[str, str]],
) -> str:
    parts = [_verdict(model, those, keep, rivals, prizes), *_price(keep, prizes)]
    parts += [f"{name} is left out: {why}." for name, why in left_out]
    return " ".join(parts)


def _verdict(
    model: str, those: Sequence[_Contender], keep: str, rivals: Sequence[str], prizes: Sequence[Prize]
) -> str:
    if len(those) == 1:
        told = ", ".join(f"{each.what.split(' ', 2)[-1]} {each.value}" for each in prizes)
        return f"Of {model} {keep} alone was measured ({told}): there is nothing to choose from."
    won = [_won(prize) for prize in prizes if prize.winner == keep]
    reason = f" It has {_listed(won)}." if won else " It is best at nothing alone, and the best on the whole."
    if rivals:
        close = _listed(list(rivals))
        return f"Keep {keep}, but this is uncertain: {close} may be as fast on the whole.{reason}"
    return f"Keep {keep}.{reason}"


def _price(keep: str, prizes: Sequence[Prize]) -> Iterator[str]:
    """Tell what others are better at: the trade-off."""
    lost = [prize for prize in prizes if prize.winner != keep]
    if lost:
        told = [f"{prize.winner} {_won(prize, rival=keep)}" for prize in lost]
        yield f"The price: {'; '.join(told)}."


def _won(prize: Prize, rival: str | None = None) -> str:
    """Say what was won, by how much: `the fastest stream (410 tok/s; vllm/guide 128 tok/s)`."""
    verb = "has " if rival else ""
    against = rival or prize.runner_up
    if against is None:
        return f"{verb}{prize.what} ({prize.value})"
    theirs = dict(prize.standings)[against]
    figures_told = f"{prize.value}; {against} {theirs}"
    if prize.is_certain:
        return f"{verb}{prize.what} ({figures_told})"
    return f"{verb}perhaps {prize.what} ({figures_told}: too close to be sure)"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
