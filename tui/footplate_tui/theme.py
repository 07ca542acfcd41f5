"""Footplate's own two themes, made of colours of the 256 palette: they look the same everywhere."""

from __future__ import annotations

from textual.theme import Theme

DARK_NAME = "footplate-dark"
LIGHT_NAME = "footplate-light"

RUNTIMES = ("vllm", "ollama", "llamacpp", "transformers", "remote")
OWN_VARIABLES = frozenset(
    {
        "muted",
        "faint",
        "code-background",
        "heading",
        "foreign",
        *(f"runtime-{runtime}" for runtime in RUNTIMES),
    }
)
"""What our styles use beyond the variables that every Textual theme has."""

DARK = Theme(
    DARK_NAME,
    dark=True,
    primary="#5fafff",
    secondary="#87d7d7",
    accent="#ffaf5f",
    success="#87d787",
    warning="#ffd75f",
    error="#ff5f5f",
    foreground="#d0d0d0",
    background="#1c1c1c",
    surface="#262626",
    panel="#303030",
    boost="#3a3a3a",
    variables={
        "muted": "#8a8a8a",
        "faint": "#585858",
        "code-background": "#121212",
        "heading": "#ffaf5f",
        "runtime-vllm": "#87d787",
        "runtime-ollama": "#ffaf5f",
        "runtime-llamacpp": "#5fd7d7",
        "runtime-transformers": "#d7af5f",
        "runtime-remote": "#af87d7",
        "foreign": "#d787af",
        "border": "#5fafff",
        "border-blurred": "#4e4e4e",
        "footer-key-foreground": "#5fafff",
        "scrollbar": "#444444",
        "scrollbar-hover": "#626262",
        "scrollbar-active": "#5fafff",
        "scrollbar-background": "#1c1c1c",
        "scrollbar-background-hover": "#1c1c1c",
        "scrollbar-background-active": "#1c1c1c",
        "scrollbar-corner-color": "#1c1c1c",
        "input-cursor-background": "#d0d0d0",
        "input-cursor-foreground": "#1c1c1c",
        "input-selection-background": "#005f87",
        "block-cursor-background": "#5fafff",
        "block-cursor-foreground": "#1c1c1c",
        "block-cursor-blurred-background": "#3a3a3a",
        "block-cursor-blurred-foreground": "#d0d0d0",
    },
)

LIGHT = Theme(
    LIGHT_NAME,
    dark=False,
    primary="#005faf",
    secondary="#008787",
    accent="#af5f00",
    success="#008700",
    warning="#875f00",
    error="#d70000",
    foreground="#262626",
    background="#ffffff",
    surface="#eeeeee",
    panel="#e4e4e4",
    boost="#dadada",
    variables={
        "muted": "#6c6c6c",
        "faint": "#b2b2b2",
        "code-background": "#eeeeee",
        "heading": "#af5f00",
        "runtime-vllm": "#008700",
        "runtime-ollama": "#af5f00",
        "runtime-llamacpp": "#008787",
        "runtime-transformers": "#875f00",
        "runtime-remote": "#875faf",
        "foreign": "#af005f",
        "border": "#005faf",
        "border-blurred": "#bcbcbc",
        "footer-key-foreground": "#005faf",
        "scrollbar": "#c6c6c6",
        "scrollbar-hover": "#9e9e9e",
        "scrollbar-active": "#005faf",
        "scrollbar-background": "#ffffff",
        "scrollbar-background-hover": "#ffffff",
        "scrollbar-background-active": "#ffffff",
        "scrollbar-corner-color": "#ffffff",
        "input-cursor-background": "#262626",
        "input-cursor-foreground": "#ffffff",
        "input-selection-background": "#afd7ff",
        "block-cursor-background": "#005faf",
        "block-cursor-foreground": "#ffffff",
        "block-cursor-blurred-background": "#dadada",
        "block-cursor-blurred-foreground": "#262626",
    },
)

THEMES = (DARK, LIGHT)


def other(name: str) -> str:
    """Give the theme that light/dark changes to."""
    return DARK_NAME if name == LIGHT_NAME else LIGHT_NAME


def runtime_colour(runtime: str | None) -> str:
    """Give the theme variable that stands for a runtime: the same colour wherever its name is shown."""
    return f"$runtime-{runtime}" if runtime in RUNTIMES else "$secondary"
