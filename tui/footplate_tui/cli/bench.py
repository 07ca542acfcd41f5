"""`footplate bench`: measure variants side by side, and read, compare, export and guard the results."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import ValidationError
from rich.console import Console

from footplate_daemon.client import FootplateClient
from footplate_daemon.errors import Conflict, Invalid, NotFound
from footplate_daemon.settings import RUNTIMES
from footplate_daemon.wire_benchmarks import BenchmarkRow, BenchmarkRun, BenchmarkWish, Workload, WorkloadKind
from footplate_tui.benchmarks import agreement, exports, likeness
from footplate_tui.benchmarks.comparison import compare as compare_runs
from footplate_tui.benchmarks.guard import THRESHOLD, Guarded
from footplate_tui.benchmarks.guard import guard as guard_run
from footplate_tui.cli import bench_answers, bench_choices, bench_text, benching, reaching
from footplate_tui.cli.names import complete_model

T = TypeVar("T")

DEFAULT_WORKLOADS = (WorkloadKind.SHORT, WorkloadKind.CHAT)
DEFAULT_ROUNDS = 3
"""Interleaved, so that a spell of noise does not hit one workload alone, and intervals know of it."""
MOST_EARLIER = 200
"""Runs of the list that the guard looks through for those that may be compared."""
MOST_LOOKED_AT = 20
"""Of them, those that are fetched to see."""
MOST_NOISE = 4
"""Earlier runs of the same that tell how noisy the machine is."""
RUN_ID = click.IntRange(min=1)


class Levels(click.ParamType[tuple[int, ...]]):
    """Numbers of requests at a time: `1,4,8`."""

    name = "N[,N…]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Take the numbers apart."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} are no numbers: write for example 1,4,8.", param, ctx)


class Parameter(click.ParamType[tuple[str, Any]]):
    """A generation parameter: `temperature=0`."""

    name = "KEY=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        """Take the value for JSON, or where it is none, for text."""
        if isinstance(value, tuple):
            return value
        key, is_pair, text = str(value).partition("=")
        if not key or not is_pair:
            self.fail(f"{value!r} is no KEY=VALUE: write for example temperature=0.", param, ctx)
        try:
            return key, json.loads(text)
        except json.JSONDecodeError:
            return key, text


class Share(click.ParamType[float]):
    """A share: `5%`, or `0.05`."""

    name = "SHARE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Take it as a fraction of one."""
        if isinstance(value, float):
            return value
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            self.fail(f"{value!r} is no share: write 5%, or 0.05.", param, ctx)
        return share


