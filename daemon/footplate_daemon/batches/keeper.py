"""The owner of all batches: each has a task that takes it through its life, from where it was left.

validating ─┬─ failed
            └─ in_progress ─┬─ finalizing ── completed
                            └─ expired
validating, in_progress ── cancelling ── cancelled
"""

import asyncio
import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from footplate_daemon.batches import lines
from footplate_daemon.batches.asking import Gateway, ask_of
from footplate_daemon.batches.crew import (
    BACK_OFF_SECONDS,
    CHAT_PAUSE_SECONDS,
    WINDOW_SECONDS,
    Switcher,
    Tools,
)
from footplate_daemon.batches.files import Files, new_file_id
from footplate_daemon.batches.lanes import PAUSES_SECONDS, Lanes, Surroundings
from footplate_daemon.batches.live import LiveBatch
from footplate_daemon.batches.mending import mend
from footplate_daemon.batches.output import Fault, no_fault
from footplate_daemon.batches.recorder import RETRY_SECONDS, Recorder
from footplate_daemon.batches.validation import Findings, Limits, Stopped, Validation
from footplate_daemon.batches.writing_off import write_off
from footplate_daemon.errors import Busy, Conflict, FootplateError, Invalid, NotFound, Unavailable
from footplate_daemon.events import Topic
from footplate_daemon.gateway.chats import Chats
from footplate_daemon.settings import Batches as BatchSettings
from footplate_daemon.store.batches import BatchStore, NewLine, StoredBatch
from footplate_daemon.store.files import Owner, StoredFile
from footplate_daemon.wire_batches import (
    COMPLETION_SECONDS,
    BatchError,
    BatchStatus,
    BatchWish,
    FilePurpose,
)

logger = logging.getLogger(__name__)

TICK_SECONDS = 1.0
METERED_TICKS = 5
FORGET_EVERY_SECONDS = 6 * 3600.0
FORGET_AFTER_SECONDS = 90 * 86_400
"""After so long the rows of a batch's lines are deleted; its files stay, and so does its own row."""
MIB = 1024 * 1024


@dataclass(frozen=True)
class Patience:
    """How long batches wait for what; tests have less of it."""

    retry: Sequence[float] = BACK_OFF_SECONDS
    engine: Sequence[float] = PAUSES_SECONDS
    disk: float = RETRY_SECONDS
    window: float = WINDOW_SECONDS
    chat: float = CHAT_PAUSE_SECONDS


