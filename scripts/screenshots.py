"""Takes pictures of every screen of the terminal against a daemon that plays its part: `make screenshots`.

Without arguments the pictures of the documentation go to docs/pictures/. With `--all FOLDER` each scene
is taken on a small screen and on a large one, dark and light, for people to look at.
"""

import argparse
import asyncio
import json
import math
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from scripts.picture import paint
from scripts.screenshot_work import fill_batches, fill_benchmarks
from tests.fakes.daemon import FakeDaemon, answered, engine, model, session, status
from textual.pilot import Pilot

from footplate_daemon import wire
from footplate_tui import theme
from footplate_tui.footplate_app import FootplateApp
from footplate_tui.remembered import Remembered

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs" / "pictures"
SMALL, LARGE = (80, 24), (160, 48)
STILL_ROUNDS = 6
"""The app has come to rest when so many rounds of its messages changed nothing."""

GB = 10**9
QWEN = "vllm/qwen3-8b"
GEMMA = "ollama/gemma-3-12b"

ANSWER = """\
A lease is a **promise with an end**. Whoever holds it may act alone until the clock says otherwise, so a \
client that dies gives back what it held without anybody asking.

```python
@dataclass(frozen=True)
class Lease:
    owner: str
    ends_at: float

    def is_held(self, now: float) -> bool:
        return now < self.ends_at
```

| | a lock | a lease |
|---|---|---|
| holder dies | waits for ever | ends by itself |
| clocks differ | no matter | must be bounded |
| renewed | never | before it ends |

Renew it at a third of its time: two renewals may fail"""

Scene = Callable[[FakeDaemon, Pilot[None]], Awaitable[None]]


async def chat(daemon: FakeDaemon, pilot: Pilot[None]) -> None:
    """An answer with code and a table, while it streams."""
    await _ask(daemon, pilot, "What is a lease, and how does it differ from a lock?")
    await daemon.say(reasoning="The user asks about distributed systems. Compare on failure and on clocks.")
    await daemon.say(ANSWER)


async def welcome(_: FakeDaemon, pilot: Pilot[None]) -> None:
    """A session that has only begun."""
    await _press(pilot, "ctrl+n")


async def switcher(daemon: FakeDaemon, pilot: Pilot[None]) -> None:
    """A switch on its way."""
    await _press(pilot, "ctrl+r")
    now = time.time()
    await daemon.begin_switch(GEMMA)
    await daemon.go_on(
        started_at=now - 13.4,
        fraction=0.43,
        eta_seconds=17.6,
        steps=(
            wire.Step(name=wire.StepName.DRAIN, started_at=now - 13.4, seconds=0.3),
            wire.Step(name=wire.StepName.STOP, started_at=now - 13.1, seconds=1.9),
            wire.Step(name=wire.StepName.FREE_MEMORY, started_at=now - 11.2, seconds=0.8),
            wire.Step(name=wire.StepName.LOAD, started_at=now - 10.4),
        ),
        log_tail=("llama_model_loader: loaded meta data", "load_tensors: offloading 48 layers to GPU"),
    )


async def failure(daemon: FakeDaemon, pilot: Pilot[None]) -> None:
    """A start that failed, and what helps."""
    await _press(pilot, "ctrl+r", *"gemma")
    await _press(pilot, "enter")
    await daemon.fail_switch(
        wire.Diagnosis(
            code="kv_cache_too_small",
            cause="The KV cache for 32,768 tokens does not fit: 4.5 GB are needed, 2.1 GB are left.",
            evidence=(
                "INFO 11-20 21:03:41 [worker.py:298] the memory reserved for KV Cache is 1.96GiB.",
                "ValueError: To serve at least one request, 4.20 GiB KV cache is needed.",
            ),
            remedies=(
                wire.Remedy(id=1, title="Use the preset low-vram", variant=GEMMA, preset="low-vram"),
                wire.Remedy(id=2, title="Use a context of 14,336 tokens", variant=GEMMA, context=14336),
                wire.Remedy(
                    id=3, title="Use transformers/gemma-3-12b instead", variant="transformers/gemma-3-12b"
                ),
                wire.Remedy(id=4, title="End anna's python (51999)", applies=False, command="kill 51999"),
            ),
        )
    )


