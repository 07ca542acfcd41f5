"""`footplate switch`, `stop`, `plan` and `switches`, in a pipe, with a real daemon and real engines."""

import asyncio
import io
import json
import re
import signal
import subprocess
import sys

import pytest
from rich.console import Console

from footplate_daemon import wire
from footplate_daemon.client import FootplateClient
from footplate_tui.cli import plan, switch_text, switches
from footplate_tui.cli.watching import Lines, drawing
from tests.cli.conftest import SECONDS, Shell


def active(footplate: Shell) -> str | None:
    return wire.Status.model_validate_json(footplate("status", "--json").stdout).active


def test_there_and_back(footplate: Shell) -> None:
    there = footplate("switch", "second")
    back = footplate("switch", "llamacpp/guide")

    assert (there.returncode, there.stderr) == (0, "")
    first, *steps, last = there.stdout.splitlines()
    assert first == "switching to llamacpp/second"
    assert [step[:13].strip() for step in steps][-3:] == ["start", "load", "warm up"]
    assert last.startswith("llamacpp/second is active (")
    assert re.search(r"\bload \d+\.\d\d", last)
    assert "\x1b" not in there.stdout
    assert back.stdout.splitlines()[-1].startswith("llamacpp/guide is active (")
    assert active(footplate) == "llamacpp/guide"


def test_what_is_active_already_is_not_loaded_again(footplate: Shell) -> None:
    again = footplate("switch", "guide")

    assert (again.returncode, again.stdout) == (0, "llamacpp/guide was active already.\n")


def test_a_runtime_alone_means_the_model_last_used_on_it(footplate: Shell) -> None:
    footplate("switch", "second")
    footplate("stop")

    assert footplate("switch", "llamacpp").stdout.splitlines()[-1].startswith("llamacpp/second is active")


def test_the_context_reaches_the_engine(footplate: Shell) -> None:
    switched = footplate("switch", "second", "--context", "1024")

    assert switched.returncode == 0
    planned = json.loads(footplate("plan", "guide", "--context", "1024", "--json").stdout)
    assert "1024" in planned["command"]


def test_programs_get_the_switch_as_json(footplate: Shell) -> None:
    switched = footplate("switch", "second", "--json")

    switch = wire.Switch.model_validate_json(switched.stdout)
    assert (switched.returncode, switched.stderr) == (0, "")
    assert (switch.variant, switch.outcome, switch.previous) == ("llamacpp/second", "done", "llamacpp/guide")


def test_a_failed_switch_says_why_and_what_helps_and_goes_back(footplate: Shell) -> None:
    failed = footplate("switch", "broken")

    assert failed.returncode == 1
    told = failed.stderr.splitlines()
    assert told[0] == "error: llamacpp/broken did not start: The GGUF file is damaged or incomplete."
    assert "not within the file bounds" in told[1]
    assert told[1].startswith("    ")
    assert told[2] == "What helps:"
    assert told[-2].endswith("Read its log:  footplate logs llamacpp-broken")
    assert told[-1] == "llamacpp/guide is active."
    assert "going back to llamacpp/guide" in failed.stdout
    assert active(footplate) == "llamacpp/guide"


def test_programs_get_the_diagnosis_as_json(footplate: Shell) -> None:
    failed = footplate("switch", "broken", "--json")

    switch = wire.Switch.model_validate_json(failed.stdout)
    assert failed.returncode == 1
    assert switch.diagnosis is not None
    assert switch.diagnosis.code == "corrupt_weights"


def test_a_remedy_is_applied_by_its_number(footplate: Shell) -> None:
    failed = footplate("switch", "greedy")
    remedied = footplate("switch", "--remedy", "1")

    assert failed.returncode == 1
    assert "Use a context of 2048 tokens:  footplate switch --remedy 1" in failed.stderr
    assert remedied.returncode == 0, remedied.stderr
    assert remedied.stdout.splitlines()[-1].startswith("llamacpp/greedy is active")
    assert footplate("ask", "--model", "greedy", "What is a preset?").stdout


def test_a_remedy_that_is_for_the_user_says_what_to_type(footplate: Shell) -> None:
    footplate("switch", "broken")
    newest = json.loads(footplate("switches", "--json").stdout)["switches"]
    failed = next(switch for switch in newest if switch["outcome"] == "failed")
    last = failed["diagnosis"]["remedies"][-1]["id"]

    refused = footplate("switch", "--remedy", str(last), "--of", str(failed["id"]))

    assert refused.returncode == 1
    assert "hint: footplate logs llamacpp-broken" in refused.stderr


