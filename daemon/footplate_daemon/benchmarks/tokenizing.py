"""One way to count tokens for all runtimes of a model, so that their speeds can be compared.

The model's own `tokenizer.json`, read by the `tokenizers` package of whichever Python here has it: ours, or
that of vLLM's or transformers' environment. Without one of the two, an engine of the model that can count
does it while it runs; and where none takes part, words and marks are counted, and the result says so.
"""

import asyncio
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from footplate_daemon.bodies import dump
from footplate_daemon.errors import FootplateError
from footplate_daemon.gateway.upstream import Upstream
from footplate_daemon.ids import new_request_id
from footplate_daemon.runtimes.base import Runtime
from footplate_daemon.wire_benchmarks import Tokenizer

COUNT_SECONDS = 120.0
ANSWER_BYTES = 64 * 1024 * 1024
TOKENIZER_FILE = "tokenizer.json"
WORKER = Path(__file__).with_name("tokenizer_worker.py")
WORDS = Tokenizer(source="words", is_models_own=False)
_WORD = re.compile(r"\w+|[^\w\s]")


COUNTING = frozenset({"llamacpp", "transformers", "vllm"})
"""The runtimes whose engines count tokens."""


class TokenCounter(Protocol):
    """Counts tokens of texts."""

    async def count(self, texts: Sequence[str]) -> list[int] | None:
        """Give the tokens of each text; None if that cannot be done."""


class Counter:
    """Counts by a program, or words where there is none."""

    def __init__(self, shape: Tokenizer, command: Sequence[str] = ()) -> None:
        self.shape = shape
        self._command = command

    async def count(self, texts: Sequence[str]) -> list[int] | None:
        """Give the tokens of each text; None if its tokenizer does not do it."""
        if not self._command:
            return [len(_WORD.findall(text)) for text in texts]
        return await _ask(self._command, texts)


class EngineCounter:
    """Counts by an engine that runs."""

    def __init__(self, upstream: Upstream, runtime: str, served_name: str) -> None:
        self._upstream = upstream
        self._runtime = runtime
        self._served_name = served_name

    async def count(self, texts: Sequence[str]) -> list[int] | None:
        """Ask for each text; None if the engine does not do it."""
        try:
            return [await self._count(text) for text in texts]
        except (FootplateError, ValueError, LookupError, TypeError):
            return None

    async def _count(self, text: str) -> int:
        if self._runtime == "llamacpp":
            body = {"content": text, "add_special": False}
        else:
            body = {"model": self._served_name, "prompt": text, "add_special_tokens": False}
        async with await self._upstream.post("/tokenize", dump(body), new_request_id()) as response:
            answer = json.loads(await response.read(ANSWER_BYTES))
        return len(answer["tokens"])


async def counter_for(folders: Iterable[Path], runtimes: Mapping[str, Runtime]) -> Counter | None:
    """Give what counts tokens of a model whose weights lie in one of these folders, if anything here does."""
    file = next((found for folder in folders if (found := folder / TOKENIZER_FILE).is_file()), None)
    if file is None:
        return None
    for python in _pythons(runtimes):
        command = (python, "-I", str(WORKER), str(file))
        if await _ask(command, ["Hello."]) is not None:
            digest = await asyncio.to_thread(lambda: hashlib.sha256(file.read_bytes()).hexdigest())
            return Counter(Tokenizer(source=str(file), is_models_own=True, sha256=digest), command)
    return None


def _pythons(runtimes: Mapping[str, Runtime]) -> list[str]:
    """List the Pythons that may have the package, without those that are not there."""
    found = [sys.executable]
    for name in ("transformers", "vllm"):
        program = runtimes[name].find() if name in runtimes else None
        if program is not None:
            found.append(str(Path(program).parent / "python"))
    return [python for python in dict.fromkeys(found) if Path(python).is_file()]


async def _ask(command: Sequence[str], texts: Sequence[str]) -> list[int] | None:
    """Run the program that counts; None if it cannot."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(COUNT_SECONDS):
            written, _ = await process.communicate(json.dumps(list(texts)).encode())
    except TimeoutError:
        return None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return _counts(written, len(texts)) if process.returncode == 0 else None


def _counts(written: bytes, expected: int) -> list[int] | None:
    try:
        counts = json.loads(written)
    except ValueError:
        return None
    is_whole = isinstance(counts, list) and len(counts) == expected
    return counts if is_whole and all(isinstance(count, int) for count in counts) else None
