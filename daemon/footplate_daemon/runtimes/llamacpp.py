"""llama.cpp: the engine that comes with Footplate, or the operator's own `llama-server`."""

import importlib.util
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from footplate_daemon.errors import Invalid, Unavailable
from footplate_daemon.runtimes.base import (
    Cause,
    Launch,
    LaunchPlan,
    Load,
    Progress,
    SleepCalls,
    Translated,
)
from footplate_daemon.runtimes.cases import Case, Need
from footplate_daemon.runtimes.commandline import flags, replace_program
from footplate_daemon.runtimes.parameters import OPENAI, Names, SpeaksOpenAI, translate
from footplate_daemon.runtimes.patterns import (
    find_cause,
    find_progress,
    milestone,
    read_count,
    read_gauge,
    symptom,
)

EMBEDDED = "footplate_daemon.runtimes.embedded"
SMALL_MODEL_BYTES = 256 * 1024**2
"""Below this one thread is faster: with more, they spend the cores on waiting for each other."""

LONGEST_TEXT = 2048
"""Tokens of a text to embed or to rank, where no context is said."""

SAME_PARAMETER = {
    "n_gpu_layers": "gpu_layers",
    "ngl": "gpu_layers",
    "slots": "parallel",
    "n_parallel": "parallel",
    "np": "parallel",
    "ctx_size": "context",
    "n_ctx": "context",
    "ctx": "context",
}
"""Other names of launch parameters → the one used here."""


CANNOT: Mapping[Case, str] = {}
NEEDS: Mapping[Case, Need] = {
    Case.SEVERAL: Need("as many `slots` as answers."),
    Case.REASONING_OFF: Need("a model whose chat template knows `enable_thinking`."),
    Case.IMAGES: Need("the model's projector: `mmproj`.", ("--mmproj",)),
}


class LlamaCpp(SpeaksOpenAI):
    """Starts a llama.cpp server; `context` is always what one request gets, whatever the number of slots."""

    name = "llamacpp"
    cannot = CANNOT
    needs = NEEDS

    def __init__(self, program: str | None = None, *, environment: Mapping[str, str]) -> None:
        """Use the `llama-server` named (a path, or a name on PATH), or the embedded engine when None."""
        self._program = program
        self._environment = environment

    def find(self) -> str | None:
        """Give the `llama-server` configured, or the Python that runs the embedded engine."""
        if self._program is None:
            return sys.executable if importlib.util.find_spec("xllamacpp") else None
        return shutil.which(self._program, path=self._environment.get("PATH"))

    def launch(self, plan: LaunchPlan) -> Launch:
        """Give the command line; raise `Unavailable` without a program, `Invalid` for an unknown parameter.

        A variant's `command` stands for a `llama-server`, so it gets that one's arguments.
        """
        parameters = {SAME_PARAMETER.get(name, name): value for name, value in plan.parameters.items()}
        if plan.context is not None:
            parameters["context"] = plan.context
        if self._program is None and plan.command is None:
            return self._launch_embedded(plan, parameters)
        return self._launch_server(plan, parameters)

    def health_path(self) -> str:
        """Answer 503 `Loading model` until it serves; open without a key."""
        return "/health"

    def serves(self, listing: Any, served_name: str) -> bool:
        """Whether a model of that name, owned by llama.cpp, is listed."""
        models = listing.get("data") if isinstance(listing, dict) else None
        return any(
            model.get("id") == served_name and model.get("owned_by") == "llamacpp"
            for model in models or ()
            if isinstance(model, dict)
        )

    def progress(self, line: str) -> Progress | None:
        return find_progress(MILESTONES, line)

    def recognise(self, log: Sequence[str], exit_code: int | None) -> Cause | None:  # noqa: ARG002
        """Read the log alone: the exit code is 1 for everything."""
        return find_cause(SYMPTOMS, log)

    def sleeping(self, plan: LaunchPlan) -> SleepCalls | None:  # noqa: ARG002
        """None: it sleeps by itself when idle, and cannot be told to."""
        return None

    def load(self, metrics: str) -> Load:
        """Read its own gauges."""
        return Load(
            read_gauge(metrics, "llamacpp:kv_cache_usage_ratio"),
            read_count(metrics, "llamacpp:requests_processing"),
            read_count(metrics, "llamacpp:requests_deferred"),
            read_gauge(metrics, "llamacpp:n_decode_total"),
        )

    def translate(self, body: Mapping[str, Any], context: int | None = None) -> Translated:  # noqa: ARG002
        """Rename vLLM's words; nothing has to be kept within the context, where an answer simply ends."""
        return translate(NAMES, _with_tool_chosen(body))

    def _launch_embedded(self, plan: LaunchPlan, parameters: dict[str, Any]) -> Launch:
        unknown = sorted(set(parameters) - EMBEDDED_PARAMETERS)
        if unknown:
            raise Invalid(
                f"The embedded llama.cpp takes no launch parameter {', '.join(unknown)}.",
                hint=f"It takes {', '.join(sorted(EMBEDDED_PARAMETERS))}; your own llama-server takes all.",
                param=unknown[0],
            )
        program = self.find()
        if program is None:
            raise Unavailable(
                "The embedded llama.cpp is not installed: there is no xllamacpp for this machine.",
                hint="Configure a llama-server of your own.",
            )
        parameters["ctx"] = parameters.pop("context", None)
        command = (
            *(program, "-m", EMBEDDED, "--model", plan.model),
            *("--port", str(plan.port), "--alias", plan.served_name, "--metrics"),
            *_common_flags(plan),
            *flags(parameters),
            *plan.args,
        )
        return Launch(command, _environment("FOOTPLATE_ENGINE_KEY", plan))

    def _launch_server(self, plan: LaunchPlan, parameters: dict[str, Any]) -> Launch:
        program = "llama-server" if plan.command else self.find()
        if program is None:
            raise Unavailable(
                f"There is no llama-server at {self._program}.",
                hint="Mend the path of the program in config.toml, or remove it to use the embedded engine.",
            )
        if _is_small(plan.model):
            parameters.setdefault("threads", 1)
        if _is_pooling(plan) and not {"ubatch_size", "ub"}.intersection(parameters):
            # A text must fit into one physical batch, which is 512 tokens by default.
            longest = parameters.get("context") or LONGEST_TEXT
            parameters |= {"batch_size": longest, "ubatch_size": longest}
        arguments = (
            *("--model", plan.model, "--alias", plan.served_name),
            *("--host", "127.0.0.1", "--port", str(plan.port)),
            # Without pings a stop waits for the end of every open stream, up to 30 s.
            *("--sse-ping-interval", "1", "--jinja", "--metrics", "--no-webui"),
            *_common_flags(plan),
            *flags(_share_context(parameters)),
            *plan.args,
        )
        command = replace_program(plan.command, (program,), arguments, port=plan.port, model=plan.model)
        return Launch(command, _environment("LLAMA_API_KEY", plan))


