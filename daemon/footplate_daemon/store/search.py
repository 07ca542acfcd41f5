"""Full-text search in the history: where the words of a query stand, the best places first.

The index is SQLite's FTS5, kept in step by the triggers of the migrations; it knows
neither case nor diacritics.
"""

import itertools
import re
import secrets
import sqlite3
import unicodedata
from dataclasses import dataclass
from typing import Literal

from footplate_daemon.wire import SearchHit

WORD_LIMIT = 32
"""Words of a query that count; a pasted page is still found by its first ones."""
WORD_LENGTH_LIMIT = 100
"""Characters of a word that count."""
SNIPPET_TOKENS = 24
SNIPPET_LIMIT = 240
"""Characters of a snippet."""
BEFORE_MATCH = 60
"""Characters before the first match in a snippet that had to be cut."""
SPELLINGS_LIMIT = 3
"""Letters l of a word that are tried as l and as ł: eight spellings."""

Field = Literal["title", "prompt", "answer", "reasoning"]
_IN_TITLE: tuple[Field, ...] = ("title",)
_IN_TURN: tuple[Field, ...] = ("prompt", "answer", "reasoning")


def find(connection: sqlite3.Connection, query: str, limit: int) -> list[SearchHit]:
    """Give titles, then turns, that have every word of the query; its last word may be a beginning only.

    The best come first, and of two that are as good the newer one. Titles take a third at most. No query
    is an error: one without words finds nothing.
    """
    expression = match_expression(query)
    if not expression:
        return []
    mark = _Mark.new()
    wish = {"match": expression, "begin": mark.begin, "end": mark.end, "tokens": SNIPPET_TOKENS}
    titles = _ranked(connection.execute(_TITLES, wish | {"limit": max(1, limit // 3)}))
    turns = _ranked(connection.execute(_TURNS, wish | {"limit": limit - len(titles)}))
    return [_hit(row, mark) for row in (*titles, *turns)]


def match_expression(query: str) -> str:
    """Write a query in the language of FTS5: every word, the last one as a prefix; empty if there is none."""
    composed = unicodedata.normalize("NFC", query).lower()
    words = list(dict.fromkeys(word[:WORD_LENGTH_LIMIT] for word in _WORD.findall(composed)))[:WORD_LIMIT]
    if not words:
        return ""
    *whole, last = words
    return " AND ".join([*(_either(word) for word in whole), _either(last, "*")])


_WORD = re.compile(r"[^\W_]+")


def _either(word: str, suffix: str = "") -> str:
    """Give a word in its spellings, quoted: inside quotes nothing is an operator.

    The stroke of ł is no diacritic to Unicode, but whoever types without diacritics leaves it out as well.
    """
    places = [place for place, letter in enumerate(word) if letter in "lł"][:SPELLINGS_LIMIT]
    spellings = []
    for choice in itertools.product("lł", repeat=len(places)):
        letters = list(word)
        for place, letter in zip(places, choice, strict=True):
            letters[place] = letter
        spellings.append(f'"{"".join(letters)}"{suffix}')
    return f"({' OR '.join(spellings)})"


@dataclass(frozen=True)
class _Mark:
    """What surrounds a match in what SQLite gives: by chance, so that no text has it already."""

    begin: str
    end: str

    @classmethod
    def new(cls) -> "_Mark":
        chance = secrets.token_hex(8)
        return cls(f"<{chance}>", f"</{chance}>")

    def take_out(self, marked: str) -> tuple[str, list[tuple[int, int]]]:
        """Give the text without marks, and the ranges that they surrounded."""
        text, ranges = "", []
        for part in marked.split(self.begin):
            matched, end, rest = part.partition(self.end)
            if end:
                ranges.append((len(text), len(text) + len(matched)))
            text += matched + rest
        return text, ranges


def _ranked(rows: sqlite3.Cursor) -> list[sqlite3.Row]:
    return sorted(rows, key=lambda row: (row["rank"], -row["at"]))


def _hit(row: sqlite3.Row, mark: _Mark) -> SearchHit:
    fields = _IN_TITLE if row["turn"] is None else _IN_TURN
    field = max(fields, key=lambda field: row[f"in_{field}"].count(mark.begin))
    snippet, matches = _cropped(*mark.take_out(row[f"in_{field}"]))
    return SearchHit(
        session_id=row["session_id"],
        title=row["title"],
        turn=row["turn"],
        field=field,
        snippet=re.sub(r"\s", " ", snippet),
        matches=tuple(matches),
        runtime=row["runtime"],
        variant=row["variant"],
        model=row["model"],
        at=row["at"],
    )


def _cropped(text: str, matches: list[tuple[int, int]]) -> tuple[str, list[tuple[int, int]]]:
    """Cut a snippet whose words are very long to its limit, around the first match."""
    if len(text) <= SNIPPET_LIMIT or not matches:
        return text[:SNIPPET_LIMIT], matches
    start = max(0, min(matches[0][0] - BEFORE_MATCH, len(text) - SNIPPET_LIMIT))
    end = start + SNIPPET_LIMIT
    inside = [(max(first, start) - start, min(last, end) - start) for first, last in matches if first < end]
    return text[start:end], inside


_TITLES = """
    SELECT id AS session_id, sessions.title, NULL AS turn, updated_at AS at, title_words.rank,
        NULL AS runtime, NULL AS variant, NULL AS model,
        snippet(title_words, 0, :begin, :end, '…', :tokens) AS in_title
    FROM title_words CROSS JOIN sessions ON sessions.key = title_words.rowid
    WHERE title_words MATCH :match AND deleted_at IS NULL
    ORDER BY title_words.rank LIMIT :limit"""

_TURNS = """
    SELECT session_id, title, number AS turn, asked_at AS at, turn_words.rank, runtime, variant, model,
        snippet(turn_words, 0, :begin, :end, '…', :tokens) AS in_prompt,
        snippet(turn_words, 1, :begin, :end, '…', :tokens) AS in_answer,
        snippet(turn_words, 2, :begin, :end, '…', :tokens) AS in_reasoning
    FROM turn_words
        CROSS JOIN turns ON turns.key = turn_words.rowid
        CROSS JOIN sessions ON sessions.id = turns.session_id
    WHERE turn_words MATCH :match AND turn_words.rank MATCH 'bm25(4, 2, 1)' AND deleted_at IS NULL
    ORDER BY turn_words.rank LIMIT :limit"""
"""A word counts four times as much in a prompt as in reasoning."""
