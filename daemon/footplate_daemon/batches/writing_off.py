"""Ends lines that will not be asked: their batch was cancelled, its time is over, or their model is gone."""

from collections.abc import Sequence

from footplate_daemon.batches import lines
from footplate_daemon.batches.asking import Done, ask_line
from footplate_daemon.batches.crew import Tools
from footplate_daemon.batches.live import LiveBatch
from footplate_daemon.batches.recorder import Recorder
from footplate_daemon.store.batches import BatchStore, Failure, Line, LineState

AT_A_TIME = 500


async def write_off(live: LiveBatch, store: BatchStore, recorder: Recorder, code: str, message: str) -> None:
    """Give every line that is left an error; return when all of them are recorded."""
    failure = Failure(code, 0, message)
    last: tuple[int, int] | None = None
    while rest := await store.pending(live.key, model=None, after=last, limit=AT_A_TIME):
        for line in rest:
            text = lines.never_asked(live.id, line.number, line.custom_id, code, message)
            await recorder.put(live, line.number, Done(LineState.FAILED, text, 0.0, failure=failure))
        last = (rest[-1].prefix, rest[-1].number)
    await recorder.flush()


async def write_off_unknown(tools: Tools, wanted: Sequence[tuple[LiveBatch, int]]) -> None:
    """Give lines whose model is not in the catalog any more what the gateway says to them."""
    for live, model in wanted:
        last: tuple[int, int] | None = None
        while rest := await tools.store.pending(live.key, model=model, after=last, limit=AT_A_TIME):
            for line in rest:
                if live.is_leaving:
                    return
                await _ask_in_vain(tools, live, line)
            last = (rest[-1].prefix, rest[-1].number)


async def _ask_in_vain(tools: Tools, live: LiveBatch, line: Line) -> None:
    body = {"model": live.row.models[line.model]}
    outcome = await ask_line(tools.gateway, live.id, live.row.endpoint, line, body, is_ours=False)
    if isinstance(outcome, Done):
        await tools.recorder.put(live, line.number, outcome)