def _share_context(parameters: dict[str, Any]) -> dict[str, Any]:
    """Ask for so large a cache that every slot has the whole context, which llama.cpp divides among them.

    With the number of slots left to llama.cpp they share one cache, and any of them may have all of it.
    """
    parameters = dict(parameters)
    context, slots = parameters.pop("context", None), parameters.get("parallel")
    if context is not None:
        parameters["ctx_size"] = context * (slots or 1)
    elif slots is not None:
        parameters.setdefault("kv_unified", True)
    return parameters


def _is_pooling(plan: LaunchPlan) -> bool:
    return bool({"embedding", "rerank"}.intersection(plan.capabilities))


def _common_flags(plan: LaunchPlan) -> tuple[str, ...]:
    return (
        *(("--mmproj", str(plan.mmproj)) if plan.mmproj else ()),
        *(("--embedding",) if "embedding" in plan.capabilities else ()),
        *(("--reranking",) if "rerank" in plan.capabilities else ()),
    )


def _environment(key_name: str, plan: LaunchPlan) -> dict[str, str]:
    key = {key_name: plan.api_key} if plan.api_key is not None else {}
    return {**key, **plan.env}


def _is_small(model: str) -> bool:
    path = Path(model)
    return path.is_file() and path.stat().st_size < SMALL_MODEL_BYTES


EMBEDDED_PARAMETERS = frozenset(
    {
        "batch",
        "cache_type_k",
        "cache_type_v",
        "chat_template",
        "context",
        "gpu_layers",
        "parallel",
        "pooling",
        "threads",
    }
)

MILESTONES = (
    milestone(r"initializing \.\.\.|embedded: loading", "starting", 0.05),
    milestone(r"load_model: loading model", "loading weights", 0.1),
    milestone(r"load_tensors:", "loading weights", 0.3),
    milestone(r"llama_context: constructing|llama_kv_cache", "reserving the KV cache", 0.8),
    milestone(r"threadpool init|warming up the model", "warming up", 0.9),
    milestone(r"load_model: initializing,? (?:n_)?slots", "preparing slots", 0.95),
    milestone(r"\bmodel loaded", "model loaded", 0.98),
    milestone(r"listening on http", "ready", 1.0),
)

