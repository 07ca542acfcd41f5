"""An OpenAI batch over a Ray cluster: `python ray_worker.py`, with its order as JSON on standard input.

Runs in an environment with Ray and vLLM, and imports nothing of Footplate. Hands the lines to Ray Data's LLM
batch processor (`ray.data.llm`) and appends each answer to the output or the error file, synced to the disk,
as it comes. Lines that are in one of the two files already are not asked again: the same order goes on
where it was interrupted. Says how far it is on standard output, a JSON object a line.

    main ─ Ledger     the two files: what is done, each custom_id once
         └ Run        an actor on the cluster: there the processor's stages are driven from, so that a client
                      far away (`ray://`) only sends lines and fetches answers
              prepare → vLLM engines (ray.data.llm) → finish
"""
# ruff: noqa: PLC0415 - ray, transformers and vllm take seconds to import, and only some nodes need each

import contextlib
import fcntl
import hashlib
import json
import os
import queue
import re
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
ENDPOINTS = (CHAT, COMPLETIONS, EMBEDDINGS)
"""What the processor can answer; ranking, tools and pictures are an endpoint's business."""
ROWS_AT_ONCE = 2000
"""Rows that are sent to the cluster in one message."""
ANSWERS_AT_ONCE = 500
ANSWERS_KEPT = 5000
"""Answers that may wait to be fetched; the stages pause above that."""
WAIT_SECONDS = 2.0
ATTEMPTS = 3
MOST_CHOICES = 128
"""vLLM's own limit for `n`."""
LARGEST_SEED = 2**63 - 1
LARGEST_TOKEN = 2**31 - 1
COMPLETION_TOKENS = 16
"""OpenAI's default for /v1/completions, where a chat's is all that is left of the context."""
STAGE_CPUS = 0.25
"""What each of the small stages around the engines takes of a node."""


class Unusable(Exception):
    """The order cannot be carried out; the message says why and what to do."""


@dataclass(frozen=True)
class Model:
    """A model that lines ask for, as the cluster's nodes find it."""

    weights: str
    """A repository, or a path that every node sees."""
    engine: Mapping[str, Any] = field(default_factory=dict)
    """vLLM's engine arguments."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What fills a body where it says nothing itself."""
    system: str | None = None
    """The first message of chats that have none of that kind."""
    template: str | None = None
    """The chat template, in place of the model's own."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Of the engines."""


@dataclass(frozen=True)
class Order:
    """What is to be done."""

    address: str
    """`ray://host:10001`, `auto` for the cluster that this machine is in, `local` for one of its own."""
    endpoint: str
    input: Path
    output: Path
    errors: Path
    models: Mapping[str, Model]
    replicas: int = 1
    gpus: float = 1.0
    """Of one replica; 0 serves on the CPU."""
    cpus: float = 1.0
    batch_size: int = 64
    local_cpus: int | None = None
    """Of the cluster that `local` starts; None: all that there are."""
    folder: Path | None = None
    """Where that cluster has its files."""

    @classmethod
    def parse(cls, text: str) -> "Order":
        data: dict[str, Any] = json.loads(text)
        models = {name: Model(**model) for name, model in data["models"].items()}
        paths = {name: Path(data[name]) for name in ("input", "output", "errors")}
        folder = Path(data["folder"]) if data.get("folder") else None
        return cls(**{**data, **paths, "folder": folder, "models": models})


@dataclass(frozen=True)
class Line:
    """A line of the input file."""

    number: int
    id: str
    """Of its result: the same line gets the same one, in every run."""
    custom_id: str
    body: Mapping[str, Any]


def main() -> int:
    """Carry out an order; give the exit code: 0 when every line is in one of the files."""
    _end_on_signals()
    order = Order.parse(sys.stdin.read())
    try:
        with Ledger.open(order.output, order.errors) as ledger:
            left = _by_model(order, ledger)
            if left:
                with _connected(order):
                    for model, lines in left.items():
                        _run(order, model, lines, ledger)
    except Unusable as error:
        _tell("failed", message=str(error))
        return 2
    except KeyboardInterrupt:
        _tell("failed", message="It was interrupted; the same order goes on from here.")
        return 1
    _tell("done", completed=ledger.completed, failed=ledger.failed)
    return 0


