"""Hugging Face transformers: our own worker program, run by the Python of the operator's environment."""

import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from footplate_daemon import environments
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
from footplate_daemon.runtimes.parameters import Names, SpeaksOpenAI, translate
from footplate_daemon.runtimes.patterns import find_cause, find_progress, milestone, read_count, symptom

WORKER = Path(__file__).with_name("transformers_worker.py")

COMMON_PLACES = (
    "~/.venvs/transformers",
    "~/venvs/transformers",
    "~/transformers/.venv",
    "~/transformers/venv",
    "~/transformers",
    "~/transformers-env",
    "~/.local/share/uv/tools/transformers",
    "~/.local/share/pipx/venvs/transformers",
    "~/miniconda3/envs/transformers",
    "~/miniforge3/envs/transformers",
    "~/anaconda3/envs/transformers",
    "/opt/transformers",
    "/opt/venvs/transformers",
    # vLLM's environment has all that the worker needs.
    "~/.venvs/vllm",
    "~/venvs/vllm",
    "~/vllm/.venv",
    "~/vllm/venv",
    "~/miniconda3/envs/vllm",
    "/opt/vllm",
    "/opt/venvs/vllm",
)
"""Environments that people make, looked into after the Python beside a `transformers` command on PATH."""

PACKAGES = ("torch", "transformers")
"""What makes a Python one that can run the worker."""

SAME_PARAMETER = {
    "torch_dtype": "dtype",
    "max_model_len": "context",
    "ctx_size": "context",
    "n_ctx": "context",
    "attn_implementation": "attention",
}
"""Other names of launch parameters → the one used here."""


CANNOT: Mapping[Case, str] = {
    Case.SEVERAL: "It refuses `n` above 1: ask several times.",
    Case.JSON_SCHEMA: "It ignores `response_format`, and says so: ask for JSON in the prompt.",
}
NEEDS: Mapping[Case, Need] = {
    Case.REASONING: Need("a model that writes it between `<think>` and `</think>`."),
    Case.REASONING_OFF: Need("a model whose chat template knows `enable_thinking`."),
    Case.TOOLS: Need("a model that writes its calls as Qwen and Hermes do; `tool_choice` cannot force one."),
    Case.EMBEDDINGS: Need("a model of text whose vectors are a mean, the first or the last token's."),
    Case.RERANKING: Need("a model that classifies texts with one label (`…ForSequenceClassification`)."),
}


