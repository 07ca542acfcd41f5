"""Exchanges in the terminal's words: a row of the list, why one waits, where its time went. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from textual.content import Content

from footplate_tui.format import duration, finish_reason, rate, truncate
from footplate_tui.harmless import harmless, one_line
from footplate_tui.switching import how_far
from footplate_tui.theme import runtime_colour
from footplate_tui.widgets.lines import Line

if TYPE_CHECKING:
    from footplate_daemon.wire import Exchange, ExchangeBody, ExchangeText, ExchangeWhole, Status

UNDER_WAY = ("running", "waiting")
OUTCOMES = ("", "under way", "done", "failed", "cancelled", "cut")
"""What the list can be narrowed down to; the first is all."""
MARKS = {
    "running": ("●", "$success"),
    "waiting": ("◐", "$warning"),
    "done": ("✓", "$muted"),
    "failed": ("✗", "$error"),
    "cut": ("✗", "$error"),
    "cancelled": ("○", "$muted"),
}
OUTCOME_STYLES = {"running": "$success", "waiting": "$warning", "failed": "$error", "cut": "$error"}

COLUMNS = (
    ("ID", 6, 0),
    ("BEGAN", 10, 90),
    ("OUTCOME", 11, 0),
    ("VARIANT", 0, 0),
    ("CLIENT", 13, 104),
    ("QUEUE", 10, 96),
    ("TTFT", 10, 60),
    ("SPEED", 12, 72),
    ("TOKENS", 13, 116),
    ("TOOK", 12, 0),
)
"""Each with its cells and the width from which on it is shown; the variant takes what is left."""
LONGEST_TEXT = 200_000
"""No more of a text is shown."""
LEFT = ("ID", "BEGAN", "OUTCOME", "VARIANT", "CLIENT")


@dataclass(frozen=True)
class Seen:
    """An exchange as it was told, and when: the times of one under way go on from there."""

    exchange: Exchange
    at: float

    def total_seconds(self, now: float) -> float | None:
        """How long it has taken, or took."""
        return self._going_on(self.exchange.total_ms, now, self.exchange.outcome in UNDER_WAY)

    def queue_seconds(self, now: float) -> float | None:
        """How long it has waited, or did."""
        return self._going_on(self.exchange.queue_ms, now, self.exchange.outcome == "waiting")

    def _going_on(self, milliseconds: float | None, now: float, goes_on: bool) -> float | None:
        if milliseconds is None:
            return None
        return milliseconds / 1000 + (max(now - self.at, 0.0) if goes_on else 0.0)


def in_order(seen: Iterable[Seen]) -> list[Seen]:
    """Give those that run first, then those that wait, the first to be served on top; then the newest."""
    return sorted(seen, key=_rank)


def _rank(seen: Seen) -> tuple[int, int]:
    if seen.exchange.outcome in UNDER_WAY:
        return UNDER_WAY.index(seen.exchange.outcome), seen.exchange.id
    return len(UNDER_WAY), -seen.exchange.id


@dataclass(frozen=True)
class Wanted:
    """Which exchanges are listed."""

    outcome: str = ""
    runtime: str = ""
    words: str = ""

    def holds(self, exchange: Exchange) -> bool:
        """Say whether one is listed."""
        if self.outcome == "under way":
            is_outcome = exchange.outcome in UNDER_WAY
        else:
            is_outcome = self.outcome in {"", exchange.outcome}
        return is_outcome and self.runtime in {"", exchange.runtime} and self._is_said(exchange)

    def _is_said(self, exchange: Exchange) -> bool:
        if not self.words:
            return True
        said = (
            exchange.variant,
            exchange.model_asked,
            exchange.client,
            exchange.path,
            exchange.session_id,
            exchange.error,
            exchange.finish_reason,
            exchange.profile,
            exchange.request_id,
            str(exchange.id),
        )
        text = " ".join(part for part in said if part).lower()
        return all(word in text for word in self.words.lower().split())

    def __str__(self) -> str:
        parts = [self.outcome, self.runtime, f"“{one_line(self.words)}”" if self.words else ""]
        return " · ".join(filter(None, parts))


def table_head(width: int) -> Content:
    """Give the line over the list."""
    return Content.styled(
        "  " + "".join(_cell(name, name, cells) for name, cells in _columns(width)), "$muted"
    )


def table_line(seen: Seen, now: float, width: int) -> Content:
    """Lay an exchange out in a width."""
    exchange = seen.exchange
    mark, colour = MARKS[exchange.outcome]
    texts = {
        "ID": str(exchange.id),
        "BEGAN": began(exchange.started_at),
        "OUTCOME": exchange.outcome,
        "VARIANT": one_line(exchange.variant or exchange.model_asked or "-"),
        "CLIENT": one_line(exchange.client or "-"),
        "QUEUE": _seconds(seen.queue_seconds(now)),
        "TTFT": _seconds(None if exchange.ttft_ms is None else exchange.ttft_ms / 1000),
        "SPEED": rate(exchange.tokens_per_second) if exchange.tokens_per_second is not None else "-",
        "TOKENS": tokens(exchange),
        "TOOK": _seconds(seen.total_seconds(now)),
    }
    styles = {
        "OUTCOME": OUTCOME_STYLES.get(exchange.outcome, "$muted"),
        "VARIANT": runtime_colour(exchange.runtime) if exchange.variant else "$muted",
        "TOOK": "bold" if exchange.outcome in UNDER_WAY else "$muted",
    }
    cells = [(_cell(name, texts[name], room), styles.get(name, "$muted")) for name, room in _columns(width)]
    return Content.assemble((f"{mark} ", colour), *cells)


def _columns(width: int) -> list[tuple[str, int]]:
    shown = [(name, cells) for name, cells, from_width in COLUMNS if width >= from_width]
    rest = max(width - 2 - sum(cells for _, cells in shown), 10)
    return [(name, cells or rest) for name, cells in shown]


def _cell(name: str, text: str, room: int) -> str:
    """Put a text into a column: names to the left, figures to the right."""
    if name in LEFT:
        shown = truncate(text, room - 1)
        return shown + " " * (room - cell_len(shown))
    shown = truncate(text, room)
    return " " * (room - cell_len(shown)) + shown


def began(at: float) -> str:
    """Give the local time of the day."""
    return datetime.fromtimestamp(at).astimezone().strftime("%H:%M:%S")


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else duration(seconds)


def tokens(exchange: Exchange) -> str:
    """Give the tokens of prompt and answer: `20+118`."""
    counts = (exchange.prompt_tokens, exchange.completion_tokens)
    return "-" if counts == (None, None) else "+".join(str(count or 0) for count in counts)


def queue_line(seen: Iterable[Seen], status: Status | None) -> Content:
    """Say what runs and what waits, for what."""
    outcomes = [each.exchange.outcome for each in seen]
    running = outcomes.count("running")
    waiting = status.queue.waiting if status else outcomes.count("waiting")
    parts = [
        Content.styled(f"● {running} running", "$success" if running else "$muted"),
        Content.styled(f"◐ {waiting} waiting", "$warning" if waiting else "$muted"),
    ]
    if status and waiting:
        for variant, number in status.queue.by_variant.items():
            why = why_waiting(variant, status)
            parts.append(Content.styled(f"{number} for {one_line(variant)}: {why}", "$muted"))
    return Content("   ").join(parts)


def why_waiting(variant: str | None, status: Status | None) -> str:
    """Say what has to happen before a request for a variant is answered."""
    if status is None:
        return "for its engine"
    switch = status.switch
    if switch and switch.outcome == "running":
        step = switch.steps[-1].name.value if switch.steps else "start"
        told = " · ".join(filter(None, (step, how_far(switch))))
        if switch.variant == variant:
            return f"it is being loaded ({told})"
        return f"{one_line(switch.variant)} is being loaded first ({told})"
    running = next(
        (engine for engine in (*status.engines, *status.services) if engine.variant == variant), None
    )
    if running is None or running.state.value in {"stopped", "failed", "draining", "stopping"}:
        active = one_line(status.active or "another model")
        return f"{active} answers what it has first; then comes the switch"
    if running.state.value in {"starting", "loading"}:
        return f"its engine is {running.state.value}"
    return "its engine is answering others"


def about(seen: Seen, status: Status | None, width: int) -> Content:
    """Say about the highlighted exchange what its row has no room for, in two lines."""
    exchange = seen.exchange
    if exchange.outcome == "waiting":
        first = Content.assemble(("waits: ", "$warning"), why_waiting(exchange.variant, status))
    elif exchange.error:
        first = Content.assemble(("✗ ", "$error"), one_line(exchange.error))
    else:
        ended = (
            finish_reason(one_line(exchange.finish_reason)) if exchange.finish_reason else exchange.outcome
        )
        facts = (
            f"{tokens(exchange)} tokens" if tokens(exchange) != "-" else "",
            ended,
            one_line(exchange.hint or ""),
        )
        first = Content(" · ".join(filter(None, facts)))
    asked = one_line(exchange.model_asked or "")
    where = " · ".join(
        filter(
            None,
            (
                one_line(exchange.path),
                f"asked for {asked}" if asked and asked != exchange.variant else "",
                f"by {one_line(exchange.client)}" if exchange.client else "",
                one_line(exchange.hint or "") if exchange.error else "",
            ),
        )
    )
    return Content("\n").join(
        [first.truncate(width, ellipsis=True), Content.styled(truncate(where, width), "$muted")]
    )


# One exchange, whole.


@dataclass(frozen=True)
class Stretch:
    """What a part of an exchange's time went into."""

    name: str
    seconds: float
    style: str


