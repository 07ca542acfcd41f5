"""What reading weights ahead is worth: a file read cold, and read after so long a drain of the old engine.

    python -m bench.switching.read_ahead [--gib 1] [--drain-seconds 0.5] [--rounds 5]

Interleaved; the file is put out of the page cache before each reading. The gain is what a switch saves
on a machine whose weights are not cached: no more than the drain lasts, and no more than the disk gives.
"""

import argparse
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

from footplate_daemon.switching.read_ahead import read_ahead

BLOCK = 16 * 1024 * 1024


def main() -> None:
    """Print the medians."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--gib", type=float, default=1.0)
    options.add_argument("--drain-seconds", type=float, default=0.5)
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        weights = Path(folder) / "weights.gguf"
        write(weights, int(chosen.gib * 2**30))
        cold, ahead = [], []
        for _ in range(chosen.rounds):
            cold.append(timed_reading(weights))
            put_out(weights)
            stop = threading.Event()
            reading = threading.Thread(target=read_ahead, args=(weights, stop))
            reading.start()
            time.sleep(chosen.drain_seconds)
            ahead.append(timed_reading(weights, is_cold=False))
            stop.set()
            reading.join()
    before, after = statistics.median(cold), statistics.median(ahead)
    share = f"{after / before:.0%}"
    print(f"cold {before:.2f} s · after a drain of {chosen.drain_seconds} s {after:.2f} s · {share}")


def write(weights: Path, size: int) -> None:
    """Make a file of random bytes, on the disk."""
    block = os.urandom(BLOCK)
    with weights.open("wb") as stream:
        for _ in range(size // BLOCK):
            stream.write(block)
        stream.flush()
        os.fsync(stream.fileno())


def put_out(weights: Path) -> None:
    """Put the file out of the page cache."""
    with weights.open("rb") as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed_reading(weights: Path, *, is_cold: bool = True) -> float:
    """Read the whole file; give the seconds."""
    if is_cold:
        put_out(weights)
    began = time.perf_counter()
    with weights.open("rb", buffering=0) as stream:
        while stream.read(BLOCK):
            pass
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
