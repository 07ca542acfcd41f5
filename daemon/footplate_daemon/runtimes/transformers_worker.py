"""One Hugging Face model behind OpenAI's HTTP: `python transformers_worker.py --model PATH_OR_REPO …`.

Runs in the operator's transformers environment and imports nothing of Footplate: torch and transformers are
all it needs, Pillow for pictures, bitsandbytes and accelerate to quantize. Listens on loopback only, from
before the load on; the API key comes in `FOOTPLATE_ENGINE_KEY`. Answers are generated one at a time, on one
thread; a client that leaves ends its generation. SIGTERM and SIGINT end everything at once.
"""
# ruff: noqa: PLC0415 - torch and transformers take seconds to import, and the port is to open before that

import argparse
import base64
import binascii
import copy
import hmac
import importlib.util
import inspect
import io
import json
import os
import queue
import re
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any

WATCH_SECONDS = 0.03
"""How often a client that waits is looked after: it may have left."""
WAITING_LIMIT = 64
"""Requests that wait for the one that is answered; more are turned away."""
BODY_LIMIT = 64 * 1024 * 1024
PICTURE_LIMIT = 32 * 1024 * 1024
"""Bytes of one picture."""
PICTURE_SECONDS = 20
IDLE_SECONDS = 120
"""A connection on which nothing moves for so long is closed."""
GOODBYE_SECONDS = 0.5
"""What running answers are given to tell their clients that we stop."""
SMALL_MODEL_BYTES = 256 * 1024**2
"""Below this one thread is faster: the threads' meetings cost more than the work."""
STOP_LIMIT = 16
COMPLETION_TOKENS = 16
"""OpenAI's default for /v1/completions, where a chat's is all that is left of the context."""
READ_AT_ONCE = 32
"""Texts that are embedded or ranked in one pass: the padding of more costs more than it saves."""

ENDED_BY_US = 255
"""What the pipe of signals says when it is not a signal: something broke."""


def main() -> int:
    """Serve until told to stop; give the exit code."""
    _forget_our_own_folder()
    options = _parse(sys.argv[1:])
    asked_to_stop, end = _pipe_of_signals()
    worker = Worker(options, key=os.environ.get("FOOTPLATE_ENGINE_KEY") or None, end=end)
    try:
        server = Server(("127.0.0.1", options.port), worker)
    except OSError as error:
        _say(f"cannot listen on 127.0.0.1:{options.port}: {error.strerror}")
        return 1
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    threading.Thread(target=worker.run, name="generate", daemon=True).start()
    told = os.read(asked_to_stop, 1)[0]
    if told != ENDED_BY_US:
        _say("stopping")
        worker.stop()
        _say("stopped")
    # Threads inside of torch cannot be ended otherwise, and nothing is left to be put in order.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if told == ENDED_BY_US else 0)


def _forget_our_own_folder() -> None:
    """Python looks for modules beside this file first, where ours are called `transformers` and `vllm`."""
    ours = Path(__file__).resolve().parent
    sys.path[:] = [place for place in sys.path if not place or Path(place).resolve() != ours]


def _pipe_of_signals() -> tuple[int, Callable[[], None]]:
    """Give a descriptor with a byte in it once it is time to end, and what puts one there for a failure."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return reader, lambda: void(os.write(writer, bytes([ENDED_BY_US])))


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("transformers_worker.py", allow_abbrev=False)
    parser.add_argument("--model", required=True, help="a folder, or a repository on Hugging Face")
    parser.add_argument("--served-name", required=True, help="the name under which the model is listed")
    parser.add_argument("--port", type=int, required=True, help="on 127.0.0.1")
    parser.add_argument("--task", choices=TASKS, default="chat", help="what the model is for")
    parser.add_argument("--context", type=int, help="prompt and answer, in tokens; default: the model's own")
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:1, cpu, mps…")
    parser.add_argument("--dtype", choices=DTYPES, default="auto")
    parser.add_argument("--quantization", choices=QUANTIZATIONS, default="none")
    parser.add_argument("--threads", type=int, help="of the CPU; default: 1 for small models")
    parser.add_argument("--attention", metavar="NAME", help="sdpa, eager, flash_attention_2…")
    parser.add_argument("--trust-remote-code", action=argparse.BooleanOptionalAction, default=False)
    return parser.parse_args(arguments)


TASKS = ("chat", "embedding", "rerank")
DTYPES = ("auto", "float32", "float16", "bfloat16")
QUANTIZATIONS = ("none", "4bit", "8bit")


def _say(message: str) -> None:
    print(f"worker: {message}", flush=True)  # noqa: T201 - its log is its stdout


def void(_: object) -> None:
    """Drop a value."""


# --- What a client is told when it cannot be served ------------------------------------------------------


class Refusal(Exception):
    """An answer that is an error, in OpenAI's shape."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.body = {"error": {"message": message, "type": kind, "code": code, "param": param, **more}}


class ClientLeft(Exception):
    """Nobody is there to read the answer."""


def _invalid(message: str, param: str | None) -> Refusal:
    return Refusal(400, message, "invalid_value", param=param)


def _too_long(tokens: int, context: int, param: str) -> Refusal:
    return Refusal(
        400,
        f"The prompt has {tokens} tokens, which exceeds the available context size of {context} tokens.",
        "exceed_context",
        param=param,
        n_prompt_tokens=tokens,
        n_ctx=context,
    )


def _refusal_of(error: BaseException) -> Refusal:
    """Say what a crash comes to; running out of memory has a code of its own."""
    message = f"{type(error).__name__}: {error}"
    if _is_out_of_memory(error):
        return Refusal(500, f"The memory is full: {message}", "out_of_memory")
    return Refusal(500, message, "generation_failed")


def _is_out_of_memory(error: BaseException) -> bool:
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


def _is_broken_device(error: BaseException) -> bool:
    """After an error inside of a kernel every later call fails too."""
    return "CUDA error" in str(error) or type(error).__name__ == "AcceleratorError"


STOPPING = Refusal(503, "The engine was stopped before the answer was complete.", "stopping")


# --- The text of an answer, token by token ---------------------------------------------------------------


class Detokenizer:
    """Text of tokens as they come, never half a character of it."""

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        self._known = 0
        """Tokens before this one serve only as context: some tokenizers drop a space at the start."""
        self._given = 0

    def feed(self, token: int) -> str:
        """Give the text that this token completes."""
        self._tokens.append(token)
        # A character has at most four bytes; what is broken after more tokens than that stays broken.
        return self._more(even_if_broken=len(self._tokens) - self._given > 6)

    def end(self) -> str:
        """Give what is left."""
        return self._more(even_if_broken=True)

    def _more(self, *, even_if_broken: bool) -> str:
        before = self._decode(self._tokens[self._known : self._given])
        after = self._decode(self._tokens[self._known :])
        if len(after) <= len(before) or (after.endswith("\ufffd") and not even_if_broken):
            return ""
        self._known, self._given = self._given, len(self._tokens)
        return after[len(before) :]


