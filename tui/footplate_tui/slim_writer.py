"""Sends the terminal only what changed: Textual repaints whole widgets, which is ten times more over SSH.

`Glass` remembers what stands at each place of the screen. Runs that are there already are skipped, and a
pane that moved up is moved by the terminal itself (its scroll region) instead of being written again.

`install` replaces two private methods of Textual's compositor: `terminal.mend_textual` calls it only for
versions with which that was tested; with others Textual writes as it always does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from textual._compositor import ChopsUpdate, LayoutUpdate

FEWEST_ROWS_TO_SCROLL = 6
FEWEST_ROWS_THAT_AGREE = 4


@dataclass(frozen=True)
class Run:
    """Some cells in a row: how many, and what writes them."""

    width: int
    sequence: str


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
                if not run.width or known.get(x) == run:
                    continue
                _put(known, x, run)
                if cursor != x:
                    sequences.append(f"\x1b[{y + 1};{x + 1}H")
                sequences.append(run.sequence)
                cursor = x + run.width
                self._width = max(self._width, cursor)
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
        """Find by how many rows most of the update stood lower; each row is known by its widest run."""
        if len(update) < FEWEST_ROWS_TO_SCROLL:
            return None
        stood_at: dict[tuple[int, str], list[int]] = {}
        for y, row in self._rows.items():
            if row and (mark := _mark(row)):
                stood_at.setdefault(mark, []).append(y)
        votes: dict[int, list[int]] = {}
        for y, row in update.items():
            places = stood_at.get(mark, []) if (mark := _mark(row)) else []
            if len(places) == 1 and places[0] > y:
                votes.setdefault(places[0] - y, []).append(y)
        if not votes:
            return None
        rows, agreeing = max(votes.items(), key=lambda vote: len(vote[1]))
        unchanged = sum(1 for y, row in update.items() if _stands(self._rows.get(y, {}), row))
        if len(agreeing) < FEWEST_ROWS_THAT_AGREE or len(agreeing) <= unchanged:
            return None
        return Move(min(agreeing), max(agreeing) + rows, rows)


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


def runs_of_chops(update: ChopsUpdate, console: Console) -> dict[int, Row]:
    """Give the runs of an update of parts of the screen, as Textual itself would write them."""
    rows: dict[int, Row] = {}
    for y, x1, x2 in update.spans:
        for end, (x, strip) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
            if strip is None or x > x2 or end <= x1:
                continue
            is_whole = x2 > x >= x1 and end <= x2
            shown = strip if is_whole else strip.crop(0, min(end, x2) - x)
            rows.setdefault(y, {})[x] = Run(shown.cell_length, shown.render(console))
    return rows


def runs_of_layout(update: LayoutUpdate, console: Console) -> dict[int, Row]:
    """Give the runs of an update of a whole region."""
    rows: dict[int, Row] = {}
    for y, strips in enumerate(update.strips, update.region.y):
        x = update.region.x
        for strip in strips:
            rows.setdefault(y, {})[x] = Run(strip.cell_length, strip.render(console))
            x += strip.cell_length
    return rows


def _put(row: Row, x: int, run: Run) -> None:
    for other in _overlapping(row, x, run):
        del row[other]
    row[x] = run


def _overlapping(row: Row, x: int, run: Run) -> list[int]:
    end = x + run.width
    return [at for at, other in row.items() if at < end and at + other.width > x]


def _stands(known: Row, row: Row) -> bool:
    return all(known.get(x) == run for x, run in row.items())


def _mark(row: Row) -> tuple[int, str] | None:
    x = max(row, key=lambda column: row[column].width)
    sequence = row[x].sequence
    return (x, sequence) if sequence and not sequence.isspace() else None
