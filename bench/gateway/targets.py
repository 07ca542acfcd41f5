"""What is measured: each started on a core of the proxies' own, and ended whatever happens.

A target that cannot be had is left out, with a sentence that says why.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench.box import (
    PATIENCE_SECONDS,
    REPOSITORY,
    active_engine,
    call,
    connect,
    follow_status,
    fresh_home,
    say,
)
from bench.gateway.load import Question, Target
from bench.gateway.upstream import MODEL, TOKEN

from footplate_daemon import lifecycle
from footplate_daemon.paths import Paths
from footplate_daemon.switching.engine import free_port

NAMES = ("direct", "footplate-tcp", "footplate-unix", "nginx", "asgi", "litellm")
CORES = sorted(os.sched_getaffinity(0))
PROXIES_CORE, CLIENT_CORE = CORES[0], CORES[-1]
"""The upstream is on the client's core; with a single core all of them share it."""
LITELLM = REPOSITORY / ".cache" / "bench-litellm"
ENDING_SECONDS = 5.0
TCP_SECONDS = 2.0
POLL_SECONDS = 0.02


class LeftOut(Exception):
    """A target cannot be had; the sentence says why."""


@dataclass
class Lineup:
    """What takes part."""

    folder: Path
    """For configurations and logs; removed at the end."""
    upstream: Target
    home: Paths | None = None
    """Of our daemon, if it takes part."""
    targets: list[Target] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """The reasons, by the name of a target."""

    @property
    def port(self) -> int:
        """Give the upstream's port."""
        return int(self.upstream.address[1])

    def ours(self) -> list[Target]:
        """Give the ways to our daemon, TCP first."""
        return [target for target in self.targets if target.name.startswith("footplate")]

    def renew(self, target: Target) -> None:
        """Restart our daemon if this is a way to it: what was before is not to be seen in its memory."""
        if self.home is None or target not in self.ours():
            return
        pid = lifecycle.restart(self.home).pid
        _until_ready(self.home)
        for each in self.ours():
            each.pid = pid


@contextlib.contextmanager
def lineup(wanted: Sequence[str], *, with_litellm: bool) -> Iterator[Lineup]:
    """Start what is wanted; in the end, end all of it by its process ids."""
    os.sched_setaffinity(0, {CLIENT_CORE})
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fpb", dir="/tmp")))
        try:
            found = Lineup(folder, _upstream(stack, folder))
            for name in wanted:
                say(f"starting {name}")
                try:
                    found.targets.append(_start(name, stack, found, with_litellm=with_litellm))
                except LeftOut as reason:
                    found.left_out[name] = str(reason)
                    say(f"  left out: {reason}")
            yield found
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):  # what comes now must not be cut short
                signal.signal(number, signal.SIG_IGN)


def _start(name: str, stack: ExitStack, found: Lineup, *, with_litellm: bool) -> Target:
    match name:
        case "direct":
            return found.upstream
        case "footplate-tcp" | "footplate-unix":
            if found.home is None:
                found.home = _footplate(stack, found.port)
            return _over_tcp(found.home) if name == "footplate-tcp" else _over_unix(found.home)
        case "nginx":
            return _nginx(stack, found)
        case "asgi":
            return _asgi(stack, found)
        case "litellm" if with_litellm:
            return _litellm(stack, found)
        case _:
            raise LeftOut("Only with --litellm: its first time downloads some hundred MB.")


def _upstream(stack: ExitStack, folder: Path) -> Target:
    command = [sys.executable, "-m", "bench.gateway.upstream"]
    program = stack.enter_context(_running("upstream", command, folder, CLIENT_CORE))
    log = folder / "upstream.log"
    _until("the upstream", lambda: log.read_text().endswith("\n"), program, log)
    return Target("direct", ("127.0.0.1", int(log.read_text())))


def _footplate(stack: ExitStack, upstream_port: int) -> Paths:
    """Bring up a Footplate of our own, whose one model is the upstream."""
    config = (
        f'[gateway]\nlisten = "127.0.0.1:{free_port()}"\n'
        f'[switching]\ndefault = "{MODEL}"\n'
        f'[models.{MODEL}.remote]\nurl = "http://127.0.0.1:{upstream_port}/v1"\n'
    )
    paths = stack.enter_context(fresh_home(config))
    with _on_core(PROXIES_CORE):
        lifecycle.up(paths)
    _until_ready(paths)
    return paths


def _until_ready(paths: Paths) -> None:
    """Return when the daemon has found the upstream."""
    for status in follow_status(paths):
        if active_engine(status):
            return
        if failure := next(filter(None, (engine["diagnosis"] for engine in status["engines"])), None):
            raise SystemExit(failure["cause"])
    raise SystemExit("The daemon ended before it was ready.")


def _over_unix(paths: Paths) -> Target:
    return _checked(Target("footplate-unix", str(paths.socket), pid=lifecycle.state(paths).daemon_pid))


def _over_tcp(paths: Paths) -> Target:
    """Make a key, without which TCP stays shut."""
    key = call(paths, "POST", "/api/v1/keys", {"name": "bench"})["secret"]
    address = ("127.0.0.1", int(call(paths, "GET", "/config")["gateway"]["listen"][0].rpartition(":")[2]))
    pid = lifecycle.state(paths).daemon_pid
    deadline = time.monotonic() + TCP_SECONDS
    while not _accepts(address):
        if time.monotonic() > deadline:
            raise LeftOut("Its TCP address does not open.")
        time.sleep(POLL_SECONDS)
    return _checked(Target("footplate-tcp", address, key, pid))


