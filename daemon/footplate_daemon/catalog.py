"""Models, variants, profiles and presets: the typed view of what the operator wrote.

Pure: takes the settings and what lies in the models folders as values, looks at no file and starts
nothing. What each runtime makes of a launch plan it does not know.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from footplate_daemon import mistakes, weights
from footplate_daemon import settings as written
from footplate_daemon.errors import NotFound, Unavailable
from footplate_daemon.runtimes.base import LaunchPlan, Runtime
from footplate_daemon.settings import Profile, Settings
from footplate_daemon.weights import Found, Weights

CONTEXT_NAMES = ("max_model_len", "ctx_size", "n_ctx", "ctx", "num_ctx", "context")
"""What runtimes call the context among their launch parameters."""
ALL_LAYERS = 999
"""llama.cpp's way to say that every layer belongs on the GPU."""


@dataclass(frozen=True)
class Preset:
    """Launch parameters of a runtime for a size of GPU."""

    name: str
    parameters: Mapping[str, Any]
    """Under the runtime's own names, without the context."""
    context: int | None = None
    description: str = ""
    risky: bool = False
    """May not start."""


@dataclass(frozen=True)
class Elsewhere:
    """A server on another machine, or one that somebody else runs here."""

    url: str
    """Without `/v1` and trailing slash."""
    key_file: Path | None = None
    others: tuple[str, ...] = ()
    """Servers with the same model and the same key."""