async def gauges(_: FakeDaemon, pilot: Pilot[None]) -> None:
    """A GPU at work."""
    await _press(pilot, "f4")


async def logs(_: FakeDaemon, pilot: Pilot[None]) -> None:
    """The log of an engine, with an error."""
    await _press(pilot, "f5")


async def exchanges(_: FakeDaemon, pilot: Pilot[None]) -> None:
    """What runs, what waits, and what was."""
    await _press(pilot, "f6")


async def benchmark(_: FakeDaemon, pilot: Pilot[None]) -> None:
    """A run as it goes on."""
    await _press(pilot, "f3", "enter")


async def benchmarks(_: FakeDaemon, pilot: Pilot[None]) -> None:
    """Every run."""
    await _press(pilot, "f3")


async def results(_: FakeDaemon, pilot: Pilot[None]) -> None:
    """A run that has ended."""
    await _press(pilot, "f3", "down", "enter")


async def matrix(_: FakeDaemon, pilot: Pilot[None]) -> None:
    """What a new run measures."""
    await _press(pilot, "f3")
    await _press(pilot, "n")


async def runs(_: FakeDaemon, pilot: Pilot[None]) -> None:
    """Two runs compared."""
    await _press(pilot, "f3", "down", "v")


async def answers(_: FakeDaemon, pilot: Pilot[None]) -> None:
    """What each entrant answered."""
    await _press(pilot, "f3", "down", "enter")
    await _press(pilot, "a", "right")


async def batches(_: FakeDaemon, pilot: Pilot[None]) -> None:
    """Every batch."""
    await _press(pilot, "f10")


async def batch(_: FakeDaemon, pilot: Pilot[None]) -> None:
    """One batch, with what failed."""
    await _press(pilot, "f10", "enter")


async def compared(_: FakeDaemon, pilot: Pilot[None]) -> None:
    """Two batches of the same input."""
    await _press(pilot, "f10", "down", "down", "space", "down", "v")


async def history(_: FakeDaemon, pilot: Pilot[None]) -> None:
    """A search in all that was said."""
    await _press(pilot, "ctrl+o")
    await _press(pilot, "slash", *"lease")


async def helping(_: FakeDaemon, pilot: Pilot[None]) -> None:
    """Every key."""
    await _press(pilot, "f1")


async def palette(_: FakeDaemon, pilot: Pilot[None]) -> None:
    """Commands by name."""
    await _press(pilot, "ctrl+p")


async def turn(_: FakeDaemon, pilot: Pilot[None]) -> None:
    """What can be done with a turn."""
    await _press(pilot, "f7")


SCENES: dict[str, Scene] = {
    "chat": chat,
    "switcher": switcher,
    "failure": failure,
    "gauges": gauges,
    "logs": logs,
    "exchanges": exchanges,
    "history": history,
    "benchmarks": benchmarks,
    "benchmark": benchmark,
    "results": results,
    "matrix": matrix,
    "runs": runs,
    "answers": answers,
    "batches": batches,
    "batch": batch,
    "compared": compared,
    "welcome": welcome,
    "help": helping,
    "palette": palette,
    "turn": turn,
}
DOCUMENTED = (
    "chat",
    "switcher",
    "failure",
    "gauges",
    "logs",
    "exchanges",
    "history",
    "benchmark",
    "batches",
)


async def take(name: str, size: tuple[int, int], theme_name: str, file: Path) -> None:
    """Play one scene and paint how it ends."""
    daemon = await acting_daemon()
    async with opened(daemon, size, theme_name) as pilot:
        await SCENES[name](daemon, pilot)
        await settle(pilot)
        kilobytes = paint(pilot.app, file) / 1000
    print(f"{file}  {kilobytes:.0f} kB")


