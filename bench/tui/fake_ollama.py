"""An Ollama that answers every question with the text of `fake_daemon.py` at a set rate: for peers.

    python bench/tui/fake_ollama.py LOG --port 18500 --rate 200 --tokens 2000 --kind mix

It speaks Ollama's API and OpenAI's as far as terminals need it to chat. What it notes in LOG is what
`fake_daemon.py` notes.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.tui.fake_daemon import TEXTS, log_end, tokens
from bench.tui.programs import MODEL

CREATED = "2026-01-01T00:00:00Z"


class Answers:
    """Numbers the answers, and paces each by the clock."""

    def __init__(self, log: str, rate: float, pieces: list[str]) -> None:
        self._log = log
        self._rate = rate
        self._pieces = pieces
        self._given = 0

    async def next(self) -> AsyncIterator[str]:
        """Yield the next answer, piece by piece."""
        self._given += 1
        number, started_at = self._given, time.monotonic()
        for sent, piece in enumerate(self._pieces, 1):
            yield piece
            ahead = started_at + sent / self._rate - time.monotonic()
            if ahead > 0:
                await asyncio.sleep(ahead)
        yield f"\n\nEND{number:04d}"
        log_end(self._log, number, len(self._pieces), time.monotonic() - started_at)


def build(answers: Answers) -> FastAPI:
    """Serve them."""
    app = FastAPI()
    details = {"format": "gguf", "family": "bench", "parameter_size": "1B", "quantization_level": "Q8_0"}
    listed = {"name": MODEL, "model": MODEL, "modified_at": CREATED, "size": 10**9, "digest": "0" * 64}

    @app.get("/api/version")
    async def version() -> dict[str, str]:
        return {"version": "0.12.0"}

    @app.get("/api/tags")
    async def tags() -> dict[str, Any]:
        return {"models": [{**listed, "details": details}]}

    @app.get("/api/ps")
    async def running() -> dict[str, Any]:
        return {"models": []}

    @app.post("/api/show")
    async def show() -> dict[str, Any]:
        return {
            "details": details,
            "model_info": {"general.architecture": "bench", "bench.context_length": 32768},
            "capabilities": ["completion"],
            "parameters": "",
            "template": "",
        }

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "bench"}]}

    @app.post("/api/chat")
    async def chat(request: Request) -> Response:
        if not (await request.json()).get("stream", True):
            said = {"role": "assistant", "content": "A title"}
            return JSONResponse({"model": MODEL, "created_at": CREATED, "message": said, "done": True})

        async def stream() -> AsyncIterator[str]:
            head = {"model": MODEL, "created_at": CREATED}
            async for piece in answers.next():
                said = {"role": "assistant", "content": piece}
                yield json.dumps({**head, "message": said, "done": False}) + "\n"
            said = {"role": "assistant", "content": ""}
            yield json.dumps({**head, "message": said, "done": True, "done_reason": "stop"}) + "\n"

        return StreamingResponse(stream(), media_type="application/x-ndjson")

    @app.post("/v1/chat/completions")
    async def completions(request: Request) -> Response:
        head = {"id": "chatcmpl-1", "created": 1, "model": MODEL}
        if not (await request.json()).get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": "A title"}}
            whole = {**head, "object": "chat.completion", "choices": [{**choice, "finish_reason": "stop"}]}
            return JSONResponse(whole)

        def event(delta: dict[str, str], finish_reason: str | None = None) -> str:
            choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
            chunk = {**head, "object": "chat.completion.chunk", "choices": [choice]}
            return f"data: {json.dumps(chunk)}\n\n"

        async def stream() -> AsyncIterator[str]:
            yield event({"role": "assistant", "content": ""})
            async for piece in answers.next():
                yield event({"content": piece})
            yield event({}, "stop") + "data: [DONE]\n\n"

        return StreamingResponse(stream(), media_type="text/event-stream")

    return app


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("log", help="where the ends of answers are noted, with .log behind")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, default=50.0, help="tokens per second")
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--kind", choices=TEXTS, default="mix")
    arguments = parser.parse_args()
    answers = Answers(arguments.log, arguments.rate, tokens(arguments.kind, arguments.tokens))
    uvicorn.run(build(answers), port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
