"""A deep look: each part probed, the one that failed named, nothing loaded for it, and never for long."""

import asyncio
import json
import math
import os
import sqlite3
import sys
import tempfile
import threading
import time
import xmlrpc.client
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI

from footplate_daemon import wire
from footplate_daemon.catalog import Variant
from footplate_daemon.client import FootplateClient
from footplate_daemon.deep_health import DeepLook
from footplate_daemon.http.control.daemon import daemon_routes
from footplate_daemon.http.control.parts import ControlParts
from footplate_daemon.paths import Paths
from footplate_daemon.runtimes.base import Runtime
from footplate_daemon.runtimes.llamacpp import LlamaCpp
from footplate_daemon.store.database import Database
from footplate_daemon.store.probe import write_and_read
from footplate_daemon.supervisord import EngineRecord
from footplate_daemon.switching.engine import Engine
from footplate_daemon.switching.machine import Target
from footplate_daemon.weights import Weights
from footplate_daemon.wire import DeepHealth, EngineState, HealthPart
from tests.conftest import paths_in

LIMIT_SECONDS = 30.0
SHORT_SECONDS = 0.2
"""For what is never answered."""
WEIGHTS = Weights("path", "/nowhere/guide.gguf")
Answering = Callable[["FakeServer", str, dict[str, Any]], Awaitable[int | None]]


@dataclass
class FakeServer:
    """An engine's face: answers each request with a status, or dies; generates nothing."""

    answering: Answering
    port: int = 0
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    serving: set["asyncio.Task[Any]"] = field(default_factory=set)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].decode()
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            body = json.loads(await reader.readexactly(length))
            self.asked.append((path, body))
            status = await self.answering(self, path, body)
            if status is not None:
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\n{{}}".encode())
                await writer.drain()
        writer.close()


@asynccontextmanager
async def serving(answering: Answering) -> AsyncIterator[FakeServer]:
    fake = FakeServer(answering)
    server = await asyncio.start_server(fake.serve_one, "127.0.0.1", 0)
    fake.port = server.sockets[0].getsockname()[1]
    try:
        yield fake
    finally:
        server.close()
        fake.ending.set()
        await asyncio.gather(*fake.serving)


async def well(*_: object) -> int | None:
    return 200


async def dying(*_: object) -> int | None:
    return None


async def silent(fake: FakeServer, *_: object) -> int | None:
    await fake.ending.wait()
    return None


async def without_a_template(_fake: FakeServer, path: str, _body: object) -> int | None:
    return 400 if path == "/v1/chat/completions" else 200


def engine(fake: FakeServer | None, name: str = "guide", capabilities: tuple[str, ...] = ("chat",)) -> Engine:
    runtime: Runtime = LlamaCpp(None, environment={})
    made = Engine(
        1,
        Target(f"llamacpp/{name}"),
        Variant(f"llamacpp/{name}", "llamacpp", name, WEIGHTS, name, capabilities=capabilities),
        runtime,
        Path("/nowhere"),
    )
    made.record = EngineRecord(
        name=made.name, variant=made.variant.name, runtime="llamacpp", port=fake.port if fake else 1
    )
    made.enter(EngineState.READY)
    made.progressed_at = time.monotonic() - 60
    return made


def shape(variant: str, state: str = "ready", **facts: Any) -> wire.Engine:
    runtime, _, model = variant.partition("/")
    return wire.Engine(
        name=f"{runtime}-{model}",
        runtime=runtime,
        variant=variant,
        model=model,
        state=EngineState(state),
        since=0.0,
        **facts,
    )


def status(
    engines: Sequence[wire.Engine] = (), services: Sequence[wire.Engine] = (), wanted: str | None = None
) -> wire.Status:
    identity = wire.Identity(version="0", pid=1, started_at=0.0)
    return wire.Status(
        daemon=identity, active=None, wanted=wanted, engines=tuple(engines), services=tuple(services)
    )


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="fp", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
async def paths(root: Path) -> AsyncIterator[Paths]:
    """A home whose supervisord answers that it runs."""
    home = paths_in(root)
    home.make()
    state = xmlrpc.client.dumps(({"statecode": 1, "statename": "RUNNING"},), methodresponse=True).encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"</methodCall>")
        head = f"HTTP/1.0 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {len(state)}\r\n\r\n"
        writer.write(head.encode() + state)
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, home.supervisor_socket)
    yield home
    server.close()


