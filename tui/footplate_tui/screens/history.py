"""The history: every session, found by its words, opened, renamed, forked, deleted, taken along.

The list lives in the daemon; this screen shows pages of it, and looks again when it changes there.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar, cast

from textual import events, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Horizontal, Vertical
from textual.content import Content
from textual.reactive import var
from textual.screen import Screen
from textual.widgets import Static

from footplate_daemon import errors
from footplate_daemon.wire import ForkWish, SearchHit, Session, Status
from footplate_tui import conversation
from footplate_tui.commands import BY_ID, Place, bindings, elsewhere
from footplate_tui.enclosing import is_file
from footplate_tui.format import count
from footplate_tui.harmless import one_line
from footplate_tui.history import (
    RESTORE_SECONDS,
    UNTITLED,
    Deleted,
    Deletions,
    Opening,
    file_name,
    hit_lines,
    preview,
    session_line,
    title_of,
)
from footplate_tui.widgets.fields import LineField
from footplate_tui.widgets.header import Header
from footplate_tui.widgets.rows import Rows
from footplate_tui.widgets.status_line import KeyLine

if TYPE_CHECKING:
    from footplate_tui.footplate_app import FootplateApp

PAGE = 100
MOST_HITS = 100
MOST_LOOKED_AT_AGAIN = 400
"""When the list changes, so much of it is asked for again; the rest when somebody scrolls there."""
SEARCH_SECONDS = 0.05
PREVIEW_SECONDS = 0.05
"""Keys that follow each other faster are one: who holds a key down asks the daemon once."""
TURNS_PREVIEWED = 4
LONGEST_TITLE = 200
HIT_HEIGHT = 2

LIST_KEYS = (
    "history.open",
    "history.search",
    "history.rename",
    "history.fork",
    "history.delete",
    "history.export",
    "history.back",
    "history.import",
    *elsewhere("session.history"),
)
SEARCH_KEYS = ("history.open", "history.back", "history.close")
EMPTY_KEYS = ("history.import", "history.back", *elsewhere("session.history"))
Answered = TypeVar("Answered")

DAEMON_IS_DOWN = (
    "No daemon answers.\n\n"
    "Start it in another shell:  footplate up\n"
    "The list fills by itself as soon as it is there."
)
NO_SESSIONS = (
    "No sessions yet.\n\n"
    "Every chat is kept here by itself: ask something (esc goes back), and it can be found, opened,\n"
    "forked and exported from any terminal.\n\n"
    "Chats of another Footplate come in from a file:  i"
)


WHOLE_WORDS = "\n\nThe last word may be the beginning of one, the others are whole. Esc clears the search."


class Asks(StrEnum):
    """What the line at the bottom asks for."""

    EXPORT = "Export to"
    IMPORT = "Import from"


class HistoryScreen(Screen[Opening | None]):
    """Lists the sessions; given back is the one to open."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.HISTORY)
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide")]  # noqa: RUF012 -- the base class's type

    session_title: var[str] = var("History")
    status: var[Status | None] = var(None)
    is_connected: var[bool] = var(True)

    def __init__(self, deletions: Deletions, open_session_id: str | None = None) -> None:
        """`deletions` outlives the screen; `open_session_id` is highlighted at first."""
        super().__init__()
        self._deletions = deletions
        self._wanted = open_session_id
        """The session to highlight when the list is there."""
        self._sessions: list[Session] | None = None
        self._before: str | None = None
        """Where the next page begins; None: all are here."""
        self._hits: list[SearchHit] | None = None
        """What was found; None while nothing is searched for."""
        self._found_for = ""
        self._reading = asyncio.Lock()
        self._asks: Asks | None = None
        self._asked_about: tuple[str, str] = "", ""
        """The session that is renamed or exported, and its title."""
        self._replaces = ""
        """The file that another Enter replaces."""
        self._rows = Rows(self._draw_row)
        self._search = LineField(placeholder="Search titles, questions, answers", beside=self._rows)
        self._new_title = LineField(placeholder="Title", max_length=LONGEST_TITLE)
        self._new_title.add_class("rename")
        self._empty = Static(markup=False, classes="empty")
        self._preview = Static(markup=False, classes="preview")
        self._said = Static(markup=False, classes="said")
        self._question = Static(markup=False, classes="question")
        self._file = LineField()
        self._keys = KeyLine(*LIST_KEYS)

    @property
    def footplate(self) -> FootplateApp:
        """The app, by its own type."""
        return cast("FootplateApp", self.app)

    # What it shows.

    def compose(self) -> ComposeResult:
        yield Header(self.footplate.place).data_bind(
            HistoryScreen.session_title, HistoryScreen.status, HistoryScreen.is_connected
        )
        with Vertical(id="history"):
            yield self._search
            with Horizontal(id="columns"):
                with Container(id="list"):
                    yield self._rows
                    yield self._new_title
                    yield self._empty
                yield self._preview
            yield self._said
            with Horizontal(id="ask"):
                yield self._question
                yield self._file
            yield self._keys

    def on_mount(self) -> None:
        self._rows.focus()
        self._tell_deleted()
        self.follow()

    def on_resize(self) -> None:
        self._leave_rename()
        self.call_after_refresh(self.show_preview)

    def _draw_row(self, place: int, width: int) -> tuple[Content, ...]:
        now = time.time()
        if self._hits is not None:
            return hit_lines(self._hits[place], width, now)
        return (session_line((self._sessions or [])[place], width, now),)

    def _show_list(self, highlighted: int | None = None) -> None:
        """Show what was read; the highlight stays on its session where it is still there."""
        if self._hits is not None:
            self._rows.show(len(self._hits), height=HIT_HEIGHT, highlighted=highlighted)
        else:
            self._rows.show(len(self._sessions or []), highlighted=highlighted)
        words = self._why_empty()
        self._empty.display = bool(words)
        self._rows.display = not words
        self._empty.update(words)
        self.session_title = self._how_many()
        self._show_keys()
        self.show_preview()

    def _why_empty(self) -> str:
        if self._rows.row_count:
            return ""
        if not self.is_connected:
            return DAEMON_IS_DOWN
        if self._hits is not None:
            return f"Nothing has all of “{one_line(self._found_for)}”.{WHOLE_WORDS}"
        return NO_SESSIONS if self._sessions is not None else "Asking the daemon…"

    def _how_many(self) -> str:
        if self._hits is not None:
            found, more = count(len(self._hits), "place"), len(self._hits) == MOST_HITS
        else:
            found, more = count(len(self._sessions or []), "session"), self._before is not None
        return f"History · {found} and more" if more else f"History · {found}"

    def _show_keys(self) -> None:
        if self.focused in {self._search, self._file, self._new_title}:
            self._keys.keys = SEARCH_KEYS if self.focused is self._search else ("history.back",)
        elif self._rows.row_count:
            undo = ("history.undo",) if self._deletions.last(time.monotonic()) else ()
            self._keys.keys = (*undo, *LIST_KEYS)
        else:
            self._keys.keys = EMPTY_KEYS

    def _about(self) -> tuple[str, str, int | None] | None:
        """Give id, title and turn of what is highlighted."""
        place = self._rows.highlighted
        if place is None or not self._rows.row_count:
            return None
        if self._hits is not None:
            hit = self._hits[place]
            return hit.session_id, title_of(hit), hit.turn
        session = (self._sessions or [])[place]
        return session.id, title_of(session), None

    def _tell(self, words: Content | str) -> None:
        self._said.display = bool(words)
        self._said.update(words)

    def _tell_error(self, error: errors.FootplateError) -> None:
        hint = f"\n{one_line(error.hint)}" if error.hint else ""
        self._tell(Content.assemble(("✗ ", "$error"), one_line(error.message), (hint, "$muted")))

    def _tell_deleted(self) -> None:
        """Say what can be brought back, for as long as it can."""
        now = time.monotonic()
        deleted = self._deletions.last(now)
        if deleted is None:
            self._tell("")
        else:
            self._tell(
                Content.assemble(
                    f"“{deleted.title}” deleted · ", ("u", "bold $footer-key-foreground"), " brings it back"
                )
            )
            self.set_timer(deleted.until - now, self._tell_deleted)
        self._show_keys()

    def on_rows_highlighted(self) -> None:
        self.show_preview()

    def on_rows_chosen(self) -> None:
        self.on_open_session_wanted()

    # Keys.

    def action_command(self, identity: str) -> None:
        self.post_message(BY_ID[identity].message())

    def on_descendant_focus(self) -> None:
        self._show_keys()

    def on_key(self, event: events.Key) -> None:
        """Begin or leave the search: a letter that is no key here types."""
        if self.focused is self._search:
            self._search.take_late(event)
        elif self.focused is self._new_title or self.focused is self._file:
            return
        elif event.key in self.footplate.keymap.command("history.search").keys.split(","):
            event.stop()
            self.set_focus(self._search)
        elif event.is_printable and event.character and not self._is_key(event.character):
            event.stop()
            self.set_focus(self._search)
            self._search.insert_text_at_cursor(event.character)

    def _is_key(self, character: str) -> bool:
        return character in self.footplate.keymap.keys(Place.HISTORY) | {"/", " "}

    def on_search_wanted(self) -> None:
        self._search.focus()

    def on_input_changed(self, message: LineField.Changed) -> None:
        message.stop()
        if message.input is self._search:
            self.search()
        elif message.input is self._file:
            self._replaces = ""

    def on_input_submitted(self, message: LineField.Submitted) -> None:
        message.stop()
        if message.input is self._new_title:
            self.rename(*self._asked_about, message.value.strip())
            self._leave_rename()
        elif message.input is self._file:
            self._take_name(message.value.strip())
        elif self._search.value.strip() == self._found_for:
            self.on_open_session_wanted()
        else:
            # The list is not yet what the words ask for.
            self._rows.focus()

    def on_back_wanted(self) -> None:
        if self._new_title.display:
            self._leave_rename()
        elif self._asks:
            self._leave_question()
        elif self.focused is self._search or self._search.value:
            self._search.value = ""
            self._rows.focus()
        else:
            self.dismiss(None)

    def on_close_wanted(self) -> None:
        self.dismiss(None)

    def on_open_session_wanted(self) -> None:
        if about := self._about():
            session_id, _, turn = about
            self.dismiss(Opening(session_id, turn))

    def on_rename_wanted(self) -> None:
        about = self._about()
        if about is None or self._rows.highlighted is None:
            return
        self._asked_about = about[:2]
        self._new_title.value = "" if about[1] == UNTITLED else about[1]
        self._new_title.styles.offset = (0, self._rows.line_of(self._rows.highlighted))
        self._new_title.display = True
        self._new_title.focus()

    def _leave_rename(self) -> None:
        if self._new_title.display:
            self._rows.focus()
            self._new_title.display = False

    def on_fork_wanted(self) -> None:
        if about := self._about():
            self.fork(*about)

    def on_delete_wanted(self) -> None:
        if about := self._about():
            self.delete(*about[:2])

    def on_undo_wanted(self) -> None:
        if deleted := self._deletions.last(time.monotonic()):
            self.bring_back(deleted)
        else:
            self._tell("Nothing was deleted here in the last ten minutes.")

    def on_export_wanted(self) -> None:
        if about := self._about():
            self._asked_about = about[:2]
            name = file_name(about[1], about[0], lambda name: Path(name).exists())
            self._ask(Asks.EXPORT, name, " .md to read, .json to import again")

    def on_import_wanted(self) -> None:
        self._ask(Asks.IMPORT, "", " a file that was exported as .json")

    def _ask(self, asks: Asks, value: str, what: str) -> None:
        self._asks, self._replaces = asks, ""
        self._question.update(Content.assemble((f"{asks} ", "bold"), (f"{Path.cwd()}/", "$muted")))
        self._file.placeholder = what.strip()
        self._file.value = value
        self._file.cursor_position = len(value)
        self.set_class(True, "-asking")
        self._tell(Content.styled(what.strip(), "$muted") if value else "")
        self._file.focus()

    def _leave_question(self) -> None:
        self._asks = None
        self.set_class(False, "-asking")
        self._rows.focus()
        self._tell_deleted()

    def _take_name(self, name: str) -> None:
        if not name:
            return
        path = Path(name)
        with contextlib.suppress(RuntimeError):  # `~draft.md` is a file's name where there is no such user
            path = path.expanduser()
        if self._asks is Asks.IMPORT:
            self.take_in(path)
        else:
            self.export(self._asked_about[0], path)

    # What it asks of the daemon.

    async def _answer(self, answer: Awaitable[Answered]) -> Answered | None:
        """Wait for the daemon's answer; what it refuses is said, and is None here."""
        try:
            return await answer
        except errors.FootplateError as error:
            self._tell_error(error)
            return None

    @work(group="follow")
    async def follow(self) -> None:
        """Read the list, and again whenever it changes in the daemon."""
        daemon = await self.footplate.daemon()
        attempt = 0
        while True:
            try:
                async for _ in daemon.follow_sessions():
                    self.is_connected = True
                    if attempt:
                        attempt = 0
                        self._tell_deleted()
                    await self._look()
            except errors.FootplateError as error:
                self.is_connected = False
                self._tell_error(error)
                self._show_list()
            await asyncio.sleep(conversation.pause_before(attempt))
            attempt += 1

    async def _look(self) -> None:
        """Read the first pages anew; the highlight stays on its session."""
        daemon = await self.footplate.daemon()
        async with self._reading:
            known = len(self._sessions or [])
            page = await daemon.session_page(min(max(known, PAGE), MOST_LOOKED_AT_AGAIN))
            about = self._about()
            self._sessions, self._before = list(page.sessions), page.before
        if self._hits is not None:
            self.search()
            return
        wanted = self._wanted or (about[0] if about else None)
        self._wanted = None
        place = next((place for place, each in enumerate(page.sessions) if each.id == wanted), None)
        self._show_list(place)

    async def on_rows_end_near(self) -> None:
        if self._hits is None and self._before and not self._reading.locked():
            self.read_on()

    @work(group="read on", exclusive=True)
    async def read_on(self) -> None:
        """Read the page that follows."""
        daemon = await self.footplate.daemon()
        async with self._reading:
            page = await self._answer(daemon.session_page(PAGE, self._before))
            if page is None:
                return
            known = {session.id for session in self._sessions or []}
            new = [session for session in page.sessions if session.id not in known]
            self._sessions, self._before = [*(self._sessions or []), *new], page.before
        if self._hits is None:
            self._show_list()

    @work(group="search", exclusive=True)
    async def search(self) -> None:
        """Find what stands in the search, or show the list again."""
        daemon = await self.footplate.daemon()
        words = self._search.value.strip()
        if words:
            await asyncio.sleep(SEARCH_SECONDS)
            hits = await self._answer(daemon.search(words, MOST_HITS))
            if hits is None:
                return
            is_new = words != self._found_for
            self._hits, self._found_for = hits, words
            self._show_list(0 if is_new else None)
        elif self._hits is not None:
            self._hits, self._found_for = None, ""
            self._show_list(0)

    @work(group="preview", exclusive=True)
    async def show_preview(self) -> None:
        """Show what is highlighted, where there is room for it."""
        about = self._about()
        if not self._preview.display or about is None:
            self._preview.update("")
            return
        daemon = await self.footplate.daemon()
        session_id, _, turn = about
        await asyncio.sleep(PREVIEW_SECONDS)
        try:
            session = await (
                daemon.session(session_id, last=TURNS_PREVIEWED)
                if turn is None
                else daemon.session(session_id, first=turn, limit=1)
            )
        except errors.FootplateError:
            # It was deleted meanwhile, or nobody answers: both are said elsewhere.
            self._preview.update("")
            return
        hit = self._hits[self._rows.highlighted or 0] if self._hits else None
        size = self._preview.content_size
        self._preview.update(preview(session, hit, self._found_for, size.width, size.height, time.time()))

    @work(group="change")
    async def rename(self, session_id: str, title_before: str, title: str) -> None:
        """Give a session another title."""
        if not title or title == title_before:
            return
        daemon = await self.footplate.daemon()
        await self._answer(daemon.rename_session(session_id, title))

    @work(group="change")
    async def fork(self, session_id: str, title: str, turn: int | None) -> None:
        """Make a session of the first turns of another, and open it."""
        daemon = await self.footplate.daemon()
        if turn is None:
            whole = await self._answer(daemon.session(session_id, last=1))
            if whole is None:
                return
            turn = whole.turn_count
        if turn == 0:
            self._tell("Nothing was asked in it yet: there is nothing to fork.")
            return
        forked = await self._answer(daemon.fork_session(session_id, ForkWish(turn=turn)))
        if forked:
            news = f"A fork of “{title}” after turn {turn:,}: go on another way."
            self.dismiss(Opening(forked.id, news=news))

    @work(group="change")
    async def delete(self, session_id: str, title: str) -> None:
        """Delete a session; it can be brought back."""
        daemon = await self.footplate.daemon()
        try:
            await daemon.delete_session(session_id)
        except errors.FootplateError as error:
            self._tell_error(error)
            return
        until = time.monotonic() + RESTORE_SECONDS
        self._deletions.kept.append(Deleted(session_id, title, until))
        self._tell_deleted()

    @work(group="change")
    async def bring_back(self, deleted: Deleted) -> None:
        """Bring a deleted session back."""
        daemon = await self.footplate.daemon()
        if await self._answer(daemon.restore_session(deleted.session_id)):
            self._wanted = deleted.session_id
            if deleted in self._deletions.kept:
                self._deletions.kept.remove(deleted)
            self._tell(f"“{deleted.title}” is back.")
            self._show_keys()

    @work(group="file", exclusive=True)
    async def export(self, session_id: str, path: Path) -> None:
        """Write a session to a file of this machine; one that is there is replaced when asked twice."""
        daemon = await self.footplate.daemon()
        if self._replaces != str(path) and await asyncio.to_thread(is_file, path):
            self._replaces = str(path)
            self._tell(Content.styled(f"{path} is there already. ⏎ again replaces it.", "$warning"))
            return
        kind: Literal["json", "markdown"] = "json" if path.suffix.casefold() == ".json" else "markdown"
        text = await self._answer(daemon.export_session(session_id, kind))
        if text is None:
            return
        try:
            await asyncio.to_thread(path.write_text, text, encoding="utf-8")
        except OSError as error:
            self._tell(Content.assemble(("✗ ", "$error"), f"{path}: {error.strerror}."))
            return
        self._leave_question()
        self._tell(f"Written to {Path.cwd() / path}.")

    @work(group="file", exclusive=True)
    async def take_in(self, path: Path) -> None:
        """Take in a session from a file of this machine."""
        daemon = await self.footplate.daemon()
        try:
            exported = await asyncio.to_thread(path.read_bytes)
        except OSError as error:
            self._tell(Content.assemble(("✗ ", "$error"), f"{path}: {error.strerror}."))
            return
        taken = await self._answer(daemon.import_session(exported))
        if taken is None:
            return
        self._wanted = taken.id
        self._leave_question()
        self._tell(f"“{title_of(taken)}” is here, with {count(taken.turn_count, 'turn')}.")
