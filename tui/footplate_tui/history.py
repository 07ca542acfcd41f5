"""Sessions as the history shows them, and what was found in them, in the terminal's words. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual.content import Content

from footplate_tui.format import Answered, answer_figures, count, truncate
from footplate_tui.harmless import harmless, one_line
from footplate_tui.theme import runtime_colour

if TYPE_CHECKING:
    from footplate_daemon.wire import SearchHit, Session, SessionWithTurns, Turn

UNTITLED = "Untitled"
FORK = "↳ "
WHEN_WIDTH = 12
TURNS_WIDTH = 11
LONGEST_RUNTIME = len("transformers")
WIDEST_VARIANT = 32
VARIANT_FROM_WIDTH = 60
"""Below this width only the runtime is said of what answered."""
WEEK_DAYS = 7
FILE_NAME_LENGTH = 48
RESTORE_SECONDS = 10 * 60.0
"""How long the daemon keeps what was deleted."""
PROMPT_LINES = 4
"""Of a long question the preview shows so many."""
LONGEST_PREVIEWED = 8_000
"""Characters of a text that are laid out for a preview: more than any screen holds."""
LINES_BEFORE_FOUND = 3


@dataclass(frozen=True)
class Opening:
    """A session to open in the chat."""

    session_id: str
    turn: int | None = None
    """At this turn; None: at its end."""
    news: str = ""
    """What to say once it is open."""


@dataclass(frozen=True)
class Deleted:
    """A session that was deleted here."""

    session_id: str
    title: str
    until: float
    """By the terminal's monotonic clock, the daemon keeps it so long."""


@dataclass
class Deletions:
    """What was deleted in this terminal and can still be brought back, the last one last."""

    kept: list[Deleted] = field(default_factory=list)

    def last(self, now: float) -> Deleted | None:
        """Give what would be brought back first."""
        self.kept = [deleted for deleted in self.kept if deleted.until > now]
        return self.kept[-1] if self.kept else None


def title_of(session: Session | SearchHit) -> str:
    """Give a title on one line; a session without a question has none."""
    return one_line(session.title) or UNTITLED


def when(at: float, now: float) -> str:
    """Say when something was, as short as it can be told: `14:02`, `yesterday`, `Tue 14:02`, `12 Mar`."""
    then, today = datetime.fromtimestamp(at).astimezone(), datetime.fromtimestamp(now).astimezone()
    days = (today.date() - then.date()).days
    if days <= 0:
        return f"{then:%H:%M}" if days == 0 else f"{then:%Y-%m-%d}"
    if days == 1:
        return "yesterday"
    if days < WEEK_DAYS:
        return f"{then:%a %H:%M}"
    return f"{then.day} {then:%b}" if then.year == today.year else f"{then:%Y-%m-%d}"


def session_line(session: Session, width: int, now: float) -> Content:
    """Lay a session out in a width: title, what answered last, turns, when it was used last."""
    label = _column(session.last_variant, width)
    facts = f"{count(session.turn_count, 'turn'):>{TURNS_WIDTH}}{when(session.updated_at, now):>{WHEN_WIDTH}}"
    room = max(width - cell_len(facts) - label.cell_length - 3, 8)
    mark = FORK if session.forked_from else ""
    title = truncate(title_of(session), room - len(mark))
    gap = " " * max(room - len(mark) - cell_len(title) + 1, 1)
    colour = "" if session.title else "$muted"
    return Content.assemble(" ", (mark, "$muted"), (title, colour), gap, label, (facts, "$muted"), " ")


def hit_lines(hit: SearchHit, width: int, now: float) -> tuple[Content, Content]:
    """Lay a place that was found out: whose title, which turn, who answered and when; below it the words."""
    where = "title" if hit.turn is None else f"turn {hit.turn:,} · {hit.field}"
    label = _column(hit.variant, width)
    facts = f"{where:>{TURNS_WIDTH + 10}}{when(hit.at, now):>{WHEN_WIDTH}}"
    room = max(width - cell_len(facts) - label.cell_length - 3, 8)
    title = truncate(title_of(hit), room)
    gap = " " * max(room - cell_len(title) + 1, 1)
    head = Content.assemble(" ", (title, "bold"), gap, label, (facts, "$muted"), " ")
    return head, Content.assemble("   ", snippet(hit)).truncate(width - 1, ellipsis=True)


def variant(name: str | None, width: int) -> Content:
    """Name what answered, its runtime in the runtime's colour."""
    runtime, _, model = one_line(name or "").partition("/")
    if width < VARIANT_FROM_WIDTH or not model:
        return Content.styled(runtime, runtime_colour(runtime))
    return Content.assemble((f"{runtime}/", runtime_colour(runtime)), (model, "$muted"))


