"""The switching machine keeps its promises: told as stories, and walked through thousands of histories."""

import random

import pytest

from footplate_daemon.switching.machine import (
    Action,
    Adopted,
    AwaitMemory,
    BatchWindowChanged,
    CancelWished,
    Cut,
    Died,
    Event,
    Failed,
    Grant,
    Loaded,
    MemoryFreed,
    Phase,
    Reason,
    Refusal,
    Refuse,
    Released,
    Replaced,
    Requested,
    Room,
    Rules,
    RulesChanged,
    Start,
    State,
    Stop,
    Stopped,
    StopWished,
    SwitchBegan,
    SwitchEnded,
    Target,
    Ticked,
    WakeAt,
    Wished,
    step,
)
from footplate_daemon.switching.seating import Seating
from footplate_daemon.wire import Diagnosis

BROKEN = Diagnosis(code="broken", cause="It is broken.")
A, B, C = Target("a"), Target("b"), Target("c")


def after(*events: Event, state: State | None = None) -> tuple[State, list[Action]]:
    """Give the state after these events and what the last one caused."""
    state = state or State()
    actions: list[Action] = []
    for event in events:
        state, actions = step(state, event)
    return state, actions


def of(kind: type[Action], actions: list[Action]) -> list[Action]:
    return [action for action in actions if isinstance(action, kind)]


def serving(target: Target = A, rules: Rules | None = None) -> State:
    """A machine whose attempt 1 serves the target."""
    return after(Wished(target, 0), MemoryFreed(1, 1), Loaded(1, 2), state=State(rules=rules or Rules()))[0]


def outcomes(actions: list[Action]) -> list[str]:
    return [action.outcome for action in actions if isinstance(action, SwitchEnded)]


def test_a_wish_waits_for_memory_then_starts_then_is_active() -> None:
    _, first = after(Wished(A, 0))
    _, second = after(Wished(A, 0), MemoryFreed(1, 1))
    state, third = after(Wished(A, 0), MemoryFreed(1, 1), Loaded(1, 2))

    assert of(AwaitMemory, first) == [AwaitMemory(A, 1)]
    assert of(Start, second) == [Start(A, 1)]
    assert state.active == "a"
    assert outcomes(third) == ["done"]


def test_an_idle_engine_is_stopped_before_the_next_one_starts() -> None:
    _, wish = after(Wished(B, 3), state=serving())
    _, stopped = after(Wished(B, 3), Stopped(1, 4), state=serving())

    assert of(Stop, wish) == [Stop(A, 1)]
    assert not of(AwaitMemory, wish)
    assert of(AwaitMemory, stopped) == [AwaitMemory(B, 2)]


def test_a_busy_engine_is_drained_first() -> None:
    state, busy = after(Requested(7, "a", 3), Wished(B, 4), state=serving())
    _, idle = after(Released(7, 5), state=state)

    assert state.residents[0].phase is Phase.DRAINING
    assert not of(Stop, busy)
    assert of(Stop, idle) == [Stop(A, 1)]


def test_a_drain_that_takes_too_long_cuts_the_requests() -> None:
    state, _ = after(Requested(7, "a", 3), Wished(B, 4), state=serving())
    _, actions = after(Ticked(4 + state.rules.drain_limit), state=state)

    assert of(Cut, actions) == [Cut(7, "a")]
    assert of(Stop, actions) == [Stop(A, 1)]


def test_the_newest_wish_wins_while_the_active_engine_is_stopping() -> None:
    state, superseded = after(Wished(B, 3), Wished(C, 4), state=serving())
    _, stopped = after(Stopped(1, 5), state=state)

    assert outcomes(superseded) == ["superseded"]
    assert of(AwaitMemory, stopped) == [AwaitMemory(C, 3)]


def test_a_wish_for_the_draining_engine_keeps_it() -> None:
    state, _ = after(Requested(7, "a", 3), Wished(B, 4), state=serving())
    state, actions = after(Wished(A, 5), state=state)

    assert state.active == "a"
    assert state.residents[0].phase is Phase.READY
    assert not of(Stop, actions)


def test_a_superseded_load_is_killed_and_waited_for() -> None:
    state, killed = after(Wished(A, 0), MemoryFreed(1, 1), Wished(B, 2))
    late, _ = after(Loaded(1, 3), state=state)
    _, stopped = after(Stopped(1, 4), state=state)

    assert of(Stop, killed) == [Stop(A, 1, kill=True)]
    assert late.active is None
    assert of(AwaitMemory, stopped) == [AwaitMemory(B, 2)]


