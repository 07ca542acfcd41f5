"""The composition root: open, wire, serve, close. The only module that knows all the others."""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from footplate_daemon import __version__, guide, lifecycle, listing, settings, weights
from footplate_daemon.access_log import AccessLog
from footplate_daemon.batches.files import Files
from footplate_daemon.batches.keeper import Batches
from footplate_daemon.batches.lanes import Surroundings
from footplate_daemon.benchmarks.keeper import Benchmarks
from footplate_daemon.benchmarks.running import Parts as BenchmarkParts
from footplate_daemon.catalog import Catalog, Variant, diff, runtime_of
from footplate_daemon.deep_health import DeepLook
from footplate_daemon.errors import FootplateError
from footplate_daemon.events import Topic
from footplate_daemon.explain import explain
from footplate_daemon.gateway.gateway import Gateway
from footplate_daemon.gateway.keys import KeyRing
from footplate_daemon.gateway.ledger import Ledger
from footplate_daemon.gateway.replay import Replayer
from footplate_daemon.gpu.memory import Memory
from footplate_daemon.gpu.nvml import NvmlThread
from footplate_daemon.gpu.sampler import Sampler
from footplate_daemon.http.batches import BatchFace
from footplate_daemon.http.control.app import control_app
from footplate_daemon.http.control.parts import ControlParts
from footplate_daemon.http.listeners import TcpDoors, bind_unix, local_face
from footplate_daemon.http.listeners import limits as tcp_limits
from footplate_daemon.http.openai import FaceRules, OpenAIFace
from footplate_daemon.http.server import Server
from footplate_daemon.metrics.exposition import Metrics
from footplate_daemon.metrics.gauges import BatchFigures
from footplate_daemon.mistakes import ConfigErrors
from footplate_daemon.paths import Paths
from footplate_daemon.runtimes.base import Host, Runtime
from footplate_daemon.runtimes.llamacpp import LlamaCpp
from footplate_daemon.runtimes.ollama import Ollama
from footplate_daemon.runtimes.remote import Remote
from footplate_daemon.runtimes.transformers import Transformers
from footplate_daemon.runtimes.vllm import Vllm
from footplate_daemon.settings import Settings
from footplate_daemon.store import batch_migrations
from footplate_daemon.store.batches import BatchStore
from footplate_daemon.store.benchmarks import BenchmarkStore
from footplate_daemon.store.database import Database
from footplate_daemon.store.exchanges import ExchangeStore
from footplate_daemon.store.files import FileStore
from footplate_daemon.store.keys import KeyStore
from footplate_daemon.store.sessions import SessionStore
from footplate_daemon.store.switches import SwitchStore
from footplate_daemon.store.wanted import WantedStore
from footplate_daemon.supervisord import Supervisord
from footplate_daemon.switching import probe
from footplate_daemon.switching.engines import Limits, Parts
from footplate_daemon.switching.machine import Room, Rules, Target
from footplate_daemon.switching.switcher import Switcher
from footplate_daemon.turns import TurnKeeper
from footplate_daemon.wire import Explanation, GpuSnapshot, Identity, ModelInfo, Plan, Status

logger = logging.getLogger(__name__)

FOREIGN_KEEP_ALIVE_SECONDS = 30 * 60