@click.group(invoke_without_command=True)
@click.option("-n", "--limit", type=click.IntRange(1, 500), default=20, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.pass_context
def bench(context: click.Context, limit: int, *, as_json: bool) -> None:
    """Measure variants side by side; without a verb, list the runs, newest first.

    \b
    footplate bench run                           the active model, on every runtime that has it
    footplate bench run qwen3-8b --workload chat --concurrency 1,8
    footplate bench run vllm/qwen3-8b --preset low-vram --preset balanced
    footplate bench report 3 --open               a page with charts
    footplate bench guard                         is the newest run slower than the one before?
    """  # noqa: D301 - click's sign for "do not wrap"
    if context.invoked_subcommand is None:
        _list(limit, as_json=as_json)


@bench.command(name="list")
@click.option("-n", "--limit", type=click.IntRange(1, 500), default=20, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def list_(limit: int, *, as_json: bool) -> None:
    """List the runs, newest first, checks too."""
    _list(limit, as_json=as_json)


@bench.command()
@click.argument("names", nargs=-1, metavar="[NAME]…", shell_complete=complete_model)
@click.option(
    "--runtime", "runtimes", multiple=True, type=click.Choice(sorted(RUNTIMES)), help="Only on these."
)
@click.option("--preset", "presets", multiple=True, help="Each variant under each of these.")
@click.option(
    "-w",
    "--workload",
    "workloads",
    multiple=True,
    type=click.Choice([kind.value for kind in WorkloadKind if kind is not WorkloadKind.FILE]),
    help="Several times for several; else short and chat.",
)
@click.option(
    "--file",
    "files",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Prompts of your own: JSONL or ShareGPT.",
)
@click.option("--concurrency", type=Levels(), default="1", show_default=True, help="Requests at a time.")
@click.option("--levels", type=Levels(), help="Of the workload `concurrency`; else 1,2,4,8.")
@click.option("--requests", type=click.IntRange(min=1), default=16, show_default=True, help="In each round.")
@click.option("--rounds", type=click.IntRange(1, 100), default=DEFAULT_ROUNDS, show_default=True)
@click.option("--warm-ups", type=click.IntRange(min=0), default=2, show_default=True, help="Not counted.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Longest answer; else as the workload has it.")
@click.option("--prompt-tokens", type=click.IntRange(min=1), help="Length of prompts; else the workload's.")
@click.option("--parameter", "parameters", multiple=True, type=Parameter(), help="For all: temperature=0.")
@click.option("--seed", type=click.IntRange(min=0), default=42, show_default=True, help="Of the prompts.")
@click.option("--timeout", "timeout_seconds", type=click.FloatRange(min=0, min_open=True), default=600.0)
@click.option("--no-cold", is_flag=True, help="Measure what runs, without starting it cold and warm first.")
@click.option("--measure-cache", is_flag=True, help="Begin all prompts alike, to measure the prefix cache.")
@click.option("--no-answers", is_flag=True, help="Keep the figures alone, no prompts and no answers.")
@click.option("--title", default="")
@click.option("--again", type=RUN_ID, metavar="ID", help="The same as the run ID, and nothing else.")
@click.option("--guard", "is_guarded", is_flag=True, help="Then judge it, as `bench guard` does.")
@click.option("--detach", is_flag=True, help="Return at once; the run goes on.")
@click.option("--json", "as_json", is_flag=True, help="Print the run as one JSON object when it has ended.")
def run(
    names: tuple[str, ...],
    runtimes: tuple[str, ...],
    again: int | None,
    *,
    is_guarded: bool,
    detach: bool,
    as_json: bool,
    **asked: Any,
) -> int:
    """Measure NAMEs (models or variants); a model is measured on each runtime here that has it.

    \b
    footplate bench run                                      the active model
    footplate bench run qwen3-8b --runtime vllm --runtime llamacpp
    footplate bench run qwen3-8b -w concurrency --levels 1,4,16 --parameter temperature=0
    footplate bench run --again 3 --guard                    for cron

    The daemon does the work: Ctrl-C ends the following, not the run. While it runs, engines are started
    and stopped; what was active before comes back. Exit code: 0 when all was measured, 1 when not; with
    --guard 1 also when it is slower.
    """  # noqa: D301 - click's sign for "do not wrap"
    if again is not None and (names or runtimes):
        raise click.UsageError("--again does not go with names: it measures the same as before.")
    if detach and is_guarded:
        raise click.UsageError("--guard does not go with --detach: it waits for the end.")

    async def working(client: FootplateClient) -> int:
        wish = (
            await _again(client, again) if again is not None else await _wish(client, names, runtimes, asked)
        )
        begun = await client.start_benchmark(wish)
        if detach:
            going_on = f"Run {begun.id} goes on. Follow it: footplate bench follow {begun.id}"
            click.echo(begun.model_dump_json() if as_json else going_on)
            return 0
        return await _see_through(client, begun.id, as_json=as_json, is_guarded=is_guarded)

    return _with_client(working)


@bench.command()
@click.argument("run_id", metavar="ID", type=RUN_ID)
@click.option("--json", "as_json", is_flag=True, help="Print the run as one JSON object when it has ended.")
def follow(run_id: int, *, as_json: bool) -> int:
    """Follow the run ID to its end; Ctrl-C leaves it running."""
    return _with_client(lambda client: _see_through(client, run_id, as_json=as_json))


@bench.command()
@click.argument("run_id", metavar="ID", type=RUN_ID)
@click.option("--json", "as_json", is_flag=True, help="Print it as one JSON object, with every request.")
def show(run_id: int, *, as_json: bool) -> None:
    """Show the results of the run ID, and which variant to keep."""
    found = _with_client(lambda client: client.benchmark_run(run_id, records=True))
    if as_json:
        click.echo(found.model_dump_json())
        return
    click.echo("\n".join([bench_text.heading(found), "", *bench_text.result_lines(found)]))
    if found.state != "done":
        click.echo(bench_text.ending(found))


@bench.command()
@click.argument("run_ids", metavar="ID…", nargs=-1, required=True, type=RUN_ID)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def compare(run_ids: tuple[int, ...], *, as_json: bool) -> None:
    """Compare the entrants of a run, or of several, with those of the first; with confidence intervals."""
    compared = compare_runs(_with_client(lambda client: _runs(client, run_ids)))
    if as_json:
        click.echo(json.dumps(exports.comparison_as_json(compared)))
    else:
        click.echo("\n".join(bench_text.comparison_lines(compared)))


@bench.command()
@click.argument("run_id", metavar="ID", type=RUN_ID)
@click.option("--json", "as_json", is_flag=True, help="Print the run as one JSON object.")
def cancel(run_id: int, *, as_json: bool) -> None:
    """End the run ID; what was measured is kept."""
    cancelled = _with_client(lambda client: client.cancel_benchmark(run_id))
    click.echo(cancelled.model_dump_json() if as_json else f"Run {run_id} is cancelled.")


@bench.command()
@click.argument("run_id", metavar="ID", type=RUN_ID)
def delete(run_id: int) -> None:
    """Delete the run ID with all its results, for good."""
    _with_client(lambda client: client.delete_benchmark(run_id))
    click.echo(f"Run {run_id} is deleted.")


@bench.command()
@click.argument("run_id", metavar="ID", type=RUN_ID)
@click.option("--format", "kind", type=click.Choice(list(exports.FORMATS)), help="Else by the file's name.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Else it is printed.")
def export(run_id: int, kind: str | None, output: Path | None) -> None:
    """Write the run ID as JSON (everything), CSV (a row for each cell), Markdown or HTML."""
    suffix = output.suffix.lstrip(".").replace("markdown", "md") if output else ""
    chosen = kind or (suffix if suffix in exports.FORMATS else None)
    if chosen is None:
        raise click.UsageError(f"Say --format: one of {', '.join(exports.FORMATS)}.")
    text = exports.FORMATS[chosen](_with_client(lambda client: client.benchmark_run(run_id, records=True)))
    if output is None:
        click.echo(text, nl=not text.endswith("\n"))
    else:
        _write(output, text)
        click.echo(f"{output} is written.", err=True)


@bench.command()
@click.argument("run_id", metavar="ID", type=RUN_ID)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Else in this folder.")
@click.option("--open", "is_opened", is_flag=True, help="Open it in the browser.")
def report(run_id: int, output: Path | None, *, is_opened: bool) -> None:
    """Write a page with tables and charts of the run ID, one file that needs nothing else, and say where."""
    found = _with_client(lambda client: client.benchmark_run(run_id, records=True))
    file = (output or Path(f"footplate-bench-{run_id}.html")).absolute()
    _write(file, exports.FORMATS["html"](found))
    click.echo(str(file))
    if is_opened:
        click.launch(file.as_uri())


@bench.command()
@click.argument("run_id", metavar="[ID]", required=False, type=RUN_ID)
@click.option("--against", type=RUN_ID, metavar="ID", help="Else the last run that can be compared.")
@click.option("--threshold", type=Share(), default=THRESHOLD, help="Slower by less is no matter; else 5%.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def guard(run_id: int | None, against: int | None, threshold: float, *, as_json: bool) -> int:
    """Say whether the run ID (the newest) is slower than the last comparable one on this machine.

    It is where the change is beyond the threshold with its whole confidence interval, and beyond the noise of
    earlier runs of the same. Exit code: 0 when not, or nothing can be compared; 1 when it is.
    """

    async def working(client: FootplateClient) -> int:
        newest = run_id if run_id is not None else await _newest(client)
        return await _guard(client, await _run(client, newest), against, threshold, as_json=as_json)

    return _with_client(working)


@bench.command()
@click.argument("run_id", metavar="ID", type=RUN_ID)
@click.option("--different", "is_different", is_flag=True, help="Only prompts whose answers differ.")
@click.option("--workload", help="Only of this one.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def answers(run_id: int, workload: str | None, *, is_different: bool, as_json: bool) -> None:
    """Show what each entrant of the run ID answered, side by side, and where answers first differ."""
    found = _with_client(lambda client: client.benchmark_run(run_id, records=True))
    asked = [
        each
        for each in agreement.side_by_side(found)
        if workload in {None, each.square.workload} and not (is_different and each.is_equal)
    ]
    if as_json:
        click.echo(json.dumps([exports.asked_as_json(each) for each in asked]))
        return
    bench_answers.write(asked, Console(highlight=False, emoji=False))


# --- how ---------------------------------------------------------------------------------------------------


def _with_client(work: Callable[[FootplateClient], Awaitable[T]]) -> T:
    async def working() -> T:
        async with reaching.client() as client:
            return await work(client)

    return asyncio.run(working())


def _list(limit: int, *, as_json: bool) -> None:
    found = _with_client(lambda client: client.benchmark_runs(limit)).runs
    if as_json:
        click.echo(json.dumps([row.model_dump(mode="json") for row in found]))
    elif not found:
        click.echo("No benchmark has been run. Begin: footplate bench run")
    else:
        click.echo("\n".join(bench_text.list_lines(found)))


async def _wish(
    client: FootplateClient, names: Sequence[str], runtimes: Sequence[str], asked: dict[str, Any]
) -> BenchmarkWish:
    try:
        return BenchmarkWish(
            variants=await bench_choices.on_every_runtime(client, names, runtimes),
            workloads=tuple(_workloads(asked)),
            presets=asked["presets"],
            concurrency=asked["concurrency"],
            requests=asked["requests"],
            warm_ups=asked["warm_ups"],
            repeats=asked["rounds"],
            seed=asked["seed"],
            cold=not asked["no_cold"],
            cache="measure" if asked["measure_cache"] else "avoid",
            parameters=dict(asked["parameters"]),
            keep_answers=not asked["no_answers"],
            timeout_seconds=asked["timeout_seconds"],
            title=asked["title"],
        )
    except ValidationError as error:
        raise _refused(error) from error


def _workloads(asked: dict[str, Any]) -> list[Workload]:
    sizes = {"max_tokens": asked["max_tokens"], "prompt_tokens": asked["prompt_tokens"]}
    kinds = [WorkloadKind(name) for name in dict.fromkeys(asked["workloads"])]
    if asked["levels"] and WorkloadKind.CONCURRENCY not in kinds:
        raise click.UsageError("--levels goes with --workload concurrency.")
    if not kinds and not asked["files"]:
        kinds = list(DEFAULT_WORKLOADS)
    found = [
        Workload(kind=kind, levels=asked["levels"] if kind is WorkloadKind.CONCURRENCY else None, **sizes)
        for kind in kinds
    ]
    return found + [
        Workload(kind=WorkloadKind.FILE, name=file.name, lines=tuple(_lines(file)), **sizes)
        for file in asked["files"]
    ]


def _lines(file: Path) -> list[str]:
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{file} cannot be read: {error}", param="file") from error
    if text.lstrip().startswith("["):
        return [text]
    found = [line for line in text.splitlines() if line.strip()]
    if not found:
        raise Invalid(f"{file} is empty.", param="file", hint='A line of it is JSON: {"prompt": "…"}')
    return found


def _refused(error: ValidationError) -> Invalid:
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"]))
    return Invalid(f"{field}: {first['msg']}.", param=field, hint="See: footplate bench run --help")


async def _again(client: FootplateClient, run_id: int) -> BenchmarkWish:
    before = await client.benchmark_run(run_id)
    if any(workload.kind is WorkloadKind.FILE for workload in before.wish.workloads):
        raise Conflict(
            f"Run {run_id} had prompts from a file, which is not kept.",
            hint="Give the file again: footplate bench run --file FILE",
        )
    return before.wish


async def _see_through(
    client: FootplateClient, run_id: int, *, as_json: bool, is_guarded: bool = False
) -> int:
    """Follow a run and say what came of it; give the exit code."""
    with _shown(as_json=as_json) as shown:
        ended = await benching.follow(client, run_id, shown)
    if as_json:
        click.echo(ended.model_dump_json())
    else:
        click.echo("\n".join(["", *bench_text.result_lines(ended), "", bench_text.ending(ended)]))
    is_whole = ended.state == "done" and all(cell.state == "done" for cell in ended.cells)
    if not is_guarded:
        return 0 if is_whole else 1
    code = await _guard(client, ended, None, THRESHOLD, as_json=False, to_stderr=as_json)
    return code if is_whole else 1


def _shown(*, as_json: bool) -> AbstractContextManager[benching.Shown]:
    return benching.Nowhere() if as_json else benching.for_people()


async def _guard(
    client: FootplateClient,
    judged: BenchmarkRun,
    against: int | None,
    threshold: float,
    *,
    as_json: bool,
    to_stderr: bool = False,
) -> int:
    before, earlier = await _before(client, judged, against)
    if before is None:
        nothing = f"No earlier run can be compared with run {judged.id}: nothing to guard against."
        click.echo(json.dumps({"quiet": True, "before": None}) if as_json else nothing, err=to_stderr)
        return 0
    guarded = guard_run(judged, before, earlier, threshold)
    if as_json:
        click.echo(json.dumps(exports.guarded_as_json(guarded)))
    else:
        click.echo("\n".join(bench_text.guard_lines(guarded)), err=to_stderr)
    return _exit_code(guarded)


def _exit_code(guarded: Guarded) -> int:
    return 0 if guarded.is_quiet else 1


async def _before(
    client: FootplateClient, judged: BenchmarkRun, against: int | None
) -> tuple[BenchmarkRun | None, list[BenchmarkRun]]:
    """Give the run to compare with, and still earlier ones that tell the noise."""
    if against is not None:
        named = await _run(client, against)
        if not likeness.shared_squares(judged, named):
            raise Invalid(
                f"Runs {judged.id} and {against} have no variant with the same workload.", param="against"
            )
        return named, []
    page = await client.benchmark_runs(MOST_EARLIER, before=judged.id, purpose=judged.purpose)
    rows = [row for row in page.runs if _may_be_alike(row, judged)][:MOST_LOOKED_AT]
    found = likeness.comparable(judged, [await client.benchmark_run(row.id) for row in rows])
    before = likeness.last_comparable(judged, found)
    if before is None:
        return None, []
    earlier = [each.id for each in found if each.id < before.id][:MOST_NOISE]
    return await _run(client, before.id), await _runs(client, earlier)


def _may_be_alike(row: BenchmarkRow, judged: BenchmarkRun) -> bool:
    return bool(set(row.variants) & set(judged.variants) and set(row.workloads) & set(judged.workloads))


async def _newest(client: FootplateClient) -> int:
    page = await client.benchmark_runs(MOST_EARLIER, purpose="benchmark")
    for row in page.runs:
        if row.state in benching.ENDED:
            return row.id
    raise NotFound("No benchmark has been run.", hint="Begin: footplate bench run")


async def _run(client: FootplateClient, run_id: int) -> BenchmarkRun:
    return await client.benchmark_run(run_id, records=True)


async def _runs(client: FootplateClient, run_ids: Sequence[int]) -> list[BenchmarkRun]:
    return [await _run(client, run_id) for run_id in dict.fromkeys(run_ids)]


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text)
    except OSError as error:
        raise Invalid(f"{file} cannot be written: {error.strerror}.", param="output") from error
