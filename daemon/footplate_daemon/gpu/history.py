"""The last minutes of every gauge, as few numbers: what a screen draws before it has seen anything itself."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from footplate_daemon.wire import GpuHistory, GpuSnapshot, GpuTrace, Sample

SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class _Moment:
    """Of a snapshot, what is worth keeping."""

    at: float
    cpu_percent: float | None
    ram_used_bytes: int | None
    gpus: dict[str, "_Figures"]
    """By uuid; those that could be read."""


@dataclass(frozen=True, slots=True)
class _Figures:
    """Of a sample, what is worth keeping."""

    index: int
    utilisation_percent: float | None
    memory_used_bytes: int | None
    temperature_celsius: float | None
    power_watts: float | None


class History:
    """Keeps what was read in the last minutes, and forgets the rest."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._moments: deque[_Moment] = deque()

    def add(self, snapshot: GpuSnapshot) -> None:
        """Keep what a snapshot says; later ones have later times."""
        if self._moments and self._moments[-1].at > snapshot.at:
            # Somebody set the clock back: what lies ahead of it would never leave.
            self._moments.clear()
        self._moments.append(
            _Moment(
                at=snapshot.at,
                cpu_percent=snapshot.cpu_percent,
                ram_used_bytes=snapshot.ram_used_bytes,
                gpus={gpu.uuid: _figures(gpu) for gpu in snapshot.gpus if gpu.uuid},
            )
        )
        while self._moments[0].at < snapshot.at - self._seconds:
            self._moments.popleft()

    def last(self, seconds: float) -> GpuHistory:
        """Give what was read in so many seconds before the newest reading."""
        if not self._moments:
            return GpuHistory()
        since = self._moments[-1].at - seconds
        moments = [moment for moment in self._moments if moment.at >= since]
        return GpuHistory(
            at=tuple(round(moment.at, 2) for moment in moments),
            gpus=_traces(moments),
            cpu_percent=tuple(moment.cpu_percent for moment in moments),
            ram_used_bytes=tuple(moment.ram_used_bytes for moment in moments),
        )


def _figures(gpu: Sample) -> _Figures:
    return _Figures(
        index=gpu.index,
        utilisation_percent=gpu.utilisation_percent,
        memory_used_bytes=gpu.memory_used_bytes,
        temperature_celsius=gpu.temperature_celsius,
        power_watts=gpu.power_watts,
    )


def _traces(moments: Sequence[_Moment]) -> tuple[GpuTrace, ...]:
    indices = {uuid: figures.index for moment in moments for uuid, figures in moment.gpus.items()}
    traces = [_trace(uuid, index, moments) for uuid, index in indices.items()]
    return tuple(sorted(traces, key=lambda trace: trace.index))


def _trace(uuid: str, index: int, moments: Sequence[_Moment]) -> GpuTrace:
    figures = [moment.gpus.get(uuid) for moment in moments]
    return GpuTrace(
        index=index,
        uuid=uuid,
        utilisation_percent=tuple(each and each.utilisation_percent for each in figures),
        memory_used_bytes=tuple(each and each.memory_used_bytes for each in figures),
        temperature_celsius=tuple(each and each.temperature_celsius for each in figures),
        power_watts=tuple(each and each.power_watts for each in figures),
    )