class Transformers(SpeaksOpenAI):
    """Starts the worker; reads its log."""

    name = "transformers"
    also_answers: Collection[str] = frozenset()
    cannot = CANNOT
    needs = NEEDS

    def __init__(self, program: str | None = None, *, environment: Mapping[str, str]) -> None:
        """Use `program` (a Python, or its environment's folder) if given, else search for one."""
        self._program = program
        self._environment = environment

    def find(self) -> str | None:
        """Give the Python that has torch and transformers: as configured, else from where people put it."""
        if self._program is not None:
            path = shutil.which(self._program, path=self._environment.get("PATH"))
            # A Python that is named is taken at its word: its packages may lie where we do not look.
            return path or _python_of(Path(self._program))
        return next((python for place in self._places() if (python := _equipped(place))), None)

    def launch(self, plan: LaunchPlan) -> Launch:
        """Give `PYTHON transformers_worker.py …`; raise `Unavailable`, or `Invalid` for an unknown parameter.

        A variant's `command` stands for the Python, so it gets the worker's path first.
        """
        parameters = {SAME_PARAMETER.get(name, name): value for name, value in plan.parameters.items()}
        unknown = sorted(set(parameters) - PARAMETERS)
        if unknown:
            raise Invalid(
                f"transformers takes no launch parameter {', '.join(unknown)}.",
                hint=f"It takes {', '.join(sorted(PARAMETERS))}.",
                param=unknown[0],
            )
        tasks = [each for each in ("chat", "embedding", "rerank") if each in plan.capabilities]
        if len(tasks) > 1:
            raise Invalid(
                f"transformers serves one of {', '.join(tasks)} at a time, and {plan.variant} is for more.",
                hint="Make a model of each.",
                param="capabilities",
            )
        if plan.context is not None:
            parameters["context"] = plan.context
        arguments = (
            str(WORKER),
            *("--model", plan.model, "--served-name", plan.served_name, "--port", str(plan.port)),
            *(("--task", *tasks) if tasks not in ([], ["chat"]) else ()),
            *flags(parameters),
            *plan.args,
        )
        python = "python" if plan.command else self._find_or_raise()
        command = replace_program(plan.command, (python,), arguments, port=plan.port, model=plan.model)
        return Launch(command, _environment(plan))

    def health_path(self) -> str:
        """Answer 503 with how far the load has come until it serves; open without a key."""
        return "/health"

    def serves(self, listing: Any, served_name: str) -> bool:
        """Whether a model of that name, owned by the worker, is listed."""
        models = listing.get("data") if isinstance(listing, dict) else None
        return any(
            model.get("id") == served_name and model.get("owned_by") == "transformers"
            for model in models or ()
            if isinstance(model, dict)
        )

    def progress(self, line: str) -> Progress | None:
        told = TOLD.match(line)
        if told:
            return Progress(told["step"], round(int(told["percent"]) / 100, 3))
        return find_progress(MILESTONES, line)

    def recognise(self, log: Sequence[str], exit_code: int | None) -> Cause | None:  # noqa: ARG002
        """Read the log alone: the exit code is 1 for everything."""
        return find_cause(SYMPTOMS, log)

    def sleeping(self, plan: LaunchPlan) -> SleepCalls | None:  # noqa: ARG002
        """None: torch does not give a model's memory back and keep it."""
        return None

    def load(self, metrics: str) -> Load:
        """Read the worker's own gauges; its cache grows with each answer and is gone with it."""
        return Load(
            running=read_count(metrics, "footplate_worker_requests_running"),
            waiting=read_count(metrics, "footplate_worker_requests_waiting"),
        )

    def translate(self, body: Mapping[str, Any], context: int | None = None) -> Translated:  # noqa: ARG002
        """Rename the words of others; the worker itself keeps max_tokens within the context."""
        return translate(NAMES, body)

    def _places(self) -> Iterator[Path]:
        yield from environments.recorded(self.name, self._environment)
        command = shutil.which("transformers", path=self._environment.get("PATH"))
        if command is not None:
            yield Path(command).resolve().parent.parent
        home = self._environment.get("HOME", "/root")
        yield from (Path(place.replace("~", home, 1)) for place in COMMON_PLACES)

    def _find_or_raise(self) -> str:
        python = self.find()
        if python is not None:
            return python
        if self._program is not None:
            raise Unavailable(
                f"There is no Python at {self._program}.",
                hint="Mend the path of the program in config.toml: a Python, or its environment's folder.",
            )
        raise Unavailable(
            "transformers is not installed: no environment with torch and transformers was found.",
            hint="Install both in an environment, and name that in config.toml if it is not found.",
        )


def _equipped(environment: Path) -> str | None:
    """Give the environment's Python if the worker's needs are installed there."""
    python = _python_of(environment)
    folders = [
        *environment.glob("lib/python3*/site-packages"),
        *environment.glob("lib64/python3*/site-packages"),
    ]
    has_all = any(_has(folder, PACKAGES) for folder in folders)
    return python if has_all else None


def _has(folder: Path, packages: Iterable[str]) -> bool:
    return all((folder / package / "__init__.py").is_file() for package in packages)


def _python_of(environment: Path) -> str | None:
    return shutil.which("python", path=environment / "bin")


def _environment(plan: LaunchPlan) -> dict[str, str]:
    key = {"FOOTPLATE_ENGINE_KEY": plan.api_key} if plan.api_key is not None else {}
    return {
        # What is not on this machine is fetched when somebody asks for it, never during a start.
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # What is said stays in order with what Python itself says when it fails.
        "PYTHONUNBUFFERED": "1",
        **key,
        **plan.env,
    }


PARAMETERS = frozenset(
    {"attention", "context", "device", "dtype", "quantization", "threads", "trust_remote_code"}
)

TOLD = re.compile(r"^worker: (?P<percent>\d+)% (?P<step>.+)$")
"""How the worker tells of its progress."""

MILESTONES = (
    # transformers before 5 draws its own bars.
    milestone(r"Loading checkpoint shards:\s+(?P<percent>\d+)%", "loading weights", 0.3, until=0.95),
    milestone(r"Loading weights:\s+(?P<percent>\d+)%", "loading weights", 0.3, until=0.95),
)

