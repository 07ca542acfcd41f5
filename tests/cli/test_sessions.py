"""`footplate sessions` and the calls behind it, with a real daemon."""

import json
from pathlib import Path

import pytest

from footplate_daemon import errors, wire
from footplate_daemon.client import FootplateClient
from footplate_tui.cli import sessions
from tests.cli.conftest import Shell


@pytest.fixture
def footplate(started: Shell) -> Shell:
    """The command; nobody switches here, so the guide stays active."""
    return started


@pytest.fixture
def asked(footplate: Shell) -> str:
    """A session with two turns, the one used last."""
    session_id = footplate("sessions", "new").stdout.strip()
    for question in ("What is a preset?", "How do I switch runtime?"):
        answer = footplate("ask", "--session", session_id, question)
        assert answer.returncode == 0, answer.stderr
    return session_id


def test_the_list_is_the_default_and_begins_with_what_was_used_last(footplate: Shell, asked: str) -> None:
    by_default, by_name = footplate("sessions"), footplate("sessions", "list", "-n", "20")
    for_programs = json.loads(footplate("sessions", "-n", "1", "--json").stdout)

    heads, first, *_ = by_default.stdout.splitlines()
    assert heads.split() == ["ID", "LAST", "USED", "TURNS", "ANSWERED", "BY", "TITLE"]
    assert first.startswith(asked)
    assert first.endswith("2      llamacpp/guide  What is a preset?")
    assert by_name.stdout == by_default.stdout
    assert [session["id"] for session in for_programs["sessions"]] == [asked]


def test_the_second_page_goes_on_where_the_first_ends(footplate: Shell, asked: str) -> None:
    older = json.loads(footplate("sessions", "list", "-n", "1", "--json").stdout)["before"]
    footplate("sessions", "new", "newer")

    following = json.loads(footplate("sessions", "list", "--before", older, "--json").stdout)

    assert asked not in [session["id"] for session in following["sessions"]]
    refused = footplate("sessions", "list", "--before", "nonsense")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "no place in the list" in refused.stderr


@pytest.mark.usefixtures("asked")
def test_words_are_found_and_shown_in_their_context(footplate: Shell) -> None:
    found = footplate("sessions", "search", "how", "switch", "runt")
    for_programs = json.loads(footplate("sessions", "search", "PRESET", "--json").stdout)
    nothing = footplate("sessions", "search", "zeppelin")

    first, context, *_ = found.stdout.splitlines()
    assert "turn 2, prompt" in first
    assert first.endswith("guide @ llamacpp")
    assert context == "    How do I switch runtime?"
    snippets = [wire.SearchHit.model_validate(hit) for hit in for_programs["hits"]]
    assert all(hit.snippet[slice(*hit.matches[0])].lower() == "preset" for hit in snippets)
    assert (nothing.returncode, nothing.stdout) == (0, "Nothing is found.\n")


def test_a_session_is_shown_whole_or_its_end(footplate: Shell, asked: str) -> None:
    whole, end = footplate("sessions", "show", asked), footplate("sessions", "show", "last", "--last", "1")

    assert "1. " in whole.stdout
    assert "  > What is a preset?\n\nA preset holds" in whole.stdout
    assert "\n(guide @ llamacpp · " in whole.stdout
    assert "  > What is a preset?" not in end.stdout
    assert "2 turns" in end.stdout


def test_a_fork_is_renamed_deleted_and_restored(footplate: Shell, asked: str) -> None:
    forked = json.loads(footplate("sessions", "fork", asked, "--turn", "1", "--json").stdout)
    renamed = footplate("sessions", "rename", forked["id"], "Another way")
    listed = footplate("sessions").stdout.splitlines()[1]
    deleted = footplate("sessions", "delete", forked["id"])
    gone = footplate("sessions", "show", forked["id"])
    restored = footplate("sessions", "restore", forked["id"])

    assert (forked["forked_from"], forked["forked_turn"], forked["turn_count"]) == (asked, 1, 1)
    assert renamed.stdout == f'{forked["id"]} is now "Another way".\n'
    assert listed.endswith(f"Another way (turns of {asked})")
    assert deleted.stdout.endswith(f"footplate sessions restore {forked['id']}\n")
    assert (gone.returncode, gone.stdout) == (1, "")
    assert f"hint: It was deleted; bring it back: footplate sessions restore {forked['id']}" in gone.stderr
    assert restored.stdout == '"Another way" is back.\n'
    assert footplate("sessions", "show", forked["id"]).returncode == 0


def test_what_is_exported_can_be_imported(footplate: Shell, asked: str, tmp_path: Path) -> None:
    file = tmp_path / "session.json"

    written = footplate("sessions", "export", asked, "--format", "json", "-o", str(file))
    taken = footplate("sessions", "import", str(file))
    for_people = footplate("sessions", "export", asked)

    assert (written.returncode, written.stdout) == (0, "")
    assert taken.stdout.startswith('"What is a preset?" is here as ')
    assert taken.stdout.endswith(", with 2 turns.\n")
    assert for_people.stdout.startswith("# What is a preset?\n\nSession `")
    assert for_people.stdout.count("`llamacpp/guide` on llamacpp · ") == 2
    assert for_people.stdout.count("request `") == 2


def test_what_is_wrong_is_said(footplate: Shell, tmp_path: Path) -> None:
    file = tmp_path / "session.json"
    file.write_text('{"format": "footplate-session", "version": 99}')

    newer = footplate("sessions", "import", str(file))
    missing = footplate("sessions", "show", "nope", "--json")
    too_long = footplate("sessions", "new", "x" * 201)

    assert newer.returncode == 1
    assert "hint: Update Footplate." in newer.stderr
    assert missing.returncode == 1
    assert json.loads(missing.stdout)["error"]["code"] == "not_found"
    assert "title: String should have at most 200 characters." in too_long.stderr


async def test_what_is_set_for_a_session_is_kept(started: Shell) -> None:
    async with FootplateClient(started.paths.socket) as client:
        made = await client.create_session(wire.SessionWish(system="Be brief.", parameters={"seed": 7}))
        changed = await client.change_session(made.id, wire.SessionChange(system=None))

        assert await client.session(made.id, first=1, limit=5) == wire.SessionWithTurns(
            **changed.model_dump(), turns=()
        )
        with pytest.raises(errors.Invalid, match="last does not go with"):
            await client.session(made.id, first=1, limit=5, last=2)
        with pytest.raises(errors.Invalid) as refused:
            await client.fork_session(made.id, wire.ForkWish.model_construct(turn=0, title=None))

    assert (made.system, made.parameters) == ("Be brief.", {"seed": 7})
    assert (changed.system, changed.parameters) == (None, {"seed": 7})
    assert refused.value.param == "turn"


async def test_an_exported_session_comes_back_as_it_was(started: Shell, asked: str) -> None:
    async with FootplateClient(started.paths.socket) as client:
        exported = await client.export_session(asked, "json")
        taken = await client.import_session(exported)
        again = await client.export_session(taken.id, "json")

    assert again.replace(taken.id, asked) == exported
    assert json.loads(exported)["version"] == 2


def test_what_a_model_says_does_not_command_the_terminal() -> None:
    hit = wire.SearchHit(
        session_id="0abc", title="", turn=1, field="answer", snippet="a \x1b[2J b", matches=((7, 8),), at=0.0
    )

    assert "\x1b[2J" not in sessions._marked(hit)


def test_without_sessions_the_list_says_how_to_begin() -> None:
    assert list(sessions.lines([])) == ["There are no sessions yet. Begin one in the terminal: footplate"]
