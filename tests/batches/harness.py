"""Batches with a real database and real files; the gateway and the engines are played.

What the play does not do: it has no switching, and its answers come at once.
"""

import asyncio
import json
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from footplate_daemon.batches.asking import Gateway
from footplate_daemon.batches.crew import Switcher
from footplate_daemon.batches.files import Files
from footplate_daemon.batches.keeper import Batches, Patience
from footplate_daemon.batches.lanes import Surroundings
from footplate_daemon.batches.output import Fault, no_fault
from footplate_daemon.catalog import Variant
from footplate_daemon.errors import FootplateError, NotFound
from footplate_daemon.gateway.answering import Ask
from footplate_daemon.gateway.chats import Chats
from footplate_daemon.gateway.sse import Usage
from footplate_daemon.runtimes.base import Load
from footplate_daemon.settings import Batches as BatchSettings
from footplate_daemon.store import batch_migrations
from footplate_daemon.store.batches import BatchStore, StoredBatch
from footplate_daemon.store.database import Database
from footplate_daemon.store.files import FileStore, Owner
from footplate_daemon.switching.machine import Target
from footplate_daemon.wire import Switch
from footplate_daemon.wire_batches import BatchStatus, BatchWish, FilePurpose

ANN = Owner("ann", by_key=False)
CHAT = "/v1/chat/completions"
AT_ONCE = Patience(retry=(0.0,), engine=(0.0,), disk=0.01, window=0.02, chat=0.0)
PATIENCE_SECONDS = 60


@dataclass
class Play:
    """The gateway and the switcher of a daemon."""

    answers: Callable[[Ask], Any] = lambda _: None
    """What becomes of a request: None is an answer, an int is a status, an error is raised."""
    models: frozenset[str] = frozenset({"m", "other"})
    asked: Counter[str] = field(default_factory=Counter)
    """How often each question was asked."""
    order: list[str] = field(default_factory=list)
    """The models of the requests in their order."""
    leased: list[str] = field(default_factory=list)
    """The variants that were switched to."""
    loading: set[str] = field(default_factory=set)
    """The variants whose engines are being started, without an end."""
    refusals: list[FootplateError] = field(default_factory=list)
    """What the next leases are refused with."""
    under_way: int = 0
    most_under_way: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Answers wait for it."""
    chats: Chats = field(default_factory=Chats)
    slots: int | None = None
    """So many are answered at a time, and the engine says how many wait; None: it says nothing."""

    wanted: Target | None = None
    """What is wanted; a lease changes it, as a switch does."""
    brought_back: list[Target] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()

    def resolve_for(self, ask: Ask) -> Variant:
        if ask.model not in self.models:
            raise NotFound(f"There is no model {ask.model}.", hint="There is: m, other.", param="model")
        return cast("Variant", SimpleNamespace(name=f"play/{ask.model}", model=ask.model, runtime="play"))

    def check_path(self, variant: Variant, path: str) -> None:
        assert variant.name
        assert path.startswith("/v1/")

    async def answer(self, ask: Ask, respond: Callable[[Any], Awaitable[None]]) -> None:
        variant = self.resolve_for(ask)  # before anything else of it is looked at, as the gateway does
        question = str(ask.body["messages"][-1]["content"])
        self.asked[question] += 1
        self.order.append(str(ask.model))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
            becomes = self.answers(ask)
            if isinstance(becomes, BaseException):
                raise becomes
            await respond(_Answering(variant, question, becomes or 200))
        finally:
            self.under_way -= 1

    @asynccontextmanager
    async def lease(
        self, variant: str, *, waiting: Callable[[Switch | None], Awaitable[None]], **_: object
    ) -> AsyncIterator[Any]:
        if self.refusals:
            raise self.refusals.pop(0)
        self.leased.append(variant)
        while variant in self.loading:
            await waiting(Switch(id=1, variant=variant, started_at=0.0))
            await asyncio.sleep(0.002)
        self.wanted = Target(variant)
        yield SimpleNamespace(attempt=1)

    async def ask_load(self, _attempt: int) -> Load:
        if self.slots is None:
            return Load()
        running = min(self.under_way, self.slots)
        return Load(running=running, waiting=self.under_way - running, generated=float(self.under_way))


class _Answering:
    def __init__(self, variant: Variant, question: str, status: int) -> None:
        self.response = SimpleNamespace(status=status)
        self.lease = SimpleNamespace(progressed=lambda: None)
        self.usage = Usage(prompt_tokens=5, completion_tokens=3, cached_tokens=2)
        self._question = question
        self._model = variant.model

    async def whole(self, _limit: int) -> bytes:
        message = {"role": "assistant", "content": f"{self._model}: {self._question}"}
        usage = {
            "prompt_tokens": 5,
            "completion_tokens": 3,
            "total_tokens": 8,
            "prompt_tokens_details": {"cached_tokens": 2},
        }
        return json.dumps({"choices": [{"index": 0, "message": message}], "usage": usage}).encode()

    async def failure(self) -> tuple[int, dict[str, Any]]:
        status = self.response.status
        return status, {"error": {"message": "It went wrong.", "type": "x", "code": "wrong", "param": None}}


@dataclass
class Running:
    """Batches at work."""

    batches: Batches
    files: Files
    play: Play
    task: "asyncio.Task[None]"

    async def submit(self, content: bytes, endpoint: str = CHAT, **wish: Any) -> StoredBatch:
        """Store a file and make a batch of it."""
        file_id = await self.store(content)
        asked = BatchWish(input_file_id=file_id, endpoint=endpoint, **wish)
        return await self.batches.create(asked, ANN)

    async def store(self, content: bytes) -> str:
        upload = self.files.receive()
        try:
            upload.write(content, 1 << 30)
            return (await self.files.keep(upload, ANN, FilePurpose.BATCH, "in.jsonl")).id
        finally:
            upload.close()

    async def until(self, batch_id: str, holds: Callable[[StoredBatch], bool]) -> StoredBatch:
        """Wait until this holds of a batch."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for _ in self.batches.topic.follow():
                row = await self.batches.get(batch_id, ANN)
                if holds(row):
                    return row
        raise AssertionError

    async def ended(self, batch_id: str) -> StoredBatch:
        """Wait until a batch has ended, and nothing of it is under way."""
        return await self.until(
            batch_id, lambda row: BatchStatus(row.status).is_final and self.batches.live(batch_id) is None
        )

    def output(self, row: StoredBatch) -> list[dict[str, Any]]:
        return read_lines(self.files.path(row.output_file_id))

    def errors(self, row: StoredBatch) -> list[dict[str, Any]]:
        return read_lines(self.files.path(row.error_file_id))


