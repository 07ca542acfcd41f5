"""Sessions and their turns: what was asked, and as much of each answer as has come."""

import json
import secrets
import sqlite3
from collections.abc import Mapping
from typing import Any

from footplate_daemon.errors import Conflict, NotFound
from footplate_daemon.store.database import Database
from footplate_daemon.wire import Session, SessionWithTurns, Turn, TurnError, TurnState

TITLE_LIMIT = 60
"""Characters of a title that is made from the first prompt."""

CUT_OFF = TurnError(
    code="unavailable",
    message="The daemon was stopped while this was being answered.",
    hint="Ask again; what had come is kept.",
)


class SessionStore:
    """Reads and writes sessions and turns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, title: str, now: float) -> Session:
        """Store an empty session; without a title it takes one from its first prompt."""

        def insert(connection: sqlite3.Connection) -> Session:
            session_id = _new_id(connection, now)
            connection.execute(
                "INSERT INTO sessions (id, title, created_at, updated_at) VALUES (?, ?, ?, ?)",
                (session_id, title.strip(), now, now),
            )
            return _session(connection, session_id)

        return await self._database.write(insert)

    async def list(self, limit: int = 100) -> list[Session]:
        """Give the sessions that were used last, newest first."""

        def select(connection: sqlite3.Connection) -> list[Session]:
            rows = connection.execute(f"{_SESSIONS} ORDER BY updated_at DESC, id DESC LIMIT ?", (limit,))
            return [Session(**row) for row in rows]

        return await self._database.read(select)

    async def get(self, session_id: str) -> SessionWithTurns:
        """Give a session whole; raise `NotFound`."""

        def select(connection: sqlite3.Connection) -> SessionWithTurns:
            session = _session(connection, session_id)
            rows = connection.execute(
                "SELECT * FROM turns WHERE session_id = ? ORDER BY number", (session_id,)
            )
            return SessionWithTurns(**session.model_dump(), turns=tuple(map(_turn, rows)))

        return await self._database.read(select)

    async def get_turn(self, session_id: str, number: int) -> Turn:
        """Give one turn; raise `NotFound`."""
        return await self._database.read(lambda connection: _get_turn(connection, session_id, number))

    async def rename(self, session_id: str, title: str) -> Session:
        """Give a session another title; its place in the list stays. Raise `NotFound`."""

        def update(connection: sqlite3.Connection) -> Session:
            connection.execute("UPDATE sessions SET title = ? WHERE id = ?", (title, session_id))
            return _session(connection, session_id)

        return await self._database.write(update)

    async def delete(self, session_id: str) -> None:
        """Delete a session with its turns; raise `NotFound`."""

        def delete(connection: sqlite3.Connection) -> None:
            if not connection.execute("DELETE FROM sessions WHERE id = ?", (session_id,)).rowcount:
                raise _no_session(connection, session_id)

        await self._database.write(delete)

    async def add_turn(
        self, session_id: str, prompt: str, parameters: Mapping[str, Any], model: str | None, now: float
    ) -> Turn:
        """Store a question as the session's next turn, waiting; raise `NotFound`."""

        def insert(connection: sqlite3.Connection) -> Turn:
            session = _session(connection, session_id)
            number: int = connection.execute(
                "SELECT coalesce(max(number), 0) + 1 FROM turns WHERE session_id = ?", (session_id,)
            ).fetchone()[0]
            connection.execute(
                "INSERT INTO turns (session_id, number, state, prompt, parameters, model, asked_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (session_id, number, TurnState.WAITING, prompt, json.dumps(dict(parameters)), model, now),
            )
            connection.execute(
                "UPDATE sessions SET title = ?, updated_at = ? WHERE id = ?",
                (session.title or title_of(prompt), now, session_id),
            )
            return _get_turn(connection, session_id, number)

        return await self._database.write(insert)

    async def append_answer(
        self,
        session_id: str,
        number: int,
        content: str = "",
        reasoning: str = "",
        *,
        runtime: str | None = None,
        variant: str | None = None,
        model: str | None = None,
        request_id: str | None = None,
    ) -> None:
        """Add text to an answer that is on its way and mark it as streaming; None leaves a label as it is.

        Raise `NotFound` if the turn was deleted meanwhile, `Conflict` if it has ended.
        """

        def update(connection: sqlite3.Connection) -> None:
            changed = connection.execute(
                "UPDATE turns SET state = 'streaming', answer = answer || ?, reasoning = reasoning || ?,"
                " runtime = coalesce(?, runtime), variant = coalesce(?, variant),"
                " model = coalesce(?, model), request_id = coalesce(?, request_id)"
                " WHERE session_id = ? AND number = ? AND state IN ('waiting', 'streaming')",
                (content, reasoning, runtime, variant, model, request_id, session_id, number),
            ).rowcount
            if not changed:
                turn = _get_turn(connection, session_id, number)
                raise Conflict(f"Turn {number} of session {session_id} has ended: {turn.state}.")

        await self._database.write(update)

    async def finish_turn(self, turn: Turn) -> None:
        """Store a turn as it ended, whole: its text replaces what was appended. Raise `NotFound`."""

        def update(connection: sqlite3.Connection) -> None:
            values = turn.model_dump(exclude={"session_id", "number", "prompt", "asked_at"})
            values["error"] = turn.error.model_dump_json() if turn.error else None
            assignments = ", ".join(f"{column} = ?" for column in values)
            changed = connection.execute(
                f"UPDATE turns SET {assignments} WHERE session_id = ? AND number = ?",  # noqa: S608 - our names
                (*values.values(), turn.session_id, turn.number),
            ).rowcount
            if not changed:
                raise _no_turn(connection, turn.session_id, turn.number)
            connection.execute(
                "UPDATE sessions SET updated_at = max(updated_at, ?) WHERE id = ?",
                (turn.ended_at or turn.asked_at, turn.session_id),
            )

        await self._database.write(update)

    async def cut_unfinished(self, now: float) -> int:
        """Fail every turn that a former daemon left unanswered, keeping what came; say how many."""

        def update(connection: sqlite3.Connection) -> int:
            return connection.execute(
                "UPDATE turns SET state = 'failed', ended_at = ?, error = ?"
                " WHERE state IN ('waiting', 'streaming')",
                (now, CUT_OFF.model_dump_json()),
            ).rowcount

        return await self._database.write(update)


