"""Takes up a batch that an earlier daemon left: what its files hold and its rows say is made to agree.

A line may be in a file and not yet in its row; nothing may be asked before that is mended. Then each line is
either done, once, or pending.
"""

import asyncio
from collections.abc import Sequence

from footplate_daemon.batches.lines import Result
from footplate_daemon.batches.live import LiveBatch
from footplate_daemon.batches.output import OutputFile, Place
from footplate_daemon.store.batches import BatchStore, Line, LineState, Recorded

AT_A_TIME = 500
"""Lines of a file's end that are compared at a time."""


async def mend(live: LiveBatch, store: BatchStore) -> None:
    """Make files and rows of a batch agree; raise `OSError` if the files cannot be read."""
    for state in (LineState.COMPLETED, LineState.FAILED):
        output = await asyncio.to_thread(live.output, state)
        if await asyncio.to_thread(lambda output=output: output.is_shorter_than_known):  # type: ignore[misc]  # a default in a lambda
            output.forget()
            live.take_row(await store.forget_answers(live.key, state))
        while await _take_in(live, store, state, output):
            pass
        await asyncio.to_thread(output.cut_tail)


async def _take_in(live: LiveBatch, store: BatchStore, state: LineState, output: OutputFile) -> bool:
    """Enter some lines of which no row tells; say whether there may be more."""
    tail = await asyncio.to_thread(output.tail, AT_A_TIME)
    lines = await store.lines_named(live.key, [result.custom_id for result, _ in tail])
    good = _good(tail, state, lines)
    if not good:
        return False
    output.know([place for _, place in good])
    done = [
        Recorded(
            lines[result.custom_id].number,
            state,
            place.offset,
            place.length,
            tokens=result.tokens,
            failure=result.failure,
        )
        for result, place in good
    ]
    output_bytes, error_bytes = live.lengths()
    live.take_row(await store.record(live.key, done, output_bytes=output_bytes, error_bytes=error_bytes))
    return len(good) == len(tail)


def _good(
    tail: Sequence[tuple[Result, Place]], state: LineState, lines: dict[str, Line]
) -> list[tuple[Result, Place]]:
    """Give the lines up to the first that cannot be: not of this file, not of this batch, or there before."""
    good: list[tuple[Result, Place]] = []
    seen: set[str] = set()
    for result, place in tail:
        line = lines.get(result.custom_id)
        is_new = line is not None and line.state == LineState.PENDING and result.custom_id not in seen
        if result.state is not state or not is_new:
            break
        seen.add(result.custom_id)
        good.append((result, place))
    return good
