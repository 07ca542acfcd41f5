"""The measuring client: sends requests to an engine, so many at a time, and notes when what came.

While it measures it reads nothing of an answer: each piece of bytes is kept with the time at which it came.
`reading` makes requests of them afterwards, so that the client stays far from being the bottleneck.
"""

import asyncio
import time
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from footplate_daemon.benchmarks.workloads import Prompt
from footplate_daemon.errors import FootplateError, TimedOut
from footplate_daemon.gateway.engine_errors import reshape
from footplate_daemon.gateway.upstream import Broken, Response, Upstream
from footplate_daemon.ids import new_request_id
from footplate_daemon.runtimes.base import Translation
from footplate_daemon.wire_benchmarks import ErrorKind

DEATH_SECONDS = 0.3
"""A broken connection is noticed before the death behind it: so long nothing more is asked."""
ERROR_BYTES = 64 * 1024
"""Of an answer that is an error, so much is read."""
LOOSE_BYTES = 64 * 1024 * 1024
"""Bytes of answers beyond which each that ends is packed: half a millisecond for a few hundred events."""


@dataclass(frozen=True)
class Request:
    """A request, written before anything is measured."""

    prompt: Prompt
    path: str
    body: bytes
    translation: Translation | None
    """What turns its answer into OpenAI's form, if anything has to; for this one answer."""


@dataclass
class Measured:
    """What was noted of one request."""

    request: Request
    started_at: float
    """Of `time.perf_counter`, as are all times here."""
    ended_at: float | None = None
    """None while it runs, and when it was cut off."""
    times: "array[float]" = field(default_factory=lambda: array("d"))
    pieces: list[bytes] = field(default_factory=list)
    """What came at each of the times, until it is packed."""
    error_kind: ErrorKind | None = None
    error: str | None = None
    _packed: bytes = b""
    _lengths: "array[int]" = field(default_factory=lambda: array("L"))

    def pack(self) -> None:
        """Keep it small: events repeat themselves."""
        self._lengths = array("L", map(len, self.pieces))
        self._packed = zlib.compress(b"".join(self.pieces), 1)
        self.pieces = []

    def unpacked(self) -> list[bytes]:
        """Give the pieces as they came."""
        if not self._packed:
            return self.pieces
        body, ends = zlib.decompress(self._packed), list(accumulate(self._lengths, initial=0))
        return [body[start:end] for start, end in pairwise(ends)]


@dataclass
class Tally:
    """What can be said of a cell while it runs, at no cost."""

    began_at: float = 0.0
    ended_at: float | None = None
    running: int = 0
    completed: int = 0
    failed: int = 0
    events: int = 0
    """Pieces' events so far: about the tokens."""
    first_tokens: list[float] = field(default_factory=list)
    """Seconds to the first token, of those that came since somebody looked."""

    @property
    def duration_seconds(self) -> float:
        """From the first request to the end of the last, or to now."""
        return (time.perf_counter() if self.ended_at is None else self.ended_at) - self.began_at


class Client:
    """Measures one cell; what it has noted so far can be had at any time."""

    def __init__(self, upstream: Upstream, timeout_seconds: float) -> None:
        self.measured: list[Measured] = []
        self.tally = Tally()
        self._upstream = upstream
        self._timeout_seconds = timeout_seconds
        self._loose_bytes = 0

    async def run(self, requests: Sequence[Request], concurrency: int) -> None:
        """Send every request, at most so many at a time; requests that fail are noted, nothing is raised."""
        waiting = iter(requests)
        self.tally.began_at = time.perf_counter()
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(concurrency, len(requests))):
                    tasks.create_task(self._work(waiting))
        finally:
            self.tally.ended_at = time.perf_counter()

    async def _work(self, waiting: Iterator[Request]) -> None:
        for request in waiting:
            await self._ask(request)

    async def _ask(self, request: Request) -> None:
        tally = self.tally
        request_id = new_request_id()
        tally.running += 1
        measured = Measured(request, time.perf_counter())
        self.measured.append(measured)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                async with await self._upstream.post(request.path, request.body, request_id) as response:
                    await self._listen(response, measured)
        except TimeoutError:
            measured.error_kind = "timeout"
            measured.error = f"It took longer than {self._timeout_seconds:g} s."
        except FootplateError as error:
            measured.error_kind = "timeout" if isinstance(error, TimedOut) else "connection"
            measured.error = error.message
            if isinstance(error, Broken):
                await asyncio.sleep(DEATH_SECONDS)
        finally:
            tally.running -= 1
        measured.ended_at = time.perf_counter()
        self._loose_bytes += sum(map(len, measured.pieces))
        if self._loose_bytes > LOOSE_BYTES:
            measured.pack()
        if measured.error_kind is None:
            tally.completed += 1
        else:
            tally.failed += 1

    async def _listen(self, response: Response, measured: Measured) -> None:
        if response.status != 200:
            measured.error_kind = "refused" if response.status < 500 else "server"
            body = await response.read(ERROR_BYTES)
            _, said = reshape(response.status, body, self._upstream.name)
            measured.error = f"HTTP {response.status}: {said['error']['message']}"
            return
        tally, times, pieces = self.tally, measured.times, measured.pieces
        now = time.perf_counter

        def note(piece: bytes) -> None:
            at = now()
            if not times:
                tally.first_tokens.append(at - measured.started_at)
            times.append(at)
            pieces.append(piece)
            tally.events += piece.count(b"\n\n") or 1

        await response.relay(note)
