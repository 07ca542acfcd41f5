"""What is kept of the last minutes, and what is forgotten."""

from footplate_daemon.gpu.history import History
from footplate_daemon.wire import GpuSnapshot, Sample


def snapshot(at: float) -> GpuSnapshot:
    gpu = Sample(index=0, uuid="GPU-0", name="Fake GPU", utilisation_percent=at, memory_used_bytes=7)
    return GpuSnapshot(at=at, gpus=(gpu,), cpu_percent=at / 10, ram_used_bytes=9)


def kept(*times: float, seconds: float = 600.0) -> History:
    history = History(seconds)
    for at in times:
        history.add(snapshot(at))
    return history


def test_nothing_was_read_before_the_first_reading() -> None:
    assert History().last(600).at == ()


def test_what_is_older_than_the_span_is_forgotten() -> None:
    history = kept(0, 399, 400, 700, 1000).last(9999)

    assert history.at == (400, 700, 1000)
    assert history.gpus[0].utilisation_percent == (400, 700, 1000)
    assert history.cpu_percent == (40, 70, 100)


def test_a_part_of_it_is_given_to_who_wants_no_more() -> None:
    assert kept(400, 700, 1000).last(300).at == (700, 1000)


def test_a_clock_that_was_set_back_begins_a_new_history() -> None:
    assert kept(1000, 1001, 5, 6).last(600).at == (5, 6)