def _end_on_signals() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, interrupt)


def _tell(event: str, **more: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **more}) + "\n")
    sys.stdout.flush()


# --- The files -------------------------------------------------------------------------------------------


class Ledger:
    """The output and the error file of a batch: every custom_id once, in one of the two."""

    def __init__(self, output: Path, errors: Path) -> None:
        self.completed = 0
        self.failed = 0
        self._paths = (output, errors)
        self._files: list[Any] = []
        self._done: dict[str, str] = {}
        """By custom_id, the id of its result."""

    @classmethod
    @contextlib.contextmanager
    def open(cls, output: Path, errors: Path) -> "Iterator[Ledger]":
        """Read what is there, cut off a line that was torn, and append from now on; one process at a time."""
        ledger = cls(output, errors)
        with contextlib.ExitStack() as stack:
            for path in ledger._paths:
                file = stack.enter_context(_opened(path))
                _cut_torn_line(file)
                ledger._remember(file, is_error=path == errors)
                ledger._files.append(file)
            yield ledger

    def has(self, line: Line) -> bool:
        """Whether a line is answered; raise `Unusable` if its custom_id was another line's."""
        known = self._done.get(line.custom_id)
        if known is not None and known != line.id:
            raise Unusable(
                f"{self._paths[0]} has an answer to another request with the custom_id {line.custom_id!r}: "
                "name a new file for the answers."
            )
        return known is not None

    def write(self, answers: Iterable[tuple[Line, int, Mapping[str, Any]]]) -> None:
        """Append answers (the line, its status, its body) and wait until the disk has them."""
        texts: tuple[list[bytes], list[bytes]] = ([], [])
        for line, status, body in answers:
            if self.has(line):
                continue
            self._done[line.custom_id] = line.id
            has_failed = status != 200
            texts[has_failed].append(_result(line, status, body))
            self.failed += has_failed
            self.completed += not has_failed
        for file, lines in zip(self._files, texts, strict=True):
            if lines:
                file.write(b"".join(lines))
                file.flush()
                os.fsync(file.fileno())

    def _remember(self, file: Any, *, is_error: bool) -> None:
        for raw in file:
            with contextlib.suppress(ValueError, LookupError, TypeError):
                result = json.loads(raw)
                if result["custom_id"] not in self._done:
                    self._done[result["custom_id"]] = result["id"]
                    self.failed += is_error
                    self.completed += not is_error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file to be read and appended to; raise `Unusable` while another process has it."""
    try:
        file = path.open("a+b")
    except OSError as error:
        raise Unusable(f"{path} cannot be written: {error.strerror}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Unusable(f"Another batch writes into {path}.") from error
        yield file


def _cut_torn_line(file: Any) -> None:
    """Drop what follows the last line end: it was being written when the power went."""
    size = end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - 65536)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end != size:
        file.truncate(end)
    file.seek(0)


def _result(line: Line, status: int, body: Mapping[str, Any]) -> bytes:
    result = {
        "id": line.id,
        "custom_id": line.custom_id,
        "response": {"status_code": status, "request_id": f"req_{uuid.uuid4().hex}", "body": body},
        "error": None,
    }
    return json.dumps(result, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _by_model(order: Order, ledger: Ledger) -> dict[str, list[Line]]:
    """Give the lines that are left, by model, so that each is loaded once."""
    lines: dict[str, list[Line]] = {name: [] for name in order.models}
    total = 0
    with order.input.open("rb") as file:
        for number, raw in enumerate(file, 1):
            text = raw.removeprefix(b"\xef\xbb\xbf").strip()
            if not text:
                continue
            total += 1
            data = json.loads(text)
            digest = hashlib.blake2b(text, digest_size=16).hexdigest()
            line = Line(number, f"batch_req_{digest}", data["custom_id"], data["body"])
            if not ledger.has(line):
                lines[data["body"]["model"]].append(line)
    _tell("begun", total=total, completed=ledger.completed, failed=ledger.failed)
    return {name: asked for name, asked in lines.items() if asked}


# --- The cluster -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _connected(order: Order) -> Iterator[None]:
    """Be connected to the cluster, or start one on this machine, for the block."""
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "WARNING"}
    if order.address == "local":
        # Small: what passes through are prompts and answers.
        options |= {"object_store_memory": 200 * 2**20, "include_dashboard": False}
        options |= {"num_cpus": order.local_cpus, "_temp_dir": str(order.folder) if order.folder else None}
    for left in reversed(range(ATTEMPTS)):
        try:
            ray.init(address=order.address, **options)
            break
        except Exception as error:  # Ray raises it bare
            ray.shutdown()
            # Ray gives a node, and the server for a client, half a minute: a busy machine may need more.
            is_late = order.address == "local" or "Initialization failure" in str(error)
            if not left or not is_late:
                message = f"The Ray cluster at {order.address} cannot be used: {_root_cause(error)}"
                raise Unusable(message) from error
    try:
        yield
    finally:
        ray.shutdown()


def _run(order: Order, name: str, lines: Sequence[Line], ledger: Ledger) -> None:
    """Have the lines of one model answered; return when each of them is in one of the files."""
    import ray

    _tell("loading", model=name, lines=len(lines))
    _check_room(order)
    by_number = {line.number: line for line in lines}
    gathered = Gathered(order.endpoint, name)
    plan = {
        "endpoint": order.endpoint,
        "model": order.models[name],
        "replicas": order.replicas,
        "gpus": order.gpus,
        "cpus": order.cpus,
        "batch_size": order.batch_size,
    }
    # It waits most of the time, and takes no CPU from the engines; `take` may wait while others are called.
    run = ray.remote(num_cpus=0, max_concurrency=4)(Run).remote(plan)
    gone = (ray.exceptions.RayError, ConnectionError)
    try:
        ledger.write(_send(run, lines, order.models[name], gathered))
        _tell("progress", completed=ledger.completed, failed=ledger.failed)
        ray.get(run.start.remote())
        has_ended = False
        while not has_ended:
            rows, has_ended, problem = ray.get(run.take.remote(ANSWERS_AT_ONCE, WAIT_SECONDS))
            answers = [(by_number[number], status, body) for number, status, body in gathered.take(rows)]
            ledger.write(answers)
            if answers:
                _tell("progress", completed=ledger.completed, failed=ledger.failed)
            if problem is not None:
                raise Unusable(f"{name} cannot be served on the cluster: {problem}")
    except gone as error:
        raise Unusable(f"The cluster gave up: {_first_line(error)}") from error
    finally:
        with contextlib.suppress(*gone):
            ray.kill(run)
    if gathered.left:
        raise Unusable(f"The cluster lost {gathered.left} lines of {name}.")


def _send(
    run: Any, lines: Iterable[Line], model: Model, gathered: "Gathered"
) -> list[tuple[Line, int, Mapping[str, Any]]]:
    """Send the rows of the lines to the cluster; give those that are refused here, with their answers."""
    import ray

    refused: list[tuple[Line, int, Mapping[str, Any]]] = []
    pending: list[dict[str, Any]] = []
    for line in lines:
        try:
            pending += gathered.split(line, model)
        except Refused as error:
            refused.append((line, 400, _error_body(str(error), error.param, 400)))
        if len(pending) >= ROWS_AT_ONCE:
            ray.get(run.add.remote(pending))
            pending = []
    if pending:
        ray.get(run.add.remote(pending))
    return refused


def _check_room(order: Order) -> None:
    """Say when no node can take a replica; on this machine alone nothing else will ever come."""
    import ray

    needed = {"CPU": order.cpus, "GPU": order.gpus}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(all(node.get(kind, 0) >= amount for kind, amount in needed.items()) for node in nodes):
        return
    asked = f"{order.cpus:g} CPU and {order.gpus:g} GPU"
    message = f"No node of the cluster has {asked} for one replica."
    if order.address == "local":
        raise Unusable(f"{message} Ask for less: --gpus 0 serves on the CPU.")
    _tell("waiting", message=f"{message} It waits for one to join.")


# --- Lines to rows, and answers back ---------------------------------------------------------------------


class Refused(Exception):
    """A request that the processor cannot answer to the letter."""

    def __init__(self, message: str, param: str | None) -> None:
        super().__init__(message)
        self.param = param


class Gathered:
    """Turns each line into rows, one for each choice or text, and their answers into one body."""

    def __init__(self, endpoint: str, model: str) -> None:
        self._endpoint = endpoint
        self._model = model
        self._parts: dict[int, list[dict[str, Any] | None]] = {}
        self._asked: dict[int, Mapping[str, Any]] = {}

    @property
    def left(self) -> int:
        """How many lines have no answer."""
        return len(self._parts)

    def split(self, line: Line, model: Model) -> list[dict[str, Any]]:
        """Give the rows of a line; raise `Refused` for what the processor cannot do."""
        known = KNOWN[self._endpoint]
        _only(line.body, known)
        body = {name: value for name, value in model.defaults.items() if name in known} | dict(line.body)
        try:
            if self._endpoint == CHAT:
                rows = _chat_rows(body, model.system)
            elif self._endpoint == COMPLETIONS:
                rows = _completion_rows(body)
            else:
                rows = _embedding_rows(body)
        except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError) as error:
            raise Refused(f"The request cannot be understood: {_first_line(error)}.", None) from error
        self._parts[line.number] = [None] * len(rows)
        self._asked[line.number] = {"encoding_format": body.get("encoding_format")}
        return [
            {"line": line.number, "part": part, "request": json.dumps(row)} for part, row in enumerate(rows)
        ]

    def take(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
        """Take rows that were answered; give the lines that are whole now: number, status and body."""
        for row in rows:
            number = row["line"]
            parts = self._parts.get(number)
            if parts is None:
                continue  # another part of it has failed
            answer = json.loads(row["answer"])
            if "error" in answer:
                del self._parts[number]
                yield number, answer["error"]["code"], {"error": answer["error"]}
                continue
            parts[row["part"]] = answer
            if all(part is not None for part in parts):
                del self._parts[number]
                yield number, 200, self._body(number, [part for part in parts if part is not None])

    def _body(self, number: int, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        if self._endpoint == EMBEDDINGS:
            return _embedding_body(self._model, parts, self._asked[number]["encoding_format"])
        return _text_body(self._endpoint, self._model, parts)


COMMON = {"model", "user", "metadata", "store", "service_tier", "stream", "safety_identifier", "priority"}
"""Fields that do not touch the answer."""
SAMPLING: Mapping[str, Callable[[Any], Any]] = {
    "temperature": float,
    "top_p": float,
    "presence_penalty": float,
    "frequency_penalty": float,
    "repetition_penalty": float,
    "min_p": float,
    "top_k": int,
    "seed": int,
    "min_tokens": int,
    "ignore_eos": bool,
    "skip_special_tokens": bool,
}
"""OpenAI's and vLLM's fields that are parameters of vLLM's sampling under the same name."""
OF_TEXT = {*COMMON, *SAMPLING, "stop", "stop_token_ids", "max_tokens", "n", "response_format"}
OF_CHAT = {*OF_TEXT, "messages", "max_completion_tokens", "chat_template_kwargs", "reasoning_effort"}
OF_COMPLETION = {*OF_TEXT, "prompt"}
OF_EMBEDDING = {*COMMON, "input", "encoding_format"}


