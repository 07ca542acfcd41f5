"""What the terminal program costs: launch, rest, streaming. Figures as JSON on stdout.

    python bench/tui/bench_tui.py                       all of it
    python bench/tui/bench_tui.py --only stream --rate 200 --tokens 2000 --kind list

The program runs in a tmux server of its own (120x36) against `fake_daemon.py`. Every byte it writes is
recorded with its time; CPU and memory are those of its process, from /proc. Needs tmux.
"""

import argparse
import contextlib
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
TICK = os.sysconf("SC_CLK_TCK")
WIDTH, HEIGHT = 120, 36
DEADLINE_SECONDS = 120.0

PROGRAM = """
import os, sys
from footplate_daemon.settings import Paths
from footplate_tui.app import run
sys.exit(run(Paths.from_environment(os.environ)))
"""

RECORDER = """
import os, sys, time
with open(sys.argv[1], "wb", buffering=0) as out:
    while data := os.read(0, 65536):
        out.write(b"%f %d\\n" % (time.time(), len(data)))
"""


class Terminal:
    """One tmux server with one pane; keys go in, the screen and the record of bytes come out."""

    def __init__(self, folder: Path) -> None:
        self._record = folder / "record"
        self._folder = folder
        self._tmux = ["tmux", "-L", f"footplate-bench-{os.getpid()}", "-f", "/dev/null"]
        self._run("new-session", "-d", "-x", str(WIDTH), "-y", str(HEIGHT), "-s", "s", "sleep 100000")
        self._run("set", "-g", "status", "off")
        self._run("set", "-g", "remain-on-exit", "on")
        self._control = subprocess.Popen(
            [*self._tmux, "-C", "attach", "-f", "no-output,ignore-size", "-t", "s"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._ask("display -p x")

    def start(self, environment: dict[str, str], *command: str) -> tuple[int, float]:
        """Start a program in the pane; give its pid and the time."""
        self._record.unlink(missing_ok=True)
        recorder = self._folder / "recorder.py"
        recorder.write_text(RECORDER)
        words = ["env", *(f"{name}={value}" for name, value in environment.items()), *command]
        started_at = time.time()
        self._run("respawn-pane", "-k", "-t", "s", "exec " + shlex.join(words))
        self._run(
            "pipe-pane", "-O", "-t", "s", shlex.join([sys.executable, str(recorder), str(self._record)])
        )
        return int(self._run("display", "-p", "-t", "s", "#{pane_pid}")), started_at

    def keys(self, *keys: str) -> None:
        """Press keys, by tmux's names."""
        for key in keys:
            self._ask(f"send-keys -t s {shlex.quote(key)}")

    def screen(self) -> str:
        """Give the text on the screen."""
        return "\n".join(self._ask("capture-pane -p -t s"))

    def wait(self, is_there: Callable[[str], bool]) -> float:
        """Wait until the screen is so; give the time."""
        end = time.time() + DEADLINE_SECONDS
        while time.time() < end:
            if is_there(self.screen()):
                return time.time()
            time.sleep(0.005)
        raise SystemExit(f"Not on screen after {DEADLINE_SECONDS} s:\n{self.screen()}")

    def bytes_between(self, start: float, end: float) -> int:
        """Give how many bytes the program wrote in that time."""
        lines = (line.split() for line in self._record.read_text().splitlines())
        return sum(int(size) for at, size in lines if start <= float(at) <= end)

    def close(self) -> None:
        """End the server and what runs in it."""
        self._run("kill-server")
        self._control.wait()

    def _run(self, *arguments: str) -> str:
        return subprocess.run(
            [*self._tmux, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    def _ask(self, line: str) -> list[str]:
        """One command over the control connection: no process for each look at the screen."""
        assert self._control.stdin
        assert self._control.stdout
        self._control.stdin.write(line.encode() + b"\n")
        self._control.stdin.flush()
        answer: list[str] = []
        is_ours = False
        for raw in self._control.stdout:
            text = raw.decode("utf-8", "replace").rstrip("\n")
            if text.startswith("%begin"):
                is_ours, answer = text.split()[3] == "1", []
            elif text.startswith(("%end", "%error")):
                if is_ours:
                    return answer
            elif is_ours:
                answer.append(text)
        raise SystemExit("tmux ended")


@dataclass
class Bench:
    """A daemon, a terminal, and what is measured with them."""

    terminal: Terminal
    home: Path

    def launch(self) -> tuple[int, float]:
        """Start the program; give its pid and the seconds until the prompt can be used."""
        (self.home / "state" / "terminal" / "draft.txt").unlink(missing_ok=True)
        environment = {"FOOTPLATE_HOME": str(self.home), "TERM": "tmux-256color", "PYTHONSAFEPATH": "1"}
        pid, started_at = self.terminal.start(environment, sys.executable, "-c", PROGRAM)
        usable_at = self.terminal.wait(lambda screen: "Ask anything" in screen)
        return pid, usable_at - started_at

    def start(self, runs: int) -> dict[str, float]:
        """Measure the launch: prompt on screen, typed text echoed, model named in the header."""
        prompts, echoes, named = [], [], []
        for _ in range(runs):
            begun = time.time()
            _, seconds = self.launch()
            self.terminal.keys("z", "q")
            echoes.append(self.terminal.wait(lambda screen: "zq" in screen) - begun)
            named.append(self.terminal.wait(lambda screen: "guide @" in screen) - begun)
            prompts.append(seconds)
            self.terminal.keys("BSpace", "BSpace", "C-q")
            time.sleep(0.5)
        return {
            "prompt_seconds": round(statistics.median(prompts), 3),
            "echo_seconds": round(statistics.median(echoes), 3),
            "model_named_seconds": round(statistics.median(named), 3),
        }

    def rest(self, seconds: float = 10.0) -> dict[str, float]:
        """Measure what it costs while nothing happens."""
        pid, _ = self.launch()
        self.terminal.wait(lambda screen: "guide @" in screen)
        time.sleep(2)
        start, cpu = time.time(), cpu_seconds(pid)
        time.sleep(seconds)
        end = time.time()
        return {
            "bytes_per_second": self.terminal.bytes_between(start, end) / (end - start),
            "cpu_percent": round(100 * (cpu_seconds(pid) - cpu) / (end - start), 2),
            "rss_mb": rss_mb(pid),
        }

    def stream(self, log: Path) -> dict[str, float]:
        """Measure two answers, the second one counts (the first one pays for imports)."""
        pid, _ = self.launch()
        self.terminal.wait(lambda screen: "guide @" in screen)
        figures: dict[str, float] = {}
        for word in ("END0001", "END0002"):
            self.terminal.keys("g", "o", "Enter")
            cpu = cpu_seconds(pid)
            shown_at = self.terminal.wait(lambda screen, word=word: word in screen)  # type: ignore[misc]
            spent = cpu_seconds(pid) - cpu
            answer = json.loads(log.read_text().splitlines()[-1])
            time.sleep(0.5)
            seconds = shown_at - answer["first_at"]
            written = self.terminal.bytes_between(answer["first_at"], shown_at + 0.4)
            figures = {
                "seconds": round(seconds, 2),
                "tokens_per_second_shown": round(answer["tokens"] / seconds, 1),
                "last_token_lag_ms": round(1000 * (shown_at - answer["sent_at"]), 1),
                "cpu_percent": round(100 * spent / seconds, 1),
                "bytes_per_token": round(written / answer["tokens"], 1),
                "rss_mb": rss_mb(pid),
            }
        return figures


@contextlib.contextmanager
def bench(rate: float, tokens: int, kind: str) -> Iterator[tuple[Bench, Path]]:
    """Start a fake daemon and a terminal; end both."""
    with tempfile.TemporaryDirectory(prefix="fpb-") as name:
        home = Path(name)
        socket = home / "run" / "footplate.sock"
        socket.parent.mkdir()
        command = [
            sys.executable,
            HERE / "fake_daemon.py",
            socket,
            "--rate",
            str(rate),
            "--tokens",
            str(tokens),
        ]
        with subprocess.Popen([*command, "--kind", kind]) as daemon:
            terminal = Terminal(home)
            try:
                while not socket.exists():
                    time.sleep(0.05)
                yield Bench(terminal, home), Path(f"{socket}.log")
            finally:
                terminal.close()
                daemon.terminate()


def cpu_seconds(pid: int) -> float:
    """Give the CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def rss_mb(pid: int) -> float:
    """Give the resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024, 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=["start", "rest", "stream"])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--kind", default="mix")
    arguments = parser.parse_args()
    figures: dict[str, object] = {}
    if arguments.only in {None, "start"}:
        with bench(50, 1, "prose") as (measured, _):
            figures["start"] = measured.start(arguments.runs)
    if arguments.only in {None, "rest"}:
        with bench(50, 1, "prose") as (measured, _):
            figures["rest"] = measured.rest()
    if arguments.only in {None, "stream"}:
        plan = (
            [(arguments.rate, arguments.tokens)] if arguments.rate else [(50, 500), (200, 2000), (1000, 2000)]
        )
        for rate, tokens in plan:
            with bench(rate, tokens, arguments.kind) as (measured, log):
                figures[f"{arguments.kind} at {rate:g}/s"] = measured.stream(log)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
