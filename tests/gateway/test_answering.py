"""What an engine says after a good status may still be an error, in a stream or in one piece."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from footplate_daemon import settings
from footplate_daemon.catalog import Catalog
from footplate_daemon.errors import EngineFailed, FootplateError, Invalid
from footplate_daemon.gateway.answering import Answering, Ask
from footplate_daemon.gateway.sse import Usage
from footplate_daemon.gateway.upstream import Upstream
from footplate_daemon.runtimes.base import Call, Translated
from footplate_daemon.switching.leases import Lease
from footplate_daemon.switching.probe import Address


@asynccontextmanager
async def answering(said: object, *, hides_usage: bool = False) -> AsyncIterator[Answering]:
    """Ask an engine that answers 200 with this."""
    body = said if isinstance(said, bytes) else json.dumps(said).encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    listed = Catalog.build(
        settings.parse(b"", Path("config.toml")), models_dir=Path("/models"), guide=Path("/guide.gguf")
    )
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        upstream = Upstream("127.0.0.1", port)
        lease = Lease(
            listed.variants["llamacpp/guide"], Address(port), 1, None, {}, 0.0, 0.0, None, lambda: None
        )
        async with await upstream.request("POST", "/", (), b"") as response:
            call = Call("/", {}, Translated({}))
            yield Answering(Ask("/", {}), lease, response, call, 0.0, hides_usage=hides_usage)
        await upstream.close()


@pytest.mark.parametrize(
    ("said", "kind", "hint"),
    [
        ({"error": {"message": "the GPU is gone"}}, EngineFailed, "footplate logs"),
        ({"error": "out of luck"}, EngineFailed, "footplate logs"),
        ({"error": {"message": "request exceeds the available context size"}}, Invalid, "Shorten the prompt"),
    ],
)
async def test_an_error_under_a_good_status_does_not_leave_as_an_answer(
    said: object, kind: type[FootplateError], hint: str
) -> None:
    async with answering(said) as exchange:
        with pytest.raises(kind) as caught:
            await exchange.whole(1000)

    assert hint in str(caught.value.hint)


async def test_an_answer_whose_error_is_null_is_one() -> None:
    said = {"choices": [{"message": {"content": 'the word "error"'}}], "error": None}

    async with answering(said) as exchange:
        assert json.loads(await exchange.whole(1000)) == said


@pytest.mark.parametrize("error", ['{"message": "The engine is currently busy"}', '"currently busy"'])
async def test_an_error_in_a_stream_has_the_one_shape(error: str) -> None:
    first = b'data: {"choices":[{"delta":{"content":"\\"error\\""}}]}\n\n'
    said = first + b'data: {"error": %b}\n\ndata: [DONE]\n\n' % error.encode()

    async with answering(said) as exchange:
        chunks: list[bytes] = []
        await exchange.relay(chunks.append)

    out = b"".join(chunks)
    events = out.split(b"\n\n")
    shaped = json.loads(events[1].removeprefix(b"data: "))["error"]
    assert (events[0] + b"\n\n", events[2:]) == (first, [b"data: [DONE]", b""])
    assert shaped.keys() == {"message", "type", "code", "param", "hint"}
    assert shaped["hint"] == "Try again in a moment."
    assert "currently busy" in (exchange.error or "")


async def test_tokens_that_only_the_ledger_asked_for_do_not_reach_the_client() -> None:
    first = b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n'
    last = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'

    async with answering(first + last + usage + b"data: [DONE]\n\n", hides_usage=True) as exchange:
        chunks: list[bytes] = []
        await exchange.relay(chunks.append)

    assert b"".join(chunks) == first + last + b"data: [DONE]\n\n"
    assert exchange.usage == Usage(3, 1)
