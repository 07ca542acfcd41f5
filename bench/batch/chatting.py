"""How much longer somebody who chats waits for a first token while a batch runs."""

import threading
import time
from pathlib import Path

from bench.batch.client import Client
from bench.box import Figures, connect, http_request, percentile_ms

from footplate_daemon.paths import Paths

CHATS = 40
PAUSE_SECONDS = 0.25


def measure(paths: Paths, client: Client, file: Path, endpoint: str) -> Figures:
    """Chat at rest, then beside batches, one after the other until enough was said."""
    at_rest = [first_token(paths) for _ in range(CHATS)]
    is_over = threading.Event()

    def keep_batches_running() -> None:
        while not is_over.is_set():
            client.run(file, endpoint)

    running = threading.Thread(target=keep_batches_running)
    running.start()
    beside = []
    try:
        time.sleep(2.0)
        for _ in range(CHATS):
            beside.append(first_token(paths))
            time.sleep(PAUSE_SECONDS)
    finally:
        is_over.set()
        running.join()
    rest, busy = percentile_ms(at_rest, 50), percentile_ms(beside, 50)
    return {
        "at_rest_ms": rest,
        "beside_a_batch_ms": busy,
        "p95_beside_ms": percentile_ms(beside, 95),
        "ratio": round(busy / rest, 2),
    }


def first_token(paths: Paths) -> float:
    """Give the seconds from a request to the first text of its stream."""
    body = {
        "model": "guide",
        "messages": [{"role": "user", "content": "How do I switch runtime?"}],
        "max_tokens": 8,
        "stream": True,
    }
    with connect(str(paths.socket)) as connection:
        began = time.perf_counter()
        connection.sendall(http_request("POST", "/v1/chat/completions", body))
        received, seconds = b"", 0.0
        while piece := connection.recv(65536):
            received += piece
            if not seconds and b'"content":"' in received.replace(b'"content":""', b""):
                seconds = time.perf_counter() - began
    return seconds
