"""A tiny engine with a loading time of our choice: what a switch to it costs is all Footplate's.

    python -I -S slow_engine.py --port 8100 --name slow --load-ms 300

Speaks as much of a llama-server as a switch needs, and exits at once on SIGTERM. Standard library only.
"""

import argparse
import asyncio
import json
import time
from typing import Any

STARTED_AT = time.monotonic()


class SlowEngine:
    """Answers 503 until it has 'loaded', then the same word to every question."""

    def __init__(self, name: str, load_seconds: float) -> None:
        self._name = name
        self._load_seconds = load_seconds

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close the connection."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, path, _ = head.split(" ", 2)
            lengths = [line.split(":")[1] for line in head.lower().splitlines() if "content-length:" in line]
            body = await reader.readexactly(int(lengths[0]) if lengths else 0)
            writer.write(self._answer(method, path, body))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # The client went away.
        finally:
            writer.close()

    def _answer(self, method: str, path: str, body: bytes) -> bytes:
        if time.monotonic() - STARTED_AT < self._load_seconds:
            return answer("503 Service Unavailable", {"error": {"message": "Loading model"}})
        match method, path:
            case "GET", "/health":
                return answer("200 OK", {"status": "ok"})
            case "GET", "/v1/models":
                model = {"id": self._name, "object": "model", "created": 0, "owned_by": "llamacpp"}
                return answer("200 OK", {"object": "list", "data": [model]})
            case "POST", "/v1/chat/completions":
                if json.loads(body).get("stream"):
                    return stream(self._name)
                return answer("200 OK", completion(self._name))
            case _:
                return answer("404 Not Found", {"error": {"message": "not found"}})


def answer(status: str, body: Any) -> bytes:
    payload = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload


def completion(name: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Yes."}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return {"id": "slow-1", "object": "chat.completion", "model": name, "choices": choices, "usage": usage}


def stream(name: str) -> bytes:
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    chunks = [
        {
            "id": "slow-1",
            "object": "chat.completion.chunk",
            "model": name,
            "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
        }
        for delta, reason in (({"role": "assistant", "content": "Yes."}, None), ({}, "stop"))
    ]
    events = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return "".join([head, *events, "data: [DONE]\n\n"]).encode()


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--load-ms", type=float, default=300.0)
    arguments = parser.parse_args()
    engine = SlowEngine(arguments.name, arguments.load_ms / 1000)
    server = await asyncio.start_server(engine.serve, "127.0.0.1", arguments.port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
