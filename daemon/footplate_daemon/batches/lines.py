"""The lines of a batch's files, read and written: what is a good request, what its answer looks like.

Pure, and without a file in its hand.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from footplate_daemon import errors
from footplate_daemon.bodies import dump
from footplate_daemon.errors import FootplateError, Invalid
from footplate_daemon.gateway import requests
from footplate_daemon.gateway.requests import SERVED_BY
from footplate_daemon.runtimes import parameters
from footplate_daemon.store.batches import Failure, LineState, Tokens
from footplate_daemon.wire_batches import BatchError

ENDPOINTS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/rerank",
    "/v1/score",
)
"""What a batch may ask: OpenAI's as far as engines answer them, and beside them ranking."""
LONGEST_CUSTOM_ID = 512
"""Characters."""
EXAMPLE_LIMIT = 500
"""Characters of an error's message that are kept."""

BATCH_EXPIRED = "This request could not be executed before the completion window expired."
BATCH_CANCELLED = "This request was not executed: the batch was cancelled."


@dataclass(frozen=True, slots=True)
class Request:
    """A good line."""

    custom_id: str
    model: str
    body: Mapping[str, Any]
    prefix: int
    """Equal for requests that begin alike."""
    inputs: int
    """Texts to embed."""


def read(raw: bytes, endpoint: str, number: int) -> Request | list[BatchError]:
    """Read a line of an input file; give all that is wrong with it, if anything is."""
    try:
        line = orjson.loads(raw)
    except orjson.JSONDecodeError:
        message = "This line is not parseable as valid JSON."
        return [BatchError(code="invalid_json_line", message=message, line=number)]
    if not isinstance(line, dict):
        return [_error("invalid_request", "This line is not a JSON object.", None, number)]
    wrong = [
        *_wrong_custom_id(line, number),
        *_wrong_method(line, number),
        *_wrong_url(line, endpoint, number),
        *_wrong_body(line, endpoint, number),
    ]
    if wrong:
        return wrong
    body = line["body"]
    return Request(line["custom_id"], body["model"], body, prefix_of(body), _inputs(endpoint, body))


def body_of(raw: bytes) -> dict[str, Any]:
    """Give the body of a line that was found good."""
    body: dict[str, Any] = orjson.loads(raw)["body"]
    return body


def capability_of(endpoint: str) -> str | None:
    """Give what a variant must be able to do to answer, where that is not chat."""
    return SERVED_BY.get(endpoint)


def prefix_of(body: Mapping[str, Any]) -> int:
    """Give a number that is the same for requests that begin with the same instructions; 0 without any."""
    instructions: list[Any] = [body["instructions"]] if body.get("instructions") else []
    messages = body.get("messages")
    if isinstance(messages, list):
        instructions += [
            message.get("content")
            for message in messages
            if isinstance(message, dict) and message.get("role") in {"system", "developer"}
        ]
    if not instructions:
        return 0
    digest = hashlib.blake2b(orjson.dumps(instructions), digest_size=4).digest()
    return int.from_bytes(digest) or 1


# What was answered


def result_id(batch_id: str, number: int) -> str:
    """Give the id of a line's result: the same whenever it is written."""
    digest = hashlib.blake2b(f"{batch_id} {number}".encode(), digest_size=16)
    return f"batch_req_{digest.hexdigest()}"


def answered(batch_id: str, number: int, custom_id: str, status: int, request_id: str, body: bytes) -> bytes:
    """Write the line for an answer, as an engine gave it; raise `Invalid` if that is no JSON."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Invalid("The engine's answer is no JSON.", hint="See: footplate logs") from error
    if b"\n" in body or b"\r" in body:
        body = orjson.dumps(value)
    response = {"status_code": status, "request_id": request_id, "body": orjson.Fragment(body)}
    return _result(batch_id, number, custom_id, response, None)


def refused(
    batch_id: str, number: int, custom_id: str, status: int, request_id: str, body: Mapping[str, Any]
) -> bytes:
    """Write the line for a request that was answered with an error."""
    return answered(batch_id, number, custom_id, status, request_id, dump(body))


def never_asked(batch_id: str, number: int, custom_id: str, code: str, message: str) -> bytes:
    """Write the line for a request that got no answer at all."""
    return _result(batch_id, number, custom_id, None, {"code": code, "message": message})


def failure_of(response: Mapping[str, Any] | None, error: Mapping[str, Any] | None) -> Failure:
    """Say how a line failed, by what its result says."""
    if error is not None:
        return Failure(str(error.get("code")), 0, str(error.get("message"))[:EXAMPLE_LIMIT])
    status = int((response or {}).get("status_code") or 0)
    body = (response or {}).get("body")
    told = body.get("error") if isinstance(body, dict) else None
    if not isinstance(told, dict):
        return Failure("error", status, str(body)[:EXAMPLE_LIMIT])
    code = told.get("code") if isinstance(told.get("code"), str) else told.get("type")
    return Failure(str(code or "error"), status, str(told.get("message") or "")[:EXAMPLE_LIMIT])


def error_body(error: FootplateError) -> dict[str, Any]:
    """Give an error of ours as the body of an answer."""
    return errors.to_json(error)


def tokens_of(usage: Mapping[str, Any] | None) -> Tokens:
    """Read the tokens off an answer's `usage`, whatever its endpoint calls them."""
    if not isinstance(usage, dict):
        return Tokens()
    asked = _field(usage, "prompt_tokens_details") or _field(usage, "input_tokens_details")
    said = _field(usage, "completion_tokens_details") or _field(usage, "output_tokens_details")
    return Tokens(
        _number(usage, "prompt_tokens", "input_tokens", "total_tokens"),
        _number(asked, "cached_tokens"),
        _number(usage, "completion_tokens", "output_tokens"),
        _number(said, "reasoning_tokens"),
    )


