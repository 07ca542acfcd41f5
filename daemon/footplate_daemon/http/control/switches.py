"""Switches: what one would do, how one goes, and the ways out of a failed one."""

from typing import Annotated

from fastapi import FastAPI, Query

from footplate_daemon import wire
from footplate_daemon.errors import Conflict, NotFound
from footplate_daemon.http.control.parts import ControlParts, Number
from footplate_daemon.switching.machine import Reason, Target
from footplate_daemon.switching.switcher import Switcher


def switch_routes(app: FastAPI, parts: ControlParts) -> None:
    """Add the routes about switches."""
    switcher = parts.switcher

    @app.get("/api/v1/plan")
    async def plan(
        name: str,
        runtime: str | None = None,
        preset: str | None = None,
        context: Annotated[int | None, Query(ge=1, le=wire.LONGEST_CONTEXT)] = None,
    ) -> wire.Plan:
        return await parts.plan(name, runtime, preset, context)

    @app.get("/api/v1/switches")
    async def switches(limit: Annotated[int, Query(ge=1, le=1000)] = 20) -> dict[str, list[wire.Switch]]:
        ended = await parts.switches.list(limit)
        last = switcher.last_switch()
        running = [last] if last is not None and last.outcome == "running" else []
        return {"switches": [*running, *ended][:limit]}

    @app.get("/api/v1/switches/{switch_id}")
    async def switch(switch_id: Number) -> wire.Switch:
        try:
            return switcher.switch(switch_id)
        except NotFound:
            return await parts.switches.get(switch_id)

    @app.delete("/api/v1/switches/{switch_id}")
    async def cancel(switch_id: Number) -> wire.Switch:
        return switcher.cancel(switch_id)

    @app.post("/api/v1/switches/{switch_id}/remedies/{number}", status_code=202)
    async def apply_remedy(switch_id: Number, number: Number, wait: bool = False) -> wire.Switch:
        failed = await switch(switch_id)
        target = _remedied(failed, number)
        await parts.find(target.variant, None)
        return await begin_switch(switcher, target, wait=wait, reason=Reason.REMEDY)


async def begin_switch(
    switcher: Switcher, target: Target, *, wait: bool, reason: Reason = Reason.ASKED
) -> wire.Switch:
    """Begin a switch; with `wait`, give it when it has ended."""
    await switcher.adopted.wait()
    switch = switcher.wish(target, reason)
    await switcher.remembered()
    return await switcher.ended(switch.id) if wait else switch


def _remedied(failed: wire.Switch, number: int) -> Target:
    """Give what a remedy of a failed switch makes the target; raise `NotFound` or `Conflict`."""
    remedies = failed.diagnosis.remedies if failed.diagnosis else ()
    remedy = next((remedy for remedy in remedies if remedy.id == number), None)
    if remedy is None:
        there = ", ".join(f"{each.id} ({each.title})" for each in remedies)
        raise NotFound(f"Switch {failed.id} has no remedy {number}.", hint=there or "It has none.")
    if not remedy.applies:
        raise Conflict(f"This is for you to do: {remedy.title}.", hint=remedy.command)
    return Target(remedy.variant or failed.variant, remedy.preset or failed.preset, remedy.context)
