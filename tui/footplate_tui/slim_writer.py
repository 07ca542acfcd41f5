"""Sends the terminal only what changed: Textual repaints whole widgets, which is ten times more over SSH.

`Glass` remembers what stands at each place of the screen. Runs that are there already are skipped, of one
that changed only the cells between the first and the last that differ are written, and a pane that moved
up is moved by the terminal itself (its scroll region) instead of being written again.

`install` replaces two private methods of Textual's compositor: `terminal.mend_textual` calls it only for
versions with which that was tested; with others Textual writes as it always does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console
    from textual._compositor import ChopsUpdate, LayoutUpdate
    from textual.app import App
    from textual.strip import Strip

FEWEST_ROWS_TO_SCROLL = 6
FEWEST_ROWS_SAVED = 3
MOVES_TRIED = 3
FRAMES_IN_FLIGHT = 1
"""So many pictures may wait to be written before the terminal is called slow."""


_PLAIN = re.compile(
    "[ -~\u00a0-\u00ac\u00ae-\u02ff\u2010-\u2027\u2500-\u259f\u25aa\u2713\u2717\u2023\u25e6]*"
)
"""Characters that every terminal shows in one cell each."""


class Cells(Protocol):
    """The cells of a run one by one."""

    def each(self) -> Sequence[object] | None:
        """Give something for each cell that says all of it; None where terminals differ in what a cell is."""
        ...

    def write(self, start: int, end: int) -> str:
        """Give what writes some of them."""
        ...


@dataclass(frozen=True)
class Run:
    """Some cells in a row: how many, and what writes them."""

    width: int
    sequence: str
    cells: Cells | None = field(default=None, compare=False, repr=False)


Row = dict[int, Run]
"""The runs of one row by their column."""


@dataclass(frozen=True)
class Move:
    """The rows from `top` to `bottom` (with it) go up by `rows`."""

    top: int
    bottom: int
    rows: int


class Glass:
    """What stands on the terminal's screen, as far as we wrote it."""

    def __init__(self) -> None:
        self._rows: dict[int, Row] = {}
        self._width = 0

    def forget(self) -> None:
        """Know nothing any more: what is on the screen was written by others."""
        self._rows.clear()
        self._width = 0

    def draw(self, update: Mapping[int, Row], *, may_scroll: bool = True) -> str:
        """Give what must be written so that the update stands on the screen."""
        sequences = []
        move = self._find_move(update) if may_scroll else None
        after = self._after_move(move, update) if move else None
        if move and after:
            sequences.append(f"\x1b[{move.top + 1};{move.bottom + 1}r\x1b[{move.rows}S\x1b[r")
            self._apply(move)
        for y, row in (after or update).items():
            known = self._rows.setdefault(y, {})
            cursor: int | None = None
            for x, run in row.items():
                before = known.get(x)
                if not run.width or before == run:
                    continue
                _put(known, x, run)
                self._width = max(self._width, x + run.width)
                begin, end, sequence = _difference(before, run)
                if cursor != x + begin:
                    sequences.append(f"\x1b[{y + 1};{x + begin + 1}H")
                sequences.append(sequence)
                cursor = x + end
        return "".join(sequences)

    def _after_move(self, move: Move, update: Mapping[int, Row]) -> dict[int, Row] | None:
        """Give the update with all that the move would carry off beside it; None where that is not known."""
        after = {y: dict(row) for y, row in update.items()}
        for y in range(move.top, move.bottom + 1):
            row = after.setdefault(y, {})
            for x, run in self._rows.get(y, {}).items():
                if not _overlapping(row, x, run):
                    row[x] = run
            if sum(run.width for run in row.values()) < self._width:
                return None
        return after

    def _apply(self, move: Move) -> None:
        for y in range(move.top, move.bottom + 1):
            self._rows[y] = self._rows.get(y + move.rows, {}) if y + move.rows <= move.bottom else {}

    def _find_move(self, update: Mapping[int, Row]) -> Move | None:
        """Find by how many rows most of the update stood lower, and between which rows moving it is best."""
        changed = sum(1 for y, row in update.items() if not _stands(self._rows.get(y, {}), row))
        if changed < FEWEST_ROWS_TO_SCROLL:
            return None
        stood_at: dict[tuple[int, str], list[int]] = {}
        for y, row in self._rows.items():
            if row and (mark := _mark(row)):
                stood_at.setdefault(mark, []).append(y)
        votes: Counter[int] = Counter()
        for y, row in update.items():
            mark = _mark(row)
            votes.update(place - y for place in (stood_at.get(mark, ()) if mark else ()) if place > y)
        moves = [
            move for rows, _ in votes.most_common(MOVES_TRIED) if (move := self._best_move(update, rows))
        ]
        return max(moves, key=lambda found: found[0])[1] if moves else None

    def _best_move(self, update: Mapping[int, Row], rows: int) -> tuple[int, Move] | None:
        """Find the stretch of rows in which the move saves most; give how many rows it saves."""
        best: tuple[int, Move] | None = None
        saved, top = 0, None
        for y in sorted(update):
            row = update[y]
            saves = _stands(self._rows.get(y + rows, {}), row) - _stands(self._rows.get(y, {}), row)
            if saved + saves <= 0:
                saved, top = 0, None
                continue
            saved, top = saved + saves, y if top is None else top
            if saved >= FEWEST_ROWS_SAVED and (best is None or saved > best[0]):
                best = saved, Move(top, y + rows, rows)
        return best


