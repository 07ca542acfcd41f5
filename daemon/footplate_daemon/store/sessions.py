"""Sessions and their turns: what was asked, and as much of each answer as has come."""

import base64
import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from footplate_daemon.attachments import File, decoded
from footplate_daemon.errors import Conflict, NotFound
from footplate_daemon.events import Topic
from footplate_daemon.store import search
from footplate_daemon.store.database import Database
from footplate_daemon.wire import (
    SearchHit,
    Session,
    SessionChange,
    SessionsChanged,
    SessionWithTurns,
    Turn,
    TurnError,
    TurnState,
)

T = TypeVar("T")

TITLE_LIMIT = 60
"""Characters of a title that is made from the first prompt."""
RESTORE_SECONDS = 10 * 60.0
"""How long a deleted session can be brought back."""

CUT_OFF = TurnError(
    code="unavailable",
    message="The daemon was stopped while this was being answered.",
    hint="Ask again; what had come is kept.",
)


@dataclass(frozen=True)
class Branch:
    """Where a turn stands among the others, each by its number, if not just behind the newest."""

    instead_of: int | None = None
    after: int | None = None
    continue_of: int | None = None


class SessionStore:
    """Reads and writes sessions and turns; a deleted session is nowhere to be seen until it is restored."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        """For what is deleted: when it was, and when it is too late to bring it back."""
        self._version = 0
        self.changes = Topic(lambda: SessionsChanged(version=self._version))
        """Tells when the list of sessions is not what it was; text that streams in does not count."""

    async def create(
        self,
        title: str,
        now: float,
        *,
        system: str | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> Session:
        """Store an empty session; without a title it takes one from its first prompt."""

        def insert(connection: sqlite3.Connection) -> Session:
            session_id = _new_id(connection, now)
            session = Session(
                id=session_id,
                title=title.strip(),
                created_at=now,
                updated_at=now,
                system=system,
                parameters=dict(parameters or {}),
            )
            _insert_session(connection, session)
            return _session(connection, session_id)

        return await self._write(insert)

    async def search(self, query: str, limit: int = 20) -> list[SearchHit]:
        """Give the places in titles, prompts, answers and reasoning that have every word, the best first.

        The last word may be the beginning of one. The text of an answer is found once it has ended.
        """
        return await self._database.read(lambda connection: search.find(connection, query, limit))

    async def list(self, limit: int = 100, before: tuple[float, str] | None = None) -> list[Session]:
        """Give the sessions that were used last, newest first.

        `before`: the time of the last use and the id of the last session of the page before.
        """

        def select(connection: sqlite3.Connection) -> list[Session]:
            rows = connection.execute(
                f"{_SESSIONS} AND (updated_at, id) < (?, ?) ORDER BY updated_at DESC, id DESC LIMIT ?",
                (*(before or (float("inf"), "")), limit),
            )
            return [_session_of(row) for row in rows]

        return await self._database.read(select)

    async def get(
        self, session_id: str, *, first: int = 1, limit: int | None = None, last: int | None = None
    ) -> SessionWithTurns:
        """Give a session, whole, or with at most `limit` turns from number `first`, or with its `last` ones.

        Raise `NotFound`.
        """

        def select(connection: sqlite3.Connection) -> SessionWithTurns:
            session = _session(connection, session_id)
            start = first if last is None else max(1, session.turn_count - last + 1)
            rows = connection.execute(
                "SELECT * FROM turns WHERE session_id = ? AND number >= ? ORDER BY number LIMIT ?",
                (session_id, start, -1 if limit is None else limit),
            )
            return SessionWithTurns(**session.model_dump(), turns=tuple(map(_turn, rows)))

        return await self._database.read(select)

    async def get_turn(self, session_id: str, number: int) -> Turn:
        """Give one turn; raise `NotFound`."""
        return await self._database.read(lambda connection: _get_turn(connection, session_id, number))

    async def whole(self, session_id: str) -> SessionWithTurns:
        """Give a session with the bytes of its attachments, to be exported; raise `NotFound`."""
        session = await self.get(session_id)
        files = await self.files(session_id, [turn.number for turn in session.turns if turn.attachments])
        turns = tuple(_with_data(turn, files.get(turn.number, ())) for turn in session.turns)
        return session.model_copy(update={"turns": turns})

    async def files(self, session_id: str, numbers: Iterable[int]) -> dict[int, tuple[File, ...]]:
        """Give the attachments of these turns, with their bytes."""

        def select(connection: sqlite3.Connection) -> dict[int, tuple[File, ...]]:
            return {number: _files(connection, session_id, number) for number in numbers}

        return await self._database.read(select)

    async def change(self, session_id: str, change: SessionChange) -> Session:
        """Change the fields that were given; the session's place in the list stays. Raise `NotFound`."""
        given = change.model_dump(exclude_unset=True)
        if "parameters" in given:
            given["parameters"] = _json(change.parameters)

        def update(connection: sqlite3.Connection) -> Session:
            for column, value in given.items():
                connection.execute(
                    f"UPDATE sessions SET {column} = ? WHERE id = ? AND deleted_at IS NULL",  # noqa: S608 - our names
                    (value, session_id),
                )
            return _session(connection, session_id)

        return await self._write(update)

    async def fork(self, session_id: str, number: int, title: str | None, now: float) -> Session:
        """Make a session of copies of the turns up to this one, with all that was set for the old one.

        Raise `NotFound`, or `Conflict` if the last one is still being answered.
        """

        def copy(connection: sqlite3.Connection) -> Session:
            turn = _get_turn(connection, session_id, number)
            if turn.state in {TurnState.WAITING, TurnState.STREAMING}:
                raise Conflict(
                    f"Turn {number} of session {session_id} is still being answered.",
                    hint="Wait for it, stop it, or fork from the turn before.",
                )
            forked = _session(connection, session_id).model_copy(
                update={
                    "id": _new_id(connection, now),
                    "created_at": now,
                    "updated_at": now,
                    "forked_from": session_id,
                    "forked_turn": number,
                    **({"title": title.strip()} if title else {}),
                }
            )
            _insert_session(connection, forked)
            connection.execute(_COPY_TURNS, (forked.id, session_id, number))
            connection.execute(_COPY_FILES, (forked.id, session_id, number))
            return _session(connection, forked.id)

        return await self._write(copy)

    async def add(self, session: SessionWithTurns, now: float) -> Session:
        """Store a session that comes from elsewhere, whole, as it is but for its id, which is a new one."""

        def insert(connection: sqlite3.Connection) -> Session:
            session_id = _new_id(connection, now)
            _insert_session(connection, session.model_copy(update={"id": session_id}))
            connection.executemany(
                _INSERT_TURN, [_row(turn) | {"session_id": session_id} for turn in session.turns]
            )
            for turn in session.turns:
                data = [decoded(each.data or "", each.name) for each in turn.attachments]
                _insert_files(connection, session_id, turn.number, data)
            return _session(connection, session_id)

        return await self._write(insert)

    async def delete(self, session_id: str) -> None:
        """Delete a session with its turns, for good after `RESTORE_SECONDS`; raise `NotFound`."""
        now = self._clock()

        def delete(connection: sqlite3.Connection) -> None:
            _purge(connection, now)
            marked = connection.execute(
                "UPDATE sessions SET deleted_at = ? WHERE id = ? AND deleted_at IS NULL", (now, session_id)
            )
            if not marked.rowcount:
                raise _no_session(connection, session_id)

        await self._write(delete)

    async def restore(self, session_id: str) -> Session:
        """Bring a deleted session back; one that is there stays. Raise `NotFound` when it is too late."""
        now = self._clock()

        def restore(connection: sqlite3.Connection) -> Session:
            _purge(connection, now)
            connection.execute("UPDATE sessions SET deleted_at = NULL WHERE id = ?", (session_id,))
            return _session(connection, session_id)

        return await self._write(restore)

    async def purge(self) -> int:
        """Take away for good what was deleted longer than `RESTORE_SECONDS` ago; say how many sessions."""
        now = self._clock()
        return await self._database.write(lambda connection: _purge(connection, now))

    async def add_turn(
        self,
        session_id: str,
        prompt: str,
        parameters: Mapping[str, Any],
        model: str | None,
        now: float,
        *,
        branch: Branch = Branch(),
        files: Sequence[File] = (),
    ) -> Turn:
        """Store a question as the session's next turn, waiting; raise `NotFound`."""

        def insert(connection: sqlite3.Connection) -> Turn:
            session = _session(connection, session_id)
            number: int = connection.execute(
                "SELECT coalesce(max(number), 0) + 1 FROM turns WHERE session_id = ?", (session_id,)
            ).fetchone()[0]
            turn = Turn(
                session_id=session_id,
                number=number,
                state=TurnState.WAITING,
                prompt=prompt,
                parameters=dict(parameters),
                model=model,
                asked_at=now,
                instead_of=branch.instead_of,
                after=branch.after,
                continue_of=branch.continue_of,
                attachments=tuple(file.shape() for file in files),
            )
            connection.execute(_INSERT_TURN, _row(turn))
            _insert_files(connection, session_id, number, [file.data for file in files])
            connection.execute(
                "UPDATE sessions SET title = ?, updated_at = ? WHERE id = ?",
                (session.title or title_of(prompt), now, session_id),
            )
            return _get_turn(connection, session_id, number)

        return await self._write(insert)

    async def label_turn(self, turn: Turn) -> None:
        """Store who is to answer a turn, before anything has come: it is known even if nothing ever does.

        Raise `NotFound`.
        """
        labels = turn.model_dump(include=_LABELS)
        await self._write(lambda connection: _update_turn(connection, turn, labels))

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

        Raise `NotFound` if there is no such turn, `Conflict` if it has ended.
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
        values = {name: value for name, value in _row(turn).items() if name not in _OF_THE_QUESTION}

        def update(connection: sqlite3.Connection) -> None:
            _update_turn(connection, turn, values)
            connection.execute(
                "UPDATE sessions SET updated_at = max(updated_at, ?) WHERE id = ?",
                (turn.ended_at or turn.asked_at, turn.session_id),
            )

        await self._write(update)

    async def cut_unfinished(self, now: float) -> int:
        """Fail every turn that a former daemon left unanswered, keeping what came; say how many."""

        def update(connection: sqlite3.Connection) -> int:
            return connection.execute(
                "UPDATE turns SET state = 'failed', ended_at = ?, error = ?"
                " WHERE state IN ('waiting', 'streaming')",
                (now, CUT_OFF.model_dump_json()),
            ).rowcount

        return await self._database.write(update)

    async def _write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Write what the list of sessions shows, and tell who follows it."""
        written = await self._database.write(change)
        self._version += 1
        self.changes.changed()
        return written


def title_of(prompt: str) -> str:
    """Make a title of a prompt: its first line that says something, cut at a word."""
    line = " ".join(next((line for line in prompt.splitlines() if line.strip()), "").split())
    if len(line) <= TITLE_LIMIT:
        return line
    cut = line[:TITLE_LIMIT]
    return (cut.rpartition(" ")[0] or cut[:-1]) + "…"


_SESSIONS = """
    SELECT id, title, created_at, updated_at, system, parameters, forked_from, forked_turn,
        (SELECT count(*) FROM turns WHERE session_id = sessions.id) AS turn_count,
        (SELECT variant FROM turns WHERE session_id = sessions.id AND variant IS NOT NULL
            ORDER BY number DESC LIMIT 1) AS last_variant
    FROM sessions WHERE deleted_at IS NULL"""

_INSERT_SESSION = """
    INSERT INTO sessions (id, title, system, parameters, created_at, updated_at, forked_from, forked_turn)
    VALUES (:id, :title, :system, :parameters, :created_at, :updated_at, :forked_from, :forked_turn)"""

_TURN_COLUMNS = tuple(Turn.model_fields)
_OF_THE_QUESTION = {
    *("session_id", "number", "prompt", "parameters", "asked_at"),
    *("instead_of", "after", "continue_of", "attachments"),
}
"""What an answer does not change."""
_LABELS = {"runtime", "variant", "model", "preset", "profile", "request_id"}

_INSERT_TURN = (
    f"INSERT INTO turns ({', '.join(_TURN_COLUMNS)})"  # noqa: S608 - our names
    f" VALUES ({', '.join(f':{column}' for column in _TURN_COLUMNS)})"
)
_COPIED = ", ".join(column for column in _TURN_COLUMNS if column != "session_id")
_COPY_TURNS = (
    f"INSERT INTO turns (session_id, {_COPIED}) SELECT ?, {_COPIED} FROM turns"  # noqa: S608 - our names
    " WHERE session_id = ? AND number <= ? ORDER BY number"
)
_COPY_FILES = (
    "INSERT INTO attachments (session_id, number, place, data) SELECT ?, number, place, data"
    " FROM attachments WHERE session_id = ? AND number <= ?"
)

_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32: in ASCII order, nothing that looks like something else."""


