"""A program on a terminal that is read at a limited rate, as over a poor line."""

import json
import os
import pty
import re
import statistics
import subprocess
import termios
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.tui.programs import NotShown, Program

WIDTH, HEIGHT = 120, 36
SLICE_SECONDS = 0.004
DEADLINE_SECONDS = 120.0
END_SECONDS = 30.0
RARE = "QZXJY"
"""Letters that no answer has: what is seen of them was typed."""

_SEQUENCE = re.compile(rb"\x1b\[[0-9;?<>=$:]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[=>()][A-Z0-9]?")


class SlowLink:
    """Starts the program; what it writes comes through at `kilobytes` a second once `measure` begins."""

    def __init__(self, program: Program, kilobytes: float) -> None:
        self._kilobytes = kilobytes
        self._connected = program.connected
        self._is_slow = False
        self._seen = bytearray()
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (HEIGHT, WIDTH))
        self._program = subprocess.Popen(
            program.command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", **program.environment},
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_slow = False
        self._program.kill()
        self._program.wait()
        os.close(self._master)

    def measure(self, tokens: int, log: Path) -> dict[str, float]:
        """Measure keys pressed while an answer comes, and when the end of it is seen."""
        self._wait(self._connected, 0)
        time.sleep(2)
        self._is_slow = True
        begun = len(self._seen)
        os.write(self._master, b"go\r")
        self._wait("batch", begun)
        seconds: list[float] = []
        while not log.exists():
            mark, pressed_at = len(self._seen), time.time()
            key = RARE[len(seconds) % len(RARE)]
            os.write(self._master, key.encode())
            seconds.append(self._wait(key, mark) - pressed_at)
            time.sleep(0.25)
        figures: dict[str, float] = {
            "key_median_ms": round(1000 * statistics.median(seconds), 1),
            "key_longest_ms": round(1000 * max(seconds), 1),
        }
        try:
            shown_at = self._wait("END0001", begun, END_SECONDS)
        except NotShown:
            figures["is_end_on_screen"] = False
        else:
            sent_at = json.loads(log.read_text().splitlines()[0])["sent_at"]
            figures["last_token_lag_ms"] = round(1000 * max(shown_at - sent_at, 0.0), 1)
        return {**figures, "bytes_per_token": round((len(self._seen) - begun) / tokens, 1)}

    def _read(self) -> None:
        read_at, credit = time.monotonic(), 0.0
        try:
            while True:
                if not self._is_slow:
                    self._seen += os.read(self._master, 65536)
                    read_at, credit = time.monotonic(), 0.0
                    continue
                time.sleep(SLICE_SECONDS)
                now = time.monotonic()
                most = self._kilobytes * 1000 * SLICE_SECONDS * 4
                credit, read_at = min(credit + (now - read_at) * self._kilobytes * 1000, most), now
                if credit >= 1:
                    data = os.read(self._master, int(credit))
                    self._seen += data
                    credit -= len(data)
        except OSError:
            return

    def _wait(self, text: str, since: int, seconds: float = DEADLINE_SECONDS) -> float:
        end = time.time() + seconds
        while time.time() < end:
            if text in _SEQUENCE.sub(b"", bytes(self._seen[max(since - 32, 0) :])).decode("utf-8", "replace"):
                return time.time()
            time.sleep(0.002)
        raise NotShown(f"{text!r} not seen after {seconds:g} s")
