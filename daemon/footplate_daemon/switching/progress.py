"""How far a switch has come: its steps with their times, and what is left by the times recorded before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from footplate_daemon.switching.machine import RunningSwitch
from footplate_daemon.wire import Diagnosis, Step, StepName, Switch, SwitchOutcome


@dataclass
class SwitchProgress:
    """One switch as it goes on; `usual` is filled in as soon as the recorded times are read."""

    switch: RunningSwitch
    started_at: float
    usual: Mapping[StepName, float] = field(default_factory=dict)
    """Median seconds of each step in earlier switches to the same variant and preset."""
    steps: list[Step] = field(default_factory=list)
    outcome: SwitchOutcome = "running"
    ended_at: float | None = None
    diagnosis: Diagnosis | None = None
    told_fraction: float | None = None
    """Of the load, where the runtime's log tells."""

    def enter(self, name: StepName, now: float, detail: str = "") -> None:
        """Go on to a step, closing the one before; entering the same step again only changes its detail."""
        if self.steps and self.steps[-1].name == name and self.steps[-1].seconds is None:
            self.steps[-1] = self.steps[-1].model_copy(update={"detail": detail})
            return
        self._close(now)
        self.steps.append(Step(name=name, started_at=now, detail=detail))

    def end(self, outcome: SwitchOutcome, now: float, diagnosis: Diagnosis | None = None) -> None:
        """Close the last step and the switch."""
        self._close(now)
        self.outcome, self.ended_at, self.diagnosis = outcome, now, diagnosis

    def snapshot(self, now: float, log_tail: Sequence[str] = ()) -> Switch:
        """Give it as it crosses the socket."""
        left = self._seconds_left(now)
        return Switch(
            id=self.switch.id,
            variant=self.switch.target.variant,
            preset=self.switch.target.preset,
            previous=self.switch.previous.variant if self.switch.previous else None,
            reason=self.switch.reason,
            outcome=self.outcome,
            started_at=self.started_at,
            ended_at=self.ended_at,
            steps=tuple(self.steps),
            fraction=self._fraction(now, left),
            eta_seconds=left,
            log_tail=tuple(log_tail),
            diagnosis=self.diagnosis,
        )

    def _close(self, now: float) -> None:
        if self.steps and self.steps[-1].seconds is None:
            last = self.steps[-1]
            self.steps[-1] = last.model_copy(update={"seconds": max(0.0, now - last.started_at)})

    def _seconds_left(self, now: float) -> float | None:
        """Add up the usual times of what is still to come; None when nothing was recorded."""
        if self.outcome != "running" or not self.usual:
            return None
        order = list(StepName)
        reached = order.index(self.steps[-1].name) if self.steps else 0
        later = sum(self.usual.get(name, 0.0) for name in order[reached + 1 :])
        if not self.steps:
            return later
        current = self.steps[-1]
        return later + max(0.0, self.usual.get(current.name, 0.0) - (now - current.started_at))

    def _fraction(self, now: float, left: float | None) -> float | None:
        if self.outcome == "done":
            return 1.0
        if left is not None:
            gone = max(0.0, now - self.started_at)
            return gone / (gone + left) if gone + left else None
        return self.told_fraction
