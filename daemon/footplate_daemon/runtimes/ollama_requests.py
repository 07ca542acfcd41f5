"""A client's OpenAI request, as Ollama's native API takes it: parameters, messages, pictures and tools.

Every native request must also repeat how the model was loaded, which is its `Target`.
"""

import base64
import binascii
import json
import math
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from footplate_daemon.errors import Invalid
from footplate_daemon.runtimes.base import Call, Translated
from footplate_daemon.runtimes.ollama_answers import (
    ChatAnswer,
    EmbeddingsAnswer,
    Stream,
    StreamShape,
    TextAnswer,
    Whole,
)

SAME_PARAMETER = {
    **dict.fromkeys(("gpu_layers", "n_gpu_layers", "ngl"), "num_gpu"),
    **dict.fromkeys(("slots", "parallel", "n_parallel", "np"), "num_parallel"),
    **dict.fromkeys(("batch", "n_batch"), "num_batch"),
    "threads": "num_thread",
    "mmap": "use_mmap",
}
"""Other names of launch parameters → the one used here."""
LOAD_OPTIONS = frozenset({"num_gpu", "main_gpu", "num_batch", "num_thread", "use_mmap", "draft_num_predict"})
"""Launch parameters that belong to each request: another value than the last time's loads the model anew."""
OPTION_NAMES: Mapping[str, str] = {
    **{name: name for name in ("temperature", "top_k", "top_p", "min_p", "typical_p", "seed", "stop")},
    **{name: name for name in ("presence_penalty", "frequency_penalty", "repeat_last_n")},
    **dict.fromkeys(("num_predict", "n_predict", "max_completion_tokens", "max_tokens"), "num_predict"),
    **dict.fromkeys(("repeat_penalty", "repetition_penalty"), "repeat_penalty"),
    **dict.fromkeys(("num_keep", "n_keep"), "num_keep"),
}
"""A parameter → the option that it becomes; of two that become the same, the first one counts."""
EFFORTS = {"none": False, "off": False, "minimal": "low", "xhigh": "max", "ultra": "max"}
"""Words for how much to think → Ollama's; the others it knows itself."""
_WHOLE_NUMBERS = frozenset({"seed", "num_predict", "top_k", "repeat_last_n", "num_keep"})
_USUAL: Sequence[tuple[str, Any]] = (
    ("n", 1),
    ("best_of", 1),
    ("echo", False),
    ("logprobs", False),
    ("parallel_tool_calls", True),
    ("tool_choice", "auto"),
    ("logit_bias", {}),
)
"""What says no more than what happens anyway."""


@dataclass(frozen=True)
class Target:
    """A model as it was loaded: told otherwise, Ollama loads it anew."""

    model: str
    keep_alive: float | str
    options: Mapping[str, Any]
    """Those of the load, `num_ctx` among them where a context was asked for."""

    @property
    def context(self) -> int | None:
        """Tokens of one request; None where that was left to Ollama."""
        return self.options.get("num_ctx")

    def body(self, native: Mapping[str, Any], translated: Translated) -> dict[str, Any]:
        """Give the body of a request to this model."""
        return {
            "model": self.model,
            "keep_alive": self.keep_alive,
            # Else it silently leaves out what does not fit.
            "truncate": False,
            **native,
            **translated.body,
            "options": {**translated.body.get("options", {}), **self.options},
        }


def native_call(path: str, body: Mapping[str, Any], target: Target) -> Call:
    """Turn a client's request into a native one; raise `Invalid` for what has no place there."""
    said = _without_nulls(body)
    match path:
        case "/v1/chat/completions":
            return _chat_call(said, target)
        case "/v1/completions":
            return _text_call(said, target)
        case "/v1/embeddings":
            return _embeddings_call(said, target)
    raise Invalid(f"Ollama has nothing that answers POST {path}.")