class StopScanner:
    """Ends a text before the first of some strings; holds back only what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """Give the text that surely comes before any stop."""
        if self.found:
            return ""
        self._held += text
        places = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        self.found = bool(places)
        cut = min(places) if places else len(self._held) - begun(self._held, self._stops)
        given, self._held = self._held[:cut], "" if self.found else self._held[cut:]
        return given

    def end(self) -> str:
        """Give what was held back and turned out to be no stop."""
        held, self._held = self._held, ""
        return held


def begun(text: str, marks: Iterable[str]) -> int:
    """Count the characters at the end of the text with which one of the marks begins."""
    return max(
        (
            length
            for mark in marks
            for length in range(1, min(len(mark), len(text) + 1))
            if text.endswith(mark[:length])
        ),
        default=0,
    )


@dataclass(frozen=True)
class Piece:
    """Part of a message: its kind is `reasoning`, `content` or `tool_call`."""

    kind: str
    value: Any


THINK, UNTHINK = "<think>", "</think>"
CALL, UNCALL = "<tool_call>", "</tool_call>"


class MessageReader:
    """Takes reasoning and tool calls out of what a model writes.

    Blank space around them belongs to the marks: it is in no piece.
    """

    def __init__(self, *, is_thinking: bool = False, with_tools: bool = False) -> None:
        """`is_thinking`: the prompt ended with the mark already."""
        self._state = self._thinking if is_thinking else self._beginning
        self._with_tools = with_tools
        self._text = ""
        self._has_reasoned = False

    @property
    def is_thinking(self) -> bool:
        """Whether what comes next may be reasoning."""
        return self._state == self._thinking

    def feed(self, text: str) -> list[Piece]:
        """Give the pieces that this text completes or goes on with."""
        self._text += text
        return self._read(is_last=False)

    def end(self) -> list[Piece]:
        """Give what was held back: an unfinished tool call is text, unless it can be read."""
        return self._read(is_last=True)

    def _read(self, *, is_last: bool) -> list[Piece]:
        pieces: list[Piece] = []
        state = None
        while state != self._state:
            state = self._state
            pieces += state(is_last)
        return [piece for piece in pieces if piece.value]

    def _beginning(self, is_last: bool) -> list[Piece]:
        text = self._text.lstrip()
        if text.startswith(THINK):
            self._text, self._state = text[len(THINK) :], self._thinking
        elif is_last or not THINK.startswith(text):
            self._state = self._speaking
        return []

    def _thinking(self, is_last: bool) -> list[Piece]:
        if not self._has_reasoned:
            self._text = self._text.lstrip()
        reasoning, mark, rest = self._text.partition(UNTHINK)
        if mark:
            self._text, self._state = rest, self._between
        elif is_last:
            self._text = ""
        else:
            reasoning, self._text = _hold(self._text, UNTHINK)
            self._has_reasoned |= bool(reasoning)
            return [Piece("reasoning", reasoning)]
        return [Piece("reasoning", reasoning.rstrip())]

    def _between(self, is_last: bool) -> list[Piece]:  # noqa: ARG002
        self._text = self._text.lstrip()
        if self._text:
            self._state = self._speaking
        return []

    def _speaking(self, is_last: bool) -> list[Piece]:
        if not self._with_tools or is_last:
            content, mark, rest = self._text.partition(CALL) if self._with_tools else (self._text, "", "")
            self._text = rest
        else:
            content, mark, rest = self._text.partition(CALL)
            if mark:
                self._text = rest
            else:
                content, self._text = _hold(self._text, CALL)
        if mark:
            self._state = self._calling
            content = content.rstrip()
        return [Piece("content", content)]

    def _calling(self, is_last: bool) -> list[Piece]:
        written, mark, rest = self._text.partition(UNCALL)
        if not mark and not is_last:
            return []
        self._text, self._state = rest, self._between
        call = _read_call(written)
        return [Piece("tool_call", call) if call else Piece("content", f"{CALL}{written}{mark}")]


def _hold(text: str, mark: str) -> tuple[str, str]:
    """Part the text before what may begin the mark, and before the blank space that would go with it."""
    given = text[: len(text) - begun(text, [mark])].rstrip()
    return given, text[len(given) :]


def _read_call(written: str) -> dict[str, str] | None:
    try:
        call = json.loads(written)
    except ValueError:
        return None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return None
    arguments = call.get("arguments", call.get("parameters", {}))
    return {
        "name": call["name"],
        "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False),
    }


# --- What a client may ask -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; None leaves it to the model's own generation_config."""

    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    repetition_penalty: float | None
    presence_penalty: float
    frequency_penalty: float
    seed: int | None


@dataclass(frozen=True)
class Wish:
    """A request, checked."""

    sampling: Sampling
    max_tokens: int | None
    stops: tuple[str, ...]
    goes_on: bool
    """Whether it does not end where the model would end it."""
    is_stream: bool
    with_usage: bool
    ignored: tuple[str, ...]


HEEDED = frozenset(
    {
        "frequency_penalty",
        "ignore_eos",
        "max_tokens",
        "min_p",
        "model",
        "n",
        "presence_penalty",
        "repetition_penalty",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "top_k",
        "top_p",
    }
)
HEEDED_IN_CHAT = HEEDED | {
    "chat_template_kwargs",
    "enable_thinking",
    "max_completion_tokens",
    "messages",
    "reasoning_effort",
    "tools",
}
HEEDED_IN_COMPLETIONS = HEEDED | {"prompt"}
HEEDED_IN_EMBEDDINGS = frozenset({"encoding_format", "input", "model"})
HEEDED_IN_RERANKING = frozenset({"documents", "model", "query", "return_documents", "top_n"})


def read_wish(body: Mapping[str, Any], heeded: frozenset[str]) -> Wish:
    """Check a request's parameters; raise `Refusal` that names the one that is wrong."""
    if _integer(body, "n", low=1) not in (None, 1):
        raise _invalid("One answer to a request is all there is: n must be 1.", "n")
    most = _integer(body, "max_tokens", low=1)
    if "max_completion_tokens" in heeded:
        most = _integer(body, "max_completion_tokens", low=1) or most
    options = _typed(body, "stream_options", dict, "an object") or {}
    return Wish(
        Sampling(
            temperature=_number(body, "temperature", low=0),
            top_p=_number(body, "top_p", low=0, high=1),
            top_k=_integer(body, "top_k", low=-1),
            min_p=_number(body, "min_p", low=0, high=1),
            repetition_penalty=_number(body, "repetition_penalty", low=0.01),
            presence_penalty=_number(body, "presence_penalty", low=-2, high=2) or 0.0,
            frequency_penalty=_number(body, "frequency_penalty", low=-2, high=2) or 0.0,
            seed=_integer(body, "seed", low=-(2**63), high=2**63 - 1),
        ),
        max_tokens=most,
        stops=_stops(body),
        goes_on=_typed(body, "ignore_eos", bool, "true or false") or False,
        is_stream=_typed(body, "stream", bool, "true or false") or False,
        with_usage=_typed(options, "include_usage", bool, "true or false") or False,
        ignored=tuple(
            name for name, value in body.items() if name not in heeded and not _means_nothing(name, value)
        ),
    )


def _means_nothing(name: str, value: Any) -> bool:
    """Whether leaving it out comes to the same."""
    match name:
        case "tool_choice":
            return value in ("auto", "none", None)
        case "response_format":
            return value in ({"type": "text"}, None)
        case "parallel_tool_calls":
            return True
        case _:
            return value in (None, False, [], {})


def _stops(body: Mapping[str, Any]) -> tuple[str, ...]:
    stops = body.get("stop")
    stops = [stops] if isinstance(stops, str) else stops or []
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise _invalid("stop must be a string or a list of strings.", "stop")
    if len(stops) > STOP_LIMIT:
        raise _invalid(f"There are {len(stops)} stop strings; at most {STOP_LIMIT} are taken.", "stop")
    return tuple(stop for stop in stops if stop)


def _number(
    body: Mapping[str, Any], name: str, low: float | None = None, high: float | None = None
) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124
        raise _invalid(f"{name} must be a number.", name)
    _check_bounds(name, value, low, high)
    return float(value)


def _integer(
    body: Mapping[str, Any], name: str, low: int | None = None, high: int | None = None
) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise _invalid(f"{name} must be a whole number.", name)
    _check_bounds(name, value, low, high)
    return value


def _check_bounds(name: str, value: float, low: float | None, high: float | None) -> None:
    if (low is not None and value < low) or (high is not None and value > high):
        bounds = f"between {low} and {high}" if high is not None else f"at least {low}"
        raise _invalid(f"{name} must be {bounds}, not {value}.", name)


def _typed(body: Mapping[str, Any], name: str, kind: type, words: str) -> Any:
    value = body.get(name)
    if value is not None and not isinstance(value, kind):
        raise _invalid(f"{name} must be {words}.", name)
    return value


# --- Messages and their pictures -------------------------------------------------------------------------


@dataclass
class Chat:
    """Messages as chat templates take them, and their pictures in order."""

    messages: list[dict[str, Any]]
    pictures: list[bytes] = field(default_factory=list)


def read_chat(messages: Any, *, with_pictures: bool, fetch: Callable[[str], bytes]) -> Chat:
    """Check the messages and bring them into the form of templates.

    A model with vision gets every content as a list of parts, each picture where it stood: parts
    (`image_url`, `image`), a message's bare `image` or `images`, a Markdown image or the address of one in
    a user's text. Others get text alone, and a picture is refused.
    """
    if not isinstance(messages, list) or not messages:
        raise _invalid("messages must be a list with at least one message.", "messages")
    chat = Chat([])
    for place, message in enumerate(messages):
        param = f"messages.{place}"
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _invalid("A message must be an object with a role.", param)
        parts = _parts(message, param)
        if with_pictures and message["role"] == "user":
            parts = [found for part in parts for found in _links_in(part)]
        for part in parts:
            if part["type"] == "image":
                if not with_pictures:
                    raise Refusal(
                        400,
                        "image input is not supported: this model reads text only.",
                        "unsupported_input",
                        param=param,
                    )
                chat.pictures.append(_picture_bytes(part.pop("address"), fetch, param))
        kept = {name: value for name, value in message.items() if name not in ("image", "images", "content")}
        content: Any = parts if with_pictures else "".join(part["text"] for part in parts)
        chat.messages.append({**kept, "content": content, **_calls(message, param)})
    return chat


def _parts(message: Mapping[str, Any], param: str) -> list[dict[str, Any]]:
    content = message.get("content")
    if content is None:
        content = []
    elif isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise _invalid("content must be a string or a list of parts.", f"{param}.content")
    images = message.get("images", message.get("image"))
    addresses = images if isinstance(images, list) else [] if images is None else [images]
    return [
        *(_picture(_address(image), param) for image in addresses),
        *(_part(part, f"{param}.content.{place}") for place, part in enumerate(content)),
    ]


def _part(part: Any, param: str) -> dict[str, Any]:
    match part:
        case str():
            return {"type": "text", "text": part}
        case {"type": "text" | "input_text", "text": str(text)}:
            return {"type": "text", "text": text}
        case {"type": "image_url" | "input_image" | "image"}:
            given = (part.get(name) for name in ("image_url", "image", "url", "base64"))
            return _picture(_address(next((value for value in given if value is not None), None)), param)
        case _:
            raise _invalid("A part of a message must be text or a picture.", param)


