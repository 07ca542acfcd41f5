"""vLLM: `vllm serve` from an environment of its own, never imported by us."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from footplate_daemon import environments
from footplate_daemon.errors import Unavailable
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

COMMON_PLACES = (
    "~/.venvs/vllm",
    "~/venvs/vllm",
    "~/vllm/.venv",
    "~/vllm/venv",
    "~/vllm",
    "~/vllm-env",
    "~/.vllm",
    "~/.local/share/uv/tools/vllm",
    "~/.local/share/pipx/venvs/vllm",
    "~/miniconda3/envs/vllm",
    "~/miniforge3/envs/vllm",
    "~/anaconda3/envs/vllm",
    "/opt/vllm",
    "/opt/venvs/vllm",
)
"""Environments that people make for vLLM, looked into after PATH."""


HOTTEST = 2
"""The highest temperature that vLLM accepts."""
CANNOT: Mapping[Case, str] = {}
NEEDS: Mapping[Case, Need] = {
    Case.REASONING: Need(
        "`--reasoning-parser` with the name of the model's kind in `args`; else it comes within the answer.",
        ("--reasoning-parser",),
    ),
    Case.REASONING_OFF: Need("a model whose chat template knows `enable_thinking`."),
    Case.TOOLS: Need(
        "`--enable-auto-tool-choice` and `--tool-call-parser` with the name of the model's kind in `args`; "
        "else tools are refused.",
        ("--enable-auto-tool-choice", "--tool-call-parser"),
    ),
}


class Vllm(SpeaksOpenAI):
    """Starts `vllm serve`; reads its log."""

    name = "vllm"
    cannot = CANNOT
    needs = NEEDS

    def __init__(self, program: str | None = None, *, environment: Mapping[str, str]) -> None:
        """Use `program` (the command, or its environment's folder) if given, else search for it."""
        self._program = program
        self._environment = environment

    def find(self) -> str | None:
        """Give the path of the `vllm` command: as configured, else from PATH, else from a common place."""
        search_path = self._environment.get("PATH")
        if self._program is not None:
            return shutil.which(self._program, path=search_path) or _in_environment(Path(self._program))
        home = self._environment.get("HOME", "/root")
        places = (Path(place.replace("~", home, 1)) for place in COMMON_PLACES)
        made = environments.recorded(self.name, self._environment)
        return (
            next(filter(None, map(_in_environment, made)), None)
            or shutil.which("vllm", path=search_path)
            or next(filter(None, map(_in_environment, places)), None)
        )

    def launch(self, plan: LaunchPlan) -> Launch:
        """Give `vllm serve MODEL …`; raise `Unavailable` when there is no vLLM to run."""
        program = "vllm" if plan.command else self._find_or_raise()
        parameters = dict(plan.parameters)
        if plan.context is not None:
            parameters["max_model_len"] = plan.context
        if _is_pooling(plan) and _is_less(parameters.get("max_num_batched_tokens"), plan.context):
            # Many embed a text in one piece, and a preset for chat has room for a part of one.
            del parameters["max_num_batched_tokens"]
        arguments = (
            plan.model,
            *("--host", "127.0.0.1", "--port", str(plan.port), "--served-model-name", plan.served_name),
            # Without it a stop while requests run may wait for the clients to hang up.
            *("--shutdown-timeout", "1"),
            *_runner(plan),
            *flags(parameters),
            *plan.args,
        )
        command = replace_program(
            plan.command, (program, "serve"), arguments, port=plan.port, model=plan.model
        )
        # While it loads, SIGTERM is swallowed or ends in a deadlock.
        return Launch(command, self._launch_environment(program, plan), cancel_signal="KILL")

    def health_path(self) -> str:
        """Answer 200 with an empty body; refuses connections while it loads; 200 still when it hangs."""
        return "/health"

    def serves(self, listing: Any, served_name: str) -> bool:
        """Whether a model of that name, owned by vLLM, is listed."""
        models = listing.get("data") if isinstance(listing, dict) else None
        return any(
            model.get("id") == served_name and model.get("owned_by") == "vllm"
            for model in models or ()
            if isinstance(model, dict)
        )

    def progress(self, line: str) -> Progress | None:
        return find_progress(MILESTONES, line)

    def recognise(self, log: Sequence[str], exit_code: int | None) -> Cause | None:  # noqa: ARG002
        """Read the log alone: vLLM's exit code is 0 even when its engine was killed."""
        return find_cause(SYMPTOMS, log)

    def sleeping(self, plan: LaunchPlan) -> SleepCalls | None:
        """Sleep mode's level 1 (weights to RAM, KV cache dropped), where its routes are switched on."""
        has_routes = plan.parameters.get("enable_sleep_mode") or plan.env.get("VLLM_SERVER_DEV_MODE") == "1"
        return SleepCalls("/sleep?level=1", "/wake_up", "/is_sleeping") if has_routes else None

    def load(self, metrics: str) -> Load:
        """Read its own gauges."""
        return Load(
            read_gauge(metrics, "vllm:kv_cache_usage_perc"),
            read_count(metrics, "vllm:num_requests_running"),
            read_count(metrics, "vllm:num_requests_waiting"),
            read_gauge(metrics, "vllm:generation_tokens_total"),
        )

    def translate(self, body: Mapping[str, Any], context: int | None = None) -> Translated:
        """Rename llama.cpp's words, and keep numbers within the bounds beyond which vLLM refuses."""
        translated = translate(NAMES, body)
        bounds = {
            "max_tokens": (context, "the context"),
            "max_completion_tokens": (context, "the context"),
            "temperature": (HOTTEST, "the most that vLLM takes"),
        }
        clamped = {
            name: (value, most, why)
            for name, (most, why) in bounds.items()
            if isinstance(value := translated.body.get(name), int | float)
            and most is not None
            and value > most
        }
        if not clamped:
            return translated
        return translated._replace(
            body={**translated.body, **{name: most for name, (_, most, _) in clamped.items()}},
            clamped={name: f"{value} → {most}, {why}" for name, (value, most, why) in clamped.items()},
        )

    def _find_or_raise(self) -> str:
        program = self.find()
        if program is not None:
            return program
        if self._program is not None:
            raise Unavailable(
                f"There is no vLLM at {self._program}.",
                hint="Mend the path of the program in config.toml.",
            )
        raise Unavailable(
            "vLLM is not installed: there is no `vllm` command on PATH or in the usual environments.",
            hint="Install it in an environment of its own, and name that in config.toml if it is not found.",
        )

    def _launch_environment(self, program: str, plan: LaunchPlan) -> dict[str, str]:
        environment = {
            # What is not on this machine is fetched when somebody asks for it, never during a start.
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
        }
        if "/" in program:
            # Its compilers (ninja) are looked for on PATH.
            search_path = (str(Path(program).parent), self._environment.get("PATH", ""))
            environment["PATH"] = ":".join(filter(None, search_path))
        if plan.api_key is not None:
            environment["VLLM_API_KEY"] = plan.api_key
        if plan.parameters.get("enable_sleep_mode"):
            # Without it there is no route to put it to sleep by.
            environment["VLLM_SERVER_DEV_MODE"] = "1"
        return {**environment, **plan.env}


def _in_environment(folder: Path) -> str | None:
    return shutil.which("vllm", path=folder / "bin")


def _runner(plan: LaunchPlan) -> tuple[str, ...]:
    """Generation is its default; an embedding model of a generating architecture has to be told."""
    return ("--runner", "pooling") if _is_pooling(plan) and "runner" not in plan.parameters else ()


def _is_pooling(plan: LaunchPlan) -> bool:
    return bool({"embedding", "rerank"}.intersection(plan.capabilities))


def _is_less(tokens: Any, context: int | None) -> bool:
    return isinstance(tokens, int) and context is not None and tokens < context


MILESTONES = (
    milestone(r"version \d+\.\d+\.\d+|non-default args", "starting", 0.1),
    milestone(r"Resolved architecture", "reading the model's configuration", 0.3),
    milestone(r"\.safetensors:\s+(?P<percent>\d+)%", "fetching weights", 0.3),
    milestone(r"Initializing a V1 LLM engine", "starting the engine core", 0.5),
    milestone(r"Starting to load model", "loading weights", 0.55),
    milestone(r"checkpoint shards:\s+(?P<percent>\d+)%", "loading weights", 0.55, until=0.8),
    milestone(r"Loading weights took", "weights loaded", 0.8),
    milestone(r"Warming up model|Dynamo bytecode|torch\.compile takes|Compiling a graph", "compiling", 0.82),
    milestone(r"KV cache size:", "reserving the KV cache", 0.88),
    milestone(r"Capturing CUDA graphs.*?(?P<percent>\d+)%", "capturing CUDA graphs", 0.9, until=0.97),
    milestone(r"init engine .* took", "warming up", 0.97),
    milestone(r"Starting vLLM (?:API )?server", "opening its port", 0.99),
    milestone(r"Application startup complete", "ready", 1.0),
)
"""Fractions are the shares of a quiet start of 13 s with a tiny model: imports take most of it."""

SYMPTOMS = (
    symptom(
        "kv_cache_too_small",
        r"ValueError: To serve at least one request with the models?'s max seq len \((?P<context>\d+)\).*"
        r"estimated maximum model length is (?P<largest_context>\d+)",
        "The KV cache that is left beside the weights holds a context of {largest_context} tokens, "
        "not the {context} asked for.",
    ),
    symptom(
        "kv_cache_too_small",
        r"max seq len \((?P<context>\d+)\) is larger than the maximum number of tokens that can be stored "
        r"in KV cache \((?P<largest_context>\d+)\)",
        "The KV cache that is left beside the weights holds a context of {largest_context} tokens, "
        "not the {context} asked for.",
    ),
    symptom(
        "kv_cache_too_small",
        r"ValueError: To serve at least one request with the models?'s max seq len \((?P<context>\d+)\)",
        "The memory that is left beside the weights is too small for the KV cache of a context of "
        "{context} tokens.",
    ),
    symptom(
        "kv_cache_too_small",
        r"No available memory for the cache blocks",
        "The weights leave no memory for a KV cache.",
    ),
    symptom(
        "context_too_long",
        r"User-specified max_model_len \((?P<context>\d+)\) is greater than the derived max_model_len "
        r"\(\w+=(?P<largest_context>\d+)",
        "The model was made for a context of at most {largest_context} tokens, not {context}.",
    ),
    symptom(
        "out_of_gpu_memory",
        r"Free memory on device.*?\((?P<free_gib>[\d.]+)/(?P<total_gib>[\d.]+) GiB\) on startup is less than "
        r"desired GPU memory utilization \([\d.]+, (?P<wanted_gib>[\d.]+) GiB\)",
        "Only {free_gib} of the GPU's {total_gib} GiB are free, and the engine is set to take "
        "{wanted_gib} GiB.",
    ),
    symptom(
        "out_of_memory",
        r"Available memory on node \d+ \((?P<free_gib>[\d.]+)/[\d.]+ GiB\) on kv cache allocation is less "
        r"than requested memory for kv \((?P<wanted_gib>[\d.]+) GiB\)",
        "A KV cache of {wanted_gib} GiB was asked for, and {free_gib} GiB of memory are free.",
    ),
    symptom(
        "out_of_memory",
        r"Available memory on node \d+ \((?P<free_gib>[\d.]+)/(?P<total_gib>[\d.]+) GiB\) on startup is less "
        r"than desired CPU memory utilization \([\d.]+, (?P<wanted_gib>[\d.]+) GiB\)",
        "Only {free_gib} of the machine's {total_gib} GiB are free, and the engine is set to take "
        "{wanted_gib} GiB.",
    ),
    symptom(
        "unknown_architecture",
        r"has model type `(?P<architecture>[^`]+)` but Transformers does not recognize this architecture",
        "This vLLM does not know the architecture `{architecture}`.",
    ),
    symptom(
        "unknown_architecture",
        r"Model architectures? \[?'?(?P<architecture>[^'\]]+?)'?\]? (?:are|is) not supported",
        "This vLLM does not know the architecture `{architecture}`.",
    ),
    symptom(
        "unsupported_quantization",
        r"Unknown quantization method: (?P<quantization>[\w-]+)",
        "This vLLM does not know the quantization `{quantization}`.",
    ),
    symptom(
        "unsupported_quantization",
        r"quantization method (?P<quantization>[\w-]+) is not supported for the current GPU\. "
        r"Minimum capability: (?P<wanted>\d+)\. Current capability: (?P<present>\d+)",
        "The quantization `{quantization}` needs a GPU of compute capability {wanted}, and this one has "
        "{present}.",
    ),
    symptom(
        "unsupported_quantization",
        r"(?P<quantization>[\w-]+) quantization is currently not supported",
        "vLLM cannot run the quantization `{quantization}` on this machine.",
    ),
    symptom(
        "unsupported_quantization",
        r"torch\.(?P<dtype>\w+) is not supported for quantization method (?P<quantization>[\w-]+)",
        "The quantization `{quantization}` does not go with weights in {dtype}.",
    ),
    symptom(
        "unsupported_dtype",
        r"Bfloat16 is only supported on GPUs with compute capability of at least 8\.0",
        "This GPU is too old for bfloat16 weights.",
    ),
    symptom(
        "model_missing",
        r"Repo id must .*: '(?P<model>[^']*)'",
        "There is no model at {model}.",
    ),
    symptom(
        "model_missing",
        r"Invalid repository ID or local directory specified: '(?P<model>[^']*)'",
        "{model} is no folder with a model in it: it has no config.json.",
    ),
    symptom(
        "model_missing",
        r"LocalEntryNotFoundError: |couldn't find them in the cached files|traffic has been disabled",
        "The weights are not on this machine, and the engine could not fetch them.",
    ),
    symptom(
        "corrupt_weights",
        r"SafetensorError: (?P<reason>.+)",
        "A file of the weights is damaged or incomplete.",
    ),
    symptom(
        "unsupported_option",
        r"Value error, (?P<option>Sleep mode) is not supported on current platform",
        "vLLM has no sleep mode on this machine.",
    ),
    symptom(
        "no_gpu",
        r"Failed to infer device type|No CUDA GPUs are available|Found no NVIDIA driver",
        "vLLM finds no GPU that it can use.",
    ),
)

NAMES = Names(
    heeded=OPENAI
    | {
        "add_generation_prompt",
        "add_special_tokens",
        "allowed_token_ids",
        "bad_words",
        "cache_salt",
        "chat_template",
        "chat_template_kwargs",
        "continue_final_message",
        "documents",
        "echo",
        "ignore_eos",
        "include_reasoning",
        "include_stop_str_in_output",
        "length_penalty",
        "min_p",
        "min_tokens",
        "mm_processor_kwargs",
        "priority",
        "prompt_logprobs",
        "reasoning_effort",
        "repetition_penalty",
        "skip_special_tokens",
        "stop_token_ids",
        "structured_outputs",
        "suffix",
        "thinking_token_budget",
        "top_k",
        "truncate_prompt_tokens",
        "use_beam_search",
        "vllm_xargs",
    },
    renamed={
        "n_predict": "max_tokens",
        "repeat_penalty": "repetition_penalty",
        "thinking_budget_tokens": "thinking_token_budget",
    },
)
"""Read off vLLM 0.32's request classes; what is not there it drops without a word (`guided_choice`)."""
