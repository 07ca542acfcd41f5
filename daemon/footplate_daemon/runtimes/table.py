"""The document of what each runtime can and cannot do, made from what the runtimes say themselves.

python -m footplate_daemon.runtimes.table > docs/runtimes.md
"""

from collections.abc import Iterator, Mapping

from footplate_daemon.runtimes import llamacpp, ollama, transformers, vllm
from footplate_daemon.runtimes.cases import PROMISES, Case, Need

RUNTIMES: Mapping[str, tuple[Mapping[Case, str], Mapping[Case, Need]]] = {
    "llamacpp": (llamacpp.CANNOT, llamacpp.NEEDS),
    "vllm": (vllm.CANNOT, vllm.NEEDS),
    "transformers": (transformers.CANNOT, transformers.NEEDS),
    "ollama": (ollama.CANNOT, ollama.NEEDS),
}
"""Each runtime with what it cannot do, and what works under a condition."""

HEAD = """\
# What each runtime can do

A client asks every runtime in the same way, through the gateway. This is what comes of it, case by case;
tests hold each real runtime to it. `footplate explain MODEL` says where one of your models differs, and what
becomes of each parameter there.

"""
FOOT = """\

What a runtime ignores of a request is named in the header `x-footplate-ignored` of its answer, what it clamps
in `x-footplate-clamped`. An answer that is not what was wanted although nothing failed says so in its field
`x_footplate_warning`, a stream in its last chunk with a choice: all tokens went into reasoning, a prompt was
cut, reasoning cannot be switched off.

A `remote` server is asked like the others, and what it cannot do is its own.
"""


def page() -> str:
    """Give the document."""
    return HEAD + "\n".join([*_table(), *_notes()]) + "\n" + FOOT


def _table() -> Iterator[str]:
    yield f"| | {' | '.join(RUNTIMES)} | |"
    yield f"|---|{'---|' * len(RUNTIMES)}---|"
    for case, promise in PROMISES.items():
        yield f"| {case} | {' | '.join(_mark(name, case) for name in RUNTIMES)} | {promise} |"


def _mark(name: str, case: Case) -> str:
    cannot, needs = RUNTIMES[name]
    return "no" if case in cannot else "if" if case in needs else "yes"


def _notes() -> Iterator[str]:
    for name, (cannot, needs) in RUNTIMES.items():
        yield ""
        yield f"**{name}**"
        yield ""
        yield from (f"- {case}: no. {sentence}" for case, sentence in cannot.items())
        yield from (f"- {case}: needs {need.sentence}" for case, need in needs.items())


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201