def _address(image: Any) -> Any:
    return image.get("url") if isinstance(image, dict) else image


def _picture(address: Any, param: str) -> dict[str, Any]:
    if not isinstance(address, str) or not address:
        raise _invalid("A picture is given by its address: a data URI, http(s), or bare base64.", param)
    return {"type": "image", "address": address}


LINK = re.compile(
    r"!\[[^\]]*\]\(\s*(?P<marked>(?:https?://|data:image/)[^\s)]+)\s*\)"
    r"|(?<![\w(\"'])(?P<bare>https?://[^\s)\]\"'<>]+?\.(?:png|jpe?g|gif|webp|bmp)(?:\?[^\s)\]\"'<>]*)?)(?![\w/])",
    re.IGNORECASE,
)


def _links_in(part: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give a text's pictures and what stands between them."""
    if part["type"] != "text":
        yield part
        return
    text, end = part["text"], 0
    for link in LINK.finditer(text):
        if text[end : link.start()].strip():
            yield {"type": "text", "text": text[end : link.start()]}
        yield {"type": "image", "address": link["marked"] or link["bare"]}
        end = link.end()
    if end == 0 or text[end:].strip():
        yield {"type": "text", "text": text[end:]}


def _calls(message: Mapping[str, Any], param: str) -> dict[str, Any]:
    """Give tool calls with their arguments as objects, as templates want them and OpenAI's clients do not."""
    calls = message.get("tool_calls")
    if not calls:
        return {}
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise _invalid("tool_calls must be a list of objects.", f"{param}.tool_calls")
    return {"tool_calls": [_with_object(call) for call in calls]}


def _with_object(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return dict(call)
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        return dict(call)
    return {**call, "function": {**function, "arguments": arguments}}


def _picture_bytes(address: str, fetch: Callable[[str], bytes], param: str) -> bytes:
    """Give a picture's bytes; never of a file on this machine."""
    try:
        if address.startswith("data:"):
            _, comma, data = address.partition(",")
            if not comma:
                raise _invalid("This data URI has no data.", param)
            return base64.b64decode(data, validate=False)
        if re.match(r"https?://", address, re.IGNORECASE):
            return fetch(address)
        picture = base64.b64decode(address, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _invalid(
            "A picture is given by a data URI, http(s) or bare base64; files are not read.", param
        ) from error
    except OSError as error:
        raise _invalid(f"The picture could not be fetched: {error}", param) from error
    if not picture.startswith((b"\x89PNG", b"\xff\xd8", b"GIF8", b"RIFF", b"BM")):
        raise _invalid("A picture is given by a data URI, http(s) or bare base64; files are not read.", param)
    return picture


class _OnlyHttp(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        if not newurl.lower().startswith(("http://", "https://")):
            raise urllib.error.URLError("it leads away from http(s)")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch_picture(address: str) -> bytes:
    """Fetch a picture; raise `OSError` if that fails or there is too much of it."""
    opener = urllib.request.build_opener(_OnlyHttp)
    request = urllib.request.Request(address, headers={"User-Agent": "footplate"})  # noqa: S310 - http(s) only
    with opener.open(request, timeout=PICTURE_SECONDS) as answer:
        picture: bytes = answer.read(PICTURE_LIMIT + 1)
    if len(picture) > PICTURE_LIMIT:
        raise OSError(f"it has more than {PICTURE_LIMIT // 1024**2} MiB")
    return picture


# --- One answer on its way -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prompt:
    """A prompt, ready for the model."""

    inputs: Any
    """Tensors by name, `input_ids` among them; for a `Reader` a list of texts, each its tokens by name."""
    tokens: int
    is_thinking: bool = False
    """Whether it ends with the mark that opens reasoning."""


@dataclass(frozen=True)
class Text:
    """Some more text, and how many tokens the answer has by now."""

    text: str
    tokens: int


@dataclass(frozen=True)
class Done:
    """The answer is complete: its finish_reason and its tokens."""

    reason: str
    tokens: int
    values: Sequence[Any] = ()
    """What a `Reader` gives of each text, in their order."""


@dataclass(frozen=True)
class Failed:
    """There will be no more of the answer."""

    refusal: Refusal


@dataclass
class Job:
    """One answer: made on the generating thread, read by the thread of its connection."""

    number: int
    prompt: Prompt
    wish: Wish
    max_tokens: int
    events: "queue.SimpleQueue[Text | Done | Failed]" = field(default_factory=queue.SimpleQueue)
    tokens: int = 0
    has_begun: bool = False
    left_at: float | None = None
    """When nobody wanted the answer any more."""
    tokens_when_left: int = 0

    def leave(self) -> None:
        """Want no more of it."""
        if self.left_at is None:
            self.tokens_when_left = self.tokens
            self.left_at = time.monotonic()


class Writer:
    """Turns the tokens of one answer into events, and says when it is to end.

    Is called by `generate` as a stopping criterion: after each token, whatever the version of transformers.
    """

    def __init__(self, job: Job, model: "Model", count: Callable[[], None]) -> None:
        self._job = job
        self._end_tokens = frozenset() if job.wish.goes_on else model.end_tokens
        self._count = count
        self._text = Detokenizer(model.decode)
        self._stop = StopScanner(job.wish.stops)
        self._last_token: int | None = None

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:  # noqa: ARG002
        import torch

        is_done = self._take(int(input_ids[0, -1]))
        return torch.full((input_ids.shape[0],), is_done, device=input_ids.device, dtype=torch.bool)

    def end(self) -> Done:
        """Send what was held back; give how it ended."""
        if not self._stop.found:
            self._send(self._stop.feed(self._text.end()) + self._stop.end())
        is_whole = self._stop.found or self._last_token in self._end_tokens
        return Done("stop" if is_whole else "length", self._job.tokens)

    def _take(self, token: int) -> bool:
        self._job.tokens += 1
        self._count()
        self._last_token = token
        if self._job.left_at is not None:
            return True
        if token not in self._end_tokens:
            self._send(self._stop.feed(self._text.feed(token)))
        return self._stop.found

    def _send(self, text: str) -> None:
        if text:
            self._job.events.put(Text(text, self._job.tokens))


# --- The model -------------------------------------------------------------------------------------------


class Model:
    """A model that writes, loaded, with its tokenizer."""

    task = "chat"

    def __init__(
        self, model: Any, tokenizer: Any, processor: Any, context: int, about: dict[str, Any]
    ) -> None:
        self._generator = find_generator(model)
        self._device = model.device
        self._dtype = model.dtype
        self._tokenizer = tokenizer
        self.has_vision = processor is not None and self._generator is model
        self._processor: Any = processor if self.has_vision else None
        if processor is not None and not tokenizer.chat_template:
            tokenizer.chat_template = processor.chat_template
        self._encoding = threading.Lock()
        # A tokenizer that encodes on another thread cannot always be borrowed meanwhile.
        self._decoder = copy.deepcopy(tokenizer)
        self.context = context
        self.about = about
        self.end_tokens = self._find_end_tokens()

    def decode(self, tokens: list[int]) -> str:
        """Give the text of tokens, without the special ones."""
        text: str = self._decoder.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def encode(self, text: str, *, with_special: bool) -> list[int]:
        """Give the tokens of a text."""
        with self._encoding:
            return list(self._tokenizer(text, add_special_tokens=with_special)["input_ids"])

    def chat_prompt(self, chat: Chat, tools: Any, template: Mapping[str, Any]) -> Prompt:
        """Write the messages as the model was taught to read them."""
        renderer = self._processor if self._processor is not None else self._tokenizer
        if not getattr(renderer, "chat_template", None):
            raise Refusal(
                400, "This model has no chat template; ask it by /v1/completions.", "no_chat_template"
            )
        try:
            text = renderer.apply_chat_template(
                chat.messages,
                **{**template, "tools": tools, "tokenize": False, "add_generation_prompt": True},
            )
        except Exception as error:  # What a template raises is the template's.
            raise _invalid(f"The model's chat template refuses this: {error}", "messages") from error
        return self._text_prompt(text, chat.pictures)

    def raw_prompt(self, prompt: str | list[int]) -> Prompt:
        """Take a text, or its tokens, as they are."""
        import torch

        tokens = self.encode(prompt, with_special=True) if isinstance(prompt, str) else prompt
        if not tokens:
            raise _invalid("The prompt is empty.", "prompt")
        if max(tokens) >= len(self._tokenizer) or min(tokens) < 0:
            raise _invalid("A token of the prompt is not in the model's vocabulary.", "prompt")
        ids = torch.tensor([tokens])
        return Prompt({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, len(tokens))

    def generate(self, job: Job, count: Callable[[], None]) -> Done:
        """Answer, sending events; give how it ended."""
        import torch

        writer = Writer(job, self, count)
        if job.wish.sampling.seed is None:
            torch.seed()
        else:
            torch.manual_seed(job.wish.sampling.seed)
        inputs = {name: self._on_device(value) for name, value in job.prompt.inputs.items()}
        with torch.inference_mode():
            self._generator.generate(
                **inputs,
                generation_config=self._generation_config(job),
                stopping_criteria=_criteria(writer),
                logits_processor=_penalties(job.wish.sampling, job.prompt.tokens),
            )
        return writer.end()

    def _text_prompt(self, text: str, pictures: Sequence[bytes]) -> Prompt:
        is_thinking = text.rstrip().endswith(THINK)
        if self._processor is None:
            # A template writes the first token itself.
            tokens = self.encode(text, with_special=False)
            return replace(self.raw_prompt(tokens), is_thinking=is_thinking)
        first = self._tokenizer.bos_token
        options: dict[str, Any] = {"add_special_tokens": not (first and text.startswith(first))}
        if pictures:
            options["images"] = [_open_picture(picture) for picture in pictures]
        with self._encoding:
            try:
                inputs = self._processor(text=[text], return_tensors="pt", **options)
            except ValueError as error:
                raise _invalid(f"The model's processor refuses this: {error}", "messages") from error
        return Prompt(dict(inputs), int(inputs["input_ids"].shape[1]), is_thinking)

    def _on_device(self, value: Any) -> Any:
        if not hasattr(value, "to"):
            return value
        return value.to(self._device, self._dtype) if value.is_floating_point() else value.to(self._device)

    def _generation_config(self, job: Job) -> Any:
        """Give the model's own, with what the request says over it and what would surprise taken out."""
        wished, own = job.wish.sampling, self._generator.generation_config
        config = copy.deepcopy(own)
        config.max_new_tokens = job.max_tokens
        config.num_beams = config.num_return_sequences = 1
        # No token has the number -1; None would be filled in from the model's own.
        config.eos_token_id = [-1] if job.wish.goes_on else sorted(self.end_tokens) or None
        config.pad_token_id = self._pad_token()
        config.repetition_penalty = wished.repetition_penalty or own.repetition_penalty or 1.0
        temperature = wished.temperature
        if temperature is None:
            temperature = (own.temperature if own.do_sample else None) or 1.0
        config.do_sample = temperature > 0
        # Set to what changes nothing, not to None: that would be filled in from the model's own again.
        config.temperature, config.top_p, config.top_k, config.min_p = 1.0, 1.0, 0, None
        if config.do_sample:
            config.temperature = max(temperature, 1e-3)
            config.top_p = _first(wished.top_p, own.top_p if own.do_sample else None, 1.0) or 1e-6
            config.top_k = max(0, _first(wished.top_k, own.top_k if own.do_sample else None, 0))
            config.min_p = wished.min_p
        return config

    def _find_end_tokens(self) -> frozenset[int]:
        ends = getattr(self._generator.generation_config, "eos_token_id", None)
        listed = ends if isinstance(ends, list) else [ends]
        return frozenset(end for end in (*listed, self._tokenizer.eos_token_id) if end is not None)

    def _pad_token(self) -> int:
        own = self._generator.generation_config.pad_token_id
        token: int = _first(own, self._tokenizer.pad_token_id, *sorted(self.end_tokens), 0)
        return token


def find_generator(model: Any) -> Any:
    """Give the part of a model that generates: itself, or the language model inside of it."""
    for part in (model, getattr(model, "language_model", None), getattr(model, "model", None)):
        if callable(getattr(part, "generate", None)):
            return part
        inner = getattr(part, "language_model", None)
        if callable(getattr(inner, "generate", None)):
            return inner
    raise TypeError(f"{type(model).__name__} cannot generate text")


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _criteria(writer: Writer) -> Any:
    from transformers import StoppingCriteriaList

    return StoppingCriteriaList([writer])


def _penalties(sampling: Sampling, prompt_tokens: int) -> Any:
    from transformers import LogitsProcessorList

    wanted = sampling.presence_penalty or sampling.frequency_penalty
    return LogitsProcessorList([Penalties(sampling, prompt_tokens)] if wanted else [])


class Penalties:
    """OpenAI's two penalties, for the answer's own tokens."""

    def __init__(self, sampling: Sampling, prompt_tokens: int) -> None:
        self._sampling = sampling
        self._prompt_tokens = prompt_tokens

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import torch

        said = input_ids[:, self._prompt_tokens :]
        counts = torch.zeros_like(scores).scatter_add_(1, said, torch.ones_like(said, dtype=scores.dtype))
        return (
            scores
            - self._sampling.presence_penalty * (counts > 0)
            - self._sampling.frequency_penalty * counts
        )


def _open_picture(picture: bytes) -> Any:
    from PIL import Image

    try:
        return Image.open(io.BytesIO(picture)).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _invalid("A picture is damaged, or in no format that Pillow reads.", "messages") from error


# --- A model that reads ----------------------------------------------------------------------------------


class Reader:
    """A model that gives numbers of texts: a vector of each, or how well a document answers a query."""

    has_vision = False

    def __init__(
        self, model: Any, tokenizer: Any, task: str, pooling: str, context: int, about: dict[str, Any]
    ) -> None:
        self.task = task
        self.context = context
        self.about = about
        self._model = model
        self._tokenizer = tokenizer
        self._pooling = pooling
        self._encoding = threading.Lock()
        # Some tokenizers say which text of a pair a token is of, to models that do not ask.
        self._untaken = {"token_type_ids"}.difference(inspect.signature(model.forward).parameters)
        tokenizer.padding_side = "right"
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
        if getattr(model.config, "pad_token_id", None) is None:
            model.config.pad_token_id = tokenizer.pad_token_id

    def encode(self, text: str, *, with_special: bool) -> list[int]:
        """Give the tokens of a text."""
        with self._encoding:
            return list(self._tokenizer(text, add_special_tokens=with_special)["input_ids"])

    def read_texts(self, texts: Sequence[str | list[int]]) -> Prompt:
        """Take texts, or their tokens, to embed; refuse what is empty, unknown or too long."""
        return self._prompt([self._text(text) for text in texts], "input")

    def read_pairs(self, query: str, documents: Sequence[str]) -> Prompt:
        """Take a query with each of the documents; refuse what is too long."""
        with self._encoding:
            pairs = [dict(self._tokenizer(query, document)) for document in documents]
        return self._prompt(pairs, "documents")

    def generate(self, job: Job, _: Callable[[], None]) -> Done:
        """Give the values of a request's texts."""
        import torch

        texts, values = job.prompt.inputs, []
        with torch.inference_mode():
            for first in range(0, len(texts), READ_AT_ONCE):
                if job.left_at is not None:
                    break
                values += self._values(texts[first : first + READ_AT_ONCE])
        return Done("stop", 0, values)

    def _text(self, text: str | list[int]) -> dict[str, Any]:
        if isinstance(text, str):
            with self._encoding:
                return dict(self._tokenizer(text))
        if text and (max(text) >= len(self._tokenizer) or min(text) < 0):
            raise _invalid("A token of the input is not in the model's vocabulary.", "input")
        return {"input_ids": text, "attention_mask": [1] * len(text)}

    def _prompt(self, texts: list[dict[str, Any]], param: str) -> Prompt:
        lengths = [len(text["input_ids"]) for text in texts]
        if not min(lengths):
            raise _invalid("A text is empty.", param)
        if max(lengths) > self.context:
            raise _too_long(max(lengths), self.context, param)
        kept = [{name: value for name, value in text.items() if name not in self._untaken} for text in texts]
        return Prompt(kept, sum(lengths))

    def _values(self, texts: list[dict[str, Any]]) -> list[Any]:
        with self._encoding:
            padded = self._tokenizer.pad(texts, return_tensors="pt")
        inputs = {name: value.to(self._model.device) for name, value in padded.items()}
        read = self._model(**inputs)
        if self.task == "rerank":
            return list(read.logits.float().sigmoid()[:, 0].tolist())
        return list(_pool(read.last_hidden_state.float(), inputs["attention_mask"], self._pooling).tolist())


def _pool(states: Any, mask: Any, pooling: str) -> Any:
    """Make one vector of length 1 of each text's states, which are padded on the right."""
    import torch

    if pooling == "mean":
        weights = mask.unsqueeze(-1).to(states.dtype)
        pooled = (states * weights).sum(1) / weights.sum(1)
    else:
        places = mask.sum(1) - 1 if pooling == "last" else torch.zeros_like(mask[:, 0])
        pooled = states[torch.arange(len(states), device=states.device), places]
    return torch.nn.functional.normalize(pooled, dim=-1)


# --- Loading ---------------------------------------------------------------------------------------------


class CannotLoad(Exception):
    """The model cannot be loaded, for a reason that is known."""


def load(options: argparse.Namespace, step: Callable[[str, float], None]) -> Model | Reader:
    """Load the model; raise `CannotLoad` where we know why not, and whatever transformers raises."""
    _check_folder(options.model)
    step("importing torch", 0.05)
    import torch

    device = _choose_device(options.device)
    step("importing transformers", 0.15)
    import transformers

    _show_progress(step)
    step("reading the model's configuration", 0.25)
    remote = {"trust_remote_code": options.trust_remote_code}
    config = transformers.AutoConfig.from_pretrained(options.model, **remote)
    context = _choose_context(config, options.context)
    loader, is_vision = _choose_loader(config) if options.task == "chat" else _reader_of(config, options.task)
    pooling = _choose_pooling(options.model) if options.task == "embedding" else ""
    dtype = _choose_dtype(config, options.dtype, device)
    settings = _load_settings(options, device, dtype)
    step("reading the tokenizer", 0.28)
    processor = _load_processor(options.model, remote) if is_vision else None
    tokenizer = (
        processor.tokenizer
        if processor is not None
        else transformers.AutoTokenizer.from_pretrained(options.model, **remote)
    )
    step("loading weights", WEIGHTS_FROM)
    model = loader.from_pretrained(options.model, **settings, **remote)
    if options.quantization == "none" and "device_map" not in settings:
        step(f"moving the model to {device}", WEIGHTS_UNTIL)
        model = model.to(device)
    model = model.eval()
    _choose_threads(options.threads, model, device)
    transformers.logging.set_verbosity_error()
    about = {
        "device": _describe(device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "quantization": _describe_quantization(model, options.quantization),
        "context": context,
        "class": type(model).__name__,
        "versions": {
            "python": ".".join(map(str, sys.version_info[:3])),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    if options.task == "chat":
        return Model(model, tokenizer, processor, context, about)
    # RoBERTa's table of positions is longer than what it can read; its tokenizer knows.
    about["context"] = context = min(context, tokenizer.model_max_length)
    return Reader(model, tokenizer, options.task, pooling, context, about)


WEIGHTS_FROM, WEIGHTS_UNTIL = 0.3, 0.95


def _check_folder(model: str) -> None:
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise CannotLoad(f"{model} has no config.json")
    elif model.startswith(("/", ".", "~")) or model.count("/") > 1:
        raise CannotLoad(f"there is no model at {model}")


def _choose_device(wanted: str) -> Any:
    import torch

    has_mps = hasattr(torch.backends, "mps") and torch.backends.mps.is_available()
    if wanted == "auto":
        found = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
        if found == "cpu":
            _say("there is no GPU that torch can use: running on the CPU")
        return torch.device("cuda:0" if found == "cuda" else found)
    device = torch.device("cuda:0" if wanted == "cuda" else wanted)
    if device.type == "cuda" and not torch.cuda.is_available():
        why = (
            "Torch not compiled with CUDA enabled" if not torch.version.cuda else "No CUDA GPUs are available"
        )
        raise CannotLoad(f"the device {wanted} cannot be used: {why}")
    return device


def _choose_context(config: Any, wanted: int | None) -> int:
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
    own = next((value for name in names if isinstance(value := getattr(text, name, None), int)), None)
    if wanted is not None and own is not None and wanted > own:
        raise CannotLoad(f"a context of {wanted} was asked for, and the model was made for {own}")
    return wanted or own or 4096


def _choose_loader(config: Any) -> tuple[Any, bool]:
    """Give the class that loads the model, and whether that takes pictures."""
    import transformers

    named = (getattr(config, "architectures", None) or [""])[0]
    remote = getattr(config, "auto_map", None) or {}
    with_pictures = getattr(transformers, "AutoModelForImageTextToText", None)
    for loader, is_vision in ((with_pictures, True), (transformers.AutoModelForCausalLM, False)):
        if loader is not None and named and named in _class_names(loader, config):
            return loader, is_vision
    for name, is_vision in (
        ("AutoModelForImageTextToText", True),
        ("AutoModelForVision2Seq", True),
        ("AutoModelForCausalLM", False),
        ("AutoModel", False),
    ):
        if name in remote and hasattr(transformers, name):
            return getattr(transformers, name), is_vision
    if with_pictures is not None and type(config) in with_pictures._model_mapping:  # noqa: SLF001
        return with_pictures, True
    return transformers.AutoModelForCausalLM, False


def _reader_of(config: Any, task: str) -> tuple[Any, bool]:
    """Give the class that loads a model that reads, and that it takes no pictures."""
    import transformers

    if task == "embedding":
        return transformers.AutoModel, False
    named = (getattr(config, "architectures", None) or [""])[0]
    # Another kind would be loaded with a head that nobody has trained.
    if not named.endswith("ForSequenceClassification") or config.num_labels != 1:
        raise CannotLoad(f"{named or 'the model'} does not rank: it has no head with one label")
    return transformers.AutoModelForSequenceClassification, False


POOLINGS = {"mean_tokens": "mean", "cls_token": "cls", "lasttoken": "last"}
"""How sentence-transformers says it → how the states of a text become its vector."""
MODULES = ("Transformer", "Pooling", "Normalize")


def _choose_pooling(model: str) -> str:
    """Give the pooling that the model's folder says, else mean; raise `CannotLoad` for what we cannot do."""
    modules = [each["type"].rpartition(".")[2] for each in _read_file(model, "modules.json") or ()]
    unknown = [kind for kind in modules if kind not in MODULES]
    if unknown:
        raise CannotLoad(f"its vectors need a module of the kind {unknown[0]}")
    said = _read_file(model, "1_Pooling/config.json") or {"pooling_mode_mean_tokens": True}
    chosen = [name.removeprefix("pooling_mode_") for name, value in said.items() if value is True]
    chosen = [name for name in chosen if name != "include_prompt"]
    if len(chosen) != 1 or chosen[0] not in POOLINGS:
        raise CannotLoad(f"its vectors need a pooling by {' and '.join(chosen) or 'an unknown rule'}")
    return POOLINGS[chosen[0]]


def _read_file(model: str, name: str) -> Any:
    """Give what a JSON file of the model says; None if it has none."""
    from transformers.utils import cached_file

    try:
        return json.loads(Path(cached_file(model, name)).read_text("utf-8"))
    except OSError:
        return None


def _class_names(loader: Any, config: Any) -> set[str]:
    mapping = loader._model_mapping  # noqa: SLF001 - nothing public tells before the load
    if type(config) not in mapping:
        return set()
    classes = mapping[type(config)]
    return {each.__name__ for each in (classes if isinstance(classes, tuple) else (classes,))}


def _choose_dtype(config: Any, wanted: str, device: Any) -> Any:
    """Give the type of the weights: their own where the device is good at it."""
    import torch

    if wanted != "auto":
        return getattr(torch, wanted)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    own = _dtype_of(config) or _dtype_of(text) or torch.float32
    if device.type == "cpu" and (own == torch.float16 or (own == torch.bfloat16 and not _cpu_has_bfloat16())):
        _say(f"this CPU is slow with {own}: using float32")
        return torch.float32
    if device.type == "cuda" and own == torch.bfloat16 and not torch.cuda.is_bf16_supported():
        _say("this GPU has no bfloat16: using float16")
        return torch.float16
    return own


def _dtype_of(config: Any) -> Any:
    import torch

    own = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)
    return getattr(torch, own, None) if isinstance(own, str) else own


def _cpu_has_bfloat16() -> bool:
    import torch

    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - as torch itself asks
    except (AttributeError, RuntimeError):
        return False


def _load_settings(options: argparse.Namespace, device: Any, dtype: Any) -> dict[str, Any]:
    import transformers

    version = tuple(int(part) for part in re.findall(r"\d+", transformers.__version__)[:2])
    settings: dict[str, Any] = {"dtype" if version >= (4, 56) else "torch_dtype": dtype}
    if options.attention:
        settings["attn_implementation"] = options.attention
    if options.quantization != "none":
        settings["quantization_config"] = _quantization(options.quantization, device)
        settings["device_map"] = {"": device}
    elif device.type == "cuda" and importlib.util.find_spec("accelerate"):
        # Loads straight onto the GPU; without it the machine's memory has to hold the model first.
        settings["device_map"] = {"": device}
    return settings


def _quantization(wanted: str, device: Any) -> Any:
    import torch

    missing = [name for name in ("bitsandbytes", "accelerate") if not importlib.util.find_spec(name)]
    if missing:
        raise CannotLoad(
            f"quantization {wanted} needs {' and '.join(missing)}: "
            f"{sys.executable} -m pip install {' '.join(missing)}"
        )
    from transformers import BitsAndBytesConfig

    if wanted == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    has_bfloat16 = (
        torch.cuda.is_bf16_supported()
        if device.type == "cuda"
        else device.type != "cpu" or _cpu_has_bfloat16()
    )
    # A GPU without bfloat16 still computes float16 fast; a CPU has only float32 then.
    instead = torch.float16 if device.type == "cuda" else torch.float32
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16 if has_bfloat16 else instead,
    )


def _load_processor(model: str, remote: Mapping[str, Any]) -> Any:
    import transformers

    try:
        processor = transformers.AutoProcessor.from_pretrained(model, **remote)
    except ImportError as error:
        library = "torchvision" if "torchvision" in str(error).lower() else "pillow"
        raise CannotLoad(
            f"pictures need {library}: {sys.executable} -m pip install {library}"
            " (of the build that goes with this torch)"
        ) from error
    if not importlib.util.find_spec("PIL"):
        raise CannotLoad(f"pictures need pillow: {sys.executable} -m pip install pillow")
    if not getattr(processor, "tokenizer", None):
        raise CannotLoad(f"{type(processor).__name__} has no tokenizer")
    if not processor.chat_template:
        processor.chat_template = processor.tokenizer.chat_template
    return processor


def _choose_threads(wanted: int | None, model: Any, device: Any) -> None:
    import torch

    size = sum(parameter.nbytes for parameter in model.parameters())
    if wanted:
        torch.set_num_threads(wanted)
    elif device.type == "cpu" and size < SMALL_MODEL_BYTES and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def _describe(device: Any) -> str:
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def _describe_quantization(model: Any, wanted: str) -> str:
    """Name it with what it computes in, or the one that the weights came with."""
    config: Any = getattr(model.config, "quantization_config", None)
    if config is None:
        return wanted
    if wanted == "4bit":
        return f"4bit (nf4, computes in {str(config.bnb_4bit_compute_dtype).removeprefix('torch.')})"
    own = config if isinstance(config, dict) else vars(config)
    return wanted if wanted != "none" else str(getattr(own["quant_method"], "value", own["quant_method"]))


def _show_progress(step: Callable[[str, float], None]) -> None:
    """Have transformers tell us of its progress bars instead of drawing them, where it can (from 5 on)."""
    from transformers.utils import logging

    if not hasattr(logging, "set_tqdm_hook"):
        return

    def follow(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ProgressBar:
        return ProgressBar(step, *args, **kwargs)

    logging.set_tqdm_hook(follow)


class ProgressBar:
    """Stands in for a progress bar: reports each tenth of it."""

    def __init__(self, step: Callable[[str, float], None], items: Any = None, **options: Any) -> None:
        self._step = step
        self._items = items
        self._total = options.get("total") or (len(items) if hasattr(items, "__len__") else 0)
        self._done = 0
        self._told = 0

    def update(self, count: int = 1) -> None:
        """Go on."""
        self._done += count
        tenths = 10 * self._done // self._total if self._total else 0
        if tenths > self._told:
            self._told = tenths
            share = WEIGHTS_FROM + (WEIGHTS_UNTIL - WEIGHTS_FROM) * min(tenths, 10) / 10
            self._step("loading weights", round(share, 3))

    def __iter__(self) -> Iterator[Any]:
        for item in self._items or ():
            yield item
            self.update()

    def __enter__(self) -> "ProgressBar":  # noqa: PYI034 - Self is newer than some of their Pythons
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held."""

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


# --- The worker: what is loaded, and who is being answered -----------------------------------------------


class Worker:
    """Loads the model, then answers one request after the other."""

    def __init__(self, options: argparse.Namespace, *, key: str | None, end: Callable[[], None]) -> None:
        self.served_name: str = options.served_name
        self.key = key
        self.task: str = options.task
        self.model: Model | Reader | None = None
        self.step, self.fraction = "starting", 0.0
        self.started_at = time.monotonic()
        self.created = int(time.time())
        self.counts = dict.fromkeys((*OUTCOMES, "prompt_tokens", "generated_tokens"), 0)
        self._options = options
        self._end = end
        self._waiting: queue.Queue[Job] = queue.Queue(WAITING_LIMIT)
        self._jobs: dict[int, Job] = {}
        """Every answer that a connection still follows."""
        self._changing = threading.Lock()
        self._stopping = False
        self._number = 0

    def run(self) -> None:
        """Load, and answer for ever; runs on the generating thread."""
        if not self._load():
            self._end()
            return
        while True:
            self._answer(self._waiting.get())

    def writer(self) -> Model:
        """Give the model that writes, or refuse: it loads, or is for something else."""
        model = self.loaded()
        if isinstance(model, Reader):
            raise _not_for(self.task, "chat")
        return model

    def reader(self, task: str) -> Reader:
        """Give the model that reads for this task, or refuse: it loads, or is for something else."""
        model = self.loaded()
        if not isinstance(model, Reader) or model.task != task:
            raise _not_for(self.task, task)
        return model

    def loaded(self) -> Model | Reader:
        """Give the model, or refuse while it loads."""
        if self.model is None:
            message = f"The model is loading: {self.step} ({self.fraction:.0%})."
            raise Refusal(503, message, "loading", headers={"Retry-After": "1"})
        return self.model

    def submit(self, prompt: Prompt, wish: Wish, max_tokens: int) -> Job:
        """Put a request in the queue; `forget` it when its connection is done with it."""
        with self._changing:
            if self._stopping:
                raise STOPPING
            self._number += 1
            job = Job(self._number, prompt, wish, max_tokens)
            try:
                self._waiting.put_nowait(job)
            except queue.Full:
                message = f"The engine is currently busy: {WAITING_LIMIT} requests wait already."
                raise Refusal(503, message, "busy", headers={"Retry-After": "1"}) from None
            self._jobs[job.number] = job
            return job

    def forget(self, job: Job) -> None:
        """Take it that nobody follows this answer any more."""
        job.leave()
        with self._changing:
            self._jobs.pop(job.number, None)

    def stop(self) -> None:
        """Tell everybody who waits that there will be no answer; give them a moment to say so."""
        with self._changing:
            self._stopping = True
            jobs = list(self._jobs.values())
        for job in jobs:
            job.leave()
            job.events.put(Failed(STOPPING))
        until = time.monotonic() + GOODBYE_SECONDS
        while self._jobs and time.monotonic() < until:
            time.sleep(0.005)

    def metrics(self) -> str:
        """Give the counters in Prometheus' form."""
        lines = [
            f'footplate_worker_requests_total{{outcome="{name}"}} {self.counts[name]}' for name in OUTCOMES
        ]
        lines += [f"footplate_worker_{name}_total {self.counts[name]}" for name in TOKENS]
        with self._changing:
            running = sum(job.has_begun for job in self._jobs.values())
            waiting = len(self._jobs) - running
        lines += [f"footplate_worker_requests_running {running}"]
        lines += [f"footplate_worker_requests_waiting {waiting}"]
        return "\n".join(lines) + "\n"

    def _load(self) -> bool:
        try:
            self.model = load(self._options, self._tell)
        except CannotLoad as error:
            _say(f"load failed: {error}")
        except BaseException as error:  # noqa: BLE001 - the log has to tell whatever it was
            traceback.print_exc()
            _say(f"load failed: {type(error).__name__}: {error}")
        if self.model is None:
            return False
        about = self.model.about
        _say(
            f"serving {self.served_name} after {time.monotonic() - self.started_at:.1f} s: "
            f"{about['class']} on {about['device']}, {about['dtype']}, quantization {about['quantization']}, "
            f"context {about['context']}"
        )
        self._tell("ready", 1.0)
        return True

    def _tell(self, step: str, fraction: float) -> None:
        self.step, self.fraction = step, fraction
        _say(f"{fraction:.0%} {step}")

    def _answer(self, job: Job) -> None:
        if job.left_at is not None:
            self._report(job, "cancelled", 0.0)
            return
        job.has_begun = True
        began = time.monotonic()
        self.counts["prompt_tokens"] += job.prompt.tokens
        try:
            done = self.loaded().generate(job, self._count_token)
        except Exception as error:  # noqa: BLE001 - the client is told, and the next request is answered
            self._fail(job, error, time.monotonic() - began)
            return
        outcome = done.reason if job.left_at is None else "cancelled"
        # First what it came to, then the client: who has the answer finds it counted.
        self._report(job, outcome, time.monotonic() - began)
        job.events.put(done)

    def _count_token(self) -> None:
        self.counts["generated_tokens"] += 1

    def _fail(self, job: Job, error: Exception, seconds: float) -> None:
        traceback.print_exc()
        refusal = error if isinstance(error, Refusal) else _refusal_of(error)
        if _is_out_of_memory(error):
            _empty_cache()
        self._report(job, "failed", seconds)
        job.events.put(Failed(refusal))
        if _is_broken_device(error) and not _is_out_of_memory(error):
            _say("the device is broken for this process: ending")
            time.sleep(GOODBYE_SECONDS)
            self._end()

    def _report(self, job: Job, outcome: str, seconds: float) -> None:
        self.counts[outcome] += 1
        numbers = f"{job.prompt.tokens}+{job.tokens} tokens in {seconds:.2f} s"
        if outcome == "cancelled" and job.left_at is not None:
            late = job.tokens - job.tokens_when_left
            gone = (time.monotonic() - job.left_at) * 1000
            numbers += f", {late} of them after its client had left, {gone:.0f} ms long"
        _say(f"request {job.number} {outcome}: {numbers}")


def _not_for(task: str, asked: str) -> Refusal:
    words = {"chat": "chat", "embedding": "embeddings", "rerank": "reranking"}
    message = f"This model does not support {words[asked]}: it was started for {words[task]}."
    return Refusal(400, message, "unsupported_task")


OUTCOMES = ("stop", "length", "cancelled", "failed")
TOKENS = ("prompt_tokens", "generated_tokens")


def _empty_cache() -> None:
    import gc

    import torch

    # What the traceback still holds is freed only now.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# --- HTTP ------------------------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """Listens; a thread for each connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], worker: Worker) -> None:
        self.worker = worker
        super().__init__(address, Connection)

    def server_bind(self) -> None:
        # HTTPServer's own asks the name server for our name.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Connection(BaseHTTPRequestHandler):
    """One client's connection: reads requests and writes answers."""

    protocol_version = "HTTP/1.1"
    server_version = "footplate-transformers"
    sys_version = ""
    disable_nagle_algorithm = True
    timeout = IDLE_SECONDS
    server: Server
    _has_begun = False
    """Whether a stream's head is sent."""

    def setup(self) -> None:
        super().setup()
        self._worker = self.server.worker
        self._headers: dict[str, str] = {}

    def do_GET(self) -> None:
        self._dispatch("GET")

    def do_POST(self) -> None:
        self._dispatch("POST")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing: requests that reach the model have a line of their own."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what is no HTTP in our shape too."""
        self.close_connection = True
        self._refuse(Refusal(code, explain or message or "This is no request.", "bad_request"))

    def _dispatch(self, method: str) -> None:
        self._headers = {}
        self._has_begun = False
        try:
            body = self._read_body()
            self._route(method)(self, body)
        except Refusal as refusal:
            self._refuse(refusal)
        except (ClientLeft, OSError):
            self.close_connection = True
        except Exception as error:  # noqa: BLE001 - the door: the log has all of it
            traceback.print_exc()
            self._refuse(_refusal_of(error))

    def _route(self, method: str) -> "Callable[[Connection, bytes], None]":
        path = self.path.partition("?")[0].rstrip("/") or "/"
        routes = ROUTES.get(path)
        if routes is None:
            raise Refusal(404, f"There is nothing at {path}.", "not_found")
        if method not in routes:
            raise Refusal(405, f"{path} takes {' or '.join(routes)}.", "wrong_method")
        if path not in OPEN:
            self._check_key()
        return routes[method]

    def _read_body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            self.close_connection = True
            raise Refusal(411, "A request must say its Content-Length.", "length_required")
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit():
            self.close_connection = True
            raise Refusal(400, "The Content-Length is no number.", "bad_request")
        if int(length) > BODY_LIMIT:
            self.close_connection = True
            raise Refusal(413, f"A request has at most {BODY_LIMIT // 1024**2} MiB.", "too_large")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise ClientLeft
        return body

    def _check_key(self) -> None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        key = self._worker.key
        if key is not None and not hmac.compare_digest(given.encode(), key.encode()):
            raise Refusal(401, "The API key is missing or wrong.", "invalid_api_key")

    # The routes

    def show_health(self, _: bytes) -> None:
        worker = self._worker
        if worker.model is None:
            loading = {"status": "loading", "step": worker.step, "fraction": worker.fraction}
            self._send(503, loading, {"Retry-After": "1"})
        else:
            self._send(200, {"status": "ok"})

    def show_self(self, _: bytes) -> None:
        model = self._worker.model
        about = model.about if model else {"step": self._worker.step, "fraction": self._worker.fraction}
        self._send(
            200,
            {
                "model": self._worker.served_name,
                "status": "ok" if model else "loading",
                "capabilities": [self._worker.task, *(["vision"] if model and model.has_vision else [])],
                **about,
            },
        )

    def list_models(self, _: bytes) -> None:
        context = self._worker.loaded().context
        model = {
            "id": self._worker.served_name,
            "object": "model",
            "created": self._worker.created,
            "owned_by": "transformers",
            "max_model_len": context,
        }
        self._send(200, {"object": "list", "data": [model]})

    def show_metrics(self, _: bytes) -> None:
        self._send_bytes(200, self._worker.metrics().encode(), "text/plain; version=0.0.4", {})

    def tokenize(self, body: bytes) -> None:
        model, asked = self._worker.loaded(), self._read_json(body)
        if "messages" in asked:
            tokens = self._chat_prompt(self._worker.writer(), asked).inputs["input_ids"][0].tolist()
        else:
            text = asked.get("prompt", asked.get("content"))
            if not isinstance(text, str):
                raise _invalid("prompt must be a string.", "prompt")
            with_special = asked.get("add_special_tokens", True) is not False
            tokens = model.encode(text, with_special=with_special)
        self._send(200, {"tokens": tokens, "count": len(tokens), "max_model_len": model.context})

    def chat(self, body: bytes) -> None:
        model, asked = self._worker.writer(), self._read_json(body)
        wish = read_wish(asked, HEEDED_IN_CHAT)
        prompt = self._chat_prompt(model, asked)
        reader = MessageReader(is_thinking=prompt.is_thinking, with_tools=bool(_tools(asked)))
        self._answer(ChatForm(self._worker, prompt, reader), prompt, wish)

    def complete(self, body: bytes) -> None:
        model, asked = self._worker.writer(), self._read_json(body)
        wish = read_wish(asked, HEEDED_IN_COMPLETIONS)
        prompt = model.raw_prompt(_raw_prompt(asked.get("prompt")))
        self._answer(TextForm(self._worker, prompt), prompt, wish, default_tokens=COMPLETION_TOKENS)

    def embed(self, body: bytes) -> None:
        reader, asked = self._worker.reader("embedding"), self._read_json(body)
        form = asked.get("encoding_format") or "float"
        if form not in ("float", "base64"):
            raise _invalid("encoding_format must be float or base64.", "encoding_format")
        if asked.get("dimensions") is not None:
            raise _invalid("The vectors come as long as they are: dimensions cannot be set.", "dimensions")
        prompt = reader.read_texts(_texts(asked.get("input")))
        vectors = self._read(prompt, read_wish(asked, HEEDED_IN_EMBEDDINGS))
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": _packed(vector) if form == "base64" else vector,
            }
            for index, vector in enumerate(vectors)
        ]
        self._send(200, {"object": "list", "data": data, **self._about_reading(prompt)})

    def rank(self, body: bytes) -> None:
        reader, asked = self._worker.reader("rerank"), self._read_json(body)
        query, documents = asked.get("query"), asked.get("documents")
        if not isinstance(query, str):
            raise _invalid("query must be a string.", "query")
        if not documents or not isinstance(documents, list) or not all(isinstance(d, str) for d in documents):
            raise _invalid("documents must be a list of strings, at least one.", "documents")
        most = _integer(asked, "top_n", low=1)
        is_told = _typed(asked, "return_documents", bool, "true or false") is not False
        prompt = reader.read_pairs(query, documents)
        scores = self._read(prompt, read_wish(asked, HEEDED_IN_RERANKING))
        best = sorted(range(len(documents)), key=lambda index: scores[index], reverse=True)[:most]
        results = [
            {
                "index": index,
                "relevance_score": scores[index],
                **({"document": {"text": documents[index]}} if is_told else {}),
            }
            for index in best
        ]
        self._send(200, {"results": results, **self._about_reading(prompt)})

    # What they share

    def _read(self, prompt: Prompt, wish: Wish) -> Sequence[Any]:
        self._tell_ignored(wish)
        job = self._worker.submit(prompt, wish, 0)
        try:
            return next(event for event in self._follow(job) if isinstance(event, Done)).values
        finally:
            self._worker.forget(job)

    def _about_reading(self, prompt: Prompt) -> dict[str, Any]:
        usage = {"prompt_tokens": prompt.tokens, "total_tokens": prompt.tokens}
        return {"model": self._worker.served_name, "usage": usage}

    def _tell_ignored(self, wish: Wish) -> None:
        if wish.ignored:
            self._headers["x-ignored"] = ", ".join(map(_in_header, wish.ignored))

    def _read_json(self, body: bytes) -> dict[str, Any]:
        try:
            asked = json.loads(body)
        except ValueError as error:
            raise Refusal(400, f"The body is no JSON: {error}", "invalid_json") from error
        if not isinstance(asked, dict):
            raise Refusal(400, "The body must be a JSON object.", "invalid_json")
        name = asked.get("model")
        if name is not None and not isinstance(name, str):
            raise _invalid("model must be a string.", "model")
        if name is not None and name != self._worker.served_name:
            message = f"The model `{name}` does not exist; this is `{self._worker.served_name}`."
            raise Refusal(404, message, "model_not_found", param="model")
        return asked

    def _chat_prompt(self, model: Model, asked: Mapping[str, Any]) -> Prompt:
        tools = _tools(asked)
        template = dict(_typed(asked, "chat_template_kwargs", dict, "an object") or {})
        for name in ("enable_thinking", "reasoning_effort"):
            if asked.get(name) is not None:
                template.setdefault(name, asked[name])
        chat = read_chat(asked.get("messages"), with_pictures=model.has_vision, fetch=fetch_picture)
        return model.chat_prompt(chat, tools, {k: v for k, v in template.items() if k not in RESERVED})

    def _answer(self, form: "Form", prompt: Prompt, wish: Wish, default_tokens: int | None = None) -> None:
        context = self._worker.loaded().context
        left = context - prompt.tokens
        if left < 1:
            param = "messages" if isinstance(form, ChatForm) else "prompt"
            raise _too_long(prompt.tokens, context, param)
        wanted = wish.max_tokens or default_tokens
        self._tell_ignored(wish)
        if wanted is not None and wanted > left:
            self._headers["x-clamped"] = f"max_tokens {wanted} -> {left}"
        job = self._worker.submit(prompt, wish, min(wanted or left, left))
        try:
            if wish.is_stream:
                self._stream(job, form)
            else:
                for event in self._follow(job):
                    form.feed(event)
                self._send(200, form.whole())
        finally:
            self._worker.forget(job)

    def _follow(self, job: Job) -> Iterator[Text | Done]:
        """Give an answer's events up to its end; raise `ClientLeft` as soon as nobody reads it."""
        while True:
            try:
                event = job.events.get(timeout=WATCH_SECONDS)
            except queue.Empty:
                event = None
            if self._has_left():
                raise ClientLeft
            if isinstance(event, Failed):
                raise event.refusal
            if event is not None:
                yield event
            if isinstance(event, Done):
                return

    def _stream(self, job: Job, form: "Form") -> None:
        for event in self._follow(job):
            for chunk in form.chunks(event, with_usage=job.wish.with_usage):
                self._send_event(json.dumps(chunk, ensure_ascii=False))
        self._send_event("[DONE]")
        self._end_stream()

    def _has_left(self) -> bool:
        poll = select.poll()
        poll.register(self.connection, select.POLLIN | select.POLLHUP | select.POLLERR)
        try:
            # What there is to read may be the next request; nothing to read is the end.
            return bool(poll.poll(0)) and not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    # Writing

    def _refuse(self, refusal: Refusal) -> None:
        """Send an error: as the answer, or as the last event of the stream that has begun."""
        try:
            if self._has_begun:
                self._send_event(json.dumps(refusal.body, ensure_ascii=False))
                self._end_stream()
            else:
                self._send(refusal.status, refusal.body, refusal.headers)
        except OSError:
            self.close_connection = True

    def _send(self, status: int, answer: Any, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(answer, ensure_ascii=False).encode()
        self._send_bytes(status, body, "application/json", headers or {})

    def _send_bytes(self, status: int, body: bytes, kind: str, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**self._headers, **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _send_event(self, data: str) -> None:
        if not self._has_begun:
            self._begin_stream()
        event = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event) if self._is_chunked else event)

    def _begin_stream(self) -> None:
        self._has_begun = True
        self._is_chunked = self.request_version != "HTTP/1.0"
        self.close_connection |= not self._is_chunked
        self.send_response(200)
        for name, value in self._headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Cache-Control", "no-cache")
        if self._is_chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Connection", "close")
        self.end_headers()

    def _end_stream(self) -> None:
        if self._is_chunked:
            self.wfile.write(b"0\r\n\r\n")


ROUTES: dict[str, dict[str, Callable[[Connection, bytes], None]]] = {
    "/": {"GET": Connection.show_self},
    "/health": {"GET": Connection.show_health},
    "/metrics": {"GET": Connection.show_metrics},
    "/tokenize": {"POST": Connection.tokenize},
    "/v1/models": {"GET": Connection.list_models},
    "/v1/chat/completions": {"POST": Connection.chat},
    "/v1/completions": {"POST": Connection.complete},
    "/v1/embeddings": {"POST": Connection.embed},
    "/v1/rerank": {"POST": Connection.rank},
    "/rerank": {"POST": Connection.rank},
}
OPEN = ("/", "/health")
"""Routes that need no key."""
RESERVED = frozenset(
    {
        "conversation",
        "tools",
        "tokenize",
        "add_generation_prompt",
        "chat_template",
        "return_tensors",
        "return_dict",
    }
)
"""What a client cannot set by `chat_template_kwargs`."""


def _in_header(name: str) -> str:
    return re.sub(r"[^\w.-]", "?", name, flags=re.ASCII)[:64]


def _tools(asked: Mapping[str, Any]) -> list[Any] | None:
    tools = _typed(asked, "tools", list, "a list") or None
    if tools and not all(isinstance(tool, dict) and isinstance(tool.get("function"), dict) for tool in tools):
        raise _invalid("A tool must be an object with a function.", "tools")
    return None if asked.get("tool_choice") == "none" else tools


def _raw_prompt(prompt: Any) -> str | list[int]:
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        return prompt
    raise _invalid("prompt must be a string or a list of tokens; one prompt to a request.", "prompt")


def _texts(given: Any) -> list[str | list[int]]:
    """Read what is to be embedded: a text or its tokens, or a list of them."""
    texts = given if isinstance(given, list) and not _are_tokens(given) else [given]
    if texts and all(isinstance(text, str) or _are_tokens(text) for text in texts):
        return texts
    raise _invalid("input must be a string or a list of tokens, or a list of them.", "input")


def _are_tokens(given: Any) -> bool:
    return isinstance(given, list) and bool(given) and all(type(token) is int for token in given)


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


# --- OpenAI's shapes -------------------------------------------------------------------------------------


class Form:
    """Puts an answer's events into one of OpenAI's shapes, whole or in chunks."""

    prefix = ""
    kind = ""
    chunk_kind = ""

    def __init__(self, worker: Worker, prompt: Prompt) -> None:
        self._prompt = prompt
        self._usage: dict[str, Any] = {}
        self._common = {
            "id": f"{self.prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": worker.served_name,
        }

    def feed(self, event: Text | Done) -> None:
        """Take an event of a whole answer."""
        raise NotImplementedError

    def whole(self) -> dict[str, Any]:
        """Give the whole answer."""
        raise NotImplementedError

    def chunks(self, event: Text | Done, *, with_usage: bool) -> Iterator[dict[str, Any]]:
        """Give an event's chunks."""
        raise NotImplementedError

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {**self._common, "object": self.chunk_kind, "choices": choices, **more}

    def _count(self, done: Done) -> dict[str, Any]:
        self._usage = {
            "prompt_tokens": self._prompt.tokens,
            "completion_tokens": done.tokens,
            "total_tokens": self._prompt.tokens + done.tokens,
        }
        return self._usage


class TextForm(Form):
    """The answer of /v1/completions: the model's text as it is."""

    prefix = "cmpl"
    kind = chunk_kind = "text_completion"

    def __init__(self, worker: Worker, prompt: Prompt) -> None:
        super().__init__(worker, prompt)
        self._text = ""
        self._reason = ""

    def feed(self, event: Text | Done) -> None:
        if isinstance(event, Text):
            self._text += event.text
        else:
            self._reason = event.reason
            self._count(event)

    def whole(self) -> dict[str, Any]:
        choice = {"index": 0, "text": self._text, "logprobs": None, "finish_reason": self._reason}
        return {**self._chunk([choice]), "usage": self._usage}

    def chunks(self, event: Text | Done, *, with_usage: bool) -> Iterator[dict[str, Any]]:
        text, reason = (event.text, None) if isinstance(event, Text) else ("", event.reason)
        yield self._chunk([{"index": 0, "text": text, "logprobs": None, "finish_reason": reason}])
        if with_usage and isinstance(event, Done):
            yield self._chunk([], usage=self._count(event))


class ChatForm(Form):
    """The answer of /v1/chat/completions: a message, its reasoning and its tool calls."""

    prefix = "chatcmpl"
    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"

    def __init__(self, worker: Worker, prompt: Prompt, reader: MessageReader) -> None:
        super().__init__(worker, prompt)
        self._reader = reader
        self._content = ""
        self._reasoning = ""
        self._calls: list[dict[str, Any]] = []
        self._reason = ""
        self._reasoning_tokens = 0
        self._has_begun = False

    def feed(self, event: Text | Done) -> None:
        for piece in self._pieces(event):
            self._take(piece)

    def whole(self) -> dict[str, Any]:
        content = self._content or (None if self._calls else "")
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if self._reasoning:
            message["reasoning_content"] = message["reasoning"] = self._reasoning
        if self._calls:
            message["tool_calls"] = self._calls
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._reason}
        return {**self._common, "object": self.kind, "choices": [choice], "usage": self._usage}

    def chunks(self, event: Text | Done, *, with_usage: bool) -> Iterator[dict[str, Any]]:
        if not self._has_begun:
            self._has_begun = True
            yield self._delta({"role": "assistant", "content": ""})
        for piece in self._pieces(event):
            yield self._delta(self._take(piece))
        if isinstance(event, Done):
            yield self._delta({}, self._reason)
            if with_usage:
                yield self._chunk([], usage=self._usage)

    def _pieces(self, event: Text | Done) -> list[Piece]:
        pieces = self._reader.feed(event.text) if isinstance(event, Text) else self._reader.end()
        if self._reader.is_thinking or any(piece.kind == "reasoning" for piece in pieces):
            self._reasoning_tokens = event.tokens
        if isinstance(event, Done):
            has_called = self._calls or any(piece.kind == "tool_call" for piece in pieces)
            self._reason = "tool_calls" if has_called and event.reason == "stop" else event.reason
            details = {"reasoning_tokens": self._reasoning_tokens}
            self._count(event)["completion_tokens_details"] = details
        return pieces

    def _take(self, piece: Piece) -> dict[str, Any]:
        """Add a piece to the message; give it as a delta."""
        match piece.kind:
            case "reasoning":
                self._reasoning += piece.value
                return {"reasoning_content": piece.value, "reasoning": piece.value}
            case "content":
                self._content += piece.value
                return {"content": piece.value}
            case _:
                call = {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": piece.value}
                self._calls.append(call)
                return {"tool_calls": [{"index": len(self._calls) - 1, **call}]}

    def _delta(self, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return self._chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}])


if __name__ == "__main__":
    sys.exit(main())