async def take_all(folder: Path, names: list[str]) -> None:
    """Every scene in both sizes and both themes."""
    for name in names:
        for columns, rows in (SMALL, LARGE):
            for own in theme.THEMES:
                shade = "dark" if own.dark else "light"
                await take(name, (columns, rows), own.name, folder / f"{name}-{columns}-{shade}.png")


async def take_documented() -> None:
    """What the documents show."""
    for name in DOCUMENTED:
        await take(name, LARGE, theme.DARK_NAME, PICTURES / f"{name}.png")
    await take("chat", LARGE, theme.LIGHT_NAME, PICTURES / "chat-light.png")


@asynccontextmanager
async def opened(daemon: FakeDaemon, size: tuple[int, int], theme_name: str) -> AsyncIterator[Pilot[None]]:
    """Open the terminal on a daemon."""
    with tempfile.TemporaryDirectory() as folder:
        remembered = Remembered(Path(folder))
        remembered.keep_theme(theme_name)
        app = FootplateApp(lambda: daemon, remembered, place="driver@gpu1")
        async with app.run_test(size=size) as pilot:
            await settle(pilot)
            yield pilot


async def _press(pilot: Pilot[None], *keys: str) -> None:
    await pilot.press(*keys)
    await settle(pilot)


async def settle(pilot: Pilot[None]) -> None:
    """Wait until nothing changes any more."""
    seen, still = "", 0
    while still < STILL_ROUNDS:
        await pilot.pause(0.05)
        shown = "\n".join(strip.text for strip in pilot.app.screen._compositor.render_strips())  # noqa: SLF001 -- as in picture.py
        still = still + 1 if shown == seen else 0
        seen = shown


async def _ask(daemon: FakeDaemon, pilot: Pilot[None], question: str) -> None:
    asked = len(daemon.asked)
    await _press(pilot, *question)
    await pilot.press("enter")
    while len(daemon.asked) == asked:
        await pilot.pause()


async def acting_daemon(now: float | None = None) -> FakeDaemon:
    """Give a daemon with models, history, gauges, logs and exchanges, as of a certain time."""
    now = now or time.time()
    daemon = FakeDaemon(is_demonstration=False)
    figures: dict[str, Any] = {"on_disk": True, "context": 32768, "presets": ("default", "low-vram")}
    daemon.catalog = [
        model("qwen3-8b", "vllm", size_bytes=16_400_000_000, memory_bytes=19_200_000_000,
              fits=True, last_load_seconds=41.7, last_tokens_per_second=96.2, **figures),
        model("qwen3-8b", "llamacpp", size_bytes=5_030_000_000, memory_bytes=7_400_000_000,
              fits=True, last_load_seconds=3.8, last_tokens_per_second=74.5, **figures),
        model("gemma-3-12b", "ollama", size_bytes=8_150_000_000, memory_bytes=11_300_000_000,
              fits=True, last_load_seconds=30.9, last_tokens_per_second=51.3, **figures),
        model("gemma-3-12b", "transformers", size_bytes=24_400_000_000, fits=False, **figures),
        model("llama-3.3-70b", "vllm", "llamacpp", on_disk=False, fits=False, context=131072),
    ]  # fmt: skip
    running = status(model="qwen3-8b", runtime="vllm")
    engines = (engine(QWEN, memory_bytes=19_200_000_000, pid=48123, port=8101),)
    queue = wire.Queue(waiting=1, by_variant={GEMMA: 1}, capacity=256)
    daemon.now_status = running.model_copy(update={"engines": engines, "queue": queue})
    _fill_history(daemon, now)
    _fill_gauges(daemon, now)
    await _fill_logs(daemon, now)
    await _fill_ledger(daemon, now)
    await fill_benchmarks(daemon, now)
    await fill_batches(daemon, now)
    return daemon


