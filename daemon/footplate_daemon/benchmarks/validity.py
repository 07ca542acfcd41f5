"""Whether an answer is JSON of a given schema, and if not, why. Pure.

Understands what schemas for models are made of: types, enumerations, constants, objects, arrays, bounds,
`anyOf` and its kin, references within the schema. Other keywords say nothing here.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

DEEPEST = 64
"""Levels of references and nesting that are followed."""

Schema = Mapping[str, Any] | bool


def why_invalid(text: str, schema: Schema) -> str | None:
    """Say in a sentence why a text is not JSON of this schema; None when it is."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        return f"It is not JSON: {error}."
    return _Check(schema).fault(value, schema, "$", DEEPEST)


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


class _Check:
    def __init__(self, root: Schema) -> None:
        self._root = root

    def fault(self, value: Any, schema: Any, place: str, depth: int) -> str | None:
        """Give the first fault of a value, and where it is."""
        if schema is False:
            return f"{place} may not be there."
        if not isinstance(schema, Mapping) or depth == 0:
            return None
        reference = schema.get("$ref")
        if isinstance(reference, str):
            return self.fault(value, self._referred(reference), place, depth - 1)
        return (
            _wrong_type(value, schema, place)
            or _wrong_value(value, schema, place)
            or _out_of_bounds(value, schema, place)
            or self._fault_inside(value, schema, place, depth)
            or self._fault_of_choices(value, schema, place, depth)
        )

    def _referred(self, reference: str) -> Any:
        found: Any = self._root
        for part in reference.removeprefix("#").strip("/").split("/"):
            if part:
                found = found.get(part) if isinstance(found, Mapping) else None
        return found

    def _fault_inside(self, value: Any, schema: Mapping[str, Any], place: str, depth: int) -> str | None:
        if isinstance(value, dict):
            return self._fault_of_object(value, schema, place, depth)
        items = schema.get("items")
        if isinstance(value, list) and items is not None:
            faults = (
                self.fault(each, items, f"{place}[{number}]", depth - 1) for number, each in enumerate(value)
            )
            return next((fault for fault in faults if fault), None)
        return None

    def _fault_of_object(
        self, value: dict[str, Any], schema: Mapping[str, Any], place: str, depth: int
    ) -> str | None:
        properties = schema.get("properties") or {}
        missing = [name for name in schema.get("required") or () if name not in value]
        if missing:
            return f"{place} lacks {', '.join(missing)}."
        other = schema.get("additionalProperties", True)
        for name, each in value.items():
            fault = self.fault(each, properties.get(name, other), f"{place}.{name}", depth - 1)
            if fault:
                return fault
        return None

    def _fault_of_choices(self, value: Any, schema: Mapping[str, Any], place: str, depth: int) -> str | None:
        for each in schema.get("allOf") or ():
            if fault := self.fault(value, each, place, depth - 1):
                return fault
        for word, is_right in _CHOICES.items():
            choices = schema.get(word)
            if isinstance(choices, list):
                fitting = sum(self.fault(value, each, place, depth - 1) is None for each in choices)
                if not is_right(fitting):
                    return f"{place} is none of what it may be."
        return None


_CHOICES: Mapping[str, Callable[[int], bool]] = {
    "anyOf": lambda fitting: fitting >= 1,
    "oneOf": lambda fitting: fitting == 1,
}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": _is_number,
    "integer": lambda value: _is_number(value) and value == int(value),
}


def _wrong_type(value: Any, schema: Mapping[str, Any], place: str) -> str | None:
    wanted = schema.get("type")
    names = [wanted] if isinstance(wanted, str) else wanted if isinstance(wanted, list) else []
    known = [name for name in names if name in _TYPES]
    if not known or any(_TYPES[name](value) for name in known):
        return None
    return f"{place} is not of the type {' or '.join(known)}."


def _wrong_value(value: Any, schema: Mapping[str, Any], place: str) -> str | None:
    allowed = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(allowed, list) or any(type(value) is type(each) and value == each for each in allowed):
        return None
    return f"{place} is none of {', '.join(json.dumps(each) for each in allowed)}."


def _out_of_bounds(value: Any, schema: Mapping[str, Any], place: str) -> str | None:
    if _is_number(value):
        return _beyond(value, schema, place, ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"))
    if isinstance(value, str):
        pattern = schema.get("pattern")
        if isinstance(pattern, str) and not _matches(pattern, value):
            return f"{place} does not match {pattern}."
        return _beyond(len(value), schema, place, ("minLength", "maxLength"))
    if isinstance(value, list):
        return _beyond(len(value), schema, place, ("minItems", "maxItems"))
    return None


def _beyond(size: float, schema: Mapping[str, Any], place: str, words: tuple[str, ...]) -> str | None:
    for word in words:
        bound: Any = schema.get(word)
        if _is_number(bound) and not _BOUNDS[word](size, bound):
            return f"{place} breaks {word} {bound:g}."
    return None


_BOUNDS: Mapping[str, Callable[[float, float], bool]] = {
    "minimum": lambda size, bound: size >= bound,
    "maximum": lambda size, bound: size <= bound,
    "exclusiveMinimum": lambda size, bound: size > bound,
    "exclusiveMaximum": lambda size, bound: size < bound,
    "minLength": lambda size, bound: size >= bound,
    "maxLength": lambda size, bound: size <= bound,
    "minItems": lambda size, bound: size >= bound,
    "maxItems": lambda size, bound: size <= bound,
}


def _matches(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:  # of another dialect
        return True
