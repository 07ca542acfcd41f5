"""What the full screens beside the chat share: the header over them, and the daemon's status in it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from textual import work
from textual.app import ComposeResult
from textual.reactive import var
from textual.screen import Screen

from footplate_tui import conversation
from footplate_tui.commands import BY_ID
from footplate_tui.harmless import one_line
from footplate_tui.widgets.header import Header

if TYPE_CHECKING:
    from footplate_daemon.errors import FootplateError
    from footplate_daemon.wire import Status
    from footplate_tui.footplate_app import FootplateApp


class Page(Screen[None]):
    """Follows the status as long as it is open."""

    session_title: var[str] = var("")
    status: var[Status | None] = var(None)
    is_connected: var[bool] = var(True)

    def __init__(self) -> None:
        super().__init__()
        self.has_news = asyncio.Event()
        """Set when the status is known, or that it cannot be."""

    @property
    def footplate(self) -> FootplateApp:
        """The app, by its own type."""
        return cast("FootplateApp", self.app)

    def compose(self) -> ComposeResult:
        yield Header(self.footplate.place).data_bind(Page.session_title, Page.status, Page.is_connected)
        yield from self.compose_body()

    def compose_body(self) -> ComposeResult:
        """Give what is under the header."""
        yield from ()

    def on_mount(self) -> None:
        self.follow_status()

    def action_command(self, identity: str) -> None:
        """Carry a command out before the next key is heard: keys that come in one go keep their order."""
        carry_out(self, identity)

    @work(group="status")
    async def follow_status(self) -> None:
        """Show who answers, and whether the daemon can be reached."""
        daemon = await self.footplate.daemon()
        async for news in conversation.follow_status(daemon):
            if isinstance(news, conversation.Cut):
                self.is_connected = False
            else:
                self.is_connected = True
                self.status = news
            self.has_news.set()


def carry_out(screen: Screen[Any], identity: str) -> None:
    """Call a screen's own handler of a command; a message would be heard after keys that came with it."""
    message = BY_ID[identity].message()
    handler = getattr(screen, message.handler_name, None)
    if handler is None:
        screen.post_message(message)
    else:
        handler()


def told(error: FootplateError) -> str:
    """Give an error as a line that says what to do."""
    hint = f" {one_line(error.hint)}" if error.hint else ""
    return f"✗ {one_line(error.message)}{hint}"
