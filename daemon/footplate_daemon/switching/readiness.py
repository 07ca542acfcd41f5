"""When an engine serves: what its health and its model list say, asked fast.

Both are asked because a foreign server on the port can answer a health poll for the engine, and the
list must name what we started.
"""

import asyncio

from footplate_daemon.runtimes.base import Host, LaunchPlan, Runtime
from footplate_daemon.switching.probe import Address, ask

FIRST_PAUSE_SECONDS = 0.01
LONGEST_PAUSE_SECONDS = 0.03
"""A poll of the loopback costs microseconds; a longer pause is paid by every switch at its end."""
PROBE_SECONDS = 2.0


async def until_ready(address: Address, runtime: Runtime, served_name: str) -> None:
    """Return when the engine serves the name; wait for ever otherwise, so set a time limit around it."""
    pause = FIRST_PAUSE_SECONDS
    while not await is_ready(address, runtime, served_name):
        await asyncio.sleep(pause)
        pause = min(pause * 1.2, LONGEST_PAUSE_SECONDS)


async def is_ready(address: Address, runtime: Runtime, served_name: str) -> bool:
    """Ask once."""
    health = await ask(address, "GET", runtime.health_path(), timeout_seconds=PROBE_SECONDS)
    if health is None or health.status != 200:
        return False
    models = await ask(address, "GET", "/v1/models", timeout_seconds=PROBE_SECONDS)
    return models is not None and models.status == 200 and runtime.serves(models.json(), served_name)


async def warm_up(
    address: Address, runtime: Runtime, served_name: str, plan: LaunchPlan | None, timeout_seconds: float
) -> int | None:
    """Have one token generated, so that the first real answer is not the slow one; give the HTTP status."""
    path, body = runtime.probe(served_name, plan.context if plan else None, plan.parameters if plan else None)
    answer = await ask(address, "POST", path, body=body, timeout_seconds=timeout_seconds)
    return None if answer is None else answer.status


async def until_up(address: Address, runtime: Runtime, host: Host) -> None:
    """Return when a host's process can load models; wait for ever otherwise."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        answer = await ask(address, "GET", runtime.health_path(), timeout_seconds=PROBE_SECONDS)
        if answer is not None and answer.status == 200 and host.is_up(answer.json()):
            return
        await asyncio.sleep(pause)
        pause = min(pause * 1.2, LONGEST_PAUSE_SECONDS)
