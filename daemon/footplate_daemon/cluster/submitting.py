"""Hands the input file of a batch to a Ray cluster, and sees it through: the other end of `ray_worker`.

Everything that can be said without the cluster is said first: the address, the environment, every bad line.
Blocks, and needs no daemon. Its files are the batch: the same wish again asks only what has no answer yet.
"""

import contextlib
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from footplate_daemon import environments, guide, processes, settings, weights
from footplate_daemon.batches.validation import Findings, Limits, Validation
from footplate_daemon.catalog import Catalog, Variant
from footplate_daemon.cluster.ray_worker import ENDPOINTS, Model, Order
from footplate_daemon.cluster.telling import Story, Tell
from footplate_daemon.errors import FootplateError, Invalid, NotFound, Unavailable
from footplate_daemon.paths import Paths
from footplate_daemon.processes import ProcessId
from footplate_daemon.settings import Settings
from footplate_daemon.wire_batches import BatchError, BatchProgress

WORKER = Path(__file__).with_name("ray_worker.py")
LOG = "ray-worker.log"
END_SECONDS = 20.0
"""How long an interrupted worker may take to leave the cluster."""
TAIL_LINES = 12
CPU_CACHE_BYTES = 1024**3
"""vLLM's share for its cache on the CPU, where nothing is said: its own default is most of the memory."""
NOT_THE_ENGINES = frozenset(
    {"chat_template", "tool_call_parser", "enable_auto_tool_choice", "enable_log_requests", "api_key"}
)
"""Parameters of `vllm serve` that its engine does not know."""
ON_THIS_MACHINE = ("auto", "local")


@dataclass(frozen=True)
class Wish:
    """A batch for a cluster."""

    address: str
    """Of the cluster, as `address` gives it."""
    input: Path
    endpoint: str
    output: Path
    errors: Path
    """Where lines go that were answered with an error."""
    weights: str | None = None
    """What the nodes load instead of what the catalog says: a repository, or a path on each of them."""
    engine: Mapping[str, Any] = field(default_factory=dict)
    """vLLM's engine arguments; they go over the catalog's."""
    replicas: int = 1
    gpus: float = 1.0
    """Of one replica; 0 serves on the CPU."""
    cpus: float = 1.0
    batch_size: int = 64
    """Lines that an engine is handed at a time."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Of the engines; goes over the catalog's."""
    local_cpus: int | None = None


def address(text: str) -> str:
    """Read what stands after `--on`: `ray://host:10001`, `ray://auto` or `ray://local`; raise `Invalid`."""
    rest = text.removeprefix("ray://")
    if rest != text and rest in ON_THIS_MACHINE:
        return rest
    if re.fullmatch(r"ray://(\[[0-9a-fA-F:.]+\]|[^/\s:@]+):[0-9]{1,5}", text):
        return text
    raise Invalid(
        f"{text!r} is no Ray cluster.",
        param="on",
        hint="Write ray://HOST:10001, ray://auto for this machine's cluster, or ray://local to start one.",
    )


def python(environment: Mapping[str, str]) -> Path:
    """Give the Python of the environment with Ray; raise `Unavailable` where there is none."""
    named = environment.get("FOOTPLATE_RAY_PYTHON")
    if named:
        return Path(named).expanduser()
    for folder in environments.recorded("ray", environment):
        return folder / "bin" / "python"
    raise Unavailable(
        "There is no environment with Ray.",
        hint="Make one: footplate env create ray. Or name its Python in FOOTPLATE_RAY_PYTHON.",
    )


def without_space(program: Path, folder: Path) -> Path:
    """Give a way to an environment's Python that has no space, by a link in this folder if need be.

    Ray cuts the commands of its workers at spaces, and waits for workers that never start.
    """
    if " " not in str(program):
        return program
    link = folder / "environment"
    link.symlink_to(program.parent.parent)
    return link / "bin" / program.name


def read_catalog(paths: Paths) -> Catalog:
    """Build the catalog from what is written and what lies in the models folders; no daemon is asked."""
    configuration: Settings = settings.load(paths.config_file)
    folders = (paths.models_dir, *(Path(folder) for folder in configuration.catalog.folders))
    return Catalog.build(
        configuration, models_dir=paths.models_dir, guide=guide.path(), found=weights.find(folders)
    )


