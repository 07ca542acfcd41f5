"""The keys a person chose: `keys.toml`, checked once, and the commands as their keys are then.

    chat.stop = "ctrl+x"
    model.switch = "ctrl+s,alt+m"

Keys have Textual's names, by comma where there are several. An entry that cannot be is told and left out;
the key that the command has anyway stays.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual.keys import Keys

from footplate_tui.commands import BY_ID, COMMANDS, Command, Place

if TYPE_CHECKING:
    from textual.app import App

FILE = "keys.toml"

TYPING_PLACES = frozenset({Place.PROMPT, Place.CHAT, Place.SESSION, Place.ATTACH, Place.PROGRAM})
"""Where letters are typed: a letter as a key could not be written any more."""
HEARD_TOGETHER = (frozenset({Place.PROMPT, Place.CHAT}),)
"""Places whose keys are heard at the same time; the program's are heard in every place."""
SENT_ALIKE = {"ctrl+i": "Tab", "ctrl+m": "Enter", "ctrl+h": "Backspace", "ctrl+left_square_bracket": "Esc"}
"""What terminals send for another key."""

SHOWN = {
    "enter": "⏎",
    "escape": "esc",
    "tab": "⇥",
    "shift+tab": "⇧⇥",
    "space": "␣",
    "up": "↑",
    "down": "↓",
    "left": "←",
    "right": "→",
    "pageup": "PgUp",
    "pagedown": "PgDn",
    "slash": "/",
    "question_mark": "?",
}
MODIFIERS = frozenset({"ctrl", "shift", "alt"})
_NAMED = frozenset(key.value for key in Keys)


@dataclass(frozen=True)
class Keymap:
    """Which commands have other keys than they are born with."""

    chosen: Mapping[str, str] = field(default_factory=dict)
    """By the command's id, as Textual's `set_keymap` takes it."""
    mistakes: tuple[str, ...] = ()
    """What was left out and why, a sentence each."""

    def command(self, identity: str) -> Command:
        """Give a command with the keys it has now."""
        command = BY_ID[identity]
        keys = self.chosen.get(identity)
        return replace(command, keys=keys, shown=shown(keys)) if keys else command

    def commands(self, place: Place) -> list[Command]:
        """Give the commands of a place with the keys they have now."""
        return [self.command(command.id) for command in COMMANDS if command.place is place]

    def keys(self, place: Place) -> frozenset[str]:
        """Give every key that is heard as a command in a place."""
        return frozenset(key for command in self.commands(place) for key in command.keys.split(","))

    def title(self, place: Place) -> str:
        """Give the place's name with the key that leads there now."""
        title = place.value
        for identity in self.chosen:
            title = title.replace(f"({BY_ID[identity].shown})", f"({self.command(identity).shown})")
        return title


BORN_WITH = Keymap()


def keymap_of(app: App[Any]) -> Keymap:
    """Give the keys of the program that a widget belongs to."""
    keymap = getattr(app, "keymap", BORN_WITH)
    return keymap if isinstance(keymap, Keymap) else BORN_WITH


def read(file: Path) -> Keymap:
    """Read the keys that a person wrote; without a file, those that commands are born with."""
    try:
        written = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return BORN_WITH
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return Keymap(mistakes=(f"{file.name} cannot be read: {error}",))
    return check(written, file.name)


def check(written: Mapping[str, Any], name: str = FILE) -> Keymap:
    """Take what can be and say what cannot; the order of the file decides who keeps a key."""
    chosen: dict[str, str] = {}
    mistakes: list[str] = []
    entries = dict(_entries(written))
    for identity, value in entries.items():
        # Keys that another entry gives away are free to take.
        others = {other: chosen.get(other, value if isinstance(value, str) else "")
                  for other, value in entries.items() if other != identity and other in BY_ID}  # fmt: skip
        mistake = _mistake(identity, value, others)
        if mistake:
            mistakes.append(f"{name}: {mistake}")
        else:
            chosen[identity] = ",".join(_keys(str(value)))
    return Keymap(chosen, tuple(mistakes))


def shown(keys: str) -> str:
    """Say how the first of some keys reads in the footer."""
    key = keys.split(",", maxsplit=1)[0]
    if key in SHOWN:
        return SHOWN[key]
    if key.startswith("ctrl+"):
        return f"^{key.removeprefix('ctrl+')}"
    return key.upper() if key[1:].isdigit() else key


def _entries(written: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in written.items():
        if isinstance(value, Mapping):
            yield from _entries(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _mistake(identity: str, value: object, others: Mapping[str, str]) -> str:
    """Say why an entry cannot be; empty when it can."""
    if identity not in BY_ID:
        return f"{identity} is no command.{_nearest(identity, BY_ID, 'Did you mean {}?')}"
    if not isinstance(value, str) or not _keys(value):
        return f'{identity} needs a key in quotes, like "ctrl+x".'
    command = BY_ID[identity]
    for key in _keys(value):
        if key in SENT_ALIKE:
            return f"{identity}: terminals send {key} as {SENT_ALIKE[key]}; choose another key."
        if not _is_key(key):
            return f"{identity}: {key} is no key.{_nearest(key, _NAMED, 'Did you mean {}?')}"
        if len(key) == 1 and command.place in TYPING_PLACES:
            return f"{identity}: {key} could not be typed any more; choose a key with ctrl, or an F-key."
        for other in COMMANDS:
            if other is command or not _heard_together(command.place, other.place):
                continue
            if key in _keys(others.get(other.id, other.keys)):
                return f"{identity}: {key} is the key of {other.id} ({other.title})."
    return ""


def _keys(value: str) -> list[str]:
    return [key for part in value.split(",") if (key := part.strip())]


def _is_key(key: str) -> bool:
    *modifiers, base = key.split("+")
    return key in _NAMED or (set(modifiers) <= MODIFIERS and (len(base) == 1 or base in _NAMED))


def _heard_together(one: Place, other: Place) -> bool:
    if one is other or Place.PROGRAM in {one, other}:
        return True
    return any({one, other} <= places for places in HEARD_TOGETHER)


def _nearest(word: str, known: Mapping[str, object] | frozenset[str], sentence: str) -> str:
    import difflib  # noqa: PLC0415 -- only where something is wrong

    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" {sentence.format(near[0])}" if near else ""
