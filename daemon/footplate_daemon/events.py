"""What the daemon publishes: for each topic a snapshot first, then its newest value after each change.

A slow follower skips values rather than queueing them, so nothing here grows.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Topic(Generic[T]):
    """One value that changes, taken anew from `snapshot` whenever a follower is ready for it."""

    def __init__(self, snapshot: Callable[[], T]) -> None:
        self.snapshot = snapshot
        self._version = 0
        self._followers: set[asyncio.Event] = set()

    def changed(self) -> None:
        """Tell every follower that there is a new value; call from the event loop's thread."""
        self._version += 1
        for follower in self._followers:
            follower.set()

    async def follow(self, pause_seconds: float = 0.0) -> AsyncIterator[T]:
        """Yield the value now and after changes, at most one for each `pause_seconds`."""
        follower = asyncio.Event()
        self._followers.add(follower)
        try:
            while True:
                follower.clear()
                yield self.snapshot()
                if pause_seconds:
                    await asyncio.sleep(pause_seconds)
                await follower.wait()
        finally:
            self._followers.discard(follower)
