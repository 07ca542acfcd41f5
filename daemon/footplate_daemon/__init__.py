"""Footplate's daemon: switching, gateway, history, for the LLM runtimes of one GPU box."""

from importlib.metadata import version

__version__ = version("footplate")