def _new_id(connection: sqlite3.Connection, now: float) -> str:
    """Make an id of 12 characters that sorts by time: 9 of milliseconds, 3 of chance."""
    while True:
        number = (int(now * 1000) << 15) | secrets.randbits(15)
        session_id = "".join(_DIGITS[number >> shift & 31] for shift in range(55, -1, -5))
        if not connection.execute("SELECT 1 FROM sessions WHERE id = ?", (session_id,)).fetchone():
            return session_id


def _insert_session(connection: sqlite3.Connection, session: Session) -> None:
    connection.execute(_INSERT_SESSION, session.model_dump() | {"parameters": _json(session.parameters)})


def _purge(connection: sqlite3.Connection, now: float) -> int:
    return connection.execute("DELETE FROM sessions WHERE deleted_at <= ?", (now - RESTORE_SECONDS,)).rowcount


def _session(connection: sqlite3.Connection, session_id: str) -> Session:
    row = connection.execute(f"{_SESSIONS} AND id = ?", (session_id,)).fetchone()
    if row is None:
        raise _no_session(connection, session_id)
    return _session_of(row)


def _session_of(row: sqlite3.Row) -> Session:
    fields = dict(row)
    return Session(**fields | {"parameters": json.loads(fields["parameters"])})


def _get_turn(connection: sqlite3.Connection, session_id: str, number: int) -> Turn:
    row = connection.execute(
        "SELECT turns.* FROM turns JOIN sessions ON id = session_id"
        " WHERE session_id = ? AND number = ? AND deleted_at IS NULL",
        (session_id, number),
    ).fetchone()
    if row is None:
        raise _no_turn(connection, session_id, number)
    return _turn(row)


