"""How many lines an engine is asked at a time: as many as keep it busy, and no more.

Pure. It doubles until the engine's pace grows no more or its queue fills, then takes smaller steps up, each
of them back if it was no good. A pace is the median of some windows: one alone says little on a busy machine.
An engine that says that nobody waits within it is given twice as many at once, as far as any engine goes.
What is too much only makes those wait who chat.
"""

import statistics
from dataclasses import dataclass

START = 4
EASY = 64
"""Up to so many no step is judged where the engine says that nobody waits within it."""
SAMPLES = 3
"""Windows that are seen before a step is judged."""
DOUBLE, STEP = 2.0, 1.5
RISES = {DOUBLE: 1.1, STEP: 1.07}
"""By so much the pace must have grown for a step to have been good."""
LONGEST_PAUSE = 60
"""Windows between two steps that were no good."""
HALF = 0.5
QUEUE_FRACTION = 0.125
"""Of those at a time, so many may wait within the engine: a free place is taken at once."""
QUEUE_LEAST = 2
FULL_WINDOWS = 2
"""So many windows in a row the queue must be too long: requests that have just come wait for a moment."""
CHAT_FRACTION = 0.25
"""While somebody chats there, a batch keeps to this part."""


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
        self._before = self._limit
        """The limit before the last step."""
        self._growth = DOUBLE
        self._paces: list[float] = []
        """Of the windows with this limit."""
        self._pace_before: float | None = None
        self._full_windows = 0
        self._pause = 4
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
        waiting, room = window.waiting, self._queue_room(window.running)
        self._full_windows = self._full_windows + 1 if waiting is not None and waiting > room else 0
        if waiting is not None and self._full_windows >= FULL_WINDOWS:
            self.capacity = window.running or self.capacity
            self._settle_at(window.in_flight - waiting + room)
        elif window.in_flight < self.limit * 0.9:
            self._paces.clear()
        elif waiting == 0 and self._growth == DOUBLE and self._limit < EASY:
            self._set(self._limit * DOUBLE)
        elif self._pausing:
            self._pausing -= 1
        else:
            self._paces.append(window.pace)
            if len(self._paces) == SAMPLES:
                self._judge(statistics.median(self._paces))

    def overloaded(self) -> None:
        """Hear that the engine refused a line for want of room."""
        self._growth = STEP
        self._go_to(self._limit * HALF)

    def _judge(self, pace: float) -> None:
        """Go on if the last step was good, else back."""
        if self._pace_before is None or pace >= self._pace_before * RISES[self._growth]:
            self._before, growth = self._limit, self._growth
            self._go_to(max(self._limit + 1, self._limit * growth))
            self._pace_before = pace
            return
        self._growth = STEP
        self._go_to(self._before)
        self._pausing = self._pause
        self._pause = min(LONGEST_PAUSE, self._pause * 2)

    def _queue_room(self, running: int | None) -> int:
        return max(QUEUE_LEAST, int((running or self._limit) * QUEUE_FRACTION))

    def _settle_at(self, limit: float) -> None:
        """Come down, but never by more than half: what waits now may run in a moment."""
        self._growth, self._full_windows = STEP, 0
        self._go_to(max(limit, self._limit * HALF))
        self._pausing = self._pause

    def _go_to(self, limit: float) -> None:
        self._paces.clear()
        self._pace_before = None
        self._set(limit)

    def _set(self, limit: float) -> None:
        self._limit = min(max(1.0, limit), float(self._most))
