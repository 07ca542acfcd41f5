"""A session on paper and back: nothing is lost, and what is wrong is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from footplate_daemon.errors import Invalid
from footplate_daemon.store.database import Database
from footplate_daemon.store.sessions import SessionStore
from footplate_daemon.transcripts import from_json, to_json, to_markdown
from footplate_daemon.wire import Attachment, Diagnosis, Remedy, SessionWithTurns, Turn, TurnError, TurnState

TURN = Turn(
    session_id="0abc",
    number=1,
    state=TurnState.DONE,
    prompt="What is a preset?\n# Not a heading",
    parameters={"temperature": 0.2},
    answer="It holds launch parameters.",
    reasoning="Hm.",
    runtime="vllm",
    variant="vllm/qa",
    model="qa",
    preset="balanced",
    profile="default+precise",
    asked_at=1_700_000_000.0,
    ended_at=1_700_000_002.5,
    ttft_seconds=0.214,
    tokens_per_second=87.42,
    prompt_tokens=12,
    completion_tokens=42,
    finish_reason="stop",
    request_id="req-1",
)
SESSION = SessionWithTurns(
    id="0abc",
    title="Presets",
    created_at=1_700_000_000.0,
    updated_at=1_700_000_002.5,
    turn_count=1,
    last_variant="vllm/qa",
    turns=(TURN,),
)

texts = st.text(max_size=40)
names = st.none() | texts
times = st.floats(min_value=0, max_value=4e9)
amounts = st.none() | st.floats(min_value=0, max_value=1e9)
counts = st.none() | st.integers(min_value=0, max_value=2**63 - 1)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
parameters = st.dictionaries(texts, json_values, max_size=3)
remedies = st.builds(
    Remedy, id=st.integers(1, 9), title=texts, command=names, env=st.none() | st.dictionaries(texts, texts)
)
diagnoses = st.builds(
    Diagnosis,
    code=texts,
    cause=texts,
    evidence=st.lists(texts, max_size=2).map(tuple),
    remedies=st.lists(remedies, max_size=2).map(tuple),
)
failures = st.builds(TurnError, message=texts, code=texts, hint=names, diagnosis=st.none() | diagnoses)
turns = st.builds(
    Turn,
    session_id=st.just("0abc"),
    number=st.just(1),
    state=st.sampled_from([TurnState.DONE, TurnState.STOPPED, TurnState.FAILED]),
    prompt=texts,
    parameters=parameters,
    answer=texts,
    reasoning=texts,
    runtime=names,
    variant=names,
    model=names,
    preset=names,
    profile=names,
    asked_at=times,
    ended_at=st.none() | times,
    ttft_seconds=amounts,
    tokens_per_second=amounts,
    prompt_tokens=counts,
    completion_tokens=counts,
    finish_reason=names,
    request_id=names,
    error=st.none() | failures,
    warning=names,
)


@st.composite
def sessions(draw: st.DrawFn) -> SessionWithTurns:
    drawn = draw(st.lists(turns, max_size=3))
    numbered = tuple(turn.model_copy(update={"number": n}) for n, turn in enumerate(drawn, start=1))
    variants = [turn.variant for turn in numbered if turn.variant is not None]
    return SessionWithTurns(
        id="0abc",
        title=draw(texts),
        created_at=draw(times),
        updated_at=draw(times),
        turn_count=len(numbered),
        last_variant=variants[-1] if variants else None,
        system=draw(names),
        parameters=draw(parameters),
        forked_from=draw(names),
        forked_turn=draw(st.none() | st.integers(1, 9)),
        turns=numbered,
    )


@settings(deadline=None)
@given(session=sessions())
def test_what_was_written_is_read_back(session: SessionWithTurns) -> None:
    assert from_json(to_json(session).encode()) == session


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(session=sessions())
async def test_through_the_database_and_out_again_only_the_id_changes(
    database: Database, session: SessionWithTurns
) -> None:
    store = SessionStore(database)

    taken = await store.add(from_json(to_json(session).encode()), now=5.0)

    stored = await store.get(taken.id)
    turns = tuple(turn.model_copy(update={"session_id": taken.id}) for turn in session.turns)
    assert stored == session.model_copy(update={"id": taken.id, "turns": turns})
    assert from_json(to_json(stored).encode()) == stored


@settings(deadline=None)
@given(session=sessions())
def test_any_session_can_be_written_for_people(session: SessionWithTurns) -> None:
    assert to_markdown(session) == to_markdown(session)
    assert to_markdown(session).startswith("# ")


def test_markdown_reads_like_this() -> None:
    asked = SESSION.model_copy(
        update={"system": "Be brief.", "forked_from": "0aaa", "forked_turn": 1, "parameters": {"seed": 1}}
    )

    assert to_markdown(asked) == (
        "# Presets\n"
        "\n"
        "Session `0abc`, begun 2023-11-14 22:13:20 UTC.\n"
        "\n"
        "Forked from `0aaa` at turn 1.\n"
        "\n"
        'Parameters: `{"seed": 1}`\n'
        "\n"
        "System:\n"
        "\n"
        "> Be brief.\n"
        "\n"
        "## 1. 2023-11-14 22:13:20 UTC\n"
        "\n"
        "> What is a preset?\n"
        "> # Not a heading\n"
        "\n"
        "<details><summary>Reasoning</summary>\n"
        "\n"
        "> Hm.\n"
        "\n"
        "</details>\n"
        "\n"
        "It holds launch parameters.\n"
        "\n"
        '`vllm/qa` on vllm · preset `balanced` · profile `default+precise` · `{"temperature": 0.2}`'
        " · 42 tokens · 87.4 tokens/s · first after 214 ms · request `req-1`\n"
    )


def test_a_failed_turn_says_why() -> None:
    error = TurnError(message="The engine died.", code="engine_failed")
    failed = TURN.model_copy(update={"state": TurnState.FAILED, "answer": "It", "error": error})

    written = to_markdown(SESSION.model_copy(update={"turns": (failed,)}))

    assert "\n\nIt\n\n**Failed:** The engine died.\n\n`vllm/qa` on vllm" in written


@pytest.mark.parametrize(
    ("answer", "written"),
    [
        ("```python\nx = 1", "```python\nx = 1\n```"),
        ("````\n```\ninner", "````\n```\ninner\n````"),
        ("~~~\n```\n", "~~~\n```\n~~~"),
        ("```\nx\n```\nrest", "```\nx\n```\nrest"),
    ],
)
def test_a_fence_that_was_left_open_is_closed(answer: str, written: str) -> None:
    cut = TURN.model_copy(update={"answer": answer})

    assert f"</details>\n\n{written}\n\n`vllm/qa`" in to_markdown(
        SESSION.model_copy(update={"turns": (cut,)})
    )


def _with(*path: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    def change(exported: dict[str, Any]) -> None:
        inner: Any = exported
        for part in path[:-1]:
            inner = inner[part]
        inner[path[-1]] = value

    return change


LYING = {"name": "a.png", "media_type": "image/png", "byte_count": 4, "data": "TWlsaw=="}


def _without(exported: dict[str, Any]) -> None:
    del exported["session"]["turns"][0]["prompt"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (_with("format", value="chat"), "format"),
        (_with("version", value=3), "version"),
        (_with("version", value=0), "version"),
        (_with("version", value="1"), "version"),
        (_with("version", value=True), "version"),
        (_with("extra", value=1), "extra"),
        (_with("session", value=None), "session"),
        (_with("session", "title", value=7), "session.title"),
        (_with("session", "title", value="x" * 201), "session.title"),
        (_with("session", "titel", value="x"), "session.titel"),
        (_with("session", "created_at", value="today"), "session.created_at"),
        (_with("session", "created_at", value=-1), "session.created_at"),
        (_with("session", "updated_at", value=1e300), "session.updated_at"),
        (_with("session", "created_at", value=float("nan")), "session.created_at"),
        (_with("session", "parameters", "seed", value=2**63), "session.parameters.seed"),
        (_with("session", "turns", value={}), "session.turns"),
        (_without, "session.turns.0.prompt"),
        (_with("session", "turns", 0, "number", value=2), "session.turns.0.number"),
        (_with("session", "turns", 0, "number", value="1"), "session.turns.0.number"),
        (_with("session", "turns", 0, "state", value="asked"), "session.turns.0.state"),
        (_with("session", "turns", 0, "state", value="streaming"), "session.turns.0.state"),
        (_with("session", "turns", 0, "mood", value="good"), "session.turns.0.mood"),
        (_with("session", "turns", 0, "instead_of", value=1), "session.turns.0.instead_of"),
        (_with("session", "turns", 0, "after", value=0), "session.turns.0.after"),
        (_with("session", "turns", 0, "attachments", value=[LYING]), "session.turns.0.attachments.0"),
        (
            _with("session", "turns", 0, "error", value={"message": "x", "code": "y", "why": "z"}),
            "session.turns.0.error.why",
        ),
    ],
)
def test_what_is_wrong_is_named(change: Callable[[dict[str, Any]], None], field: str) -> None:
    exported = json.loads(to_json(SESSION))
    exported["session"]["parameters"] = {}
    change(exported)

    with pytest.raises(Invalid) as caught:
        from_json(json.dumps(exported).encode())

    assert caught.value.param == field
    assert caught.value.message.startswith(f"{field}: ")


def test_what_an_older_footplate_exported_is_read() -> None:
    exported = json.loads(to_json(SESSION))
    exported["version"] = 1
    for name in ("instead_of", "after", "continue_of", "attachments"):
        del exported["session"]["turns"][0][name]

    assert from_json(json.dumps(exported).encode()) == SESSION


def test_attachments_go_with_the_export_and_are_named_on_paper() -> None:
    told = Attachment(name="a.txt", media_type="text/plain", byte_count=4, data="TWlsaw==")
    session = SESSION.model_copy(update={"turns": (TURN.model_copy(update={"attachments": (told,)}),)})

    assert from_json(to_json(session).encode()) == session
    assert "> # Not a heading\n\nAttached: `a.txt`\n" in to_markdown(session)


def test_on_paper_a_turn_says_in_whose_place_it_stands() -> None:
    again = TURN.model_copy(update={"number": 2, "instead_of": 1})

    assert "Asked instead of turn 1." in to_markdown(SESSION.model_copy(update={"turns": (TURN, again)}))


def test_a_newer_version_is_refused_before_anything_else_is_looked_at() -> None:
    newer = {"format": "footplate-session", "version": 3, "chat": []}

    with pytest.raises(Invalid, match="newer Footplate") as caught:
        from_json(json.dumps(newer).encode())

    assert caught.value.hint == "Update Footplate."


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"format": "\\ud800"}',
        b"[" * 100_000,
        b'{"a": ' * 900 + b"1" + b"}" * 900,
    ],
)
def test_what_is_no_export_at_all_is_refused(raw: bytes) -> None:
    with pytest.raises(Invalid):
        from_json(raw)


def test_an_export_that_is_nested_too_deeply_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"deep": deep}
    exported = json.loads(to_json(SESSION)) | {"deep": deep}

    with pytest.raises(Invalid, match="too deeply"):
        from_json(json.dumps(exported).encode())


@pytest.fixture
async def database(tmp_path: Path) -> Any:
    async with Database.open(tmp_path / "footplate.db") as database:
        yield database
