"""The catalog as `/v1/models` gives it: every name that a request may use, and what stands behind it."""

from collections.abc import Iterator
from typing import Any

from footplate_daemon.catalog import Model, Variant
from footplate_daemon.gateway.gateway import Gateway


def model_list(gateway: Gateway, created: float) -> dict[str, Any]:
    """List the models first, then each of their variants, then their other names."""
    described = _Describer(gateway, created)
    models = gateway.catalog.models.values()
    entries: dict[str, dict[str, Any]] = {}
    for names in (_own_names, _variant_names, _other_names):
        for model in models:
            for name, variant in names(model):
                if name not in entries:
                    entries[name] = described.entry(name, model, variant or gateway.resolve(name))
    return {"object": "list", "data": list(entries.values())}


def model_named(gateway: Gateway, name: str, created: float) -> dict[str, Any]:
    """Describe what one name stands for; raise `NotFound` naming what there is."""
    variant = gateway.resolve(name)
    return _Describer(gateway, created).entry(name, gateway.catalog.models[variant.model], variant)


class _Describer:
    """Knows in which state each variant is now."""

    def __init__(self, gateway: Gateway, created: float) -> None:
        self._created = int(created)
        self._states = gateway.states()

    def entry(self, name: str, model: Model, variant: Variant) -> dict[str, Any]:
        """Describe a name as OpenAI does, with what other servers add to it."""
        context = variant.launch_context()
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "footplate",
            "root": model.name,
            "runtime": variant.runtime,
            "runtimes": [each.runtime for each in model.variants],
            "state": self._states.get(variant.name, "stopped"),
            "context_length": context,
            "max_model_len": context,
            "capabilities": list(variant.capabilities),
            "demonstration": variant.demonstration,
        }


def _own_names(model: Model) -> Iterator[tuple[str, Variant | None]]:
    yield model.name, None


def _variant_names(model: Model) -> Iterator[tuple[str, Variant | None]]:
    for variant in model.variants:
        yield variant.name, variant


def _other_names(model: Model) -> Iterator[tuple[str, Variant | None]]:
    for alias in model.aliases:
        yield alias, None
    for variant in model.variants:
        yield variant.served_name, None
