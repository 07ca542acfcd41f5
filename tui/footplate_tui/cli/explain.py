"""`footplate explain`: what would be started for a model, and what its parameters come to there."""

import asyncio
import shlex
from collections.abc import Iterator

import click

from footplate_daemon.wire import Explanation, ParameterExplained
from footplate_tui.cli import reaching
from footplate_tui.cli.names import complete_model


@click.command()
@click.argument("model", shell_complete=complete_model)
@click.option("--runtime", help="On this runtime; else the one that would be used.")
@click.option("--preset", help="With this preset; else the default one.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def explain(model: str, runtime: str | None, preset: str | None, *, as_json: bool) -> None:
    """Print the exact command line that MODEL would be started with, and what becomes of its parameters."""
    found = asyncio.run(_ask(model, runtime, preset))
    print(found.model_dump_json() if as_json else "\n".join(lines(found)))


def lines(explanation: Explanation) -> Iterator[str]:
    """Give the explanation as a person reads it."""
    facts = [
        explanation.variant,
        f"preset {explanation.preset}" if explanation.preset else "",
        f"context {explanation.context}" if explanation.context else "",
    ]
    yield " · ".join(filter(None, facts))
    yield from (f"! {note}" for note in explanation.notes)
    if explanation.command:
        yield ""
        yield from _command_lines(explanation)
    yield ""
    width = max((len(parameter.name) for parameter in explanation.parameters), default=0)
    yield from (f"{parameter.name:{width}}  {_outcome(parameter)}" for parameter in explanation.parameters)


async def _ask(model: str, runtime: str | None, preset: str | None) -> Explanation:
    async with reaching.client() as client:
        return await client.explain(model, runtime, preset)


def _command_lines(explanation: Explanation) -> Iterator[str]:
    """Give the command as a shell takes it, each option on a line of its own."""
    words = [f"{name}={shlex.quote(value)}" for name, value in explanation.environment.items()]
    rows = [[word] for word in words] + [[]]
    for word in explanation.command:
        if word.startswith("-") and len(word) > 2:
            rows.append([])
        rows[-1].append(shlex.quote(word))
    yield from (f"{'  ' if index else ''}{' '.join(row)} \\" for index, row in enumerate(rows[:-1]))
    yield f"  {' '.join(rows[-1])}"


def _outcome(parameter: ParameterExplained) -> str:
    if parameter.value is None and parameter.outcome == "ignored":
        return "not set; this runtime would ignore it"
    if parameter.value is None:
        return "not set" if parameter.name == "system" else "left to the runtime"
    value = repr(parameter.value)
    match parameter.outcome:
        case "same":
            return value
        case "renamed":
            return f"{value}, as {parameter.becomes}"
        case "clamped":
            return f"clamped: {parameter.note}"
        case "ignored":
            return f"{value}, ignored by this runtime"
        case "at launch":
            return f"{value}, at launch: {parameter.becomes}" if parameter.becomes else f"{value}, at launch"
        case "first message":
            return f"{value}, as the first message"
