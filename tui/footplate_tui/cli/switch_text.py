"""A switch in words: how it went, why it failed, and what to do about it. Pure."""

from collections.abc import Iterator

from footplate_daemon import wire
from footplate_tui.format import duration
from footplate_tui.harmless import one_line

WORTH_SAYING_SECONDS = 0.005
"""Steps that took less are left out of the summary."""


def heading(switch: wire.Switch) -> str:
    """Say what begins: `switching to vllm/gemma (preset low-vram)`."""
    return f"{'going back' if switch.reason == 'rollback' else 'switching'} to {_target(switch)}"


def step_line(step: wire.Step) -> str:
    """Give a step that has ended: `load         0.22 s`."""
    return f"  {step.name:11}  {duration(step.seconds or 0.0)}"


def success(switch: wire.Switch) -> str:
    """Give a switch that is done with its times: `vllm/gemma is active (31.2 s: stop 0.61, load 29.8)`."""
    if not switch.steps:
        return f"{_target(switch)} was active already."
    took = duration(seconds(switch))
    told = [
        f"{step.name} {step.seconds:.2f}"
        for step in switch.steps
        if step.seconds is not None and step.seconds >= WORTH_SAYING_SECONDS
    ]
    return f"{_target(switch)} is active ({took}{': ' if told else ''}{', '.join(told)})"


def failure(switch: wire.Switch) -> Iterator[str]:
    """Give the diagnosis: the cause, its evidence, and each way out with the command that takes it."""
    diagnosis = switch.diagnosis
    yield f"{_target(switch)} did not start: {diagnosis.cause if diagnosis else 'nobody knows why.'}"
    if diagnosis is None:
        return
    yield from (f"    {one_line(line)}" for line in diagnosis.evidence)
    if diagnosis.remedies:
        yield "What helps:"
    for remedy in diagnosis.remedies:
        command = f"footplate switch --remedy {remedy.id}" if remedy.applies else remedy.command
        yield f"  {remedy.id}. {remedy.title}{f':  {command}' if command else ''}"


def ending(switch: wire.Switch) -> str:
    """Say in a line why a switch that neither failed nor is done has ended."""
    if switch.outcome == "superseded":
        return f"The switch to {_target(switch)} gave way to a newer one."
    return f"The switch to {_target(switch)} was cancelled."


def what_is_active(status: wire.Status) -> str:
    """Say what answers now, or what soon will."""
    if status.active:
        return f"{status.active} is active."
    if status.wanted:
        return f"{status.wanted} is being started."
    return "Nothing is active."


def seconds(switch: wire.Switch) -> float:
    """Give how long a switch that has ended took."""
    return max(0.0, (switch.ended_at or switch.started_at) - switch.started_at)


def _target(switch: wire.Switch) -> str:
    return f"{switch.variant} (preset {switch.preset})" if switch.preset else switch.variant
