"""A daemon in memory, played by the test: it says what the test lets it say.

It keeps sessions and turns, numbers the events of each turn, and lets a client attach again as the real
one does. A switch begins when it is wished and goes on as the test says. What it does not do: no engines,
no queue; nothing reaches a disk; it answers nothing by itself; a second question in a session that is
still answering is taken as any other.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Literal

from tests.fakes.work import FakeBatches, FakeBenchmarks

from footplate_daemon import errors, wire

GUIDE = "llamacpp/guide"
UNREACHABLE = errors.DaemonUnreachable("No Footplate daemon answers.", hint="Start it: footplate up")
CUT = errors.DaemonUnreachable("The connection to the Footplate daemon was cut.")

Event = tuple[str, wire.TurnDelta | wire.Turn]


class FakeDaemon(FakeBenchmarks, FakeBatches):
    """Implements the terminal's `Daemon`; its other methods are the test's hands."""

    def __init__(self, *, is_demonstration: bool = True) -> None:
        self.stored: dict[str, wire.SessionWithTurns] = {}
        """Every session by its id, the oldest first."""
        self.attached_with: list[str | None] = []
        """With which last event id each client attached to a turn."""
        self.asked: list[str] = []
        self.wishes: list[wire.TurnWish] = []
        """What was asked, whole."""
        self.switched: list[wire.Switch] = []
        """Every switch, the oldest first; the ids count from 1."""
        self.applied: list[tuple[int, int]] = []
        """The remedies that were applied: of which switch, and their numbers."""
        self.stopped: list[str] = []
        self.deleted: dict[str, wire.SessionWithTurns] = {}
        """The sessions that can be brought back."""
        self.searched: list[str] = []
        self.turns_asked_for: list[tuple[int | None, int | None, int | None]] = []
        """Which turns of a session were read: from, how many, the last ones."""
        self.catalog: list[wire.ModelInfo] = []
        """What is listed beside the guide."""
        self.gauges: wire.GpuSnapshot | None = None
        """What was read last; until then nothing is."""
        self.remembered = wire.GpuHistory()
        """What was read in the minutes before."""
        self.written: dict[str, list[str]] = {"daemon": [], "access": []}
        """The lines of every log."""
        self.pages_asked: list[tuple[str, str | None]] = []
        self.ledger: dict[int, wire.ExchangeWhole] = {}
        """Every exchange by its id."""
        self.exchanges_asked: list[wire.ExchangeFilter] = []
        self.replayed: list[tuple[int, str | None]] = []
        self.replay_allowed = asyncio.Event()
        """A replay is answered when it is set."""
        self._ledger_news: list[wire.ExchangeWhole] = []
        self._is_demonstration = is_demonstration
        self._events: dict[tuple[str, int], list[Event]] = {}
        self._refusals: list[errors.FootplateError] = []
        self._takes_but_cuts = False
        self._is_up = True
        self._line = 0
        self._changed = asyncio.Condition()
        FakeBenchmarks.__init__(self)
        FakeBatches.__init__(self)
        self._history_version = 0
        self.now_status = status()

    # The terminal's side.

    async def models(self) -> list[wire.ModelInfo]:
        self._answer_only_when_up()
        return [model("guide", "llamacpp", demonstration=self._is_demonstration), *self.catalog]

    async def plan(
        self, name: str, runtime: str | None = None, preset: str | None = None, context: int | None = None
    ) -> wire.Plan:
        self._answer_only_when_up()
        return wire.Plan(
            variant=name,
            stops=(self.now_status.active,) if self.now_status.active else (),
            needs_bytes=9_100_000_000,
            free_bytes=8_000_000_000,
            fits=False,
            seconds=31.0,
            command=("vllm", "serve", name, "--context", str(context or 4096)),
            notes=("The preset risky is risky.",) if (runtime or preset) else (),
        )

    async def activate(self, wish: wire.SwitchWish, *, wait: bool = False) -> wire.Switch:
        assert not wait, "the terminal never waits for a switch: it sees it in the status"
        self._answer_only_when_up()
        if self._refusals:
            raise self._refusals.pop(0)
        return await self.begin_switch(wish.name)

    async def switches(self, limit: int = 20) -> list[wire.Switch]:
        self._answer_only_when_up()
        return self.switched[::-1][:limit]

    async def switch(self, switch_id: int) -> wire.Switch:
        self._answer_only_when_up()
        return self.switched[switch_id - 1]

    async def cancel_switch(self, switch_id: int) -> wire.Switch:
        self._answer_only_when_up()
        await self._roll_back("cancelled")
        return self.switched[switch_id - 1]

    async def apply_remedy(self, switch_id: int, number: int, *, wait: bool = False) -> wire.Switch:
        assert not wait, "the terminal never waits for a switch: it sees it in the status"
        self._answer_only_when_up()
        failed = self.switched[switch_id - 1]
        remedies = failed.diagnosis.remedies if failed.diagnosis else ()
        remedy = next(each for each in remedies if each.id == number)
        if not remedy.applies:
            raise errors.Conflict("This is for you to do.", hint=remedy.command)
        self.applied.append((switch_id, number))
        return await self.begin_switch(remedy.variant or failed.variant, reason="remedy")

    async def stop_engine(self, name: str) -> wire.Status:
        self._answer_only_when_up()
        self.stopped.append(name)
        left = tuple(
            engine for engine in self.now_status.engines if name not in {engine.name, engine.variant}
        )
        active = None if self.now_status.active == name else self.now_status.active
        await self.show(self.now_status.model_copy(update={"engines": left, "active": active}))
        return self.now_status

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

    async def follow_gpu(self) -> AsyncIterator[wire.GpuSnapshot]:
        self._answer_only_when_up()
        line, shown = self._line, None
        while True:
            if self._line != line:
                raise CUT
            if shown is not self.gauges and self.gauges is not None:
                shown = self.gauges
                yield shown
                continue
            async with self._changed:
                await self._changed.wait_for(
                    lambda: self._line != line or shown is not self.gauges  # noqa: B023 -- waited for at once
                )

    async def gpu_history(self, seconds: float = 600.0) -> wire.GpuHistory:
        assert seconds > 0
        self._answer_only_when_up()
        return self.remembered

    async def sessions(self, limit: int = 50) -> list[wire.Session]:
        self._answer_only_when_up()
        newest_first = sorted(self.stored.values(), key=lambda session: session.updated_at, reverse=True)
        return [wire.Session.model_validate(session.model_dump()) for session in newest_first[:limit]]

    async def session_page(self, limit: int = 50, before: str | None = None) -> wire.SessionPage:
        everything = await self.sessions(limit=len(self.stored))
        first = int(before or 0)
        end = first + limit
        return wire.SessionPage(
            sessions=tuple(everything[first:end]), before=str(end) if end < len(everything) else None
        )

    async def follow_sessions(self) -> AsyncIterator[wire.SessionsChanged]:
        self._answer_only_when_up()
        line, told = self._line, -1
        while True:
            if self._line != line:
                raise CUT
            if told != self._history_version:
                told = self._history_version
                yield wire.SessionsChanged(version=told)
                continue
            async with self._changed:
                await self._changed.wait_for(
                    lambda: self._line != line or told != self._history_version  # noqa: B023 -- waited for at once
                )

    async def search(self, words: str, limit: int = 20) -> list[wire.SearchHit]:
        self._answer_only_when_up()
        self.searched.append(words)
        hits = []
        for stored in self.stored.values():
            for turn in stored.turns:
                place = turn.answer.casefold().find(words.casefold())
                if place >= 0:
                    hits.append(
                        wire.SearchHit(
                            session_id=stored.id,
                            title=stored.title,
                            turn=turn.number,
                            field="answer",
                            snippet=turn.answer,
                            matches=((place, place + len(words)),),
                            runtime=turn.runtime,
                            variant=turn.variant,
                            model=turn.model,
                            at=turn.asked_at,
                        )
                    )
        return hits[:limit]

    async def session(
        self, session_id: str, *, first: int | None = None, limit: int | None = None, last: int | None = None
    ) -> wire.SessionWithTurns:
        self._answer_only_when_up()
        whole = self._stored(session_id)
        self.turns_asked_for.append((first, limit, last))
        start = max(len(whole.turns) - last, 0) if last is not None else (first or 1) - 1
        turns = whole.turns[start:] if limit is None else whole.turns[start : start + limit]
        return whole.model_copy(update={"turns": turns})

    async def rename_session(self, session_id: str, title: str) -> wire.Session:
        self._answer_only_when_up()
        renamed = self.store(self._stored(session_id).model_copy(update={"title": title}))
        await self._tell()
        return renamed

    async def fork_session(self, session_id: str, wish: wire.ForkWish) -> wire.Session:
        self._answer_only_when_up()
        whole, number = self._stored(session_id), len(self.stored) + 1
        turns = tuple(
            turn.model_copy(update={"session_id": f"s{number}"}) for turn in whole.turns[: wish.turn]
        )
        return self.store(
            whole.model_copy(
                update={
                    "id": f"s{number}",
                    "title": wish.title or whole.title,
                    "turns": turns,
                    "turn_count": len(turns),
                    "forked_from": session_id,
                    "forked_turn": wish.turn,
                    "updated_at": 1000.0 + number,
                }
            )
        )

    async def delete_session(self, session_id: str) -> None:
        self._answer_only_when_up()
        self.deleted[session_id] = self._stored(session_id)
        del self.stored[session_id]
        await self._tell_history()

    async def restore_session(self, session_id: str) -> wire.Session:
        self._answer_only_when_up()
        if session_id not in self.deleted:
            raise errors.NotFound(f"There is no session {session_id}.")
        self.stored[session_id] = self.deleted.pop(session_id)
        await self._tell_history()
        return self.stored[session_id]

    async def export_session(
        self,
        session_id: str,
        format: Literal["markdown", "json"] = "markdown",  # noqa: A002 -- the client's name
    ) -> str:
        self._answer_only_when_up()
        whole = self._stored(session_id)
        return whole.model_dump_json() if format == "json" else f"# {whole.title}\n"

    async def import_session(self, exported: str | bytes) -> wire.Session:
        self._answer_only_when_up()
        try:
            taken = wire.SessionWithTurns.model_validate_json(exported)
        except ValueError as error:
            raise errors.Invalid("This is no exported session.", hint="Export it as JSON.") from error
        kept = self.store(taken.model_copy(update={"id": f"s{len(self.stored) + 1}"}))
        await self._tell_history()
        return kept

    async def create_session(self, wish: wire.SessionWish | None = None) -> wire.Session:
        self._answer_only_when_up()
        number, wish = len(self.stored) + 1, wish or wire.SessionWish()
        created = session(f"s{number}", title=wish.title, updated_at=float(number))
        return self.store(created.model_copy(update={"system": wish.system, "parameters": wish.parameters}))

    async def change_session(self, session_id: str, change: wire.SessionChange) -> wire.Session:
        self._answer_only_when_up()
        changed = self._stored(session_id).model_copy(update=change.model_dump(exclude_unset=True))
        return self.store(changed)

    async def ask(self, session_id: str, wish: wire.TurnWish) -> wire.Turn:
        self._answer_only_when_up()
        if self._refusals:
            raise self._refusals.pop(0)
        self.asked.append(wish.prompt)
        self.wishes.append(wish)
        number = len(self.stored[session_id].turns) + 1
        variant = wish.model or self.now_status.active or GUIDE
        earlier = [turn.asked_at for stored in self.stored.values() for turn in stored.turns]
        turn = wire.Turn(
            session_id=session_id,
            number=number,
            state=wire.TurnState.WAITING,
            prompt=wish.prompt,
            runtime=variant.partition("/")[0],
            variant=variant,
            model=variant.partition("/")[2],
            asked_at=max([100.0, *earlier]) + number,
            instead_of=wish.instead_of,
            after=wish.after,
            continue_of=wish.continue_of,
            attachments=tuple(
                wire.Attachment(name=each.name, media_type="text/plain", byte_count=len(each.data))
                for each in wish.attachments or ()
            ),
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

    async def logs(self) -> list[wire.LogInfo]:
        self._answer_only_when_up()
        return [
            wire.LogInfo(name=name, byte_count=len(lines), changed_at=float(place))
            for place, (name, lines) in enumerate(self.written.items())
        ]

    async def log_page(self, name: str, lines: int = 1000, before: str | None = None) -> wire.LogPage:
        self._answer_only_when_up()
        name = name.replace("/", "-")
        if name not in self.written:
            raise errors.NotFound(f"There is no log {name}.")
        end = len(self.written[name]) if before is None else int(before)
        begin = max(end - lines, 0)
        self.pages_asked.append((name, before))
        return self._log_page(name, begin, end)

    async def follow_log(
        self, name: str, lines: int = 1000, after: str | None = None
    ) -> AsyncIterator[wire.LogPage]:
        self._answer_only_when_up()
        line, written = self._line, self.written[name]
        end = len(written)
        yield self._log_page(name, max(end - lines, 0) if after is None else int(after), end)
        while True:
            if self._line != line:
                raise CUT
            if len(written) > end:
                begin, end = end, len(written)
                yield self._log_page(name, begin, end)
                continue
            async with self._changed:
                await self._changed.wait_for(
                    lambda: self._line != line or len(written) > end  # noqa: B023 -- waited for at once
                )

    def _log_page(self, name: str, begin: int, end: int) -> wire.LogPage:
        lines = tuple(self.written[name][begin:end])
        return wire.LogPage(name=name, lines=lines, begin=str(begin), end=str(end), is_first=begin == 0)

    async def exchanges(self, wanted: wire.ExchangeFilter | None = None) -> list[wire.Exchange]:
        self._answer_only_when_up()
        wanted = wanted or wire.ExchangeFilter()
        self.exchanges_asked.append(wanted)
        newest_first: list[wire.Exchange] = sorted(
            self.ledger.values(), key=lambda exchange: exchange.id, reverse=True
        )
        return [
            exchange
            for exchange in newest_first
            if exchange.id < (wanted.before or 2**63)
            and wanted.outcome in {None, exchange.outcome}
            and wanted.runtime in {None, exchange.runtime}
        ][: wanted.limit]

    async def exchange(self, exchange_id: int) -> wire.ExchangeWhole:
        self._answer_only_when_up()
        if exchange_id not in self.ledger:
            raise errors.NotFound(f"There is no exchange {exchange_id}.")
        return self.ledger[exchange_id]

    async def follow_exchanges(
        self, wanted: wire.ExchangeFilter | None = None
    ) -> AsyncIterator[wire.Exchange]:
        self._answer_only_when_up()
        line, place = self._line, len(self._ledger_news)
        for exchange in reversed(await self.exchanges(wanted)):
            yield exchange
        while True:
            if self._line != line:
                raise CUT
            if place < len(self._ledger_news):
                place += 1
                yield self._ledger_news[place - 1]
                continue
            async with self._changed:
                await self._changed.wait_for(
                    lambda: self._line != line or len(self._ledger_news) > place  # noqa: B023 -- waited for at once
                )

    async def cancel_exchange(self, exchange_id: int) -> wire.Exchange:
        self._answer_only_when_up()
        if self.ledger[exchange_id].outcome not in {"waiting", "running"}:
            raise errors.Conflict("It has ended.")
        return await self.change_exchange(exchange_id, outcome="cancelled")

    async def replay_exchange(
        self, exchange_id: int, *, runtime: str | None = None, variant: str | None = None
    ) -> wire.Replay:
        self._answer_only_when_up()
        assert runtime is None, "the terminal names the variant"
        self.replayed.append((exchange_id, variant))
        await self.replay_allowed.wait()
        if self._refusals:
            raise self._refusals.pop(0)
        original = self.ledger[exchange_id]
        again = await self.note_exchange(variant=variant, text="Another answer.", total_ms=900.0)
        return wire.Replay(original=original, replay=again)

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
        self._history_version += 1
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

    async def read_gauges(self, snapshot: wire.GpuSnapshot) -> None:
        """Let something be read."""
        self.gauges = snapshot
        await self._tell()

    async def write(self, log: str, *lines: str) -> None:
        """Write lines to a log."""
        self.written.setdefault(log, []).extend(lines)
        await self._tell()

    async def note_exchange(self, **facts: Any) -> wire.ExchangeWhole:
        """Let a request pass the gateway, or begin to."""
        noted = exchange(max(self.ledger, default=0) + 1, **facts)
        self.ledger[noted.id] = noted
        self._ledger_news.append(noted)
        await self._tell()
        return noted

    async def change_exchange(self, exchange_id: int, **facts: Any) -> wire.ExchangeWhole:
        """Let an exchange go on or end."""
        changed = self.ledger[exchange_id].model_copy(update=facts)
        self.ledger[exchange_id] = changed
        self._ledger_news.append(changed)
        await self._tell()
        return changed

    async def begin_switch(self, variant: str, reason: str = "asked") -> wire.Switch:
        """Begin a switch, as this terminal's wish or somebody else's."""
        switch = wire.Switch(
            id=len(self.switched) + 1,
            variant=variant,
            previous=self.now_status.active,
            reason=reason,
            started_at=100.0,
            steps=(wire.Step(name=wire.StepName.STOP, started_at=100.0),),
        )
        self.switched.append(switch)
        await self.show(
            self.now_status.model_copy(update={"active": None, "wanted": variant, "switch": switch})
        )
        return switch

    async def go_on(self, **facts: Any) -> None:
        """Let the newest switch come further."""
        await self._show_switch(self.switched[-1].model_copy(update=facts))

    async def complete(self, seconds: float = 31.2) -> None:
        """Let the newest switch succeed."""
        switch = self.switched[-1]
        ended = switch.model_copy(update={"outcome": "done", "ended_at": switch.started_at + seconds})
        runtime, _, name = switch.variant.partition("/")
        self.now_status = status(model=name, runtime=runtime)
        await self._show_switch(ended)

    async def fail_switch(self, diagnosis: wire.Diagnosis) -> None:
        """Let the newest switch fail; what was active comes back at once."""
        await self._roll_back("failed", diagnosis)

    async def _roll_back(self, outcome: str, diagnosis: wire.Diagnosis | None = None) -> None:
        switch = self.switched[-1]
        self.switched[-1] = switch.model_copy(
            update={"outcome": outcome, "ended_at": 110.0, "diagnosis": diagnosis}
        )
        await self.begin_switch(switch.previous or GUIDE, reason="rollback")
        await self.complete()
        if diagnosis:
            failed = engine(switch.variant, state="failed", diagnosis=diagnosis)
            engines = (*self.now_status.engines, failed)
            await self.show(self.now_status.model_copy(update={"engines": engines}))

    async def _show_switch(self, switch: wire.Switch) -> None:
        self.switched[-1] = switch
        await self.show(self.now_status.model_copy(update={"switch": switch}))

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
        facts = {"turns": turns, "turn_count": len(turns), "title": title, "last_variant": turn.variant}
        self.store(kept.model_copy(update=facts))
        if event:
            events = self._events.setdefault((turn.session_id, turn.number), [])
            events.append((str(len(events) + 1), event))
        await self._tell()

    def _stored(self, session_id: str) -> wire.SessionWithTurns:
        if session_id not in self.stored:
            raise errors.NotFound(f"There is no session {session_id}.")
        return self.stored[session_id]

    async def change_elsewhere(self, kept: wire.SessionWithTurns) -> None:
        """Let another terminal make or change a session."""
        self.store(kept)
        await self._tell()

    async def _tell_history(self) -> None:
        self._history_version += 1
        await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def engine(variant: str, *, state: str = "ready", **facts: Any) -> wire.Engine:
    """Make an engine of a variant."""
    runtime, _, name = variant.partition("/")
    return wire.Engine(
        name=f"{runtime}-{name}",
        runtime=runtime,
        variant=variant,
        model=name,
        state=wire.EngineState(state),
        since=1.0,
        **facts,
    )


def status(*, model: str = "guide", runtime: str = "llamacpp", state: str = "ready") -> wire.Status:
    """Make a status with one engine, the active one."""
    variant = f"{runtime}/{model}"
    identity = wire.Identity(version="0", pid=1, started_at=0.0)
    running = (engine(variant, state=state),)
    return wire.Status(daemon=identity, active=variant, wanted=variant, engines=running)


def exchange(exchange_id: int, **facts: Any) -> wire.ExchangeWhole:
    """Make an exchange, one that is done."""
    return wire.ExchangeWhole.model_validate(
        {
            "id": exchange_id,
            "request_id": f"req-{exchange_id}",
            "started_at": 1_700_000_000.0 + exchange_id,
            "outcome": "done",
            "path": "/v1/chat/completions",
            "client": "terminal",
            "variant": GUIDE,
            "runtime": "llamacpp",
            "queue_ms": 100.0,
            "ttft_ms": 300.0,
            "total_ms": 1400.0,
            "prompt_tokens": 20,
            "completion_tokens": 118,
            "tokens_per_second": 87.4,
            "finish_reason": "stop",
            **facts,
        }
    )


def model(name: str, *runtimes: str, demonstration: bool = False, **facts: Any) -> wire.ModelInfo:
    """Make a model with a variant on each runtime."""
    variants = tuple(
        wire.VariantInfo(name=f"{runtime}/{name}", runtime=runtime, model=name, served_name=name, **facts)
        for runtime in runtimes
    )
    return wire.ModelInfo(name=name, demonstration=demonstration, variants=variants)


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