def translate(body: Mapping[str, Any], context: int | None) -> Translated:
    """Give what becomes of the generation parameters; raise `Invalid` for a value of a wrong type."""
    said = _without_nulls(body)
    fields = {"prompt": _TEXT_FIELDS, "input": _EMBEDDING_FIELDS}
    return _parameters(said, context, next((fields[key] for key in fields if key in said), _CHAT_FIELDS))


def own_names(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Give launch parameters under the names that Ollama has for them; a null says nothing."""
    return {SAME_PARAMETER.get(name, name): value for name, value in parameters.items() if value is not None}


def load_options(parameters: Mapping[str, Any], context: int | None) -> dict[str, Any]:
    """Give the options of a load, which every request to the model must repeat."""
    options = {name: value for name, value in own_names(parameters).items() if name in LOAD_OPTIONS}
    return options if context is None else {**options, "num_ctx": context}


def _without_nulls(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}


def _chat_call(said: Mapping[str, Any], target: Target) -> Call:
    translated = _parameters(said, target.context, _CHAT_FIELDS)
    messages = _messages(said.get("messages") or [])
    answer = ChatAnswer(
        target.model,
        _least_tokens(message["content"] for message in messages),
        reasoning_is_off=translated.body.get("think") is False,
    )
    return _generating("/api/chat", {"messages": messages}, said, target, translated, answer)


def _text_call(said: Mapping[str, Any], target: Target) -> Call:
    translated = _parameters(said, target.context, _TEXT_FIELDS)
    prompt = said.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise Invalid(
            "Ollama completes one text for each request.", param="prompt", hint="Send `prompt` as a string."
        )
    # A completion goes on with the text as it is, on every runtime; with a suffix, the model's own template
    # joins the two.
    form = {"suffix": said["suffix"]} if "suffix" in said else {"raw": True}
    # Told to think, it would take the reasoning out of the text.
    native = {"prompt": prompt, "think": False, **form}
    answer = TextAnswer(target.model, _least_tokens([prompt]))
    return _generating("/api/generate", native, said, target, translated, answer)


def _generating(
    path: str,
    native: Mapping[str, Any],
    said: Mapping[str, Any],
    target: Target,
    translated: Translated,
    answer: StreamShape,
) -> Call:
    streams = said.get("stream") is True
    usage = said.get("stream_options")
    includes_usage = isinstance(usage, Mapping) and usage.get("include_usage") is True
    body = target.body({**native, "stream": streams}, translated)
    translation = Stream(answer, include_usage=includes_usage) if streams else Whole(answer)
    return Call(path, body, translated._replace(body=body), translation)


def _embeddings_call(said: Mapping[str, Any], target: Target) -> Call:
    translated = _parameters(said, target.context, _EMBEDDING_FIELDS)
    texts = said.get("input")
    are_texts = isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts)
    if not isinstance(texts, str) and not are_texts:
        raise Invalid(
            "Ollama embeds a text, or a list of texts.", param="input", hint="Tokens cannot be sent to it."
        )
    body = target.body({"input": texts}, translated)
    answer = EmbeddingsAnswer(target.model, as_base64=said.get("encoding_format") == "base64")
    return Call("/api/embed", body, translated._replace(body=body), Whole(answer))


@dataclass(frozen=True)
class _Fields:
    """The fields that one kind of request has beside its generation parameters."""

    structural: frozenset[str]
    """Understood elsewhere: what is asked, and in which form the answer comes."""
    own: frozenset[str] = frozenset()
    """Passed on under the same name."""
    generates: bool = True
    chats: bool = False


_STREAMING = frozenset({"model", "stream", "stream_options"})
_CHAT_FIELDS = _Fields(
    _STREAMING | {"messages"},
    frozenset({"logprobs", "top_logprobs", "truncate"}),
    chats=True,
)
_TEXT_FIELDS = _Fields(_STREAMING | {"prompt", "suffix"}, frozenset({"truncate"}))
_EMBEDDING_FIELDS = _Fields(
    frozenset({"model", "input", "encoding_format"}), frozenset({"dimensions", "truncate"}), generates=False
)


def _parameters(said: Mapping[str, Any], context: int | None, fields: _Fields) -> Translated:
    made = _Made(body={name: said[name] for name in sorted(fields.own & said.keys())})
    if fields.generates:
        made.add_options(said)
        made.limit_length(context)
        made.add_format(said)
    if fields.chats:
        made.add_thinking(said)
        made.add_tools(said)
    known = fields.structural | fields.own | made.seen
    ignored = (name for name, value in said.items() if name not in known and (name, value) not in _USUAL)
    body = {**made.body, **({"options": made.options} if made.options else {})}
    return Translated(body, made.renamed, made.clamped, (*made.ignored, *ignored))


@dataclass
class _Made:
    """What becomes of a request's parameters, while it is being found out."""

    body: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    clamped: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    """Parameters of which it is known what becomes of them."""

    def add_options(self, said: Mapping[str, Any]) -> None:
        for name, own in OPTION_NAMES.items():
            if name not in said:
                continue
            self.seen.add(name)
            if own in self.options:
                self.ignored.append(name)
            else:
                value = said[name]
                self.options[own] = _stop_words(value) if own == "stop" else _number(name, own, value)
                self.renamed[name] = f"options.{own}"

    def limit_length(self, context: int | None) -> None:
        """Keep the answer within the context: else it goes on to ten times that, forgetting its beginning."""
        wanted = self.options.get("num_predict")
        if context is None or (wanted is not None and 0 <= wanted <= context):
            return
        self.options["num_predict"] = context
        if wanted is not None:
            said_as = next(name for name, own in self.renamed.items() if own == "options.num_predict")
            self.clamped[said_as] = f"{wanted} → {context}, the context"

    def add_format(self, said: Mapping[str, Any]) -> None:
        self.seen.add("response_format")
        match said.get("response_format"):
            case None | {"type": "text"}:
                return
            case {"type": "json_object"}:
                # The word "json" was seen to constrain nothing; a schema does.
                self._add("response_format", "format", {"type": "object"})
            case {"type": "json_schema", "json_schema": {"schema": Mapping() as schema}}:
                self._add("response_format", "format", schema)
            case _:
                self.ignored.append("response_format")

    def add_thinking(self, said: Mapping[str, Any]) -> None:
        """Find whether to think; where the template is told not to, that counts."""
        self.seen |= {"think", "reasoning_effort", "chat_template_kwargs"}
        kwargs = said.get("chat_template_kwargs")
        kwargs = kwargs if isinstance(kwargs, Mapping) else {}
        self.ignored += [f"chat_template_kwargs.{name}" for name in kwargs if name != "enable_thinking"]
        effort = said.get("reasoning_effort")
        if "think" in said:
            self.body["think"] = said["think"]
        elif kwargs.get("enable_thinking") is False or (effort is None and "enable_thinking" in kwargs):
            self._add("chat_template_kwargs", "think", bool(kwargs["enable_thinking"]))
        elif effort is not None:
            self._add("reasoning_effort", "think", EFFORTS.get(str(effort), effort))

    def add_tools(self, said: Mapping[str, Any]) -> None:
        self.seen.add("tools")
        if said.get("tool_choice") == "none":
            self.seen.add("tool_choice")
        elif said.get("tools"):
            self.body["tools"] = said["tools"]

    def _add(self, name: str, own: str, value: Any) -> None:
        self.body[own] = value
        self.renamed[name] = own


def _stop_words(value: Any) -> list[str]:
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise Invalid("`stop` must be a string or a list of strings.", param="stop")
    return words


def _number(name: str, own: str, value: Any) -> float:
    """Check it here: a value of a wrong type is a server error there."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or (own in _WHOLE_NUMBERS and value != int(value)):
        kind = "a whole number" if own in _WHOLE_NUMBERS else "a number"
        raise Invalid(f"`{name}` must be {kind}.", param=name)
    return int(value) if own in _WHOLE_NUMBERS else value


def _messages(messages: Sequence[Any]) -> list[dict[str, Any]]:
    tool_names: dict[str, str] = {}
    native = []
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise Invalid(f"Message {index} must be an object.", param=f"messages.{index}")
        for call in message.get("tool_calls") or ():
            tool_names[str(call.get("id"))] = call.get("function", {}).get("name", "")
        native.append(_message(message, f"messages.{index}", tool_names))
    return native


def _message(message: Mapping[str, Any], place: str, tool_names: Mapping[str, str]) -> dict[str, Any]:
    role = message.get("role")
    text, images = _content(message.get("content"), f"{place}.content")
    bare = message.get("images") or message.get("image") or ()
    images += [
        _image(image, f"{place}.images") for image in ([bare] if isinstance(bare, str | Mapping) else bare)
    ]
    native: dict[str, Any] = {
        "role": {"developer": "system", "function": "tool"}.get(str(role), role),
        "content": text,
    }
    if images:
        native["images"] = images
    if thinking := message.get("reasoning_content") or message.get("reasoning"):
        native["thinking"] = thinking
    if calls := message.get("tool_calls"):
        native["tool_calls"] = [_native_tool_call(call, f"{place}.tool_calls") for call in calls]
    if native["role"] == "tool":
        call_id = str(message.get("tool_call_id", ""))
        native["tool_call_id"] = call_id
        native["tool_name"] = tool_names.get(call_id) or message.get("name") or ""
    return native


def _content(content: Any, place: str) -> tuple[str, list[str]]:
    """Give the text, and the pictures in base64."""
    if content is None or isinstance(content, str):
        return content or "", []
    if not isinstance(content, list):
        raise Invalid("`content` must be a string or a list of parts.", param=place)
    texts: list[str] = []
    images: list[str] = []
    for index, part in enumerate(content):
        match part:
            case {"type": "text" | "input_text", "text": str(text)}:
                texts.append(text)
            case {"type": "refusal", "refusal": str(text)}:
                texts.append(text)
            case {"type": "image_url" | "input_image" | "image"}:
                images.append(_image(part.get("image_url", part.get("image")), f"{place}.{index}"))
            case _:
                kind = part.get("type") if isinstance(part, Mapping) else part
                raise Invalid(
                    f"Ollama takes text and pictures, not a part of the type {kind!r}.",
                    param=f"{place}.{index}",
                )
    return "\n".join(texts), images


def _image(image: Any, place: str) -> str:
    """Give a picture's base64; what lies elsewhere would have to be fetched first."""
    source = image.get("url") if isinstance(image, Mapping) else image
    if not isinstance(source, str) or not source:
        raise Invalid("A picture must be a data URI.", param=place)
    if source.startswith(("http://", "https://")):
        raise Invalid(
            "Ollama does not fetch pictures from the network.",
            param=place,
            hint="Send it as a data URI: data:image/png;base64,…",
        )
    head, comma, data = source.partition(",")
    if not source.startswith("data:"):
        data = source
    elif not comma:
        raise Invalid("The picture's data URI has no data.", param=place)
    elif not head.endswith(";base64"):
        return base64.b64encode(urllib.parse.unquote_to_bytes(data)).decode()
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid(f"The picture is no base64: {error}.", param=place) from error
    return data


def _native_tool_call(call: Mapping[str, Any], place: str) -> dict[str, Any]:
    function = call.get("function", {})
    arguments = function.get("arguments") or {}
    try:
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise Invalid("The arguments of a tool call must be a JSON object.", param=place)
    native = {"function": {"name": function.get("name", ""), "arguments": arguments}}
    return {"id": call["id"], **native} if call.get("id") else native


def _least_tokens(texts: Iterable[str]) -> int:
    """Count the tokens that these texts have at the very least, in any tokenizer and any language."""
    words = [word for text in texts for word in text.split()]
    return max(len(words), sum(map(len, words)) // 8)
