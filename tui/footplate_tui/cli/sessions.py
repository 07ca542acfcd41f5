"""`footplate sessions`: the chats of the history, found, read, changed and taken along."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from typing import IO, Literal, TypeVar

import click

from footplate_daemon import wire
from footplate_daemon.client import FootplateClient
from footplate_daemon.errors import NotFound
from footplate_tui.cli import reaching
from footplate_tui.cli.output import table
from footplate_tui.format import Answered, answer_figures, count, speaker
from footplate_tui.harmless import harmless, one_line

T = TypeVar("T")

TITLE_WIDTH = 60
LAST = "last"
"""Stands for the id of the session used last."""


class ListByDefault(click.Group):
    """A group of commands that lists when none of them is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        asks_for_help = any(word in ctx.help_option_names for word in args[:1])
        is_named = args and not args[0].startswith("-")
        return super().parse_args(ctx, args if is_named or asks_for_help else ["list", *args])


@click.group(cls=ListByDefault)
def sessions() -> None:
    """List, search, read, change, export and import sessions; without a command, list them.

    Where an ID is wanted, `last` means the session used last.
    """


@sessions.command("list")
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@click.option("--before", help="Those that follow a page: what its JSON says under `before`.")
@click.option("--json", "as_json", is_flag=True, help="Print the sessions as one JSON object.")
def list_sessions(limit: int, before: str | None, *, as_json: bool) -> None:
    """List the sessions, those used last first."""
    page = _ask(lambda client: client.session_page(limit, before))
    click.echo(page.model_dump_json() if as_json else "\n".join(lines(page.sessions)))


@sessions.command()
@click.argument("title", default="")
@click.option("-s", "--system", help="Instructions for the model, in every turn of the session.")
@click.option("--json", "as_json", is_flag=True, help="Print the session as one JSON object.")
def new(title: str, system: str | None, *, as_json: bool) -> None:
    """Begin a session and print its ID; without a TITLE it takes one from its first question.

    \b
    footplate ask --session $(footplate sessions new) "What is a preset?"
    """  # noqa: D301 - click's sign for "do not wrap"
    # The daemon says what is wrong with a wish, in a sentence.
    wish = wire.SessionWish.model_construct(title=title, system=system)
    made = _ask(lambda client: client.create_session(wish))
    _report(made, made.id, as_json=as_json)


@sessions.command()
@click.argument("words", nargs=-1, required=True)
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print what is found as one JSON object.")
def search(words: tuple[str, ...], limit: int, *, as_json: bool) -> None:
    """Search titles, prompts, answers and reasoning for all WORDS, in any order.

    Case and diacritics do not matter, and the last word may be the beginning of one.
    """
    hits = _ask(lambda client: client.search(" ".join(words), limit))
    if as_json:
        click.echo(json.dumps({"hits": [hit.model_dump(mode="json") for hit in hits]}))
    else:
        click.echo("\n\n".join(map(_found, hits)) or "Nothing is found.")


@sessions.command()
@click.argument("session_id", metavar="ID")
@click.option("--last", type=click.IntRange(min=1), help="Only so many turns, the last ones.")
@click.option("--json", "as_json", is_flag=True, help="Print the session as one JSON object.")
def show(session_id: str, last: int | None, *, as_json: bool) -> None:
    """Print the session ID with its turns."""
    session = _ask_about(session_id, lambda client, found: client.session(found, last=last))
    click.echo(session.model_dump_json() if as_json else "\n\n".join(_blocks(session)))


@sessions.command()
@click.argument("session_id", metavar="ID")
@click.argument("title")
@click.option("--json", "as_json", is_flag=True, help="Print the session as one JSON object.")
def rename(session_id: str, title: str, *, as_json: bool) -> None:
    """Give the session ID another TITLE."""
    renamed = _ask_about(session_id, lambda client, found: client.rename_session(found, title))
    _report(renamed, f"{renamed.id} is now {_titled(renamed)}.", as_json=as_json)


@sessions.command()
@click.argument("session_id", metavar="ID")
@click.option(
    "--turn", type=click.IntRange(min=1), help="The last turn to take over; else the last there is."
)
@click.option("--title", help="Of the new session; else that of the old one.")
@click.option("--json", "as_json", is_flag=True, help="Print the new session as one JSON object.")
def fork(session_id: str, turn: int | None, title: str | None, *, as_json: bool) -> None:
    """Begin a new session with copies of the first turns of ID, to go on another way."""
    forked = _ask_about(session_id, lambda client, found: _fork(client, found, turn, title))
    said = f"{forked.id} has {count(forked.turn_count, 'turn')} of {forked.forked_from}."
    _report(forked, f'{said} Go on: footplate ask --session {forked.id} "…"', as_json=as_json)


@sessions.command()
@click.argument("session_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print the session as one JSON object.")
def delete(session_id: str, *, as_json: bool) -> None:
    """Delete the session ID with its turns; for ten minutes `restore` brings it back."""
    deleted = _ask_about(session_id, _delete)
    said = f"{_titled(deleted)} is deleted. Within ten minutes: footplate sessions restore {deleted.id}"
    _report(deleted, said, as_json=as_json)


@sessions.command()
@click.argument("deleted_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print the session as one JSON object.")
def restore(deleted_id: str, *, as_json: bool) -> None:
    """Bring the session ID back that was deleted in the last ten minutes."""
    restored = _ask(lambda client: client.restore_session(deleted_id))
    _report(restored, f"{_titled(restored)} is back.", as_json=as_json)