async def run(paths: Paths, configuration: Settings, environment: Mapping[str, str]) -> None:
    """Serve until SIGTERM or SIGINT; engines go on running. Raise `errors.*` if it cannot start."""
    listener = bind_unix(paths.socket)
    lifecycle.record_self(paths)
    with contextlib.closing(listener):
        async with (
            Database.open(paths.database) as database,
            Database.open(paths.batch_database, batch_migrations.MIGRATIONS) as batch_database,
        ):
            daemon = await _wire(paths, configuration, environment, database, batch_database)
            serving = daemon.server
            async with _until_signalled(serving, daemon.closing), asyncio.TaskGroup() as tasks:
                switcher = tasks.create_task(daemon.switcher.run(), name="switcher")
                batches = tasks.create_task(daemon.batches.run(), name="batches")
                turns = tasks.create_task(daemon.turns.run(), name="turns")
                benchmarks = tasks.create_task(daemon.benchmarks.run(), name="benchmarks")
                ledger = tasks.create_task(daemon.ledger.run(), name="ledger")
                sampler = tasks.create_task(daemon.sampler.run(), name="sampler")
                keys = tasks.create_task(daemon.keys.run(), name="keys")
                access = tasks.create_task(daemon.access_log.run(), name="access log")
                doors = tasks.create_task(daemon.doors.run(), name="TCP")
                asyncio.get_running_loop().add_signal_handler(
                    signal.SIGHUP, lambda: tasks.create_task(daemon.reload_quietly())
                )
                face = local_face(control_app(_control_parts(daemon)), daemon.openai)
                await serving.serve(listener, face)
                logger.info("stopping")
                # Each before what it still writes to.
                for task in (doors, benchmarks, batches, turns, switcher, ledger, sampler, keys, access):
                    task.cancel()
                    await asyncio.wait({task})
                await daemon.gateway.close()
                await daemon.gpus.close()
    paths.socket.unlink(missing_ok=True)


@dataclass
class Daemon:
    """Everything that was wired."""

    paths: Paths
    environment: Mapping[str, str]
    settings: Settings
    catalog: Catalog
    identity: Identity
    switcher: Switcher
    switches: SwitchStore
    exchanges: ExchangeStore
    sessions: SessionStore
    gateway: Gateway
    turns: TurnKeeper
    batches: Batches
    benchmarks: Benchmarks
    ledger: Ledger
    access_log: AccessLog
    metrics: Metrics
    deep_look: DeepLook
    keys: KeyRing
    gpus: NvmlThread
    sampler: Sampler
    runtimes: dict[str, Runtime]
    """Shared with all who start engines or ask them: a changed configuration replaces its entries."""
    hosts: dict[str, Host]
    openai: OpenAIFace
    server: Server
    doors: TcpDoors
    config_errors: tuple[str, ...] = ()
    reloading: asyncio.Lock = field(default_factory=asyncio.Lock)
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    def status(self) -> Status:
        """Give the snapshot that clients draw."""
        return Status(
            daemon=self.identity,
            active=self.switcher.active,
            wanted=self.switcher.wanted,
            engines=self.switcher.engines(),
            services=self.switcher.services.shapes(),
            queue=self.switcher.queue(),
            switch=self.switcher.last_switch(),
            config_errors=(
                *self.catalog.problems,
                *self.config_errors,
                *([self.doors.problem] if self.doors.problem else ()),
            ),
        )

    async def reload(self) -> Status:
        """Take up a changed config.toml; raise `ConfigErrors` and keep the old one when it has mistakes."""
        async with self.reloading:
            return await self._reload()

    async def _reload(self) -> Status:
        try:
            new = await asyncio.to_thread(settings.load, self.paths.config_file)
        except ConfigErrors as error:
            self.config_errors = tuple(str(mistake) for mistake in error.mistakes)
            self.switcher.topic.changed()
            raise
        self.config_errors = ()
        runtimes, hosts = build_runtimes(new, self.environment)
        self.runtimes.update(runtimes)
        self.hosts.update(hosts)
        listed = await asyncio.to_thread(build_catalog, new, self.paths, self.runtimes)
        changes = diff(self.catalog, listed)
        altered = frozenset({*changes.added, *changes.removed, *changes.altered})
        self.settings, self.catalog = new, listed
        self.openai.rules = face_rules(new)
        self.ledger.rules = new.ledger
        self.access_log.is_on = new.gateway.access_log
        self.gateway.catalog = listed
        self.batches.take_up(new.batches)
        await self.switcher.take_up(listed, rules(new, listed), limits(new), services(new), altered)
        await self.doors.take_up(new.gateway)
        logger.info("configuration is taken up", extra={"altered": sorted(altered)})
        return self.status()

    async def reload_quietly(self) -> None:
        """Reload on SIGHUP: mistakes are logged and shown in the status."""
        try:
            await self.reload()
        except FootplateError as error:
            logger.error("the changed configuration is not taken up", extra={"cause": error.message})  # noqa: TRY400

    async def models(self) -> list[ModelInfo]:
        """List the catalog."""
        return await listing.models(self.catalog, self.switcher, self.switches, self.exchanges, self.hf_cache)

    async def explain(self, name: str, runtime: str | None, preset: str | None) -> Explanation:
        """Say what would be started for a model."""
        variant = await self.find(name, runtime)
        found = await asyncio.to_thread(weights.on_disk, variant.weights, self.hf_cache)
        return explain(variant, preset, runtime_of(variant, self.runtimes), weights_at=found.path)

    async def find(self, name: str | None, runtime: str | None) -> Variant:
        """Give the variant that is meant by a model, a variant, or a runtime alone: the last used on it."""
        if name in self.runtimes:
            name, runtime = None, name
        if name is None and runtime is not None:
            return self.catalog.on(runtime, last_used=await self.switcher.last_used(runtime))
        active = self.switcher.active or self.switcher.wanted
        return self.catalog.resolve(name or "", runtime, last_used=(active,) if active else ())

    async def plan(self, name: str, runtime: str | None, preset: str | None, context: int | None) -> Plan:
        """Say what a switch would do."""
        variant = await self.find(name, runtime)
        variant.preset(preset)
        return await self.switcher.plan(Target(variant.name, preset, context))

    def config(self) -> dict[str, Any]:
        """Give the effective configuration, secrets masked."""
        return settings.masked(self.settings)

    @property
    def hf_cache(self) -> Path:
        """Where Hugging Face's libraries keep what they downloaded."""
        return settings.hf_cache_dir(self.environment)


