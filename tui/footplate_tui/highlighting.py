"""Colours for code: which style each stretch of each line has.

While a code is still coming, what is finished of it is not looked at again: it is taken in chunks that
begin at a line that begins at the left edge after an empty one. When it is whole it is taken as a whole,
since a chunk may begin in the midst of a string.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from rich.style import Style

if TYPE_CHECKING:
    from pygments.lexer import Lexer  # type: ignore[import-untyped]  # it has no types

Line = list[tuple[str, Style]]
StyleOf = Callable[[str], Style]
"""Gives the style for a kind of token, by Pygments' name (`Token.Keyword`)."""

LONGEST_CHUNK_LINES = 40
LONGEST_LINE = 2000
"""Longer lines are no code that anybody reads: they stay plain."""


class Colouring:
    """Colours code by a theme's styles."""

    def __init__(self, plain: Style, styles: dict[str, Style]) -> None:
        """`styles` by Pygments' names of kinds of tokens; what is not there looks like its parent."""
        self._plain = plain
        self._styles = styles
        self._chunks: dict[tuple[str, str], list[Line]] = {}

    def whole(self, code: str, language: str) -> list[Line]:
        """Colour a code that is complete."""
        self._chunks.clear()
        return self._coloured(code, language)

    def growing(self, code: str, language: str) -> list[Line]:
        """Colour a code that goes on: its last line may not be whole yet."""
        *lines, last = code.split("\n")
        coloured: list[Line] = []
        for chunk in _chunks(lines):
            key = (language, chunk)
            if key not in self._chunks:
                self._chunks[key] = self._coloured(chunk, language)
            coloured += self._chunks[key]
        return [*coloured, *self._coloured(last, language)]

    def _coloured(self, code: str, language: str) -> list[Line]:
        lexer = _lexer(language)
        if lexer is None or any(len(line) > LONGEST_LINE for line in code.split("\n")):
            return [[(line, self._plain)] for line in code.split("\n")]
        lines: list[Line] = [[]]
        for kind, text in lexer.get_tokens(code):
            style = self._style(kind)
            first, *others = text.split("\n")
            lines[-1].append((first, style))
            lines += [[(other, style)] for other in others]
        # The lexer ends what it is given with a line end.
        return lines[: code.count("\n") + 1]

    def _style(self, kind: object) -> Style:
        name = str(kind)
        style = self._styles.get(name)
        if style is None:
            parent = name.rpartition(".")[0]
            style = self._style(parent) if parent else self._plain
            self._styles[name] = style
        return style


def _chunks(lines: list[str]) -> list[str]:
    chunks: list[str] = []
    begun = 0
    for place in range(1, len(lines)):
        begins = lines[place][:1].strip() and not lines[place - 1].strip()
        if begins or place - begun >= LONGEST_CHUNK_LINES:
            chunks.append("\n".join(lines[begun:place]))
            begun = place
    return [*chunks, "\n".join(lines[begun:])] if lines else []


@lru_cache(64)
def _lexer(language: str) -> Lexer | None:
    if not language:
        return None
    # Pygments is imported for the first code that is shown.
    from pygments.lexers import get_lexer_by_name  # type: ignore[import-untyped]  # noqa: PLC0415 -- no types
    from pygments.util import ClassNotFound  # type: ignore[import-untyped]  # noqa: PLC0415 -- no types

    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=True)
    except ClassNotFound:
        return None
