"""What the palette finds: every command that can be given on the screen under it, each with its key.

Where one can go comes first: an Enter too many changes nothing. Then come the screen's own commands.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from textual.binding import Binding
from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content

from footplate_tui.commands import BY_ID, COMMANDS, Command, Place

if TYPE_CHECKING:
    from textual.dom import DOMNode
    from textual.screen import Screen

    from footplate_tui.footplate_app import FootplateApp

KEY_CELLS = 6
TITLE_CELLS = 31
THEMES = "Theme…"
IN_WORDS = 0.5
"""What is found in an explanation counts so much of what is found in a title."""


def offered(screen: Screen[Any]) -> list[Command]:
    """Give what can be done on a screen: where one can go, then its own commands, then the program's."""
    own = _heard_by(screen) | (_heard_by(screen.focused) if screen.focused else set())
    here = [command for command in COMMANDS if command.id in own and not command.leads_elsewhere]
    elsewhere = [command for command in COMMANDS if command.leads_elsewhere]
    program = [command for command in COMMANDS if command.place is Place.PROGRAM and command not in elsewhere]
    return [command for command in (*elsewhere, *here, *program) if command.id != "program.palette"]


class CommandSearch(Provider):
    """Finds commands by what they are called and by what they do."""

    async def discover(self) -> Hits:
        """List all of them."""
        for command in self._commands():
            yield DiscoveryHit(
                _line(command, Content(command.title)), partial(self._carry_out, command), command.title
            )
        yield DiscoveryHit(_themes(Content(THEMES)), self.app.action_change_theme, THEMES)

    async def search(self, query: str) -> Hits:
        """List those that fit, the best first."""
        matcher = self.matcher(query)
        for command in self._commands():
            in_title = matcher.match(command.title)
            score = max(in_title, IN_WORDS * matcher.match(command.explanation))
            if score > 0:
                title = matcher.highlight(command.title) if in_title > 0 else Content(command.title)
                yield Hit(score, _line(command, title), partial(self._carry_out, command), command.title)
        if (score := matcher.match(THEMES)) > 0:
            yield Hit(score, _themes(matcher.highlight(THEMES)), self.app.action_change_theme, THEMES)

    def _commands(self) -> Iterator[Command]:
        keymap = cast("FootplateApp", self.app).keymap
        return (keymap.command(command.id) for command in offered(self.screen))

    def _carry_out(self, command: Command) -> None:
        hearers = [node for node in (self.focused, self.screen) if node and command.id in _heard_by(node)]
        hearer: DOMNode = hearers[0] if hearers else self.app
        hearer.post_message(BY_ID[command.id].message())


def _heard_by(node: DOMNode) -> set[str]:
    return {binding.id for binding in type(node).BINDINGS if isinstance(binding, Binding) and binding.id}


def _line(command: Command, title: Content) -> Content:
    """Lay a command out on one line: its key, what it is called, what it does."""
    return _laid_out(command.shown, title, command.explanation)


def _themes(title: Content) -> Content:
    return _laid_out("", title, "Choose among all themes; what is chosen is remembered.")


def _laid_out(key: str, title: Content, words: str) -> Content:
    gap = " " * max(TITLE_CELLS - title.cell_length, 2)
    shown_key = (f"{key:<{KEY_CELLS}}", "bold $footer-key-foreground")
    return Content.assemble(shown_key, title, gap, (words, "$muted"))