def stretches(exchange: Exchange) -> list[Stretch]:
    """Give where the time went, in order; nothing where nothing is known."""
    queue, switch = exchange.queue_ms or 0.0, exchange.switch_ms or 0.0
    first = exchange.ttft_ms or 0.0
    rest = (exchange.total_ms or 0.0) - queue - first
    parts = (
        Stretch("queue", max(queue - switch, 0.0) / 1000, "$warning"),
        Stretch("switch", min(switch, queue) / 1000, "$accent"),
        Stretch("first token", first / 1000, "$primary"),
        Stretch(
            "generation" if exchange.ttft_ms is not None else "answer", max(rest, 0.0) / 1000, "$success"
        ),
    )
    return [part for part in parts if part.seconds > 0]


def time_bar(parts: Sequence[Stretch], width: int) -> Content:
    """Draw the stretches side by side, each at least one cell."""
    total = sum(part.seconds for part in parts)
    if not total:
        return Content("")
    room = width - len(parts)
    cells = [1 + int(room * part.seconds / total) for part in parts]
    cells[-1] += width - sum(cells)
    return Content.assemble(*(("━" * size, part.style) for size, part in zip(cells, parts, strict=True)))


def time_words(parts: Sequence[Stretch]) -> Content:
    """Name the stretches with their times."""
    return Content("  ").join(
        Content.assemble(("━ ", part.style), f"{part.name} ", (duration(part.seconds), "bold"))
        for part in parts
    )


