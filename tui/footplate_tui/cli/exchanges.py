"""`footplate exchanges`: the requests that passed the gateway, and those under way."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from typing import TypeVar, get_args

import click
from pydantic import TypeAdapter, ValidationError

from footplate_daemon import wire
from footplate_daemon.client import FootplateClient
from footplate_daemon.settings import Duration
from footplate_tui.cli import reaching
from footplate_tui.cli.output import csv_line, table
from footplate_tui.format import Answered, answer_figures, duration, finish_reason, rate
from footplate_tui.harmless import harmless, one_line

T = TypeVar("T")

HEADS = (
    "ID",
    "BEGAN",
    "OUTCOME",
    "VARIANT",
    "CLIENT",
    "QUEUE",
    "TTFT",
    "SPEED",
    "TOKENS",
    "TOOK",
    "ENDED BY",
)
COLUMNS = tuple(wire.Exchange.model_fields)
CHANGING_WIDTHS = (4, 19, 9, 24, 10, 8, 8, 11, 9, 8, 0)
"""With --follow, where nobody knows what will come."""


def _seconds(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else TypeAdapter(Duration).validate_python(value)
    except ValidationError as error:
        raise click.BadParameter('write how long ago: "45s", "10m", "2h", "7d".') from error


@click.group(invoke_without_command=True)
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@click.option(
    "--since", callback=_seconds, metavar="AGE", help="Those that began in the last 45s, 10m, 2h, 7d."
)
@click.option("--outcome", type=click.Choice(get_args(wire.ExchangeOutcome)))
@click.option("--runtime")
@click.option("--model", help="The variant's model, or what the client named.")
@click.option("--client", help="A key's name, a user, or `terminal`.")
@click.option("--session", help="The id of a session, or what the client sent as x-session-id.")
@click.option("-f", "--follow", "is_following", is_flag=True, help="Go on with what begins and ends.")
@click.option("--csv", "as_csv", is_flag=True, help="Print all columns as CSV.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array; with --follow a line for each.")
@click.pass_context
def exchanges(
    context: click.Context,
    limit: int,
    since: float | None,
    outcome: wire.ExchangeOutcome | None,
    runtime: str | None,
    model: str | None,
    client: str | None,
    session: str | None,
    *,
    is_following: bool,
    as_csv: bool,
    as_json: bool,
) -> None:
    """List the last requests, newest first, also those under way, failed and cancelled.

    \b
    footplate exchanges --since 2h --outcome failed
    footplate exchanges --follow
    footplate exchanges show 12
    footplate exchanges replay 12 --runtime vllm
    """  # noqa: D301 - click's sign for "do not wrap"
    if context.invoked_subcommand is not None:
        return
    if as_csv and as_json:
        raise click.UsageError("--csv does not go with --json.")
    wanted = wire.ExchangeFilter(
        limit=limit,
        since=None if since is None else time.time() - since,
        outcome=outcome,
        runtime=runtime,
        model=model,
        client=client,
        session=session,
    )
    if is_following:
        _with_client(lambda footplate: _follow(footplate, wanted, as_csv=as_csv, as_json=as_json))
        return
    found = _with_client(lambda footplate: footplate.exchanges(wanted))
    if as_json:
        click.echo(json.dumps([exchange.model_dump(mode="json") for exchange in found]))
    elif as_csv:
        click.echo("\n".join([csv_line(COLUMNS), *map(_csv_row, found)]))
    else:
        click.echo("\n".join(lines(found)))


@exchanges.command()
@click.argument("exchange_id", metavar="ID", type=click.IntRange(min=1))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(exchange_id: int, *, as_json: bool) -> None:
    """Show all that is known of the exchange ID, with request and answer where they are kept.

    Of a stream what it says is shown; --json has it as it was sent.
    """
    found = _with_client(lambda footplate: footplate.exchange(exchange_id))
    click.echo(found.model_dump_json() if as_json else "\n".join(whole_lines(found)))


@exchanges.command()
@click.argument("exchange_id", metavar="ID", type=click.IntRange(min=1))
@click.option("--json", "as_json", is_flag=True, help="Print the exchange as one JSON object.")
def cancel(exchange_id: int, *, as_json: bool) -> None:
    """End the exchange ID while it waits or runs."""
    cancelled = _with_client(lambda footplate: footplate.cancel_exchange(exchange_id))
    click.echo(cancelled.model_dump_json() if as_json else f"Exchange {exchange_id} is cancelled.")


@exchanges.command()
@click.argument("exchange_id", metavar="ID", type=click.IntRange(min=1))
@click.option("--runtime", help="Ask the same model on this runtime.")
@click.option("--variant", help="Ask this variant; without either, the same one again.")
@click.option("--json", "as_json", is_flag=True, help="Print both as one JSON object.")
def replay(exchange_id: int, runtime: str | None, variant: str | None, *, as_json: bool) -> None:
    """Ask the request of the exchange ID once more, and show both answers; this may switch."""
    if runtime and variant:
        raise click.UsageError("--runtime does not go with --variant.")
    both = _with_client(
        lambda footplate: footplate.replay_exchange(exchange_id, runtime=runtime, variant=variant)
    )
    click.echo(both.model_dump_json() if as_json else "\n".join(replay_lines(both)))


def lines(exchanges: Sequence[wire.Exchange]) -> Iterator[str]:
    """Give the exchanges as a person reads them."""
    yield from table(HEADS, [_row(exchange) for exchange in exchanges])


def whole_lines(exchange: wire.ExchangeWhole) -> Iterator[str]:
    """Give all of an exchange as a person reads it: what is known, then what was asked and answered."""
    known = exchange.model_dump(include=set(COLUMNS), exclude_none=True)
    width = max(map(len, known))
    for name, value in known.items():
        shown = _began(exchange) if name == "started_at" else one_line(str(value))
        yield f"{name:{width}}  {shown}"
    yield from _part("request", _body_text(exchange.request))
    if exchange.text or exchange.reasoning:
        yield from _part("reasoning", exchange.reasoning)
        yield from _part("answer", exchange.text)
    else:
        yield from _part("answer", _body_text(exchange.answer))


def replay_lines(both: wire.Replay) -> Iterator[str]:
    """Give both answers, one after the other, each under its figures."""
    for exchange in (both.original, both.replay):
        if exchange is both.replay:
            yield ""
        yield f"{exchange.variant or '-'} ({exchange.id}): {_figures(exchange)}"
        yield from (f"  {line}" for line in harmless(exchange.reasoning).splitlines())
        yield harmless(exchange.text) or one_line(exchange.error or "") or "(its answer was not kept)"


def _with_client(work: Callable[[FootplateClient], Awaitable[T]]) -> T:
    async def working() -> T:
        async with reaching.client() as client:
            return await work(client)

    return asyncio.run(working())


async def _follow(
    client: FootplateClient, wanted: wire.ExchangeFilter, *, as_csv: bool, as_json: bool
) -> None:
    if as_csv:
        click.echo(csv_line(COLUMNS))
    elif not as_json:
        click.echo(_laid_out(HEADS))
    async for exchange in client.follow_exchanges(wanted):
        if as_json:
            click.echo(exchange.model_dump_json())
        else:
            click.echo(_csv_row(exchange) if as_csv else _laid_out(_row(exchange)))


def _laid_out(row: Sequence[str]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, CHANGING_WIDTHS, strict=True)).rstrip()


def _row(exchange: wire.Exchange) -> tuple[str, ...]:
    return (
        str(exchange.id),
        _began(exchange),
        exchange.outcome,
        exchange.variant or one_line(exchange.model_asked or "-"),
        one_line(exchange.client or "-"),
        _milliseconds(exchange.queue_ms),
        _milliseconds(exchange.ttft_ms),
        rate(exchange.tokens_per_second) if exchange.tokens_per_second is not None else "-",
        _tokens(exchange),
        _milliseconds(exchange.total_ms),
        one_line(exchange.error or exchange.finish_reason or ""),
    )


def _began(exchange: wire.Exchange) -> str:
    return datetime.fromtimestamp(exchange.started_at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _milliseconds(amount: float | None) -> str:
    return "-" if amount is None else duration(amount / 1000)


def _tokens(exchange: wire.Exchange) -> str:
    """Give the tokens of prompt and answer: `20+118`."""
    counts = (exchange.prompt_tokens, exchange.completion_tokens)
    return "-" if counts == (None, None) else "+".join(str(count or 0) for count in counts)


def _figures(exchange: wire.Exchange) -> str:
    ttft = None if exchange.ttft_ms is None else exchange.ttft_ms / 1000
    figures = answer_figures(
        Answered(
            completion_tokens=exchange.completion_tokens,
            tokens_per_second=exchange.tokens_per_second,
            ttft_seconds=ttft,
        )
    )
    ended = finish_reason(exchange.finish_reason) if exchange.finish_reason else exchange.outcome
    took = f"took {_milliseconds(exchange.total_ms)}" if exchange.total_ms is not None else ""
    return " · ".join(filter(None, (figures, took, ended)))


def _part(title: str, text: str) -> Iterator[str]:
    if text:
        yield from ("", f"{title}:", harmless(text.rstrip("\n")))


def _body_text(body: wire.ExchangeBody | None) -> str:
    if body is None:
        return "(not kept)"
    if not body.kept:
        return f"(too large to keep: {body.byte_count:,} bytes or more)"
    if body.value is not None:
        return json.dumps(body.value, ensure_ascii=False, indent=2)
    return body.text or "(nothing)"


def _csv_row(exchange: wire.Exchange) -> str:
    return csv_line(exchange.model_dump().values())
