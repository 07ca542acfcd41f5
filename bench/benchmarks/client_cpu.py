"""What measuring costs the client: CPU per token while it measures, and afterwards when answers are read."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvloop
from bench.box import REPOSITORY, Figures

from footplate_daemon.benchmarks.measuring import Client, Request
from footplate_daemon.benchmarks.reading import record
from footplate_daemon.benchmarks.workloads import Prompt
from footplate_daemon.bodies import dump
from footplate_daemon.gateway.upstream import Upstream

TOKENS = 500
GAP_MS = 20
STREAMS = 100
"""One hundred streams of fifty tokens a second are five thousand a second."""


def measure() -> Figures:
    """Give the CPU time per token at about 5,000 tokens a second, and as fast as they come."""
    with _upstream() as port:
        return {
            "5,000 tokens/s": uvloop.run(_measured(port, GAP_MS)),
            "as fast as they come": uvloop.run(_measured(port, 0)),
        }


async def _measured(port: int, gap_ms: int) -> Figures:
    upstream = Upstream("127.0.0.1", port)
    await Client(upstream, 60).run(_requests(STREAMS, 5, 0), STREAMS)
    client = Client(upstream, 60)
    requests = _requests(STREAMS, TOKENS, gap_ms)
    spent, began = time.process_time(), time.perf_counter()
    await client.run(requests, STREAMS)
    measuring, seconds = time.process_time() - spent, time.perf_counter() - began
    spent = time.process_time()
    records = [record(each, client.tally.began_at) for each in client.measured]
    reading = time.process_time() - spent
    await upstream.close()
    assert client.tally.failed == 0, records
    tokens = STREAMS * TOKENS
    return {
        "tokens_per_second": round(tokens / seconds),
        "measuring_us_per_token": round(measuring / tokens * 1e6, 2),
        "busy_percent": round(measuring / seconds * 100, 1),
        "reading_afterwards_us_per_token": round(reading / tokens * 1e6, 2),
    }


def _requests(count: int, tokens: int, gap_ms: int) -> list[Request]:
    messages = ({"role": "user", "content": "Why?"},)
    options = {"include_usage": True}
    body = dump(
        {
            "messages": messages,
            "stream": True,
            "stream_options": options,
            "max_tokens": tokens,
            "seed": gap_ms,
        }
    )
    return [Request(Prompt(n, messages), "/v1/chat/completions", body, None) for n in range(count)]


@contextmanager
def _upstream() -> Iterator[int]:
    command = [sys.executable, "-m", "bench.gateway.upstream"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.terminate()
