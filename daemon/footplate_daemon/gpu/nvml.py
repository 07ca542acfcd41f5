"""NVIDIA's management library: what each GPU is, holds and does. The only importer of pynvml.

`Nvml` blocks; the event loop asks it through an `NvmlThread`. What a GPU or its driver does not tell is
None. Knows nothing of engines.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pynvml  # type: ignore[import-untyped]  # it has no annotations

from footplate_daemon.errors import Unavailable

T = TypeVar("T")

ANSWER_SECONDS = 5.0
"""After so long without an answer the driver counts as lost: it can hang in the kernel for good."""
RETRY_SECONDS = 5.0
"""A driver that was not there is not looked for again before: each look may start nvidia-modprobe."""


class NoGpu(Unavailable):
    """There is no NVIDIA driver that can be used, or it finds no GPU."""


class GpuLost(Unavailable):
    """A GPU that the driver listed, or the driver itself, answers no more."""


@dataclass(frozen=True)
class GpuMemory:
    """The memory of one GPU, in bytes."""

    total: int
    reserved: int
    """Kept by the driver for itself; neither used nor free. 0 when the driver counts it as used."""
    used: int
    free: int


@dataclass(frozen=True)
class Reading:
    """One reading of one GPU; None is what it does not tell."""

    index: int
    uuid: str
    name: str
    memory: GpuMemory | None
    processes: dict[int, int | None] | None
    """Bytes by pid, as the driver's machine numbers them: in a container not the numbers of /proc."""
    utilisation_percent: int | None
    temperature_celsius: int | None
    temperature_limit_celsius: int | None
    """Where the GPU slows itself down."""
    power_watts: float | None
    power_limit_watts: float | None
    energy_joules: float | None
    """Used since the driver was loaded."""
    sm_clock_mhz: int | None
    sm_clock_limit_mhz: int | None
    """As fast as it goes."""
    memory_clock_mhz: int | None
    pcie_generation: int | None
    """Of the link as it is now: it slows down when it is idle."""
    pcie_lanes: int | None
    pcie_rx_bytes_per_second: int | None
    pcie_tx_bytes_per_second: int | None
    throttle_reasons: tuple[str, ...] | None
    """In words; empty when nothing holds its clocks down."""
    fan_percent: int | None


class Nvml:
    """A connection to the driver, opened when it is first asked; for one thread at a time.

    Everything may raise `NoGpu` or, once a GPU was listed, `GpuLost`. A driver that was restarted is
    opened anew within the same call.
    """

    def __init__(self) -> None:
        self._is_open = False

    def count(self) -> int:
        """Give how many GPUs the driver lists, never 0."""
        try:
            found = self._count()
        except GpuLost:
            self.close()
            found = self._count()
        if found == 0:
            raise NoGpu("The NVIDIA driver finds no GPU.", hint="See: nvidia-smi -L")
        return found

    def driver_version(self) -> str | None:
        """Give the driver's version, e.g. `570.86.15`."""
        self._open()
        try:
            return _told(pynvml.nvmlSystemGetDriverVersion)
        except pynvml.NVMLError as error:
            raise _lost(error) from error

    def memory(self, index: int) -> GpuMemory | None:
        """Give the memory of one GPU; None when it has none of its own."""
        return self._ask(index, _memory)

    def processes(self, index: int) -> dict[int, int | None] | None:
        """Give the bytes that each pid holds on one GPU; None when the driver does not tell."""
        return self._ask(index, _processes)

    def read(self, index: int) -> Reading:
        """Give everything of one GPU; takes about 45 ms, since PCIe traffic is counted for 20 ms each way."""
        return self._ask(index, lambda handle: _reading(index, handle))

    def close(self) -> None:
        """Let go of the driver; the next question opens it again."""
        if self._is_open:
            self._is_open = False
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()

    def _open(self) -> None:
        if self._is_open:
            return
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise _no_gpu(error) from error
        self._is_open = True

    def _count(self) -> int:
        self._open()
        try:
            return int(pynvml.nvmlDeviceGetCount())
        except pynvml.NVMLError as error:
            raise _lost(error) from error

    def _ask(self, index: int, question: Callable[[Any], T]) -> T:
        try:
            return self._ask_once(index, question)
        except GpuLost:
            self.close()
            return self._ask_once(index, question)

    def _ask_once(self, index: int, question: Callable[[Any], T]) -> T:
        self._open()
        try:
            return question(pynvml.nvmlDeviceGetHandleByIndex(index))
        except pynvml.NVMLError as error:
            raise _lost(error) from error


