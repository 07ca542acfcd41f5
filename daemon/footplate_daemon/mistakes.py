"""What is wrong in a config.toml, in words that say where it is and how to mend it.

Knows TOML and pydantic's way of refusing; what the keys mean it is told.
"""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from footplate_daemon.errors import Invalid
from footplate_daemon.toml_lines import Place, line_of


@dataclass(frozen=True)
class Mistake:
    """One thing to mend."""

    line: int
    """Line of the file, from 1."""
    key: str
    """Dotted, as one would write it: `switching.policy`; empty for a mistake in the TOML itself."""
    sentence: str
    """What is wrong."""
    remedy: str
    """What to do about it."""

    def __str__(self) -> str:
        where = f"line {self.line}: {self.key}: " if self.key else f"line {self.line}: "
        return f"{where}{self.sentence} {self.remedy}".rstrip()


class ConfigErrors(Invalid):
    """Everything that is wrong in one configuration file, in the order of its lines."""

    def __init__(self, file: Path, mistakes: Sequence[Mistake]) -> None:
        self.file = file
        self.mistakes = tuple(sorted(mistakes, key=lambda mistake: (mistake.line, mistake.key)))
        count = f"{len(mistakes)} mistakes" if len(mistakes) != 1 else "1 mistake"
        super().__init__(
            "\n".join([f"{file} has {count}:", *(f"  {mistake}" for mistake in self.mistakes)]),
            hint=f"Mend {file} and try again: footplate config check",
            details={"file": str(file), "mistakes": [asdict(mistake) for mistake in self.mistakes]},
        )


CLOSE = 0.6
"""How alike two names must be (difflib's ratio) for one to be taken for a misspelling of the other."""


def of_syntax(text: str, message: str) -> Mistake:
    """Put what tomllib said, which ends in `(at line 3, column 5)`, in our words."""
    found = re.search(r"\s*\(at line (\d+), column (\d+)\)$", message)
    line = int(found[1]) if found else text.count("\n") + 1
    said = message[: found.start()] if found else message.removesuffix(" (at end of document)")
    column = f" (column {found[2]})" if found else " (at the end of the file)"
    return Mistake(line, "", f"This is not TOML: {said}{column}.", _syntax_remedy(said))


def of_shape(
    refusals: Iterable[ErrorDetails],
    data: Mapping[str, Any],
    lines: Mapping[Place, int],
    root: type[BaseModel],
) -> list[Mistake]:
    """Put pydantic's refusals of `data` as a `root` in our words."""
    mistakes = []
    for refusal in refusals:
        place = _place_in(data, refusal["loc"])
        sentence, remedy = _words(refusal, place, root)
        mistakes.append(Mistake(line_of(lines, place), dotted(place), sentence, remedy))
    return mistakes


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """Sort the names, those that look like `name` first."""
    known = sorted(set(names))
    lowered = {entry.lower(): entry for entry in known}
    close = [lowered[entry] for entry in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=CLOSE)]
    return close + [entry for entry in known if entry not in close]


def suggestion(name: str, names: Iterable[str], *, kind: str = "names") -> str:
    """Give the sentence that helps: the name that was probably meant, or those that there are."""
    known = list(names)
    if not known:
        return f"There are no {kind} yet."
    first = nearest(name, known)
    if difflib.get_close_matches(name.lower(), [first[0].lower()], n=1, cutoff=CLOSE):
        return f'Did you mean "{first[0]}"?'
    return f"Valid {kind}: {', '.join(first)}."


def dotted(place: Sequence[str | int]) -> str:
    """Write a place as one would in TOML: `models."qwen2.5".vllm.args[1]`."""
    words = ""
    for part in place:
        if isinstance(part, int):
            words += f"[{part}]"
        else:
            name = part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else json.dumps(part, ensure_ascii=False)
            words += f".{name}" if words else name
    return words


def _syntax_remedy(said: str) -> str:
    if "Invalid value" in said:
        return 'Text is written in quotes ("…"), yes and no as true and false.'
    if "twice" in said or "overwrite" in said or "Cannot mutate" in said:
        return "Each table and each key may stand there once: join the two."
    if "Illegal character" in said or "Unterminated" in said or "Expected" in said:
        return "Look for a quote or bracket that is not closed, here or on the line before."
    return ""


def _place_in(data: Any, loc: Sequence[str | int]) -> Place:
    """Leave out what pydantic adds to a location and the file does not have (names of union members)."""
    place: Place = ()
    for index, part in enumerate(loc):
        is_element = isinstance(data, list | tuple) and isinstance(part, int) and part < len(data)
        if is_element or (isinstance(data, Mapping) and part in data):
            data = data[part]
        elif index < len(loc) - 1 or not isinstance(data, Mapping):
            continue
        place = (*place, part)
    return place


