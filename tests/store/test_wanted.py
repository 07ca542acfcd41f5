import pytest

from footplate_daemon.store.database import Database
from footplate_daemon.store.wanted import Wanted, WantedStore


@pytest.fixture
def store(database: Database) -> WantedStore:
    return WantedStore(database)


async def test_nothing_was_ever_wanted_differs_from_nothing_is_wanted(store: WantedStore) -> None:
    assert await store.wanted() is None

    await store.set_wanted(Wanted(None))

    assert await store.wanted() == Wanted(None)


async def test_the_last_wish_counts(store: WantedStore) -> None:
    await store.set_wanted(Wanted("vllm/qa"))
    await store.set_wanted(Wanted("ollama/qa", "low-vram", 2048))

    assert await store.wanted() == Wanted("ollama/qa", "low-vram", 2048)


async def test_each_runtime_has_its_last_model(store: WantedStore) -> None:
    await store.set_last_model("vllm", "qa")
    await store.set_last_model("vllm", "gemma")
    await store.set_last_model("ollama", "qa")

    assert await store.last_model("vllm") == "gemma"
    assert await store.last_model("ollama") == "qa"
    assert await store.last_model("llamacpp") is None
