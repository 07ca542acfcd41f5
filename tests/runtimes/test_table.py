"""What the runtimes say of themselves is what the document says, and true as far as nothing is started."""

from pathlib import Path

import pytest

from footplate_daemon.errors import Invalid
from footplate_daemon.runtimes.base import LaunchPlan, Runtime
from footplate_daemon.runtimes.cases import PROMISES, Case
from footplate_daemon.runtimes.llamacpp import LlamaCpp
from footplate_daemon.runtimes.ollama import Ollama
from footplate_daemon.runtimes.table import RUNTIMES, page
from footplate_daemon.runtimes.transformers import Transformers
from footplate_daemon.runtimes.vllm import Vllm
from footplate_daemon.switching.probe import ask

DOCUMENT = Path(__file__).parents[2] / "docs" / "runtimes.md"
ALL: list[Runtime] = [
    LlamaCpp(environment={}),
    Vllm(environment={}),
    Transformers(environment={}),
    Ollama(environment={}, ask=ask),
]
PATHS = {Case.EMBEDDINGS: ("/v1/embeddings", "embedding"), Case.RERANKING: ("/v1/rerank", "rerank")}


def test_the_document_is_current() -> None:
    assert DOCUMENT.read_text() == page(), "python -m footplate_daemon.runtimes.table > docs/runtimes.md"


def test_every_case_has_a_row() -> None:
    assert list(PROMISES) == list(Case)


@pytest.mark.parametrize("runtime", ALL, ids=lambda runtime: runtime.name)
def test_the_table_is_what_the_runtime_says(runtime: Runtime) -> None:
    assert RUNTIMES[runtime.name] == (runtime.cannot, runtime.needs)


@pytest.mark.parametrize("case", PATHS)
@pytest.mark.parametrize("runtime", ALL, ids=lambda runtime: runtime.name)
def test_a_runtime_refuses_what_it_cannot_serve(runtime: Runtime, case: Case) -> None:
    path, capability = PATHS[case]
    plan = LaunchPlan("v", "/model", "m", 1, command=("program",), capabilities=(capability,))

    try:
        runtime.launch(plan)
        runtime.call(path, {"input": "x", "query": "x", "documents": ["x"]}, "m")
        can = True
    except Invalid:
        can = False

    assert can is (case not in runtime.cannot)