def _nginx(stack: ExitStack, found: Lineup) -> Target:
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None:
        raise LeftOut("There is no nginx on PATH: apt-get install nginx-light")
    target = Target("nginx", ("127.0.0.1", free_port()))
    folder, port = found.folder, target.address[1]
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = folder / "nginx.conf"
    file.write_text(_NGINX.format(folder=folder, upstream=found.port, port=port, temporary=temporary))
    command = [program, "-c", str(file), "-e", f"{folder}/nginx.log"]
    return _serving(stack, found, target, command)


def _asgi(stack: ExitStack, found: Lineup) -> Target:
    python = Path(sys.executable)
    if importlib.util.find_spec("uvicorn") is None:
        python = LITELLM / "bin" / "python"
        if not python.exists():
            raise LeftOut("There is no uvicorn here; --litellm brings one.")
    target = Target("asgi", ("127.0.0.1", free_port()))
    command = [str(python), "-m", "uvicorn", "bench.gateway.asgi:app", "--port", str(target.address[1])]
    command += ["--loop", "uvloop", "--http", "httptools", "--log-level", "warning", "--no-access-log"]
    return _serving(stack, found, target, command, {"BENCH_UPSTREAM_PORT": str(found.port)})


def _litellm(stack: ExitStack, found: Lineup) -> Target:
    """Start its proxy with one worker and as little beside it as its documentation advises."""
    _install_litellm()
    target = Target("litellm", ("127.0.0.1", free_port()), key="sk-bench")
    config = {
        "model_list": [
            {
                "model_name": MODEL,
                "litellm_params": {
                    "model": f"openai/{MODEL}",
                    "api_base": f"http://127.0.0.1:{found.port}/v1",
                    "api_key": "none",
                },
            }
        ],
        "litellm_settings": {"telemetry": False, "num_retries": 0, "request_timeout": 600},
    }
    file = found.folder / "litellm.yaml"
    file.write_text(json.dumps(config))  # JSON is YAML too
    command = [str(LITELLM / "bin" / "litellm"), "--config", str(file), "--host", "127.0.0.1"]
    command += ["--port", str(target.address[1]), "--num_workers", "1", "--telemetry", "False"]
    settings = {
        "LITELLM_MASTER_KEY": "sk-bench",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "NO_DOCS": "True",
    }
    return _serving(stack, found, target, command, settings)


def _install_litellm() -> None:
    """Make its environment, once."""
    if (LITELLM / "bin" / "litellm").exists():
        return
    say(f"  installing LiteLLM into {LITELLM}, once")
    python = str(LITELLM / "bin" / "python")
    for command in (
        [sys.executable, "-m", "venv", str(LITELLM)],
        [python, "-m", "pip", "install", "--quiet", "litellm[proxy]"],
    ):
        if subprocess.run(command, stdout=sys.stderr).returncode != 0:
            raise LeftOut(f"It does not install: {' '.join(command)}")


def _serving(
    stack: ExitStack,
    found: Lineup,
    target: Target,
    command: Sequence[str],
    settings: Mapping[str, str] | None = None,
) -> Target:
    """Start a proxy; give it as soon as it answers."""
    context = _running(target.name, command, found.folder, PROXIES_CORE, settings or {})
    program = stack.enter_context(context)
    target.pid = program.pid
    _until(target.name, lambda: _answers(target), program, found.folder / f"{target.name}.log")
    return target


@contextlib.contextmanager
def _running(
    name: str, command: Sequence[str], folder: Path, core: int, settings: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program in a process group of its own, which is ended afterwards."""
    with (folder / f"{name}.log").open("wb") as log, _on_core(core):
        program = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, **(settings or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield program
    finally:
        program.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(ENDING_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()


@contextlib.contextmanager
def _on_core(core: int) -> Iterator[None]:
    """Have what is started here, and all that it starts, run on one core."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


def _until(name: str, is_so: Callable[[], bool], program: "subprocess.Popen[bytes]", log: Path) -> None:
    """Return when it is so; say with the end of its log why it never was."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        if program.poll() is not None or time.monotonic() > deadline:
            tail = " ".join(log.read_text(errors="replace").split())[-300:]
            raise LeftOut(f"{name} does not answer: {tail or 'its log is empty'}")
        time.sleep(POLL_SECONDS)


def _checked(target: Target) -> Target:
    if not _answers(target):
        raise LeftOut("It does not answer a chat request.")
    return target


def _answers(target: Target) -> bool:
    """Ask once; say whether the upstream's text comes back."""
    received = b""
    with contextlib.suppress(OSError), connect(target.address) as connection:
        target.asked += 1
        connection.sendall(Question(streamed=False).request(target))
        while TOKEN not in received and (more := connection.recv(65536)):
            received += more
            if b" 200 " not in received[:20]:
                break
    return TOKEN in received


def _accepts(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


_NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log warn;
events {{ worker_connections 4096; multi_accept on; }}
http {{
  access_log off; keepalive_requests 1000000; tcp_nodelay on;
  {temporary}
  upstream model {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 600s;
    }}
  }}
}}
"""