@pytest.fixture
async def look(paths: Paths) -> AsyncIterator[Callable[..., Awaitable[DeepHealth]]]:
    """Looks once, at the status and the engines given."""
    async with Database.open(paths.database) as database:

        async def look(
            seen: wire.Status,
            engines: Sequence[Engine] = (),
            *,
            limit_seconds: float = LIMIT_SECONDS,
            least_free_bytes: int = 0,
        ) -> DeepHealth:
            deep = DeepLook(
                paths,
                database,
                lambda: seen,
                lambda: engines,
                limit_seconds=limit_seconds,
                least_free_bytes=least_free_bytes,
            )
            return await deep.look()

        yield look


Look = Callable[..., Awaitable[DeepHealth]]


def part(health: DeepHealth, name: str) -> HealthPart:
    return next(part for part in health.parts if part.name == name)


async def test_an_idle_daemon_is_well(look: Look) -> None:
    health = await look(status())

    assert health.status == "ok"
    assert part(health, "engines").message == "Nothing is loaded, so there is nothing to probe."
    assert {each.name for each in health.parts} == {"database", "supervisord", "disk", "engines"}


async def test_an_engine_generates_one_token(look: Look) -> None:
    async with serving(well) as fake:
        health = await look(status([shape("llamacpp/guide")]), [engine(fake)])

    assert part(health, "engine llamacpp/guide").status == "ok"
    ((path, body),) = fake.asked
    assert path == "/v1/chat/completions"
    assert body["max_tokens"] == 1


@pytest.mark.parametrize(("capability", "path"), [("embedding", "/v1/embeddings"), ("rerank", "/v1/rerank")])
async def test_a_service_does_what_it_is_for(look: Look, capability: str, path: str) -> None:
    async with serving(well) as fake:
        seen = status(services=[shape("llamacpp/embed")])
        health = await look(seen, [engine(fake, "embed", (capability,))])

    assert part(health, "service llamacpp/embed").status == "ok"
    assert [asked for asked, _ in fake.asked] == [path]


async def test_a_model_without_a_chat_template_completes(look: Look) -> None:
    async with serving(without_a_template) as fake:
        health = await look(status([shape("llamacpp/guide")]), [engine(fake)])

    assert part(health, "engine llamacpp/guide").status == "ok"
    assert [path for path, _ in fake.asked] == ["/v1/chat/completions", "/v1/completions"]


async def test_the_part_that_dies_is_named_and_the_others_are_well(look: Look) -> None:
    async with serving(well) as fine, serving(dying) as bad:
        seen = status([shape("llamacpp/guide")], [shape("llamacpp/embed")])
        health = await look(seen, [engine(fine), engine(bad, "embed", ("embedding",))])

    failed = [each for each in health.parts if each.status == "failed"]
    assert health.status == "failed"
    assert [(each.name, each.message) for each in failed] == [
        ("service llamacpp/embed", "It answered what is no HTTP.")
    ]
    assert failed[0].hint == "See: footplate logs llamacpp-embed"


async def test_an_engine_that_nobody_answers_for_has_failed(look: Look) -> None:
    health = await look(status([shape("llamacpp/guide")]), [engine(None)])

    assert part(health, "engine llamacpp/guide").message == "It does not answer."


async def test_engines_are_waited_for_together(look: Look) -> None:
    names = [f"m{number}" for number in range(8)]
    all_asked = asyncio.Barrier(len(names))

    async def with_the_others(*_: object) -> int | None:
        await all_asked.wait()
        return 200

    async with serving(with_the_others) as fake:
        health = await look(
            status([shape(f"llamacpp/{name}") for name in names]), [engine(fake, name) for name in names]
        )

    assert [each.status for each in health.parts if each.name.startswith("engine ")] == ["ok"] * 8


