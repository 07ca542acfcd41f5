"""Keeps the machine's state, and seats the requests for which there is nothing else to decide.

Almost every request finds its engine ready while nothing is going on. It is noted beside the state, and
entered into it before anything else happens: all comes out as if each had been a step, at a small part of the
cost.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from footplate_daemon.switching import machine
from footplate_daemon.switching.machine import Action, Event, Phase, Resident, State


class Seating:
    """Owns the state: `step` for whatever happens, after `seat` and `unseat` for a request."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._seats = _seats(state)
        self._chatted_at = state.chatted_at
        self._is_behind = False

    @property
    def state(self) -> State:
        """The state; leases and when they were used may be behind, nothing else."""
        return self._state

    def settled(self) -> State:
        """Give the state with every request in it."""
        if self._is_behind:
            self._is_behind = False
            residents = tuple(self._entered(resident) for resident in self._state.residents)
            self._state = replace(self._state, residents=residents, chatted_at=self._chatted_at)
        return self._state

    def begin(self, state: State) -> None:
        """Go on from another state."""
        self._state, self._chatted_at, self._is_behind = state, state.chatted_at, False
        self._seats = _seats(state)

    def step(self, event: Event) -> list[Action]:
        """Take in what happened; give what to do about it."""
        state, actions = machine.step(self.settled(), event)
        self.begin(state)
        return actions

    def seat(self, request: int, variant: str, at: float, *, interactive: bool) -> int | None:
        """Lease a ready engine to a request, and give its attempt; None where that is a step."""
        seat = self._seats.get(variant)
        if seat is None:
            return None
        seat.leases.add(request)
        seat.used_at = at
        if interactive:
            self._chatted_at = at
        else:
            seat.of_batches.add(request)
        self._is_behind = True
        return seat.attempt

    def unseat(self, request: int, at: float) -> bool:
        """End the lease of a request; say whether that could be done, or is a step."""
        for seat in self._seats.values():
            if request in seat.leases:
                if len(seat.leases) == 1 and self._state.rules.idle_unload is not None:
                    return False  # from now on the engine is idle, and somebody must look after it
                seat.leases.remove(request)
                seat.used_at = at
                if request in seat.of_batches:
                    seat.of_batches.remove(request)
                else:
                    self._chatted_at = at
                self._is_behind = True
                return True
        return False

    def lease_count(self, attempt: int) -> int:
        """Say how many requests an engine has."""
        for seat in self._seats.values():
            if seat.attempt == attempt:
                return len(seat.leases)
        return sum(len(each.leases) for each in self._state.residents if each.attempt == attempt)

    def _entered(self, resident: Resident) -> Resident:
        seat = self._seats.get(resident.target.variant)
        if seat is None or seat.attempt != resident.attempt:
            return resident
        leases, of_batches = frozenset(seat.leases), frozenset(seat.of_batches)
        return replace(resident, leases=leases, of_batches=of_batches, used_at=seat.used_at)


@dataclass(slots=True)
class _Seat:
    """A ready engine, with the requests that it has now."""

    attempt: int
    leases: set[int]
    of_batches: set[int]
    used_at: float


def _seats(state: State) -> Mapping[str, _Seat]:
    """Give the engines, by their variants, of which a request that comes or goes changes the leases alone."""
    residents = state.residents
    is_calm = (
        not state.waiting
        and state.switch is None
        and state.incoming is None
        and all(resident.phase is not Phase.DRAINING for resident in residents)
        # What is wanted and does not run may be due to come back.
        and (state.wanted is None or any(r.target.variant == state.wanted.variant for r in residents))
    )
    if not is_calm:
        return {}
    return {
        resident.target.variant: _Seat(
            resident.attempt, set(resident.leases), set(resident.of_batches), resident.used_at
        )
        for resident in residents
        if resident.phase is Phase.READY
    }