@dataclass(frozen=True)
class Variant:
    """A model on one runtime: what one switches to."""

    name: str
    """`runtime/model`."""
    runtime: str
    model: str
    weights: Weights
    served_name: str
    """The name under which the engine lists the model."""
    presets: Mapping[str, Preset] = field(default_factory=dict)
    default_preset: str | None = None
    profile: Profile = Profile()  # noqa: RUF009  # frozen
    """Generation parameters, merged: the default profile, the model's, the variant's."""
    profile_name: str | None = None
    """The names of what was merged, joined by `+`; what has no name is `own`."""
    capabilities: tuple[str, ...] = ("chat",)
    context: int | None = None
    """Longest prompt and answer, where the operator says so; else the preset does, or the runtime."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Launch parameters that go over the preset's."""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] | None = None
    program: str | None = None
    """The runtime's program, where the operator names one."""
    mmproj: Path | None = None
    pinned: bool = False
    demonstration: bool = False
    elsewhere: Elsewhere | None = None
    """Set where nothing is started for it: a remote, or a host that somebody else runs."""

    def preset(self, name: str | None = None) -> Preset | None:
        """Give the preset of this name, or the default one; raise `NotFound` naming those that there are."""
        chosen = name or self.default_preset
        if chosen is None:
            return None
        if chosen not in self.presets:
            hint = mistakes.suggestion(chosen, self.presets, kind="presets")
            raise NotFound(f'There is no preset "{chosen}" for {self.runtime}.', hint=hint, param="preset")
        return self.presets[chosen]

    @cached_property
    def profile_body(self) -> dict[str, Any]:
        """The profile under OpenAI's names, without context and system message."""
        return self.profile.body()

    def launch_context(self, preset: str | None = None, context: int | None = None) -> int | None:
        """Give the context it would be started with; None leaves it to the runtime.

        What is asked for now goes first: `context`, then a preset other than the default one. Then
        what the operator wrote for the variant, then the default preset.
        """
        chosen = self.preset(preset)
        of_preset = chosen.context if chosen else None
        if chosen and chosen.name != self.default_preset:
            return context or of_preset or self.context
        return context or self.context or of_preset

    def fingerprint(self, preset: str | None = None, context: int | None = None) -> str:
        """Give a short hash of everything that reaches the engine, the same in every process.

        What is left empty is left out, so that a later version with more to set still finds the same.
        """
        launch = asdict(plan(self, preset=preset, context=context, port=0)) | {"program": self.program}
        reaching = {name: value for name, value in launch.items() if value and name != "variant"}
        text = json.dumps(reaching, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Model:
    """What a user picks."""

    name: str
    description: str
    aliases: tuple[str, ...]
    variants: tuple[Variant, ...]
    """At least one, that of the preferred runtime first."""
    demonstration: bool = False
    """True for the built-in guide."""


@dataclass(frozen=True)
class Changes:
    """What a new catalog changes in an old one."""

    added: tuple[str, ...]
    """Variants, by name."""
    removed: tuple[str, ...]
    altered: tuple[str, ...]
    """Variants that differ in anything, a description or a profile among it."""
    restarts: frozenset[tuple[str, str | None]]
    """Variant and preset (None: the default) whose engine would be started differently now."""

    def touch(self, variant: str, preset: str | None = None) -> bool:
        """Say whether an engine that was started so runs with what is no longer wanted."""
        return variant in self.removed or (variant, preset) in self.restarts


@dataclass(frozen=True)
class Catalog:
    """Every model and variant, by name."""

    models: Mapping[str, Model]
    variants: Mapping[str, Variant]
    default: str | None = None
    """What the operator wants loaded when there is nothing to restore: a model or variant."""
    problems: tuple[str, ...] = ()
    """What is wrong but does not keep the rest from working, in sentences."""
    installed: Collection[str] | None = None
    """Runtimes that can be started here, preferred where a name may mean several; None: not known."""
    _names: Mapping[str, tuple[Variant, ...]] = field(default_factory=dict, repr=False)
    """Every name, in lower case, and what it may mean."""

    @classmethod
    def build(
        cls,
        settings: Settings,
        *,
        models_dir: Path,
        guide: Path,
        found: Sequence[Found] = (),
        installed: Collection[str] | None = None,
    ) -> "Catalog":
        """Join what is written with what was found in the models folders (`weights.find`)."""
        models = _written_models(settings, models_dir, guide, found)
        used = {variant.weights.location for model in models.values() for variant in model.variants}
        for entry in found:
            if str(entry.path) not in used:
                models.setdefault(entry.name, _found_model(entry, settings))
        variants = {variant.name: variant for model in models.values() for variant in model.variants}
        catalog = cls(models, variants, settings.switching.default, (), installed, _index(models))
        return catalog._checked(settings)

    def resolve(
        self,
        name: str,
        runtime: str | None = None,
        *,
        last_used: Sequence[str] = (),
    ) -> Variant:
        """Give the variant that a name stands for; raise `NotFound` naming what there is, the nearest first.

        The name may be a model's, a variant's, an alias, a served name (`gemma3:4b`) or a repository,
        in any case. Of several variants, the first in `last_used` is meant; else the first whose
        runtime is installed; else the first.
        """
        meant = self._names.get(name.lower(), ())
        if not meant:
            raise self._no_such(name)
        if runtime is None and len(meant) == 1:
            return meant[0]
        on_runtime = [variant for variant in meant if runtime in {None, variant.runtime}]
        if not on_runtime:
            there = ", ".join(variant.name for variant in meant)
            raise NotFound(f"{name} is not on {runtime}.", hint=f"There is: {there}.", param="runtime")
        return _preferred(on_runtime, last_used, self.installed)

    def on(self, runtime: str, *, last_used: Sequence[str] = ()) -> Variant:
        """Give the variant last used on a runtime, else its first; raise `NotFound` if it has none."""
        there = [variant for variant in self.variants.values() if variant.runtime == runtime]
        if not there:
            runtimes = dict.fromkeys(variant.runtime for variant in self.variants.values())
            hint = f"There are models on: {', '.join(runtimes)}."
            raise NotFound(f"There is no model on {runtime}.", hint=hint, param="runtime")
        return _preferred(there, last_used, None)

    def wanted_first(self, *, last_used: Sequence[str] = ()) -> Variant | None:
        """Give the variant to load when there is nothing to restore, or None."""
        if self.default is None or self.default.lower() not in self._names:
            return None
        return self.resolve(self.default, last_used=last_used)

    def _no_such(self, name: str) -> NotFound:
        ready_made = _ready_made_name(name)
        if ready_made is not None:
            remedy = f'It is ready-made: add "{ready_made}" to include in [catalog] of config.toml.'
            return NotFound(f'The model "{name}" is not listed.', hint=remedy, param="model")
        near = mistakes.nearest(name, [*self.models, *(variant for variant in self.variants if "/" in name)])
        hint = f"There is: {', '.join(near)}." if near else "The catalog is empty."
        return NotFound(f'There is no model "{name}".', hint=hint, param="model")

    def _checked(self, settings: Settings) -> "Catalog":
        is_written = "default" in settings.switching.model_fields_set
        if not is_written or self.default is None or self.default.lower() in self._names:
            return self
        error = self._no_such(self.default)
        problem = f"switching.default: {error.message} {error.hint}"
        return replace(self, problems=(problem,))


def plan(
    variant: Variant,
    *,
    preset: str | None = None,
    context: int | None = None,
    port: int,
    api_key: str | None = None,
    weights_at: Path | None = None,
) -> LaunchPlan:
    """Decide everything an engine of the variant is started with.

    `weights_at` is where a repository's weights were found on disk (`weights.on_disk`), if they were.
    """
    chosen = variant.preset(preset)
    return LaunchPlan(
        variant=variant.name,
        model=str(weights_at or variant.weights.location),
        served_name=variant.served_name,
        port=port,
        api_key=api_key,
        context=variant.launch_context(preset, context),
        parameters={**(chosen.parameters if chosen else {}), **variant.parameters},
        args=variant.args,
        env=variant.env,
        command=variant.command,
        capabilities=variant.capabilities,
        mmproj=variant.mmproj,
    )


def runtime_of(variant: Variant, runtimes: Mapping[str, Runtime]) -> Runtime:
    """Give the runtime of a variant; raise `Unavailable` where this Footplate does not know the kind."""
    if variant.runtime not in runtimes:
        raise Unavailable(
            f"This version of Footplate cannot start {variant.runtime} yet.",
            hint=f"It knows: {', '.join(runtimes)}.",
        )
    return runtimes[variant.runtime]


def diff(old: Catalog, new: Catalog) -> Changes:
    """Say what changed, and which engines it touches."""
    both = [name for name in new.variants if name in old.variants]
    return Changes(
        added=tuple(name for name in new.variants if name not in old.variants),
        removed=tuple(name for name in old.variants if name not in new.variants),
        altered=tuple(name for name in both if old.variants[name] != new.variants[name]),
        restarts=frozenset(
            (name, preset)
            for name in both
            for preset in (None, *old.variants[name].presets)
            if _restarts(old.variants[name], new.variants[name], preset)
        ),
    )


def _restarts(old: Variant, new: Variant, preset: str | None) -> bool:
    is_gone = preset is not None and preset not in new.presets
    return is_gone or old.fingerprint(preset) != new.fingerprint(preset)


def _written_models(
    settings: Settings, models_dir: Path, guide: Path, found: Sequence[Found]
) -> dict[str, Model]:
    return {
        name: Model(
            name,
            table.description,
            table.aliases,
            tuple(
                _written_variant(name, runtime, settings, models_dir, guide, found)
                for runtime in table.variants()
            ),
            demonstration=name == "guide" and settings.catalog.guide,
        )
        for name, table in settings.models.items()
    }


def _written_variant(
    model: str,
    runtime: written.RuntimeName,
    settings: Settings,
    models_dir: Path,
    guide: Path,
    found: Sequence[Found],
) -> Variant:
    table = settings.models[model].variants()[runtime]
    if isinstance(table, written.RemoteTable):
        return _remote_variant(model, table, settings)
    is_guide = model == "guide" and settings.catalog.guide
    beside = {entry.name: entry for entry in found if entry.runtime == _loader(runtime)}
    here = beside.get(table.weights or model)
    if is_guide and runtime == "llamacpp" and table.weights is None:
        located = Weights("path", str(guide))
    elif here is not None:
        located = Weights("path", str(here.path))
    else:
        located = weights.parse(table.weights or _usual_file(model, runtime), runtime, models_dir)
    mmproj = _mmproj(table, models_dir) or (here.mmproj if here else None)
    # The guide knows its own words and no others: a default system message would only confuse it.
    first = None if is_guide or "default" not in settings.profiles else "default"
    profile = _profile(settings, first, settings.models[model].profile, table.profile)
    kind: written.RuntimeTable = getattr(settings.runtimes, runtime)
    presets = _presets(settings, runtime)
    capabilities = table.capabilities or _usual_capabilities(settings, f"{runtime}/{model}", mmproj)
    # Presets are made for chat: they would give a small embedder most of the GPU.
    usual_preset = kind.preset if "chat" in capabilities else None
    return Variant(
        name=f"{runtime}/{model}",
        runtime=runtime,
        model=model,
        weights=located,
        served_name=table.served_name or (located.location if located.kind == "name" else model),
        presets=presets,
        default_preset=table.preset or usual_preset,
        profile=profile,
        profile_name=_profile_name(first, settings.models[model].profile, table.profile),
        capabilities=capabilities,
        context=table.context or profile.context,
        parameters={**_own_parameters(table), **table.parameters},
        args=(*kind.args, *table.args),
        env={**kind.env, **table.env},
        command=table.command,
        program=kind.program,
        mmproj=mmproj,
        pinned=table.pinned,
        elsewhere=Elsewhere(kind.url)
        if isinstance(kind, written.OllamaRuntimeTable) and kind.url is not None
        else None,
        demonstration=is_guide,
    )


def _usual_capabilities(settings: Settings, name: str, mmproj: Path | None) -> tuple[str, ...]:
    """Give what a variant can do that does not say so: what its service needs, else chat."""
    if name == settings.services.embedding:
        return ("embedding",)
    if name == settings.services.reranker:
        return ("rerank",)
    return ("chat", "vision") if mmproj else ("chat",)


def _remote_variant(model: str, table: written.RemoteTable, settings: Settings) -> Variant:
    first, *others = table.addresses
    return Variant(
        name=f"remote/{model}",
        runtime="remote",
        model=model,
        weights=Weights("elsewhere", ", ".join(table.addresses)),
        served_name=table.served_name or model,
        profile=_profile(settings, settings.models[model].profile, table.profile),
        profile_name=_profile_name(settings.models[model].profile, table.profile),
        capabilities=table.capabilities or ("chat",),
        context=table.context,
        elsewhere=Elsewhere(first, Path(table.key_file) if table.key_file else None, tuple(others)),
    )


def _found_model(entry: Found, settings: Settings) -> Model:
    """List a file from the models folder as if its table were written, and empty."""
    table = written.ModelTable.model_validate({entry.runtime: {}})
    alone = settings.model_copy(update={"models": {entry.name: table}})
    variant = _written_variant(entry.name, entry.runtime, alone, entry.path.parent, entry.path, (entry,))
    return Model(entry.name, "", (), (variant,))


def _loader(runtime: str) -> str:
    """Give the runtime under which `weights.find` lists what this runtime can load."""
    return "vllm" if runtime == "transformers" else runtime


def _usual_file(model: str, runtime: str) -> str:
    return f"{model}.gguf" if runtime == "llamacpp" else model


def _mmproj(table: written.VariantTable, models_dir: Path) -> Path | None:
    if isinstance(table, written.LlamacppTable) and table.mmproj:
        return models_dir / table.mmproj
    return None


def _own_parameters(table: written.VariantTable) -> dict[str, Any]:
    """Give the launch parameters that have a key of their own, under the runtime's names."""
    parameters: dict[str, Any] = {}
    if isinstance(table, written.LlamacppTable):
        parameters = {"parallel": table.slots, "gpu_layers": _layers(table.gpu_layers)}
    if isinstance(table, written.LlamacppTable | written.VllmTable):
        parameters["chat_template"] = table.chat_template
    return {name: value for name, value in parameters.items() if value is not None}


def _layers(layers: int | str | None) -> int | None:
    if isinstance(layers, str):
        return ALL_LAYERS if layers == "all" else None
    return layers


def _presets(settings: Settings, runtime: str) -> dict[str, Preset]:
    tables: Mapping[str, written.PresetTable] = getattr(settings.presets, runtime)
    return {name: _preset(name, table) for name, table in tables.items()}


def _preset(name: str, table: written.PresetTable) -> Preset:
    parameters = table.parameters
    contexts = [parameters.pop(key) for key in CONTEXT_NAMES if key in parameters]
    context = contexts[0] if contexts and isinstance(contexts[0], int) else None
    return Preset(name, parameters, context, table.description, table.risky)


def _profile(settings: Settings, *wishes: str | Profile | None) -> Profile:
    """Merge the wishes, the last one on top."""
    merged = Profile()
    for wish in wishes:
        merged = merged.under(settings.profiles[wish] if isinstance(wish, str) else wish)
    return merged


def _profile_name(*wishes: str | Profile | None) -> str | None:
    """Name what was merged."""
    said = [wish for wish in wishes if wish is not None]
    return "+".join(wish if isinstance(wish, str) else "own" for wish in said) or None


def _index(models: Mapping[str, Model]) -> dict[str, tuple[Variant, ...]]:
    """List every name with what it means; where two mean different things, the more official one wins."""
    names: dict[str, tuple[Variant, ...]] = {}
    for kind in (_official_names, _aliases, _served_names):
        meanings: dict[str, list[Variant]] = {}
        for model in models.values():
            for name, meant in kind(model):
                meanings.setdefault(name.lower(), []).extend(meant)
        for name, variants in meanings.items():
            names.setdefault(name, tuple(variants))
    return names


def _ready_made_name(name: str) -> str | None:
    """Give what to include for a name that a ready-made model would have."""
    for model, table in written.ready_made().models.items():
        variants = table.variants()
        whole = {model, *(f"{runtime}/{model}" for runtime in variants)}
        if name.lower() in whole:
            return name.lower()
        tables = [each for each in variants.values() if isinstance(each, written.VariantTable)]
        if name.lower() in {str(each.weights).lower() for each in tables}:
            return model
    return None


Names = Iterable[tuple[str, Sequence[Variant]]]


def _official_names(model: Model) -> Names:
    yield model.name, model.variants
    for variant in model.variants:
        yield variant.name, [variant]


def _aliases(model: Model) -> Names:
    for alias in model.aliases:
        yield alias, model.variants
        for variant in model.variants:
            yield f"{variant.runtime}/{alias}", [variant]


def _served_names(model: Model) -> Names:
    for variant in model.variants:
        names = {variant.served_name}
        if variant.weights.kind != "path":
            names |= {variant.weights.location, variant.weights.location.partition(":")[0]} - {""}
        if variant.weights.kind == "name":
            names.discard(variant.weights.location.partition(":")[0])
        for name in sorted(names - {model.name}):
            yield name, [variant]
            yield f"{variant.runtime}/{name}", [variant]


def _preferred(
    variants: Sequence[Variant], last_used: Sequence[str], installed: Collection[str] | None
) -> Variant:
    by_name = {variant.name: variant for variant in variants}
    for name in last_used:
        if name in by_name:
            return by_name[name]
    usable = [variant for variant in variants if installed is None or variant.runtime in installed]
    return (usable or variants)[0]
