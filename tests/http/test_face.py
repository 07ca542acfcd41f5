"""The OpenAI face by real sockets: keys, browsers, ids, how errors are told. The gateway is a stand-in."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.http.clients import Answer, Client, Served, serving

from footplate_daemon import settings
from footplate_daemon.access_log import AccessLog
from footplate_daemon.catalog import Catalog, Variant
from footplate_daemon.errors import EngineFailed, Unavailable
from footplate_daemon.gateway.answering import Ask
from footplate_daemon.gateway.gateway import Gateway
from footplate_daemon.gateway.keys import KeyRing
from footplate_daemon.http.listeners import local_face
from footplate_daemon.http.openai import FaceRules, OpenAIFace
from footplate_daemon.runtimes.base import Translated
from footplate_daemon.store.database import Database
from footplate_daemon.store.keys import KeyStore

PAGE = b"https://chat.example"
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}]}
FIRST = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'


@dataclass
class Engine:
    """Stands in for the gateway: answers every request alike, and knows no switching and no ledger."""

    status: int = 200
    body: bytes = b'{"choices": []}'
    stream: list[bytes | Exception] = field(default_factory=lambda: [FIRST, b"data: [DONE]\n\n"])
    refusal: Exception | None = None
    waits: bool = False
    """Whether a stream is told that it waits."""
    endless: bool = False
    asked: list[Ask] = field(default_factory=list)
    refused: list[tuple[object, ...]] = field(default_factory=list)
    """Path, request's id and client of what could not even be read."""
    came: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    catalog: Catalog = field(
        default_factory=lambda: Catalog.build(
            settings.parse(b"", Path("config.toml")), models_dir=Path("/models"), guide=Path("/guide.gguf")
        )
    )

    def resolve(self, model: str | None) -> Variant:
        return self.catalog.resolve(model or "guide", last_used=())

    def resolve_for(self, ask: Ask) -> Variant:
        return self.resolve(ask.model)

    def states(self) -> dict[str, str]:
        return {}

    def note_refused(self, *refused: object) -> None:
        self.refused.append(refused[:3])

    async def answer(
        self, ask: Ask, respond: Callable[[Any], Any], waiting: Callable[[None], Any] | None = None
    ) -> None:
        self.asked.append(ask)
        variant = self.resolve(ask.model)
        if ask.permit is not None:
            ask.permit(variant)
        if self.waits and waiting is not None:
            await waiting(None)
        if self.refusal is not None:
            raise self.refusal
        try:
            if self.endless and not ask.streams:
                self.came.set()
                await asyncio.Event().wait()
            await respond(_Answering(self, ask, variant))
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


class _Answering:
    def __init__(self, engine: Engine, ask: Ask, variant: Variant) -> None:
        self.ask = ask
        self.variant = variant
        self.response = SimpleNamespace(status=engine.status)
        self.lease = SimpleNamespace(queue_seconds=0.25)
        self.call = SimpleNamespace(
            translated=Translated({}, ignored=("top_k",), clamped={"seed": "5 → 4 (ä)"})
        )
        self._engine = engine

    async def whole(self, limit: int) -> bytes:
        assert limit
        return self._engine.body

    async def failure(self) -> tuple[int, dict[str, Any]]:
        return self._engine.status, {"error": {"message": "too long", "type": "x", "code": 1, "param": None}}

    async def relay(self, sink: Callable[[bytes], None]) -> None:
        for piece in self._engine.stream:
            if isinstance(piece, Exception):
                raise piece
            sink(piece)
        if self._engine.endless:
            self._engine.came.set()
            await asyncio.Event().wait()

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass


