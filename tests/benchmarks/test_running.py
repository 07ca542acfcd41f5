"""Whose requests count as a disturbance of a cell."""

from typing import Any

import pytest

from footplate_daemon.benchmarks.running import was_answered_after
from footplate_daemon.store.exchanges import Exchange

BEGAN = 100.0


@pytest.mark.parametrize(
    ("facts", "counts"),
    [
        ({"outcome": "done", "started_at": 90.0, "total_ms": 9_000.0}, False),
        ({"outcome": "done", "started_at": 90.0, "total_ms": 11_000.0}, True),
        ({"outcome": "running", "started_at": 90.0, "total_ms": 15_000.0}, True),
        ({"outcome": "waiting", "started_at": 101.0, "total_ms": 500.0}, False),
        ({"outcome": "cut", "started_at": 90.0, "total_ms": None}, False),
    ],
)
def test_what_an_engine_was_at_counts_and_not_what_ended_with_an_earlier_daemon(
    facts: dict[str, Any], counts: bool
) -> None:
    exchange = Exchange(id=1, request_id="r", path="/v1/chat/completions", **facts)

    assert was_answered_after(exchange, BEGAN) is counts
