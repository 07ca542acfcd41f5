"""`footplate exchanges` with a real daemon and real engines."""

import csv
import io
import json
import signal
import subprocess
from collections.abc import Iterator

import pytest

from footplate_daemon import wire
from footplate_daemon.client import FootplateClient
from footplate_tui.cli import exchanges
from tests.cli.conftest import SECONDS, Shell

QUESTION = "What is a preset?"


def newest(footplate: Shell, *words: str) -> wire.Exchange:
    (found,) = json.loads(footplate("exchanges", "--json", "--limit", "1", *words).stdout)
    return wire.Exchange.model_validate(found)


def test_a_question_is_listed_with_its_figures(footplate: Shell) -> None:
    footplate("ask", QUESTION)

    listed = footplate("exchanges", "--limit", "1")

    heads, row = listed.stdout.splitlines()
    assert heads.split() == " ".join(exchanges.HEADS).split()
    assert "  done     llamacpp/guide  " in row
    assert row.endswith("  stop")
    assert "  16+29  " in row
    assert "\x1b" not in listed.stdout
    exchange = newest(footplate)
    assert exchange.queue_ms is not None
    assert exchange.ttft_ms is not None
    assert (exchange.streamed, exchange.profile, exchange.http_status) == (True, "own", 200)


def test_one_that_failed_is_listed_with_its_error(footplate: Shell) -> None:
    footplate("ask", "--model", "nope", QUESTION)

    failed = newest(footplate, "--outcome", "failed")

    assert (failed.model_asked, failed.variant) == ("nope", None)
    assert failed.error == 'There is no model "nope".'
    assert failed.hint


@pytest.mark.parametrize(
    ("words", "is_found"),
    [
        (("--runtime", "llamacpp"), True),
        (("--runtime", "vllm"), False),
        (("--model", "guide"), True),
        (("--model", "nobody"), False),
        (("--client", "nobody"), False),
        (("--session", "none"), False),
        (("--since", "1h"), True),
        (("--since", "0s"), False),
    ],
)
def test_the_list_is_narrowed(footplate: Shell, words: tuple[str, ...], is_found: bool) -> None:
    footplate("ask", QUESTION)

    found = json.loads(footplate("exchanges", "--json", *words).stdout)

    assert bool(found) is is_found


def test_an_age_that_is_none_is_explained(footplate: Shell) -> None:
    refused = footplate("exchanges", "--since", "soon")

    assert refused.returncode == 2
    assert '"10m"' in refused.stderr


def test_a_spreadsheet_gets_every_column(footplate: Shell) -> None:
    footplate("ask", QUESTION)

    written = footplate("exchanges", "--csv", "--limit", "1").stdout

    (row,) = csv.DictReader(io.StringIO(written))
    assert tuple(row) == exchanges.COLUMNS
    assert (row["outcome"], row["variant"], row["error"]) == ("done", "llamacpp/guide", "")


def test_one_is_shown_with_question_and_answer(footplate: Shell) -> None:
    answer = footplate("ask", QUESTION).stdout
    number = str(newest(footplate).id)

    shown = footplate("exchanges", "show", number).stdout
    whole = wire.ExchangeWhole.model_validate_json(footplate("exchanges", "show", number, "--json").stdout)

    assert f'"content": "{QUESTION}"' in shown
    assert shown.endswith(f"answer:\n{answer}")
    assert whole.text == answer.rstrip("\n")
    assert whole.answer is not None
    assert (whole.answer.text or "").startswith("data: ")
    assert whole.request is not None
    assert whole.request.value["messages"] == [{"role": "user", "content": QUESTION}]


def test_one_that_is_not_there_is_not_found(footplate: Shell) -> None:
    missing = footplate("exchanges", "show", "1000000", "--json")

    assert missing.returncode == 1
    assert json.loads(missing.stdout)["error"]["code"] == "not_found"


def test_the_same_is_asked_again_of_another_variant(footplate: Shell) -> None:
    answer = footplate("ask", QUESTION).stdout
    number = str(newest(footplate).id)

    replayed = footplate("exchanges", "replay", number, "--variant", "llamacpp/second")
    again = wire.Replay.model_validate_json(footplate("exchanges", "replay", number, "--json").stdout)

    first, *_, last = replayed.stdout.rstrip("\n").split("\n\n")
    assert first.startswith(f"llamacpp/guide ({number}): ")
    assert last.startswith("llamacpp/second (")
    assert replayed.stdout.count(answer.rstrip("\n")) == 2
    assert (again.original.id, again.replay.variant) == (int(number), "llamacpp/guide")
    assert again.replay.ttft_ms is not None
    assert again.replay.client == "replay"
    assert again.replay.text == again.original.text


def test_a_replay_where_the_model_is_not_says_where_it_is(footplate: Shell) -> None:
    footplate("ask", QUESTION)

    refused = footplate("exchanges", "replay", str(newest(footplate).id), "--runtime", "vllm")

    assert refused.returncode == 1
    assert "hint: There is: llamacpp/guide" in refused.stderr


def test_what_was_not_kept_is_not_replayed(footplate: Shell) -> None:
    footplate("ask", QUESTION)
    config = footplate.paths.config_file
    before = config.read_text()
    config.write_text(before + '\n[ledger]\nkeep_bodies = "none"\n')
    footplate("reload")
    try:
        footplate("ask", QUESTION)
        number = str(newest(footplate).id)
        refused = footplate("exchanges", "replay", number)
        shown = footplate("exchanges", "show", number).stdout
    finally:
        config.write_text(before)
        footplate("reload")

    assert refused.returncode == 1
    assert "was not kept" in refused.stderr
    assert "keep_bodies" in refused.stderr
    assert "(not kept)" in shown


@pytest.fixture
def waiting(footplate: Shell) -> Iterator["subprocess.Popen[str]"]:
    """A question to a model that never comes up."""
    with footplate.start("ask", "--model", "endless", QUESTION) as asking:
        yield asking
        asking.kill()


async def test_one_that_waits_is_listed_and_can_be_cancelled(
    footplate: Shell, waiting: "subprocess.Popen[str]"
) -> None:
    wanted = wire.ExchangeFilter(model="endless", outcome="waiting")
    async with FootplateClient(footplate.paths.socket) as client:
        exchange = await anext(client.follow_exchanges(wanted))
    listed = newest(footplate, "--outcome", "waiting")
    cancelled = footplate("exchanges", "cancel", str(exchange.id))
    waiting.wait(SECONDS)
    again = footplate("exchanges", "cancel", str(exchange.id))

    assert (listed.id, listed.queue_ms) == (exchange.id, listed.total_ms)
    assert cancelled.stdout == f"Exchange {exchange.id} is cancelled.\n"
    assert waiting.returncode == 1
    assert newest(footplate, "--model", "endless").outcome == "cancelled"
    assert "has ended: cancelled" in again.stderr


def test_followers_get_a_line_for_each(footplate: Shell) -> None:
    footplate("ask", QUESTION)
    last = newest(footplate).id

    with footplate.start("exchanges", "--follow", "--json", "--limit", "1") as following:
        assert following.stdout is not None
        first = wire.Exchange.model_validate_json(following.stdout.readline())
        footplate("ask", QUESTION)
        then = wire.Exchange.model_validate_json(following.stdout.readline())
        following.send_signal(signal.SIGINT)
        following.wait(SECONDS)

    assert first.id == last
    assert then.id == last + 1
    assert following.returncode == 130
