"""A daemon that answers every question with a fixed text at a set rate, on a Unix socket.

    python bench/tui/fake_daemon.py SOCKET --rate 200 --tokens 2000 --kind mix

It serves the routes the terminal uses, from `tests/fakes/daemon.py`. Each answer ends with the word
`END` and the answer's number; the time at which that was sent is appended to SOCKET.log. `--turns` gives it
a session with so many answered turns.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from itertools import cycle, islice
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fakes.daemon import FakeDaemon, answered, session

from footplate_daemon import errors, wire

PROSE = (
    "At batch one each token reads **all weights** once, "
    "so memory bandwidth is what limits the speed of decoding. "
)
FUNCTION = """def tokens_per_second(bandwidth: float, weights: float) -> float:
    return bandwidth / weights

"""
ITEMS = """- fp8 halves the bytes that each token reads: about **1.9x** as many tokens
- the KV cache `grows` with the context, then it counts too
- batches share the read of the weights
"""
HEAD = "| quant | bytes | tok/s |\n|---|---|---|\n"
ROW = "| q8_0 | 1.06 | 58 |\n"
TEXTS = {
    "mix": "\n".join(
        [
            "## Memory bandwidth\n",
            f"{PROSE * 5}\n\n{PROSE * 5}\n",
            ITEMS * 3,
            f"{PROSE * 7}\n",
            f"```python\n{FUNCTION * 8}```\n",
            f"{PROSE * 8}\n",
            f"{HEAD}{ROW * 10}\n",
        ]
    ),
    "prose": PROSE,
    "list": ITEMS,
    "table": HEAD + ROW * 400,
    "code": "```python\n" + FUNCTION * 200,
    "think": PROSE,
}
"""About 700 tokens of each kind of block, then again; or one kind alone."""


def tokens(kind: str, count: int) -> list[str]:
    """Cut the text into pieces of about a token."""
    pieces = TEXTS[kind].replace(" ", "\0 ").replace("\n", "\n\0").split("\0")
    return list(islice(cycle([piece for piece in pieces if piece]), count))


def log_end(socket: str, number: int, count: int, seconds: float) -> None:
    with Path(f"{socket}.log").open("a") as log:
        now = time.time()
        log.write(
            json.dumps({"end": number, "tokens": count, "sent_at": now, "first_at": now - seconds}) + "\n"
        )


async def answer(daemon: FakeDaemon, arguments: argparse.Namespace) -> None:
    """Answer the newest turn at the set rate."""
    number = len(daemon.asked)
    started_at = time.monotonic()
    pieces = tokens(arguments.kind, arguments.tokens)
    if arguments.kind == "think":
        for piece in pieces[: len(pieces) // 2]:
            await daemon.say(reasoning=piece)
            await asyncio.sleep(1 / arguments.rate)
    for sent, piece in enumerate(pieces, 1):
        if daemon.newest.ended_at is not None:
            return
        await daemon.say(piece)
        ahead = started_at + sent / arguments.rate - time.monotonic()
        if ahead > 0:
            await asyncio.sleep(ahead)
    await daemon.say(f"\n\nEND{number:04d}")
    seconds = time.monotonic() - started_at
    log_end(arguments.socket, number, len(pieces), seconds)
    await daemon.finish(
        completion_tokens=len(pieces), tokens_per_second=len(pieces) / max(seconds, 1e-9), ttft_seconds=0.012
    )


def long_session(turns: int) -> wire.SessionWithTurns:
    """Make a session of answered turns, each with some of every kind of block."""
    text = f"{PROSE}\n\n{ITEMS}\n```python\n{FUNCTION}```\n\n{HEAD}{ROW * 3}"
    answers = (answered("long", number, f"Question {number}?", text) for number in range(1, turns + 1))
    return session("long", title="A long session", turns=tuple(answers))


def build(daemon: FakeDaemon, arguments: argparse.Namespace) -> FastAPI:
    """Serve the fake."""
    app = FastAPI()
    answering: set[asyncio.Task[None]] = set()

    @app.exception_handler(errors.FootplateError)
    async def refuse(_: Request, error: errors.FootplateError) -> Response:
        return JSONResponse(errors.to_json(error), error.http_status)

    @app.get("/api/v1/models")
    async def models() -> dict[str, list[wire.ModelInfo]]:
        return {"models": await daemon.models()}

    @app.get("/api/v1/events")
    async def events() -> Response:
        async def stream() -> AsyncIterator[str]:
            async for status in daemon.follow_status():
                yield f"event: status\ndata: {status.model_dump_json()}\n\n"

        return StreamingResponse(stream(), media_type="text/event-stream")

    @app.get("/api/v1/sessions")
    async def sessions(limit: int = 50) -> dict[str, list[wire.Session]]:
        return {"sessions": await daemon.sessions(limit)}

    @app.post("/api/v1/sessions")
    async def create(wish: wire.SessionWish) -> wire.Session:
        return await daemon.create_session(wish)

    @app.get("/api/v1/sessions/{session_id}")
    async def session(session_id: str) -> wire.SessionWithTurns:
        return await daemon.session(session_id)

    @app.post("/api/v1/sessions/{session_id}/turns")
    async def ask(session_id: str, wish: wire.TurnWish) -> wire.Turn:
        turn = await daemon.ask(session_id, wish)
        task = asyncio.create_task(answer(daemon, arguments))
        answering.add(task)
        task.add_done_callback(answering.discard)
        return turn

    @app.post("/api/v1/sessions/{session_id}/turns/{number}/stop")
    async def stop(session_id: str, number: int) -> wire.Turn:
        return await daemon.stop_turn(session_id, number)

    @app.get("/api/v1/sessions/{session_id}/turns/{number}/events")
    async def follow(session_id: str, number: int, request: Request) -> Response:
        async def stream() -> AsyncIterator[str]:
            last = request.headers.get("last-event-id")
            async for event_id, event in daemon.follow_turn(session_id, number, last_event_id=last):
                kind = "delta" if isinstance(event, wire.TurnDelta) else "turn"
                yield f"id: {event_id}\nevent: {kind}\ndata: {event.model_dump_json()}\n\n"

        return StreamingResponse(stream(), media_type="text/event-stream")

    return app


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("socket")
    parser.add_argument("--rate", type=float, default=50.0, help="tokens per second")
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--kind", choices=TEXTS, default="mix")
    parser.add_argument("--turns", type=int, default=0, help="turns of a session that is there already")
    arguments = parser.parse_args()
    daemon = FakeDaemon()
    if arguments.turns:
        daemon.store(long_session(arguments.turns))
    uvicorn.run(build(daemon, arguments), uds=arguments.socket, log_level="warning")


if __name__ == "__main__":
    main()
