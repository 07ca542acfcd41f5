"""What would be started for a variant, and what its generation parameters come to there.

Looks for the runtime's program and into the weights' chat template; starts nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from footplate_daemon import catalog
from footplate_daemon.catalog import Variant
from footplate_daemon.errors import Invalid, Unavailable
from footplate_daemon.runtimes.base import Launch, LaunchPlan, Runtime, Translated
from footplate_daemon.runtimes.cases import Case
from footplate_daemon.settings import MASK, Profile, mask_arguments, mask_environment
from footplate_daemon.wire import Explanation, ParameterExplained

NO_PORT = 65534
"""Stands for the port that is chosen at launch; shown as `PORT`."""
PROBES: Mapping[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.9,
    "max_tokens": 1,
    "seed": 1,
    "stop": ["."],
    "reasoning_effort": "low",
}
"""Values by which a runtime is asked what it makes of a parameter that the profile leaves out."""
PROFILE_WORDS: Mapping[str, str] = {"reasoning_effort": "reasoning"}
"""What the profile calls otherwise than OpenAI does."""
OF_OTHER_MODELS: Mapping[Case, str] = {
    Case.EMBEDDINGS: "embedding",
    Case.RERANKING: "rerank",
    Case.IMAGES: "vision",
}
"""Cases that matter only for a model with that capability."""
METADATA_BYTES = 32 * 1024 * 1024
"""Of a GGUF file: what begins with them holds the chat template."""


def explain(
    variant: Variant,
    preset: str | None,
    runtime: Runtime,
    *,
    context: int | None = None,
    weights_at: Path | None = None,
) -> Explanation:
    """Say what a switch to the variant would start; raise `NotFound` for a preset that there is not."""
    chosen = variant.preset(preset)
    plan = catalog.plan(
        variant, preset=preset, context=context, port=NO_PORT, api_key=MASK, weights_at=weights_at
    )
    launch, notes = _launch(runtime, plan)
    notes = (*notes, *_differences(variant, runtime, launch), *_about_reasoning(variant, weights_at))
    if chosen and chosen.risky:
        notes = (*notes, f"The preset {chosen.name} is risky: it may not start.")
    return Explanation(
        variant=variant.name,
        runtime=variant.runtime,
        model=variant.model,
        preset=chosen.name if chosen else None,
        context=plan.context,
        weights=plan.model,
        served_name=variant.served_name,
        command=_shown(launch.command) if launch else (),
        environment=mask_environment(launch.env) if launch else {},
        parameters=_parameters(variant.profile, runtime, plan, launch),
        notes=notes,
    )


def _launch(runtime: Runtime, plan: LaunchPlan) -> tuple[Launch | None, tuple[str, ...]]:
    try:
        return runtime.launch(plan), ()
    except (Unavailable, Invalid) as error:
        return None, (" ".join(filter(None, [error.message, error.hint])),)


def _differences(variant: Variant, runtime: Runtime, launch: Launch | None) -> Iterator[str]:
    """Say what the runtime cannot do for this model, and what it could if it were started otherwise."""
    for case, sentence in runtime.cannot.items():
        if _matters(case, variant):
            yield f"{case}: no. {sentence}"
    for case, need in runtime.needs.items():
        is_met = not need.options or launch is None or set(need.options) <= set(launch.command)
        if _matters(case, variant) and not is_met:
            yield f"{case}: needs {need.sentence}"


def _matters(case: Case, variant: Variant) -> bool:
    capability = OF_OTHER_MODELS.get(case, "chat")
    return capability in variant.capabilities


def _about_reasoning(variant: Variant, weights_at: Path | None) -> Iterator[str]:
    if variant.profile.body().get("reasoning_effort") != "none" or weights_at is None:
        return
    if variant.runtime != "ollama" and _knows_enable_thinking(weights_at) is False:
        yield (
            f"The chat template of {variant.model} does not know enable_thinking: if the model reasons, that "
            "cannot be switched off."
        )


def _knows_enable_thinking(weights: Path) -> bool | None:
    """Look into the chat template; None where none is found."""
    word = b"enable_thinking"
    try:
        if weights.is_file():
            with weights.open("rb") as file:
                start = file.read(METADATA_BYTES)
            return word in start if b"tokenizer.chat_template" in start else None
        templates = [*weights.glob("chat_template*"), weights / "tokenizer_config.json"]
        text = b"".join(file.read_bytes() for file in templates if file.is_file())
    except OSError:
        return None
    return word in text if text else None


def _shown(command: Sequence[str]) -> tuple[str, ...]:
    return tuple(word.replace(str(NO_PORT), "PORT") for word in mask_arguments(command))


def _parameters(
    profile: Profile, runtime: Runtime, plan: LaunchPlan, launch: Launch | None
) -> tuple[ParameterExplained, ...]:
    body = profile.body()
    translated = runtime.translate({**PROBES, **body}, plan.context)
    return (
        *(_parameter(name, body.get(name), translated) for name in PROBES),
        ParameterExplained(
            name="context",
            value=plan.context,
            outcome="at launch",
            becomes=_context_arguments(runtime, plan, launch),
        ),
        ParameterExplained(name="system", value=profile.system, outcome="first message"),
    )


def _parameter(name: str, value: Any, translated: Translated) -> ParameterExplained:
    word = PROFILE_WORDS.get(name, name)
    sent_as = translated.renamed.get(name, name)
    clamp = translated.clamped.get(name) or translated.clamped.get(sent_as)
    becomes = sent_as if sent_as != word else None
    if name in translated.ignored:
        return ParameterExplained(name=word, value=value, outcome="ignored")
    if clamp and value is not None:
        return ParameterExplained(name=word, value=value, outcome="clamped", becomes=becomes, note=clamp)
    return ParameterExplained(
        name=word, value=value, outcome="renamed" if becomes else "same", becomes=becomes
    )


def _context_arguments(runtime: Runtime, plan: LaunchPlan, launch: Launch | None) -> str | None:
    """Find the arguments that carry the context: those that another context changes."""
    if launch is None or plan.context is None:
        return None
    other = replace(plan, context=plan.context + 1)
    changed = [
        " ".join(launch.command[index - 1 : index + 1])
        for index, (word, other_word) in enumerate(
            zip(launch.command, runtime.launch(other).command, strict=False)
        )
        if word != other_word
    ]
    return ", ".join(changed) or None
