"""The control API, whole: whatever its description allows, or forbids, is answered and in the one shape."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import response_schema_conformance

from footplate_daemon import lifecycle
from footplate_daemon.client import FootplateClient
from footplate_daemon.paths import Paths
from footplate_daemon.wire import Turn, TurnWish
from footplate_daemon.wire_batches import BatchWish
from tests.whole.conftest import PATIENCE_SECONDS, error_of
from tests.whole.test_services import running

EXAMPLES = 40
WITHOUT_END = ("/events", "/follow")
"""How the paths of streams end that go on for ever."""
BEGINS_SECONDS = 12.0
"""What HTTP clients usually allow a silent server."""
MAY_FAIL = {502, 503, 504}
"""What may be answered from 500 on: an engine fails, or is not there."""
SOME = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)
"""A few, and the same each time."""


@pytest.fixture(scope="module")
def known(running_home: Paths) -> dict[str, dict[str, Any]]:
    """Make something of everything; give for each path that names one what stands in it."""

    async def make() -> dict[str, dict[str, Any]]:
        async with FootplateClient(running_home.socket) as client:
            session = await client.create_session()
            turn = await client.ask(session.id, TurnWish(prompt="What is a preset?"))
            async for _, event in client.follow_turn(session.id, turn.number):
                if isinstance(event, Turn):
                    exchange = event
            assert exchange.state == "done", exchange
            (newest, *_) = await client.exchanges()
            (switch, *_) = await client.switches()
            batch = await ended_batch(client, running_home)
        at, of = "/api/v1/sessions/{session_id}", {"session_id": session.id}
        return {
            at: of,
            f"{at}/fork": of,
            f"{at}/restore": of,
            f"{at}/export": of,
            f"{at}/turns": of,
            f"{at}/turns/{{number}}/stop": {**of, "number": 1},
            "/api/v1/exchanges/{exchange_id}": {"exchange_id": newest.id},
            "/api/v1/exchanges/{exchange_id}/cancel": {"exchange_id": newest.id},
            "/api/v1/exchanges/{exchange_id}/replay": {"exchange_id": newest.id},
            "/api/v1/switches/{switch_id}": {"switch_id": switch.id},
            "/api/v1/switches/{switch_id}/remedies/{number}": {"switch_id": switch.id, "number": 1},
            "/api/v1/models/{name}/explain": {"name": "guide"},
            "/api/v1/batches/{batch_id}": {"batch_id": batch},
            "/api/v1/batches/{batch_id}/retry-failed": {"batch_id": batch},
        }

    return asyncio.run(make())


async def ended_batch(client: FootplateClient, paths: Paths) -> str:
    """Run a batch of one line; give its id."""
    file = paths.data_dir / "in.jsonl"
    body = {"model": "guide", "messages": [{"role": "user", "content": "What is a preset?"}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    file.write_text(json.dumps(line))
    uploaded = await client.upload_file(file)
    batch = await client.create_batch(BatchWish(input_file_id=uploaded.id, endpoint="/v1/chat/completions"))
    async for _ in client.follow_batch(batch.id):
        pass
    return batch.id


@pytest.fixture(scope="module")
def http(running_home: Paths) -> Iterator[httpx.Client]:
    transport = httpx.HTTPTransport(uds=str(running_home.socket))
    with httpx.Client(transport=transport, base_url="http://footplate", timeout=PATIENCE_SECONDS) as http:
        yield http


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_call_fails_and_every_error_has_the_one_shape(
    http: httpx.Client, known: dict[str, dict[str, Any]], mode: GenerationMode
) -> None:
    schema = schemathesis.openapi.from_dict(http.get("/openapi.json").json())
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    asked = [each for each in operations if not each.path.endswith(WITHOUT_END)]

    for operation in sorted(asked, key=lambda each: each.method == "delete"):
        strategies = [operation.as_strategy(mode)]
        if operation.path in known and operation.method != "delete":
            strategies.append(operation.as_strategy(mode, path_parameters=known[operation.path]))
        for strategy in strategies:
            with suppress(Unsatisfiable):  # of some calls nothing can be wrong
                ask_some(http, strategy)

    assert http.get("/health").status_code == 200
    assert {each.path for each in operations} >= known.keys()


def ask_some(http: httpx.Client, strategy: SearchStrategy[Case[Any]]) -> None:
    @SOME
    @given(case=strategy)
    def ask(case: Case[Any]) -> None:
        check(http, case)

    ask()


def check(http: httpx.Client, case: Case[Any]) -> None:
    """Ask, and look at the answer."""
    response = sent(http, case)
    where = f"{response.request.method} {response.request.url} {response.request.content!r}"
    assert response.status_code < 500 or response.status_code in MAY_FAIL, f"{where}: {response.text}"
    if response.status_code >= 400:
        if case.operation.path != "/health/deep":
            error_of(response)
    else:
        case.validate_response(response, checks=[response_schema_conformance])


def sent(http: httpx.Client, case: Case[Any]) -> httpx.Response:
    """Send a case over the Unix socket, which its own transport cannot."""
    wire = case.as_transport_kwargs(base_url="http://footplate")
    content = json.dumps(wire["json"]).encode() if "json" in wire else wire.get("data")
    return http.request(
        wire["method"], wire["url"], params=wire.get("params"), headers=wire["headers"], content=content
    )


async def test_a_follower_that_leaves_is_no_mistake_of_the_daemon(home: Paths) -> None:
    async with running(home, "") as footplate:
        await footplate.until_ready()
        for path in ("/api/v1/events", "/api/v1/exchanges/follow"):
            for _ in range(5):
                await footplate.chat("What is a preset?")
                async with footplate.http.stream("GET", path) as response:
                    await anext(response.aiter_bytes())
                await footplate.chat("What is a preset?")
                await anext(footplate.client.follow_status())
        await asyncio.to_thread(lifecycle.down, home)

    written = [json.loads(line) for line in home.daemon_log.read_text().splitlines()]
    assert [line for line in written if line["level"] == "ERROR"] == []


async def test_a_stream_with_nothing_to_tell_yet_begins_at_once(running_home: Paths) -> None:
    transport = httpx.AsyncHTTPTransport(uds=str(running_home.socket))
    async with (
        httpx.AsyncClient(transport=transport, timeout=BEGINS_SECONDS) as http,
        http.stream("GET", "http://footplate/api/v1/exchanges/follow?client=nobody") as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