@sessions.command()
@click.argument("session_id", metavar="ID")
@click.option(
    "--format", "kind", type=click.Choice(["markdown", "json"]), default="markdown", show_default=True
)
@click.option("-o", "--output", type=click.File("wb", lazy=True), help="Into this file.")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def export(
    session_id: str, kind: Literal["markdown", "json"], output: IO[bytes] | None, *, as_json: bool
) -> None:
    """Write the session ID out: Markdown to read, JSON to import again."""
    text = _ask_about(
        session_id, lambda client, found: client.export_session(found, "json" if as_json else kind)
    )
    if output is not None:
        output.write(text.encode())
    else:
        click.echo(harmless(text) if sys.stdout.isatty() else text, nl=not text.endswith("\n"))


@sessions.command("import")
@click.argument("file", type=click.File("rb"))
@click.option("--json", "as_json", is_flag=True, help="Print the session as one JSON object.")
def import_session(file: IO[bytes], *, as_json: bool) -> None:
    """Take a session in from FILE, written by `export --format json`; - reads a pipe."""
    exported = file.read()
    taken = _ask(lambda client: client.import_session(exported))
    said = f"{_titled(taken)} is here as {taken.id}, with {count(taken.turn_count, 'turn')}."
    _report(taken, said, as_json=as_json)


def lines(sessions: Sequence[wire.Session]) -> Iterator[str]:
    """Give the sessions as a person reads them."""
    if not sessions:
        yield "There are no sessions yet. Begin one in the terminal: footplate"
        return
    yield from table(("ID", "LAST USED", "TURNS", "ANSWERED BY", "TITLE"), [_row(each) for each in sessions])


def _ask(question: Callable[[FootplateClient], Awaitable[T]]) -> T:
    async def asked() -> T:
        async with reaching.client() as client:
            return await question(client)

    return asyncio.run(asked())


def _ask_about(session_id: str, question: Callable[[FootplateClient, str], Awaitable[T]]) -> T:
    """Ask about the session that is meant: `last` is the one used last."""

    async def asked(client: FootplateClient) -> T:
        if session_id != LAST:
            return await question(client, session_id)
        newest = await client.sessions(limit=1)
        if not newest:
            raise NotFound("There are no sessions yet.", hint="Begin one: footplate sessions new")
        return await question(client, newest[0].id)

    return _ask(asked)


async def _fork(
    client: FootplateClient, session_id: str, turn: int | None, title: str | None
) -> wire.Session:
    last = turn or (await client.session(session_id, last=1)).turn_count
    # The daemon says what is wrong with a wish, in a sentence.
    wish = wire.ForkWish.model_construct(turn=max(last, 1), title=title)
    return await client.fork_session(session_id, wish)


async def _delete(client: FootplateClient, session_id: str) -> wire.Session:
    session = await client.session(session_id, last=1)
    await client.delete_session(session_id)
    return wire.Session.model_validate(session.model_dump())


def _report(session: wire.Session, sentence: str, *, as_json: bool) -> None:
    click.echo(session.model_dump_json() if as_json else sentence)


def _titled(session: wire.Session) -> str:
    return f'"{_title(session)}"'


def _title(session: wire.Session) -> str:
    title = one_line(session.title) or "Untitled"
    return title if len(title) <= TITLE_WIDTH else title[: TITLE_WIDTH - 1] + "…"


def _row(session: wire.Session) -> tuple[str, ...]:
    origin = f" (turns of {session.forked_from})" if session.forked_from else ""
    return (
        session.id,
        _moment(session.updated_at),
        str(session.turn_count),
        session.last_variant or "-",
        _title(session) + origin,
    )


def _found(hit: wire.SearchHit) -> str:
    where = "title" if hit.turn is None else f"turn {hit.turn}, {hit.field}"
    parts = [hit.session_id, where, _moment(hit.at)]
    if hit.turn is not None:
        parts.append(speaker(hit.model, hit.runtime))
    return f"{'  '.join(parts)}\n    {_marked(hit)}"


def _marked(hit: wire.SearchHit) -> str:
    """Give the snippet with the words that were searched in bold, where there is bold."""
    text, end = "", 0
    for first, last in hit.matches:
        text += harmless(hit.snippet[end:first]) + click.style(harmless(hit.snippet[first:last]), bold=True)
        end = last
    return text + harmless(hit.snippet[end:])


def _blocks(session: wire.SessionWithTurns) -> Iterator[str]:
    turns = count(session.turn_count, "turn")
    yield f"{_title(session)}\n{session.id}, {turns}, {_moment(session.updated_at)}"
    for turn in session.turns:
        yield f"{turn.number}. {_moment(turn.asked_at)}\n" + _indented(turn.prompt)
        if turn.answer:
            yield harmless(turn.answer).strip("\n")
        if turn.error:
            yield f"{click.style('error:', fg='red')} {harmless(turn.error.message)}"
        yield f"({_answered(turn)})"


def _answered(turn: wire.Turn) -> str:
    figures = answer_figures(
        Answered(
            completion_tokens=turn.completion_tokens,
            tokens_per_second=turn.tokens_per_second,
            ttft_seconds=turn.ttft_seconds,
            finish_reason=turn.finish_reason,
        )
    )
    state = "" if turn.state is wire.TurnState.DONE else turn.state.value
    return " · ".join(filter(None, (speaker(turn.model, turn.runtime), state, figures)))


def _indented(text: str) -> str:
    return "\n".join(f"  > {line}".rstrip() for line in harmless(text).strip("\n").split("\n"))


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M")
