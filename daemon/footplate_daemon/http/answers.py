"""What both faces share: errors in their one shape."""

from footplate_daemon import errors
from footplate_daemon.bodies import dump
from footplate_daemon.errors import FootplateError, Unauthorized

Headers = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")


def error_answer(error: FootplateError) -> tuple[Headers, bytes]:
    """Give the headers and the body that tell an error."""
    wanted = [(b"www-authenticate", b"Bearer")] if isinstance(error, Unauthorized) else []
    return [JSON, *wanted, *retry_headers(error)], dump(errors.to_json(error))


def retry_headers(error: FootplateError) -> Headers:
    """Give `Retry-After` where there is something to say."""
    if error.retry_after is None:
        return []
    return [(b"retry-after", str(max(1, round(error.retry_after))).encode())]
