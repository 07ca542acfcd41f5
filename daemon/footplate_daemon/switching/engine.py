"""One attempt at running a variant: from the command line until nothing of it is left.

Knows the process, its log and its port; decides nothing. The switcher owns it.
"""

import asyncio
import contextlib
import os
import re
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from footplate_daemon.catalog import Elsewhere, Variant
from footplate_daemon.errors import EngineFailed, FootplateError, Unavailable
from footplate_daemon.runtimes.base import Host, LaunchPlan, Load, Runtime
from footplate_daemon.supervisord import EngineRecord, Program, Supervisord
from footplate_daemon.switching.machine import Target
from footplate_daemon.switching.probe import Address
from footplate_daemon.switching.readiness import until_ready, until_up, warm_up
from footplate_daemon.switching.remote import address_of, what_is_wrong
from footplate_daemon.wire import Diagnosis, EngineState, StepName

LOG_LINES = 400
"""Lines of a log that a diagnosis reads."""
LOG_BYTES = 256 * 1024
WARM_UP_SECONDS = 120.0
PROGRESS_SECONDS = 0.2
HOST_ANSWER_SECONDS = 5.0
"""How long a host that runs already may take to answer."""
PORTS = range(20_000, 32_768)
"""Of engines: below those that Linux hands to whoever wants any (`ip_local_port_range` in ip(7)), which
may be another's between our look at one and the engine's."""
PORTS_TRIED = 200


class StartFailed(Exception):
    """The engine will not serve: its exit code, if it ended, or what stopped it from being started."""

    def __init__(
        self,
        exit_code: int | None,
        cause: FootplateError | None = None,
        diagnosis: Diagnosis | None = None,
    ) -> None:
        super().__init__(f"exit code {exit_code}" if cause is None else cause.message)
        self.exit_code = exit_code
        self.cause = cause
        self.diagnosis = diagnosis
        """Set where there is nothing left to find out."""


