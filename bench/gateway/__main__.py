"""What the gateway costs: time, CPU and memory, beside nginx, LiteLLM, and the least that ASGI can be.

    python -m bench gateway [--rounds 5] [--only first,json] [--targets footplate-unix,nginx] [--litellm]

Every target has the same upstream, which answers at once, and takes its turn in each round; figures are
medians of the rounds. The client and the upstream are on one core, what is measured on another.
`--litellm` installs LiteLLM into .cache/bench-litellm the first time. `--profile` measures nothing, but tells
where our daemon spends its time, if py-spy is installed.
"""

import argparse
import json
import os
import shlex
import signal
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from bench.box import Figures, say
from bench.gateway import measures, profile
from bench.gateway.measures import BY_TURNS, Row
from bench.gateway.targets import CLIENT_CORE, NAMES, PROXIES_CORE, LeftOut, Lineup, lineup

MEASURES = (*BY_TURNS, "leaving", "slow", "memory")


def main() -> None:
    options = _options()
    # Whoever is asked to end takes down first what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    wanted = ["footplate-unix"] if options.profile else [*dict.fromkeys(("direct", *options.targets))]
    try:
        with lineup(wanted, with_litellm=options.litellm) as found:
            figures = _profiled(found, options) if options.profile else _measured(found, options)
    except LeftOut as reason:
        raise SystemExit(str(reason)) from reason
    print(json.dumps(figures))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench gateway",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measure in a round")
    parser.add_argument("--only", type=_names(MEASURES), default=MEASURES, help=f"of {','.join(MEASURES)}")
    parser.add_argument(
        "--targets", type=_names(NAMES), default=NAMES, help=f"of {','.join(NAMES)}; direct always"
    )
    parser.add_argument("--litellm", action="store_true", help="LiteLLM too")
    parser.add_argument("--attempts", type=int, default=20, help="to leave, in each way")
    parser.add_argument("--requests", type=int, default=100_000, help="over which memory is to stay flat")
    parser.add_argument("--streams", type=int, default=20_000, help="the same")
    parser.add_argument("--profile", action="store_true")
    return parser.parse_args()


def _names(known: Sequence[str]) -> Any:
    """Give a parser of names with commas between them, which puts them in our order."""

    def names(text: str) -> list[str]:
        if unknown := set(text.split(",")) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: of {', '.join(known)}")
        return [name for name in known if name in text.split(",")]

    return names


def _measured(found: Lineup, options: argparse.Namespace) -> Figures:
    rows: dict[str, Row] = {target.name: {} for target in found.targets}
    by_turns = [name for name in BY_TURNS if name in options.only]
    if by_turns:
        for name, row in rounds(found, by_turns, options).items():
            rows[name] |= row
    if "leaving" in options.only:
        say("leaving")
        for name, row in measures.leaving(found, options.attempts).items():
            rows[name] |= row
    for target in found.targets:
        rows[target.name] |= measures.memory_now(target)
    if "slow" in options.only:
        for target in found.targets:
            say(f"slow readers: {target.name}")
            found.renew(target)
            _add(rows[target.name], measures.slow_readers(target))
    figures: Figures = {**_heading(), "targets": rows, "left_out": found.left_out}
    ours = found.ours()
    if ours and "memory" in options.only:
        say(f"memory: {ours[0].name}")
        found.renew(ours[0])
        figures["memory"] = measures.many(ours[0], options.requests, options.streams)
    if found.home is not None:
        figures["ledger"] = measures.ledger(found.home, ours)
    return figures


def _profiled(found: Lineup, options: argparse.Namespace) -> Figures:
    ours = found.ours()
    if not ours:
        raise LeftOut(next(iter(found.left_out.values())))
    return {
        **_heading(),
        "targets": {},
        "left_out": found.left_out,
        "profile": profile.measure(ours[0], options.seconds),
    }


def _heading() -> Figures:
    return {
        "command": f"python -m bench gateway {shlex.join(sys.argv[1:])}".rstrip(),
        "setup": f"client and upstream on core {CLIENT_CORE}, proxies on core {PROXIES_CORE}; "
        f"load at the end {os.getloadavg()[0]:.2f}",
    }


def rounds(found: Lineup, names: Sequence[str], options: argparse.Namespace) -> dict[str, Row]:
    """Measure all targets by turns; give the medians, first texts less those of the upstream itself."""
    history: dict[str, list[Row]] = {target.name: [] for target in found.targets}
    for number in range(options.rounds):
        say(f"round {number + 1} of {options.rounds}")
        latest: dict[str, Row] = {target.name: {} for target in found.targets}
        for measure in (each for name in names for each in BY_TURNS[name]):
            for target in found.targets:
                _add(latest[target.name], measure(target, options.seconds))
        for name, row in latest.items():
            history[name].append(row if name == "direct" else _added(row, latest.get("direct", {})))
    return {name: _medians(past) for name, past in history.items()}


def _add(row: Row, more: Row) -> None:
    """Put more numbers into a row; failures add up."""
    failed = (row.get("failed") or 0) + (more.get("failed") or 0)
    row |= {**more, "failed": failed}


def _added(row: Row, direct: Row) -> Row:
    """Take off what the upstream itself needs until its first text."""
    added = dict(row)
    for key, value in row.items():
        base = direct.get(key)
        if key.startswith("first_text"):
            added[key] = None if value is None or base is None else round(value - base, 3)
    return added


def _medians(past: Sequence[Row]) -> Row:
    medians: Row = {}
    for key in past[0]:
        values = [value for row in past if (value := row[key]) is not None]
        if key == "failed":
            medians[key] = sum(values)
        else:
            medians[key] = round(statistics.median(values), 3) if values else None
    return medians


if __name__ == "__main__":
    main()