def _turn(row: sqlite3.Row) -> Turn:
    fields = dict(row)
    error = fields.pop("error")
    parameters = json.loads(fields.pop("parameters"))
    attachments = json.loads(fields.pop("attachments"))
    return Turn(
        **fields,
        parameters=parameters,
        attachments=attachments,
        error=TurnError.model_validate_json(error) if error else None,
    )


def _row(turn: Turn) -> dict[str, Any]:
    """Give a turn as its columns."""
    error = turn.error.model_dump_json() if turn.error else None
    attachments = [each.model_dump(exclude={"data"}) for each in turn.attachments]
    return turn.model_dump() | {
        "parameters": _json(turn.parameters),
        "attachments": json.dumps(attachments, ensure_ascii=False),
        "error": error,
    }


def _insert_files(
    connection: sqlite3.Connection, session_id: str, number: int, data: Sequence[bytes]
) -> None:
    connection.executemany(
        "INSERT INTO attachments (session_id, number, place, data) VALUES (?, ?, ?, ?)",
        [(session_id, number, place, each) for place, each in enumerate(data)],
    )


def _files(connection: sqlite3.Connection, session_id: str, number: int) -> tuple[File, ...]:
    told = _get_turn(connection, session_id, number).attachments
    rows = connection.execute(
        "SELECT data FROM attachments WHERE session_id = ? AND number = ? ORDER BY place",
        (session_id, number),
    )
    return tuple(File(each.name, each.media_type, row["data"]) for each, row in zip(told, rows, strict=True))


