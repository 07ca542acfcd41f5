"""Whether two runs may be compared, and what is not alike between them. Pure.

Two runs are comparable when they gave the same work to the same models on the same machine. What may differ
is what one tests: the runtime's version, the preset, the driver, the flags. It is named, so that a change of
speed has its suspects.
"""

from collections.abc import Iterator, Sequence

from footplate_daemon.wire_benchmarks import BenchmarkRun, Cell, Entrant, Environment, Workload
from footplate_tui.harmless import one_line

SAME_MEMORY = 0.02
"""A machine's memory, as the kernel tells it, changes a little with the kernel."""


def is_same_machine(one: Environment | None, other: Environment | None) -> bool:
    """Whether both were measured on the same hardware."""
    if one is None or other is None:
        return False
    memory = max(one.ram_total_bytes, other.ram_total_bytes)
    return (
        (one.host, one.cpu, one.cpu_count) == (other.host, other.cpu, other.cpu_count)
        and abs(one.ram_total_bytes - other.ram_total_bytes) <= memory * SAME_MEMORY
        and [gpu.name for gpu in one.gpus] == [gpu.name for gpu in other.gpus]
    )


def is_same_work(one: BenchmarkRun, other: BenchmarkRun) -> bool:
    """Whether both asked the same of engines, as far as squares of both go."""
    asked, before = one.wish, other.wish
    return (
        (asked.seed, asked.cache, asked.parameters) == (before.seed, before.cache, before.parameters)
        and {w.name or w.kind.value: w for w in _common(one, other)}
        == {w.name or w.kind.value: w for w in _common(other, one)}
        and bool(shared_squares(one, other))
    )


def shared_squares(one: BenchmarkRun, other: BenchmarkRun) -> set[tuple[str, str, int]]:
    """Give variant, workload and concurrency of what was asked of one and measured by the other."""
    asked = {(cell.variant, cell.workload, cell.concurrency) for cell in one.cells}
    return asked & _measured_squares(other)


def counterpart(entrant: Entrant, among: Sequence[Entrant]) -> Entrant | None:
    """Give who is to be compared with it: the same variant, most alike in preset and context."""
    alike = [each for each in among if each.variant == entrant.variant]
    alike.sort(key=lambda each: (each.preset != entrant.preset, each.context != entrant.context))
    return alike[0] if alike else None


def comparable(run: BenchmarkRun, earlier: Sequence[BenchmarkRun]) -> list[BenchmarkRun]:
    """Give the earlier runs that it may be compared with, the newest first."""
    before = [each for each in earlier if each.id < run.id and each.purpose == run.purpose]
    return [
        each
        for each in sorted(before, key=lambda one: one.id, reverse=True)
        if is_same_machine(run.environment, each.environment) and is_same_work(run, each)
    ]


def last_comparable(run: BenchmarkRun, earlier: Sequence[BenchmarkRun]) -> BenchmarkRun | None:
    """Give the newest that measured all of it under the same presets, else all of it, else some of it."""
    found = comparable(run, earlier)
    whole = [each for each in found if shared_squares(run, each) >= shared_squares(run, run)]
    same = [each for each in whole if _has_same_presets(run, each)]
    return next(iter([*same, *whole, *found]), None)


def is_same_subject(one: Entrant, other: Entrant) -> bool:
    """Whether nothing that one would test differs between the two."""
    return not list(entrant_differences(one, other))


def differences(newer: BenchmarkRun, older: BenchmarkRun) -> Iterator[str]:
    """Say what is not alike between two runs."""
    for entrant in newer.entrants:
        before = counterpart(entrant, older.entrants)
        if before is None:
            yield f"{entrant.variant} is not in run {older.id}"
            continue
        yield from (f"{entrant.variant}: {each}" for each in entrant_differences(entrant, before))
    yield from environment_differences(newer.environment, older.environment)


def entrant_differences(now: Entrant, before: Entrant) -> Iterator[str]:
    """Say what is not alike between the same variant in two runs: `preset low-vram, was balanced`."""
    for name, new, old in (
        ("preset", now.preset, before.preset),
        ("context", now.context, before.context),
        ("version", now.runtime_version, before.runtime_version),
        ("weights", now.weights_hash or now.weights, before.weights_hash or before.weights),
    ):
        if new != old:
            yield f"{name} {_shown(new)}, was {_shown(old)}"
    if now.profile_parameters != before.profile_parameters:
        yield "its profile is another one"
    yield from _flags(now, before)


def environment_differences(now: Environment | None, before: Environment | None) -> Iterator[str]:
    """Say what is not alike between the machines and programs."""
    if now is None or before is None:
        return
    for name, new, old in (
        ("host", now.host, before.host),
        ("CPU", f"{now.cpu} ({now.cpu_count})", f"{before.cpu} ({before.cpu_count})"),
        ("GPU", ", ".join(g.name for g in now.gpus), ", ".join(g.name for g in before.gpus)),
        ("driver", now.driver_version, before.driver_version),
        ("system", now.system, before.system),
        ("Footplate", now.footplate_version, before.footplate_version),
        ("Python", now.python, before.python),
    ):
        if new != old:
            yield f"{name} {_shown(new)}, was {_shown(old)}"


def _has_same_presets(run: BenchmarkRun, other: BenchmarkRun) -> bool:
    def presets(of: BenchmarkRun) -> set[tuple[str, str | None, int | None]]:
        return {(each.variant, each.preset, each.context) for each in of.entrants}

    return presets(run) <= presets(other)


def _flags(now: Entrant, before: Entrant) -> Iterator[str]:
    """Say which words of the command differ, but for ports and the like, which are new each time."""
    new, old = _words(now), _words(before)
    added = [word for word in new if word not in old]
    gone = [word for word in old if word not in new]
    if added or gone:
        yield "flags " + " ".join([*(f"+{word}" for word in added), *(f"-{word}" for word in gone)])


def _words(entrant: Entrant) -> list[str]:
    """Join each flag with its value: `--threads 2`."""
    words: list[str] = []
    for word in entrant.command[1:]:
        if words and words[-1].startswith("-") and not word.startswith("--"):
            words[-1] += f" {one_line(word)}"
        else:
            words.append(one_line(word))
    return [word for word in words if not word.startswith(_NEW_EACH_TIME)]


_NEW_EACH_TIME = ("--port", "--api-key", "--alias", "--host", "--served-model-name")


def _common(run: BenchmarkRun, other: BenchmarkRun) -> Iterator[Workload]:
    names = {cell.workload for cell in run.cells} & {cell.workload for cell in other.cells}
    for workload in run.wish.workloads:
        if (workload.name or workload.kind.value) in names:
            # Sizes that the workload leaves to the benchmark are those of the benchmark.
            yield workload.model_copy(
                update={"seed": workload.seed or run.wish.seed, "requests": None, "levels": None}
            )


def _measured_squares(run: BenchmarkRun) -> set[tuple[str, str, int]]:
    return {(cell.variant, cell.workload, cell.concurrency) for cell in run.cells if _is_measured(cell)}


def _is_measured(cell: Cell) -> bool:
    return cell.summary is not None and cell.summary.completed > 0


def _shown(value: object) -> str:
    return "none" if value in {None, ""} else one_line(str(value))