@dataclass
class Face:
    """The face on TCP, with its keys."""

    served: Served
    keys: KeyRing
    secret: str

    async def get(self, path: str, *, secret: str | None = None, **headers: str) -> Answer:
        return await self.ask("GET", path, secret=secret or self.secret, **headers)

    async def post(self, body: object = CHAT, path: str = "/v1/chat/completions", **headers: str) -> Answer:
        return await self.ask("POST", path, body, secret=self.secret, **headers)

    async def ask(
        self, method: str, path: str, body: object = None, *, secret: str | None = None, **headers: str
    ) -> Answer:
        client = await self.send(method, path, body, secret=secret, **headers)
        answer = await client.answer(head_only=method == "HEAD")
        client.close()
        return answer

    async def send(
        self, method: str, path: str, body: object = None, *, secret: str | None = None, **headers: str
    ) -> Client:
        client = await self.served.client("tcp")
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        if secret is not None:
            headers["authorization"] = f"Bearer {secret}"
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"{method} {path} HTTP/1.1\r\n{lines}content-length: {len(raw)}\r\n\r\n"
        await client.send(head.encode() + raw)
        return client


@asynccontextmanager
async def face(engine: Engine | None = None, origins: tuple[bytes, ...] = (PAGE,)) -> AsyncIterator[Face]:
    async with AsyncExitStack() as opened:
        folder = Path(opened.enter_context(TemporaryDirectory()))
        database = await opened.enter_async_context(Database.open(folder / "keys.db"))
        keys = KeyRing(KeyStore(database))
        _, secret = await keys.create("mine", 0.0)
        openai = made(engine or Engine(), keys, origins)
        yield Face(await opened.enter_async_context(serving(openai.answer_public)), keys, secret)


def made(engine: Engine, keys: KeyRing, origins: tuple[bytes, ...] = ()) -> OpenAIFace:
    return OpenAIFace(
        cast("Gateway", engine),
        FaceRules(1000, frozenset(origins)),
        keys,
        lambda accept: (b"up 1\n", f"text/plain; of={accept}"),
        AccessLog(Path("/nonexistent"), is_on=False),
        1_700_000_000.0,
    )


# Keys


async def test_whoever_has_no_good_key_is_told_why() -> None:
    async with face() as it:
        _, old = await it.keys.create("old", 0.0)
        await it.keys.revoke("old", 0.0)

        told = [await it.ask("GET", "/v1/models", secret=secret) for secret in (None, "fp-wrong", old)]

    assert [(answer.status, answer.error["code"]) for answer in told] == [(401, "unauthorized")] * 3
    assert [answer.error["message"] for answer in told] == [
        "There is no API key in this request.",
        "The API key is not one of this Footplate's.",
        'The API key "old" is revoked.',
    ]


async def test_a_key_that_has_had_its_requests_is_told_when_to_come_again() -> None:
    async with face() as it:
        _, secret = await it.keys.create("slow", 0.0, requests_per_minute=1)

        first, second = [await it.get("/v1/models", secret=secret) for _ in range(2)]

    assert (first.status, second.status, second.error["code"]) == (200, 429, "busy")
    assert 0 < int(second.headers["retry-after"]) <= 60


async def test_a_key_opens_only_its_models() -> None:
    async with face() as it:
        _, secret = await it.keys.create("narrow", 0.0, models=("other",))

        answer = await it.ask("POST", "/v1/chat/completions", CHAT, secret=secret)

    assert (answer.status, answer.error["code"], answer.error["param"]) == (403, "forbidden", "model")


async def test_a_key_may_come_as_x_api_key() -> None:
    async with face() as it:
        assert (await it.ask("GET", "/v1/models", x_api_key=it.secret)).status == 200


# Where what is


@pytest.mark.parametrize(
    "path", ["/", "/config", "/api/v1/status", "/api/v1/events", "/openapi.json", "/v1/x"]
)
async def test_control_is_not_on_tcp(path: str) -> None:
    async with face() as it:
        answer = await it.get(path)

    assert (answer.status, answer.error["code"]) == (404, "not_found")
    assert "/v1/models" in answer.error["hint"]


async def test_health_and_metrics_are_on_tcp() -> None:
    async with face() as it:
        health, metrics = await it.get("/health"), await it.get("/metrics", accept="text/x")
        head = await it.ask("HEAD", "/health", secret=it.secret)

    assert (health.body, metrics.body) == (b'{"status":"ok"}', b"up 1\n")
    assert metrics.headers["content-type"] == "text/plain; of=text/x"
    assert (head.status, head.headers["content-length"]) == (200, "15")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_only_post_asks(method: str) -> None:
    async with face() as it:
        answer = await it.ask(method, "/v1/chat/completions", CHAT, secret=it.secret)

    assert answer.status == 404