@asynccontextmanager
async def running(
    folder: Path,
    play: Play | None = None,
    *,
    fault: Fault = no_fault,
    rules: BatchSettings | None = None,
    clock: Callable[[], float] | None = None,
    patience: Patience = AT_ONCE,
) -> AsyncIterator[Running]:
    """Run batches over a folder until the end of the block."""
    play = play or Play()
    clock = clock or time.time
    async with Database.open(folder / "batches.db", batch_migrations.MIGRATIONS) as database:
        files = Files(folder / "files", FileStore(database), clock)
        await files.open()
        batches = Batches(
            BatchStore(database),
            files,
            cast("Gateway", play),
            play.chats,
            cast("Switcher", SimpleNamespace(lease=play.lease, load=play.ask_load)),
            Surroundings(
                is_apart=lambda _: False,
                is_ours=lambda _: True,
                active=lambda: None,
                may_switch_at=lambda: 0,
                wanted=lambda: play.wanted,
                bring_back=play.brought_back.append,
            ),
            rules or BatchSettings(min_free_mib=0),
            fault=fault,
            patience=patience,
            clock=clock,
        )
        task = asyncio.ensure_future(batches.run())
        try:
            await until(lambda: batches.has_taken_up or task.done())
            yield Running(batches, files, play, task)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def line(custom_id: str, model: str = "m", url: str = CHAT, **body: Any) -> dict[str, Any]:
    """Give a good line, whose question is its id."""
    asked = {"model": model, "messages": [{"role": "user", "content": custom_id}], **body}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": asked}


def written(lines: Iterable[Any]) -> bytes:
    """Write lines as a file has them."""
    return b"".join(json.dumps(each).encode() + b"\n" for each in lines)


def many(count: int, **more: Any) -> bytes:
    """Write a file of so many good lines."""
    return written(line(f"line-{number}", **more) for number in range(count))


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(raw) for raw in path.read_bytes().splitlines()] if path.exists() else []


def ids(lines: Sequence[dict[str, Any]]) -> list[str]:
    return sorted(each["custom_id"] for each in lines)


async def until(holds: Callable[[], object]) -> None:
    """Wait for what nobody announces."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not holds():  # noqa: ASYNC110 - nobody sets an event
            await asyncio.sleep(0.002)


def snapshot(folder: Path) -> bytes:
    """Give the database as it is now, whole."""
    with sqlite3.connect(folder / "batches.db") as source:
        return source.serialize()
