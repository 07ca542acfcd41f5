"""API keys: who may use the gateway over TCP, for which models, how often and until when.

A key's secret is never stored, only its SHA-256. The slow hashes that passwords need (bcrypt, argon2) make
guessing slow; a secret of 256 random bits cannot be guessed at any speed, and each request has to be hashed.
"""

import hashlib
import json
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields
from pathlib import Path
from urllib.parse import quote

from footplate_daemon.errors import Conflict, NotFound
from footplate_daemon.store.database import Database
from footplate_daemon.wire import KEY_PREFIX_LENGTH, KEY_START

SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key; its secret is not."""

    id: int
    name: str
    prefix: str
    """The first characters of the secret, by which a person tells keys apart."""
    digest: bytes = field(repr=False)
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    last_used_at: float | None = None
    models: tuple[str, ...] = ()
    """Models and variants that it is for; empty: every one."""
    requests_per_minute: int | None = None

    def is_live(self, now: float) -> bool:
        """Say whether it opens anything now."""
        return self.revoked_at is None and not self.has_expired(now)

    def has_expired(self, now: float) -> bool:
        """Say whether its time is over."""
        return self.expires_at is not None and self.expires_at <= now

    def allows(self, *names: str) -> bool:
        """Say whether it is for a model that has these names."""
        return not self.models or any(name in self.models for name in names)


def new_secret() -> str:
    """Make the secret of a key: 256 bits that nobody can guess."""
    return KEY_START + secrets.token_urlsafe(SECRET_BYTES)


def digest(secret: bytes) -> bytes:
    """Give what is stored of a secret."""
    return hashlib.sha256(secret).digest()


def any_live(path: Path, now: float) -> bool:
    """Look into a database, open elsewhere or not, for a key that is live; one that is not there has none."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            return any(key.is_live(now) for key in _select(connection))
    except sqlite3.Error:
        return False


class KeyStore:
    """Reads and writes keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self) -> list[Key]:
        """Give every key, the revoked ones too, the oldest first."""
        return await self._database.read(_select)

    async def create(
        self,
        name: str,
        secret: str,
        now: float,
        *,
        expires_at: float | None = None,
        models: Sequence[str] = (),
        requests_per_minute: int | None = None,
    ) -> Key:
        """Store a new key; raise `Conflict` if a live one has the name."""
        prefix, hashed = secret[:KEY_PREFIX_LENGTH], digest(secret.encode())

        def insert(connection: sqlite3.Connection) -> Key:
            if any(key.name == name and key.is_live(now) for key in _select(connection)):
                raise Conflict(
                    f'There is a key "{name}" already.',
                    hint=f"Take another name, or revoke it first: footplate keys revoke {name}",
                    param="name",
                )
            row = (name, prefix, hashed, now, expires_at, json.dumps([*models]), requests_per_minute)
            key_id = connection.execute(_INSERT, row).lastrowid
            (key,) = _select(connection, "WHERE id = ?", key_id)
            return key

        return await self._database.write(insert)

    async def revoke(self, name: str, now: float) -> Key:
        """Revoke the key with this name, or whose secret begins so.

        Raise `NotFound`, or `Conflict` if several begin so.
        """

        def update(connection: sqlite3.Connection) -> Key:
            key = _meant(name, [key for key in _select(connection) if key.revoked_at is None], now)
            connection.execute("UPDATE keys SET revoked_at = ? WHERE id = ?", (now, key.id))
            (revoked,) = _select(connection, "WHERE id = ?", key.id)
            return revoked

        return await self._database.write(update)

    async def note_uses(self, used_at: Mapping[int, float]) -> None:
        """Store when keys were last used, by their ids."""
        rows = [(at, key_id) for key_id, at in used_at.items()]

        def update(connection: sqlite3.Connection) -> None:
            connection.executemany("UPDATE keys SET last_used_at = ? WHERE id = ?", rows)

        await self._database.write(update)


def _meant(name: str, keys: Sequence[Key], now: float) -> Key:
    """Give the key that is meant by a name or a prefix; of one name, the live one."""
    named = sorted((key for key in keys if key.name == name), key=lambda key: key.is_live(now))
    if named:
        return named[-1]
    # Nobody else sees more of a secret than its prefix, not even when all of it was pasted.
    prefix = name[:KEY_PREFIX_LENGTH] if len(name) > len(KEY_START) and name.startswith(KEY_START) else None
    alike = [key for key in keys if prefix is not None and key.prefix.startswith(prefix)]
    if len(alike) > 1:
        names = ", ".join(key.name for key in alike)
        raise Conflict(f"Several keys begin with {prefix}: {names}.", hint="Say which one by its name.")
    if not alike:
        there = ", ".join(key.name for key in keys)
        raise NotFound(
            f'There is no key "{prefix or name}" to revoke.',
            hint=f"There is: {there or 'none'}.",
            param="name",
        )
    return alike[0]


_COLUMNS = ", ".join(column.name for column in fields(Key))
_INSERT = (
    "INSERT INTO keys (name, prefix, digest, created_at, expires_at, models, requests_per_minute)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)


def _select(connection: sqlite3.Connection, where: str = "", *values: object) -> list[Key]:
    rows = connection.execute(f"SELECT {_COLUMNS} FROM keys {where} ORDER BY id", values)  # noqa: S608 - our names
    return [_key(tuple(row)) for row in rows]


def _key(row: Sequence[object]) -> Key:
    values = dict(zip((column.name for column in fields(Key)), row, strict=True))
    values["models"] = tuple(json.loads(str(values["models"])))
    return Key(**values)  # type: ignore[arg-type]  # the columns have the fields' types
