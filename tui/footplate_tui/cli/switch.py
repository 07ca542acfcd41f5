"""`footplate switch`: make another variant the active one, and see it come.

Ctrl-C takes the wish back: the daemon returns to what was active before.
"""

import asyncio
from contextlib import AbstractContextManager

import click

from footplate_daemon import wire
from footplate_daemon.client import FootplateClient
from footplate_daemon.errors import NotFound
from footplate_daemon.settings import RUNTIMES
from footplate_tui.cli import reaching, switch_text
from footplate_tui.cli.names import complete_target
from footplate_tui.cli.watching import Nowhere, Shown, for_people, watch


@click.command()
@click.argument("name", required=False, shell_complete=complete_target)
@click.option("--runtime", help="On this runtime; else the one that was used last.")
@click.option("--preset", help="With these launch parameters; else the default ones.")
@click.option("--context", type=click.IntRange(min=1), help="Longest prompt and answer, in tokens.")
@click.option("--no-wait", is_flag=True, help="Return at once; the switch goes on.")
@click.option("--remedy", type=click.IntRange(min=1), help="Apply this remedy of the last failed switch.")
@click.option("--of", "failed_id", type=click.IntRange(min=1), help="With --remedy: of this switch.")
@click.option("--cancel", is_flag=True, help="End the switch in progress; what was active comes back.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the switch as one JSON object when it has ended."
)
def switch(
    name: str | None,
    runtime: str | None,
    preset: str | None,
    context: int | None,
    remedy: int | None,
    failed_id: int | None,
    *,
    no_wait: bool,
    cancel: bool,
    as_json: bool,
) -> int:
    """Make NAME active: a model, a variant, or a runtime (with the model last used on it).

    \b
    footplate switch vllm
    footplate switch gemma-3-4b-it --runtime ollama
    footplate switch vllm/qwen3-8b --preset balanced
    footplate switch --remedy 2

    If it does not start, it says why and what helps, and what was active before comes back (exit code 1).
    """  # noqa: D301 - click's sign for "do not wrap"
    if sum((name is not None, remedy is not None, cancel)) != 1:
        raise click.UsageError("Say one of: NAME, --remedy N, --cancel.")
    if failed_id is not None and remedy is None:
        raise click.UsageError("--of goes with --remedy.")
    if name is None and (runtime or preset or context):
        raise click.UsageError("--runtime, --preset and --context go with NAME.")
    verb = _Verb(as_json=as_json, no_wait=no_wait)
    if cancel:
        return asyncio.run(verb.cancel())
    if remedy is not None:
        return asyncio.run(verb.apply(remedy, failed_id))
    wish = _wish(name or "", runtime, preset, context)
    return asyncio.run(verb.begin(wish))


def _wish(
    name: str, runtime: str | None, preset: str | None, context: int | None
) -> wire.SwitchWish | wire.RuntimeWish:
    """Take a runtime's name alone for the runtime, anything else for a model or variant."""
    if name not in RUNTIMES or runtime is not None:
        return wire.SwitchWish(name=name, runtime=runtime, preset=preset, context=context)
    return wire.RuntimeWish(runtime=name, preset=preset, context=context)


class _Verb:
    """What the verb does, with the way it reports."""

    def __init__(self, *, as_json: bool, no_wait: bool) -> None:
        self._as_json = as_json
        self._no_wait = no_wait

    async def begin(self, wish: wire.SwitchWish | wire.RuntimeWish) -> int:
        async with _client() as client:
            if isinstance(wish, wire.RuntimeWish):
                return await self._see_through(client, await client.activate_runtime(wish))
            return await self._see_through(client, await client.activate(wish))

    async def apply(self, remedy: int, failed_id: int | None) -> int:
        async with _client() as client:
            of = failed_id if failed_id is not None else await _last_failed(client)
            return await self._see_through(client, await client.apply_remedy(of, remedy))

    async def cancel(self) -> int:
        async with _client() as client:
            running = (await client.status()).switch
            if running is None or running.outcome != "running":
                raise NotFound("No switch is in progress.", hint="See the last ones: footplate switches")
            await self._report_cancelled(client, running.id)
        return 0

    async def _see_through(self, client: FootplateClient, begun: wire.Switch) -> int:
        if self._no_wait:
            going_on = f"Switch {begun.id} to {begun.variant} goes on. See: footplate status"
            click.echo(begun.model_dump_json() if self._as_json else going_on)
            return 0
        try:
            with self._shown() as shown:
                ended = await watch(client, begun, shown)
                status = await _settled(client, ended, shown)
        except asyncio.CancelledError:
            await self._report_cancelled(client, begun.id)
            raise
        self._report(ended, status)
        return 0 if ended.outcome == "done" else 1

    async def _report_cancelled(self, client: FootplateClient, switch_id: int) -> None:
        cancelled = await client.cancel_switch(switch_id)
        self._report(cancelled, await client.status())

    def _report(self, ended: wire.Switch, status: wire.Status) -> None:
        if self._as_json:
            click.echo(ended.model_dump_json())
        elif ended.outcome == "done":
            click.echo(switch_text.success(ended))
        elif ended.outcome == "failed":
            first, *more = switch_text.failure(ended)
            click.echo(f"{click.style('error:', fg='red')} {first}", err=True)
            click.echo("\n".join([*more, switch_text.what_is_active(status)]), err=True)
        else:
            click.echo(f"{switch_text.ending(ended)} {switch_text.what_is_active(status)}", err=True)

    def _shown(self) -> AbstractContextManager[Shown]:
        return Nowhere() if self._as_json else for_people()


async def _settled(client: FootplateClient, ended: wire.Switch, shown: Shown) -> wire.Status:
    """Wait until what was active before a failed switch is back; give the status then."""
    status = await client.status()
    following = status.switch
    if ended.outcome != "failed" or following is None or following.reason != "rollback":
        return status
    await watch(client, following, shown)
    return await client.status()


async def _last_failed(client: FootplateClient) -> int:
    for switch in await client.switches(limit=1000):
        if switch.outcome == "failed" and switch.diagnosis:
            return switch.id
    raise NotFound("No switch has failed.", hint="See the last ones: footplate switches")


def _client() -> FootplateClient:
    return reaching.client()
