"""One model on several servers: each request goes to the least busy of those that are well.

A server that fails is left out for a while, longer each time; then a single request tries it. A request that
has got nothing yet goes on to another server. Knows no HTTP beyond a status, and nothing of models.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from footplate_daemon.errors import TimedOut
from footplate_daemon.gateway.upstream import Broken, Response, Upstream
from footplate_daemon.switching.probe import Address

TURNED_AWAY = frozenset({429, 502, 503, 504})
"""What a server says that has no room or is not there behind its proxy: another may answer."""
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0


def reach(address: Address, name: str) -> "Upstream | Spread":
    """Give what speaks to an engine, or to all of those that have its model."""
    if not address.others:
        return _upstream(address, name)
    places = (replace(address, others=()), *address.others)
    return Spread([_upstream(place, f"{name} on {place.host}:{place.port}") for place in places])


def _upstream(address: Address, name: str) -> Upstream:
    return Upstream(
        address.host,
        address.port,
        api_key=address.api_key,
        name=name,
        tls=address.tls,
        base_path=address.base_path,
    )


class Spread:
    """Speaks to several upstreams as if they were one."""

    def __init__(self, upstreams: Sequence[Upstream], now: Callable[[], float] = time.monotonic) -> None:
        self._places = [_Place(upstream) for upstream in upstreams]
        self._now = now

    async def post(self, path: str, body: bytes, request_id: str) -> Response:
        """Do what `Upstream.post` does, at the best place; at another one as long as there are no bytes.

        Raise, or give, what the last place said when all of them were tried.
        """
        left = list(self._places)
        while True:
            place = self._best(left)
            left.remove(place)
            try:
                response = await self._try(place, path, body, request_id)
            except (Broken, TimedOut):
                if not left:
                    raise
            else:
                if response.status not in TURNED_AWAY or not left:
                    return response
                await response.close()

    async def close(self) -> None:
        """Close every upstream."""
        for place in self._places:
            await place.upstream.close()

    def _best(self, left: Sequence["_Place"]) -> "_Place":
        """Choose: who is well before who is not, then the least busy, then who was asked longest ago."""
        now = self._now()
        well = [place for place in left if place.may_be_asked(now)]
        if well:
            return min(well, key=lambda place: (place.in_flight, place.asked_at))
        return min(left, key=lambda place: place.left_out_until)

    async def _try(self, place: "_Place", path: str, body: bytes, request_id: str) -> Response:
        place.asked_at = self._now()
        place.waiting += 1
        try:
            response = await place.upstream.post(path, body, request_id)
        except (Broken, TimedOut):
            place.failed(self._now())
            raise
        finally:
            place.waiting -= 1
        if response.status in TURNED_AWAY:
            place.failed(self._now(), _retry_after(response))
        else:
            place.answered()
        return response


@dataclass(eq=False)
class _Place:
    """An upstream, and how it has behaved lately."""

    upstream: Upstream
    waiting: int = 0
    """Requests sent there of which nothing has come yet."""
    failures: int = 0
    """In a row."""
    left_out_until: float = 0.0
    asked_at: float = 0.0

    @property
    def in_flight(self) -> int:
        return self.upstream.busy_count

    def may_be_asked(self, now: float) -> bool:
        """Whether it is well, or was left out long enough and nobody tries it yet."""
        return not self.failures or (now >= self.left_out_until and not self.waiting)

    def answered(self) -> None:
        self.failures = 0

    def failed(self, now: float, retry_after: float | None = None) -> None:
        if self.failures and now < self.left_out_until:
            return  # requests that were under way together fail together: that is one failure
        pause = FIRST_PAUSE_SECONDS * 2 ** min(self.failures, 10) if retry_after is None else retry_after
        self.failures += 1
        self.left_out_until = now + min(pause, LONGEST_PAUSE_SECONDS)


def _retry_after(response: Response) -> float | None:
    """Read how long a server wants to be left alone, where it says so in seconds."""
    for name, value in response.headers:
        if name == b"retry-after":
            with suppress(ValueError):
                return max(0.0, float(value))
    return None
