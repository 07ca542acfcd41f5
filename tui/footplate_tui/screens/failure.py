"""Why a model did not start, and the ways out, each one key away."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.reactive import var
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static

from footplate_daemon import errors
from footplate_daemon.wire import Diagnosis, Remedy, Status, Switch
from footplate_tui.cli.switch_text import what_is_active
from footplate_tui.commands import BY_ID, Place, bindings
from footplate_tui.harmless import one_line
from footplate_tui.switching import Endings
from footplate_tui.widgets.status_line import KeyLine

if TYPE_CHECKING:
    from footplate_tui.footplate_app import FootplateApp


class FailureScreen(ModalScreen[None]):
    """Shows the diagnosis of a failed switch; closes itself when a way out is being tried."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings(Place.FAILURE),
        *((str(number), f"take({number})") for number in range(1, 10)),
    ]

    status: var[Status | None] = var(None)

    def __init__(self, failed: Switch, diagnosis: Diagnosis, endings: Endings) -> None:
        super().__init__()
        self._failed = failed
        self._diagnosis = diagnosis
        self._endings = endings
        self._active = Static(markup=False, classes="active")
        self._news = Static(markup=False, classes="news")
        self._choices = OptionList(*map(_choice, diagnosis.remedies), markup=False, compact=True)

    @property
    def footplate(self) -> FootplateApp:
        """The app, by its own type."""
        return cast("FootplateApp", self.app)

    def compose(self) -> ComposeResult:
        preset = f" (preset {one_line(self._failed.preset)})" if self._failed.preset else ""
        box = VerticalScroll(can_focus=False)
        box.border_title = Content(f"{one_line(self._failed.variant)}{preset} did not start")
        with box:
            yield Static(
                Content.assemble(("✗ ", "$error"), (one_line(self._diagnosis.cause), "bold")), markup=False
            )
            evidence = Content("\n".join(map(one_line, self._diagnosis.evidence)))
            yield Static(evidence, markup=False, classes="evidence")
            if self._diagnosis.remedies:
                yield Static("What helps", classes="head")
            yield self._choices
            yield self._active
            yield self._news
            yield KeyLine("failure.take", "failure.copy", "failure.close")

    def on_mount(self) -> None:
        self._choices.focus()

    def watch_status(self) -> None:
        self._active.update(one_line(what_is_active(self.status)) if self.status else "")

    def action_command(self, identity: str) -> None:
        self.post_message(BY_ID[identity].message())

    def action_take(self, number: int) -> None:
        """Take the way out with this number."""
        for place, remedy in enumerate(self._diagnosis.remedies):
            if remedy.id == number:
                self._choices.highlighted = place
                self._take(remedy)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self._take(self._diagnosis.remedies[event.option_index])

    def on_remedy_wanted(self) -> None:
        if remedy := self._highlighted():
            self._take(remedy)

    def on_copy_command_wanted(self) -> None:
        remedy = self._highlighted()
        if remedy and remedy.command:
            self.footplate.copy(remedy.command)
        else:
            self._say("It has no command: the daemon does it. Press its number.")

    def on_back_wanted(self) -> None:
        self.dismiss()

    def _say(self, words: Content | str) -> None:
        self._news.display = True
        self._news.update(words)

    def _highlighted(self) -> Remedy | None:
        place = self._choices.highlighted
        return self._diagnosis.remedies[place] if place is not None else None

    def _take(self, remedy: Remedy) -> None:
        if remedy.applies:
            self.apply(remedy)
        else:
            self._say("This one is for you to do.")
            self.on_copy_command_wanted()

    @work(group="remedy", exclusive=True)
    async def apply(self, remedy: Remedy) -> None:
        """Let the daemon try it."""
        daemon = await self.footplate.daemon()
        self._endings.wished.add(remedy.variant or self._failed.variant)
        try:
            await daemon.apply_remedy(self._failed.id, remedy.id)
        except errors.FootplateError as error:
            self._say(Content.assemble(("✗ ", "$error"), one_line(error.message)))
        else:
            self.dismiss()


def _choice(remedy: Remedy) -> Content:
    number = (f" {remedy.id} ", "bold $footer-key-foreground")
    if remedy.applies or not remedy.command:
        return Content.assemble(number, " ", one_line(remedy.title))
    return Content.assemble(
        number, " ", one_line(remedy.title), "\n", (f"    $ {one_line(remedy.command)}", "$muted")
    )