SYMPTOMS = (
    symptom(
        "port_taken",
        r"couldn't bind HTTP server socket, hostname: \S+ port: (?P<port>\d+)",
        "Another program listens on port {port}.",
    ),
    symptom(
        "bad_argument",
        r"error: invalid argument: (?P<argument>\S+)",
        "This llama-server does not know the argument {argument}.",
    ),
    symptom(
        "bad_argument",
        r"error while handling argument \"(?P<argument>[^\"]+)\": (?P<reason>.+)",
        "llama-server does not accept the value of the argument {argument}.",
    ),
    symptom(
        "model_missing",
        r"failed to open GGUF file '(?P<model>[^']*)' \(No such file or directory\)",
        "There is no file {model}.",
    ),
    symptom(
        "model_unreadable",
        r"failed to open GGUF file '(?P<model>[^']*)' \((?P<reason>[^)]*)\)",
        "The file {model} cannot be read: {reason}.",
    ),
    symptom(
        "not_gguf",
        r"invalid magic characters: .*expected 'GGUF'",
        "The file is not in the GGUF format, the only one that llama.cpp loads.",
    ),
    symptom(
        "not_gguf",
        r"failed to read magic",
        "This is an empty file or a folder, not a GGUF file.",
    ),
    symptom(
        "corrupt_weights",
        r"is not within the file bounds|model is corrupted or incomplete|"
        r"failed to read (?:key-value pairs|header|tensor info|tensor data)",
        "The GGUF file is damaged or incomplete.",
    ),
    symptom(
        "unknown_architecture",
        r"unknown model architecture: '(?P<architecture>[^']*)'",
        "This llama.cpp does not know the architecture `{architecture}`.",
    ),
    symptom(
        "unknown_architecture",
        r"unknown pre-tokenizer type: '(?P<architecture>[^']*)'",
        "This llama.cpp does not know the tokenizer `{architecture}`.",
    ),
    symptom(
        "unsupported_quantization",
        r"has invalid ggml type (?P<quantization>\d+)",
        "This llama.cpp does not know the quantization of the weights (type {quantization}).",
    ),
    symptom(
        "out_of_gpu_memory",
        r"allocating (?P<wanted_mib>[\d.]+) MiB on device \d+: cudaMalloc failed: out of memory",
        "The GPU has no {wanted_mib} MiB left for the model.",
    ),
    symptom(
        "out_of_gpu_memory",
        r"(?:unable to allocate|failed to allocate) (?:CUDA|ROCm|Vulkan|SYCL)\d* buffer|"
        r"ErrorOutOfDeviceMemory",
        "The GPU's memory is too small for the model.",
    ),
    symptom(
        "out_of_memory",
        r"insufficient memory \(attempted to allocate (?P<wanted_mib>[\d.]+) MB\)",
        "The machine has no {wanted_mib} MB of memory left for the model.",
    ),
    symptom(
        "out_of_memory",
        r"(?:unable|failed) to allocate (?:CPU\w* )?buffer",
        "The memory is too small for the model with its context.",
    ),
    symptom(
        "mmproj_mismatch",
        r"mmproj.*(?:mismatch|failed to load)|failed to load multimodal model|clip\S*: (?:error|failed).*",
        "The vision projector (mmproj) does not load, or is of another model.",
    ),
    symptom(
        "not_installed",
        r"No module named 'xllamacpp'",
        "The embedded llama.cpp is not installed.",
    ),
)

NAMES = Names(
    heeded=OPENAI
    | {
        "add_generation_prompt",
        "cache_prompt",
        "chat_template_kwargs",
        "continue_final_message",
        "dry_allowed_length",
        "dry_base",
        "dry_multiplier",
        "dry_penalty_last_n",
        "dry_sequence_breakers",
        "dynatemp_exponent",
        "dynatemp_range",
        "grammar",
        "id_slot",
        "ignore_eos",
        "json_schema",
        "lora",
        "min_keep",
        "min_p",
        "mirostat",
        "mirostat_eta",
        "mirostat_tau",
        "n_keep",
        "n_probs",
        "post_sampling_probs",
        "reasoning_effort",
        "reasoning_format",
        "repeat_last_n",
        "repeat_penalty",
        "return_tokens",
        "samplers",
        "thinking_budget_tokens",
        "timings_per_token",
        "top_k",
        "top_n_sigma",
        "typical_p",
        "xtc_probability",
        "xtc_threshold",
    },
    renamed={
        "n_predict": "max_tokens",
        "repetition_penalty": "repeat_penalty",
        "thinking_token_budget": "thinking_budget_tokens",
    },
)
"""Any other name llama.cpp accepts and drops; `model` too is accepted whatever it says."""


def _with_tool_chosen(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Have the one tool called that `tool_choice` names: llama.cpp would take the object for `auto`.

    Raise `Invalid` where there is no such tool.
    """
    choice = body.get("tool_choice")
    if not isinstance(choice, Mapping):
        return body
    function = choice.get("function")
    name = function.get("name") if isinstance(function, Mapping) else None
    meant = [tool for tool in body.get("tools") or () if tool.get("function", {}).get("name") == name]
    if not meant:
        raise Invalid(
            f"`tool_choice` names {json.dumps(name)}, which is not among `tools`.",
            param="tool_choice",
            hint='Name one of them: {"type": "function", "function": {"name": …}}',
        )
    return {**body, "tools": meant, "tool_choice": "required"}
