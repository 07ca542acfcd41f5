"""Every command once: its id, its keys, its words, and the message that carries it.

Bindings, footer, palette and help are all made from this table; what a command does is up to whoever
handles its message.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from textual.binding import Binding, BindingType
from textual.message import Message


class SendWanted(Message):
    """Send what stands in the prompt."""


class NewlineWanted(Message):
    """Begin a new line in the prompt."""


class EarlierPromptWanted(Message):
    """Bring back an earlier prompt."""


class LaterPromptWanted(Message):
    """Go on to a later prompt."""


class StopWanted(Message):
    """Take back what waits, else stop the answer that streams."""


class NewSessionWanted(Message):
    """Begin an empty session."""


class CopyWanted(Message):
    """Copy the last answer."""


class PageUpWanted(Message):
    """Scroll up by a page."""


class PageDownWanted(Message):
    """Scroll down by a page."""


class FollowWanted(Message):
    """Go to the end and stay there."""


class ReasoningWanted(Message):
    """Open or close the reasoning of the last answer."""


class SwitcherWanted(Message):
    """Show what there is to switch to, and how a switch goes."""


class ChoiceWanted(Message):
    """Switch to the highlighted variant."""


class PlanWanted(Message):
    """Say what a switch to the highlighted variant would do."""


class StopEngineWanted(Message):
    """Stop the engine of the highlighted variant."""


class WhyWanted(Message):
    """Say why the highlighted variant did not start."""


class CancelSwitchWanted(Message):
    """End the switch that goes on; what was active comes back."""


class FilterWanted(Message):
    """Type what the variants' names must contain."""


class BackWanted(Message):
    """Leave the innermost thing: question, filter, switch, screen."""


class CloseWanted(Message):
    """Close the screen; a switch goes on."""


class RemedyWanted(Message):
    """Try the highlighted way out."""


class CopyCommandWanted(Message):
    """Copy the command of the highlighted way out."""


class LightOrDarkWanted(Message):
    """Change between the light and the dark theme."""


class PaletteWanted(Message):
    """Open the command palette."""


class HelpWanted(Message):
    """Show every key."""


class QuitWanted(Message):
    """Leave the terminal program; the daemon and its engines go on."""


class Place(StrEnum):
    """Where a command's keys are heard."""

    PROMPT = "Prompt"
    CHAT = "Chat"
    SWITCHER = "Models (^r)"
    FAILURE = "When a model did not start"
    PROGRAM = "Program"


@dataclass(frozen=True)
class Command:
    """One thing a user can ask for."""

    id: str
    """`group.action`, what a key map names."""
    keys: str
    """Textual's names, by comma; the first is the one shown."""
    shown: str
    """How the key reads in the footer."""
    word: str
    """One word, for the footer."""
    title: str
    """A few words, for palette and help."""
    explanation: str
    message: type[Message]
    place: Place
    in_palette: bool = True
    priority: bool = False
    """Whether its keys come before those of the focused widget."""


