"""What a switch costs over its engines, how soon a dead engine is noticed, how soon a new daemon adopts.

    python -m bench switching [--rounds 7] [--load-ms 300] [--only overhead|notice|adoption] [--vllm]

Overhead is the time from the call to ready, less what the engines need without Footplate: the stop of the
old one and the bare start of the new one (spawn to the first 200 of `/health`, asked every 5 ms). Every
round measures both, so a busy machine is busy for both. Bare engines are started by the very script that
supervisord runs, outside of it. `told_late` is how long after the engine's first 200, seen by an observer
during the switch, the call returns: it does not suffer from starts that differ by seconds, as vLLM's do.
"""

import argparse
import json

from bench.box import Figures, call, fresh_home, say, until_ready
from bench.switching import adoption, notice, overhead
from bench.switching.engines import Lineup

from footplate_daemon import lifecycle

PARTS = {"overhead": overhead.measure, "notice": notice.measure, "adoption": adoption.measure}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--load-ms", type=int, default=300, help="of the fake engine")
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--vllm", action="store_true", help="vLLM too: half a minute for each of its starts")
    arguments = parser.parse_args()
    lineup = Lineup.found(arguments.load_ms, with_vllm=arguments.vllm)
    figures: Figures = {}
    with fresh_home(lineup.config()) as paths:
        lifecycle.up(paths)
        until_ready(paths)
        for name, measure in PARTS.items():
            if arguments.only in {None, name}:
                say(name)
                call(paths, "POST", "/api/v1/models/activate?wait=1", {"name": lineup.first})
                figures[name] = measure(paths, lineup, arguments.rounds)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
