import hashlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footplate_daemon.errors import Conflict, NotFound
from footplate_daemon.store.database import Database
from footplate_daemon.store.keys import Key, KeyStore, any_live, digest, new_secret

NOW = 1_000.0


@pytest.fixture
def store(database: Database) -> KeyStore:
    return KeyStore(database)


def test_a_secret_has_256_random_bits_and_says_whose_it_is() -> None:
    secrets = {new_secret() for _ in range(1000)}

    assert len(secrets) == 1000
    assert all(re.fullmatch(r"fp-[A-Za-z0-9_-]{43}", secret) for secret in secrets)


@given(st.binary(max_size=100))
def test_the_digest_is_sha256(secret: bytes) -> None:
    assert digest(secret).hex() == hashlib.sha256(secret).hexdigest()


async def test_a_key_comes_back_as_it_was_made(store: KeyStore) -> None:
    plain = await store.create("laptop", "fp-abcdefgh", NOW)
    narrow = await store.create(
        "ci", "fp-123456789", NOW, expires_at=2000.0, models=["qwen", "vllm/gemma"], requests_per_minute=5
    )

    assert await store.list() == [plain, narrow]
    assert plain == Key(1, "laptop", "fp-abcdef", digest(b"fp-abcdefgh"), NOW)
    assert narrow.models == ("qwen", "vllm/gemma")
    assert (narrow.expires_at, narrow.requests_per_minute) == (2000.0, 5)


async def test_the_secret_is_nowhere_in_the_file(store: KeyStore, path: Path) -> None:
    secret = new_secret()

    key = await store.create("laptop", secret, NOW)

    written = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert secret[len(key.prefix) :].encode() not in written
    assert secret not in repr(key)
    assert digest(secret.encode()).hex() not in repr(key)


async def test_a_name_is_of_one_live_key_alone(store: KeyStore) -> None:
    await store.create("ci", "fp-first", NOW, expires_at=NOW + 10)

    with pytest.raises(Conflict, match='"ci" already') as caught:
        await store.create("ci", "fp-second", NOW + 9)

    assert caught.value.hint == "Take another name, or revoke it first: footplate keys revoke ci"
    renewed = await store.create("ci", "fp-third", NOW + 10)
    assert (await store.revoke("ci", NOW + 11)).id == renewed.id
    again = await store.create("ci", "fp-fourth", NOW + 12)
    assert again.is_live(NOW + 12)


@pytest.mark.parametrize("word", ["laptop", "fp-abcdef", "fp-ab", "fp-abcdefgh-and-all-the-rest"])
async def test_a_key_is_revoked_by_its_name_its_prefix_or_itself(store: KeyStore, word: str) -> None:
    await store.create("laptop", "fp-abcdefgh-and-all-the-rest", NOW)
    other = await store.create("ci", "fp-123456789", NOW)

    revoked = await store.revoke(word, NOW + 1)

    assert (revoked.name, revoked.revoked_at) == ("laptop", NOW + 1)
    assert not revoked.is_live(NOW + 1)
    assert await store.list() == [revoked, other]


@pytest.mark.parametrize("word", ["nope", "fp-", "fp-nope", "gone", ""])
async def test_what_is_not_there_cannot_be_revoked(store: KeyStore, word: str) -> None:
    await store.create("laptop", "fp-abcdefgh", NOW)
    await store.create("gone", "fp-gonegone", NOW)
    await store.revoke("gone", NOW)

    with pytest.raises(NotFound) as caught:
        await store.revoke(word, NOW)

    assert caught.value.hint == "There is: laptop."


async def test_a_secret_that_was_pasted_as_a_name_is_not_repeated(store: KeyStore) -> None:
    with pytest.raises(NotFound) as caught:
        await store.revoke("fp-0123456789", NOW)

    assert "fp-012345" in caught.value.message
    assert "6789" not in caught.value.message


async def test_a_prefix_of_several_keys_is_refused(store: KeyStore) -> None:
    await store.create("one", "fp-abc1", NOW)
    await store.create("two", "fp-abc2", NOW)

    with pytest.raises(Conflict, match="one, two"):
        await store.revoke("fp-abc", NOW)


async def test_the_last_use_is_stored(store: KeyStore) -> None:
    key = await store.create("laptop", "fp-abcdefgh", NOW)

    await store.note_uses({key.id: 1234.5})

    assert [key.last_used_at for key in await store.list()] == [1234.5]


async def test_a_database_is_looked_into_while_it_is_open(store: KeyStore, path: Path) -> None:
    assert not any_live(path, NOW)

    await store.create("ci", "fp-abcdefgh", NOW, expires_at=NOW + 10)

    assert any_live(path, NOW)
    assert not any_live(path, NOW + 10)


def test_what_is_no_database_has_no_keys(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("This is no database, whatever its name may be.")

    assert not any_live(tmp_path / "text", NOW)
    assert not any_live(tmp_path / "missing?mode=rwc", NOW)
    assert not (tmp_path / "missing").exists()
