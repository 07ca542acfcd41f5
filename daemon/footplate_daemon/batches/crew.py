"""Asks the lines for one variant, as many at a time as its engine takes, while it holds that engine.

It holds a lease of its own as long as it works: the switch, if one is needed, happens once and before any
line is asked, and when the engine is taken away for somebody who chats, all of it ends at once.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, replace
from typing import Protocol

from footplate_daemon.batches import lines
from footplate_daemon.batches.asking import Again, Done, Gateway, Outcome, ask_line
from footplate_daemon.batches.live import LiveBatch
from footplate_daemon.batches.output import read_at
from footplate_daemon.batches.recorder import Recorder
from footplate_daemon.batches.throttle import Throttle, Window
from footplate_daemon.batches.waiting_lines import Item, WaitingLines
from footplate_daemon.errors import EngineFailed
from footplate_daemon.gateway.chats import Chats
from footplate_daemon.ids import new_request_id
from footplate_daemon.runtimes.base import Load
from footplate_daemon.store.batches import BatchStore, Failure, LineState, Trouble
from footplate_daemon.switching.leases import Lease
from footplate_daemon.wire import Switch

LARGE_LINE = 256 * 1024
"""Bytes above which a line is read in a thread: the disk may take its time."""
WINDOW_SECONDS = 0.5
CHAT_PAUSE_SECONDS = 3.0
"""So long after a chat there may be another: a batch that came back at once would be in its way."""
ATTEMPTS = 6
"""Times that an engine may have an error of its own for a line, or no room."""
DEATHS = 3
"""Times that an engine may die with a line: it may be the line that kills it."""
BACK_OFF_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


class Switcher(Protocol):
    """What batches need of the switcher."""

    def lease(
        self,
        variant: str,
        *,
        interactive: bool = True,
        waiting: Callable[[Switch | None], Awaitable[None]] | None = None,
    ) -> AbstractAsyncContextManager[Lease]:
        """Hold an engine of the variant for the length of the block."""

    async def load(self, attempt: int) -> Load:
        """Ask an engine how busy it is."""


@dataclass(frozen=True)
class Tools:
    """What every crew works with."""

    gateway: Gateway
    chats: Chats
    switcher: Switcher
    store: BatchStore
    recorder: Recorder
    most: Callable[[], int]
    """How many lines may be asked at a time at most."""
    back_off: Sequence[float] = BACK_OFF_SECONDS
    window_seconds: float = WINDOW_SECONDS
    chat_pause_seconds: float = CHAT_PAUSE_SECONDS


class Crew:
    """One stretch of work on one variant; make a new one for the next."""

    def __init__(
        self,
        tools: Tools,
        variant: str,
        *,
        is_ours: bool,
        tell: Callable[[Switch | None], Awaitable[None]],
    ) -> None:
        """Where the engine `is_ours`, what breaks off has died; `tell` hears of the switch it waits for."""
        self.variant = variant
        self.has_engine = False
        self.has_worked = False
        self._tools = tools
        self._is_ours = is_ours
        self._tell = tell
        self._throttle = Throttle(tools.most())
        self._waiting = WaitingLines(tools.store)
        self._batches: set[LiveBatch] = set()
        self._running: dict[asyncio.Task[None], Item] = {}
        self._preempted: set[asyncio.Task[None]] = set()
        self._suspects: deque[Item] = deque()
        """Lines with which an engine died: asked last, and each alone."""
        self._suspect: Item | None = None
        self._cut_off: list[Item] = []
        """What was being asked when the engine was lost."""
        self._changed = asyncio.Event()
        self._lines_done = self._tokens_done = 0

    def take_up(self, live: LiveBatch, models: Sequence[int]) -> None:
        """Ask the lines of a batch for these of its models, too."""
        self._batches.add(live)
        self._waiting.take_up(live, models)
        self.news()

    @property
    def is_wanted(self) -> bool:
        """Whether there is a batch left that it works for."""
        return bool(self._batches)

    def news(self) -> None:
        """Hear that something is not what it was."""
        self._changed.set()

    async def work(self) -> None:
        """Ask every line there is for the variant; return when none is left.

        Raise what the switcher says when there is no engine, or it is lost: what was being asked is still
        pending then.
        """
        chats = self._tools.chats
        chats.listeners.append(self._chat_changed)
        try:
            async with self._tools.switcher.lease(
                self.variant, interactive=False, waiting=self._tell
            ) as lease:
                await self._hold(lease)
        except EngineFailed as error:
            if "diagnosis" in error.details:
                for item in self._cut_off:
                    self._tools.recorder.note(item.live, Trouble(item.line.number, deaths=1))
            raise
        finally:
            self.has_engine = False
            chats.listeners.remove(self._chat_changed)

    async def withdraw(self, live: LiveBatch) -> None:
        """Ask nothing more of a batch, and end what is being asked of it; return when that has ended."""
        self._waiting.drop(live)
        self._batches.discard(live)
        self._suspects = deque(item for item in self._suspects if item.live is not live)
        tasks = [task for task, item in self._running.items() if item.live is live]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self.news()

    async def _hold(self, lease: Lease) -> None:
        self.has_engine = self.has_worked = True
        self._show()
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._watch(lease), name="watch engine")
            await self._ask_all(tasks)
            watching.cancel()

    # Asking

    async def _ask_all(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            self._changed.clear()
            if await self._fill(tasks) and not self._running and self._waiting.next_at is None:
                return
            has_room = len(self._running) < self._allowed()
            await self._news(self._waiting.next_at if has_room else None)

    async def _fill(self, tasks: asyncio.TaskGroup) -> bool:
        """Ask as many lines as may be asked now; say whether there is no other."""
        while len(self._running) < self._allowed():
            item = await self._waiting.next(_now())
            if item is None:
                return not self._begin_suspect(tasks)
            if item.live.is_leaving:
                continue
            if item.line.deaths:
                self._suspects.append(item)
            else:
                self._begin(item, tasks)
        return False

    def _allowed(self) -> int:
        if self._suspect is not None or self._tools.recorder.problem is not None:
            return 0
        waiting = self._tools.chats.count(self.variant)
        return self._throttle.allowed(max(waiting, int(self._are_chatting())))

    def _are_chatting(self) -> bool:
        return self._tools.chats.are_going_on(self.variant, self._tools.chat_pause_seconds)

    def _begin_suspect(self, tasks: asyncio.TaskGroup) -> bool:
        """Ask one of the suspects once nothing else is being asked; say whether there are any."""
        if self._suspects and not self._running and self._waiting.next_at is None:
            self._suspect = self._suspects.popleft()
            self._begin(self._suspect, tasks)
            return True
        return bool(self._suspects)

    def _begin(self, item: Item, tasks: asyncio.TaskGroup) -> None:
        item.live.in_flight += 1
        item.live.pace.begin(_now())
        task = tasks.create_task(self._ask(item))
        self._running[task] = item
        task.add_done_callback(self._ended)

    async def _ask(self, item: Item) -> None:
        await self._take(item, await self._outcome(item))

    def _ended(self, task: "asyncio.Task[None]") -> None:
        item = self._running.pop(task)
        item.live.in_flight -= 1
        if item is self._suspect:
            self._suspect = None
        if task in self._preempted:
            self._preempted.discard(task)
            if task.cancelled():
                self._waiting.put_back(item)
        elif task.cancelled():
            self._cut_off.append(item)
        self.news()

    async def _outcome(self, item: Item) -> Outcome:
        live, line = item.live, item.line
        if line.deaths >= DEATHS:
            return _killer(live, item)
        try:
            if line.length > LARGE_LINE:
                raw = await asyncio.to_thread(read_at, live.input_path, line.offset, line.length)
            else:
                raw = read_at(live.input_path, line.offset, line.length)
            body = lines.body_of(raw)
        except (OSError, ValueError, KeyError) as error:
            message = f"The input file is not what it was: {error}."
            text = lines.never_asked(live.id, line.number, line.custom_id, "input_unreadable", message)
            return Done(LineState.FAILED, text, 0.0, failure=Failure("input_unreadable", 0, message))
        return await ask_line(
            self._tools.gateway, live.id, live.row.endpoint, line, body, is_ours=self._is_ours
        )

    async def _take(self, item: Item, outcome: Outcome) -> None:
        if isinstance(outcome, Done):
            self._lines_done += 1
            self._tokens_done += outcome.tokens.output or outcome.tokens.input
            await self._tools.recorder.put(item.live, item.line.number, outcome)
        elif outcome.is_interrupted:
            self._waiting.put_back(item)
        elif outcome.is_death:
            self._tools.recorder.note(item.live, Trouble(item.line.number, deaths=1))
            self._waiting.put_back(replace(item, line=replace(item.line, deaths=item.line.deaths + 1)))
        else:
            await self._put_off(item, outcome)

    async def _put_off(self, item: Item, outcome: Again) -> None:
        line, back_off = item.line, self._tools.back_off
        if outcome.is_full:
            self._throttle.overloaded()
        # What our own gateway has no room for is nothing about the line.
        counts = 0 if outcome.is_full and outcome.cause is not None else 1
        attempts = line.attempts + counts
        if attempts >= ATTEMPTS and outcome.last is not None:
            await self._tools.recorder.put(item.live, line.number, outcome.last)
            return
        self._tools.recorder.note(item.live, Trouble(line.number, attempts=counts))
        pause = back_off[min(attempts, len(back_off) - 1)]
        self._waiting.put_off(replace(item, line=replace(line, attempts=attempts)), _now() + pause)

    async def _news(self, until: float | None) -> None:
        if until is None:
            await self._changed.wait()
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, until - _now())):
                await self._changed.wait()

    # Making way

    def _chat_changed(self, variant: str) -> None:
        """Make way for somebody who chats: in an engine that is full, at once."""
        if variant != self.variant:
            return
        capacity = self._throttle.capacity
        if capacity is not None:
            surplus = len(self._running) + self._tools.chats.count(variant) - capacity
            for task in list(self._running)[::-1][: max(0, surplus)]:
                self._preempted.add(task)
                task.cancel()
        self.news()

    # Watching the engine

    async def _watch(self, lease: Lease) -> None:
        """Learn from window to window how many lines at a time are right."""
        began_at, generated, lines_before, tokens_before = _now(), None, 0, 0
        while True:
            await asyncio.sleep(self._tools.window_seconds)
            self.news()  # a pause between chats may be over
            load = await self._tools.switcher.load(lease.attempt)
            done = self._lines_done - lines_before
            if load.generated is None and done < max(1, self._throttle.limit // 2):
                continue  # too few to tell
            seconds = _now() - began_at
            if load.generated is not None and generated is not None:
                pace = (load.generated - generated) / seconds
            elif self._tokens_done > tokens_before:
                pace = (self._tokens_done - tokens_before) / seconds
            else:
                pace = done / seconds
            if not self._are_chatting():
                self._throttle.observe(Window(pace, len(self._running), load.waiting, load.running))
            began_at, generated = _now(), load.generated
            lines_before, tokens_before = self._lines_done, self._tokens_done
            self._show()
            self.news()

    def _show(self) -> None:
        for live in self._batches:
            live.concurrency = self._throttle.limit


def _killer(live: LiveBatch, item: Item) -> Done:
    error = EngineFailed(
        f"The engine died each of the {DEATHS} times that it had this line.",
        hint="See: footplate logs; footplate doctor",
    )
    line, body = item.line, lines.error_body(error)
    text = lines.refused(live.id, line.number, line.custom_id, error.http_status, new_request_id(), body)
    failure = lines.failure_of({"status_code": error.http_status, "body": body}, None)
    return Done(LineState.FAILED, text, 0.0, failure=failure)


def _now() -> float:
    return time.monotonic()