def test_the_same_wish_twice_is_one_switch() -> None:
    state, actions = after(Wished(A, 0), Wished(A, 1))

    assert not of(SwitchBegan, actions)
    assert state.switch is not None
    assert state.switch.id == 1


def test_a_failed_start_brings_the_previous_variant_back() -> None:
    state, failed = after(
        Wished(B, 3), Stopped(1, 4), MemoryFreed(2, 5), Failed(2, BROKEN, 6), state=serving()
    )

    assert outcomes(failed) == ["failed"]
    assert of(AwaitMemory, failed) == [AwaitMemory(A, 3)]
    assert state.switch is not None
    assert state.switch.reason is Reason.ROLLBACK


def test_a_failed_rollback_ends_there() -> None:
    state, _ = after(Wished(B, 3), Stopped(1, 4), MemoryFreed(2, 5), Failed(2, BROKEN, 6), state=serving())
    state, actions = after(MemoryFreed(3, 7), Failed(3, BROKEN, 8), Ticked(1000), state=state)

    assert state.wanted is None
    assert not of(Start, actions)


def test_requests_for_the_loaded_engine_go_first_until_one_has_waited_too_long() -> None:
    state = serving(rules=Rules(max_hold=10))
    state, _ = after(Requested(1, "a", 3), Requested(2, "b", 4), state=state)
    state, third = after(Requested(3, "a", 5), state=state)
    state, _ = after(Ticked(14), state=state)
    state, fifth = after(Requested(5, "a", 15), state=state)
    _, idle = after(Released(1, 16), Released(3, 16), state=state)

    assert of(Grant, third) == [Grant(3, "a", 1)]
    assert not of(Grant, fifth)
    assert of(Stop, idle) == [Stop(A, 1)]


def test_a_request_for_another_variant_switches_at_once_when_the_loaded_one_is_idle() -> None:
    _, actions = after(Requested(1, "b", 3), state=serving())

    assert of(Stop, actions) == [Stop(A, 1)]


def test_two_requests_for_two_models_are_both_served() -> None:
    state, _ = after(Requested(1, "a", 0), Requested(2, "b", 0))
    state, first = after(MemoryFreed(1, 1), Loaded(1, 2), state=state)
    state, _ = after(Released(1, 3), Stopped(1, 4), MemoryFreed(2, 5), state=state)
    _, second = after(Loaded(2, 6), state=state)

    assert of(Grant, first) == [Grant(1, "a", 1)]
    assert of(Grant, second) == [Grant(2, "b", 2)]


def test_a_load_nobody_waits_for_is_cancelled() -> None:
    state, _ = after(Requested(1, "b", 3), Stopped(1, 4), MemoryFreed(2, 5), state=serving())
    state, actions = after(Released(1, 6), state=state)

    assert outcomes(actions) == ["cancelled"]
    assert of(Stop, actions) == [Stop(B, 2, kill=True)]
    assert state.wanted == A


def test_a_load_that_was_asked_for_goes_on_when_requests_leave() -> None:
    state, _ = after(Requested(1, "b", 3), Wished(B, 4), state=serving())
    _, actions = after(Released(1, 6), state=state)

    assert not outcomes(actions)


def test_a_cancelled_switch_keeps_the_draining_engine() -> None:
    state, _ = after(Requested(7, "a", 3), Wished(B, 4), state=serving())
    assert state.switch is not None
    state, _ = after(CancelWished(state.switch.id, 5), state=state)

    assert state.active == "a"
    assert not state.switch


def test_a_dead_engine_is_cleared_and_restarted_with_back_off() -> None:
    state, died = after(Requested(7, "a", 3), Died(1, BROKEN, 4), state=serving())
    state, early = after(Stopped(1, 4), state=state)
    _, due = after(Ticked(5), state=state)

    assert of(Cut, died) == [Cut(7, "a", BROKEN)]
    assert of(Stop, died) == [Stop(A, 1, kill=True)]
    assert of(WakeAt, early) == [WakeAt(5)]
    assert of(AwaitMemory, due) == [AwaitMemory(A, 2)]


def test_requests_wait_while_a_crashed_engine_comes_back() -> None:
    state, _ = after(Died(1, BROKEN, 4), Requested(8, "a", 4.1), Stopped(1, 4.2), state=serving())
    _, back = after(Ticked(5), MemoryFreed(2, 5), Loaded(2, 6), state=state)

    assert of(Grant, back) == [Grant(8, "a", 2)]


