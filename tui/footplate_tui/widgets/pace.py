"""How fast an answer comes, while it does. Pure."""

from __future__ import annotations

from collections import deque

from footplate_tui.format import rate

WINDOW_SECONDS = 3.0
"""The speed is that of so long; a shorter time jumps, a longer one hides that it slows down."""
TOLD_SECONDS = 1.0
"""Figures change no more often: they can be read, and cost a slow line little."""


class Pace:
    """Counts what comes, and says it in a few words once a second."""

    def __init__(self) -> None:
        self.words = "answering"
        self._seen: deque[tuple[float, int]] = deque()
        self._told_at = 0.0

    def take(self, pieces: int | None, now: float) -> None:
        """Take in how many pieces have come; None: the daemon does not count them."""
        if pieces is None:
            return
        self._seen.append((now, pieces))
        if len(self._seen) == 1:
            self._told_at = now
        while self._seen[0][0] < now - WINDOW_SECONDS:
            self._seen.popleft()
        began, pieces_then = self._seen[0]
        if now - self._told_at >= TOLD_SECONDS and now > began:
            self._told_at = now
            self.words = f"answering · {pieces:,} tok · {rate((pieces - pieces_then) / (now - began))}"
