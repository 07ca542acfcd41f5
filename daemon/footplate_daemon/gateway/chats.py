"""Who waits for an answer now, by variant: all who ask but batches, which make way for them."""

from collections.abc import Callable


class Chats:
    """Counts requests that somebody waits for."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[str], None]] = []
        """Each is told the variant whenever a request for it comes or ends; must not block."""
        self._counts: dict[str, int] = {}

    def count(self, variant: str) -> int:
        """Give how many wait for this variant, or are being answered by it."""
        return self._counts.get(variant, 0)

    def began(self, variant: str) -> None:
        """Hear that one came."""
        self._change(variant, 1)

    def ended(self, variant: str) -> None:
        """Hear that one has its answer, or gave up."""
        self._change(variant, -1)

    def _change(self, variant: str, by: int) -> None:
        count = self._counts.get(variant, 0) + by
        if count:
            self._counts[variant] = count
        else:
            del self._counts[variant]
        for listener in self.listeners:
            listener(variant)
