"""What holds for a session: its system message and parameters, before it begins and after."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from textual import work

from footplate_daemon import errors
from footplate_tui.harmless import one_line
from footplate_tui.screens.chat_parts import ChatParts

if TYPE_CHECKING:
    from footplate_daemon.wire import Session
    from footplate_tui.commands import SessionSettingsWanted
    from footplate_tui.conversation import Daemon
    from footplate_tui.screens.session_settings import Settings


class ChatSettings(ChatParts):
    """Changes what holds for the session, and begins one with it."""

    def __init__(self) -> None:
        super().__init__()
        self._settings: Settings | None = None
        """What was set before the session began."""

    def on_session_settings_wanted(self, message: SessionSettingsWanted) -> None:
        message.stop()
        from footplate_tui.screens.session_settings import (  # noqa: PLC0415 -- not before the first picture
            SessionScreen,
            Settings,
        )

        known = self._session or self._settings or Settings()
        self.app.push_screen(SessionScreen(Settings(known.system, known.parameters)), self._keep_settings)

    def _keep_settings(self, settings: Settings | None) -> None:
        if settings:
            self.change_settings(system=settings.system, parameters=settings.parameters)

    @work(group="settings")
    async def change_settings(self, **given: object) -> None:
        """Change what holds for the session; before there is one, keep it for that."""
        from footplate_daemon import wire  # noqa: PLC0415 -- pydantic: not before the first picture
        from footplate_tui.screens.session_settings import Settings  # noqa: PLC0415 -- the same

        if self._session is None:
            self._settings = replace(self._settings or Settings(), **given)  # type: ignore[arg-type]  # our own
        else:
            daemon = await self.footplate.daemon()
            try:
                change = wire.SessionChange.model_validate(given)
                changed = await daemon.change_session(self._session.id, change)
            except errors.FootplateError as error:
                self._say(one_line(error.message))
                return
            self._session = self._session.model_copy(
                update={"system": changed.system, "parameters": changed.parameters}
            )
        self._say("It holds for what is asked next in this session.")

    async def _begin_session(self, daemon: Daemon) -> Session:
        from footplate_daemon import wire  # noqa: PLC0415 -- pydantic: not before the first picture

        wish = None
        if self._settings:
            wish = wire.SessionWish(system=self._settings.system, parameters=self._settings.parameters)
        self._session = await daemon.create_session(wish)
        return self._session
