"""How soon the stream of events says that an engine is not ready any more, after `kill -9`."""

import os
import signal
import time

from bench.box import Figures, active_engine, call, follow_status, now, spread_ms
from bench.switching.engines import Lineup

from footplate_daemon.paths import Paths


def measure(paths: Paths, lineup: Lineup, rounds: int) -> Figures:
    """Measure for the fake engine and for the embedded llama.cpp, by turns."""
    times: dict[str, list[float]] = {lineup.first: [], "llamacpp/guide": []}
    for _ in range(rounds):
        for variant, found in times.items():
            call(paths, "POST", "/api/v1/models/activate?wait=1", {"name": variant})
            found.append(_noticed(paths, variant))
    return {variant: spread_ms(found) for variant, found in times.items()}


def _noticed(paths: Paths, variant: str) -> float:
    """Kill the active engine; give the seconds until a follower is told."""
    began = 0.0
    for status in follow_status(paths):
        engine = active_engine(status)
        if not began and engine is not None and engine["variant"] == variant:
            time.sleep(0.1)  # the stream is at most so far behind
            began = now()
            os.kill(engine["pid"], signal.SIGKILL)
        elif began and engine is None:
            return now() - began
    raise SystemExit("The daemon ended before it noticed.")