class NvmlThread:
    """Asks the driver from the event loop: one question at a time, in a thread, with a time limit for each.

    A driver that hangs keeps one thread, however often it is asked.
    """

    def __init__(
        self, *, answer_seconds: float = ANSWER_SECONDS, retry_seconds: float = RETRY_SECONDS
    ) -> None:
        self._nvml = Nvml()
        self._answer_seconds = answer_seconds
        self._retry_seconds = retry_seconds
        self._running: asyncio.Future[Any] | None = None
        self._absent: tuple[NoGpu, float] | None = None

    async def ask(self, question: Callable[[Nvml], T]) -> T:
        """Give the answer; raise `NoGpu` or `GpuLost`, the latter also when none comes in time."""
        loop = asyncio.get_running_loop()
        self._refuse_while_absent(loop.time())
        try:
            while (before := self._running) is not None:
                async with asyncio.timeout(self._answer_seconds):
                    await asyncio.wait({before})
            async with asyncio.timeout(self._answer_seconds):
                asking = self._running = loop.run_in_executor(None, question, self._nvml)
                asking.add_done_callback(self._answered)
                return await asyncio.shield(asking)
        except TimeoutError as error:
            raise GpuLost(
                f"The NVIDIA driver has not answered for {self._answer_seconds:g} s.",
                hint="It hangs in the kernel: see dmesg.",
            ) from error
        except NoGpu as error:
            self._absent = error, loop.time() + self._retry_seconds
            raise

    async def close(self) -> None:
        """Let go of the driver."""
        with contextlib.suppress(Unavailable):
            await self.ask(Nvml.close)

    def _refuse_while_absent(self, now: float) -> None:
        if self._absent is not None and now < self._absent[1]:
            error = self._absent[0]
            raise NoGpu(error.message, hint=error.hint)
        self._absent = None

    def _answered(self, answer: "asyncio.Future[Any]") -> None:
        self._running = None
        if not answer.cancelled():
            answer.exception()  # whoever asked may be gone, and then nobody looks at it


# --- Errors --------------------------------------------------------------------------------------------

_GONE = frozenset(
    {
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_RESET_REQUIRED,
        pynvml.NVML_ERROR_GPU_NOT_FOUND,
    }
)
"""The GPU or the driver is gone; any other code concerns the one value that was asked for."""

_MISMATCH = (
    "The NVIDIA driver was updated, and the one in the kernel is still the old one.",
    "Restart the machine; if the kernel's driver has been reloaded already: footplate restart",
)
_NO_GPU = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: (
        "This machine has no NVIDIA driver (libnvidia-ml.so.1 was not found).",
        None,
    ),
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: (
        "The NVIDIA driver is installed, but the kernel has not loaded it.",
        "See: nvidia-smi, and dmesg",
    ),
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: _MISMATCH,
    pynvml.NVML_ERROR_NO_PERMISSION: (
        "This user may not use the NVIDIA driver.",
        "See who may: ls -l /dev/nvidia*",
    ),
}
_LOST = {
    pynvml.NVML_ERROR_GPU_IS_LOST: (
        "The GPU is lost: it has fallen off the bus or broke down.",
        "See dmesg for its Xid; often only a restart of the machine brings it back.",
    ),
    pynvml.NVML_ERROR_RESET_REQUIRED: ("The GPU must be reset.", "nvidia-smi --gpu-reset"),
    pynvml.NVML_ERROR_UNINITIALIZED: ("The NVIDIA driver was restarted.", None),
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: ("The NVIDIA driver was unloaded.", None),
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: _MISMATCH,
    pynvml.NVML_ERROR_INVALID_ARGUMENT: ("The NVIDIA driver no longer lists the GPU.", "See: nvidia-smi -L"),
    pynvml.NVML_ERROR_GPU_NOT_FOUND: ("The NVIDIA driver no longer lists the GPU.", "See: nvidia-smi -L"),
}


def _no_gpu(error: pynvml.NVMLError) -> NoGpu:
    message, hint = _NO_GPU.get(
        error.value, (f"The NVIDIA driver cannot be used: {error}.", "See: nvidia-smi")
    )
    return NoGpu(message, hint=hint)


def _lost(error: pynvml.NVMLError) -> GpuLost:
    message, hint = _LOST.get(error.value, (f"The GPU cannot be read: {error}.", "See: nvidia-smi"))
    return GpuLost(message, hint=hint)


def _told(read: Callable[..., T], *arguments: object) -> T | None:
    """Give a value, or None when this GPU or driver does not tell it."""
    try:
        return read(*arguments)
    except pynvml.NVMLError as error:
        if error.value in _GONE:
            raise
        return None


# --- What is read --------------------------------------------------------------------------------------

