"""Ollama: one `ollama serve` in which many models take turns, asked over its own API.

Its `/v1` is never used: that ignores `num_ctx` (and so loads the model anew), forces a temperature and loses
errors in mid-stream. So a request is turned into the native one, and the answer back into OpenAI's.

    ollama                  how it is started, what its log says; what a running one loads and has loaded
    └─ ollama_requests      a client's request as the native API takes it
       └─ ollama_answers    the native answer, turned into OpenAI's
"""

import asyncio
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from footplate_daemon import processes
from footplate_daemon.errors import EngineFailed, TimedOut, Unavailable
from footplate_daemon.processes import ProcessId
from footplate_daemon.runtimes.base import (
    Call,
    Cause,
    Launch,
    LaunchPlan,
    Load,
    Progress,
    SleepCalls,
    Translated,
)
from footplate_daemon.runtimes.cases import Case, Need
from footplate_daemon.runtimes.commandline import replace_program
from footplate_daemon.runtimes.ollama_answers import openai_error
from footplate_daemon.runtimes.ollama_requests import (
    LOAD_OPTIONS,
    Target,
    load_options,
    native_call,
    own_names,
    translate,
)
from footplate_daemon.runtimes.patterns import find_cause, find_progress, milestone, symptom
from footplate_daemon.wire import Remedy

COMMON_PLACES = ("/usr/local/bin", "/usr/bin", "~/.local/bin", "~/ollama/bin", "/opt/ollama/bin")
"""Where its installers put it, looked into after PATH."""
FOREVER = -1
"""As `keep_alive`: who unloads a model is Footplate. The text "-1" would be refused."""
PS_SECONDS = 5.0
LISTED_SECONDS = 10.0
"""How long a model that was loaded may take to be listed."""
DAY_SECONDS = 86400.0
"""For a request that ends when the load does: whoever asks for it sets the limit."""
POLL_SECONDS = 0.05


class Answer(Protocol):
    """What a server said."""

    @property
    def status(self) -> int: ...
    def json(self) -> Any: ...


class Ask(Protocol):
    """One short HTTP call; None when nobody answers in time. To cancel it hangs up, which ends a load."""

    async def __call__(
        self, address: Any, method: str, path: str, *, body: Any = None, timeout_seconds: float
    ) -> Answer | None: ...


CANNOT: Mapping[Case, str] = {
    Case.SEVERAL: "It ignores `n`, and says so: ask several times.",
    Case.RERANKING: "Put the model on vLLM or llama.cpp.",
}
NEEDS: Mapping[Case, Need] = {
    Case.REASONING_OFF: Need("a model that can: gpt-oss thinks in any case."),
    Case.TOOLS: Need("a model of which Ollama knows that it calls tools; `tool_choice` cannot force one."),
    Case.IMAGES: Need("them as data URIs: it fetches nothing."),
}