def test_an_engine_that_keeps_crashing_fails_and_requests_hear_why_at_once() -> None:
    state, now = serving(), 2.0
    for attempt in range(1, 7):
        now += 1
        state, _ = after(Died(attempt, BROKEN, now), Stopped(attempt, now), state=state)
        now += 100
        state, _ = after(Ticked(now), MemoryFreed(attempt + 1, now), Loaded(attempt + 1, now), state=state)
    state, actions = after(Requested(9, "a", now + 1), state=state)

    assert state.wanted is None
    assert of(Refuse, actions) == [Refuse(9, "a", Refusal.FAILED, BROKEN)]


def test_a_wish_tries_again_what_had_failed() -> None:
    state, _ = after(Wished(A, 0), MemoryFreed(1, 1), Failed(1, BROKEN, 2))
    _, refused = after(Requested(1, "a", 2.5), state=state)
    _, wished = after(Wished(A, 2.5), state=state)

    assert of(Refuse, refused) == [Refuse(1, "a", Refusal.FAILED, BROKEN)]
    assert of(AwaitMemory, wished) == [AwaitMemory(A, 2)]


def test_an_engine_dying_while_it_drains_does_not_come_back() -> None:
    state, _ = after(Requested(7, "a", 3), Wished(B, 4), Died(1, BROKEN, 5), state=serving())
    state, actions = after(Stopped(1, 6), state=state)

    assert of(AwaitMemory, actions) == [AwaitMemory(B, 2)]
    assert "a" not in state.breakers


def test_a_full_queue_says_so() -> None:
    state, _ = after(Requested(1, "a", 0), state=State(rules=Rules(queue_limit=1)))
    _, actions = after(Requested(2, "a", 1), state=state)

    assert of(Refuse, actions) == [Refuse(2, "a", Refusal.QUEUE_FULL)]


def test_without_auto_switch_only_the_active_variant_answers() -> None:
    _, actions = after(Requested(1, "b", 3), state=serving(rules=Rules(auto_switch=False)))

    assert of(Refuse, actions) == [Refuse(1, "b", Refusal.NOT_ACTIVE)]


def test_requests_do_not_evict_a_pinned_engine_but_a_wish_does() -> None:
    rules = Rules(pinned=frozenset({"a"}))
    _, refused = after(Requested(1, "b", 3), state=serving(rules=rules))
    _, wished = after(Wished(B, 3), state=serving(rules=rules))

    assert of(Refuse, refused) == [Refuse(1, "b", Refusal.PINNED)]
    assert of(Stop, wished) == [Stop(A, 1)]


def test_a_batch_switches_only_when_nobody_has_chatted_for_a_while() -> None:
    state, _ = after(Requested(1, "a", 3), Released(1, 4), state=serving(rules=Rules(batch_quiet=60)))
    state, early = after(Requested(2, "b", 10, interactive=False), state=state)
    _, late = after(Ticked(64), state=state)

    assert not of(Stop, early)
    assert of(Stop, late) == [Stop(A, 1)]


def test_an_idle_engine_is_unloaded_and_the_next_request_brings_it_back() -> None:
    state, actions = after(Ticked(602), state=serving(rules=Rules(idle_unload=600)))
    state, _ = after(Stopped(1, 603), state=state)
    _, again = after(Requested(1, "a", 700), state=state)

    assert of(Stop, actions) == [Stop(A, 1)]
    assert state.last == A
    assert of(AwaitMemory, again) == [AwaitMemory(A, 2)]


def test_engines_that_fit_stay_resident_and_the_least_recently_used_goes_first() -> None:
    room = Room("fit", capacity=10, footprints={"a": 4, "b": 4, "c": 4})
    state = serving(rules=Rules(room=room))
    state, second = after(Wished(B, 3), MemoryFreed(2, 4), Loaded(2, 5), state=state)
    _, third = after(Requested(9, "a", 6), Released(9, 7), Wished(C, 8), state=state)

    assert not of(Stop, second)
    assert {resident.target for resident in state.residents} == {A, B}
    assert of(Stop, third) == [Stop(B, 2)]


def test_another_preset_of_the_same_variant_is_another_engine() -> None:
    _, actions = after(Wished(Target("a", "balanced"), 3), state=serving())

    assert of(Stop, actions) == [Stop(A, 1)]


def test_a_running_engine_is_adopted_as_it_is() -> None:
    state, actions = after(Adopted(A, 5, is_ready=True, at=0), Requested(1, "a", 1))

    assert state.active == "a"
    assert of(Grant, actions) == [Grant(1, "a", 5)]
    assert not of(Start, actions)


