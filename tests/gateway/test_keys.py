"""The key ring: who may, and how often."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footplate_daemon.errors import Busy, Conflict, FootplateError, Forbidden, Invalid, NotFound, Unauthorized
from footplate_daemon.gateway.keys import KeyRing, presented
from footplate_daemon.store.database import Database
from footplate_daemon.store.keys import Key, KeyStore, digest

NOW = 1_700_000_000.0


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[KeyStore]:
    async with Database.open(tmp_path / "footplate.db") as database:
        yield KeyStore(database)


@pytest.fixture
async def ring(store: KeyStore) -> KeyRing:
    return await opened(store)


async def opened(store: KeyStore) -> KeyRing:
    ring = KeyRing(store)
    await ring.open()
    return ring


@pytest.mark.parametrize(
    ("authorization", "x_api_key", "key"),
    [
        (None, None, None),
        (b"Bearer fp-a", None, b"fp-a"),
        (b"bearer  fp-a ", None, b"fp-a"),
        (b"Bearer ", None, None),
        (b"Bearer ", b"fp-b", b"fp-b"),
        (b"Basic dXNlcjpmcC1h", None, None),
        (b"Basic dXNlcjpmcC1h", b"fp-b", b"fp-b"),
        (None, b" fp-b ", b"fp-b"),
        (None, b"", None),
        (b"Bearer fp-a", b"fp-b", b"fp-a"),
    ],
)
def test_a_key_is_taken_from_either_header(
    authorization: bytes | None, x_api_key: bytes | None, key: bytes | None
) -> None:
    assert presented(authorization, x_api_key) == key


async def test_a_new_key_opens_at_once_and_after_a_restart(ring: KeyRing, store: KeyStore) -> None:
    key, secret = await ring.create("laptop", NOW)

    assert secret.startswith(key.prefix)
    assert ring.check(secret.encode(), NOW).name == "laptop"
    assert (await opened(store)).check(secret.encode(), NOW) == key


async def test_whatever_does_not_open_says_why_and_what_to_do(ring: KeyRing) -> None:
    _, revoked = await ring.create("old", NOW)
    await ring.revoke("old", NOW)
    _, expired = await ring.create("short", NOW, lifetime_seconds=60)

    told = [refusal(ring, key, NOW + 60) for key in (None, b"fp-wrong", revoked.encode(), expired.encode())]

    assert [error.message for error in told] == [
        "There is no API key in this request.",
        "The API key is not one of this Footplate's.",
        'The API key "old" is revoked.',
        'The API key "short" expired on 2023-11-14 22:14 UTC.',
    ]
    assert all("footplate keys create NAME" in (error.hint or "") for error in told)
    assert {type(error) for error in told} == {Unauthorized}
    assert ring.check(expired.encode(), NOW + 59.9).name == "short"


def refusal(ring: KeyRing, secret: bytes | None, now: float) -> FootplateError:
    with pytest.raises(FootplateError) as caught:
        ring.check(secret, now)
    return caught.value


@given(st.binary(max_size=80))
def test_nothing_but_a_key_opens(secret: bytes) -> None:
    key = Key(1, "laptop", "fp-abcdef", digest(b"fp-abcdefgh"), NOW)
    ring = holding(key)

    error = refusal(ring, secret, NOW)

    assert isinstance(error, Unauthorized)
    assert ring.check(b"fp-abcdefgh", NOW) is key


def holding(key: Key) -> KeyRing:
    ring = KeyRing.__new__(KeyRing)
    ring._held = {}
    ring._hold(key)
    return ring


@given(
    st.integers(1, 5),
    st.lists(st.floats(0, 40, allow_nan=False), max_size=60),
)
def test_in_no_minute_pass_more_than_are_allowed_and_retry_after_is_true(
    limit: int, pauses: list[float]
) -> None:
    ring = holding(Key(1, "ci", "fp-abcdef", digest(b"fp-abcdefgh"), NOW, requests_per_minute=limit))
    passed: list[float] = []
    now = NOW
    for pause in pauses:
        now += pause
        in_last_minute = [at for at in passed if now - at < 60]
        if len(in_last_minute) < limit:
            ring.check(b"fp-abcdefgh", now)
            passed.append(now)
            continue
        error = refusal(ring, b"fp-abcdefgh", now)
        assert isinstance(error, Busy)
        assert error.retry_after == 60 - (now - in_last_minute[0])

    assert len(ring._held[digest(b"fp-abcdefgh")].recent or ()) <= limit


def test_a_clock_that_is_set_back_shuts_nobody_out() -> None:
    ring = holding(Key(1, "ci", "fp-abcdef", digest(b"fp-abcdefgh"), NOW, requests_per_minute=1))
    ring.check(b"fp-abcdefgh", NOW)

    assert ring.check(b"fp-abcdefgh", NOW - 3600)
    assert isinstance(refusal(ring, b"fp-abcdefgh", NOW - 3599), Busy)


async def test_a_busy_key_says_when_to_come_back(ring: KeyRing) -> None:
    _, secret = await ring.create("ci", NOW, requests_per_minute=2)
    ring.check(secret.encode(), NOW)
    ring.check(secret.encode(), NOW + 1)

    error = refusal(ring, secret.encode(), NOW + 15)

    assert error.message == 'The API key "ci" has had its 2 requests of this minute.'
    assert error.retry_after == 45
    assert ring.check(secret.encode(), NOW + 60)


async def test_a_key_for_some_models_is_for_no_others(ring: KeyRing) -> None:
    narrow, _ = await ring.create("ci", NOW, models=("qwen", "vllm/gemma"))
    wide, _ = await ring.create("laptop", NOW)

    ring.check_model(narrow, "qwen", "llamacpp/qwen")
    ring.check_model(narrow, "gemma", "vllm/gemma")
    ring.check_model(wide, "gemma", "ollama/gemma")
    with pytest.raises(Forbidden) as caught:
        ring.check_model(narrow, "gemma", "ollama/gemma")

    assert caught.value.message == 'The API key "ci" is not for gemma.'
    assert caught.value.hint == "It is for: qwen, vllm/gemma."
    assert (caught.value.http_status, caught.value.param) == (403, "model")


@pytest.mark.parametrize("name", ["", "a b", "-x", "fp-x", "ü", "a/b", "a\n", "x" * 65])
async def test_a_name_that_would_confuse_is_refused(ring: KeyRing, name: str) -> None:
    with pytest.raises(Invalid, match="cannot be a key's name"):
        await ring.create(name, NOW)

    assert ring.list() == []


async def test_there_are_live_keys_until_the_last_is_revoked_or_expired(ring: KeyRing) -> None:
    assert not ring.any_live(NOW)

    await ring.create("short", NOW, lifetime_seconds=60)
    await ring.create("long", NOW)
    await ring.revoke("long", NOW)

    assert ring.any_live(NOW + 59)
    assert not ring.any_live(NOW + 60)


async def test_who_follows_the_ring_learns_of_keys_made_and_revoked(ring: KeyRing) -> None:
    followed = ring.topic.follow()
    seen = [[key.is_live(NOW) for key in await anext(followed)]]

    await ring.create("ci", NOW)
    seen.append([key.is_live(NOW) for key in await anext(followed)])
    await ring.revoke("ci", NOW)
    seen.append([key.is_live(NOW) for key in await anext(followed)])

    assert seen == [[], [True], [False]]


async def test_the_last_use_is_known_at_once_and_stored_with_the_next_flush(
    ring: KeyRing, store: KeyStore
) -> None:
    _, secret = await ring.create("ci", NOW)
    ring.check(secret.encode(), NOW + 5)

    assert [key.last_used_at for key in ring.list()] == [NOW + 5]
    assert [key.last_used_at for key in await store.list()] == [None]
    await ring.flush()
    assert [key.last_used_at for key in await store.list()] == [NOW + 5]
    assert (await ring.revoke("ci", NOW + 6)).last_used_at == NOW + 5


async def test_a_refused_request_is_no_use_of_the_key(ring: KeyRing) -> None:
    _, secret = await ring.create("ci", NOW, lifetime_seconds=10)

    refusal(ring, secret.encode(), NOW + 10)

    assert [key.last_used_at for key in ring.list()] == [None]


class FullDisk(KeyStore):
    """A store that takes no uses."""

    async def note_uses(self, used_at: object) -> None:  # noqa: ARG002 - the store's signature
        raise Conflict("The disk is full.")


async def test_uses_that_cannot_be_stored_are_tried_again(store: KeyStore) -> None:
    full = await opened(FullDisk(store._database))
    _, secret = await full.create("ci", NOW)
    full.check(secret.encode(), NOW + 5)

    await full.flush()
    full._store = store
    await full.flush()

    assert [key.last_used_at for key in await store.list()] == [NOW + 5]


async def test_no_log_and_no_error_ever_holds_a_secret(
    ring: KeyRing, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key, secret = await ring.create("ci", NOW, models=("qwen",), requests_per_minute=1)
    ring.check(secret.encode(), NOW)
    told = [refusal(ring, secret.encode(), NOW), refusal(ring, b"x" + secret.encode(), NOW)]
    with pytest.raises(Forbidden) as forbidden:
        ring.check_model(key, "gemma")
    with pytest.raises(Invalid) as invalid:
        await ring.create(secret, NOW)
    with pytest.raises(NotFound) as missing:
        await ring.revoke("fp-no" + secret, NOW)
    await ring.revoke(secret, NOW)
    told += [refusal(ring, secret.encode(), NOW), forbidden.value, invalid.value, missing.value]

    text = str([vars(record) for record in caplog.records]) + "".join(
        f"{error!r} {error.hint}" for error in told
    )
    assert secret[len(key.prefix) :] not in text
    assert [record.message for record in caplog.records if "key" in record.message] == [
        "a key was created",
        "a key was revoked",
    ]