SYMPTOMS = (
    symptom(
        "unknown_architecture",
        r"load failed: (?P<architecture>.+) does not rank: it has no head with one label",
        "{architecture} is not made to rank texts: it has no head with one label.",
    ),
    symptom(
        "unknown_architecture",
        r"load failed: its vectors need a (?P<need>.+)",
        "The model's vectors need a {need}, which the worker does not do: put it on vLLM or llama.cpp.",
    ),
    symptom(
        "port_taken",
        r"worker: cannot listen on 127\.0\.0\.1:(?P<port>\d+): Address already in use",
        "Another program listens on port {port}.",
    ),
    symptom(
        "context_too_long",
        r"a context of (?P<context>\d+) was asked for, and the model was made for (?P<largest_context>\d+)",
        "The model was made for a context of at most {largest_context} tokens, not {context}.",
    ),
    symptom(
        "not_installed",
        r"quantization (?P<quantization>\w+) needs (?P<packages>[^:]+): (?P<command>.+ -m pip install .+)",
        "The quantization {quantization} needs {packages}. Run: {command}",
    ),
    symptom(
        "not_installed",
        r"pictures need (?P<package>\w+): (?P<command>.+ -m pip install .+)",
        "A model that reads pictures needs {package}. Run: {command}",
    ),
    symptom(
        "not_installed",
        r"requires (?:the )?(?P<package>[\w-]+)(?: library)?[ :].*(?P<command>pip install [^`\n]+)",
        "The environment of transformers lacks {package}. Run in it: {command}",
    ),
    symptom(
        "not_installed",
        r"This modeling file requires the following packages that were not found in your environment: "
        r"(?P<packages>[\w, -]+?)\. Run `(?P<command>[^`]+)`",
        "The model's own code needs {packages}. Run in the environment: {command}",
    ),
    symptom(
        "not_installed",
        r"ModuleNotFoundError: No module named '(?P<package>torch|transformers)'",
        "The Python of this runtime has no {package}.",
    ),
    symptom(
        "remote_code",
        r"contains custom code|`?trust_remote_code=True`?",
        "The model brings program code of its own, which runs only with `trust_remote_code = true`.",
    ),
    symptom(
        "unknown_architecture",
        r"has model type `(?P<architecture>[^`]+)` but Transformers does not recognize this architecture",
        "This transformers does not know the architecture `{architecture}`.",
    ),
    symptom(
        "unknown_architecture",
        r"Unrecognized configuration class <class '[^']*?(?P<architecture>\w+)'>",
        "This transformers cannot generate text with a model of the kind {architecture}.",
    ),
    symptom(
        "unknown_architecture",
        r"TypeError: (?P<architecture>\w+) cannot generate text",
        "A model of the kind {architecture} does not generate text.",
    ),
    symptom(
        "unsupported_quantization",
        r"Unknown quantization type, got (?P<quantization>[\w-]+)",
        "This transformers does not know the quantization `{quantization}`.",
    ),
    symptom(
        "model_missing",
        r"worker: load failed: there is no model at (?P<model>.+)",
        "There is no model at {model}.",
    ),
    symptom(
        "model_missing",
        r"worker: load failed: (?P<model>.+) has no config\.json",
        "{model} is no folder with a model in it: it has no config.json.",
    ),
    symptom(
        "model_missing",
        r"no file named (?:model\.safetensors|pytorch_model\.bin).* found in directory (?P<model>.+?)\.?$",
        "{model} holds no weights.",
    ),
    symptom(
        "model_missing",
        r"LocalEntryNotFoundError: |couldn't find them in the cached files|traffic has been disabled|"
        r"couldn't connect to '?https://huggingface\.co",
        "The weights are not on this machine, and the engine could not fetch them.",
    ),
    symptom(
        "tokenizer_missing",
        r"Can't load tokenizer for '(?P<model>[^']+)'|Couldn't instantiate the backend tokenizer",
        "The model's tokenizer is missing.",
    ),
    symptom(
        "corrupt_weights",
        r"SafetensorError: (?P<reason>.+)",
        "A file of the weights is damaged or incomplete.",
    ),
    symptom(
        "no_gpu",
        r"the device (?P<device>\S+) cannot be used: (?P<reason>.+)",
        "torch cannot use the device {device}: {reason}.",
    ),
)

NAMES = Names(
    heeded=frozenset(
        {
            "chat_template_kwargs",
            "dimensions",
            "documents",
            "enable_thinking",
            "encoding_format",
            "frequency_penalty",
            "ignore_eos",
            "input",
            "max_completion_tokens",
            "max_tokens",
            "messages",
            "min_p",
            "model",
            "n",
            "presence_penalty",
            "prompt",
            "query",
            "reasoning_effort",
            "repetition_penalty",
            "return_documents",
            "seed",
            "stop",
            "stream",
            "stream_options",
            "temperature",
            "tools",
            "top_k",
            "top_n",
            "top_p",
        }
    ),
    renamed={
        "n_predict": "max_tokens",
        "repeat_penalty": "repetition_penalty",
    },
)
"""Any other name the worker passes over, and lists in the header `x-ignored` of its answer."""
