"""Asks one line of a batch, and says what became of it: an answer, an error, or trouble that passes."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from footplate_daemon.batches import lines
from footplate_daemon.catalog import Variant
from footplate_daemon.errors import Busy, EngineFailed, FootplateError, TimedOut, Unavailable
from footplate_daemon.gateway.answering import Answering, Ask
from footplate_daemon.gateway.upstream import Broken
from footplate_daemon.ids import new_request_id
from footplate_daemon.store.batches import NO_TOKENS, Failure, Line, LineState, Tokens
from footplate_daemon.switching.leases import Interrupted

ANSWER_LIMIT = 64 * 1024 * 1024
"""Bytes of one answer."""
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
"""The statuses after which the same request may succeed."""
FULL = frozenset({429, 503})
"""The statuses that say that it was too much at a time."""


class Gateway(Protocol):
    """What batches need of the gateway."""

    async def answer(self, ask: Ask, respond: Callable[[Answering], Awaitable[None]]) -> None:
        """Have `respond` take what the engine answers."""

    def resolve_for(self, ask: Ask) -> Variant:
        """Give the variant for a request; raise `NotFound`, or `Invalid` when it is none for that."""

    def check_path(self, variant: Variant, path: str) -> None:
        """Raise `NotFound` when the variant's runtime does not have this path."""


@dataclass(frozen=True, slots=True)
class Done:
    """A line that is answered, or never will be; `text` is for the file."""

    state: LineState
    text: bytes
    seconds: float
    tokens: Tokens = NO_TOKENS
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """A line that may be answered another time."""

    cause: FootplateError | None
    is_full: bool = False
    """The engine had no room: that is nothing about the line."""
    is_death: bool = False
    """The engine died while it had the line, which may be why."""
    is_interrupted: bool = False
    """The engine was taken away: that is nothing about the line, either."""
    last: Done | None = None
    """What to write if it is not tried again."""


Outcome = Done | Again


def ask_of(batch_id: str, endpoint: str, body: Mapping[str, Any]) -> Ask:
    """Give a line's request, as the gateway takes it."""
    return Ask(
        endpoint,
        body,
        new_request_id(),
        f"batch:{batch_id}",
        interactive=False,
        capability=lines.capability_of(endpoint),
    )


async def ask_line(
    gateway: Gateway, batch_id: str, endpoint: str, line: Line, body: Mapping[str, Any], *, is_ours: bool
) -> Outcome:
    """Ask a line whose body is given; raise nothing but what ends the daemon.

    Where the engine `is_ours`, a connection that breaks means that it died.
    """
    asked_at = time.monotonic()
    ask = ask_of(batch_id, endpoint, body)

    def failed(status: int, said: Mapping[str, Any]) -> Done:
        text = lines.refused(batch_id, line.number, line.custom_id, status, ask.request_id, said)
        failure = lines.failure_of({"status_code": status, "body": said}, None)
        return Done(LineState.FAILED, text, time.monotonic() - asked_at, failure=failure)

    outcome: Outcome = Again(None)

    async def take(answering: Answering) -> None:
        nonlocal outcome
        status = answering.response.status
        if status >= 400:
            status, said = await answering.failure()  # its status may be better than the engine's
            done = failed(status, said)
            outcome = Again(None, status in FULL, last=done) if status in TRANSIENT else done
            return
        answer = await answering.whole(ANSWER_LIMIT)
        answering.lease.progressed()
        text = lines.answered(batch_id, line.number, line.custom_id, status, ask.request_id, answer)
        outcome = Done(LineState.COMPLETED, text, time.monotonic() - asked_at, _tokens(answering))

    try:
        await gateway.answer(ask, take)
    except Interrupted as error:
        return Again(error, is_interrupted=True)
    except Broken as error:
        return Again(error, is_death=is_ours, last=failed(error.http_status, lines.error_body(error)))
    except (Busy, Unavailable) as error:
        return Again(error, is_full=True, last=failed(error.http_status, lines.error_body(error)))
    except (EngineFailed, TimedOut) as error:
        is_death = "diagnosis" in error.details
        last = failed(error.http_status, lines.error_body(error))
        return Again(error, is_death=is_death, last=last)
    except FootplateError as error:
        return failed(error.http_status, lines.error_body(error))
    return outcome


def _tokens(answering: Answering) -> Tokens:
    usage = answering.usage
    if usage is None:
        return Tokens()
    return Tokens(
        usage.prompt_tokens or 0,
        usage.cached_tokens or 0,
        usage.completion_tokens or 0,
        usage.reasoning_tokens or 0,
    )
