"""What a switch takes longer than its engines, for every way of the tour."""

import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

from bench.box import PATIENCE_SECONDS, Figures, call, median_ms, now, say
from bench.switching.engines import POLL_SECONDS, Bare, Lineup, bare, is_healthy, launch_script

from footplate_daemon.paths import Paths
from footplate_daemon.supervisord import read_record
from footplate_daemon.switching.engine import engine_name


def measure(paths: Paths, lineup: Lineup, rounds: int) -> Figures:
    """Measure round by round: first every engine bare, then every switch of the tour."""
    tour = lineup.tour()
    scripts = {lineup.first: launch_script(paths, lineup.first)}
    for variant in tour:  # also brings the files into the page cache
        call(paths, "POST", "/api/v1/models/activate?wait=1", {"name": variant})
        scripts[variant] = launch_script(paths, variant)
    found: dict[str, list[Way]] = defaultdict(list)
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        alone = {variant: bare(paths, script) for variant, script in scripts.items()}
        previous = lineup.first
        for variant in tour:
            way = f"{previous} → {variant}"
            found[way].append(Way(paths, variant, old=alone[previous], new=alone[variant]))
            previous = variant
    return {way: _figures(ways) for way, ways in found.items()}


class Way:
    """One switch, measured beside its engines."""

    def __init__(self, paths: Paths, variant: str, *, old: Bare, new: Bare) -> None:
        with ThreadPoolExecutor(1) as observer:
            serves = observer.submit(_first_healthy, paths, variant)
            began = now()
            switch = call(paths, "POST", "/api/v1/models/activate?wait=1", {"name": variant})
            ended = now()
        self.seconds = ended - began
        self.late_seconds = ended - serves.result()
        if switch["outcome"] != "done":
            raise SystemExit(f"The switch to {variant}: {switch['outcome']}, {switch['diagnosis']}")
        self.old, self.new = old, new
        self.steps = {step["name"]: step["seconds"] or 0.0 for step in switch["steps"]}

    @property
    def engine_seconds(self) -> float:
        return self.old.stop_seconds + self.new.start_seconds

    @property
    def overhead_seconds(self) -> float:
        return self.seconds - self.engine_seconds

    @property
    def stop_overhead_seconds(self) -> float:
        return self.steps["stop"] - self.old.stop_seconds

    @property
    def start_overhead_seconds(self) -> float:
        return self.steps["start"] + self.steps["load"] - self.new.start_seconds


def _first_healthy(paths: Paths, variant: str) -> float:
    """Return when the engine that is being started first answers an observer."""
    former, deadline = read_record(paths, engine_name(variant)), now() + PATIENCE_SECONDS
    while now() < deadline:
        record = read_record(paths, engine_name(variant))
        if record and record != former and is_healthy(record.port, record.api_key):
            break
        time.sleep(POLL_SECONDS)
    return now()


def _figures(ways: list[Way]) -> Figures:
    overheads = [way.overhead_seconds for way in ways]
    return {
        "overhead_ms": median_ms(overheads),
        "lowest_ms": median_ms([min(overheads)]),
        "highest_ms": median_ms([max(overheads)]),
        "told_late_ms": median_ms([way.late_seconds for way in ways]),
        "in_stop_ms": median_ms([way.stop_overhead_seconds for way in ways]),
        "in_start_and_load_ms": median_ms([way.start_overhead_seconds for way in ways]),
        "in_warm_up_ms": median_ms([way.steps["warm up"] for way in ways]),
        "bare_first_token_ms": median_ms([way.new.first_token_seconds for way in ways]),
        "switch_ms": median_ms([way.seconds for way in ways]),
        "bare_stop_ms": median_ms([way.old.stop_seconds for way in ways]),
        "bare_start_ms": median_ms([way.new.start_seconds for way in ways]),
    }
