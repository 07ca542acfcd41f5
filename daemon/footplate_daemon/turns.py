"""Turns: questions that belong to the daemon, not to the connection that asked.

A turn is stored when it is sent, its answer as it streams. A follower that was cut off attaches again
with the last event id it saw and misses nothing. Only `stop`, or the end of the daemon, ends it early.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from footplate_daemon.attachments import File, read
from footplate_daemon.branches import alone, path_to
from footplate_daemon.catalog import Variant
from footplate_daemon.errors import INTERNAL, Conflict, EngineFailed, FootplateError, Invalid, NotFound
from footplate_daemon.gateway.answering import Answering, Ask
from footplate_daemon.gateway.gateway import Gateway
from footplate_daemon.gateway.sse import EventSplitter
from footplate_daemon.messages import Message, Reader, fitting, messages
from footplate_daemon.runtimes.reasoning import WARNING
from footplate_daemon.store.sessions import CUT_OFF, Branch, SessionStore
from footplate_daemon.wire import (
    Diagnosis,
    Turn,
    TurnDelta,
    TurnError,
    TurnState,
    TurnWish,
)

logger = logging.getLogger(__name__)

STORE_SECONDS = 0.25
"""How often a streaming answer is stored."""
FOLLOW_SECONDS = 0.02
"""Followers get at most one event in this time, with all text that came: fewer, larger events."""
FORMER_TURNS = 500
"""Of a long session, so many are looked at for what fits."""
CHARACTERS_PER_TOKEN = 3
"""A cautious estimate, for how many former turns fit into the context."""
VISION = "vision"
CONTINUING: Mapping[str, Mapping[str, Any]] = {
    "vllm": {"add_generation_prompt": False, "continue_final_message": True},
    # It goes on by itself where the last message is the assistant's, but not for a model that is to think.
    "llamacpp": {"reasoning_effort": "none"},
}
"""The runtimes that go on with half an answer, and what they must be told; others are asked in words."""


@dataclass
class _Live:
    """A turn while it is being answered."""

    turn: Turn
    stored: tuple[int, int] = (0, 0)
    """Characters of reasoning and answer that are in the database."""
    task: "asyncio.Task[None] | None" = None
    stop_asked: bool = False
    pieces: int = 0
    """In how many pieces the engine has sent the text."""
    is_ending: bool = False
    """Nothing more comes; how it ended is being stored."""
    changed: "set[asyncio.Event]" = field(default_factory=set)

    def update(self, **fields: object) -> None:
        self.turn = self.turn.model_copy(update=fields)
        for event in self.changed:
            event.set()

    @property
    def is_over(self) -> bool:
        return self.turn.state not in {TurnState.WAITING, TurnState.STREAMING}


class TurnKeeper:
    """Answers turns; `run` must be running."""

    def __init__(self, gateway: Gateway, sessions: SessionStore) -> None:
        self._gateway = gateway
        self._sessions = sessions
        self._live: dict[tuple[str, int], _Live] = {}
        self._asking: set[str] = set()
        """Sessions whose next turn is being stored."""
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Answer turns until cancelled; those that run then are stored as cut off."""
        async with asyncio.TaskGroup() as self._tasks:
            await asyncio.get_running_loop().create_future()

    async def ask(self, session_id: str, wish: TurnWish) -> Turn:
        """Store a question and begin to answer it.

        Raise `NotFound` for the session, the model or the turn it refers to; `Invalid` for files that
        cannot be used, or not by this model; `Conflict` while another turn is being answered.
        """
        variant = self._gateway.resolve(wish.model)
        branch = await self._branch(session_id, wish)
        files = await self._files(session_id, wish)
        self._check_vision(variant, files)
        is_answering = any(live.turn.session_id == session_id for live in self._live.values())
        if is_answering or session_id in self._asking:
            raise Conflict(
                "The session still answers its last question.", hint="Wait for it, or stop it first."
            )
        self._asking.add(session_id)
        try:
            session = await self._sessions.get(session_id, last=0)
            parameters = {**session.parameters, **wish.parameters}
            turn = await self._sessions.add_turn(
                session_id, wish.prompt, parameters, wish.model, time.time(), branch=branch, files=files
            )
        finally:
            self._asking.discard(session_id)
        live = _Live(turn)
        self._live[session_id, turn.number] = live
        assert self._tasks is not None, "turns are not running"  # noqa: S101
        live.task = self._tasks.create_task(self._keep(live, wish))
        return turn

    async def _branch(self, session_id: str, wish: TurnWish) -> Branch:
        """Check which turn the question refers to; raise `NotFound`, `Invalid` or `Conflict`."""
        branch = Branch(wish.instead_of, wish.after, wish.continue_of)
        referred = [number for number in (wish.instead_of, wish.after, wish.continue_of) if number]
        if len(referred) > 1:
            raise Invalid(
                "instead_of, after and continue_of exclude each other.", param="instead_of", hint="Send one."
            )
        for number in referred:
            turn = await self._sessions.get_turn(session_id, number)
            if wish.continue_of and not turn.answer:
                raise Conflict(f"Turn {number} has no answer to go on with.", hint="Ask it again instead.")
        return branch

    async def _files(self, session_id: str, wish: TurnWish) -> tuple[File, ...]:
        """Give the files that go with a question: those that were sent, else those of the turn before it."""
        if wish.attachments is not None:
            return await asyncio.to_thread(read, wish.attachments)
        if wish.instead_of is None:
            return ()
        return (await self._sessions.files(session_id, [wish.instead_of]))[wish.instead_of]

    def _check_vision(self, variant: Variant, files: Sequence[File]) -> None:
        """Refuse an image for a variant that reads text only, before anything is loaded for it."""
        image = next((file for file in files if file.is_image), None)
        if image is None or VISION in variant.capabilities:
            return
        seeing = [
            each.name for each in self._gateway.catalog.variants.values() if VISION in each.capabilities
        ]
        can = f"These read images: {', '.join(seeing)}." if seeing else "None in the catalog reads images."
        raise Invalid(
            f"{variant.name} reads text only: it cannot be sent {image.name}.", param="attachments", hint=can
        )

    async def stop(self, session_id: str, number: int) -> Turn:
        """End the generation, keep what came, and give the turn as it was stored."""
        live = self._live.get((session_id, number))
        if live is None or live.task is None:
            return await self._sessions.get_turn(session_id, number)
        if not live.stop_asked and not live.is_ending:
            live.stop_asked = True
            live.task.cancel()
        await asyncio.wait({live.task})
        return live.turn

    async def delete_session(self, session_id: str) -> None:
        """Stop what the session is answering and delete it; raise `NotFound`."""
        for session, number in list(self._live):
            if session == session_id:
                await self.stop(session, number)
        await self._sessions.delete(session_id)

    async def follow(
        self, session_id: str, number: int, last_event_id: str | None = None
    ) -> AsyncIterator[tuple[str, Turn | TurnDelta]]:
        """Yield event ids with the turn as it stands, what comes, and the turn as it ended.

        With the id of the last event seen, the first one is what came after it.
        """
        live = self._live.get((session_id, number))
        if live is None:
            turn = await self._sessions.get_turn(session_id, number)
            yield _event_id(turn), turn
            return
        woken = asyncio.Event()
        live.changed.add(woken)
        try:
            # As it is now: it may be further when the reader has taken it.
            turn = live.turn
            state, seen = turn.state, _parse_event_id(last_event_id)
            if seen is None or any(part > there for part, there in zip(seen, _lengths(turn), strict=True)):
                yield _event_id(turn), turn
                seen = _lengths(turn)
            while not live.is_over:
                woken.clear()
                turn = live.turn
                if turn.state != state:
                    # Who answers is said before what he says, though both came at once.
                    state = turn.state
                    yield _as_of(turn, seen)
                if _lengths(turn) != seen:
                    yield _event_id(turn), _delta(turn, seen, live.pieces)
                    seen = _lengths(turn)
                await woken.wait()
                await asyncio.sleep(FOLLOW_SECONDS)
            if _lengths(live.turn) != seen:
                if state == TurnState.WAITING:
                    yield _as_of(live.turn, seen)
                yield _event_id(live.turn), _delta(live.turn, seen, live.pieces)
            yield _event_id(live.turn), live.turn
        finally:
            live.changed.discard(woken)

    async def _keep(self, live: _Live, wish: TurnWish) -> None:
        """Answer one turn and store how it ended, whatever happens: other turns must not suffer for it."""
        ended: dict[str, object] = {"state": TurnState.DONE}
        try:
            await self._answer(live, wish)
        except FootplateError as error:
            ended = _failure(error)
        except asyncio.CancelledError:
            if not live.stop_asked:
                ended = {"state": TurnState.FAILED, "error": CUT_OFF}
                raise
            ended = {"state": TurnState.STOPPED, "finish_reason": "stopped"}
        except Exception:
            logger.exception("a turn failed", extra={"session": live.turn.session_id})
            ended = _failure(INTERNAL)
        finally:
            live.is_ending = True
            turn = live.turn.model_copy(update={**ended, "ended_at": time.time()})
            await asyncio.shield(self._store_ended(turn))
            del self._live[turn.session_id, turn.number]
            live.update(**ended, ended_at=turn.ended_at)

    async def _store_ended(self, turn: Turn) -> None:
        """Store how a turn ended; while the database is busy or full, try again for half a minute."""
        for pause in (1, 2, 4, 8, 16, None):
            try:
                return await self._sessions.finish_turn(turn)
            except NotFound:
                return None  # its session was deleted meanwhile
            except FootplateError as error:
                logger.warning("a turn is not stored yet", extra={"cause": error.message})
            if pause is not None:
                await asyncio.sleep(pause)
        return None

    async def _answer(self, live: _Live, wish: TurnWish) -> None:
        variant = self._gateway.resolve(wish.model)
        body = {
            **live.turn.parameters,
            "model": wish.model,
            "messages": await self._messages(live.turn, variant),
            "stream": True,
            "stream_options": {"include_usage": True},
            **(CONTINUING.get(variant.runtime, {}) if live.turn.continue_of else {}),
        }
        ask = Ask("/v1/chat/completions", body, client="terminal", session_id=live.turn.session_id)
        # Before the engine is there: a turn that fails for want of it says so under the right name.
        live.update(
            runtime=variant.runtime,
            variant=variant.name,
            model=variant.model,
            profile=variant.profile_name,
            request_id=ask.request_id,
        )
        await self._sessions.label_turn(live.turn)
        await self._gateway.answer(ask, partial(self._take_in, live))

    async def _take_in(self, live: _Live, answering: Answering) -> None:
        live.update(preset=answering.lease.preset)
        if answering.response.status >= 400:
            _, body = await answering.failure()
            raise EngineFailed(body["error"]["message"], hint=body["error"]["hint"])
        live.update(state=TurnState.STREAMING)
        assert self._tasks is not None  # noqa: S101 - we are one of its tasks
        storing = self._tasks.create_task(self._store_as_it_comes(live))
        try:
            await _stream(live, answering)
        finally:
            storing.cancel()
            await asyncio.wait({storing})

    async def _messages(self, turn: Turn, variant: Variant) -> list[Message]:
        """Give the former turns that fit into the context, and the question."""
        session = await self._sessions.get(turn.session_id, last=FORMER_TURNS)
        path: Sequence[Turn] = path_to(session.turns, turn.number)
        if variant.demonstration:
            path = alone(path)  # it answers each question by itself; earlier ones only confuse it
        reader = Reader(
            (variant.launch_context() or 8192) * CHARACTERS_PER_TOKEN // 2,
            sees_images=VISION in variant.capabilities,
            goes_on=variant.runtime in CONTINUING,
        )
        with_files = [each.number for each in fitting(path, reader.characters) if each.attachments]
        files = await self._sessions.files(turn.session_id, with_files)
        # To write pictures in base64 takes long enough to be felt by others.
        return await asyncio.to_thread(messages, path, reader, system=session.system, files=files)

    async def _store_as_it_comes(self, live: _Live) -> None:
        while True:
            try:
                if _lengths(live.turn) != live.stored or live.turn.state != TurnState.STREAMING:
                    await self._store(live)
            except FootplateError as error:  # a full disk: the turn goes on, and is stored when it can be
                logger.warning("a turn is not stored yet", extra={"cause": error.message})
            await asyncio.sleep(STORE_SECONDS)

    async def _store(self, live: _Live) -> None:
        turn = live.turn
        delta = _delta(turn, live.stored)
        await self._sessions.append_answer(
            turn.session_id,
            turn.number,
            delta.content,
            delta.reasoning,
            runtime=turn.runtime,
            variant=turn.variant,
            model=turn.model,
            request_id=turn.request_id,
        )
        live.stored = _lengths(turn)


