"""Choose a file, to attach it or for another purpose, by its path; what fits is listed while one types."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static

from footplate_tui.commands import BY_ID, Place, bindings
from footplate_tui.enclosing import completions, is_file, is_folder, typed_path
from footplate_tui.harmless import one_line
from footplate_tui.widgets.fields import LineField
from footplate_tui.widgets.status_line import KeyLine


class AttachScreen(ModalScreen[Path | None]):
    """A path and what it may become; gives the file."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings(Place.ATTACH),
        ("up", "move(-1)"),
        ("down", "move(1)"),
    ]

    def __init__(self, title: str = "Attach", placeholder: str = "path of an image or a text") -> None:
        super().__init__()
        self._box_title = title
        self._path = LineField(placeholder=placeholder)
        self._fitting = OptionList(markup=False, compact=True)
        self._fitting.can_focus = False
        self._paths: list[str] = []

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = self._box_title
            yield self._path
            yield self._fitting
            yield Static(markup=False, classes="news")
            yield KeyLine("attach.take", "attach.complete", "attach.leave")

    def on_mount(self) -> None:
        self._path.focus()
        self._show_fitting()

    def action_command(self, identity: str) -> None:
        self.post_message(BY_ID[identity].message())

    def action_move(self, step: int) -> None:
        """Highlight another path."""
        if self._paths:
            place = self._fitting.highlighted
            self._fitting.highlighted = ((place if place is not None else -1) + step) % len(self._paths)

    def on_input_changed(self) -> None:
        self._show_fitting()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self._fitting.highlighted = event.option_index
        self.on_attach_wanted()

    def on_attach_wanted(self) -> None:
        """Complete the path by what is highlighted, else by what all that fits has in common."""
        place = self._fitting.highlighted
        if place is not None:
            self._set(self._paths[place])
        elif self._paths:
            self._set(_common(self._paths))

    def on_input_submitted(self, event: LineField.Submitted) -> None:
        event.stop()
        place = self._fitting.highlighted
        path = typed_path(self._paths[place] if place is not None else event.value)
        if is_folder(path):
            self._set(f"{str(self._paths[place] if place is not None else event.value).rstrip('/')}/")
        elif is_file(path):
            self.dismiss(path)
        else:
            news = self.query_one(".news", Static)
            news.display = True
            news.update(Content.styled(f"There is no file {one_line(str(path))}.", "$error"))

    def on_back_wanted(self) -> None:
        self.dismiss(None)

    def _set(self, path: str) -> None:
        self._path.value = path
        self._path.cursor_position = len(path)

    def _show_fitting(self) -> None:
        self._paths = completions(self._path.value)
        self._fitting.clear_options()
        self._fitting.add_options([Content(one_line(path)) for path in self._paths])
        self._fitting.highlighted = None


def _common(paths: list[str]) -> str:
    """Give how all of them begin."""
    first, last = min(paths), max(paths)
    same = next(
        (place for place, letter in enumerate(first) if last[place : place + 1] != letter), len(first)
    )
    return first[:same]
