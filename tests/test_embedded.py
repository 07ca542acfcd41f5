"""The embedded llama.cpp as a program of its own, with the guide."""

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

GUIDE = Path(str(resources.files("footplate_daemon.guide").joinpath("guide.gguf")))
KEY = "launch-key"


@contextmanager
def engine(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start the launcher; give it when it serves, with its port."""
    process = launcher("--model", str(GUIDE), "--port", "0", *arguments)
    try:
        said = until_it_says(process, "serving guide on ")
        port = int(re.findall(r":(\d+) after", said)[0])
        # llama.cpp writes much; a pipe that nobody empties would stop it.
        threading.Thread(target=drain, args=[process], daemon=True).start()
        yield process, port
    finally:
        process.kill()
        process.wait()


def drain(process: subprocess.Popen[str]) -> None:
    assert process.stdout
    with process.stdout as stream:
        for _ in stream:
            pass


def launcher(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "footplate_daemon.runtimes.embedded", "--alias", "guide", *arguments],
        env={**os.environ, "FOOTPLATE_ENGINE_KEY": KEY},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def until_it_says(process: subprocess.Popen[str], words: str) -> str:
    """Give the line with the words."""
    assert process.stdout
    said = []
    for line in process.stdout:
        said.append(line)
        if words in line:
            return line
    raise AssertionError("".join(said))


@contextmanager
def post(port: int, path: str, body: dict[str, Any], key: str = KEY) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    connection.request("POST", path, json.dumps(body), headers)
    with connection.getresponse() as response:
        yield response
    connection.close()


def question(**more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "What is a preset?"}], "max_tokens": 64, **more}


def test_it_serves_the_model_under_its_alias_to_who_has_the_key() -> None:
    with engine("--ctx", "1024", "--metrics") as (process, port):
        with post(port, "/v1/chat/completions", question()) as answer:
            body = json.load(answer)
        with post(port, "/v1/chat/completions", question(), key="wrong") as refused:
            refused.read()

        assert body["model"] == "guide"
        assert body["choices"][0]["message"]["content"]
        assert refused.status == 401
        assert KEY not in Path(f"/proc/{process.pid}/cmdline").read_text()


def test_every_slot_has_the_whole_context() -> None:
    with engine("--ctx", "512", "--parallel", "2") as (_, port):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/slots", headers={"Authorization": f"Bearer {KEY}"})
        slots = json.load(connection.getresponse())
        connection.close()

    assert [slot["n_ctx"] for slot in slots] == [512, 512]


def test_it_stops_when_idle() -> None:
    with engine() as (process, _):
        process.terminate()

        assert process.wait(60) == 0


def test_it_stops_during_a_stream() -> None:
    endless = question(stream=True, max_tokens=1_000_000, ignore_eos=True)
    with engine() as (process, port), post(port, "/v1/chat/completions", endless) as stream:
        stream.readline()

        process.terminate()

        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file or directory"), (b"not a model", "invalid magic characters")],
)
def test_a_load_that_fails_says_why_and_exits_1(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "model.gguf"
    if content is not None:
        file.write_bytes(content)

    said, _ = launcher("--model", str(file), "--port", "0").communicate(timeout=60)

    assert message in said
    assert "embedded: load failed" in said


def test_a_port_that_is_taken_is_a_load_that_fails() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = launcher("--model", str(GUIDE), "--port", str(port))
        said, _ = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "couldn't bind HTTP server socket" in said
