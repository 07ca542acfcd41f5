"""From what was asked to the matrix: who takes part, with which work, in which cells.

Everything that is wrong with a wish is said here, before anything is started.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from footplate_daemon.benchmarks import files
from footplate_daemon.benchmarks.workloads import CONTEXT_UNKNOWN, USUAL_ANSWER, USUAL_LEVELS, Work
from footplate_daemon.catalog import Variant
from footplate_daemon.errors import Invalid, NotFound
from footplate_daemon.runtimes import parameters
from footplate_daemon.switching.machine import Target
from footplate_daemon.wire_benchmarks import (
    MOST_CONCURRENCY,
    MOST_REQUESTS,
    BenchmarkWish,
    Cell,
    Entrant,
    VariantChoice,
    Workload,
    WorkloadKind,
)

MOST_CELLS = 1000
OURS = frozenset({"messages", "model", "n", "prompt", "stream", "stream_options"})
"""Parameters that nobody sets but us."""
CHAT = frozenset({"chat", "vision"})
MARGIN = 0.02
"""Of the context that a long prompt leaves free: words are counted by a straight line."""
MARGIN_TOKENS = 24

Find = Callable[[str | None, str | None], Awaitable[Variant]]


@dataclass(frozen=True)
class Seat:
    """An entrant with what it is switched to."""

    variant: Variant
    target: Target
    entrant: Entrant


@dataclass(frozen=True)
class Matrix:
    """What a run consists of."""

    seats: tuple[Seat, ...]
    works: tuple[Work, ...]
    cells: tuple[Cell, ...]
    warnings: tuple[str, ...] = ()


async def plan(wish: BenchmarkWish, find: Find) -> Matrix:
    """Lay out the matrix; raise `Invalid` or `NotFound` naming the field that is wrong."""
    _check_parameters(wish)
    _check_levels(wish.concurrency, "concurrency")
    seats = await _seats(wish, find)
    context = min((seat.entrant.context for seat in seats if seat.entrant.context), default=None)
    works = tuple(
        _work(workload, wish, context, f"workloads.{number}")
        for number, workload in enumerate(wish.workloads)
    )
    _check_names(works)
    cells = tuple(_cells(seats, works, wish))
    if len(cells) > MOST_CELLS:
        raise Invalid(
            f"These are {len(cells)} cells; a run has at most {MOST_CELLS}.",
            hint="Ask for fewer variants, workloads, levels of concurrency or repeats.",
        )
    is_guessed = context is None and any(work.kind is WorkloadKind.LONG_PROMPT for work in works)
    guess = f"No context is set anywhere: long prompts are made for {CONTEXT_UNKNOWN} tokens."
    return Matrix(seats, works, cells, (guess,) if is_guessed else ())


def _check_parameters(wish: BenchmarkWish) -> None:
    ours = sorted(OURS & wish.parameters.keys())
    if ours:
        raise Invalid(
            f"`{ours[0]}` is set by the benchmark itself.",
            param=f"parameters.{ours[0]}",
            hint="Leave it out; the prompts come from workloads.",
        )
    parameters.check(wish.parameters)
    try:
        wish.model_dump_json(include={"parameters"})
    except ValueError as error:
        raise Invalid(
            "The parameters hold what no text holds.", param="parameters", hint="Send whole characters."
        ) from error


def _check_levels(levels: tuple[int, ...], param: str) -> None:
    wrong = next((level for level in levels if not 1 <= level <= MOST_CONCURRENCY), None)
    if wrong is not None:
        raise Invalid(
            f"{wrong} requests at a time cannot be: it is 1 to {MOST_CONCURRENCY}.",
            param=param,
            hint="For example: 1, 4, 16.",
        )


async def _seats(wish: BenchmarkWish, find: Find) -> tuple[Seat, ...]:
    seats: list[Seat] = []
    for number, choice in enumerate(wish.variants):
        param = f"variants.{number}"
        variant = await _found(choice, find, param)
        if CHAT.isdisjoint(variant.capabilities):
            raise Invalid(
                f"{variant.name} is for {' and '.join(variant.capabilities)}: it cannot chat.",
                param=f"{param}.name",
                hint="Benchmarks measure models that chat.",
            )
        presets = (choice.preset,) if choice.preset else (wish.presets or (None,))
        seats.extend(_seat(variant, preset, choice.context, f"{param}.preset") for preset in presets)
    twice = next(
        (seat for place, seat in enumerate(seats) if seat.target in [s.target for s in seats[:place]]), None
    )
    if twice is not None:
        raise Invalid(
            f"{twice.variant.name} takes part twice with the same preset and context.",
            param="variants",
            hint="Name each once; `repeats` measures it more often.",
        )
    return tuple(seats)


async def _found(choice: VariantChoice, find: Find, param: str) -> Variant:
    try:
        return await find(choice.name, choice.runtime)
    except NotFound as error:
        raise NotFound(error.message, hint=error.hint, param=f"{param}.name") from error


def _seat(variant: Variant, preset: str | None, context: int | None, param: str) -> Seat:
    try:
        chosen = variant.preset(preset)
    except NotFound as error:
        raise NotFound(error.message, hint=error.hint, param=param) from error
    entrant = Entrant(
        variant=variant.name,
        runtime=variant.runtime,
        model=variant.model,
        preset=chosen.name if chosen else None,
        context=variant.launch_context(preset, context),
        served_name=variant.served_name,
        profile=variant.profile_name,
        profile_parameters=variant.profile_body,
        weights=variant.weights.location,
    )
    return Seat(variant, Target(variant.name, preset, context), entrant)


def _work(workload: Workload, wish: BenchmarkWish, context: int | None, param: str) -> Work:
    kind = workload.kind
    if workload.levels is not None:
        _check_levels(workload.levels, f"{param}.levels")
        if kind is not WorkloadKind.CONCURRENCY:
            raise Invalid(
                f"The workload {kind} has no levels.",
                param=f"{param}.levels",
                hint="Use concurrency of the benchmark, or the kind concurrency.",
            )
    if (kind is WorkloadKind.FILE) != (workload.lines is not None):
        raise Invalid(
            "The workload file needs lines."
            if workload.lines is None
            else f"The workload {kind} has no lines.",
            param=f"{param}.lines",
            hint='Only the kind "file" has lines: those of a JSONL or ShareGPT file.',
        )
    lines = files.parse(workload.lines, f"{param}.lines") if workload.lines is not None else ()
    requests = workload.requests or (min(len(lines), MOST_REQUESTS) if lines else wish.requests)
    answer = workload.max_tokens
    return Work(
        kind=kind,
        name=workload.name or kind.value,
        requests=requests,
        seed=wish.seed if workload.seed is None else workload.seed,
        answer_tokens=answer,
        prompt_tokens=_prompt_tokens(workload, context, answer or _asked_longest(wish, kind)),
        cache=wish.cache,
        lines=lines,
    )


def _asked_longest(wish: BenchmarkWish, kind: WorkloadKind) -> int:
    asked = wish.parameters.get("max_tokens", wish.parameters.get("max_completion_tokens"))
    return asked if isinstance(asked, int) else USUAL_ANSWER[kind]


def _prompt_tokens(workload: Workload, context: int | None, answer: int) -> int | None:
    """Give how long a prompt is to be; a long one leaves room for its answer in the smallest context."""
    if workload.prompt_tokens is not None or workload.kind is not WorkloadKind.LONG_PROMPT:
        return workload.prompt_tokens
    room = context or CONTEXT_UNKNOWN
    return max(1, room - answer - max(MARGIN_TOKENS, int(room * MARGIN)))


def _check_names(works: tuple[Work, ...]) -> None:
    names = [work.name for work in works]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise Invalid(
            f"Two workloads are called {twice}.", param="workloads", hint="Give each a name of its own."
        )


def _cells(seats: tuple[Seat, ...], works: tuple[Work, ...], wish: BenchmarkWish) -> list[Cell]:
    """List the cells in the order in which they are measured: round by round while an engine runs."""
    levels = {
        workload.name or workload.kind.value: workload.levels or USUAL_LEVELS
        for workload in wish.workloads
        if workload.kind is WorkloadKind.CONCURRENCY
    }
    places = [
        (place, seat, repeat, work, level)
        for place, seat in enumerate(seats)
        for repeat in range(wish.repeats)
        for work in works
        for level in levels.get(work.name, wish.concurrency)
    ]
    return [
        Cell(
            number=number,
            entrant=place,
            variant=seat.entrant.variant,
            runtime=seat.entrant.runtime,
            model=seat.entrant.model,
            preset=seat.entrant.preset,
            workload=work.name,
            kind=work.kind,
            concurrency=level,
            repeat=repeat,
            requests=work.requests,
        )
        for number, (place, seat, repeat, work, level) in enumerate(places)
    ]
