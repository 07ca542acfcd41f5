"""How soon a new daemon has taken over the engine of a killed one, and that nothing was loaded anew."""

import os
import signal
import time

from bench.box import Figures, active_engine, now, poll_status, spread_ms
from bench.switching.engines import Lineup

from footplate_daemon import lifecycle
from footplate_daemon.paths import Paths

POLL_SECONDS = 0.002
SETTLED_SECONDS = 1.2
"""supervisord counts a daemon that ends within its first second as one that failed to start."""


def measure(paths: Paths, _lineup: Lineup, rounds: int) -> Figures:
    """Kill the daemon again and again."""
    back, adopted, whole, reloads = [], [], [], 0
    for _ in range(rounds):
        time.sleep(SETTLED_SECONDS)
        before = poll_status(paths)
        engine = active_engine(before) if before else None
        if before is None or engine is None:
            raise SystemExit("Nothing is active.")
        began = now()
        os.kill(before["daemon"]["pid"], signal.SIGKILL)
        answers_at = _until_back(paths, before["daemon"]["pid"])
        after = _until_adopted(paths)
        ended = now()
        back.append(answers_at - began)
        adopted.append(ended - answers_at)
        whole.append(ended - began)
        reloads += after != engine["pid"]
    return {
        "killed_to_health": spread_ms(back),
        "health_to_adopted": spread_ms(adopted),
        "killed_to_adopted": spread_ms(whole),
        "reloads": reloads,
    }


def _until_back(paths: Paths, former_pid: int) -> float:
    while (health := lifecycle.health(paths)) is None or health.pid == former_pid:
        time.sleep(POLL_SECONDS)
    return now()


def _until_adopted(paths: Paths) -> int:
    """Return the pid of the engine that answers, as soon as the status names one."""
    while True:
        status = poll_status(paths)
        engine = active_engine(status) if status else None
        if engine is not None:
            pid: int = engine["pid"]
            return pid
        time.sleep(POLL_SECONDS)