def test_an_engine_adopted_while_it_loads_is_followed() -> None:
    state, _ = after(Adopted(A, 5, is_ready=False, at=0), Loaded(5, 1))

    assert state.active == "a"


def test_of_two_engines_that_do_not_fit_together_one_is_adopted() -> None:
    state, actions = after(Adopted(A, 5, is_ready=True, at=0), Adopted(B, 6, is_ready=True, at=0))

    assert state.active == "a"
    assert of(Stop, actions) == [Stop(B, 6)]


def test_stopping_a_variant_refuses_those_who_wait_for_it() -> None:
    state, actions = after(Requested(1, "a", 0), StopWished("a", 1))

    assert of(Refuse, actions) == [Refuse(1, "a", Refusal.STOPPED)]
    assert state.wanted is None


def test_new_rules_forgive_what_changed() -> None:
    state, _ = after(Wished(A, 0), MemoryFreed(1, 1), Failed(1, BROKEN, 2))
    state, _ = after(RulesChanged(Rules(), 3, forgiven=frozenset({"a"})), state=state)

    assert not state.breakers


def test_an_engine_that_would_be_started_otherwise_gives_way_to_a_new_one() -> None:
    state, busy = after(Requested(7, "a", 3), Replaced("a", 4), Wished(A, 4.5), state=serving())
    _, idle = after(Released(7, 5), Stopped(1, 6), state=state)

    assert not of(Stop, busy)
    assert of(AwaitMemory, idle) == [AwaitMemory(A, 2)]


def test_a_load_that_would_be_started_otherwise_begins_anew_for_the_same_wish() -> None:
    state, replaced = after(Wished(A, 0), MemoryFreed(1, 1), Replaced("a", 2))
    state, again = after(Stopped(1, 3), state=state)

    assert of(Stop, replaced) == [Stop(A, 1, kill=True)]
    assert not outcomes(replaced)
    assert of(AwaitMemory, again) == [AwaitMemory(A, 2)]


def test_a_variant_that_is_no_more_is_given_up_everywhere() -> None:
    state, _ = after(Wished(B, 3), Requested(9, "a", 3.5), state=serving())
    state, actions = after(RulesChanged(Rules(), 4, known=frozenset({"c"})), state=state)

    assert outcomes(actions) == ["cancelled"]
    assert of(Refuse, actions) == [Refuse(9, "a", Refusal.STOPPED)]
    assert (state.wanted, state.last, state.switch) == (None, None, None)


def test_a_variant_that_was_stopped_does_not_come_back_by_rollback() -> None:
    state, _ = after(Wished(B, 3), StopWished("a", 3.5), Stopped(1, 4), MemoryFreed(2, 5), state=serving())
    state, actions = after(Failed(2, BROKEN, 6), state=state)

    assert outcomes(actions) == ["failed"]
    assert not of(AwaitMemory, actions)


def test_a_batch_makes_way_at_once_for_a_request_that_needs_another_engine() -> None:
    state, _ = after(Requested(1, "a", 3, interactive=False), Requested(2, "a", 3), state=serving())
    state, waits = after(Requested(3, "b", 4), state=state)
    state, actions = after(Released(2, 5), state=state)

    assert not of(Cut, waits)
    assert of(Cut, actions) == [Cut(1, "a")]
    assert of(Stop, actions) == [Stop(A, 1)]


def test_a_wish_drains_those_who_chat_and_cuts_batches() -> None:
    state, _ = after(Requested(1, "a", 3, interactive=False), Requested(2, "a", 3), state=serving())
    state, actions = after(Wished(B, 4), state=state)

    assert of(Cut, actions) == [Cut(1, "a")]
    assert state.residents[0].leases == {2}


def test_a_switch_that_only_batches_wait_for_is_given_up_for_somebody_who_chats() -> None:
    state, _ = after(Requested(1, "b", 100, interactive=False), Stopped(1, 101), state=serving())
    state, _ = after(MemoryFreed(2, 102), state=state)
    state, actions = after(Requested(2, "a", 103), state=state)
    state, _ = after(Stopped(2, 104), MemoryFreed(3, 105), Loaded(3, 106), state=state)

    assert outcomes(actions) == ["superseded"]
    assert of(Stop, actions) == [Stop(B, 2, kill=True)]
    assert state.active == "a"
    assert [waiting.request for waiting in state.waiting] == [1]