def test_a_switch_in_progress_can_be_cancelled(footplate: Shell) -> None:
    begun = footplate("switch", "endless", "--no-wait")
    cancelled = footplate("switch", "--cancel")
    again = footplate("switch", "--cancel")

    assert "to llamacpp/endless goes on" in begun.stdout
    assert cancelled.returncode == 0
    assert cancelled.stderr.startswith("The switch to llamacpp/endless was cancelled. llamacpp/guide is")
    if again.returncode == 0:  # It was quick enough to cancel the way back.
        assert footplate("switch", "guide").returncode == 0
    asyncio.run(until_active(footplate, "llamacpp/guide"))


def test_ctrl_c_takes_the_wish_back(footplate: Shell) -> None:
    switching = footplate.start("switch", "endless")
    assert switching.stdout
    assert switching.stdout.readline() == "switching to llamacpp/endless\n"
    switching.send_signal(signal.SIGINT)

    _, told = switching.communicate(timeout=SECONDS)

    assert switching.returncode == 130
    assert told.startswith("The switch to llamacpp/endless was cancelled. llamacpp/guide is")
    asyncio.run(until_active(footplate, "llamacpp/guide"))


def test_a_newer_wish_wins_and_the_older_one_is_told(footplate: Shell) -> None:
    older = footplate.start("switch", "endless")
    assert older.stdout
    older.stdout.readline()
    newer = footplate("switch", "second")

    _, told = older.communicate(timeout=SECONDS)

    assert newer.returncode == 0
    assert older.returncode == 1
    assert told.startswith("The switch to llamacpp/endless gave way to a newer one.")


def test_stop_unloads_the_active_engine(footplate: Shell) -> None:
    stopped = footplate("stop")
    again = footplate("stop")
    not_running = footplate("stop", "second")
    unknown = footplate("stop", "nope")

    assert stopped.stdout.startswith("llamacpp/guide is stopped (")
    assert (again.returncode, again.stdout) == (0, "Nothing is active.\n")
    assert not_running.returncode == unknown.returncode == 1
    assert json.loads(footplate("status", "--json").stdout)["active"] is None


def test_a_plan_says_what_would_be_stopped_and_stops_nothing(footplate: Shell) -> None:
    planned = footplate("plan", "second")

    lines = planned.stdout.splitlines()
    assert lines[:2] == ["starts  llamacpp/second", "stops   llamacpp/guide"]
    assert any(line.startswith("runs    ") and "second.gguf" in line for line in lines)
    assert active(footplate) == "llamacpp/guide"


def test_switches_lists_what_has_happened(footplate: Shell) -> None:
    footplate("switch", "broken")

    listed = footplate("switches", "-n", "3").stdout.splitlines()

    assert listed[0].split() == ["ID", "BEGAN", "VARIANT", "PRESET", "WHY", "OUTCOME", "TOOK", "CAUSE"]
    assert len(listed) == 4
    assert any("rollback  done" in line for line in listed)
    assert any("failed" in line and "damaged" in line for line in listed)


def test_reload_tells_what_holds_now_or_every_mistake(footplate: Shell) -> None:
    file = footplate.paths.config_file
    written = file.read_text()
    pid = engine_pid(footplate)
    file.write_text(f'[switching]\nidle_unload = "10m"\n{written}')
    taken = footplate("reload")
    file.write_text(f"[switching]\nidle_unlod = 1\npolicy = 3\n{written}")
    refused = footplate("reload")
    as_json = json.loads(footplate("reload", "--json").stdout)
    file.write_text(written)
    back = footplate("reload")

    assert taken.stdout == "The configuration is in force.\n  switching.idle_unload = 600.0\n"
    assert refused.returncode == 1
    assert refused.stdout == footplate_check(footplate, f"[switching]\nidle_unlod = 1\npolicy = 3\n{written}")
    assert refused.stderr == "The daemon keeps the configuration that it had.\n"
    assert [mistake["line"] for mistake in as_json["mistakes"]] == [2, 3]
    assert back.returncode == 0
    assert engine_pid(footplate) == pid


def footplate_check(footplate: Shell, text: str) -> str:
    file = footplate.paths.config_file
    before = file.read_text()
    file.write_text(text)
    try:
        return footplate("config", "check").stdout
    finally:
        file.write_text(before)


@pytest.mark.parametrize(
    "words",
    [
        ["switch"],
        ["switch", "guide", "--cancel"],
        ["switch", "--of", "3"],
        ["switch", "--cancel", "--preset", "x"],
    ],
)
def test_wrong_usage_is_refused(started: Shell, words: list[str]) -> None:
    assert started(*words).returncode == 2