COMMANDS: tuple[Command, ...] = (
    Command(
        "prompt.send", "enter", "⏎", "send", "Send",
        "Ask what stands in the prompt.",
        SendWanted, Place.PROMPT, in_palette=False, priority=True,
    ),
    Command(
        "prompt.newline", "ctrl+j,alt+enter,shift+enter", "^j", "newline", "New line",
        "Begin a new line in the prompt (also Alt+Enter).",
        NewlineWanted, Place.PROMPT, in_palette=False, priority=True,
    ),
    Command(
        "prompt.earlier", "up", "↑", "earlier", "Earlier prompt",
        "In an empty prompt: bring back the last one.",
        EarlierPromptWanted, Place.PROMPT, in_palette=False,
    ),
    Command(
        "prompt.later", "down", "↓", "later", "Later prompt",
        "Go on to a later prompt.",
        LaterPromptWanted, Place.PROMPT, in_palette=False,
    ),
    Command(
        "chat.stop", "escape", "esc", "stop", "Stop",
        "Stop the answer and keep what came; take a waiting question back into the prompt.",
        StopWanted, Place.CHAT,
    ),
    Command(
        "model.switch", "ctrl+r", "^r", "models", "Models",
        "Choose what answers: models, plans, a running switch, and why one failed.",
        SwitcherWanted, Place.CHAT, priority=True,
    ),
    Command(
        "chat.copy", "ctrl+y", "^y", "copy", "Copy the last answer",
        "Copy the last answer to the clipboard, over SSH and inside tmux too.",
        CopyWanted, Place.CHAT, priority=True,
    ),
    Command(
        "chat.reasoning", "f2", "F2", "reasoning", "Show or hide the reasoning",
        "Open or close the reasoning of the last answer.",
        ReasoningWanted, Place.CHAT, priority=True,
    ),
    Command(
        "session.new", "ctrl+n", "^n", "new", "New session",
        "Begin an empty session; the one before stays in the history.",
        NewSessionWanted, Place.CHAT, priority=True,
    ),
    Command(
        "scroll.up", "pageup", "PgUp", "up", "Scroll up",
        "Read earlier turns; the answer goes on below.",
        PageUpWanted, Place.CHAT, priority=True,
    ),
    Command(
        "scroll.down", "pagedown", "PgDn", "down", "Scroll down",
        "Scroll down by a page.",
        PageDownWanted, Place.CHAT, priority=True,
    ),
    Command(
        "scroll.follow", "ctrl+end", "End", "follow", "Follow the answer",
        "Go to the end and stay there (End, when the cursor has nowhere else to go).",
        FollowWanted, Place.CHAT, priority=True,
    ),
    Command(
        "switcher.choose", "enter", "⏎", "switch", "Switch",
        "Make the highlighted variant active.",
        ChoiceWanted, Place.SWITCHER, in_palette=False,
    ),
    Command(
        "switcher.plan", "p", "p", "plan", "Plan",
        "Say what the switch would stop, need and run; nothing is done.",
        PlanWanted, Place.SWITCHER, in_palette=False,
    ),
    Command(
        "switcher.stop", "s", "s", "stop", "Stop the engine",
        "Stop the highlighted engine and free its memory; press it twice.",
        StopEngineWanted, Place.SWITCHER, in_palette=False,
    ),
    Command(
        "switcher.why", "w", "w", "why", "Why",
        "Say why the highlighted variant failed, and what helps.",
        WhyWanted, Place.SWITCHER, in_palette=False,
    ),
    Command(
        "switcher.filter", "slash", "/", "filter", "Filter",
        "Filter by name (any letter that is no key here begins it, too).",
        FilterWanted, Place.SWITCHER, in_palette=False,
    ),
    Command(
        "switcher.cancel", "c", "c", "cancel", "Cancel the switch",
        "Cancel the switch that goes on; what was active comes back.",
        CancelSwitchWanted, Place.SWITCHER, in_palette=False,
    ),
    Command(
        "switcher.back", "escape", "esc", "back", "Back",
        "Clear the filter, else cancel the switch that goes on, else close.",
        BackWanted, Place.SWITCHER, in_palette=False,
    ),
    Command(
        "switcher.close", "ctrl+r", "^r", "close", "Close",
        "Close; a switch goes on, and the status line shows it.",
        CloseWanted, Place.SWITCHER, in_palette=False,
    ),
    Command(
        "failure.take", "enter", "1…9", "try", "Try a way out",
        "Try a way out by its number (or Enter); where it is for you to do, copy its command.",
        RemedyWanted, Place.FAILURE, in_palette=False,
    ),
    Command(
        "failure.copy", "y", "y", "copy", "Copy the command",
        "Copy the command of the highlighted way out.",
        CopyCommandWanted, Place.FAILURE, in_palette=False,
    ),
    Command(
        "failure.close", "escape,q", "esc", "close", "Close",
        "Close; `w` on the model shows it again.",
        BackWanted, Place.FAILURE, in_palette=False,
    ),
    Command(
        "view.theme", "ctrl+t", "^t", "light/dark", "Light or dark",
        "Change between the light and the dark theme; remembered.",
        LightOrDarkWanted, Place.PROGRAM, priority=True,
    ),
    Command(
        "program.palette", "ctrl+p", "^p", "commands", "Commands",
        "Find a command by its name.",
        PaletteWanted, Place.PROGRAM, in_palette=False, priority=True,
    ),
    Command(
        "program.help", "f1", "F1", "help", "Help",
        "Show every key.",
        HelpWanted, Place.PROGRAM, priority=True,
    ),
    Command(
        "program.quit", "ctrl+q", "^q", "quit", "Quit",
        "Leave this terminal; daemon, engines and running answers go on.",
        QuitWanted, Place.PROGRAM, priority=True,
    ),
)  # fmt: skip

BY_ID = {command.id: command for command in COMMANDS}


def bindings(place: Place) -> list[BindingType]:
    """Give the bindings of a place; each calls `action_command` with the command's id."""
    return [
        Binding(
            command.keys,
            f"command({command.id!r})",
            command.title,
            key_display=command.shown,
            priority=command.priority,
            id=command.id,
            tooltip=command.explanation,
        )
        for command in COMMANDS
        if command.place is place
    ]


def in_palette() -> Iterable[Command]:
    """Give what the palette lists, harmless things first."""
    return (command for command in COMMANDS if command.in_palette)
