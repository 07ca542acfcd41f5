"""Which variant's lines are asked when: each model is loaded once for all the batches that want it.

There is one lane for everything that needs a switch, where one variant has its turn after the other, and
one for each variant that needs none: a service, or somebody else's server. Within a lane the batch that came
first goes first, but what is loaded goes before it. A batch that comes later joins the turn of its variant
unless somebody waits for another.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from footplate_daemon.batches.asking import ask_of
from footplate_daemon.batches.crew import Crew, Tools
from footplate_daemon.batches.live import LiveBatch
from footplate_daemon.batches.writing_off import write_off_unknown
from footplate_daemon.errors import Busy, EngineFailed, FootplateError, TimedOut, Unavailable
from footplate_daemon.switching.leases import Interrupted
from footplate_daemon.switching.machine import Target
from footplate_daemon.wire import Switch
from footplate_daemon.wire_batches import BatchWaiting, WaitsFor

logger = logging.getLogger(__name__)

PAUSES_SECONDS = (2.0, 5.0, 15.0, 30.0, 60.0)
"""Before an engine is tried again that could not be had; the last is repeated until the batch expires."""


SWITCHING = "switching"
"""The lane of everything that needs a switch; the others have the names of their variants."""


@dataclass(frozen=True)
class Surroundings:
    """What lanes ask about engines; to be shown and chosen by, never to be relied on."""

    is_apart: Callable[[str], bool]
    """Whether a variant needs no switch."""
    is_ours: Callable[[str], bool]
    """Whether its engine is a process of ours."""
    active: Callable[[], str | None]
    may_switch_at: Callable[[], float | None]
    """When a batch may cause a switch, if nobody chats until then: Unix seconds; None while it must not."""
    wanted: Callable[[], Target | None] = lambda: None
    bring_back: Callable[[Target], object] = lambda _: None
    """Makes active again what a batch has displaced."""


@dataclass(frozen=True)
class Wanted:
    """The lines of one batch for one variant."""

    live: LiveBatch
    models: tuple[int, ...]
    """Places of models among the batch's."""


@dataclass
class _Trouble:
    """A variant whose engine could not be had."""

    tries: int
    retry_at: float
    message: str


class _BetterTurn(Exception):
    """While one variant waits for its engine, another has got one."""


class _GivenUp(Exception):
    """While a variant waits for its engine, the last batch that wants it has been withdrawn."""


@dataclass
class _Lane:
    task: "asyncio.Task[None] | None" = None
    crew: Crew | None = None
    told: BatchWaiting | None = None
    """Why its crew has no engine yet."""
    displaced: Target | None = None
    """What somebody wanted before the lane switched for the first time."""
    loaded: str | None = None
    """The variant to which it switched last."""
    news: asyncio.Event = field(default_factory=asyncio.Event)


