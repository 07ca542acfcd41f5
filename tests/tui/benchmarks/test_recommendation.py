"""Which entrant to keep."""

import re

import pytest
from tests.tui.benchmarks.runs import Engine, Matrix, run

from footplate_daemon.wire_benchmarks import WorkloadKind
from footplate_tui.benchmarks.recommendation import Recommendation, recommend

MIXED = Matrix(workloads=(WorkloadKind.SHORT, WorkloadKind.CHAT), concurrency=(1, 8), repeats=2)


def only(*engines: Engine, matrix: Matrix | None = None) -> Recommendation:
    (found,) = recommend(run(*engines, matrix=matrix))
    return found


def test_who_is_best_at_everything_is_kept() -> None:
    found = only(Engine(), Engine("vllm", ttft_ms=20, itl_ms=4, ram_bytes=900_000_000), matrix=MIXED)

    assert (found.keep, found.is_certain) == ("llamacpp/guide", True)
    assert [(prize.what, prize.winner, prize.is_certain) for prize in found.prizes] == [
        ("the fastest first token", "llamacpp/guide", True),
        ("the fastest stream", "llamacpp/guide", True),
        ("the most throughput", "llamacpp/guide", True),
        ("the least memory", "llamacpp/guide", True),
    ]
    assert found.sentence.startswith("Keep llamacpp/guide. It has the fastest first token (")
    assert "price" not in found.sentence


def test_the_trade_off_is_told() -> None:
    found = only(Engine(itl_ms=4.0), Engine("vllm", ttft_ms=200, itl_ms=2.0, ram_bytes=900_000_000))

    assert found.keep == "llamacpp/guide"
    assert re.search(
        r"The price: vllm/guide has the fastest stream \(\d+ tok/s; llamacpp/guide", found.sentence
    )


def test_what_is_too_close_is_said_to_be_uncertain() -> None:
    small, large = Engine("vllm", noise=0.3), Engine(noise=0.3, ram_bytes=900_000_000)

    found = only(large, small)

    assert not found.is_certain
    assert found.keep == "vllm/guide"
    assert found.sentence.startswith(
        "Keep vllm/guide, but this is uncertain: llamacpp/guide may be as fast on the whole."
    )
    assert not any(prize.is_certain for prize in found.prizes if "fastest" in prize.what)


@pytest.mark.parametrize(
    ("flaw", "reason"),
    [
        ({"fails": 1}, "1 of 24 requests failed"),
        ({"disturbed_by": 2}, "the engine had 2 requests of others meanwhile"),
        ({"ignored": ("ignore_eos",)}, "ignore_eos is ignored"),
        ({"error": "no GPU"}, "nothing was measured: no GPU"),
    ],
)
def test_who_cannot_be_compared_is_left_out_however_fast(flaw: dict[str, object], reason: str) -> None:
    quick = Engine("vllm", **{"ttft_ms": 1.0, "itl_ms": 0.5, **flaw})  # type: ignore[arg-type]  # made up

    found = only(Engine(), quick)

    assert found.keep == "llamacpp/guide"
    assert found.left_out == (("vllm/guide", reason),)
    assert found.sentence.endswith(f"vllm/guide is left out: {reason}.")


def test_a_seed_that_is_ignored_matters_little() -> None:
    found = only(Engine(), Engine("vllm", ttft_ms=1.0, itl_ms=0.5, ignored=("seed",)))

    assert (found.keep, found.left_out) == ("vllm/guide", ())


def test_with_one_entrant_there_is_nothing_to_choose() -> None:
    assert "nothing to choose from" in only(Engine()).sentence


def test_without_a_figure_nothing_is_recommended() -> None:
    found = only(Engine(error="no"), Engine("vllm", error="no"))

    assert (found.keep, found.is_certain) == (None, False)
    assert "Nothing can be said of guide" in found.sentence


def test_each_model_has_its_own() -> None:
    found = recommend(run(Engine(), Engine("vllm", itl_ms=9), Engine(model="other", itl_ms=0.1)))

    assert [(each.model, each.keep) for each in found] == [
        ("guide", "llamacpp/guide"),
        ("other", "llamacpp/other"),
    ]


def test_presets_tell_entrants_of_one_variant_apart() -> None:
    found = only(Engine(preset="low-vram", itl_ms=4), Engine(preset="balanced"))

    assert found.keep == "llamacpp/guide (balanced)"


def test_gpu_memory_counts_where_everyone_has_it() -> None:
    found = only(
        Engine(vram_bytes=4_000_000_000), Engine("vllm", vram_bytes=5_000_000_000, ram_bytes=1_000_000)
    )

    assert ("the least GPU memory", "llamacpp/guide", "4.00 GB") in [
        (prize.what, prize.winner, prize.value) for prize in found.prizes
    ]
