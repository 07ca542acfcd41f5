"""The code in an answer, block by block, as it is to be copied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from footplate_tui.markdown_blocks import Block, Code, Items, Quote, parse


def code_blocks(text: str) -> list[Code]:
    """Give the fences and the indented code of a Markdown text, in order, wherever they stand."""
    return list(_codes(parse(text)))


def _codes(blocks: Iterable[Block]) -> Iterator[Code]:
    for block in blocks:
        match block:
            case Code():
                yield block
            case Quote(inner):
                yield from _codes(inner)
            case Items(items):
                for item in items:
                    yield from _codes(item.blocks)
            case _:
                pass
