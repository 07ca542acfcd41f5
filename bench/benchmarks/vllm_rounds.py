"""`vllm bench serve`, round after round: run by vLLM's own Python, which imports it once.

    python vllm_rounds.py SERVE_ARGUMENTS… < rounds > results

For each line of stdin, a JSON list of prompts, one round is run and its result written as a line of JSON.
The prompts replace the data set: everything else is vLLM's.
"""

import asyncio
import contextlib
import copy
import json
import sys

from vllm.benchmarks import serve
from vllm.benchmarks.datasets import SampleRequest
from vllm.utils.argparse_utils import FlexibleArgumentParser


def main() -> None:
    tokens = int(sys.argv[1])
    parser = FlexibleArgumentParser()
    serve.add_cli_args(parser)
    arguments = parser.parse_args(sys.argv[2:])
    say({"ready": True})
    for line in sys.stdin:
        prompts = json.loads(line)
        arguments.num_prompts = len(prompts)
        serve.get_samples = lambda *_, asked=prompts: [
            SampleRequest(
                prompt=prompt,
                prompt_len=1,
                expected_output_len=tokens,
                chat_messages=[{"role": "user", "content": prompt}],
            )
            for prompt in asked
        ]
        with contextlib.redirect_stdout(sys.stderr):
            found = asyncio.run(serve.main_async(copy.deepcopy(arguments)))  # it changes them
        say({name: value for name, value in found.items() if isinstance(value, int | float | str)})


def say(value: object) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
