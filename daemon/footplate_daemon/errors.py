"""Every error that Footplate raises on purpose, one code per class, for both sides of the socket.

    FootplateError           code                HTTP
    ├─ Invalid               invalid             400
    │  └─ TooLarge           too_large           413
    ├─ Unauthorized          unauthorized        401
    ├─ Forbidden             forbidden           403
    ├─ NotFound              not_found           404
    ├─ Conflict              conflict            409
    ├─ Busy                  busy                429
    ├─ EngineFailed          engine_failed       502
    ├─ Unavailable           unavailable         503
    ├─ TimedOut              timed_out           504
    └─ DaemonUnreachable     daemon_unreachable  (client only)

Anything else is `internal`, 500: the log has all of it, the client a sentence.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class FootplateError(Exception):
    """Something a user can act on: a sentence, and in `hint` what to do next."""

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    openai_type: ClassVar[str] = "server_error"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.param = param
        """The field of the request that is wrong, dotted: `messages.0.role`."""
        self.retry_after = retry_after
        """Seconds after which the same request may succeed."""
        self.details = dict(details or {})
        """More for programs, e.g. the diagnosis of a failed start; JSON values only."""


class Invalid(FootplateError):
    """The request cannot be understood or asks for what cannot be."""

    code = "invalid"
    http_status = 400
    openai_type = "invalid_request_error"


class TooLarge(Invalid):
    """The request is bigger than what is accepted."""

    code = "too_large"
    http_status = 413


class Unauthorized(FootplateError):
    """No key, or one that is not valid."""

    code = "unauthorized"
    http_status = 401
    openai_type = "authentication_error"


class Forbidden(FootplateError):
    """The key is valid, but not for this."""

    code = "forbidden"
    http_status = 403
    openai_type = "permission_error"


class NotFound(FootplateError):
    """No such thing; the hint says which there are."""

    code = "not_found"
    http_status = 404
    openai_type = "not_found_error"


class Conflict(FootplateError):
    """It cannot be done in the present state."""

    code = "conflict"
    http_status = 409
    openai_type = "conflict_error"


class Busy(FootplateError):
    """Too much at once; the same request may succeed later."""

    code = "busy"
    http_status = 429
    openai_type = "rate_limit_error"


class EngineFailed(FootplateError):
    """An engine did not start, died, or answered nonsense."""

    code = "engine_failed"
    http_status = 502


class Unavailable(FootplateError):
    """Nothing can answer this now."""

    code = "unavailable"
    http_status = 503


class TimedOut(FootplateError):
    """It took longer than allowed."""

    code = "timed_out"
    http_status = 504


class DaemonUnreachable(FootplateError):
    """Nobody answers on the daemon's socket (raised by the client only)."""

    code = "daemon_unreachable"
    http_status = 503


INTERNAL = FootplateError("Internal error.", hint="The daemon's log has all of it: footplate logs")
"""What a client is told of a mistake of ours."""

BY_CODE: Mapping[str, type[FootplateError]] = {
    kind.code: kind
    for kind in (
        Invalid,
        TooLarge,
        Unauthorized,
        Forbidden,
        NotFound,
        Conflict,
        Busy,
        EngineFailed,
        Unavailable,
        TimedOut,
        DaemonUnreachable,
    )
}


def to_json(error: FootplateError) -> dict[str, Any]:
    """Give the one shape in which errors travel: OpenAI's, plus `hint`."""
    body: dict[str, Any] = {
        "message": error.message,
        "type": error.openai_type,
        "code": error.code,
        "param": error.param,
        "hint": error.hint,
    }
    if error.retry_after is not None:
        body["retry_after"] = error.retry_after
    if error.details:
        body["details"] = error.details
    return {"error": body}


def from_json(body: Any, http_status: int) -> FootplateError:
    """Rebuild the error that `to_json` wrote; what is no such shape becomes a plain `FootplateError`."""
    fields = body.get("error") if isinstance(body, dict) else None
    if not isinstance(fields, dict):
        return FootplateError(f"The server answered {http_status}: {str(fields or body)[:500]}")
    kind = BY_CODE.get(str(fields.get("code")), FootplateError)
    return kind(
        str(fields.get("message", "")),
        hint=fields.get("hint"),
        param=fields.get("param"),
        retry_after=fields.get("retry_after"),
        details=fields.get("details"),
    )
