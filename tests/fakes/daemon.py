"""A daemon in memory, played by the test: it says what the test lets it say.

It keeps sessions and turns, numbers the events of each turn, and lets a client attach again as the real
one does. What it does not do: no engines, no switching, no queue; nothing reaches a disk; it answers
nothing by itself; a second question in a session that is still answering is taken as any other.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from footplate_daemon import errors, wire

GUIDE = "llamacpp/guide"
UNREACHABLE = errors.DaemonUnreachable("No Footplate daemon answers.", hint="Start it: footplate up")
CUT = errors.DaemonUnreachable("The connection to the Footplate daemon was cut.")

Event = tuple[str, wire.TurnDelta | wire.Turn]


class FakeDaemon:
    """Implements the terminal's `Daemon`; its other methods are the test's hands."""

    def __init__(self, *, is_demonstration: bool = True) -> None:
        self.stored: dict[str, wire.SessionWithTurns] = {}
        """Every session by its id, the oldest first."""
        self.attached_with: list[str | None] = []
        """With which last event id each client attached to a turn."""
        self.asked: list[str] = []
        self._is_demonstration = is_demonstration
        self._events: dict[tuple[str, int], list[Event]] = {}
        self._refusals: list[errors.FootplateError] = []
        self._takes_but_cuts = False
        self._is_up = True
        self._line = 0
        self._changed = asyncio.Condition()
        self.now_status = status()

    # The terminal's side.

    async def models(self) -> list[wire.ModelInfo]:
        self._answer_only_when_up()
        variant = wire.VariantInfo(
            name=GUIDE, runtime="llamacpp", model="guide", served_name="guide", active=True
        )
        return [wire.ModelInfo(name="guide", demonstration=self._is_demonstration, variants=(variant,))]

    async def follow_status(self) -> AsyncIterator[wire.Status]:
        self._answer_only_when_up()
        line, shown = self._line, None
        while True:
            if self._line != line:
                raise CUT
            if shown is not self.now_status:
                shown = self.now_status
                yield shown
                continue
            async with self._changed:
                await self._changed.wait_for(
                    lambda: self._line != line or shown is not self.now_status  # noqa: B023 -- waited for at once
                )

    async def sessions(self, limit: int = 50) -> list[wire.Session]:
        self._answer_only_when_up()
        newest_first = sorted(self.stored.values(), key=lambda session: session.updated_at, reverse=True)
        return [wire.Session.model_validate(session.model_dump()) for session in newest_first[:limit]]

    async def session(self, session_id: str) -> wire.SessionWithTurns:
        self._answer_only_when_up()
        return self.stored[session_id]

    async def create_session(self, wish: wire.SessionWish | None = None) -> wire.Session:
        self._answer_only_when_up()
        number = len(self.stored) + 1
        return self.store(session(f"s{number}", title=wish.title if wish else "", updated_at=float(number)))

    async def ask(self, session_id: str, wish: wire.TurnWish) -> wire.Turn:
        self._answer_only_when_up()
        if self._refusals:
            raise self._refusals.pop(0)
        self.asked.append(wish.prompt)
        number = len(self.stored[session_id].turns) + 1
        turn = wire.Turn(
            session_id=session_id,
            number=number,
            state=wire.TurnState.WAITING,
            prompt=wish.prompt,
            runtime="llamacpp",
            variant=GUIDE,
            model="guide",
            asked_at=100.0 + number,
        )
        self._events[session_id, number] = []
        await self._keep(turn)
        if self._takes_but_cuts:
            self._takes_but_cuts = False
            raise CUT
        return turn

    async def stop_turn(self, session_id: str, number: int) -> wire.Turn:
        self._answer_only_when_up()
        await self.finish(state=wire.TurnState.STOPPED)
        return self.stored[session_id].turns[number - 1]

    async def follow_turn(
        self, session_id: str, number: int, *, last_event_id: str | None = None
    ) -> AsyncIterator[Event]:
        self._answer_only_when_up()
        self.attached_with.append(last_event_id)
        line, events = self._line, self._events.setdefault((session_id, number), [])
        place = len(events)
        if last_event_id is not None and int(last_event_id) <= len(events):
            place = int(last_event_id)
        else:
            turn = self.stored[session_id].turns[number - 1]
            yield str(place), turn
            if turn.ended_at is not None:
                return
        while True:
            if self._line != line:
                raise CUT
            if place < len(events):
                event = events[place]
                place += 1
                yield event
                if isinstance(event[1], wire.Turn) and event[1].ended_at is not None:
                    return
                continue
            async with self._changed:
                await self._changed.wait_for(
                    lambda: self._line != line or len(events) > place  # noqa: B023 -- waited for at once
                )

    async def aclose(self) -> None:
        await self.cut()

    # The test's side.

    @property
    def newest(self) -> wire.Turn:
        """The turn asked last."""
        turns = [turn for stored in self.stored.values() for turn in stored.turns]
        return max(turns, key=lambda turn: turn.asked_at)

    def store(self, kept: wire.SessionWithTurns) -> wire.SessionWithTurns:
        """Keep a session as it is."""
        self.stored[kept.id] = kept
        return kept

    async def say(self, content: str = "", reasoning: str = "") -> None:
        """Let the model of the newest turn say something."""
        turn = self.newest
        said = turn.model_copy(
            update={
                "state": wire.TurnState.STREAMING,
                "answer": turn.answer + content,
                "reasoning": turn.reasoning + reasoning,
            }
        )
        await self._keep(said, wire.TurnDelta(content=content, reasoning=reasoning))

    async def finish(self, state: wire.TurnState = wire.TurnState.DONE, **facts: Any) -> None:
        """End the newest turn."""
        ended = {"state": state, "ended_at": 200.0, "finish_reason": "stop", **facts}
        turn = self.newest.model_copy(update=ended)
        await self._keep(turn, turn)

    async def fail(self, message: str, hint: str) -> None:
        """End the newest turn with an error."""
        error = wire.TurnError(message=message, code="engine_failed", hint=hint)
        await self.finish(state=wire.TurnState.FAILED, finish_reason=None, error=error)

    async def show(self, status_now: wire.Status) -> None:
        """Change the status."""
        self.now_status = status_now
        await self._tell()

    def refuse_next(self, error: errors.FootplateError) -> None:
        """Answer the next question with an error."""
        self._refusals.append(error)

    def take_next_but_cut(self) -> None:
        """Keep the next question, and cut the line before the client hears of it."""
        self._takes_but_cuts = True

    async def cut(self) -> None:
        """Cut every stream; who comes again is served."""
        self._line += 1
        await self._tell()

    async def go_down(self) -> None:
        """Cut every stream and answer nobody."""
        self._is_up = False
        await self.cut()

    async def come_back(self) -> None:
        """Answer again."""
        self._is_up = True
        await self._tell()

    async def crash(self) -> None:
        """Go down as after `kill -9`: what ran has failed, what was said is kept, event ids are forgotten."""
        turn = self.newest
        if turn.ended_at is None:
            await self.go_down()
            await self.fail("The daemon stopped while this was being answered.", "Ask again.")
            self._events[turn.session_id, turn.number] = []
        await self.go_down()

    def _answer_only_when_up(self) -> None:
        if not self._is_up:
            raise UNREACHABLE

    async def _keep(self, turn: wire.Turn, event: wire.TurnDelta | wire.Turn | None = None) -> None:
        kept = self.stored[turn.session_id]
        turns = (*kept.turns[: turn.number - 1], turn, *kept.turns[turn.number :])
        title = kept.title or turn.prompt
        self.stored[turn.session_id] = kept.model_copy(update={"turns": turns, "title": title})
        if event:
            events = self._events.setdefault((turn.session_id, turn.number), [])
            events.append((str(len(events) + 1), event))
        await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def status(*, model: str = "guide", runtime: str = "llamacpp", state: str = "ready") -> wire.Status:
    """Make a status with one engine, the active one."""
    variant = f"{runtime}/{model}"
    engine = wire.Engine(
        name=f"{runtime}-{model}",
        runtime=runtime,
        variant=variant,
        model=model,
        state=wire.EngineState(state),
        since=1.0,
    )
    identity = wire.Identity(version="0", pid=1, started_at=0.0)
    return wire.Status(daemon=identity, active=variant, wanted=variant, engines=(engine,))


def session(
    session_id: str, *, title: str = "", updated_at: float = 1.0, turns: tuple[wire.Turn, ...] = ()
) -> wire.SessionWithTurns:
    """Make a session."""
    return wire.SessionWithTurns(
        id=session_id, title=title, created_at=1.0, updated_at=updated_at, turn_count=len(turns), turns=turns
    )


def answered(session_id: str, number: int, prompt: str, answer: str, **facts: Any) -> wire.Turn:
    """Make a finished turn."""
    return wire.Turn.model_validate(
        {
            "session_id": session_id,
            "number": number,
            "state": "done",
            "prompt": prompt,
            "answer": answer,
            "runtime": "llamacpp",
            "variant": GUIDE,
            "model": "guide",
            "asked_at": float(number),
            "ended_at": number + 0.5,
            "ttft_seconds": 0.012,
            "tokens_per_second": 312.4,
            "completion_tokens": 42,
            "finish_reason": "stop",
            **facts,
        }
    )
