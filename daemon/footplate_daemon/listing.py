"""What there is to switch to, as clients list it: the catalog joined with what runs and what was measured."""

import asyncio
from pathlib import Path

from footplate_daemon import weights
from footplate_daemon.catalog import Catalog, Model, Variant
from footplate_daemon.store.exchanges import ExchangeStore
from footplate_daemon.store.switches import SwitchStore
from footplate_daemon.switching.switcher import Switcher
from footplate_daemon.weights import OnDisk
from footplate_daemon.wire import EngineState, ModelInfo, VariantInfo


async def models(
    catalog: Catalog, switcher: Switcher, switches: SwitchStore, exchanges: ExchangeStore, hf_cache: Path
) -> list[ModelInfo]:
    """List every model with its variants, in the catalog's order."""
    disk = await asyncio.to_thread(_on_disk, catalog, hf_cache)
    load_seconds = await switches.last_load_seconds()
    peaks: dict[str, int] = {}
    for (variant, _), size in (await switches.memory_peaks()).items():
        peaks[variant] = max(size, peaks.get(variant, 0))
    speeds, fitting = await exchanges.last_speeds(), await switcher.fitting()
    states = {engine.variant: engine.state for engine in switcher.engines()}

    def info(variant: Variant) -> VariantInfo:
        return VariantInfo(
            name=variant.name,
            runtime=variant.runtime,
            model=variant.model,
            served_name=variant.served_name,
            state=states.get(variant.name, EngineState.STOPPED),
            active=variant.name == switcher.active,
            on_disk=disk[variant.name].present,
            size_bytes=disk[variant.name].size_bytes,
            context=variant.launch_context(),
            capabilities=variant.capabilities,
            presets=tuple(variant.presets),
            last_load_seconds=load_seconds.get(variant.name),
            last_tokens_per_second=speeds.get(variant.name),
            memory_bytes=peaks.get(variant.name),
            fits=fitting.get(variant.name),
        )

    return [_model(model, [info(variant) for variant in model.variants]) for model in catalog.models.values()]


def _model(model: Model, variants: list[VariantInfo]) -> ModelInfo:
    return ModelInfo(
        name=model.name,
        description=model.description,
        demonstration=model.demonstration,
        variants=tuple(variants),
    )


def _on_disk(catalog: Catalog, hf_cache: Path) -> dict[str, OnDisk]:
    return {name: weights.on_disk(variant.weights, hf_cache) for name, variant in catalog.variants.items()}