class Batches:
    """Makes, runs and ends batches; `run` must be running for anything to happen."""

    def __init__(
        self,
        store: BatchStore,
        files: Files,
        gateway: Gateway,
        chats: Chats,
        switcher: Switcher,
        surroundings: Surroundings,
        rules: BatchSettings,
        *,
        line_bytes: Callable[[], int] = lambda: 128 * MIB,
        watts: Callable[[], float | None] = lambda: None,
        window: Callable[[bool], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
        fault: Fault = no_fault,
        patience: Patience | None = None,
    ) -> None:
        self._patience = patience = patience or Patience()
        self.rules = rules
        """Replaced when the configuration changes."""
        self.store = store
        self.files = files
        self.topic: Topic[None] = Topic(lambda: None)
        """Changes whenever any batch has come further."""
        self.gateway = gateway
        self._line_bytes = line_bytes
        self._watts = watts
        self._window = window
        self._clock = clock
        self._fault = fault
        self.recorder = Recorder(
            store,
            files.folder,
            lambda: self.rules.min_free_mib * MIB,
            fault=fault,
            retry_seconds=patience.disk,
            changed=self._disk_changed,
        )
        tools = Tools(
            gateway,
            chats,
            switcher,
            store,
            self.recorder,
            lambda: self.rules.max_concurrency,
            patience.retry,
            patience.window,
            patience.chat,
        )
        self.lanes = Lanes(tools, surroundings, changed=self.topic.changed, pauses=patience.engine)
        self._live: dict[str, LiveBatch] = {}
        self._taken_up = asyncio.Event()
        """Set when those are under way that an earlier daemon left."""
        self._tasks: asyncio.TaskGroup | None = None

    # Its task

    async def run(self) -> None:
        """Go on with every batch that has not ended, and with those that come, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                recording = tasks.create_task(self.recorder.run(), name="record batches")
                tasks.create_task(self.lanes.run(), name="batch lanes")
                tasks.create_task(self.files.sweep(), name="sweep files")
                tasks.create_task(self._forget(), name="forget lines")
                tasks.create_task(self._tick(), name="meter batches")
                for row in await self.store.unfinished():
                    self._begin(row)
                self._taken_up.set()
                await recording
            finally:
                self._tasks = None

    def _begin(self, row: StoredBatch) -> None:
        if self._tasks is None:
            raise Unavailable(
                "The daemon is being stopped.", hint="Ask again when it is back.", retry_after=2
            )
        live = LiveBatch(row, self.files.folder, self._fault)
        self._live[row.id] = live
        self._tasks.create_task(self._follow(live), name=f"batch {row.id}")

    # What others ask of it

    async def create(self, wish: BatchWish, owner: Owner, allowed_models: Sequence[str] = ()) -> StoredBatch:
        """Make a batch, to be looked through at once; raise `Invalid` for an endpoint that is none."""
        if wish.endpoint not in lines.ENDPOINTS:
            raise Invalid(
                f"Invalid value: '{wish.endpoint[:100]}'. Batches are not supported for this endpoint.",
                param="endpoint",
                hint=f"Supported are: {', '.join(lines.ENDPOINTS)}.",
            )
        await self._taken_up.wait()
        now = self._now()
        file = await self._input(wish.input_file_id, owner)
        after = wish.output_expires_after
        row = await self.store.create(
            StoredBatch(
                id=f"batch_{secrets.token_hex(16)}",
                owner=owner,
                endpoint=wish.endpoint,
                input_file_id=wish.input_file_id,
                created_at=now,
                expires_at=now + COMPLETION_SECONDS,
                output_file_id=new_file_id(),
                error_file_id=new_file_id(),
                allowed_models=tuple(allowed_models),
                input_filename=file.filename if file is not None else None,
                input_bytes=file.bytes if file is not None else None,
                metadata=wish.metadata,
                output_expires_seconds=after.seconds if after is not None else None,
            )
        )
        self._fault("created")
        self._begin(row)
        self.topic.changed()
        return row

    async def _input(self, file_id: str, owner: Owner) -> StoredFile | None:
        """Give the input file; None where there is none: the batch will say so, when it is looked through."""
        try:
            return await self.files.get(file_id, owner)
        except NotFound:
            return None

    async def get(self, batch_id: str, owner: Owner) -> StoredBatch:
        """Give a batch as it is now; raise `NotFound`."""
        return await self.store.get(batch_id, owner)

    async def cancel(self, batch_id: str, owner: Owner) -> StoredBatch:
        """Have a batch end; raise `NotFound`, or `Conflict` when it has ended already."""
        await self._taken_up.wait()
        row = await self.store.get(batch_id, owner)
        live = self._live.get(batch_id)
        if live is None:
            raise _cannot_cancel(row.status)
        async with live.changing:
            if live.row.status not in {"validating", "in_progress", "cancelling"}:
                raise _cannot_cancel(live.row.status)
            if live.row.status != "cancelling":
                await self._change(live, status="cancelling", cancelling_at=self._now())
                self._fault("cancelling")
        return live.row

    def live(self, batch_id: str) -> LiveBatch | None:
        """Give a batch that has not ended, to be shown."""
        return self._live.get(batch_id)

    def all_live(self) -> list[LiveBatch]:
        """Give those that have not ended, to be counted."""
        return list(self._live.values())

    @property
    def has_taken_up(self) -> bool:
        """Whether those are under way that an earlier daemon left."""
        return self._taken_up.is_set()

    def take_up(self, rules: BatchSettings) -> None:
        """Use a changed configuration."""
        self.rules = rules
        self.lanes.news()

    # A batch's life

    async def _follow(self, live: LiveBatch) -> None:
        """Take a batch to its end; what the disk or the database does not allow now is tried again."""
        try:
            while True:
                try:
                    await self._go_on(live)
                    break
                except (FootplateError, OSError) as error:
                    live.trouble = str(error)
                    logger.warning("a batch pauses", extra={"batch": live.id, "cause": str(error)})
                    self.topic.changed()
                    await asyncio.sleep(self._patience.disk)
                await self._begin_anew(live)
        finally:
            live.close()
            del self._live[live.id]
            self.topic.changed()

    async def _begin_anew(self, live: LiveBatch) -> None:
        await self.recorder.flush()
        live.close()
        with contextlib.suppress(FootplateError):
            live.take_row(await self.store.get(live.id, live.row.owner))
            live.trouble = None

    async def _go_on(self, live: LiveBatch) -> None:
        """Take a batch from the status that it has to its end."""
        if live.row.status == BatchStatus.VALIDATING:
            await self._validate(live)
        elif live.row.in_progress_at is not None:
            await mend(live, self.store)
            self._fault("mended")
        else:  # it was cancelled before it was looked through
            await self.store.clear_lines(live.key)
        if live.row.status == BatchStatus.IN_PROGRESS:
            await self._process(live)
        if not BatchStatus(live.row.status).is_final:
            await self._end(live)
        await self.files.forget_unneeded(
            live.row.input_file_id, live.row.output_file_id, live.row.error_file_id
        )

    async def _validate(self, live: LiveBatch) -> None:
        await self.store.clear_lines(live.key)
        found = await self._look_through(live)
        self._fault("looked through")
        async with live.changing:
            if live.row.status == BatchStatus.CANCELLING:
                await self.store.clear_lines(live.key)
            elif found.is_good:
                await self._change(
                    live,
                    status="in_progress",
                    in_progress_at=self._now(),
                    total=found.total,
                    models=tuple(found.models),
                )
                self._fault("in progress")
            else:
                await self.store.clear_lines(live.key)
                errors = tuple(error.model_dump() for error in found.all_errors())
                await self._change(live, status="failed", failed_at=self._now(), errors=errors)

    async def _look_through(self, live: LiveBatch) -> Findings:
        """Validate the input file in a thread; it ends when the batch is cancelled, or the daemon."""
        if live.row.input_bytes is None:
            message = f"No such File object: {live.row.input_file_id[:100]}"
            error = BatchError(code="invalid_input_file", message=message, param="input_file_id")
            return Findings(errors=[error])
        is_over = threading.Event()
        loop = asyncio.get_running_loop()

        def hand_on(some: Sequence[NewLine]) -> None:
            if is_over.is_set() or live.row.status == BatchStatus.CANCELLING:
                raise Stopped
            self._fault("handing lines on")
            asyncio.run_coroutine_threadsafe(self.store.add_lines(live.key, some), loop).result()

        limits = Limits(self._line_bytes())
        live.validation = Validation(
            live.row.endpoint, limits, lambda model: self._judge(live.row, model), hand_on
        )
        looking = asyncio.ensure_future(asyncio.to_thread(live.validation.run, live.input_path))
        try:
            return await asyncio.shield(looking)
        except Stopped:
            return Findings()
        finally:
            is_over.set()
            live.validation = None
            await asyncio.wait({looking})
            looking.exception()  # nobody else may be there any more to hear of it

    def _judge(self, row: StoredBatch, model: str) -> BatchError | None:
        """Say what is wrong with a model that lines name."""
        try:
            variant = self.gateway.resolve_for(ask_of(row.id, row.endpoint, {"model": model}))
            self.gateway.check_path(variant, row.endpoint)
        except NotFound as error:
            message = f"The model '{model[:100]}' does not exist. {error.hint or ''}".strip()
            return BatchError(code="model_not_found", message=message, param="body.model")
        except FootplateError as error:
            return BatchError(code="invalid_request", message=error.message, param="body.model")
        allowed = row.allowed_models
        if allowed and variant.model not in allowed and variant.name not in allowed:
            message = f"The key is not for the model '{model[:100]}'."
            return BatchError(code="model_not_found", message=message, param="body.model")
        return None

    async def _process(self, live: LiveBatch) -> None:
        """Have the lines asked until all are done, its time is over or it is cancelled."""
        live.is_leaving = False
        await self.lanes.add(live)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, live.row.expires_at - self._clock())):
                    await self._until_over(live)
        finally:
            await self.lanes.withdraw(live)
        await self.recorder.flush()

    async def _until_over(self, live: LiveBatch) -> None:
        while not live.is_done and live.row.status == BatchStatus.IN_PROGRESS:
            live.changed.clear()
            await live.changed.wait()

    async def _end(self, live: LiveBatch) -> None:
        status = live.row.status
        if status == BatchStatus.CANCELLING:
            await write_off(live, self.store, self.recorder, "batch_cancelled", lines.BATCH_CANCELLED)
            await self._finish(live, status="cancelled", cancelled_at=self._now())
        elif not live.is_done:
            await write_off(live, self.store, self.recorder, "batch_expired", lines.BATCH_EXPIRED)
            await self._finish(live, status="expired", expired_at=self._now())
        else:
            async with live.changing:
                if live.row.status == BatchStatus.IN_PROGRESS:
                    await self._change(live, status="finalizing", finalizing_at=self._now())
                    self._fault("finalizing")
            if live.row.status == BatchStatus.CANCELLING:
                await self._finish(live, status="cancelled", cancelled_at=self._now())
            else:
                await self._finish(live, status="completed", completed_at=self._now())

    async def _finish(self, live: LiveBatch, **columns: object) -> None:
        """Make the files known and end the batch, all at once."""
        row = live.row
        now = self._now()
        after = row.output_expires_seconds
        files = [
            StoredFile(
                file_id,
                row.owner,
                FilePurpose.BATCH_OUTPUT.value,
                f"{row.id}_{kind}.jsonl",
                size,
                now,
                None if after is None else now + after,
            )
            for file_id, kind, size in (
                (row.output_file_id, "output", row.output_bytes),
                (row.error_file_id, "error", row.error_bytes),
            )
            if size
        ]
        live.take_row(await self.store.finish(row.key, files, **columns))
        self._fault("finished")
        logger.info(
            "batch ended", extra={"batch": row.id, "status": live.row.status, "failed": live.row.failed}
        )

    async def _change(self, live: LiveBatch, **columns: object) -> None:
        live.take_row(await self.store.change(live.key, **columns))
        self.topic.changed()

    def _now(self) -> int:
        return int(self._clock())

    # Now and then

    async def _tick(self) -> None:
        """Meter what runs, tell followers how it goes, and open and shut the window, once a second."""
        ticks = 0
        while True:
            self._window(self.rules.is_window_open(datetime.now()))  # noqa: DTZ005 - the machine's own hours
            running = [live for live in self._live.values() if live.in_flight]
            watts = self._watts() if running else None
            in_flight = sum(live.in_flight for live in running)
            for live in self._live.values():
                if not live.in_flight:
                    live.pace.end()
                else:
                    share = live.in_flight / in_flight
                    joules = None if watts is None else watts * share * TICK_SECONDS
                    live.meter(TICK_SECONDS, joules)
            if self._live:
                self.topic.changed()
            ticks += 1
            if ticks % METERED_TICKS == 0:
                await self._store_meters()
            await asyncio.sleep(TICK_SECONDS)

    async def _store_meters(self) -> None:
        for live in list(self._live.values()):
            seconds, joules = live.take_meter()
            if seconds:
                with contextlib.suppress(Busy, Unavailable):
                    await self.store.add_time(live.key, seconds, joules)

    async def _forget(self) -> None:
        """Delete the rows of lines that are of no use any more, a little at a time."""
        while True:
            with contextlib.suppress(Busy, Unavailable):
                while await self.store.forget_lines(self._clock() - FORGET_AFTER_SECONDS):
                    pass
            await asyncio.sleep(FORGET_EVERY_SECONDS)

    def _disk_changed(self) -> None:
        self.lanes.wake()
        self.topic.changed()


def _cannot_cancel(status: str) -> Conflict:
    return Conflict(
        f"Cannot cancel a batch with status '{status}'.",
        param="id",
        hint="GET /v1/batches/{id} tells how it ended.",
    )
