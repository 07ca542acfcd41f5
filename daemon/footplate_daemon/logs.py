"""The daemon's log: one JSON object a line on stderr, and the same line for people."""

import json
import logging
import sys
from datetime import datetime
from typing import Any

from pythonjsonlogger.json import JsonFormatter

_KNOWN = ("time", "level", "logger", "message", "exc_info", "stack_info", "color_message", "taskName")


def configure(level: str = "INFO") -> None:
    """Send every log record of this process to stderr as one JSON object a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter(
            "{created}{levelname}{name}{message}",
            style="{",
            rename_fields={"created": "time", "levelname": "level", "name": "logger"},
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(capture=True)


def render(line: str) -> str:
    """Write one line for a person: time, level, message, fields; a line that is not ours stays as it is."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line.rstrip("\n")
    if not isinstance(entry, dict) or "message" not in entry or "level" not in entry:
        return line.rstrip("\n")
    fields = "".join(f"  {key}={_value(value)}" for key, value in entry.items() if key not in _KNOWN)
    head = f"{_clock(entry.get('time'))} {entry['level']:<7} {entry['message']}{fields}"
    trace = entry.get("exc_info") or entry.get("stack_info")
    return f"{head}\n{trace}" if trace else head


def _clock(seconds: Any) -> str:
    """Write the local time to the millisecond, with the date: logs are read days later."""
    if not isinstance(seconds, int | float):
        return "-"
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "milliseconds")[:23]


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return json.dumps(text, ensure_ascii=False) if not text or any(c.isspace() for c in text) else text