async def _stream(live: _Live, answering: Answering) -> None:
    """Read the answer to its end into the live turn."""
    splitter = EventSplitter()

    def take(chunk: bytes) -> None:
        content, reasoning = "", ""
        for event in splitter.feed(chunk):
            said = _said(event)
            delta = _delta_of(said)
            content += delta.content
            reasoning += delta.reasoning
            live.pieces += bool(delta.content or delta.reasoning)
            if WARNING in said:
                live.update(warning=str(said[WARNING]))
        if content or reasoning:
            live.update(
                answer=live.turn.answer + content,
                reasoning=live.turn.reasoning + reasoning,
                ttft_seconds=answering.ttft_seconds,
            )

    await answering.relay(take)
    usage = answering.usage
    live.update(
        ttft_seconds=answering.ttft_seconds,
        tokens_per_second=answering.tokens_per_second,
        prompt_tokens=usage.prompt_tokens if usage else None,
        completion_tokens=usage.completion_tokens if usage else None,
        finish_reason=answering.finish_reason,
    )
    if answering.error is not None:
        raise EngineFailed(answering.error, hint="Ask again, or see: footplate logs")


def _said(event: bytes) -> Mapping[str, Any]:
    """Parse one event of an OpenAI stream; empty for `[DONE]` and the like."""
    try:
        chunk = json.loads(event)
    except ValueError:
        return {}
    return chunk if isinstance(chunk, Mapping) else {}


