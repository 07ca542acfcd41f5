"""The engines that are switched between, and each of them bare: started and stopped without Footplate."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.box import PATIENCE_SECONDS, connect, http_request, now
from tests import engines as installed

from footplate_daemon.paths import Paths
from footplate_daemon.switching.engine import engine_name, free_port

SLOW_ENGINE = Path(__file__).with_name("slow_engine.py")
POLL_SECONDS = 0.005


@dataclass(frozen=True)
class Lineup:
    """What takes part."""

    load_ms: int
    llama_server: Path | None
    vllm: Path | None
    first: str = "llamacpp/slow-a"

    @classmethod
    def found(cls, load_ms: int, *, with_vllm: bool) -> "Lineup":
        """Take what is installed; vLLM only if asked for."""
        vllm = installed.vllm() if with_vllm else None
        if with_vllm and vllm is None:
            raise SystemExit("There is no vLLM: run `python scripts/engines.py vllm`.")
        return cls(load_ms, installed.llama_server(), vllm)

    def tour(self) -> list[str]:
        """Give the variants in the order of a round, which begins and ends with the first one."""
        variants = ["llamacpp/slow-b", "llamacpp/guide", "llamacpp/other"]
        variants += ["llamacpp/server", "llamacpp/guide"] if self.llama_server else []
        variants += ["vllm/guide", "llamacpp/guide"] if self.vllm else []
        return [*variants, "llamacpp/slow-a"]

    def config(self) -> str:
        """Write the config.toml with all of them."""
        gguf = json.dumps(str(installed.GUIDE_GGUF))
        parts = [f'[switching]\ndefault = "{self.first}"\n']
        for name in ("slow-a", "slow-b"):
            command = [sys.executable, "-I", "-S", str(SLOW_ENGINE)]
            command += ["--port", "{port}", "--name", name, "--load-ms", str(self.load_ms)]
            parts.append(f"[models.{name}.llamacpp]\nweights = {gguf}\ncommand = {json.dumps(command)}\n")
        parts.append(f"[models.other.llamacpp]\nweights = {gguf}\n")
        if self.llama_server:
            command = [str(self.llama_server)]
            parts.append(f"[models.server.llamacpp]\nweights = {gguf}\ncommand = {json.dumps(command)}\n")
        if self.vllm:
            env = ", ".join(
                f"{name} = {json.dumps(value)}" for name, value in installed.VLLM_LIGHT_ENV.items()
            )
            parts.append(
                f"[runtimes.vllm]\nprogram = {json.dumps(str(self.vllm.parent.parent))}\n"
                f"args = {json.dumps(list(installed.VLLM_LIGHT_ARGS))}\nenv = {{ {env} }}\n"
                f"[models.guide.vllm]\nweights = {json.dumps(str(installed.GUIDE_HF))}\ncontext = 2048\n"
            )
        return "\n".join(parts)


def launch_script(paths: Paths, variant: str) -> str:
    """Give the script by which supervisord runs an engine, which is there only while that engine runs."""
    return (paths.engines_dir / f"{engine_name(variant)}.sh").read_text()


@dataclass(frozen=True)
class Bare:
    """What an engine needs when nobody manages it."""

    start_seconds: float
    """From its spawn to the first 200 of its health."""
    first_token_seconds: float
    """From there to the end of a first answer of one token: what a warm-up costs."""
    stop_seconds: float
    """From SIGTERM to its end."""


def bare(paths: Paths, script: str) -> Bare:
    """Start and stop an engine by its script, on another port."""
    port = free_port()
    script = re.sub(r"(--port[ =])\d+", rf"\g<1>{port}", script)
    file = paths.run_dir / "bare.sh"
    file.write_text(script)
    found_key = re.search(r"^export (?:\w+_API_KEY|FOOTPLATE_ENGINE_KEY)=(\S+)", script, re.MULTILINE)
    key = found_key[1] if found_key else None
    with (paths.logs_dir / "bare.log").open("w") as log:
        began = now()
        engine = subprocess.Popen(
            ["/bin/sh", file], stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    with _ended_in_any_case(engine):
        while not is_healthy(port, key):
            if engine.poll() is not None or now() - began > PATIENCE_SECONDS:
                raise SystemExit(f"A bare engine did not start: see {log.name}")
            time.sleep(POLL_SECONDS)
        ready = now()
        _ask(port, http_request("POST", "/v1/chat/completions", _one_token(script), key))
        answered = now()
        os.killpg(engine.pid, signal.SIGTERM)
        engine.wait()
        return Bare(ready - began, answered - ready, now() - answered)


def is_healthy(port: int, key: str | None) -> bool:
    """Ask an engine once whether it serves."""
    return _ask(port, http_request("GET", "/health", key=key)) == 200


@contextmanager
def _ended_in_any_case(engine: "subprocess.Popen[bytes]") -> Iterator[None]:
    try:
        yield
    finally:
        if engine.poll() is None:
            os.killpg(engine.pid, signal.SIGKILL)
            engine.wait()


def _one_token(script: str) -> dict[str, object]:
    name = re.search(r"--(?:alias|name|served-model-name)[ =](\S+)", script)
    messages = [{"role": "user", "content": "Hi"}]
    return {"model": name[1] if name else "guide", "max_tokens": 1, "messages": messages}


def _ask(port: int, request: bytes) -> int | None:
    """Give the status of an answer that was read to its end; None when nobody answers."""
    try:
        with connect(("127.0.0.1", port)) as connection:
            connection.sendall(request)
            answer = bytearray()
            while more := connection.recv(65536):
                answer += more
        return int(answer.split(b" ", 2)[1])
    except (OSError, IndexError, ValueError):
        return None
