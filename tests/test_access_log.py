"""The access log: whole lines in groups, files of a bounded size, no keys, and no harm from a full disk."""

import asyncio
import json
import logging
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from footplate_daemon import access_log
from footplate_daemon.access_log import AccessLog, AccessRecord
from footplate_daemon.settings import MASK
from tests.conftest import paths_in

RECORD = AccessRecord(
    at=1_700_000_000.25,
    method="POST",
    target="/v1/chat/completions",
    status=200,
    seconds=1.5,
    bytes_in=120,
    bytes_out=2048,
    client="ci",
    peer="10.0.0.7",
    request_id="req-1",
    model="guide",
    variant="llamacpp/guide",
    outcome="done",
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


def entries(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def write(log: AccessLog, *records: AccessRecord) -> None:
    for record in records:
        log.note(record)
    asyncio.run(log.flush())


def written(file: Path, *records: AccessRecord) -> list[dict[str, Any]]:
    write(AccessLog(file), *records)
    return entries(file)


def test_a_request_is_one_json_object(file: Path) -> None:
    (entry,) = written(file, RECORD)

    assert entry == {
        "time": 1_700_000_000.25,
        "client": "ci",
        "peer": "10.0.0.7",
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "seconds": 1.5,
        "bytes_in": 120,
        "bytes_out": 2048,
        "request_id": "req-1",
        "model": "guide",
        "variant": "llamacpp/guide",
        "outcome": "done",
    }


def test_only_its_owner_may_read_it(file: Path) -> None:
    written(file, RECORD)

    assert file.stat().st_mode & 0o777 == 0o600


async def test_what_was_noted_is_written_when_it_ends(file: Path) -> None:
    log = AccessLog(file)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(log.run())
        await asyncio.sleep(0)
        log.note(RECORD)
        running.cancel()

    assert len(entries(file)) == 1


def test_switched_off_it_writes_nothing(file: Path) -> None:
    log = AccessLog(file, is_on=False)

    write(log, RECORD)

    assert not file.exists()


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/v1/files?limit=5&after=file-1", "/v1/files?limit=5&after=file-1"),
        ("/v1/models?api_key=abc", f"/v1/models?api_key={MASK}"),
        ("/v1/models?api%5Fkey=abc&x=1", f"/v1/models?api%5Fkey={MASK}&x=1"),
        ("/v1/models?access_token=abc", f"/v1/models?access_token={MASK}"),
        ("/v1/models?q=fp-0123456789", f"/v1/models?q={MASK}"),
        ("/v1/models?q=sk-0123456789", f"/v1/models?q={MASK}"),
        ("/v1/models?Bearer%20abc", f"/v1/models?{MASK}"),
        ("/v1/models?fp-0123456789", f"/v1/models?{MASK}"),
    ],
)
def test_what_looks_like_a_key_in_a_query_is_masked(file: Path, target: str, shown: str) -> None:
    (entry,) = written(file, RECORD._replace(target=target))

    assert entry["path"] == shown


def test_a_line_stays_short_and_one_line_whatever_a_client_sends(file: Path) -> None:
    odd = RECORD._replace(target="/" + "x\n\udcff" * 10_000, model="m\r\n" * 1_000_000, method="P" * 9000)

    (entry,) = written(file, odd)

    assert file.stat().st_size < 10_000
    assert entry["model"].startswith("m\r\n")


def test_a_full_file_is_put_aside_and_the_oldest_goes(file: Path) -> None:
    log = AccessLog(file, limit_bytes=1000, files=3)
    for number in range(40):
        write(log, RECORD._replace(request_id=f"req-{number}"))

    files = [file.with_name("access.log.2"), file.with_name("access.log.1"), file]
    numbers = [entry["request_id"] for each in files for entry in entries(each)]
    assert numbers == [f"req-{number}" for number in range(40)][-len(numbers) :]
    assert all(each.stat().st_size <= 1000 for each in files)
    assert sorted(each.name for each in file.parent.iterdir()) == [
        "access.log",
        "access.log.1",
        "access.log.2",
    ]


def test_what_cannot_be_written_is_dropped_with_one_warning(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = AccessLog(file)
    file.mkdir()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            write(log, RECORD)
    file.rmdir()

    write(log, RECORD._replace(request_id="after"))

    assert [record.message for record in caplog.records] == ["the access log is not written"]
    assert [entry["request_id"] for entry in entries(file)] == ["after"]


def test_a_disk_that_fills_leaves_no_half_line(file: Path) -> None:
    program = f"""
from pathlib import Path
from footplate_daemon.access_log import AccessLog
from tests.test_access_log import RECORD, limit_files_to, write

file = Path({str(file)!r})
log = AccessLog(file)
write(log, RECORD)
limit_files_to(file.stat().st_size + 10)
write(log, RECORD)
"""
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True)

    assert len(entries(file)) == 1


def limit_files_to(size: int) -> None:
    """Make writes beyond a size fail, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_person_reads_a_line() -> None:
    line = access_log._line(RECORD).decode()

    shown = access_log.render(line)

    assert "ci@10.0.0.7  POST /v1/chat/completions  200  1.500 s  120 B in, 2048 B out" in shown
    assert shown.endswith("llamacpp/guide  done  req-1")


def test_what_a_client_sent_moves_no_cursor() -> None:
    line = access_log._line(RECORD._replace(target="/\x1b[2J\n")).decode()

    assert access_log.render(line).isprintable()


def test_a_line_that_is_not_ours_is_shown_as_it_is() -> None:
    assert access_log.render("something else\n") == "something else"
    assert access_log.render("[1, 2]") == "[1, 2]"


@pytest.mark.parametrize(("option", "begins"), [((), "20"), (("--json",), '{"time":')])
def test_the_command_line_shows_it(tmp_path: Path, option: tuple[str, ...], begins: str) -> None:
    paths = paths_in(tmp_path)
    paths.logs_dir.mkdir(parents=True)
    written(paths.access_log, RECORD)

    program = Path(sys.executable).with_name("footplate")
    ended = subprocess.run(
        [program, "logs", "access", *option],
        env=os.environ | {"FOOTPLATE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert ended.stdout.startswith(begins)
    assert len(ended.stdout.splitlines()) == 1
