"""The turns of a session, newest at the bottom; follows the end until the user scrolls up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import events
from textual.containers import VerticalScroll
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import var
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Static

from footplate_tui.commands import FollowWanted
from footplate_tui.format import count
from footplate_tui.widgets.ground import empty_rows

if TYPE_CHECKING:
    from textual.layout import DockArrangeResult

ROWS_KEPT = 500
"""So many rows stay mounted on either side of what is seen; others are mounted again when they are wanted."""

WIDEST_TEXT = 104
"""Longer lines are hard to read; what is wider stays empty."""
PADDING = 2


class Transcript(VerticalScroll, can_focus=False):
    """Shows the widgets of a session; it knows rows, not turns."""

    is_following: var[bool] = var(True, init=False)
    lines_below: var[int] = var(0, init=False)
    """Lines that came since the user scrolled away from the end."""

    class TopNear(Message):
        """The user scrolled up until a screen before the first row that is mounted: more is wanted there."""

    class EndNear(Message):
        """The user scrolled down until a screen before the last row that is mounted."""

    class Moved(Message):
        """The user left the end, came back to it, or more lines came below."""

    def __init__(self) -> None:
        super().__init__(classes="-following")
        self._height_when_left = 0
        self._asked_for_more = False
        self._held: tuple[Widget, int] | None = None
        """What the user reads, and on which row it stood."""

    def render_lines(self, crop: Region) -> list[Strip]:
        """Give nothing but ground: the turns paint themselves."""
        return empty_rows(self, crop)

    def follow(self) -> None:
        """Go to the end and stay there."""
        self._hold_end()
        self._look()

    def show_from(self, widget: Widget) -> None:
        """Show a widget at the top, as soon as it is laid out; the end is not followed then."""
        self._asked_for_more = True
        self.release_anchor()
        self._look()

        def show() -> None:
            self.scroll_to_widget(widget, animate=False, top=True, force=True, immediate=True)
            self._asked_for_more = False

        self.call_after_refresh(show)

    def _hold_end(self) -> None:
        """Hold the end of what is longer than the screen; held, a short text would hang at the bottom."""
        self.anchor(self.virtual_size.height > self.size.height)
        if not self.is_anchored:
            self._anchor_released = False
            self.scroll_to(y=0, animate=False, immediate=True)
            self._anchor_released = False
            # To scroll lets go of the end, and says so before it is held again.
            self._look()

    def page(self, direction: int) -> None:
        """Scroll by almost a page: -1 up, 1 down."""
        rows = max(self.size.height - 2, 1) * direction
        self.scroll_relative(y=rows, animate=False)

    def rows_above(self, kept: int = ROWS_KEPT) -> list[Widget]:
        """Give the widgets at the top that are not needed to keep so many rows above the last one seen."""
        above: list[Widget] = []
        left = self.scroll_y + self.size.height
        for child in self.children:
            left -= child.outer_size.height
            if left < kept:
                break
            above.append(child)
        return above

    def rows_below(self, kept: int = ROWS_KEPT) -> list[Widget]:
        """Give the widgets at the bottom that are not needed to keep so many rows below the first seen."""
        below: list[Widget] = []
        left = self.virtual_size.height - self.scroll_y
        for child in reversed(self.children):
            left -= child.outer_size.height
            if left < kept:
                break
            below.append(child)
        return below[::-1]

    async def prepend(self, widgets: list[Widget]) -> None:
        """Mount widgets at the top; what the user reads stays where it is."""
        self._hold_reader()
        await self.mount_all(widgets, before=0 if self.children else None)
        self._asked_for_more = False

    async def append(self, widgets: list[Widget]) -> None:
        """Mount widgets at the bottom; what the user reads stays where it is."""
        self._hold_reader()
        await self.mount_all(widgets)
        self._asked_for_more = False

    async def drop(self, widgets: list[Widget]) -> None:
        """Take down widgets that are out of sight; what the user reads stays where it is."""
        self._hold_reader()
        await self.remove_children(widgets)

    def end_below(self, *, is_mounted: bool) -> None:
        """Say whether the last widget is the end; only the end can be followed."""
        self._anchored = is_mounted

    def _hold_reader(self) -> None:
        """Remember what the user reads: the first widget that is in sight."""
        self._held = None
        if not self.is_following:
            in_sight = (child for child in self.children if child.virtual_region.bottom > self.scroll_y)
            reader = next(in_sight, None)
            self._held = (reader, reader.virtual_region.y) if reader else None

    def arrange(self, size: Size, optimal: bool = False) -> DockArrangeResult:
        """Arrange the turns; where what the user reads moved, scroll along before anything is painted."""
        arrangement = super().arrange(size, optimal)
        if self._held and not self.is_following:
            reader, before = self._held
            now = next((each.region.y for each in arrangement.placements if each.widget is reader), before)
            if now != before:
                self._held = reader, now
                self.set_reactive(Widget.scroll_y, max(self.scroll_y + now - before, 0))
                self.set_reactive(Widget.scroll_target_y, self.scroll_y)
        return arrangement

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._look()
        if self.is_following or self._asked_for_more:
            return
        if new_value < old_value and new_value < self.size.height:
            self._asked_for_more = True
            self.post_message(self.TopNear())
        elif new_value > old_value and new_value > self.max_scroll_y - self.size.height:
            self._asked_for_more = True
            self.post_message(self.EndNear())

    def nothing_more(self) -> None:
        """Say that what was asked for is not there; it is asked for again with the next row scrolled."""
        self._asked_for_more = False

    def on_resize(self, event: events.Resize) -> None:
        self.styles.padding = (0, max(PADDING, event.size.width - WIDEST_TEXT - PADDING), 0, PADDING)

    def _size_updated(
        self, size: Size, virtual_size: Size, container_size: Size, layout: bool = True
    ) -> bool:
        """Take the sizes that were just laid out; Textual would lay out and paint all of it once more."""
        height = self.virtual_size.height
        has_width = size.width == self.size.width
        is_changed = super()._size_updated(size, virtual_size, container_size, layout and not has_width)
        if has_width and virtual_size.height != height:
            self.watch_virtual_size(virtual_size)
        return is_changed

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
