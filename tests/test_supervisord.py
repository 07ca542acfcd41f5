"""Engines under a real supervisord: here they are shells, sleeps and Python one-liners."""

import asyncio
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from footplate_daemon import lifecycle, processes, supervisord
from footplate_daemon.errors import EngineFailed, Invalid, Unavailable
from footplate_daemon.paths import Paths
from footplate_daemon.processes import ProcessId
from footplate_daemon.runtimes.base import Launch
from footplate_daemon.supervisord import EngineRecord, Program, Supervisord

SPAWNS_A_STUBBORN_CHILD = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", '''
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "w").write("ready")
time.sleep(600)''', sys.argv[1]])
time.sleep(600)
"""


STUBBORN = "trap '' TERM; echo ready > $1; while :; do sleep 600; done"
ANSWERS_WHEN_ASKED = "trap 'echo asked; exit' TERM; echo ready > $1; while :; do sleep 600; done"


@pytest.fixture
def said(tmp_path: Path) -> Path:
    """A named pipe that a program writes to and `heard` reads from."""
    pipe = tmp_path / "said"
    os.mkfifo(pipe)
    return pipe


@pytest.fixture
def sv(home: Paths) -> Supervisord:
    """A supervisord without our daemon."""
    home.make()
    start_supervisord(home)
    return Supervisord(home)


def start_supervisord(paths: Paths) -> None:
    conf = (Path(__file__).parent.parent / "supervisor.conf").read_text()
    head = conf[: conf.index("[program:footplated]")]
    paths.supervisor_conf.write_text(f"{head}[program:footplated]\ncommand = sleep 600\nautostart = false\n")
    subprocess.run(
        [sys.executable, "-m", "supervisor.supervisord", "-c", str(paths.supervisor_conf)],
        env={**os.environ, "FOOTPLATE_LOGS": str(paths.logs_dir), "FOOTPLATE_PYTHON": sys.executable},
        check=True,
    )


def program(paths: Paths, *command: str, name: str = "fake-one", **launch: object) -> Program:
    return Program(
        name,
        Launch(command, **{"env": {}, **launch}),  # type: ignore[arg-type]  # a test says what it changes
        supervisord.engine_log(paths, name),
        EngineRecord(name=name, variant="fake/one", runtime="fake", port=1234, api_key="key-1"),
    )


def stranger_process() -> subprocess.Popen[bytes]:
    """Start a process that supervisord knows nothing of, in a group of its own."""
    return subprocess.Popen(["sleep", "600"], process_group=0)


async def heard(said: Path) -> str:
    """Return what the program says, once it has."""
    fd = os.open(said, os.O_RDWR | os.O_NONBLOCK)
    readable = asyncio.Event()
    asyncio.get_running_loop().add_reader(fd, readable.set)
    try:
        async with asyncio.timeout(20):
            await readable.wait()
        return os.read(fd, 65536).decode()
    finally:
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)


async def exit_code(sv: Supervisord, record: EngineRecord) -> int | None:
    async with asyncio.timeout(20):
        return await sv.exited(record)


async def test_a_started_engine_is_recorded_with_its_process(home: Paths, sv: Supervisord) -> None:
    record = await sv.start(program(home, "sleep", "600"))

    assert processes.is_alive(record.process)
    assert os.getpgid(record.pid) == record.pid
    assert supervisord.read_record(home, "fake-one") == record
    assert await sv.running() == [record]


async def test_launch_keys_are_readable_by_the_owner_alone(home: Paths, sv: Supervisord) -> None:
    await sv.start(program(home, "sleep", "600", env={"KEY": "secret"}))

    modes = {file.suffix: file.stat().st_mode & 0o777 for file in home.engines_dir.iterdir()}
    assert modes == {".conf": 0o600, ".sh": 0o600, ".json": 0o600}


@pytest.mark.parametrize(
    "value",
    [
        "100% of %(here)s %%",
        'it\'s "both"',
        "a;b ; c # d",
        "line\nline",
        "$HOME `id` \\",
        "",
        "naïve ✓",
        "'",
        '"',
    ],
)
async def test_environment_and_arguments_arrive_as_they_are(
    home: Paths, sv: Supervisord, said: Path, value: str
) -> None:
    says = "import os, sys; open(sys.argv[1], 'w').write(ascii((os.environ['VALUE'], sys.argv[2])))"

    await sv.start(
        program(
            home,
            sys.executable,
            "-c",
            f"{says}; import time; time.sleep(600)",
            str(said),
            value,
            env={"VALUE": value},
        )
    )

    assert await heard(said) == ascii((value, value))


async def test_paths_may_hold_spaces(home: Paths) -> None:
    root = home.run_dir.parent / "a b"
    paths = Paths.from_environment({"FOOTPLATE_HOME": str(root)})
    paths.make()
    start_supervisord(paths)
    try:
        record = await Supervisord(paths).start(program(paths, "sleep", "600"))
        assert processes.is_alive(record.process)
    finally:
        lifecycle.down(paths)


@pytest.mark.parametrize(
    ("command", "code"), [("exit 3", 3), ("exit 0", 0), ("kill -KILL $$", -9), ("kill -SEGV $$", -11)]
)
async def test_the_exit_code_of_an_engine_is_told(
    home: Paths, sv: Supervisord, command: str, code: int, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    record = await sv.start(program(home, "sh", "-c", f"read line < {shlex.quote(str(go))}; {command}"))

    await asyncio.to_thread(go.write_text, "\n")

    assert await exit_code(sv, record) == code


async def test_the_end_of_a_record_that_is_no_more_is_told_at_once(home: Paths, sv: Supervisord) -> None:
    record = await sv.start(program(home, "sleep", "600"))
    await sv.kill("fake-one")

    assert await exit_code(sv, record) is None


def test_the_end_of_an_engine_is_noticed_on_uvloop_too(home: Paths) -> None:
    home.make()
    start_supervisord(home)

    async def story() -> int | None:
        sv = Supervisord(home)
        record = await sv.start(program(home, "sleep", "600"))
        watch = asyncio.ensure_future(exit_code(sv, record))
        os.kill(record.pid, signal.SIGKILL)
        return await watch

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(story()) == -9


async def test_stop_ends_grandchildren_that_ignore_it(home: Paths, sv: Supervisord, said: Path) -> None:
    record = await sv.start(program(home, sys.executable, "-c", SPAWNS_A_STUBBORN_CHILD, str(said)))
    await heard(said)
    members = processes.group_members(record.process)

    await sv.stop("fake-one")

    assert len(members) == 2
    assert not [member for member in members if processes.is_alive(member)]
    assert list(home.engines_dir.iterdir()) == []
    assert await sv.running() == []


async def test_stop_kills_a_leader_that_ignores_it(home: Paths, sv: Supervisord, said: Path) -> None:
    stubborn = program(home, "sh", "-c", STUBBORN, "sh", str(said), stop_wait_seconds=0)
    record = await sv.start(stubborn)
    await heard(said)

    await sv.stop("fake-one")

    assert not processes.is_alive(record.process)


async def test_what_a_killed_leader_left_is_ended_by_stop(home: Paths, sv: Supervisord, said: Path) -> None:
    record = await sv.start(program(home, sys.executable, "-c", SPAWNS_A_STUBBORN_CHILD, str(said)))
    await heard(said)
    os.kill(record.pid, signal.SIGKILL)
    await exit_code(sv, record)
    orphans = processes.group_members(record.process)

    await sv.stop("fake-one")

    assert len(orphans) == 1
    assert not processes.is_alive(orphans[0])


async def test_kill_asks_nobody(home: Paths, sv: Supervisord, said: Path) -> None:
    record = await sv.start(program(home, "sh", "-c", ANSWERS_WHEN_ASKED, "sh", str(said)))
    await heard(said)

    await sv.kill("fake-one")

    assert not processes.is_alive(record.process)
    assert "asked" not in supervisord.engine_log(home, "fake-one").read_text()


async def test_stopping_what_does_not_run_is_harmless(sv: Supervisord) -> None:
    await sv.stop("nobody")
    await sv.kill("nobody")

    assert await sv.running() == []


async def test_a_second_start_replaces_the_first(home: Paths, sv: Supervisord) -> None:
    first = await sv.start(program(home, "sleep", "600"))

    second = await sv.start(program(home, "sleep", "601"))

    assert not processes.is_alive(first.process)
    assert await sv.running() == [second]
    assert first.fingerprint != second.fingerprint


async def test_a_program_that_ends_at_once_is_an_error_with_its_log(home: Paths, sv: Supervisord) -> None:
    broken = program(home, "sh", "-c", "echo no such weights; exit 7")

    # Whether it is seen by `start` or right after is a race that it may win.
    try:
        code = await exit_code(sv, await sv.start(broken))
    except EngineFailed as error:
        code = error.details["exit_code"]

    assert code == 7


async def test_a_missing_program_is_named(home: Paths, sv: Supervisord) -> None:
    with pytest.raises(EngineFailed, match="no program no-such-thing"):
        await sv.start(program(home, "no-such-thing"))


async def test_a_name_that_supervisord_cannot_hold_is_refused(home: Paths, sv: Supervisord) -> None:
    with pytest.raises(Invalid, match="no name for an engine"):
        await sv.start(program(home, "sleep", "600", name="a b"))


async def test_engines_outlive_us_and_are_adopted(home: Paths, sv: Supervisord) -> None:
    record = await sv.start(program(home, "sleep", "600"))

    assert await Supervisord(home).running() == [record]


async def test_only_what_lives_and_is_listed_is_adopted(home: Paths, sv: Supervisord) -> None:
    good = await sv.start(program(home, "sleep", "600", name="good"))
    dead = await sv.start(program(home, "sleep", "600", name="dead"))
    os.kill(dead.pid, signal.SIGKILL)
    await exit_code(sv, dead)
    bare = await sv.start(program(home, "sleep", "600", name="no-record"))
    (home.engines_dir / "no-record.json").unlink()
    orphan = stranger_process()
    identity = processes.identify(orphan.pid)
    assert identity
    record = replace(good, name="orphan", pid=identity.pid, create_time=identity.create_time)
    supervisord.write_private(home.engines_dir / "orphan.json", record.to_json())

    adopted = await sv.running()

    assert adopted == [good]
    assert not processes.is_alive(bare.process)
    assert orphan.wait(10) == -signal.SIGKILL
    assert {file.stem for file in home.engines_dir.iterdir()} == {"good"}


async def test_a_stranger_with_a_recorded_pid_is_left_alone(home: Paths, sv: Supervisord) -> None:
    stranger = stranger_process()
    record = EngineRecord(name="old", variant="v", runtime="r", port=1, pid=stranger.pid, create_time=1.0)
    supervisord.write_private(home.engines_dir / "old.json", record.to_json())

    assert await sv.running() == []

    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


async def test_without_supervisord_it_is_unavailable(home: Paths) -> None:
    home.make()

    with pytest.raises(Unavailable, match="does not answer"):
        await Supervisord(home).running()


def test_a_fingerprint_ignores_port_and_key() -> None:
    def fingerprint(port: int, key: str, context: int) -> str:
        launch = Launch(("serve", f"--port={port}", "--ctx", str(context)), {"KEY": key})
        record = EngineRecord(name="n", variant="v", runtime="r", port=port, api_key=key)
        return supervisord.fingerprint(launch, record)

    assert fingerprint(18001, "one", 2048) == fingerprint(18002, "two", 2048)
    assert fingerprint(18001, "one", 2048) != fingerprint(18001, "one", 4096)


def test_a_process_of_another_time_is_not_alive() -> None:
    me = processes.identify(os.getpid())

    assert me
    assert processes.is_alive(me)
    assert not processes.is_alive(ProcessId(me.pid, me.create_time - 1))
