"""How everything is now, read when it is asked for: queue, batches, engines, services, GPUs, the machine."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from footplate_daemon.wire import Engine, EngineState, GpuSnapshot, Sample, Status

ENGINE_LABELS = ("engine", "variant", "role")
GPU_LABELS = ("gpu", "uuid", "name")


class BatchFigures(NamedTuple):
    """The batches that have not ended, together."""

    under_way: int = 0
    in_flight: int = 0
    """Lines that are being asked."""
    left: int = 0
    completed: int = 0
    failed: int = 0
    """Lines of batches under way alone: what has ended is counted no more."""


class Gauges(Collector):
    """Reads the status and the newest sample; asks nobody."""

    def __init__(
        self,
        status: Callable[[], Status],
        gpus: Callable[[], GpuSnapshot | None],
        under_way: Callable[[], int],
        batches: Callable[[], BatchFigures],
    ) -> None:
        """`gpus` gives None until they were read once; `under_way` counts exchanges that wait or run."""
        self._status = status
        self._gpus = gpus
        self._under_way = under_way
        self._batches = batches

    def collect(self) -> Iterator[Metric]:
        """Give every family, those without a value too."""
        status = self._status()
        yield InfoMetricFamily("footplate_build", "The daemon's version.", {"version": status.daemon.version})
        yield _gauge("queue_waiting", "Requests that wait for an engine.", status.queue.waiting)
        yield _gauge("queue_capacity", "Requests that may wait.", status.queue.capacity)
        yield _gauge("exchanges_under_way", "Exchanges that wait or run.", self._under_way())
        yield from _of_batches(self._batches())
        yield from _engines(status)
        snapshot = self._gpus()
        yield from _gpus(snapshot.gpus if snapshot else ())
        yield from _host(snapshot)


def _of_batches(figures: BatchFigures) -> Iterator[Metric]:
    yield _gauge("batches_under_way", "Batches that have not ended.", figures.under_way)
    yield _gauge("batch_lines_in_flight", "Lines of batches that are being asked.", figures.in_flight)
    text = "Lines of the batches that have not ended, by what became of them so far."
    family = GaugeMetricFamily("footplate_batch_lines", text, labels=("state",))
    counts = {"left": figures.left, "completed": figures.completed, "failed": figures.failed}
    for state, count in counts.items():
        family.add_metric((state,), count)
    yield family


def _engines(status: Status) -> Iterator[Metric]:
    """Give what is known of each; of two launches of a variant, one of them stopping, the later one."""
    seats = {("engine", each.name, each.variant): each for each in status.engines}
    seats |= {("service", each.name, each.variant): each for each in status.services}
    rows = [((name, variant, role), engine) for (role, name, variant), engine in seats.items()]
    yield _states(rows)
    for name, text, read in _ENGINE_GAUGES:
        family = GaugeMetricFamily(f"footplate_engine_{name}", text, labels=ENGINE_LABELS)
        for labels, engine in rows:
            if (value := read(engine)) is not None:
                family.add_metric(labels, value)
        yield family


def _states(rows: Sequence[tuple[tuple[str, str, str], Engine]]) -> Metric:
    text = "1 for the state that an engine or service is in, 0 for the others."
    family = GaugeMetricFamily("footplate_engine_state", text, labels=(*ENGINE_LABELS, "state"))
    for labels, engine in rows:
        for state in EngineState:
            family.add_metric((*labels, state.value), engine.state is state)
    return family


def _gpus(samples: Sequence[Sample]) -> Iterator[Metric]:
    for name, text, read in _GPU_GAUGES:
        family = GaugeMetricFamily(f"footplate_gpu_{name}", text, labels=GPU_LABELS)
        for sample in samples:
            if (value := read(sample)) is not None:
                family.add_metric((str(sample.index), sample.uuid, sample.name), value)
        yield family


def _host(snapshot: GpuSnapshot | None) -> Iterator[Metric]:
    busy = _of_one(snapshot.cpu_percent) if snapshot else None
    yield _gauge("host_cpu_ratio", "How busy all cores together are.", busy)
    yield _gauge("host_memory_total_bytes", "RAM.", snapshot.ram_total_bytes if snapshot else None)
    yield _gauge(
        "host_memory_used_bytes",
        "RAM that cannot be taken back for something else.",
        snapshot.ram_used_bytes if snapshot else None,
    )


def _gauge(name: str, text: str, value: float | None) -> Metric:
    return GaugeMetricFamily(f"footplate_{name}", text, value=value)


def _of_one(percent: float | None) -> float | None:
    return None if percent is None else percent / 100


_ENGINE_GAUGES: tuple[tuple[str, str, Callable[[Engine], float | None]], ...] = (
    ("memory_bytes", "GPU memory of its processes; RAM without a GPU.", lambda engine: engine.memory_bytes),
    ("restarts", "Crashes in a row since it last served for a while.", lambda engine: engine.restarts),
    ("leases", "Requests of ours that it answers now.", lambda engine: engine.leases),
    ("kv_cache_ratio", "Share of its KV cache that is in use.", lambda engine: engine.kv_cache_fraction),
    ("requests_running", "Requests that it says it answers.", lambda engine: engine.requests_running),
    ("requests_waiting", "Requests that it says it lets wait.", lambda engine: engine.requests_waiting),
)
_GPU_GAUGES: tuple[tuple[str, str, Callable[[Sample], float | None]], ...] = (
    ("up", "1 while it can be read, 0 while it is lost.", lambda gpu: gpu.memory_total_bytes is not None),
    (
        "utilisation_ratio",
        "Share of time in which it computes.",
        lambda gpu: _of_one(gpu.utilisation_percent),
    ),
    ("memory_used_bytes", "Memory that processes hold.", lambda gpu: gpu.memory_used_bytes),
    ("memory_free_bytes", "Memory that is free.", lambda gpu: gpu.memory_free_bytes),
    ("memory_total_bytes", "All its memory, the driver's own part too.", lambda gpu: gpu.memory_total_bytes),
    ("temperature_celsius", "Temperature.", lambda gpu: gpu.temperature_celsius),
    ("power_watts", "Power that it draws.", lambda gpu: gpu.power_watts),
    ("power_limit_watts", "Power that it may draw.", lambda gpu: gpu.power_limit_watts),
)