def _words(refusal: ErrorDetails, place: Place, root: type[BaseModel]) -> tuple[str, str]:
    kind, context = refusal["type"], refusal.get("ctx", {})
    given = _shown(refusal["input"])
    if kind == "extra_forbidden":
        return _unknown_key(place, root, refusal["input"])
    if kind == "literal_error":
        names = re.findall(r"'([^']*)'", str(context["expected"]))
        quoted = [f'"{name}"' for name in names]
        return f"Must be {_either(quoted)}, not {given}.", suggestion(
            str(refusal["input"]), names, kind="values"
        )
    if kind in _TYPES:
        return f"Must be {_TYPES[kind]}, not {given}.", _retyped(kind, refusal["input"])
    for name, words in _BOUNDS.items():
        if name in context and kind.startswith(("greater_than", "less_than")):
            limit = f"{words} {context[name]}"
            return f"Must be {limit}, not {given}.", f"Write a number, {limit}."
    if kind == "missing":
        return "This is missing.", "Add it."
    return f"{refusal['msg'].rstrip('.')}.", str(context.get("remedy", ""))


_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text in quotes",
    "tuple_type": "a list in brackets",
    "list_type": "a list in brackets",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}

_EXAMPLES = {
    "a whole number": "4096",
    "a number": "0.7",
    "a finite number": "0.7",
    "true or false": "true",
    "text in quotes": '"text"',
    "a list in brackets": '["one", "two"]',
    "a table": "{ temperature = 0.2 }",
}

_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def _retyped(kind: str, given: Any) -> str:
    if kind == "string_type" and isinstance(given, bool | int | float):
        return f'Write it in quotes: "{_shown(given)}".'
    if kind == "bool_type" and isinstance(given, str):
        return "Write true or false, without quotes."
    if kind in {"int_type", "float_type"} and isinstance(given, str) and re.fullmatch(r"[\d.]+", given):
        return f"Write it without quotes: {given}."
    if kind in {"tuple_type", "list_type"} and isinstance(given, str):
        return f"Write it in brackets: [{_shown(given)}]."
    return f"For example: {_EXAMPLES.get(_TYPES[kind], 'see docs/configuration.md')}"


def _unknown_key(place: Place, root: type[BaseModel], given: Any) -> tuple[str, str]:
    *parents, last = place
    key, names = str(last), keys_at(root, parents)
    table = f"[{dotted(parents)}]" if parents else "the top of the file"
    sentence = f"There is no key {key} in {table}."
    if isinstance(given, Mapping) and key[:1].isdigit():
        return sentence, f'A name with a dot in it needs quotes: "{parents[-1] if parents else ""}.{key}".'
    if not difflib.get_close_matches(key, names, n=1, cutoff=0.7):
        homes = [f"[{home}]" for home in _homes(key, parents, root)]
        if homes:
            return sentence, f"It belongs in {_either(homes)}."
    return sentence, suggestion(key, names, kind="keys")


def keys_at(root: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """Give the keys that the table at this place may have."""
    kinds: list[Any] = [root]
    for part in place:
        kinds = [inner for kind in kinds for inner in _inside(kind, part)]
    return [name for kind in kinds for name in getattr(kind, "model_fields", ())]


def _inside(kind: Any, part: str | int) -> Iterator[Any]:
    """Give the models and containers that a value of this kind may have under `part`."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(str(part))
        if field is not None:
            yield from _members(field.annotation)
    elif get_origin(kind) in {dict, Mapping, tuple, list}:
        yield from _members(get_args(kind)[-1 if get_origin(kind) in {dict, Mapping} else 0])


def _members(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _members(get_args(annotation)[0])
    elif origin in {Union, UnionType}:
        for member in get_args(annotation):
            yield from _members(member)
    elif origin is not Literal:
        yield annotation


def _homes(key: str, parents: Sequence[str | int], root: type[BaseModel]) -> list[str]:
    """Find the tables that have this key: those beside its own, else those with a fixed name."""
    beside = [[*parents[:-1], name] for name in keys_at(root, parents[:-1])]
    homes = [dotted(place) for place in beside if len(place) > 1 and key in keys_at(root, place)]
    if homes:
        return homes
    for section in root.model_fields:
        if key in keys_at(root, [section]):
            homes.append(section)
        homes += [
            f"{section}.{name}" for name in keys_at(root, [section]) if key in keys_at(root, [section, name])
        ]
    return homes


def _either(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a table"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}…"
