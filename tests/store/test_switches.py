import pytest

from footplate_daemon.errors import NotFound
from footplate_daemon.store.database import Database
from footplate_daemon.store.switches import SwitchStore
from footplate_daemon.wire import Diagnosis, Step, StepName, Switch


@pytest.fixture
def store(database: Database) -> SwitchStore:
    return SwitchStore(database)


def _switch(switch_id: int, load: float = 1.0, **changes: object) -> Switch:
    steps = (
        Step(name=StepName.START, started_at=10.0, seconds=0.5),
        Step(name=StepName.LOAD, started_at=10.5, seconds=load),
    )
    switch = Switch(id=switch_id, variant="vllm/qa", outcome="done", started_at=10.0, steps=steps)
    return switch.model_copy(update=changes)


async def test_a_switch_comes_back_as_it_was_saved_last(store: SwitchStore) -> None:
    failed = _switch(1, outcome="failed", diagnosis=Diagnosis(code="x", cause="Y.", evidence=("log",)))

    await store.save(_switch(1, outcome="running", steps=()))
    await store.save(failed)

    assert await store.get(1) == failed
    assert await store.list() == [failed]


async def test_numbers_go_on_after_a_restart(store: SwitchStore) -> None:
    assert await store.newest_id() == 0

    await store.save(_switch(7))

    assert await store.newest_id() == 7


async def test_a_switch_that_is_not_there_is_not_found(store: SwitchStore) -> None:
    with pytest.raises(NotFound, match="no switch 3"):
        await store.get(3)


async def test_a_switch_of_a_former_daemon_becomes_failed(store: SwitchStore) -> None:
    await store.save(_switch(1))
    await store.save(_switch(2, outcome="running"))

    count = await store.cut_unfinished(now=99.0)

    cut = await store.get(2)
    assert count == 1
    assert (cut.outcome, cut.ended_at) == ("failed", 99.0)
    assert cut.diagnosis is not None
    assert cut.diagnosis.code == "daemon_stopped"
    assert await store.cut_unfinished(now=100.0) == 0


async def test_the_median_is_of_the_last_ten_that_succeeded_under_the_same_preset(store: SwitchStore) -> None:
    for switch_id, seconds in enumerate([900.0] * 5 + [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 100.0]):
        await store.save(_switch(switch_id, seconds))
    await store.save(_switch(100, 77.0, outcome="failed"))
    await store.save(_switch(101, 77.0, preset="low-vram"))
    await store.save(_switch(102, 77.0, variant="vllm/other"))

    assert await store.median_steps("vllm/qa", None) == {StepName.START: 0.5, StepName.LOAD: 5.5}
    assert await store.median_steps("vllm/qa", "low-vram") == {StepName.START: 0.5, StepName.LOAD: 77.0}
    assert await store.median_steps("vllm/new", None) == {}


async def test_the_last_load_of_each_variant_is_known(store: SwitchStore) -> None:
    await store.save(_switch(1, 30.0))
    await store.save(_switch(2, 2.0))
    await store.save(_switch(3, 4.0, variant="ollama/qa"))

    assert await store.last_load_seconds() == {"vllm/qa": 2.5, "ollama/qa": 4.5}


async def test_the_highest_memory_peak_of_each_preset_is_kept(store: SwitchStore) -> None:
    for peak in (5, 9, 7):
        await store.record_memory("vllm/qa", None, peak, now=1.0)
    await store.record_memory("vllm/qa", "low-vram", 3, now=1.0)

    assert await store.memory_peaks() == {("vllm/qa", None): 9, ("vllm/qa", "low-vram"): 3}
    assert await store.memory_peak("vllm/qa", "max-context") is None
