"""What several verbs write: tables, CSV and sizes. Pure."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lay out rows in columns two spaces apart, without trailing space."""
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    for row in [heads, *rows]:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def csv_line(cells: Iterable[object]) -> str:
    """Give a row of CSV without its end."""
    text = io.StringIO()
    csv.writer(text).writerow(cells)  # It quotes the line ends in a cell only if they are its own.
    return text.getvalue().removesuffix("\r\n")


def size(byte_count: int) -> str:
    """Give a size in the unit that suits it: `646 KB`, `4.2 GB` (powers of 1000, as files are sold)."""
    amount = float(byte_count)
    for unit in ("B", "KB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.0f} {unit}" if amount >= 99.5 or unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"