def build_catalog(configuration: Settings, paths: Paths, runtimes: Mapping[str, Runtime]) -> Catalog:
    """Join what is written with what lies in the models folders, and with what is installed."""
    folders = (paths.models_dir, *(Path(folder) for folder in configuration.catalog.folders))
    return Catalog.build(
        configuration,
        models_dir=paths.models_dir,
        guide=guide.path(),
        found=weights.find(folders),
        installed=[name for name, runtime in runtimes.items() if runtime.find()],
    )


def rules(configuration: Settings, listed: Catalog) -> Rules:
    """Turn what the operator decided into the machine's rules."""
    switching, gateway = configuration.switching, configuration.gateway
    return Rules(
        room=Room(switching.policy),
        auto_switch=gateway.auto_switch,
        queue_limit=gateway.queue_limit,
        max_hold=gateway.max_hold_seconds,
        drain_limit=switching.drain_timeout_seconds,
        idle_unload=switching.idle_unload,
        batch_quiet=configuration.batches.quiet_seconds,
        pinned=frozenset(name for name, variant in listed.variants.items() if variant.pinned),
    )


def limits(configuration: Settings) -> Limits:
    """Turn what the operator decided into the engines' limits."""
    switching = configuration.switching
    return Limits(
        switching.start_timeout_seconds, switching.memory_timeout_seconds, switching.hang_timeout_seconds
    )


def face_rules(configuration: Settings) -> FaceRules:
    """Turn what the operator decided into the gateway's rules."""
    gateway = configuration.gateway
    origins = frozenset(origin.encode() for origin in gateway.cors_origins)
    return FaceRules(gateway.max_body_mib * 1024 * 1024, origins)


def batch_surroundings(daemon: Callable[[], Daemon]) -> Surroundings:
    """Tell batches what they may know of engines."""

    def is_ours(variant: str) -> bool:
        found = daemon().catalog.variants.get(variant)
        return found is not None and found.runtime != "remote"

    return Surroundings(
        is_apart=lambda variant: not is_ours(variant) or variant in daemon().switcher.services.variants,
        is_ours=is_ours,
        active=lambda: daemon().switcher.active,
        may_switch_at=lambda: daemon().switcher.batch_may_switch_at(),  # noqa: PLW0108 - the daemon comes after
        wanted=lambda: daemon().switcher.wanted_target,
        bring_back=lambda target: daemon().switcher.bring_back(target),  # noqa: PLW0108
    )


