"""Which terminal programs are measured: ours, and peers that speak to an Ollama.

A peer is `oterm` (0.26, `pip install oterm` in a virtual environment of its own), or a JSON file with these
fields; `{home}`, `{url}`, `{port}` and `{folder}` (of the file) stand for themselves in each of them:

    command       the words of the program
    environment   variables for it
    ready         a text that the screen shows once a prompt can be typed
    prepare       optional, the words of a program that makes the home ready
"""

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

PROGRAM = """
import os, sys
from footplate_daemon.paths import Paths
from footplate_tui.app import run
sys.exit(run(Paths.from_environment(os.environ)))
"""
MODEL = "bench:1b"


class NotShown(Exception):
    """What was waited for did not come to the screen."""


@dataclass(frozen=True)
class Program:
    """A program in a terminal, and how to tell that it can be used."""

    name: str
    command: list[str]
    environment: dict[str, str]
    ready: str
    """The screen shows it once a prompt can be typed."""
    connected: str
    """The screen shows it once a question would be answered."""
    is_ours: bool = False
    before_launch: Callable[[], None] = field(default=lambda: None)


def ours(home: Path, checkout: Path) -> Program:
    """Give the terminal of a checkout, with a fake daemon's home."""
    paths = ":".join(str(checkout / part) for part in ("tui", "daemon"))
    return Program(
        name="footplate",
        command=[sys.executable, "-c", PROGRAM],
        environment={"FOOTPLATE_HOME": str(home), "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"},
        ready="Ask anything",
        connected="guide @",
        is_ours=True,
        before_launch=lambda: (home / "state" / "terminal" / "draft.txt").unlink(missing_ok=True),
    )


def peer(name: str, program: str | None, home: Path, url: str) -> Program:
    """Give a peer, its home made ready; `program` is where oterm is, if not on the PATH."""
    if name == "oterm":
        return _oterm(program or shutil.which("oterm"), home, url)
    file = Path(name)
    if not file.is_file():
        raise SystemExit(f"There is no peer {name}: oterm, or a JSON file (see {__file__}).")
    words = {
        "home": str(home),
        "url": url,
        "port": url.rpartition(":")[2],
        "folder": str(file.resolve().parent),
    }
    read = json.loads(file.read_text())
    if "prepare" in read:
        subprocess.run([word.format(**words) for word in read["prepare"]], check=True)
    return Program(
        name=file.stem,
        command=[word.format(**words) for word in read["command"]],
        environment={key: value.format(**words) for key, value in read.get("environment", {}).items()},
        ready=read["ready"],
        connected=read["ready"],
    )


def _oterm(program: str | None, home: Path, url: str) -> Program:
    """Give oterm with one empty chat: without one it asks for a model first."""
    if program is None:
        raise SystemExit("oterm is not on the PATH: --peer-program /where/it/is/bin/oterm")
    environment = {"HOME": str(home), "OTERM_DATA_DIR": str(home), "OLLAMA_URL": url, "OLLAMA_HOST": url}
    (home / "config.json").write_text('{"theme": "textual-dark", "splash-screen": false}')
    base = home / "base.db"
    make = "import asyncio; from oterm.store.store import Store; asyncio.run(Store.get_store())"
    python = Path(program).resolve().with_name("python")
    if not python.exists():
        python = Path(program).with_name("python")
    subprocess.run([python, "-c", make], env=environment, check=True, capture_output=True)
    with sqlite3.connect(home / "store.db") as database:
        database.execute("INSERT INTO chat (name, model) VALUES ('bench', ?)", (MODEL,))
    database.close()
    shutil.copy(home / "store.db", base)
    return Program(
        name="oterm",
        command=[program],
        environment=environment,
        ready=MODEL,
        connected=MODEL,
        before_launch=lambda: _restore(base),
    )


def _restore(base: Path) -> None:
    shutil.copy(base, base.with_name("store.db"))
