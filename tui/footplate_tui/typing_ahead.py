"""Letters that come faster than the focus moves: over a slow line a word comes in one piece.

Where letters are commands until a line to type in has the focus, the focus must be set at once, and what was
on its way elsewhere by then is text, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textual import events
    from textual.widgets import Input


def take_late(line: Input, event: events.Key) -> None:
    """Type a letter that was on its way elsewhere when the line got the focus."""
    if event.is_printable and event.character:
        event.stop()
        line.insert_text_at_cursor(event.character)
