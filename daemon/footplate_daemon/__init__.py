"""Footplate's daemon: switching, gateway, history, for the LLM runtimes of one GPU box."""

__version__: str


def __getattr__(name: str) -> str:
    """Look the version up when it is wanted: that takes longer than many a command."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version  # noqa: PLC0415 - see above

    return version("footplate")
