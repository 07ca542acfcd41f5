"""The exchanges: what runs, what waits and why, and the last rows of the ledger.

What is under way is told by the daemon as it changes; between that its times go on by our own clock.
Draws at most four times a second, and nothing while nothing changes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content
from textual.widgets import Static

from footplate_daemon import errors
from footplate_daemon.wire import Exchange, ExchangeFilter, ExchangeOutcome
from footplate_tui import conversation
from footplate_tui.commands import Place, bindings, elsewhere
from footplate_tui.exchange_lines import (
    OUTCOMES,
    UNDER_WAY,
    Seen,
    Wanted,
    about,
    in_order,
    queue_line,
    table_head,
    table_line,
)
from footplate_tui.screens.exchange import ExchangeScreen, replay
from footplate_tui.screens.page import Page, told
from footplate_tui.widgets.fields import LineField
from footplate_tui.widgets.rows import Rows
from footplate_tui.widgets.status_line import KeyLine

AT_FIRST = 200
AT_A_TIME = 500
MOST = 20_000
"""No more are held."""
DRAW_SECONDS = 0.25
CLOCK_SECONDS = 0.5
"""So often the times of what is under way go on."""

KEYS = (
    "exchanges.show",
    "exchanges.filter",
    "exchanges.outcome",
    "exchanges.runtime",
    "exchanges.replay",
    "exchanges.back",
    *elsewhere("view.exchanges"),
)
UNDER_WAY_KEYS = ("exchanges.cancel", *KEYS)
NOTHING_YET = (
    "Nothing has passed the gateway yet.\n\n"
    "Each question of a chat, each request to the API and each item of a batch gets a row here: what runs,\n"
    "what waits and why, and afterwards how long it took and what it cost.\n\n"
    'Try it in another shell:  footplate ask "What is a preset?"'
)
NO_DAEMON = "No daemon answers.\n\nStart it in another shell:  footplate up\nThis list fills by itself then."


class ExchangesScreen(Page):
    """Lists exchanges; those under way are on top."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.EXCHANGES)

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._known: dict[int, Seen] = {}
        self._listed: list[Seen] = []
        self._wanted = Wanted()
        self._ended_at = {self._wanted: False}
        """For which filters nothing older is kept."""
        self._has_asked = False
        """Whether the daemon has been heard."""
        self._will_draw = False
        self._asks_to_cancel: int | None = None
        """The exchange that another `c` cancels."""
        self._news: Content | str = ""
        self._now = Static(markup=False, classes="now")
        self._head = Static(markup=False, classes="head")
        self._rows = Rows(self._draw_row)
        self._empty = Static(markup=False, classes="empty")
        self._about = Static(markup=False, classes="about")
        self._input = LineField(placeholder="List only those that say these words")
        self._keys = KeyLine(*KEYS)

    def compose_body(self) -> ComposeResult:
        yield self._now
        yield self._head
        yield self._rows
        yield self._empty
        yield self._input
        yield self._about
        yield self._keys

    def on_mount(self) -> None:
        self.session_title = "Exchanges"
        self._input.display = False
        self._rows.focus()
        self._draw()
        self.set_interval(CLOCK_SECONDS, self._go_on)
        self.follow()

    # What comes.

    @work(group="follow")
    async def follow(self) -> None:
        """Show the last exchanges and each that begins, runs or ends."""
        daemon = await self.footplate.daemon()
        attempt = 0
        while True:
            try:
                async for exchange in daemon.follow_exchanges(ExchangeFilter(limit=AT_FIRST)):
                    attempt = 0
                    self._take(exchange)
            except errors.FootplateError:
                self._will_draw_soon()
            await asyncio.sleep(conversation.pause_before(attempt))
            attempt += 1
            # What was under way when the line was cut may have ended since: the daemon tells it anew.
            self._known = {
                number: seen for number, seen in self._known.items() if seen.exchange.outcome not in UNDER_WAY
            }

    def _take(self, exchange: Exchange) -> None:
        self._has_asked = True
        self._known[exchange.id] = Seen(exchange, self._clock())
        self._will_draw_soon()

    def _will_draw_soon(self) -> None:
        if not self._will_draw:
            self._will_draw = True
            self.set_timer(DRAW_SECONDS, self._draw_now)

    def _draw_now(self) -> None:
        self._will_draw = False
        self._draw()

    def watch_status(self) -> None:
        self._has_asked = self._has_asked or self.status is not None
        self._will_draw_soon()

    def watch_is_connected(self) -> None:
        self._will_draw_soon()

    def _go_on(self) -> None:
        """Let the times of what is under way go on."""
        if any(seen.exchange.outcome in UNDER_WAY for seen in self._listed) and self.is_connected:
            self._rows.redraw()

    def on_rows_end_near(self) -> None:
        self.load_older()

    @work(group="older", exclusive=True)
    async def load_older(self) -> None:
        """Get the page of the ledger that follows what is listed."""
        wanted = self._wanted
        if self._ended_at.get(wanted) or not self._known or len(self._known) >= MOST:
            return
        daemon = await self.footplate.daemon()
        held = [seen.exchange.id for seen in self._known.values() if wanted.holds(seen.exchange)]
        before = min(held, default=None) if wanted in self._ended_at else max(self._known) + 1
        try:
            page = await daemon.exchanges(
                ExchangeFilter(
                    limit=AT_A_TIME,
                    before=before,
                    outcome=_outcome(wanted.outcome),
                    runtime=wanted.runtime or None,
                )
            )
        except errors.FootplateError as error:
            self._tell(told(error))
            return
        self._ended_at[wanted] = len(page) < AT_A_TIME
        now = self._clock()
        for exchange in page:
            self._known.setdefault(exchange.id, Seen(exchange, now))
        self._draw()

    # What is shown.

    def _draw(self) -> None:
        if not self.is_mounted:
            return
        self._list()
        words = self._why_empty()
        self._empty.display = bool(words)
        self._rows.display = self._head.display = not words
        _say(self._empty, Content(words))
        _say(self._head, table_head(self._width))
        narrowed = str(self._wanted)
        _say(
            self._now,
            Content.assemble(
                queue_line(self._known.values(), self.status),
                (f"   only {narrowed} ({len(self._listed):,})" if narrowed else "", "bold $primary"),
            ).truncate(max(self.size.width - 2, 1), ellipsis=True),
        )
        self._draw_about()

    def _list(self) -> None:
        """List what is wanted; the highlighted one stays where it is on the screen."""
        chosen, rows = self._chosen(), self._rows
        listed = in_order(seen for seen in self._known.values() if self._wanted.holds(seen.exchange))
        if listed == self._listed:
            return
        self._listed = listed
        line = rows.line_of(rows.highlighted or 0)
        is_on_top = rows.scroll_offset.y == 0
        place = next((at for at, seen in enumerate(listed) if chosen and seen.exchange.id == chosen.id), 0)
        if (is_on_top and rows.highlighted == 0) or chosen is None:
            place = 0
        rows.show(len(listed), highlighted=place)
        if not is_on_top:
            rows.scroll_to(y=max(place - line, 0), animate=False)

    @property
    def _width(self) -> int:
        return self._rows.scrollable_content_region.width or self.size.width - 3

    def _draw_row(self, place: int, width: int) -> list[Content]:
        return [table_line(self._listed[place], self._clock(), width)] if place < len(self._listed) else []

    def _why_empty(self) -> str:
        if self._listed:
            return ""
        if not self.is_connected:
            return NO_DAEMON
        if str(self._wanted):
            return f"No exchange is {self._wanted}. Esc lists all."
        return NOTHING_YET if self._has_asked else "Asking the daemon…"

    def _draw_about(self) -> None:
        place = self._rows.highlighted
        seen = self._listed[place] if place is not None and place < len(self._listed) else None
        width = max(self.size.width - 4, 10)
        _say(self._about, Content.assemble(self._news or (about(seen, self.status, width) if seen else "")))
        is_under_way = seen is not None and seen.exchange.outcome in UNDER_WAY
        self._keys.keys = UNDER_WAY_KEYS if is_under_way else KEYS

    def _chosen(self) -> Exchange | None:
        place = self._rows.highlighted
        return self._listed[place].exchange if place is not None and place < len(self._listed) else None

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    def on_rows_highlighted(self) -> None:
        self._asks_to_cancel, self._news = None, ""
        self._draw_about()

    def _tell(self, words: Content | str) -> None:
        self._news = words
        self._draw_about()

    # Narrowing it down.

    def on_outcome_wanted(self) -> None:
        place = OUTCOMES.index(self._wanted.outcome)
        self._want(Wanted(OUTCOMES[(place + 1) % len(OUTCOMES)], self._wanted.runtime, self._wanted.words))

    def on_runtime_wanted(self) -> None:
        seen = {each.exchange.runtime for each in self._known.values() if each.exchange.runtime}
        runtimes = ["", *sorted(seen)]
        place = runtimes.index(self._wanted.runtime) if self._wanted.runtime in runtimes else 0
        self._want(Wanted(self._wanted.outcome, runtimes[(place + 1) % len(runtimes)], self._wanted.words))

    def on_filter_wanted(self) -> None:
        self._input.display = True
        self._input.focus()

    def on_input_changed(self) -> None:
        self._want(Wanted(self._wanted.outcome, self._wanted.runtime, self._input.value))

    def on_input_submitted(self) -> None:
        self._input.display = False
        self._rows.focus()

    def _want(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._draw()
        if len(self._listed) < self.size.height:
            self.load_older()

    def on_back_wanted(self) -> None:
        """Take back the innermost thing."""
        if self._asks_to_cancel is not None:
            self._asks_to_cancel = None
            self._tell("")
        elif self._input.display or self._wanted != Wanted():
            self._input.value = ""
            self.on_input_submitted()
            self._want(Wanted())
        else:
            self.dismiss()

    # Keys.

    def on_show_exchange_wanted(self) -> None:
        if chosen := self._chosen():
            self.app.push_screen(ExchangeScreen(chosen.id))

    def on_rows_chosen(self) -> None:
        self.on_show_exchange_wanted()

    def on_replay_wanted(self) -> None:
        if chosen := self._chosen():
            replay(self.footplate, chosen)

    def on_cancel_exchange_wanted(self) -> None:
        chosen = self._chosen()
        if chosen is None:
            return
        if chosen.outcome not in UNDER_WAY:
            self._tell(f"Exchange {chosen.id} has ended.")
        elif self._asks_to_cancel == chosen.id:
            self.cancel(chosen)
        else:
            self._asks_to_cancel = chosen.id
            self._tell(
                Content.assemble(
                    f"Cancel exchange {chosen.id}? Its client is told.  ",
                    ("c", "bold $footer-key-foreground"),
                    " cancels it, ",
                    ("esc", "bold $footer-key-foreground"),
                    " lets it go on.",
                )
            )

    @work(group="cancel")
    async def cancel(self, exchange: Exchange) -> None:
        """End an exchange as if its client had left."""
        daemon = await self.footplate.daemon()
        self._asks_to_cancel = None
        try:
            self._take(await daemon.cancel_exchange(exchange.id))
        except errors.FootplateError as error:
            self._tell(told(error))
        else:
            self._tell(f"Exchange {exchange.id} is cancelled.")


def _outcome(wanted: str) -> ExchangeOutcome | None:
    """Give the outcome to ask the daemon for; what is under way it has told already."""
    match wanted:
        case "done" | "failed" | "cancelled" | "cut":
            return wanted
        case _:
            return None


def _say(widget: Static, words: Content) -> None:
    """Have a widget say something, and painted only when it is something else."""
    if not (isinstance(widget.content, Content) and words.is_same(widget.content)):
        widget.update(words)
