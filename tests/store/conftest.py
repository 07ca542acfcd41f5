from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from footplate_daemon.store.database import Database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "footplate.db"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    async with Database.open(path) as database:
        yield database
