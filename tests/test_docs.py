"""The documents tell the truth: each command in them exists, and those in marked blocks do what is shown.

`<!-- run -->` before a block runs it, `<!-- run: exit 1 -->` says how its commands end; `…` in what is shown
stands for any text.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from footplate_daemon import guide, lifecycle
from footplate_daemon.errors import BY_CODE
from footplate_daemon.paths import Paths
from footplate_tui.__main__ import VERBS
from footplate_tui.__main__ import footplate as command_line
from footplate_tui.commands import COMMANDS
from tests.conftest import fresh_home

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *(ROOT / "docs").glob("*.md"),
]
BLOCK = re.compile(
    r"(?P<mark>^<!-- run(?:: exit (?P<code>\d))? -->\n)?"
    r"^```(?P<language>console|python)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SECONDS = 180


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    document: Path
    language: str
    text: str
    runs: bool
    exit_code: int

    def commands(self) -> Iterator[tuple[str, str]]:
        """Give each command with what is shown under it."""
        for part in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            yield command, shown.rstrip("\n")


def blocks(document: Path) -> list[Block]:
    return [
        Block(document, found["language"], found["text"], found["mark"] is not None, int(found["code"] or 0))
        for found in BLOCK.finditer(document.read_text())
    ]


COMMANDS_SHOWN = [
    pytest.param(command, id=f"{document.name}: {command}")
    for document in DOCUMENTS
    for block in blocks(document)
    for command, _ in block.commands()
    if command.startswith("footplate ")
]


@pytest.mark.parametrize("command", COMMANDS_SHOWN)
def test_the_command_exists(command: str) -> None:
    words = shlex.split(re.split(r" (?:[|<]|>>?) ", command)[0], comments=True)[1:]
    if words[0] == "--host":
        words = words[2:] or ["status"]

    parse(command_line, "footplate", words)


def parse(command: click.Command, name: str, words: list[str], parent: click.Context | None = None) -> None:
    """Let click take the words apart; it raises what it does not know."""
    if not isinstance(command, click.Group):
        command.make_context(name, words, parent=parent)
        return
    if command.invoke_without_command and parent and (not words or words[0].startswith("-")):
        command.make_context(name, words, parent=parent)
        return
    context = click.Context(command, parent=parent, info_name=name)
    chosen = command.get_command(context, words[0])
    assert chosen, f"{name} has no verb {words[0]}"
    parse(chosen, words[0], words[1:], context)


@pytest.mark.parametrize(
    "document", [each for each in DOCUMENTS if any(b.runs for b in blocks(each))], ids=lambda each: each.name
)
def test_what_is_shown_happens(document: Path, shell: "Shell") -> None:
    for block in blocks(document):
        if not block.runs:
            continue
        if block.language == "python":
            assert shell.python(block.text).strip()
            continue
        for command, shown in block.commands():
            if command.startswith("curl") and shutil.which("curl") is None:
                continue
            said, code = shell.run(command)
            assert code == block.exit_code, f"{command}\n{said}"
            assert is_as_shown(said, shown), f"{command}\n{said}"


def is_as_shown(said: str, shown: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in shown.split("…"))
    return not shown or re.fullmatch(pattern, said.strip("\n"), re.DOTALL) is not None


@dataclass(frozen=True)
class Shell:
    """A shell of a user whose Footplate has two files in its models folder."""

    environment: dict[str, str]

    def run(self, command: str) -> tuple[str, int]:
        """Run it; give what it wrote, both ways together, and how it ended."""
        return self._ended(["bash", "-c", command])

    def python(self, program: str) -> str:
        said, code = self._ended([sys.executable, "-c", program])
        assert code == 0, said
        return said

    def _ended(self, words: list[str]) -> tuple[str, int]:
        ended = subprocess.run(
            words,
            env=self.environment,
            cwd=self.environment["FOOTPLATE_HOME"],  # where what they write goes away with it
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return ended.stdout, ended.returncode


@pytest.fixture
def shell(request: pytest.FixtureRequest) -> Iterator[Shell]:
    document: Path = request.getfixturevalue("document")
    with fresh_home() as paths:
        whole = guide.path().read_bytes()
        paths.make()
        (paths.models_dir / "mine.gguf").write_bytes(whole)
        (paths.models_dir / "damaged.gguf").write_bytes(whole[:300_000])
        if document.name not in {"README.md", "getting-started.md"}:  # they start it themselves
            lifecycle.up(paths)
        yield Shell(environment(paths))


def environment(paths: Paths) -> dict[str, str]:
    root = paths.run_dir.parent
    runtime = root / "xdg"
    runtime.mkdir()
    (runtime / "footplate").symlink_to(paths.run_dir)
    here = str(Path(sys.executable).parent)
    return os.environ | {
        "FOOTPLATE_HOME": str(root),
        "XDG_RUNTIME_DIR": str(runtime),
        "PATH": f"{here}:{os.environ['PATH']}",
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda each: each.name)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text())

    assert [link for link in links if not (document.parent / link).exists()] == []


def test_every_verb_that_starts_or_switches_something_is_documented() -> None:
    text = "".join(document.read_text() for document in DOCUMENTS)

    assert [verb for verb in VERBS if f"footplate {verb}" not in text and f"`{verb}" not in text] == []


def test_every_key_is_in_the_chat_document() -> None:
    text = (ROOT / "docs" / "chat.md").read_text()

    assert [c.id for c in COMMANDS if f"| {c.shown} | {c.explanation} |" not in text] == []


def test_every_command_and_its_keys_are_in_the_terminals_document() -> None:
    text = (ROOT / "docs" / "terminal.md").read_text()

    rows = {c.id: f"| `{c.id}` | {', '.join(c.keys.split(','))} | {c.title} |" for c in COMMANDS}
    assert [row for row in rows.values() if row not in text] == []


def test_every_error_is_in_the_api_document() -> None:
    text = (ROOT / "docs" / "api.md").read_text()

    ours = {code: kind for code, kind in BY_CODE.items() if code != "daemon_unreachable"}
    assert [code for code, kind in ours.items() if f"| `{code}` | {kind.http_status} |" not in text] == []


def test_every_diagnosis_in_the_document_is_one_that_can_happen() -> None:
    table = (ROOT / "docs" / "troubleshooting.md").read_text()
    sources = [*(ROOT / "daemon" / "footplate_daemon").rglob("*.py")]
    code = "".join(file.read_text() for file in sources)

    told = re.findall(r"`([a-z]+_[a-z_]+)`(?=[,` a-z_]*\|)", table)
    assert told
    assert [name for name in told if f'"{name}"' not in code] == []