def _fill_history(daemon: FakeDaemon, now: float) -> None:
    told = [
        ("Leases in the gateway", QWEN, 700, "Who ends a lease?",
         "Whoever holds it, by leaving the block; the lease of a client that is cut off ends too."),
        ("Rust or Zig for the sampler", GEMMA, 5_000, "Which one starts quicker?",
         "Both start in a millisecond. The lease of life that Zig gives to old C is the better reason."),
        ("Bread for Sunday", "llamacpp/qwen3-8b", 90_000, "How long does the dough rest?",
         "Twelve hours in the cold; then it may come to room temperature."),
        ("Renewing leases under load", QWEN, 260_000, "How often do I renew a lease of ten seconds?",
         "At a third of its time: 3.3 s. Two renewals may fail before the lease is lost."),
        ("SQL for the ledger", GEMMA, 400_000, "Median by runtime?", "`percentile_cont` is not in SQLite."),
    ]  # fmt: skip
    for number, (title, variant, ago, question, answer) in enumerate(told, start=1):
        runtime, _, name = variant.partition("/")
        facts = {"runtime": runtime, "variant": variant, "model": name, "asked_at": now - ago}
        turns = (answered(f"s{number}", 1, question, answer, **facts, ended_at=now - ago + 4.2),)
        kept = session(f"s{number}", title=title, updated_at=now - ago, turns=turns)
        daemon.store(kept.model_copy(update={"last_variant": variant, "created_at": now - ago}))


def _fill_gauges(daemon: FakeDaemon, now: float) -> None:
    seconds = 600
    work = [max(0.0, 72 + 24 * math.sin(second / 17) + 9 * math.sin(second / 3)) for second in range(seconds)]
    use = tuple(min(percent, 100.0) if second > 90 else 3.0 for second, percent in enumerate(work))
    held = tuple(int((19.2 if second > 70 else 0.6) * GB) for second in range(seconds))
    daemon.gauges = wire.GpuSnapshot(
        at=now,
        gpus=(
            wire.Sample(
                index=0, uuid="GPU-0", name="NVIDIA GeForce RTX 4090", utilisation_percent=93,
                memory_total_bytes=24 * GB, memory_used_bytes=int(21.6 * GB), memory_free_bytes=int(2.1 * GB),
                temperature_celsius=71, temperature_limit_celsius=90, power_watts=315.4,
                power_limit_watts=450, energy_joules=4.3e6,
                sm_clock_mhz=2475, sm_clock_limit_mhz=3105, memory_clock_mhz=10251,
                pcie_generation=4, pcie_lanes=16, pcie_rx_bytes_per_second=1_200_000,
                pcie_tx_bytes_per_second=300_000, throttle_reasons=(), fan_percent=45,
                processes=(
                    wire.GpuProcess(pid=48123, name="vllm", owner="driver",
                                    memory_bytes=int(19.2 * GB), engine="vllm-qwen3-8b"),
                    wire.GpuProcess(pid=51999, name="python train.py", owner="anna",
                                    memory_bytes=int(2.1 * GB)),
                ),
            ),
        ),
        driver_version="570.86", cpu_percent=34.2, ram_total_bytes=64 * GB, ram_used_bytes=28 * GB,
    )  # fmt: skip
    daemon.remembered = wire.GpuHistory(
        at=tuple(now - seconds + second for second in range(seconds)),
        gpus=(
            wire.GpuTrace(
                index=0, uuid="GPU-0", utilisation_percent=use, memory_used_bytes=held,
                temperature_celsius=tuple(48 + percent / 4 for percent in use),
                power_watts=tuple(60 + percent * 3 for percent in use),
            ),
        ),
        cpu_percent=tuple(20 + 15 * math.sin(second / 23) for second in range(seconds)),
        ram_used_bytes=tuple(int((26 + 2 * math.sin(second / 90)) * GB) for second in range(seconds)),
    )  # fmt: skip