@dataclass
class Engine:
    """A variant being started, serving, or being stopped."""

    attempt: int
    target: Target
    variant: Variant
    runtime: Runtime
    log_file: Path
    host: Host | None = None
    """Set where many models share one process: this engine is then its hold on one of them."""
    state: EngineState = EngineState.STARTING
    since: float = field(default_factory=time.time)
    step: StepName = StepName.START
    detail: str = ""
    fraction: float | None = None
    memory_bytes: int | None = None
    """What its processes held when it was last measured."""
    load: Load = field(default_factory=Load)
    record: EngineRecord | None = None
    changed: Callable[[], None] = lambda: None
    """Called after each change that a client may want to see."""
    progressed_at: float = field(default_factory=time.monotonic)
    """When it last said something to a request, or a request came."""
    _launch: "asyncio.Future[EngineRecord] | None" = None
    _log_start: int = 0

    remote: Address | None = None
    """Where it listens when nothing is started for it."""
    plan: LaunchPlan | None = None
    """What it was launched with; set by `start`, or by adoption."""

    @property
    def name(self) -> str:
        """Its process's name under supervisord."""
        return self.runtime.name if self.host is not None else engine_name(self.variant.name)

    @property
    def context(self) -> int | None:
        """Longest prompt plus answer that it was launched with, in tokens."""
        return self.plan.context if self.plan is not None else None

    @property
    def address(self) -> Address:
        """Where it listens; only once it has been launched, or reached elsewhere."""
        if self.remote is not None:
            return self.remote
        assert self.record is not None, "an engine has an address only after its launch"  # noqa: S101
        return Address(self.record.port, self.record.api_key)

    async def start(self, supervisord: Supervisord, plan: LaunchPlan) -> None:
        """Return once it serves and is warm; raise `StartFailed` if it never will."""
        self.plan = plan
        self._log_start = self.log_file.stat().st_size if self.log_file.exists() else 0
        try:
            program = Program(
                self.name, self.runtime.launch(plan), self.log_file, _record(plan, self.target, self.runtime)
            )
            # Shielded: a cancelled start must not leave a process behind that nobody has recorded.
            self._launch = asyncio.ensure_future(supervisord.start(program))
            self.record = await asyncio.shield(self._launch)
        except FootplateError as error:
            raise StartFailed(error.details.get("exit_code"), error) from error
        await self.become_ready(supervisord)

    async def reach(self, elsewhere: Elsewhere) -> None:
        """As `start`, for a server that runs elsewhere; raise `StartFailed` if it cannot be used."""
        try:
            self.remote = await asyncio.to_thread(address_of, elsewhere)
        except FootplateError as error:
            raise StartFailed(None, error) from error
        self.enter(EngineState.LOADING, StepName.LOAD, "asking")
        wrong = await what_is_wrong(self.remote, self.runtime, self.variant.served_name)
        if wrong is not None:
            raise StartFailed(None, diagnosis=wrong)
        self.enter(EngineState.READY, StepName.WARM_UP)

    async def load_elsewhere(self, elsewhere: Elsewhere, plan: LaunchPlan) -> None:
        """As `start`, for a model in a host that somebody else runs."""
        assert self.host is not None, "only a host loads what it did not start with"  # noqa: S101
        self.plan = plan
        try:
            self.remote = await asyncio.to_thread(address_of, elsewhere)
        except FootplateError as error:
            raise StartFailed(None, error) from error
        self.enter(EngineState.LOADING, StepName.LOAD)
        try:
            async with asyncio.timeout(HOST_ANSWER_SECONDS):
                await until_up(self.remote, self.runtime, self.host)
        except TimeoutError as error:
            gone = EngineFailed(
                f"No {self.runtime.name} answers on {elsewhere.url}.",
                hint="Start it, or mend url in config.toml.",
            )
            raise StartFailed(None, gone) from error
        await self._load_in(self.host)
        self.enter(EngineState.READY, StepName.WARM_UP)

    async def become_ready(self, supervisord: Supervisord) -> None:
        """As `start`, for a process that runs already."""
        assert self.record is not None  # noqa: S101 - set by `start` or by adoption
        self.enter(EngineState.LOADING, StepName.LOAD)
        exited = asyncio.ensure_future(supervisord.exited(self.record))
        ready = asyncio.ensure_future(self._load())
        try:
            await asyncio.wait({exited, ready}, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                raise StartFailed(exited.result())
            ready.result()
        finally:
            for task in (exited, ready):
                task.cancel()
            await asyncio.gather(exited, ready, return_exceptions=True)
        self.enter(EngineState.READY, StepName.WARM_UP)

    async def generate_one_token(self, timeout_seconds: float) -> int | None:
        """Have it generate; give the HTTP status, None if it does not answer in time."""
        served_name = self.variant.served_name
        status = await warm_up(self.address, self.runtime, served_name, self.plan, timeout_seconds)
        for other in self.address.others:
            if status is not None and status < 500:
                break
            status = await warm_up(other, self.runtime, served_name, self.plan, timeout_seconds)
        return status

    async def settled(self) -> None:
        """Return when no launch is under way any more, however it ended."""
        if self._launch is not None:
            await asyncio.wait({self._launch})
            if not self._launch.cancelled() and self._launch.exception() is None:
                self.record = self._launch.result()

    def enter(self, state: EngineState, step: StepName | None = None, detail: str = "") -> None:
        """Note a new state."""
        if state != self.state:
            self.state, self.since = state, time.time()
        self.step, self.detail = step or self.step, detail
        self.changed()

    def progressed(self) -> None:
        """Note that it said something to a request."""
        self.progressed_at = time.monotonic()

    @property
    def silent_seconds(self) -> float:
        """How long it has said nothing to its requests."""
        return time.monotonic() - self.progressed_at

    def log(self, line_count: int = LOG_LINES) -> list[str]:
        """Give the last lines that this attempt has written."""
        try:
            with self.log_file.open("rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                start = self._log_start if self._log_start <= size else 0  # it was rotated meanwhile
                stream.seek(max(start, size - LOG_BYTES))
                return stream.read().decode(errors="replace").splitlines()[-line_count:]
        except FileNotFoundError:
            return []

    async def _load(self) -> None:
        progress = asyncio.ensure_future(self._follow_progress())
        try:
            if self.host is None:
                await self._load_alone()
            else:
                await self._load_in(self.host)
        finally:
            progress.cancel()

    async def _load_alone(self) -> None:
        await until_ready(self.address, self.runtime, self.variant.served_name)
        if "chat" not in self.variant.capabilities:
            return
        self.enter(EngineState.LOADING, StepName.WARM_UP)
        status = await self.generate_one_token(WARM_UP_SECONDS)
        if status is None or status >= 500:
            raise StartFailed(None, _did_not_answer(self.variant.name, status))

    async def _load_in(self, host: Host) -> None:
        await until_up(self.address, self.runtime, host)
        parameters = self.plan.parameters if self.plan is not None else {}
        try:
            await host.load_model(
                self.address,
                self.variant.served_name,
                self.context,
                parameters,
                capabilities=self.variant.capabilities,
            )
        except FootplateError as error:
            raise StartFailed(None, error) from error

    async def _follow_progress(self) -> None:
        while True:
            for line in reversed(await asyncio.to_thread(self.log, 30)):
                progress = self.runtime.progress(line)
                if progress is not None:
                    self.fraction = progress.fraction
                    self.enter(self.state, self.step, progress.step)
                    break
            await asyncio.sleep(PROGRESS_SECONDS)


def engine_name(variant: str) -> str:
    """Give a variant's name under supervisord: `llamacpp/guide` is `llamacpp-guide`."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", variant).strip("-.")


def free_port() -> int:
    """Give a loopback port that nobody has now, nor is likely to have by the time an engine binds it.

    Raise `Unavailable` when there is none.
    """
    for port in secrets.SystemRandom().sample(PORTS, PORTS_TRIED):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise Unavailable(
        f"No port between {PORTS[0]} and {PORTS[-1]} is free.", hint="See what listens there: ss -ltnp"
    )


def new_key() -> str:
    """Make a key for one launch."""
    return secrets.token_urlsafe(24)


def _record(plan: LaunchPlan, target: Target, runtime: Runtime) -> EngineRecord:
    return EngineRecord(
        name=engine_name(plan.variant),
        variant=plan.variant,
        runtime=runtime.name,
        port=plan.port,
        api_key=plan.api_key,
        preset=target.preset,
        context=target.context,
    )


def _did_not_answer(variant: str, status: int | None) -> EngineFailed:
    what = "nothing in time" if status is None else f"HTTP {status}"
    return EngineFailed(
        f"{variant} says that it is ready, but answered {what} to a first request.",
        hint=f"See: footplate logs {engine_name(variant)}",
    )
