"""A file of requests, looked through and cut into parts that are batches: at line ends, within the limits.

Knows the form of a line, and no model: what a request asks for is for the daemon to judge.
"""

import hashlib
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from footplate_daemon.wire_batches import BATCH_FILE_BYTES, MOST_EMBEDDING_INPUTS, MOST_REQUESTS

EMBEDDINGS = "/v1/embeddings"


@dataclass(frozen=True)
class Limits:
    """How much a part may hold."""

    lines: int = MOST_REQUESTS
    bytes: int = BATCH_FILE_BYTES
    inputs: int = MOST_EMBEDDING_INPUTS


@dataclass(frozen=True)
class Line:
    """A line that is a request, with its end."""

    number: int
    """In the file, counted from 1."""
    raw: bytes
    inputs: int
    """Texts to embed."""


@dataclass(frozen=True)
class BadLine:
    """A line that no batch would take."""

    number: int
    raw: bytes
    message: str


@dataclass(frozen=True)
class Part:
    """A file that was written."""

    path: Path
    lines: int
    bytes: int


def read(source: Iterable[bytes], limits: Limits) -> Iterator[Line | BadLine]:
    """Look through the lines of a file one by one; empty ones are left out."""
    seen = _Seen()
    for number, raw in enumerate(_without_bom(source), 1):
        if raw.strip():
            yield _read_line(number, raw, limits, seen)


def bad_lines(source: Iterable[bytes], limits: Limits) -> Iterator[BadLine]:
    """Give the lines of a file that no batch would take."""
    return (each for each in read(source, limits) if isinstance(each, BadLine))


def endpoint_of(source: Iterable[bytes]) -> str | None:
    """Give what the first request of a file names as its `url`; None where that cannot be told."""
    first = next((raw for raw in _without_bom(source) if raw.strip()), b"")
    url = _parsed(first).get("url")
    return url if isinstance(url, str) and url else None


def numbered(lines: Iterable[Line | BadLine], limits: Limits) -> Iterator[tuple[int, Line | BadLine]]:
    """Say of each line in which part it goes, counted from 1; as few parts as keep the order."""
    part, held = 1, Limits(0, 0, 0)
    for line in lines:
        if isinstance(line, BadLine):
            yield part, line
            continue
        grown = Limits(held.lines + 1, held.bytes + len(line.raw), held.inputs + line.inputs)
        if held.lines and (
            grown.lines > limits.lines or grown.bytes > limits.bytes or grown.inputs > limits.inputs
        ):
            part, grown = part + 1, Limits(1, len(line.raw), line.inputs)
        held = grown
        yield part, line


def write(lines: Iterable[Line | BadLine], limits: Limits, folder: Path, name: Path) -> list[Part]:
    """Write the parts of `name` into a folder, and what is bad into a file of its own.

    Raise `FileExistsError` rather than write over a file; what was written until then is gone again.
    """
    parts: list[Part] = []
    with ExitStack() as when_failed, ExitStack() as open_files:
        part_file: BinaryIO | None = None
        bad_file: BinaryIO | None = None
        for number, line in numbered(lines, limits):
            if isinstance(line, BadLine):
                bad_file = bad_file or _made(_named(folder, name, "bad"), open_files, when_failed)
                bad_file.write(line.raw)
                continue
            if part_file is None or number > len(parts):
                if part_file is not None:
                    part_file.close()
                path = _named(folder, name, f"part-{number:03d}")
                part_file = _made(path, open_files, when_failed)
                parts.append(Part(path, 0, 0))
            part_file.write(line.raw)
            last = parts[-1]
            parts[-1] = Part(last.path, last.lines + 1, last.bytes + len(line.raw))
        open_files.close()
        when_failed.pop_all()
    return parts


@dataclass
class _Seen:
    """What the lines before had."""

    endpoint: str | None = None
    custom_ids: dict[bytes, int] = field(default_factory=dict)
    """Digests of them, and their line numbers: a file may be much larger than memory."""


def _without_bom(source: Iterable[bytes]) -> Iterator[bytes]:
    lines = iter(source)
    yield next(lines, b"").removeprefix(BOM_UTF8)
    yield from lines


def _read_line(number: int, raw: bytes, limits: Limits, seen: _Seen) -> Line | BadLine:
    whole = raw if raw.endswith(b"\n") else raw + b"\n"
    try:
        request = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return BadLine(number, whole, "This is no JSON.")
    inputs = _inputs(request)
    wrong = _wrong(request, seen, number)
    if len(whole) > limits.bytes:
        wrong.append(f"It is longer than {limits.bytes:,} bytes.")
    if inputs > limits.inputs:
        wrong.append(f"It embeds more than {limits.inputs:,} texts.")
    return BadLine(number, whole, " ".join(wrong)) if wrong else Line(number, whole, inputs)


def _wrong(request: Any, seen: _Seen, number: int) -> list[str]:
    if not isinstance(request, dict):
        return ["This is no JSON object."]
    return [
        *_wrong_custom_id(request.get("custom_id"), seen, number),
        *([] if request.get("method") == "POST" else ['"method" must be "POST".']),
        *_wrong_url(request.get("url"), seen),
        *_wrong_body(request.get("body")),
    ]


def _wrong_custom_id(custom_id: object, seen: _Seen, number: int) -> list[str]:
    if not isinstance(custom_id, str) or not custom_id:
        return ['"custom_id" must be a text.']
    digest = hashlib.blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    first = seen.custom_ids.setdefault(digest, number)
    return [] if first == number else [f'Its "custom_id" is that of line {first}.']


def _wrong_url(url: object, seen: _Seen) -> list[str]:
    if not isinstance(url, str) or not url:
        return ['"url" must name an endpoint, such as "/v1/chat/completions".']
    seen.endpoint = seen.endpoint or url
    return [] if url == seen.endpoint else [f'"url" must be "{seen.endpoint}", as in the lines before.']


def _wrong_body(body: object) -> list[str]:
    if not isinstance(body, dict):
        return ['"body" must be a JSON object.']
    model = body.get("model")
    wrong = [] if isinstance(model, str) and model else ['"body.model" must name a model.']
    return [*wrong, '"body.stream" must not be set.'] if body.get("stream") else wrong


def _inputs(request: Any) -> int:
    if not isinstance(request, dict) or request.get("url") != EMBEDDINGS:
        return 0
    body = request.get("body")
    given = body.get("input") if isinstance(body, dict) else None
    # A list of numbers is one text, in tokens.
    return len(given) if isinstance(given, list) and given and not isinstance(given[0], int) else 1


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        request = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}
    return request if isinstance(request, dict) else {}


def _made(path: Path, open_files: ExitStack, when_failed: ExitStack) -> BinaryIO:
    file = open_files.enter_context(path.open("xb"))
    when_failed.callback(path.unlink)
    return file


def _named(folder: Path, name: Path, kind: str) -> Path:
    return folder / f"{name.stem}.{kind}{name.suffix}"
