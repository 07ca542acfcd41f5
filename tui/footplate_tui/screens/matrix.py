"""A new benchmark: which variants, presets and workloads, how many at a time; and what that comes to."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual import events, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.reactive import var
from textual.screen import Screen
from textual.widgets import Static

from footplate_daemon import errors
from footplate_daemon.wire import ModelInfo, Status
from footplate_daemon.wire_benchmarks import MOST_LINES, BenchmarkRun
from footplate_tui import conversation
from footplate_tui.benchmark_matrix import NUMBERS, Matrix, first_choice, wish_of
from footplate_tui.commands import Place, bindings
from footplate_tui.harmless import one_line
from footplate_tui.matrix_rows import (
    OWN_PRESETS,
    Item,
    is_chosen,
    item_line,
    items,
    plan,
    stops,
    summary,
    variants_of,
)
from footplate_tui.screens.attach import AttachScreen
from footplate_tui.screens.page import carry_out, told
from footplate_tui.screens.questions import say
from footplate_tui.widgets.fields import LineField
from footplate_tui.widgets.header import Header
from footplate_tui.widgets.rows import Rows
from footplate_tui.widgets.status_line import KeyLine

if TYPE_CHECKING:
    from footplate_tui.footplate_app import FootplateApp

CHOICE_KEYS = ("matrix.toggle", "matrix.start", "matrix.title", "matrix.back")
NUMBER_KEYS = ("matrix.less", "matrix.more", "matrix.start", "matrix.title", "matrix.back")
LONGEST_TITLE = 200
LARGEST_FILE = 100_000_000
"""Bytes of a workload's file."""