def title_of(prompt: str) -> str:
    """Make a title of a prompt: its first line that says something, cut at a word."""
    line = " ".join(next((line for line in prompt.splitlines() if line.strip()), "").split())
    if len(line) <= TITLE_LIMIT:
        return line
    cut = line[:TITLE_LIMIT]
    return (cut.rpartition(" ")[0] or cut[:-1]) + "…"


_SESSIONS = """
    SELECT id, title, created_at, updated_at,
        (SELECT count(*) FROM turns WHERE session_id = sessions.id) AS turn_count,
        (SELECT variant FROM turns WHERE session_id = sessions.id AND variant IS NOT NULL
            ORDER BY number DESC LIMIT 1) AS last_variant
    FROM sessions"""

_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32: in ASCII order, nothing that looks like something else."""


def _new_id(connection: sqlite3.Connection, now: float) -> str:
    """Make an id of 12 characters that sorts by time: 9 of milliseconds, 3 of chance."""
    while True:
        number = (int(now * 1000) << 15) | secrets.randbits(15)
        session_id = "".join(_DIGITS[number >> shift & 31] for shift in range(55, -1, -5))
        if not connection.execute("SELECT 1 FROM sessions WHERE id = ?", (session_id,)).fetchone():
            return session_id


def _session(connection: sqlite3.Connection, session_id: str) -> Session:
    row = connection.execute(f"{_SESSIONS} WHERE id = ?", (session_id,)).fetchone()
    if row is None:
        raise _no_session(connection, session_id)
    return Session(**row)


def _get_turn(connection: sqlite3.Connection, session_id: str, number: int) -> Turn:
    row = connection.execute(
        "SELECT * FROM turns WHERE session_id = ? AND number = ?", (session_id, number)
    ).fetchone()
    if row is None:
        raise _no_turn(connection, session_id, number)
    return _turn(row)


def _turn(row: sqlite3.Row) -> Turn:
    fields = dict(row)
    error = fields.pop("error")
    return Turn(**fields, error=TurnError.model_validate_json(error) if error else None)


def _no_session(connection: sqlite3.Connection, session_id: str) -> NotFound:
    rows = connection.execute("SELECT id, title FROM sessions ORDER BY updated_at DESC LIMIT 3")
    newest = ", ".join(f"{row['id']} ({row['title'] or 'empty'})" for row in rows)
    hint = f"The newest sessions are {newest}." if newest else "There are no sessions yet."
    return NotFound(f"There is no session {session_id}.", hint=hint)


def _no_turn(connection: sqlite3.Connection, session_id: str, number: int) -> NotFound:
    count = _session(connection, session_id).turn_count
    hint = f"Its turns are 1 to {count}." if count else "It has no turns yet."
    return NotFound(f"Session {session_id} has no turn {number}.", hint=hint)
