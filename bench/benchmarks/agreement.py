"""Footplate's benchmark beside `vllm bench serve`: the same prompts, the same live vLLM.

By turns, round by round, which a busy machine makes something of; and at once, through `tee`: vLLM answers
each prompt once and both clients hear the same answer at once, so that only how they measure can differ.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import IO, Any

from bench.benchmarks.runs import run_benchmark
from bench.box import REPOSITORY, Figures, call, fresh_home, say, until_ready
from tests import engines

from footplate_daemon import lifecycle
from footplate_daemon.benchmarks.workloads import Work, prompts
from footplate_daemon.paths import Paths
from footplate_daemon.supervisord import read_record
from footplate_daemon.wire_benchmarks import WorkloadKind

TOKENS = 64
CONCURRENCY = 4
DRIVER = Path(__file__).with_name("vllm_rounds.py")
METRICS = ("ttft", "tpot", "itl", "e2el")


def measure(rounds: int, requests: int) -> Figures | None:
    """Give the ratio of ours to theirs for each figure; None without vLLM."""
    vllm = engines.vllm()
    if vllm is None:
        say("agreement: there is no vLLM (make engines)")
        return None
    with fresh_home(_config(vllm)) as paths:
        lifecycle.up(paths)
        engine = until_ready(paths)
        record = read_record(paths, engine["name"])
        assert record is not None
        with _tee(record.port, record.api_key) as port:
            far = f'[models.far.remote]\nurl = "http://127.0.0.1:{port}"\nserved_name = "guide"\n'
            paths.config_file.write_text(_config(vllm) + far)
            call(paths, "POST", "/api/v1/reload")
            with _theirs(vllm, port, None) as ask_theirs:
                at_once = [_at_once(paths, ask_theirs, requests, number) for number in range(rounds + 1)]
        with _theirs(vllm, record.port, record.api_key) as ask_theirs:
            by_turns = [_by_turns(paths, ask_theirs, requests, number) for number in range(rounds + 1)]
    return {"at once": _compared(at_once[1:]), "by turns": _compared(by_turns[1:])}  # the first warm up


Pair = tuple[dict[str, float], dict[str, float]]
"""Our figures and theirs."""


def _at_once(paths: Paths, ask_theirs: Any, requests: int, number: int) -> Pair:
    asked = _prompts(requests, 1000 + number)
    with ThreadPoolExecutor(1) as thread:
        theirs = thread.submit(ask_theirs, asked)
        ours = _ours(paths, "remote/far", asked)
        say(f"agreement: round {number}, at once")
        return ours, theirs.result()


def _by_turns(paths: Paths, ask_theirs: Any, requests: int, number: int) -> Pair:
    asked = _prompts(requests, number)
    say(f"agreement: round {number}, by turns")
    # Who goes first changes: what came before has filled the engine's prefix cache.
    if number % 2:
        ours, theirs = _ours(paths, "vllm/guide", asked), ask_theirs(asked)
    else:
        theirs, ours = ask_theirs(asked), _ours(paths, "vllm/guide", asked)
    return ours, theirs


def _compared(pairs: list[Pair]) -> Figures:
    names = pairs[0][0].keys()
    return {
        name: {
            "ours": round(median(ours[name] for ours, _ in pairs), 3),
            "vllm": round(median(theirs[name] for _, theirs in pairs), 3),
            "ratio": round(median(ours[name] / theirs[name] for ours, theirs in pairs), 4),
            "lowest": round(min(ours[name] / theirs[name] for ours, theirs in pairs), 3),
            "highest": round(max(ours[name] / theirs[name] for ours, theirs in pairs), 3),
        }
        for name in names
    }


def _prompts(count: int, number: int) -> list[str]:
    work = Work(WorkloadKind.SHORT, "agreement", count, 42)
    return [str(prompt.messages[0]["content"]) for prompt in prompts(work, range(count), f"round {number}")]


def _ours(paths: Paths, variant: str, asked: list[str]) -> dict[str, float]:
    run = run_benchmark(
        paths,
        variants=[{"name": variant}],
        workloads=[{"kind": "file", "lines": [json.dumps({"prompt": each}) for each in asked]}],
        parameters={"temperature": 0, "ignore_eos": True, "max_tokens": TOKENS},
        cache="measure",  # the prompts are sent as they are, and are unique
        concurrency=[CONCURRENCY],
        warm_ups=0,
        cold=False,
    )
    summary = run.cells[0].summary
    assert summary is not None
    assert summary.failed == 0, summary.errors
    figures = {
        "output_tokens": float(summary.output_tokens),
        "output_tokens_per_second": summary.output_tokens_per_second,
        "requests_per_second": summary.requests_per_second,
    }
    for metric in METRICS:
        found = getattr(summary, metric)
        figures |= {f"mean_{metric}_ms": found.mean, f"median_{metric}_ms": found.median}
    return figures


def _figures_of_theirs(found: dict[str, Any]) -> dict[str, float]:
    assert found["failed"] == 0, found
    figures = {
        "output_tokens": float(found["total_output_tokens"]),
        "output_tokens_per_second": found["output_throughput"],
        "requests_per_second": found["request_throughput"],
    }
    for metric in METRICS:
        figures |= {name: found[name] for name in (f"mean_{metric}_ms", f"median_{metric}_ms")}
    return figures


@contextmanager
def _theirs(vllm: Path, port: int, key: str | None) -> Iterator[Any]:
    command = [
        str(vllm.with_name("python")), str(DRIVER), str(TOKENS),
        "--backend", "openai-chat", "--endpoint", "/v1/chat/completions",
        "--base-url", f"http://127.0.0.1:{port}", "--model", "guide", "--tokenizer", str(engines.GUIDE_HF),
        "--dataset-name", "custom", "--max-concurrency", str(CONCURRENCY), "--temperature", "0",
        "--ignore-eos",
        "--percentile-metrics", "ttft,tpot,itl,e2el", "--disable-tqdm",
        "--num-warmups", "0", "--ready-check-timeout-sec", "0",
    ]  # fmt: skip
    environment = {**os.environ, "OPENAI_API_KEY": key or "", "VLLM_NO_USAGE_STATS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, **pipes, stderr=said, text=True, env=environment) as driver,
    ):
        assert driver.stdin is not None
        assert driver.stdout is not None
        _next_json(driver, said)

        def ask(asked: list[str]) -> dict[str, float]:
            assert driver.stdin is not None
            driver.stdin.write(json.dumps(asked) + "\n")
            driver.stdin.flush()
            return _figures_of_theirs(_next_json(driver, said))

        try:
            yield ask
        finally:
            driver.stdin.close()
            driver.wait()


def _next_json(driver: "subprocess.Popen[str]", said: IO[str]) -> dict[str, Any]:
    assert driver.stdout is not None
    for line in driver.stdout:
        if line.startswith("{"):
            value: dict[str, Any] = json.loads(line)
            return value
    said.seek(0)
    raise SystemExit(f"vllm bench serve ended:\n{said.read()[-2000:]}")


@contextmanager
def _tee(port: int, key: str | None) -> Iterator[int]:
    command = [sys.executable, "-m", "bench.benchmarks.tee", str(port), *([key] if key else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.terminate()


def _config(vllm: Path) -> str:
    light = ", ".join(f"{name} = {json.dumps(value)}" for name, value in engines.VLLM_LIGHT_ENV.items())
    return f"""
[switching]
default = "vllm/guide"
start_timeout_seconds = 600
[runtimes.vllm]
program = {json.dumps(str(vllm.parent.parent))}
args = {json.dumps(list(engines.VLLM_LIGHT_ARGS))}
env = {{ {light} }}
[models.guide.vllm]
weights = {json.dumps(str(engines.GUIDE_HF))}
context = 2048
"""
