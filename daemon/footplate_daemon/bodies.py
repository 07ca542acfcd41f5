"""JSON bodies, read and written: quickly, and with errors that say where a body is wrong."""

import json
from typing import Any

import orjson

from footplate_daemon.errors import Invalid


def parse_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object; raise `Invalid` that says where it is wrong.

    An integer beyond 64 bits becomes a float.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = _parse_slowly(body)
    if not isinstance(value, dict):
        raise Invalid("The body must be a JSON object.", hint='For example: {"messages": [...]}')
    return value


def dump(value: Any) -> bytes:
    """Write JSON in UTF-8; raise `Invalid` for what JSON cannot say."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return _dump_slowly(value)


def _parse_slowly(body: bytes) -> Any:
    """Read what the quick parser refuses, and say better where it is wrong."""
    try:
        value = json.loads(body)
    except UnicodeDecodeError as error:
        raise Invalid("The body is not UTF-8.", hint="Send JSON in UTF-8.") from error
    except json.JSONDecodeError as error:
        raise Invalid(
            f"The body is no JSON: {error.msg} at line {error.lineno}, column {error.colno}.",
            hint="Mend the JSON; it must be one object.",
        ) from error
    except RecursionError as error:
        raise Invalid("The body is nested too deeply.", hint="Send flatter JSON.") from error
    except ValueError as error:  # an integer of thousands of digits
        raise Invalid(f"The body cannot be read: {error}.", hint="Send smaller numbers.") from error
    _dump_slowly(value)
    return value


def _dump_slowly(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        raise Invalid(
            "The body holds half of a surrogate pair, which is no character.", hint="Write it in UTF-8."
        ) from error
    except (ValueError, RecursionError) as error:
        raise Invalid(
            "The body holds what JSON cannot say: NaN, Infinity, or too many levels.",
            hint="Send numbers, and flatter JSON.",
        ) from error