async def _fill_logs(daemon: FakeDaemon, now: float) -> None:
    own = [("INFO", "gateway ready", {}), ("INFO", "switch to vllm/qwen3-8b", {"attempt": 3})]
    lines = [
        json.dumps({"time": now - 60, "level": level, "logger": "daemon", "message": message, **facts})
        for level, message, facts in own
    ]
    await daemon.write("daemon", *lines)
    steps = [
        "INFO 11-20 21:02:58 [__init__.py:239] Automatically detected platform cuda.",
        "INFO 11-20 21:03:02 [config.py:717] This model supports multiple tasks. Defaulting to 'generate'.",
        "WARNING 11-20 21:03:05 [cuda.py:93] To see benefits of async output processing, enable CUDA graph.",
        "INFO 11-20 21:03:09 [gpu_model_runner.py:1329] Starting to load model Qwen/Qwen3-8B...",
        *(
            f"Loading safetensors checkpoint shards: {part * 20}% Completed | {part}/5"
            for part in range(1, 6)
        ),
        "INFO 11-20 21:03:31 [gpu_model_runner.py:1347] Model loading took 15.27 GiB and 21.6 seconds",
        "INFO 11-20 21:03:39 [kv_cache_utils.py:634] GPU KV cache size: 25,296 tokens",
        "ERROR 11-20 21:03:40 [core.py:396] EngineCore hit an exception:",
        "Traceback (most recent call last):",
        '  File "/opt/vllm/v1/engine/core.py", line 388, in run_engine_core',
        "ValueError: To serve at least one request with the model's max seq len (32768), 4.20 GiB is needed.",
        "INFO 11-20 21:04:12 [api_server.py:1090] Starting vLLM API server on unix:/run/footplate/8101",
        *(
            f"INFO 11-20 21:05:{second:02} [loggers.py:111] Avg generation throughput: {rate} tokens/s"
            for second, rate in ((2, 94.1), (12, 96.7), (22, 95.9), (32, 96.2))
        ),
    ]
    await daemon.write("vllm-qwen3-8b", *steps)


async def _fill_ledger(daemon: FakeDaemon, now: float) -> None:
    for number in range(30):
        variant = (QWEN, GEMMA, "llamacpp/qwen3-8b")[number % 3]
        outcome = "failed" if number == 21 else "cancelled" if number == 14 else "done"
        await daemon.note_exchange(
            started_at=now - 3_000 + number * 90, variant=variant, runtime=variant.partition("/")[0],
            client=("terminal", "continue", "open-webui")[number % 3], outcome=outcome,
            queue_ms=12.0 * (number % 5), ttft_ms=80.0 + 37 * (number % 7),
            total_ms=900.0 + 310 * (number % 9),
            completion_tokens=40 + 61 * (number % 8), tokens_per_second=44.0 + 9.3 * (number % 6),
        )  # fmt: skip
    told_at_the_end = ("finish_reason", "tokens_per_second", "completion_tokens")
    under_way: dict[str, Any] = dict.fromkeys(told_at_the_end)
    await daemon.note_exchange(
        **under_way, started_at=now - 9.2, total_ms=9_200.0, outcome="running",
        variant=QWEN, runtime="vllm", client="terminal",
    )  # fmt: skip
    await daemon.note_exchange(
        **under_way, started_at=now - 4.1, total_ms=4_100.0, queue_ms=4_100.0, ttft_ms=None,
        outcome="waiting", variant=GEMMA, runtime="ollama", client="open-webui",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="every scene, size and theme")
    parser.add_argument("scenes", nargs="*", help=f"of {', '.join(SCENES)}; with --all, instead of each")
    arguments = parser.parse_args()
    names = arguments.scenes or list(SCENES)
    asyncio.run(take_all(arguments.all, names) if arguments.all else take_documented())


if __name__ == "__main__":
    main()
