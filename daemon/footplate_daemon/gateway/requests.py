"""What every runtime needs of a request, checked before anything is loaded for it."""

from collections.abc import Mapping
from typing import Any

from footplate_daemon.errors import Invalid

SCORED = ("text_1", "queries", "data_1")
PASSED_THROUGH = {
    "/v1/chat/completions": ("messages",),
    "/v1/completions": ("prompt",),
    "/v1/responses": ("input",),
    "/v1/messages": ("messages",),
    "/v1/messages/count_tokens": ("messages",),
    "/v1/embeddings": ("input",),
    "/v1/rerank": ("query",),
    "/rerank": ("query",),
    "/v1/score": SCORED,
    "/score": SCORED,
}
"""What engines answer themselves, with the fields of which a request must have one."""
SERVED_BY = {
    "/v1/embeddings": "embedding",
    **dict.fromkeys(("/v1/rerank", "/rerank", "/v1/score", "/score"), "rerank"),
}
"""The capability that a path needs, where that is not chat."""


def check(path: str, body: Mapping[str, Any]) -> None:
    """Raise `Invalid` for a request that no runtime could answer; `path` is one of `PASSED_THROUGH`."""
    fields = PASSED_THROUGH[path]
    if body.keys().isdisjoint(fields):
        named = " or ".join(f"`{field}`" for field in fields)
        raise Invalid(f"{named} is missing.", param=fields[0], hint=f"POST {path} needs {named}.")
    if "messages" in fields:
        _check_messages(body["messages"])


def _check_messages(messages: object) -> None:
    if not isinstance(messages, list) or not messages:
        raise Invalid(
            "`messages` must be a list with at least one message.",
            param="messages",
            hint='For example: [{"role": "user", "content": "Hello"}]',
        )
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise Invalid(
                f"Message {index} must be an object with a `role`.",
                param=f"messages.{index}.role",
                hint="Roles are system, user, assistant and tool.",
            )
        content = message.get("content")
        if not (content is None or isinstance(content, str) or _are_parts(content)):
            raise Invalid(
                f"The content of message {index} must be a string or a list of parts.",
                param=f"messages.{index}.content",
                hint='For example: [{"type": "text", "text": "Hello"}]',
            )


def _are_parts(content: object) -> bool:
    return isinstance(content, list) and all(
        isinstance(part, dict) and isinstance(part.get("type"), str) for part in content
    )
