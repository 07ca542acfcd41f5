"""Who waits for an answer now, by variant: all who ask but batches, which make way for them."""

import time
from collections.abc import Callable


class Chats:
    """Counts requests that somebody waits for."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[str], None]] = []
        """Each is told the variant whenever a request for it comes or ends; must not block."""
        self._counts: dict[str, int] = {}
        self._ended_at: dict[str, float] = {}
        """Monotonic seconds."""

    def count(self, variant: str) -> int:
        """Give how many wait for this variant, or are being answered by it."""
        return self._counts.get(variant, 0)

    def are_going_on(self, variant: str, pause_seconds: float) -> bool:
        """Say whether somebody waits for this variant, or did so a pause ago: he may be about to go on."""
        if variant in self._counts:
            return True
        return time.monotonic() - self._ended_at.get(variant, float("-inf")) < pause_seconds

    def began(self, variant: str) -> None:
        """Hear that one came."""
        self._change(variant, 1)

    def ended(self, variant: str) -> None:
        """Hear that one has its answer, or gave up."""
        self._ended_at[variant] = time.monotonic()
        self._change(variant, -1)

    def _change(self, variant: str, by: int) -> None:
        count = self._counts.get(variant, 0) + by
        if count:
            self._counts[variant] = count
        else:
            del self._counts[variant]
        for listener in self.listeners:
            listener(variant)