class MatrixScreen(Screen[BenchmarkRun | None]):
    """Gives the run that was begun."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.MATRIX)
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (124, "-wide")]  # noqa: RUF012 -- the base class's type

    session_title: var[str] = var("A new benchmark")
    status: var[Status | None] = var(None)
    is_connected: var[bool] = var(True)

    def __init__(self, matrix: Matrix | None = None) -> None:
        """`matrix` has the choices of an earlier run; None: what is most probably wanted."""
        super().__init__()
        self._matrix = matrix or Matrix()
        self._is_first = matrix is None
        self._models: list[ModelInfo] | None = None
        self._items: list[Item] = []
        self._typed: str | None = None
        """A number as it is being typed."""
        self._asks_to_start = False
        self._news: Content | str = ""
        self._rows = Rows(self._draw_row)
        self._plan = Static(markup=False, classes="plan")
        self._about = Static(markup=False, classes="about")
        self._title = LineField(placeholder="Title of the run", max_length=LONGEST_TITLE)
        self._keys = KeyLine(*CHOICE_KEYS)

    @property
    def footplate(self) -> FootplateApp:
        """The app, by its own type."""
        return cast("FootplateApp", self.app)

    def compose(self) -> ComposeResult:
        yield Header(self.footplate.place).data_bind(
            MatrixScreen.session_title, MatrixScreen.status, MatrixScreen.is_connected
        )
        with Horizontal(classes="body"):
            yield self._rows
            yield self._plan
        yield self._title
        yield self._about
        yield self._keys

    def on_mount(self) -> None:
        self._title.display = False
        self._rows.focus()
        self.follow()
        self.look()

    # What comes.

    @work(group="status")
    async def follow(self) -> None:
        """Know what runs: it stops for the benchmark."""
        daemon = await self.footplate.daemon()
        async for news in conversation.follow_status(daemon):
            self.is_connected = not isinstance(news, conversation.Cut)
            if not isinstance(news, conversation.Cut):
                self.status = news
                if self._models is None:
                    self.look()

    @work(group="look", exclusive=True)
    async def look(self) -> None:
        """List what can take part."""
        daemon = await self.footplate.daemon()
        try:
            models = await daemon.models()
        except errors.FootplateError as error:
            self._tell(told(error))
            return
        self._models, self._news = models, ""
        self._choose_first()
        self._draw()

    def watch_status(self) -> None:
        self._choose_first()
        self._draw()

    def _choose_first(self) -> None:
        """Choose what is most probably wanted as soon as that is known, and never again."""
        if self._is_first and self._models and self.status is not None:
            self._is_first = False
            self._matrix = replace(
                first_choice(self._models, self.status), title=self._matrix.title, file=self._matrix.file
            )

    # What is shown.

    def _draw(self) -> None:
        if not self.is_mounted:
            return
        listed = items(self._models or [], self._matrix) if self._models is not None else []
        is_other_list = listed != self._items
        chosen = self._item()
        self._items = listed
        if is_other_list:
            chosen = chosen or next((item for item in listed if is_chosen(item, self._matrix)), None)
            place = next((at for at, item in enumerate(listed) if chosen and _is_same(item, chosen)), 0)
            self._rows.show(len(listed), highlighted=place)
        else:
            self._rows.redraw()
        variants = variants_of(self._models or [])
        say(self._plan, plan(self._matrix, variants, self.status, max(self._plan.content_size.width, 20)))
        self._draw_about()

    def _draw_row(self, place: int, width: int) -> list[Content]:
        if place >= len(self._items):
            return []
        typed = self._typed if place == self._rows.highlighted else None
        return [item_line(self._items[place], self._matrix, variants_of(self._models or []), width, typed)]

    def _draw_about(self) -> None:
        width = max(self.size.width - 4, 10)
        if self._models is None:
            words = Content.assemble(self._news or "Asking the daemon what there is…")
        else:
            variants = variants_of(self._models)
            lines = [summary(self._matrix, variants, width), stops(self._matrix, self.status, width)]
            words = Content("\n").join([*lines, Content.assemble(self._news).truncate(width, ellipsis=True)])
        say(self._about, words)
        item = self._item()
        self._keys.keys = NUMBER_KEYS if item and item.kind == "number" else CHOICE_KEYS

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    def _item(self) -> Item | None:
        place = self._rows.highlighted
        return self._items[place] if place is not None and place < len(self._items) else None

    def _tell(self, words: Content | str) -> None:
        self._news = words
        self._draw_about()

    def _set(self, matrix: Matrix) -> None:
        self._matrix = matrix
        self._asks_to_start, self._news = False, ""
        self._draw()

    def on_rows_highlighted(self) -> None:
        self._typed = None
        self._asks_to_start, self._news = False, ""
        self._rows.redraw()
        self._draw_about()

    # Keys.

    def action_command(self, identity: str) -> None:
        carry_out(self, identity)

    def on_rows_chosen(self) -> None:
        self.on_toggle_wanted()

    def on_toggle_wanted(self) -> None:
        item, matrix = self._item(), self._matrix
        if item is None:
            return
        match item.kind:
            case "presets" if item.value == OWN_PRESETS:
                self._set(replace(matrix, presets=()))
            case "workloads" if item.value == "file" and not ("file" in matrix.workloads and matrix.file):
                self._ask_file()
            case "variants" | "presets" | "workloads":
                self._set(matrix.toggled(item.kind, item.value))
            case "levels":
                self._set(matrix.toggled("levels", int(item.value)))
            case "flag":
                flag: dict[str, Any] = {item.value: not getattr(matrix, item.value)}
                self._set(replace(matrix, **flag))
            case "title":
                self.on_title_wanted()
            case "number":
                self.on_more_wanted()

    def _ask_file(self) -> None:
        def take(path: Path | None) -> None:
            if path is not None:
                chosen = replace(self._matrix, file=str(path))
                is_chosen = "file" in chosen.workloads
                self._set(chosen if is_chosen else chosen.toggled("workloads", "file"))

        self.app.push_screen(AttachScreen("Workload", "path of a JSONL or ShareGPT file"), take)

    def on_more_wanted(self) -> None:
        self._step(1)

    def on_less_wanted(self) -> None:
        self._step(-1)

    def _step(self, direction: int) -> None:
        """Raise or lower the number by what suits its size: 1, then tens."""
        item = self._item()
        if item is None or item.kind != "number":
            return
        value = int(getattr(self._matrix, item.value))
        by = next(step for step in (100, 10, 4, 1) if value + min(direction, 0) >= step * 4 or step == 1)
        self._typed = None
        self._set(self._matrix.with_number(item.value, value + direction * by))

    def on_key(self, event: events.Key) -> None:
        """Take a number as it is typed."""
        item = self._item()
        if item is None or item.kind != "number" or self._title.has_focus:
            return
        if event.character and event.character.isdecimal() and event.character.isascii():
            self._typed = (self._typed or "") + event.character
        elif event.key == "backspace":
            value = str(getattr(self._matrix, item.value)) if self._typed is None else self._typed
            self._typed = value[:-1]
        else:
            return
        event.stop()
        _, least, most = NUMBERS[item.value]
        self._typed = self._typed[: len(str(most))]
        self._set(self._matrix.with_number(item.value, int(self._typed or least)))

    def on_title_wanted(self) -> None:
        self._title.value = self._matrix.title
        self._title.cursor_position = len(self._matrix.title)
        self._title.display = True
        self._title.focus()

    def on_input_submitted(self) -> None:
        self._leave_title()
        self._set(replace(self._matrix, title=self._title.value.strip()))

    def _leave_title(self) -> None:
        self._title.display = False
        self._rows.focus()

    def on_back_wanted(self) -> None:
        if self._title.display:
            self._leave_title()
        elif self._asks_to_start:
            self._asks_to_start = False
            self._tell("")
        else:
            self.dismiss(None)

    def on_start_run_wanted(self) -> None:
        """Begin; where engines stop that somebody may be using, only when asked twice."""
        if self._models is None:
            return
        if lack := self._matrix.lack():
            self._tell(Content.styled(lack, "$warning"))
            return
        running = self.status.engines if self.status else ()
        if any(engine.leases for engine in running) and not self._asks_to_start:
            self._asks_to_start = True
            self._tell(
                Content.assemble(
                    ("Somebody is being answered now, and is waited for. ", "$warning"),
                    ("⏎", "bold $footer-key-foreground"),
                    " begins, ",
                    ("esc", "bold $footer-key-foreground"),
                    " does not.",
                )
            )
            return
        self.start()

    @work(group="start", exclusive=True)
    async def start(self) -> None:
        """Begin the run; the daemon has it from then on."""
        daemon = await self.footplate.daemon()
        matrix = self._matrix
        self._tell("It begins…")
        try:
            lines = await asyncio.to_thread(_lines, Path(matrix.file)) if "file" in matrix.workloads else ()
            run = await daemon.start_benchmark(wish_of(matrix, lines))
        except (errors.FootplateError, ValueError) as error:
            words = told(error) if isinstance(error, errors.FootplateError) else f"✗ {one_line(str(error))}"
            self._tell(Content.styled(words, "$error"))
            return
        self.dismiss(run)


def _is_same(item: Item, other: Item) -> bool:
    return (item.kind, item.value) == (other.kind, other.value)


def _lines(path: Path) -> tuple[str, ...]:
    """Read the lines of a workload's file (blocks); the one text of a ShareGPT file is one line."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise errors.NotFound(f"{path}: {error.strerror}.", hint="Choose another file.") from error
    if len(content) > LARGEST_FILE:
        raise errors.Invalid(f"{path.name} is larger than 100 MB.", hint="Take a part of it.")
    text = content.decode(errors="replace")
    if text.lstrip().startswith("["):
        return (text,)
    lines = tuple(line for line in text.splitlines() if line.strip())
    if not lines or len(lines) > MOST_LINES:
        raise errors.Invalid(
            f"{path.name} has {len(lines):,} lines.", hint=f"1 to {MOST_LINES:,} can be asked."
        )
    return lines
