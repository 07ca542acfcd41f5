"""Text of others made harmless: what a model, an engine or a title says never commands the terminal.

Pure, and blind to where a chunk was cut: each character is judged alone, so an escape sequence that comes
in two pieces is as harmless as one that comes whole.
"""

import re

_HOSTILE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, but for tab and newline
    "\u2028\u2029"  # line ends that only some programs know
    "\u202a-\u202e\u2066-\u2069"  # bidirectional embeddings, overrides and isolates
    "\ud800-\udfff"  # half a character: it cannot be written at all
    "\ufff9-\ufffb"  # interlinear annotations
    "]"
)
_CONTROL_PICTURES = 0x2400


def harmless(text: str) -> str:
    """Give the text with every control shown as a picture (`␛`, `<U+202E>`) instead of obeyed."""
    return _HOSTILE.sub(_picture, text)


def one_line(text: str) -> str:
    """Give the text harmless and on one line, for titles and labels."""
    return " ".join(harmless(text).split())


def _picture(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    if character == "\r":
        return ""
    if character in "\u2028\u2029":
        return "\n"
    if code < 0x20:
        return chr(_CONTROL_PICTURES + code)
    if code == 0x7F:
        return "␡"
    if 0xD800 <= code <= 0xDFFF:
        return "\ufffd"
    return f"<U+{code:04X}>"