def _column(name: str | None, width: int) -> Content:
    """Name what answered in a column of its own."""
    room = LONGEST_RUNTIME if width < VARIANT_FROM_WIDTH else min(max(width // 4, 20), WIDEST_VARIANT)
    label = variant(name, width).truncate(room, ellipsis=True)
    return label.pad_right(room - label.cell_length)


def snippet(hit: SearchHit) -> Content:
    """Give the words around what was found on one line, what was found marked."""
    parts: list[tuple[str, str]] = []
    end = 0
    for first, last in hit.matches:
        parts.append((_flat(hit.snippet[end:first]), "$muted"))
        parts.append((_flat(hit.snippet[first:last]), "bold $accent"))
        end = last
    return Content.assemble(*parts, (_flat(hit.snippet[end:]), "$muted"))


def _flat(text: str) -> str:
    """Give a piece of text harmless and on one line; the blanks at its ends stay."""
    return re.sub(r"\s+", " ", harmless(text))


def preview(
    session: SessionWithTurns, hit: SearchHit | None, searched: str, width: int, height: int, now: float
) -> Content:
    """Show as much of a session as fits: its last turns, or the turn in which `searched` was found."""
    head = [
        Content.styled(truncate(title_of(session), width), "bold"),
        Content.styled(truncate(_facts(session, now), width), "$muted"),
        Content(),
    ]
    room = max(height - len(head), 0)
    if hit is None or hit.turn is None:
        body = _last_lines(session.turns, width, room)
    else:
        turn = next((each for each in session.turns if each.number == hit.turn), None)
        body = _found_lines(turn, hit, searched, width, room) if turn else []
    if not session.turn_count:
        body = [Content.styled("Nothing was asked here yet.", "$muted")]
    return Content("\n").join([*head, *body])


def _facts(session: Session, now: float) -> str:
    parts = [count(session.turn_count, "turn"), f"begun {when(session.created_at, now)}"]
    if session.forked_from:
        parts.append(f"forked at turn {session.forked_turn or 0:,}")
    if session.system:
        parts.append(f"told first: {one_line(session.system)}")
    return " · ".join(parts)


def _last_lines(turns: Sequence[Turn], width: int, room: int) -> list[Content]:
    """Give the end of the last turns; a turn that does not fit whole loses its beginning."""
    lines: list[Content] = []
    for turn in reversed(turns):
        if len(lines) >= room:
            break
        lines = [*_turn_lines(turn, width, newest=not lines), *lines]
    return lines[-room:] if room else []


def _found_lines(turn: Turn, hit: SearchHit, searched: str, width: int, room: int) -> list[Content]:
    """Give a turn from a little before the first place that was found in it."""
    found = {_flat(hit.snippet[first:last]) for first, last in hit.matches}
    words = sorted({*found, *searched.split()}, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, filter(None, words))) or r"(?!)", re.IGNORECASE)
    turn = turn.model_copy(update={"answer": _around(turn, hit, pattern)})
    lines = [
        line.highlight_regex(pattern, style="bold $accent") for line in _turn_lines(turn, width, newest=True)
    ]
    first = next((place for place, line in enumerate(lines) if pattern.search(line.plain)), 0)
    start = max(min(first - LINES_BEFORE_FOUND, len(lines) - room), 0)
    return lines[start : start + room]


def _around(turn: Turn, hit: SearchHit, pattern: re.Pattern[str]) -> str:
    """Give the text to show under a turn's question: where it was found in the reasoning, that."""
    text = turn.reasoning if hit.field == "reasoning" else turn.answer
    found = pattern.search(text)
    start = found.start() - LONGEST_PREVIEWED // 2 if found else 0
    return f"… {text[start:]}" if start > 0 else text


def _turn_lines(turn: Turn, width: int, *, newest: bool) -> Iterator[Content]:
    asked = list(_wrapped(f"▸ {turn.prompt}", width, "bold"))
    yield from asked[:PROMPT_LINES]
    if len(asked) > PROMPT_LINES:
        yield Content.styled(f"… {count(len(asked) - PROMPT_LINES, 'more line')}", "$muted")
    yield from _wrapped(turn.answer.strip(), width, "")
    if turn.error:
        yield from _wrapped(f"✗ {turn.error.message}", width, "$error")
    yield _signed(turn, width)
    if not newest:
        yield Content()


def _signed(turn: Turn, width: int) -> Content:
    figures = answer_figures(
        Answered(completion_tokens=turn.completion_tokens, tokens_per_second=turn.tokens_per_second)
    )
    said = "" if turn.state.value == "done" else f"  {turn.state.value}"
    facts = f"{said}  {figures}" if figures else said
    return Content.assemble(
        variant(turn.variant, max(width, VARIANT_FROM_WIDTH)), (facts, "$muted")
    ).truncate(width, ellipsis=True)


def _wrapped(text: str, width: int, style: str) -> Iterator[Content]:
    if text:
        yield from Content.styled(harmless(text[:LONGEST_PREVIEWED]), style).wrap(max(width, 1))


def file_name(title: str, session_id: str, taken: Callable[[str], bool]) -> str:
    """Give a good name for an exported session's file, one that is not taken."""
    words = re.sub(r"[^\w]+", "-", one_line(title).casefold()).strip("-_")
    stem = words[:FILE_NAME_LENGTH].rstrip("-_") or f"session-{session_id}"
    name, number = f"{stem}.md", 1
    while taken(name):
        number += 1
        name = f"{stem}-{number}.md"
    return name
