"""Bodies, packed small while they pass: a long stream is never in memory whole.

A small window (8 KiB) is enough for what repeats in JSON and streams, and to set it up takes a tenth of the
time of zlib's usual one.
"""

import zlib
from collections.abc import Iterable

LIMIT = 4 * 1024 * 1024
"""Bytes of a body that are kept; of a longer one nothing is."""
PACKED_AT = 16 * 1024
"""Bytes that gather before they are packed: about 0.1 ms of work."""
NOT_PACKED = 1024
"""Bytes of a body up to which packing gains less than it costs."""
AS_IT_IS = b"\0"
"""What a body begins with that is not packed; zlib's first byte is another."""
LEVEL, WINDOW_BITS, MEMORY_LEVEL = 1, 13, 6


class Packing:
    """A body on its way into the database."""

    __slots__ = ("_loose", "_loose_bytes", "_packed", "_packer", "byte_count")

    def __init__(self, pieces: Iterable[bytes] = ()) -> None:
        self.byte_count = 0
        """As it was sent."""
        self._loose: list[bytes] = []
        self._loose_bytes = 0
        self._packer: zlib._Compress | None = None
        self._packed: list[bytes] = []
        for piece in pieces:
            self.add(piece)

    def add(self, piece: bytes) -> None:
        """Take the next piece."""
        size = len(piece)
        self.byte_count += size
        self._loose.append(piece)
        self._loose_bytes += size
        if self._loose_bytes >= PACKED_AT:
            self._pack()

    @property
    def memory_bytes(self) -> int:
        """What it takes now."""
        return self._loose_bytes + sum(map(len, self._packed))

    def packed(self) -> bytes | None:
        """Give what has come so far, packed; None if it is too long to be kept."""
        if self.byte_count > LIMIT:
            return None
        if self._packer is None:
            return packed(b"".join(self._loose))
        packer = self._packer.copy()
        return b"".join((*self._packed, packer.compress(b"".join(self._loose)), packer.flush()))

    def _pack(self) -> None:
        loose, self._loose, self._loose_bytes = self._loose, [], 0
        if self.byte_count > LIMIT:
            self._packer, self._packed = None, []
            return
        if self._packer is None:
            self._packer = _packer()
        self._packed.append(self._packer.compress(b"".join(loose)))


def packed(body: bytes) -> bytes | None:
    """Pack a body at once; None if it is too long to be kept."""
    if len(body) > LIMIT:
        return None
    if len(body) <= NOT_PACKED:
        return AS_IT_IS + body
    packer = _packer()
    return packer.compress(body) + packer.flush()


def unpacked(body: bytes | None) -> bytes | None:
    """Give a body as it was sent."""
    if body is None:
        return None
    return body[1:] if body.startswith(AS_IT_IS) else zlib.decompress(body)


def _packer() -> "zlib._Compress":
    return zlib.compressobj(LEVEL, zlib.DEFLATED, WINDOW_BITS, MEMORY_LEVEL)