def watts(snapshot: GpuSnapshot | None) -> float | None:
    """Give what all GPUs use now; None where that is not measured."""
    readings = [gpu.power_watts for gpu in snapshot.gpus] if snapshot is not None else []
    known = [reading for reading in readings if reading is not None]
    return sum(known) if known else None


def services(configuration: Settings) -> tuple[str, ...]:
    """Give the variants that are always on."""
    wanted = configuration.services
    return tuple(dict.fromkeys(name for name in (wanted.embedding, wanted.reranker) if name))


def build_runtimes(
    configuration: Settings, environment: Mapping[str, str]
) -> tuple[dict[str, Runtime], dict[str, Host]]:
    """Make every kind of inference server that this Footplate knows, and name those that are hosts."""
    programs = configuration.runtimes
    ollama = Ollama(
        programs.ollama.program,
        environment=environment,
        ask=probe.ask,
        # In somebody else's server nothing of ours stays for ever, should we never come back.
        keep_alive=FOREIGN_KEEP_ALIVE_SECONDS if programs.ollama.url else -1,
    )
    runtimes: dict[str, Runtime] = {
        "llamacpp": LlamaCpp(programs.llamacpp.program, environment=environment),
        "vllm": Vllm(programs.vllm.program, environment=environment),
        "ollama": ollama,
        "remote": Remote(),
        "transformers": Transformers(programs.transformers.program, environment=environment),
    }
    return runtimes, {"ollama": ollama}


def build_batches(
    store: BatchStore,
    files: Files,
    configuration: Settings,
    daemon: Callable[[], Daemon],
    gateway: Gateway,
    switcher: Switcher,
) -> Batches:
    """Make what runs batches; `daemon` gives what is wired after them."""
    return Batches(
        store,
        files,
        gateway,
        gateway.chats,
        switcher,
        batch_surroundings(daemon),
        configuration.batches,
        line_bytes=lambda: daemon().openai.rules.body_limit,
        watts=lambda: watts(daemon().sampler.newest),
        window=switcher.open_batch_window,
    )


def batch_figures(batches: Batches) -> BatchFigures:
    """Count the batches under way, and their lines."""
    live = batches.all_live()
    rows = [each.row for each in live]
    completed, failed = sum(row.completed for row in rows), sum(row.failed for row in rows)
    left = sum(row.total for row in rows) - completed - failed
    return BatchFigures(len(live), sum(each.in_flight for each in live), left, completed, failed)


async def _settle(
    sessions: SessionStore,
    switches: SwitchStore,
    exchanges: ExchangeStore,
    measured: BenchmarkStore,
    wanted: WantedStore,
) -> int:
    """Mark as cut what an earlier daemon was at; give how many turns those were."""
    cut = await sessions.cut_unfinished(time.time())
    await switches.cut_unfinished(time.time())
    await exchanges.cut_unfinished()
    await sessions.purge()
    before = await measured.cut_unfinished(time.time())
    if before is not None:
        await wanted.set_wanted(before)
    return cut


