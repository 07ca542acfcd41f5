"""The switching machine: which engines run, who may use them, and what to do next.

Pure: no clock, no I/O, no tasks. `step` takes a state and an event and returns the next state and the
actions to carry out; the switcher owns the state, carries the actions out and reports back as events.

Every start has an attempt number. News of an attempt that the machine no longer follows is dropped.
One engine starts at a time. A switch goes through: make room (drain, stop), await memory, start.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeAlias

from footplate_daemon.wire import Diagnosis, SwitchOutcome

# --- What there is -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """What one switches to: a variant with the launch parameters that were asked for."""

    variant: str
    preset: str | None = None
    context: int | None = None


class Phase(StrEnum):
    """Where a resident engine is."""

    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"


class Entry(StrEnum):
    """How far the engine that is coming in has come."""

    MAKING_ROOM = "making room"
    AWAITING_MEMORY = "awaiting memory"
    STARTING = "starting"


class Reason(StrEnum):
    """Why a switch began."""

    ASKED = "asked"
    REQUEST = "request"
    RESTORE = "restore"
    ROLLBACK = "rollback"
    REMEDY = "remedy"
    RESTART = "restart"
    ADOPTED = "adopted"
    BENCHMARK = "benchmark"


@dataclass(frozen=True)
class Resident:
    """An engine that holds memory: it serves, or it is on its way out."""

    target: Target
    attempt: int
    phase: Phase
    leases: frozenset[int] = frozenset()
    of_batches: frozenset[int] = frozenset()
    """Those of the leases that batches hold: they make way at once."""
    used_at: float = 0.0
    """When it last became ready or a lease of it ended."""
    ready_at: float = 0.0
    drain_by: float | None = None
    """When a draining engine is stopped although it is still busy."""
    is_outdated: bool = False
    """It would be started otherwise now: it drains, and no wish takes it back."""


@dataclass(frozen=True)
class Incoming:
    """The engine that is to run next."""

    target: Target
    attempt: int
    entry: Entry


@dataclass(frozen=True)
class RunningSwitch:
    """The attempt, in progress, to make a target active."""

    id: int
    target: Target
    reason: Reason
    previous: Target | None
    """What was active before; it comes back when this fails."""


@dataclass(frozen=True)
class Waiting:
    """A request without a lease yet."""

    request: int
    variant: str
    at: float
    interactive: bool = True


@dataclass(frozen=True)
class Breaker:
    """How often in a row a variant failed, and when it may be tried again."""

    failures: int
    retry_at: float
    diagnosis: Diagnosis
    failed_at: float
    at_start: bool
    """It failed to start (requests are refused at once), rather than died while serving (they wait)."""


@dataclass(frozen=True)
class Room:
    """Which variants may be resident together."""

    policy: str = "one"
    """`one`: a single engine that holds memory; `fit`: as many as fit."""
    capacity: int = 0
    """Bytes that engines may use together (policy `fit`)."""
    footprints: Mapping[str, int] = field(default_factory=dict)
    """Bytes for each variant: recorded peak, else an estimate; 0 for what holds nothing here."""

    def fits(self, variants: Sequence[str]) -> bool:
        """Say whether these may be resident at the same time."""
        sizes = [self.footprints.get(variant, self.capacity) for variant in variants]
        holders = [variant for variant in variants if self.footprints.get(variant) != 0]
        if len(holders) <= 1:
            return True  # alone, it may try: the estimate can be wrong
        return self.policy == "fit" and sum(sizes) <= self.capacity


@dataclass(frozen=True)
class Rules:
    """What the operator decided; durations in seconds."""

    room: Room = Room()
    auto_switch: bool = True
    queue_limit: int = 256
    max_hold: float = 10.0
    """How long requests for loaded engines may go before one that needs a switch."""
    drain_limit: float = 30.0
    idle_unload: float | None = None
    batch_quiet: float | None = 60.0
    """How long nobody must have chatted before a batch request causes a switch; None: it never does."""
    back_off: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
    """Pauses before each restart of an engine that keeps failing; after the last it stays `failed`."""
    stable_after: float = 60.0
    """Serving this long wipes the count of failures."""
    pinned: frozenset[str] = frozenset()
    """Variants that requests never evict; an explicit switch does."""


@dataclass(frozen=True)
class State:
    """All that the machine knows."""

    rules: Rules = Rules()
    residents: tuple[Resident, ...] = ()
    incoming: Incoming | None = None
    switch: RunningSwitch | None = None
    active: str | None = None
    wanted: Target | None = None
    last: Target | None = None
    """What was active last; requests that name no model go there."""
    waiting: tuple[Waiting, ...] = ()
    breakers: Mapping[str, Breaker] = field(default_factory=dict)
    chatted_at: float = float("-inf")
    """When a request that is of no batch came or ended last."""
    is_batch_window: bool = False
    """It is an hour in which batch requests cause switches as others do."""
    next_attempt: int = 1
    next_switch: int = 1


# --- What happens --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Requested:
    """A request needs an engine of this variant."""

    request: int
    variant: str
    at: float
    interactive: bool = True


@dataclass(frozen=True)
class Released:
    """A request ended, was cancelled, or gave up waiting."""

    request: int
    at: float


@dataclass(frozen=True)
class Wished:
    """Somebody asked for this target to be active."""

    target: Target
    at: float
    reason: Reason = Reason.ASKED


@dataclass(frozen=True)
class StopWished:
    """Somebody asked for this variant not to run."""

    variant: str
    at: float


@dataclass(frozen=True)
class CancelWished:
    """Somebody asked for this switch to end."""

    switch: int
    at: float


@dataclass(frozen=True)
class MemoryFreed:
    """The memory that this attempt needs is free."""

    attempt: int
    at: float


@dataclass(frozen=True)
class Loaded:
    """The engine of this attempt serves."""

    attempt: int
    at: float


@dataclass(frozen=True)
class Failed:
    """An attempt that will never serve; nothing of it is left."""

    attempt: int
    diagnosis: Diagnosis
    at: float


@dataclass(frozen=True)
class Died:
    """An engine that served is gone or hangs; something of its group may be left."""

    attempt: int
    diagnosis: Diagnosis
    at: float


@dataclass(frozen=True)
class Stopped:
    """Nothing is left of this attempt."""

    attempt: int
    at: float


@dataclass(frozen=True)
class Adopted:
    """An engine that an earlier daemon started still runs."""

    target: Target
    attempt: int
    is_ready: bool
    at: float


@dataclass(frozen=True)
class RulesChanged:
    """The operator's rules changed; `forgiven` variants may be tried again."""

    rules: Rules
    at: float
    forgiven: frozenset[str] = frozenset()
    known: frozenset[str] | None = None
    """Every variant there is now; None: as before. What is not among them is given up."""


