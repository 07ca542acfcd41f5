"""`footplate check`: whether variants are good enough, PASS or FAIL with figures, for people and for cron."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from footplate_daemon.errors import Invalid
from footplate_daemon.wire_benchmarks import BenchmarkRun, VariantChoice
from footplate_tui.benchmarks import checks, targets
from footplate_tui.benchmarks.checks import Checked, Report
from footplate_tui.benchmarks.targets import Targets
from footplate_tui.cli import bench_choices, benching, reaching
from footplate_tui.cli.names import complete_model
from footplate_tui.cli.output import table
from footplate_tui.harmless import one_line

COLOURS = {"PASS": "green", "FAIL": "red", "not measured": "yellow"}


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]…", shell_complete=complete_model)
@click.option(
    "--targets",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="What is demanded, as TOML; else ours.",
)
@click.option("--print-targets", is_flag=True, help="Print our targets, to begin a file with.")
@click.option("--preset", help="Each variant with these launch parameters.")
@click.option("--of", "run_id", type=click.IntRange(min=1), metavar="ID", help="Judge this run anew.")
@click.option("--strict", is_flag=True, help="What could not be measured has failed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(
    names: tuple[str, ...],
    file: Path | None,
    preset: str | None,
    run_id: int | None,
    *,
    print_targets: bool,
    strict: bool,
    as_json: bool,
) -> int:
    """Ask NAMEs (models on each runtime, or variants; else what is active) and hold the answers to targets.

    \b
    footplate check
    footplate check vllm/qwen3-8b --targets mine.toml
    footplate check qwen3-8b                      on every runtime: are the answers equal?

    What cannot be measured here is said to be so, and is no PASS. Exit code: 0 no target is missed, 1 some
    are, 2 wrong usage, such as a mistake in the file.
    """  # noqa: D301 - click's sign for "do not wrap"
    if print_targets:
        click.echo(targets.shipped(), nl=False)
        return 0
    if run_id is not None and (names or preset):
        raise click.UsageError("--of judges a run that was made: it does not go with names or --preset.")
    demanded = _targets(file)
    if run_id is not None:
        run = asyncio.run(_ended(run_id))
    else:
        run = asyncio.run(_asked(names, preset, demanded, as_json=as_json))
    report = checks.evaluate(run, demanded)
    code = _exit_code(report, strict=strict)
    if as_json:
        click.echo(json.dumps(_as_json(report, code)))
    else:
        click.echo("\n".join(lines(report)))
    return code


def lines(report: Report) -> Iterator[str]:
    """Give the table of targets, variant by variant, and what it comes to."""
    heads = ("TARGET", "DEMANDED", "MEASURED", "")
    for variant in dict.fromkeys(each.variant for each in report.checked):
        checked = [each for each in report.checked if each.variant == variant]
        yield f"{variant}:"
        yield from _coloured(table(heads, [_row(each) for each in checked]), checked)
        yield ""
    passed = len(report.checked) - report.failed - report.unmeasured
    parts = [f"{passed} passed", f"{report.failed} failed"]
    if report.unmeasured:
        parts.append(f"{report.unmeasured} could not be measured")
    if report.run.state != "done":
        parts.append(f"the run was {report.run.state}")
    yield f"{', '.join(parts)}. See the figures: footplate bench show {report.run.id}"


def _targets(file: Path | None) -> Targets:
    try:
        return targets.load(file)
    except Invalid as error:
        raise click.UsageError(f"{error.message}\n{error.hint}") from error


async def _asked(
    names: Sequence[str], preset: str | None, demanded: Targets, *, as_json: bool
) -> BenchmarkRun:
    async with reaching.client() as client:
        chosen = await bench_choices.as_named(client, names)
        variants = [VariantChoice(name=each.name, preset=preset) for each in chosen]
        begun = await client.start_benchmark(checks.wish(variants, demanded))
        with benching.Nowhere() if as_json else benching.for_people() as shown:
            ended = await benching.follow(client, begun.id, shown)
        if not as_json:
            click.echo()
        return ended


async def _ended(run_id: int) -> BenchmarkRun:
    async with reaching.client() as client:
        return await client.benchmark_run(run_id, records=True)


def _exit_code(report: Report, *, strict: bool) -> int:
    is_missed = report.failed or (strict and report.unmeasured) or report.run.state != "done"
    return 1 if is_missed or not report.checked else 0


def _row(checked: Checked) -> tuple[str, ...]:
    reason = f": {one_line(checked.reason)}" if checked.reason else ""
    return (checked.name, checked.target, one_line(checked.measured), f"{checked.verdict}{reason}")


def _coloured(written: Iterator[str], checked: Sequence[Checked]) -> Iterator[str]:
    """Colour the verdicts, which click leaves out where nobody sees colours."""
    yield next(written)
    for line, each in zip(written, checked, strict=True):
        head, verdict, rest = line.rpartition(each.verdict) if not each.reason else _parted(line, each)
        yield f"{head}{click.style(verdict, fg=COLOURS[each.verdict])}{rest}"


def _parted(line: str, checked: Checked) -> tuple[str, str, str]:
    return line.partition(f"{checked.verdict}: ")[0], checked.verdict, f": {one_line(checked.reason)}"


def _as_json(report: Report, code: int) -> dict[str, object]:
    return {
        "run": report.run.id,
        "state": report.run.state,
        "failed": report.failed,
        "not_measured": report.unmeasured,
        "ok": code == 0,
        "targets": [asdict(each) for each in report.checked],
    }