def test_in_its_window_a_batch_switches_without_waiting_for_quiet() -> None:
    state, _ = after(
        Requested(1, "a", 3), Released(1, 4), Requested(2, "b", 5, interactive=False), state=serving()
    )
    _, actions = after(BatchWindowChanged(is_open=True, at=6), state=state)

    assert of(Stop, actions) == [Stop(A, 1)]


def test_a_batch_never_switches_under_a_chat_however_long_it_lasts() -> None:
    rules = Rules(batch_quiet=60, max_hold=10)
    state, _ = after(
        Requested(1, "a", 3), Requested(2, "b", 4, interactive=False), state=serving(rules=rules)
    )
    state, long_after = after(Ticked(1000), state=state)
    state, ended = after(Released(1, 1001), state=state)
    _, quiet = after(Ticked(1061), state=state)

    assert not of(SwitchBegan, long_after)
    assert not of(SwitchBegan, ended)
    assert of(Stop, quiet) == [Stop(A, 1)]


def test_without_quiet_time_a_batch_waits_for_its_window() -> None:
    state, _ = after(Requested(2, "b", 5, interactive=False), state=serving(rules=Rules(batch_quiet=None)))
    state, much_later = after(Ticked(1e6), state=state)
    _, window = after(BatchWindowChanged(is_open=True, at=1e6 + 1), state=state)

    assert not of(Stop, much_later)
    assert of(Stop, window) == [Stop(A, 1)]


