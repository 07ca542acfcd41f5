"""Up, down, and every state that a crash can leave: with the real supervisord, daemon and engine."""

import asyncio
import os
import signal
import socket
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from footplate_daemon import lifecycle, processes, settings, supervisord
from footplate_daemon.errors import EngineFailed, Invalid
from footplate_daemon.paths import Paths
from footplate_daemon.processes import ProcessId
from tests.conftest import leftovers, paths_in, ready_engine


def identity(pid: int | None) -> ProcessId:
    process = processes.identify(pid or -1)
    assert process
    return process


def supervisord_of(paths: Paths) -> ProcessId:
    return identity(lifecycle.state(paths).supervisord_pid)


def kill_supervisord(paths: Paths) -> ProcessId:
    process = supervisord_of(paths)
    processes.send(process, signal.SIGKILL)
    assert processes.wait_gone([process], 10) == []
    return process


def test_up_answers_and_a_second_up_is_harmless(home: Paths) -> None:
    first = lifecycle.up(home)
    second = lifecycle.up(home)

    assert not first.was_up
    assert second.was_up
    assert first.pid == second.pid == lifecycle.state(home).daemon_pid
    assert lifecycle.state(home).daemon in ("STARTING", "RUNNING")


def test_a_daemon_that_is_slow_to_answer_was_up(home: Paths) -> None:
    first = lifecycle.up(home)
    aside = home.socket.rename(home.socket.with_suffix(".aside"))

    with socket.socket(socket.AF_UNIX) as mute, ThreadPoolExecutor(1) as pool:
        mute.bind(str(home.socket))
        mute.listen()
        second = pool.submit(lifecycle.up, home)
        asking, _ = mute.accept()
        aside.replace(home.socket)
        asking.close()

    assert second.result().was_up
    assert second.result().pid == first.pid


def test_sockets_are_private(home: Paths) -> None:
    lifecycle.up(home)

    modes = [file.stat().st_mode & 0o777 for file in (home.run_dir, home.socket, home.supervisor_socket)]
    assert modes == [0o700, 0o600, 0o600]


def test_down_leaves_nothing_and_may_be_repeated(home: Paths) -> None:
    daemon = identity(lifecycle.up(home).pid)
    engine = identity(asyncio.run(ready_engine(home)).pid)
    parent = supervisord_of(home)

    assert lifecycle.down(home) is True
    assert lifecycle.down(home) is False

    assert not [process for process in (daemon, engine, parent) if processes.is_alive(process)]
    assert leftovers(home) == []
    assert lifecycle.state(home) == lifecycle.State(None, None, None, answers=False)


def test_down_of_a_home_that_never_was_makes_none(tmp_path: Path) -> None:
    assert lifecycle.down(paths_in(tmp_path / "home")) is False

    assert not (tmp_path / "home").exists()


def test_restart_keeps_the_engine(home: Paths) -> None:
    old = lifecycle.up(home)
    engine = asyncio.run(ready_engine(home))

    new = lifecycle.restart(home)

    assert new.pid != old.pid
    assert asyncio.run(ready_engine(home)).pid == engine.pid


def test_restart_of_what_is_down_starts_it(home: Paths) -> None:
    restarted = lifecycle.restart(home)

    assert lifecycle.health(home) == lifecycle.Health(restarted.pid, restarted.version)


def test_up_ends_what_a_killed_supervisord_left(home: Paths) -> None:
    daemon = identity(lifecycle.up(home).pid)
    engine = identity(asyncio.run(ready_engine(home)).pid)
    kill_supervisord(home)

    again = lifecycle.up(home)

    assert again.pid != daemon.pid
    assert not processes.is_alive(daemon)
    assert not processes.is_alive(engine)


def test_down_ends_what_a_killed_supervisord_left(home: Paths) -> None:
    lifecycle.up(home)
    asyncio.run(ready_engine(home))
    kill_supervisord(home)

    assert lifecycle.down(home) is True

    assert leftovers(home) == []