class Ollama:
    """Starts `ollama serve`; turns requests and answers; loads and unloads models in a server that runs."""

    name = "ollama"
    also_answers: Collection[str] = frozenset()
    cannot = CANNOT
    needs = NEEDS

    def __init__(
        self,
        program: str | None = None,
        *,
        environment: Mapping[str, str],
        ask: Ask,
        keep_alive: float | str = FOREVER,
    ) -> None:
        """Use `program` if given, else search for it.

        `keep_alive` goes with every request, because without it the model keeps the one before; a number is
        seconds, a text a duration of Go's ("10m").
        """
        self._program = program
        self._environment = environment
        self._ask = ask
        self._keep_alive = keep_alive

    def find(self) -> str | None:
        """Give the path of the `ollama` command: as configured, else from PATH, else from a common place."""
        search_path = self._environment.get("PATH", "")
        if self._program is not None:
            return shutil.which(self._program, path=search_path)
        home = self._environment.get("HOME", "/root")
        places = (place.replace("~", home, 1) for place in COMMON_PLACES)
        return shutil.which("ollama", path=":".join((search_path, *places)))

    def launch(self, plan: LaunchPlan) -> Launch:
        """Give `ollama serve`, which is told everything by its environment; raise `Unavailable` without one.

        It knows no keys: it listens on the loopback only. Launch parameters become `OLLAMA_…` variables, but
        for the options of a load, which `load_model` and `call` take. Where its models are is left as it is.
        """
        program = "ollama" if plan.command else self._find_or_raise()
        command = replace_program(
            plan.command, (program, "serve"), plan.args, port=plan.port, model=plan.model
        )
        return Launch(
            command,
            {
                "OLLAMA_HOST": f"127.0.0.1:{plan.port}",
                "OLLAMA_KEEP_ALIVE": str(self._keep_alive),
                # What is asked here stays here.
                "OLLAMA_NO_CLOUD": "1",
                **_server_environment(plan.parameters),
                **plan.env,
            },
        )

    def health_path(self) -> str:
        """Answer 200 as soon as it serves, whatever is loaded; its log says so some time before."""
        return "/api/version"

    def serves(self, listing: Any, served_name: str) -> bool:
        """Whether an Ollama has that model, loaded or not; with no model at all its list is null."""
        models = listing.get("data") if isinstance(listing, dict) else None
        return any(
            same_model(str(model.get("id")), served_name)
            for model in models or ()
            if isinstance(model, dict) and model.get("owned_by") not in {"vllm", "llamacpp"}
        )

    def progress(self, line: str) -> Progress | None:
        return find_progress(MILESTONES, line)

    def recognise(self, log: Sequence[str], exit_code: int | None) -> Cause | None:  # noqa: ARG002
        """Read the newest load's part of the log: one server has loaded, and failed to load, many models.

        What the server answered to a load belongs at the end of `log`, for the log does not have all of it.
        """
        cause = find_cause(SYMPTOMS, _newest_load(log))
        if cause is not None and cause.code == "model_missing" and "model" in cause.facts:
            command = f"ollama pull {cause.facts['model']}"
            return replace(
                cause, remedies=(Remedy(id=0, title="Fetch the model", applies=False, command=command),)
            )
        return cause

    def sleeping(self, plan: LaunchPlan) -> SleepCalls | None:  # noqa: ARG002
        """Give nothing: to give memory back is to unload the model, which takes no other process with it."""
        return None

    def load(self, metrics: str) -> Load:  # noqa: ARG002
        """Know nothing: it has no `/metrics`."""
        return Load()

    def translate(self, body: Mapping[str, Any], context: int | None = None) -> Translated:
        """Give what becomes of the generation parameters; raise `Invalid` for a value of a wrong type."""
        return translate(body, context)

    def probe(
        self,
        served_name: str,
        context: int | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> tuple[str, Mapping[str, Any]]:
        """Ask for one token of chat, with the context of the load: another one would load the model anew."""
        return "/api/chat", {
            "model": served_name,
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": False,
            "keep_alive": self._keep_alive,
            "options": {"num_predict": 1, **load_options(parameters or {}, context)},
        }

    def call(
        self,
        path: str,
        body: Mapping[str, Any],
        served_name: str,
        context: int | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> Call:
        """Turn a client's request into a native one; raise `Invalid` for what has no place there.

        `context` and `parameters` must be those of the load, or the model is loaded anew.
        """
        options = load_options(parameters or {}, context)
        return native_call(path, body, Target(served_name, self._keep_alive, options))

    def is_up(self, answer: Any) -> bool:
        """Whether this is Ollama's answer of `/api/version`: it gives one only when it can load models."""
        return isinstance(answer, dict) and isinstance(answer.get("version"), str)

    async def load_model(
        self,
        address: Any,
        served_name: str,
        context: int | None,
        parameters: Mapping[str, Any] | None = None,
        *,
        capabilities: Sequence[str] = ("chat",),
    ) -> int | None:
        """Give the context that the model has, once it is in memory: less than asked if it was made for less.

        Raise `EngineFailed` with the server's words. There is no time limit, and to be cancelled ends the
        load. How far it is, `progress` of the log's lines and `measure` tell meanwhile.
        """
        is_chat = not {"embedding", "rerank"}.intersection(capabilities)
        path, body = ("/api/generate", {}) if is_chat else ("/api/embed", {"input": ""})
        answer = await self._ask(
            address,
            "POST",
            path,
            body={
                "model": served_name,
                "stream": False,
                "keep_alive": self._keep_alive,
                "options": load_options(parameters or {}, context),
                **body,
            },
            timeout_seconds=DAY_SECONDS,
        )
        _check(answer, f"load {served_name}")
        try:
            async with asyncio.timeout(LISTED_SECONDS):
                return await self._until_listed(address, served_name, context)
        except TimeoutError as error:
            raise EngineFailed(
                f"Ollama says that it loaded {served_name}, but does not list it with that context.",
                hint="Another program may be using this Ollama: see `ollama ps`.",
            ) from error

    async def unload_model(
        self,
        address: Any,
        served_name: str,
        *,
        leader: ProcessId | None = None,
        timeout_seconds: float = 30.0,
    ) -> None:
        """Return once the model is out of memory: not listed, and its process gone if we know the `leader`.

        Requests that run are waited for. Raise `EngineFailed` with the server's words, `TimedOut`.
        """
        if await self._is_gone(address, served_name, leader):
            return
        body = {"model": served_name, "stream": False, "keep_alive": 0}
        try:
            async with asyncio.timeout(timeout_seconds):
                answer = await self._ask(
                    address, "POST", "/api/generate", body=body, timeout_seconds=DAY_SECONDS
                )
                _check(answer, f"unload {served_name}")
                await self._until_gone(address, served_name, leader)
        except TimeoutError as error:
            raise TimedOut(
                f"Ollama did not unload {served_name} within {timeout_seconds:g} s.",
                hint="A request may still run on it; stopping the server frees its memory in any case.",
            ) from error

    async def loaded_names(self, address: Any) -> Mapping[str, int | None]:
        """Give what is in memory, under any name of it; a model still loading is not. Raise `EngineFailed`.

        The context is None where the server is too old to say.
        """
        answer = await self._ask(address, "GET", "/api/ps", timeout_seconds=PS_SECONDS)
        listing = _check(answer, "list what it has loaded")
        models = listing.get("models") if isinstance(listing, dict) else None
        return _ByName(
            {
                str(row.get("name") or row.get("model")): row.get("context_length") or None
                for row in models or ()
            }
        )

    def measure(self, leader: ProcessId) -> Progress | None:
        """Say how far the newest model's process has read its weights; None when there is none. Blocks."""
        newest = max(runners(leader), key=lambda runner: runner.create_time, default=None)
        return None if newest is None else _read_so_far(newest)

    async def _until_listed(self, address: Any, served_name: str, context: int | None) -> int | None:
        while True:
            loaded = await self.loaded_names(address)
            if served_name in loaded:
                own = loaded[served_name]
                if context is None or own is None or own <= context:
                    return own
            await asyncio.sleep(POLL_SECONDS)

    async def _until_gone(self, address: Any, served_name: str, leader: ProcessId | None) -> None:
        while True:
            if await self._is_gone(address, served_name, leader):
                return
            await asyncio.sleep(POLL_SECONDS)

    async def _is_gone(self, address: Any, served_name: str, leader: ProcessId | None) -> bool:
        """Whether it is listed no more, and there are no more processes with a model than models listed."""
        listed = await self.loaded_names(address)
        if served_name in listed:
            return False
        return leader is None or len(await asyncio.to_thread(runners, leader)) <= len(listed)

    def _find_or_raise(self) -> str:
        program = self.find()
        if program is not None:
            return program
        if self._program is not None:
            raise Unavailable(
                f"There is no Ollama at {self._program}.",
                hint="Mend the path of the program in config.toml.",
            )
        raise Unavailable(
            "Ollama is not installed: there is no `ollama` command on PATH or in the usual places.",
            hint="curl -fsSL https://ollama.com/install.sh | sh",
        )


def same_model(name: str, other: str) -> bool:
    """Whether two names mean the same model: `guide` is `guide:latest` is `library/guide`."""
    return _full_name(name) == _full_name(other)


def runners(leader: ProcessId) -> list[ProcessId]:
    """List the processes of a server that hold a model each: they outlive its SIGKILL. Blocks."""
    return [
        member
        for member in processes.group_members(leader)
        if member != leader and "--model" in processes.command_line(member)
    ]


class _ByName(Mapping[str, int | None]):
    """Models as they are listed, found by whichever of their names."""

    def __init__(self, listed: Mapping[str, int | None]) -> None:
        self._listed = listed
        self._by_full_name = {_full_name(name): context for name, context in listed.items()}

    def __getitem__(self, name: str) -> int | None:
        return self._by_full_name[_full_name(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._listed)

    def __len__(self) -> int:
        return len(self._listed)


def _server_environment(parameters: Mapping[str, Any]) -> dict[str, str]:
    return {
        f"OLLAMA_{name.upper()}": str(int(value)) if isinstance(value, bool) else str(value)
        for name, value in own_names(parameters).items()
        if name not in LOAD_OPTIONS
    }


def _check(answer: Answer | None, what: str) -> Any:
    """Give the answer's JSON; raise `EngineFailed` with the server's words where it is an error."""
    if answer is None:
        raise EngineFailed(f"Ollama was asked to {what} and did not answer.", hint="See: footplate logs")
    content = answer.json()
    said = content.get("error") if isinstance(content, dict) else None
    if answer.status == 200 and said is None:
        return content
    words = openai_error(said)["message"] if said else f"HTTP {answer.status}"
    hint = "ollama list shows the models that it has." if answer.status == 404 else "See: footplate logs"
    raise EngineFailed(
        f"Ollama could not {what}: {words}", hint=hint, details={"status": answer.status, "said": words}
    )


def _full_name(name: str) -> str:
    name = name.casefold().removeprefix("registry.ollama.ai/").removeprefix("library/")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _newest_load(log: Sequence[str]) -> Sequence[str]:
    for index in range(len(log) - 1, -1, -1):
        if "starting llama-server" in log[index]:
            return log[index:]
    return log


def _read_so_far(runner: ProcessId) -> Progress | None:
    """Compare what it read, or has mapped, with the size of its file: there is nothing else to go by."""
    arguments = processes.command_line(runner)
    try:
        size = Path(arguments[arguments.index("--model") + 1]).stat().st_size
        folder = Path(f"/proc/{runner.pid}")
        counters = dict(line.split(": ") for line in (folder / "io").read_text().splitlines())
        resident = int((folder / "statm").read_text().split()[1]) * 4096
    except (OSError, ValueError, IndexError):
        return None
    read = max(int(counters["rchar"]), resident)
    return Progress("loading weights", round(min(read / size, 0.99), 3)) if size else None


# What its log says: Ollama's own lines, and between them those of llama.cpp, which loads the model.

MILESTONES = (
    milestone(r'msg="server config"', "starting", 0.02),
    milestone(r"Listening on .*\(version", "looking for GPUs", 0.05),
    milestone(r'msg="inference compute"', "GPUs found", 0.1),
    milestone(r'msg="starting llama-server"', "starting the model's process", 0.15),
    milestone(r'msg="loading model via llama-server"|waiting for llama-server', "loading weights", 0.2),
    milestone(r"load_tensors:", "loading weights", 0.3),
    milestone(r"llama_context: constructing|llama_kv_cache", "reserving the KV cache", 0.8),
    milestone(r"warming up the model", "warming up", 0.9),
    milestone(r"llama-server started in", "model loaded", 0.98),
    milestone(r'msg="loaded runners"', "ready", 1.0),
)
"""How far a start, or a load, has come."""

SYMPTOMS = (
    symptom(
        "port_taken",
        r"listen tcp \S*:(?P<port>\d+): bind: address already in use",
        "Another program listens on port {port}.",
    ),
    symptom(
        "no_permission",
        r"Error: .*?(?P<path>/\S+): permission denied",
        "Ollama may not use {path}.",
    ),
    symptom(
        "model_missing",
        r"model ['\"](?P<model>[^'\"]+)['\"] not found|pull model manifest: file does not exist",
        "Ollama does not have this model.",
    ),
    symptom(
        "unknown_architecture",
        r"unknown model architecture: '(?P<architecture>[^']*)'",
        "This Ollama does not know the architecture `{architecture}`.",
    ),
    symptom(
        "corrupt_weights",
        r"tensor .* exceeds file size|is not within the file bounds|model is corrupted or incomplete|"
        r"digest mismatch, file must be downloaded again",
        "The model's file is damaged or incomplete.",
    ),
    symptom(
        "not_gguf",
        r"supplied file was not in GGUF format|invalid magic characters",
        "The file is not in the GGUF format.",
    ),
    symptom(
        "out_of_gpu_memory",
        r"allocating (?P<wanted_mib>[\d.]+) MiB on device \d+: cudaMalloc failed: out of memory",
        "The GPU has no {wanted_mib} MiB left for the model.",
    ),
    symptom(
        "out_of_gpu_memory",
        r"cudaMalloc failed|(?:unable|failed) to allocate (?:CUDA|ROCm|Vulkan)\d* buffer|"
        r"ErrorOutOfDeviceMemory",
        "The GPU's memory is too small for the model.",
    ),
    symptom(
        "out_of_memory",
        r"insufficient memory \(attempted to allocate\s+(?P<wanted_mib>[\d.]+) MB\)",
        "The machine has no {wanted_mib} MB of memory left for the model.",
    ),
    symptom(
        "out_of_memory",
        r"failed to allocate buffer for kv cache",
        "The memory is too small for the context.",
    ),
    symptom(
        "out_of_memory",
        r"out of memory|failed to allocate|insufficient memory|not enough memory|allocation failed",
        "The memory is too small for the model with its context.",
    ),
    symptom(
        "killed",
        r"llama-server process has terminated: signal: killed",
        "The model's process was killed, by someone or by the kernel because memory ran out.",
    ),
    symptom(
        "start_timeout",
        r"timed out waiting for llama-server to start",
        "The load came to a standstill, and Ollama gave it up (OLLAMA_LOAD_TIMEOUT).",
    ),
    symptom(
        "busy",
        r"maximum pending requests exceeded",
        "Too many requests wait for a model to be loaded in this Ollama.",
    ),
    symptom(
        "child_died",
        r"llama-server process has terminated: (?P<how>[^:]+?)[\s:]*$",
        "The model's process ended ({how}) without a word; a KV cache type that it does not know does that.",
    ),
    symptom(
        "child_died",
        r"llama-server process has terminated: (?P<reason>.+)",
        "The model's process ended while it loaded.",
    ),
)
"""How a server, or a load in it, fails; the telling rows first."""