class Lanes:
    """Gives every batch its turn; `run` must be running."""

    def __init__(
        self,
        tools: Tools,
        surroundings: Surroundings,
        *,
        changed: Callable[[], None] = lambda: None,
        pauses: Sequence[float] = PAUSES_SECONDS,
    ) -> None:
        self._tools = tools
        self._surroundings = surroundings
        self._changed = changed
        self._pauses = pauses
        self._batches: list[LiveBatch] = []
        self._lanes: dict[str, _Lane] = {}
        self._troubles: dict[str, _Trouble] = {}
        self._tasks: asyncio.TaskGroup

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            await asyncio.get_running_loop().create_future()

    async def add(self, live: LiveBatch) -> None:
        """Ask the lines of a batch in their turn; `live.changed` tells how it goes."""
        live.models_left = await self._tools.store.pending_models(live.key)
        self._batches.append(live)
        self._batches.sort(key=lambda each: each.key)
        for name in self._open_lanes(live):
            self._join(name, self._lanes[name], live)

    async def withdraw(self, live: LiveBatch) -> None:
        """Ask nothing more of a batch; return when nothing of it is being asked."""
        live.is_leaving = True
        self._batches = [each for each in self._batches if each is not live]
        for lane in self._lanes.values():
            if lane.crew is not None:
                await lane.crew.withdraw(live)
            lane.news.set()

    def news(self) -> None:
        """Hear that the configuration is not what it was: what could not be had may be had now."""
        self._troubles.clear()
        for live in self._batches:
            self._open_lanes(live)

    def wake(self) -> None:
        """Hear that the disk is full, or no more."""
        for lane in self._lanes.values():
            if lane.crew is not None:
                lane.crew.news()

    def why_waiting(self, live: LiveBatch) -> BatchWaiting | None:
        """Say why no line of a batch is being asked; None when there is nothing to say."""
        variants = self._variants(live)
        for name in {self._lane_of(variant) for variant in variants}:
            lane = self._lanes.get(name)
            if lane is None or lane.crew is None or lane.crew.variant not in variants:
                continue
            return None if lane.crew.has_engine else lane.told
        for variant in variants:
            trouble = self._troubles.get(variant)
            if trouble is not None:
                until = time.time() + max(0.0, trouble.retry_at - _now())
                return BatchWaiting(reason=WaitsFor.ENGINE, message=trouble.message, until=until)
        if not variants:
            return None
        named = ", ".join(variants)
        return BatchWaiting(reason=WaitsFor.TURN, message=f"It waits for its turn with {named}.")

    def _variants(self, live: LiveBatch) -> dict[str, list[int]]:
        """Give the variants of which a batch has lines left, with the places of their models."""
        found: dict[str, list[int]] = {}
        for place in sorted(live.models_left):
            try:
                variant = self._resolve(live, place)
            except FootplateError:
                variant = ""  # there is none any more
            found.setdefault(variant, []).append(place)
        return found

    def _resolve(self, live: LiveBatch, place: int) -> str:
        body = {"model": live.row.models[place]}
        return self._tools.gateway.resolve_for(ask_of(live.id, live.row.endpoint, body)).name

    def _lane_of(self, variant: str) -> str:
        return variant if not variant or self._surroundings.is_apart(variant) else SWITCHING

    def _open_lanes(self, live: LiveBatch) -> set[str]:
        """Have somebody work in each lane in which a batch has lines; give their names."""
        names = {self._lane_of(variant) for variant in self._variants(live)}
        for name in names:
            lane = self._lanes.setdefault(name, _Lane())
            lane.news.set()
            if lane.task is None:
                lane.task = self._tasks.create_task(self._work(name, lane), name=f"lane {name}")
        return names

    # A lane

    async def _work(self, name: str, lane: _Lane) -> None:
        try:
            while True:
                lane.news.clear()
                choice = self._choose(name)
                if choice is not None:
                    await self._take_turn(name, lane, *choice)
                elif any(self._is_in(name, live) for live in self._batches):
                    await self._pause(lane)
                else:
                    self._bring_back(lane)
                    return
        finally:
            lane.task = None

    def _bring_back(self, lane: _Lane) -> None:
        """Give those who chat their model back, unless they have asked for one meanwhile."""
        displaced, lane.displaced = lane.displaced, None
        wanted = self._surroundings.wanted()
        if displaced is not None and wanted is not None and wanted.variant == lane.loaded:
            self._surroundings.bring_back(displaced)

    def _is_in(self, name: str, live: LiveBatch) -> bool:
        return any(self._lane_of(variant) == name for variant in self._variants(live))

    def _choose(self, name: str) -> tuple[str, list[Wanted]] | None:
        """Give the variant whose turn it is, with what is wanted of it; None while none can be had."""
        wanted = self._wanted(name)
        now = _now()
        ready = [
            variant
            for variant in wanted
            if variant not in self._troubles or self._troubles[variant].retry_at <= now
        ]
        if not ready:
            return None
        active = self._surroundings.active()
        variant = active if active in ready else ready[0]
        return variant, wanted[variant]

    def _wanted(self, name: str) -> dict[str, list[Wanted]]:
        """Give what is wanted in a lane, the variant of the oldest batch first."""
        found: dict[str, list[Wanted]] = {}
        for live in self._batches:
            for variant, places in self._variants(live).items():
                if self._lane_of(variant) == name:
                    found.setdefault(variant, []).append(Wanted(live, tuple(places)))
        return found

    def _join(self, name: str, lane: _Lane, live: LiveBatch) -> None:
        """Let a batch join the turn of its variant, unless somebody waits for another."""
        crew, wanted = lane.crew, self._wanted(name)
        if crew is None or any(
            each.live is not live for variant in wanted if variant != crew.variant for each in wanted[variant]
        ):
            return
        for each in wanted.get(crew.variant, []):
            if each.live is live:
                crew.take_up(live, each.models)

    async def _take_turn(self, name: str, lane: _Lane, variant: str, wanted: Sequence[Wanted]) -> None:
        if not variant:
            await write_off_unknown(
                self._tools, [(each.live, place) for each in wanted for place in each.models]
            )
        else:
            await self._have_crew_work(name, lane, variant, wanted)
        await self._tools.recorder.flush()
        for live in {each.live for each in wanted} & set(self._batches):
            live.models_left = await self._tools.store.pending_models(live.key)
            live.changed.set()
        self._changed()

    async def _have_crew_work(self, name: str, lane: _Lane, variant: str, wanted: Sequence[Wanted]) -> None:
        crew = lane.crew = Crew(
            self._tools,
            variant,
            is_ours=self._surroundings.is_ours(variant),
            tell=self._teller(name, lane, variant),
        )
        for each in wanted:
            crew.take_up(each.live, each.models)
        before = self._surroundings.wanted()
        try:
            await crew.work()
            self._troubles.pop(variant, None)
        except (_BetterTurn, _GivenUp):
            pass
        except Interrupted:
            logger.info("a batch makes way", extra={"variant": variant})
        except (Busy, Unavailable, EngineFailed, TimedOut) as error:
            self._note_trouble(variant, error, had_engine=crew.has_worked)
        finally:
            lane.crew = lane.told = None
            if crew.has_worked:
                if before is not None and before.variant not in {variant, lane.loaded}:
                    lane.displaced = before
                lane.loaded = variant

    def _teller(self, name: str, lane: _Lane, variant: str) -> Callable[[Switch | None], Awaitable[None]]:
        async def tell(switch: Switch | None) -> None:
            if lane.crew is not None and not lane.crew.is_wanted:
                raise _GivenUp
            choice = self._choose(name)
            if switch is None and choice is not None and choice[0] != variant:
                raise _BetterTurn
            lane.told = (
                _switching(switch)
                if switch is not None
                else _quiet(variant, self._surroundings.may_switch_at())
            )
            self._changed()

        return tell

    def _note_trouble(self, variant: str, error: FootplateError, *, had_engine: bool) -> None:
        before = self._troubles.get(variant)
        tries = 0 if had_engine or before is None else before.tries + 1
        pause = self._pauses[min(tries, len(self._pauses) - 1)]
        message = f"{error.message} {error.hint or ''}".strip()
        self._troubles[variant] = _Trouble(tries, _now() + pause, message)
        logger.warning("a batch has no engine", extra={"variant": variant, "cause": error.message})

    async def _pause(self, lane: _Lane) -> None:
        """Wait for news, or until an engine may be tried again."""
        due = [trouble.retry_at for trouble in self._troubles.values()]
        wait = max(0.0, min(due) - _now()) if due else None
        try:
            async with asyncio.timeout(wait):
                await lane.news.wait()
        except TimeoutError:
            pass


def _switching(switch: Switch) -> BatchWaiting:
    step = switch.steps[-1].name if switch.steps else "waiting"
    until = None if switch.eta_seconds is None else time.time() + switch.eta_seconds
    message = f"{switch.variant} is being started: {step}."
    return BatchWaiting(reason=WaitsFor.SWITCH, message=message, until=until)


def _quiet(variant: str, until: float | None) -> BatchWaiting:
    if until is None:
        message = f"{variant} needs a switch, and batches switch within batch_window only."
        return BatchWaiting(reason=WaitsFor.BATCH_WINDOW, message=message)
    message = f"{variant} needs a switch, which comes when nobody has asked anything for a while."
    return BatchWaiting(reason=WaitsFor.QUIET_TIME, message=message, until=until)


def _now() -> float:
    return time.monotonic()
