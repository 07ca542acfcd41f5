"""`footplate --plain`: the chat line by line, for screen readers and for terminals that can do little.

Nothing on the screen is ever changed: no cursor movement, no colours, no progress that redraws. What a
model says is written as it comes; Ctrl+C stops it and keeps what came.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click

from footplate_daemon import errors, wire
from footplate_daemon.client import FootplateClient
from footplate_tui import conversation
from footplate_tui.asking import Asking
from footplate_tui.cli.watching import Lines, watch
from footplate_tui.format import count, duration
from footplate_tui.harmless import harmless, one_line

PROMPT = "You: "
COMMANDS = {
    "/models": "Say which models there are.",
    "/switch NAME": "Let another model or runtime answer; Ctrl+C cancels.",
    "/new": "Begin an empty session.",
    "/stop": "Stop an answer that goes on here, whoever asked.",
    "/status": "Say what answers now.",
    "/help": "List these commands.",
    "/quit": "Leave (or Ctrl+D); answers go on and are kept.",
}
INTERRUPTED = "Stopped; what came is kept."


def run(socket: Path, host: str | None = None, session_id: str | None = None) -> int:
    """Chat until the user leaves; give the exit code. It opens with this session, else the last one."""
    with asyncio.Runner() as runner:
        chat = Chat(FootplateClient(socket, host=host))
        try:
            runner.run(chat.open(session_id))
            while (line := _read_line()) is not None:
                _carry_out(runner, chat.take(line))
                if chat.is_over:
                    break
        finally:
            runner.run(chat.close())
    return 0


class Chat:
    """One session, and what a line that was typed does with it."""

    def __init__(self, client: FootplateClient) -> None:
        self.is_over = False
        self._client = client
        self._session: wire.Session | None = None
        self._turns_known = 0

    async def open(self, session_id: str | None) -> None:
        """Say who answers and which session goes on."""
        if session_id:
            opened: wire.Session | None = await conversation.open_session(self._client, session_id)
        else:
            opened = await conversation.last_session(self._client)
        self._take(opened)
        await self._tell_status()
        if opened and opened.turn_count:
            click.echo(
                f"Session: {one_line(opened.title)}, {count(opened.turn_count, 'turn')}. /new begins another."
            )
        click.echo("Type a question and press Enter. /help lists the commands.")

    async def take(self, line: str) -> None:
        """Do what the line says: a command, or a question."""
        word, _, rest = line.strip().partition(" ")
        commands: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "/models": self._tell_models,
            "/switch": lambda: self._switch(rest.strip()),
            "/new": self._begin_anew,
            "/stop": self._stop,
            "/status": self._tell_status,
            "/help": self._help,
            "/quit": self._leave,
        }
        if not word:
            return
        if word in commands:
            await commands[word]()
        elif word.startswith("/") and not word.startswith("//"):
            click.echo(f"{word} is no command. /help lists them; // asks what begins with a slash.")
        else:
            await self._ask(line.removeprefix("/") if word.startswith("//") else line)

    async def close(self) -> None:
        """Let go of the daemon."""
        await self._client.aclose()

    async def _ask(self, text: str) -> None:
        session = self._session or await self._client.create_session()
        self._session = session
        turn = await conversation.ask(
            self._client, session.id, Asking(text), turns_known=self._turns_known, was_tried=False
        )
        self._turns_known = turn.number
        async with _on_interrupt(lambda: self._client.stop_turn(session.id, turn.number)):
            last = await _write_answer(
                turn, conversation.follow_answer(self._client, session.id, turn.number)
            )
        _tell_end(last)

    async def _switch(self, name: str) -> None:
        if not name:
            click.echo("Which model? /switch NAME; /models lists the names.")
            return
        switch = await self._client.activate(wire.SwitchWish(name=name))
        async with _on_interrupt(lambda: self._client.cancel_switch(switch.id)):
            ended = await watch(self._client, switch, Lines())
        if ended.outcome == "done":
            click.echo(f"{one_line(ended.variant)} answers now.")
        elif ended.diagnosis:
            click.echo(f"{one_line(ended.variant)} did not start: {one_line(ended.diagnosis.cause)}")
            for remedy in ended.diagnosis.remedies:
                what = f" With: {one_line(remedy.command)}" if remedy.command else ""
                click.echo(f"What helps: {one_line(remedy.title)}.{what}")
        else:
            click.echo(f"The switch to {one_line(ended.variant)} was {ended.outcome}.")

    async def _begin_anew(self) -> None:
        self._take(None)
        click.echo("A new session. The one before stays in the history.")

    async def _stop(self) -> None:
        turns = (await self._client.session(self._session.id, last=1)).turns if self._session else ()
        turn = turns[-1] if turns else None
        if turn is None or turn.state in conversation.FINISHED:
            click.echo("No answer goes on in this session.")
            return
        await self._client.stop_turn(turn.session_id, turn.number)
        click.echo(INTERRUPTED)

    async def _tell_status(self) -> None:
        status = await self._client.status()
        if status.active:
            click.echo(f"{one_line(status.active)} answers.")
        else:
            click.echo("No model is loaded; the first question loads one. /models lists them.")

    async def _tell_models(self) -> None:
        for model in await self._client.models():
            for variant in model.variants:
                words = [variant.state.value, *(["active"] if variant.active else [])]
                words += ["not on this machine"] if variant.on_disk is False else []
                click.echo(f"{one_line(variant.name)}: {', '.join(words)}")

    async def _help(self) -> None:
        for command, explanation in COMMANDS.items():
            click.echo(f"{command}: {explanation}")
        click.echo("Ctrl+C while an answer comes: stop it and keep what came.")

    async def _leave(self) -> None:
        self.is_over = True

    def _take(self, session: wire.Session | None) -> None:
        self._session = session
        self._turns_known = session.turn_count if session else 0


async def _write_answer(
    turn: wire.Turn,
    news: AsyncIterator[conversation.Grew | conversation.Changed | conversation.Cut | conversation.Mended],
) -> wire.Turn:
    """Write what comes, after who says it; give the turn as it ended."""
    written, told_thinking, is_begun = 0, False, False
    async for each in news:
        if isinstance(each, conversation.Cut):
            click.echo("\nThe line to the daemon is cut; trying again.")
            continue
        if isinstance(each, conversation.Mended):
            click.echo("The line is there again.")
            continue
        if isinstance(each, conversation.Changed):
            turn = each.turn
            text = turn.answer[written:]
        else:
            text = each.content
            if each.reasoning and not told_thinking:
                told_thinking = True
                click.echo("Thinking.")
        if text and not is_begun:
            is_begun = True
            click.echo(f"{one_line(turn.variant or 'Answer')}: ", nl=False)
        written += len(text)
        click.echo(harmless(text), nl=False)
    if is_begun and not turn.answer.endswith("\n"):
        click.echo()
    return turn


def _tell_end(turn: wire.Turn) -> None:
    if turn.error:
        click.echo(f"Error: {one_line(turn.error.message)}")
        if turn.error.hint:
            click.echo(f"What helps: {one_line(turn.error.hint)}")
        return
    if turn.state is wire.TurnState.STOPPED:
        click.echo(INTERRUPTED)
    if turn.warning:
        click.echo(f"Note: {one_line(turn.warning)}")
    facts = [count(turn.completion_tokens, "token")] if turn.completion_tokens else []
    facts += [f"{turn.tokens_per_second:.0f} tokens per second"] if turn.tokens_per_second else []
    if turn.ended_at:
        facts.append(duration(turn.ended_at - turn.asked_at))
    if facts:
        click.echo(f"End of answer: {', '.join(facts)}.")


def _read_line() -> str | None:
    """Give the next line; None when there will be no more."""
    while True:
        try:
            return input(PROMPT)
        except EOFError:
            click.echo()
            return None
        except KeyboardInterrupt:
            click.echo("\n/quit or Ctrl+D leaves.")


def _carry_out(runner: asyncio.Runner, wanted: Coroutine[Any, Any, None]) -> None:
    try:
        runner.run(wanted)
    except errors.FootplateError as error:
        click.echo(f"Error: {one_line(error.message)}")
        if error.hint:
            click.echo(f"What helps: {one_line(error.hint)}")
    except (KeyboardInterrupt, asyncio.CancelledError):
        click.echo("Not waited for any longer; it goes on in the daemon.")


@asynccontextmanager
async def _on_interrupt(act: Callable[[], Coroutine[Any, Any, object]]) -> AsyncIterator[None]:
    """Let Ctrl+C do this, and what is under way go on to its end; a second Ctrl+C waits for nothing."""
    loop, waiting = asyncio.get_running_loop(), asyncio.current_task()
    acts: list[asyncio.Task[object]] = []

    def interrupt() -> None:
        click.echo()
        if acts and waiting:
            waiting.cancel()
        else:
            acts.append(loop.create_task(act(), name="act on Ctrl+C"))

    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        for each in acts:
            await each