async def test_on_the_unix_socket_control_answers_what_is_not_the_gateways(tmp_path: Path) -> None:
    async def control(scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"control " + scope["path"].encode()})

    async with Database.open(tmp_path / "footplate.db") as database:
        handler = local_face(control, made(Engine(), KeyRing(KeyStore(database))))
        async with serving(handler) as served:
            client = await served.client()

            asked = [
                await client.ask(b"GET %b HTTP/1.1\r\n\r\n" % path) for path in (b"/health", b"/v1/models")
            ]

    assert asked[0].body == b"control /health"
    assert json.loads(asked[1].body)["object"] == "list"


# Browsers


async def test_a_page_that_may_ask_is_told_so_without_a_key() -> None:
    async with face() as it:
        answer = await it.ask("OPTIONS", "/v1/chat/completions", origin=PAGE.decode())

    headers = answer.headers
    assert answer.status == 204
    assert headers["access-control-allow-origin"] == PAGE.decode()
    assert "POST" in headers["access-control-allow-methods"]
    assert {"authorization", "content-type"} <= set(headers["access-control-allow-headers"].split(", "))


@pytest.mark.parametrize(("origins", "origin"), [((PAGE,), "https://evil.example"), ((), PAGE.decode())])
async def test_any_other_page_is_not(origins: tuple[bytes, ...], origin: str) -> None:
    async with face(origins=origins) as it:
        preflight = await it.ask("OPTIONS", "/v1/models", origin=origin)
        answer = await it.get("/v1/models", origin=origin)

    for each in (preflight, answer):
        assert not [name for name in each.headers if name.startswith("access-control")]


async def test_a_page_may_read_answers_and_errors_and_their_headers() -> None:
    async with face(origins=(b"*",)) as it:
        whole = await it.post(origin="https://any.example")
        streamed = await it.post({**CHAT, "stream": True}, origin="https://any.example")
        refused = await it.ask("GET", "/v1/models", origin="https://any.example")

    assert [each.status for each in (whole, streamed, refused)] == [200, 200, 401]
    for each in (whole, streamed, refused):
        assert each.headers["access-control-allow-origin"] == "https://any.example"
        assert "x-request-id" in each.headers["access-control-expose-headers"]
        assert each.headers["vary"] == "origin"


# Ids and labels


async def test_the_ids_that_a_client_chose_are_kept() -> None:
    engine = Engine()
    async with face(engine) as it:
        kept = await it.post(x_request_id="r-1", x_session_id="s:1")
        streamed = await it.post({**CHAT, "stream": True}, x_request_id="r-2")
        refused = await it.post({}, x_request_id="r-3")
        made_up = await it.post(x_request_id="no id at all", x_session_id="é")

    assert (kept.headers["x-request-id"], kept.headers["x-session-id"]) == ("r-1", "s:1")
    assert [streamed.headers["x-request-id"], refused.headers["x-request-id"]] == ["r-2", "r-3"]
    assert made_up.headers["x-request-id"] not in {"", "no id at all"}
    assert "x-session-id" not in made_up.headers
    assert [(ask.request_id, ask.session_id) for ask in engine.asked[:1]] == [("r-1", "s:1")]
    assert {ask.client for ask in engine.asked} == {"mine"}


async def test_answers_say_who_answered_and_what_was_not_heeded() -> None:
    async with face() as it:
        headers = (await it.post()).headers

    assert (headers["x-footplate-runtime"], headers["x-footplate-model"]) == ("llamacpp", "guide")
    assert (headers["x-footplate-queue-ms"], headers["x-footplate-ignored"]) == ("250", "top_k")
    assert headers["x-footplate-clamped"] == "seed 5 -> 4 (?)"


