"""What a batch costs and how fast it is, and whom it makes wait.

    python -m bench batch                              all of it but vLLM
    python -m bench batch --only lines --lines 50000   one part: lines, validation, vllm
    python -m bench batch --only vllm --lines 400      needs `python scripts/engines.py vllm`

**lines**: a batch of so many lines against an upstream that answers at once; lines each second, CPU time of
the daemon for each, and the highest resident memory, beside that of a batch of 100 lines. **validation**: a
file of 200 MB, from its upload to `in_progress`. **vllm**: the same file by `vllm run-batch` and by a batch,
in turns; of run-batch only what it takes longer than for a file of one line counts, as it loads an engine
each time, and the batch finds one loaded. **chat**, with vllm: a first token at rest, and beside a batch.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.batch import chatting
from bench.batch.client import Client, peak_mb, reset_peak
from bench.box import Figures, cpu_seconds, fresh_home, memory_mb, say, until_ready
from bench.gateway.upstream import MODEL
from tests import engines as installed

from footplate_daemon import lifecycle
from footplate_daemon.paths import Paths

FEW = 100
MIB = 1024 * 1024
ENDPOINT = "/v1/chat/completions"
VLLM_ARGS = (*installed.VLLM_LIGHT_ARGS, "--max-num-seqs", "64", "--max-num-batched-tokens", "2048")
"""Our presets are for small GPUs, and ask one line at a time."""
PARTS = ("lines", "validation", "vllm")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench batch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", default="lines,validation", help=f"of {','.join(PARTS)}")
    parser.add_argument("--lines", type=int, default=None, help="of a batch (50,000; with vllm 400)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of run-batch and batch; 0: only chat")
    options = parser.parse_args()
    # So that what was started is taken down.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    parts = options.only.split(",")
    found: Figures = {}
    if {"lines", "validation"} & set(parts):
        with upstream() as port, fresh_home(remote_config(port)) as paths:
            pid = lifecycle.up(paths).pid
            if "lines" in parts:
                found["lines"] = measure_lines(paths, pid, options.lines or 50_000)
            if "validation" in parts:
                found["validation"] = measure_validation(paths)
    if "vllm" in parts:
        found["vllm"] = measure_vllm(options.lines or 400, options.rounds)
    print(json.dumps(found, indent=1))


@contextmanager
def upstream() -> Iterator[int]:
    """Run the upstream of the gateway's bench; give its port."""
    command = [sys.executable, "-m", "bench.gateway.upstream"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            yield int(program.stdout.readline())
        finally:
            program.terminate()


def remote_config(port: int) -> str:
    return (
        f'[switching]\ndefault = "{MODEL}"\n[batches]\nmin_free_mib = 16\n'
        f'[models.{MODEL}.remote]\nurl = "http://127.0.0.1:{port}/v1"\n'
    )


def write_lines(path: Path, count: int, model: str, *, bytes_each: int = 200, **body: Any) -> None:
    """Write an input file."""
    with path.open("w") as file:
        for number in range(count):
            question = f"{number} ".ljust(bytes_each, "x")
            asked = {"model": model, "messages": [{"role": "user", "content": question}], **body}
            line = {"custom_id": f"line-{number}", "method": "POST", "url": ENDPOINT, "body": asked}
            file.write(json.dumps(line) + "\n")


def measure_lines(paths: Paths, pid: int, count: int) -> Figures:
    """Run a small batch, then a large one; what the second needs more is what lines cost."""
    client = Client(paths)
    file = paths.data_dir / "in.jsonl"
    peaks = {}
    for lines in (FEW, FEW, count):
        write_lines(file, lines, MODEL)
        reset_peak(pid)
        at_rest, cpu_before, began = memory_mb(pid)["rss_mb"], cpu_seconds(pid), time.monotonic()
        say(f"batch: {lines} lines")
        batch = client.run(file, ENDPOINT)
        seconds, cpu = time.monotonic() - began, cpu_seconds(pid) - cpu_before
        peaks[lines] = peak_mb(pid)
        if batch["request_counts"]["completed"] != lines:
            raise SystemExit(f"The batch did not complete: {batch}")
    return {
        "lines": count,
        "lines_per_second": round(count / seconds),
        "cpu_us_per_line": round(cpu / count * 1e6),
        "rss_before_mb": at_rest,
        "peak_rss_mb": peaks[count],
        "peak_rss_of_100_lines_mb": peaks[FEW],
        "more_than_100_lines_mb": round(peaks[count] - peaks[FEW], 1),
    }


def measure_validation(paths: Paths) -> Figures:
    """Upload 200 MB and have it looked through."""
    client = Client(paths)
    file = paths.data_dir / "large.jsonl"
    count = 50_000
    write_lines(file, count, MODEL, bytes_each=200 * MIB // count - 250)
    began = time.monotonic()
    file_id = client.upload(file)
    uploaded = time.monotonic()
    batch = client.create(file_id, ENDPOINT)
    while batch["status"] == "validating":
        time.sleep(0.01)
        batch = client.batch(batch["id"])
    validated = time.monotonic()
    client.cancel(batch["id"])
    client.until_over(batch["id"])
    return {
        "megabytes": round(file.stat().st_size / 1e6, 1),
        "upload_seconds": round(uploaded - began, 2),
        "validation_seconds": round(validated - uploaded, 2),
    }


def measure_vllm(count: int, rounds: int) -> Figures:
    """Run a file by `vllm run-batch` and by a batch, in turns; then chat beside a batch."""
    vllm = installed.vllm()
    if vllm is None:
        raise SystemExit("There is no vLLM: run `python scripts/engines.py vllm`.")
    with fresh_home(vllm_config(vllm)) as paths:
        lifecycle.up(paths)
        until_ready(paths)
        client, ratios = Client(paths), []
        file, single = paths.data_dir / "in.jsonl", paths.data_dir / "one.jsonl"
        write_lines(file, count, "guide", bytes_each=60, max_tokens=64, ignore_eos=True)
        write_lines(single, 1, "guide", bytes_each=60, max_tokens=64, ignore_eos=True)
        client.run(file, ENDPOINT)  # what is compiled at first is compiled then
        for turn in range(rounds):
            ours = client.generation_seconds(client.run(file, ENDPOINT))
            theirs = run_batch(vllm, file, paths) - run_batch(vllm, single, paths)
            say(f"round {turn + 1}: batch {ours:.1f} s, run-batch {theirs:.1f} s")
            ratios.append(theirs / ours)
        chat = chatting.measure(paths, client, file, ENDPOINT)
    return {
        "lines": count,
        "throughput_over_run_batch": [round(ratio, 2) for ratio in ratios],
        "median": round(sorted(ratios)[len(ratios) // 2], 2) if ratios else None,
        "first_token": chat,
    }


def vllm_config(vllm: Path) -> str:
    env = ", ".join(f"{name} = {json.dumps(value)}" for name, value in installed.VLLM_LIGHT_ENV.items())
    return (
        '[switching]\ndefault = "vllm/guide"\n[batches]\nmin_free_mib = 16\n'
        f"[runtimes.vllm]\nprogram = {json.dumps(str(vllm.parent.parent))}\n"
        f"args = {json.dumps(list(VLLM_ARGS))}\nenv = {{ {env} }}\n"
        f"[models.guide.vllm]\nweights = {json.dumps(str(installed.GUIDE_HF))}\ncontext = 2048\n"
    )


def run_batch(vllm: Path, file: Path, paths: Paths) -> float:
    """Run a file without us; give the seconds from spawn to end."""
    command = [str(vllm), "run-batch", "-i", str(file), "-o", str(paths.data_dir / "out.jsonl")]
    command += ["--model", str(installed.GUIDE_HF), "--served-model-name", "guide"]
    command += ["--max-model-len", "2048", *VLLM_ARGS]
    environment = {**installed.VLLM_LIGHT_ENV, "HF_HUB_OFFLINE": "1", "PATH": f"{vllm.parent}:/usr/bin:/bin"}
    began = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return time.monotonic() - began


if __name__ == "__main__":
    main()