_THROTTLE_WORDS = {
    pynvml.nvmlClocksThrottleReasonSwPowerCap: "power cap",
    pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown: "power brake",
    pynvml.nvmlClocksThrottleReasonSwThermalSlowdown: "heat",
    pynvml.nvmlClocksThrottleReasonHwThermalSlowdown: "heat, by hardware",
    pynvml.nvmlClocksThrottleReasonHwSlowdown: "hardware slowdown",
    pynvml.nvmlClocksThrottleReasonApplicationsClocksSetting: "clocks set by a user",
    pynvml.nvmlClocksThrottleReasonDisplayClockSetting: "display clocks",
    pynvml.nvmlClocksThrottleReasonSyncBoost: "sync boost",
}
"""Being idle is a reason to the driver, not to us."""


def _reading(index: int, handle: Any) -> Reading:
    utilisation = _told(pynvml.nvmlDeviceGetUtilizationRates, handle)
    return Reading(
        index=index,
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        name=pynvml.nvmlDeviceGetName(handle),
        memory=_memory(handle),
        processes=_processes(handle),
        utilisation_percent=None if utilisation is None else utilisation.gpu,
        temperature_celsius=_temperature(handle),
        temperature_limit_celsius=_told(
            pynvml.nvmlDeviceGetTemperatureThreshold, handle, pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN
        ),
        power_watts=_times(_told(pynvml.nvmlDeviceGetPowerUsage, handle), 0.001),
        power_limit_watts=_times(_told(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle), 0.001),
        energy_joules=_times(_told(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle), 0.001),
        sm_clock_mhz=_told(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
        sm_clock_limit_mhz=_told(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_SM),
        memory_clock_mhz=_told(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_MEM),
        pcie_generation=_told(pynvml.nvmlDeviceGetCurrPcieLinkGeneration, handle),
        pcie_lanes=_told(pynvml.nvmlDeviceGetCurrPcieLinkWidth, handle),
        pcie_rx_bytes_per_second=_pcie(handle, pynvml.NVML_PCIE_UTIL_RX_BYTES),
        pcie_tx_bytes_per_second=_pcie(handle, pynvml.NVML_PCIE_UTIL_TX_BYTES),
        throttle_reasons=_throttle_reasons(handle),
        fan_percent=_told(pynvml.nvmlDeviceGetFanSpeed, handle),
    )


def _memory(handle: Any) -> GpuMemory | None:
    newer = _told(pynvml.nvmlDeviceGetMemoryInfo, handle, pynvml.nvmlMemory_v2)
    if newer is not None:
        return GpuMemory(newer.total, newer.reserved, newer.used, newer.free)
    older = _told(pynvml.nvmlDeviceGetMemoryInfo, handle)
    return None if older is None else GpuMemory(older.total, 0, older.used, older.free)


def _processes(handle: Any) -> dict[int, int | None] | None:
    """Join who computes with who draws; a process that does both is in both lists with all it holds."""
    lists = [
        _first_told(
            handle,
            pynvml.nvmlDeviceGetComputeRunningProcesses_v3,
            pynvml.nvmlDeviceGetComputeRunningProcesses_v2,
        ),
        _first_told(
            handle,
            pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3,
            pynvml.nvmlDeviceGetGraphicsRunningProcesses_v2,
        ),
    ]
    if all(each is None for each in lists):
        return None
    held: dict[int, int | None] = {}
    for process in (process for each in lists for process in each or ()):
        known = held.get(process.pid)
        used = process.usedGpuMemory
        held[process.pid] = used if known is None else max(known, used or 0)
    return held


def _temperature(handle: Any) -> int | None:
    return _first_told(
        handle,
        lambda gpu: pynvml.nvmlDeviceGetTemperatureV(gpu, pynvml.NVML_TEMPERATURE_GPU),
        lambda gpu: pynvml.nvmlDeviceGetTemperature(gpu, pynvml.NVML_TEMPERATURE_GPU),
    )


def _pcie(handle: Any, direction: int) -> int | None:
    kilobytes = _told(pynvml.nvmlDeviceGetPcieThroughput, handle, direction)
    return None if kilobytes is None else kilobytes * 1000


def _throttle_reasons(handle: Any) -> tuple[str, ...] | None:
    reasons = _first_told(
        handle,
        pynvml.nvmlDeviceGetCurrentClocksEventReasons,
        pynvml.nvmlDeviceGetCurrentClocksThrottleReasons,
    )
    if reasons is None:
        return None
    return tuple(words for bit, words in _THROTTLE_WORDS.items() if reasons & bit)


def _first_told(handle: Any, *reads: Callable[[Any], T]) -> T | None:
    """Ask by the newest function first; older drivers have only the older ones."""
    for read in reads:
        value = _told(read, handle)
        if value is not None:
            return value
    return None


def _times(value: int | None, factor: float) -> float | None:
    return None if value is None else value * factor
