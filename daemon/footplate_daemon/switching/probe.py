"""One short HTTP call to an engine, for readiness and warm-up; not for traffic."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

ANSWER_LIMIT = 4 * 1024 * 1024
"""Bytes of an answer that are read."""


@dataclass(frozen=True)
class Address:
    """Where an engine listens."""

    port: int
    api_key: str | None = None
    host: str = "127.0.0.1"
    tls: bool = False
    base_path: str = ""
    """What goes before every path."""
    others: "tuple[Address, ...]" = ()
    """Servers with the same model: requests are spread over all of them."""


@dataclass(frozen=True)
class Answer:
    """What the engine said; `status` 0 means that it could not be understood."""

    status: int
    body: bytes

    def json(self) -> Any:
        """Give the body as JSON, None if it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


async def ask(
    address: Address, method: str, path: str, *, body: Any = None, timeout_seconds: float
) -> Answer | None:
    """Send one request; None when nobody answers in time."""
    payload = b"" if body is None else json.dumps(body).encode()
    key = f"Authorization: Bearer {address.api_key}\r\n" if address.api_key else ""
    head = (
        f"{method} {address.base_path}{path} HTTP/1.0\r\nHost: {address.host}\r\n{key}"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    try:
        async with asyncio.timeout(timeout_seconds):
            reader, writer = await asyncio.open_connection(
                address.host, address.port, ssl=address.tls or None
            )
            try:
                writer.write(head.encode() + payload)
                return _parse(await _read(reader))
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None


async def _read(reader: asyncio.StreamReader) -> bytes:
    answer = bytearray()
    while len(answer) < ANSWER_LIMIT and (more := await reader.read(65536)):
        answer += more
        if _is_whole(answer):
            break
    return bytes(answer)


def _is_whole(answer: bytearray) -> bool:
    """Say whether the announced length has come: some engines keep HTTP/1.0 connections open."""
    head, separator, body = bytes(answer).partition(b"\r\n\r\n")
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip().isdigit():
            return bool(separator) and len(body) >= int(value)
    return False


def _parse(answer: bytes) -> Answer:
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split(b" ")
    is_http = len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].isdigit()
    return Answer(int(words[1]) if is_http else 0, body)
