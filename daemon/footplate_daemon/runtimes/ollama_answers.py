"""Ollama's native answers, turned into OpenAI's: as they come, or when all of one is there.

`Stream` and `Whole` take the bytes, an `…Answer` knows what becomes of one kind of answer's lines.
"""

import base64
import json
import struct
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from footplate_daemon.runtimes import reasoning

LINE_LIMIT = 64 * 1024 * 1024
"""Bytes of one line of a stream."""
CUT_SHARE = 0.5
"""Of the tokens that a prompt has at the very least: below it, something was left out."""


class Shape(Protocol):
    """What becomes of an answer in one piece."""

    def whole(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """Give the answer."""


class StreamShape(Shape, Protocol):
    """What becomes of the lines of an answer, which come in their order."""

    def chunks(self, line: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Give the chunks for what a line adds; none where it adds nothing."""

    def last(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """Give the chunk that says why the answer ended; `chunks` has had that line already."""


class Stream:
    """Turns NDJSON into OpenAI's server-sent events, in whatever pieces it comes."""

    def __init__(self, shape: StreamShape, *, include_usage: bool = False) -> None:
        """Begin one answer; `include_usage` adds the chunk that clients ask for by that name."""
        self._shape = shape
        self._include_usage = include_usage
        self._parts: list[bytes] = []
        self._size = 0
        self._has_ended = False

    def feed(self, data: bytes) -> bytes:
        """Give the events that these bytes complete."""
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = b"".join((*self._parts, lines[0]))
            self._parts.clear()
            self._size = 0
        self._parts.append(rest)
        self._size += len(rest)
        events = b"".join(map(self._line, lines))
        if self._size > LINE_LIMIT:
            self._parts.clear()
            return events + self._fail(f"A line of Ollama's answer is longer than {LINE_LIMIT} bytes.")
        return events

    def end(self) -> bytes:
        """Give what is left; an answer that did not come to its end becomes an error."""
        rest, self._parts = b"".join(self._parts), []
        return self._line(rest) + self._fail("Ollama stopped in the middle of its answer.")

    def _line(self, line: bytes) -> bytes:
        if self._has_ended or not line.strip():
            return b""
        said = _json(line)
        if not isinstance(said, dict):
            return self._fail("Ollama sent a line that is no JSON object.")
        if "error" in said:
            return self._fail(said["error"])
        chunks = self._shape.chunks(said)
        if not said.get("done"):
            return b"".join(map(_event, chunks))
        self._has_ended = True
        chunks.append(self._shape.last(said))
        if self._include_usage:
            chunks.append({**chunks[-1], "choices": [], "usage": _usage(said)})
        return b"".join(map(_event, chunks)) + b"data: [DONE]\n\n"

    def _fail(self, said: Any) -> bytes:
        if self._has_ended:
            return b""
        self._has_ended = True
        return _event({"error": openai_error(said)})


class Whole:
    """Turns an answer in one piece into OpenAI's, when all of it is there."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        """Keep it: nothing can be said before the end."""
        self._parts.append(data)
        return b""

    def end(self) -> bytes:
        """Give the whole answer, or the error that it is."""
        said = _json(b"".join(self._parts))
        if not isinstance(said, dict):
            return _dump({"error": openai_error("Ollama's answer is no JSON object.")})
        return _dump({"error": openai_error(said["error"])} if "error" in said else self._shape.whole(said))


class ChatAnswer:
    """A chat completion."""

    def __init__(self, model: str, least_prompt_tokens: int, *, reasoning_is_off: bool = False) -> None:
        """Begin one answer to a prompt of which it is known how many tokens it has at the very least."""
        self._model = model
        self._least_prompt_tokens = least_prompt_tokens
        self._reasoning_is_off = reasoning_is_off
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._has_begun = False
        self._tool_calls = 0
        self._has_content = False
        self._has_thought = False

    def chunks(self, line: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Give the role first of all, then a chunk each for reasoning, content and tool calls."""
        message = self._read(line)
        deltas: list[dict[str, Any]] = []
        if thinking := message.get("thinking"):
            deltas.append(_reasoning(thinking))
        if content := message.get("content"):
            deltas.append({"content": content})
        if calls := message.get("tool_calls"):
            deltas.append({"tool_calls": self._calls(calls)})
        logprobs = _logprobs(line)
        if logprobs and not deltas:
            # What tells of the probabilities may come without a text.
            deltas.append({"content": ""})
        if not self._has_begun:
            deltas.insert(0, {"role": "assistant", "content": ""})
            self._has_begun = True
        chunks = [self._chunk(line, delta) for delta in deltas]
        if logprobs:
            chunks[-1]["choices"][0]["logprobs"] = logprobs
        return chunks

    def last(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """Give the finish reason, with a warning where there is one."""
        return {**self._chunk(line, {}, self._finish_reason(line)), **self._warning(line)}

    def whole(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """Give the message with its usage, with a warning where there is one."""
        said = self._read(line)
        message: dict[str, Any] = {"role": "assistant", "content": said.get("content") or ""}
        if thinking := said.get("thinking"):
            message.update(_reasoning(thinking))
        if calls := said.get("tool_calls"):
            message["content"] = message["content"] or None
            message["tool_calls"] = self._calls(calls)
            for call in message["tool_calls"]:
                del call["index"]  # which is for the pieces of a stream
        return {
            **self._head(line, "chat.completion"),
            "choices": [
                {
                    "index": 0,
                    "message": message,
                    "logprobs": _logprobs(line),
                    "finish_reason": self._finish_reason(line),
                }
            ],
            "usage": _usage(line),
            **self._warning(line),
        }

    def _read(self, line: Mapping[str, Any]) -> Mapping[str, Any]:
        message: Mapping[str, Any] = line.get("message") or {}
        self._has_content = self._has_content or bool(message.get("content") or message.get("tool_calls"))
        self._has_thought = self._has_thought or bool(message.get("thinking"))
        return message

    def _head(self, line: Mapping[str, Any], kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": _created(line), "model": self._model}

    def _chunk(
        self, line: Mapping[str, Any], delta: Mapping[str, Any], finish_reason: str | None = None
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return {**self._head(line, "chat.completion.chunk"), "choices": [choice]}

    def _calls(self, calls: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        first = self._tool_calls
        self._tool_calls += len(calls)
        return [_tool_call(call, index) for index, call in enumerate(calls, start=first)]

    def _finish_reason(self, line: Mapping[str, Any]) -> str:
        reason = _finish_reason(line)
        return "tool_calls" if reason == "stop" and self._tool_calls else reason

    def _warning(self, line: Mapping[str, Any]) -> dict[str, str]:
        return _warning(
            _cut(line, self._least_prompt_tokens),
            reasoning.warning(
                has_reasoned=self._has_thought,
                has_content=self._has_content,
                finish_reason=_finish_reason(line),
                is_off=self._reasoning_is_off,
            ),
        )


class TextAnswer:
    """A completion."""

    def __init__(self, model: str, least_prompt_tokens: int) -> None:
        """Begin one answer to a prompt of which it is known how many tokens it has at the very least."""
        self._model = model
        self._least_prompt_tokens = least_prompt_tokens
        self._id = f"cmpl-{uuid.uuid4().hex}"

    def chunks(self, line: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Give a chunk for each piece of text."""
        text = _text(line)
        return [self._answer(line, text, None)] if text else []

    def last(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """Give the finish reason, with a warning where there is one."""
        return {**self._answer(line, "", _finish_reason(line)), **self._warning(line)}

    def whole(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """Give the text with its usage, with a warning where there is one."""
        answer = self._answer(line, _text(line), _finish_reason(line))
        return {**answer, "usage": _usage(line), **self._warning(line)}

    def _answer(self, line: Mapping[str, Any], text: str, finish_reason: str | None) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "text_completion",
            "created": _created(line),
            "model": self._model,
            "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}],
        }

    def _warning(self, line: Mapping[str, Any]) -> dict[str, str]:
        return _warning(_cut(line, self._least_prompt_tokens))


class EmbeddingsAnswer:
    """Embeddings, which never come as a stream."""

    def __init__(self, model: str, *, as_base64: bool) -> None:
        """Give vectors as lists of numbers, or as the base64 of 32-bit floats that OpenAI's client wants."""
        self._model = model
        self._as_base64 = as_base64

    def whole(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """Give the vectors with their usage."""
        tokens = _count(line, "prompt_eval_count")
        return {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": self._vector(vector)}
                for index, vector in enumerate(line.get("embeddings") or ())
            ],
            "model": self._model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }

    def _vector(self, vector: Sequence[float]) -> str | Sequence[float]:
        if not self._as_base64:
            return vector
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def openai_error(said: Any) -> dict[str, Any]:
    """Give OpenAI's error object for what stands under `error` in an answer of Ollama's.

    That may be a text which is JSON itself, with the error of the model's process in it.
    """
    inner = _json(said) if isinstance(said, str) else said
    if isinstance(inner, dict):
        inner = inner.get("error", inner)
    if not isinstance(inner, dict) or not inner.get("message"):
        inner = {"message": (said if isinstance(said, str) else json.dumps(said)) or "Ollama said nothing."}
    return {"type": "server_error", "code": None, "param": None, **inner}


def _reasoning(thinking: str) -> dict[str, str]:
    """Give it under the names of both llama.cpp and vLLM."""
    return dict.fromkeys(reasoning.NAMES, thinking)


def _text(line: Mapping[str, Any]) -> str:
    text = line.get("response")
    return text if isinstance(text, str) else ""


def _tool_call(call: Mapping[str, Any], index: int) -> dict[str, Any]:
    function = call.get("function") or {}
    arguments = function.get("arguments")
    return {
        "index": index,
        "id": call.get("id") or f"call_{uuid.uuid4().hex[:24]}",
        "type": "function",
        "function": {
            "name": function.get("name", ""),
            "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments or {}),
        },
    }


def _finish_reason(line: Mapping[str, Any]) -> str:
    """Give OpenAI's word: to have loaded or unloaded a model is to have nothing more to say."""
    return "length" if line.get("done_reason") == "length" else "stop"


def _usage(line: Mapping[str, Any]) -> dict[str, int]:
    prompt, answer = _count(line, "prompt_eval_count"), _count(line, "eval_count")
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def _count(line: Mapping[str, Any], name: str) -> int:
    count = line.get(name)
    return count if isinstance(count, int) else 0


def _logprobs(line: Mapping[str, Any]) -> dict[str, Any] | None:
    return {"content": line["logprobs"]} if line.get("logprobs") else None


def _cut(line: Mapping[str, Any], least_prompt_tokens: int) -> str | None:
    """Find that the prompt was cut: Ollama counted far fewer tokens than it must have."""
    counted = _count(line, "prompt_eval_count")
    if not counted or counted >= least_prompt_tokens * CUT_SHARE:
        return None
    return (
        f"Ollama read {counted} tokens of a prompt that has at least {least_prompt_tokens}: it left out what "
        "did not fit into the context. Use a larger context, or a shorter prompt."
    )


def _warning(*sentences: str | None) -> dict[str, str]:
    said = " ".join(sentence for sentence in sentences if sentence)
    return {reasoning.WARNING: said} if said else {}


def _created(line: Mapping[str, Any]) -> int:
    try:
        return int(datetime.fromisoformat(str(line.get("created_at"))).timestamp())
    except (ValueError, OverflowError):
        return 0


def _event(content: Mapping[str, Any]) -> bytes:
    return b"data: %b\n\n" % _dump(content)


def _dump(content: Mapping[str, Any]) -> bytes:
    # An escaped half of a surrogate pair is legal JSON, but no UTF-8.
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _json(text: bytes | str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
