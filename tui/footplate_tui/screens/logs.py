"""The logs: the daemon's, the requests', and every engine's; following, and far back.

Only a page is read at a time, the last one first: how long a log is does not matter. Earlier pages come
when the user goes up to them, or when what is looked for is not in those that are there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content
from textual.reactive import var
from textual.widgets import Static

from footplate_daemon import errors
from footplate_daemon.wire import LogInfo, LogPage, Switch
from footplate_tui import conversation
from footplate_tui.commands import Place, bindings, elsewhere
from footplate_tui.format import count
from footplate_tui.harmless import one_line
from footplate_tui.log_lines import OWN, Level, LogLine, matching, proofs, proves, read
from footplate_tui.screens.page import Page, told
from footplate_tui.widgets.fields import LineField
from footplate_tui.widgets.header import answering
from footplate_tui.widgets.lines import Line, Lines, find
from footplate_tui.widgets.status_line import KeyLine

LINES_AT_A_TIME = 1000
MOST_LINES = 100_000
"""No more are held; what is looked for is looked for in so many."""
SWITCHES_LOOKED_AT = 50

KEYS = (
    "logs.filter",
    "logs.search",
    "logs.worst",
    "logs.next",
    "logs.cause",
    "logs.wrap",
    "logs.copy",
    "logs.mark",
    "logs.back",
    *elsewhere("view.logs"),
)
FOUND_KEYS = ("logs.found", "logs.found_above", *KEYS)
TYPING_KEYS = ("logs.back",)

NO_DAEMON = "No daemon answers. Start it in another shell: footplate up. Without it: footplate logs"
NOTHING_WRITTEN = {
    "daemon": "The daemon has written nothing yet.",
    "access": "No request was made yet. Each that comes to the gateway gets a line here.",
}
ENGINE_SILENT = "This engine has written nothing yet. What it says while it loads appears here."


@dataclass
class _Chunk:
    begin: str
    """Where its first line begins, for the daemon."""
    lines: list[LogLine]


class LogsScreen(Page):
    """Shows one log at a time."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings(Place.LOGS),
        *((str(number), f"choose({number})") for number in range(1, 10)),
    ]

    chosen: var[str] = var("")
    """The log that is shown."""

    def __init__(self, name: str = "") -> None:
        super().__init__()
        self._wish = name
        self._logs: list[LogInfo] = []
        self._chunks: deque[_Chunk] = deque()
        self._end: str | None = None
        """Where the line that comes next begins, for the daemon."""
        self._is_whole = False
        """Whether nothing earlier is kept."""
        self._loading = asyncio.Lock()
        self._words = ""
        self._worst_only = False
        self._sought = ""
        self._has_come = asyncio.Event()
        """Set when the first page is here."""
        self._types = ""
        """For what the line to type in is open: `filter`, `search`, or not."""
        self._news: Content | str = ""
        self._unseen = 0
        """Lines that came while the user was elsewhere."""
        self._levels = {Level.WARNING: 0, Level.ERROR: 0}
        self._names = Static(markup=False, classes="names")
        self._lines = Lines()
        self._empty = Static(markup=False, classes="empty")
        self._said = Static(markup=False, classes="said")
        self._input = LineField()
        self._keys = KeyLine(*KEYS)

    def compose_body(self) -> ComposeResult:
        yield self._names
        yield self._lines
        yield self._empty
        yield self._input
        yield self._said
        yield self._keys

    def on_mount(self) -> None:
        self._input.display = self._empty.display = False
        self._lines.focus()
        self.begin()

    # Which log.

    @work(group="log", exclusive=True)
    async def begin(self) -> None:
        """List the logs and show the one that is wished, else that of the active engine."""
        daemon = await self.footplate.daemon()
        attempt = 0
        while not self._logs:
            try:
                self._logs = _in_order(await daemon.logs())
            except errors.FootplateError as error:
                self._tell_cut(error)
                await asyncio.sleep(conversation.pause_before(attempt))
                attempt += 1
        self._news = ""
        await self.has_news.wait()
        if not self.chosen:
            self.chosen = self._wish or self._of_active_engine() or self._logs[0].name

    def _of_active_engine(self) -> str:
        engine = answering(self.status)
        names = [log.name for log in self._logs]
        return engine.name if engine and engine.name in names else ""

    def watch_status(self) -> None:
        """A new engine has a new log."""
        if self._logs and self.status:
            names = {log.name for log in self._logs}
            if any(engine.name not in names for engine in (*self.status.engines, *self.status.services)):
                self.look_for_logs()

    @work(group="names", exclusive=True)
    async def look_for_logs(self) -> None:
        """List the logs anew; those listed keep their numbers."""
        daemon = await self.footplate.daemon()
        try:
            found = _in_order(await daemon.logs())
        except errors.FootplateError:
            return  # The next status asks again.
        names = {log.name for log in self._logs}
        self._logs += [log for log in found if log.name not in names]
        self._draw_names()

    def watch_chosen(self) -> None:
        if not self.chosen:
            return
        self.session_title = f"Logs · {one_line(self.chosen)}"
        self._chunks.clear()
        self._end, self._is_whole, self._unseen = None, False, 0
        self._levels = {Level.WARNING: 0, Level.ERROR: 0}
        self._news = ""
        self._has_come.clear()
        self._lines.show((), follows=True)
        self._draw_names()
        self._draw()
        self.follow(self.chosen)

    def action_choose(self, number: int) -> None:
        """Show the log with this number."""
        if number <= len(self._logs):
            self.chosen = self._logs[number - 1].name

    def on_next_log_wanted(self) -> None:
        self._go_on(1)

    def on_previous_log_wanted(self) -> None:
        self._go_on(-1)

    def _go_on(self, step: int) -> None:
        names = [log.name for log in self._logs]
        if names:
            place = names.index(self.chosen) if self.chosen in names else 0
            self.chosen = names[(place + step) % len(names)]

    # What comes.

    @work(group="log", exclusive=True)
    async def follow(self, name: str) -> None:
        """Show the end of a log and what is written to it."""
        daemon = await self.footplate.daemon()
        attempt = 0
        while True:
            try:
                async for page in daemon.follow_log(name, lines=LINES_AT_A_TIME, after=self._end):
                    attempt = 0
                    self._take(page)
            except errors.NotFound as error:
                self._tell(f"✗ {one_line(error.message)}")
                return
            except errors.FootplateError as error:
                self._tell_cut(error)
            await asyncio.sleep(conversation.pause_before(attempt))
            attempt += 1

    def _tell_cut(self, error: errors.FootplateError) -> None:
        is_down = isinstance(error, errors.DaemonUnreachable)
        self._tell(Content.styled(NO_DAEMON if is_down else told(error), "$warning"))

    def _take(self, page: LogPage) -> None:
        is_first = self._end is None
        self._end = page.end
        lines = read(self.chosen, page.lines)
        if is_first:
            self._is_whole = page.is_first
            self._chunks.append(_Chunk(page.begin, lines))
        elif len(self._chunks[-1].lines) + len(lines) <= LINES_AT_A_TIME:
            self._chunks[-1].lines += lines
        else:
            self._chunks.append(_Chunk(page.begin, lines))
        self._count(lines, 1)
        shown = self._shown_of(lines)
        if not is_first and not self._lines.is_following:
            self._unseen += len(shown)
        if self._let_go():
            self._show_anew()
        else:
            self._lines.append(shown)
        if not self.is_connected or str(self._news) == NO_DAEMON:
            self._news = ""
        self._has_come.set()
        self._draw()
        if is_first and lines and not shown:
            self.load_earlier()

    def _let_go(self) -> bool:
        """Forget the earliest lines when there are too many: later while the user reads earlier ones."""
        held = self._held()
        if held <= MOST_LINES or (not self._lines.is_following and held <= 2 * MOST_LINES):
            return False
        while held > MOST_LINES * 9 // 10 and len(self._chunks) > 1:
            gone = self._chunks.popleft()
            held -= len(gone.lines)
            self._count(gone.lines, -1)
            self._is_whole = False
        return True

    def _held(self) -> int:
        return sum(len(chunk.lines) for chunk in self._chunks)

    def _count(self, lines: Iterable[LogLine], sign: int) -> None:
        for line in lines:
            if line.level:
                self._levels[line.level] += sign

    def on_lines_top_near(self) -> None:
        self.load_earlier()

    @work(group="earlier")
    async def load_earlier(self) -> None:
        """Get the page before the first line, and more of them until one has something to show."""
        name = self.chosen
        while self.chosen == name and await self._load_earlier():
            if self._lines.max_scroll_y > 0:
                break

    async def _load_earlier(self) -> bool:
        """Get one more page; False when there is none, or enough are held."""
        daemon = await self.footplate.daemon()
        async with self._loading:
            name = self.chosen
            if self._is_whole or not self._chunks or self._held() >= MOST_LINES:
                self._lines.nothing_earlier()
                return False
            try:
                page = await daemon.log_page(name, LINES_AT_A_TIME, before=self._chunks[0].begin)
            except errors.FootplateError as error:
                self._tell_cut(error)
                return False
            if name != self.chosen:
                return False
            lines = read(name, page.lines)
            self._is_whole = page.is_first
            self._chunks.appendleft(_Chunk(page.begin, lines))
            self._count(lines, 1)
            self._lines.prepend(self._shown_of(lines))
            self._draw()
            return True

    # What of it is shown.

    def _shown_of(self, lines: Sequence[LogLine]) -> list[LogLine]:
        if not self._words and not self._worst_only:
            return list(lines)
        return matching(lines, self._words, worst_only=self._worst_only)

    def _show_anew(self) -> None:
        self._lines.show(line for chunk in self._chunks for line in self._shown_of(chunk.lines))
        self._draw()
        if not self._lines.lines:
            self.load_earlier()

    def on_worst_lines_wanted(self) -> None:
        self._worst_only = not self._worst_only
        self._show_anew()

    def on_filter_wanted(self) -> None:
        self._open_input(
            "filter", self._words, "Show only lines with these words; Enter keeps them, Esc shows all"
        )

    def on_search_wanted(self) -> None:
        self._open_input("search", self._sought, "Go to this text; then n goes on below, N above")

    def _open_input(self, types: str, text: str, placeholder: str) -> None:
        self._types = types
        self._input.placeholder = placeholder
        self._input.value = text
        self._input.cursor_position = len(text)
        self._input.display = True
        self._input.focus()
        self._draw()

    def _close_input(self) -> None:
        self._types = ""
        self._input.display = False
        self._lines.focus()
        self._draw()

    def on_input_changed(self) -> None:
        if self._types == "filter" and self._input.value != self._words:
            self._words = self._input.value
            self._show_anew()

    def on_input_submitted(self) -> None:
        if self._types == "search":
            self._sought = self._input.value
            self._lines.found = self._sought.lower()
            if self._sought:
                self.seek(self._lines.cursor, -1)
        self._close_input()

    def on_back_wanted(self) -> None:
        """Leave the innermost thing."""
        if self._types:
            if self._types == "filter":
                self._input.value = ""
            self._close_input()
        elif self._lines.has_selection:
            self._lines.drop_mark()
        elif self._words or self._worst_only:
            self._words, self._worst_only = "", False
            self._show_anew()
        elif self._lines.found:
            self._sought = self._lines.found = ""
            self._tell("")
        else:
            self.dismiss()

    # Going somewhere.

    def on_found_wanted(self) -> None:
        self.seek(self._lines.cursor + 1, 1)

    def on_found_above_wanted(self) -> None:
        self.seek(self._lines.cursor - 1, -1)

    @work(group="seek", exclusive=True)
    async def seek(self, start: int, direction: int) -> None:
        """Go to the next line with what is sought; when nothing is, to the next error or warning."""
        sought = self._sought.lower()

        def is_wanted(line: Line) -> bool:
            return sought in line.text.lower() if sought else isinstance(line, LogLine) and line.level > 0

        if not await self._seek(is_wanted, start, direction):
            what = f"“{one_line(self._sought)}”" if sought else "An error or warning"
            self._tell(f"{what} is not {'below' if direction > 0 else 'above'}.")

    async def _seek(self, is_wanted: Callable[[Line], bool], start: int, direction: int) -> bool:
        """Go to the next line that is wanted; upwards also on pages that are not here yet."""
        name = self.chosen
        place = find(self._lines.lines, is_wanted, start, direction)
        while place is None and direction < 0:
            held = len(self._lines.lines)
            if not await self._load_earlier() or name != self.chosen:
                return False
            came = len(self._lines.lines) - held
            place = find(self._lines.lines, is_wanted, came - 1, -1)
        if place is None:
            return False
        self._news = ""
        self._lines.go_to(place)
        return True

    @work(group="seek", exclusive=True)
    async def go_to_cause(self) -> None:
        """Go to the lines that prove why the last switch failed."""
        daemon = await self.footplate.daemon()
        try:
            failed = _last_failed(await daemon.switches(limit=SWITCHES_LOOKED_AT))
            if failed is None or failed.diagnosis is None:
                self._tell("No switch has failed of late.")
                return
            self._wish = (await daemon.log_page(failed.variant, 1)).name
        except errors.FootplateError as error:
            self._tell(told(error))
            return
        self._words, self._worst_only = "", False
        if self.chosen == self._wish:
            self._show_anew()
        else:
            self.chosen = self._wish
            await self._has_come.wait()
        cause = Content.assemble(
            ("✗ ", "$error"), f"{one_line(failed.variant)}: {one_line(failed.diagnosis.cause)}"
        )
        last = len(self._lines.lines) - 1
        for proof in proofs(failed.diagnosis.evidence):
            if await self._seek(partial(proves, proof), last, -1):
                self._sought, self._lines.found = "", proof.lower()
                self._tell(cause)
                return
        self._tell(Content.assemble(cause, ("  Its lines are not in this log any more.", "$muted")))

    def on_cause_wanted(self) -> None:
        self.go_to_cause()

    def on_follow_wanted(self) -> None:
        self._lines.follow()

    def on_wrap_wanted(self) -> None:
        self._lines.wraps = not self._lines.wraps
        self._draw()

    # Copying.

    def on_mark_wanted(self) -> None:
        self._lines.set_mark()

    def on_copy_wanted(self) -> None:
        if selected := self._lines.selected:
            self.footplate.copy("\n".join(line.text for line in selected))
            self._lines.drop_mark()

    # What it says.

    def on_lines_moved(self) -> None:
        if self._lines.is_following:
            self._unseen = 0
        self._draw()

    def on_resize(self) -> None:
        self._draw_names()

    def _tell(self, words: Content | str) -> None:
        self._news = words
        self._draw()

    def _draw(self) -> None:
        if not self.is_mounted:
            return
        words = self._why_empty()
        self._empty.display = bool(words)
        self._lines.display = not words
        if not words and not self._types and self.focused is None and self.is_current:
            self._lines.focus()
        if str(self._empty.visual) != words:
            self._empty.update(words)
        said = self._standing()
        if not isinstance(self._said.content, Content) or not said.is_same(self._said.content):
            self._said.update(said)
        self._keys.keys = TYPING_KEYS if self._types else FOUND_KEYS if self._sought else KEYS

    def _why_empty(self) -> str:
        if self._lines.lines:
            return ""
        if not self._chunks:
            return "" if self._news else "Asking the daemon…"
        if self._words or self._worst_only:
            what = f"contains “{one_line(self._words)}”" if self._words else "is an error or a warning"
            return f"No line {what}, of the last {count(self._held(), 'line')}. Esc shows all."
        return NOTHING_WRITTEN.get(self.chosen, ENGINE_SILENT)

    def _standing(self) -> Content:
        """Say where the user is in the log, and what of it is shown."""
        if self._news:
            return Content.assemble(self._news).truncate(max(self.size.width - 4, 1), ellipsis=True)
        parts: list[tuple[str, str]] = []
        if self._types:
            does = "keeps it" if self._types == "filter" else "goes there"
            parts.append((f"{self._types}: ⏎ {does}", "bold $primary"))
        if self._lines.is_following:
            parts.append(("following", "$success"))
        elif self._unseen:
            parts.append((f"↓ {count(self._unseen, 'new line')} (f follows)", "bold $primary"))
        elif self._lines.lines:
            parts.append((f"line {self._lines.cursor + 1:,}", ""))
        shown, held = len(self._lines.lines), self._held()
        more = "" if self._is_whole else " loaded"
        parts.append(
            (
                f"{shown:,} of {held:,} lines{more}" if shown != held else f"{count(held, 'line')}{more}",
                "$muted",
            )
        )
        for level, noun in ((Level.ERROR, "error"), (Level.WARNING, "warning")):
            if number := self._levels[level]:
                parts.append((count(number, noun), "$error" if level is Level.ERROR else "$warning"))
        if self._lines.has_selection:
            parts.append((f"{count(len(self._lines.selected), 'line')} selected, y copies", "$primary"))
        if self._words and not self._types:
            parts.append((f"/ {one_line(self._words)}", "$primary"))
        if self._sought:
            parts.append((f"“{one_line(self._sought)}”", "$primary"))
        if self._lines.wraps:
            parts.append(("wrapped", "$muted"))
        return Content.assemble(*_joined(parts)).truncate(max(self.size.width - 4, 1), ellipsis=True)

    def _draw_names(self) -> None:
        """Draw the names in a row, with the chosen one in sight."""
        width = self.size.width - 2
        parts = [self._label(number, log.name) for number, log in enumerate(self._logs, 1)]
        chosen = next((place for place, log in enumerate(self._logs) if log.name == self.chosen), 0)
        first = 0
        while first < chosen and sum(part.cell_length for part in parts[first : chosen + 1]) > width - 2:
            first += 1
        before = Content.styled("< ", "$muted") if first else Content("")
        self._names.update(Content.assemble(before, *parts[first:]).truncate(max(width, 1), ellipsis=True))

    def _label(self, number: int, name: str) -> Content:
        key = f"{number} " if number <= 9 else ""
        if name == self.chosen:
            return Content.styled(f" {key}{one_line(name)} ", "bold $background on $primary")
        return Content.assemble((f" {key}", "bold $footer-key-foreground"), (f"{one_line(name)} ", "$muted"))


def _in_order(logs: Iterable[LogInfo]) -> list[LogInfo]:
    """Our own first, then the engines', those written to last first."""
    return sorted(
        logs,
        key=lambda log: (
            (OWN.index(log.name), 0.0) if log.name in OWN else (len(OWN), -(log.changed_at or 0.0))
        ),
    )


def _last_failed(switches: Iterable[Switch]) -> Switch | None:
    return next((switch for switch in switches if switch.outcome == "failed" and switch.diagnosis), None)


def _joined(parts: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    separated = [each for part in parts for each in ((" · ", "$faint"), part)]
    return separated[1:]