def install() -> None:
    """Make Textual write through one `Glass`."""
    from textual import _compositor as compositor  # noqa: PLC0415 -- private: only where it is known to fit

    glass = Glass()

    def draw_chops(update: ChopsUpdate, console: Console) -> str:
        return glass.draw(runs_of_chops(update, console))

    def draw_layout(update: LayoutUpdate, console: Console) -> str:
        if update.region.x == 0 and update.region.y == 0:
            # A repaint of the whole screen: after a resize, a suspend, another screen.
            glass.forget()
        return glass.draw(runs_of_layout(update, console), may_scroll=False)

    compositor.ChopsUpdate.render_segments = draw_chops  # type: ignore[assignment]  # the purpose of this module
    compositor.LayoutUpdate.render_segments = draw_layout  # type: ignore[assignment]  # the purpose of this module


def is_behind(app: App[object]) -> bool:
    """Whether the terminal has yet to take what was written before: the link is slower than we are."""
    # Private, and not there in every driver: where it is missing, nothing is known and nothing held back.
    writer = getattr(getattr(app, "_driver", None), "_writer_thread", None)
    queue = getattr(writer, "_queue", None)
    return queue is not None and queue.qsize() > FRAMES_IN_FLIGHT


def runs_of_chops(update: ChopsUpdate, console: Console) -> dict[int, Row]:
    """Give the runs of an update of parts of the screen, as Textual itself would write them."""
    rows: dict[int, Row] = {}
    for y, x1, x2 in update.spans:
        for end, (x, strip) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
            if strip is None or x > x2 or end <= x1:
                continue
            is_whole = x2 > x >= x1 and end <= x2
            shown = strip if is_whole else strip.crop(0, min(end, x2) - x)
            rows.setdefault(y, {})[x] = _run(shown, console)
    return rows


def runs_of_layout(update: LayoutUpdate, console: Console) -> dict[int, Row]:
    """Give the runs of an update of a whole region."""
    rows: dict[int, Row] = {}
    for y, strips in enumerate(update.strips, update.region.y):
        x = update.region.x
        for strip in strips:
            rows.setdefault(y, {})[x] = _run(strip, console)
            x += strip.cell_length
    return rows


def _run(strip: Strip, console: Console) -> Run:
    return Run(strip.cell_length, strip.render(console), _StripCells(strip, console))


@dataclass(frozen=True)
class _StripCells:
    strip: Strip
    console: Console

    def each(self) -> Sequence[object] | None:
        if not all(_PLAIN.fullmatch(segment.text) for segment in self.strip):
            return None
        return [(character, segment.style) for segment in self.strip for character in segment.text]

    def write(self, start: int, end: int) -> str:
        return self.strip.crop(start, end).render(self.console)


def _difference(before: Run | None, run: Run) -> tuple[int, int, str]:
    """Give the first cell to write, the one after the last, and what writes them."""
    whole = 0, run.width, run.sequence
    if before is None or before.width != run.width or not (before.cells and run.cells):
        return whole
    old, new = before.cells.each(), run.cells.each()
    if old is None or new is None:
        return whole
    differ = [place for place, (was, is_now) in enumerate(zip(old, new, strict=True)) if was != is_now]
    if not differ:
        return whole
    begin, end = differ[0], differ[-1] + 1
    return begin, end, run.cells.write(begin, end)


def _put(row: Row, x: int, run: Run) -> None:
    for other in _overlapping(row, x, run):
        del row[other]
    row[x] = run


def _overlapping(row: Row, x: int, run: Run) -> list[int]:
    end = x + run.width
    return [at for at, other in row.items() if at < end and at + other.width > x]


def _stands(known: Row, row: Row) -> bool:
    return all(known.get(x) == run for x, run in row.items() if run.width)


def _mark(row: Row) -> tuple[int, str] | None:
    x = max(row, key=lambda column: row[column].width)
    sequence = row[x].sequence
    return (x, sequence) if sequence and not sequence.isspace() else None