def whole_lines(exchange: ExchangeWhole, width: int) -> list[Line]:
    """Give all of an exchange: its times and figures, then what was asked and answered."""
    lines = [*_figures(exchange, width), _blank(), _title("Asked"), *_asked(exchange.request)]
    if exchange.reasoning:
        lines += [_blank(), _title("Reasoning"), *text_lines(exchange.reasoning, "$muted")]
    lines += [_blank(), _title("Answered"), *_answered(exchange)]
    return lines


def _figures(exchange: Exchange, width: int) -> list[Line]:
    mark, colour = MARKS[exchange.outcome]
    head = Content.assemble(
        (f"{mark} {exchange.outcome}", f"bold {colour}"),
        "  ",
        (one_line(exchange.variant or exchange.model_asked or "-"), runtime_colour(exchange.runtime)),
        (f"  {began(exchange.started_at)}  {_seconds(_total(exchange))}", "$muted"),
    )
    lines = [_of(head)]
    if exchange.error:
        lines.append(Line(one_line(exchange.error), "$error"))
    if exchange.hint:
        lines.append(Line(f"→ {one_line(exchange.hint)}", "$warning"))
    if parts := stretches(exchange):
        lines += [_blank(), _of(time_bar(parts, max(min(width, 100), 10))), _of(time_words(parts))]
    return [*lines, _blank(), *(_of(fact) for fact in _facts(exchange))]


def _total(exchange: Exchange) -> float | None:
    return None if exchange.total_ms is None else exchange.total_ms / 1000


def _facts(exchange: Exchange) -> list[Content]:
    speed = rate(exchange.tokens_per_second) if exchange.tokens_per_second is not None else ""
    gaps = (
        f"{exchange.itl_p50_ms:.1f} ms usually, {exchange.itl_p99_ms:.1f} ms at most (p99)"
        if exchange.itl_p50_ms is not None and exchange.itl_p99_ms is not None
        else ""
    )
    facts = {
        "tokens": _token_words(exchange),
        "speed": speed,
        "between": gaps,
        "ended by": finish_reason(exchange.finish_reason or ""),
        "client": exchange.client or "",
        "asked for": exchange.model_asked or "",
        "profile": " · ".join(filter(None, (exchange.profile, exchange.preset))),
        "session": exchange.session_id or "",
        "request": f"{exchange.path}  {exchange.request_id}",
        "status": str(exchange.http_status or ""),
    }
    return [
        Content.assemble((f"{name:<11}", "$muted"), one_line(value)) for name, value in facts.items() if value
    ]


