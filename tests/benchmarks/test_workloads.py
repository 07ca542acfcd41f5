import itertools

import pytest

from footplate_daemon.benchmarks.files import Line
from footplate_daemon.benchmarks.workloads import ROUTER_FORMAT, Prompt, Scale, Work, prompts
from footplate_daemon.wire_benchmarks import WorkloadKind

KINDS = [kind for kind in WorkloadKind if kind is not WorkloadKind.FILE]
UNIQUE = [kind for kind in KINDS if kind is not WorkloadKind.REPEAT]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_prompts(kind: WorkloadKind) -> None:
    assert made(kind) == made(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_gives_others(kind: WorkloadKind) -> None:
    assert [prompt.messages for prompt in made(kind)] != [prompt.messages for prompt in made(kind, seed=8)]


@pytest.mark.parametrize("kind", UNIQUE)
def test_prompts_differ_from_their_first_word_on(kind: WorkloadKind) -> None:
    rounds = [made(kind, round_name=name, count=40) for name in ("1.0", "1.1", "4.0")]

    beginnings = [prompt.messages[0]["content"].split()[0] for prompt in itertools.chain(*rounds)]

    assert len(set(beginnings)) == len(beginnings)


def test_a_warm_up_asks_nothing_that_is_measured() -> None:
    warm_ups, measured = (made(WorkloadKind.SHORT, first=first) for first in (-8, 0))

    assert not {p.mark for p in warm_ups} & {p.mark for p in measured}


@pytest.mark.parametrize("kind", UNIQUE)
def test_prompts_begin_alike_where_the_cache_is_measured(kind: WorkloadKind) -> None:
    texts = [prompt.messages[0]["content"] for prompt in made(kind, cache="measure")]

    assert len({text[:1000] for text in texts}) == 1
    assert len({str(prompt.messages) for prompt in made(kind, cache="measure")}) > 1


def test_repeat_asks_the_same_each_time_and_leaves_nothing_to_chance() -> None:
    asked = made(WorkloadKind.REPEAT, round_name="1.0") + made(WorkloadKind.REPEAT, round_name="1.1")

    assert len({str(prompt.messages) for prompt in asked}) == 1
    assert asked[0].fixed == {"temperature": 0, "seed": 7}


def test_the_router_asks_for_an_object_of_a_schema() -> None:
    (prompt, *_) = made(WorkloadKind.JSON_ROUTER)

    assert prompt.fixed["response_format"] == ROUTER_FORMAT
    assert prompt.schema["required"] == ["category", "urgency", "needs_human"]


@pytest.mark.parametrize("kind", [WorkloadKind.LONG_PROMPT, WorkloadKind.SHORT, WorkloadKind.CHAT])
def test_a_prompt_is_as_long_as_it_is_to_be(kind: WorkloadKind) -> None:
    scale = Scale(per_word=2.0, beside=50.0)

    for prompt in made(kind, prompt_tokens=2000, scale=scale):
        words = sum(len(message["content"].split()) for message in prompt.messages)
        assert 1700 < words * 2 + 50 < 2200


def test_a_scale_goes_through_what_was_measured() -> None:
    scale = Scale.through((60, 200), (240, 650))

    assert scale == Scale(2.5, 50.0)
    assert scale.words(2000) == 780


def test_the_answer_of_a_workload_goes_over_that_of_its_kind() -> None:
    (usual, *_) = made(WorkloadKind.SHORT)
    (fixed, *_) = made(WorkloadKind.SHORT, answer_tokens=5)

    assert usual.usual == {"max_tokens": 64}
    assert fixed.fixed == {"max_tokens": 5}


def test_lines_of_a_file_go_round_and_are_marked() -> None:
    pictures = {"role": "user", "content": [{"type": "text", "text": "b"}]}
    lines = (Line(({"role": "user", "content": "a"},), 9), Line((pictures,)))

    first, second, third = made(WorkloadKind.FILE, lines=lines, count=3)

    assert first.messages[0]["content"].endswith("] a")
    assert second.messages[0]["content"][1] == {"type": "text", "text": "b"}
    assert third.messages[0]["content"].endswith("] a")
    assert first.usual == {"max_tokens": 9}


def test_lines_of_a_file_are_sent_as_they_are_where_the_cache_is_measured() -> None:
    lines = (Line(({"role": "user", "content": "a"},)),)

    (prompt,) = made(WorkloadKind.FILE, lines=lines, count=1, cache="measure")

    assert prompt.messages == lines[0].messages


def made(
    kind: WorkloadKind,
    *,
    count: int = 8,
    first: int = 0,
    round_name: str = "1.0",
    scale: Scale | None = None,
    **fields: object,
) -> list[Prompt]:
    work = Work(**{"kind": kind, "name": kind.value, "requests": count, "seed": 7} | fields)  # type: ignore[arg-type] # of many types
    return prompts(work, range(first, first + count), round_name, scale)
