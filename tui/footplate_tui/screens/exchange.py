"""One exchange, whole; and the same request asked again, with both answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from footplate_daemon import errors
from footplate_daemon.wire import Exchange, ExchangeText, ExchangeWhole, ModelInfo
from footplate_tui.commands import Place, bindings
from footplate_tui.exchange_lines import UNDER_WAY, answer_lines, whole_lines
from footplate_tui.format import duration
from footplate_tui.harmless import harmless, one_line
from footplate_tui.screens.page import Page, told
from footplate_tui.theme import runtime_colour
from footplate_tui.widgets.lines import Line, Lines
from footplate_tui.widgets.status_line import KeyLine

if TYPE_CHECKING:
    from footplate_tui.footplate_app import FootplateApp

CLOCK_SECONDS = 0.5
KEYS = ("exchange.replay", "exchange.copy", "exchange.back")
SIDE_BY_SIDE_FROM = 120


class ExchangeScreen(Page):
    """Shows where the time of one exchange went, what was asked and what was answered."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.EXCHANGE)

    def __init__(self, exchange_id: int) -> None:
        super().__init__()
        self._number = exchange_id
        self._exchange: ExchangeWhole | None = None
        self._lines = Lines(is_text=True)
        self._said = Static(markup=False, classes="said")

    def compose_body(self) -> ComposeResult:
        yield self._lines
        yield self._said
        yield KeyLine(*KEYS)

    def on_mount(self) -> None:
        self.session_title = f"Exchange {self._number}"
        self._lines.wraps = True
        self._lines.focus()
        self._said.display = False
        self.look()

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    @work(group="look", exclusive=True)
    async def look(self) -> None:
        """Get all that is kept of it."""
        daemon = await self.footplate.daemon()
        try:
            self._exchange = await daemon.exchange(self._number)
        except errors.FootplateError as error:
            self._tell(told(error))
        self._draw()

    def _draw(self) -> None:
        if self._exchange:
            width = self._lines.scrollable_content_region.width
            top = self._lines.scroll_offset.y
            self._lines.show(whole_lines(self._exchange, width))
            self._lines.scroll_to(y=top, animate=False)

    def _tell(self, words: str) -> None:
        self._said.display = True
        self._said.update(words)

    def on_back_wanted(self) -> None:
        self.dismiss()

    def on_copy_wanted(self) -> None:
        if self._exchange and self._exchange.text:
            self.footplate.copy(harmless(self._exchange.text))
        else:
            self._tell("There is no answer to copy.")

    def on_replay_wanted(self) -> None:
        if self._exchange:
            replay(self.footplate, self._exchange)


def replay(app: FootplateApp, exchange: Exchange) -> None:
    """Let the user choose a variant, and ask it what was asked in an exchange."""
    if exchange.outcome in UNDER_WAY:
        app.notify("It is still under way; ask again when it has ended.", markup=False)
        return

    def ask(variant: str | None) -> None:
        if variant:
            app.push_screen(ReplayScreen(exchange, variant))

    app.push_screen(VariantScreen(exchange), ask)