def _with_data(turn: Turn, files: Sequence[File]) -> Turn:
    told = tuple(
        file.shape().model_copy(update={"data": base64.b64encode(file.data).decode()}) for file in files
    )
    return turn.model_copy(update={"attachments": told}) if told else turn


def _update_turn(connection: sqlite3.Connection, turn: Turn, columns: Mapping[str, object]) -> None:
    assignments = ", ".join(f"{column} = ?" for column in columns)
    changed = connection.execute(
        f"UPDATE turns SET {assignments} WHERE session_id = ? AND number = ?",  # noqa: S608 - our names
        (*columns.values(), turn.session_id, turn.number),
    )
    if not changed.rowcount:
        raise _no_turn(connection, turn.session_id, turn.number)


def _json(value: Mapping[str, Any]) -> str:
    """Write JSON as it is: half a character, which JSON could hide, is refused like any other."""
    return json.dumps(value, ensure_ascii=False)


def _no_session(connection: sqlite3.Connection, session_id: str) -> NotFound:
    rows = connection.execute(
        "SELECT id, title FROM sessions WHERE deleted_at IS NULL ORDER BY updated_at DESC LIMIT 3"
    )
    newest = ", ".join(f"{row['id']} ({row['title'] or 'empty'})" for row in rows)
    hint = f"The newest sessions are {newest}." if newest else "There are no sessions yet."
    if connection.execute("SELECT 1 FROM sessions WHERE id = ?", (session_id,)).fetchone():
        hint = f"It was deleted; bring it back: footplate sessions restore {session_id}"
    return NotFound(f"There is no session {session_id}.", hint=hint)


def _no_turn(connection: sqlite3.Connection, session_id: str, number: int) -> NotFound:
    count = _session(connection, session_id).turn_count
    hint = f"Its turns are 1 to {count}." if count else "It has no turns yet."
    return NotFound(f"Session {session_id} has no turn {number}.", hint=hint)