def test_an_unknown_model_is_an_error_with_a_hint(footplate: Shell) -> None:
    refused = footplate("switch", "scond")

    assert refused.returncode == 1
    assert "second" in refused.stderr


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("switch sec", ["second"]),
        ("switch llamacpp/g", ["llamacpp/guide", "llamacpp/greedy"]),
        ("switch llamac", ["llamacpp"]),
        ("plan bro", ["broken"]),
        ("explain llamacpp/sec", ["llamacpp/second"]),
        ("ask --model gui", ["guide"]),
        ("stop llamacpp/", ["llamacpp/guide"]),
    ],
)
def test_the_shell_is_offered_names(footplate: Shell, line: str, offered: list[str]) -> None:
    assert set(offered) <= set(complete(footplate, line).split())


def test_the_shell_is_offered_nothing_when_the_daemon_is_down(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    home = {"FOOTPLATE_HOME": str(tmp_path_factory.mktemp("h"))}

    completed = run_completion(home, "switch g")

    assert (completed.stdout.strip(), completed.stderr) == ("", "")


def complete(footplate: Shell, line: str) -> str:
    return "\n".join(
        entry.partition(",")[2] for entry in run_completion(footplate.environment, line).stdout.splitlines()
    )


def run_completion(environment: dict[str, str], line: str) -> subprocess.CompletedProcess[str]:
    words = f"footplate {line}"
    asked = {
        "_FOOTPLATE_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    return subprocess.run(
        [sys.executable, "-m", "footplate_tui"],
        env={**environment, **asked},
        capture_output=True,
        text=True,
        check=False,
    )


async def until_active(footplate: Shell, variant: str) -> None:
    async with asyncio.timeout(SECONDS), FootplateClient(footplate.paths.socket) as client:
        async for status in client.follow_status():
            if status.active == variant:
                return


def engine_pid(footplate: Shell) -> int | None:
    return wire.Status.model_validate_json(footplate("status", "--json").stdout).engines[0].pid


def steps(*names_and_seconds: tuple[wire.StepName, float | None]) -> tuple[wire.Step, ...]:
    return tuple(wire.Step(name=name, started_at=0, seconds=s) for name, s in names_and_seconds)


def test_a_success_names_the_steps_that_took_time() -> None:
    switch = wire.Switch(
        id=1,
        variant="vllm/a",
        preset="low-vram",
        outcome="done",
        started_at=0,
        ended_at=31.2,
        steps=steps((wire.StepName.FREE_MEMORY, 0.0001), (wire.StepName.LOAD, 31.0)),
    )

    assert switch_text.success(switch) == "vllm/a (preset low-vram) is active (31.2 s: load 31.00)"


def test_evidence_cannot_command_the_terminal() -> None:
    diagnosis = wire.Diagnosis(code="x", cause="It broke.", evidence=("\x1b[2Jgone",))
    switch = wire.Switch(id=1, variant="vllm/a", started_at=0, outcome="failed", diagnosis=diagnosis)

    assert "\x1b" not in "".join(switch_text.failure(switch))


def test_a_switch_without_a_diagnosis_says_that_nobody_knows() -> None:
    switch = wire.Switch(id=1, variant="vllm/a", started_at=0, outcome="failed")

    assert list(switch_text.failure(switch)) == ["vllm/a did not start: nobody knows why."]


def test_the_bar_shows_step_time_gone_time_left_and_the_newest_line() -> None:
    paper = Console(file=io.StringIO(), width=100)
    switch = wire.Switch(
        id=1,
        variant="vllm/a",
        started_at=0,
        steps=steps((wire.StepName.LOAD, None)),
        fraction=0.25,
        eta_seconds=30.0,
        log_tail=("older", "loading shard 1/4\x1b[2J"),
    )

    with paper.capture() as drawn:
        paper.print(drawing(switch, now=10.0))

    first, second = drawn.get().splitlines()
    assert first.startswith("vllm/a ")
    assert first.rstrip().endswith("load · 10.0 s · about 30.0 s left")
    assert second.strip() == "loading shard 1/4␛[2J"


def test_a_step_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    switch = wire.Switch(
        id=1, variant="a/b", started_at=0, steps=steps((wire.StepName.STOP, 0.5), (wire.StepName.LOAD, None))
    )

    lines.show(switch)
    lines.show(switch)

    assert capsys.readouterr().out == "switching to a/b\n  stop         0.50 s\n"


def test_a_plan_that_does_not_fit_says_so() -> None:
    found = wire.Plan(
        variant="vllm/a",
        stops=(),
        needs_bytes=8 * 10**9,
        free_bytes=4 * 10**9,
        fits=False,
        seconds=31.0,
        command=("vllm", "serve", "a b"),
        notes=("Careful.",),
    )

    assert list(plan.lines(found)) == [
        "starts  vllm/a",
        "stops   nothing",
        "memory  8.0 GB of 4.0 GB free: does not fit",
        "takes   about 31.0 s",
        "runs    vllm serve 'a b'",
        "! Careful.",
    ]


def test_no_switches_are_a_heading() -> None:
    assert len(list(switches.lines([]))) == 1