@dataclass(frozen=True)
class Replaced:
    """Engines of this variant would be started otherwise now: one that runs gives way to a new one."""

    variant: str
    at: float


@dataclass(frozen=True)
class BatchWindowChanged:
    """The hours in which batches may switch at once have begun, or ended."""

    is_open: bool
    at: float


@dataclass(frozen=True)
class Ticked:
    """Time passed."""

    at: float


Event: TypeAlias = (
    Requested
    | Released
    | Wished
    | StopWished
    | CancelWished
    | MemoryFreed
    | Loaded
    | Failed
    | Died
    | Stopped
    | Adopted
    | RulesChanged
    | Replaced
    | BatchWindowChanged
    | Ticked
)


# --- What to do ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AwaitMemory:
    """Report `MemoryFreed` when what the target needs is free, or `Failed`."""

    target: Target
    attempt: int


@dataclass(frozen=True)
class Start:
    """Start an engine; report `Loaded` or `Failed`."""

    target: Target
    attempt: int


@dataclass(frozen=True)
class Stop:
    """End an engine and all of its group; report `Stopped`."""

    target: Target
    attempt: int
    kill: bool = False
    """Without grace: it is loading, hangs, or its leader is dead."""


@dataclass(frozen=True)
class Grant:
    """The request may use the engine now."""

    request: int
    variant: str
    attempt: int