async def _wire(
    paths: Paths,
    configuration: Settings,
    environment: Mapping[str, str],
    database: Database,
    batch_database: Database,
) -> Daemon:
    sessions, switches = SessionStore(database), SwitchStore(database)
    exchanges = ExchangeStore(database)
    measured = BenchmarkStore(database)
    cut = await _settle(sessions, switches, exchanges, measured, WantedStore(database))
    runtimes, hosts = build_runtimes(configuration, environment)
    listed = build_catalog(configuration, paths, runtimes)
    gpus = NvmlThread()
    ledger = Ledger(exchanges, configuration.ledger)
    await ledger.open()
    keys = KeyRing(KeyStore(database))
    await keys.open()
    switcher = Switcher(
        Parts(
            paths,
            Supervisord(paths),
            runtimes,
            switches,
            Memory(gpus, lambda: switcher.leaders()),  # noqa: PLW0108 - the switcher comes after
            hosts,
            settings.hf_cache_dir(environment),
        ),
        WantedStore(database),
        listed,
        rules(configuration, listed),
        limits(configuration),
        restore=configuration.switching.restore,
        services=services(configuration),
    )
    gateway = Gateway(switcher, listed, runtimes, ledger)
    metrics = Metrics(
        lambda: daemon.status(),  # noqa: PLW0108 - the daemon comes after
        lambda: daemon.sampler.newest,
        lambda: daemon.catalog.variants,
        lambda: ledger.under_way,
        lambda: batch_figures(daemon.batches),
    )
    ledger.listeners.append(metrics.counts.count_exchanges)
    switches.listeners.append(metrics.counts.count_switch)
    identity = Identity(version=__version__, pid=os.getpid(), started_at=time.time())
    log = AccessLog(paths.access_log, is_on=configuration.gateway.access_log)
    sampler = Sampler(gpus, switcher.leaders)
    files = Files(paths.files_dir, FileStore(batch_database))
    await files.open()
    batches = build_batches(
        BatchStore(batch_database), files, configuration, lambda: daemon, gateway, switcher
    )
    openai = OpenAIFace(
        gateway,
        face_rules(configuration),
        keys,
        metrics.render,
        log,
        identity.started_at,
        BatchFace(files, batches),
    )
    server = Server(tcp_limits(configuration.gateway))
    daemon = Daemon(
        paths=paths,
        environment=environment,
        settings=configuration,
        catalog=listed,
        identity=identity,
        switcher=switcher,
        switches=switches,
        exchanges=exchanges,
        sessions=sessions,
        gateway=gateway,
        turns=TurnKeeper(gateway, sessions),
        batches=batches,
        benchmarks=Benchmarks(
            BenchmarkParts(
                switcher,
                lambda: daemon.catalog,
                runtimes,
                measured,
                sampler,
                gpus,
                ledger,
                settings.hf_cache_dir(environment),
            ),
            lambda name, runtime: daemon.find(name, runtime),  # noqa: PLW0108 - the daemon comes after
        ),
        ledger=ledger,
        access_log=log,
        metrics=metrics,
        deep_look=DeepLook(paths, database, lambda: daemon.status(), switcher.running),  # noqa: PLW0108
        keys=keys,
        gpus=gpus,
        sampler=sampler,
        runtimes=runtimes,
        hosts=hosts,
        openai=openai,
        server=server,
        doors=TcpDoors(server, openai.answer_public, keys, configuration.gateway),
    )
    logger.info("started", extra={"version": __version__, "turns_cut": cut})
    return daemon


def _control_parts(daemon: Daemon) -> ControlParts:
    status = Topic(daemon.status)
    daemon.switcher.topic = status
    return ControlParts(
        identity=daemon.identity,
        status=status,
        find=daemon.find,
        models=daemon.models,
        explain=daemon.explain,
        plan=daemon.plan,
        config=daemon.config,
        reload=daemon.reload,
        engine_logs=lambda: lifecycle.engine_logs(daemon.paths),
        logs=lambda: lifecycle.logs(daemon.paths),
        switcher=daemon.switcher,
        switches=daemon.switches,
        sessions=daemon.sessions,
        turns=daemon.turns,
        benchmarks=daemon.benchmarks,
        sampler=daemon.sampler,
        metrics=daemon.metrics,
        deep_look=daemon.deep_look,
        keys=daemon.keys,
        ledger=daemon.ledger,
        batches=daemon.batches,
        replay=Replayer(daemon.gateway, daemon.ledger).replay,
        closing=daemon.closing,
    )


@contextlib.asynccontextmanager
async def _until_signalled(serving: Server, closing: asyncio.Event) -> AsyncIterator[None]:
    """Ask the server to end on SIGTERM or SIGINT, and event streams to end first."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        closing.set()
        serving.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