class VariantScreen(ModalScreen[str | None]):
    """Asks which variant a request goes to again: those of the same model first."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,q", "dismiss(None)", "Back")]

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self._exchange = exchange
        self._choices = OptionList(markup=False, compact=True)
        self._said = Static("Asking the daemon what there is…", markup=False, classes="said")

    @property
    def footplate(self) -> FootplateApp:
        """The app, by its own type."""
        from footplate_tui.footplate_app import FootplateApp  # noqa: PLC0415 -- it knows this module

        assert isinstance(self.app, FootplateApp)  # noqa: S101 -- there is no other app
        return self.app

    def compose(self) -> ComposeResult:
        box = Vertical()
        box.border_title = f"Ask exchange {self._exchange.id} again"
        box.border_subtitle = "⏎ asks   esc leaves it"
        with box:
            yield self._choices
            yield self._said

    def on_mount(self) -> None:
        self._choices.focus()
        self.look()

    @work(exclusive=True)
    async def look(self) -> None:
        """List the variants."""
        daemon = await self.footplate.daemon()
        try:
            models = await daemon.models()
        except errors.FootplateError as error:
            self._said.update(told(error))
            return
        variants = _variants(models, self._exchange.variant)
        self._choices.set_options([Option(_choice(name, self._exchange), id=name) for name in variants])
        self._choices.highlighted = 0 if variants else None
        self._said.update("A variant that is not active is switched to first.")

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option_id)


def _variants(models: Iterable[ModelInfo], asked: str | None) -> list[str]:
    """Give what can be asked: the same model on other runtimes, the same variant, then other models."""
    model = next((m.name for m in models if any(v.name == asked for v in m.variants)), None)
    found = [
        (each.name != model, variant.name == asked, variant.name)
        for each in models
        for variant in each.variants
        if "chat" in variant.capabilities
    ]
    return [name for _, _, name in sorted(found)]


def _choice(name: str, exchange: Exchange) -> Content:
    runtime, _, model = one_line(name).partition("/")
    again = ("  the same once more", "$muted") if name == exchange.variant else ""
    return Content.assemble((f"{runtime}/", runtime_colour(runtime)), model, again)


class ReplayScreen(Page):
    """Shows the answer there was and the one that comes: side by side where there is room."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.EXCHANGE)
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (SIDE_BY_SIDE_FROM, "-wide")]  # noqa: RUF012 -- the base class's type

    def __init__(self, exchange: Exchange, variant: str, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._exchange = exchange
        self._variant = variant
        self._clock = clock
        self._began = clock()
        self._answers: list[ExchangeText] = []
        self._is_over = False
        self._panels = (Lines(is_text=True), Lines(is_text=True))
        self._waits = Line("", "$muted")

    def compose_body(self) -> ComposeResult:
        with Container(classes="panels"):
            yield from self._panels
        yield KeyLine("exchange.copy", "exchange.back")

    def on_mount(self) -> None:
        self.session_title = f"Exchange {self._exchange.id}, asked again"
        names = (self._exchange.variant or "-", self._variant)
        for panel, name in zip(self._panels, names, strict=True):
            panel.wraps = True
            panel.border_title = Content(one_line(name))
        self._panels[1].focus()
        self.set_interval(CLOCK_SECONDS, self._go_on)
        self.ask()
        self.look()

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    def _go_on(self) -> None:
        if not self._is_over:
            switch = self.status.switch if self.status else None
            loads = (
                f", which loads {one_line(switch.variant)}" if switch and switch.outcome == "running" else ""
            )
            took = duration(self._clock() - self._began)
            self._panels[1].show([Line(f"Asking{loads}… {took}   esc cancels", "$muted")])

    @work(group="look", exclusive=True)
    async def look(self) -> None:
        """Show the answer there was while the other one comes."""
        daemon = await self.footplate.daemon()
        try:
            original = await daemon.exchange(self._exchange.id)
        except errors.FootplateError:
            return  # The replay says what is wrong.
        if not self._answers:
            self._answers = [original]
            self._draw()

    @work(group="ask", exclusive=True)
    async def ask(self) -> None:
        """Ask; whoever leaves this screen ends it."""
        daemon = await self.footplate.daemon()
        try:
            both = await daemon.replay_exchange(self._exchange.id, variant=self._variant)
        except errors.FootplateError as error:
            self._is_over = True
            self._panels[1].show([Line(told(error), "$error")])
            return
        self._is_over = True
        self._answers = [both.original, both.replay]
        self._draw()

    def _draw(self) -> None:
        for panel, answer in zip(self._panels, self._answers, strict=False):
            panel.show(answer_lines(answer, panel.scrollable_content_region.width))
            panel.scroll_to(y=0, animate=False)

    def on_back_wanted(self) -> None:
        self.dismiss()

    def on_copy_wanted(self) -> None:
        if self._is_over and self._answers:
            self.footplate.copy(harmless(self._answers[-1].text))
