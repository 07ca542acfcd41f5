"""How the screens look, where the look is the promise: each is held to what `make looks` wrote down."""

import pytest
from scripts.looks import CASES, FOLDER, Case, look


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.removesuffix(".txt"))
async def test_a_screen_looks_as_it_was_written_down(case: Case) -> None:
    expected = (FOLDER / case.name).read_text(encoding="utf-8")

    assert (await look(case)).splitlines() == expected.splitlines(), "Is it better? Then: make looks"


def test_nothing_is_written_down_that_is_not_looked_at() -> None:
    assert {file.name for file in FOLDER.iterdir()} == {case.name for case in CASES}
