"""Bring weights into the page cache while the old engine still drains and stops."""

import os
from pathlib import Path

import psutil

SUFFIXES = {".gguf", ".safetensors", ".bin"}
SHARE_OF_FREE = 0.5
"""Of the memory that is available; more would push out what others use."""


def read_ahead(weights: Path) -> int:
    """Ask the kernel to read a GGUF file or the weight files of a folder; give the bytes asked for.

    Returns at once; the kernel reads in the background. A file that cannot be opened is left out: the
    engine will say what is wrong with it.
    """
    budget = int(psutil.virtual_memory().available * SHARE_OF_FREE)
    files = sorted(f for f in weights.iterdir() if f.suffix in SUFFIXES) if weights.is_dir() else [weights]
    asked = 0
    for file in files:
        try:
            size = file.stat().st_size
            if asked + size > budget:
                break
            with file.open("rb") as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
        except OSError:
            continue
        asked += size
    return asked
