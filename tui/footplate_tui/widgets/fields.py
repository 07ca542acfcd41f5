"""Where something is typed: one line or several, their keys carried out in the order they were pressed.

Textual asks for a binding only when a key has climbed through every widget up to the app, and each of them
may be busy: letters typed after a ⌫ are then there before it, and it takes away the wrong one. That is so
over a slow line, where a word comes in one piece, and beside an answer that streams.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import events
from textual.widgets import Input, TextArea

if TYPE_CHECKING:
    from textual.widget import Widget


class LineField(Input):
    """One line to type in."""

    def __init__(
        self,
        value: str = "",
        *,
        placeholder: str = "",
        max_length: int = 0,
        selects: bool = False,
        beside: Widget | None = None,
    ) -> None:
        """Begin with a value.

        `selects`: with the focus, what stands there is selected, and typing takes its place.
        `beside`: what ↑ and ↓ lead to.
        """
        super().__init__(
            value, placeholder=placeholder, max_length=max_length, compact=True, select_on_focus=selects
        )
        # A blinking cursor alone writes 520 bytes a second for ever.
        self.cursor_blink = False
        self._beside = beside

    async def on_key(self, event: events.Key) -> None:
        if self._beside and event.key in {"up", "down"} and self.screen.focused is self:
            event.stop()
            self.screen.set_focus(self._beside)
        else:
            await _carry_out(self, event)

    def take_late(self, event: events.Key) -> None:
        """Type a letter that was on its way elsewhere when the line got the focus.

        Where letters are commands until then, the focus must be set at once, with `Screen.set_focus`.
        """
        if event.is_printable and event.character:
            event.stop()
            self.insert_text_at_cursor(event.character)


class TextField(TextArea):
    """Several lines to type in."""

    def __init__(self, text: str = "", *, placeholder: str = "") -> None:
        super().__init__(
            text,
            soft_wrap=True,
            tab_behavior="focus",
            show_line_numbers=False,
            highlight_cursor_line=False,
            placeholder=placeholder,
        )
        # See above.
        self.cursor_blink = False

    async def on_key(self, event: events.Key) -> None:
        await _carry_out(self, event)


async def _carry_out(field: Widget, event: events.Key) -> None:
    """Do at once what the key is bound to in this field itself; every other key goes its way."""
    if field.screen.focused is not field:  # it was on its way here when the focus left
        event.stop()
        event.prevent_default()
        field.app.post_message(events.Key(event.key, event.character))
        return
    bound = None if event.is_printable else field.screen.active_bindings.get(event.key)
    if bound and bound.node is field and bound.enabled and not bound.binding.priority:
        event.stop()
        event.prevent_default()
        await field.app.run_action(bound.binding.action, field)
