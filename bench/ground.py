"""What Footplate costs before anything is asked of it, and what it adds to an answer's first token.

    python -m bench ground [--rounds 7] [--pairs 200] [--idle-seconds 30]

A round is a fresh home: `footplate up`, the guide ready, the terminal opened twice, `footplate down`.
First tokens are pairs, one through the gateway and one straight from the engine, in alternating order.
"""

import argparse
import json
import re
import subprocess
import time
from pathlib import Path

from bench.box import (
    FOOTPLATE,
    PATIENCE_SECONDS,
    Figures,
    connect,
    cpu_seconds,
    environment,
    fresh_home,
    http_request,
    median_ms,
    memory_mb,
    now,
    percentile_ms,
    say,
    spread_ms,
    until_ready,
)
from bench.tui.bench_tui import Terminal

from footplate_daemon import lifecycle, processes
from footplate_daemon.paths import Paths
from footplate_daemon.supervisord import read_record

CONTENT = re.compile(rb'"content": ?"[^"]')
QUESTION = {
    "model": "guide",
    "stream": True,
    "temperature": 0,
    "max_tokens": 4,
    "messages": [{"role": "user", "content": "How do I switch runtime?"}],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--idle-seconds", type=float, default=30.0)
    arguments = parser.parse_args()
    figures = lifecycle_figures(arguments.rounds)
    with fresh_home() as paths:
        lifecycle.up(paths)
        until_ready(paths)
        say("first tokens")
        figures["first_token"] = first_tokens(paths, arguments.pairs)
        say(f"idle for {arguments.idle_seconds:.0f} s")
        figures["at_rest"] = at_rest(paths, arguments.idle_seconds)
    print(json.dumps(figures))


def lifecycle_figures(rounds: int) -> Figures:
    """Measure cold starts and stops, and the terminal opened while the daemon is up."""
    ups: list[float] = []
    healthy, ready, first, again, echoed, downs = (list(ups) for _ in range(6))
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        with fresh_home() as paths:
            began = now()
            command = subprocess.Popen([FOOTPLATE, "up"], env=environment(paths), stdout=subprocess.DEVNULL)
            while lifecycle.health(paths) is None:
                time.sleep(0.002)
            healthy.append(now() - began)
            if command.wait() != 0:
                raise SystemExit("footplate up failed")
            ups.append(now() - began)
            until_ready(paths)
            ready.append(now() - began)
            (prompt, _), (prompt_again, echo_again) = open_terminal(paths, times=2)
            first.append(prompt)
            again.append(prompt_again)
            echoed.append(echo_again)
            began = now()
            lifecycle.down(paths)
            downs.append(now() - began)
    return {
        "up": {
            "cold_to_health": spread_ms(healthy),
            "command_returned": spread_ms(ups),
            "guide_ready": spread_ms(ready),
        },
        "terminal": {
            "first_time_to_prompt": spread_ms(first),
            "again_to_prompt": spread_ms(again),
            "again_to_typed_echo": spread_ms(echoed),
        },
        "down": spread_ms(downs),
    }


def open_terminal(paths: Paths, times: int) -> list[tuple[float, float]]:
    """Open `footplate` with the daemon up; give the seconds to the prompt and to a typed word's echo."""
    folder = paths.state_dir / "bench"
    folder.mkdir()
    settings = {"FOOTPLATE_HOME": str(paths.config_dir.parent), "TERM": "tmux-256color"}
    found = []
    terminal = Terminal(folder)
    try:
        for _ in range(times):
            pid, started_at = terminal.start(settings, str(FOOTPLATE))
            prompt_at = terminal.wait(lambda screen: "Ask anything" in screen)
            terminal.keys("z", "q")
            echo_at = terminal.wait(lambda screen: "zq" in screen)
            terminal.keys("BSpace", "BSpace")
            terminal.wait(lambda screen: "zq" not in screen)
            terminal.keys("C-q")
            if (program := processes.identify(pid)) and processes.wait_gone([program], PATIENCE_SECONDS):
                raise SystemExit("The terminal does not quit.")
            found.append((prompt_at - started_at, echo_at - started_at))
    finally:
        terminal.close()
    return found


def first_tokens(paths: Paths, pairs: int) -> Figures:
    """Measure the first token both ways, each time on a new connection."""
    record = read_record(paths, "llamacpp-guide")
    if record is None:
        raise SystemExit("The guide does not run.")
    ways: dict[str, tuple[tuple[str, int] | str, bytes]] = {
        "engine": (("127.0.0.1", record.port), http_request("POST", _CHAT, QUESTION, record.api_key)),
        "gateway": (str(paths.socket), http_request("POST", _CHAT, QUESTION)),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(pairs + 10):
        for way in sorted(ways, reverse=number % 2 == 1):
            seconds = first_token(*ways[way])
            if number >= 10:  # the first ones warm both up
                times[way].append(seconds)
    added = [through - straight for through, straight in zip(times["gateway"], times["engine"], strict=True)]
    return {
        **{
            way: {"p10_ms": percentile_ms(found, 10), "p50_ms": percentile_ms(found, 50)}
            for way, found in times.items()
        },
        "added": {
            "p10_ms": round(percentile_ms(times["gateway"], 10) - percentile_ms(times["engine"], 10), 3),
            "p50_ms": round(percentile_ms(times["gateway"], 50) - percentile_ms(times["engine"], 50), 3),
            "median_of_pairs_ms": median_ms(added),
            "pairs": pairs,
        },
    }


def first_token(address: tuple[str, int] | str, request: bytes) -> float:
    """Send a request; give the seconds to the first text, having read the answer to its end."""
    received = bytearray()
    seconds = None
    began = now()
    with connect(address) as connection:
        connection.sendall(request)
        while more := connection.recv(65536):
            received += more
            if seconds is None and CONTENT.search(received):
                seconds = now() - began
    if seconds is None:
        raise SystemExit(f"No text in the answer: {bytes(received[:500])!r}")
    return seconds


def at_rest(paths: Paths, seconds: float) -> Figures:
    """Measure memory and CPU while nothing happens, nobody follows."""
    state = lifecycle.state(paths)
    record = read_record(paths, "llamacpp-guide")
    pids = {
        "footplated": state.daemon_pid,
        "supervisord": state.supervisord_pid,
        "engine": record.pid if record else None,
    }
    found = {name: pid for name, pid in pids.items() if pid}
    time.sleep(2)
    before = {name: cpu_seconds(pid) for name, pid in found.items()}
    began = now()
    time.sleep(seconds)
    window = now() - began
    return {
        name: {
            **memory_mb(pid),
            "cpu_percent": round(100 * (cpu_seconds(pid) - before[name]) / window, 3),
            "threads": len(list(Path(f"/proc/{pid}/task").iterdir())),
        }
        for name, pid in found.items()
    }


_CHAT = "/v1/chat/completions"


if __name__ == "__main__":
    main()
