"""How well Footplate measures: beside `vllm bench serve`, against known times, and at what cost.

python -m bench.benchmarks [--only client,pacing,agreement] [--rounds 6] [--requests 24]
"""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from bench.benchmarks import agreement, client_cpu, pacing


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="client,pacing,agreement")
    parser.add_argument("--rounds", type=int, default=6, help="of agreement")
    parser.add_argument("--requests", type=int, default=24, help="in each round of agreement, and of pacing")
    options = parser.parse_args()
    measures: dict[str, Callable[[], Any]] = {
        "client": client_cpu.measure,
        "pacing": lambda: pacing.measure(options.requests),
        "agreement": lambda: agreement.measure(options.rounds, options.requests),
    }
    wanted = options.only.split(",")
    if unknown := set(wanted) - measures.keys():
        parser.error(f"there is no {', '.join(sorted(unknown))}: {', '.join(measures)}")
    json.dump({name: measures[name]() for name in wanted}, sys.stdout, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