async def test_an_engine_that_hangs_is_waited_for_in_vain(look: Look) -> None:
    async with serving(silent) as fake:
        health = await look(status([shape("llamacpp/guide")]), [engine(fake)], limit_seconds=SHORT_SECONDS)

    assert part(health, "engine llamacpp/guide").status == "failed"
    assert "generated nothing within" in part(health, "engine llamacpp/guide").message


async def stalling(fake: FakeServer, *_: object) -> int | None:
    """Hold up the daemon with all its timers, until all of them are due at once."""
    threading.Event().wait(SHORT_SECONDS * 2)
    return await silent(fake)


@pytest.mark.parametrize("answering", [silent, stalling])
async def test_an_engine_that_is_busy_with_others_is_well(look: Look, answering: Answering) -> None:
    async with serving(answering) as fake:
        busy = engine(fake)
        busy.progressed_at = math.inf  # It never ceases to answer others.
        health = await look(status([shape("llamacpp/guide")]), [busy], limit_seconds=SHORT_SECONDS)

    assert part(health, "engine llamacpp/guide").status == "ok"
    assert "other requests" in part(health, "engine llamacpp/guide").message


async def test_an_engine_that_is_stopped_meanwhile_has_not_failed(look: Look) -> None:
    stopped: list[Engine] = []

    async def stopping(*_: object) -> int | None:
        stopped[0].enter(EngineState.STOPPING)
        return None

    async with serving(stopping) as fake:
        stopped.append(engine(fake))
        health = await look(status([shape("llamacpp/guide")]), stopped)

    assert part(health, "engine llamacpp/guide").message == "It was stopping meanwhile."
    assert health.status == "ok"


@pytest.mark.parametrize("state", ["starting", "loading", "sleeping", "stopping"])
async def test_what_does_not_serve_yet_is_neither_asked_nor_blamed(look: Look, state: str) -> None:
    async with serving(well) as fake:
        health = await look(status([shape("llamacpp/guide", state)]), [engine(fake)])

    assert part(health, "engine llamacpp/guide").status == "skipped"
    assert fake.asked == []


DIAGNOSIS = wire.Diagnosis(code="out_of_memory", cause="The GPU's memory is too small.")


async def test_what_should_run_and_failed_is_a_failure(look: Look) -> None:
    seen = status([shape("vllm/big", "failed", diagnosis=DIAGNOSIS)], wanted="vllm/big")

    health = await look(seen)

    assert health.status == "failed"
    assert part(health, "engine vllm/big").message == "The GPU's memory is too small."


async def test_what_somebody_tried_and_left_is_none(look: Look) -> None:
    seen = status([shape("vllm/big", "failed", diagnosis=DIAGNOSIS)], wanted="llamacpp/guide")

    health = await look(seen)

    assert health.status == "ok"
    assert part(health, "engine vllm/big").status == "skipped"


async def test_a_full_disk_is_named(look: Look) -> None:
    health = await look(status(), least_free_bytes=10**18)

    assert part(health, "disk").status == "failed"
    assert "Free disk space" in (part(health, "disk").hint or "")


async def test_a_supervisord_that_is_gone_is_named(look: Look, paths: Paths) -> None:
    paths.supervisor_socket.unlink()

    health = await look(status())

    assert part(health, "supervisord").status == "failed"
    assert part(health, "supervisord").hint == "Start it: footplate up"


async def test_a_database_that_cannot_be_written_is_named(paths: Paths) -> None:
    async with Database.open(paths.database) as database:
        await database.read(lambda connection: connection.execute("PRAGMA query_only = 1"))
        health = await DeepLook(
            paths, database, status, list, limit_seconds=LIMIT_SECONDS, least_free_bytes=0
        ).look()

    assert [each.name for each in health.parts if each.status == "failed"] == ["database"]


