import pytest
from hypothesis import given
from hypothesis import strategies as st

from footplate_daemon.store.packing import LIMIT, NOT_PACKED, PACKED_AT, Packing, packed, unpacked

pieces = st.lists(st.binary(max_size=3 * PACKED_AT) | st.just(b"data: {}\n\n" * 500), max_size=6)


@given(pieces)
def test_a_body_that_was_packed_as_it_passed_comes_back(given: list[bytes]) -> None:
    assert unpacked(Packing(given).packed()) == b"".join(given)


@given(pieces)
def test_what_has_come_so_far_can_be_read_at_any_time(given: list[bytes]) -> None:
    packing = Packing()
    for count, piece in enumerate(given, 1):
        packing.add(piece)

        assert unpacked(packing.packed()) == b"".join(given[:count])


@pytest.mark.parametrize("size", [0, 1, NOT_PACKED, NOT_PACKED + 1, LIMIT])
def test_a_body_packed_at_once_comes_back(size: int) -> None:
    assert unpacked(packed(b"x" * size)) == b"x" * size


def test_a_body_that_is_too_long_is_not_kept() -> None:
    assert packed(b"x" * (LIMIT + 1)) is None
    assert Packing([b"x" * LIMIT, b"x"]).packed() is None


def test_a_long_stream_takes_little_memory() -> None:
    event = b'data: {"choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}]}\n\n'

    packing = Packing(event for _ in range(40_000))

    assert packing.byte_count > 3_000_000
    assert packing.memory_bytes < 100_000
