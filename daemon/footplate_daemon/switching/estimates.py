"""How much memory a variant needs: what was measured here, else a guess from the size of its weights.

Pure. A guess decides only the first time a variant is loaded; from then on the recorded peak does.
"""

from collections.abc import Mapping

WEIGHTS_FACTOR = 1.15
"""Loaded weights against their files: buffers and padding; a margin from our own starts, not a formula."""
OVERHEAD_BYTES = 768 * 1024 * 1024
"""CUDA context, graph buffers and a small KV cache."""


def footprint(
    variant: str, peaks: Mapping[tuple[str, str | None], int], size_bytes: int | None
) -> int | None:
    """Give the bytes that a variant needs; None when there is nothing to go by."""
    measured = [size for (name, _), size in peaks.items() if name == variant]
    if measured:
        return max(measured)
    if size_bytes is None:
        return None
    return round(size_bytes * WEIGHTS_FACTOR) + OVERHEAD_BYTES