async def test_a_database_that_others_hold_is_not_waited_for_long(paths: Paths) -> None:
    async with Database.open(paths.database) as database:
        deep = DeepLook(paths, database, status, list, limit_seconds=SHORT_SECONDS, least_free_bytes=0)
        with sqlite3.connect(paths.database) as other:
            other.execute("BEGIN IMMEDIATE")
            health = await deep.look()
            other.rollback()
        other.close()

    assert part(health, "database").status == "failed"


def log_size(paths: Paths) -> int:
    """Give how much has been written ahead."""
    return paths.database.with_name("footplate.db-wal").stat().st_size


async def test_a_look_leaves_the_database_as_it_was(paths: Paths) -> None:
    async with Database.open(paths.database) as database:
        before = await database.read(lambda connection: "\n".join(connection.iterdump()))
        size = log_size(paths)

        await write_and_read(database)

        assert log_size(paths) > size
        assert await database.read(lambda connection: "\n".join(connection.iterdump())) == before


async def test_those_who_come_during_a_look_share_the_next_one(paths: Paths) -> None:
    async with serving(well) as fake, Database.open(paths.database) as database:
        seen = status([shape("llamacpp/guide")])
        deep = DeepLook(
            paths,
            database,
            lambda: seen,
            lambda: [engine(fake)],
            limit_seconds=LIMIT_SECONDS,
            least_free_bytes=0,
        )
        await asyncio.gather(*(deep.look() for _ in range(20)))

    assert len(fake.asked) <= 2


@pytest.mark.parametrize(("outcome", "code"), [("ok", 200), ("failed", 503)])
async def test_the_route_says_by_its_status_whether_all_is_well(outcome: str, code: int) -> None:
    class Found:
        async def look(self) -> DeepHealth:
            return DeepHealth.model_validate({"status": outcome, "parts": ()})

    app = FastAPI()
    daemon_routes(app, cast(ControlParts, SimpleNamespace(deep_look=Found())))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://footplate") as http:
        answer = await http.get("/health/deep")

    assert (answer.status_code, answer.json()) == (code, {"status": outcome, "parts": []})


@pytest.mark.parametrize(("outcome", "code"), [("ok", 0), ("failed", 1)])
async def test_the_command_line_names_the_part_and_exits_by_it(root: Path, outcome: str, code: int) -> None:
    disk = {"name": "disk", "status": outcome, "seconds": 0.25, "message": "It is.", "hint": "Free it."}
    body = json.dumps({"status": outcome, "parts": [disk]})

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        status = 200 if outcome == "ok" else 503
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    home = paths_in(root)
    home.make()
    async with await asyncio.start_unix_server(answer, home.socket):
        program = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("footplate"),
            *("status", "--deep"),
            env=os.environ | {"FOOTPLATE_HOME": str(root)},
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await program.communicate()

    assert program.returncode == code
    assert said.decode().splitlines()[1:] == [f"disk  {outcome:6}  0.25     It is.", "! disk: Free it."]


async def test_a_whole_daemon_looks_at_itself(running_home: Paths) -> None:
    async with FootplateClient(running_home.socket) as client:
        health = await client.deep_health()

        assert health.status == "ok", health
        assert part(health, "engine llamacpp/guide").message.startswith("It answered in")


async def test_a_whole_daemon_tells_prometheus_of_a_request(running_home: Paths) -> None:
    asked = {"model": "guide", "messages": [{"role": "user", "content": "What is a preset?"}]}
    async with FootplateClient(running_home.socket) as client:
        async for _ in client.chat(asked):
            pass
        async with asyncio.timeout(30):
            told = await client.metrics()
            while 'footplate_requests_total{outcome="done"' not in told:
                told = await client.metrics()

    assert 'footplate_tokens_total{kind="completion",runtime="llamacpp",variant="llamacpp/guide"}' in told
    assert 'footplate_inter_token_latency_seconds_count{runtime="llamacpp",variant="llamacpp/guide"}' in told