class Refusal(StrEnum):
    """Why a request gets no engine."""

    QUEUE_FULL = "queue full"
    NOT_ACTIVE = "not active"
    PINNED = "pinned"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Refuse:
    """The request gets no engine."""

    request: int
    variant: str
    refusal: Refusal
    diagnosis: Diagnosis | None = None


@dataclass(frozen=True)
class Cut:
    """The request loses its engine; tell its client why."""

    request: int
    variant: str
    diagnosis: Diagnosis | None = None


@dataclass(frozen=True)
class SwitchBegan:
    """A switch has begun."""

    switch: RunningSwitch


@dataclass(frozen=True)
class SwitchEnded:
    """A switch has ended: anything but `running`."""

    switch: RunningSwitch
    outcome: SwitchOutcome
    diagnosis: Diagnosis | None = None


@dataclass(frozen=True)
class WakeAt:
    """Report `Ticked` at this time."""

    at: float


Action: TypeAlias = AwaitMemory | Start | Stop | Grant | Refuse | Cut | SwitchBegan | SwitchEnded | WakeAt


def step(state: State, event: Event) -> tuple[State, list[Action]]:
    """Take in what happened; give the next state and what to do about it."""
    course = _Course(state, event.at)
    course.take_in(event)
    course.settle()
    return course.state, course.actions


def in_the_way(state: State, target: Target) -> list[Resident]:
    """Give the engines that would be stopped to start the target; none when it runs already."""
    if any(r.target == target and r.phase is not Phase.STOPPING for r in state.residents):
        return []
    return _Course(state, 0.0).victims(target)


def batch_may_switch_at(state: State) -> float | None:
    """Give when a batch request may cause a switch, if nobody chats until then; None: at no time."""
    if state.is_batch_window:
        return float("-inf")
    quiet = state.rules.batch_quiet
    return None if quiet is None else state.chatted_at + quiet


def _if_known(target: Target | None, known: frozenset[str]) -> Target | None:
    return target if target is not None and target.variant in known else None


