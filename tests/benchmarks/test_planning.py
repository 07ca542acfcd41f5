from pathlib import Path
from typing import Any

import pytest

from footplate_daemon.benchmarks.planning import Matrix, plan
from footplate_daemon.catalog import Catalog
from footplate_daemon.errors import FootplateError, Invalid, NotFound
from footplate_daemon.settings import Settings
from footplate_daemon.wire_benchmarks import BenchmarkWish

CATALOG = Catalog.build(
    Settings.model_validate(
        {
            "models": {
                "small": {
                    "vllm": {"weights": "org/small", "context": 4096},
                    "llamacpp": {"weights": "small.gguf", "context": 2048},
                },
                "far": {"remote": {"url": "http://127.0.0.1:1"}},
                "embedder": {"vllm": {"weights": "org/embedder", "capabilities": ["embedding"]}},
            }
        }
    ),
    models_dir=Path("/models"),
    guide=Path("/guide.gguf"),
)


async def test_every_variant_gets_every_workload_at_every_concurrency_in_every_round() -> None:
    matrix = await planned(
        variants=[{"name": "vllm/small"}, {"name": "llamacpp/small"}],
        workloads=[{"kind": "short"}, {"kind": "chat"}],
        concurrency=[1, 4],
        repeats=2,
    )

    assert len(matrix.cells) == 2 * 2 * 2 * 2
    assert [cell.number for cell in matrix.cells] == list(range(16))
    assert [(c.repeat, c.workload, c.concurrency) for c in matrix.cells[:5]] == [
        (0, "short", 1), (0, "short", 4), (0, "chat", 1), (0, "chat", 4), (1, "short", 1),
    ]  # fmt: skip


async def test_a_ramp_has_its_own_levels() -> None:
    matrix = await planned(workloads=[{"kind": "concurrency", "levels": [1, 3]}], concurrency=[7])

    assert [cell.concurrency for cell in matrix.cells] == [1, 3]


async def test_each_preset_makes_an_entrant_of_its_own() -> None:
    matrix = await planned(presets=["low-vram", "balanced"])

    assert [seat.entrant.preset for seat in matrix.seats] == ["low-vram", "balanced"]


async def test_a_long_prompt_leaves_room_for_its_answer_in_the_smallest_context() -> None:
    matrix = await planned(
        variants=[{"name": "vllm/small"}, {"name": "llamacpp/small"}],
        workloads=[{"kind": "long-prompt", "max_tokens": 100}],
    )

    (work,) = matrix.works
    assert work.prompt_tokens is not None
    assert 1900 < work.prompt_tokens + 100 < 2048


async def test_a_long_prompt_without_any_context_is_a_guess_and_said_to_be_one() -> None:
    matrix = await planned(variants=[{"name": "remote/far"}], workloads=[{"kind": "long-prompt"}])

    assert "2048" in matrix.warnings[0]


async def test_a_file_is_asked_line_by_line() -> None:
    matrix = await planned(workloads=[{"kind": "file", "lines": ['{"prompt": "a"}', '{"prompt": "b"}']}])

    assert [cell.requests for cell in matrix.cells] == [2]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"variants": [{"name": "vllm/small"}, {"name": "unheard-of"}]}, "variants.1.name"),
        ({"variants": [{"name": "small", "runtime": "ollama"}]}, "variants.0.name"),
        ({"variants": [{"name": "vllm/small", "preset": "unheard-of"}]}, "variants.0.preset"),
        ({"presets": ["unheard-of"]}, "variants.0.preset"),
        ({"variants": [{"name": "vllm/embedder"}]}, "variants.0.name"),
        ({"variants": [{"name": "vllm/small"}, {"name": "vllm/small"}]}, "variants"),
        ({"concurrency": [1, 0]}, "concurrency"),
        ({"workloads": [{"kind": "concurrency", "levels": [5000]}]}, "workloads.0.levels"),
        ({"workloads": [{"kind": "short", "levels": [1]}]}, "workloads.0.levels"),
        ({"workloads": [{"kind": "short"}, {"kind": "file"}]}, "workloads.1.lines"),
        ({"workloads": [{"kind": "short", "lines": ["{}"]}]}, "workloads.0.lines"),
        ({"workloads": [{"kind": "file", "lines": ["{"]}]}, "workloads.0.lines"),
        ({"workloads": [{"kind": "short"}, {"kind": "short"}]}, "workloads"),
        ({"parameters": {"stream": False}}, "parameters.stream"),
        ({"parameters": {"temperature": "hot"}}, "temperature"),
    ],
)
async def test_what_is_wrong_is_refused_with_its_field_and_a_remedy(
    fields: dict[str, Any], param: str
) -> None:
    with pytest.raises((Invalid, NotFound)) as error:
        await planned(**fields)

    assert isinstance(error.value, FootplateError)
    assert error.value.param == param
    assert error.value.hint


async def test_more_cells_than_anybody_can_wait_for_are_refused() -> None:
    with pytest.raises(Invalid, match="1600 cells"):
        await planned(repeats=100, concurrency=list(range(1, 17)))


async def planned(**fields: Any) -> Matrix:
    wish = BenchmarkWish.model_validate({"variants": [{"name": "vllm/small"}]} | fields)

    async def find(name: str | None, runtime: str | None) -> Any:
        return CATALOG.resolve(name or "", runtime)

    return await plan(wish, find)
