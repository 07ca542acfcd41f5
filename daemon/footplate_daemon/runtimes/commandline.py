"""How launch parameters become a command line, the same way for every runtime that is a program."""

import json
from collections.abc import Iterable, Mapping
from typing import Any


def flags(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Write `max_num_seqs=1` as `--max-num-seqs 1`, in the order given.

    True is the bare flag, False `--no-…`, None nothing; a list is many values of one flag, a table its JSON.
    """
    return tuple(word for name, value in parameters.items() for word in _flag(name.replace("_", "-"), value))


def replace_program(
    command: tuple[str, ...] | None,
    program: Iterable[str],
    arguments: tuple[str, ...],
    *,
    port: int,
    model: str,
) -> tuple[str, ...]:
    """Give the whole command line: `program` and its arguments, or the operator's `command` in its place."""
    if command is None:
        return (*program, *arguments)
    words = tuple(word.replace("{port}", str(port)).replace("{model}", model) for word in command)
    if "{args}" in words:
        return tuple(part for word in words for part in (arguments if word == "{args}" else (word,)))
    return words if words != command else (*command, *arguments)


def _flag(name: str, value: Any) -> tuple[str, ...]:
    match value:
        case None:
            return ()
        case True:
            return (f"--{name}",)
        case False:
            return (f"--no-{name}",)
        case list() | tuple():
            return (f"--{name}", *map(str, value))
        case Mapping():
            return (f"--{name}", json.dumps(value, separators=(",", ":")))
        case _:
            return (f"--{name}", str(value))
