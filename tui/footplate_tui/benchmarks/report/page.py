"""The page: a run from the answer (which to keep) down to the evidence and what it was measured with. Pure.

Everything that a model, an engine or a user wrote is escaped by `markup`. The page asks for nothing: no
script, no font, no picture from elsewhere; its policy forbids it even if something got through.
"""

import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import resources

from footplate_daemon.wire_benchmarks import BenchmarkRun, Entrant
from footplate_tui.benchmarks import agreement, figures, measures, recommendation, results
from footplate_tui.benchmarks.agreement import Answer, Asked
from footplate_tui.benchmarks.recommendation import Prize, Recommendation
from footplate_tui.benchmarks.report import charts, evidence
from footplate_tui.benchmarks.report.markup import Markup, element, joined, table
from footplate_tui.format import count, duration

MOST_ANSWERS = 12
"""Prompts of each square that are shown with their answers, those that differ first."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def as_html(run: BenchmarkRun) -> str:
    """Give the page."""
    title = f"Benchmark {run.id}{f': {run.title}' if run.title else ''}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title} - Footplate"),
        element("style", Markup(resources.files(__package__).joinpath("page.css").read_text())),
    )
    body = element("body", element("main", *_sections(run, title)))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def environment_facts(run: BenchmarkRun) -> Iterator[tuple[str, str]]:
    """Give what the run was measured with, as names and values."""
    found = run.environment
    if found is not None:
        yield ("host", found.host + (" (a container)" if found.is_container else ""))
        yield ("system", found.system)
        yield ("CPU", f"{found.cpu}, {count(found.cpu_count, 'core')}")
        yield ("memory", figures.memory(found.ram_total_bytes))
        for gpu in found.gpus:
            yield ("GPU", ", ".join(filter(None, (gpu.name, _gpu_memory(gpu.memory_total_bytes)))))
        yield ("GPU driver", found.driver_version or "none")
        yield ("Footplate", f"{found.footplate_version}, Python {found.python}")
    wish = run.wish
    yield ("prompts", f"seed {wish.seed}, {_CACHE[wish.cache]}")
    yield ("each cell", f"{count(wish.requests, 'request')} after {count(wish.warm_ups, 'warm-up')}")
    yield ("rounds", str(wish.repeats))
    if wish.parameters:
        yield ("parameters", json.dumps(wish.parameters, ensure_ascii=False))
    for model, tokenizer in run.tokenizers.items():
        own = "" if tokenizer.is_models_own else " (not the model's own: words and marks)"
        yield (f"tokens of {model}", f"{tokenizer.source}{own}")


_CACHE = {"avoid": "each prompt unique", "measure": "all prompts begin alike, the cache is warm"}


def _gpu_memory(byte_count: int | None) -> str:
    return "" if byte_count is None else figures.memory(byte_count)


def _sections(run: BenchmarkRun, title: str) -> Iterator[Markup]:
    yield element(
        "header",
        element("p", "Footplate", class_="brand"),
        element("h1", title),
        element("p", _subtitle(run), class_="quiet"),
    )
    recommended = recommendation.recommend(run)
    yield from (_recommended(each) for each in recommended)
    yield _section("Results", *_results(run))
    yield from evidence.sections(run)
    yield from _answers(run)
    yield _section("Measured with", _facts(environment_facts(run)), *_entrants(run))
    yield _section("What the words mean", _facts(_WORDS))


def _subtitle(run: BenchmarkRun) -> str:
    parts = [
        datetime.fromtimestamp(run.started_at, UTC).strftime("%d %B %Y, %H:%M UTC") if run.started_at else "",
        run.environment.host if run.environment else "",
        run.environment.gpus[0].name if run.environment and run.environment.gpus else "",
        f"{count(len(run.entrants), 'variant')}, {count(run.cells_total, 'cell')}",
        f"took {duration(run.ended_at - run.started_at)}" if run.ended_at and run.started_at else "",
        "" if run.state == "done" else f"{run.state}: {run.cells_done} cells measured",
    ]
    return " · ".join(filter(None, parts))


def _recommended(recommended: Recommendation) -> Markup:
    kind = "verdict" if recommended.is_certain else "verdict uncertain"
    prizes = element("div", *map(_prize, recommended.prizes), class_="prizes") if recommended.prizes else ""
    return element("section", element("p", _unbroken(recommended.sentence), class_=kind), prizes)


def _unbroken(sentence: str) -> str:
    """Keep a number and its unit on one line."""
    return re.sub(r"(\d) (?=(?:ms|s|tok/s|[MG]B)\b)", "\\1\N{NO-BREAK SPACE}", sentence)


def _prize(prize: Prize) -> Markup:
    standings = (element("li", element("span", name), element("b", value)) for name, value in prize.standings)
    sure = "" if prize.is_certain else element("em", "too close to be sure")
    return element(
        "div",
        element("p", prize.what, class_="what"),
        element("p", prize.value, class_="figure"),
        element("p", prize.winner, sure, class_="winner"),
        element("ol", *standings) if len(prize.standings) > 1 else "",
        class_="prize",
    )


def _results(run: BenchmarkRun) -> Iterator[Markup]:
    found = results.rows(run)
    rows = [list(results.cells(row)) for row in results.measured(found)]
    heads = [head.capitalize() if head not in _KEPT else head for head in results.HEADS]
    kept = [p for p in range(len(heads)) if p < 2 or any(row[p] not in {figures.NONE, "0"} for row in rows)]
    yield table([heads[p] for p in kept], [[row[p] for p in kept] for row in rows], class_="figures")
    remarks = [*results.remarks(found), *run.warnings]
    if remarks:
        yield element("ul", *(element("li", each) for each in remarks), class_="remarks")


_KEPT = frozenset({"TTFT", "VRAM", "RAM"})


# --- answers ----------------------------------------------------------------------------------------------


def _answers(run: BenchmarkRun) -> Iterator[Markup]:
    if len(run.entrants) < 2:
        return
    asked = [each for each in agreement.side_by_side(run) if any(a.text is not None for a in each.answers)]
    if not asked:
        return
    comparable = [each for each in asked if each.is_comparable]
    equal = sum(each.is_equal for each in comparable)
    prompts = count(len(comparable), "prompt")
    told = f"{equal} of {prompts} answered alike by all. The first difference is marked."
    yield _section("Answers side by side", element("p", told), *_squares_of_answers(asked))


def _squares_of_answers(asked: Sequence[Asked]) -> Iterator[Markup]:
    for square in dict.fromkeys(each.square for each in asked):
        those = [each for each in asked if each.square == square]
        shown = sorted(those, key=lambda each: (each.is_equal, each.number))[:MOST_ANSWERS]
        left = len(those) - len(shown)
        more = element("p", f"{count(left, 'prompt')} more: footplate bench answers", class_="quiet")
        yield element("h3", str(square))
        yield from map(_asked, shown)
        if left:
            yield more


def _asked(asked: Asked) -> Markup:
    state = "alike" if asked.is_equal else "different" if asked.is_comparable else "one answer"
    summary = element(
        "summary",
        element("span", state, class_=f"tag {state.split(maxsplit=1)[0]}"),
        f" {asked.prompt or asked.number}",
    )
    columns = element("div", *map(_answer, asked.answers), class_="answers")
    return element("details", summary, columns, open="open" if state == "different" else None)


def _answer(answer: Answer) -> Markup:
    head = element("h4", answer.name)
    if answer.text is None:
        return element("div", head, element("p", answer.error or "not kept", class_="quiet"))
    if answer.difference is None:
        return element("div", head, element("pre", answer.text))
    at = answer.difference.at
    rest = answer.text[at:] or "(ends here)"
    return element("div", head, element("pre", answer.text[:at], element("mark", rest[:1]), rest[1:]))


# --- what it was measured with ----------------------------------------------------------------------------


def _entrants(run: BenchmarkRun) -> Iterator[Markup]:
    for place, (entrant, name) in enumerate(zip(run.entrants, measures.names(run.entrants), strict=True)):
        key = element("i", style=f"background:{charts.colour(place)}")
        yield element("h3", element("span", key, name, class_="key"))
        yield _facts(_entrant_facts(run, entrant, place))


def _entrant_facts(run: BenchmarkRun, entrant: Entrant, place: int) -> Iterator[tuple[str, str]]:
    yield ("version", entrant.runtime_version or "not known")
    yield ("preset", entrant.preset or "none")
    yield ("context", f"{entrant.context:,} tokens" if entrant.context else "as the runtime decides")
    yield ("weights", entrant.weights or "not known")
    if entrant.weights_hash:
        yield ("weights' hash", entrant.weights_hash)
    if entrant.profile_parameters:
        yield ("profile", json.dumps(entrant.profile_parameters, ensure_ascii=False))
    for start in entrant.starts:
        steps = ", ".join(f"{step.name} {duration(step.seconds)}" for step in start.steps if step.seconds)
        dropped = "; weights out of the page cache" if start.page_cache_dropped else ""
        told = "it ran already" if start.seconds is None else figures.seconds(start.seconds)
        yield (f"{start.kind} start", f"{told}{f' ({steps})' if steps else ''}{dropped}")
    if entrant.error:
        yield ("error", entrant.error)
    yield from _translations(run, place)
    if entrant.command:
        yield ("command", " ".join(entrant.command))


def _translations(run: BenchmarkRun, place: int) -> Iterator[tuple[str, str]]:
    """Say what the runtime made of the parameters, where it did not take them as they are."""
    told: dict[str, None] = {}
    for cell in run.cells:
        if cell.entrant != place or cell.translation is None:
            continue
        found = cell.translation
        told.update(dict.fromkeys(f"{old} is called {new}" for old, new in found.renamed.items()))
        told.update(dict.fromkeys(f"{name} is ignored" for name in found.ignored))
        told.update(dict.fromkeys(f"{name} is changed: {how}" for name, how in found.clamped.items()))
    yield ("parameters", "; ".join(told) or "followed as they were asked")


def _facts(facts: Iterator[tuple[str, str]] | Sequence[tuple[str, str]]) -> Markup:
    pairs = (joined(element("dt", name), element("dd", value)) for name, value in facts)
    return element("dl", *pairs)


def _section(title: str, *parts: Markup) -> Markup:
    return element("section", element("h2", title), *parts)


_WORDS = (
    ("TTFT", "Time to first token: from sending a request to the first event with choices."),
    ("stream", "Tokens per second of one answer once it has begun: 1 / median TPOT."),
    ("TPOT", "Time per output token: (latency - TTFT) / (tokens - 1)."),
    ("latency", "From sending a request to the last event of its answer (E2EL)."),
    ("throughput", "Output tokens of all requests together, over the wall time of the cell."),
    ("P95", "Of a hundred requests, ninety-five took no longer."),
    ("too close to be sure", "The 95 % confidence interval of the ratio (bootstrap, in blocks) holds 1."),
)