def submit(
    wish: Wish, catalog: Catalog, paths: Paths, environment: Mapping[str, str], tell: Tell
) -> BatchProgress:
    """Have a batch answered on a cluster; give how it ended. `failed` names every bad line, and nothing ran.

    Raise `Invalid` or `Unavailable` if it cannot be tried, `EngineFailed` if the cluster gives up; the files
    keep what is done. `KeyboardInterrupt` leaves the cluster and keeps it, too.
    """
    program = python(environment)
    _check(wish)
    story = Story(wish.address, wish.endpoint, wish.input, wish.output, tell)
    found = _validated(wish, catalog)
    if not found.is_good:
        return story.refused(found.all_errors())
    models = {name: model(name, wish, catalog) for name in found.models}
    # In /tmp itself: the paths of a cluster's sockets are long.
    with tempfile.TemporaryDirectory(prefix="fp-ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        order = _order(wish, models, Path(folder))
        with _worker(
            without_space(program, Path(folder)), order, paths.logs_dir / LOG, environment
        ) as worker:
            for event in worker.events():
                story.hear(event)
    return story.ended(worker.process.returncode, worker.log, worker.tail())


def _order(wish: Wish, models: Mapping[str, Model], folder: Path) -> Order:
    return Order(
        wish.address,
        wish.endpoint,
        wish.input.absolute(),
        wish.output.absolute(),
        wish.errors.absolute(),
        models,
        wish.replicas,
        wish.gpus,
        wish.cpus,
        wish.batch_size,
        wish.local_cpus,
        folder,
    )


def model(name: str, wish: Wish, catalog: Catalog) -> Model:
    """Say how the nodes find and load what lines call `name`; raise `NotFound` naming what would help."""
    variant = _variant(name, catalog)
    if variant is None:
        location = wish.weights or (name if "/" in name else None)
        if location is None:
            raise NotFound(
                f'No node would know what to load for "{name}".',
                param="model",
                hint="Put the model on vLLM in config.toml, or say it: --weights ORG/NAME",
            )
        return Model(location, _engine(wish, {}), environment=dict(wish.environment))
    # Without its preset, which is for the size of this machine's GPU, and without another runtime's words.
    is_vllm = variant.runtime == "vllm"
    told = {"max_model_len": variant.context, **(variant.parameters if is_vllm else {})}
    template = told.get("chat_template")
    return Model(
        wish.weights or variant.weights.location,
        _engine(wish, told),
        variant.profile_body,
        variant.profile.system,
        _template(str(template)) if template else None,
        {**(variant.env if is_vllm else {}), **wish.environment},
    )


def _variant(name: str, catalog: Catalog) -> Variant | None:
    """Give what the catalog has under a name for an engine that reads such weights."""
    for runtime in ("vllm", "transformers"):
        with contextlib.suppress(NotFound):
            return catalog.resolve(name, runtime)
    return None


def _engine(wish: Wish, told: Mapping[str, Any]) -> dict[str, Any]:
    engine = {**told, **wish.engine}
    kept = {
        name: _number(value)
        for name, value in engine.items()
        if value is not None and name not in NOT_THE_ENGINES
    }
    if not wish.gpus and not {"kv_cache_memory_bytes", "gpu_memory_utilization"} & kept.keys():
        kept["kv_cache_memory_bytes"] = CPU_CACHE_BYTES
    return kept


def _number(value: Any) -> Any:
    """Read `64M` as vLLM's command line does; the engine itself takes numbers alone."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgtKMGT])", value) if isinstance(value, str) else None
    if found is None:
        return value
    base = 1000 if found[2].islower() else 1024
    return int(float(found[1]) * base ** ("kmgt".index(found[2].lower()) + 1))


def _template(named: str) -> str:
    try:
        return Path(named).expanduser().read_text("utf-8")
    except (OSError, ValueError) as error:
        raise Invalid(
            f"The chat template {named} cannot be read.", hint="Mend chat_template in config.toml."
        ) from error


def _check(wish: Wish) -> None:
    if wish.endpoint not in ENDPOINTS:
        raise Invalid(
            f"The batch processor on Ray does not answer {wish.endpoint}.",
            param="endpoint",
            hint=f"It answers {', '.join(ENDPOINTS)}. For others, submit the batch without --on.",
        )
    files = {path.absolute() for path in (wish.input, wish.output, wish.errors)}
    if len(files) < 3:
        raise Invalid(
            "The input, the answers and the errors need a file each.",
            param="output",
            hint="Name another file for the answers: -o answers.jsonl",
        )
    least = {"replicas": 1, "batch_size": 1, "gpus": 0, "cpus": 0}
    for name, bound in least.items():
        if getattr(wish, name) < bound:
            raise Invalid(f"{name} must be at least {bound}.", param=name)


def _validated(wish: Wish, catalog: Catalog) -> Findings:
    def judge(name: str) -> BatchError | None:
        try:
            model(name, wish, catalog)
        except FootplateError as error:
            message = f"{error.message} {error.hint or ''}".strip()
            return BatchError(code="model_not_found", message=message, param="body.model")
        return None

    limits = Limits(line_bytes=128 * 1024 * 1024)
    try:
        return Validation(wish.endpoint, limits, judge, lambda _: None).run(wish.input)
    except OSError as error:
        raise Invalid(
            f"{wish.input} cannot be read: {error.strerror}.", hint="Name a file that you may read."
        ) from error


# --- The worker ------------------------------------------------------------------------------------------


@dataclass
class _Worker:
    process: subprocess.Popen[str]
    log: Path
    log_start: int

    def events(self) -> Iterator[dict[str, Any]]:
        """Give what it says, to its end."""
        for line in self.process.stdout or ():
            with contextlib.suppress(ValueError):  # a library may print to where we listen
                event = json.loads(line)
                if isinstance(event, dict) and isinstance(event.get("event"), str):
                    yield event

    def tail(self) -> list[str]:
        """Give the last lines that it logged."""
        with self.log.open("rb") as file:
            file.seek(self.log_start)
            lines = file.read().decode(errors="replace").splitlines()
        return [line for line in lines if line.strip()][-TAIL_LINES:]


@contextlib.contextmanager
def _worker(program: Path, order: Order, log: Path, environment: Mapping[str, str]) -> Iterator[_Worker]:
    """Run the worker for the block; whatever ends the block ends it, with all that it started."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(log.open("ab"))
        start = file.tell()
        told = stack.enter_context(tempfile.TemporaryFile("w+"))
        json.dump(asdict(order), told, default=str)
        told.seek(0)
        try:
            process = subprocess.Popen(
                [program, WORKER],
                stdin=told,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env=_environment(order.address, environment),
                # So that a Ctrl-C reaches it through us alone, once.
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable(
                f"{program} cannot be run: {error.strerror}.", hint="Make one: footplate env create ray"
            ) from error
    leader = processes.identify(process.pid)
    try:
        yield _Worker(process, log, start)
        process.wait()
    finally:
        _end(process, leader)


def _environment(where: str, environment: Mapping[str, str]) -> dict[str, str]:
    # What points Python elsewhere would reach into the environment with Ray.
    ours = {name: value for name, value in environment.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    told = {"RAY_USAGE_STATS_ENABLED": "0", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if where not in ON_THIS_MACHINE and _has_token(environment):
        # A Ray client sends its token only where it is told to.
        told["RAY_AUTH_MODE"] = "token"
    return {**told, **ours}


def _has_token(environment: Mapping[str, str]) -> bool:
    if environment.get("RAY_AUTH_TOKEN") or environment.get("RAY_AUTH_TOKEN_PATH"):
        return True
    return Path(environment.get("HOME", "~"), ".ray", "auth_token").expanduser().is_file()


def _end(process: subprocess.Popen[str], leader: ProcessId | None) -> None:
    """Let the worker leave the cluster; then kill what is left: Ray's agents outlive a worker's SIGKILL."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_SECONDS)
    if leader is not None:
        processes.kill_group(leader)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
