"""Run the benches, one after the other: what each of them found, as text or as JSON.

    python -m bench                     all of them
    python -m bench --list              what there is
    python -m bench ground --rounds 3   one of them, with options of its own (`--help` there)
    python -m bench --json > out.json   for programs

A bench is a program that writes one JSON object to its stdout.
"""

import argparse
import datetime as dt
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.gateway import table

BENCHES = {
    "ground": (
        "bench.ground",
        "up, terminal, memory, idle CPU, what the gateway adds to a first token",
    ),
    "switching": ("bench.switching", "what a switch costs over its engines; dead engines; adoption"),
    "gateway": ("bench.gateway", "what the gateway costs, beside nginx and others: time, CPU, memory"),
    "batch": (
        "bench.batch.__main__",
        "batches: lines a second, CPU, memory; with --only vllm beside run-batch",
    ),
    "benchmarks": (
        "bench.benchmarks",
        "how well benchmarks measure: beside vllm bench serve, against known times, at what cost",
    ),
    "terminal": ("bench.tui.bench_tui", "the terminal program alone: launch, rest, streaming"),
}
LAYOUTS: dict[str, Callable[[Any], list[str]]] = {"gateway": table.lines}
"""How the figures of some benches are laid out as text; others as they are nested."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; none is all")
    parser.add_argument("--list", action="store_true", help="say what there is and end")
    parser.add_argument("--json", action="store_true", help="write one JSON object")
    arguments, options = parser.parse_known_args()
    if unknown := set(arguments.names) - BENCHES.keys():
        parser.error(f"there is no bench {', '.join(sorted(unknown))}: {', '.join(BENCHES)}")
    if options and len(arguments.names) != 1:
        parser.error(f"{' '.join(options)}: options go with one bench")
    if arguments.list:
        print("\n".join(f"{name:10} {about}" for name, (_, about) in BENCHES.items()))
        return 0
    # So that the bench under way can take down what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    found: dict[str, Any] = {"machine": machine()}
    for name in arguments.names or BENCHES:
        found[name] = run(name, options)
        if not arguments.json:
            print("\n".join([name, *laid_out(name, found[name]), ""]), flush=True)
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        print("\n".join(["machine", *lines(found["machine"], "  ")]))
    return int(any(found[name] is None for name in arguments.names or BENCHES))


def run(name: str, options: list[str]) -> Any:
    """Run one bench in a process of its own; None when it failed."""
    print(f"{name}…", file=sys.stderr, flush=True)
    bench = subprocess.Popen([sys.executable, "-m", BENCHES[name][0], *options], stdout=subprocess.PIPE)
    try:
        written, _ = bench.communicate()
    except KeyboardInterrupt:
        bench.wait()  # it was interrupted too, and takes down what it has started
        raise
    except SystemExit:
        bench.terminate()
        bench.wait()
        raise
    return json.loads(written) if bench.returncode == 0 and written.strip() else None


def machine() -> dict[str, Any]:
    """Say where and when: figures mean little without it."""
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }


def laid_out(name: str, figures: Any) -> list[str]:
    """Lay out what a bench found."""
    return LAYOUTS[name](figures) if name in LAYOUTS and figures is not None else lines(figures, "  ")


def lines(figures: Any, indent: str) -> list[str]:
    """Lay figures out, one on a line, deeper ones further in."""
    if not isinstance(figures, dict):
        return [f"{indent}{figures if figures is not None else 'failed'}"]
    width = max((len(name) for name in figures), default=0)
    text: list[str] = []
    for name, value in figures.items():
        if isinstance(value, dict) and any(isinstance(each, dict) for each in value.values()):
            text += [f"{indent}{name}", *lines(value, indent + "  ")]
        elif isinstance(value, dict):
            row = " · ".join(f"{key} {each}" for key, each in value.items())
            text.append(f"{indent}{name:{width}}  {row}")
        else:
            text.append(f"{indent}{name:{width}}  {value}")
    return text


def _cpu_name() -> str:
    lines_of_it = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":")[1].strip() for line in lines_of_it if line.startswith("model name")), "?")


if __name__ == "__main__":
    sys.exit(main())