def _token_words(exchange: Exchange) -> str:
    named = (
        (exchange.prompt_tokens, "in the prompt"),
        (exchange.cached_tokens, "of them cached"),
        (exchange.completion_tokens, "in the answer"),
        (exchange.reasoning_tokens, "of them reasoning"),
    )
    return ", ".join(f"{count:,} {words}" for count, words in named if count)


def _asked(body: ExchangeBody | None) -> list[Line]:
    if body is None or not body.kept or not isinstance(body.value, dict):
        return text_lines(_body_text(body), "$muted" if body is None else "")
    rest = {name: value for name, value in body.value.items() if name not in {"messages", "prompt", "input"}}
    lines: list[Line] = []
    messages = body.value.get("messages")
    for message in messages if isinstance(messages, list) else []:
        lines += _message(message)
    for name in ("prompt", "input"):
        if name in body.value:
            lines += text_lines(_plain(body.value[name]))
    return [*lines, *text_lines(json.dumps(rest, ensure_ascii=False), "$muted")] if rest else lines


def _message(message: Any) -> list[Line]:
    if not isinstance(message, dict):
        return text_lines(_plain(message))
    more = {name: value for name, value in message.items() if name not in {"role", "content"} and value}
    lines = [
        Line(one_line(str(message.get("role", "?"))), "bold $primary"),
        *text_lines(_plain(message.get("content"))),
    ]
    return [*lines, *text_lines(json.dumps(more, ensure_ascii=False), "$muted")] if more else lines


def _plain(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


def _answered(exchange: ExchangeWhole) -> list[Line]:
    if exchange.text:
        return text_lines(exchange.text)
    if exchange.answer is None and exchange.outcome in UNDER_WAY:
        return [Line("It is not answered yet.", "$muted")]
    return text_lines(_body_text(exchange.answer), "$muted" if exchange.answer is None else "")


def _body_text(body: ExchangeBody | None) -> str:
    if body is None:
        return "(not kept: docs/exchanges.md says of which requests the bodies are)"
    if not body.kept:
        return f"(too large to keep: {body.byte_count:,} bytes or more)"
    if body.value is not None:
        return _plain(body.value)
    return body.text or "(nothing)"


def answer_lines(exchange: ExchangeText, width: int) -> list[Line]:
    """Give an answer under its figures, to compare it with another."""
    parts = stretches(exchange)
    speed = rate(exchange.tokens_per_second) if exchange.tokens_per_second is not None else ""
    ended = finish_reason(exchange.finish_reason) if exchange.finish_reason else exchange.outcome
    figures = (
        f"{exchange.completion_tokens:,} tok" if exchange.completion_tokens else "",
        speed,
        one_line(ended),
    )
    lines = [Line(" · ".join(filter(None, figures)), "$muted")]
    if parts:
        lines += [_of(time_bar(parts, max(width, 10))), _of(time_words(parts))]
    lines.append(_blank())
    if exchange.error:
        lines += [Line(one_line(exchange.error), "$error"), Line(one_line(exchange.hint or ""), "$warning")]
    if exchange.reasoning:
        lines += [*text_lines(exchange.reasoning, "$muted"), _blank()]
    return [*lines, *(text_lines(exchange.text) or [Line("(its answer was not kept)", "$muted")])]


def text_lines(text: str, style: str = "") -> list[Line]:
    """Give the lines of somebody's text, harmless."""
    if not text:
        return []
    lines = [Line(each.expandtabs(4), style) for each in harmless(text[:LONGEST_TEXT]).split("\n")]
    left = len(text) - LONGEST_TEXT
    if left > 0:
        lines.append(Line(f"… {left:,} characters more: footplate exchanges show has them all", "$warning"))
    return lines


def _title(text: str) -> Line:
    return Line(text, "bold $heading")


def _of(content: Content) -> Line:
    return Line(content.plain, "", content)


def _blank() -> Line:
    return Line("")