class _Course:
    """The way from one state to the next: a state under change and the actions so far."""

    def __init__(self, state: State, now: float) -> None:
        self.state = state
        self.now = now
        self.actions: list[Action] = []

    # Taking in what happened

    def take_in(self, event: Event) -> None:
        match event:
            case Requested():
                self._requested(event)
            case Released(request=request):
                self._release(request)
            case Wished(target=target, reason=reason):
                self._wished(target, reason)
            case StopWished(variant=variant):
                self._stop_wished(variant)
            case CancelWished(switch=switch):
                if self.state.switch is not None and self.state.switch.id == switch:
                    self._abandon("cancelled")
            case MemoryFreed(attempt=attempt):
                self._memory_freed(attempt)
            case Loaded(attempt=attempt):
                self._loaded(attempt)
            case Failed(attempt=attempt, diagnosis=diagnosis):
                self._failed(attempt, diagnosis)
            case Died(attempt=attempt, diagnosis=diagnosis):
                self._died(attempt, diagnosis)
            case Stopped(attempt=attempt):
                self._change(residents=tuple(r for r in self.state.residents if r.attempt != attempt))
            case Adopted():
                self._adopted(event)
            case RulesChanged(rules=rules, forgiven=forgiven, known=known):
                kept = {name: each for name, each in self.state.breakers.items() if name not in forgiven}
                self._change(rules=rules, breakers=kept)
                if known is not None:
                    self._give_up_unknown(known)
            case Replaced(variant=variant):
                self._replaced(variant)
            case BatchWindowChanged(is_open=is_open):
                self._change(is_batch_window=is_open)
            case Ticked():
                pass

    def _requested(self, event: Requested) -> None:
        state = self.state
        breaker = state.breakers.get(event.variant)
        if event.interactive:
            self._change(chatted_at=self.now)
        if self._ready(event.variant) is None:
            if breaker is not None and self._is_open(breaker):
                return self._refuse(event.request, event.variant, Refusal.FAILED, breaker.diagnosis)
            if not state.rules.auto_switch and not self._is_coming(event.variant):
                return self._refuse(event.request, event.variant, Refusal.NOT_ACTIVE)
            if len(state.waiting) >= state.rules.queue_limit:
                return self._refuse(event.request, event.variant, Refusal.QUEUE_FULL)
        waiting = Waiting(event.request, event.variant, self.now, event.interactive)
        return self._change(waiting=(*state.waiting, waiting))

    def _release(self, request: int) -> None:
        self._change(waiting=tuple(w for w in self.state.waiting if w.request != request))
        for resident in self.state.residents:
            if request in resident.leases:
                if request not in resident.of_batches:
                    self._change(chatted_at=self.now)
                leases, of_batches = resident.leases - {request}, resident.of_batches - {request}
                self._put(replace(resident, leases=leases, of_batches=of_batches, used_at=self.now))
        switch = self.state.switch
        if switch is not None and switch.reason is Reason.REQUEST and not self._has_waiters(switch.target):
            self._abandon("cancelled")

    def _wished(self, target: Target, reason: Reason) -> None:
        state = self.state
        if state.switch is not None and state.switch.target == target and state.incoming is not None:
            joined = replace(state.switch, reason=reason)  # it no longer hangs on the requests that began it
            return self._change(wanted=target, switch=joined)
        self._change(breakers={k: v for k, v in state.breakers.items() if k != target.variant})
        return self._begin(target, reason)

    def _stop_wished(self, variant: str) -> None:
        if self.state.wanted is not None and self.state.wanted.variant == variant:
            self._change(wanted=None)
        switch = self.state.switch
        if switch is not None and switch.previous is not None and switch.previous.variant == variant:
            self._change(switch=replace(switch, previous=None))
        if self._is_coming(variant):
            self._abandon("cancelled")
        for waiting in self.state.waiting:
            if waiting.variant == variant:
                self._refuse(waiting.request, variant, Refusal.STOPPED)
        self._change(waiting=tuple(w for w in self.state.waiting if w.variant != variant))
        for resident in self.state.residents:
            if resident.target.variant == variant:
                self._drain(resident)

    def _give_up_unknown(self, known: frozenset[str]) -> None:
        """Forget every variant that there is no more: it can be neither started nor brought back."""
        state = self.state
        for waiting in state.waiting:
            if waiting.variant not in known:
                self._refuse(waiting.request, waiting.variant, Refusal.STOPPED)
        self._change(
            waiting=tuple(waiting for waiting in state.waiting if waiting.variant in known),
            wanted=_if_known(state.wanted, known),
            last=_if_known(state.last, known),
        )
        if state.switch is not None:
            self._change(switch=replace(state.switch, previous=_if_known(state.switch.previous, known)))
        if state.incoming is not None and state.incoming.target.variant not in known:
            self._abandon("cancelled")
        for resident in self.state.residents:
            if resident.target.variant not in known:
                self._drain(resident)

    def _replaced(self, variant: str) -> None:
        incoming = self.state.incoming
        for resident in self.state.residents:
            if resident.target.variant == variant and resident.phase is not Phase.STOPPING:
                self._drain(resident)
                outdated = self._find(resident.attempt)
                if outdated is not None:
                    self._put(replace(outdated, is_outdated=True))
        if incoming is not None and incoming.target.variant == variant:
            self._drop_incoming()
            attempt = self.state.next_attempt
            self._change(
                next_attempt=attempt + 1, incoming=Incoming(incoming.target, attempt, Entry.MAKING_ROOM)
            )

    def _memory_freed(self, attempt: int) -> None:
        self._choose_over_batches()
        incoming = self.state.incoming
        if incoming is None or incoming.attempt != attempt or incoming.entry is not Entry.AWAITING_MEMORY:
            return  # late news
        self._change(incoming=replace(incoming, entry=Entry.STARTING))
        self._do(Start(incoming.target, attempt))

    def _loaded(self, attempt: int) -> None:
        incoming = self.state.incoming
        if incoming is None or incoming.attempt != attempt:
            return  # late news
        target = incoming.target
        self._put_in(Resident(target, attempt, Phase.READY, used_at=self.now, ready_at=self.now))
        self._change(incoming=None, active=target.variant, wanted=target, last=target)
        self._end_switch("done")

    def _failed(self, attempt: int, diagnosis: Diagnosis) -> None:
        incoming = self.state.incoming
        if incoming is None or incoming.attempt != attempt:
            return  # late news
        variant = incoming.target.variant
        self._change(incoming=None)
        self._count_failure(variant, diagnosis, at_start=True)
        for waiting in self.state.waiting:
            if waiting.variant == variant:
                self._refuse(waiting.request, variant, Refusal.FAILED, diagnosis)
        self._change(waiting=tuple(w for w in self.state.waiting if w.variant != variant))
        switch = self._end_switch("failed", diagnosis)
        if switch is not None and switch.reason is not Reason.RESTART:
            self._roll_back(switch)

    def _died(self, attempt: int, diagnosis: Diagnosis) -> None:
        if self.state.incoming is not None and self.state.incoming.attempt == attempt:
            return self._failed(attempt, diagnosis)
        resident = self._find(attempt)
        if resident is None or resident.phase is Phase.STOPPING:
            return None  # late news
        if self.now - resident.ready_at >= self.state.rules.stable_after:
            self._forgive(resident.target.variant)
        if resident.phase is Phase.READY:
            self._count_failure(resident.target.variant, diagnosis, at_start=False)
        return self._stop(resident, kill=True, diagnosis=diagnosis)

    def _adopted(self, event: Adopted) -> None:
        self._change(next_attempt=max(self.state.next_attempt, event.attempt + 1))
        beside = [resident.target.variant for resident in self.state.residents]
        if self.state.incoming is not None or not self.state.rules.room.fits([*beside, event.target.variant]):
            self._put_in(Resident(event.target, event.attempt, Phase.STOPPING))
            self._do(Stop(event.target, event.attempt))
        elif event.is_ready:
            self._put_in(
                Resident(event.target, event.attempt, Phase.READY, used_at=self.now, ready_at=self.now)
            )
            self._change(active=event.target.variant, last=event.target, wanted=event.target)
        else:
            switch = self._open_switch(event.target, Reason.ADOPTED, None)
            incoming = Incoming(event.target, event.attempt, Entry.STARTING)
            self._change(incoming=incoming, wanted=event.target, switch=switch)

    # Deciding what to do next

    def settle(self) -> None:
        """Do all that can be done now, then say when to look again."""
        self._refuse_the_hopeless()
        self._grant()
        self._choose()
        self._advance()
        self._unload_idle()
        self._wake()

    def _refuse_the_hopeless(self) -> None:
        for waiting in self.state.waiting:
            breaker = self.state.breakers.get(waiting.variant)
            exhausted = breaker is not None and breaker.failures > len(self.state.rules.back_off)
            if breaker is not None and exhausted and self._ready(waiting.variant) is None:
                self._refuse(waiting.request, waiting.variant, Refusal.FAILED, breaker.diagnosis)
                self._change(waiting=tuple(w for w in self.state.waiting if w is not waiting))

    def _grant(self) -> None:
        for waiting in sorted(self.state.waiting, key=lambda w: not w.interactive):
            resident = self._ready(waiting.variant)
            if resident is not None:
                leases, of_batches = resident.leases | {waiting.request}, resident.of_batches
                if not waiting.interactive:
                    of_batches |= {waiting.request}
                self._put(replace(resident, leases=leases, of_batches=of_batches, used_at=self.now))
                self._change(waiting=tuple(w for w in self.state.waiting if w is not waiting))
                self._do(Grant(waiting.request, waiting.variant, resident.attempt))

    def _choose(self) -> None:
        """Begin the switch that is due, if none is in progress.

        1. What is wanted and does not run comes back, when its back-off is over.
        2. The oldest interactive request that needs a switch gets it when the engines in its way are
           idle, or when it has waited for `max_hold`.
        3. A batch request gets it when they are idle and nobody has chatted for `batch_quiet`, or in the
           batch window.

        What batches have of the engines in its way does not count: they make way. So does a switch that only
        batches wait for.
        """
        if self.state.switch is not None:
            self._choose_over_batches()
            return
        wanted = self.state.wanted
        if wanted is not None and self._find_variant(wanted.variant) is None:
            breaker = self.state.breakers.get(wanted.variant)
            if breaker is not None and breaker.failures > len(self.state.rules.back_off):
                self._change(wanted=None)
            elif breaker is None or breaker.retry_at <= self.now:
                self._begin(wanted, Reason.RESTART)
                return
        for waiting in sorted(self.state.waiting, key=lambda w: (not w.interactive, w.at)):
            if self._is_due(waiting):
                self._begin(Target(waiting.variant), Reason.REQUEST)
                return

    def _choose_over_batches(self) -> None:
        """Give up a switch that only batches wait for, when another is due that somebody else waits for."""
        switch = self.state.switch
        if switch is None or switch.reason is not Reason.REQUEST:
            return
        chats = [waiting for waiting in self.state.waiting if waiting.interactive]
        if any(waiting.variant == switch.target.variant for waiting in chats):
            return
        for waiting in chats:
            if self._is_due(waiting):
                self._begin(Target(waiting.variant), Reason.REQUEST)
                return

    def _is_due(self, waiting: Waiting) -> bool:
        if self._find_variant(waiting.variant) is not None or self.now < self._retry_at(waiting.variant):
            return False
        if not waiting.interactive:
            may_switch_at = batch_may_switch_at(self.state)
            if may_switch_at is None or self.now < may_switch_at:
                return False
        in_the_way = self.victims(Target(waiting.variant))
        pinned = self.state.rules.pinned
        if any(resident.target.variant in pinned for resident in in_the_way):
            self._refuse(waiting.request, waiting.variant, Refusal.PINNED)
            self._change(waiting=tuple(w for w in self.state.waiting if w is not waiting))
            return False
        if not waiting.interactive:
            return not any(resident.leases for resident in in_the_way)
        is_idle = not any(resident.leases - resident.of_batches for resident in in_the_way)
        return is_idle or self.now >= waiting.at + self.state.rules.max_hold

    def _advance(self) -> None:
        """Take the incoming engine, and every draining one, as far as they can go now."""
        incoming = self.state.incoming
        if incoming is not None and incoming.entry is Entry.MAKING_ROOM:
            for victim in self.victims(incoming.target):
                self._drain(victim)
        for resident in self.state.residents:
            overdue = resident.drain_by is not None and self.now >= resident.drain_by
            if resident.phase is Phase.DRAINING and (overdue or not resident.leases):
                self._stop(resident)
        if incoming is not None and incoming.entry is Entry.MAKING_ROOM and not self.victims(incoming.target):
            self._change(incoming=replace(incoming, entry=Entry.AWAITING_MEMORY))
            self._do(AwaitMemory(incoming.target, incoming.attempt))

    def _unload_idle(self) -> None:
        after = self.state.rules.idle_unload
        if after is None or self.state.switch is not None:
            return
        for resident in self.state.residents:
            idle = resident.phase is Phase.READY and not resident.leases
            if idle and self.now >= resident.used_at + after and not self._is_pinned(resident):
                if self.state.wanted is not None and self.state.wanted.variant == resident.target.variant:
                    self._change(wanted=None)
                self._stop(resident)

    def _wake(self) -> None:
        rules, due = self.state.rules, []
        due += [resident.drain_by for resident in self.state.residents if resident.drain_by is not None]
        due += [breaker.retry_at for breaker in self.state.breakers.values()]
        due += [waiting.at + rules.max_hold for waiting in self.state.waiting]
        if any(not waiting.interactive for waiting in self.state.waiting):
            may_switch_at = batch_may_switch_at(self.state)
            due += [may_switch_at] if may_switch_at is not None else []
        if rules.idle_unload is not None:
            ready = [r for r in self.state.residents if r.phase is Phase.READY and not r.leases]
            due += [resident.used_at + rules.idle_unload for resident in ready]
        later = [at for at in due if at > self.now]
        if later:
            self._do(WakeAt(min(later)))

    # Switches

    def _begin(self, target: Target, reason: Reason) -> None:
        """Start a switch; whatever switch is in progress is superseded."""
        previous = self._previous()
        if self.state.switch is not None:
            self._drop_incoming()
            self._end_switch("superseded")
        self._change(switch=self._open_switch(target, reason, previous), wanted=target)
        resident = self._find_variant(target.variant)
        stays = resident is not None and resident.phase is not Phase.STOPPING and not resident.is_outdated
        if resident is not None and stays and resident.target == target:
            self._put(replace(resident, phase=Phase.READY, drain_by=None))
            self._change(active=target.variant, last=target)
            self._end_switch("done")
            return
        attempt = self.state.next_attempt
        self._change(
            next_attempt=attempt + 1, incoming=Incoming(target, attempt, Entry.MAKING_ROOM), active=None
        )

    def _previous(self) -> Target | None:
        if self.state.switch is not None:
            return self.state.switch.previous
        for resident in self.state.residents:
            if resident.target.variant == self.state.active:
                return resident.target
        return None

    def _open_switch(self, target: Target, reason: Reason, previous: Target | None) -> RunningSwitch:
        switch = RunningSwitch(self.state.next_switch, target, reason, previous)
        self._change(next_switch=switch.id + 1)
        self._do(SwitchBegan(switch))
        return switch

    def _end_switch(self, outcome: SwitchOutcome, diagnosis: Diagnosis | None = None) -> RunningSwitch | None:
        switch = self.state.switch
        self._change(switch=None)
        if switch is not None:
            self._do(SwitchEnded(switch, outcome, diagnosis))
        return switch

    def _abandon(self, outcome: SwitchOutcome) -> None:
        """End the switch in progress and go back to what was active before."""
        self._drop_incoming()
        switch = self._end_switch(outcome)
        if switch is not None:
            self._roll_back(switch)

    def _roll_back(self, switch: RunningSwitch) -> None:
        """Make active again what the switch replaced: keep it if it only drains, else start it."""
        self._change(wanted=None)
        previous = switch.previous
        if previous is None or switch.reason is Reason.ROLLBACK or previous == switch.target:
            return
        self._begin(previous, Reason.ROLLBACK)

    def _drop_incoming(self) -> None:
        incoming = self.state.incoming
        self._change(incoming=None)
        if incoming is None:
            return
        if incoming.entry is Entry.STARTING:
            self._put_in(Resident(incoming.target, incoming.attempt, Phase.STOPPING))
            self._do(Stop(incoming.target, incoming.attempt, kill=True))

    def victims(self, target: Target) -> list[Resident]:
        """Give the residents that must go before the target can start, least recently used first."""
        same = [r for r in self.state.residents if r.target.variant == target.variant]
        others = [r for r in self.state.residents if r.target.variant != target.variant]
        others.sort(key=lambda r: (r.phase is Phase.READY, bool(r.leases), self._is_pinned(r), r.used_at))
        victims = list(same)
        while others and not self.state.rules.room.fits(
            [target.variant, *(resident.target.variant for resident in others)]
        ):
            victims.append(others.pop(0))
        return victims

    # Engines

    def _drain(self, resident: Resident) -> None:
        if resident.phase is Phase.READY:
            drain_by = self.now + self.state.rules.drain_limit
            for request in sorted(resident.of_batches):
                self._do(Cut(request, resident.target.variant))
            leases = resident.leases - resident.of_batches
            self._put(
                replace(
                    resident, phase=Phase.DRAINING, drain_by=drain_by, leases=leases, of_batches=frozenset()
                )
            )
            if self.state.active == resident.target.variant:
                self._change(active=None)

    def _stop(self, resident: Resident, *, kill: bool = False, diagnosis: Diagnosis | None = None) -> None:
        for request in sorted(resident.leases):
            self._do(Cut(request, resident.target.variant, diagnosis))
        self._put(
            replace(resident, phase=Phase.STOPPING, leases=frozenset(), of_batches=frozenset(), drain_by=None)
        )
        if self.state.active == resident.target.variant:
            self._change(active=None)
        self._do(Stop(resident.target, resident.attempt, kill=kill))

    def _count_failure(self, variant: str, diagnosis: Diagnosis, *, at_start: bool) -> None:
        before = self.state.breakers.get(variant)
        failures = (before.failures if before else 0) + 1
        back_off = self.state.rules.back_off
        pause = back_off[min(failures, len(back_off)) - 1] if back_off else 0.0
        breaker = Breaker(failures, self.now + pause, diagnosis, self.now, at_start)
        self._change(breakers={**self.state.breakers, variant: breaker})

    def _forgive(self, variant: str) -> None:
        self._change(breakers={k: v for k, v in self.state.breakers.items() if k != variant})

    # Looking things up

    def _ready(self, variant: str) -> Resident | None:
        for resident in self.state.residents:
            if resident.target.variant == variant and resident.phase is Phase.READY:
                return resident
        return None

    def _find(self, attempt: int) -> Resident | None:
        return next((r for r in self.state.residents if r.attempt == attempt), None)

    def _find_variant(self, variant: str) -> Resident | None:
        """Give the engine of a variant that is not on its way out, else one that is."""
        found = [r for r in self.state.residents if r.target.variant == variant]
        found.sort(key=lambda r: r.phase is Phase.STOPPING)
        return found[0] if found else None

    def _is_coming(self, variant: str) -> bool:
        return self.state.incoming is not None and self.state.incoming.target.variant == variant

    def _is_pinned(self, resident: Resident) -> bool:
        return resident.target.variant in self.state.rules.pinned

    def _is_open(self, breaker: Breaker) -> bool:
        exhausted = breaker.failures > len(self.state.rules.back_off)
        return exhausted or (breaker.at_start and self.now < breaker.retry_at)

    def _retry_at(self, variant: str) -> float:
        breaker = self.state.breakers.get(variant)
        return breaker.retry_at if breaker is not None else float("-inf")

    def _has_waiters(self, target: Target) -> bool:
        return any(waiting.variant == target.variant for waiting in self.state.waiting)

    # Changing the state

    def _put_in(self, resident: Resident) -> None:
        self._change(residents=(*self.state.residents, resident))

    def _put(self, resident: Resident) -> None:
        kept = tuple(resident if r.attempt == resident.attempt else r for r in self.state.residents)
        self._change(residents=kept)

    def _refuse(
        self, request: int, variant: str, refusal: Refusal, diagnosis: Diagnosis | None = None
    ) -> None:
        self._do(Refuse(request, variant, refusal, diagnosis))

    def _change(self, **fields: object) -> None:
        self.state = replace(self.state, **fields)  # type: ignore[arg-type]  # replace() checks the names

    def _do(self, action: Action) -> None:
        self.actions.append(action)
