"""`footplate ask`: one question, its answer on stdout as it comes.

A request to the gateway belongs to this process: Ctrl-C cancels it. With `--session` the question becomes
a turn of that session, which goes on if we leave.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import click

from footplate_daemon import errors, wire
from footplate_tui.cli import reaching
from footplate_tui.cli.names import complete_model

WARNING = "x_footplate_warning"
"""The field of a stream's last chunk that says what is odd about an answer that did not fail."""


@click.command()
@click.argument("question", required=False)
@click.option(
    "-m", "--model", shell_complete=complete_model, help="A model or a variant; else the active one."
)
@click.option("-s", "--system", help="Instructions for the model, before the question.")
@click.option("--session", "session_id", help="Ask within this session; its history counts and grows.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Longest answer.")
@click.option("--temperature", type=click.FloatRange(min=0))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object when the answer is complete.")
def ask(
    question: str | None,
    model: str | None,
    system: str | None,
    session_id: str | None,
    max_tokens: int | None,
    temperature: float | None,
    *,
    as_json: bool,
) -> None:
    """Ask QUESTION, or what comes through a pipe, or both; the answer goes to stdout as it comes.

    \b
    footplate ask "What is a preset?"
    footplate ask "Summarise this" < notes.txt
    footplate ask --model ollama/gemma-3-4b-it "Hello"
    """  # noqa: D301 - click's sign for "do not wrap"
    if session_id and system:
        raise click.UsageError("--system does not go with --session.")
    prompt = _prompt(question)
    reaching.socket(start=True)
    parameters = {
        name: value
        for name, value in (("max_tokens", max_tokens), ("temperature", temperature))
        if value is not None
    }
    writer = _Writer(as_json=as_json)
    if session_id:
        wish = wire.TurnWish(prompt=prompt, model=model, parameters=parameters)
        result = asyncio.run(_ask_in_session(session_id, wish, writer))
    else:
        body = {"messages": _messages(system, prompt), **parameters, **({"model": model} if model else {})}
        result = asyncio.run(_ask_gateway(body, writer))
    writer.end(result)


@dataclass
class _Writer:
    """Writes text as it comes; reasoning goes dimmed to stderr, where a person sees it."""

    as_json: bool
    _ends_with_newline: bool = True
    _is_reasoning: bool = False
    _shows_reasoning: bool = field(default_factory=lambda: sys.stderr.isatty() and sys.stdout.isatty())

    def write(self, content: str, reasoning: str = "") -> None:
        if self.as_json:
            return
        if reasoning and self._shows_reasoning:
            self._is_reasoning = True
            click.secho(reasoning, dim=True, nl=False, err=True)
        if content:
            if self._is_reasoning:
                self._is_reasoning = False
                click.echo("\n", err=True)
            click.echo(content, nl=False)
            self._ends_with_newline = content.endswith("\n")

    def end(self, result: Mapping[str, Any]) -> None:
        if self.as_json:
            click.echo(json.dumps(result, ensure_ascii=False))
        elif not self._ends_with_newline:
            click.echo()
        if result.get("warning") and not self.as_json:
            click.echo(f"{click.style('warning:', fg='yellow')} {result['warning']}", err=True)


def _prompt(question: str | None) -> str:
    piped = "" if sys.stdin.isatty() else sys.stdin.read().strip()
    prompt = "\n\n".join(part for part in (question, piped) if part)
    if not prompt.strip():
        raise click.UsageError('There is no question: footplate ask "…", or text through a pipe.')
    return prompt


def _messages(system: str | None, prompt: str) -> list[dict[str, str]]:
    before = [{"role": "system", "content": system}] if system else []
    return [*before, {"role": "user", "content": prompt}]


async def _ask_gateway(body: Mapping[str, Any], writer: _Writer) -> dict[str, Any]:
    result: dict[str, Any] = {"id": None, "model": None, "answer": "", "reasoning": ""}
    result |= {"finish_reason": None, "usage": None, "warning": None}
    async with reaching.client() as client:
        async for chunk in client.chat(body):
            result["id"] = chunk.get("id") or result["id"]
            result["model"] = chunk.get("model") or result["model"]
            result["usage"] = chunk.get("usage") or result["usage"]
            result["warning"] = chunk.get(WARNING) or result["warning"]
            for choice in chunk.get("choices") or []:
                content, reasoning = _texts(choice.get("delta") or {})
                writer.write(content, reasoning)
                result["answer"] += content
                result["reasoning"] += reasoning
                result["finish_reason"] = choice.get("finish_reason") or result["finish_reason"]
    return result


def _texts(delta: Mapping[str, Any]) -> tuple[str, str]:
    return delta.get("content") or "", delta.get("reasoning_content") or delta.get("reasoning") or ""


async def _ask_in_session(session_id: str, wish: wire.TurnWish, writer: _Writer) -> dict[str, Any]:
    async with reaching.client() as client:
        asked = await client.ask(session_id, wish)
        turn = await _follow(client.follow_turn(session_id, asked.number), writer) or asked
    if turn.error:
        kind = errors.BY_CODE.get(turn.error.code, errors.FootplateError)
        diagnosis = turn.error.diagnosis
        if diagnosis and diagnosis.cause not in turn.error.message:
            raise kind(f"{turn.error.message} {diagnosis.cause}", hint=turn.error.hint)
        raise kind(turn.error.message, hint=turn.error.hint)
    return turn.model_dump(mode="json")


async def _follow(
    events: AsyncIterator[tuple[str, wire.TurnDelta | wire.Turn]], writer: _Writer
) -> wire.Turn | None:
    """Write what is new in each event; give the finished turn."""
    answer, reasoning = "", ""
    last = None
    async for _, event in events:
        if isinstance(event, wire.TurnDelta):
            new, thought = event.content, event.reasoning
        else:
            new, thought = event.answer[len(answer) :], event.reasoning[len(reasoning) :]
            last = event
        writer.write(new, thought)
        answer, reasoning = answer + new, reasoning + thought
    return last
