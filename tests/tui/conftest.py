"""What the terminal's tests share: an app on a fake daemon, and waiting for what should come."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.fakes.daemon import FakeDaemon
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import OptionList, Static

from footplate_tui.footplate_app import FootplateApp
from footplate_tui.remembered import Remembered
from footplate_tui.screens.chat import ChatScreen
from footplate_tui.widgets.gauge_lines import GaugeLines
from footplate_tui.widgets.lines import Lines
from footplate_tui.widgets.prompt import Prompt
from footplate_tui.widgets.prose import Prose
from footplate_tui.widgets.rows import Rows
from footplate_tui.widgets.transcript import Transcript

DEADLINE_SECONDS = 60
Page = TypeVar("Page", bound=Screen[Any])


@dataclass
class Terminal:
    """A running app, its keys and its screen."""

    app: FootplateApp
    pilot: Pilot[None]

    @property
    def screen(self) -> ChatScreen:
        screen = self.app.screen_stack[1]
        assert isinstance(screen, ChatScreen)
        return screen

    @property
    def prompt(self) -> Prompt:
        return self.screen.query_one(Prompt)

    @property
    def transcript(self) -> Transcript:
        return self.screen.query_one(Transcript)

    @property
    def text(self) -> str:
        """All that the transcript shows, top to bottom."""
        return "\n".join(
            text_of(widget) for widget in self.transcript.walk_children(Widget) if widget.display
        )

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not is_so():
                await self.pilot.pause()

    async def until_on(self, page: type[Page]) -> Page:
        """Give the screen on top when it is the one meant, and has what keys go to."""
        await self.until(lambda: isinstance(self.app.screen, page) and self.app.screen.is_mounted)
        assert isinstance(self.app.screen, page)
        return self.app.screen

    async def until_shown(self, text: str) -> None:
        await self.until(lambda: text in self.text)

    async def send(self, text: str) -> None:
        self.prompt.focus()
        self.prompt.replace_text(text)
        await self.pilot.press("enter")


@dataclass
class Open:
    """Opens a terminal on a daemon."""

    folder: Path

    @asynccontextmanager
    async def __call__(
        self,
        daemon: FakeDaemon,
        *,
        size: tuple[int, int] = (80, 24),
        environment: Mapping[str, str] | None = None,
        session_id: str | None = None,
    ) -> AsyncIterator[Terminal]:
        app = FootplateApp(
            lambda: daemon,
            Remembered(self.folder),
            place="driver@gpu1",
            session_id=session_id,
            environment=environment,
        )
        async with app.run_test(size=size) as pilot:
            yield Terminal(app, pilot)


@pytest.fixture
def open_terminal(tmp_path: Path) -> Open:
    return Open(tmp_path)


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon()


def text_of(widget: Widget) -> str:
    """What a widget shows by itself, without its children."""
    if isinstance(widget, Static):
        return str(widget.visual)
    if isinstance(widget, OptionList):
        return "\n".join(str(option.prompt) for option in widget.options)
    return widget.plain if isinstance(widget, Prose) else ""


def rows_of(terminal: Terminal) -> list[str]:
    """The rows of the list on the screen on top, as they are seen; an empty one where there is no list."""
    lists = [each for each in terminal.app.screen.query(Rows) if each.display]
    return [each.render_line(y).text.rstrip() for each in lists for y in range(each.size.height)] or [""]


def seen(terminal: Terminal) -> str:
    """All that the screen on top shows: rows, texts from beginning to end, charts, words."""
    parts = rows_of(terminal)
    for widget in terminal.app.screen.query("*"):
        if not widget.display:
            continue
        if isinstance(widget, Lines):
            parts += [str(widget.border_title or ""), *(line.text for line in widget.lines)]
        elif isinstance(widget, GaugeLines):
            parts.append(widget.plain)
        else:
            parts.append(text_of(widget))
    return "\n".join(parts)