class World:
    """Carries the machine's actions out in random order and checks what must always hold."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        policy = self.dice.choice(["one", "fit"])
        footprints = {"a": 4, "b": 4, "c": 9, "d": 0}
        self.rules = Rules(
            room=Room(policy, capacity=10, footprints=footprints),
            max_hold=self.dice.choice([0, 3, 30]),
            drain_limit=self.dice.choice([1, 5]),
            idle_unload=self.dice.choice([None, 20]),
            queue_limit=self.dice.choice([2, 50]),
            auto_switch=self.dice.random() < 0.9,
            batch_quiet=self.dice.choice([None, 0, 60]),
            pinned=frozenset(self.dice.choice([[], ["a"]])),
        )
        self.state = State(rules=self.rules)
        self.now = 0.0
        self.pending: list[Action] = []
        self.leased: dict[int, int] = {}
        self.open: set[int] = set()
        self.running: dict[int, str] = {}
        self.switches: set[int] = set()
        self.next_request = 1
        self.known = frozenset("abcd")

    def happen(self, event: Event) -> None:
        self.state, actions = step(self.state, event)
        for action in actions:
            self.carry_out(action)
        self.check()

    def carry_out(self, action: Action) -> None:
        match action:
            case Grant(request=request, attempt=attempt):
                assert request in self.open
                assert self.running[attempt] == "ready"
                self.leased[request] = attempt
            case Refuse(request=request):
                assert request not in self.leased
                self.open.remove(request)
            case Cut(request=request):
                del self.leased[request]
                self.open.remove(request)
            case Start(target=target, attempt=attempt):
                variants = [resident.target.variant for resident in self.state.residents]
                assert target.variant in self.known
                assert target.variant not in variants
                assert self.rules.room.fits([*variants, target.variant])
                self.running[attempt] = "loading"
                self.pending.append(action)
            case Stop(attempt=attempt):
                assert attempt not in self.leased.values()
                self.pending.append(action)
            case AwaitMemory():
                self.pending.append(action)
            case SwitchBegan(switch=switch):
                self.switches.add(switch.id)
            case SwitchEnded(switch=switch):
                self.switches.remove(switch.id)
            case WakeAt():
                pass

    def check(self) -> None:
        for resident in self.state.residents:
            assert not resident.leases or resident.phase is not Phase.STOPPING
            assert resident.of_batches <= resident.leases
            assert not resident.of_batches or resident.phase is Phase.READY
        serving_now = [r.target.variant for r in self.state.residents if r.phase is not Phase.STOPPING]
        assert len(serving_now) == len(set(serving_now))
        assert self.rules.room.fits(serving_now)
        assert len(self.switches) == (1 if self.state.switch else 0)
        waiting = {waiting.request for waiting in self.state.waiting}
        assert waiting | set(self.leased) == self.open
        if self.state.active is not None:
            assert self.state.active in serving_now

    def go_on(self) -> None:
        """Let one thing happen that may happen."""
        self.pass_time()
        kind = self.dice.random()
        target = Target(self.dice.choice(sorted(self.known)), self.dice.choice([None, None, "big"]))
        if kind < 0.25:
            request, self.next_request = self.next_request, self.next_request + 1
            self.open.add(request)
            self.happen(Requested(request, target.variant, self.now, self.dice.random() < 0.8))
        elif kind < 0.45 and self.open:
            self.release(self.dice.choice(sorted(self.open)))
        elif kind < 0.5:
            self.happen(Wished(target, self.now))
        elif kind < 0.52:
            self.happen(StopWished(target.variant, self.now))
        elif kind < 0.54 and self.state.switch is not None:
            self.happen(CancelWished(self.state.switch.id, self.now))
        elif kind < 0.58 and self.running:
            self.kill(self.dice.choice(sorted(self.running)))
        elif kind < 0.59:
            self.happen(BatchWindowChanged(self.dice.random() < 0.5, self.now))
        elif kind < 0.6:
            self.happen(Ticked(self.now))
        elif kind < 0.62:
            self.happen(Replaced(target.variant, self.now))
        elif kind < 0.64:
            self.known = frozenset(self.dice.sample("abcd", self.dice.choice([2, 3, 4])))
            self.happen(RulesChanged(self.rules, self.now, known=self.known))
        else:
            self.finish_something()

    def pass_time(self) -> None:
        self.now += self.dice.choice([0, 0.1, 1, 5])

    def release(self, request: int) -> None:
        self.open.discard(request)
        self.leased.pop(request, None)
        self.happen(Released(request, self.now))

    def kill(self, attempt: int) -> None:
        if self.running[attempt] == "ready":
            self.running[attempt] = "dead"
            self.happen(Died(attempt, BROKEN, self.now))

    def finish_something(self) -> None:
        if not self.pending:
            return
        action = self.pending.pop(self.dice.randrange(len(self.pending)))
        match action:
            case AwaitMemory(attempt=attempt):
                self.happen(MemoryFreed(attempt, self.now))
            case Start(attempt=attempt) if attempt in self.running:
                if self.dice.random() < 0.2:
                    del self.running[attempt]
                    self.happen(Failed(attempt, BROKEN, self.now))
                else:
                    self.running[attempt] = "ready"
                    self.happen(Loaded(attempt, self.now))
            case Stop(attempt=attempt):
                self.running.pop(attempt, None)
                self.pending = [a for a in self.pending if getattr(a, "attempt", None) != attempt]
                self.happen(Stopped(attempt, self.now))
            case _:
                pass

    def come_to_rest(self) -> None:
        """Nothing new happens; what was begun ends, and the night comes in which batches may switch."""
        self.happen(BatchWindowChanged(is_open=True, at=self.now))
        for _ in range(500):
            if not self.open and not self.pending and self.state.switch is None:
                return
            self.now += 5
            self.happen(Ticked(self.now))
            while self.pending:
                self.finish_something()
            for request in sorted(self.leased):
                self.release(request)


@pytest.mark.parametrize("block", range(10))
def test_a_walk_through_random_histories_keeps_every_promise(block: int) -> None:
    for seed in range(block * 200, block * 200 + 200):
        world = World(seed)
        for _ in range(120):
            world.go_on()
        world.come_to_rest()

        assert not world.open, f"seed {seed}: a request never ended"
        assert not world.switches, f"seed {seed}: a switch never ended"


class SeatedWorld(World):
    """Lets everything happen a second time, to a state beside which requests are seated."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.seating = Seating(self.state)
        self.seated = 0

    def pass_time(self) -> None:
        super().pass_time()
        self.happen(Ticked(self.now))  # a request that is seated does not look at the clock

    def happen(self, event: Event) -> None:
        super().happen(event)
        self.happen_again(event)
        assert self.seating.settled() == self.state

    def happen_again(self, event: Event) -> None:
        match event:
            case Requested(request=request, variant=variant, at=at, interactive=interactive):
                attempt = self.seating.seat(request, variant, at, interactive=interactive)
                if attempt is None:
                    self.seating.step(event)
                else:
                    self.seated += 1
                    assert self.leased[request] == attempt
                    assert self.seating.lease_count(attempt) == list(self.leased.values()).count(attempt)
            case Released(request=request, at=at):
                if not self.seating.unseat(request, at):
                    self.seating.step(event)
            case _:
                self.seating.step(event)


def test_to_seat_requests_comes_to_the_same_as_a_step_for_each() -> None:
    seated = 0
    for seed in range(400):
        world = SeatedWorld(seed)
        for _ in range(120):
            world.go_on()
        world.come_to_rest()
        seated += world.seated

    assert seated > 500