def _delta_of(chunk: Mapping[str, Any]) -> TurnDelta:
    """Take the text out of one chunk; empty for what carries none."""
    choices = chunk.get("choices")
    delta: Any = choices[0].get("delta") if choices else None
    if not isinstance(delta, Mapping):
        return TurnDelta()
    reasoning = delta.get("reasoning_content") or delta.get("reasoning")
    return TurnDelta(content=_text(delta.get("content")), reasoning=_text(reasoning))


def _text(content: object) -> str:
    """Give text as it can be stored; what is none, or half a character, is left out or replaced."""
    return content.encode(errors="replace").decode() if isinstance(content, str) else ""


def _failure(error: FootplateError) -> dict[str, object]:
    diagnosis = error.details.get("diagnosis")
    told = TurnError(
        message=error.message,
        code=error.code,
        hint=error.hint,
        diagnosis=Diagnosis.model_validate(diagnosis) if diagnosis else None,
    )
    return {"state": TurnState.FAILED, "error": told}


def _lengths(turn: Turn) -> tuple[int, int]:
    return len(turn.reasoning), len(turn.answer)


def _delta(turn: Turn, seen: tuple[int, int], pieces: int | None = None) -> TurnDelta:
    return TurnDelta(reasoning=turn.reasoning[seen[0] :], content=turn.answer[seen[1] :], pieces=pieces)


def _as_of(turn: Turn, seen: tuple[int, int]) -> tuple[str, Turn]:
    """Give a turn that answers, with no more of the text than was seen; the rest comes as deltas."""
    so_far = {"reasoning": turn.reasoning[: seen[0]], "answer": turn.answer[: seen[1]]}
    streaming = {"state": TurnState.STREAMING, "ended_at": None, "error": None, "finish_reason": None}
    told = turn.model_copy(update={**so_far, **streaming})
    return _event_id(told), told


def _event_id(turn: Turn) -> str:
    """Say how much of a turn an event has shown: characters of reasoning and of answer."""
    return "-".join(str(length) for length in _lengths(turn))


def _parse_event_id(event_id: str | None) -> tuple[int, int] | None:
    first, _, second = (event_id or "").partition("-")
    is_ours = first.isdecimal() and second.isdecimal() and len(event_id or "") < 40
    return (int(first), int(second)) if is_ours else None
