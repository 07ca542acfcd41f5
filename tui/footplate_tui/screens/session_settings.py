"""What holds for the whole session: its instructions and parameters, over the profile's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Label, Static

from footplate_tui.commands import BY_ID, Place, bindings
from footplate_tui.widgets.fields import LineField, TextField
from footplate_tui.widgets.status_line import KeyLine


@dataclass(frozen=True)
class Settings:
    """What is set; what is not set is as the profile has it."""

    system: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Parameter:
    """A parameter with a field of its own; others are kept as they are."""

    name: str
    kind: type[int | float | str]
    words: str


PARAMETERS = (
    Parameter("temperature", float, "0 to 2; higher is wilder"),
    Parameter("top_p", float, "0 to 1"),
    Parameter("max_tokens", int, "longest answer"),
    Parameter("seed", int, "the same seed, the same answer"),
    Parameter("reasoning_effort", str, "none, low, medium, high"),
)


class SessionScreen(ModalScreen[Settings | None]):
    """Fields for what can be set; gives what is to be kept."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.SESSION)

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    def compose(self) -> ComposeResult:
        box = VerticalScroll(can_focus=False)
        box.border_title = "Session"
        with box:
            yield Label("Instructions: what the model is told first, instead of the profile's.")
            yield TextField(self._settings.system or "")
            for parameter in PARAMETERS:
                with Horizontal():
                    yield Label(parameter.name)
                    value = self._settings.parameters.get(parameter.name)
                    field = LineField(
                        "" if value is None else str(value), placeholder=parameter.words, selects=True
                    )
                    field.id = parameter.name
                    yield field
            yield Static("What is left empty is as the profile has it.", classes="how")
            yield Static(markup=False, classes="news")
            yield KeyLine("session.keep", "session.leave")

    def on_mount(self) -> None:
        self.query_one(TextField).focus()

    def action_command(self, identity: str) -> None:
        self.post_message(BY_ID[identity].message())

    def on_back_wanted(self) -> None:
        self.dismiss(None)

    def on_input_submitted(self, event: LineField.Submitted) -> None:
        event.stop()
        self.on_session_settings_wanted()

    def on_session_settings_wanted(self) -> None:
        """Keep what is set, or say which field cannot be read."""
        known = {parameter.name for parameter in PARAMETERS}
        kept = {name: value for name, value in self._settings.parameters.items() if name not in known}
        for parameter in PARAMETERS:
            text = self.query_one(f"#{parameter.name}", LineField).value.strip()
            try:
                kept |= {parameter.name: _finite(parameter.kind(text))} if text else {}
            except ValueError:
                self._say(f"{parameter.name}: this is no number.")
                self.query_one(f"#{parameter.name}", LineField).focus()
                return
        self.dismiss(Settings(self.query_one(TextField).text.strip() or None, kept))

    def _say(self, words: str) -> None:
        news = self.query_one(".news", Static)
        news.display = True
        news.update(Content.styled(words, "$error"))


def _finite(value: object) -> object:
    """Give a value that JSON can say; raise `ValueError` for NaN and infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(value)
    return value
