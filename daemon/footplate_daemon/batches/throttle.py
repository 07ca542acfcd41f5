"""How many lines an engine is asked at a time: as many as keep it busy, and no more.

Pure. Additive increase, multiplicative decrease, as TCP does it: it doubles until the engine's pace grows no
more or its queue fills, and feels its way from there. What is too much only makes those wait who chat.
"""

from dataclasses import dataclass

START = 4
RISES = 1.05
"""The pace has grown if it is so many times what it was."""
STEP_RISES = 1.03
"""A step was good if the pace has grown to this."""
LONGEST_PAUSE = 30
"""Windows between two steps that were no good."""
HALF = 0.5
QUEUE_FRACTION = 0.125
"""Of those at a time, so many may wait within the engine: a free place is taken at once."""
CHAT_FRACTION = 0.25
"""While somebody chats there, a batch keeps to this part."""
STEP_FRACTION = 0.06


@dataclass(frozen=True)
class Window:
    """What was seen in a little while."""

    pace: float
    """Tokens or lines each second; what it counts is the same for a while."""
    in_flight: int
    """Lines that were being asked at its end."""
    waiting: int | None = None
    """Requests that the engine says wait within it; None where it does not say."""
    running: int | None = None


class Throttle:
    """The number of lines at a time, for one engine."""

    def __init__(self, most: int, start: int = START) -> None:
        self.capacity: int | None = None
        """How many the engine answers at a time, once it was seen full."""
        self._most = max(1, most)
        self._limit = float(min(start, self._most))
        self._is_doubling = True
        self._pace: float | None = None
        """In the window before, with fewer at a time."""
        self._pause = 1
        self._pausing = 0
        """Windows until the next step."""

    @property
    def limit(self) -> int:
        """So many at a time."""
        return int(self._limit)

    def allowed(self, chatting: int) -> int:
        """Give how many may be under way while so many others chat with the engine."""
        if not chatting:
            return self.limit
        quiet = max(1, int(self._limit * CHAT_FRACTION))
        return quiet if self.capacity is None else max(0, min(quiet, self.capacity - chatting))

    def observe(self, window: Window) -> None:
        """Learn from a window; more come only while the limit is what holds them back."""
        waiting, running = window.waiting, window.running
        if waiting and running:
            self.capacity = running
        if waiting is not None and waiting > self._queue_room(running):
            self._settle_at(window.in_flight - waiting + self._queue_room(running))
        elif window.in_flight < self.limit * 0.9:
            self._pace = None
        elif self._pausing:
            self._pausing -= 1
        elif self._is_doubling:
            self._double(window.pace)
        else:
            self._feel(window.pace)

    def overloaded(self) -> None:
        """Hear that the engine refused a line for want of room."""
        self._is_doubling, self._pace = False, None
        self._set(self._limit * HALF)

    def _queue_room(self, running: int | None) -> int:
        return max(1, int((running or self._limit) * QUEUE_FRACTION))

    def _settle_at(self, limit: float) -> None:
        """Come down, but never by more than half: what waits now may run in a moment."""
        self._is_doubling, self._pace = False, None
        self._set(max(limit, self._limit * HALF))

    def _double(self, pace: float) -> None:
        if self._pace is None or pace >= self._pace * RISES:
            self._pace = pace
            self._set(self._limit * 2)
            return
        self._is_doubling, self._pace = False, None
        if self.capacity is None:
            self._set(self._limit * HALF)

    def _feel(self, pace: float) -> None:
        """Take a step up, and back if it was no good; after each that was none the pause is longer."""
        if self._pace is None:
            self._pace = pace
            self._set(self._limit + max(1.0, self._limit * STEP_FRACTION))
        elif pace >= self._pace * STEP_RISES:
            self._pause, self._pace = 1, None
        else:
            self._pace = None
            self._set(self._limit - max(1.0, self._limit * STEP_FRACTION))
            self._pause = min(LONGEST_PAUSE, self._pause * 2)
            self._pausing = self._pause

    def _set(self, limit: float) -> None:
        self._limit = min(max(1.0, limit), float(self._most))
