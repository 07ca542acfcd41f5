"""The switcher: every model on every runtime, what a switch would do, and how one goes.

It reads the status to show it; what is wished goes to the daemon, which decides.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, ClassVar, TypeVar, cast

from textual import events, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.reactive import var
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from footplate_daemon import errors
from footplate_daemon.wire import ModelInfo, Status, Switch, SwitchWish
from footplate_tui import conversation
from footplate_tui.commands import BY_ID, Place, bindings
from footplate_tui.harmless import one_line
from footplate_tui.switching import Endings, Row, about, matching, plan_text, rows, table_head, table_line
from footplate_tui.widgets.fields import LineField
from footplate_tui.widgets.status_line import KeyLine
from footplate_tui.widgets.switch_progress import SwitchProgress

if TYPE_CHECKING:
    from footplate_tui.footplate_app import FootplateApp

KEYS = ("switcher.choose", "switcher.plan", "switcher.stop", "switcher.filter", "switcher.close")
FAILED_KEYS = ("switcher.choose", "switcher.why", *KEYS[1:])
FILTER_KEYS = ("switcher.choose", "switcher.back", "switcher.close")
SWITCHING_KEYS = ("switcher.cancel", "switcher.close", "switcher.choose", "switcher.plan")
Answered = TypeVar("Answered")

DAEMON_IS_DOWN = (
    "No daemon answers.\n\n"
    "Start it in another shell:  footplate up\n"
    "This list fills by itself as soon as it is there."
)
ONLY_THE_GUIDE = (
    "Only the guide is here. Put a GGUF file into the models folder, or name a model in config.toml;\n"
    "`footplate doctor` shows what lies on this machine already."
)


class SwitcherScreen(ModalScreen[Switch | None]):
    """Lists what there is to switch to; given back is a failed switch that the user wants explained."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.SWITCHER)

    status: var[Status | None] = var(None)
    is_connected: var[bool] = var(True)

    def __init__(self, endings: Endings) -> None:
        super().__init__()
        self._endings = endings
        self._models: list[ModelInfo] | None = None
        self._rows: list[Row] = []
        self._began: int | None = None
        """The switch begun on this screen last."""
        self._ended: int | None = None
        """The switch after which the models were asked for last."""
        self._asks_to_stop = ""
        """The variant that another `s` stops."""
        self._drawn_at = 0
        """For which width the table is laid out."""
        self._was_switching = False
        self._has_found_active = False
        """Whether the active variant was highlighted; from then on the highlight is the user's."""
        self._box = Vertical()
        self._head = Static(markup=False)
        self._table = OptionList(markup=False, compact=True)
        self._filter = LineField(placeholder="/ filters by name", beside=self._table)
        self._empty = Static(markup=False, classes="empty")
        self._said = Static(markup=False, classes="said")
        self._progress = SwitchProgress()
        self._keys = KeyLine(*KEYS)

    @property
    def footplate(self) -> FootplateApp:
        """The app, by its own type."""
        return cast("FootplateApp", self.app)

    # What it shows.

    def compose(self) -> ComposeResult:
        self._box.border_title = "Models"
        with self._box:
            yield self._filter
            yield self._head
            yield self._table
            yield self._empty
            yield self._said
            yield self._progress
            yield self._keys

    def on_mount(self) -> None:
        self._table.focus()
        self.look()

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    def watch_status(self) -> None:
        switch = self.status.switch if self.status else None
        if switch and switch.outcome != "running" and switch.id != self._ended:
            self._ended = switch.id
            self.look()
        if switch and switch.id == self._began and switch.outcome == "done":
            self.dismiss(None)
            return
        self._draw()

    def watch_is_connected(self) -> None:
        if self.is_connected:
            self.look()
        self._draw()

    def _draw(self) -> None:
        if not self.is_mounted:
            return
        self._draw_table()
        self._head.display = self._table.display = bool(self._rows)
        words = self._why_empty()
        self._empty.display = bool(words)
        self._empty.update(words)
        running = self._going_on()
        self._progress.display = running is not None
        self._progress.switch = running
        self.set_class(running is not None, "-switching")
        if self._was_switching != (running is not None):
            self._was_switching = running is not None
            self._tell_about()
        self._keys.keys = self._keys_now(is_switching=running is not None)

    def _keys_now(self, *, is_switching: bool) -> tuple[str, ...]:
        if is_switching:
            return SWITCHING_KEYS
        if self.focused is self._filter:
            return FILTER_KEYS
        row = self._row()
        return FAILED_KEYS if row and row.state == "failed" else KEYS

    def _draw_table(self) -> None:
        """Draw the rows anew; the highlight stays on its variant."""
        width = self._box.content_size.width - 1
        before = self._row()
        found = matching(rows(self._models or [], self.status), self._filter.value)
        if found == self._rows and self._drawn_at == width:
            return
        is_other_choice = [row.name for row in found] != [row.name for row in self._rows]
        self._rows, self._drawn_at = found, width
        self._head.update(table_head(width))
        if not is_other_choice:
            for place, row in enumerate(found):
                self._table.replace_option_prompt_at_index(place, table_line(row, width))
        else:
            self._table.set_options([Option(table_line(row, width), id=row.name) for row in found])
            self._table.styles.height = len(found)
            self._table.highlighted = self._place_of(before) if found else None
        if found and self.status and not self._has_found_active:
            # The models may be here before the status is.
            self._has_found_active = True
            self._table.highlighted = self._place_of(None)
        self._tell_about()

    def _place_of(self, row: Row | None) -> int:
        """Give where a variant is listed now; without one, where the active one is."""
        for place, each in enumerate(self._rows):
            if each.name == row.name if row else each.is_active:
                return place
        return 0

    def _why_empty(self) -> str:
        if not self.is_connected and not self._models:
            return DAEMON_IS_DOWN
        if self._models is None:
            return "Asking the daemon…"
        if not self._rows:
            return f"Nothing is called “{self._filter.value}”. Esc clears the filter."
        return ONLY_THE_GUIDE if all(row.is_demonstration for row in self._rows) else ""

    def _row(self) -> Row | None:
        place = self._table.highlighted
        return self._rows[place] if place is not None and place < len(self._rows) else None

    def _going_on(self) -> Switch | None:
        switch = self.status.switch if self.status else None
        return switch if switch and switch.outcome == "running" else None

    def _tell(self, words: Content | str) -> None:
        self._said.display = True
        self._said.update(words)

    def _tell_about(self) -> None:
        self._asks_to_stop = ""
        row = self._row()
        self._said.display = row is not None and self._going_on() is None
        self._said.update(about(row, self._drawn_at) if row else "")

    def on_option_list_option_highlighted(self) -> None:
        self._tell_about()
        self._draw()

    def _tell_error(self, error: errors.FootplateError) -> None:
        hint = f"\n{one_line(error.hint)}" if error.hint else ""
        self._tell(Content.assemble(("✗ ", "$error"), one_line(error.message), (hint, "$muted")))

    # Keys.

    def action_command(self, identity: str) -> None:
        self.post_message(BY_ID[identity].message())

    def on_descendant_focus(self) -> None:
        self._draw()

    def on_key(self, event: events.Key) -> None:
        """Begin or leave the filter: a letter that is no key here types."""
        if self.focused is self._filter:
            self._filter.take_late(event)
        elif event.key in self.footplate.keymap.command("switcher.filter").keys.split(","):
            event.stop()
            self.set_focus(self._filter)
        elif event.is_printable and event.character and not self._is_key(event.character):
            event.stop()
            self.set_focus(self._filter)
            self._filter.insert_text_at_cursor(event.character)

    def _is_key(self, character: str) -> bool:
        return character in self.footplate.keymap.keys(Place.SWITCHER) | {"/", " "}

    def on_filter_wanted(self) -> None:
        self._filter.focus()

    def on_input_changed(self) -> None:
        self._draw()

    def on_back_wanted(self) -> None:
        if self._asks_to_stop:
            self._tell_about()
        elif self.focused is self._filter or self._filter.value:
            self._filter.value = ""
            self._table.focus()
        elif self._going_on():
            self.cancel()
        else:
            self.dismiss(None)

    def on_close_wanted(self) -> None:
        self.dismiss(None)

    def on_choice_wanted(self) -> None:
        self._table.focus()
        if row := self._row():
            self.switch_to(row)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        # The event's own: by now the highlight may have moved on.
        for row in self._rows:
            if row.name == event.option_id:
                self.switch_to(row)

    def on_input_submitted(self) -> None:
        self.on_choice_wanted()

    def on_cancel_switch_wanted(self) -> None:
        self.cancel()

    def on_plan_wanted(self) -> None:
        if row := self._row():
            self.plan(row)

    def on_stop_engine_wanted(self) -> None:
        row = self._row()
        if row is None:
            return
        if row.state in {"stopped", "failed"}:
            self._tell(f"{one_line(row.name)} does not run.")
        elif self._asks_to_stop == row.name:
            self.stop_engine(row)
        else:
            self._asks_to_stop = row.name
            self._tell(
                Content.assemble(
                    f"Stop {one_line(row.name)}? Answers that it is giving are cut off.  ",
                    ("s", "bold $footer-key-foreground"),
                    " stops it, ",
                    ("esc", "bold $footer-key-foreground"),
                    " keeps it.",
                )
            )

    def on_why_wanted(self) -> None:
        row = self._row()
        if row is None or row.state != "failed":
            self._tell("It has not failed." if row else "")
        else:
            self.look_why(row)

    # What it asks of the daemon.

    async def _answer(self, answer: Awaitable[Answered]) -> Answered | None:
        """Wait for the daemon's answer; what it refuses is said, and is None here."""
        try:
            return await answer
        except errors.FootplateError as error:
            self._tell_error(error)
            return None

    @work(group="look", exclusive=True)
    async def look(self) -> None:
        """List the models anew."""
        daemon = await self.footplate.daemon()
        try:
            self._models = await daemon.models()
        except errors.DaemonUnreachable:
            self.is_connected = False
        except errors.FootplateError as error:
            self._tell_error(error)
        self._draw()

    @work(group="plan", exclusive=True)
    async def plan(self, row: Row) -> None:
        """Say what a switch would do."""
        daemon = await self.footplate.daemon()
        plan = await self._answer(daemon.plan(row.name))
        if plan and self._row() == row:
            self._tell(plan_text(plan, self._box.content_size.width))

    @work(group="wish", exclusive=True)
    async def switch_to(self, row: Row) -> None:
        """Make a variant active; the status tells how it goes."""
        daemon = await self.footplate.daemon()
        self._endings.wished.add(row.name)
        begun = await self._answer(daemon.activate(SwitchWish(name=row.name)))
        if begun is None:
            self._endings.wished.discard(row.name)
            return
        self._began = begun.id
        if begun.outcome == "done":
            self.dismiss(None)

    @work(group="wish", exclusive=True)
    async def cancel(self) -> None:
        """End the switch that goes on."""
        daemon = await self.footplate.daemon()
        if running := self._going_on():
            await self._answer(daemon.cancel_switch(running.id))

    @work(group="wish", exclusive=True)
    async def stop_engine(self, row: Row) -> None:
        """Stop an engine for good."""
        daemon = await self.footplate.daemon()
        self._tell(f"Stopping {one_line(row.name)}…")
        await self._answer(daemon.stop_engine(row.name))

    @work(group="why", exclusive=True)
    async def look_why(self, row: Row) -> None:
        """Find the switch that failed; it has the ways out."""
        daemon = await self.footplate.daemon()
        failed = await self._answer(conversation.last_failure(daemon, row.name))
        if failed:
            self.dismiss(failed)
        elif row.diagnosis:
            self._tell(f"{one_line(row.diagnosis.cause)} Its log: footplate logs {one_line(row.name)}")
