"""The fake driver's library, built once."""

from pathlib import Path

import pytest
from tests.fakes.nvml.driver import build


@pytest.fixture(scope="session")
def nvml_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml"))
