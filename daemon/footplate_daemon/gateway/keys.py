"""The key ring: whether who comes over TCP may, decided in memory for each request.

Knows no headers but the two that carry a key, and no clock: the time comes with each call, in seconds since
the epoch.
"""

import asyncio
import hmac
import logging
import re
import time
from collections import deque
from dataclasses import dataclass, replace

from footplate_daemon.errors import Busy, FootplateError, Forbidden, Invalid, Unauthorized
from footplate_daemon.events import Topic
from footplate_daemon.store.keys import Key, KeyStore, digest, new_secret
from footplate_daemon.wire import KEY_START

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 10.0
"""How often it is stored when keys were last used."""
MINUTE = 60.0
CREATE = "footplate keys create NAME"
TAKEN = frozenset({"terminal", "replay", "health"})
"""Clients of the ledger that have no key."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def presented(authorization: bytes | None, x_api_key: bytes | None) -> bytes | None:
    """Give the key that a request carries: `Authorization: Bearer …`, else `x-api-key` (Anthropic's way)."""
    scheme, _, secret = (authorization or b"").strip().partition(b" ")
    bearer = secret.strip() if scheme.lower() == b"bearer" else b""
    return bearer or (x_api_key or b"").strip() or None


class KeyRing:
    """Every key there is; `open` reads them, `run` stores when they were used."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self._held: dict[bytes, _Held] = {}
        self.topic: Topic[list[Key]] = Topic(self.list)
        """Changes when a key is created or revoked."""

    async def open(self) -> None:
        """Take up what the database has."""
        for key in await self._store.list():
            self._hold(key)

    def check(self, secret: bytes | None, now: float) -> Key:
        """Give the key whose secret was presented, and count the request.

        Raise `Unauthorized` if it opens nothing, `Busy` if it was used too often in the last minute.
        """
        if secret is None:
            raise _no_key()
        hashed = digest(secret)
        # How long the search takes depends on the hash, which nobody can choose: it tells nothing.
        held = self._held.get(hashed)
        if held is None or not hmac.compare_digest(held.key.digest, hashed):
            raise Unauthorized("The API key is not one of this Footplate's.", hint=f"Make one: {CREATE}")
        key = held.key
        if key.revoked_at is not None:
            raise Unauthorized(
                f'The API key "{key.name}" is revoked.',
                hint=f"Make another: {CREATE}",
                details={"key": key.name},
            )
        if key.expires_at is not None and key.has_expired(now):
            raise Unauthorized(
                f'The API key "{key.name}" expired on {_day(key.expires_at)}.',
                hint=f"Make another: {CREATE}",
                details={"key": key.name},
            )
        if held.recent is not None:
            _count(key, held.recent, now)
        held.used_at = now
        return key

    def check_model(self, key: Key, *names: str) -> None:
        """Raise `Forbidden` if the key is not for the model that has these names (model and variant)."""
        if not key.allows(*names):
            raise Forbidden(
                f'The API key "{key.name}" is not for {names[0]}.',
                hint=f"It is for: {', '.join(key.models)}.",
                param="model",
            )

    def any_live(self, now: float) -> bool:
        """Say whether there is a key that opens anything."""
        return any(held.key.is_live(now) for held in self._held.values())

    def list(self) -> list[Key]:
        """Give every key, the revoked ones too, the oldest first, with its last use up to now."""
        return [replace(held.key, last_used_at=held.used_at) for held in self._held.values()]

    async def create(
        self,
        name: str,
        now: float,
        *,
        lifetime_seconds: float | None = None,
        models: tuple[str, ...] = (),
        requests_per_minute: int | None = None,
    ) -> tuple[Key, str]:
        """Make a key that is valid at once; its secret is given here and never again.

        Raise `Invalid` or `Conflict` if it cannot have the name.
        """
        if not NAME.fullmatch(name) or name.startswith(KEY_START) or name in TAKEN:
            raise _bad_name()
        secret = new_secret()
        key = await self._store.create(
            name,
            secret,
            now,
            expires_at=None if lifetime_seconds is None else now + lifetime_seconds,
            models=models,
            requests_per_minute=requests_per_minute,
        )
        self._hold(key)
        logger.info("a key was created", extra={"key": key.name})
        self.topic.changed()
        return key, secret

    async def revoke(self, name: str, now: float) -> Key:
        """Revoke a key by its name or its prefix: no request begins with it from now on."""
        key = await self._store.revoke(name, now)
        held = self._held[key.digest]
        held.key = key
        logger.info("a key was revoked", extra={"key": key.name})
        self.topic.changed()
        return replace(key, last_used_at=held.used_at)

    async def run(self) -> None:
        """Store when keys were used, now and then until cancelled, and at the end."""
        try:
            while True:
                await asyncio.sleep(FLUSH_SECONDS)
                await self.flush()
        finally:
            await self.flush()

    async def flush(self) -> None:
        """Store when keys were used; what cannot be stored now is tried again later."""
        used = [held for held in self._held.values() if held.used_at != held.stored_at]
        used_at = {held.key.id: held.used_at for held in used if held.used_at is not None}
        if not used_at:
            return
        try:
            await self._store.note_uses(used_at)
        except FootplateError as error:
            logger.warning("the last uses of keys are not stored yet", extra={"cause": error.message})
            return
        for held in used:
            held.stored_at = used_at[held.key.id]

    def _hold(self, key: Key) -> None:
        limit = key.requests_per_minute
        recent: deque[float] | None = None if limit is None else deque(maxlen=limit)
        self._held[key.digest] = _Held(key, key.last_used_at, key.last_used_at, recent)


@dataclass(slots=True)
class _Held:
    """A key with what changes as it is used."""

    key: Key
    used_at: float | None
    stored_at: float | None
    """The last use that the database knows of."""
    recent: deque[float] | None
    """When it was let through, at most as often as it may be in a minute; None without a limit."""


def _count(key: Key, recent: deque[float], now: float) -> None:
    """Let a request through unless as many as are allowed came in the last minute; refused ones are free."""
    if recent and recent[-1] > now:  # the clock was set back
        recent.clear()
    if len(recent) == recent.maxlen and now - recent[0] < MINUTE:
        raise Busy(
            f'The API key "{key.name}" has had its {key.requests_per_minute} requests of this minute.',
            hint="Wait as long as Retry-After says, or make a key with a higher --rpm.",
            retry_after=MINUTE - (now - recent[0]),
            details={"key": key.name},
        )
    recent.append(now)


def _no_key() -> Unauthorized:
    return Unauthorized(
        "There is no API key in this request.",
        hint=f'Send "Authorization: Bearer KEY" or "x-api-key: KEY"; make one: {CREATE}',
    )


def _bad_name() -> Invalid:
    # Without the name: it may be a secret that was pasted in its place.
    return Invalid(
        "This cannot be a key's name.",
        hint=f"Use up to 64 letters, digits and . _ -, beginning with a letter or digit but not {KEY_START}",
        param="name",
    )


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))