KNOWN = {CHAT: OF_CHAT, COMPLETIONS: OF_COMPLETION, EMBEDDINGS: OF_EMBEDDING}


def _chat_rows(body: Mapping[str, Any], system: str | None) -> list[dict[str, Any]]:
    messages = [_message(message) for message in body["messages"]]
    if system and not any(message["role"] in {"system", "developer"} for message in messages):
        messages = [{"role": "system", "content": system}, *messages]
    limit = body.get("max_completion_tokens")
    if limit is None:
        limit = body.get("max_tokens")
    template = dict(body.get("chat_template_kwargs") or {})
    if body.get("reasoning_effort") is not None:
        template.setdefault("reasoning_effort", body["reasoning_effort"])
    return _choices(body, {"messages": messages, "template": template}, limit)


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Give a message whose content is one text, as templates want it."""
    content = message.get("content")
    if not isinstance(message.get("role"), str):
        raise Refused("Each message needs a role.", "messages")
    if isinstance(content, list):
        if any(part.get("type") not in {"text", "input_text"} for part in content):
            raise Refused("The batch processor on Ray reads text alone, no pictures or sound.", "messages")
        return {**message, "content": "\n".join(part["text"] for part in content)}
    return {**message, "content": content if content is not None else ""}


def _completion_rows(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    limit = body.get("max_tokens")
    rows = []
    for prompt in _prompts(body["prompt"], "prompt"):
        rows += _choices(body, prompt, COMPLETION_TOKENS if limit is None else limit)
    return rows


def _embedding_rows(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    return _prompts(body["input"], "input")


def _prompts(given: Any, name: str) -> list[dict[str, Any]]:
    """Read a text or its tokens, or a list of them."""
    many = given if isinstance(given, list) and not _are_tokens(given) else [given]
    if not many or not all(isinstance(one, str) or _are_tokens(one) for one in many):
        raise Refused(f"{name} must be a text or a list of tokens, or a list of them.", name)
    return [{"text": one} if isinstance(one, str) else {"tokens": one} for one in many]


def _only(body: Mapping[str, Any], known: set[str]) -> None:
    """Refuse what would be ignored: an answer that was asked for otherwise is worse than none."""
    for name, value in body.items():
        if name not in known and value is not None and value is not False:
            raise Refused(f"The batch processor on Ray does not know {name}: leave it out.", name)


def _are_tokens(given: Any) -> bool:
    if not isinstance(given, list) or not given:
        return False
    return all(type(token) is int and 0 <= token <= LARGEST_TOKEN for token in given)


def _choices(body: Mapping[str, Any], asked: Mapping[str, Any], limit: Any) -> list[dict[str, Any]]:
    """Give a row for each choice, with vLLM's sampling parameters."""
    sampling: dict[str, Any] = {}
    for name, convert in SAMPLING.items():
        if body.get(name) is not None:
            sampling[name] = _converted(name, body[name], convert)
    stop = body.get("stop") or []
    sampling["stop"] = [stop] if isinstance(stop, str) else list(stop)
    if not all(isinstance(text, str) for text in sampling["stop"]):
        raise Refused("stop must be a text or a list of them.", "stop")
    sampling["stop_token_ids"] = list(body.get("stop_token_ids") or [])
    if sampling["stop_token_ids"] and not _are_tokens(sampling["stop_token_ids"]):
        raise Refused("stop_token_ids must be a list of tokens.", "stop_token_ids")
    if limit is not None:
        sampling["max_tokens"] = _converted("max_tokens", limit, int)
    sampling["structured_outputs"] = _structure(body.get("response_format"))
    count = _converted("n", body.get("n") or 1, int)
    if not 1 <= count <= MOST_CHOICES:
        raise Refused(f"n must be between 1 and {MOST_CHOICES}.", "n")
    seed = sampling.get("seed")
    if seed is not None and not -LARGEST_SEED <= seed <= LARGEST_SEED - count:
        raise Refused("seed is too large.", "seed")
    # As vLLM does: each choice has a seed of its own, or all would be the same.
    return [
        {**asked, "sampling": sampling if seed is None else {**sampling, "seed": seed + number}}
        for number in range(count)
    ]