@dataclass(frozen=True, slots=True)
class Result:
    """A line of an output or error file, read again."""

    custom_id: str
    state: LineState
    tokens: Tokens
    failure: Failure | None
    response: Mapping[str, Any] | None


def read_result(raw: bytes) -> Result | None:
    """Read a line that we wrote; None if it is torn or not ours."""
    try:
        line = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(line, dict) or not isinstance(line.get("custom_id"), str):
        return None
    response, error = line.get("response"), line.get("error")
    if error is None and isinstance(response, dict) and response.get("status_code") == 200:
        tokens = tokens_of(_field(response.get("body"), "usage"))
        return Result(line["custom_id"], LineState.COMPLETED, tokens, None, response)
    return Result(line["custom_id"], LineState.FAILED, Tokens(), failure_of(response, error), response)


# What may be wrong with a line


def _wrong_custom_id(line: Mapping[str, Any], number: int) -> list[BatchError]:
    custom_id = line.get("custom_id")
    if custom_id is None:
        return [_missing("custom_id", number)]
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= LONGEST_CUSTOM_ID:
        message = f"'custom_id' must be a string of 1 to {LONGEST_CUSTOM_ID} characters."
        return [_error("invalid_request", message, "custom_id", number)]
    return []


def _wrong_method(line: Mapping[str, Any], number: int) -> list[BatchError]:
    method = line.get("method")
    if method is None:
        return [_missing("method", number)]
    return [] if method == "POST" else [_error("invalid_method", "'method' must be POST.", "method", number)]


def _wrong_url(line: Mapping[str, Any], endpoint: str, number: int) -> list[BatchError]:
    url = line.get("url")
    if url is None:
        return [_missing("url", number)]
    if url == endpoint:
        return []
    message = f"The URL provided for this request does not match the batch endpoint, {endpoint}."
    return [_error("invalid_url", message, "url", number)]


def _wrong_body(line: Mapping[str, Any], endpoint: str, number: int) -> list[BatchError]:
    body = line.get("body")
    if body is None:
        return [_missing("body", number)]
    if not isinstance(body, dict):
        return [_error("invalid_request", "'body' must be a JSON object.", "body", number)]
    wrong = []
    model = body.get("model")
    if model is None:
        wrong.append(_missing("body.model", number))
    elif not isinstance(model, str) or not model:
        wrong.append(_error("invalid_request", "'body.model' must be a string.", "body.model", number))
    if body.get("stream"):
        message = "'body.stream' must not be set: a batch has no streams."
        wrong.append(_error("invalid_request", message, "body.stream", number))
    try:
        requests.check(endpoint, body)
        parameters.check(body)
    except Invalid as error:
        code = "invalid_request" if error.param in body else "missing_required_parameter"
        wrong.append(_error(code, error.message, f"body.{error.param}" if error.param else "body", number))
    return wrong


def _missing(field: str, number: int) -> BatchError:
    return _error("missing_required_parameter", f"Missing required parameter: '{field}'.", field, number)


def _error(code: str, message: str, param: str | None, number: int) -> BatchError:
    return BatchError(code=code, message=message, param=param, line=number)


def _inputs(endpoint: str, body: Mapping[str, Any]) -> int:
    if endpoint != "/v1/embeddings":
        return 0
    given = body.get("input")
    if not isinstance(given, list):
        return 1
    # A list of numbers is one text, in tokens.
    return 1 if given and isinstance(given[0], int) else len(given)


def _result(
    batch_id: str, number: int, custom_id: str, response: dict[str, Any] | None, error: dict[str, str] | None
) -> bytes:
    line = {
        "id": result_id(batch_id, number),
        "custom_id": custom_id,
        "response": response,
        "error": error,
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _field(value: object, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _number(value: object, *names: str) -> int:
    for name in names:
        number = _field(value, name)
        if isinstance(number, int):
            return number
    return 0