def test_processes_without_a_record_are_ended_too(home: Paths) -> None:
    lifecycle.up(home)
    asyncio.run(ready_engine(home))
    for file in (*home.engines_dir.iterdir(), home.run_dir / "footplated.json"):
        file.unlink()
    kill_supervisord(home)

    assert lifecycle.down(home) is True

    assert leftovers(home) == []


def test_a_supervisord_that_lost_its_socket_is_replaced(home: Paths) -> None:
    daemon = identity(lifecycle.up(home).pid)
    mute = supervisord_of(home)
    home.supervisor_socket.unlink()

    lifecycle.up(home)

    assert not processes.is_alive(mute)
    assert not processes.is_alive(daemon)


def test_stale_sockets_and_pid_files_are_cured(home: Paths) -> None:
    home.make()
    for path in (home.socket, home.supervisor_socket):
        with socket.socket(socket.AF_UNIX) as nobody:
            nobody.bind(str(path))
    (home.run_dir / "supervisord.pid").write_text(f"{os.getpid()}\n")
    (home.run_dir / "footplated.json").write_text("not JSON")

    assert not lifecycle.up(home).was_up


def test_two_ups_at_a_time_start_one_daemon(home: Paths) -> None:
    with ThreadPoolExecutor(2) as pool:
        pids = {found.pid for found in pool.map(lifecycle.up, [home, home])}

    assert len(pids) == 1


def test_a_daemon_that_cannot_start_says_why_and_leaves_nothing(home: Paths) -> None:
    home.make()
    home.config_file.write_text("[daemon]\nlog_level = 7\n")

    with pytest.raises(EngineFailed, match=r"did not come up: .*(?s:.*)log_level"):
        lifecycle.up(home)

    assert leftovers(home) == []


def test_a_daemon_that_gave_up_is_started_again_by_up(home: Paths) -> None:
    first = lifecycle.up(home)
    supervisord.call(home.supervisor_socket, "stopProcess", supervisord.DAEMON)

    second = lifecycle.up(home)

    assert not second.was_up
    assert second.pid != first.pid


@pytest.mark.parametrize("name", ["100%", "a[b]", "a ;b", "a #b"])
def test_a_home_that_supervisord_cannot_express_is_refused(home: Paths, name: str) -> None:
    with pytest.raises(Invalid, match="cannot use a path"):
        lifecycle.up(paths_in(home.run_dir.parent / name))


def test_a_home_with_spaces_and_quotes_works(home: Paths) -> None:
    paths = paths_in(home.run_dir.parent / """it's "a" b""")
    try:
        assert lifecycle.up(paths).pid
        assert asyncio.run(ready_engine(paths)).pid
    finally:
        lifecycle.down(paths)
    assert leftovers(paths) == []


def test_a_socket_path_that_is_too_long_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="Linux allows 107"):
        lifecycle.up(paths_in(tmp_path / ("x" * 100)))


def test_a_folder_that_cannot_be_made_is_named(home: Paths) -> None:
    home.config_dir.parent.mkdir(exist_ok=True)
    home.state_dir.write_text("a file in its place")

    with pytest.raises(Invalid, match=f"cannot write in {home.state_dir}"):
        lifecycle.up(home)


def test_the_first_config_is_all_comments_and_true(home: Paths) -> None:
    lifecycle.up(home)
    written = home.config_file.read_text()

    tables = tomllib.loads(written)
    assert not [table for table in tables.values() if table]
    in_force = "\n".join(
        line.removeprefix("# ") for line in written.splitlines() if line.startswith("[") or " = " in line
    )
    home.config_file.write_text(in_force)
    assert settings.load(home.config_file) == settings.load(home.config_dir / "none.toml")


def test_a_config_of_the_users_is_never_rewritten(home: Paths) -> None:
    home.make()
    home.config_file.write_text("# mine\n")

    lifecycle.up(home)

    assert home.config_file.read_text() == "# mine\n"


def test_supervisord_knows_our_interpreter(home: Paths) -> None:
    daemon = identity(lifecycle.up(home).pid)

    assert processes.command_line(daemon) == (sys.executable, "-m", "footplate_daemon")