def _converted(name: str, value: Any, convert: Callable[[Any], Any]) -> Any:
    is_fit = isinstance(value, bool) if convert is bool else type(value) in {int, float}
    if not is_fit or (convert is int and (int(value) != value or abs(value) > LARGEST_SEED)):
        raise Refused(f"{name} has a value that is none: {json.dumps(value)[:80]}.", name)
    return convert(value)


def _structure(wanted: Any) -> dict[str, Any] | None:
    """Give vLLM's structured outputs for OpenAI's `response_format`."""
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if wanted is None or kind == "text":
        return None
    if kind == "json_object":
        return {"json": json.dumps({"type": "object"})}
    schema = wanted.get("json_schema") if isinstance(wanted, dict) else None
    if kind == "json_schema" and isinstance(schema, dict) and isinstance(schema.get("schema"), dict):
        return {"json": json.dumps(schema["schema"])}
    message = "response_format must be text, json_object, or json_schema with a schema."
    raise Refused(message, "response_format")


def _text_body(endpoint: str, model: str, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    is_chat = endpoint == CHAT
    choices = []
    for index, part in enumerate(parts):
        content = {"role": "assistant", "content": part["text"], "refusal": None}
        said = {"message": content} if is_chat else {"text": part["text"]}
        choices.append({"index": index, **said, "logprobs": None, "finish_reason": part["finish_reason"]})
    asked = parts[0]["prompt_tokens"] if is_chat else sum(part["prompt_tokens"] for part in parts)
    answered = sum(part["completion_tokens"] for part in parts)
    usage = {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}
    return {
        "id": f"{'chatcmpl' if is_chat else 'cmpl'}-{uuid.uuid4().hex}",
        "object": "chat.completion" if is_chat else "text_completion",
        "created": int(time.time()),
        "model": model,
        "choices": choices,
        "usage": usage,
    }


def _embedding_body(model: str, parts: Sequence[Mapping[str, Any]], form: str | None) -> dict[str, Any]:
    import base64
    import struct

    data = []
    for index, part in enumerate(parts):
        vector = part["embedding"]
        packed = struct.pack(f"<{len(vector)}f", *vector)
        given = base64.b64encode(packed).decode() if form == "base64" else vector
        data.append({"object": "embedding", "index": index, "embedding": given})
    tokens = sum(part["prompt_tokens"] for part in parts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def _error_body(message: str, param: str | None, code: int) -> dict[str, Any]:
    kind = "BadRequestError" if code == 400 else "InternalServerError"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


# --- On the cluster --------------------------------------------------------------------------------------


class Run:
    """An actor that drives the stages for one model: takes rows, gives answers."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self._plan = plan
        self._rows: list[dict[str, Any]] = []
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue(ANSWERS_KEPT)
        self._has_ended = threading.Event()
        self._problem: str | None = None

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Take more rows, before the start."""
        self._rows += rows

    def start(self) -> None:
        """Begin; the answers come by `take`."""
        threading.Thread(target=self._work, name="stages", daemon=True).start()

    def take(self, most: int, wait_seconds: float) -> tuple[list[dict[str, Any]], bool, str | None]:
        """Give answers as soon as there are some; whether that was all; what went wrong for good."""
        has_ended = self._has_ended.is_set()
        taken: list[dict[str, Any]] = []
        with contextlib.suppress(queue.Empty):
            taken.append(self._answers.get(timeout=0 if has_ended else wait_seconds))
            while len(taken) < most:
                taken.append(self._answers.get_nowait())
        is_all = has_ended and self._answers.empty()
        return taken, is_all, self._problem if is_all else None

    def _work(self) -> None:
        try:
            if self._rows:
                for answer in _answers(self._plan, self._rows):
                    self._answers.put(answer)
        except Exception as error:  # noqa: BLE001 - the other side says it
            self._problem = _root_cause(error)
        finally:
            self._has_ended.set()


def _answers(plan: Mapping[str, Any], rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Send rows through the stages."""
    import ray
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    model: Model = plan["model"]
    is_embedding = plan["endpoint"] == EMBEDDINGS
    environment = {"env_vars": {"VLLM_NO_USAGE_STATS": "1", **model.environment}}
    resources = {"CPU": plan["cpus"], **({"GPU": plan["gpus"]} if plan["gpus"] else {})}
    size = plan["batch_size"]
    config = vLLMEngineProcessorConfig(
        model_source=model.weights,
        engine_kwargs=dict(model.engine),
        task_type="embed" if is_embedding else "generate",
        batch_size=size,
        concurrency=(1, plan["replicas"]),
        # Without a bundle it asks for a GPU, also where vLLM runs on the CPU.
        placement_group_config={"bundle_per_worker": resources},
        should_continue_on_error=True,
        log_engine_metrics=False,
        runtime_env=environment,
        # `Prepare` does both: one conversation that the template refuses would end the whole batch.
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
    )
    small = {"num_cpus": STAGE_CPUS}
    processor = build_processor(
        config,
        preprocess=_to_engine,
        postprocess=_finish_embedding if is_embedding else _finish_text,
        preprocess_map_kwargs=small,
        postprocess_map_kwargs=small,
    )
    dataset = ray.data.from_items(rows, override_num_blocks=max(1, -(-len(rows) // size)))
    prepared = dataset.map_batches(
        Prepare,
        fn_constructor_args=(model,),
        batch_size=size,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=plan["replicas"]),
        num_cpus=STAGE_CPUS,
        runtime_env=environment,
    )
    for row in processor(prepared).iter_rows():
        yield _answer_of(row)


class Prepare:
    """The stage before the engines: conversations become tokens, a request gets the model's own defaults."""

    def __init__(self, model: Model) -> None:
        from transformers import AutoTokenizer

        source = model.engine.get("tokenizer") or model.weights
        trust = bool(model.engine.get("trust_remote_code"))
        self._tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust)
        self._template = model.template
        self._defaults, self._ends = _generation_config(model.weights, trust=trust)
        if self._tokenizer.eos_token_id is not None:
            self._ends.add(self._tokenizer.eos_token_id)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        told = [self._prepared(json.loads(request)) for request in batch["request"]]
        return {
            "line": [int(line) for line in batch["line"]],
            "part": [int(part) for part in batch["part"]],
            "prepared": [json.dumps(each) for each in told],
        }

    def _prepared(self, request: Mapping[str, Any]) -> dict[str, Any]:
        try:
            tokens = self._tokens(request)
        except Exception as error:  # noqa: BLE001 - a template raises whatever it likes
            return {"problem": f"ValueError: {_first_line(error)}"}
        if not tokens:
            return {"problem": "ValueError: The prompt is empty."}
        asked = request.get("sampling")
        if asked is None:
            return {"tokens": tokens}
        sampling = {**EMPTY_SAMPLING, **self._defaults, **asked}
        return {"tokens": tokens, "sampling": sampling, "ends": sorted(self._ends)}

    def _tokens(self, request: Mapping[str, Any]) -> list[int]:
        if "tokens" in request:
            return list(request["tokens"])
        if "text" in request:
            return list(self._tokenizer(request["text"])["input_ids"])
        text = self._tokenizer.apply_chat_template(
            request["messages"],
            chat_template=self._template,
            tokenize=False,
            add_generation_prompt=True,
            **request["template"],
        )
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def _generation_config(weights: str, *, trust: bool) -> tuple[dict[str, Any], set[int]]:
    """Give what the model's makers say to use, as `vllm serve` does, and the tokens that end an answer."""
    from transformers import GenerationConfig

    try:
        config = GenerationConfig.from_pretrained(weights, trust_remote_code=trust)
    except OSError:
        return {}, set()
    told = config.to_diff_dict()
    defaults = {name: SAMPLING[name](told[name]) for name in OF_MAKERS if told.get(name) is not None}
    if told.get("max_new_tokens") is not None:
        defaults["max_tokens"] = int(told["max_new_tokens"])
    ends = told.get("eos_token_id")
    return defaults, set(ends if isinstance(ends, list) else [] if ends is None else [ends])


OF_MAKERS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
WITHOUT_LIMIT = 2**30
"""Tokens: more than any context, which ends an answer earlier."""
EMPTY_SAMPLING: Mapping[str, Any] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
    "min_p": 0.0,
    "top_k": 0,
    "seed": -1,
    "min_tokens": 0,
    "ignore_eos": False,
    "skip_special_tokens": True,
    "stop": [],
    "stop_token_ids": [],
    "max_tokens": WITHOUT_LIMIT,
    "structured_outputs": None,
}
"""vLLM's own defaults. Every row says every one: between stages rows become a table, in which a column of
numbers with a gap becomes one of floats, with NaN in the gap. (-1 is vLLM's word for no seed.)"""


def _to_engine(row: Mapping[str, Any]) -> dict[str, Any]:
    """Give what the engine's stage wants of a row."""
    prepared = json.loads(row["prepared"])
    given: dict[str, Any] = {
        "tokenized_prompt": prepared.get("tokens") or [0],
        "__inference_error__": prepared.get("problem", ""),
    }
    if "sampling" in prepared or "problem" in prepared:
        given["sampling_params"] = prepared.get("sampling", EMPTY_SAMPLING)
    return given


def _finish_text(row: Mapping[str, Any]) -> dict[str, Any]:
    prepared = json.loads(row["prepared"])
    tokens = [int(token) for token in row["generated_tokens"]]
    answer = {
        "text": str(row["generated_text"]),
        "finish_reason": finish_reason(tokens, prepared["sampling"], prepared["ends"]),
        "prompt_tokens": int(row["num_input_tokens"]),
        "completion_tokens": len(tokens),
    }
    return {"line": row["line"], "part": row["part"], "answer": json.dumps(answer)}


def finish_reason(tokens: Sequence[int], sampling: Mapping[str, Any], ends: Sequence[int]) -> str:
    """Tell why an answer ended: the processor does not say."""
    last = tokens[-1] if tokens else None
    is_end = last in sampling["stop_token_ids"] or (last in ends and not sampling.get("ignore_eos"))
    is_stopped_by_text = bool(sampling["stop"]) and len(tokens) < sampling["max_tokens"]
    return "stop" if is_end or is_stopped_by_text else "length"


def _finish_embedding(row: Mapping[str, Any]) -> dict[str, Any]:
    answer = {
        "embedding": [float(number) for number in row["embeddings"]],
        "prompt_tokens": int(row["num_input_tokens"]),
    }
    return {"line": row["line"], "part": row["part"], "answer": json.dumps(answer)}


def _answer_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Give a row as it is sent home: those that failed have not passed `_finish_…`."""
    problem = row.get("__inference_error__") or ""
    answer = row.get("answer")
    if problem:
        kind, _, message = problem.partition(": ")
        code = 400 if kind in OF_THE_REQUEST else 500
        answer = json.dumps(_error_body(message or problem, None, code))
    return {"line": int(row["line"]), "part": int(row["part"]), "answer": answer}


OF_THE_REQUEST = {"ValueError", "TypeError", "VLLMValidationError", "VLLMClientError", "ValidationError"}
"""What vLLM raises for a request that is wrong; the rest is the engine's fault."""


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def _root_cause(error: BaseException) -> str:
    """Give the line of a long trace that says most: the first that an engine itself raised."""
    found = re.findall(r"^.*?\b((?:\w+\.)*\w*(?:Error|Exception): .+)$", str(error), re.MULTILINE)
    telling = [line for line in found if not re.match(r"(ray\.|RuntimeError: Engine core init)", line)]
    said: str = (telling or found or [f"{type(error).__name__}: {_first_line(error)}"])[0]
    return said[:500]


if __name__ == "__main__":
    sys.exit(main())
