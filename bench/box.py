"""What every bench needs: a Footplate of its own, plain sockets to it, and what /proc tells of a process.

Sockets are raw and blocking, so that what is measured is the daemon and not the client.
"""

import contextlib
import http.client
import json
import os
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from footplate_daemon import lifecycle
from footplate_daemon.paths import Paths
from footplate_daemon.supervisord import UnixConnection

REPOSITORY = Path(__file__).resolve().parent.parent
FOOTPLATE = Path(sys.executable).with_name("footplate")
PATIENCE_SECONDS = 120.0

Figures = dict[str, Any]
"""What a bench found: names with their unit → numbers, or tables of them."""


@contextlib.contextmanager
def fresh_home(config: str | None = None) -> Iterator[Paths]:
    """Give a Footplate that was never up; take it down and remove it at the end."""
    root = Path(tempfile.mkdtemp(prefix="fpb", dir="/tmp"))
    paths = Paths.from_environment({"FOOTPLATE_HOME": str(root)})
    try:
        paths.make()
        if config is not None:
            paths.config_file.write_text(config)
        yield paths
    finally:
        lifecycle.down(paths)
        shutil.rmtree(root)


def environment(paths: Paths) -> dict[str, str]:
    """Give the environment in which `footplate` means this home."""
    return {**os.environ, "FOOTPLATE_HOME": str(paths.config_dir.parent)}


def call(paths: Paths, method: str, path: str, body: Any = None) -> Any:
    """Call the daemon; give the answer's JSON."""
    connection = UnixConnection(paths.socket, timeout=PATIENCE_SECONDS)
    try:
        payload = None if body is None else json.dumps(body)
        connection.request(method, path, payload, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
        if response.status >= 400:
            raise SystemExit(f"{method} {path}: {answer['error']['message']}")
        return answer
    finally:
        connection.close()


def follow_status(paths: Paths) -> Iterator[dict[str, Any]]:
    """Yield the status now and at every change, as it comes over the stream of events."""
    connection = UnixConnection(paths.socket, timeout=PATIENCE_SECONDS)
    try:
        connection.request("GET", "/api/v1/events")
        for line in connection.getresponse():
            if line.startswith(b"data: "):
                yield json.loads(line.removeprefix(b"data: "))
    finally:
        connection.close()


def active_engine(status: dict[str, Any]) -> dict[str, Any] | None:
    """Give the engine that answers now."""
    ready = (engine for engine in status["engines"] if engine["state"] == "ready")
    return next((engine for engine in ready if engine["variant"] == status["active"]), None)


def until_ready(paths: Paths) -> dict[str, Any]:
    """Return the engine that answers, as soon as one does."""
    for status in follow_status(paths):
        if engine := active_engine(status):
            return engine
    raise SystemExit("The daemon ended before an engine was ready.")


def poll_status(paths: Paths) -> dict[str, Any] | None:
    """Ask for the status; None while no daemon answers."""
    try:
        status: dict[str, Any] = call(paths, "GET", "/api/v1/status")
    except (OSError, http.client.HTTPException, ValueError):
        return None
    return status


def connect(address: tuple[str, int] | str) -> socket.socket:
    """Connect to a port of the loopback, or to a Unix socket by its path."""
    if isinstance(address, str):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE_SECONDS)
        connection.connect(address)
        return connection
    return socket.create_connection(address, timeout=PATIENCE_SECONDS)


def http_request(method: str, path: str, body: Any = None, key: str | None = None) -> bytes:
    """Write one request whose answer ends with the connection."""
    payload = b"" if body is None else json.dumps(body).encode()
    authorization = f"Authorization: Bearer {key}\r\n" if key else ""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{authorization}"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload


def cpu_seconds(pid: int) -> float:
    """Give the CPU time of a process so far, all of its threads, to the nanosecond."""
    spent = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            spent += int((thread / "schedstat").read_text().split()[0])
    return spent / 1e9


def memory_mb(pid: int) -> dict[str, float]:
    """Give the resident memory of a process: all of it, and its share (PSS counts shared pages in part)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
    return {"rss_mb": round(sizes["Rss"] / 1024, 1), "pss_mb": round(sizes["Pss"] / 1024, 1)}


def median_ms(seconds: Sequence[float]) -> float:
    """Give the median in milliseconds."""
    return round(statistics.median(seconds) * 1000, 2)


def percentile_ms(seconds: Sequence[float], percent: float) -> float:
    """Give a percentile in milliseconds."""
    ordered = sorted(seconds)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1000, 3)


def spread_ms(seconds: Sequence[float]) -> Figures:
    """Give what a row of times comes to."""
    return {
        "median_ms": median_ms(seconds),
        "lowest_ms": round(min(seconds) * 1000, 2),
        "highest_ms": round(max(seconds) * 1000, 2),
        "times": len(seconds),
    }


def say(text: str) -> None:
    """Tell the one who waits how far it has come."""
    print(text, file=sys.stderr, flush=True)


def now() -> float:
    return time.perf_counter()
