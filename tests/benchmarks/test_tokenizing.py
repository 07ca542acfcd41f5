import sys
from pathlib import Path

import pytest
from tests import engines

from footplate_daemon.benchmarks.tokenizing import WORDS, Counter, counter_for
from footplate_daemon.runtimes.vllm import Vllm
from footplate_daemon.wire_benchmarks import Tokenizer

TEXTS = ["Run: footplate up", "", "Zażółć gęślą jaźń. 🚂"]


async def test_without_a_tokenizer_words_and_marks_are_counted_and_the_result_says_so(tmp_path: Path) -> None:
    assert await counter_for([tmp_path], {}) is None
    assert not WORDS.is_models_own
    assert await Counter(WORDS).count(TEXTS) == [4, 0, 5]


@pytest.mark.vllm
async def test_the_models_own_tokenizer_counts_in_the_environment_of_a_runtime() -> None:
    vllm = Vllm(str(engines.require(engines.vllm(), "vllm")), environment={})

    counter = await counter_for([engines.GUIDE_HF], {"vllm": vllm})

    assert counter is not None
    assert counter.shape.is_models_own
    assert counter.shape.source.endswith("tokenizer.json")
    assert counter.shape.sha256
    counts = await counter.count(TEXTS)
    assert counts is not None
    assert counts[1] == 0
    assert counts[0] > 0
    assert counts[2] > 0


async def test_a_tokenizer_that_nobody_can_read_is_none(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")

    assert await counter_for([tmp_path], {}) is None


@pytest.mark.parametrize("written", ["", "[1]", '["a", "b", "c"]', "{}"])
async def test_a_program_that_counts_wrongly_is_not_believed(written: str) -> None:
    program = f"import sys; sys.stdin.read(); print({written!r})"

    assert await counting(program) is None


async def test_a_program_that_counts_is_asked_once_for_all_texts() -> None:
    program = "import json, sys; print(json.dumps([len(text) for text in json.load(sys.stdin)]))"

    assert await counting(program) == [len(text) for text in TEXTS]


async def test_a_program_that_fails_counts_nothing() -> None:
    assert await counting("raise SystemExit(3)") is None


async def counting(program: str) -> list[int] | None:
    shape = Tokenizer(source="test", is_models_own=True)
    return await Counter(shape, (sys.executable, "-c", program)).count(TEXTS)
