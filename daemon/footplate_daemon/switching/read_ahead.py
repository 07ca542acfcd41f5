"""Bring weights into the page cache while the old engine still drains and stops."""

import threading
from pathlib import Path

import psutil

SUFFIXES = {".gguf", ".safetensors", ".bin"}
SHARE_OF_FREE = 0.5
"""Of the memory that is available; more would push out what others use."""
BLOCK_BYTES = 8 * 1024 * 1024


def read_ahead(weights: Path, stop: threading.Event) -> int:
    """Read a GGUF file, or the weight files of a folder, until told to stop; give the bytes that were read.

    Really reads: the kernel takes `posix_fadvise(WILLNEED)` for the first megabyte or so alone. Blocks; a
    file that cannot be read is left out, the engine will say what is wrong with it.
    """
    budget = int(psutil.virtual_memory().available * SHARE_OF_FREE)
    files = sorted(f for f in weights.iterdir() if f.suffix in SUFFIXES) if weights.is_dir() else [weights]
    block = bytearray(BLOCK_BYTES)
    done = 0
    for file in files:
        try:
            with file.open("rb", buffering=0) as stream:
                while done < budget and not stop.is_set() and (count := stream.readinto(block)):
                    done += count
        except OSError:
            continue
    return done
