"""The turns of a session, newest at the bottom; follows the end until the user scrolls up."""

from __future__ import annotations

from textual import events
from textual.containers import VerticalScroll
from textual.geometry import Size
from textual.message import Message
from textual.reactive import var
from textual.widget import Widget
from textual.widgets import Static

from footplate_tui.commands import FollowWanted
from footplate_tui.format import count

ROWS_KEPT = 1500
"""Rows that stay mounted while following; what scrolls out above is loaded again when it is wanted."""

WIDEST_TEXT = 104
"""Longer lines are hard to read; what is wider stays empty."""
PADDING = 2


class Transcript(VerticalScroll, can_focus=False):
    """Shows the widgets of a session; it knows rows, not turns."""

    is_following: var[bool] = var(True, init=False)
    lines_below: var[int] = var(0, init=False)
    """Lines that came since the user scrolled away from the end."""

    class TopReached(Message):
        """The user scrolled to the first row that is mounted."""

    class Moved(Message):
        """The user left the end, came back to it, or more lines came below."""

    def __init__(self) -> None:
        super().__init__(classes="-following")
        self._height_when_left = 0

    def follow(self) -> None:
        """Go to the end and stay there."""
        self._hold_end()
        self._look()

    def _hold_end(self) -> None:
        """Hold the end of what is longer than the screen; held, a short text would hang at the bottom."""
        self.anchor(self.virtual_size.height > self.size.height)
        if not self.is_anchored:
            self._anchor_released = False
            self.scroll_to(y=0, animate=False, immediate=True)
            self._anchor_released = False

    def page(self, direction: int) -> None:
        """Scroll by almost a page: -1 up, 1 down."""
        rows = max(self.size.height - 2, 1) * direction
        self.scroll_relative(y=rows, animate=False)

    def rows_above(self, kept: int = ROWS_KEPT) -> list[Widget]:
        """Give the widgets at the top that are not needed to keep so many rows, if following."""
        above: list[Widget] = []
        height = self.virtual_size.height
        if not self.is_following:
            return above
        for child in self.children:
            height -= child.outer_size.height
            if height < kept:
                break
            above.append(child)
        return above

    async def prepend(self, widgets: list[Widget]) -> None:
        """Mount widgets at the top; what the user reads stays where it is."""
        distance_to_end = self.virtual_size.height - self.scroll_y
        await self.mount_all(widgets, before=0)

        def hold() -> None:
            if not self.is_following:
                self.scroll_to(
                    y=self.virtual_size.height - distance_to_end, animate=False, force=True, immediate=True
                )

        self.call_after_refresh(hold)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._look()
        if new_value <= 0 < old_value and not self.is_following:
            self.post_message(self.TopReached())

    def on_resize(self, event: events.Resize) -> None:
        self.styles.padding = (0, max(PADDING, event.size.width - WIDEST_TEXT - PADDING), 0, PADDING)

    def watch_virtual_size(self, size: Size) -> None:
        if self.is_following:
            if self.is_anchored != (size.height > self.size.height):
                self._hold_end()
        else:
            self.lines_below = max(size.height - self._height_when_left, 0)

    def _on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        super()._on_mouse_scroll_up(event)
        self._look()

    def _look(self) -> None:
        """See whether the end is still held: Textual lets go when the user scrolls, and says so nowhere."""
        is_following = not self._anchor_released
        if is_following != self.is_following:
            self._height_when_left = self.virtual_size.height
            self.lines_below = 0
            self.is_following = is_following

    def watch_is_following(self) -> None:
        self.set_class(self.is_following, "-following")
        self.post_message(self.Moved())

    def watch_lines_below(self) -> None:
        self.post_message(self.Moved())


class Pill(Static):
    """Says over the transcript's end that there is more below; End or a click goes there."""

    def show(self, *, is_following: bool, lines_below: int) -> None:
        """Appear while the user reads further up."""
        self.display = not is_following
        if not is_following:
            self.update(f"↓ {count(lines_below, 'new line')} · End" if lines_below else "↓ End follows again")

    def on_click(self) -> None:
        self.post_message(FollowWanted())
