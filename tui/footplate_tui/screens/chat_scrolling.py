"""Reading further up and down: older turns are read and mounted as the user comes near to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from footplate_daemon import errors
from footplate_tui.screens.chat_parts import ChatParts
from footplate_tui.widgets.transcript import Pill

if TYPE_CHECKING:
    from footplate_tui.commands import FollowWanted, PageDownWanted, PageUpWanted


class ChatScrolling(ChatParts):
    """Keeps turns mounted near to what the user reads, and says when there is more below."""

    def __init__(self) -> None:
        super().__init__()
        self._pill = Pill(markup=False)

    async def on_transcript_top_near(self) -> None:
        """Mount older turns; newer ones far below the screen are taken down."""
        if not self._window.has_earlier:
            await self._read_earlier()
        if not self._window.has_earlier:
            self._transcript.nothing_more()
            return
        await self._window.mount_earlier()
        if not self.is_busy:
            await self._window.drop_later()

    async def _read_earlier(self) -> None:
        """Read turns before the first one that is known."""
        window = self._window
        if self._session is None or not window.turns or window.turns[0].number == 1:
            return
        daemon = await self.footplate.daemon()
        from footplate_tui import conversation  # noqa: PLC0415 -- pydantic: not before the first picture

        try:
            earlier = await conversation.earlier_turns(daemon, self._session.id, window.turns[0].number)
        except errors.FootplateError:
            # It is asked for again with the next row scrolled.
            return
        window.know_earlier(earlier)

    async def on_transcript_end_near(self) -> None:
        """Mount newer turns that had been taken down; older ones far above the screen are taken down."""
        if not self._window.has_later:
            self._transcript.nothing_more()
            return
        await self._window.mount_later()
        await self._window.drop_earlier()

    def on_page_up_wanted(self, message: PageUpWanted) -> None:
        message.stop()
        self._transcript.page(-1)

    def on_page_down_wanted(self, message: PageDownWanted) -> None:
        message.stop()
        self._transcript.page(1)

    async def on_follow_wanted(self, message: FollowWanted) -> None:
        message.stop()
        await self._window.go_to_end()

    def on_transcript_moved(self) -> None:
        self._pill.show(is_following=self._transcript.is_following, lines_below=self._transcript.lines_below)