# Errors


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"{", 400, None),
        (b"[]", 400, None),
        (b"", 400, None),
        ({}, 400, "messages"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"content": "x"}]}, 400, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 5}]}, 400, "messages.0.content"),
        ({**CHAT, "model": "unknown"}, 404, "model"),
        (b"x" * 1001, 413, None),
    ],
)
async def test_what_cannot_be_answered_is_refused_in_words(
    body: object, status: int, param: str | None
) -> None:
    engine = Engine()
    async with face(engine) as it:
        answer = await it.post(body, x_request_id="r")

    assert (answer.status, answer.error["param"]) == (status, param)
    assert answer.error["hint"]
    assert len(engine.asked) + len(engine.refused) == 1
    assert set(engine.refused) <= {("/v1/chat/completions", "r", "mine")}


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_before_anything_was_sent_has_its_status(*, stream: bool) -> None:
    async with face(Engine(refusal=Unavailable("It loads.", hint="Wait.", retry_after=3))) as it:
        answer = await it.post({**CHAT, "stream": stream})

    assert (answer.status, answer.headers["retry-after"]) == (503, "3")
    assert answer.error["message"] == "It loads."


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engines_own_error_keeps_its_status(*, stream: bool) -> None:
    async with face(Engine(status=422)) as it:
        answer = await it.post({**CHAT, "stream": stream})

    assert (answer.status, json.loads(answer.body)["error"]["message"]) == (422, "too long")


@pytest.mark.parametrize(
    "engine",
    [
        Engine(stream=[FIRST, EngineFailed("It died.", hint="Ask again.")]),
        Engine(waits=True, refusal=EngineFailed("It died.", hint="Ask again.")),
    ],
    ids=["while it answers", "while it waits"],
)
async def test_an_error_after_a_stream_has_begun_is_its_last_event(engine: Engine) -> None:
    async with face(engine) as it:
        answer = await it.post({**CHAT, "stream": True})

    first, last, rest = answer.body.split(b"\n\n")
    assert (answer.status, rest) == (200, b"")
    assert first + b"\n\n" in {FIRST, b": waiting for an engine\n\n"}
    assert json.loads(last.removeprefix(b"data: "))["error"]["message"] == "It died."


async def test_an_engines_own_error_after_a_stream_has_begun_is_its_last_event() -> None:
    async with face(Engine(status=422, waits=True)) as it:
        answer = await it.post({**CHAT, "stream": True})

    assert (answer.status, answer.body.count(b"data: ")) == (200, 1)
    assert b'"too long"' in answer.body


async def test_a_mistake_of_ours_is_told_without_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async with face(Engine(refusal=ZeroDivisionError("secret"))) as it:
        answer = await it.post()

    assert (answer.status, answer.error["message"]) == (500, "Internal error.")
    assert b"secret" not in answer.body
    assert "ZeroDivisionError: secret" in caplog.text


# The end


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_cancels_its_generation(*, stream: bool) -> None:
    engine = Engine(endless=True)
    async with face(engine) as it:
        client = await it.send("POST", "/v1/chat/completions", {**CHAT, "stream": stream}, secret=it.secret)
        await engine.came.wait()

        client.close()

        await engine.cancelled.wait()
        await it.served.all_left()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_end_of_the_daemon_is_told(*, stream: bool) -> None:
    engine = Engine(endless=True)
    async with face(engine) as it:
        client = await it.send("POST", "/v1/chat/completions", {**CHAT, "stream": stream}, secret=it.secret)
        await engine.came.wait()

        it.served.server.stop()
        answer = await client.answer()

    assert answer.status == (200 if stream else 503)
    shaped = json.loads(answer.body.split(b"data: ")[-1])["error"]
    assert (shaped["code"], shaped["message"]) == ("unavailable", "The daemon is being stopped.")
    assert answer.body.startswith(FIRST) is stream


async def test_what_was_asked_is_gone_with_its_answer() -> None:
    engine = Engine()
    gc.collect()
    gc.disable()
    try:
        async with face(engine) as it:
            answer = await it.post(x_request_id="gone")
        engine.asked.clear()

        left = [each for each in gc.get_objects() if isinstance(each, Ask) and each.request_id == "gone"]
        assert answer.status == 200
        assert not left
    finally:
        gc.enable()
