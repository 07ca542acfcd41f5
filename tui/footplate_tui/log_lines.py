"""Lines of a log as the terminal shows them: harmless, readable, and how bad they are. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from footplate_daemon import access_log, lifecycle
from footplate_tui.harmless import harmless
from footplate_tui.widgets.lines import Line

DAEMON = "daemon"
ACCESS = "access"
OWN = (DAEMON, ACCESS)
"""Our own logs; no engine has these names."""

LOOKED_AT = 300
"""So many characters of a line say how bad it is: what follows is what somebody wrote."""
TAB = 4
SHORTEST_EVIDENCE = 8
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_ERROR = re.compile(
    r"\b(ERROR|CRITICAL|FATAL|PANIC)\b|\blevel=(error|fatal)\b|\b(error|fatal|panic)(\[\d+\])?:"
    r"|Traceback \(most recent|^\s*([a-z_]\w*\.)*[A-Z]\w*(Error|Exception)\b|^[\d.: ]*E [a-z]",
)
_WARNING = re.compile(
    r"\b(WARN|WARNING)\b|\blevel=warn(ing)?\b|\b[Ww]arn(ing)?:|\w+Warning:|^[\d.: ]*W [a-z]"
)


class Level(IntEnum):
    """How bad a line is."""

    PLAIN = 0
    WARNING = 1
    ERROR = 2


STYLES = {Level.PLAIN: "", Level.WARNING: "$warning", Level.ERROR: "$error"}
TRACE_STYLE = "$muted"


@dataclass(frozen=True, slots=True, eq=False)
class LogLine(Line):
    """A line of a log."""

    level: Level = Level.PLAIN


def read(log: str, written: Iterable[str]) -> list[LogLine]:
    """Make lines to show of those that were written to a log."""
    if log == DAEMON:
        return [line for each in written for line in _ours(each)]
    if log == ACCESS:
        return [_shown(access_log.render(each), _access_level(each)) for each in written]
    return [_engines(each) for each in written]


def readable(written: str) -> str:
    """Give a line without colours, with what would command the terminal as pictures.

    Of a line that was written over itself, as a bar of progress is, what was written last.
    """
    if "\x1b" in written:
        written = _COLOUR.sub("", written)
    if "\r" in written:
        written = written.rstrip("\r").rpartition("\r")[2]
    return harmless(written).expandtabs(TAB).replace("\n", " ")


def _engines(written: str) -> LogLine:
    text = readable(written)
    return _line(text, level_of(text))


def level_of(text: str) -> Level:
    """Say how bad a line is, by what engines write before or at an error."""
    head = text[:LOOKED_AT]
    if _ERROR.search(head):
        return Level.ERROR
    return Level.WARNING if _WARNING.search(head) else Level.PLAIN


def _ours(written: str) -> list[LogLine]:
    """Make lines of one of the daemon's: JSON, of which one may hold a traceback."""
    first, *trace = lifecycle.render(written).split("\n")
    level = _own_level(written) if first != written else level_of(first)
    return [_shown(first, level), *(_line(readable(each), Level.PLAIN, TRACE_STYLE) for each in trace)]


def _own_level(written: str) -> Level:
    named = json.loads(written).get("level")
    if named in {"ERROR", "CRITICAL"}:
        return Level.ERROR
    return Level.WARNING if named == "WARNING" else Level.PLAIN


def _access_level(written: str) -> Level:
    try:
        status = json.loads(written)["status"]
    except (ValueError, KeyError, TypeError):
        return Level.PLAIN
    if not isinstance(status, int):
        return Level.PLAIN
    if status >= 500:
        return Level.ERROR
    return Level.WARNING if status >= 400 else Level.PLAIN


def _shown(text: str, level: Level) -> LogLine:
    return _line(readable(text), level)


def _line(text: str, level: Level, style: str = "") -> LogLine:
    return LogLine(text, style or STYLES[level], None, level)


def matching(lines: Iterable[LogLine], words: str, *, worst_only: bool = False) -> list[LogLine]:
    """Give the lines that contain every word; `worst_only`: of these the errors and warnings."""
    wanted = words.lower().split()
    return [
        line
        for line in lines
        if (not worst_only or line.level) and all(word in line.text.lower() for word in wanted)
    ]


def proves(proof: str, line: Line) -> bool:
    """Say whether a line is the one that a diagnosis names; it may name a part of a long one."""
    return proof in line.text


def proofs(evidence: Iterable[str]) -> tuple[str, ...]:
    """Give evidence as it can be found in the lines of a log."""
    found = (readable(each).strip().removesuffix("…") for each in evidence)
    return tuple(each for each in found if len(each) >= SHORTEST_EVIDENCE)
