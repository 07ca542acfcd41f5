"""The measuring client against a server that keeps a pace; how exactly is for `bench/benchmarks` to say."""

import asyncio
from collections.abc import Sequence

import pytest
from tests.fakes.pacing import Pace, PacingUpstream, open_pacing

from footplate_daemon.benchmarks.measuring import Client, Measured, Request
from footplate_daemon.benchmarks.reading import record
from footplate_daemon.benchmarks.statistics import output_tokens
from footplate_daemon.benchmarks.workloads import Prompt
from footplate_daemon.bodies import dump
from footplate_daemon.gateway.upstream import Upstream
from footplate_daemon.wire_benchmarks import RequestRecord


async def test_a_request_is_measured_from_its_sending_to_its_last_token() -> None:
    async with open_pacing(Pace(ttft_ms=20, itl_ms=5)) as upstream:
        (found,) = await measured(upstream, 1, tokens=4)

    assert found.error_kind is None
    assert found.output_tokens == 4
    assert found.prompt_tokens == 8
    assert found.finish_reason == "length"
    assert len(found.itl_ms) == 4  # three tokens more, and the event that says why it ended
    paced = [float(word) for word in (found.answer or "").split()]
    assert found.ttft_ms is not None
    assert found.ttft_ms >= paced[0]
    assert found.e2el_ms == pytest.approx(found.ttft_ms + sum(found.itl_ms), abs=0.01)


async def test_tokens_are_those_of_usage_and_not_the_events() -> None:
    async with open_pacing(Pace(tokens_per_event=3)) as upstream:
        (found,) = await measured(upstream, 1, tokens=5)

    assert output_tokens(found) == 15


async def test_so_many_requests_run_at_a_time_and_no_more() -> None:
    async with open_pacing(Pace(ttft_ms=5)) as upstream:
        found = await measured(upstream, 12, concurrency=3)

    assert upstream.most_running == 3
    assert sorted(each.number for each in found) == list(range(12))


async def test_what_an_engine_refuses_is_an_error_of_its_own_kind() -> None:
    async with open_pacing(Pace(status=400)) as refusing, open_pacing(Pace(status=503)) as failing:
        (refused,) = await measured(refusing, 1)
        (failed,) = await measured(failing, 1)

    assert refused.error_kind == "refused"
    assert refused.error == "HTTP 400: It was told to fail."
    assert failed.error_kind == "server"


async def test_a_stream_that_breaks_off_is_an_error_and_the_next_request_goes_on() -> None:
    async with open_pacing(Pace(cut_after=2)) as upstream:
        found = await measured(upstream, 2)

    assert [each.error_kind for each in found] == ["connection", "connection"]
    assert len(upstream.asked) == 2


async def test_nobody_there_is_an_error() -> None:
    async with open_pacing() as upstream:
        pass

    (found,) = await measured(upstream, 1)

    assert found.error_kind == "connection"
    assert found.ttft_ms is None


async def test_a_request_that_takes_too_long_has_failed() -> None:
    async with open_pacing(Pace(ttft_ms=60_000)) as upstream:
        (found,) = await measured(upstream, 1, timeout_seconds=0.05)

    assert found.error_kind == "timeout"
    assert "0.05 s" in (found.error or "")


async def test_what_came_before_a_measurement_was_cancelled_is_kept() -> None:
    async with open_pacing(Pace(itl_ms=5)) as upstream:
        client = Client(Upstream("127.0.0.1", upstream.port), 60)
        running = asyncio.ensure_future(client.run(requests(3, tokens=100_000), 1))
        while not any(each.pieces for each in client.measured):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait({running})
        await client._upstream.close()

    (found,) = [record(each, client.tally.began_at) for each in client.measured]
    assert found.error_kind == "engine"
    assert found.ttft_ms is not None
    assert client.tally.running == 0


async def test_what_was_packed_is_read_as_it_came() -> None:
    async with open_pacing(Pace(itl_ms=1)) as upstream:
        client = Client(Upstream("127.0.0.1", upstream.port), 60)
        await client.run(requests(1, tokens=20), 1)
        await client._upstream.close()
    (each,) = client.measured
    loose = record(each, 0.0)

    each.pack()

    assert not each.pieces
    assert record(each, 0.0) == loose


async def test_nothing_that_was_measured_is_in_no_second_of_the_tally() -> None:
    async with open_pacing() as upstream:
        client = Client(Upstream("127.0.0.1", upstream.port), 60)
        await client.run(requests(4, tokens=3), 2)
        await client._upstream.close()

    tally = client.tally
    assert (tally.completed, tally.failed, tally.running) == (4, 0, 0)
    assert tally.events >= 12
    assert len(tally.first_tokens) == 4


async def measured(
    upstream: PacingUpstream,
    count: int,
    *,
    tokens: int = 3,
    concurrency: int = 1,
    timeout_seconds: float = 60,
) -> list[RequestRecord]:
    there = Upstream("127.0.0.1", upstream.port, name="pacing")
    client = Client(there, timeout_seconds)
    async with asyncio.timeout(30):
        await client.run(requests(count, tokens=tokens), concurrency)
    await there.close()
    return records(client.measured, client.tally.began_at)


def records(noted: Sequence[Measured], began_at: float) -> list[RequestRecord]:
    return [record(each, began_at) for each in noted]


def requests(count: int, *, tokens: int) -> list[Request]:
    messages = ({"role": "user", "content": "Why?"},)
    body = dump({"messages": messages, "stream": True, "max_tokens": tokens})
    return [Request(Prompt(n, messages), "/v1/chat/completions", body, None) for n in range(count)]
