"""A question before the daemon has it."""

from __future__ import annotations

from dataclasses import dataclass

from footplate_tui.enclosing import Enclosed

GO_ON = "Continue exactly where you stopped."
"""What a model is asked that cannot be given half an answer to go on with."""


@dataclass(frozen=True)
class Asking:
    """What is asked, of whom, and where in the session it stands."""

    text: str
    model: str | None = None
    """A model or variant; None asks whatever is active."""
    instead_of: int | None = None
    continue_of: int | None = None
    after: int | None = None
    enclosed: tuple[Enclosed, ...] = ()
    """In the place of another turn: none means that turn's files."""
