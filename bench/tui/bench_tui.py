"""What the terminal program costs: launch, rest, streaming, keys, memory. Figures as JSON on stdout.

    python -m bench terminal                     all of it
    python -m bench terminal --only keys         one of them (`--help` names them)
    python -m bench terminal --only stream --rate 200 --tokens 2000 --kind list
    python -m bench terminal --only stream --checkout /tmp/old     another checkout's terminal
    python -m bench terminal --peer oterm        the same of oterm, by turns with ours (`programs.py`)

The program runs in a tmux server of its own (120x36) against `fake_daemon.py`; `link` runs it on a terminal
that is read at a limited rate (`slow_link.py`). Every byte it writes is recorded with its time; CPU and
memory are those of its process, from /proc. Needs tmux. Run by root, it puts all of them before other work.

A peer is asked the same through `fake_ollama.py`, which has the same text. Where it does not follow the end
of an answer, the end counts as shown when it has stopped drawing, and `is_end_on_screen` is false.
"""

import argparse
import contextlib
import json
import os
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.tui.programs import NotShown, Program, ours, peer
from bench.tui.slow_link import SlowLink

HERE = Path(__file__).parent
TICK = os.sysconf("SC_CLK_TCK")
WIDTH, HEIGHT = 120, 36
DEADLINE_SECONDS = 240.0
QUIET_SECONDS = 2.0
BIG_WRITE_BYTES = 1000
"""A cursor that blinks writes less; what is drawn of an answer, more."""

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
        put_first(int(self._run("display", "-p", "#{pid}")))
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
        pid = int(self._run("display", "-p", "-t", "s", "#{pane_pid}"))
        put_first(pid)
        return pid, started_at

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
        raise NotShown(f"Not on screen after {DEADLINE_SECONDS} s:\n{self.screen()}")

    def last_big_write(self) -> float:
        """Give when it last drew more than a cursor."""
        lines = (line.split() for line in self._record.read_text().splitlines())
        return max((float(at) for at, size in lines if int(size) >= BIG_WRITE_BYTES), default=0.0)

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
    program: Program

    def launch(self) -> tuple[int, float]:
        """Start the program; give its pid and the seconds until the prompt can be used."""
        self.program.before_launch()
        environment = {"TERM": "tmux-256color", **self.program.environment}
        pid, started_at = self.terminal.start(environment, *self.program.command)
        usable_at = self.terminal.wait(lambda screen: self.program.ready in screen)
        return pid, usable_at - started_at

    def launch_connected(self) -> int:
        """Start the program; give its pid once it would answer."""
        pid, _ = self.launch()
        self.terminal.wait(lambda screen: self.program.connected in screen)
        if not self.program.is_ours:
            time.sleep(2)  # others show a prompt before they can send what stands in it
        return pid

    def start(self, runs: int) -> dict[str, float]:
        """Measure the launch: prompt on screen, typed text echoed, model named in the header."""
        prompts, echoes, named = [], [], []
        for _ in range(runs):
            begun = time.time()
            _, seconds = self.launch()
            self.terminal.keys("z", "q")
            echoes.append(self.terminal.wait(lambda screen: "zq" in screen) - begun)
            named.append(self.terminal.wait(lambda screen: self.program.connected in screen) - begun)
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
        pid = self.launch_connected()
        time.sleep(2)
        start, cpu = time.time(), cpu_seconds(pid)
        time.sleep(seconds)
        end = time.time()
        return {
            "bytes_per_second": self.terminal.bytes_between(start, end) / (end - start),
            "cpu_percent": round(100 * (cpu_seconds(pid) - cpu) / (end - start), 2),
            "rss_mb": rss_mb(pid),
        }

    def stream(self, log: Path, answers: int = 2) -> dict[str, float]:
        """Measure two answers, the second one counts (the first one pays for imports)."""
        pid = self.launch_connected()
        figures: dict[str, float] = {}
        for number in range(1, answers + 1):
            self.terminal.keys("g", "o", "Enter")
            cpu = cpu_seconds(pid)
            shown_at, is_on_screen = self.end_of_answer(number, log)
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
            if not is_on_screen:
                figures["is_end_on_screen"] = False
        return figures

    def end_of_answer(self, number: int, log: Path) -> tuple[float, bool]:
        """Wait for the end of an answer; give when, and whether it is to be seen."""
        word, end = f"END{number:04d}", time.time() + DEADLINE_SECONDS
        while time.time() < end:
            if word in self.terminal.screen():
                return time.time(), True
            if not self.program.is_ours and log.exists() and len(log.read_text().splitlines()) == number:
                drawn_at = self.terminal.last_big_write()
                sent_at = json.loads(log.read_text().splitlines()[-1])["sent_at"]
                if time.time() - max(drawn_at, sent_at) > QUIET_SECONDS:
                    return max(drawn_at, sent_at), False
            time.sleep(0.005)
        raise NotShown(f"{word} is not on screen after {DEADLINE_SECONDS} s:\n{self.terminal.screen()}")

    def keys(self, presses: int) -> dict[str, float]:
        """Measure the time from a key to the screen: at rest, and while an answer streams."""
        self.launch_connected()
        at_rest = self.press(presses // 2)
        self.terminal.keys("C-u", "g", "o", "Enter")
        self.terminal.wait(lambda screen: "batch one" in screen)
        streaming = self.press(presses)
        return {
            "at_rest_median_ms": round(1000 * statistics.median(at_rest), 1),
            "streaming_median_ms": round(1000 * statistics.median(streaming), 1),
            "streaming_p95_ms": round(1000 * statistics.quantiles(streaming, n=20)[-1], 1),
        }

    def press(self, presses: int) -> list[float]:
        """Press keys one after the other; give the seconds each took to be seen."""
        typed, seconds = "", []
        for number in range(presses):
            typed += "qzxjk"[number % 5]
            pressed_at = time.time()
            self.terminal.keys(typed[-1])
            seconds.append(self.terminal.wait(lambda screen, typed=typed: typed in screen) - pressed_at)  # type: ignore[misc]
            time.sleep(0.13)
        return seconds

    def memory(self, log: Path, answers: int, tokens: int) -> dict[str, float]:
        """Measure the memory before and after long answers that come at once."""
        pid = self.launch_connected()
        before = rss_mb(pid)
        for number in range(1, answers + 1):
            self.terminal.keys("g", "o", "Enter")
            self.end_of_answer(number, log)
            time.sleep(0.1)
        time.sleep(1)
        return {"tokens": answers * tokens, "rss_before_mb": before, "rss_after_mb": rss_mb(pid)}

    def history(self, pages: int = 60) -> dict[str, float]:
        """Measure how a long session opens and scrolls."""
        begun = time.time()
        pid, _ = self.launch()
        opened = (
            self.terminal.wait(lambda screen: "ask anything" in screen.lower() and "42 tok" in screen) - begun
        )
        time.sleep(1)
        cpu, seconds = cpu_seconds(pid), []
        for _ in range(pages):
            before, pressed_at = self.terminal.screen(), time.time()
            self.terminal.keys("PPage")
            seconds.append(self.terminal.wait(lambda screen, before=before: screen != before) - pressed_at)  # type: ignore[misc]
            time.sleep(0.05)
        return {
            "opened_seconds": round(opened, 2),
            "page_up_median_ms": round(1000 * statistics.median(seconds), 1),
            "page_up_longest_ms": round(1000 * max(seconds), 1),
            "cpu_ms_per_page": round(1000 * (cpu_seconds(pid) - cpu) / pages, 1),
            "rss_mb": rss_mb(pid),
        }


@dataclass(frozen=True)
class Subject:
    """Whose program is measured."""

    checkout: Path
    peer: str = ""
    """Empty: ours."""
    peer_program: str | None = None

    @contextlib.contextmanager
    def open(self, rate: float, tokens: int, kind: str, turns: int = 0) -> Iterator[tuple[Program, Path]]:
        """Start what it asks in a home of its own; give the program and the log of answers."""
        with tempfile.TemporaryDirectory(prefix="fpb-") as name:
            home, options = Path(name), {"rate": rate, "tokens": tokens, "kind": kind}
            if self.peer:
                port = free_port()
                with serving("fake_ollama.py", str(home / "ollama"), {"port": port, **options}):
                    url = f"http://127.0.0.1:{port}"
                    until(lambda: is_open(port))
                    yield peer(self.peer, self.peer_program, home, url), home / "ollama.log"
            else:
                socket_path = home / "run" / "footplate.sock"
                socket_path.parent.mkdir()
                with serving("fake_daemon.py", str(socket_path), {**options, "turns": turns}):
                    until(socket_path.exists)
                    yield ours(home, self.checkout), Path(f"{socket_path}.log")


@contextlib.contextmanager
def serving(script: str, first: str, options: dict[str, object]) -> Iterator[None]:
    """Run one of the fakes."""
    words = [str(word) for option, value in options.items() for word in (f"--{option}", value)]
    with subprocess.Popen([sys.executable, HERE / script, first, *words]) as process:
        try:
            yield
        finally:
            process.terminate()


def put_first(pid: int) -> None:
    """Put a process and its session before others of this machine, where that is allowed."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text("-15")


def until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def bench(
    subject: Subject, rate: float, tokens: int, kind: str, turns: int = 0
) -> Iterator[tuple[Bench, Path]]:
    """Start what answers and a terminal; end both."""
    with subject.open(rate, tokens, kind, turns) as (program, log):
        terminal = Terminal(log.parent)
        try:
            yield Bench(terminal, program), log
        finally:
            terminal.close()


def cpu_seconds(pid: int) -> float:
    """Give the CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def rss_mb(pid: int) -> float:
    """Give the resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024, 1)


def measure_start(options: argparse.Namespace, subject: Subject) -> object:
    with bench(subject, 50, 1, "prose") as (measured, _):
        return measured.start(3 if subject.peer else options.runs)


def measure_rest(_: argparse.Namespace, subject: Subject) -> object:
    with bench(subject, 50, 1, "prose") as (measured, _):
        return measured.rest()


def measure_stream(options: argparse.Namespace, subject: Subject) -> object:
    plan = [(options.rate, options.tokens)] if options.rate else [(50, 500), (200, 2000), (1000, 2000)]
    return {
        f"{options.kind} at {rate:g}/s": stream(subject, rate, tokens, options.kind) for rate, tokens in plan
    }


def measure_blocks(_: argparse.Namespace, subject: Subject) -> object:
    kinds = ("list", "table", "code", *(() if subject.peer else ("think",)))
    return {kind: stream(subject, 200, 1500, kind, answers=1 if subject.peer else 2) for kind in kinds}


def stream(subject: Subject, rate: float, tokens: int, kind: str, answers: int = 2) -> object:
    with bench(subject, rate, tokens, kind) as (measured, log):
        return measured.stream(log, answers)


def measure_keys(options: argparse.Namespace, subject: Subject) -> object:
    with bench(subject, options.rate or 200, 4000, "mix") as (measured, _):
        return measured.keys(presses=60)


def measure_link(options: argparse.Namespace, subject: Subject) -> object:
    rate, tokens = options.rate or 100, 1000
    with (
        subject.open(rate, tokens, "mix") as (program, log),
        SlowLink(program, options.link) as link,
    ):
        return link.measure(tokens, log)


def measure_memory(_: argparse.Namespace, subject: Subject) -> object:
    answers = PEER_ANSWERS if subject.peer else 25
    with bench(subject, 1e9, 2000, "mix") as (measured, log):
        return measured.memory(log, answers, 2000)


def measure_history(_: argparse.Namespace, subject: Subject) -> object:
    if subject.peer:
        return None
    with bench(subject, 50, 1, "prose", turns=10_000) as (measured, _):
        return measured.history()


PEER_ANSWERS = 5
"""Of 2,000 tokens: peers need half a minute for each of them, and more from one to the next."""
MEASURES = {
    "start": measure_start,
    "rest": measure_rest,
    "stream": measure_stream,
    "blocks": measure_blocks,
    "keys": measure_keys,
    "link": measure_link,
    "memory": measure_memory,
    "history": measure_history,
}


def measured(name: str, options: argparse.Namespace, subject: Subject) -> object:
    """Measure one thing of one program; of a peer, that it could not be is a finding."""
    try:
        found = MEASURES[name](options, subject)
    except NotShown as trouble:
        if not subject.peer:
            raise
        found = {"failed": str(trouble)}
    print(
        f"{name} of {Path(subject.peer).stem or 'footplate'}: {json.dumps(found)}",
        file=sys.stderr,
        flush=True,
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=MEASURES)
    parser.add_argument("--runs", type=int, default=7, help="launches of `start`")
    parser.add_argument("--rate", type=float, help="tokens per second of `stream`, `keys` and `link`")
    parser.add_argument("--tokens", type=int, default=2000, help="of `stream`, with --rate")
    parser.add_argument("--kind", default="mix", help="of `stream`")
    parser.add_argument("--link", type=float, default=16.0, help="kB a second of `link`")
    parser.add_argument("--checkout", type=Path, default=HERE.parents[1], help="whose terminal is measured")
    parser.add_argument(
        "--peer", action="append", default=[], help="oterm or a JSON file, measured by turns with ours"
    )
    parser.add_argument("--peer-program", help="where oterm is, if it is not on the PATH")
    options = parser.parse_args()
    put_first(os.getpid())
    subjects = {"footplate": Subject(options.checkout)}
    subjects |= {
        Path(name).stem: Subject(options.checkout, name, options.peer_program) for name in options.peer
    }
    found: dict[str, object] = {}
    for name in [options.only] if options.only else MEASURES:
        each = {whose: measured(name, options, subject) for whose, subject in subjects.items()}
        found[name] = each if options.peer else each["footplate"]
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
