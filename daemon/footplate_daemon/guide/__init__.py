"""The built-in model: tiny, trained on Footplate's own questions and answers (`guide/` in the repository)."""

from pathlib import Path


def path() -> Path:
    """Return where the guide's GGUF file lies."""
    return Path(__file__).with_name("guide.gguf")
