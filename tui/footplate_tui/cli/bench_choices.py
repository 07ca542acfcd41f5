"""Who takes part in a benchmark or a check: from the names that the user wrote to variants."""

from collections.abc import Iterator, Sequence

from footplate_daemon import mistakes, wire
from footplate_daemon.client import FootplateClient
from footplate_daemon.errors import Conflict, Invalid, NotFound
from footplate_daemon.wire_benchmarks import VariantChoice

SEE_MODELS = "See what there is: footplate models"


async def on_every_runtime(
    client: FootplateClient, names: Sequence[str], runtimes: Sequence[str]
) -> tuple[VariantChoice, ...]:
    """Give the variants meant: a model means each runtime here that has it; nothing, the active model."""
    models = await client.models()
    if not names:
        active = _variant(models, await _active(client))
        names = [active.model]
    found = [variant for name in names for variant in _named(models, name, runtimes)]
    if not found:
        on = f" on {' or '.join(runtimes)}" if runtimes else " on this machine"
        raise NotFound(f"None of these can be asked{on}: {', '.join(names)}.", hint=SEE_MODELS)
    return tuple(VariantChoice(name=name) for name in dict.fromkeys(each.name for each in found))


async def as_named(client: FootplateClient, names: Sequence[str]) -> tuple[VariantChoice, ...]:
    """Give the variants meant, where nothing means the active variant alone."""
    if not names:
        return (VariantChoice(name=await _active(client)),)
    return await on_every_runtime(client, names, ())


async def _active(client: FootplateClient) -> str:
    status = await client.status()
    active = status.active or status.wanted
    if active is None:
        raise Conflict("No model is active.", hint=f"Name one. {SEE_MODELS}")
    return active


def _named(
    models: Sequence[wire.ModelInfo], name: str, runtimes: Sequence[str]
) -> Iterator[wire.VariantInfo]:
    """Give what a name means: one variant, or those of a model that are here and can chat."""
    for model in models:
        if model.name == name:
            yield from (each for each in model.variants if _takes_part(each, runtimes))
            return
    variant = _variant(models, name)
    if "chat" not in variant.capabilities:
        raise Invalid(f"{name} does not chat, so there is nothing to measure.", hint=SEE_MODELS)
    if not runtimes or variant.runtime in runtimes:
        yield variant


def _takes_part(variant: wire.VariantInfo, runtimes: Sequence[str]) -> bool:
    if "chat" not in variant.capabilities or variant.on_disk is False:
        return False
    # A remote costs money, and measures the way to it: it takes part when it is asked for.
    return variant.runtime in runtimes if runtimes else variant.runtime != "remote"


def _variant(models: Sequence[wire.ModelInfo], name: str) -> wire.VariantInfo:
    variants = {each.name: each for model in models for each in model.variants}
    if name in variants:
        return variants[name]
    known = [*(model.name for model in models), *variants]
    raise NotFound(f'There is no model or variant "{name}".', hint=mistakes.suggestion(name, known))
